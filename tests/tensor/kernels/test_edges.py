"""Compiled kernels where things are odd: what they decline, values that are not finite, ids out of
range, memory written meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, detect_anomaly, grad, kernels, no_grad
from tensor.errors import GradientError, MutationError, ShapeError
from tensor.graph import Node, reachable
from tensor.kernels import KERNELS
from tensor.kernels.cpu import attention as attention_file
from tensor.ops.op import OPS
from tests.helpers.kernel_runs import compiled_kernels, draw, taken
from tests.helpers.sharing import assert_nothing_shared, saved_arrays

__all__ = ["compiled_kernels"]
pytestmark = pytest.mark.usefixtures("compiled_kernels")

Array = Any
NAN, INF = float("nan"), float("inf")
IDS = np.array([[0, 2, 0, 4], [1, 1, 2, 0]])
TARGETS = np.array([[0, 3, 1], [2, 2, 4]])
linear = OPS["linear"]

# op -> a call of float32 leaves, and their shapes
CALLS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "linear": (linear, [(2, 3, 4), (4, 5), (5,)]),
    "linear_gelu": (tensor.linear_gelu, [(2, 3, 4), (4, 5), (5,)]),
    "gelu": (tensor.gelu, [(2, 3, 4)]),
    "layer_norm": (tensor.layer_norm, [(2, 3, 4), (4,), (4,)]),
    "residual_layer_norm": (tensor.residual_layer_norm, [(2, 3, 4), (2, 3, 4), (4,), (4,)]),
    "multi_head_attention": (
        lambda x: tensor.multi_head_attention(x, heads=2, causal=True),
        [(2, 5, 24)],
    ),
    "attention": (lambda q, k, v: tensor.attention(q, k, v, causal=True), [(2, 5, 4)] * 3),
    "cross_entropy": (lambda x: tensor.cross_entropy(x, Tensor(TARGETS)), [(2, 3, 5)]),
    "positional_embedding": (
        lambda w, p: tensor.positional_embedding(Tensor(IDS), w, p),
        [(5, 3), (6, 3)],
    ),
}


def leaves(name: str) -> list[Tensor]:
    return [
        Tensor(draw(*shape, seed=i), requires_grad=True) for i, shape in enumerate(CALLS[name][1])
    ]


def outputs(name: str, xs: list[Tensor]) -> tuple[Tensor, ...]:
    y = CALLS[name][0](*xs)
    return y if isinstance(y, tuple) else (y,)


def upstream(ys: tuple[Tensor, ...]) -> list[Tensor]:
    return [Tensor(draw(*y.shape, seed=50 + i)) for i, y in enumerate(ys)]


def both_ways(call: Callable[..., Any], *arrays: Array) -> list[list[Array]]:
    """Values and gradients with kernels, and without."""
    results = []
    for switch in (nullcontext(), kernels.off()):
        xs = [Tensor(x, requires_grad=True) for x in arrays]
        with switch:
            ys = call(*xs)
        ys = ys if isinstance(ys, tuple) else (ys,)
        results.append([y.numpy() for y in (*ys, *grad(ys, xs, upstream(ys))) if y is not None])
    return results


# -- one node, and what goes on with it


@pytest.mark.parametrize("name", CALLS)
def test_a_kernel_makes_one_node_for_each_result(name: str) -> None:
    xs = leaves(name)
    ys = outputs(name, xs)
    nodes = [node for node in reachable(y.node for y in ys) if type(node) is Node]
    # of the two results of residual_layer_norm, one is an input of the other
    steps = {"residual_layer_norm": ["add", "layer_norm"]}
    assert [node.op for node in nodes] == steps.get(name, [name])
    assert taken(name)[1] == "cpu kernel"
    with no_grad():
        assert all(y.node is None for y in outputs(name, xs))
    with kernels.off(name):
        assert all(
            np.allclose(y.numpy(), z.numpy(), rtol=0, atol=1e-5)
            for y, z in zip(ys, outputs(name, xs), strict=True)
        )
    assert taken(name) == ("reference", "this kernel is off")


@pytest.mark.parametrize("name", CALLS)
def test_passes_add_up_and_nothing_is_shared(name: str) -> None:
    """Two passes through one graph give twice the gradient, to the bit; gradients lie in memory of
    their own.
    """
    xs = leaves(name)
    ys = outputs(name, xs)
    dys = upstream(ys)
    once = [dx.numpy().copy() for dx in grad(ys, xs, dys, retain_graph=True) if dx is not None]
    loss = sum((y * dy).sum() for y, dy in zip(ys, dys, strict=True))
    before = {f"tensor {i}": x.numpy().copy() for i, x in enumerate([*xs, *ys, *dys])}
    loss.backward(retain_graph=True)
    others = {**{f"tensor {i}": x for i, x in enumerate([*xs, *ys, *dys])}, **saved_arrays(loss)}
    assert_nothing_shared({f".grad {i}": x.grad for i, x in enumerate(xs)}, others)
    loss.backward()
    for x, dx in zip(xs, once, strict=True):
        assert x.grad is not None
        np.testing.assert_array_equal(x.grad.numpy(), 2 * dx)
    for x, was in zip([*xs, *ys, *dys], before.values(), strict=True):
        np.testing.assert_array_equal(x.numpy(), was)


@pytest.mark.parametrize("name", CALLS)
def test_two_consumers_and_a_gradient_that_is_no_row_after_row(name: str) -> None:
    """y goes to two places, of which one sends back a transposed, a repeated and a reversed
    gradient.
    """
    turned, repeated, reversed_ = (
        lambda y: y.T * Tensor(draw(*y.T.shape)),
        lambda y: y.sum(0),
        lambda y: y[..., ::-1] * Tensor(draw(*y.shape)),
    )
    for spoil in (
        (turned, repeated, reversed_) if outputs(name, leaves(name))[0].ndim else (turned,)
    ):
        found = []
        for switch in (nullcontext(), kernels.off()):
            xs = leaves(name)
            with switch:
                ys = outputs(name, xs)
            sum((spoil(y).sum() + (y * y).sum() for y in ys), Tensor(0.0)).backward()
            found.append([x.grad.numpy() for x in xs if x.grad is not None])
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * max(1, np.abs(b).max()))


@pytest.mark.parametrize("use", [0, 1])
def test_one_output_of_the_residual_sum_goes_on(use: int) -> None:
    """Only s, and only n; and s with what came for n."""
    for call in (
        lambda *x: tensor.residual_layer_norm(*x)[use],
        lambda *x: tensor.residual_layer_norm(*x)[use].sum(0),
    ):
        a, b = both_ways(
            call, *(draw(*shape, seed=i) for i, shape in enumerate(CALLS["residual_layer_norm"][1]))
        )
        assert len(a) == (3 if use == 0 else 5)  # through s alone, nothing reaches gain and bias
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-5)


def test_one_leaf_in_several_places_of_an_op() -> None:
    """Gain and bias, x and y, weight and x, all three of attention: each use counts."""
    square, row = draw(4, 4), draw(4)
    calls: list[tuple[Callable[..., Any], list[Array]]] = [
        (lambda x, g: tensor.layer_norm(x, g, g), [square, row]),
        (lambda x, g: tensor.residual_layer_norm(x, x, g, g), [square, row]),
        (lambda w: linear(w, w), [square]),
        (lambda w: linear(w, w, transposed=True), [square]),
        (lambda w: tensor.linear_gelu(w, w), [square]),
        (lambda x: tensor.attention(x, x, x, causal=True), [draw(5, 4)]),
        (lambda w: tensor.positional_embedding(Tensor(IDS), w, w), [draw(5, 3)]),
    ]
    for call, inputs in calls:
        for a, b in zip(*both_ways(call, *inputs), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1, np.abs(b).max()))


def test_attention_of_any_strides_stays_linear_in_memory() -> None:
    """Heads that were only transposed into place are copied, and taken."""
    q, k, v = (Tensor(draw(2, 33, 3, 5)) for _ in range(3))
    apart = [x.transpose(1, 2) for x in (q, k, v)]
    y = tensor.attention(*apart, causal=True)
    assert "attention_of_heads" in kernels.explain()
    with kernels.off():
        np.testing.assert_allclose(
            y.numpy(), tensor.attention(*apart, causal=True).numpy(), atol=2e-6
        )


# -- what is declined

F32 = "float32"


def drawn(*shape: int, dtype: str = F32) -> Tensor:
    return Tensor(draw(*shape), dtype=dtype)


def turned(*shape: int) -> Tensor:
    """This shape, laid out the other way round in memory."""
    return drawn(*shape[::-1]).permute(*range(len(shape))[::-1])


def on(name: str, make: Callable[..., Tensor]) -> Callable[[], Any]:
    call, shapes = CALLS[name]
    return lambda: call(*(make(*shape) for shape in shapes))


DECLINED: list[tuple[str, str, Callable[[], Any]]] = [
    *((name, "dtype float64", on(name, partial(drawn, dtype="float64"))) for name in CALLS),
    # attention copies them
    *((name, "not contiguous", on(name, turned)) for name in CALLS if name != "attention"),
    ("linear", "not contiguous", lambda: linear(drawn(3, 4), drawn(5, 4).T)),
    ("linear", "not contiguous", lambda: linear(drawn(3, 4)[:, ::-1], drawn(4, 5))),
    ("linear", "not contiguous", lambda: linear(drawn(1, 4).expand(3, 4), drawn(4, 5))),
    ("linear", "shapes (0, 4), (4, 5)", lambda: linear(drawn(0, 4), drawn(4, 5))),
    ("linear", "shapes (4, 0), None", lambda: linear(drawn(3, 4), drawn(4, 0))),
    (
        "linear_gelu",
        "shapes (2, 0), (0, 5)",
        lambda: tensor.linear_gelu(drawn(2, 0), drawn(0, 5)),
    ),
    (
        "layer_norm",
        "shapes (0, 4), (4,), (4,)",
        lambda: tensor.layer_norm(drawn(0, 4), drawn(4), drawn(4)),
    ),
    (
        "residual_layer_norm",
        "shapes (3, 4), (4,)",
        lambda: tensor.residual_layer_norm(drawn(3, 4), drawn(4), drawn(4), drawn(4)),
    ),
    (
        "multi_head_attention",
        "shape (0, 5, 12) with 2 heads",
        lambda: tensor.multi_head_attention(drawn(0, 5, 12), heads=2, causal=True),
    ),
    (
        "attention",
        "bias",
        lambda: tensor.attention(*[drawn(3, 4)] * 3, np.eye(3, dtype="float32")),
    ),
    (
        "attention",
        "q (2, 4), k (3, 4), v (3, 5)",
        lambda: tensor.attention(drawn(2, 4), drawn(3, 4), drawn(3, 5)),
    ),
    (
        "cross_entropy",
        "class weights",
        lambda: tensor.cross_entropy(drawn(3, 4), Tensor([0, 1, 2]), weight=[1, 2, 3, 4]),
    ),
    (
        "cross_entropy",
        "targets (3,) int32 of logits (3, 4)",
        lambda: tensor.cross_entropy(drawn(3, 4), Tensor([0, 1, 2], dtype="int32")),
    ),
    (
        "cross_entropy",
        "not contiguous",
        lambda: tensor.cross_entropy(drawn(3, 4), Tensor([0, 9, 1, 9, 2, 9])[::2]),
    ),
    (
        "positional_embedding",
        "ids (3,) int64",
        lambda: tensor.positional_embedding(Tensor([0, 1, 2]), drawn(4, 3), drawn(5, 3)),
    ),
    (
        "positional_embedding",
        "ids (1, 2) int32",
        lambda: tensor.positional_embedding(
            Tensor([[0, 1]], dtype="int32"), drawn(4, 3), drawn(5, 3)
        ),
    ),
]


@pytest.mark.parametrize(("name", "reason", "call"), DECLINED)
def test_what_a_kernel_declines_it_says(name: str, reason: str, call: Callable[[], Any]) -> None:
    """And the reference gives the result. (Where there are two kernels, both say why not.)"""
    found = call()
    assert taken(name)[0] == "reference"
    assert taken(name)[1].split("; ")[0] == reason
    with kernels.off():
        expected = call()
    for y, z in zip(
        *((x if isinstance(x, tuple) else (x,)) for x in (found, expected)), strict=True
    ):
        assert y.shape == z.shape
        np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=0, atol=1e-6)


def test_shapes_that_cannot_be_raise_as_without_kernels() -> None:
    x, row = Tensor(draw(3, 4)), Tensor(draw(4))
    for call in (
        lambda: linear(x, Tensor(draw(3, 5))),
        lambda: linear(x, Tensor(draw(4, 5)), row),
        lambda: tensor.linear_gelu(x, Tensor(draw(4, 5)), row),
        lambda: tensor.layer_norm(x, Tensor(draw(3)), row),
        lambda: tensor.multi_head_attention(x, heads=2, causal=True),
        lambda: tensor.multi_head_attention(Tensor(draw(1, 2, 10)), heads=2, causal=True),
        lambda: tensor.cross_entropy(x, Tensor([0, 1])),
        lambda: tensor.positional_embedding(Tensor(IDS), Tensor(draw(5, 3)), Tensor(draw(2, 3))),
    ):
        with pytest.raises(ShapeError):
            call()


# -- values that are not finite


@pytest.mark.parametrize("wrong", [NAN, INF, -INF])
@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_bug_33_attention_keeps_what_is_not_finite_from_the_past(part: str, wrong: float) -> None:
    """In a key or value of token 3 it reaches queries 3 and later; in a query, that one. No bit of
    what is before changes.
    """
    T, C = 40, 6
    x = draw(1, T, 3 * C)
    clean = tensor.multi_head_attention(Tensor(x), heads=2, causal=True).numpy()
    x[0, 3, {"q": 0, "k": C, "v": 2 * C}[part]] = wrong
    with_kernel, without = both_ways(
        lambda x: tensor.multi_head_attention(x, heads=2, causal=True), x
    )
    y = with_kernel[0]
    assert np.isfinite(y[0, :3]).all()
    np.testing.assert_allclose(y[0, :3], clean[0, :3], rtol=0, atol=1e-6)
    assert np.isfinite(y[0, :, 3:]).all()  # the other head
    assert np.isfinite(y[0, 4:]).all() or part != "q"
    # a score of -inf is a weight of 0
    assert not np.isfinite(y[0, 3, :3]).all() or (part == "k" and wrong != NAN)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(without[0]))
    if part != "q":
        for a, b in zip(with_kernel, without, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)  # the composition ran
    if part == "v":
        leaf = Tensor(x, requires_grad=True)
        (dx,) = grad(
            tensor.multi_head_attention(leaf, heads=2, causal=True)[:, :3],
            leaf,
            Tensor(draw(1, 3, C)),
        )
        assert dx is not None
        assert np.isfinite(dx.numpy()).all()  # of what looks at the first three tokens only
        assert not dx.numpy()[0, 3:].any()


PATTERNS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    name: CALLS[name]
    for name in (
        "linear",
        "linear_gelu",
        "gelu",
        "layer_norm",
        "residual_layer_norm",
        "cross_entropy",
    )
}


@pytest.mark.parametrize("wrong", [NAN, INF, -INF])
@pytest.mark.parametrize("name", PATTERNS)
def test_bug_33_what_is_not_finite_reaches_what_it_must(name: str, wrong: float) -> None:
    """In each input in turn: NaN stands where it does without kernels, also in gradients."""
    call, shapes = PATTERNS[name]
    for which, shape in enumerate(shapes):
        arrays = [draw(*s, seed=i) for i, s in enumerate(shapes)]
        arrays[which][(0,) * len(shape)] = wrong
        for i, (a, b) in enumerate(zip(*both_ways(call, *arrays), strict=True)):
            np.testing.assert_array_equal(
                np.isnan(a), np.isnan(b), err_msg=f"{name}: {wrong} in input {which}, result {i}"
            )


def test_rows_of_a_table_that_nobody_looks_up_may_hold_anything() -> None:
    tokens, positions = draw(6, 3), draw(9, 3)
    tokens[[3, 5]] = NAN
    positions[4:] = NAN
    with_kernel, without = both_ways(
        lambda w, p: tensor.positional_embedding(Tensor(IDS), w, p), tokens, positions
    )
    for a, b in zip(with_kernel, without, strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_adamw_and_norm_of_what_is_not_finite() -> None:
    g = draw(100)
    norm = KERNELS["squared_norm"][0]
    for wrong in (NAN, INF):
        g[7] = wrong
        assert norm.function(g) == pytest.approx(wrong, nan_ok=True)
    w, m, v = draw(100), np.zeros(100, np.float32), np.zeros(100, np.float32)
    KERNELS["adamw"][0].function(
        w, g, m, v, b1=0.9, b2=0.99, step_size=0.1, bias_correction=1.0, eps=1e-8, decay=1.0
    )
    assert np.flatnonzero(~np.isfinite(w)).tolist() == [7]
    # in float64: no overflow at 1.8e19
    assert norm.function(np.full(3, 1e30, np.float32)) == pytest.approx(3e60)


# -- ids


@pytest.mark.parametrize("wrong", [-1, 5, 10**12])
def test_ids_and_targets_out_of_range_raise(wrong: int) -> None:
    ids = IDS.copy()
    ids[1, 2] = wrong
    with pytest.raises(IndexError):
        tensor.positional_embedding(Tensor(ids), Tensor(draw(5, 3)), Tensor(draw(6, 3)))
    targets = TARGETS.copy()
    targets[1, 2] = wrong
    with pytest.raises(IndexError, match=rf"target {wrong}, outside 0 to 4"):
        tensor.cross_entropy(Tensor(draw(2, 3, 5)), Tensor(targets))


def test_ids_written_uncounted_since_harm_no_other_row() -> None:
    """Tensor.from_array shares memory with an array that anyone may write: a wrong id must then not
    become a write somewhere else.
    """
    targets, x = np.zeros(4, np.int64), Tensor(draw(4, 5), requires_grad=True)
    loss = tensor.cross_entropy(x, Tensor.from_array(targets), reduction="sum")
    expected = np.exp(x.numpy()) / np.exp(x.numpy()).sum(-1, keepdims=True)
    targets[3] = -4  # of row 2, which is done by then
    loss.backward()
    assert x.grad is not None
    expected[:3, 0] -= 1
    np.testing.assert_allclose(x.grad.numpy()[:3], expected[:3], rtol=0, atol=1e-6)

    ids, tokens = np.zeros((1, 3), np.int64), Tensor(draw(4, 5), requires_grad=True)
    y = tensor.positional_embedding(Tensor.from_array(ids), tokens, Tensor(draw(3, 5)))
    ids[0, 0] = -3
    y.sum().backward()
    assert tokens.grad is not None
    assert tokens.grad.tolist() == [[2] * 5, *[[0] * 5] * 3]


# -- writes, anomalies


@pytest.mark.parametrize("name", CALLS)
def test_bug_21_kernels_notice_writes_to_what_they_kept(name: str) -> None:
    xs = leaves(name)
    ys = outputs(name, xs)
    dys = upstream(ys)
    expected = [dx.numpy().copy() for dx in grad(ys, xs, dys) if dx is not None]
    noticed = 0
    for which in range(len(xs) + len(ys)):
        xs = leaves(name)
        ys = outputs(name, xs)
        with no_grad():
            target = [*xs, *ys][which].detach()
            target[...] = 0.5
        try:
            found = grad(ys, xs, dys)
        except MutationError:
            noticed += 1
            continue
        for dx, want in zip(found, expected, strict=True):
            assert dx is not None
            np.testing.assert_array_equal(dx.numpy(), want, err_msg=f"tensor {which}")
    assert noticed >= (name != "positional_embedding")  # which keeps ids only


def test_written_ids_are_noticed() -> None:
    for ids, call in (
        (Tensor(TARGETS), lambda x, ids: tensor.cross_entropy(x, ids)),
        (Tensor(IDS), lambda x, ids: tensor.positional_embedding(ids, x[0], x[1])),
    ):
        x = Tensor(draw(2, 3, 5) if ids.shape == (2, 3) else draw(2, 5, 3), requires_grad=True)
        y = call(x, ids)
        ids[0, 0] = 1
        with pytest.raises(MutationError):
            y.sum().backward()


def test_detect_anomaly_names_the_op_inside() -> None:
    """Under detect_anomaly the compositions run, so that the first op of a chain that goes wrong is
    found; results stay the same.
    """
    for name in CALLS:
        xs = leaves(name)
        with detect_anomaly():
            ys = outputs(name, xs)
            found = grad(ys, xs, upstream(ys))
        plain = leaves(name)
        zs = outputs(name, plain)
        for a, b in zip([*ys, *found], [*zs, *grad(zs, plain, upstream(zs))], strict=True):
            assert a is not None
            assert b is not None
            np.testing.assert_allclose(
                a.numpy(), b.numpy(), rtol=0, atol=1e-5 * max(1, np.abs(b.numpy()).max())
            )
    x = draw(3, 4)
    x[1, 2] = 3e38
    with pytest.raises(GradientError, match="`linear`"), detect_anomaly():
        tensor.linear_gelu(Tensor(x, requires_grad=True), Tensor(np.full((4, 5), 10, np.float32)))


# -- attention by blocks, in NumPy


@pytest.mark.parametrize("block", [1, 4, 5, 16])
@pytest.mark.parametrize(("B", "T", "H", "D"), [(2, 17, 3, 5), (1, 20, 1, 4), (3, 9, 2, 1)])
def test_attention_by_blocks_in_numpy(
    B: int, T: int, H: int, D: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, which the compiled kernel leaves to it, against the composition."""
    monkeypatch.setattr(attention_file, "BLOCK", block)
    x = np.random.default_rng(0).standard_normal((B, T, 3 * H * D))
    for scale in (1, 9):
        results = []
        for switch in (nullcontext(), kernels.off()):
            leaf = Tensor(scale * x, requires_grad=True)
            with switch:
                y = tensor.multi_head_attention(leaf, heads=H, causal=True)
            by_blocks = not results and block < T
            assert taken("attention")[0] == ("attention_by_blocks" if by_blocks else "reference")
            results.append(
                [
                    y.numpy(),
                    *(
                        dx.numpy()
                        for dx in grad(y, leaf, np.random.default_rng(1).standard_normal(y.shape))
                        if dx is not None
                    ),
                ]
            )
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1, np.abs(b).max()))


def test_attention_by_blocks_leaves_nan_to_the_composition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_file, "BLOCK", 4)
    x = np.random.default_rng(0).standard_normal((1, 9, 6))
    x[0, 5, 4] = NAN
    y = tensor.multi_head_attention(Tensor(x), heads=1, causal=True).numpy()
    assert np.isfinite(y[0, :5]).all()
    assert np.isnan(y[0, 5:, 0]).all()
    assert np.isfinite(y[0, :, 1]).all()
