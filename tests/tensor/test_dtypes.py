"""Which dtype comes out: NumPy 2's own answer for every pair, the rules of bfloat16 in a table, and
gradients in the dtype of their input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, grad, nn
from tensor.dtypes import FLOATS, DType, as_dtype, bfloat16, float16, float32, float64, promote
from tensor.errors import DTypeError
from tensor.gradient_cases import CASES
from tensor.ops.op import OPS
from tests.helpers.strategies import placed

NUMPYS = [
    np.dtype(name)
    for name in (
        "float64",
        "float32",
        "float16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
    )
]
BINARY: dict[str, Any] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
    "power": np.power, "maximum": np.maximum, "minimum": np.minimum,
    "equal": np.equal, "less": np.less, "greater_equal": np.greater_equal,
    "bitwise_and": np.bitwise_and, "bitwise_xor": np.bitwise_xor,
    "where": lambda a, b: np.where([True, False], a, b), "matmul": np.matmul,
}  # fmt: skip
ours: dict[str, Callable[[Any, Any], Tensor]] = {
    **{name: OPS[name] for name in BINARY},
    "where": lambda a, b: tensor.where([True, False], a, b),
}
UNARY: dict[str, Any] = {
    "negative": np.negative, "abs": np.abs, "exp": np.exp, "log": np.log, "sqrt": np.sqrt,
    "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "invert": np.invert,
    "sum": np.sum, "mean": lambda x: np.mean(x, dtype=None if x.dtype.kind == "f" else "f8"),
    "cumsum": np.cumsum, "max": np.max, "argmax": np.argmax,
}  # fmt: skip
SCALARS: list[Any] = [2, 2.5, True]

# what bfloat16 meets, and what comes of it: the row of float16 in NumPy 2, except that the two
# 16-bit floats meet in float32
WITH_BFLOAT16 = {
    "float64": "float64", "float32": "float32", "float16": "float32", "bfloat16": "bfloat16",
    "int64": "float64", "int32": "float64", "int16": "float32",
    "int8": "bfloat16", "uint8": "bfloat16", "bool": "bfloat16",
}  # fmt: skip


def ones(dtype: DType, shape: tuple[int, ...] = (2,)) -> Any:
    return np.ones(shape, dtype=dtype)


def check_dtype(function: Callable[[], Tensor], numpys: Callable[[], Any], what: Any) -> None:
    """The same dtype and shape as NumPy's result, or an error where NumPy has one. Of integers
    alone come float32, where NumPy gives other floats.
    """
    try:
        expected = np.asarray(numpys())
    except (TypeError, OverflowError):
        with pytest.raises((TypeError, OverflowError)):
            function()
        return
    dtype = expected.dtype
    if dtype in FLOATS and not FLOATS.intersection(what):
        dtype = float32
    y = function()
    assert (y.dtype, y.shape) == (dtype, expected.shape), what


# -- NumPy 2's promotion


@pytest.mark.parametrize("name", BINARY)
def test_bug_28_two_dtypes_meet_as_in_numpy(name: str, device: str) -> None:
    """array with array; array with 0-d array, which counts in full; 0-d with 0-d."""
    for a in NUMPYS:
        for b in NUMPYS:
            for shapes in (
                [((2,), (2,))]
                if name == "matmul"
                else [((2,), (2,)), ((2,), ()), ((), (2,)), ((), ())]
            ):
                x, y = ones(a, shapes[0]), ones(b, shapes[1])
                check_dtype(
                    lambda x=x, y=y: ours[name](placed(x, device), placed(y, device)),
                    lambda x=x, y=y: BINARY[name](x, y),
                    (a, b, shapes),
                )


@pytest.mark.parametrize("name", [name for name in BINARY if name != "matmul"])
def test_bug_28_a_python_scalar_never_promotes(name: str, device: str) -> None:
    """It only says int or float; on either side, and beside 0-d tensors too."""
    for dtype in NUMPYS:
        for scalar in SCALARS:
            for shape in ((2,), ()):
                x = ones(dtype, shape)
                check_dtype(
                    lambda x=x, s=scalar: ours[name](placed(x, device), s),
                    lambda x=x, s=scalar: BINARY[name](x, s),
                    (dtype, scalar),
                )
                check_dtype(
                    lambda x=x, s=scalar: ours[name](s, placed(x, device)),
                    lambda x=x, s=scalar: BINARY[name](s, x),
                    (scalar, dtype),
                )


@pytest.mark.parametrize("name", UNARY)
def test_bug_28_one_dtype_comes_out_as_in_numpy(name: str, device: str) -> None:
    for dtype in NUMPYS:
        for shape in ((2,), ()):
            if name in ("cumsum", "argmax") and shape == ():
                continue
            x = ones(dtype, shape)
            check_dtype(
                lambda x=x: OPS[name](placed(x, device)), lambda x=x: UNARY[name](x), (dtype, shape)
            )


@pytest.mark.parametrize(("other", "result"), WITH_BFLOAT16.items())
def test_bug_28_bfloat16_meets(other: str, result: str, device: str) -> None:
    b = Tensor([1.0, 2.0], dtype=bfloat16, device=device)
    x = Tensor([1, 1], dtype=other, device=device)
    assert (
        promote(bfloat16, as_dtype(other)) == promote(as_dtype(other), bfloat16) == as_dtype(result)
    )
    for name in ("add", "subtract", "multiply", "maximum"):
        assert OPS[name](b, x).dtype == OPS[name](x, b).dtype == as_dtype(result)
        assert OPS[name](b, x[0]).dtype == OPS[name](x[0], b[0]).dtype == as_dtype(result)
    assert (b @ x).dtype == as_dtype(result)
    assert (b < x).dtype == bool
    assert tensor.concatenate([b, x]).dtype == as_dtype(result)


def test_bug_28_bfloat16_keeps_to_itself(device: str) -> None:
    b = Tensor([1.0, 2.0], dtype="bfloat16", device=device)
    for scalar in SCALARS:
        for y in (
            b + scalar,
            scalar * b,
            b / scalar,
            scalar**b,
            tensor.maximum(b, scalar),
            tensor.where(b > 1, b, scalar),
            b[0] + scalar,
        ):
            assert y.dtype == bfloat16
    for name in ("exp", "sum", "mean", "softmax", "cumsum", "gelu", "std", "max", "logsumexp"):
        assert OPS[name](b).dtype == bfloat16
    assert promote(bfloat16, float16, as_dtype("int8")) == float32
    assert promote(bfloat16, float64, float16) == float64


def test_bug_28_a_scalar_keeps_its_value(device: str) -> None:
    """0.1 is not rounded to float32 on its way into float64, nor made a tensor."""
    x = Tensor([1.0], dtype=float64, device=device)
    assert (x + 0.1).item() == 1.1
    assert (x * 1e300).item() == 1e300
    assert tensor.where(x > 0, 0.1, x).item() == 0.1
    with pytest.raises(OverflowError):
        Tensor([1], dtype="int8", device=device) + 300


@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [
        (1.0, 2.0, "float32"),
        (1, 2.5, "float32"),
        (2.5, 1, "float32"),
        (1, 2, "int64"),
        (True, False, "bool"),
    ],
)
def test_bug_28_where_of_two_scalars(a: Any, b: Any, dtype: str, device: str) -> None:
    y = tensor.where(Tensor([True, False], device=device), a, b)
    assert y.dtype == as_dtype(dtype)
    assert y.tolist() == [a, b]


# -- gradients


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_bug_28_no_op_leaves_its_dtype(dtype: str, device: str) -> None:
    """Every gradient case, in fewer bits: results stay there (no float64 constant leaks in), and so
    does each gradient.
    """
    for case in CASES:
        if case.op == "cast":
            continue
        leaves = [Tensor(x, dtype=dtype, device=device, requires_grad=True) for x in case.inputs(0)]
        outputs = case.call(*leaves)
        ys = outputs if isinstance(outputs, tuple) else (outputs,)
        if dtype == "float32":
            assert [y.dtype for y in ys] == [float32] * len(ys), case.op
        for x, dx in zip(leaves, grad(ys, leaves, [tensor.ones_like(y) for y in ys]), strict=True):
            assert dx is None or (dx.dtype, dx.shape) == (x.dtype, x.shape), case.op


@pytest.mark.parametrize(
    "name", ["add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "matmul"]
)
def test_bug_28_each_gradient_has_the_dtype_of_its_input(name: str, device: str) -> None:
    for a in sorted(FLOATS, key=str):
        for b in sorted(FLOATS, key=str):
            for shape in [(2,)] if name == "matmul" else [(2,), ()]:
                x = Tensor([1.0, 2.0], dtype=a, device=device, requires_grad=True)
                y = Tensor(np.ones(shape), dtype=b, device=device, requires_grad=True)
                z = OPS[name](x, y)
                dx, dy = grad(z, (x, y), tensor.ones_like(z))
                assert dx is not None
                assert dy is not None
                assert (dx.dtype, dx.shape, dy.dtype, dy.shape) == (a, (2,), b, shape)
    ids = Tensor([3, 4], device=device)
    x = Tensor([1.0, 2.0], device=device, requires_grad=True)
    z = OPS[name](x, ids)
    assert z.dtype == float64  # as in NumPy: float32 does not hold all int64
    assert grad(z, x, tensor.ones_like(z))[0].dtype == float32  # type: ignore[union-attr]


def test_casts_and_their_gradients(device: str) -> None:
    x = Tensor([0.1, -1.5, 3.0], dtype=float64, device=device, requires_grad=True)
    assert x.to("float64") is x
    for dtype in (float32, float16, bfloat16):
        y = x.to(dtype)
        np.testing.assert_array_equal(y.numpy(), x.numpy().astype(dtype))
        dx = grad(y, x, Tensor([0.1, 0.2, 0.3], dtype=dtype, device=device))[0]
        assert dx is not None
        np.testing.assert_array_equal(
            dx.numpy(), np.array([0.1, 0.2, 0.3]).astype(dtype).astype(float64)
        )
    assert not x.to("int64").requires_grad
    assert x.to("int64").tolist() == [0, -1, 3]
    assert not x.to(bool).requires_grad


# -- integers where floats are meant

INTEGERS = ["int64", "int32", "int16", "int8", "uint8", "bool"]
FLOAT_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **{
        name: OPS[name]
        for name in (
            "exp",
            "sin",
            "cos",
            "tanh",
            "sqrt",
            "erf",
            "sigmoid",
            "silu",
            "gelu",
            "softmax",
            "log_softmax",
            "logsumexp",
            "mean",
            "var",
            "std",
        )
    },
    "log": lambda x: x[x > 0].log(),
    "erf gelu": lambda x: tensor.gelu(x, form="erf"),
    "divide": lambda x: x / 2,
    "divided": lambda x: x / x.max(),
    "layer_norm": lambda x: tensor.layer_norm(x, [1.0] * 4, [0.5] * 4),
    "mean_squared_error": lambda x: tensor.mean_squared_error(x, x[::-1]),
    "binary_cross_entropy_with_logits": (
        lambda x: tensor.binary_cross_entropy_with_logits(x, x[::-1])
    ),
    "cross_entropy": lambda x: tensor.cross_entropy(x, 1),
    "power": lambda x: x**0.5,
    "dropout": lambda x: tensor.dropout(x, p=0.5, key=tensor.random.Key(1)),
}


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", FLOAT_FUNCTIONS)
def test_bug_30_integers_give_floats_or_an_error(name: str, dtype: str, device: str) -> None:
    """Never the integer part of the answer, nor one that went around the 8 bits of an unsigned
    number.
    """
    values = [0, 3, 1, 2] if dtype != "bool" else [0, 1, 1, 0]
    try:
        y = FLOAT_FUNCTIONS[name](Tensor(values, dtype=dtype, device=device))
    except TypeError as error:
        # an answer is as good as an error here
        assert "float" in str(error) or "bool" in str(error)  # noqa: PT017
        return
    assert y.dtype in FLOATS
    wanted = FLOAT_FUNCTIONS[name](Tensor(values, dtype=float64, device=device)).numpy()
    np.testing.assert_allclose(
        y.numpy().astype(float64), wanted, rtol=2e-3 if y.dtype == float16 else 1e-6
    )


@pytest.mark.parametrize("dtype", INTEGERS)
def test_bug_30_means_and_quotients_of_integers(dtype: str, device: str) -> None:
    x = Tensor([0, 1, 1, 1], dtype=dtype, device=device)
    assert x.mean().item() == 0.75
    assert (x / 2).tolist() == [0, 0.5, 0.5, 0.5]
    assert (1 / Tensor([2, 4], dtype="int64", device=device)).tolist() == [0.5, 0.25]
    if dtype != "bool":
        assert (x / Tensor([2, 2, 4, 4], dtype=dtype, device=device)).tolist() == [
            0,
            0.5,
            0.25,
            0.25,
        ]
        assert x.var().item() == 0.1875
        with pytest.raises((ValueError, OverflowError), match=r"negative integer powers"):
            x**-1
    with pytest.raises(DTypeError, match=r"softmax.*to\('float32'\)"):
        x.softmax()


def test_names_of_dtypes() -> None:
    assert as_dtype("bfloat16") == as_dtype(bfloat16) == bfloat16
    assert as_dtype(float) == float64
    assert as_dtype(np.float16) == float16
    for wrong in ("bfloat32", "complex64", "datetime64[s]", "U3", object):
        with pytest.raises(DTypeError):
            as_dtype(wrong)


# -- what is no Tensor is weak

ARRAY = np.array([0.1, 3.0])  # float64, as NumPy makes it
NUMBERS: list[Any] = [ARRAY, [0.1, 3.0], np.float64(0.1), np.array([2, 3]), np.array([True, False])]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("weak", NUMBERS, ids=repr)
def test_arrays_and_numbers_take_the_dtype_of_the_tensors(
    weak: Any, dtype: str, device: str
) -> None:
    x = Tensor([1.0, 2.0], dtype=dtype, device=device)
    results = [x + weak, weak - x, tensor.maximum(x, weak), tensor.where(x > 1, weak, x)]
    if np.ndim(weak) == 1:
        results += [x @ weak, tensor.concatenate([x, weak]), tensor.stack([weak, x])]
        results += [tensor.mean_squared_error(x, weak), np.multiply(x, weak)]
    assert {y.dtype for y in results} == {as_dtype(dtype)}
    exact = np.asarray(x.tolist()) + np.asarray(weak)
    rtol = {"float64": 1e-15, "float32": 1e-7}.get(dtype, 1e-2)
    assert np.allclose((x + weak).tolist(), exact, rtol=rtol)


def test_text_and_complex_numbers_are_no_operands(device: str) -> None:
    x = Tensor([1.0, 2.0], device=device)
    for wrong in ("3", ["3", "4"], [1j, 2j], np.array([1j, 2j]), np.array(["3", "4"]), object()):
        with pytest.raises(TypeError, match=r"tensors hold floats|takes b as|operand"):
            x * wrong
        with pytest.raises(DTypeError, match="tensors hold floats, integers and bools, not"):
            Tensor(wrong, dtype="float32", device=device)


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8", "bool"])
def test_integers_that_become_floats_become_float32(dtype: str, device: str) -> None:
    n = Tensor([1, 1], dtype=dtype, device=device)
    for y in (n * 2.5, n / 3, n / n, n.mean(), n + ARRAY, n * np.float64(2), n.exp(), n**0.5):
        assert y.dtype == float32
    assert tensor.stack([n, ARRAY]).dtype == float32
    e = Tensor([11], dtype="int8", device=device).exp().item()
    assert np.isclose(e, np.exp(11), rtol=1e-6)


def test_tensors_are_strong(device: str) -> None:
    """A Tensor made of a float64 array is float64, and promotes what it meets."""
    double, single = Tensor(ARRAY, device=device), Tensor([1.0, 2.0], device=device)
    assert (double + single).dtype == float64
    assert tensor.exp(ARRAY).dtype == float64


def test_a_layer_computes_in_the_dtype_of_its_parameters(device: str) -> None:
    x = np.ones((3, 2))
    for layer in (nn.Linear(2, 4), nn.LayerNorm(2)):
        layer.to(device=device)
        assert layer(x).dtype == layer(Tensor(x, device=device)).dtype == float32
        assert layer.to(dtype="bfloat16")(Tensor(x, device=device)).dtype == bfloat16
    s, n = layer.after_sum(Tensor(x, dtype="bfloat16", device=device), x)  # type: ignore[union-attr]
    assert s.dtype == n.dtype == bfloat16
