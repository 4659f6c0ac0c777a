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
    transform = isinstance(config, BERTConfig) and not config.labels
    return (blocks * config.layers + transform) * config.width**2


def parts(config: ModelConfig) -> dict[str, int]:
    """The parameters of each part of the model. b: 1 if linear layers have biases, else 0

    token table      V C
    position table   T C, where positions are learned
    segment table    S C, of BERT
    attention        4 C^2 + 4 C b for q, k, v and the projection, in each block; as much again for
                     the cross-attention of a decoder
    feed-forward     8 C^2 + 5 C b in each block
    norms            2 C for each: two in a block, three in a decoder's; one after the blocks
    head             V C, where it is not tied; of BERT also C^2 + 2 C + (C + V) b; of a
                     classifier K C alone
    """
    V, T, C, b = config.vocabulary, config.context, config.width, int(config.bias)
    K = len(config.labels)
    of_pairs, bert = isinstance(config, EncoderDecoderConfig), isinstance(config, BERTConfig)
    blocks = config.layers * (1 + of_pairs)
    # BERT has a norm after the embeddings; with post-norm none after the blocks
    norms = 2 * blocks + config.layers * of_pairs + 1 + of_pairs + (bert and config.norm == "pre")
    return {
        "token table": V * C,
        "position table": T * C * (config.positions == "learned"),
        "segment table": config.segments * C if isinstance(config, BERTConfig) else 0,
        "attention": (blocks + config.layers * of_pairs) * (4 * C**2 + 4 * C * b),
        "feed-forward": blocks * (8 * C**2 + 5 * C * b),
        "norms": norms * 2 * C,
        "head": K * C or V * C * (not config.tied) + bert * (C**2 + 2 * C + (C + V) * b),
    }


def parameter_count(config: ModelConfig) -> int:
    """The parameters of all parts."""
    return sum(parts(config).values())


def adapter_count(config: ModelConfig, rank: int) -> int:
    """The parameters of adapters (LoRA): r (I + O) for each matrix of a block, together 16 r C. The
    rows of new tokens are not counted.
    """
    return config.layers * 16 * rank * config.width


def least_bytes(config: ModelConfig, itemsize: int = 2) -> int:
    """The least size of a safetensors file of the parameters: numbers, and ENTRY bytes for each
    tensor.

    A smaller file is of another model. Compare before time and memory are spent on a config.json.
    """
    block, classes = 8 + 4 * config.bias, bool(config.labels)
    tables = (config.positions == "learned") + (classes or not config.tied)
    if isinstance(config, EncoderDecoderConfig):
        tensors = 5 + tables + config.layers * (2 * block + 5 + 3 * config.bias)
    else:
        tensors = 3 + tables + config.layers * block
    if isinstance(config, BERTConfig):
        tensors += 1 + 2 * (config.norm == "pre")
        tensors += 0 if classes else 3 + 2 * config.bias
    return parameter_count(config) * itemsize + tensors * ENTRY
