# %% [markdown]
# # A matrix product on a GPU, in three versions
#
#     c[i, j] = sum over k of a[i, k] b[k, j]         M N K products, 2 M N K operations
#
#     a: (M, K)   b: (K, N)   c: (M, N)   a and b in bfloat16, 2 bytes   c in float32
#
# A GPU multiplies much faster than it reads. So a fast product reads each number once, and uses the
# number many times. This lesson climbs three steps: one thread for each element of c, tiles in
# shared memory, and tensor cores. Each step has a CUDA kernel. On every computer, NumPy does the
# work in the order of that kernel, and counts the bytes. On a computer with an NVIDIA GPU and CuPy,
# the kernels run as well. The lesson goes on from 2_tensors/3_threads_and_strides.py: thread,
# block, warp and kernel are explained there.

# %%
from functools import partial

import numpy as np

import tensor
from tensor.errors import DeviceError
from tensor.memory.devices import cupy

M, N, K = 128, 128, 64
rng = np.random.default_rng(0)
# small integers: every order of additions gives the same sum, bit for bit
a = rng.integers(-4, 5, (M, K)).astype(np.float32)
b = rng.integers(-4, 5, (K, N)).astype(np.float32)
expected = (tensor.Tensor(a) @ tensor.Tensor(b)).numpy()

# %% [markdown]
# ## 1. What the GPU allows
#
# An H200 has 132 multiprocessors. Its data sheet allows 989 TFLOP/s (10^12 operations a second) on
# tensor cores in bfloat16, 67 TFLOP/s outside of tensor cores, and 4.8 TB/s from memory. The
# product needs a, b and c at least once. The roofline says: a kernel takes at least the time of its
# operations, and at least the time of its bytes.

# %%
TENSOR_CORES, ARITHMETIC, MEMORY = 989e12, 67e12, 4.8e12
print("M = N = K   operations   bytes at least   tensor cores   memory   the bound")
for size in (256, 1024, 4096):
    operations, least = 2 * size**3, (2 + 2 + 4) * size**2
    by_cores, by_memory = operations / TENSOR_CORES * 1e6, least / MEMORY * 1e6
    bound = "memory" if by_memory > by_cores else "tensor cores"
    print(
        f"{size:9}   {operations / 1e9:7.2f} G   {least / 2**20:11.1f} MB   "
        f"{by_cores:9.2f} us   {by_memory:3.2f} us   {bound}"
    )
    assert (bound == "memory") == (size < 1024)

# %% [markdown]
# A large product is bound by its operations, if the kernel reads each number only once. The memory
# below counts the bytes that are read from it, and the reads: one read is one instruction of a
# warp. If several lanes (threads of a warp) ask for the same number, the number counts once.


# %%
class Memory:
    """A matrix that counts what is read from it.   size: bytes of a number"""

    def __init__(self, matrix, size):
        self.matrix, self.size, self.bytes, self.reads = matrix, size, 0, 0

    def __getitem__(self, place):
        numbers = self.matrix[place]
        self.bytes += numbers.size * self.size
        self.reads += 1
        return numbers


def report(name, c, memories, shared_reads):
    """Compares c, and prints the bytes from memory for a product. Gives these bytes."""
    assert np.array_equal(c, expected)
    read = sum(memory.bytes for memory in memories) / (M * N * K)
    print(f"{name:13} {read:6.4f} bytes from memory for a product, {shared_reads}")
    return read


# %% [markdown]
# ## 2. One thread for each element of c
#
# The numbers lie in memory as 16 bits. A bfloat16 is the upper half of a float.

# %%
START = """
#define KERNEL extern "C" __global__ void
typedef unsigned short bf16;

__device__ float to_float(bf16 x) { return __uint_as_float((unsigned)x << 16); }
"""
NAIVE = """
// blocks of 32 x 8 threads
KERNEL naive(const bf16 *a, const bf16 *b, float *c, int N, int K) {
    int i = blockIdx.y * blockDim.y + threadIdx.y, j = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0;
    for (int k = 0; k < K; k++) sum += to_float(a[i * K + k]) * to_float(b[k * N + j]);
    c[i * N + j] = sum;
}
"""


