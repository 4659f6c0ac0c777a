"""AdamW.      Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from tensor.errors import brief
from tensor.kernels import pick
from tensor.memory.devices import Array
from tensor.mode import watched
from tensor.nn.module import role_of
from tensor.nn.packing import Flat, Slot, group_of
from tensor.optim.groups import Parameters, Rate
from tensor.optim.optimizer import Optimizer, Rule
from tensor.tensor import Tensor


class AdamW(Optimizer):
    """w <- w - lr * weight_decay * w,   then   w <- w - lr * m^ / (sqrt(v^) + eps)

    m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,  m^ = m / (1 - b1^t),  v^ = v / (1 - b2^t),
    t the steps of that parameter from 1.
    The decay is decoupled (not part of g), and only matrices and tables decay: gains and biases do
    not, nor with decay_embeddings=False parameters of the role "table" (a tied head is one). In a
    parameter group that sets weight_decay all parameters decay.
    """

    state_names = ("m", "v")
    # the stretches that the latest `clipped_on_device` updated, (number of the flat, parameters);
    # and the rate, the decay and the number of the step of each
    runs: tuple[tuple[int, list[Slot]], ...] = ()
    latest: tuple[tuple[float, float, int], ...] = ()
    # where a CUDA graph reads `latest`: (updates, 3) float64 on the GPU
    later: Array | None = None

    @brief
    def __init__(
        self,
        parameters: Parameters,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        decay_embeddings: bool = True,
    ):
        self.decay_embeddings = decay_embeddings
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def group_of(self, parameter: Tensor) -> str:
        group = group_of(parameter)
        spared = not self.decay_embeddings and role_of(parameter) == "table"
        return "not decayed" if group == "decayed" and spared else group

    def rule(self, flat: Flat, options: dict[str, Any], count: int) -> Rule:
        (b1, b2), lr = options["betas"], options["lr"]
        decayed = options["weight_decay"] if flat.group == "decayed" else 0.0
        return partial(
            adamw,
            b1=b1,
            b2=b2,
            step_size=lr / (1 - b1**count),
            bias_correction=1 / math.sqrt(1 - b2**count),
            eps=options["eps"],
            decay=1 - lr * decayed,
        )

    @watched
    def clipped_on_device(self, limit: float) -> Array | None:
        device, scale = self.flats[0].weights.device, self.loss_scale
        numbers = self._numbers()
        slots = [flat.reached() for flat in self.flats]
        reached = [i for i, here in enumerate(slots) if here]
        known = reached and all(self._known(i, numbers, device) for i in reached)
        arrays = [self.flats[i].gradients.array for i in reached]
        kernel = pick("clipped_adamw", *arrays) if known else None
        if kernel is None:
            return None
        if scale is not None:
            scale.to(device)
        # before the runs, which parameters with equal counts make
        self._leave_to(device, tuple(slot.name for here in slots for slot in here))
        self.runs = tuple((i, run) for i in reached for run in self._runs(slots[i]))
        updates = self._counted(numbers)
        arrays = [self._arrays_of(i, run) for i, run in self.runs]
        places = [None] * len(updates) if self.later is None else list(self.later)
        norm: Array = kernel(
            *(of_run["g"] for of_run in arrays),
            updates=[
                of_run | update | {"later": place}
                for of_run, update, place in zip(arrays, updates, places, strict=True)
            ],
            limit=limit,
            skipped=self._skipped,
            scale=None if scale is None else scale.numbers,
            patience=1 if scale is None else scale.patience,
        )
        return norm

    def count_again(self) -> None:
        """Count another step like the latest `clipped_on_device`, which a CUDA graph makes."""
        numbers = self._numbers()
        names = tuple(slot.name for _, run in self.runs for slot in run)
        self._leave_to(self.flats[0].weights.device, names)
        self._counted(numbers)

    def _known(self, i: int, numbers: list[dict[str, Any]], device: str) -> bool:
        """Whether a kernel on that GPU makes the update of a flat."""
        flat = self.flats[i]
        plain = self.rule(flat, numbers[self.group_numbers[i]], 1).func is adamw
        arrays = flat.weights.array, flat.gradients.array
        return flat.weights.device == device and plain and pick("adamw", *arrays) is not None

    def _counted(self, numbers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Count a step of each run. Returns their numbers, for a kernel that knows how many steps
        were skipped.
        """
        updates = []
        for i, run in self.runs:
            options = numbers[self.group_numbers[i]]
            self._see(i)
            count = self._count(i, run)
            keywords = self.rule(self.flats[i], options, count).keywords
            chosen = {name: keywords[name] for name in ("b1", "b2", "eps", "decay")}
            updates.append({"rate": options["lr"], "t": count, **chosen})
        self.latest = tuple((of["rate"], of["decay"], of["t"]) for of in updates)
        self._taken += 1
        return updates

    def _arrays_of(self, i: int, run: list[Slot]) -> dict[str, Any]:
        """The arrays of a run, as the kernel takes them."""
        flat, state = self.flats[i], self.state[i]
        weights = _stretch(flat.weights.array, run)
        master = _stretch(state["master"], run) if "master" in state else None
        return {
            "g": _stretch(flat.gradients.array, run),
            "narrow": None if master is None else weights,
            "w": weights if master is None else master,
            "m": _stretch(state["m"], run),
            "v": _stretch(state["v"], run),
        }


def _stretch(array: Array, run: list[Slot]) -> Array:
    """The place of a run in an array as long as its flat: mostly all of the array."""
    start, end = run[0].start, run[-1].end
    return array if end - start == array.size else array[start:end]


def adamw(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    b1: float,
    b2: float,
    step_size: float,
    bias_correction: float,
    eps: float,
    decay: float,
) -> None:
    """m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2,
    w = decay w - step_size m / (bias_correction sqrt(v) + eps), in place.
    """
    m *= b1
    m += (1 - b1) * g
    v *= b2
    v += (1 - b2) * (g * g)
    denominator = np.sqrt(v)
    denominator *= bias_correction
    denominator += eps
    np.divide(m, denominator, out=denominator)
    denominator *= step_size
    if decay != 1:
        w *= decay
    w -= denominator
