# %% [markdown]
# # A product and its gradient in Python's debugger
#
# Every op is an ordinary Python function. So the debugger that comes with Python, pdb, can step
# into a product. This lesson types the debugger's commands itself, and shows what the debugger
# prints. At a terminal, write `breakpoint()` before the line `y = a * b`, and type the commands
# yourself:
#
#     s    step: run to the next line, also into a function
#     r    run to the end of this function
#     c    continue to the next breakpoint

# %%
from __future__ import annotations

import io
import pdb

from tensor import Tensor, ops

# %% [markdown]
# ## Forward
#
# `product` is the user's code. The debugger stops at its first line. From there, eight steps lead
# into `multiply` of tensor/ops/elementwise.py, the function on arrays. One frame is between: the
# call of the op, which finds the arrays of the two tensors. This frame is named `multiply` too.


# %%
def product(a: Tensor, b: Tensor) -> Tensor:
    return a * b


def in_debugger(function, *arguments, commands: list[str], stop_at=None) -> str:
    """Run a function under pdb with these commands: what pdb prints, without folders' names."""
    out = io.StringIO()
    debugger = pdb.Pdb(
        stdin=io.StringIO("\n".join([*commands, "c"]) + "\n"), stdout=out, nosigint=True
    )
    debugger.use_rawinput = False
    debugger.prompt = ""
    if stop_at is not None:
        debugger.set_break(*stop_at)
    debugger.runcall(function, *arguments)
    lines = [line for line in out.getvalue().splitlines() if line.strip()]
    return "\n".join(
        line.replace(line[2 : line.rfind("/") + 1], "", 1) if line.startswith("> ") else line
        for line in lines
    )


a = Tensor([2.0, 3.0], requires_grad=True)
b = Tensor([5.0, 7.0], requires_grad=True)
printed = in_debugger(product, a, b, commands=["s"] * 9)
print(printed)
places = [line for line in printed.splitlines() if line.startswith("> ")]
assert "elementwise.py" in places[-1]
assert sum("op.py" in place for place in places) == 7

# %% [markdown]
# ## Backward
#
# `multiply` returned the product and two backward functions, one for each factor:
#
#     -> return a * b, (lambda dy: dy * b, lambda dy: dy * a)
#
# Here `dy` is the gradient of the loss with respect to the product. A breakpoint on this line stops
# the backward pass inside a backward function. `p dy` and `p b` print the arrays.

# %%
y = product(a, b)
code = ops.multiply.reference.__code__
rules = [constant for constant in code.co_consts if hasattr(constant, "co_code")]
place = code.co_filename, rules[0].co_firstlineno
printed = in_debugger(
    y.backward,
    Tensor([1.0, 10.0]),
    commands=["c", "p dy", "p b", "c", "p dy", "p a"],
    stop_at=place,
)
print(printed)
assert "array([ 1., 10.]" in printed
assert "array([5., 7.]" in printed
assert a.grad.tolist() == [5.0, 70.0]
assert b.grad.tolist() == [2.0, 30.0]

# %% [markdown]
# The gradients are those of the product rule: dL/da = dy * b and dL/db = dy * a.
