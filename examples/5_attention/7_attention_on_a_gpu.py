# %% [markdown]
# # Attention on a GPU, in three versions
#
#     y[t] = sum over s of weight[t, s] v[s],    weight[t, s] = e^(score[t, s] - L[t])
#
#     score[t, s] = scale q[t] . k[s]     L[t] = m + ln z
#     m the largest score of query t     z = sum over s of e^(score[t, s] - m)
#
# In 5_attention/6_online_softmax.py the scores come in blocks, and m, z and the weighted values are
# kept. This lesson does the same as a GPU does: with threads, warps, shared memory and tensor
# cores. 2_tensors/3_threads_and_strides.py and 2_tensors/4_a_product_on_a_gpu.py explain these
# words. The three versions are those of tensor/kernels/cuda/attention: plain.cu, tiles.cu and
# tensor_cores.cu. NumPy does the work in the order of each version, and counts the bytes and the
# products. On a computer with an NVIDIA GPU and CuPy, the versions run as well.

# %%
from functools import partial
from unittest import mock

import numpy as np

import tensor
from tensor import Tensor
from tensor.errors import DeviceError
from tensor.memory.devices import cupy

T, D = 256, 64  # queries and keys of one head, and numbers of each
SCALE = 1 / np.sqrt(D)
rng = np.random.default_rng(0)


def rounded(x):
    """The nearest bfloat16, as a float32."""
    return np.asarray(x).astype(tensor.bfloat16).astype(np.float32)


q, k, v, dy = (rounded(rng.standard_normal((T, D))) for _ in range(4))
exact = [Tensor(x, dtype="float64", requires_grad=True) for x in (q, k, v)]
later = np.arange(T) > np.arange(T)[:, None]  # the keys that a query must not see
scores = (exact[0] @ exact[1].T * SCALE).masked_fill(later, -np.inf)
y_exact = tensor.attention(*exact, causal=True)
L_exact = tensor.logsumexp(scores, axis=1).numpy()

# %% [markdown]
# ## 1. What the GPU allows
#
# The case that is timed below has batch 32, 12 heads, 1024 tokens, and heads of 64 numbers, causal
# and in bfloat16. So P = B H T (T + 1) / 2 pairs of a query and a key are seen. Each pair takes 2 D
# multiply-adds: D for the score, and D for the weighted values. One multiply-add is two operations.
#
# An H200 has 132 multiprocessors. In one clock cycle, each does 4096 operations on tensor cores,
# 256 operations outside of them, 16 exponentials, and one read of 128 bytes from shared memory or
# the L1 cache.

# %%
BATCH, HEADS, TOKENS = 32, 12, 1024
TENSOR_CORES, ARITHMETIC, MEMORY = 989e12, 67e12, 4.8e12  # of the H200's data sheet
CYCLES = TENSOR_CORES / 4096  # of all multiprocessors, in a second

pairs = BATCH * HEADS * TOKENS * (TOKENS + 1) // 2
operations = 4 * D * pairs
array = 2 * BATCH * HEADS * TOKENS * D  # bytes of q, of k, of v and of y
print(f"{pairs / 1e6:.0f} million pairs, {operations / 1e9:.1f} G operations forward")
for what, seconds in {
    "operations on tensor cores": operations / TENSOR_CORES,
    "operations outside of them": operations / ARITHMETIC,
    "one exponential for each pair": pairs / 16 / CYCLES,
    "q, k, v and y, once each": 4 * array / MEMORY,
    "all scores, written and read once": 2 * 2 * BATCH * HEADS * TOKENS**2 / MEMORY,
}.items():
    print(f"    {what:34} {seconds * 1e6:5.0f} us at least")
assert 4 * array * 8 == 2 * 2 * BATCH * HEADS * TOKENS**2

