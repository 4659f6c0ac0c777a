"""Loss scaling: gradients too small for float16, multiplied into its range.      Micikevicius et
al. 2018, section 3.2
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.errors import OptionError, brief
from tensor.memory.devices import move
from tensor.tensor import Tensor

LEAST, MOST = 2.0**-126, 2.0**127  # as in adamw.cu: powers of two that float32 has in full


class LossScale:
    """A factor for the loss, as large as no gradient overflows: halved when one did, doubled after
    `patience` steps in a row without.

        optimizer.loss_scale = scale = LossScale()
        loss.backward(full_like(loss, scale.value))   # all gradients are `value` times as large
        norm = clip_gradients(optimizer, limit * scale.value) / scale.value   # the true norm
        if math.isfinite(norm):
            optimizer.step()                          # divides by `value`, in float32
        scale.adapt(math.isfinite(norm))

    `clipped_step` does the last four lines. On a GPU it keeps the two numbers there: to look at
    `value` waits for the GPU, and `tensor()` does not.

    float16 has no numbers above 65504 or below 6e-8, and most gradients are small. bfloat16 reaches
    as far as float32 and needs no scale. The value is a power of two if it starts as one, so
    multiplying and dividing round nothing. It stays between 2^-126 and 2^127: however many steps
    overflow, it does not become 0.
    """

    @brief
    def __init__(self, value: float = 2.0**16, patience: int = 2000):
        if not LEAST <= value <= MOST or patience < 1:
            raise OptionError(
                f"LossScale value={value}, patience={patience}: "
                "a number from 2^-126 to 2^127, and at least one step, are needed"
            )
        self.patience = patience
        # the value; the steps in a row without overflow, since the value changed
        self.numbers = np.array([value, 0.0])

    @property
    def value(self) -> float:
        """The factor for the next loss. What is set beyond the bounds becomes the bound."""
        return float(self.numbers[0])

    @value.setter
    def value(self, value: float) -> None:
        self.numbers[0] = min(max(LEAST, value), MOST)

    @property
    def good(self) -> int:
        """Steps in a row without overflow, since the value changed."""
        return int(self.numbers[1])

    @good.setter
    def good(self, steps: int) -> None:
        self.numbers[1] = steps

    def tensor(self) -> Tensor:
        """The value as it is now, where it is now: () float64. Nothing waits."""
        return Tensor.from_array(self.numbers[:1].copy().reshape(()))

    def to(self, device: str) -> None:
        """Keep the numbers on a device from here on."""
        self.numbers = move(self.numbers, device)

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
