# %% [markdown]
# # Attention: each token asks, the tokens up to it answer
#
#     y = softmax(q k^T / sqrt(D), the future masked) v
#
# q is the query of a token, what it looks for; k its key, what it offers to be found by; v its
# value, what it gives if it is. First without any weights, with numbers that one can follow; then
# with trainable weights, the mask and several heads, line by line as a GPT does it; at the end the
# same as the engine's one op, `tensor.attention`.
#
# B batch   T time   C width   H heads   D head width, C / H

# %%
import textwrap

import numpy as np

import tensor
from tensor import Tensor, nn
from tensor.errors import ViewError

# %% [markdown]
# ## 1. Simple attention: nothing to learn yet
#
# Three words, each a row of two numbers (an embedding). How well two words fit is their inner
# product, a score. Softmax makes shares of the scores of a word, and with these shares it takes a
# mixture of all rows.

# %%
words = ("The", "cat", "sat")
x = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]])  # (T, C)
scores = x @ x.T  # (T, T)
weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
y = weights @ x
for i, word in enumerate(words):
    print(f"{word}: scores {scores[i]}  weights {weights[i].round(3)}  takes {y[i].round(3)}")
print(
    f"sat takes {weights[2, 0]:.3f} * {x[0]} + {weights[2, 1]:.3f} * {x[1]} + {weights[2, 2]:.3f} "
    f"* {x[2]} = {y[2].round(3)}"
)
assert scores[2].tolist() == [1, 2, 2]
e = np.e
assert np.allclose(weights[2], np.array([e, e**2, e**2]) / (e + 2 * e**2))
assert np.allclose(weights.sum(axis=1), 1)

# %% [markdown]
# ## 2. Trainable weights: a word asks with one row, is found by another, and gives a third
#
# Above, fitting meant being alike. With a matrix each for query, key and value the model learns
# what should fit what. And it is not to see the future: a score masked with -inf has weight e^-inf
# = 0. (Why not simply -10000, and why the scores are divided by the root of D:
# 5_the_transformer/3_why_in_the_model.py.)

# %%
W_query = np.array([[0.0, 1.0], [1.0, 0.0]])  # asks for the other number
W_key = np.eye(2)
W_value = np.array([[10.0], [1.0]])  # (2, 1): gives one number
query, key, value = x @ W_query, x @ W_key, x @ W_value
scores = np.where(np.tri(3, dtype=bool), query @ key.T / np.sqrt(2), -np.inf)
weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
print()
for i, word in enumerate(words):
    print(
        f"{word}: query {query[i]}  scores {scores[i].round(3)}  weights {weights[i].round(3)}  "
        f"takes {(weights @ value)[i].round(3)}"
    )
assert weights[0].tolist() == [1, 0, 0], "The stands first and has only itself"
# causal: the future masked
engine = tensor.attention(*(Tensor(a) for a in (query, key, value)), causal=True)
assert np.allclose(engine.numpy(), weights @ value)

# %% [markdown]
# ## 3. As a GPT does it: queries, keys and values of all heads in one product
#
# One layer makes all three, cut in three, and each cut in heads: an attention of its own on D of
# the C numbers. Cutting makes views.

# %%
B, T, C, H = 2, 5, 12, 3
D = C // H
tensor.manual_seed(0)
x = tensor.randn(B, T, C, requires_grad=True)
project = nn.Linear(C, 3 * C)
product = project(x)  # (B, T, 3C)
q, k, v = product.split(C, axis=-1)  # 3 x (B, T, C)
q = q.view(B, T, H, D).transpose(1, 2)  # (B, H, T, D): each head is a batch of its own
k = k.view(B, T, H, D).transpose(1, 2)
v = v.view(B, T, H, D).transpose(1, 2)
print(
    f"\nq {q.shape}, strides {q.strides}: still the memory of the product, {3 * C} numbers a token"
)
assert q.strides == (3 * C * T, D, 3 * C, 1)
assert all(part.storage is product.storage for part in (q, k, v)), "nothing has been copied"

# %% [markdown]
# ## 4. Scores, the mask, softmax
#
# `wei` and `tril` are what the field calls them: the weights, and ones in a triangle, lower left.

# %%
wei = q @ k.transpose(-2, -1) * D**-0.5  # (B, H, T, T): how well query t fits key s
tril = tensor.tril(tensor.ones(T, T))
wei = wei.masked_fill(tril == 0, float("-inf"))
wei = wei.softmax(-1)
print("\nweights of the first head: row t, column s, how much token t takes from token s\n")
print(wei[0, 0].detach().numpy().round(3))
later = np.triu(np.ones((T, T), bool), 1)  # s > t
assert (wei.numpy()[..., later] == 0).all(), "exactly 0"
assert np.allclose(wei.numpy().sum(-1), 1)

# %% [markdown]
# ## 5. Sum the values by weight, put the heads side by side again
#
# What a head brings its tokens is called the context, `ctx`. The parts of one token lie apart, a
# head's whole text between them; to become one axis they must be neighbours, and a view cannot move
# them (2_tensors/2_view_or_copy.py): hence `contiguous`.

# %%
ctx = wei @ v  # (B, H, T, D)
try:
    ctx.transpose(1, 2).view(B, T, C)
except ViewError as error:
    print(
        textwrap.fill(
            f"\nwithout contiguous(): {error}",
            98,
            subsequent_indent="    ",
            replace_whitespace=False,
        )
    )
else:
    raise AssertionError("it was in order")
y = ctx.transpose(1, 2).contiguous().view(B, T, C)
print(f"the heads of a token lie T * D = {T * D} numbers apart in ctx, and D = {D} in y")
assert ctx.transpose(1, 2).strides[2] == T * D
assert y.view(B, T, H, D).strides[2] == D

# %% [markdown]
# ## 6. The same as one op, in values and gradients

# %%
fused = tensor.attention(q, k, v, causal=True).transpose(1, 2).reshape(B, T, C)
dy = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
by_hand, by_op = (tensor.grad(out, x, dy, retain_graph=True)[0].numpy() for out in (y, fused))
print(
    "\nby hand and as one op: largest difference of values",
    f"{np.abs(y.numpy() - fused.numpy()).max():.0e},",
    end=" ",
)
print(f"of gradients {np.abs(by_hand - by_op).max():.0e}")
assert np.allclose(y.numpy(), fused.numpy(), atol=1e-5)
assert np.allclose(by_hand, by_op, atol=1e-5)

# %% [markdown]
# ## 7. No token learns from its future: the gradient of y[t] at x[s] is exactly 0 for s > t

# %%
reach = np.zeros((T, T))
for t in range(T):
    (dx,) = tensor.grad(y[:, t].sum(), x, retain_graph=True)
    reach[t] = np.abs(dx.numpy()).max(axis=(0, 2))
print("\nrow t, column s: largest |dy[t]/dx[s]|\n")
print(reach.round(3))
assert (reach[later] == 0).all()
assert (reach[~later] > 0).all()