# %% [markdown]
# So the scores must not go to memory. Then tensor cores, exponentials and memory need nearly the
# same time. Outside of tensor cores the products take 15 times as long.
#
# The memory below counts the bytes that are read from it. If lanes of a warp ask for the same
# number in one instruction, the number counts once.


# %%
class Memory:
    """Rows of bfloat16 that count the bytes which are read."""

    def __init__(self, rows):
        self.rows, self.bytes = rows, 0

    def __getitem__(self, place):
        read = self.rows[place]
        self.bytes += 2 * read.size
        return read


def check(name, version, rows, tolerance):
    """Compares y, L and the bytes of k and v.   rows: the queries that share a read"""
    keys, values = Memory(k), Memory(v)
    y, L, products = version(keys, values)
    off = np.abs(y - y_exact.numpy()).max()
    read = keys.bytes + values.bytes
    print(
        f"{name:13} y differs by {off:.0e}; {read / (T * (T + 1) / 2):4.1f} bytes of k and v and "
        f"{products / (T * (T + 1) / 2):5.1f} multiply-adds for a pair that is seen"
    )
    assert off < tolerance
    assert np.abs(L - L_exact).max() < 1e-5
    assert read == 2 * D * T * (T + rows) // rows
    assert products >= 2 * D * T * (T + 1) // 2


# %% [markdown]
# ## 2. plain.cu: one thread for each query
#
# A thread keeps q, y, m and z of its query in registers, and goes along the keys. A score that is
# larger than m becomes the new m, and the thread shrinks z and y. The 32 threads of a warp look at
# the same key at the same time, so they share the read. At the diagonal, the threads that do not
# see the key wait.


# %%
def plain(k, v):
    y, L, products = np.empty((T, D), np.float32), np.empty(T), 0
    for first in range(0, T, 32):  # a warp
        t = np.arange(first, first + 32)
        m, z, output = np.full(32, -np.inf), np.zeros(32), np.zeros((32, D))
        for s in range(first + 32):
            key, value, sees = k[s], v[s], s <= t
            score = np.where(sees, SCALE * (q[t] @ key), -np.inf)
            top = np.maximum(m, score)
            shrink, weight = np.exp(m - top), np.exp(score - top)
            m, z = top, z * shrink + weight
            output = output * shrink[:, None] + weight[:, None] * value
            products += 2 * D * np.count_nonzero(sees)
        y[t], L[t] = output / z[:, None], m + np.log(z)
    return y, L, products


print()
check("plain", plain, 32, 1e-5)

# %% [markdown]
# The bytes from memory are few already. But each multiply-add needs one number of k or of v, which
# comes from the L1 cache: one read for each multiply-add of a warp. A multiprocessor does four
# multiply-adds of a warp in the cycle of one read, so at most a quarter of 67 TFLOP/s is left.
#
# ## 3. tiles.cu: tiles in shared memory
#
# A block of 16 x 16 threads has 64 queries, and goes along tiles of 64 keys. Each thread has 4 x 4
# of the 64 x 64 scores: four rows side by side, and four columns 16 apart. The 16 threads of a row
# find the largest score by shuffles. In a shuffle, each lane reads a register of another lane,
# whose number differs in one bit. After four shuffles, all 16 threads have the largest of 16
# numbers.

# %%
numbers = rng.permutation(16)
for step in (8, 4, 2, 1):
    numbers = np.maximum(numbers, numbers[np.arange(16) ^ step])
    print(f"after the shuffle over {step}:", *(f"{number:2}" for number in numbers))
assert (numbers == 15).all()


def of_threads(tile):
    """(64, 16 n) by its threads: (16 rows of threads, 4 rows of each, n columns of each, 16)."""
    return tile.reshape(16, 4, -1, 16)


def of_row(numbers, combine):
    """The largest or the sum, for each of the 16 threads on the last axis."""
    for step in (8, 4, 2, 1):
        numbers = combine(numbers, numbers[..., np.arange(16) ^ step])
    return numbers


