"""Stochastic gradient descent with momentum.      Sutskever et al. 2013, section 2"""

from __future__ import annotations

from functools import partial
from typing import Any

from tensor.errors import brief
from tensor.memory.devices import Array
from tensor.nn.packing import Flat
from tensor.optim.groups import Parameters, Rate
from tensor.optim.optimizer import Optimizer, Rule


class SGD(Optimizer):
    """u <- momentum * u + g,   w <- w - lr * u;   nesterov: w <- w - lr * (g + momentum * u).

    weight_decay is decoupled, as in AdamW: w <- w - lr * weight_decay * w, for matrices and tables
    only. In a parameter group that sets weight_decay all parameters decay.
    """

    state_names = ("u",)

    @brief
    def __init__(
        self,
        parameters: Parameters,
        lr: Rate = 1e-2,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ):
        options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(parameters, lr=lr, **options)

    def rule(self, flat: Flat, options: dict[str, Any], count: int) -> Rule:
        lr, momentum, nesterov = (options[name] for name in ("lr", "momentum", "nesterov"))
        decay = 1 - lr * options["weight_decay"] if flat.group == "decayed" else 1.0
        return partial(sgd, lr=lr, momentum=momentum, nesterov=nesterov, decay=decay)


def sgd(
    w: Array, g: Array, u: Array, *, lr: float, momentum: float, nesterov: bool, decay: float
) -> None:
    """u = momentum u + g,   w = decay w - lr u (nesterov: lr (g + momentum u)), in place."""
    u *= momentum
    u += g
    if decay != 1:
        w *= decay
    w -= lr * (g + momentum * u if nesterov else u)
