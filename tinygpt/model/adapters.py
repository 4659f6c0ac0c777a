"""LoRA: a model learns a task by small matrices beside its own, which stay.      Hu et al. 2021

    y = x W + b + s (x A) B      W: (I, O), stays   A: (I, r)   B: (r, O)   s = alpha / r

B starts at 0: then the model computes what it computed before. A B has as many numbers as W, and
follows from r (I + O) numbers. W + s A B is one matrix again: `merged` gives the plain model.

Each linear layer of the blocks has an A and a B. Beside them, these learn: the rows of new tokens
in the table of tokens, and a head that is not this table.
"""

from __future__ import annotations

from typing import TypeVar

import tensor
from tensor import Generator, Tensor, nn
from tinygpt.config import FinetuneConfig, TrainConfig
from tinygpt.model.freezing import BLOCK
from tinygpt.model.transformer import Transformer

M = TypeVar("M", bound=Transformer)


class LoRA(nn.Linear):
    """y = x base + bias + scale (x A) B.   x: (..., I)   base: (I, O)   A: (I, r)   B: (r, O)"""

    def __init__(self, layer: nn.Linear, rank: int, scale: float):
        self.base, self.bias, self.scale = layer.weight, layer.bias, scale
        inputs, outputs = layer.weight.shape
        dtype, device = layer.weight.dtype, layer.weight.device
        self.A = nn.Parameter(tensor.zeros(inputs, rank, dtype=dtype, device=device))
        self.B = nn.Parameter(tensor.zeros(rank, outputs, dtype=dtype, device=device))

    def __call__(self, x: Tensor) -> Tensor:
        low = self.scale * tensor.linear(x, self.A)  # (..., r)
        return tensor.linear(x, self.base, self.bias) + tensor.linear(low, self.B)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The one matrix that does the same.   (I, O)"""
        return self.base + self.scale * (self.A @ self.B)


class NewRows(nn.Embedding):
    """A table of tokens in which the rows of new tokens learn, and all others stay.
    base: (V, C)   new: (count, C), in the place of the rows `first` to first + count - 1
    """

    def __init__(self, table: nn.Embedding, first: int, count: int):
        self.base, self.first = table.weight, first
        self.new = nn.Parameter(table.weight[first : first + count].detach().clone(), role="table")

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The whole table.   (V, C)"""
        after = self.first + self.new.shape[0]
        return tensor.concatenate([self.base[: self.first], self.new, self.base[after:]])


def adapt(model: Transformer, config: TrainConfig, new_rows: tuple[int, int] = (0, 0)) -> None:
    """Where the training has adapters, freeze the model, and give it adapters that are 0.
    new_rows: which rows are of new tokens, the first one and their number
    """
    if not isinstance(config, FinetuneConfig) or config.lora is None:
        return
    model.requires_grad_(False)
    modules = dict(model.named_modules())
    for name, layer in modules.items():
        if isinstance(layer, nn.Linear) and BLOCK.match(name):
            parent, _, attribute = name.rpartition(".")
            setattr(
                modules[parent],
                attribute,
                LoRA(layer, config.lora, config.lora_alpha / config.lora),
            )
    if new_rows[1]:
        model.token_embedding = NewRows(model.token_embedding, *new_rows)
    if model.head is not None:
        model.head.requires_grad_()


def draw(model: Transformer, generator: Generator) -> None:
    """Draw each A as the weights of a linear layer are drawn: uniform in +-1 / sqrt(I)."""
    with tensor.no_grad():
        for layer in adapters_of(model).values():
            if isinstance(layer, LoRA):
                drawn = (2 * generator.uniform(layer.A.shape) - 1) / layer.A.shape[0] ** 0.5
                layer.A[...] = Tensor(drawn, dtype=layer.A.dtype, device=layer.A.device)


def merged_weights(model: Transformer) -> dict[str, Tensor]:
    """The `state_dict` of the model without adapters that computes the same."""
    adapters = adapters_of(model)
    own = {f"{name}.{part}" for name in adapters for part in ("base", "A", "B", "new")}
    weights = {name: x for name, x in model.state_dict().items() if name not in own}
    with tensor.no_grad():
        return weights | {f"{name}.weight": part.weight for name, part in adapters.items()}


def merged(model: M) -> M:
    """The model without adapters that computes the same; the model itself where it has none."""
    if not adapters_of(model):
        return model
    dtype, device = model.token_embedding.weight.dtype, model.device
    plain = type(model)(model.config, dtype=dtype, device=device, draw=False)
    plain.load_state_dict(merged_weights(model))
    return plain.train(model.training)


def adapters_of(model: Transformer) -> dict[str, LoRA | NewRows]:
    """The adapters by their names."""
    return {name: part for name, part in model.named_modules() if isinstance(part, (LoRA, NewRows))}
