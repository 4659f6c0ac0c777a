"""The training step of this project for benchmarks/gpu.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from gpu_sides import RECIPE, Ids, Size, new_model, random_batches

from tensor.kernels import deterministic, latest
from tensor.optim import Captured
from tensor.random import Key
from tinygpt.config import TrainConfig
from tinygpt.training.step import optimizer_of, update

GIB = 2.0**30


class Ours:
    """tinygpt's own step: the model, AdamW over packed parameters, clipping; on a GPU a CUDA graph.

    by_hand: attention is by hand, also where cuDNN would be faster
    queued: the host queues each kernel of each step, without a graph
    """

    def __init__(
        self,
        size: Size,
        device: str,
        seed: int = 0,
        by_hand: bool = False,
        queued: bool = False,
    ):
        (b1, b2), decay = RECIPE["betas"], RECIPE["weight_decay"]
        config = TrainConfig(dtype=size.dtype, beta1=b1, beta2=b2, weight_decay=decay)
        self.size, self.device, self.by_hand = size, device, by_hand
        self.model = new_model(size, seed, dtype=size.dtype, device=device).train()
        self.optimizer = optimizer_of(self.model, config)
        self.take, self.taken = self._update, 0
        if device != "cpu" and not queued:
            chosen = self.model, self.optimizer, self.model.check_range
            self.take = Captured(self._update, *chosen)

    def step(self, ids: Ids, targets: Ids, lr: float) -> Any:
        self.optimizer.lr = lr
        self.taken += 1
        with deterministic() if self.by_hand else nullcontext():
            return self.take(ids, targets, Key(0, self.taken))[0]

    def _update(self, ids: Any, targets: Any, key: Key) -> Any:
        return update(self.model, self.optimizer, ids, targets, RECIPE["clip"], key=key)

    def stamp(self) -> Any:
        return stamp(self.device)

    def milliseconds(self, start: Any, end: Any) -> float:
        return milliseconds(start, end)

    def wait(self) -> None:
        wait(self.device)

    def memory(self) -> dict[str, float]:
        """CuPy counts no peak, so a hook counts that of one more step."""
        if self.device == "cpu":
            return {}
        import cupy

        from tensor.kernels.cuda.graphs import MEMORIES

        pool, graphs = cupy.get_default_memory_pool(), sum(memory.bytes for memory in MEMORIES)
        with meter(pool.used_bytes()) as hook:
            self.step(*random_batches(self.size, 1)[0], RECIPE["lr"])
            self.wait()
        return {"peak": (hook.peak + graphs) / GIB, "held": (pool.total_bytes() + graphs) / GIB}

    def rest(self) -> None:
        if self.device != "cpu":
            import cupy

            cupy.get_default_memory_pool().free_all_blocks()

    def facts(self) -> dict[str, str]:
        return {"attention": latest("multi_head_attention")[0], **versions(self.device)}


def stamp(device: str) -> Any:
    """A CUDA event behind all that was asked so far; on the CPU the time."""
    if device == "cpu":
        return time.perf_counter()
    import cupy

    event = cupy.cuda.Event()
    event.record()
    return event


def milliseconds(start: Any, end: Any) -> float:
    """Between two stamps."""
    if isinstance(start, float):
        return 1e3 * float(end - start)
    import cupy

    return float(cupy.cuda.get_elapsed_time(start, end))


def wait(device: str) -> None:
    """Until the GPU has done all that was asked."""
    if device != "cpu":
        import cupy

        cupy.cuda.Device().synchronize()


def versions(device: str) -> dict[str, str]:
    """Of NumPy, CuPy and CUDA, and the name of the GPU."""
    known = {"NumPy": np.__version__}
    if device == "cpu":
        return known
    import cupy

    cuda = cupy.cuda.runtime.runtimeGetVersion()
    gpu = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
    cuda_name = f"{cuda // 1000}.{cuda % 1000 // 10}"
    return {**known, "CuPy": cupy.__version__, "CUDA": cuda_name, "GPU": gpu}


@contextmanager
def meter(used: int) -> Iterator[Any]:
    """Counts the bytes that CuPy's pool gives out: `now`, from `used` on, and their `peak`."""
    import cupy

    class Meter(cupy.cuda.MemoryHook):
        name = "meter"
        now = peak = used

        def malloc_postprocess(self, **event: Any) -> None:
            self.now += event["mem_size"]
            self.peak = max(self.peak, self.now)

        def free_postprocess(self, **event: Any) -> None:
            self.now -= event["mem_size"]

    with Meter() as hook:
        yield hook
