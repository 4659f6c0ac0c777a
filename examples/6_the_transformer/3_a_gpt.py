# %% [markdown]
# # A GPT learns the story in a few seconds
#
#     loss = mean of -ln p(next character | all characters before it in the window)
#
# This lesson uses what earlier lessons explained: windows (1_text/2_blocks_and_pairs.py),
# positions, attention, the block, softmax and loss. The model is in tinygpt/model/gpt.py.

# %%
import math
import textwrap
import time

from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import optim

# matrix products this small are slower on several threads, which wait for each other
threadpool_limits(1, user_api="blas")
tensor.manual_seed(0)

# %% [markdown]
# ## 1. The text, as windows x and right answers y

# %%
context, batch, steps = 32, 16, 200
text = tinygpt.story()
tokenizer = tinygpt.CharacterTokenizer(text)
ids = tokenizer.encode(text)
x, y = tinygpt.windows(ids, context)  # (N, T) each, y one character on
print(
    f"{len(ids)} characters, {len(x)} windows of {context}. "
    "The first one, and what it is to answer:\n"
)
print("x ", repr(tokenizer.decode(x[0])), "\ny ", repr(tokenizer.decode(y[0])))

# %% [markdown]
# ## 2. The model: two blocks, four heads, width 32
#
# The head computes logits from the result of the last block. It has no matrix of its own: it is
# "tied", which means that it uses the token table, transposed.

# %%
config = tinygpt.GPTConfig(vocabulary=tokenizer.size, context=context, width=32, heads=4, layers=2)
model = tinygpt.GPT(config)
print(
    f"\n{sum(p.size for p in model.parameters()):,} parameters "
    "(blocks.1 has the same again as blocks.0):\n"
)
for name, parameter in model.named_parameters():
    if not name.startswith("blocks.1"):
        print(f"    {name:40} {parameter.shape}")
shapes = [[p.shape for p in block.parameters()] for block in model.blocks]
assert shapes[0] == shapes[1]

# %% [markdown]
# ## 3. Before training
#
# The model knows nothing: the V characters of the vocabulary are about equally likely, and the loss
# is near ln V.

# %%
prompt = "The cat sat on the"


def write(temperature):
    """60 characters more. Temperature 1 draws as the model says, 0 takes the likeliest each time:
    7_training/2_generation.py.
    """
    written = model.generate(
        tokenizer.encode(prompt), 60, temperature=temperature, generator=tensor.Generator(1)
    )
    return tokenizer.decode(written[len(prompt) :])


def loss_over_all():
    with tensor.no_grad():
        return model.loss(x, y).item()


know_nothing, floor = math.log(tokenizer.size), tinygpt.floor(ids, context)
print(f"\nbefore training, drawn at temperature 1:\n    {prompt}|{write(1.0)}")
print(
    f"loss {loss_over_all():.3f}; knowing nothing is ln {tokenizer.size} = {know_nothing:.3f} "
    "nats a character"
)
assert abs(loss_over_all() - know_nothing) < 0.1

# %% [markdown]
# ## 4. Training
#
# The floor is a lower bound of the loss: the first characters of a window do not yet show where in
# the story the window is. Each step takes a few random windows. AdamW gives each weight a learning
# rate of its own. The rate rises at first (warm-up), then falls along a cosine. If all gradients
# together are too large, they are scaled down (clipped).

# %%
optimizer = optim.AdamW(model, lr=1e-2, weight_decay=0.1)
generator = tensor.Generator(0)
start = time.perf_counter()
print()
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
seconds = time.perf_counter() - start

# %% [markdown]
# ## 5. After training

# %%
print(f"\nafter {seconds:.1f} s, drawn at temperature 1:\n    {prompt}|{write(1.0)}")
print(f"at temperature 0:\n    {prompt}|{write(0)}")
print(f"loss over all windows {loss_over_all():.3f}, the floor {floor:.3f}")
assert floor < loss_over_all() < floor + 0.15
assert write(0).startswith(" mat. The dog ran in the park.")
print()
print(
    textwrap.fill(
        "Next: `tinygpt train`, which does this with a progress bar, "
        "and `tinygpt train --text FILE`, with a text of yours.",
        98,
    )
)
