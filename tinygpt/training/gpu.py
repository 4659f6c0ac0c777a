"""What a GPU could do, and what a training asks of it."""

from __future__ import annotations

import re
from typing import NamedTuple

from tensor.dtypes import NARROW, as_dtype
from tensor.kernels.cuda.attention.by_cudnn import WIDTHS
from tensor.kernels.cuda.cross_entropy import CHUNK
from tensor.kernels.cuda.graphs import MEMORIES
from tensor.memory.devices import array_module
from tinygpt.config import EncoderDecoderConfig, ModelConfig, TrainConfig
from tinygpt.errors import InputError
from tinygpt.model.sizes import matrix_count


class GPU(NamedTuple):
    """A GPU by its data sheet."""

    name: str
    peak: float  # FLOP/s
    memory: int  # GiB


# By the data sheets: FLOP/s of matrix products in 16 bits with sums in float32, without sparsity;
# the GiB of the model with the most memory. Of two names that fit, the first counts.
GPUS = {
    gpu.name: gpu
    for gpu in (
        GPU("B200", 2250e12, 180),
        GPU("H200 NVL", 835e12, 141),
        GPU("H200", 989e12, 141),
        GPU("GH200", 989e12, 96),
        GPU("H100 PCIe", 756e12, 80),
        GPU("H100 NVL", 835e12, 94),
        GPU("H100", 989e12, 80),
        GPU("A100", 312e12, 80),
        GPU("A30", 165e12, 24),
        GPU("A40", 150e12, 48),
        GPU("A10", 125e12, 24),
        GPU("A10G", 70e12, 24),
        GPU("L40S", 362e12, 48),
        GPU("L40", 181e12, 48),
        GPU("L4", 121e12, 24),
        GPU("V100", 125e12, 32),
        GPU("T4", 65e12, 16),
        GPU("RTX 5090", 210e12, 32),
        GPU("RTX 4090", 165e12, 24),
        GPU("RTX 4080", 97e12, 16),
        GPU("RTX 3090", 71e12, 24),
    )
}
OLDER = "V100", "T4"  # without bfloat16, and without attention by cuDNN
# a part of a GPU, or a slower GPU of nearly the same name
OTHERS = r"(?!.*(?: MIG | Laptop| Ti\b| SUPER| D\b))"


def name(device: str) -> str:
    """The name of a GPU, as its driver says it. Raises DeviceError for one that is not there."""
    runtime = array_module(device).cuda.runtime
    number = int(device[5:]) if device[5:] else runtime.getDevice()
    return str(runtime.getDeviceProperties(number)["name"].decode())


def peak(device: str) -> float | None:
    """FLOP/s of matrix products in 16 bits, by the data sheet; None for the CPU and for a GPU that
    `GPUS` does not name.
    """
    return None if device == "cpu" else peak_of(name(device))


def peak_of(name: str) -> float | None:
    """`peak` of the GPU of a name."""
    gpu = known(name)
    return None if gpu is None else gpu.peak


def known(name: str) -> GPU | None:
    """The GPU that a driver or a user names, in any case and with or without spaces: NVIDIA H200,
    h200, RTX4090. A name may say that there is less memory: A100-SXM4-40GB.
    """
    for gpu in GPUS.values():
        words = gpu.name.replace(" ", "[ -]*")
        if re.match(rf"{OTHERS}.*\b{words}\b", name, re.IGNORECASE):
            size = re.search(r"\b(\d+) ?GB\b", name, re.IGNORECASE)
            return gpu._replace(memory=min(gpu.memory, int(size[1]))) if size else gpu
    return None


def flops_per_token(config: ModelConfig) -> float:
    """6 P + 12 L C T for one token of a training step, forward and backward, P the numbers in the
    matrices and the head.      Chowdhery et al. 2022, appendix B

    So each of L layers counts T keys a token, though a causal token sees half of them on the mean:
    figures of MFU can be compared only where all count alike. `planning.flops` counts what is
    seen. An encoder-decoder has three attentions a layer.
    """
    attentions = config.layers * (3 if isinstance(config, EncoderDecoderConfig) else 1)
    met = matrix_count(config) + config.outcomes * config.width
    return 6.0 * met + 12.0 * attentions * config.width * config.context


# -- memory, where every op has its kernel


def check_formulas(gpu: GPU, model: ModelConfig, config: TrainConfig) -> None:
    """Raise InputError for a GPU, a model or a training that `kept_by_kernels` does not count, with
    the flag that is in the way.
    """
    D = model.width // model.heads
    narrow = as_dtype(config.dtype) in NARROW
    multiples = f"multiples of {WIDTHS.step} up to {WIDTHS[-1]}"
    refusals = (
        (gpu.name in OLDER, f"a {gpu.name}", "cuDNN's attention needs an A100 or a later GPU"),
        (
            config.kind != "gpt",
            f"a model of the kind {config.kind}",
            "leave out --task and --pairs",
        ),
        (model.norm != "pre", f"--norm {model.norm}", "add --norm pre"),
        (model.activation != "gelu", f"--activation {model.activation}", "add --activation gelu"),
        (model.dropout > 0, f"--dropout {model.dropout}", "add --dropout 0"),
        (not narrow, f"--dtype {config.dtype}", "add --dtype bfloat16"),
        (D not in WIDTHS, f"heads of {D} numbers", f"choose --heads for {multiples}"),
    )
    for refused, choice, fix in refusals:
        if refused:
            raise InputError(
                f"--gpu-name counts a GPT in 16 bits by formulas, and not {choice}\n"
                f"{fix}; or plan on a machine with such a GPU: --device cuda"
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
    logits = config.batch * model.context * model.outcomes * size
    return min(CHUNK, logits) + max(size, 4) * model.outcomes * model.width


def pool_bytes(device: str) -> int:
    """The bytes that CuPy's pool and the graphs hold on a GPU: what this process has needed there
    since its first graph.
    """
    module = array_module(device)
    with module.cuda.Device(int(device[5:] or 0)):
        held = int(module.get_default_memory_pool().total_bytes())
    return held + sum(memory.bytes for memory in MEMORIES)
