"""Each compiled kernel against its reference in float64, at the sizes where loops over blocks,
vectors and bands go wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, grad, kernels
from tensor.kernels import KERNELS
from tensor.ops.op import OPS
from tensor.optim.adamw import adamw
from tensor.optim.muon import muon
from tensor.random import Key, random_bits
from tests.helpers.kernel_runs import compare, compiled_kernels, draw, judge, run, taken

__all__ = ["compiled_kernels"]
pytestmark = pytest.mark.usefixtures("compiled_kernels")

Array = Any
MATRICES = [
    (1, 1, 1),
    (1, 17, 33),
    (33, 1, 17),
    (17, 33, 1),
    (70, 5, 130),
    (701, 65, 96),
    (48, 97, 1003),
    (9001, 17, 16),
    (1, 130, 7),
    (1, 65, 1003),
]  # rows, inputs, outputs
# rows, width
ROWS = [(1, 1), (1, 17), (33, 1), (5, 33), (31, 16), (32, 17), (64, 20), (65, 33), (300, 96)]


# -- products


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), MATRICES)
def test_linear(rows: int, inputs: int, outputs: int, transposed: bool, bias: bool) -> None:
    given = [
        draw(rows, inputs),
        draw(*((outputs, inputs) if transposed else (inputs, outputs)), seed=1),
        draw(outputs, seed=2),
    ]
    compare("linear", lambda *x: OPS["linear"](*x, transposed=transposed), given[: 2 + bias])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), MATRICES)
def test_linear_gelu(rows: int, inputs: int, outputs: int, bias: bool) -> None:
    compare(
        "linear_gelu",
        tensor.linear_gelu,
        [draw(rows, inputs), draw(inputs, outputs, seed=1), draw(outputs, seed=2)][: 2 + bias],
    )


@pytest.mark.parametrize("shape", [(17,), (3, 17), (2, 5, 17), (2, 1, 3, 17)])
def test_any_number_of_leading_axes(shape: tuple[int, ...]) -> None:
    for name, call in (("linear", OPS["linear"]), ("linear_gelu", tensor.linear_gelu)):
        compare(name, call, [draw(*shape), draw(17, 5, seed=1), draw(5, seed=2)])
    compare("layer_norm", tensor.layer_norm, [draw(*shape), draw(17, seed=1), draw(17, seed=2)])
    compare(
        "residual_layer_norm",
        tensor.residual_layer_norm,
        [draw(*shape), draw(*shape, seed=3), draw(17, seed=1), draw(17, seed=2)],
    )
    compare("gelu", tensor.gelu, [draw(*shape)])
    targets = Tensor(np.arange(math.prod(shape[:-1])).reshape(shape[:-1]) % 17)
    compare("cross_entropy", lambda x: tensor.cross_entropy(x, targets), [draw(*shape)])


# -- rows


@pytest.mark.parametrize("scale", [1, 3, 30, 1e4])
@pytest.mark.parametrize("shape", [*ROWS, (), (40000,)])
def test_gelu(shape: tuple[int, ...], scale: float) -> None:
    compare("gelu", tensor.gelu, [np.asarray(scale * draw(*shape), np.float32)])


def test_gelu_of_very_negative_numbers_is_0() -> None:
    """So is its slope: x^3 grows faster than an e^x that stops growing shrinks."""
    x = Tensor(-(10.0 ** np.arange(1.5, 19, 0.25)).astype(np.float32), requires_grad=True)
    y = x.gelu()
    (dx,) = grad(y, x, draw(*x.shape))
    assert taken("gelu")[1] == "cpu kernel"
    assert not y.numpy().any()
    assert dx is not None
    assert not dx.numpy().any()


def test_bug_37_constants_of_gelu() -> None:
    """To a few units in the last place on a fine grid, where the tanh form, its slope, and the end
    of e^x bend.
    """
    for points in (
        np.linspace(-12, 12, 9601),
        np.append(np.linspace(-10.5, -9.5, 1001), 1),
        np.linspace(-1e-3, 1e-3, 101),
    ):
        compare("gelu", tensor.gelu, [points.astype(np.float32)])
        ways = [("float32", True), ("float32", False), ("float64", False)]
        inputs = [np.ones((1, 1), np.float32), points.astype(np.float32)[None]]
        ys, _, dweights = zip(
            *(run(tensor.linear_gelu, inputs, dtype, on=on) for dtype, on in ways), strict=True
        )
        judge(*ys, "linear_gelu")
        judge(*dweights, "its slope")


# of a row that does not vary (one element): dy / sqrt(eps), of which nothing should be left
CONSTANT = 1e3


@pytest.mark.parametrize("offset", [0, 3, 100])
@pytest.mark.parametrize(("rows", "width"), ROWS)
def test_layer_norm(rows: int, width: int, offset: float) -> None:
    inputs = [draw(rows, width) + np.float32(offset), draw(width, seed=1), draw(width, seed=2)]
    compare("layer_norm", tensor.layer_norm, inputs, terms=CONSTANT if width == 1 else 0)
    compare(
        "layer_norm",
        lambda *x: tensor.layer_norm(*x, eps=0.3),
        [inputs[0] - offset, *inputs[1:]],
        terms=CONSTANT if width == 1 else 0,
    )


@pytest.mark.parametrize("use", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize(("rows", "width"), ROWS)
def test_residual_layer_norm(rows: int, width: int, use: tuple[bool, bool]) -> None:
    inputs = [
        draw(rows, width),
        draw(rows, width, seed=3),
        draw(width, seed=1),
        draw(width, seed=2),
    ]
    compare(
        "residual_layer_norm",
        tensor.residual_layer_norm,
        inputs,
        use,
        terms=CONSTANT if width == 1 else 0,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("scale", [1, 80])
@pytest.mark.parametrize(("rows", "width"), [*ROWS, (7, 1000)])
def test_cross_entropy(rows: int, width: int, scale: float, reduction: str) -> None:
    x = scale * (2 * np.random.default_rng(0).random((rows, width)) - 1).astype(np.float32)
    targets = Tensor(np.random.default_rng(1).integers(0, width, rows))
    for smoothing in (0, 0.1):
        options: Any = {"reduction": reduction, "label_smoothing": smoothing}
        call = partial(tensor.cross_entropy, targets=targets, **options)
        # smoothed, a probability of 1 that is no target stays in the gradient, and e^0 is off by
        # two ulp where the compiler fuses no products
        compare("cross_entropy", call, [x], terms=2 if smoothing else 0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignored", [0, -100, 5])
def test_bug_39_ignored_targets(ignored: int, reduction: str) -> None:
    """Not in the mean, no gradient, whatever stands in their rows; 0 when none is left."""
    x, targets = draw(37, 9), np.random.default_rng(1).integers(0, 5, 37)
    targets[::3] = ignored
    options: Any = {"ignore_index": ignored, "reduction": reduction, "label_smoothing": 0.1}

    def call(x: Tensor) -> Tensor:
        return tensor.cross_entropy(x, Tensor(targets), **options)

    compare("cross_entropy", call, [x])
    clean = run(call, [x], "float32", on=True)
    x[targets == ignored] = [math.nan, math.inf, -math.inf] * 3
    for a, b in zip(run(call, [x], "float32", on=True), clean, strict=True):
        assert np.array_equal(a, b)
    assert not clean[1][targets == ignored].any()
    targets[:] = ignored
    assert not any(result.any() for result in run(call, [x], "float32", on=True))
    targets[3] = 9
    with pytest.raises(IndexError, match="target 9"):
        call(Tensor(x))


def test_cross_entropy_of_logits_far_from_0() -> None:
    """What all logits of a row share changes nothing, in the gradient too: ln sum e^x of 1000 has
    lost the digits that matter.
    """
    x = draw(40, 33)
    targets = Tensor(np.arange(40) % 33)
    for offset in (100, -1000, 30000):
        compare(
            "cross_entropy", lambda x: tensor.cross_entropy(x, targets), [x + np.float32(offset)]
        )


@pytest.mark.parametrize(
    ("B", "T", "context", "C", "scale"),
    [(1, 1, 1, 1, 1), (2, 5, 5, 17, 3.3), (3, 31, 40, 33, 1), (5, 7, 9, 64, 8)],
)
def test_positional_embedding(B: int, T: int, context: int, C: int, scale: float) -> None:
    """Ids repeat; rows of either table that are not met get a gradient of exactly 0."""
    ids = np.random.default_rng(0).integers(0, 5, (B, T))
    inputs = [draw(7, C), draw(context, C, seed=1)]

    def embedded(w: Tensor, p: Tensor) -> Tensor:
        return tensor.positional_embedding(Tensor(ids), w, p, scale=scale)

    compare("positional_embedding", embedded, inputs)
    _, dtokens, dpositions = run(embedded, inputs, "float32", on=True)
    assert not dtokens[[i for i in range(7) if i not in ids]].any()
    assert not dpositions[T:].any()


# -- attention


KINDS: list[dict[str, Any]] = [
    {},
    {"causal": True},
    {"mask": "keys"},
    {"mask": "all"},
    {"dropout": 0.3, "key": Key(5, 3, 2, 7)},
    {"causal": True, "mask": "all", "dropout": 0.3, "key": Key(1)},
]


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize(("T", "S", "D"), [(1, 1, 1), (33, 33, 5), (40, 70, 16), (70, 40, 24)])
def test_attention_of_any_kind(T: int, S: int, D: int, options: dict[str, Any]) -> None:
    """As many queries as keys, fewer, more; some queries see no key at all."""
    rng = np.random.default_rng(T)
    shapes = {"keys": (2, 1, 1, S), "all": (2, 3, T, S)}
    masks = {name: rng.random(shape) < 0.6 for name, shape in shapes.items()}
    options = {**options, "mask": masks.get(options.get("mask", ""))}
    inputs = [draw(2, 3, n, D, seed=i) for i, n in enumerate((T, S, S))]
    compare("attention", lambda *qkv: tensor.attention(*qkv, **options), inputs)
    q, kv = draw(2, T, 3 * D), draw(2, S, 6 * D, seed=1)
    mask = options.pop("mask")
    compare(
        "multi_head_attention",
        lambda q, kv: tensor.multi_head_attention(
            q, kv, None if mask is None else Tensor(mask), heads=3, **options
        ),
        [q, kv],
    )


def both(call: Callable[..., Tensor], *arrays: Array) -> None:
    """The same value and gradients with kernels and without."""
    ways = []
    for switch in (nullcontext(), kernels.off()):
        leaves = [Tensor(np.array(x, np.float32), requires_grad=True) for x in arrays]
        with switch:
            y = call(*leaves)
            ways.append([y, *grad((y * 1e3).sum(), leaves)])
    for ours, theirs in zip(*ways, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-30)


def test_attention_at_its_edges() -> None:
    """Scores that overflow, values that are not finite under a mask, and samples of five axes."""
    both(tensor.attention, [[1e20]], [[-1e20]], [[3.0]])
    both(tensor.attention, [[2.0, 2.0]], [[-2e38, 1.9e38], [-5e37, 0]], [[1.0, 1.0], [2.0, 2.0]])
    both(partial(tensor.multi_head_attention, heads=1), [[[1e20, -1e20, 3.0]]])
    first = np.array([True, False])
    masked = partial(tensor.attention, mask=first)
    both(masked, [[[1.0]]] * 2, [[[1.0], [np.nan]]] * 2, [[[1.0], [2.0]]] * 2)
    both(masked, [[[1.0]]] * 2, [[[1.0], [1.0]]] * 2, [[[1.0], [2e38]]] * 2)
    axes = np.ones((2, 2, 1, 1, 1)), np.ones((2, 2, 1, 2, 1)) * [[1.0], [np.nan]]
    both(masked, *axes, np.ones((2, 2, 1, 2, 1)))
    dropped = partial(tensor.attention, dropout=0.5, key=Key(1))
    q = np.ones((1, 2, 1, 2, 1))
    both(dropped, q, q, np.arange(1.0, 5).reshape(q.shape))
    wide = partial(tensor.attention, mask=first, dropout=0.9, key=Key(4))
    both(wide, np.ones((1, 2, 1)), np.ones((1, 2, 1)), [[[1.0], [1e38]]])


@pytest.mark.parametrize("options", [{}, {"key": Key(1), "dropout": -0.5}], ids=str)
def test_dropout_of_attention_is_checked_with_kernels_too(options: dict[str, Any]) -> None:
    x = Tensor(draw(1, 2, 12))
    with pytest.raises(ValueError, match="dropout"):
        tensor.multi_head_attention(x, heads=2, **{"dropout": 0.5, **options})


def test_an_optional_input_in_the_middle_may_be_left_out() -> None:
    x, mask = Tensor(draw(1, 2, 6)), np.tri(2, dtype=bool)
    y = tensor.multi_head_attention(x, heads=1, mask=mask)
    expected = tensor.multi_head_attention(x, heads=1, causal=True)
    assert np.array_equal(y.numpy(), expected.numpy())


def test_attention_keeps_a_mask_of_its_own() -> None:
    """A mask that is written after forward changes no gradient."""
    x = Tensor(draw(1, 2, 5, 4), requires_grad=True)
    mask = np.tri(5, dtype=bool)
    expected = grad(tensor.attention(x, x, x, mask=mask), x, Tensor(draw(1, 2, 5, 4)))[0]
    y = tensor.attention(x, x, x, mask=mask)
    mask[...] = True
    assert np.array_equal(grad(y, x, Tensor(draw(1, 2, 5, 4)))[0].numpy(), expected.numpy())


@pytest.mark.parametrize("scale", [1, 6])  # of 6, scores reach +-80
@pytest.mark.parametrize(("H", "D"), [(1, 5), (3, 5), (1, 16), (3, 20), (2, 64)])
@pytest.mark.parametrize("T", [1, 2, 31, 32, 33, 65, 130])
def test_multi_head_attention(T: int, H: int, D: int, scale: float) -> None:
    compare(
        "multi_head_attention",
        lambda x: tensor.multi_head_attention(x, heads=H, causal=True),
        [np.float32(scale) * draw(2, T, 3 * H * D)],
    )


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("lead", [(), (2, 3)])
@pytest.mark.parametrize("D", [1, 5, 16])
@pytest.mark.parametrize("T", [1, 31, 33, 130])
def test_attention(T: int, D: int, lead: tuple[int, ...], causal: bool) -> None:
    inputs = [draw(*lead, T, D, seed=i) for i in range(3)]
    compare("attention", lambda *x: tensor.attention(*x, causal=causal), inputs)
    compare("attention", lambda *x: tensor.attention(*x, causal=causal, scale=-0.7), inputs)


@pytest.mark.parametrize("T", [5, 32, 70])
def test_bug_55_no_kernel_sees_the_future(T: int) -> None:
    """To the last bit, and with gradients of exactly 0."""
    x = draw(1, T, 18)
    calls: list[tuple[str, Callable[[Tensor], Tensor]]] = [
        ("multi_head_attention", lambda x: tensor.multi_head_attention(x, heads=2, causal=True)),
        (
            "attention",
            lambda x: tensor.attention(
                *(part.contiguous() for part in x.split(6, -1)), causal=True
            ),
        ),
    ]
    for name, call in calls:
        before = call(Tensor(x)).numpy()
        assert taken(name)[1] == "cpu kernel"
        for t in range(0, T - 1, 3):
            changed = x.copy()
            changed[:, t + 1 :] = 100 * draw(1, T - t - 1, 18, seed=t)
            after = call(Tensor(changed)).numpy()
            assert np.array_equal(after[:, : t + 1], before[:, : t + 1])
            assert not np.isclose(after[:, t + 1], before[:, t + 1]).all()
            leaf = Tensor(x, requires_grad=True)
            (dx,) = grad(call(leaf)[:, : t + 1], leaf, draw(1, t + 1, 6))
            assert dx is not None
            assert not dx.numpy()[:, t + 1 :].any()
            assert np.abs(dx.numpy()[:, : t + 1]).max(-1).min() > 0


# -- flat arrays


@pytest.mark.parametrize("size", [1, 17, 16 * 1024, 16 * 1024 + 33, 70_001])
@pytest.mark.parametrize("keep", [1.0, 0.97])
def test_adamw(size: int, keep: float) -> None:
    """Weights and both means after each of five steps."""
    kernel = KERNELS["adamw"][0].function
    ways: list[tuple[Callable[..., None], type]] = [
        (kernel, np.float32),
        (adamw, np.float32),
        (adamw, np.float64),
    ]
    states = [[draw(size).astype(kind), *np.zeros((2, size), kind)] for _, kind in ways]
    for t in range(1, 6):
        numbers = {
            "b1": 0.9,
            "b2": 0.999,
            "step_size": 1e-2 / (1 - 0.9**t),
            "bias_correction": 1 / math.sqrt(1 - 0.999**t),
            "eps": 1e-8,
            "decay": keep,
        }
        for (update, kind), (w, m, v) in zip(ways, states, strict=True):
            update(
                w,
                (draw(size, seed=t) * 10.0 ** (t - 3)).astype(np.float32).astype(kind),
                m,
                v,
                **numbers,
            )
        for name, found, reference, exact in zip("wmv", *states, strict=True):
            judge(found, reference, exact, f"{name} after {t} steps")


def few_directions(inputs: int, outputs: int, seed: int) -> Array:
    """A gradient as they are: some directions large, most small."""
    fewer = min(inputs, outputs)
    return (
        draw(inputs, fewer, seed=seed)
        * (10.0 ** -np.linspace(0, 5, fewer))
        @ draw(fewer, outputs, seed=seed + 1)
    ).astype(np.float32)


@pytest.mark.parametrize(
    "matrices",
    [
        [(5, 17), (17, 5), (16, 16), (1, 9), (9, 1), (1, 1), (40, 130), (130, 40)],
        [(64, 256)],
        [(96, 48), (48, 48)],
    ],
    ids=str,
)
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 7])
def test_muon(matrices: list[tuple[int, int]], nesterov: bool, steps: int) -> None:
    """Weights and momenta of matrices that lie apart in flat arrays; what lies between them stays
    as it is.
    """
    starts = np.cumsum([3, *(a * b + 5 for a, b in matrices)])
    places = np.array([(start, *shape) for start, shape in zip(starts[:-1], matrices, strict=True)])
    numbers = {"lr": 0.02, "momentum": 0.95, "nesterov": nesterov, "steps": steps, "decay": 0.99}
    size = int(starts[-1])
    weights, gradients, momenta = (
        draw(size),
        np.full(size, 7, np.float32),
        np.full(size, 3, np.float32),
    )
    for place, (start, inputs, outputs) in enumerate(places.tolist()):
        gradients[start : start + inputs * outputs] = few_directions(inputs, outputs, place).ravel()
        momenta[start : start + inputs * outputs] = few_directions(
            inputs, outputs, 50 + place
        ).ravel()
    states = [
        [a.astype(kind) for a in (weights, gradients, momenta)]
        for kind in (np.float32, np.float32, np.float64)
    ]
    KERNELS["muon"][0].function(*states[0], places, **numbers)
    for state in states[1:]:
        for start, inputs, outputs in places.tolist():
            muon(
                *(a[start : start + inputs * outputs].reshape(inputs, outputs) for a in state),
                **numbers,
            )
    for start, inputs, outputs in places.tolist():
        for name, (found, reference, exact) in {
            "w": [state[0] for state in states],
            "u": [state[2] for state in states],
        }.items():
            part = slice(start, start + inputs * outputs)
            judge(found[part], reference[part], exact[part], f"{name} of {inputs} x {outputs}")
        gap = slice(start + inputs * outputs, start + inputs * outputs + 5)
        assert np.array_equal(states[0][0][gap], weights[gap])
        assert np.array_equal(states[0][2][gap], momenta[gap])


def test_muon_of_zero_tiny_huge_and_broken_gradients() -> None:
    places = np.array([(0, 3, 4)])
    numbers = {"lr": 0.5, "momentum": 0.0, "nesterov": False, "steps": 5, "decay": 1.0}
    results = []
    for factor in (0.0, 1e-37, 1.0, 1e37):
        w, u = np.zeros(12, np.float32), np.zeros(12, np.float32)
        KERNELS["muon"][0].function(w, draw(12) * np.float32(factor), u, places, **numbers)
        results.append(w)
    assert not results[0].any()
    for w in results[1:]:
        np.testing.assert_allclose(w, results[2], rtol=0, atol=1e-6)
    for broken in (np.nan, np.inf):
        w, g = np.zeros(12, np.float32), draw(12)
        g[5] = broken
        KERNELS["muon"][0].function(w, g, np.zeros(12, np.float32), places, **numbers)
        assert np.isnan(w).any()


@pytest.mark.parametrize("size", [0, 1, 17, 16 * 1024, 70_001])
def test_norm_and_scale(size: int) -> None:
    g = draw(size) * np.float32(1e3)
    norm, scale = (KERNELS[name][0] for name in ("squared_norm", "scale"))
    assert norm.function(g) == pytest.approx(float((g.astype(np.float64) ** 2).sum()), rel=1e-12)
    expected = g * np.float32(0.3)
    scale.function(g, 0.3)
    assert np.array_equal(g, expected)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(0, 3), (3, 0), (1, 1), (3, 5), (2, 63), (2, 65), (1, 4096), (3, 4099), (2, 9001)],
)
def test_random_bits(rows: int, columns: int) -> None:
    for key in (Key(0), Key(2**40 + 5, 7, 3, 11), Key(-1, 2**32 - 1, 2**32 - 1, 2**32 - 2)):
        bits = random_bits(rows, columns, key)
        assert taken("random_bits")[1] == "cpu kernel"
        with kernels.off():
            reference = random_bits(rows, columns, key)
        assert np.array_equal(bits, reference)
        assert bits.dtype == reference.dtype
