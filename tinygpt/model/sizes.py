"""How many numbers a model has, and how many bytes, before the model is made."""

from __future__ import annotations

from tinygpt.config import BERTConfig, EncoderDecoderConfig, ModelConfig

# bytes that a safetensors header takes for a tensor, at least: its name, dtype, shape and place
ENTRY = 60


def matrix_count(config: ModelConfig) -> int:
    """The numbers in the matrices of the blocks: 12 C^2 for a block, 4 C^2 more with
    cross-attention. BERT has C^2 more, in its head.
    """
    blocks = 28 if isinstance(config, EncoderDecoderConfig) else 12
    return (blocks * config.layers + isinstance(config, BERTConfig)) * config.width**2


def parameter_count(config: ModelConfig) -> int:
    """V C (twice, where the head is not tied) + T C (where positions are learned) + 2 C for the
    norm after the blocks, and for a block 12 C^2 + 4 C + 9 C of biases; with cross-attention
    4 C^2 + 2 C + 4 C of biases more. BERT has S C for S segments, and a head of C^2 + 2 C, with
    C + V of biases; of its two norms outside the blocks post-norm needs the first alone.
    """
    V, T, C = config.vocabulary, config.context, config.width
    tables = V * C * (1 if config.tied else 2) + T * C * (config.positions == "learned")
    block, cross = 4 * C + 9 * C * config.bias, 2 * C + 4 * C * config.bias
    if isinstance(config, EncoderDecoderConfig):
        vectors = 4 * C + config.layers * (2 * block + cross)
    else:
        vectors = 2 * C + config.layers * block
    if isinstance(config, BERTConfig):
        vectors += 2 * C + (C + V) * config.bias  # of the head
        vectors += config.segments * C + 2 * C * (config.norm == "pre")
    return tables + matrix_count(config) + vectors


def least_bytes(config: ModelConfig, itemsize: int = 2) -> int:
    """The least size of a safetensors file of the parameters: numbers, and ENTRY bytes for each
    tensor.

    A smaller file is of another model. Compare before time and memory are spent on a config.json.
    """
    block, tables = 8 + 4 * config.bias, (config.positions == "learned") + (not config.tied)
    if isinstance(config, EncoderDecoderConfig):
        tensors = 5 + tables + config.layers * (2 * block + 5 + 3 * config.bias)
    else:
        tensors = 3 + tables + config.layers * block
    if isinstance(config, BERTConfig):
        tensors += 4 + 2 * config.bias + 2 * (config.norm == "pre")
    return parameter_count(config) * itemsize + tensors * ENTRY
