"""Weights of 8 bits for generation. The model reads every weight once for a token, and on a CPU the
reading takes most of the time of the token.

    w ~ scale q,   scale = max |w| / 127 of the output channel,   q = round(w / scale)

q: (outputs, inputs) whole numbers from -127 to 127   scale: (outputs,) float32
No weight is off by more than scale / 2.   Jacob et al. 2018, section 2.1, with zero point 0
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tensor
from tensor import Tensor, nn
from tensor.memory.devices import Array
from tinygpt.errors import InputError
from tinygpt.generation.sampling import REPAIR

MOST = 127  # -128 has no opposite


def to_int8(w: Array) -> tuple[Array, Array]:
    """(q, scale) with w ~ scale q.   w, q: (outputs, inputs)   scale: (outputs,)"""
    scale = abs(w).max(1) / np.float32(MOST)
    # the smallest numbers have no 127th part, and are rounded to 0
    q = w / np.where(scale > 0, scale, np.float32(1))[:, None]
    return q.round(out=q).clip(-MOST, MOST, out=q).astype(np.int8), scale


class Int8Linear(nn.Module):
    """y = x weight + bias, as nn.Linear, with a weight (inputs, outputs) that is rounded to 8 bits.
    The weight does not learn. name: of the layer, for an error
    """

    def __init__(self, name: str, weight: Tensor, bias: nn.Parameter | None = None):
        with np.errstate(over="ignore"):
            w = weight.array.T.astype(np.float32, order="C", copy=False)
        if not np.isfinite(w).all():
            raise InputError(
                f"the weight of {name} is not finite in float32: it has no 8 bits\n{REPAIR}"
            )
        self.register_buffer("q", None)
        self.register_buffer("scale", None)
        self.q: Any
        self.scale: Any
        self.q, self.scale = map(Tensor.from_array, to_int8(w))
        self.bias = bias

    @property
    def weight(self) -> Tensor:
        """scale q as nn.Linear has it, (inputs, outputs): made anew at each use."""
        w: Tensor = self.q.to("float32") * self.scale.unsqueeze(1)
        return w.T

    def __call__(self, x: Tensor) -> Tensor:
        return tensor.linear(x, self.weight.to(x.dtype), self.bias)


def round_layers(model: nn.Module) -> None:
    """Put an Int8Linear in the place of every nn.Linear of the model. A layer with an adapter
    becomes its one matrix.
    """
    places = [
        (path, module, name)
        for path, module in model.named_modules()
        for name, layer in vars(module).items()
        if isinstance(layer, nn.Linear)
    ]
    for path, module, name in places:
        layer = getattr(module, name)
        full = f"{path}.{name}".removeprefix(".")  # the model itself has no path
        setattr(module, name, Int8Linear(full, layer.weight, layer.bias))
