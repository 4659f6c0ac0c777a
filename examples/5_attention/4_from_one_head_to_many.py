# %% [markdown]
# # From one trainable head to many, in four steps
#
#     1. one head           head(x) = softmax(q k^T / sqrt(D)) v         q, k, v = x Wq, x Wk, x Wv
#     2. several heads      the same, H times, each with weights of its own and a width of C / H
#     3. concatenation      the results side by side: (B, T, C) again
#     4. projection         y = [head_1, ..., head_H] W
#
# 5_attention/2_attention_by_hand.py computed attention. Here attention learns. The tasks have known
# answers: the first needs one head, and the second needs two. Each step is one small module. The
# last module equals the attention of the GPT.
#
#     B batch   T time   C width   H heads   D head width, C / H

# %%
import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import Tensor, nn, optim
from tinygpt.model.attention import Attention

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads

# %% [markdown]
# ## 1. The task: who chased, and who was chased?
#
# A line holds six animals, in any order. One of them chases, and one is chased. The last token is a
# question mark, and there the model answers. A token enters as the sum of two rows: a row for the
# animal, and a row for its part (none, chases, is chased).

# %%
names = (
    "ant bat bee boa cat cow cub dog eel elk emu ewe fly "
    "fox gnu hen hog jay kid owl pig ram rat roe sow yak"
)
ANIMALS = names.split()
PARTS = ("", " chases", " is chased")
V, T, C = len(ANIMALS), 7, 12
QUESTION = V  # the id of the question mark


def lines(count, generator):
    """animals, parts: (count, T)   answers: (count, 2), who chases and who is chased"""
    animals = generator.integers(0, V, (count, T))
    animals[:, -1] = QUESTION
    parts, rows = np.zeros((count, T), int), np.arange(count)
    who = generator.integers(0, T - 1, (count,))
    whom = (who + 1 + generator.integers(0, T - 2, (count,))) % (T - 1)  # another place
    parts[rows, who], parts[rows, whom] = 1, 2
    return animals, parts, np.stack([animals[rows, who], animals[rows, whom]], axis=1)


def words(animals, parts):
    return [
        "?" if animal == QUESTION else ANIMALS[animal] + PARTS[part]
        for animal, part in zip(animals, parts, strict=True)
    ]


animals, parts, answers = lines(3, tensor.Generator(1))
for line in range(3):
    chaser, chased = (ANIMALS[i] for i in answers[line])
    print(", ".join(words(animals[line], parts[line])), "->", chaser, chased)

# %% [markdown]
# ## 2. One head as a module
#
# The three matrices are its weights. Training finds them.


# %%
class Head(nn.Module):
    """y = softmax(q k^T / sqrt(D), the future masked) v.   x: (B, T, C)   y: (B, T, D)"""

    def __init__(self, width, head_width):
        self.query = nn.Linear(width, head_width, bias=False)
        self.key = nn.Linear(width, head_width, bias=False)
        self.value = nn.Linear(width, head_width, bias=False)

    def weights(self, x):
        """How much query t takes from key s: (B, T, T)."""
        q, k = self.query(x), self.key(x)  # (B, T, D)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        future = np.triu(np.ones((x.shape[1], x.shape[1]), bool), 1)
        return scores.masked_fill(future, float("-inf")).softmax(-1)

    def __call__(self, x):
        return self.weights(x) @ self.value(x)


class EqualWeights(Head):
    """A head that cannot choose: it takes the same from each token."""

    def weights(self, x):
        seen = np.tri(x.shape[1], dtype=np.float32)
        return Tensor(seen / seen.sum(1, keepdims=True))


class Model(nn.Module):
    """The two tables, an attention, and a layer that reads the answers at the question mark."""

    def __init__(self, attention, answers):
        self.animal, self.part = nn.Embedding(V + 1, C), nn.Embedding(len(PARTS), C)
        self.attention, self.read = attention, nn.Linear(C, answers * V)

    def __call__(self, animals, parts):
        y = self.attention(self.animal(animals) + self.part(parts))  # (B, T, C)
        return self.read(y[:, -1]).view(len(animals), -1, V)  # (B, answers, V)


def train(attention, answers, steps=300):
    """The model after training, and how many of 1,000 new lines it answers without a mistake."""
    model = Model(attention, answers)
    optimizer, batches = optim.AdamW(model, lr=2e-2, weight_decay=0.0), tensor.Generator(0)
    for step in range(steps):
        optimizer.lr = optim.warmup_cosine(step, peak=2e-2, warmup=20, total=steps)
        animals, parts, right = lines(64, batches)
        optimizer.zero_grad()
        tensor.cross_entropy(model(animals, parts), right[:, :answers]).backward()
        optimizer.step()
    animals, parts, right = lines(1000, tensor.Generator(7))
    found = model(animals, parts).numpy().argmax(-1) == right[:, :answers]
    return model, int(found.all(axis=1).sum())


# %% [markdown]
# The first question is only: who chases? The head must choose one token of six. A head with equal
# weights gets the mixture of all six animals, and cannot tell which one chases.