def naive(a, b):
    c = np.zeros((M, N), np.float32)
    for i in range(M):
        for j in range(0, N, 32):  # the 32 lanes of a warp have neighbours of a row of c
            lanes, sums = slice(j, j + 32), np.zeros(32, np.float32)
            for k in range(K):
                sums += a[i, k] * b[k, lanes]
            c[i, lanes] = sums
    return c


print("\nNumPy, in the order of each kernel")
memories = Memory(a, 2), Memory(b, 2)
read = report("naive", naive(*memories), memories, "none from shared memory")
assert read == (2 + 2 * 32) / 32
assert sum(memory.reads for memory in memories) == 2 * M * N * K / 32

# %% [markdown]
# The 32 lanes share one number of a, and read 32 neighbours of b: 66 bytes for 32 products. With
# only 4.8 TB/s, the H200 would do 4.7 TFLOP/s. The caches help, because other warps read the same
# rows. But a multiprocessor does at most one read of a warp in a clock cycle, from a cache as well
# as from shared memory. In the same cycle it could do four multiply-adds of a warp. Two reads for a
# multiply-add leave one eighth of 67 TFLOP/s.
#
# ## 3. Tiles in shared memory
#
# Shared memory is a small, fast memory in the multiprocessor, for the threads of one block. The 16
# x 16 threads of a block fetch a tile of a and a tile of b together, and wait for each other. Each
# thread has 4 x 4 elements of c in its registers. So 4 + 4 numbers from shared memory serve 16
# multiply-adds.

# %%
TILED = """
constexpr int TILE = 64, STEP = 16, R = 4;  // blocks of 16 x 16 threads

KERNEL __launch_bounds__(256) tiled(const bf16 *a, const bf16 *b, float *c, int N, int K) {
    // one number more in a row of `left`: so neighbouring rows begin in different banks
    __shared__ float left[TILE][STEP + 1], right[STEP][TILE];
    int y = threadIdx.y, x = threadIdx.x, row = blockIdx.y * TILE, column = blockIdx.x * TILE;
    float sums[R][R] = {};
    for (int k = 0; k < K; k += STEP) {
        for (int i = 0; i < R; i++) {
            left[y + 16 * i][x] = to_float(a[(row + y + 16 * i) * K + k + x]);
            right[y][x + 16 * i] = to_float(b[(k + y) * N + column + x + 16 * i]);
        }
        __syncthreads();  // the tiles are complete
        for (int e = 0; e < STEP; e++)
            for (int i = 0; i < R; i++)
                for (int j = 0; j < R; j++)
                    sums[i][j] += left[y + 16 * i][e] * right[e][x + 16 * j];
        __syncthreads();  // nobody reads the tiles any more
    }
    for (int i = 0; i < R; i++)
        for (int j = 0; j < R; j++)
            c[(row + y + 16 * i) * N + column + x + 16 * j] = sums[i][j];
}
"""
TILE, STEP, R = 64, 16, 4
PARTS = [slice(16 * i, 16 * i + 16) for i in range(R)]  # the elements that are 16 apart


def tiled(a, b):
    c, reads = np.zeros((M, N), np.float32), 0
    for row in range(0, M, TILE):
        for column in range(0, N, TILE):
            sums = np.zeros((TILE, TILE), np.float32)  # in the registers of 256 threads
            for k in range(0, K, STEP):
                left = Memory(a[row : row + TILE, k : k + STEP], 4)
                right = Memory(b[k : k + STEP, column : column + TILE], 4)
                for e in range(STEP):  # R + R reads, each of all 256 threads
                    lefts = [left[part, e] for part in PARTS]
                    rights = [right[e, part] for part in PARTS]
                    sums += np.outer(np.concatenate(lefts), np.concatenate(rights))
                reads += left.reads + right.reads
            c[row : row + TILE, column : column + TILE] = sums
    return c, reads


memories = Memory(a, 2), Memory(b, 2)
c, reads = tiled(*memories)
for_each = reads * 256 / (M * N * K)
read = report("tiled", c, memories, f"{for_each} reads of shared memory")
assert read == (2 + 2) / TILE
assert for_each == (R + R) / (R * R)

