"""What the tests of the graph are made of: leaves, constants, numbers, and ops of their own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tensor import Tensor
from tensor.kernels import KERNELS
from tensor.ops.op import OPS, compute_op

Array = Any


def leaf(values: Any, device: str = "cpu") -> Tensor:
    """float64, with requires_grad."""
    return Tensor(np.asarray(values, dtype=np.float64), device=device, requires_grad=True)


def constant(values: Any, device: str = "cpu") -> Tensor:
    """float64, without."""
    return Tensor(np.asarray(values, dtype=np.float64), device=device)


def draw(*shape: int, seed: int = 0) -> Array:
    """Normal numbers, the same for the same seed."""
    return np.random.default_rng(seed).standard_normal(shape)


def values(x: Tensor | None) -> Any:
    """The numbers of a gradient that must be there."""
    assert x is not None
    return x.tolist()


def close(found: Tensor | None, expected: Any) -> None:
    """Raise AssertionError unless equal to 1e-12 of the scale."""
    assert found is not None
    expected = np.asarray(expected, dtype=np.float64)
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        found.numpy(), expected, rtol=0, atol=1e-12 * max(np.abs(expected).max(initial=0), 1e-3)
    )


def array(x: Tensor | None) -> np.ndarray[Any, Any]:
    """The same, in NumPy."""
    assert x is not None
    return x.numpy()


def private(rule: Callable[..., Any]) -> Any:
    """A compute op of a test, out of the public registry."""
    op = compute_op(rule)
    del OPS[rule.__name__], KERNELS[rule.__name__]
    return op


def line() -> int:
    """The number of the line that calls this."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno
