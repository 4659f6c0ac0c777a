"""Stochastic gradient descent with momentum.      Sutskever et al. 2013, section 2"""

from __future__ import annotations

from functools import partial

from tensor.memory.devices import Array
from tensor.nn.packing import Flat
from tensor.optim.optimizer import Optimizer, Parameters, Rule


class SGD(Optimizer):
    """u <- momentum * u + g,   w <- w - lr * u;   nesterov: w <- w - lr * (g + momentum * u).

    weight_decay is decoupled, as in AdamW: w <- w - lr * weight_decay * w, for matrices and tables
    only.
    """

    state_names = ("u",)

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-2,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr)
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay

    def rule(self, flat: Flat, count: int) -> Rule:
        decay = 1 - self.lr * self.weight_decay if flat.group == "decayed" else 1.0
        return partial(sgd, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, decay=decay)


def sgd(
    w: Array, g: Array, u: Array, *, lr: float, momentum: float, nesterov: bool, decay: float
) -> None:
    """u = momentum u + g,   w = decay w - lr u (nesterov: lr (g + momentum u)), in place."""
    u *= momentum
    u += g
    if decay != 1:
        w *= decay
    w -= lr * (g + momentum * u if nesterov else u)
