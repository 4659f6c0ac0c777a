# %% [markdown]
# # Embeddings: words by the company they keep
#
#     x = E[id]                                a token is a row of a table of weights
#     cosine(a, b) = a . b / (|a| |b|)         1: the same direction, 0: nothing in common
#
# At first the rows are random. Nobody tells the model that a cat is like a dog. The model learns to
# predict stories, and words that predict the same get similar rows. The stories are drawn from a
# small grammar, and sound like the one of the cat that sat. A token is a whole word here. <unk> is
# the token for words that the model does not know. At the end there is a picture.

# %%
import textwrap
from itertools import islice

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import optim
from tinygpt.data.grammar import stories

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads
text = "".join(islice(stories(seed=0), 600))
tokenizer = tinygpt.WordTokenizer(text)
# there is one between any two words: nothing to learn
ids = [i for i in tokenizer.encode(text) if i not in tokenizer.encode(" ")]
print(
    textwrap.fill(text[: text.index("\n")], 98),
    f"\n\n{len(ids):,} words and marks, {tokenizer.size} different tokens",
)

# %% [markdown]
# ## 1. Train a small GPT on the stories
#
# The weight decay is strong on purpose. Large weights are then expensive, and one direction for two
# words is cheaper than two directions.

# %%
x, y = tinygpt.windows(ids, context=16)
config = tinygpt.GPTConfig(
    vocabulary=tokenizer.size, context=16, width=24, heads=2, layers=1, tied=False
)
model = tinygpt.GPT(config, generator=tensor.Generator(2))
fresh = model.token_embedding.weight.numpy().copy()
optimizer, batches, steps = optim.AdamW(model, lr=1e-2, weight_decay=1.0), tensor.Generator(2), 500
for step in range(steps):
    optimizer.lr = optim.warmup_cosine(step, peak=1e-2, warmup=20, total=steps)
    rows = batches.integers(0, len(x), (32,))
    optimizer.zero_grad()
    loss = model.loss(x[rows], y[rows])
    loss.backward()
    optimizer.step()
print(f"loss {np.log(tokenizer.size):.2f} -> {loss.item():.2f} nats a word")
table = model.token_embedding.weight.numpy()  # (V, C)


def row(word, of=table):
    return of[tokenizer.encode(word)[0]]


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def nearest(vector, of=table, without=(), count=3):
    """The words whose rows point most nearly along the vector."""
    likeness = of @ vector / np.linalg.norm(of, axis=1)
    words = [tokenizer.decode([i]) for i in np.argsort(-likeness)]
    return [word for word in words if word not in without][:count]


# %% [markdown]
# ## 2. Neighbours
#
# Words are neighbours if they are used alike, not if they mean the same: so are big and small.

# %%
print()
ALIKE = {
    "cat": {"dog"},
    "happy": {"tired"},
    "played": {"ran", "slept"},
    "big": {"small"},
    "sunny": {"rainy"},
    "park": {"garden", "mat"},
}
for word, expected in ALIKE.items():
    found = nearest(row(word), without=(word,), count=len(expected))
    by_chance = nearest(row(word, fresh), fresh, without=(word,), count=len(expected))
    print(f"{word:7} -> {', '.join(found):12} before training: {', '.join(map(repr, by_chance))}")
    assert set(found) == expected

# %% [markdown]
# ## 3. Names: the letters do not show who is he and who is she, but the stories do

# %%
names = ("Tom", "Ben", "Mia", "Ann")
print("\ncosines", *(f"{b:>6}" for b in names))
for a in names:
    print(f"{a:7}", *(f"{cosine(row(a), row(b)):6.3f}" for b in names))
assert nearest(row("Tom"), without=("Tom",), count=1) == ["Ben"]
assert nearest(row("Mia"), without=("Mia",), count=1) == ["Ann"]

# %% [markdown]
# ## 4. Analogies: he is to she as Tom is to ...?     she - he + Tom
#
# The step from he to she was not learned from the names. But it leads from Tom to one of the two
# women. Without the step the answer is wrong: the nearest neighbour of Tom is Ben. As usual, the
# three words of the question are not allowed as the answer.

# %%
print()
for a, b, c in (
    ("He", "She", "Tom"),
    ("He", "She", "Ben"),
    ("She", "He", "Mia"),
    ("She", "He", "Ann"),
):
    asked = (a, b, c)
    (answer,), (guess,) = (
        nearest(row(b) - row(a) + row(c), without=asked, count=1),
        nearest(row(c), without=asked, count=1),
    )
    print(f"{a} is to {b} as {c} is to {answer}      (nearest to {c} without the step: {guess})")
    assert answer in (("Mia", "Ann") if b == "She" else ("Tom", "Ben"))
    assert guess not in (("Mia", "Ann") if b == "She" else ("Tom", "Ben"))
step = cosine(row("She") - row("He"), row("Mia") + row("Ann") - row("Tom") - row("Ben"))
print(f"the step from he to she and the step from the men to the women: cosine {step:.2f}")
assert step > 0.4

# %% [markdown]
# The picture shows the rows, scaled to the same length, in the two directions in which they differ
# most. Words that are very similar share a label.

# %%
shown = [i for i in range(1, tokenizer.size) if i in ids]
rows = table[shown] / np.linalg.norm(table[shown], axis=1, keepdims=True)
rows -= rows.mean(axis=0)
flat = rows @ np.linalg.svd(rows)[2][:2].T  # (words, 2)
figure, axes = plt.subplots(figsize=(9, 7), layout="constrained")
axes.scatter(*flat.T, s=8)
labelled = set()
for i in shown:
    alike = [j for j in shown if cosine(table[i], table[j]) > 0.93 and j not in labelled]
    if alike:
        labelled.update(alike)
        label = ", ".join(
            tokenizer.decode([j]).replace("\n", "end of line").replace(".", "full stop")
            for j in alike
        )
        axes.annotate(
            label,
            flat[[shown.index(j) for j in alike]].mean(axis=0),
            (4, 2),
            textcoords="offset points",
            fontsize=8,
        )
axes.margins(x=0.15)
axes.set(title="The embeddings' directions, seen from where they differ most")
if plt.get_backend().lower() != "agg":  # agg: no screen, nothing to show
    plt.show()