def tiles(k, v):
    y, L, products = np.empty((T, D), np.float32), np.empty(T), 0
    for first in range(0, T, 64):  # a block
        rows = slice(first, first + 64)
        m, z = np.full((16, 4, 16), -np.inf), np.zeros((16, 4, 16))
        output = np.zeros((16, 4, D // 16, 16))
        for s in range(0, first + 64, 64):  # the tiles after the diagonal are left out
            columns = slice(s, s + 64)
            keys, values = k[columns], v[columns]  # the block reads them into shared memory
            scores = np.where(later[rows, columns], -np.inf, SCALE * (q[rows] @ keys.T))
            scores = of_threads(scores)
            top = np.maximum(m, of_row(scores.max(axis=2), np.maximum))
            shrink, weights = np.exp(m - top), np.exp(scores - top[:, :, None])
            m, z = top, z * shrink + weights.sum(axis=2)  # of the thread's own columns
            shown = weights.reshape(64, 64)  # through shared memory
            output = output * shrink[:, :, None] + of_threads(shown @ values)
            products += 2 * D * 64 * 64
        z = of_row(z, np.add)
        y[rows] = (output / z[:, :, None]).reshape(64, D)
        L[rows] = (m + np.log(z))[:, :, 0].reshape(64)
    return y, L, products


print()
check("tiles", tiles, 64, 1e-5)

# %% [markdown]
# Now the reads. A thread fetches 16 bytes in one read: four numbers of a row in float32. Shared
# memory gives 128 bytes in a cycle, and lanes that ask for the same bytes share them.

# %%
lane = np.arange(32)
y_of, x_of = lane // 16, lane % 16  # the two rows of threads in a warp


def cycles(places, size):
    """How long a read of a warp takes.   places: of each lane   size: bytes that a lane fetches"""
    return -(-len(set(places.tolist())) * size // 128)


four = range(4)
# four numbers of 4 rows and of 4 columns, for 4 x 4 x 4 multiply-adds
for_scores = sum(cycles(4 * y_of + i, 16) + cycles(x_of + 16 * i, 16) for i in four)
# four weights of 4 rows; of 4 rows of v, 4 numbers that lie 16 apart
for_results = sum(cycles(4 * y_of + i, 16) + 4 * cycles(x_of + 16 * i, 4) for i in four)
print(f"for 64 multiply-adds: {for_scores} cycles for scores, {for_results} for results")
assert (for_scores, for_results) == (12, 20)

# %% [markdown]
# The arithmetic of 64 multiply-adds takes 16 cycles. So the scores wait for arithmetic, and the
# results wait a little for shared memory: at most 32/36 of 67 TFLOP/s.
#
# ## 4. tensor_cores.cu: the scores stay in registers
#
# `mma.sync` multiplies 16 x 16 by 16 x 8 numbers. The lanes hold the sums in a fixed order: lane n
# has, with r = n / 4 and c = 2 (n % 4), the columns c and c + 1 of the rows r and r + 8. The four
# lanes of a row find its largest score by two shuffles.
#
# The weights are the left operand of the second product. Take two neighbouring pieces of sums, 16 x
# 8 each, and round them to 16 bits. Then each lane already has the numbers that it must hold of the
# left operand. So the weights need no way through shared memory.

# %%
r, c = lane // 4, lane % 4 * 2


def to_lanes(matrix):
    """The sums that each lane has of 16 x 8 N: (32, N, 4)."""
    pieces = [matrix[:, first : first + 8] for first in range(0, matrix.shape[1], 8)]
    parts = [[piece[r + i // 2 * 8, c + i % 2] for i in four] for piece in pieces]
    return np.array(parts).transpose(2, 0, 1)


def as_left_operand(one, following):
    """Sums of two pieces, (32, 4) each, as the registers of a left operand of 16 x 16."""
    registers = one[:, :2], one[:, 2:], following[:, :2], following[:, 2:]
    matrix = np.empty((16, 16), np.float32)
    for x, both in enumerate(registers):
        for half in range(2):
            matrix[r + x % 2 * 8, c + half + x // 2 * 8] = rounded(both[:, half])
    return matrix


weights = rng.random((16, 16))
assert np.array_equal(as_left_operand(*to_lanes(weights).transpose(1, 0, 2)), rounded(weights))
print("\nlane 5 has, as sums and as left operand:", to_lanes(weights)[5].round(2).tolist())

# %% [markdown]
# A block of 4 warps has 128 queries, and goes along tiles of 64 keys. A warp has 32 queries, two
# rows of operands, so each operand from shared memory is used twice. It computes 2^x, which the GPU
# has as an instruction: e^x = 2^(x log2(e)). While the warps multiply, the next tile is copied.

# %%
LOG2_E = np.log2(np.e)


def soften(scores, m, z, output):
    """The online softmax of 16 rows, by lanes.   scores: (32, N, 4)   m, z: (32, 2), of rows r and
    r + 8   output: (32, D / 8, 4)
    """
    halves = scores.reshape(32, -1, 2, 2)  # the last axis: two neighbours of a row
    top = np.maximum(m, halves.max(axis=(1, 3)))
    for step in (1, 2):
        top = np.maximum(top, top[lane ^ step])
    shrink = np.exp2((m - top) * SCALE * LOG2_E)
    weights = np.exp2((halves - top[:, None, :, None]) * SCALE * LOG2_E)
    z[:] = z * shrink + weights.sum(axis=(1, 3))
    output *= np.repeat(shrink, 2, axis=1)[:, None]
    m[:] = top
    return weights.reshape(scores.shape)


def sixteen_rows(first, last_tile, keys, values):
    """y and L of 16 queries, and the multiply-adds of the tensor cores."""
    m, z, output = np.full((32, 2), -np.inf), np.zeros((32, 2)), np.zeros((32, D // 8, 4))
    rows, products = slice(first, first + 16), 0
    for s in range(0, last_tile + 1, 64):
        columns = slice(s, s + 64)
        scores = np.where(later[rows, columns], -np.inf, q[rows] @ keys[columns].T)
        weights = soften(to_lanes(scores), m, z, output)
        for n in range(0, 8, 2):
            left = as_left_operand(weights[:, n], weights[:, n + 1])
            output += to_lanes(left @ values[s + 8 * n : s + 8 * n + 16])
        products += 2 * D * 16 * 64
    for step in (1, 2):
        z = z + z[lane ^ step]
    y, L = np.empty((16, D), np.float32), np.empty(16)
    for half in range(2):
        at = r + 8 * half
        L[at] = m[:, half] * SCALE + np.log(z[:, half])
        for i in range(2):
            y[at[:, None], c[:, None] + i + 8 * np.arange(D // 8)] = (
                output[:, :, 2 * half + i] / z[:, half, None]
            )
    return y, L, products


def tensor_cores(k, v):
    y, L, products = np.empty((T, D), np.float32), np.empty(T), 0
    for first in range(0, T, 128):  # a block
        keys, values = k[: first + 128], v[: first + 128]  # into shared memory, tile after tile
        for own in range(first, first + 128, 32):  # a warp
            for rows in (own, own + 16):  # the last tile that the warp sees holds its last query
                done = sixteen_rows(rows, (own + 31) // 64 * 64, keys, values)
                y[rows : rows + 16], L[rows : rows + 16] = done[:2]
                products += done[2]
    return rounded(y), L, products


check("tensor cores", tensor_cores, 128, 0.02)

# %% [markdown]
# The result differs more, because the weights and y are rounded to bfloat16: to 8 bits of
# precision. From shared memory, a warp reads a row of k and a row of v for its 32 queries: 4 D / 32
# = 8 bytes for a pair. The 128 bytes of a cycle are enough for 16 pairs. The 16 pairs take 4096
# operations, as many as the tensor cores do in a cycle. The 16 pairs also need 16 exponentials,
# which take one cycle too. So four limits are near each other: tensor cores, shared memory,
# exponentials and memory. A kernel reaches a limit only if all the others run at the same time.

# %%
in_a_cycle = 128 / (4 * D / 32)
print(f"\nshared memory allows {in_a_cycle:.0f} pairs, {in_a_cycle * 4 * D:.0f} operations a cycle")
assert in_a_cycle * 4 * D == 4096

# %% [markdown]
# ## 5. Backward: the weights again, in two kernels
#
# From L the weights come back: weight = e^(score - L). So forward keeps one number for each query.
#
#     dweight[t, s] = dy[t] . v[s]     total[t] = y[t] . dy[t]
#     dscore = weight (dweight - total), for each pair
#     dq[t] = scale sum over s of dscore[t, s] k[s]
#     dk[s] = scale sum over t of dscore[t, s] q[t]
#     dv[s] = sum over t of weight[t, s] dy[t]
#
# One kernel has a block for each tile of queries, and adds dq. The other has a block for each tile
# of keys, and adds dk and dv. Both make scores and dweights: 3 D and 4 D multiply-adds for a pair,
# where 5 D are needed.


# %%
def again(rows, columns):
    """The weights and the gradients of the scores of a tile."""
    weights = np.exp(SCALE * (q[rows] @ k[columns].T) - L_exact[rows, None])
    weights = np.where(later[rows, columns], 0, weights)
    return weights, weights * (dy[rows] @ v[columns].T - totals[rows, None])


totals = (y_exact.numpy() * dy).sum(axis=1)
dq, dk, dv = (np.zeros((T, D)) for _ in range(3))
products, parts = 0, []
for first in range(0, T, 64):  # a block of the first kernel
    own = slice(first, first + 64)
    for s in range(0, first + 64, 64):
        columns = slice(s, s + 64)
        part = SCALE * again(own, columns)[1] @ k[columns]
        dq[own] += part
        parts.append(part.astype(np.float32))
        products += 3 * D * 64 * 64
for first in range(0, T, 64):  # a block of the second kernel
    own = slice(first, first + 64)
    for t in range(first, T, 64):  # the queries before see none of these keys
        rows = slice(t, t + 64)
        weights, dscores = again(rows, own)
        dk[own] += SCALE * dscores.T @ q[rows]
        dv[own] += weights.T @ dy[rows]
        products += 4 * D * 64 * 64
wanted = tensor.grad(y_exact, exact, Tensor(dy, dtype="float64"))
off = [np.abs(ours - one.numpy()).max() for ours, one in zip((dq, dk, dv), wanted, strict=True)]
tiles_seen = T // 64 * (T // 64 + 1) // 2
print("dq, dk and dv differ by", *(f"{one:.0e}" for one in off))
assert max(off) < 1e-5
assert products == 7 * D * 64 * 64 * tiles_seen

# %% [markdown]
# One kernel alone would save 2 D: the block of a tile of keys would also add its parts to dq in
# memory. But which block comes first changes from run to run, and a sum of floats depends on the
# order. Below, the four parts of the last tile of dq are added in two orders.

# %%
last = parts[-(T // 64) :]
one_order, other_order = sum(last), sum(last[::-1])
print(f"{np.count_nonzero(one_order != other_order)} of {one_order.size} elements of dq differ")
assert 0 < np.abs(one_order - other_order).max() < 1e-5

# %% [markdown]
# Two kernels that add in a fixed order give equal bits in every run.
#
# ## 6. What the H200 does
#
# The times are those of docs/gpu.md. A rate counts 4 D operations for a pair forward, and 10 D
# backward. The bound is the limit of the reads above, and of the arithmetic or the tensor cores.

# %%
H200 = {  # ms forward, ms backward
    "plain": (11.777, 23.961),
    "tiles": (2.399, 7.775),
    "tensor_cores": (0.275, 0.712),
    "PyTorch's flash": (0.272, 0.874),
    "cuDNN": (0.194, 0.569),
}
SHARING = {"plain": 32, "tiles": 64, "tensor_cores": 128}  # queries that share a read from memory
BOUNDS = {
    "plain": ARITHMETIC / 4,
    "tiles": ARITHMETIC * 32 / 36,
    "tensor_cores": TENSOR_CORES,
}
print(f"\n{'':16} k and v      bound        forward              backward")
for name, (forward, backward) in H200.items():
    rates = operations / forward / 1e9, 2.5 * operations / backward / 1e9
    counted = f"{'':23}"
    if name in SHARING:
        rows = SHARING[name]
        read = BATCH * HEADS * 2 * D * TOKENS * (TOKENS + rows) / rows / 1e9
        bound = operations / BOUNDS[name] * 1e3
        counted = f"{read:4.2f} GB  {bound:6.3f} ms     "
        assert bound < forward
    print(
        f"{name:16} {counted} {forward:6.3f} ms {rates[0]:5.1f} TFLOP/s   "
        f"{backward:6.3f} ms {rates[1]:5.1f} TFLOP/s"
    )

# %% [markdown]
# Each version needs fewer reads for a product: it uses a number more often once the number is in
# registers. plain.cu reaches a quarter of its bound. Its rows fill the registers, so few warps are
# on a multiprocessor, and most of them wait for a read.
#
# tensor_cores.cu is as fast as PyTorch's flash attention, which uses the same instructions. cuDNN
# uses `wgmma`. This instruction reads its operands from shared memory by itself, and runs while the
# warps compute the exponentials of another tile.
#
# A fourth file, decoding.cu, is for a model that writes its next token: one query makes too few
# blocks for 132 multiprocessors, so there the keys are split over the warps.
#
# ## 7. On a GPU

# %%
VERSIONS = "plain", "tiles", "tensor_cores"


def milliseconds(cp, call):
    """The median of five calls, after one that is not counted."""
    times = []
    for _ in range(6):
        start, end = cp.cuda.Event(), cp.cuda.Event()
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(cp.cuda.get_elapsed_time(start, end))
    return sorted(times[1:])[2]


def race(cp):
    """Checks each version on the small case, and times it on the large one."""
    from tensor.kernels.cuda.attention import by_hand, versions

    small = np.stack([q, k, v], axis=1).reshape(1, T, 3 * D)
    shape = BATCH, TOKENS, 3 * HEADS * D
    large = tensor.randn(*shape, dtype="bfloat16", device="cuda").array
    for name in VERSIONS:
        version = getattr(versions, name)
        with mock.patch.object(by_hand, "version_for", lambda *_, version=version: version):
            x = Tensor(small, dtype="bfloat16", device="cuda").array
            y, _ = by_hand.attention_by_hand(x, heads=1, causal=True)
            off = np.abs(cp.asnumpy(y).astype(np.float32)[0] - y_exact.numpy()).max()
            forward = partial(by_hand.attention_by_hand, large, heads=HEADS, causal=True)
            y, backward = forward()
            there, back = milliseconds(cp, forward), milliseconds(cp, partial(backward, y))
        print(
            f"{name:13} y differs by {off:.0e}; forward {there:6.3f} ms "
            f"{operations / there / 1e9:5.1f} TFLOP/s, backward {back:6.3f} ms "
            f"{2.5 * operations / back / 1e9:5.1f} TFLOP/s"
        )
        assert off < 0.02


try:
    cp = cupy()
    capability = int(cp.cuda.Device().compute_capability)
    reason = "" if capability >= 80 else f"compute capability {capability}, mma.sync needs 80"
except DeviceError as error:
    reason = str(error)
print()
if reason:
    print("The versions did not run:", reason)
else:
    race(cp)
