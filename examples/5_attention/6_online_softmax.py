# %% [markdown]
# # Softmax in blocks: attention with little memory
#
#     m = max of x                            the largest score so far
#     s = sum of e^(x - m)                    the sum so far
#     o = sum of e^(x - m) v                  the weighted values so far
#
# Attention needs T x S scores. For a long text this matrix is far larger than everything else. But
# nobody needs the whole matrix at once. This lesson takes the scores in blocks, and keeps three
# running numbers: m, s and o. If a later block has a larger maximum, the old sums are scaled down.
# The result is the same softmax. This is online softmax (Milakov and Gimelshein 2018), the main
# part of flash attention (Dao et al. 2022).
#
#     T queries   S keys   D head width

# %%
import tracemalloc

import numpy as np

import tensor
from tensor import Tensor

rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. What overflows without the maximum?
#
# e^89 is larger than the largest float32. So a score of 100 gives infinity, and infinity divided by
# infinity is not a number (NaN). Softmax does not change if the same number is subtracted from all
# scores. With the maximum subtracted, the largest exponent is 0.

# %%
scores = np.array([100.0, 99.0, 98.0], np.float32)
with np.errstate(over="ignore", invalid="ignore"):
    naive = np.exp(scores) / np.exp(scores).sum()
shifted = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
print("scores", scores, "\nwithout the maximum", naive, "\nwith the maximum   ", shifted.round(4))
assert np.isnan(naive).all()
assert np.allclose(shifted, tensor.softmax(scores).numpy())

# %% [markdown]
# But the maximum of a row is known only when the whole row is known. In blocks it is not.
#
# ## 2. A running maximum, and a running sum
#
# The scores come in blocks of two. If the maximum rises from m to a new m, each old term
# e^(x - m) must become e^(x - new m). All old terms change by the same factor, e^(m - new m). So it
# is enough to multiply the sum.

# %%
row = np.array([1.0, 3.0, 2.0, 7.0, 5.0, 4.0])
m, s = -np.inf, 0.0
print("\nblock       new m   factor for the old sum   sum")
for start in range(0, len(row), 2):
    block = row[start : start + 2]
    new = max(m, block.max())
    factor = np.exp(m - new)  # 0 for the first block, where m is -inf
    s = s * factor + np.exp(block - new).sum()
    m = new
    print(f"{block!s:10} {m:6.1f} {factor:24.4f} {s:7.4f}")
print(f"at once    {row.max():6.1f} {'':24} {np.exp(row - row.max()).sum():7.4f}")
assert m == 7.0
assert np.isclose(s, np.exp(row - 7.0).sum())

# %% [markdown]
# One number is enough to remember both: the log-sum-exp, L = m + ln s. Any weight of the row is
# e^(x - L).

# %%
L = m + np.log(s)
print(f"log-sum-exp {L:.4f}; weights e^(x - L)", np.exp(row - L).round(4))
assert np.allclose(np.exp(row - L), tensor.softmax(row).numpy())
assert np.isclose(L, tensor.logsumexp(row).item())

# %% [markdown]
# ## 3. Flash attention, forward
#
# The weighted sum of the values is scaled with the same factor. At the end it is divided by s. The
# function keeps y, and one number L for each query. It never has more than one block of scores.


# %%
def attention_in_blocks(q, k, v, size):
    """y = softmax(q k^T / sqrt(D), the future masked) v, and L.   q, k, v, y: (T, D)   L: (T,)"""
    y, L = np.empty_like(v), np.empty(len(q), q.dtype)
    for i in range(0, len(q), size):
        rows = slice(i, i + size)
        m = np.full((len(q[rows]), 1), -np.inf, q.dtype)
        s, o = np.zeros_like(m), np.zeros_like(v[rows])
        for j in range(0, i + size, size):  # no block after the diagonal: all masked
            scores = masked_scores(q, k, i, j, size)
            new = np.maximum(m, scores.max(axis=1, keepdims=True))
            factor, e = np.exp(m - new), np.exp(scores - new)
            s = s * factor + e.sum(axis=1, keepdims=True)
            o = o * factor + e @ v[j : j + size]
            m = new
        y[rows], L[rows] = o / s, (m + np.log(s))[:, 0]
    return y, L


def masked_scores(q, k, i, j, size):
    """The scores of the queries from i on and the keys from j on: (size, size)."""
    q, k = q[i : i + size], k[j : j + size]
    scores = q @ k.T / np.sqrt(q.dtype.type(q.shape[1]))
    later = j + np.arange(len(k)) > i + np.arange(len(q))[:, None]
    return np.where(later, -np.inf, scores).astype(q.dtype)


T, D = 96, 16
q, k, v, dy = (rng.standard_normal((T, D)) for _ in range(4))
expected = tensor.attention(*map(Tensor, (q, k, v)), causal=True).numpy()
print("\nsize of a block   largest difference to tensor.attention")
for size in (1, 8, 32, 96):
    y, L = attention_in_blocks(q, k, v, size)
    off = np.abs(y - expected).max()
    print(f"{size:15}   {off:.0e}")
    assert off < 1e-14

