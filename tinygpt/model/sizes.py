"""How many numbers a model has, and how many bytes, before the model is made."""

from __future__ import annotations

from tinygpt.config import GPTConfig

# bytes that a safetensors header takes for a tensor, at least: its name, dtype, shape and place
ENTRY = 60


def parameter_count(config: GPTConfig) -> int:
    """V C (twice, where the head is not tied) + T C (where positions are learned) + 2 C, and 12 C^2
    + 4 C + 9 C of biases a layer.
    """
    V, T, C = config.vocabulary, config.context, config.width
    tables = V * C * (1 if config.tied else 2) + T * C * (config.positions == "learned")
    return tables + 2 * C + config.layers * (12 * C**2 + 4 * C + 9 * C * config.bias)


def least_bytes(config: GPTConfig, itemsize: int = 2) -> int:
    """The least size of a safetensors file of the parameters: numbers, and ENTRY bytes for each
    tensor.

    A smaller file is of another model. Compare before time and memory are spent on a config.json.
    """
    tensors = (
        3
        + (config.positions == "learned")
        + (not config.tied)
        + config.layers * (8 + 4 * config.bias)
    )
    return parameter_count(config) * itemsize + tensors * ENTRY
