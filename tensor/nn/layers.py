"""The layers a transformer is made of. Weights start as PyTorch starts them; a model may draw its
own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from tensor import creation, ops
from tensor.errors import OptionError, brief
from tensor.mode import MODE, Switch, switch
from tensor.nn.module import Module, Parameter
from tensor.random import Key, next_key
from tensor.tensor import Tensor


@switch
def undrawn() -> Switch[None]:
    """`with undrawn():` layers start as zeros, for a model that draws or loads its own weights.

    Drawing takes seconds at GPT-2's size.
    """
    return Switch(drawing=False)


def _in_dtype_of(parameter: Tensor, x: Any) -> Any:
    """x; a tensor of another dtype is cast to the parameter's. Arrays and lists the op casts."""
    return x.to(parameter.dtype) if isinstance(x, Tensor) and x.dtype != parameter.dtype else x


def _uniform(bound: float, *shape: int) -> Tensor:
    return (creation.rand(*shape) * 2 - 1) * bound if MODE.get().drawing else creation.zeros(*shape)


class Linear(Module):
    """y = x weight + bias.   x: (..., inputs)   weight: (inputs, outputs)   bias: (outputs,)   y:
    (..., outputs)

    Both start uniform in +-1 / sqrt(inputs).
    """

    @brief
    def __init__(self, inputs: int, outputs: int, bias: bool = True, role: str = "matrix"):
        bound = 1 / math.sqrt(inputs) if inputs else 0.0
        self.weight = Parameter(_uniform(bound, inputs, outputs), role=role)
        self.bias = Parameter(_uniform(bound, outputs)) if bias else None

    @brief
    def __call__(self, x: Any) -> Tensor:
        return ops.linear(_in_dtype_of(self.weight, x), self.weight, self.bias)


class Embedding(Module):
    """y = weight[ids]: a row of `width` numbers for each of `count` ids.   ids: (...)   y: (...,
    width).   Starts as N(0, 1).
    """

    @brief
    def __init__(self, count: int, width: int):
        start = creation.randn if MODE.get().drawing else creation.zeros
        self.weight = Parameter(start(count, width), role="table")

    @brief
    def __call__(self, ids: Any) -> Tensor:
        return ops.embedding(ids, self.weight)


class LayerNorm(Module):
    """y = gain * (x - mean) / sqrt(variance + eps) + bias over the last axis, of size `width`.
    Starts as gain 1, bias 0.
    """

    @brief
    def __init__(self, width: int, eps: float = 1e-5):
        self.gain, self.bias = Parameter(creation.ones(width)), Parameter(creation.zeros(width))
        self.eps = eps

    @brief
    def __call__(self, x: Any) -> Tensor:
        return ops.layer_norm(_in_dtype_of(self.gain, x), self.gain, self.bias, eps=self.eps)

    @brief
    def after_sum(self, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        """(s, n):   s = x + y, a residual sum,   n = self(s).   One op where a kernel does both."""
        s, n = ops.residual_layer_norm(x, y, self.gain, self.bias, eps=self.eps)
        return s, n


class RMSNorm(Module):
    """y = gain * x / sqrt(mean of x^2 + eps) over the last axis, of size `width`. Starts as gain 1.
    Zhang and Sennrich 2019
    """

    @brief
    def __init__(self, width: int, eps: float = 1e-6):
        self.gain = Parameter(creation.ones(width))
        self.eps = eps

    @brief
    def __call__(self, x: Any) -> Tensor:
        x = Tensor.wrap(_in_dtype_of(self.gain, x))
        # y is the same for x / size, whose squares do not overflow
        size = x.detach().abs().max(-1, keepdims=True).clip(1)
        x = x / size
        mean_square = (x * x).mean(-1, keepdims=True)
        return self.gain * (x / (mean_square + self.eps / (size * size)).sqrt())


class Sequential(Module):
    """y = the layers one after the other. They are named by their numbers: "0.weight"."""

    def __init__(self, *layers: Callable[[Any], Any]):
        for number, layer in enumerate(layers):
            setattr(self, str(number), layer)

    def __iter__(self) -> Iterator[Any]:
        return (layer for name, layer in vars(self).items() if name.isdecimal())

    def __getitem__(self, number: int) -> Any:
        return list(self)[number]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __call__(self, x: Any) -> Any:
        for layer in self:
            x = layer(x)
        return x


class ReLU(Module):
    """y = max(x, 0)"""

    @brief
    def __call__(self, x: Any) -> Tensor:
        return ops.relu(x)


class LeakyReLU(Module):
    """y = x where x > 0, else slope * x"""

    @brief
    def __init__(self, slope: float = 0.01):
        self.slope = slope

    @brief
    def __call__(self, x: Any) -> Tensor:
        x = Tensor.wrap(x)
        return ops.where(x > 0, x, self.slope * x)


class GELU(Module):
    """y = x times the normal distribution up to x. The default is its tanh form, GPT-2's, up to
    5e-4 away; `nn.GELU("erf")` is exact, as the default of PyTorch. See `tensor.gelu`.
    """

    @brief
    def __init__(self, form: str = "tanh"):
        self.form = form

    @brief
    def __call__(self, x: Any) -> Tensor:
        return ops.gelu(x, form=self.form)


class SiLU(Module):
    """y = x sigmoid(x)"""

    @brief
    def __call__(self, x: Any) -> Tensor:
        return ops.silu(x)


class Tanh(Module):
    """y = tanh x"""

    @brief
    def __call__(self, x: Any) -> Tensor:
        return ops.tanh(x)


class Sigmoid(Module):
    """y = 1 / (1 + e^-x)"""

    @brief
    def __call__(self, x: Any) -> Tensor:
        return ops.sigmoid(x)


class Softmax(Module):
    """y = e^x / sum of e^x, over an axis."""

    @brief
    def __init__(self, axis: int = -1):
        self.axis = axis

    @brief
    def __call__(self, x: Any) -> Tensor:
        return ops.softmax(x, axis=self.axis)


class Flatten(Module):
    """The axes from `start` to `end` joined into one; by default all but the first, the batch."""

    @brief
    def __init__(self, start: int = 1, end: int = -1):
        self.start, self.end = start, end

    @brief
    def __call__(self, x: Any) -> Tensor:
        return ops.flatten(x, self.start, self.end)


class Dropout(Module):
    """Elements zeroed with probability p and the rest scaled by 1 / (1 - p), in training; the
    identity in evaluation.

    `number` tells the dropouts of one model apart: their masks differ, and are the same again when
    a step is repeated.
    """

    @brief
    def __init__(self, p: float, number: int = 0):
        if not 0 <= p <= 1:
            raise OptionError(f"dropout p={p}: a probability between 0 and 1")
        self.p, self.number = p, number

    def key(self) -> Key:
        """The key of this layer's mask just now."""
        return next_key(self.number)

    @brief
    def __call__(self, x: Any) -> Tensor:
        if not self.learning or self.p == 0:
            return Tensor.wrap(x)
        return ops.dropout(x, self.p, key=self.key())
