"""A model as its training needs it, and the plain model that comes of it.

LoRA    adapters beside its matrices, which stay
align   the reference beside the policy; of PPO a value head, and the reward model
else    the model itself
"""

from __future__ import annotations

from typing import Any

from tensor import Tensor
from tensor.memory.devices import Array
from tinygpt.config import AlignConfig, GPTClassifierConfig, TrainConfig
from tinygpt.model.adapters import adapt, adapters_of, merged, merged_weights
from tinygpt.model.aligned import Aligned
from tinygpt.model.transformer import Transformer


def prepared(
    model: Any,
    config: TrainConfig,
    new_rows: tuple[int, int] = (0, 0),
    reward: GPTClassifierConfig | None = None,
) -> Any:
    """The model with what its training needs, at zero where weights are loaded next. new_rows:
    which rows are of new tokens, the first one and their number.   reward: the reward model's
    shape
    """
    if isinstance(config, AlignConfig):
        return Aligned(model, reward)
    adapt(model, config, new_rows)
    return model


def plain_model(model: Any) -> Transformer:
    """The model without what only its training needs; the model itself where there is nothing."""
    if isinstance(model, Aligned):
        return model.policy
    plain: Transformer = merged(model)
    return plain


def plain_weights(model: Any) -> dict[str, Tensor]:
    """The `state_dict` of the plain model."""
    return model.policy.state_dict() if isinstance(model, Aligned) else merged_weights(model)


def parted(model: Any) -> tuple[dict[str, Array], dict[str, Array]]:
    """(arrays that are kept once, arrays that each checkpoint has): of a model with adapters, and
    of a policy with models beside it, what stays and what learns; of another model nothing, and
    all.
    """
    arrays = {name: x.array for name, x in model.state_dict().items()}
    if not isinstance(model, Aligned) and not adapters_of(model):
        return {}, arrays
    learning = {name for name, x in model.named_parameters() if x.requires_grad}
    staying = {name: x for name, x in arrays.items() if name not in learning}
    return staying, {name: x for name, x in arrays.items() if name in learning}