# %% [markdown]
# Memory gives 33 times fewer bytes. Half a read for a multiply-add leaves one half of 67 TFLOP/s.
#
# ## 4. Tensor cores
#
# A tensor core multiplies whole matrices: the instruction `mma.sync` of a warp multiplies 16 x 16
# by 16 x 8 numbers of 16 bits, and adds to 16 x 8 floats. These are 2048 products. The 32 lanes
# hold the three matrices together, in their registers: each lane has 8 numbers of the left matrix,
# two in a register, 4 of the right one, and 4 sums. The hardware says who holds which element (PTX
# ISA, section "Matrix Fragments for mma.m16n8k16").

# %%
lane = np.arange(32)
r, c2 = lane // 4, lane % 4 * 2  # each lane's row, and the first of its two columns


def left_place(x, half):
    """Row and column of the lower or upper half of register x = 0 ... 3, for each lane."""
    return r + x % 2 * 8, c2 + half + x // 2 * 8


def right_place(x, half):
    """The same for x = 0, 1: two neighbours of a column."""
    return c2 + half + 8 * x, r


def sum_place(i):
    return r + i // 2 * 8, c2 + i % 2


def owners(shape, places):
    """The lane that holds each element. Every element has exactly one."""
    drawn = np.full(shape, -1)
    for place in places:
        assert (drawn[place] == -1).all()
        drawn[place] = lane
    assert (drawn >= 0).all()
    return drawn


PAIRS = [(x, half) for x in range(4) for half in range(2)]
drawings = (
    owners((16, 16), [left_place(*pair) for pair in PAIRS]),
    owners((16, 8), [right_place(*pair) for pair in PAIRS[:4]]),
    owners((16, 8), [sum_place(i) for i in range(4)]),
)
print("\nthe lane that holds each element")
print(f"{'left, 16 x 16':48}| {'right, 16 x 8':24}| sums, 16 x 8")
for rows in zip(*drawings, strict=True):
    print("| ".join("".join(f"{n:2} " for n in row) for row in rows).rstrip())

# %% [markdown]
# For example, lane 5 holds of the left matrix rows 1 and 9, columns 2, 3, 10 and 11. Two neighbours
# of a row are one register. Two neighbours of a column of the right matrix are one register too, so
# the kernel puts these together from two rows of its tile.
#
# A block of 8 warps has 128 x 128 elements of c. Each warp has 64 x 32 of them, in 4 x 4 pieces of
# 16 x 8. The four left operands of a warp serve four times each, and so do the right ones.

# %%
MMA = """
// sums += left right
__device__ void multiply_add(float (&s)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
"""
CORES = """
constexpr int BLOCK = 128, DEPTH = 32;  // blocks of 256 threads
constexpr int ACROSS = DEPTH + 8, ALONG = BLOCK + 8;  // rows in different banks, as above

KERNEL __launch_bounds__(256) cores(const bf16 *a, const bf16 *b, float *c, int N, int K) {
    alignas(16) __shared__ bf16 left[BLOCK][ACROSS];
    alignas(16) __shared__ bf16 right[DEPTH][ALONG];
    int row = blockIdx.y * BLOCK, column = blockIdx.x * BLOCK;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, c2 = lane % 4 * 2;
    int top = warp / 4 * 64 + r, side = warp % 4 * 32;  // of this warp in the block
    float sums[4][4][4] = {};
    for (int k = 0; k < K; k += DEPTH) {
        for (int i = threadIdx.x; i < BLOCK * DEPTH / 8; i += 256) {  // 8 numbers at once
            int y = i / 4, x = i % 4 * 8;
            *(uint4 *)&left[y][x] = *(const uint4 *)&a[(row + y) * K + k + x];
            y = i / 16, x = i % 16 * 8;
            *(uint4 *)&right[y][x] = *(const uint4 *)&b[(k + y) * N + column + x];
        }
        __syncthreads();
        for (int e = 0; e < DEPTH; e += 16) {
            unsigned lefts[4][4], rights[4][2];
            for (int m = 0; m < 4; m++)
                for (int x = 0; x < 4; x++)
                    lefts[m][x] = *(unsigned *)&left[top + 16 * m + x % 2 * 8][e + c2 + x / 2 * 8];
            for (int n = 0; n < 4; n++)
                for (int x = 0; x < 2; x++) {
                    bf16 *from = &right[e + c2 + 8 * x][side + 8 * n + r];
                    rights[n][x] = from[0] | (unsigned)from[ALONG] << 16;
                }
            for (int m = 0; m < 4; m++)
                for (int n = 0; n < 4; n++) multiply_add(sums[m][n], lefts[m], rights[n]);
        }
        __syncthreads();
    }
    for (int m = 0; m < 4; m++)
        for (int n = 0; n < 4; n++)
            for (int i = 0; i < 4; i++) {
                int y = row + top + 16 * m + i / 2 * 8, x = column + side + 8 * n + c2 + i % 2;
                c[y * N + x] = sums[m][n][i];
            }
}
"""
BLOCK, DEPTH = 128, 32


