"""NumPy and CuPy agree: every op, its values, gradients, dtypes and memory order; random numbers,
optimisers, indices, edges.

On a GPU (`--device cuda`) each sample runs on both and is compared. Elsewhere there is nothing to
compare with, and those tests are skipped.
That the comparison itself would notice a difference is tested by test_agreement.py.

Known differences, which the samples keep clear of (`test_known_differences` pins the first three,
so that this list stays true):

    subnormal float32    numbers below 1.2e-38 count as 0 on a GPU, read or written: CuPy compiles
    so (-ftz=true). float64 keeps its own.
    integers ** -1       raises for a Python number; for an array of exponents NumPy looks, a GPU
    computes something.
    ids on a GPU         looking at them would stop the stream: out of range they wrap around. Ids
    from the host are looked at.
    repeated places      x[[0, 0]] = [1, 2]: NumPy's last one wins; on a GPU either may.
    negative to uint8    of floats: C leaves open what comes out.
    memory order         NumPy's results may follow their inputs' where CuPy's are row-major.
    rounding             sums in another order, functions from another library: what agreement.py
    allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Generator, Tensor, nn, optim
from tensor.errors import IndexingError, ShapeError
from tensor.gradient_cases import CASES, WITHOUT_GRADIENT, Case
from tensor.memory.devices import array_module, to_host
from tensor.ops.op import OPS
from tensor.random import Key, keep_mask, random_bits
from tests.helpers.agreement import (
    ROUNDING,
    Facts,
    assert_agreement,
    fact,
    found,
    layouts_of,
    of_case,
)

BY_OP: dict[str, list[Case]] = {}
for _case in CASES:
    BY_OP.setdefault(_case.op, []).append(_case)
NARROW_OR_WIDE = ["float64", "float32", "float16", "bfloat16"]


@pytest.fixture
def gpu(device: str) -> str:
    """The device to compare NumPy with."""
    if device == "cpu":
        pytest.skip("compares NumPy with CuPy: needs a GPU, --device cuda")
    return device


# -- every op


@pytest.mark.parametrize("dtype", NARROW_OR_WIDE)
@pytest.mark.parametrize("name", sorted(BY_OP))
def test_bug_66_values_gradients_dtypes_and_order(name: str, dtype: str, gpu: str) -> None:
    for number, case in enumerate(BY_OP[name]):
        for layout in layouts_of(case, dtype):
            ours, theirs = (of_case(case, layout, dtype, device) for device in ("cpu", gpu))
            exact = None if dtype == "float64" else of_case(case, layout, dtype, "cpu", exact=True)
            assert_agreement(
                ours, theirs, f"{name}, case {number}, shapes {case.shapes}, layout {layout}", exact
            )


# Numbers of every dtype, with a tie, a zero and a negative one; unsigned ones and bools by
# conversion.
NUMBERS = np.array([[3, -1, 0, 3], [2, -2, 1, 0], [0, 0, 5, -4]])
DTYPES = ["bool", "uint8", "int8", "int32", "int64", *NARROW_OR_WIDE]

# What needs no float, and ops of two with a Python number, a 0-d tensor and an array of another
# dtype on either side.
PLAIN: dict[str, Callable[[Tensor], Any]] = {
    **{
        f"{name} axis {axis}": lambda x, name=name, axis=axis: OPS[name](x, axis=axis)
        for name in ("argmax", "argmin")
        for axis in (None, 0, -1)
    },
    **{
        f"{name} axis {axis}": lambda x, name=name, axis=axis: OPS[name](
            x, axis=axis, keepdims=True
        )
        for name in ("any", "all", "sum", "mean", "max", "min")
        for axis in (None, 0, (0, 1))
    },
    **{
        f"{name}": lambda x, name=name: OPS[name](x)
        for name in ("abs", "negative", "invert", "step", "relu", "exp", "sqrt", "tanh", "cumsum")
    },
    "one_hot of ids": lambda x: tensor.one_hot(abs(x), 7),
    "clip": lambda x: x.clip(0, 2),
    "clip by floats": lambda x: x.clip(-0.5, 1.5),
    "bits": lambda x: (x & x.T[:3, :3].sum()) | (x ^ 1),
    "tril": tensor.tril,
    "triu": lambda x: tensor.triu(x, 1),
    "sort of mask": lambda x: x[x > 0],
    "where of two numbers": lambda x: tensor.where(x > 0, 2.0, 1),
    **{
        f"cast to {dtype}": lambda x, dtype=dtype: x.to(dtype)
        for dtype in DTYPES
        if dtype != "uint8"
    },
    # of negative floats C leaves open what comes out
    "cast to uint8": lambda x: abs(x).to("uint8"),
    **{
        f"{name}_like": lambda x, name=name: getattr(tensor, f"{name}_like")(x)
        for name in ("zeros", "ones")
    },
}
OPERANDS: dict[str, Callable[[str], Any]] = {
    "int": lambda _: 2,
    "float": lambda _: 1.5,
    "bool": lambda _: True,
    "too large": lambda _: 300,
    "0-d float64": lambda device: Tensor(np.float64(1.5), device=device),
    "0-d int64": lambda device: Tensor(2, device=device),
    "float32": lambda device: Tensor([1.5, 0.5, -2.0, 4.0], device=device),
    "int8": lambda device: Tensor(np.array([1, 2, 3, 4], np.int8), device=device),
    "uint8": lambda device: Tensor(np.array([1, 2, 3, 4], np.uint8), device=device),
}
OF_TWO = ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum")
COMPARE = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")


def samples() -> list[tuple[str, Callable[[Tensor, str], Any]]]:
    """(name, call of a tensor and a device)."""
    made: list[tuple[str, Callable[[Tensor, str], Any]]] = [
        (name, lambda x, _, call=call: call(x)) for name, call in PLAIN.items()
    ]
    for name in (*OF_TWO, *COMPARE, "where"):
        op = (lambda a, b: OPS["where"](NUMBERS > 0, a, b)) if name == "where" else OPS[name]
        second = abs if name == "power" else lambda x: x  # integers ** -1: a known difference
        for operand, of in OPERANDS.items():
            made.append(
                (
                    f"{name} of {operand}",
                    lambda x, device, op=op, of=of, second=second: op(x, second(of(device))),
                )
            )
            made.append(
                (
                    f"{name} of {operand}, swapped",
                    lambda x, device, op=op, of=of, second=second: op(of(device), second(x)),
                )
            )
    return made


def of_sample(call: Callable[[Tensor, str], Any], dtype: str, device: str) -> Facts:
    x = Tensor(np.abs(NUMBERS) if dtype == "uint8" else NUMBERS, dtype=dtype, device=device)
    return found(lambda x: call(x, device), [x])


@pytest.mark.parametrize("dtype", DTYPES)
def test_bug_66_dtypes_and_python_numbers(dtype: str, gpu: str) -> None:
    for name, call in samples():
        assert_agreement(
            of_sample(call, dtype, "cpu"), of_sample(call, dtype, gpu), f"{name}, {dtype}"
        )


def test_every_op_without_gradient_has_a_sample() -> None:
    calls = (
        set(WITHOUT_GRADIENT)
        - {name for name, _ in samples()}
        - {name.split()[0] for name, _ in samples()}
    )
    assert calls == {"bitwise_and", "bitwise_or", "bitwise_xor"}  # in "bits"


# no smaller: subnormal float32 are 0 on a GPU, a known difference
TINY = float(np.finfo(np.float32).smallest_normal)
SPECIAL = np.array(
    [[np.nan, np.inf, -np.inf, 0.0], [-0.0, 1e38, -1e38, TINY], [np.nan, 2.0, -3.0, 1.0]]
)
EDGES: dict[str, Callable[[Tensor], Any]] = {
    **{
        name: OPS[name]
        for name in (
            "negative",
            "abs",
            "exp",
            "log",
            "sqrt",
            "sin",
            "cos",
            "tanh",
            "erf",
            "sigmoid",
            "relu",
            "silu",
            "step",
        )
    },
    **{f"gelu {form}": lambda x, form=form: x.gelu(form) for form in ("tanh", "erf")},
    **{
        name: OPS[name]
        for name in (
            "sum",
            "max",
            "min",
            "argmax",
            "argmin",
            "any",
            "all",
            "logsumexp",
            "softmax",
            "log_softmax",
            "cumsum",
        )
    },
    **{
        f"{name} axis 0": lambda x, name=name: OPS[name](x, axis=0)
        for name in ("max", "min", "argmax", "argmin", "logsumexp", "softmax")
    },
    **{
        f"{name} backwards": lambda x, name=name: OPS[name](
            x, tensor.flatten(x)[::-1].reshape(3, 4).detach()
        )
        for name in (*OF_TWO, *COMPARE)
    },
    **{f"{name} of 0": lambda x, name=name: OPS[name](x, 0.0) for name in (*OF_TWO, *COMPARE)},
    **{f"0 {name}": lambda x, name=name: OPS[name](0.0, x) for name in (*OF_TWO, *COMPARE)},
    **{f"power {n}": lambda x, n=n: x**n for n in (-1, 2, 3)},
    "power 0.5": lambda x: x**0.5,
    "clip": lambda x: x.clip(-1, 1),
    "to int": lambda x: x.clip(-9, 9).masked_fill(x != x, 0.0).to("int32"),
    "all hidden": lambda x: (
        (x * 0).masked_fill(x == x, float("-inf")).masked_fill(x != x, float("-inf")).softmax()
    ),
    "nothing": lambda x: x[:0].sum(0),
    "to float16": lambda x: x.to("float16"),
    "to bfloat16": lambda x: x.to("bfloat16"),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", EDGES)
def test_bug_66_not_a_number_infinity_and_zero(name: str, dtype: str, gpu: str) -> None:
    """Element by element, so that the largest number hides nothing."""
    with np.errstate(all="ignore"):
        ours, theirs = (
            found(EDGES[name], [Tensor(SPECIAL, dtype=dtype, device=device)])
            for device in ("cpu", gpu)
        )
    assert list(ours) == list(theirs)
    for key, expected in ours.items():
        got = theirs[key]
        if isinstance(expected, str) or isinstance(got, str):
            assert got == expected, key
        else:
            assert got.values.dtype == expected.values.dtype, key
            rounding = ROUNDING[dtype] if expected.values.dtype.name == dtype else 1e-2
            np.testing.assert_allclose(
                got.values.astype(np.float64),
                expected.values.astype(np.float64),
                rtol=rounding,
                atol=1e-37,
                err_msg=key,
            )


# -- reading and writing by position

KEYS: list[Any] = [
    1, -3, 3, -4, (0, 4), (slice(None), -5), slice(5, 1, -1),
    (None, Ellipsis, slice(None, None, -2)), [0, 2, -3], [3], [-4, 0], [], ([0, 1], [3, 4]),
    ([0, 1], [3, -4]), (slice(None), [1, 1, 0]), ([[0], [1]], [2, 3]), ([True, False, True], 2),
    [True, False], np.eye(3, 4, dtype=bool),
    np.eye(4, 3, dtype=bool), True, False, 1.0, (0, 0, 0), ([0, 1], [1, 2, 3]),
    (Ellipsis, Ellipsis), np.array(2), np.array([1.0]),
]  # fmt: skip


def written(x: Tensor, key: Any, value: Any) -> Tensor:
    x = x.clone().detach()
    x[key] = value
    return x


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_bug_66_indices(key: Any, gpu: str) -> None:
    """Views, copies, repeated places, and what is out of range or too short, which CuPy would wrap
    around.
    """
    values = np.arange(12.0).reshape(3, 4)
    for name, call in {
        "read": lambda x: x[key],
        "written": lambda x: written(x, key, 7.0),
        "written, one each": lambda x: written(x, key, Tensor(np.arange(4.0), device=x.device)),
    }.items():
        ours, theirs = (found(call, [Tensor(values, device=device)]) for device in ("cpu", gpu))
        assert_agreement(ours, theirs, f"{name} at {key}")


@pytest.mark.parametrize(
    "key", [(), None, Ellipsis, (None, Ellipsis, None), True, False, 0], ids=str
)
def test_bug_66_indices_of_a_scalar(key: Any, gpu: str) -> None:
    ours, theirs = (
        found(lambda x: x[key], [Tensor(np.float64(3), device=device)]) for device in ("cpu", gpu)
    )
    assert_agreement(ours, theirs, f"x[{key}]")


@pytest.mark.parametrize("ids", [[0, 3], [0, 4], [-1, 0], [-5, 1], [0.5, 1.0]], ids=str)
def test_bug_66_ids_from_the_host(ids: list[float], gpu: str) -> None:
    """Places that are given as lists or NumPy arrays are looked at, whatever the device."""
    for given in (ids, np.array(ids)):
        calls: dict[str, Callable[[Tensor], Any]] = {
            "take": lambda w, ids=given: w[ids],
            "write": lambda w, ids=given: written(w, ids, 1.0),
            "embedding": lambda w, ids=given: tensor.embedding(ids, w),
            "with positions": lambda w, ids=given: tensor.positional_embedding([ids], w, w),
            "gather": lambda w, ids=given: tensor.gather(w, np.array([ids]), axis=0),
            "one_hot": lambda w, ids=given: tensor.one_hot(ids, len(w)).to(w.device) * w.sum(),
        }
        for name, call in calls.items():
            ours, theirs = (
                found(call, [Tensor(np.arange(8.0).reshape(4, 2), device=device)])
                for device in ("cpu", gpu)
            )
            assert_agreement(ours, theirs, f"{name} of {ids}")


def added(x: Tensor, _: Any, value: Any) -> Tensor:
    x = x.clone().detach()
    x += value
    return x


@pytest.mark.parametrize(
    ("shape", "write", "key", "error"),
    [
        ((4,), written, 1, None),
        ((1, 1, 4), written, 1, None),  # axes of size 1 in front do not count, as in NumPy
        ((1, 2, 4), written, [0, 2], None),
        ((1, 1, 3), written, np.eye(3, 4, dtype=bool), None),
        ((), written, [], None),
        ((3, 1), written, ..., None),
        ((3, 4), added, ..., None),
        ((2, 1, 4), written, 1, ShapeError),
        ((3,), written, 1, ShapeError),
        ((0,), written, 1, ShapeError),
        ((3, 4), written, [0, 2], ShapeError),
        ((4,), written, np.eye(3, 4, dtype=bool), ShapeError),
        ((4,), written, ([0, 1], [3, 4]), IndexingError),
        ((4,), written, 3, IndexingError),
        ((3,), added, ..., ShapeError),
        ((1, 3, 4), added, ..., ShapeError),
    ],
    ids=lambda part: getattr(part, "__name__", None) or str(part),
)
def test_bug_66_writes_that_do_not_fit(
    shape: tuple[int, ...],
    write: Callable[..., Tensor],
    key: Any,
    error: type[Exception] | None,
    device: str,
) -> None:
    """One error on every device, that says what does not fit; values from a tensor or the host."""
    x, values = Tensor(np.arange(12.0).reshape(3, 4), device=device), np.full(shape, 7.0)
    for value in (
        Tensor(values, device=device),
        *([values, values.tolist()] if write is written else []),
    ):
        if error is None:
            expected = write(Tensor(x.numpy()), key, values)
            assert np.array_equal(write(x, key, value).numpy(), expected.numpy())
        else:
            with pytest.raises(error, match=r"broadcast|out of (range|bounds)") as raised:
                write(x, key, value)
            assert type(raised.value) is error


def test_known_differences(gpu: str) -> None:
    """The list at the head of this file, still true."""
    half = Tensor([TINY], device=gpu) / 2
    assert (Tensor([TINY]) / 2).item() > 0
    assert half.item() == 0
    assert (Tensor([TINY], dtype="float64", device=gpu) / 2).item() > 0
    base, exponent = Tensor([2]), Tensor([-1])
    with pytest.raises(ValueError, match="negative integer powers"):
        base**exponent
    assert (base.to(gpu) ** exponent.to(gpu)).shape == (1,)
    ids, table = Tensor([9], device=gpu), tensor.ones(4, 2, device=gpu)
    for read in (
        table[ids],
        tensor.embedding(ids, table),
        tensor.gather(table, ids.view(1, 1), axis=0),
    ):
        assert read.shape[-1] in (1, 2)
    assert tensor.one_hot(ids, 4).sum().item() == 0


# -- random numbers, optimisers


def test_bug_66_random_numbers(gpu: str) -> None:
    """Bits, and what is made of them by exact steps, are equal; normal numbers go through a
    logarithm and a cosine.
    """
    for rows, columns, key in (
        (1, 1, Key()),
        (3, 5, Key(2**64 - 1, 7, 9, 2**32 - 2)),
        (7, 1000, Key(5, 2**32 - 1, 1, 3)),
    ):
        assert np.array_equal(
            random_bits(rows, columns, key),
            to_host(random_bits(rows, columns, key, array_module(gpu))),
        )
    for p in (0.0, 0.1, 0.5, 1.0):
        masks = [
            to_host(keep_mask(array_module(device).zeros((5, 3, 7), np.float32), p, Key(3, 4)))
            for device in ("cpu", gpu)
        ]
        assert np.array_equal(masks[0], masks[1])
    draws: dict[str, Callable[[str], Any]] = {
        "rand": lambda device: [
            tensor.rand(3, 5, dtype=dtype, device=device, generator=Generator(1))
            for dtype in NARROW_OR_WIDE
        ],
        "randn": lambda device: [
            tensor.randn(3, 5, dtype=dtype, device=device, generator=Generator(2))
            for dtype in ("float64", "float32")
        ],
        "randint": lambda device: tensor.randint(
            -9, 9, (40,), device=device, generator=Generator(3)
        ),
    }
    for name, draw in draws.items():
        ours, theirs = (
            found(lambda device=device, draw=draw: draw(device), []) for device in ("cpu", gpu)
        )
        assert_agreement(ours, theirs, name)
        if name != "randn":
            assert all(
                np.array_equal(a.values, b.values)
                for a, b in zip(ours.values(), theirs.values(), strict=True)
            )  # type: ignore[union-attr]


OPTIMISERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "adamw": lambda model: optim.AdamW(model, lr=0.02, weight_decay=0.1),
    "sgd": lambda model: optim.SGD(model, lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.1),
    "muon": lambda model: optim.Muon(model, lr=0.02),
}


class Layers(nn.Module):
    """Two matrices, two vectors."""

    tall: Tensor
    wide: Tensor
    gain: Tensor
    bias: Tensor

    def __init__(self, device: str, dtype: str):
        rng = np.random.default_rng(0)
        shapes = {"tall": (6, 4), "wide": (4, 8), "gain": (4,), "bias": (8,)}
        for name, shape in shapes.items():
            setattr(
                self, name, nn.Parameter(rng.standard_normal(shape), dtype=dtype, device=device)
            )

    def __call__(self, x: Tensor, key: Key) -> Tensor:
        h = tensor.dropout((x @ self.tall).gelu() * self.gain, 0.3, key=key)
        return ((h @ self.wide + self.bias) ** 2).mean()


def trained(name: str, device: str, dtype: str) -> Facts:
    """Five steps: the losses, norms, weights and moments."""
    model = Layers(device, dtype)
    optimizer = OPTIMISERS[name](model)
    facts: Facts = {}
    for step in range(5):
        x = Tensor(np.random.default_rng(step).standard_normal((5, 6)), dtype=dtype, device=device)
        optimizer.zero_grad()
        loss = model(x, Key(1, step))
        loss.backward()
        norm = optim.clip_gradients(optimizer, 0.5)
        optimizer.step()
        facts |= {
            f"loss {step}": fact(loss.detach()),
            f"norm {step}": fact(Tensor(norm, dtype=dtype)),
        }
    for flat, state in zip(optimizer.flats, optimizer.state, strict=True):
        for place in flat.slots:  # without the padding between them, which depends on the dtype
            arrays = {"weights": flat.weights.array, **state}
            facts |= {
                f"{key} of {place.name}": fact(Tensor.from_array(array[place.start : place.stop]))
                for key, array in arrays.items()
            }
    return facts


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_bug_66_training_steps(name: str, dtype: str, gpu: str) -> None:
    exact = trained(name, "cpu", "float64") if dtype == "float32" else None
    assert_agreement(trained(name, "cpu", dtype), trained(name, gpu, dtype), name, exact)


# -- on the CPU


@pytest.mark.parametrize("dtype", NARROW_OR_WIDE)
def test_a_device_agrees_with_itself(dtype: str) -> None:
    for case in CASES:
        for layout in layouts_of(case, dtype):
            first, second = (of_case(case, layout, dtype, "cpu") for _ in range(2))
            assert "error" not in first, (case, layout, first)
            assert_agreement(
                first,
                second,
                f"{case.op}, layout {layout}",
                None if dtype == "float64" else of_case(case, layout, dtype, "cpu", exact=True),
            )


def test_samples_run() -> None:
    """Most of them: what raises must raise on both devices."""
    with np.errstate(all="ignore"):
        for dtype in DTYPES:
            outcomes = [of_sample(call, dtype, "cpu") for _, call in samples()]
            assert sum("error" in outcome for outcome in outcomes) < len(outcomes) / 2, dtype
        for name, call in EDGES.items():
            assert "error" not in found(call, [Tensor(SPECIAL)]), name
