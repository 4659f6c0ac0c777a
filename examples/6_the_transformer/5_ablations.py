# %% [markdown]
# # Ablations: take one part away, and measure what is lost
#
# A part of a model is worth what the model loses without it. This lesson trains one small GPT in
# seven forms. Each form differs in one part. All have the same data, the same steps and the same
# start of the random numbers. The data come from a rule, so the lowest possible loss is known.
#
#     B batch   T time   C width   V vocabulary

# %%
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import Tensor, nn, optim

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads

# %% [markdown]
# ## 1. A language made by a rule
#
# It has six letters. The letters two and three places back decide the next letter, by a table that
# is drawn at random. One letter in ten is random instead. So a model must find two letters by their
# position, and combine them. It cannot foresee the random letters: they set the floor.

# %%
V, T, NOISE = 6, 10, 0.1
letters = "abcdef"
table = np.random.default_rng(1).integers(0, V, (V, V))  # row: two back, column: three back


def lines(count, generator):
    """x, y: (count, T). The first two targets are -1: nothing decides them."""
    text = generator.integers(0, V, (count, T + 1))
    random = generator.uniform((count, T + 1)) < NOISE
    for t in range(3, T + 1):
        by_rule = table[text[:, t - 2], text[:, t - 3]]
        text[:, t] = np.where(random[:, t], text[:, t], by_rule)
    y = text[:, 1:].copy()
    y[:, :2] = -1
    return text[:, :-1], y


x, y = lines(3, tensor.Generator(0))
for row in x:
    print("".join(letters[i] for i in row))
p = 1 - NOISE + NOISE / V  # a random letter is right by chance one time in V
floor = -p * np.log(p) - (1 - p) * np.log((1 - p) / (V - 1))
print(f"\nfloor {floor:.3f}; a model that knows nothing has ln {V} = {np.log(V):.3f}")

# %% [markdown]
# ## 2. Seven forms of one model
#
# The complete model has one block, four heads and width 32. Two small modules take the places of
# parts that are removed.


# %%
class Nothing(nn.Module):
    """Adds 0 to the stream."""

    def __call__(self, x, *_):
        return x * 0.0


class EqualWeights(nn.Module):
    """Attention that cannot choose: each token takes the mean of all tokens up to itself."""

    def __init__(self, width):
        self.value, self.projection = nn.Linear(width, width), nn.Linear(width, width)

    def __call__(self, x, *_):
        seen = np.tri(x.shape[1], dtype=np.float32)
        return self.projection(Tensor(seen / seen.sum(axis=1, keepdims=True)) @ self.value(x))


complete = tinygpt.GPTConfig(vocabulary=V, context=T, width=32, heads=4, layers=1)
CONFIGS = {
    "one head": replace(complete, heads=1),
    "ReLU for GELU": replace(complete, activation="relu"),
    "no positions": replace(complete, positions="sinusoidal", scaled=False),
}


def model_without(what):
    """The model in one of its forms."""
    tensor.manual_seed(0)
    model = tinygpt.GPT(CONFIGS.get(what, complete))
    (block,) = model.blocks
    if what == "no positions":
        model.position_embedding[...] = 0.0  # sinusoids do not learn, so it stays 0
    if what == "no attention":
        block.attention = Nothing()
    if what == "equal weights":
        block.attention = EqualWeights(complete.width)
    if what == "no feed-forward":
        block.feed_forward = Nothing()
    return model


all_x, all_y = lines(9600, tensor.Generator(1))  # 300 batches of 32: each line is used once


def train(model, steps=300):
    optimizer = optim.AdamW(model, lr=2e-2, weight_decay=0.0)
    for step in range(steps):
        optimizer.lr = optim.warmup_cosine(step, peak=2e-2, warmup=20, total=steps)
        rows = slice(32 * step, 32 * step + 32)
        optimizer.zero_grad()
        model.loss(all_x[rows], all_y[rows]).backward()
        optim.clip_gradients(model, 1.0)
        optimizer.step()


# %% [markdown]
# ## 3. The table
#
# The loss is that of 500 new lines.

# %%
FORMS = (
    "complete",
    "ReLU for GELU",
    "no feed-forward",
    "one head",
    "no positions",
    "equal weights",
    "no attention",
)
new_x, new_y = lines(500, tensor.Generator(2))
losses = {}
print("\nform              parameters    loss   above the floor")
for what in FORMS:
    model = model_without(what)
    train(model)
    with tensor.no_grad():
        losses[what] = model.loss(new_x, new_y).item()
    count = sum(parameter.size for parameter in model.parameters())
    bar = "#" * round(20 * (losses[what] - floor))
    print(f"{what:17} {count:10,}   {losses[what]:.3f}   {losses[what] - floor:6.3f} {bar}")

# %% [markdown]
# - ReLU and GELU do not differ here.
# - Without the feed-forward the two letters cannot be combined freely
#   (6_the_transformer/1_feed_forward.py).
# - With equal weights a token knows which letters came before, but not where they stood.
# - Without positions attention can choose by letter, but not by place.
# - One head has one set of weights, and here two places are needed at once.
# - Without attention a token sees only itself, and the rule does not use this letter.

# %%
assert floor < losses["complete"] < floor + 0.15
assert abs(losses["ReLU for GELU"] - losses["complete"]) < 0.1
for what in ("no feed-forward", "one head", "no positions", "equal weights", "no attention"):
    assert losses[what] > losses["complete"] + 0.1, what
assert losses["no attention"] > losses["equal weights"]

# %% [markdown]
# ## 4. Another text, another order
#
# An ablation says what a part is worth for one text and one number of steps. For the story of this
# course (two blocks, 150 steps, medians of three starts) the losses are:
#
#     complete   ReLU   no positions   one head   equal weights   no feed-forward   no attention
#     0.18       0.14   0.21           0.25       0.30            0.30              1.17
#
# There positions matter little, because of the causal mask. The first token sees only itself, the
# second sees two tokens, and so on. So after one block the streams of equal tokens differ, and a
# second block can tell orders apart. One block cannot:

# %%
for blocks in (1, 2):
    config = replace(CONFIGS["no positions"], layers=blocks)
    model = tinygpt.GPT(config, generator=tensor.Generator(0))
    model.position_embedding[...] = 0.0
    with tensor.no_grad():
        a, b = (model(order, last=True).numpy() for order in ([0, 1, 2, 3], [1, 2, 0, 3]))
    print(
        f"{blocks} block(s): abcd and bcad, largest difference of logits {np.abs(a - b).max():.0e}"
    )
    assert np.allclose(a, b, atol=1e-6) == (blocks == 1)
