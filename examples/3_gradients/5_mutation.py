# %% [markdown]
# # Writing in place: what would make a gradient wrong, and what is allowed
#
#     y = x * x      dx = 2 x dy       backward needs the old value of x
#
# A write to x between forward and backward would make the gradient wrong, and nobody would see it.
# So the engine looks for such writes. Every storage counts its writes: the count is its version. A
# node remembers the version, and which elements it keeps. A write to other elements is allowed.

# %%
import textwrap
from contextlib import contextmanager

import numpy as np

import tensor
from tensor import Tensor, no_grad
from tensor.errors import MutationError


@contextmanager
def refused(what, kind=MutationError):
    """The code in this block must raise an error, which is printed."""
    try:
        yield
    except kind as error:
        print(f"\n{what}")
        print(
            textwrap.fill(
                f"{kind.__name__}: {error}", 98, initial_indent="    ", subsequent_indent="      "
            )
        )
    else:
        raise AssertionError(f"not refused: {what}")


# %% [markdown]
# ## 1. Writes that raise an error before they happen
#
# - To a result in a graph: the graph says h = 2x, and after the write h[0] would not be 2x.
# - To a leaf outside `no_grad()`: the graph could not record the write. `no_grad()` says that it
#   need not.
# - To the NumPy array of memory that a graph keeps: the engine could not see the write, so the
#   array is read-only.
# - To an expanded tensor, with or without a graph: three indices share each cell, and each would
#   add 1 to it.

# %%
x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
h = x * 2
with refused("h[0] = 0, where h = 2x is in a graph:"):
    h[0] = 0.0
with refused("x[0] = 0, where x is a leaf:"):
    x[0] = 0.0
with refused("h.numpy()[0] = 0, through NumPy:", kind=ValueError):
    h.numpy()[0] = 0.0
with refused("row += 1, where row is expanded:"):
    row = Tensor([1.0, 2.0]).expand(3, 2)
    row += 1.0
assert h.tolist() == [2, 4, 6]
assert x.tolist() == [1, 2, 3]

# %% [markdown]
# ## 2. Writes that raise an error in backward, which names both lines
#
# Under `no_grad()`, or to a tensor that needs no gradient, a write may be right. It is wrong only
# if a gradient needs the old values. Backward checks all writes first, and changes no `.grad`
# before.

# %%
y = (x * x).sum()
with no_grad():
    x[0] = 10.0
with refused("x was kept by x * x, then written:"):
    y.backward()
assert x.grad is None

base = tensor.ones(3, 2)
left = base[:, 0]  # a view: the same memory
y = (x * left).sum()
base[1] = 5.0
with refused("column 0 was kept, then row 1 was written through another view of the same memory:"):
    y.backward()
assert x.grad is None

# %% [markdown]
# ## 3. Allowed
#
# Columns alternate in memory, but share no element. So you may write to column 1 while a node keeps
# column 0:

# %%
y = (x * left).sum()
base[:, 1] = 7.0
y.backward()
print("\ncolumn 0 kept, column 1 written: x.grad =", x.grad.numpy())
assert x.grad.tolist() == left.tolist() == [1, 5, 1]

# %% [markdown]
# A step of gradient descent, after backward: no node needs the old x any more.

# %%
with no_grad():
    x -= 0.1 * x.grad
print("a step downhill, x - 0.1 x.grad: x      =", x.detach().numpy())
assert np.allclose(x.numpy(), [9.9, 1.5, 2.9])

# %% [markdown]
# `where` does in the graph what `h[0] = 0` would do: h[0] is replaced, and its gradient is 0.

# %%
h = x * 2
mask = Tensor([True, False, False])
y = tensor.where(mask, 0.0, h).sum()
x.grad = None
y.backward()
print("where(mask, 0, h) for h[0] = 0:  x.grad =", x.grad.numpy())
assert x.grad.tolist() == [0, 2, 2]

# %% [markdown]
# ## 4. What the engine cannot see: NumPy writes to shared memory
#
# `Tensor.from_array` shares memory with NumPy, `Tensor(...)` copies. So this happens only with
# `from_array`:

# %%
print()
for name, make in (("from_array shares", Tensor.from_array), ("Tensor(...) copies", Tensor)):
    shared = np.array([1.0, 2.0], np.float32)
    w = Tensor([1.0, 1.0], requires_grad=True)
    y = (w * make(shared)).sum()
    shared[0] = 100.0  # NumPy writes, between forward and backward
    y.backward()
    print(f"{name}: dw should be [1, 2], and is {w.grad.tolist()}")
    assert w.grad.tolist() == ([1, 2] if make is Tensor else [100, 2]), (
        "the wrong one is wrong without a word"
    )
