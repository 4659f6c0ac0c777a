"""What the transformers have in common: tables of tokens and positions, the head, the draw of fresh
weights, the check of ids, the loss.

Shapes:   B batch   T time (tokens)   C width (channels)   H heads   D head width, C / H   V
vocabulary
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np

import tensor
from tensor import Tensor, nn, random
from tensor.dtypes import NARROW, DTypeLike
from tensor.errors import DTypeError, ShapeError
from tensor.kernels import pick
from tensor.memory.devices import move
from tinygpt.config import ModelConfig
from tinygpt.ids import IGNORED, PAD, Ids
from tinygpt.model.int8 import Int8Linear
from tinygpt.model.positions import position_table

SPREAD = 0.02  # standard deviation of fresh weights


class Transformer(nn.Module):
    """A model of token and position embeddings, blocks, and a head that gives logits (B, T, V).

    The weights depend on the generator alone (by default the one that `tensor.manual_seed` seeds).
    They are drawn in float64, then rounded: the same in every dtype and on every device.
    `draw=False` leaves the weights at zero, for weights that are loaded next.
    """

    # whether training keeps only the input of each block, and backward computes the rest again
    recompute = False

    def __init__(
        self,
        config: ModelConfig,
        *,
        generator: random.Generator | None = None,
        dtype: DTypeLike = "float32",
        device: str = "cpu",
        draw: bool = True,
    ):
        self.config: Any = config
        self.scale = math.sqrt(config.width) if config.scaled else 1.0  # of the token embeddings
        with nn.undrawn():
            self.token_embedding = nn.Embedding(config.vocabulary, config.width)
            self.position_embedding = position_table(config)
            self.dropout = nn.Dropout(config.dropout)
            self._add_blocks()
            self._add_head()
        # each dropout draws masks of its own: the embedding's is number 0
        dropouts = [part for _, part in self.named_modules() if isinstance(part, nn.Dropout)]
        for number, dropout in enumerate(dropouts):
            dropout.number = number
        self.to(dtype=dtype, device=device)
        if draw:
            self._draw(generator or random.default)

    @abstractmethod
    def _add_blocks(self) -> None:
        """Set the blocks and the norms after them."""

    def _add_head(self) -> None:
        """Set the layers that make logits of `hidden`."""
        config = self.config
        self.head: nn.Linear | Int8Linear | None = None
        if not config.tied:
            self.head = nn.Linear(config.width, config.vocabulary, bias=False, role="head")

    def _draw(self, generator: random.Generator) -> None:
        """Draw matrices and tables from N(0, 0.02^2). Biases stay 0, and gains 1.
        Radford et al. 2019, section 2.3

        The residual stream is a sum of 2 layers terms. The projections that make these terms are
        drawn from N(0, 0.02^2 / (2 layers)), so the stream starts equally wide for any depth.
        """
        residual = SPREAD / math.sqrt(2 * self.config.layers)
        with tensor.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.role != "vector":
                    spread = residual if name.endswith("projection.weight") else SPREAD
                    drawn = generator.normal(parameter.shape) * spread
                    parameter[...] = Tensor(drawn, dtype=parameter.dtype, device=parameter.device)

    def embed(self, ids: Any) -> Tensor:
        """x = scale * token embedding + position embedding.   ids: (B, T) or (T,)   x: (B, T, C)

        The scale is sqrt(C) with `config.scaled`, else 1. Sinusoids reach 1. Without the scale they
        are far larger than fresh embeddings.   Vaswani et al. 2017, section 3.4
        """
        tokens, positions = self.token_embedding.weight, self.position_embedding
        x = tensor.positional_embedding(self.check_ids(ids), tokens, positions, scale=self.scale)
        return self.dropout(x)

    def embed_at(self, ids: Tensor, seen: Ids) -> Tensor:
        """The same for tokens that come after others. Row b continues after seen[b] tokens."""
        time = seen[:, None] + np.arange(ids.shape[1])  # (B, T)
        tokens = self.scale * self.token_embedding(ids)  # (B, T, C)
        return tokens + tensor.embedding(time, self.position_embedding)

    def logits(self, h: Tensor) -> Tensor:
        """The head: how strongly each token is expected.   h: (B, T, C)   logits: (B, T, V)"""
        if self.head is not None:
            return self.head(h)
        # tied: a logit is the product of h and the token's embedding, h @ weight.T
        # Press and Wolf 2017
        return tensor.linear(h, self.token_embedding.weight, transposed=True)

    @property
    def context(self) -> int:
        """How many tokens the model sees at once, T."""
        return self.config.context

    @property
    def device(self) -> str:
        """Where the parameters are."""
        return self.position_embedding.device

    def check_ids(self, ids: Any) -> Tensor:
        """ids as integers (B, T) on the model's device. Raises ShapeError, DTypeError and
        IndexError, with the numbers.
        """
        ids = Tensor.wrap(ids)
        context = self.config.context
        if ids.ndim not in (1, 2) or ids.size == 0:
            raise ShapeError(
                f"ids of shape {ids.shape}: (T,) or (B, T) is needed, with at least one token"
            )
        if ids.dtype.kind not in "iu":
            raise DTypeError(
                f"ids must be integers, as a tokenizer's encode gives them, not {ids.dtype}"
            )
        if ids.shape[-1] > context:
            raise ShapeError(
                f"{ids.shape[-1]} tokens do not fit the model's context of {context}: pass the "
                f"last {context} of them, or make a model with more"
            )
        if ids.device == "cpu":  # looking at a GPU's ids would wait for it
            self.check_range(ids.array)
        if ids.ndim == 1:
            ids = Tensor.from_array(ids.array[None])
        return _there(ids, self.device)

    def check_range(self, ids: Ids) -> None:
        """Raise IndexError for an id that is no token of the model."""
        vocabulary = self.config.vocabulary
        for wrong in (int(ids.min()), int(ids.max())):
            if not 0 <= wrong < vocabulary:
                raise IndexError(
                    f"token {wrong} is outside this model's vocabulary, 0 to {vocabulary - 1}: "
                    "its text was encoded by another tokenizer"
                )

    def mask(self, ids: Any) -> Tensor | None:
        """Where the ids are no padding: bools (B, 1, 1, T), None where nothing is padding."""
        known = self.check_ids(ids).array != PAD
        return None if known.all() else Tensor.from_array(known[:, None, None, :])


def last_of(h: Tensor) -> Tensor:
    """That of the last position alone: (B, T, C) -> (B, 1, C)"""
    return h[:, -1:].contiguous() if h.shape[1] > 1 else h


def widened(logits: Tensor) -> Tensor:
    """The logits in float32 where they have 16 bits: three digits of a loss are too few, and a
    float16 sum of many ends at 65504.
    """
    return logits.to("float32") if logits.dtype in NARROW else logits


def token_loss(
    logits: Tensor, targets: Any, reduction: str = "mean", label_smoothing: float = 0.0
) -> Tensor:
    """-ln p(target) in nats, as `tensor.cross_entropy`. A target of -1 counts for nothing.
    logits: (B, T, V)   targets: (B, T) or (T,)
    """
    logits = widened(logits)
    targets = aligned(targets, logits)
    return tensor.cross_entropy(
        logits,
        targets,
        ignore_index=IGNORED,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )


def head_loss(
    model: Transformer,
    h: Tensor,
    targets: Any,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """`token_loss` of the model's logits of h. Where a kernel does both at once, the logits of all
    tokens never exist.   h: (B, T, C)   targets: (B, T) or (T,)
    """
    targets = aligned(targets, h)
    weight = model.token_embedding.weight if model.head is None else model.head.weight
    options: dict[str, Any] = {
        "transposed": model.head is None,
        "ignore_index": IGNORED,
        "reduction": reduction,
        "label_smoothing": label_smoothing,
    }
    if pick("linear_cross_entropy", h.array, weight.array, targets.array, **options) is None:
        return token_loss(model.logits(h), targets, reduction, label_smoothing)
    return tensor.linear_cross_entropy(h, weight, targets, **options)


def aligned(targets: Any, h: Tensor) -> Tensor:
    """targets as (B, T) on the device of h, which is (B, T, ...). Raises ShapeError where not each
    token has one.
    """
    if not isinstance(targets, Tensor):
        targets = Tensor(targets, device=h.device)
    if targets.ndim == 1:
        targets = targets.unsqueeze(0)
    if targets.shape != h.shape[:2]:
        raise ShapeError(
            f"targets of shape {targets.shape} for ids of shape {h.shape[:2]}: each token "
            "needs one target, the token after it"
        )
    return _there(targets, h.device)


def _there(ids: Tensor, device: str) -> Tensor:
    """Ids on a device. Without a gradient they need no op, and `to` takes three times as long."""
    return ids if ids.device == device else Tensor.from_array(move(ids.array, device))
