"""Loss scaling: gradients too small for float16, multiplied into its range.      Micikevicius et
al. 2018, section 3.2
"""

from __future__ import annotations

import math
from typing import Any

from tensor.errors import OptionError, brief


class LossScale:
    """A factor for the loss, as large as no gradient overflows: halved when one did, doubled after
    `patience` steps in a row without.

        optimizer.loss_scale = scale = LossScale()
        loss.backward(full_like(loss, scale.value))   # all gradients are `value` times as large
        norm = clip_gradients(optimizer, limit * scale.value) / scale.value   # the true norm
        if math.isfinite(norm):
            optimizer.step()                          # divides by `value`, in float32
        scale.adapt(math.isfinite(norm))

    float16 has no numbers above 65504 or below 6e-8, and most gradients are small. bfloat16 reaches
    as far as float32 and needs no scale. The value is a power of two if it starts as one, so
    multiplying and dividing round nothing.
    """

    @brief
    def __init__(self, value: float = 2.0**16, patience: int = 2000):
        if not 0 < value < math.inf or patience < 1:
            raise OptionError(
                f"LossScale value={value}, patience={patience}: "
                "a positive number, and at least one step, are needed"
            )
        self.value, self.patience = value, patience
        self.good = 0  # steps in a row without overflow, since the value changed

    def adapt(self, fitted: bool) -> None:
        """After a step. fitted: whether all gradients were finite."""
        self.good = self.good + 1 if fitted else 0
        if not fitted:
            self.value /= 2
        elif self.good == self.patience:
            self.value, self.good = self.value * 2, 0

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes: enough to go on."""
        return {"value": self.value, "good": self.good}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.good = float(state["value"]), int(state["good"])
