"""Each kind of attention: how exact the kernel is, and how much memory it takes."""

from __future__ import annotations

import tracemalloc
from functools import partial
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor
from tensor.random import Key
from tests.helpers.kernel_runs import compiled_kernels, draw, run, taken

__all__ = ["compiled_kernels"]
pytestmark = [
    pytest.mark.usefixtures("compiled_kernels"),
    pytest.mark.parametrize("kind", ["causal", "all", "cross", "padding", "dropout"]),
]


def options_of(kind: str, B: int, S: int, seed: int = 0) -> dict[str, Any]:
    """What tensor.attention takes beside q, k and v."""
    if kind == "padding":
        lengths = np.random.default_rng(seed).integers(1, S + 1, (B, 1, 1, 1))
        return {"mask": np.arange(S) < lengths}
    if kind == "dropout":
        return {"dropout": 0.1, "key": Key(seed)}
    return {"causal": kind == "causal"}


def test_error_is_at_most_twice_that_of_the_reference(kind: str) -> None:
    """Over random shapes, against float64."""
    rng = np.random.default_rng(0)
    squares = np.zeros((2, 4))  # of kernel and reference: the errors of y, dq, dk, dv
    for seed in range(12):
        B, H, T, S, D = (int(n) for n in rng.integers(1, (4, 5, 100, 100, 40)))
        S = S if kind == "cross" else T
        call = partial(tensor.attention, **options_of(kind, B, S, seed))
        inputs = [draw(B, H, n, D, seed=3 * seed + i) for i, n in enumerate((T, S, S))]
        found = run(call, inputs, "float32", on=True)
        assert taken("attention")[1] == "cpu kernel"
        usual, exact = (run(call, inputs, dtype, on=False) for dtype in ("float32", "float64"))
        for side, results in enumerate((found, usual)):
            squares[side] += [np.mean((x - e) ** 2) for x, e in zip(results, exact, strict=True)]
    assert (squares[0] <= 4 * squares[1]).all(), np.sqrt(squares[0] / squares[1])


def test_memory_grows_with_the_number_of_tokens(kind: str) -> None:
    """Forward and backward: twice the tokens take twice the memory, not four times."""
    peaks = []
    for T in (256, 512):
        S = T // 2 if kind == "cross" else T
        q, k, v = (
            Tensor(draw(1, 4, n, 16, seed=i), requires_grad=True) for i, n in enumerate((T, S, S))
        )
        call = partial(tensor.attention, **options_of(kind, 1, S))
        dy = Tensor(draw(1, 4, T, 16, seed=3))
        tracemalloc.start()
        call(q, k, v).backward(dy)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert 0.95 < np.log2(peaks[1] / peaks[0]) < 1.05