# %%
tensor.manual_seed(0)
equal, equal_right = train(EqualWeights(C, C), 1)
model, right = train(Head(C, C), 1)
print(f"\nwho chases? right in 1,000 new lines: equal weights {equal_right}, one head {right}")
assert right > 990
assert equal_right < 600
animals, parts, _ = lines(1, tensor.Generator(1))
x = model.animal(animals) + model.part(parts)
looks = model.attention.weights(x).numpy()[0, -1]
print("the question mark looks at:")
for word, weight in zip(words(animals[0], parts[0]), looks, strict=True):
    print(f"    {word:16} {weight:.3f}")
assert looks[parts[0] == 1] > 0.9

# %% [markdown]
# ## 3. Two questions need two heads
#
# Who chases, and who is chased? One head has one set of weights. If it looks at one of the two
# animals, it must guess the other. If it takes a mixture of both, it must tell them apart in the
# mixture. Two heads of half the width have as many weights, and each can look at one of the two.


# %%
class Heads(nn.Module):
    """The results of H heads side by side.   x, y: (B, T, C)"""

    def __init__(self, width, heads):
        self.heads = [Head(width, width // heads) for _ in range(heads)]

    def __call__(self, x):
        return tensor.concatenate([head(x) for head in self.heads], axis=-1)


print("\nBoth questions, from three different starts. Lines of 1,000 with both answers right:")
for H in (1, 2):
    right = []
    for seed in (1, 2, 3):
        tensor.manual_seed(seed)
        model, both = train(Heads(C, H), 2)
        right.append(both)
    count = sum(p.size for p in model.attention.parameters())
    print(f"    {H} x width {C // H:2}, {count} weights: {right}")
    assert max(right) < 950 if H == 1 else min(right) > 950
x = model.animal(animals) + model.part(parts)
columns = [f"{word:>4}" for word in words(animals[0], parts[0])]
print("the question mark looks at:\n          ", "  ".join(columns))
most = set()
for number, head in enumerate(model.attention.heads, start=1):
    looks = head.weights(x).numpy()[0, -1]
    shares = (f"{look:{len(column)}.2f}" for look, column in zip(looks, columns, strict=True))
    print(f"    head {number}", "  ".join(shares))
    most.add(PARTS[parts[0, looks.argmax()]])
assert most == {" chases", " is chased"}

# %% [markdown]
# ## 4. All heads in one product
#
# A product with matrices side by side is the products side by side. So the queries of all heads are
# one product with one matrix, and queries, keys and values together are one too. The engine has one
# op for what remains: `multi_head_attention`. It takes q, k and v of all heads in one array,
# (B, T, 3C).

# %%
heads = model.attention.heads
Wqkv = tensor.concatenate(
    [
        *(head.query.weight for head in heads),
        *(head.key.weight for head in heads),
        *(head.value.weight for head in heads),
    ],
    axis=1,
)  # (C, 3C)
apart = model.attention(x)
together = tensor.multi_head_attention(x @ Wqkv, heads=2, causal=True)
off = np.abs(apart.numpy() - together.numpy()).max()
print(f"\ntwo Head modules, and one op: largest difference {off:.0e}")
assert off < 1e-5

# %% [markdown]
# ## 5. The output projection: where a head may write
#
# After concatenation head 1 has columns 0 to 5, and head 2 has columns 6 to 11. In a GPT the result
# is added to the stream x. Without a projection each head could change only its own columns. With
# the matrix W each head can write into all columns. The rows of W that belong to a head are a
# matrix for this head alone:
#
#     [head_1, head_2] W = head_1 W[:6] + head_2 W[6:]

# %%
D = C // 2
projection = nn.Linear(C, C, bias=False)
one, two = (head(x) for head in heads)
projected = projection(apart)
by_head = one @ projection.weight[:D] + two @ projection.weight[D:]
print("\n[head_1, head_2] W, and the sum by head: ", end="")
print(f"largest difference {np.abs(projected.numpy() - by_head.numpy()).max():.0e}")
assert np.allclose(projected.numpy(), by_head.numpy(), atol=1e-5)

# Which columns of the result depend on head 1? Take head 1 away, and compare.
without_one = tensor.concatenate([one * 0.0, two], axis=-1)
reach = {
    "without a projection": (apart - without_one).numpy(),
    "with a projection": (projected - projection(without_one)).numpy(),
}
for name, change in reach.items():
    columns = np.flatnonzero(np.abs(change[0, -1]) > 0)
    print(f"{name:20}: head 1 changes {len(columns)} of {C} columns")
    assert len(columns) == (D if name == "without a projection" else C)

# %% [markdown]
# ## 6. This is the attention of the GPT
#
# The model's module has the same two matrices, with biases (0 at first). It gives the same result.

# %%
config = tinygpt.GPTConfig(vocabulary=V, context=T, width=C, heads=2, layers=1)
attention = Attention(config)
with tensor.no_grad():
    attention.qkv.weight[...] = Wqkv
    attention.qkv.bias[...] = 0.0
    attention.projection.weight[...] = projection.weight
    attention.projection.bias[...] = 0.0
off = np.abs(attention(x).numpy() - projected.numpy()).max()
print(f"\ntinygpt's Attention with these weights: largest difference {off:.0e}")
assert off < 1e-5
print("weights of attention, whatever the number of heads: 3 C^2 + C^2 =", 4 * C * C)
for H in (1, 2, 3, 4):
    config = tinygpt.GPTConfig(vocabulary=V, context=T, width=C, heads=H, layers=1, bias=False)
    assert sum(p.size for p in Attention(config).parameters()) == 4 * C * C
