"""Muon: momentum, made orthogonal, for the hidden matrices; AdamW for the rest.      Jordan et al.
2024, "Muon: an optimizer for hidden layers"
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from tensor.errors import OptionError, brief
from tensor.kernels import pick
from tensor.memory.devices import Array
from tensor.nn.module import role_of
from tensor.nn.packing import Flat
from tensor.optim.adamw import AdamW
from tensor.optim.groups import Parameters, Rate
from tensor.optim.optimizer import Optimizer, Rule
from tensor.tensor import Tensor

# chosen by Jordan et al. for a steep start: small singular values grow 3.4445-fold a step
QUINTIC = 3.4445, -4.7750, 2.0315


class Muon(AdamW):
    """u <- momentum u + g
    w <- w - lr weight_decay w - lr sqrt(max(1, outputs / inputs)) orthogonal(g + momentum u)

    and orthogonal(u) without nesterov, for every parameter w: (inputs, outputs) of the role
    "matrix". These are the 2-D weights in the middle of a model, but no tables and no head, tied or
    not. orthogonal(m) is about U V^T for m = U S V^T: each direction moves equally far, not only
    those where gradients are large. The scale is Jordan et al.'s, whose matrices are (outputs,
    inputs). With this scale the best lr is about the same for all widths.

    All other parameters take AdamW's step with `adamw_lr`, `betas` and `eps`. Where `lr` is set
    later, AdamW's rate keeps its ratio to lr. (Functions of the step are given for both.) Tables
    and matrices decay, each at its own rate; gains and biases do not, nor tables with
    decay_embeddings=False. In a parameter group that sets weight_decay all parameters decay.
    """

    @brief
    def __init__(
        self,
        parameters: Parameters,
        lr: Rate = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        steps: int = 5,
        weight_decay: float = 0.01,
        adamw_lr: Rate = 3e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        decay_embeddings: bool = True,
    ):
        self.decay_embeddings = decay_embeddings
        Optimizer.__init__(
            self,
            parameters,
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            steps=steps,
            weight_decay=weight_decay,
            adamw_lr=adamw_lr,
            betas=betas,
            eps=eps,
        )
        for group, made in zip(self.param_groups, self._made, strict=True):
            group["ratio"] = made["ratio"] = _ratio(group["adamw_lr"], group["lr"])

    def group_of(self, parameter: Tensor) -> str:
        group = super().group_of(parameter)
        middle = parameter.ndim == 2 and role_of(parameter) == "matrix"
        return "matrices" if group == "decayed" and middle else group

    def state_names_of(self, flat: Flat) -> tuple[str, ...]:
        return ("u",) if flat.group == "matrices" else self.state_names

    def rule(self, flat: Flat, options: dict[str, Any], count: int) -> Rule:
        lr, ratio = options["lr"], options["ratio"]
        if flat.group == "matrices":
            names = "lr", "momentum", "nesterov", "steps"
            numbers = {name: options[name] for name in names}
            return partial(muon, **numbers, decay=1 - lr * options["weight_decay"])
        rate = options["adamw_lr"] if ratio is None else lr * ratio
        return super().rule(flat, {**options, "lr": rate}, count)

    def _update_run(
        self, flat: Flat, state: dict[str, Array], rule: Rule, start: int, stop: int
    ) -> None:
        """Matrices one by one, each whole; all else as it is."""
        if flat.group != "matrices":
            return super()._update_run(flat, state, rule, start, stop)
        weights = flat.weights.array
        exact: Array = state.get("master", weights)
        # those that are empty are not
        reached = [slot for slot in flat.slots if start <= slot.start < min(slot.stop, stop)]
        slots = np.array([(slot.start, *slot.parameter.shape) for slot in reached], np.int64)
        arrays = exact, flat.gradients.array, state["u"]
        kernel = pick("muon", *arrays, slots)
        if kernel and self.loss_scale is None:
            kernel(*arrays, slots, **rule.keywords)
            return None
        for slot in reached:
            part, shape = slice(slot.start, slot.stop), slot.parameter.shape
            w, g, u = (array[part].reshape(shape) for array in arrays)  # views
            rule(w, self._exact(g, w.dtype), u)
            if exact is not weights:
                weights[part] = exact[part].astype(flat.dtype)
        return None


def _ratio(adamw_lr: Rate, lr: Rate) -> float | None:
    """AdamW's rate as a share of Muon's; None where both are functions of the step."""
    if callable(lr) and callable(adamw_lr):
        return None
    if callable(lr) or callable(adamw_lr) or lr == 0:
        raise OptionError(
            f"Muon lr={lr}, adamw_lr={adamw_lr}: numbers, and lr above 0, since AdamW's rate is "
            "kept as a ratio to lr; or both functions of the step"
        )
    return adamw_lr / lr


def muon(
    w: Array,
    g: Array,
    u: Array,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    steps: int,
    decay: float,
) -> None:
    """u = momentum u + g,   w = decay w - lr sqrt(max(1, outputs / inputs)) orthogonal(u)

    in place, of one matrix; nesterov: orthogonal(g + momentum u).   w, g, u: (inputs, outputs)
    """
    u *= momentum
    u += g
    update = orthogonal(g + momentum * u if nesterov else u, steps)
    if decay != 1:
        w *= decay
    w -= lr * math.sqrt(max(1.0, w.shape[1] / w.shape[0])) * update


def orthogonal(matrix: Array, steps: int = 5) -> Array:
    """About U V^T, for matrix = U S V^T: the singular vectors stay, the singular values become
    about 1. Zero stays zero.      Jordan et al. 2024

        X <- a X + b (X X^T) X + c (X X^T)^2 X

    Each singular value s of X becomes a s + b s^3 + c s^5. The start is X = matrix / its Frobenius
    norm, whose singular values are at most 1. After 5 steps the values that began above 0.01 lie
    between 0.68 and 1.14: that is enough, and takes products alone. (Newton and Schulz's iteration
    has a = 3/2, b = -1/2, c = 0. It comes to 1 exactly, but slowly.) A tall matrix is transposed
    meanwhile, which makes X X^T the smaller of the two products.
    """
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    tiny = np.finfo(x.dtype).tiny
    # first by the largest, so that no square vanishes or overflows
    x = x / np.maximum(np.abs(x).max(), tiny)
    x /= np.maximum(np.sqrt((x * x).sum()), tiny)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.T if tall else x
