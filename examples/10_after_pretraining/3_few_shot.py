# %% [markdown]
# # Zero-shot and few-shot: learning from a prompt, without a change of a weight
#
#     zero-shot   q                  a question alone: which letter comes next?
#     few-shot    bqzd qzdm q        examples first, then the question
#
# A large language model solves new tasks after a few examples in its prompt (Brown et al. 2020). No
# weight changes meanwhile. Where, then, is what the model has learned? This lesson trains a small
# GPT in seconds. Its task can be solved from the prompt alone. Then the lesson counts right answers
# by the number of examples, and compares the weights before and after.
#
#     B texts   T time (letters)   V vocabulary

# %%
from hashlib import sha256
from itertools import pairwise

import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import optim
from tinygpt.ids import IGNORED

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads
tokenizer = tinygpt.CharacterTokenizer("abcdefghijklmnopqrstuvwxyz ")
LETTERS, SPACE = 26, 26  # the space is the token after them
CIRCLE, WORD, WORDS = 5, 4, 6  # letters of a circle, letters of a word, words of a text
T = WORDS * (WORD + 1)

# %% [markdown]
# ## 1. Each text has a rule of its own
#
# The rule is a circle of five letters, drawn anew for each text. A word takes four letters along
# the circle, from any letter on. There are 1.6 million circles. A tenth is kept back: those whose
# letters, as numbers, add up to a multiple of 10. No text to learn from has such a circle.
#
# A letter is an answer to the letter before it. The answer can be known if the two stood together
# in an earlier word. Only such answers count in the loss. In the words below they are capitals.


# %%
def draw_text(generator, held_out):
    """Three lists of T + 1: the tokens, how many words come before an answer (-1: no answer), and
    whether they show it.
    """
    while True:
        circle = generator.permutation(LETTERS)[:CIRCLE]
        if (circle.sum() % 10 == 0) == held_out:
            break
    tokens, examples, known, seen = [], [], [], set()
    for number, start in enumerate(generator.integers(0, CIRCLE, (WORDS + 1,))):
        word = circle[(start + np.arange(WORD)) % CIRCLE].tolist()
        tokens += [*word, SPACE]
        examples += [-1, *[number] * (WORD - 1), -1]
        known += [False, *[pair in seen for pair in pairwise(word)], False]
        seen.update(pairwise(word))
    return tokens[: T + 1], examples[: T + 1], known[: T + 1]


def draw_texts(count, seed, held_out):
    """(count, T + 1) each"""
    generator = tensor.Generator(seed)
    texts = [draw_text(generator, held_out) for _ in range(count)]
    return [np.array(column) for column in zip(*texts, strict=True)]


tokens, examples, known = draw_texts(1000, 1, held_out=True)
for row in range(3):
    letters = tokenizer.decode(tokens[row].tolist())
    print("".join(np.where(known[row], list(letters.upper()), list(letters))))

# %% [markdown]
# ## 2. Training on texts that never come again
#
# Each step sees 32 new texts. To learn circles by heart would not help.

# %%
STEPS, BATCH = 500, 32
config = tinygpt.GPTConfig(tokenizer.size, T, width=32, heads=2, layers=2, positions="sinusoidal")
model = tinygpt.GPT(config, generator=tensor.Generator(0))
optimizer = optim.Muon(model, lr=0.04)
new, _, counts = draw_texts(STEPS * BATCH, 0, held_out=False)
targets = np.where(counts, new, IGNORED)
for step in range(STEPS):
    optimizer.lr = optim.warmup_cosine(step, peak=0.04, warmup=40, total=STEPS)
    rows = slice(step * BATCH, (step + 1) * BATCH)
    optimizer.zero_grad()
    loss = model.loss(new[rows, :-1], targets[rows, 1:])
    loss.backward()
    optim.clip_gradients(model, 1.0)
    optimizer.step()
    if (step + 1) % 100 == 0:
        print(f"step {step + 1}: loss {loss.item():.3f}")

# %% [markdown]
# ## 3. Right answers, by the number of examples
#
# The table is about 1,000 texts whose circles were kept back. With no example the model can only
# guess: zero-shot fails, because nothing in the weights says which letter comes after q in this
# circle. Each example shows three more of the five answers, and the model takes nearly all that can
# be known. The hash proves that the weights are the same before and after.


# %%
def hash_of(model):
    weights = [weight.numpy().tobytes() for weight in model.parameters()]
    return sha256(b"".join(weights)).hexdigest()[:16]


before = hash_of(model)
with tensor.no_grad():
    likeliest = model(tokens[:, :-1]).numpy().argmax(axis=-1)
right = likeliest == tokens[:, 1:]
print("\nexamples   right   can be known")
share = {}
for count in range(WORDS):
    asked = examples[:, 1:] == count
    share[count] = right[asked].mean()
    print(f"{count:8} {share[count]:7.1%} {known[:, 1:][asked].mean():14.1%}")
print(f"a guess  {1 / LETTERS:7.1%}")
print(f"weights  {before} before, {hash_of(model)} after")
assert share[0] < 1 / LETTERS + 0.05
assert share[1] > 0.5
assert share[4] > 0.9
assert hash_of(model) == before

# %% [markdown]
# ## 4. The same question, other examples, another answer
#
# So the prompt alone decides. What the model learns from a prompt is in its activations: the keys
# and values of attention for the words before. They are gone with the prompt, and the next prompt
# starts from nothing. The lesson 4_induction_heads shows how attention does this.


# %%
def answer(prompt):
    return tokenizer.decode(model.generate(tokenizer.encode(prompt), 1, temperature=0)[-1:])


print()
for prompt in ("bqzd qzdm q", "wqex kwqe q"):
    print(f"{prompt} -> {answer(prompt)}")
assert answer("bqzd qzdm q") == "z"
assert answer("wqex kwqe q") == "e"

# %% [markdown]
# ## 5. For comparison: learning in the weights
#
# Twenty steps of gradient descent put the circle b q z d m into the weights. Now the model needs no
# example for this circle. But each of these steps has changed the weights, and so the answers to
# other prompts, too.

# %%
circle = "bqzdm"
questions = np.array([tokenizer.encode(letter) for letter in circle])
answers = np.roll(questions, -1, axis=0)
zero_shot = [answer(letter) for letter in circle]
optimizer = optim.AdamW(model, lr=3e-3)
for _ in range(20):
    optimizer.zero_grad()
    model.loss(questions, answers).backward()
    optimizer.step()
after = [answer(letter) for letter in circle]
with tensor.no_grad():
    likeliest = model(tokens[:, :-1]).numpy().argmax(axis=-1)
asked = examples[:, 1:] == 4
now = (likeliest == tokens[:, 1:])[asked].mean()
print(f"\nanswers to {' '.join(circle)} without an example: {' '.join(zero_shot)}")
print(f"after 20 steps:                        {' '.join(after)}")
print(f"weights {hash_of(model)}: changed")
print(f"right answers to other circles with 4 examples: {share[4]:.1%}, now {now:.1%}")
assert after == list("qzdmb")
assert hash_of(model) != before