def multiply_add(sums, left, right):
    """What a tensor core does.   sums: (32, 4)   left: (32, 4, 2)   right: (32, 2, 2), by lanes"""
    a, b = np.empty((16, 16), np.float32), np.empty((16, 8), np.float32)
    for x, half in PAIRS:
        a[left_place(x, half)] = left[:, x, half]
    for x, half in PAIRS[:4]:
        b[right_place(x, half)] = right[:, x, half]
    product = a @ b
    for i in range(4):
        sums[:, i] += product[sum_place(i)]


def lefts_of(tile, top, side):
    """A left operand, from shared memory: a read of a warp fetches both halves of a register."""
    lanes = np.empty((32, 4, 2), np.float32)
    for x in range(4):
        rows, columns = left_place(x, 0)
        both = tile[(top + rows)[:, None], (side + columns)[:, None] + [0, 1]]
        lanes[:, x] = both
    return lanes


def rights_of(tile, top, side):
    """A right operand: the two halves of a register lie in two rows, so they are two reads."""
    lanes = np.empty((32, 2, 2), np.float32)
    for x, half in PAIRS[:4]:
        rows, columns = right_place(x, half)
        lanes[:, x, half] = tile[top + rows, side + columns]
    return lanes


def cores(a, b):
    c, reads, instructions = np.zeros((M, N), np.float32), 0, 0
    for row in range(0, M, BLOCK):
        for column in range(0, N, BLOCK):
            sums = np.zeros((8, 4, 4, 32, 4), np.float32)  # in the registers of 8 warps
            for k in range(0, K, DEPTH):
                left = Memory(a[row : row + BLOCK, k : k + DEPTH], 2)
                right = Memory(b[k : k + DEPTH, column : column + BLOCK], 2)
                for warp, e in np.ndindex(8, DEPTH // 16):
                    top, side = warp // 4 * 64, warp % 4 * 32
                    lefts = [lefts_of(left, top + 16 * m, 16 * e) for m in range(4)]
                    rights = [rights_of(right, 16 * e, side + 8 * n) for n in range(4)]
                    for m, n in np.ndindex(4, 4):
                        multiply_add(sums[warp, m, n], lefts[m], rights[n])
                        instructions += 1
                reads += left.reads + right.reads
            for warp, m, n, i in np.ndindex(8, 4, 4, 4):
                rows, columns = sum_place(i)
                top, side = row + warp // 4 * 64 + 16 * m, column + warp % 4 * 32 + 8 * n
                c[top + rows, side + columns] = sums[warp, m, n, :, i]
    return c, reads, instructions


memories = Memory(a, 2), Memory(b, 2)
c, reads, instructions = cores(*memories)
print()
for_each = reads / instructions
read = report("tensor cores", c, memories, f"{for_each} reads of shared memory for an mma")
assert instructions == M * N * K / 2048
assert read == (2 + 2) / BLOCK
assert for_each == (4 * 4 + 4 * 4) / 16

# %% [markdown]
# Memory gives half as many bytes as before. More important are the reads of shared memory. A
# multiprocessor does at most one mma in a cycle, and two reads take two cycles. So at most one half
# of 989 TFLOP/s is left, beside 33 TFLOP/s for the tiles.
#
# ## 5. On a GPU
#
# CuPy compiles the kernels with NVIDIA's compiler when the lesson runs. Beside them runs cuBLASLt,
# NVIDIA's library, which the engine uses. All sums are of small integers again, so all versions
# must give the same bits.

# %%
CODE = START + NAIVE + TILED + MMA + CORES
LAUNCHES = {  # the rows and columns of c for a block, and its threads
    "naive": ((8, 32), (32, 8)),
    "tiled": ((TILE, TILE), (16, 16)),
    "cores": ((BLOCK, BLOCK), (256,)),
}


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


def race(cp, size):
    """Checks and times each version on a product of size x size matrices."""
    from tensor.kernels.cuda.products import product

    module = cp.RawModule(code=CODE, options=("--std=c++17",))
    numbers = [rng.integers(-4, 5, (size, size)).astype(np.float32) for _ in range(2)]
    a, b = (tensor.Tensor(x, dtype="bfloat16", device="cuda").array for x in numbers)
    wanted, c = cp.empty((size, size), "float32"), cp.empty((size, size), "float32")
    product(a, b, wanted)
    assert np.array_equal(cp.asnumpy(wanted[:64]), numbers[0][:64] @ numbers[1])
    calls = {"cuBLASLt": partial(product, a, b, c)}
    for name, ((rows, columns), block) in LAUNCHES.items():
        kernel, grid = module.get_function(name), (size // columns, size // rows)
        calls[name] = partial(kernel, grid, block, (a, b, c, np.int32(size), np.int32(size)))
        print(
            f"{name:8} {kernel.num_regs:3} registers, {kernel.shared_size_bytes:5} bytes of shared "
            f"memory, {kernel.local_size_bytes} bytes spilled"
        )
    for name, call in calls.items():
        c.fill(0)
        ms = milliseconds(cp, call)
        assert (c == wanted).all(), name
        print(f"{name:8} {ms:7.3f} ms {2 * size**3 / ms / 1e9:6.1f} TFLOP/s")


try:
    cp = cupy()
    capability = int(cp.cuda.Device().compute_capability)
    reason = "" if capability >= 80 else f"compute capability {capability}, mma.sync needs 80"
except DeviceError as error:
    reason = str(error)
print()
if reason:
    print("The kernels did not run:", reason)
else:
    race(cp, 4096)

# %% [markdown]
# ## 6. What an H200 does
#
# These times were measured by this lesson, for M = N = K = 4096. The bound comes from the reads
# that were counted above.

# %%
H200 = {  # ms, and the operations a second that the reads allow
    "naive": (26.639, ARITHMETIC / 8),
    "tiled": (5.664, ARITHMETIC / 2),
    "cores": (0.926, TENSOR_CORES / 2),
    "cuBLASLt": (0.197, TENSOR_CORES),
}
print(f"\n{'':10}time{'':8}rate{'':11}bound{'':24}registers, shared memory")
used = {"naive": "32, 0", "tiled": "32, 8448 bytes", "cores": "125, 18944 bytes"}
for name, (ms, bound) in H200.items():
    rate = 2 * 4096**3 / ms * 1e3
    print(
        f"{name:8} {ms:6.3f} ms {rate / 1e12:6.1f} TFLOP/s {bound / 1e12:6.1f} TFLOP/s, "
        f"{rate / bound:.0%} reached   {used.get(name, '')}".rstrip()
    )
    assert rate < bound

# %% [markdown]
# The first two versions reach 62 % and 72 % of their bound, so the reads are most of their time.
# The version on tensor cores stays far below its bound. Its warps fetch a tile, wait, multiply, and
# wait again, so memory and tensor cores take turns.
#
# cuBLASLt does both at once: the next tile is copied while this one is multiplied. Its tiles are
# larger. `wgmma`, the instruction of the H200 for four warps, reads the operands from shared memory
# by itself. tensor/kernels/cuda/attention/mma.cuh shows two of the steps in between: `ldmatrix`
# fetches four registers in one instruction, and `cp.async` copies while the warps go on. The same
# ladder for attention is 5_attention/7_attention_on_a_gpu.py.