# %% [markdown]
# The result is not an approximation. Only the order of the additions differs, so only the last
# digits do. And large scores do not overflow:

# %%
large = [(30 * a).astype(np.float32) for a in (q, k)]
y_large, L_large = attention_in_blocks(*large, v.astype(np.float32), 32)
print(f"with scores up to {(large[0] @ large[1].T).max() / 4:.0f}: all finite,", end=" ")
print(f"log-sum-exp up to {L_large.max():.0f}")
assert np.isfinite(y_large).all()
assert L_large.max() > 89

# %% [markdown]
# ## 4. Backward from the log-sum-exp
#
# The backward pass needs the weights again. They were not kept. But from L each block of weights
# comes back with one exponential: w = e^(score - L). The gradient of softmax needs a sum over the
# whole row, of w times dw. This sum is dy . y, which is known without the weights:
#
#     dw = dy v^T        sum_s w_s dw_s = dy . sum_s w_s v_s = dy . y
#     so the gradient of a score is w (dw - dy . y)


# %%
def backward_in_blocks(q, k, v, y, L, dy, size):
    """dq, dk, dv, each (T, D)."""
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    scale = 1 / np.sqrt(q.dtype.type(q.shape[1]))
    row_sums = (dy * y).sum(axis=1, keepdims=True)  # (T, 1)
    for i in range(0, len(q), size):
        rows = slice(i, i + size)
        for j in range(0, i + size, size):
            keys = slice(j, j + size)
            w = np.exp(masked_scores(q, k, i, j, size) - L[rows, None])
            dscores = w * (dy[rows] @ v[keys].T - row_sums[rows])
            dv[keys] += w.T @ dy[rows]
            dq[rows] += scale * dscores @ k[keys]
            dk[keys] += scale * dscores.T @ q[rows]
    return dq, dk, dv


leaves = [Tensor(a, requires_grad=True) for a in (q, k, v)]
wanted = tensor.grad(tensor.attention(*leaves, causal=True), leaves, dy)
y, L = attention_in_blocks(q, k, v, 32)
print()
for name, ours, engine in zip(
    ("dq", "dk", "dv"), backward_in_blocks(q, k, v, y, L, dy, 32), wanted, strict=True
):
    off = np.abs(ours - engine.numpy()).max()
    print(f"{name}: largest difference to the engine {off:.0e}")
    assert off < 1e-13

# %% [markdown]
# On paper dy . y is the sum of w dw. In float32 the two are rounded in different ways. A query that
# sees only itself has the weight 1, whatever its score is, so its score has the gradient 0. Below
# are 100 such queries, with w = 1 and y = v:

# %%
dys, values = (rng.standard_normal((100, D)).astype(np.float32) for _ in range(2))
dw = np.diagonal(dys @ values.T)
dscores = dw - (dys * values).sum(axis=1)
print(f"in float32, {np.count_nonzero(dscores)} of 100 scores get a gradient", end=", ")
print(f"up to {np.abs(dscores).max():.0e}; with the sum of w dw, none")
assert 0 < np.abs(dscores).max() < 1e-4

# %% [markdown]
# ## 5. The memory, counted
#
# With all scores at once, memory grows with T x T: twice the text, four times the memory. In blocks
# it grows with T. `tracemalloc` counts the bytes that NumPy asks for.


# %%
def peak(function, *arguments):
    """The most memory that a call holds at once, in bytes."""
    tracemalloc.start()
    function(*arguments)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def all_at_once(q, k, v):
    scores = masked_scores(q, k, 0, 0, len(q))
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True) @ v


print("\n    T   T x T scores   all at once   in blocks of 64")
used = {}
for T in (256, 512, 1024):
    q, k, v = (rng.standard_normal((T, D)).astype(np.float32) for _ in range(3))
    used[T] = peak(all_at_once, q, k, v), peak(attention_in_blocks, q, k, v, 64)
    print(f"{T:5}   {4 * T * T / 1024:9,.0f} KB", end="")
    print(f"   {used[T][0] / 1024:8,.0f} KB   {used[T][1] / 1024:12,.0f} KB")
assert used[1024][0] / used[512][0] > 3.5
assert used[1024][1] / used[512][1] < 2.1

# %% [markdown]
# The blocks after the diagonal are never computed: that saves half of the work too.
#
# The kernel of the engine, tensor/kernels/cpu/attention.c, stands between the two. It takes blocks
# of 32 queries, each with all keys that these queries see: 32 x S scores at a time. So it knows the
# maximum of a row at once, and needs no running maximum. It keeps m and s of each query, and makes
# the weights again in the backward pass, as here. It has whole rows, so it can sum w dw.
