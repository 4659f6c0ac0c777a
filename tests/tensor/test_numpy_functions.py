"""NumPy's functions, called on tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor
from tensor.errors import ArgumentError, DTypeError, GraphError, OptionError, ShapeError
from tensor.memory.layout import Shape

# these take no array, ask for no more than shape and dtype, show text, or set something
OTHERS = """
    dtype finfo common_type frombuffer from_dlpack bmat LinAlgError isfortran save test
    show_config show_runtime info get_include errstate printoptions set_printoptions
    setbufsize seterr seterrcall bytes_ str_ void object_ min_scalar_type result_type
    zeros_like ones_like empty_like full_like array2string array_repr array_str
"""
NO_FUNCTIONS = frozenset(OTHERS.split())


def callables() -> list[tuple[str, Callable[..., Any]]]:
    """The public functions of numpy and numpy.linalg that an array might be given to."""
    return [
        (name, getattr(module, name))
        for module in (np, np.linalg)
        for name in dir(module)
        if name[0] != "_" and name not in NO_FUNCTIONS
        if callable(getattr(module, name))
    ]


def parts(result: Any) -> list[Any]:
    """The arrays and tensors in a result."""
    nested = map(parts, result) if isinstance(result, (tuple, list)) else [[result]]
    return [part for found in nested for part in found]


def floats(result: Any) -> float:
    """The sum of all floats in a result, each with a weight of its own."""
    arrays = [np.asarray(part) for part in parts(result)]
    weights = [np.cos(np.arange(a.size) + i).reshape(a.shape) for i, a in enumerate(arrays)]
    pairs = zip(arrays, weights, strict=True)
    return float(sum((a * w).sum() for a, w in pairs if a.dtype.kind == "f"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(3,), (3, 3), (2, 3, 4)])
def test_no_function_of_numpy_drops_a_gradient(shape: Shape) -> None:
    """Of one array it gives a tensor with the right gradient, integers, or an error."""
    a, recorded = np.random.default_rng(0).uniform(0.2, 0.9, shape), set()
    for name, function in callables():
        x = Tensor(a, requires_grad=True)
        try:
            expected = function(a)
            found = function(x)
        except (GraphError, ShapeError, DTypeError):  # in words
            continue
        except Exception:
            with pytest.raises(Exception):  # noqa: B017, PT011 (NumPy's own, of an array too)
                function(a)
            continue
        arrays = [getattr(part, "array", part) for part in parts(found)]
        assert len(arrays) == len(parts(expected)), name
        for got, want in zip(arrays, parts(expected), strict=True):
            np.testing.assert_allclose(got, want, err_msg=name)
        kept = [part for part in parts(found) if isinstance(part, Tensor)]
        lost = [part for part in parts(found) if not isinstance(part, Tensor)]
        assert all(np.asarray(part).dtype.kind in "iubUS" for part in lost), name
        if not any(part.requires_grad for part in kept):
            assert all(part.dtype.kind in "iub" for part in kept), name
            continue
        recorded.add(name)
        weights = [np.cos(np.arange(p.size) + i).reshape(p.shape) for i, p in enumerate(kept)]
        (gradient,) = tensor.grad(kept, [x], [Tensor(w) for w in weights])
        direction = np.random.default_rng(1).normal(size=shape)
        step = 1e-6 * direction
        slope = (floats(function(a + step)) - floats(function(a - step))) / 2e-6
        assert (gradient.numpy() * direction).sum() == pytest.approx(slope, 1e-6, 1e-8), name
    assert len(recorded) > 40, sorted(recorded)


def test_numpys_functions_of_several_arguments() -> None:
    a = np.random.default_rng(0).normal(size=(4, 6))
    b, v = a.T.copy(), a[0]
    ids = np.array([[0, 2, 1, 1, 0, 3]])
    calls: list[Callable[[Any, Any, Any], Any]] = [
        lambda a, b, v: np.clip(a, -0.5, 0.5),
        lambda a, b, v: np.clip(a, v, None),
        lambda a, b, v: np.take(a, [0, 5, 5]),
        lambda a, b, v: np.take(a, [0, 5], mode="raise"),
        lambda a, b, v: np.take(a, [[0, 1], [1, 1]], axis=1),
        lambda a, b, v: np.take_along_axis(a, ids, 0),
        lambda a, b, v: np.dot(a, b),
        lambda a, b, v: np.dot(a, 2.0),
        lambda a, b, v: np.dot(2.0, a[None]),
        lambda a, b, v: np.inner(v, v),
        lambda a, b, v: np.inner(a, a),
        lambda a, b, v: np.inner(2.0, a),
        lambda a, b, v: np.inner(a, 2.0),
        lambda a, b, v: np.outer(v, b),
        lambda a, b, v: np.vdot(a, b.T),
        lambda a, b, v: np.linalg.matmul(a, b),
        lambda a, b, v: np.vecdot(a, v),
        lambda a, b, v: np.linalg.vecdot(a, v),
        lambda a, b, v: np.vstack([a, v]),
        lambda a, b, v: np.hstack([a, a]),
        lambda a, b, v: np.hstack([v, v]),
        lambda a, b, v: np.dstack([a, a]),
        lambda a, b, v: np.column_stack([v, v, b]),
        lambda a, b, v: np.stack([v, v], axis=1),
        lambda a, b, v: np.concatenate([a, b], axis=None),
        lambda a, b, v: np.concat([a, a], axis=-1),
        lambda a, b, v: np.append(a, b),
        lambda a, b, v: np.broadcast_to(v, (3, 6)),
        lambda a, b, v: np.split(a, 3, axis=1),
        lambda a, b, v: np.split(a, [1, 3], axis=1),
        lambda a, b, v: np.array_split(a, 4, axis=1),
        lambda a, b, v: np.hsplit(a, 2),
        lambda a, b, v: np.vsplit(a, [1]),
        lambda a, b, v: np.unstack(a, axis=1),
        lambda a, b, v: np.unstack(a[:, :0], axis=-1),
        lambda a, b, v: np.cumsum(a),
        lambda a, b, v: np.cumsum(a, axis=1),
        lambda a, b, v: np.var(a, axis=0, ddof=1),
        lambda a, b, v: np.std(a, correction=1, keepdims=True),
        lambda a, b, v: np.ptp(a, axis=1),
        lambda a, b, v: np.reshape(a, (3, -1)),
        lambda a, b, v: np.transpose(a, (1, 0)),
        lambda a, b, v: np.swapaxes(a, 0, -1),
        lambda a, b, v: np.moveaxis(a[None], (0, 2), (1, 0)),
        lambda a, b, v: np.expand_dims(a, 1),
        lambda a, b, v: np.flip(a, 1),
        lambda a, b, v: np.pad(a, ((1, 0), (0, 2)), constant_values=3.0),
        lambda a, b, v: np.pad(a, 1, "constant"),
        lambda a, b, v: np.triu(a, 1),
        lambda a, b, v: np.tril(a, -1),
        lambda a, b, v: np.diagonal(a, 2),
        lambda a, b, v: np.diagonal(a, -1),
        lambda a, b, v: np.trace(a, offset=2),
        lambda a, b, v: np.where(v > 0, a, 0),
    ]
    for number, call in enumerate(calls):
        x, y, w = (Tensor(value, requires_grad=True) for value in (a, b, v))
        found, expected = parts(call(x, y, w)), parts(call(a, b, v))
        assert len(found) == len(expected), number
        for got, want in zip(found, expected, strict=True):
            assert got.requires_grad, number
            np.testing.assert_allclose(got.detach(), want, err_msg=str(number))
    assert [index.tolist() for index in np.where(Tensor(v > 0))] == [np.nonzero(v > 0)[0].tolist()]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: np.linalg.svd(x),
        lambda x: np.gradient(x),
        lambda x: np.linalg.eig(x),
        lambda x: np.fft.fft(x),
        lambda x: np.mean([x[0, 0], x[0, 1]]),
        lambda x: np.mean([x[0], x[1]]),
        lambda x: np.einsum("ij->i", x),
        lambda x: np.sort(x),
    ],
)
def test_lists_and_complex_results_are_looked_at_too(call: Callable[[Tensor], Any]) -> None:
    x = tensor.randn(3, 3, dtype="float64", requires_grad=True)
    with pytest.raises(GraphError, match=r"the gradient would be lost|would lose its gradient"):
        call(x)
    assert call(x.detach()) is not None


def test_what_numpy_refuses_is_refused() -> None:
    x, v = tensor.ones(3, 4), tensor.ones(4)
    refused: list[Callable[[], Any]] = [
        lambda: np.split(x, np.int64(2)),
        lambda: np.flip(x, (0, -2)),
        lambda: np.vecdot(x, Tensor(2.0)),
        lambda: np.vecdot(Tensor(2.0), v),
        lambda: np.take(v, [True, False, True, True]),  # NumPy's positions 1 and 0
        lambda: np.vsplit(v, 2),
        lambda: np.tril(Tensor(2.0)),
        lambda: np.triu(Tensor(2.0)),
        lambda: np.var(x, ddof=1, correction=1),
        lambda: np.std(x, ddof=1, correction=0),
    ]
    for number, call in enumerate(refused):
        with pytest.raises((ShapeError, DTypeError, ArgumentError)):
            pytest.fail(f"{number}: {call()}")


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "bfloat16"])
def test_triangles_keep_the_dtype(dtype: str) -> None:
    x = tensor.ones(3, 4, dtype=dtype)
    for triangle in (np.tril, np.triu):
        y: Any = triangle(x)
        assert y.dtype == x.dtype
        assert y.tolist() == triangle(np.ones((3, 4))).tolist()


def test_other_modes_are_refused_in_words() -> None:
    x = tensor.ones(3)
    with pytest.raises(OptionError, match=r"np.take with mode='clip'.*np.clip\(indices"):
        np.take(x, [0, 9], mode="clip")
    with pytest.raises(OptionError, match=r"np.take with mode='constant'"):
        np.take(x, [0, 1], mode="constant")  # type: ignore[call-overload]
    with pytest.raises(OptionError, match=r"np.pad with mode='edge'.*np.concatenate"):
        np.pad(x, 1, "edge")
