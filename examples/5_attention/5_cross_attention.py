# %% [markdown]
# # Cross-attention: one text asks, another text answers
#
#     q = x Wq              from the text that is being written: T tokens
#     k, v = m Wk, m Wv     from another text, for example the one to translate: S tokens
#     y = softmax(q k^T / sqrt(D)) v                                 weights: T x S
#
# In self-attention queries, keys and values come from one text. In cross-attention only the queries
# do. A model that translates needs both: the French words so far look at each other, and then they
# look at the English words. This lesson computes three words by hand, then adds padding, and
# compares with `tensor.multi_head_attention(q, kv, mask, heads=...)`.
#
#     B batch   T tokens that ask   S tokens that answer   C width   H heads   D head width, C / H

# %%
import numpy as np

import tensor
from tensor import Tensor

# %% [markdown]
# ## 1. Three English words, and a French sentence of two words so far
#
# The English text is the memory m: one row for each word. Here the rows are chosen by hand. The
# first number stands for article, the second for animal, the third for action. A French word asks
# with its query for the English word that it needs next: after "<sos>" (start of sequence) the
# article, after "le" the animal. The value of an English word is its French word: the columns of v
# are le, chat, dort.

# %%
english, french = ("the", "cat", "sleeps"), ("<sos>", "le")
m = np.array([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]])  # (S, C)
x = np.array([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])  # (T, C): what each position asks for
W_query, W_key, W_value = np.eye(3), np.eye(3), np.eye(3) / 4
q, k, v = x @ W_query, m @ W_key, m @ W_value
scores = q @ k.T / np.sqrt(3)  # (T, S)
weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
y = weights @ v
print(
    "weights, T x S:     "
    + "".join(f"{word:>9}" for word in english)
    + "     takes of le, chat, dort"
)
for i, word in enumerate(french):
    print(f"    after {word:9}", *(f"{weight:8.3f}" for weight in weights[i]), "  ", y[i].round(3))
assert weights.shape == (2, 3)
share = np.exp(8 / np.sqrt(3))  # one score is 2 * 4 / sqrt(3), the other two are 0
assert np.allclose(weights[0], np.array([share, 1, 1]) / (share + 2))
assert y.argmax(axis=1).tolist() == [0, 1], "le, then chat"

# %% [markdown]
# There is no causal mask: the English text is complete before the first French word is written. So
# each position sees all English words, also those that stand further to the right than itself.

# %%
by_engine = tensor.attention(*map(Tensor, (q, k, v)))
print(f"tensor.attention: largest difference {np.abs(by_engine.numpy() - y).max():.0e}")
assert np.allclose(by_engine.numpy(), y)
assert (weights > 0).all()

# %% [markdown]
# A causal mask would be wrong here. The engine aligns it to the end: of S = 3 words, query 0 of
# T = 2 would see two, and query 1 would see all three. So the word "sleeps" would be hidden from
# the first query.

# %%
masked = tensor.attention(*map(Tensor, (q, k, v)), causal=True).numpy()
print("with a causal mask the first query would take", masked[0].round(3))
assert masked[0, 2] == 0

# %% [markdown]
# ## 2. Who depends on whom?
#
# The result depends on both texts. Each row of y depends on its own query, and on no other query.
# It depends on all rows of the memory. The gradient shows this: dy is random here, because the
# columns of y add up to 1, and their plain sum would have no gradient.

# %%
asks, memory = Tensor(x, requires_grad=True), Tensor(m, requires_grad=True)
y = tensor.attention(asks @ W_query, memory @ W_key, memory @ W_value)
reach_x, reach_m = np.zeros((2, 2)), np.zeros((2, 3))
upstream = np.random.default_rng(0).standard_normal((2, 3))
for t in range(2):
    dx, dm = tensor.grad(y[t], [asks, memory], upstream[t], retain_graph=True)
    reach_x[t], reach_m[t] = (np.abs(d.numpy()).max(axis=1) for d in (dx, dm))
print("\nlargest |dy[t] / dx[s]|, (T, T):\n", reach_x.round(3))
print("largest |dy[t] / dm[s]|, (T, S):\n", reach_m.round(3))
assert (reach_x > 0).tolist() == np.eye(2, dtype=bool).tolist()
assert (reach_m > 0).all()

