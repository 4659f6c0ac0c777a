"""Adam.      Kingma & Ba 2015, algorithm 1"""

from __future__ import annotations

from functools import partial
from typing import Any

from tensor.errors import brief
from tensor.memory.devices import Array
from tensor.nn.packing import Flat
from tensor.optim.adamw import AdamW, adamw
from tensor.optim.groups import Parameters, Rate
from tensor.optim.optimizer import Rule


class Adam(AdamW):
    """g <- g + weight_decay * w,   then AdamW's step without its decay.

    This is the decay of L2 regularisation, as in PyTorch: the gradient of weight_decay w^2 / 2. All
    parameters decay. Adam divides the decay by sqrt(v^), as any gradient; AdamW does not.
    """

    @brief
    def __init__(
        self,
        parameters: Parameters,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def rule(self, flat: Flat, options: dict[str, Any], count: int) -> Rule:
        step = super().rule(flat, {**options, "weight_decay": 0.0}, count)
        decay = options["weight_decay"]
        return partial(adam, l2=decay, **step.keywords) if decay else step


def adam(w: Array, g: Array, m: Array, v: Array, *, l2: float, **numbers: float) -> None:
    """The update `adamw` of the gradient g + l2 w, in place."""
    adamw(w, g + l2 * w, m, v, **numbers)
