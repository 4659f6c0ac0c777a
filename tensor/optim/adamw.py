"""AdamW.      Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import numpy as np

from tensor.core import Tensor
from tensor.devices import Array
from tensor.nn.module import Module
from tensor.nn.packing import Flat, group_of
from tensor.optim.optimizer import Optimizer, Rule, named_with

EMBEDDING = {"embedding"}  # the word in the names of tables whose rows stand for tokens or places


class AdamW(Optimizer):
    """w <- w - lr * weight_decay * w,   then   w <- w - lr * m^ / (sqrt(v^) + eps)

    m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,  m^ = m / (1 - b1^t),  v^ = v / (1 - b2^t),  t the steps of that parameter from 1.
    The decay is decoupled (not part of g), and only matrices and tables decay: gains and biases do not. With decay_embeddings=False neither
    do parameters of a module that have the word "embedding" in a name, as `token_embedding.weight` (a tied head with it).
    """

    slots = ("m", "v")

    def __init__(
        self,
        parameters: Module | Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        decay_embeddings: bool = True,
    ):
        if eps <= 0:
            raise ValueError(f"AdamW eps={eps}: above 0, or an element whose gradient was always 0 would become 0 / 0")
        self._spared = named_with(parameters, EMBEDDING) if not decay_embeddings else set()
        super().__init__(parameters, lr)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def group_of(self, parameter: Tensor) -> str:
        group = group_of(parameter)
        return "not decayed" if group == "decayed" and id(parameter) in self._spared else group

    def rule(self, flat: Flat, count: int) -> Rule:
        b1, b2 = self.betas
        keep = 1 - self.lr * self.weight_decay if flat.group == "decayed" else 1.0
        return partial(adamw, b1=b1, b2=b2, size=self.lr / (1 - b1**count), spread=1 / math.sqrt(1 - b2**count), eps=self.eps, keep=keep)


def adamw(w: Array, g: Array, m: Array, v: Array, *, b1: float, b2: float, size: float, spread: float, eps: float, keep: float) -> None:
    """m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2,   w = keep w - size m / (spread sqrt(v) + eps), in place."""
    m *= b1
    m += (1 - b1) * g
    v *= b2
    v += (1 - b2) * (g * g)
    denominator = np.sqrt(v)
    denominator *= spread
    denominator += eps
    np.divide(m, denominator, out=denominator)
    denominator *= size
    if keep != 1:
        w *= keep
    w -= denominator
