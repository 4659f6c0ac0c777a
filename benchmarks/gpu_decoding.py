"""How fast is attention by hand for few queries, beside its other versions?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from gpu_parts import SPIN

import tensor
from tensor import Tensor, kernels
from tensor.kernels.cuda.attention import by_hand
from tensor.kernels.cuda.attention.versions import Version, tensor_cores, tiles
from tensor.memory.devices import cupy

FEW = [(B, T, S) for B in (1, 64) for S in (1024, 8192) for T in (1, 4)]  # B, queries, keys
QUEUED = 20  # calls


@contextmanager
def chosen(version: Callable[..., Version] | None) -> Iterator[None]:
    """Attention by hand takes this version; None: the one that is chosen for the case."""
    usual = by_hand.version_for
    if version is not None:
        by_hand.version_for = lambda *_: version
    try:
        yield
    finally:
        by_hand.version_for = usual


def measure() -> None:
    """One layer of GPT-2 that decodes in bfloat16, forward, from a cache with room for more keys:
    microseconds of the GPU, and the bytes of keys and values over the time.
    """
    for B, T, S in FEW:
        q = tensor.randn(B, 12, T, 64, dtype="bfloat16", device="cuda").array
        cache = tensor.randn(2, B, 12, S + 64, 64, dtype="bfloat16", device="cuda").array
        k, v = cache[:, :, :, :S]
        by_hand_way = partial(by_hand.attention_of_heads_by_hand, q, k, v)
        composition = partial(tensor.attention, *map(Tensor.from_array, (q, k, v)))
        ways: dict[str, tuple[Any, Any]] = {
            "as chosen": (chosen(None), by_hand_way),
            "tensor_cores": (chosen(tensor_cores), by_hand_way),
            "tiles": (chosen(tiles), by_hand_way),
            "composition": (kernels.off(), composition),
        }
        for name, (switch, way) in ways.items():
            with switch, tensor.no_grad():
                us = on_gpu_alone(way)
            rate = 4 * B * 12 * S * 64 / us / 1e3
            print(
                f"decoding, {name:12} bfloat16, B {B:2}, {T:2} queries, {S} keys: {us:8.1f} us "
                f"{rate:7.0f} GB/s",
                flush=True,
            )


def on_gpu_alone(call: Callable[[], Any]) -> float:
    """Microseconds of a call without those of the host: the GPU waits until all are queued."""
    cuda, spin = cupy().cuda, cupy().RawKernel(SPIN, "spin")
    for _ in range(2):
        call()
    start, end = cuda.Event(), cuda.Event()
    spin((1,), (1,), (np.int64(20_000_000),))  # nanoseconds
    start.record()
    for _ in range(QUEUED):
        call()
    end.record()
    end.synchronize()
    return float(1e3 * cuda.get_elapsed_time(start, end) / QUEUED)
