"""Views, and reading by position."""

from __future__ import annotations

from tests.faults.programs.drawing import (
    Drawer,
    Drawn,
    Entry,
    UnfitError,
    any_tensor,
    array_key,
    basic,
    is_float,
    mask_of,
    same,
)
from tests.faults.programs.step import Op

# -- views


def _shapes(d: Drawer, size: int) -> tuple[int, ...]:
    """Sizes whose product is `size`, now and then one of them -1."""
    sizes, left = [], size
    while left > 1 and len(sizes) < 3:
        n = d.one([n for n in range(1, left + 1) if left % n == 0])
        sizes.append(n)
        left //= max(n, 1)
    sizes.append(left)
    if size and d.chance(0.2):
        sizes[d.number(0, len(sizes) - 1)] = -1
    return tuple(sizes)


def other_shape(d: Drawer) -> Drawn:
    name = d.tensor()
    shape = _shapes(d, d.live[name].numel() + int(d.careless))
    return [name], {"shape": ", ".join(map(str, shape))}


def stretch(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: x.ndim > 1)
    first, last = sorted(d.axis(d.live[name]) % max(1, d.live[name].ndim) for _ in "ab")
    if first == last:  # PyTorch gives x itself, which may be a leaf
        raise UnfitError
    return [name], {"first": first, "last": last}


def two_axes(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: x.ndim > 0)
    return [name], {"first": d.axis(d.live[name]), "last": d.axis(d.live[name])}


def order(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: x.ndim > 0)
    n = d.live[name].ndim
    if n == 0:
        raise UnfitError
    axes = [i - n * d.chance(0.2) for i in d.rng.permutation(n).tolist()]
    return [name], {"order": ", ".join(map(str, axes[1:] if d.careless else axes))}


def repeats(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: x.numel() <= 60)
    shape = [
        d.number(0, 3) if n == 1 and d.chance(0.7) else d.one((n, n, -1))
        for n in d.live[name].shape
    ]
    new = [d.number(1, 3) for _ in range(d.number(0, 1))]
    if not new + shape:
        raise UnfitError
    return [name], {"shape": ", ".join(map(str, new + shape))}


def single_axis(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: 1 in x.shape)
    return [name], {"axis": d.one([i for i, n in enumerate(d.live[name].shape) if n == 1])}


def new_axis(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: x.ndim < 4)
    return [name], {"axis": d.axis(d.live[name], 1)}


def pieces(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: x.ndim > 0)
    axis = d.axis(d.live[name])
    shape = d.live[name].shape
    length = shape[axis] if -len(shape) <= axis < len(shape) else 1
    first = d.number(0, length)
    size = d.one((d.number(1, 3), [first, length - first]))
    return [name], {"size": size, "axis": axis, "n": d.number(1, 3)}


# -- positions


def advanced(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: is_float(x) and x.ndim > 0)
    key, torch_key = array_key(d, d.live[name].shape)
    return [name], {"key": key, "torch": torch_key}


def along(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: is_float(x) and x.ndim > 0 and x.numel() > 0)
    x = d.live[name]
    axis = d.number(-x.ndim, x.ndim - 1)
    shape = list(x.shape)
    shape[axis] = d.number(1, 4)
    return [name], {"ids": d.ids(shape, x.shape[axis]), "axis": axis}


def table(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: is_float(x) and x.ndim == 2 and x.numel() > 0)
    shape = [d.number(1, 3) for _ in range(d.number(1, 2))]
    return [name], {"ids": d.ids(shape, len(d.live[name]))}


def joined(d: Drawer) -> Drawn:
    a = d.tensor(lambda x: is_float(x) and x.ndim > 0)
    x = d.live[a]
    b = d.tensor(lambda y: y.shape == x.shape and y.dtype == x.dtype)
    return [a, b], {"axis": d.axis(x)}


def around(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: is_float(x) and x.ndim > 0)
    if d.live[name].ndim == 0:
        raise UnfitError
    return [name], {"width": [(d.number(0, 2), d.number(0, 2)) for _ in d.live[name].shape]}


# -- the tables

VIEWS = {
    "view": Entry(same("{0}.view({shape})", "view"), other_shape, 1.0),
    "reshape": Entry(same("{0}.reshape({shape})", "view"), other_shape, 1.0),
    "flatten": Entry(same("{0}.flatten({first}, {last})", "view"), stretch, 0.6),
    "transpose": Entry(same("{0}.transpose({first}, {last})", "view"), two_axes, 1.0),
    "permute": Entry(same("{0}.permute({order})", "view"), order, 1.0),
    "T": Entry(Op("{0}.T", "{0}.permute(tuple(range({0}.ndim))[::-1])", "view"), any_tensor, 0.5),
    "expand": Entry(same("{0}.expand({shape})", "view"), repeats, 0.8),
    "squeeze": Entry(same("{0}.squeeze({axis})", "view"), single_axis, 0.4),
    "squeeze all": Entry(same("{0}.squeeze()", "view"), any_tensor, 0.4),
    "unsqueeze": Entry(same("{0}.unsqueeze({axis})", "view"), new_axis, 0.6),
    "index": Entry(same("{0}[{key}]", "view"), basic, 3.0),
    "split": Entry(same("{0}.split({size}, {axis})", "view"), pieces, 0.8),
    "chunk": Entry(same("{0}.chunk({n}, {axis})", "view"), pieces, 0.4),
    "contiguous": Entry(same("{0}.contiguous()", "view"), any_tensor, 0.7),
    "detach": Entry(same("{0}.detach()", "view"), any_tensor, 1.0),
}

INDEXING = {
    "take": Entry(Op("{0}[{key}]", "{0}[{torch}]"), advanced, 1.5),
    "masked": Entry(same("{0}[{1}]"), mask_of, 0.8),
    "gather": Entry(
        Op("{0}.gather({ids}, {axis})", "{0}.gather({axis}, torch.tensor({ids}))"),
        along,
        0.6,
    ),
    "embedding": Entry(
        Op("tensor.embedding({ids}, {0})", "F.embedding(torch.tensor({ids}), {0})"),
        table,
        0.5,
    ),
    "concatenate": Entry(
        Op("tensor.concatenate([{0}, {1}, {0}], {axis})", "torch.cat(met({0}, {1}, {0}), {axis})"),
        joined,
        0.8,
    ),
    "stack": Entry(
        Op("tensor.stack([{0}, {1}], {axis})", "torch.stack(met({0}, {1}), {axis})"),
        joined,
        0.6,
    ),
    "pad": Entry(Op("{0}.pad({width}, value=1.5)", "pad({0}, {width}, 1.5)"), around, 0.4),
}
