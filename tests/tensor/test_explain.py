"""What `explain()` tells: storage, layout, diagram, sharing, contiguity. Read as a user reads it,
and checked against the tensor.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensor
from tensor import Tensor
from tensor.errors import ViewError
from tensor.gradient_cases import LAYOUTS
from tensor.memory.layout import Shape
from tests.helpers.strategies import layouts, numbered, placed, shapes, view_steps


def line(x: Tensor, name: str) -> str:
    """The line of x.explain() that begins with a name, without it."""
    (found,) = [text for text in x.explain().splitlines() if text.strip().startswith(name)]
    return found.strip()[len(name) :].strip()


def cells(x: Tensor) -> dict[int, str]:
    """Storage place -> the index drawn under it, and the value drawn above it checked."""
    values = [float(value) for value in line(x, "memory").split()]
    np.testing.assert_array_equal(values, x.storage.flat.astype(float).tolist())
    names = line(x, "index").split()
    assert len(names) == len(values)
    return {place: name for place, name in enumerate(names) if name != "."}


def test_a_transpose_explained(device: str) -> None:
    x = placed(numbered((2, 3)), device)
    y = x.T
    assert y.explain().splitlines() == [
        "tensor (3, 2) float64, a constant",
        f"storage     6 x float64 (48 bytes) on {x.device}, version 0",
        "layout      shape (3, 2), strides (1, 3), offset 0",
        f"address     {y.data_ptr():#x}, 0 bytes after the storage begins",
        "element     [i, j] lives at 0 + i*1 + j*3",
        "  memory      1   2   3   4   5   6",
        "  index     0,0 1,0 2,0 0,1 1,1 2,1",
        (
            "contiguous  no: axis 1 steps by 3, row-major order needs 1; "
            ".contiguous() copies 6 elements"
        ),
        "shared with tensor (2, 3) float64, a constant, strides (3, 1), offset 0",
    ]


def test_what_is_drawn_for_gaps_and_repeats(device: str) -> None:
    x = placed(numbered((2, 4)), device)
    assert cells(x[::-1, 1::2]) == {5: "0,0", 7: "0,1", 1: "1,0", 3: "1,1"}
    assert line(x[::-1, 1::2], "element") == "[i, j] lives at 5 + i*-4 + j*2"
    assert cells(x[0, :2].expand(3, 2)) == {0: "0,0+", 1: "0,1+"}  # one cell, several indices
    assert "axis 0 steps by 0" in line(x[:1].expand(3, 4), "contiguous")
    assert cells(x[1, 2]) == {6: "()"}
    assert line(x[1, 2], "element") == "[] lives at 6"
    assert cells(x[:0]) == {}


@given(data=st.data(), shape=shapes(max_dims=3, max_side=3), layout=layouts)
def test_the_diagram_places_every_element(
    data: st.DataObject, device: str, shape: Shape, layout: str
) -> None:
    x = placed(LAYOUTS[layout](numbered(shape)), device)
    for _ in range(data.draw(st.integers(0, 3))):
        try:
            x = data.draw(view_steps(x.shape)).on_tensor(x)
        except ViewError:
            continue
    text = x.explain()
    assert line(x, "layout") == f"shape {x.shape}, strides {x.strides}, offset {x.offset}"
    assert line(x, "contiguous").startswith("yes" if x.is_contiguous() else "no")
    assert ("memory" in text) == (0 < x.storage.flat.size <= 24 and x.size <= 96)
    if "memory" not in text:
        return
    lives_at = {
        index: x.offset + sum(i * s for i, s in zip(index, x.strides, strict=True))
        for index in np.ndindex(x.shape)
    }
    drawn = cells(x)
    assert set(drawn) == set(lives_at.values())
    for place, name in drawn.items():
        assert lives_at[tuple(int(n) for n in re.findall(r"\d+", name))] == place
        assert name.endswith("+") == (list(lives_at.values()).count(place) > 1)


def test_why_it_is_contiguous_or_not(device: str) -> None:
    x = placed(numbered((2, 3, 4)), device)
    assert line(x, "contiguous") == "yes: row-major, without gaps"
    assert line(x.transpose(0, 1), "contiguous").startswith(
        "no: axis 1 steps by 12, row-major order needs 4"
    )
    assert line(x[:, :, ::2], "contiguous").startswith(
        "no: axis 2 steps by 2, row-major order needs 1"
    )
    assert line(x[:, :2], "contiguous").startswith(
        "no: axis 0 steps by 12, row-major order needs 8; .contiguous() copies 16 elements"
    )
    assert line(x[:, :1].transpose(0, 1)[:, 1:], "contiguous").startswith("yes")


def test_the_address_of_a_view(device: str) -> None:
    x = placed(numbered((2, 3)), device)
    assert line(x[1:], "address") == f"{x.data_ptr() + 24:#x}, 24 bytes after the storage begins"
    assert line(x[::-1], "address").startswith(f"{x.data_ptr() + 24:#x}, 24 bytes")


def test_who_shares_the_storage(device: str) -> None:
    x = placed(numbered((2, 3)), device)
    assert line(x, "shared with") == "no other tensor"
    row, other = x[0], x.clone()
    column = x[:, 1]
    shared = [text for text in x.explain().splitlines() if text.startswith("shared")]
    assert sorted(shared) == [
        "shared with tensor (2,) float64, a constant, strides (3,), offset 1",
        "shared with tensor (3,) float64, a constant, strides (1,), offset 0",
    ]
    del row, column
    assert line(x, "shared with") == "no other tensor"
    assert line(other, "shared with") == "no other tensor"


def test_where_it_comes_from_and_writes_to_it(device: str) -> None:
    x = Tensor([1.0, 2.0], device=device, requires_grad=True)
    assert x.explain().startswith("tensor (2,) float32, a leaf\n")
    assert (x * 2).explain().startswith("tensor (2,) float32, made by `multiply`\n")
    assert (x * 2)[:1].explain().startswith("tensor (1,) float32, made by `index`\n")
    y = tensor.zeros(3, device=device)
    y[:2][0] = 5
    assert line(y, "storage").endswith("version 1")
    assert line(y, "memory").split() == ["5", "0", "0"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int64", "uint8", "bool"])
def test_every_dtype_is_drawn(dtype: str, device: str) -> None:
    x = Tensor([[0, 1], [1, 0]], dtype=dtype, device=device)
    assert cells(x.T) == {0: "0,0", 1: "1,0", 2: "0,1", 3: "1,1"}
    assert f"4 x {dtype} ({4 * x.dtype.itemsize} bytes)" in line(x, "storage")


def test_large_empty_and_many_axes(device: str) -> None:
    assert "memory" not in tensor.zeros(1000, device=device).explain()
    assert "memory" not in tensor.zeros(1, device=device).expand(1000).explain()
    assert "memory" not in tensor.zeros(0, 3, device=device).explain()
    assert "(4,000 bytes)" in tensor.zeros(1000, device=device).explain()
    many = line(tensor.zeros((1,) * 9 + (2,), device=device), "element")
    assert many.startswith("[i, j, k, l, m, n, o, p, q, r] lives at")
    assert many.endswith("r*1")
