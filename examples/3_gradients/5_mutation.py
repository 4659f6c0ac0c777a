# %% [markdown]
# # Writing in place: what would make a gradient wrong, and what is allowed
#
# y = x * x     keeps x, for      dx = 2 x dy       so x must still be the x of then when backward
# comes
#
# A write in between would make the gradient wrong, without a word. The engine says the word: every
# storage counts its writes (its version), and a node remembers the count and the stretch of memory
# that it keeps, so that a write beside it may pass.

# %%
import textwrap
from contextlib import contextmanager

import numpy as np

import tensor
from tensor import Tensor, no_grad
from tensor.errors import MutationError


@contextmanager
def refused(what, kind=MutationError):
    """What stands in this block must fail; print how."""
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
# ## 1. Refused before a byte is written
#
# - A result in a graph: the graph says h = 2x, and after the write h[0] would be something else.
# - A leaf while recording: no node stands for a write. With `no_grad()` you say that none is
# wanted.
# - NumPy's window on memory of a graph: a write through it could not be seen, so it is read-only.
# - An expanded tensor, graph or not: three indices share each cell, and would each add 1 to it.

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
# ## 2. Noticed when backward comes: both lines are named
#
# Under `no_grad()`, or in memory of which nobody asks for a gradient, a write may be meant. Whether
# it hurts is known only when a gradient needs the old values. All is checked before anything is
# deposited: no `.grad` is half right.

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
# Columns interleave in memory, but share no element. So column 1 may be written while column 0 is
# kept:

# %%
y = (x * left).sum()
base[:, 1] = 7.0
y.backward()
print("\ncolumn 0 kept, column 1 written: x.grad =", x.grad.numpy())
assert x.grad.tolist() == left.tolist() == [1, 5, 1]

# %% [markdown]
# A step downhill, after backward: nobody needs the old x any more.

# %%
with no_grad():
    x -= 0.1 * x.grad
print("a step downhill, x - 0.1 x.grad: x      =", x.detach().numpy())
assert np.allclose(x.numpy(), [9.9, 1.5, 2.9])

# %% [markdown]
# `where` builds in the graph what `h[0] = 0` meant: h[0] is out, and its gradient is 0.

# %%
h = x * 2
mask = Tensor([True, False, False])
y = tensor.where(mask, 0.0, h).sum()
x.grad = None
y.backward()
print("where(mask, 0, h) for h[0] = 0:  x.grad =", x.grad.numpy())
assert x.grad.tolist() == [0, 2, 2]

# %% [markdown]
# ## 4. What cannot be seen: memory shared with NumPy, written by NumPy
#
# `Tensor.from_array` shares, `Tensor(...)` copies. Only where you asked for sharing can this
# happen:

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
