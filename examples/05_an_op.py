"""An operation is a function on arrays that returns its result and its own gradient.

    y = f(x),   L = any number made from y,   dy = dL/dy   ->   dx = dL/dx = dy * dy/dx

The function runs on bare NumPy arrays, in a REPL or here: no tensor, no graph. What its gradient needs is what its closure mentions.
"""

from __future__ import annotations  # the engine reads which arguments are arrays from the annotations, as text

import inspect
from typing import Any

import numpy as np

import tensor
from tensor.devices import Array
from tensor.errors import GradientError
from tensor.gradcheck import gradcheck
from tensor.op import elementwise_op

rng = np.random.default_rng(0)

print("1. multiply: y = a b,   da = dy b,   db = dy a\n")
print(inspect.getsource(tensor.multiply.reference))
y, (da, db) = tensor.multiply.reference(np.array([2.0, 3.0]), np.array([10.0, 20.0]))
print("y =", y, "   da(1) =", da(np.ones(2)), "   db(1) =", db(np.ones(2)))
print("da mentions, and so keeps,", inspect.getclosurevars(da).nonlocals)
print("db mentions, and so keeps,", inspect.getclosurevars(db).nonlocals)
print("If only a wants a gradient, the engine drops db, and with it the array a.")

print("\n2. layer_norm: y = gain * (x - mean) / sqrt(variance + eps) + bias, over the last axis\n")
x, gain, bias = rng.standard_normal((2, 5)), rng.standard_normal(5), rng.standard_normal(5)
y, backward = tensor.layer_norm.reference(x, gain, bias)
for name, kept in inspect.getclosurevars(backward).nonlocals.items():
    print(f"kept  {name:12} {kept.shape}")
print("Neither x nor y is among them: for this op they can go as soon as nobody else uses them.")

print("\n3. Is dx right? Move one element of x by h, and see what L = sum(dy * y) does:   dL/dx_i ~ (L(x + h) - L(x - h)) / 2h\n")
dy, h = rng.standard_normal(y.shape), 1e-5
dx, dgain, dbias = backward(dy)
numeric = np.zeros_like(x)
for i in np.ndindex(x.shape):
    step = np.zeros_like(x)
    step[i] = h
    above, below = (tensor.layer_norm.reference(moved, gain, bias)[0] for moved in (x + step, x - step))
    numeric[i] = ((above - below) * dy).sum() / (2 * h)
print("the rule    ", dx[0].round(6))
print("differences ", numeric[0].round(6))
print(f"largest difference {np.abs(dx - numeric).max():.1e}")
print("dy is random on purpose: with dy = 1 and gain = 1, each row of y sums to the same whatever x is, and a rule that returns 0 would pass.")
print(f"gradcheck does this for x, gain and bias: worst relative error {gradcheck(tensor.layer_norm, [x, gain, bias]):.1e}")

print("\n4. An op of your own: the function, a decorator, a check.\n")


@elementwise_op
def softplus(x: Array) -> Any:
    """y = ln(1 + e^x),   dx = dy / (1 + e^-x)"""
    return np.logaddexp(x, 0), (lambda dy: dy / (1 + np.exp(-x)),)


@elementwise_op
def slightly_wrong(x: Array) -> Any:
    """The same with a gradient that is a ten-thousandth too large: training would never show it."""
    return np.logaddexp(x, 0), (lambda dy: 1.0001 * dy / (1 + np.exp(-x)),)


print(f"softplus        worst relative error {gradcheck(softplus, [x]):.1e}")
try:
    gradcheck(slightly_wrong, [x])
except GradientError as error:
    print("slightly_wrong ", error)
t = tensor.Tensor([0.0, 1.0], requires_grad=True)
softplus(t).sum().backward()
print("On tensors it is recorded like any other:", softplus(t), "  gradient", t.grad)
