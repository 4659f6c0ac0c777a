"""Whether rounding alone can make two results differ: Monte Carlo arithmetic.

The program runs again in PyTorch, a dozen times. Each time, every number that an operation takes
or makes, forward and backward, is moved by up to two units in its last place. The results then
spread as far as rounding can carry them: through cancellation, through a tie that falls the other
way, through a comparison that a rounding decides.        Parker 1997, "Monte Carlo Arithmetic"
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from tensor import Tensor
from tests.faults.programs import namespaces
from tests.faults.programs.comparing import EPS, of_here, of_torch
from tests.faults.programs.step import TORCH, Step

RUNS = 12
ROOM = 4  # times the spread


class Noise(TorchDispatchMode):
    """The floats that an operation takes and makes are moved by up to two units in their last
    place.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        fresh = [r.alias_info is None for r in function._schema.returns]
        if all(fresh):
            args = tree_map(self.moved, args)
        result = function(*args, **(kwargs or {}))
        parts = result if isinstance(result, (tuple, list)) else (result,)
        for is_fresh, part in zip(fresh, parts, strict=False):
            name = str(getattr(part, "dtype", ""))[6:]
            if is_fresh and name in EPS and not function.__name__.startswith("empty"):
                self.move(part, EPS[name])
        return result

    def moved(self, x: Any) -> Any:
        """A copy of an operand with noise: for roundings inside the operation."""
        if not isinstance(x, torch.Tensor) or str(x.dtype)[6:] not in EPS:
            return x
        copy = x.clone(memory_format=torch.preserve_format)
        self.move(copy, EPS[str(x.dtype)[6:]])
        return copy

    def move(self, x: torch.Tensor, eps: float) -> None:
        noise = torch.rand(x.shape, generator=self.generator, dtype=torch.float64)
        with torch.no_grad():
            x.copy_(x.double() * (1 + 4 * eps * (noise - 0.5)))


def rerun(steps: Iterable[Step], seed: int) -> dict[str, Any]:
    """The program in PyTorch with noise; what raises is left out."""
    namespace = namespaces.made(TORCH)
    with Noise(seed), torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda x: x):
        for step in steps:
            try:
                exec(step.text(TORCH), namespace)
            except Exception:
                continue
    return namespace


def explains(steps: list[Step], where: str, found: Tensor, expected: torch.Tensor) -> bool:
    """Whether the spread covers the difference, or shows that chance decides even the shape."""
    a, b = of_here(found), of_torch(expected)
    runs = []
    for seed in range(RUNS):
        try:
            got = of_torch(eval(where, rerun(steps, seed)))
        except Exception:
            return True  # another shape, an error: a rounding decided it
        if got.shape != b.shape:
            return True
        runs.append(got)
    if a.shape != b.shape:
        return False
    spread = np.stack([*runs, b])
    if spread.dtype.kind not in "f":
        moved = (spread != b).any(0)
        return bool(np.all((a == b) | moved))
    moved = ~np.isfinite(spread).all(0)
    with np.errstate(invalid="ignore"):
        low, high = spread.min(0), spread.max(0)
        room = ROOM * (high - low) + np.finfo(np.float32).tiny
        return bool(np.all(moved | (np.abs(a - b) <= room)))
