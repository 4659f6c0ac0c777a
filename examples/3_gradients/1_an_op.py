# %% [markdown]
# # An operation is a function on arrays that returns its result and its backward function
#
#     y = f(x),   L = any number made from y,   dy = dL/dy      ->      dx = dL/dx = dy * dy/dx
#
# That is the chain rule. An operation (op) gets x and computes y. Later its backward function gets
# dy and computes dx. Both work on NumPy arrays: there is no tensor here, and no graph. The backward
# function keeps the arrays that it uses.

# %%
import inspect
import textwrap
from typing import Any

import numpy as np

import tensor
from tensor.errors import GradientError
from tensor.gradcheck import gradcheck
from tensor.memory.devices import Array
from tensor.ops.op import elementwise_op

rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. multiply: y = a b,   da = b dy,   db = a dy
#
# This is the whole op. An op of the engine is made from such a function, which is its `.reference`:

# %%
print(inspect.getsource(tensor.multiply.reference))
a, b = np.array([2.0, 3.0]), np.array([10.0, 20.0])
y, (da, db) = tensor.multiply.reference(a, b)
print("a", a, "  b", b, "  y", y)
print("with dy = 1 everywhere:   da", da(np.ones(2)), "  db", db(np.ones(2)))
assert y.tolist() == [20, 60]
assert np.array_equal(da(np.ones(2)), b)
assert np.array_equal(db(np.ones(2)), a)

# %% [markdown]
# There is one backward function for each input, and each keeps exactly the arrays that it uses. If
# only a needs a gradient, the engine drops the function for b, and with it the array a.

# %%
print("da mentions, and so keeps,", inspect.getclosurevars(da).nonlocals)
print("db mentions, and so keeps,", inspect.getclosurevars(db).nonlocals)
assert list(inspect.getclosurevars(da).nonlocals) == ["b"]
assert list(inspect.getclosurevars(db).nonlocals) == ["a"]

# %% [markdown]
# ## 2. layer_norm: y = gain * (x - mean) / sqrt(variance + eps) + bias
#
# Mean and variance are those of a row. (6_the_transformer/2_a_block.py says why a model uses it.)
# Here the three gradients share work, so one function returns them all. It keeps neither x nor y.
# So their memory can be freed as soon as nobody else uses them.

# %%
x, gain, bias = rng.standard_normal((2, 5)), rng.standard_normal(5), rng.standard_normal(5)
y, backward = tensor.layer_norm.reference(x, gain, bias)
kept = inspect.getclosurevars(backward).nonlocals
print(
    "\nlayer_norm of x (2, 5) keeps",
    ", ".join(f"{name} {array.shape}" for name, array in kept.items()),
)
assert not any(array is x or array is y for array in kept.values())

# %% [markdown]
# ## 3. Is dx right? Move one element of x by h, and see what L = sum(dy * y) does
#
#     dL/dx_i  ~  (L(x_i + h) - L(x_i - h)) / 2h
#
# These are central differences. They use no rule for gradients, so they cannot repeat its mistakes.

# %%
dy, h = rng.standard_normal(y.shape), 1e-5
dx, dgain, dbias = backward(dy)
numeric = np.zeros_like(x)
for i in np.ndindex(x.shape):
    step = np.zeros_like(x)
    step[i] = h
    above, below = (
        tensor.layer_norm.reference(moved, gain, bias)[0] for moved in (x + step, x - step)
    )
    numeric[i] = ((above - below) * dy).sum() / (2 * h)
print("\ndx of the first row, by the rule    ", dx[0].round(6))
print("                     by differences ", numeric[0].round(6))
print(f"largest difference {np.abs(dx - numeric).max():.1e}")
assert np.allclose(dx, numeric, atol=1e-8)

# %% [markdown]
# dy is random on purpose. With dy = 1 and gain = 1, each row of y has the same sum for every x, so
# the gradient is 0. A wrong rule that always returns 0 would pass:

# %%
blind, _, _ = tensor.layer_norm.reference(x, np.ones(5), bias)[1](np.ones((2, 5)))
print(
    f"with dy = 1 and gain = 1 the largest dx is {np.abs(blind).max():.0e}, "
    f"here it is {np.abs(dx).max():.1f}"
)
assert np.abs(blind).max() < 1e-12

worst = gradcheck(tensor.layer_norm, [x, gain, bias])
print(f"gradcheck does all this for x, gain and bias: worst relative error {worst:.1e}")
assert worst < 1e-8

# %% [markdown]
# ## 4. An op of your own: the function, a decorator, a check
#
# The second op has a gradient that is a ten-thousandth too large. No training would show it.


# %%
@elementwise_op
def softplus(x: Array) -> Any:
    """y = ln(1 + e^x),   dx = dy / (1 + e^-x)"""
    return np.logaddexp(x, 0), (lambda dy: dy / (1 + np.exp(-x)),)


@elementwise_op
def slightly_wrong(x: Array) -> Any:
    return np.logaddexp(x, 0), (lambda dy: 1.0001 * dy / (1 + np.exp(-x)),)


print(f"\nsoftplus: worst relative error {gradcheck(softplus, [x]):.1e}")
try:
    gradcheck(slightly_wrong, [x])
except GradientError as error:
    print(textwrap.fill(f"slightly_wrong: {error}", 98, subsequent_indent="    "))
else:
    raise AssertionError("not noticed")

# %% [markdown]
# Called with tensors, the new op has gradients like any other op. The next lesson,
# 3_gradients/2_the_graph.py, shows how. 3_gradients/7_an_op_of_your_own.py has a larger op, in a
# model.

# %%
t = tensor.Tensor([0.0, 1.0], requires_grad=True)
y = softplus(t)
y.sum().backward()
print("\nsoftplus of", t.tolist(), "is", y, "\nand its gradient", t.grad.numpy())
assert np.allclose(t.grad.numpy(), 1 / (1 + np.exp([0.0, -1.0])))
