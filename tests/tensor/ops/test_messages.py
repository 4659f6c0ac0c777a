"""What errors say: of shapes in products the two numbers that differ, and what would fit; of
another library's word, ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import tensor
from tensor import Tensor
from tensor.errors import ArgumentError, ShapeError


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            lambda ones: ones(2, 3) @ ones(2, 4),
            "matmul of (2, 3) and (2, 4): the last axis of the first, 3, "
            "must equal the second last axis of the second, 2",
        ),
        (
            lambda ones: ones(2, 3) @ ones(4, 3),
            "must equal the second last axis of the second, 4. "
            "The second one transposed would fit: .mT",
        ),
        (
            lambda ones: ones(3) @ ones(4),
            "matmul of (3,) and (4,): the last axis of the first, 3, "
            "must equal the only axis of the second, 4",
        ),
        (
            lambda ones: ones() @ ones(4),
            "matmul of () and (4,): a scalar has no axis to sum over; to scale, use *",
        ),
        (
            lambda ones: ones(2, 3, 4) @ ones(5, 4, 3),
            "matmul of (2, 3, 4) and (5, 4, 3): the axes before the last two, (2,) and (5,), "
            "do not broadcast",
        ),
        (
            lambda ones: tensor.linear(ones(2, 3), ones(4, 5)),
            "linear of x (2, 3): its last axis has 3 numbers, weight (4, 5) takes 4; "
            "a weight (3, outputs) is needed",
        ),
        (
            lambda ones: tensor.linear(ones(2, 3), ones(3, 5), transposed=True),
            "weight (3, 5) takes 5; a weight (outputs, 3) is needed",
        ),
        (
            lambda ones: tensor.linear(ones(2, 3), ones(3)),
            "linear of x (2, 3): weight (3,); a weight (3, outputs) is needed",
        ),
        (
            lambda ones: tensor.linear(ones(), ones(3, 2)),
            "linear of x (): weight (3, 2); a weight (inputs, outputs) is needed",
        ),
        (
            lambda ones: tensor.linear(ones(2, 3), ones(3, 5), ones(2)),
            "linear of x (2, 3): bias (2,) must be (5,), a number for each output of weight (3, 5)",
        ),
        (
            lambda ones: tensor.linear_gelu(ones(2, 3), ones(3, 5), ones(2)),
            "linear of x (2, 3): bias (2,) must be (5,)",
        ),
        (
            lambda ones: tensor.linear_cross_entropy(ones(2, 3), ones(4, 5), [0, 1]),
            "linear of x (2, 3): its last axis has 3 numbers, weight (4, 5) takes 4",
        ),
        (
            lambda ones: tensor.linear_cross_entropy(ones(2, 3), ones(3, 5), [0]),
            "cross_entropy of logits (2, 5) needs targets (2,), not (1,)",
        ),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_products_that_do_not_fit(
    wrong: Callable[..., Any], says: str, dtype: str, device: str
) -> None:
    """With kernels (float32), with references, and by way of float32."""
    with pytest.raises(ShapeError, match=re.escape(says)):
        wrong(lambda *shape: tensor.ones(*shape, dtype=dtype, device=device))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "call", [lambda x: x.sum(dim=1), lambda x: x.softmax(dim=1), lambda x: x.mean(1, keepdim=True)]
)
def test_dim_is_called_axis(call: Callable[[Tensor], Tensor], dtype: str, device: str) -> None:
    with pytest.raises(TypeError, match=r"has no (dim=. Write axis|keepdim=. Write keepdims)="):
        call(tensor.ones(2, 3, dtype=dtype, device=device))


def test_a_second_axis_is_no_keepdims(device: str) -> None:
    x = tensor.ones(2, 3, 4, device=device)
    names = "sum mean max min var std argmax argmin any all logsumexp"
    for name in names.split():
        for axis in (1, 2):
            says = rf"keepdims={axis} is neither True nor False.*: axis=\(0, {axis}\)"
            with pytest.raises(ArgumentError, match=says):
                getattr(x, name)(0, axis)


def test_an_index_out_of_range_names_the_axis_of_what_is_indexed(device: str) -> None:
    x = tensor.ones(2, 3, 4, device=device)
    keys: list[Any] = [(0, 1, 9), (None, 0, ..., 9), (slice(1), None, 2, 9), (..., None, 9)]
    for key in keys:
        with pytest.raises(IndexError, match="index 9 is out of range for axis 2 of size 4"):
            x[key]
    with pytest.raises(IndexError, match="index 5 is out of range for axis 1 of size 3"):
        x[0, 5]
