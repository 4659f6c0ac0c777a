"""The same training step in PyTorch for benchmarks/gpu.py, at PyTorch's best settings."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch
from gpu_sides import RECIPE, Ids, Size, new_model
from peer import Peer, peer_optimizer
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

GIB = 2.0**30
PRECISIONS = ["autocast", "bfloat16", "float32", "tf32"]
BACKENDS = {
    "flash": [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH],  # the second for the CPU's dtypes
    "cudnn": [SDPBackend.CUDNN_ATTENTION],
    "any": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
}


class Theirs:
    """PyTorch's step.   kind: eager, compile, or a mode of torch.compile. (Of InOneGraph:
    graph-eager and graph-compile.)   precision: autocast
    (bfloat16 over float32 weights), bfloat16 (the weights too), float32, or tf32.
    """

    def __init__(
        self, size: Size, device: str, seed: int, kind: str, precision: str, attention: str
    ):
        if precision not in PRECISIONS:
            raise ValueError(f"no precision {precision!r}: one of {', '.join(PRECISIONS)}")
        self.device, self.precision, self.attention = device, precision, attention
        # of what autocast leaves in float32
        torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
        self.peer = Peer(new_model(size, seed)).to(device)
        if precision == "bfloat16":
            self.peer.bfloat16()
        recipe = {name: value for name, value in RECIPE.items() if name != "clip"}
        self.optimizer = peer_optimizer(self.peer, **recipe)
        mode = None if kind.endswith("compile") else kind
        eager = kind.endswith("eager")
        self.loss_of: Any = self.peer if eager else torch.compile(self.peer, mode=mode)

    def step(self, ids: Ids, targets: Ids, lr: float) -> Any:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        with sdpa_kernel(BACKENDS[self.attention]), self._autocast():
            loss = self.loss_of(self._moved(ids), self._moved(targets))
        loss.backward()
        nn.utils.clip_grad_norm_(self.peer.parameters(), RECIPE["clip"])
        self.optimizer.step()
        return loss.detach().clone()  # a CUDA graph writes the next loss to the same place

    def _autocast(self) -> Any:
        if self.precision != "autocast":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, torch.bfloat16)

    def _moved(self, ids: Ids) -> torch.Tensor:
        """On the GPU, through pinned memory, without a wait."""
        host = torch.from_numpy(ids)
        if self.device == "cpu":
            return host
        return host.pin_memory().to(self.device, non_blocking=True)

    def stamp(self) -> Any:
        if self.device == "cpu":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, start: Any, end: Any) -> float:
        return 1e3 * float(end - start) if self.device == "cpu" else float(start.elapsed_time(end))

    def wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def memory(self) -> dict[str, float]:
        """Of the steps so far since the last question, without the search of a compiler."""
        if self.device == "cpu":
            return {}
        held = torch.cuda.max_memory_reserved() / GIB
        peak = torch.cuda.max_memory_allocated() / GIB
        torch.cuda.reset_peak_memory_stats()
        return {"peak": peak, "held": held}

    def rest(self) -> None:
        if self.device != "cpu":
            torch.cuda.empty_cache()

    def facts(self) -> dict[str, str]:
        known = {"PyTorch": torch.__version__, "attention": self.attention}
        if self.device != "cpu":
            known |= {"CUDA": str(torch.version.cuda), "GPU": torch.cuda.get_device_name()}
        return known


class InOneGraph(Theirs):
    """The whole step, AdamW too, in one CUDA graph."""

    def __init__(self, size: Size, device: str, *choices: Any):
        super().__init__(size, device, *choices)
        shape, there = (size.batch, size.context), torch.device(device)
        self.ids, self.targets = (torch.zeros(shape, dtype=torch.int64, device=there) for _ in "xy")
        self.lr = torch.tensor(RECIPE["lr"], device=there)
        for group in self.optimizer.param_groups:
            group.update(lr=self.lr, capturable=True)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.loss: Any = None

    def step(self, ids: Ids, targets: Ids, lr: float) -> Any:
        self.ids.copy_(self._moved(ids))
        self.targets.copy_(self._moved(targets))
        self.lr.fill_(lr)
        if self.graph is None:
            self._capture()
        self.graph.replay()  # type: ignore[union-attr]
        return self.loss.clone()

    def _capture(self) -> None:
        """Take some steps on the stream of the capture, and capture one."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._whole()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.loss = self._whole()
        self.graph = graph

    def _whole(self) -> Any:
        self.optimizer.zero_grad(set_to_none=True)
        with sdpa_kernel(BACKENDS[self.attention]), self._autocast():
            loss = self.loss_of(self.ids, self.targets)
        loss.backward()
        nn.utils.clip_grad_norm_(self.peer.parameters(), RECIPE["clip"], foreach=True)
        self.optimizer.step()
        return loss.detach()
