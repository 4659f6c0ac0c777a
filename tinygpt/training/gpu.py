"""What a GPU could do, and what a training asks of it."""

from __future__ import annotations

import re

from tensor.dtypes import NARROW, as_dtype
from tensor.kernels.cuda.cross_entropy import CHUNK
from tensor.memory.devices import array_module
from tinygpt.config import EncoderDecoderConfig, ModelConfig, TrainConfig
from tinygpt.errors import InputError
from tinygpt.model.sizes import matrix_count

# FLOP/s of matrix products in 16 bits with sums in float32, without sparsity, by the data sheets.
# Of two names that fit, the first counts.
PEAKS = {
    "B200": 2250e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "GH200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "A30": 165e12,
    "A40": 150e12,
    "A10": 125e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
    "RTX 5090": 210e12,
    "RTX 4090": 165e12,
    "RTX 4080": 97e12,
    "RTX 3090": 71e12,
}
# a part of a GPU, or a slower GPU of nearly the same name
OTHERS = r"(?!.*(?: MIG | Laptop| Ti\b| SUPER| D\b))"


def name(device: str) -> str:
    """The name of a GPU, as its driver says it. Raises DeviceError for one that is not there."""
    runtime = array_module(device).cuda.runtime
    number = int(device[5:]) if device[5:] else runtime.getDevice()
    return str(runtime.getDeviceProperties(number)["name"].decode())


def peak(device: str) -> float | None:
    """FLOP/s of matrix products in 16 bits, by the data sheet; None for the CPU and for a GPU that
    `PEAKS` does not name.
    """
    return None if device == "cpu" else peak_of(name(device))


def peak_of(name: str) -> float | None:
    """`peak` of the GPU of a name."""
    fits = (rate for known, rate in PEAKS.items() if re.search(rf"{OTHERS}.*\b{known}\b", name))
    return next(fits, None)


def flops_per_token(config: ModelConfig) -> float:
    """6 P + 12 L C T for one token of a training step, forward and backward, P the numbers in the
    matrices and the head.      Chowdhery et al. 2022, appendix B

    So each of L layers counts T keys a token, though a causal token sees half of them on the mean:
    figures of MFU can be compared only where all count alike. `planning.flops` counts what is
    seen. An encoder-decoder has three attentions a layer.
    """
    attentions = config.layers * (3 if isinstance(config, EncoderDecoderConfig) else 1)
    met = matrix_count(config) + config.vocabulary * config.width
    return 6.0 * met + 12.0 * attentions * config.width * config.context


# -- memory, where every op has its kernel


def check_formulas(model: ModelConfig, config: TrainConfig) -> None:
    """Raise InputError for a model or a training that `kept_by_kernels` does not count."""
    narrow = as_dtype(config.dtype) in NARROW
    if not (config.kind == "gpt" and model.norm == "pre" and narrow and model.dropout == 0):
        raise InputError(
            "--gpu-name counts a GPT in 16 bits, with --norm pre, without dropout\n"
            "add --dtype bfloat16; others are counted on a machine with the GPU: --device cuda"
        )


def kept_by_kernels(model: ModelConfig, config: TrainConfig) -> tuple[int, int]:
    """(bytes that each layer keeps for backward, bytes that embedding and loss keep) in 16 bits.

    A token of a layer, in numbers of 2 bytes: q, k, v 3 C, and C each of the norm before them,
    the attention, the sum, its norm and the next sum; 4 C each before and after GELU. In 4 bytes:
    a log-sum-exp for each head, and mean and standard deviation for each of two norms. Outside the
    layers: the embedding with its norm's statistics, the gradient of what the head is given, and
    ids and targets, 8 bytes each.
    """
    tokens, C = config.batch * model.context, model.width
    layer = tokens * (2 * 16 * C + 4 * model.heads + 4 * 4)
    return (tokens * 2 * C if config.recompute else layer), tokens * (2 * 2 * C + 2 * 4 + 2 * 8)


def logits_by_kernels(model: ModelConfig, config: TrainConfig) -> int:
    """Bytes of one chunk of logits, and of the float32 sum of the head's gradient."""
    size = as_dtype(config.dtype).itemsize
    logits = config.batch * model.context * model.vocabulary * size
    return min(CHUNK, logits) + max(size, 4) * model.vocabulary * model.width


def pool_bytes(device: str) -> int:
    """The bytes that CuPy's pool holds on a GPU: the most that this process has needed there."""
    module = array_module(device)
    with module.cuda.Device(int(device[5:] or 0)):
        return int(module.get_default_memory_pool().total_bytes())
