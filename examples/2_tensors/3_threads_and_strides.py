# %% [markdown]
# # How a GPU sees a tensor
#
#     thread     n = block * block size + thread in block        the number of the thread
#     index      [i, j] of element n, by division                from the shape
#     cell       offset + i * strides[0] + j * strides[1]        from the layout
#
# A GPU knows no tensors. It has flat memory, and thousands of threads that run the same lines at
# once, each with its own number. Here the threads run one after the other, in Python, on the
# strides of 2_tensors/1_layout.py. A kernel is the program of one thread. A launch runs the kernel
# in all threads.

# %%
import numpy as np

import tensor
from tinygpt import CharacterTokenizer

text = "The cat sat."
tokenizer = CharacterTokenizer(text)
x = tensor.Tensor(tokenizer.encode(text), dtype="float32").view(3, 4)  # a word a row
memory = x.storage.flat  # 12 numbers


def letters(numbers):
    return tokenizer.decode([int(n) for n in numbers]).replace(" ", "_")


# %% [markdown]
# ## 1. One kernel for every view

# %%
BLOCK = 8  # threads that start together; on a real GPU some hundreds
WARP = 32  # threads that run together, on a GPU of NVIDIA's
LINE = 128 // 4  # float32 numbers in a line of memory, which has 128 bytes there


def launch(kernel, size, *arguments):
    """As many blocks as cover `size` elements: the last one has threads to spare."""
    blocks = -(-size // BLOCK)
    for block in range(blocks):
        for thread in range(BLOCK):
            kernel(block * BLOCK + thread, size, *arguments)


def cell_of(n, shape, strides, offset):
    """Where element n of a layout lives: the last axis turns fastest, like the last digit of a
    counter.
    """
    cell = offset
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        n, i = divmod(n, extent)
        cell += i * stride
    return cell


def copy(n, size, out, memory, shape, strides, offset):
    if n >= size:  # a thread to spare; without this line it would write past the end
        return
    out[n] = memory[cell_of(n, shape, strides, offset)]


views = {
    "x": x,
    "x.T": x.T,
    "x[1:, ::-2]": x[1:, ::-2],
    "x[:, :1].expand(3, 2)": x[:, :1].expand(3, 2),
}
for name, view in views.items():
    layout = view.shape, view.strides, view.offset
    out = np.zeros(view.size, np.float32)
    launch(copy, view.size, out, memory, *layout)
    cells = [cell_of(n, *layout) for n in range(view.size)]
    print(f"{name:22} shape {layout[0]}, strides {layout[1]}, offset {layout[2]}")
    print(f"    cells {' '.join(map(str, cells)):28} read {letters(out)}")
    assert np.array_equal(out, view.contiguous().storage.flat)

# %% [markdown]
# So one kernel works on every view, and no copy is needed. For two inputs of different shapes,
# strides of 0 are enough:


# %%
def add(n, size, out, a, a_layout, b, b_layout):
    if n < size:
        out[n] = a[cell_of(n, *a_layout)] + b[cell_of(n, *b_layout)]


b = tensor.Tensor([10.0, 20.0, 30.0]).view(3, 1)
wide = b.expand(3, 4)  # strides (1, 0): a step along a row goes nowhere
out = np.zeros(12, np.float32)
launch(
    add,
    12,
    out,
    memory,
    (x.shape, x.strides, x.offset),
    wide.storage.flat,
    (wide.shape, wide.strides, wide.offset),
)
print("\nx + b in", out.reshape(3, 4).tolist())
assert np.array_equal(out.reshape(3, 4), (x + b).numpy())

# %% [markdown]
# ## 2. Why order still matters: memory comes in lines
#
# The threads of a warp run the same line at the same time, and the GPU fetches what they read in
# lines of memory. If neighbouring threads read neighbouring cells, they share one line. With a long
# stride each thread needs its own line, and uses one number of it.

# %%
print()
big = tensor.zeros(64, 64)
for name, view in {
    "big": big,
    "big.T": big.T,
    "big[:, ::2]": big[:, ::2],
    "big[:1].expand(64, 64)": big[:1].expand(64, 64),
}.items():
    lines = {cell_of(n, view.shape, view.strides, view.offset) // LINE for n in range(WARP)}
    print(
        f"{name:22} strides {view.strides!s:8} the first warp fetches {len(lines):2} lines for its "
        f"{WARP} numbers"
    )
    assert (
        len(lines) == {"big": 1, "big.T": 32, "big[:, ::2]": 2, "big[:1].expand(64, 64)": 1}[name]
    )

# %% [markdown]
# ## 3. Why a kernel that writes is harder: two threads, one cell
#
# The gradient of b sums over each row, because each b[i] was used four times. Suppose that every
# thread adds to the cell of its row. Threads that run together all read the old sum, each adds its
# own number, and all write: one write survives. The right kernel has one thread for each cell that
# is written.

# %%
dy = np.arange(12, dtype=np.float32)  # (3, 4), upstream


def warp_adds(out, dy):
    """All threads together: all read, then all add, then all write."""
    cells = [cell_of(n, wide.shape, wide.strides, wide.offset) for n in range(12)]
    sums = [out[cell] + dy[n] for n, cell in enumerate(cells)]
    for cell, value in zip(cells, sums, strict=True):
        out[cell] = value


def row_sum(n, size, out, dy):
    if n < size:
        out[n] = sum(dy[4 * n + j] for j in range(4))


racing, right = np.zeros(3, np.float32), np.zeros(3, np.float32)
warp_adds(racing, dy)
launch(row_sum, 3, right, dy)
leaf = tensor.Tensor([10.0, 20.0, 30.0], requires_grad=True)
(engine,) = tensor.grad(x + leaf.view(3, 1), leaf, dy.reshape(3, 4))
print(
    "\nevery thread adds   ",
    racing,
    "\na thread for a cell ",
    right,
    "\nthe engine          ",
    engine.numpy(),
)
assert np.array_equal(right, engine.numpy())
assert not np.array_equal(racing, right)
