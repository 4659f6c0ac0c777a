# %% [markdown]
# # A tensor is flat memory, and a rule for finding elements in it
#
#     element [i, j] lives in cell      offset + i * strides[0] + j * strides[1]
#
# A transpose, a slice and an expand change those few integers, and move no number. This lesson does
# each by hand, then with the engine. The last view is one that no strides can express.
# `tensor/memory/layout.py` does the same for any number of axes. (A stride is the length of one
# step. The stride of windows in 1_text/2_blocks_and_pairs.py was the same idea.)
#
# The memory has twelve cells, as many as "The cat sat." has characters. Each cell holds its own
# number, so you can see which cell a value comes from. In the next lesson,
# 2_tensors/2_view_or_copy.py, the cells hold the characters.

# %%
import textwrap
from itertools import pairwise

import tensor
from tensor.errors import ViewError

x = tensor.arange(12).view(3, 4)
print(x)

# %% [markdown]
# `explain()` shows the memory, and which [i, j] lives in each cell. (The version counts the writes:
# 3_gradients/5_mutation.py says what for.)

# %%
print(x.explain())
memory = x.storage.flat.tolist()


def read(shape, strides, offset):
    """Fetch every element of a two-dimensional layout by the formula above."""
    return [
        [memory[offset + i * strides[0] + j * strides[1]] for j in range(shape[1])]
        for i in range(shape[0])
    ]


# %% [markdown]
# ## 1. Transpose: swap the two sizes and the two strides

# %%
by_hand = read(shape=(4, 3), strides=(1, 4), offset=0)
print("\nx.T by hand      ", by_hand)
print("x.T of the engine", x.T.tolist())
print("                  strides", x.T.strides, "offset", x.T.offset)
assert by_hand == x.T.tolist()
assert (x.T.shape, x.T.strides, x.T.offset) == ((4, 3), (1, 4), 0)

# %% [markdown]
# A tensor is like a car: shape and strides are the body, the storage is the engine. `x` and `x.T`
# are two bodies with one engine, so a change of the engine changes both cars. `clone()` builds a
# second engine.

# %%
own = x.clone()
x.T[2, 0] = 100  # row 2, column 0 of x.T: the same cell as x[0, 2]
print("\nafter x.T[2, 0] = 100:   x[0, 2] is", x[0, 2].item(), "  own[0, 2] is", own[0, 2].item())
assert x.T.storage is x.storage
assert (x[0, 2].item(), own[0, 2].item()) == (100, 2)
x[0, 2] = 2

# %% [markdown]
# ## 2. Slice: another offset, other strides
#
# x[1:, ::-2] starts in row 1, at the last column: cell 1 * 4 + 3 * 1 = 7. The next row is still +4
# cells away; the next column is now -2 cells away.

# %%
by_hand = read(shape=(2, 2), strides=(4, -2), offset=7)
part = x[1:, ::-2]
print("\nx[1:, ::-2] by hand      ", by_hand)
print("x[1:, ::-2] of the engine", part.tolist(), "  strides", part.strides, "offset", part.offset)
print("The same twelve cells; a dot where this view sees nothing:\n")
print(part.explain())
assert by_hand == part.tolist()
assert (part.strides, part.offset) == ((4, -2), 7)

# %% [markdown]
# ## 3. Expand: with a stride of 0 a step goes nowhere
#
# Row 1 three times: twelve elements in four cells.

# %%
by_hand = read(shape=(3, 4), strides=(0, 1), offset=4)
row = x[1:2].expand(3, 4)
print("\nrow 1, expanded by hand ", by_hand)
print("expanded by the engine  ", row.tolist(), "  strides", row.strides, "offset", row.offset)
assert by_hand == row.tolist()
assert (row.strides, row.offset) == ((0, 1), 4)

# %% [markdown]
# ## 4. One memory: a write through a view is seen by all of them

# %%
x.T[3, 0] = 300
print(
    "\nx.T[3, 0] = 300 makes x[0] =", x[0].tolist(), "and x[:, ::-1][0] =", x[:, ::-1][0].tolist()
)
assert x[0, 3].item() == x[:, ::-1][0, 0].item() == 300

# %% [markdown]
# NumPy does the same, with strides counted in bytes:

# %%
print(
    "x.strides",
    x.strides,
    "elements of",
    x.dtype.itemsize,
    "bytes; x.numpy().strides",
    x.numpy().strides,
    "bytes",
)
assert x.numpy().strides == tuple(x.dtype.itemsize * stride for stride in x.strides)

# %% [markdown]
# ## 5. view() cuts and joins axes without a copy, if strides can express the result
#
# To cut an axis in two always works. To join axes 0 and 1 works if one step on axis 0 is as long as
# all steps through axis 1:
#
#     stride of axis 0  =  size of axis 1  *  stride of axis 1

# %%
cut = x.T.view(2, 2, 3)
print("\ncut:  x.T.view(2, 2, 3) has strides", x.T.strides, "->", cut.strides)
for name, t in (("x  ", x), ("x.T", x.T)):
    needed = t.shape[1] * t.strides[1]
    verdict = (
        f"one axis will do, with strides {t.view(12).strides}"
        if t.strides[0] == needed
        else "no single stride will do"
    )
    print(
        f"join: {name} steps by {t.strides[0]} on axis 0, "
        f"joining needs {t.shape[1]} * {t.strides[1]} = {needed}: {verdict}"
    )

# %% [markdown]
# The elements of x.T, in order, are +4 and +4 cells apart, then -7. One axis has one stride, so no
# view can do that:

# %%
cells = [i + 4 * j for i in range(4) for j in range(3)]  # of x.T, in order
print("the steps of x.T from cell to cell:", *(f"{b - a:+}" for a, b in pairwise(cells)))
try:
    x.T.view(12)
except ViewError as error:
    print(textwrap.fill(f"ViewError: {error}", 98, subsequent_indent="    "))
else:
    raise AssertionError("no strides can say that")

# %% [markdown]
# `reshape` returns a view if there is one, and otherwise a copy:

# %%
for name, made in (("x.reshape(12)  ", x.reshape(12)), ("x.T.reshape(12)", x.T.reshape(12))):
    print(name, made.tolist(), "  shares x's memory" if made.storage is x.storage else "  a copy")
assert x.reshape(12).storage is x.storage
assert x.T.reshape(12).storage is not x.storage
