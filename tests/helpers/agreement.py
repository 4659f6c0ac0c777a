"""Do two devices agree? What can be seen of a result, and the first way in which NumPy's and CuPy's
differ.

    found(call, arrays, ...)        run a call on one device: each result and each gradient, as
    Facts
    disagreement(ours, theirs)      None, or a sentence that names the first difference

Agreement is of shape, dtype, what is a view of which input (with offset and strides), row-major
order, and values. NumPy's results may
follow the order of their inputs where CuPy's are row-major; the other way round, what is row-major
in NumPy must be so in CuPy: else
`.view` would work on the one and raise on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensor import Tensor
from tensor.autograd.backward import backward_pass
from tensor.dtypes import FLOATS, DTypeLike, as_dtype
from tensor.gradient_cases import LAYOUTS, Case
from tensor.memory.devices import Array, move, to_host
from tensor.memory.layout import Layout
from tensor.memory.storage import Storage

# The largest difference that rounding explains, in shares of the largest number, where both round
# each operation for themselves.
ROUNDING = {"float64": 1e-12, "float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}


class Fact(NamedTuple):
    """All that can be seen of a result."""

    values: Array  # in NumPy
    layout: Layout
    view_of: int | None = None  # the input whose memory it is


class Raised(str):
    """The sort of an error, which must be the same; its words, which need not be, are kept for the
    message of a failure.
    """

    words: str

    def __new__(cls, error: Exception) -> Raised:
        self = super().__new__(cls, type(error).__name__)
        self.words = str(error)
        return self


Facts = dict[str, Fact | str]  # a name: the sort of error, where one was raised


def laid(values: Array, layout: str, device: str, dtype: DTypeLike | None = None) -> Tensor:
    """A tensor of these values in one of the seven memory layouts, on any device."""
    host = Tensor.from_array(LAYOUTS[layout](values))
    flat = host.storage.flat if dtype is None else host.storage.flat.astype(as_dtype(dtype))
    return Tensor.over(Storage(move(flat, device)), host.layout)


def fact(x: Tensor, inputs: Sequence[Any] = ()) -> Fact:
    """A result as it is, and whether it is a view of an input."""
    views = [
        i
        for i, given in enumerate(inputs)
        if isinstance(given, Tensor) and given.storage is x.storage
    ]
    return Fact(to_host(x.array).copy(), x.layout, views[0] if views else None)


def found(call: Callable[..., Any], inputs: Sequence[Any], layout: str = "C") -> Facts:
    """Each result of the call, and each gradient for random upstream ones in that layout; or the
    sort of error, without its words.
    """
    for x in inputs:
        if isinstance(x, Tensor) and x.dtype in FLOATS:
            x.requires_grad = True
    try:
        made = call(*inputs)
    except Exception as error:
        return {"error": Raised(error)}
    results = made if isinstance(made, (tuple, list)) else [made]
    facts: Facts = {f"result {i}": fact(y, inputs) for i, y in enumerate(results)}
    rng, seeds = np.random.default_rng(1), []
    for y in results:
        dy = rng.standard_normal(y.shape)
        if y.node is not None:
            seeds.append((y.node, laid(dy, layout, y.device, y.dtype).array))
    leaves = {
        f"gradient {i}": x.node
        for i, x in enumerate(inputs)
        if isinstance(x, Tensor) and x.node is not None
    }
    try:
        arrived = backward_pass(seeds, set(leaves.values()), False)
    except Exception as error:
        return facts | {"gradients": Raised(error)}
    return facts | {
        name: fact(Tensor.from_array(arrived[node]))
        for name, node in leaves.items()
        if node in arrived
    }


def of_case(case: Case, layout: str, dtype: str, device: str, exact: bool = False) -> Facts:
    """Results and gradients of a case. exact: in float64, from inputs that are rounded to the
    dtype.
    """
    arrays = [x.astype(as_dtype(dtype)).astype(np.float64) for x in case.inputs(0)]
    return found(
        case.call, [laid(x, layout, device, "float64" if exact else dtype) for x in arrays], layout
    )


def layouts_of(case: Case, dtype: str) -> list[str]:
    """All seven in 64 and 32 bits; the row-major one in 16, where ops go by float32."""
    return (
        [name for name in LAYOUTS if case.repeats or name != "expanded"]
        if dtype in ("float64", "float32")
        else ["C"]
    )


def largest(facts: Iterable[Fact | str]) -> float:
    """The largest finite number of all, or 1 where there is none but 0."""
    arrays = [np.abs(fact.values.astype(np.float64)) for fact in facts if not isinstance(fact, str)]
    return max((x[np.isfinite(x)].max(initial=0) for x in arrays), default=0) or 1.0


def of_kind(facts: Mapping[str, Fact | str], name: str) -> list[Fact | str]:
    """All gradients, or all results, whichever the name is one of. Rounding is measured by the
    largest of them, because a gradient may cancel to nearly 0.
    """
    gradient = name.startswith("gradient")
    return [fact for other, fact in facts.items() if other.startswith("gradient") is gradient]


def disagreement(
    ours: Fact | str,
    theirs: Fact | str,
    exact: Fact | str | None = None,
    scale: float | None = None,
) -> str | None:
    """How a GPU's fact differs from NumPy's; None when they agree.

    scale: the number that rounding is a share of; the largest of the fact by default.

    exact: the same in float64, for floats of fewer bits: a result may then be four times as far
    from it as NumPy's is, and a rounding more.
    """
    if isinstance(ours, str) or isinstance(theirs, str):
        return None if ours == theirs else f"{_name(theirs)}, not {_name(ours)}"
    a, b = ours.values, theirs.values
    if a.shape != b.shape:
        return f"shape {b.shape}, not {a.shape}"
    if a.dtype != b.dtype:
        return f"dtype {b.dtype}, not {a.dtype}"
    if ours.view_of != theirs.view_of:
        return f"a view of input {theirs.view_of}, not {ours.view_of}"
    if ours.view_of is not None and ours.layout != theirs.layout:
        return f"{theirs.layout}, not {ours.layout}"
    if ours.layout.is_contiguous and not theirs.layout.is_contiguous:
        return f"strides {theirs.layout.strides} of shape {a.shape}, where NumPy's are row-major"
    if a.dtype not in FLOATS:
        return None if np.array_equal(a, b) else _worst(a, b, a != b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    right = exact.values.astype(np.float64) if isinstance(exact, Fact) else a
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return _worst(a, b, ~finite & ~((a == b) | (np.isnan(a) & np.isnan(b))))
    scale = scale or largest([ours if exact is None else exact])
    off, rounding = np.abs(np.where(finite, b - right, 0)), ROUNDING[ours.values.dtype.name]
    allowed = rounding * scale + (
        0 if exact is None else 4 * np.abs(np.where(finite, a - right, 0)).max(initial=0)
    )
    return (
        None
        if (off <= allowed).all()
        else _worst(a, b, ~(off <= allowed)) + f" ({off.max() / scale:.1e} of the largest)"
    )


def _name(what: Fact | str) -> str:
    return what if isinstance(what, str) else f"a result of shape {what.values.shape}"


def _worst(a: Array, b: Array, wrong: Array) -> str:
    """The first place that differs, with both numbers."""
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{b[at].item()!r} at {at}, not {a[at].item()!r}"


def assert_agreement(
    ours: Mapping[str, Fact | str],
    theirs: Mapping[str, Fact | str],
    where: str,
    exact: Mapping[str, Fact | str] | None = None,
) -> None:
    """Raise AssertionError with the first of the named facts that differs."""
    said = "".join(
        f"; {error}: {error.words}"
        for error in (*theirs.values(), *ours.values())
        if isinstance(error, Raised)
    )
    assert list(ours) == list(theirs), f"{where}: {list(theirs)}, in NumPy {list(ours)}{said}"
    for name, fact in ours.items():
        scale = largest(of_kind(exact or ours, name))
        problem = disagreement(fact, theirs[name], exact and exact.get(name), scale)
        assert problem is None, f"{where}: {name} is {problem}{said}"
