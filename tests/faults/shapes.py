"""Every compiled kernel on random shapes, strides and options, aligned and not, beside its
reference: what `sanitizers.py` runs.

    python -m tests.faults.shapes --calls 1000 [--seed 0] [--log FILE]      a line of JSON: kernel
    -> calls, taken, reports, differences

`--log`: where the sanitizers write, a process id after its name. Without sanitizers the values
alone are judged.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tensor
from tensor import Tensor, kernels, optim, random
from tensor.errors import ViewError
from tensor.kernels.cpu import compiled
from tensor.ops.op import OPS
from tensor.optim import clip_gradients
from tinygpt import GPT, GPTConfig

Array = Any
Random = np.random.Generator
SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 24, 31, 32, 33, 48, 63, 65)
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-38, 1e-45, 90, -90], np.float32)
REPORT = re.compile(r"runtime error:|ERROR: AddressSanitizer|WARNING: ThreadSanitizer")


@dataclass
class Case:
    """A call of tensors, and the arrays they are made of."""

    call: Callable[..., Any]
    arrays: list[Array]


@dataclass
class Row:
    """What came of the cases of one kernel; `taken`: those in which C ran."""

    calls: int = 0
    taken: int = 0
    reports: int = 0
    differences: int = 0


# -- shapes and memory


def size(rng: Random) -> int:
    return int(rng.choice(SIZES))


def shape(rng: Random, last: int | None = None) -> tuple[int, ...]:
    """1 to 3 axes; now and then one of them is empty, or the first is long."""
    lead = [int(n) for n in rng.choice((1, 2, 3, 5, 33), rng.integers(0, 3))]
    if lead and rng.random() < 0.04:
        lead[0] = int(rng.choice((0, 200)))
    return (*lead, size(rng) if last is None else last)


def numbers(rng: Random, *shape: int) -> Array:
    """Normal numbers in float32; in a tenth of all arrays some are no number, or nearly none."""
    drawn = np.asarray(rng.standard_normal(shape), np.float32)
    if rng.random() < 0.1:
        spots = rng.random(shape) < 0.05
        drawn = np.where(spots, rng.choice(SPECIAL, shape), drawn)
    return drawn


def moved(array: Array, offset: int) -> Array:
    """The same values, read from a buffer at an odd place."""
    memory = bytearray(array.nbytes + offset)
    there = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    there[...] = array
    return there


def field(array: Array, flag: str) -> Array:
    """The same values as one field of packed records, behind a flag of that type."""
    records = np.zeros(array.shape, np.dtype([("flag", flag), ("value", array.dtype)]))
    records["value"] = array
    return records["value"]


def sparse(array: Array) -> Array:
    """Every second element of every second row of a larger array."""
    larger = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
    view = larger[(..., *(slice(None, None, 2) for _ in array.shape))]
    view[...] = array
    return view


def fixed(array: Array) -> Array:
    """A copy that may not be written."""
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS: list[Callable[[Array], Array]] = [
    lambda x: moved(x, 1),
    lambda x: moved(x, 2),
    lambda x: moved(x, 4),
    lambda x: field(x, "u1"),
    lambda x: field(x, "u4"),
    sparse,
    fixed,
    lambda x: x[::-1].copy()[::-1] if x.ndim else x,
    lambda x: np.asfortranarray(x),
    lambda x: np.broadcast_to(x[:1], x.shape) if x.ndim else x,
]


def laid(rng: Random, array: Array) -> Array:
    """The array as it is, or in some layout; the last one makes all rows equal."""
    return array if rng.random() < 0.5 else LAYOUTS[rng.integers(len(LAYOUTS))](array)


# -- the kernels


def linear(rng: Random) -> Case:
    x, outputs, transposed = numbers(rng, *shape(rng)), size(rng), bool(rng.integers(2))
    inputs = x.shape[-1]
    given = [
        x,
        numbers(rng, *((outputs, inputs) if transposed else (inputs, outputs))),
        numbers(rng, outputs),
    ]
    return Case(
        lambda *xs: OPS["linear"](*xs, transposed=transposed), given[: 2 + int(rng.integers(2))]
    )


def linear_gelu(rng: Random) -> Case:
    x, outputs = numbers(rng, *shape(rng)), size(rng)
    return Case(
        tensor.linear_gelu,
        [x, numbers(rng, x.shape[-1], outputs), numbers(rng, outputs)][: 2 + int(rng.integers(2))],
    )


def gelu(rng: Random) -> Case:
    return Case(tensor.gelu, [numbers(rng, *(shape(rng) if rng.random() < 0.95 else ()))])


def layer_norm(rng: Random) -> Case:
    x = numbers(rng, *shape(rng))
    eps = float(rng.choice((1e-5, 1e-2)))
    return Case(
        lambda *xs: tensor.layer_norm(*xs, eps=eps),
        [x, numbers(rng, x.shape[-1]), numbers(rng, x.shape[-1])],
    )


def residual_layer_norm(rng: Random) -> Case:
    x, use = numbers(rng, *shape(rng)), int(rng.integers(3))

    def call(*xs: Tensor) -> Any:
        found = tensor.residual_layer_norm(*xs)
        return found if use == 2 else found[use]

    return Case(
        call, [x, numbers(rng, *x.shape), numbers(rng, x.shape[-1]), numbers(rng, x.shape[-1])]
    )


def multi_head_attention(rng: Random) -> Case:
    B, T, H, D = (
        int(rng.integers(1, 4)),
        size(rng),
        int(rng.integers(1, 4)),
        int(rng.choice(SIZES[:-4])),
    )
    return Case(
        lambda x: tensor.multi_head_attention(x, heads=H, causal=True),
        [numbers(rng, B, T, 3 * H * D)],
    )


def attention(rng: Random) -> Case:
    full = (
        *(int(n) for n in rng.integers(1, 4, rng.integers(0, 3))),
        size(rng),
        int(rng.choice(SIZES[:-4])),
    )
    causal, scale = bool(rng.integers(2)), None if rng.random() < 0.7 else float(rng.normal())
    return Case(
        lambda *xs: tensor.attention(*xs, causal=causal, scale=scale),
        [numbers(rng, *full) for _ in range(3)],
    )


def cross_entropy(rng: Random) -> Case:
    x = numbers(rng, *shape(rng))
    targets = laid(rng, rng.integers(0, x.shape[-1], x.shape[:-1]))
    reduction, ignored = (
        str(rng.choice(("mean", "sum", "none"))),
        None if rng.random() < 0.5 else int(rng.integers(-1, x.shape[-1])),
    )
    return Case(
        lambda x: tensor.cross_entropy(
            x, Tensor.from_array(targets), reduction=reduction, ignore_index=ignored
        ),
        [x],
    )


def positional_embedding(rng: Random) -> Case:
    V, C, context, B = size(rng), size(rng), size(rng), int(rng.integers(1, 5))
    ids = laid(rng, rng.integers(0, V, (B, int(rng.integers(1, context + 1)))))
    return Case(
        lambda w, p: tensor.positional_embedding(Tensor.from_array(ids), w, p),
        [numbers(rng, V, C), numbers(rng, context, C)],
    )


def scale(rng: Random) -> Case:
    """Clipping, which takes the norm first."""

    def call(x: Tensor) -> Tensor:
        leaf = tensor.zeros(*x.shape, requires_grad=True)
        leaf.grad = Tensor.from_array(x.array.copy() if whole else x.array)
        norm = clip_gradients([leaf], 0.5)
        return Tensor(np.append(leaf.grad.numpy(), np.float32(min(norm, 1e30))))

    whole = bool(rng.integers(2))
    x = numbers(rng, *shape(rng))
    return Case(call, [x if x.ndim else x[None]])


def update(make: Callable[..., Any], rng: Random) -> Case:
    """Three steps of an optimiser on a small layer, whose gradients are written into buffers."""
    inputs, outputs, rows = size(rng), size(rng), size(rng)

    def call(x: Tensor, weight: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        parts = [Tensor(p.numpy(), requires_grad=True) for p in (weight, gain, bias)]
        optimiser = make(parts)
        for _ in range(3):
            optimiser.zero_grad()
            tensor.layer_norm(
                tensor.linear_gelu(x.detach(), parts[0]), *parts[1:]
            ).mean().backward()
            optimiser.step()
        return tensor.concatenate([part.detach().reshape(-1) for part in parts])

    arrays = [
        rng.standard_normal(s).astype(np.float32)
        for s in ((rows, inputs), (inputs, outputs), (outputs,), (outputs,))
    ]
    return Case(call, arrays)


def adamw(rng: Random) -> Case:
    return update(lambda parts: optim.AdamW(parts, lr=1e-4, eps=1e-3), rng)


def muon(rng: Random) -> Case:
    return update(
        lambda parts: optim.Muon(parts, lr=1e-4, eps=1e-3, steps=int(rng.integers(1, 6))), rng
    )


def random_bits(rng: Random) -> Case:
    rows, columns, seed = (
        int(rng.integers(0, 5)),
        int(rng.choice((*SIZES, 4096, 4099))),
        int(rng.integers(-(2**62), 2**62)),
    )
    return Case(
        lambda: Tensor(
            random.random_bits(rows, columns, random.Key(seed, 3, 7, 11)).astype(np.float64),
            dtype="float64",
        ),
        [],
    )


def decode(rng: Random) -> Case:
    """A model on new tokens with a cache, in random portions, for some of the cache's rows; half of
    all models have weights of 8 bits.
    """
    H, D, context, rows = (
        int(rng.integers(1, 4)),
        int(rng.integers(1, 10)),
        int(rng.choice((1, 2, 9, 40))),
        int(rng.integers(1, 4)),
    )
    config = GPTConfig(
        vocabulary=size(rng),
        context=context,
        width=H * D,
        heads=H,
        layers=int(rng.integers(1, 4)),
        norm=str(rng.choice(("pre", "post"))),
        activation=str(rng.choice(("gelu", "relu"))),
        bias=bool(rng.integers(2)),
        tied=bool(rng.integers(2)),
    )
    model = GPT(config, generator=random.Generator(int(rng.integers(99)))).eval()
    if rng.integers(2):
        model.to_int8()
    some = rng.permutation(rows)[: rng.integers(1, rows + 1)]
    ids, cuts, last = (
        rng.integers(0, config.vocabulary, (len(some), context)),
        rng.integers(0, context + 1, 3),
        bool(rng.integers(2)),
    )
    portions = [
        laid(rng, part) for part in np.split(ids, sorted({*cuts.tolist()} - {0, context}), axis=1)
    ]

    def call() -> Tensor:
        cache = model.new_cache(rows).of(some.tolist())
        return Tensor(
            np.concatenate(
                [model(Tensor.from_array(part), cache, last).numpy() for part in portions], axis=1
            )
        )

    return Case(call, [])


KERNELS = {
    f.__name__: f
    for f in (
        linear,
        linear_gelu,
        gelu,
        layer_norm,
        residual_layer_norm,
        multi_head_attention,
        attention,
        cross_entropy,
        positional_embedding,
        scale,
        adamw,
        muon,
        random_bits,
        decode,
    )
}


# -- running them


def results(
    case: Case, given: list[Array], upstream: Callable[[Tensor], Array], *, on: bool
) -> list[Array] | str:
    """Values and gradients, with kernels or without; or what is said of a layout that no tensor can
    have.
    """
    xs = [Tensor.from_array(x, requires_grad=True) for x in given]
    try:
        with nullcontext() if on else kernels.off():
            ys = case.call(*xs)
            ys = ys if isinstance(ys, tuple) else (ys,)
            if ys[0].node is None:
                return [y.numpy() for y in ys]
            dxs = tensor.grad(ys, xs, [Tensor.from_array(upstream(y)) for y in ys])
    except (ViewError, ValueError) as refusal:
        return str(refusal)
    return [y.numpy() for y in (*ys, *dxs) if y is not None]


def differ(found: list[Array] | str, expected: list[Array] | str) -> bool:
    """Whether NaN and infinities stand elsewhere, or finite values are off by more than rounding. A
    kernel may take what a reference refuses.
    """
    if isinstance(expected, str):
        return False
    if isinstance(found, str):
        return True
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return True
        finite = np.isfinite(b)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return True
        largest = np.abs(b[finite]).max(initial=1.0)
        if not (np.abs(a[finite].astype(np.float64) - b[finite]) <= 1e-3 * largest).all():
            return True
    return False


def reports(log: Path | None) -> int:
    """How many the sanitizers have written so far."""
    if not log:
        return 0
    texts = (path.read_text(errors="replace") for path in log.parent.glob(f"{log.name}.*"))
    return sum(len(REPORT.findall(text)) for text in texts)


def one(name: str, seed: int, row: Row, log: Path | None) -> None:
    """Draw a case, run it both ways, count."""
    rng = np.random.default_rng(seed)
    case = KERNELS[name](rng)
    # or most would be refused
    given = case.arrays if rng.random() < 0.6 else [laid(rng, x) for x in case.arrays]
    upstreams: dict[tuple[int, ...], Array] = {}

    def upstream(y: Tensor) -> Array:
        return upstreams.setdefault(y.shape, laid(rng, numbers(rng, *y.shape)))

    before = reports(log)
    with np.errstate(all="ignore"):
        found = results(case, given, upstream, on=True)
        row.taken += kernels.latest(name)[1] == "cpu kernel"
        expected = results(case, given, upstream, on=False)
    row.calls += 1
    row.reports += reports(log) - before
    if differ(found, expected):
        row.differences += 1
        print(f"{name} --seed {seed}: kernel and reference differ", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first call; the others follow")
    parser.add_argument("--only", choices=KERNELS, help="one kernel")
    parser.add_argument("--log", type=Path, help="where the sanitizers write")
    options = parser.parse_args()
    # the compiler is not to run with the sanitizers that this process has
    os.environ.pop("LD_PRELOAD", None)
    if compiled.unavailable():
        print(f"no compiled kernels: {compiled.unavailable()}")
        return 2
    compiled.library.set_threads(3)
    names = [options.only] if options.only else list(KERNELS)
    table = {name: Row() for name in names}
    for i in range(math.ceil(options.calls / len(names))):
        for name in names:
            one(name, options.seed + i, table[name], options.log)
    print(json.dumps({name: asdict(row) for name, row in table.items()}))
    return int(any(row.reports or row.differences for row in table.values()))


if __name__ == "__main__":
    raise SystemExit(main())