# %% [markdown]
# And the order of the memory does not matter, if its rows hold no positions: exchange two English
# words with their rows, and y is the same.

# %%
other = Tensor(m[[2, 1, 0]])
again = tensor.attention(Tensor(q), other @ W_key, other @ W_value)
assert np.allclose(again.numpy(), y.numpy())

# %% [markdown]
# ## 3. A batch needs padding, and padding needs a mask
#
# Texts in a batch have different lengths. The shorter ones are filled up with a padding token. The
# mask is False at each padding token. The score of a masked key becomes -inf, and its weight 0. The
# mask has the shape (B, 1, 1, S): it holds for all heads and all queries.

# %%
rng = np.random.default_rng(0)
B, T, S, C, H = 2, 4, 5, 8, 2
D = C // H
lengths = np.array([5, 3])  # the second text has three words, and two tokens of padding
seen = np.arange(S) < lengths[:, None]  # (B, S)
x, m = rng.standard_normal((B, T, C)), rng.standard_normal((B, S, C))
W_query, W_key, W_value = (rng.standard_normal((C, C)) / np.sqrt(C) for _ in range(3))
q, k, v = x @ W_query, m @ W_key, m @ W_value  # (B, T or S, C)


def in_heads(rows):
    """(B, T or S, C) -> (B, H, T or S, D)"""
    return rows.reshape(B, rows.shape[1], H, D).swapaxes(1, 2)


scores = in_heads(q) @ in_heads(k).swapaxes(-1, -2) / np.sqrt(D)  # (B, H, T, S)
scores = np.where(seen[:, None, None], scores, -np.inf)
weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
weights /= weights.sum(axis=-1, keepdims=True)
y = (weights @ in_heads(v)).swapaxes(1, 2).reshape(B, T, C)
print(f"\nweights {weights.shape}; of the second text, first head:\n\n{weights[1, 0].round(3)}\n")
assert weights.shape == (B, H, T, S)
assert (weights[1, ..., 3:] == 0).all(), "padding has weight 0"
assert np.allclose(weights.sum(-1), 1)

# %% [markdown]
# ## 4. The same as one op
#
# Keys and values come from one text, so one product makes both: kv has the shape (B, S, 2C). In
# generation kv is made once for the whole text, however many words are written.

# %%
kv = np.concatenate([k, v], axis=-1)  # (B, S, 2C)
by_op = tensor.multi_head_attention(Tensor(q), Tensor(kv), seen[:, None, None], heads=H)
print(f"multi_head_attention: largest difference {np.abs(by_op.numpy() - y).max():.0e}")
assert np.allclose(by_op.numpy(), y)

# %% [markdown]
# ## 5. Padding changes nothing, and without the mask it does
#
# The second text, alone and without padding, gives the same result. If nobody masks the padding,
# each query takes a part of it.

# %%
alone = tensor.multi_head_attention(Tensor(q[1:]), Tensor(kv[1:, :3]), heads=H).numpy()
unmasked = tensor.multi_head_attention(Tensor(q), Tensor(kv), heads=H).numpy()
print(f"alone and in the batch: largest difference {np.abs(alone - by_op.numpy()[1:]).max():.0e}")
print(f"without the mask:       largest difference {np.abs(alone - unmasked[1:]).max():.2f}")
assert np.allclose(alone, by_op.numpy()[1:])
assert np.abs(alone - unmasked[1:]).max() > 0.1

# %% [markdown]
# No gradient flows into padding. So the model learns nothing from it:

# %%
leaf = Tensor(kv, requires_grad=True)
masked = tensor.multi_head_attention(Tensor(q), leaf, seen[:, None, None], heads=H)
(gradient,) = tensor.grad(masked, leaf, rng.standard_normal(y.shape))
sizes = np.abs(gradient.numpy()).max(axis=-1)
print("largest gradient at each token of the memory:\n", sizes.round(3))
assert (sizes[~seen] == 0).all()
assert (sizes[seen] > 0).all()
