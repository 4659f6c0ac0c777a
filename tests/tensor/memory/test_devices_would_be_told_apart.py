"""Would a difference between two devices be noticed? Differences are planted, in results and in
whole ops, and need no GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tensor import Tensor, kernels
from tensor.gradient_cases import CASES
from tensor.memory.devices import Array
from tests.helpers.agreement import ROUNDING, assert_agreement, disagreement, fact, found, of_case

GRID = np.linspace(-2, 3, 12).reshape(3, 4)


def column_major(x: Array) -> Array:
    """The same values, the first axis innermost in memory."""
    return x.T.copy().T


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: np.where(x == x.max(), x * (1 + 1e-11), x),
            r"3\.0\d*3 at \(2, 3\), not 3\.0 \(1\.0e-11 of the largest\)",
        ),
        (lambda x: np.where(x == x.max(), np.nan, x), "nan at"),
        (lambda x: -x, "at"),
        (lambda x: x.T, r"shape \(4, 3\), not \(3, 4\)"),
        (lambda x: x.astype(np.float32), "dtype float32, not float64"),
        (column_major, r"strides \(1, 3\) of shape \(3, 4\), where NumPy's are row-major"),
        (lambda x: x[::-1].copy()[::-1], "row-major"),
    ],
)
def test_a_difference_is_noticed(change: Callable[[Array], Array], message: str) -> None:
    ours, theirs = fact(Tensor.from_array(GRID)), fact(Tensor.from_array(change(GRID)))
    with pytest.raises(AssertionError, match=message):
        assert_agreement({"result": ours}, {"result": theirs}, "here")
    assert disagreement(ours, ours) is None


def test_an_error_is_told_by_its_sort_and_its_words() -> None:
    ours, theirs = found(lambda: Tensor([1]).view(2), []), found(lambda: Tensor([1])[5], [])
    assert_agreement(ours, found(lambda: Tensor([1, 2]).view(3), []), "here")  # other words
    with pytest.raises(
        AssertionError,
        match=r"error is IndexingError, not ShapeError; "
        r"IndexingError: index 5.*; ShapeError: 1 elements",
    ):
        assert_agreement(ours, theirs, "here")


def test_other_differences_are_noticed() -> None:
    x = Tensor(GRID)
    view, copy = fact(x[1:], [x]), fact(x[1:].clone(), [x])
    assert (view.view_of, copy.view_of) == (0, None)
    assert disagreement(view, copy) == "a view of input None, not 0"
    assert "offset=4" in str(disagreement(fact(x[:2], [x]), view._replace(values=GRID[:2])))
    by_columns = fact(Tensor.from_array(column_major(GRID)))
    # CuPy's results are row-major where NumPy's follow their inputs
    assert disagreement(by_columns, fact(x)) is None
    ints = fact(Tensor([1, 2, 3]))
    assert disagreement(ints, fact(Tensor([1, 2, 4]))) == "4 at (2,), not 3"
    assert disagreement("IndexError", fact(x)) == "a result of shape (3, 4), not IndexError"
    assert disagreement("IndexError", "ValueError") == "ValueError, not IndexError"
    with pytest.raises(AssertionError, match="in NumPy"):
        assert_agreement({"result": ints}, {"result": ints, "gradient 0": ints}, "here")
    infinite = fact(Tensor.from_array(np.array([np.inf, 1.0])))
    assert "-inf" in str(disagreement(infinite, fact(Tensor.from_array(np.array([-np.inf, 1.0])))))
    for dtype, share in ROUNDING.items():
        single, exact = (
            fact(Tensor(GRID, dtype=dtype)),
            fact(Tensor(np.asarray(Tensor(GRID, dtype=dtype).to("float64").numpy()))),
        )
        off = single._replace(
            values=(single.values.astype(np.float64) + 9 * share).astype(single.values.dtype)
        )
        assert disagreement(single, off, exact) is not None, dtype
        assert disagreement(single, single, exact) is None


def wrong(
    change: Callable[[Array], Array], gradient: Callable[[Array], Array]
) -> Callable[..., Any]:
    """tanh with another result, or another gradient."""

    def tanh(x: Array) -> Any:
        y = np.tanh(x)
        return change(y), (lambda dx: gradient(dx * (1 - y * y)),)

    return tanh


@pytest.mark.parametrize(
    ("change", "gradient", "message"),
    [
        (lambda y: y, lambda dx: dx, None),
        (lambda y: y + 1e-9, lambda dx: dx, "result 0 is"),
        (lambda y: y, lambda dx: dx * (1 + 1e-9), "gradient 0 is"),
        (lambda y: y.astype(np.float32), lambda dx: dx, "result 0 is dtype float32"),
        (column_major, lambda dx: dx, "result 0 is strides"),
        (lambda y: y, column_major, "gradient 0 is strides"),
    ],
)
def test_an_op_that_is_another_on_a_device_is_noticed(
    change: Callable[[Array], Array],
    gradient: Callable[[Array], Array],
    message: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = next(case for case in CASES if case.op == "tanh")
    with kernels.off():
        ours = of_case(case, "C", "float64", "cpu")
    monkeypatch.setattr(kernels, "_DISABLED", False)
    planted = kernels.Kernel("cpu", wrong(change, gradient), lambda x: None)
    kernels.KERNELS["tanh"].insert(0, planted)  # the very list that the op holds
    try:
        theirs = of_case(case, "C", "float64", "cpu")
    finally:
        kernels.KERNELS["tanh"].remove(planted)
    if message is None:
        assert_agreement(ours, theirs, "tanh")
    else:
        with pytest.raises(AssertionError, match=f"tanh: {message}"):
            assert_agreement(ours, theirs, "tanh")
