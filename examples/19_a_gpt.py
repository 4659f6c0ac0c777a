"""A GPT learns the story in a few seconds.

    loss = mean of -ln p(next character | all characters before it in the window)

Before training it knows nothing, and its loss is near ln V. No model can go below the floor: in the first characters of a window it is
not yet clear where in the story it lies. Everything used here is built of what the lessons before showed; the model is tinygpt/model.py.
"""

import math
import time

from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import optim

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads, which wait for each other
tensor.manual_seed(0)
context, batch, steps = 32, 16, 200
text = tinygpt.story()
tokenizer = tinygpt.CharacterTokenizer(text)
ids = tokenizer.encode(text)
x, y = tinygpt.windows(ids, context)  # (N, T) each, y one character on
print(f"{len(ids)} characters, {len(x)} windows of {context}. The first one, and what it is to answer:\n")
print("x ", repr(tokenizer.decode(x[0])), "\ny ", repr(tokenizer.decode(y[0])))

config = tinygpt.GPTConfig(vocabulary=tokenizer.size, context=context, width=32, heads=4, layers=2)
model = tinygpt.GPT(config)
print(f"\n{sum(p.size for p in model.parameters()):,} parameters:\n")
for name, parameter in model.named_parameters():
    if not name.startswith("blocks.1"):  # like blocks.0
        print(f"    {name:40} {parameter.shape}")


def show(temperature):
    prompt = "The cat sat on the"
    written = model.generate(tokenizer.encode(prompt), 60, temperature=temperature, generator=tensor.Generator(1))
    print(f"    temperature {temperature}:  {prompt}|{tokenizer.decode(written[len(prompt) :])}")


print("\nBefore training it writes:\n")
show(temperature=1.0)

floor = tinygpt.floor(ids, context)
print(f"\nTraining. Knowing nothing is ln {tokenizer.size} = {math.log(tokenizer.size):.3f} nats a character, the floor is {floor:.3f}.\n")
optimizer = optim.AdamW(model, lr=1e-2, weight_decay=0.1)
generator = tensor.Generator(0)
start = time.perf_counter()
for step in range(steps + 1):
    rows = generator.integers(0, len(x), (batch,))
    optimizer.lr = optim.warmup_cosine(step, peak=1e-2, warmup=20, total=steps)
    optimizer.zero_grad()
    loss = model.loss(x[rows], y[rows])
    loss.backward()
    optim.clip_gradients(model, 1.0)
    optimizer.step()
    if step % 25 == 0:
        print(f"step {step:3}   loss {loss.item():6.3f}   {'#' * round(20 * loss.item())}")
print(f"\n{time.perf_counter() - start:.1f} s. The same model now writes:\n")
show(temperature=1.0)
show(temperature=0)

with tensor.no_grad():
    print(f"\nLoss over all windows: {model.loss(x, y).item():.3f}, the floor {floor:.3f}.")
print("\nNext: `tinygpt train`, which does this with a progress bar, and `tinygpt train --text FILE`, with a text of yours.")
