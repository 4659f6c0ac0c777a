# %% [markdown]
# # Attention: each token takes a mixture of the tokens up to it
#
#     y = softmax(q k^T / sqrt(D), the future masked) v
#
# Each token has three rows. Its query q says what the token looks for. Its key k says what others
# can find it by. Its value v is what it gives to those who find it. This lesson begins without
# weights, with small numbers. Then come trainable weights, the mask and several heads, line by line
# as in a GPT. The result equals that of one op of the engine, `tensor.attention`.
#
#     B batch   T time   C width   H heads   D head width, C / H

# %%
import textwrap

import numpy as np

import tensor
from tensor import Tensor, nn
from tensor.errors import ViewError

# %% [markdown]
# ## 1. Simple attention: nothing to learn yet
#
# Each of three words is a row of two numbers (an embedding). The inner product of two rows is their
# score: it says how well the two words fit. Softmax turns the scores of a word into weights, which
# add up to 1. With these weights the word takes a mixture of all rows.

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
# ## 2. Trainable weights: a query, a key and a value for each word
#
# Above, words fit if they are alike. With a matrix for queries, one for keys and one for values,
# the model learns which words should fit. A word must not see the words after it: a score that is
# masked with -inf has the weight e^-inf = 0. (5_attention/3_why_in_the_model.py says why not
# -10000, and why the scores are divided by the root of D.)

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
# One layer makes queries, keys and values together. The result is cut into these three parts, and
# each part into heads. A head is an attention of its own on D of the C numbers. Cutting makes
# views.

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
# Other programs call the weights `wei`, and a lower triangle of ones `tril`.

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
# ## 5. Sum the values by weight, and put the heads side by side again
#
# The result of a head is called the context, `ctx`. The numbers of one token are far apart in
# memory: between two heads of a token is the whole text. To join the heads to one axis, they must
# be neighbours in memory. A view moves nothing (2_tensors/2_view_or_copy.py), so `contiguous`
# copies.

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
