"""Muon: momentum, made orthogonal, for the hidden matrices; AdamW for the rest.      Jordan et al. 2024, "Muon: an optimizer for hidden layers" """

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import numpy as np

from tensor.core import Tensor
from tensor.devices import Array
from tensor.kernels import KERNELS, choose
from tensor.mode import MODE
from tensor.nn.module import Module
from tensor.nn.packing import Flat, group_of
from tensor.optim.adamw import EMBEDDING, adamw
from tensor.optim.optimizer import Optimizer, Rule, named_with

QUINTIC = 3.4445, -4.7750, 2.0315  # chosen by Jordan et al. for a steep start: small singular values grow 3.4445-fold a step
OUTSIDE = {"embedding", "head"}  # words in the names of tables: each row stands for a token, and the rows do not act together


class Muon(Optimizer):
    """u <- momentum u + g,   w <- w - lr weight_decay w - lr sqrt(max(1, outputs / inputs)) orthogonal(g + momentum u)      (nesterov; else of u)

    for every matrix w: (inputs, outputs) in the middle of a model: all 2-D parameters, except those that have a name with the word
    "embedding" or "head" in it, as in `token_embedding.weight`; a tied table is excepted under any of its names. Parameters given
    without names are told apart by their dimensions alone. orthogonal(m) is U V^T for m = U S V^T, nearly: each direction moves
    equally far, not only those where gradients are large. The scale is Jordan et al.'s, whose matrices are (outputs, inputs): it keeps
    an update's effect on the layer's output, and so the best lr, about the same for all widths.

    All other parameters take AdamW's step with `adamw_lr`, `betas` and `eps`. A schedule moves `lr` only: the rate of AdamW keeps its
    ratio to it. Tables and matrices decay, each at its own rate; gains and biases do not, nor embeddings with decay_embeddings=False.
    """

    slots = ("m", "v")

    def __init__(
        self,
        parameters: Module | Iterable[Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        steps: int = 5,
        weight_decay: float = 0.01,
        adamw_lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        decay_embeddings: bool = True,
    ):
        if lr <= 0 or eps <= 0:
            raise ValueError(f"Muon lr={lr}, eps={eps}: both above 0; AdamW's rate is kept as a ratio to lr, and its eps divides")
        self._outside = named_with(parameters, OUTSIDE)
        self._spared = named_with(parameters, EMBEDDING) if not decay_embeddings else set()
        super().__init__(parameters, lr)
        self.momentum, self.nesterov, self.steps, self.weight_decay = momentum, nesterov, steps, weight_decay
        self.adamw_ratio, self.betas, self.eps = adamw_lr / lr, betas, eps

    def group_of(self, parameter: Tensor) -> str:
        group = group_of(parameter)
        if id(parameter) in self._spared and group == "decayed":
            return "not decayed"
        return "matrices" if group == "decayed" and parameter.ndim == 2 and id(parameter) not in self._outside else group

    def slots_of(self, flat: Flat) -> tuple[str, ...]:
        return ("u",) if flat.group == "matrices" else self.slots

    def rule(self, flat: Flat, count: int) -> Rule:
        if flat.group == "matrices":
            keep = 1 - self.lr * self.weight_decay
            return partial(muon, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, steps=self.steps, keep=keep)
        (b1, b2), lr = self.betas, self.lr * self.adamw_ratio
        keep = 1 - lr * self.weight_decay if flat.group == "decayed" else 1.0
        return partial(adamw, b1=b1, b2=b2, size=lr / (1 - b1**count), spread=1 / math.sqrt(1 - b2**count), eps=self.eps, keep=keep)

    def _update_run(self, flat: Flat, state: dict[str, Array], start: int, stop: int, count: int) -> None:
        """Matrices one by one, each whole; all else as it is."""
        if flat.group != "matrices":
            return super()._update_run(flat, state, start, stop, count)
        rule, weights = self.rule(flat, count), flat.weights.array
        exact: Array = state.get("master", weights)
        reached = [place for place in flat.places if start <= place.start < min(place.stop, stop)]  # those that are empty are not
        arrays = [weights, flat.gradients.array, state["u"], np.array([(place.start, *place.parameter.shape) for place in reached], np.int64)]
        kernel = choose("muon", KERNELS.setdefault("muon", []), arrays, {}, MODE.get().kernels_off)
        if kernel and self.loss_scale is None:
            kernel(*arrays, **rule.keywords)
            return None
        for place in reached:
            part, shape = slice(place.start, place.stop), place.parameter.shape
            w, g, u = (array[part].reshape(shape) for array in (exact, flat.gradients.array, state["u"]))  # views
            rule(w, self._exact(g, w.dtype), u)
            if exact is not weights:
                weights[part] = exact[part].astype(flat.dtype)
        return None


def muon(w: Array, g: Array, u: Array, *, lr: float, momentum: float, nesterov: bool, steps: int, keep: float) -> None:
    """u = momentum u + g,   w = keep w - lr sqrt(max(1, outputs / inputs)) orthogonal(u) (nesterov: of g + momentum u), in place.

    w, g, u: (inputs, outputs).
    """
    u *= momentum
    u += g
    update = orthogonal(g + momentum * u if nesterov else u, steps)
    if keep != 1:
        w *= keep
    w -= lr * math.sqrt(max(1.0, w.shape[1] / w.shape[0])) * update


def orthogonal(matrix: Array, steps: int = 5) -> Array:
    """About U V^T, for matrix = U S V^T: the singular vectors stay, the singular values become about 1. Zero stays zero.      Jordan et al. 2024

        X <- a X + b (X X^T) X + c (X X^T)^2 X,   so that each singular value s of X becomes a s + b s^3 + c s^5;

    from X = matrix / its Frobenius norm, whose singular values are at most 1, the values that began above 0.01 lie between 0.68 and 1.14
    after 5 steps: no more is needed, and no decomposition, only products. (Newton and Schulz's iteration has a = 3/2, b = -1/2, c = 0:
    it comes to 1 exactly, but slowly.) A tall matrix is transposed meanwhile, which makes X X^T the smaller of the two products.
    """
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    tiny = np.finfo(x.dtype).tiny
    x = x / np.maximum(np.abs(x).max(), tiny)  # first by the largest, so that no square vanishes or overflows
    x /= np.maximum(np.sqrt((x * x).sum()), tiny)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.T if tall else x
