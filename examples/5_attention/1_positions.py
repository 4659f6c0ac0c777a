# %% [markdown]
# # The cat sat, or sat the cat? How a token knows its position
#
#     input          x[t] = token_embedding[id] + position[t]
#     sinusoidal     position[t, 2i] = sin(t w_i)         w_i = 10000^(-2i / C)
#                    position[t, 2i + 1] = cos(t w_i)
#     learned        position is a table of weights, found by gradient descent
#
# A token enters the model as a row of numbers from a table, its embedding
# (8_looking_inside/2_embeddings.py). In attention, the next lesson, each token takes a mixture of
# the rows of all tokens up to it. A mixture is a sum, and a sum has no order. So the order must be
# in the numbers themselves. At the end there is a picture.

# %%
import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import optim
from tinygpt.model.positions import sinusoids

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. Without positions the last word gets the same from every order of the words before it

# %%
words = rng.standard_normal((3, 8))  # The, cat, sat: any embeddings, one row each
other = words[[1, 0, 2]]  # cat The sat
positions = sinusoids(3, 8)
for name, extra in (("without positions", 0), ("with positions", positions)):
    a, b = (
        tensor.attention(x, x, x, causal=True).numpy()[-1]
        for x in (tensor.Tensor(words + extra), tensor.Tensor(other + extra))
    )
    print(
        f"{name:17}: what `sat` takes from `The cat sat` and `cat The sat` differs by "
        f"{np.abs(a - b).max():.1e}"
    )
    assert np.allclose(a, b) == (name == "without positions")

# %% [markdown]
# ## 2. Sinusoidal: each pair of columns is the hand of a clock, the first fast, the last slow

# %%
print()
T, C = 32, 16
table = np.zeros((T, C))
for i in range(C // 2):
    w = 10000 ** (-2 * i / C)
    table[:, 2 * i], table[:, 2 * i + 1] = np.sin(np.arange(T) * w), np.cos(np.arange(T) * w)
    print(
        f"columns {2 * i:2} and {2 * i + 1:2}   {w:.4f} radians a token, "
        f"once round in {2 * np.pi / w:8.0f} tokens"
    )
assert np.allclose(table, sinusoids(T, C))

# %% [markdown]
# From t to t + k each hand turns by k w, for every t. With the hand (s, c) = (sin a, cos a):
#
#     sin(a + b) = s cos b + c sin b
#     cos(a + b) = c cos b - s sin b
#
# So for each k one matrix turns all hands, the same matrix at every t. A layer of weights can learn
# such a matrix, and so learn to look "three tokens back".

# %%
k, w = 3, 10000 ** (-2 / C)  # the second clock
turn = np.array([[np.cos(k * w), -np.sin(k * w)], [np.sin(k * w), np.cos(k * w)]])
hand = table[:, 2:4]  # (T, 2)
print(
    "\nhand at 0",
    hand[0].round(3),
    " turned",
    (hand[0] @ turn).round(3),
    " hand at 3",
    hand[3].round(3),
)
assert np.allclose(hand[:-k] @ turn, hand[k:]), "from every t to t + 3 with one matrix"

# %% [markdown]
# ## 3. So the similarity of two positions depends on their distance alone
#
#     position[t] . position[s]  =  sum over i of cos((t - s) w_i)

# %%
print("\nsimilarity of positions")
similarity = table @ table.T  # (T, T)
expected = [sum(np.cos(d * 10000 ** (-2 * i / C)) for i in range(C // 2)) for d in range(T)]
for d in (0, 1, 2, 4, 8):
    along = np.diagonal(similarity, d)
    print(f"{d} apart: {along.mean():.3f}, the same all along the text to {np.ptp(along):.0e}")
    assert np.allclose(along, expected[d])
assert (np.argmax(similarity, axis=1) == np.arange(T)).all(), "nothing is as like a place as itself"

# %% [markdown]
# ## 4. Learned: the table starts at zero, and training finds what the story needs
#
# With sinusoids the token embeddings are multiplied by the square root of the width. The numbers
# of a new embedding are about 0.02, and sinusoids reach 1. Without the factor the first sum holds
# almost no token, and training must first make the embeddings large. Vaswani et al. 2017 give the
# factor in section 3.4. `scaled=False` leaves it out:
#
#     input          x[t] = sqrt(C) token_embedding[id] + position[t]

# %%
print()
tensor.manual_seed(0)
text = tinygpt.story()
tokenizer = tinygpt.CharacterTokenizer(text)
x, y = tinygpt.windows(tokenizer.encode(text), T)
models, losses = {}, {}
shape = {"vocabulary": tokenizer.size, "context": T, "width": C, "heads": 2, "layers": 1}
for kind, scaled in (("learned", False), ("sinusoidal", False), ("sinusoidal", True)):
    config = tinygpt.GPTConfig(**shape, positions=kind, scaled=scaled)
    model = models[kind] = tinygpt.GPT(config, generator=tensor.Generator(0))
    # how large both are in the first sum, before training
    tokens = model.scale * model.token_embedding.weight.numpy().std()
    positions = model.position_embedding.numpy().std()
    optimizer, batches = optim.AdamW(model, lr=2e-2), tensor.Generator(0)
    for _ in range(150):
        rows = batches.integers(0, len(x), (16,))
        optimizer.zero_grad()
        loss = model.loss(x[rows], y[rows])
        loss.backward()
        optimizer.step()
    losses[kind, scaled] = loss.item()
    print(
        f"{kind:10}   tokens x {model.scale:.0f}, spread {tokens:.2f}   positions, spread "
        f"{positions:.2f}   loss {loss.item():.3f}   "
        f"{sum(p.size for p in model.parameters()):,} parameters"
    )
assert losses["sinusoidal", True] < losses["sinusoidal", False] - 0.3

# %% [markdown]
# Nobody tells the model which positions are neighbours. The learned positions become similar to
# their neighbours:

# %%
found = models["learned"].position_embedding.numpy()
unit = found / np.linalg.norm(found, axis=1, keepdims=True)
learned = unit @ unit.T  # cosines
near, far = (
    np.diagonal(learned, 1).mean(),
    np.mean([np.diagonal(learned, d).mean() for d in range(8, T)]),
)
print(f"cosine of learned positions: neighbours {near:.2f}, eight or more apart {far:.2f}")
assert near > far + 0.2
assert np.array_equal(
    models["sinusoidal"].position_embedding.numpy(), sinusoids(T, C).astype(np.float32)
), "those do not learn"

figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
pictures = {
    "sinusoidal: the table": table,
    "sinusoidal: similarity of positions": similarity,
    "learned: similarity of positions": learned,
}
for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
    figure.colorbar(ax.imshow(picture, cmap="cividis", aspect="auto"), ax=ax)
    ax.set(title=title, ylabel="position", xlabel="column" if picture is table else "position")
if plt.get_backend().lower() != "agg":  # agg: no screen, nothing to show
    plt.show()
