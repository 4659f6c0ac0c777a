"""Cases of attention by hand, and their errors against the reference in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensor.dtypes import as_dtype
from tensor.kernels.cuda.attention import by_hand
from tensor.ops.op import reference_of
from tensor.random import Key

Array = Any
# the largest error, in shares of the largest number
UNITS = {"float64": 1e-13, "float32": 5e-6, "float16": 4e-3, "bfloat16": 3e-2}
WIDTHS = [32, 64, 64, 128, 16, 80, 20]  # of heads
MASKS = ["", "padding", "queries", "all"]


class Example(NamedTuple):
    dtype: str
    B: int
    H: int
    T: int
    S: int
    D: int
    causal: bool = False
    mask: str = ""  # one of MASKS
    dropout: float = 0.0
    packed: bool = True  # else heads that lie apart
    seed: int = 0

    def draw(self, i: int, *shape: int) -> Array:
        rng = np.random.default_rng((self.seed, i))
        return rng.standard_normal(shape).astype(as_dtype(self.dtype))

    def allowed(self) -> Array | None:
        B, H, T, S = self[1:5]
        rng = np.random.default_rng((self.seed, 9))
        if self.mask == "padding":
            return np.arange(S) < rng.integers(0, S + 1, (B, 1, 1, 1))
        shapes = {"queries": (T, S), "all": (B, H, T, S)}
        return rng.random(shapes[self.mask]) < 0.6 if self.mask else None

    @property
    def options(self) -> dict[str, Any]:
        key = Key(12345678901, 3, 7, 2) if self.dropout else None
        return {"causal": self.causal, "dropout": self.dropout, "key": key}


def random_example(
    rng: np.random.Generator, dtypes: list[str], longest: int, widths: Sequence[int] = WIDTHS
) -> Example:
    """Sizes about the edges of tiles, and far from them."""
    dtype = str(rng.choice(dtypes))
    T, S = (int(n) for n in rng.integers(1, longest + 1, 2))
    if rng.random() < 0.3:
        T = max(1, 64 * int(rng.integers(1, longest // 64 + 1)) + int(rng.integers(-1, 2)))
    S = T if rng.random() < 0.4 else S
    return Example(
        dtype,
        int(rng.integers(1, 4)),
        int(rng.integers(1, 5)),
        T,
        S,
        int(rng.choice(widths)),
        bool(rng.random() < 0.6),
        str(rng.choice(MASKS, p=[0.6, 0.2, 0.1, 0.1])),
        float(rng.choice([0.0, 0.1, 0.6], p=[0.6, 0.3, 0.1])),
        bool(rng.random() < 0.7),
        int(rng.integers(2**31)),
    )


def split(x: Array, count: int, heads: int) -> Array:
    """(B, T, count C) -> (count, B, H, T, D)"""
    B, T, width = x.shape
    return x.reshape(B, T, count, heads, width // count // heads).transpose(2, 0, 3, 1, 4)


def joined(*parts: Array) -> Array:
    """(B, H, T, D) each -> (B, T, count C)"""
    B, _, T, _ = parts[0].shape
    return np.concatenate([part.transpose(0, 2, 1, 3).reshape(B, T, -1) for part in parts], axis=-1)


def wide(*arrays: Array) -> list[Array]:
    return [np.asarray(x, np.float64) for x in arrays]


def errors(
    example: Example,
    there: Callable[[Array], Array],
    here: Callable[..., Array],
    gradients: bool = True,
) -> float:
    """The largest error of y, and of the gradients, in shares of the largest number of all: a
    gradient may be 0.

    there: from NumPy to where the kernels run   here: back
    """
    run = _packed if example.packed else _apart
    pairs = [(here(found), right) for found, right in run(example, there)]
    pairs = pairs if gradients else pairs[:1]
    largest = max(np.abs(right).max() for _, right in pairs)
    worst = 0.0
    for found, right in pairs:
        assert found.shape == right.shape, example
        off = np.abs(np.asarray(found, np.float64) - right).max()
        assert np.isfinite(off), example
        worst = max(worst, off / max(largest, 1e-30))
    return worst


def _packed(example: Example, there: Callable[[Array], Array]) -> list[tuple[Array, Array]]:
    _, B, H, T, S, D, *_ = example
    C, one = H * D, T == S
    q = example.draw(0, B, T, 3 * C if one else C)
    kv = None if one else example.draw(1, B, S, 2 * C)
    dy, mask = example.draw(2, B, T, C), example.allowed()
    parts = [*split(*wide(q), 3 if one else 1, H)]
    parts += [] if kv is None else [*split(*wide(kv), 2, H)]
    y, backward = reference_of("attention")(*parts, mask=mask, **example.options)
    dparts = backward(split(*wide(dy), 1, H)[0])[:3]
    given = [None if x is None else there(x) for x in (q, kv, mask)]
    options: Any = {**example.options, "heads": H}
    assert by_hand.supports_packed(*given, **options) is None
    found, found_backward = by_hand.attention_by_hand(*given, **options)
    dq, dkv, _ = found_backward(there(dy))
    if one:
        return [(found, joined(y)), (dq, joined(*dparts))]
    return [(found, joined(y)), (dq, joined(dparts[0])), (dkv, joined(*dparts[1:]))]


def _apart(example: Example, there: Callable[[Array], Array]) -> list[tuple[Array, Array]]:
    """Queries and keys by strides, values row-major."""
    _, B, H, T, S, D, *_ = example
    q, k = (example.draw(i, B, n, H, D) for i, n in enumerate((T, S)))
    v, dy, mask = example.draw(2, B, H, S, D), example.draw(3, B, H, T, D), example.allowed()
    options: Any = {**example.options, "scale": 0.3}
    inputs = [x.swapaxes(1, 2) for x in wide(q, k)]
    y, backward = reference_of("attention")(*inputs, *wide(v), mask=mask, **options)
    right = [y, *backward(*wide(dy))[:3]]
    given = [there(q).swapaxes(1, 2), there(k).swapaxes(1, 2), there(v)]
    options["mask"] = None if mask is None else there(mask)
    assert by_hand.supports(*given, **options) is None
    found, found_backward = by_hand.attention_of_heads_by_hand(*given, **options)
    return list(zip([found, *found_backward(there(dy))[:3]], right, strict=True))
