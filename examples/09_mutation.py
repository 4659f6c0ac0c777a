"""Writing to memory that a gradient still needs would make the gradient wrong, without a word. The engine says the word.

    y = x * x     keeps x, for      dx = 2 x dy       so x must still be the x of then when backward comes

Every storage counts its writes; a node remembers the count and the stretch of memory it keeps, so that a write beside it may pass.
"""

from contextlib import contextmanager

import numpy as np

import tensor
from tensor import Tensor, no_grad
from tensor.errors import MutationError


@contextmanager
def refused(what):
    """What stands in this block must fail; print how."""
    try:
        yield
    except (MutationError, ValueError) as error:
        print(f"{what}\n    {type(error).__name__}: {error}\n")
    else:
        raise AssertionError(f"not refused: {what}")


print("1. What is refused before a byte is written\n")
x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
h = x * 2
with refused("A result in a graph: the tape says h = 2x, and after the write h[0] would be something else."):
    h[0] = 0.0
with refused("A leaf while recording: the tape has no entry for a write. With no_grad() you say that none is wanted."):
    x[0] = 0.0
with refused("NumPy's window on memory of a graph: a write through it could not be seen, so it is read-only."):
    h.numpy()[0] = 0.0
with refused("An expanded tensor, graph or not: three indices share each cell, and would each add 1 to it."):
    row = Tensor([1.0, 2.0]).expand(3, 2)
    row += 1.0

print("2. What is noticed when backward comes: both lines are named\n")
y = (x * x).sum()
with no_grad():
    x[0] = 10.0
with refused("x was kept by x * x, then written:"):
    y.backward()
print("    x.grad is", x.grad, "still: all is checked before anything is deposited\n")

base = tensor.ones(3, 2)
left = base[:, 0]  # a view: the same memory
y = (x * left).sum()
base[1] = 5.0
with refused("Column 0 was kept; row 1 was written, through another view of the same memory:"):
    y.backward()

print("3. What is allowed\n")
y = (x * left).sum()
base[:, 1] = 7.0
y.backward()
print("Column 0 kept, column 1 written: they interleave in memory, but share no element.    x.grad =", x.grad.numpy())

with no_grad():
    x -= 0.1 * x.grad
print("A step downhill, after backward: nobody needs the old x any more.                    x      =", x.detach().numpy())

h = x * 2
mask = Tensor([True, False, False])
y = tensor.where(mask, 0.0, h).sum()
x.grad = None
y.backward()
print("where() builds in the graph what h[0] = 0 meant: h[0] is out, its gradient 0.        x.grad =", x.grad.numpy())

print("\n4. What cannot be seen: memory shared with NumPy, written by NumPy\n")
shared = np.array([1.0, 2.0], np.float32)
w = Tensor([1.0, 1.0], requires_grad=True)
y = (w * Tensor.from_array(shared)).sum()
shared[0] = 100.0
y.backward()
print("from_array shares, Tensor(...) copies.   dw should be [1, 2], and is", w.grad.tolist())
