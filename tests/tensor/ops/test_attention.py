"""Attention: values by hand, masks that hide whatever stands behind them, and a future of weight
and gradient exactly 0.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensor
from tensor import Tensor, grad
from tensor.errors import DTypeError, ShapeError
from tensor.gradcheck import gradcheck
from tensor.memory.devices import Array
from tensor.random import Key

INF, NAN = math.inf, math.nan
DTYPES = ["float64", "float32", "float16", "bfloat16"]


def leaf(data: Any, device: str, dtype: str = "float64") -> Tensor:
    return Tensor(np.asarray(data), dtype=dtype, device=device, requires_grad=True)


def draw(device: str, *shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [leaf(rng.standard_normal(shape), device) for shape in shapes]


def gradients(y: Tensor, *xs: Tensor, seed: int = 1) -> list[Array]:
    """Under a random upstream gradient."""
    dy = Tensor(
        np.random.default_rng(seed).standard_normal(y.shape), dtype=y.dtype, device=y.device
    )
    return [
        dx.numpy().astype(np.float64)
        for dx in tensor.grad(y, xs, dy, retain_graph=True)
        if dx is not None
    ]


def by_hand(
    q: Array, k: Array, v: Array, allowed: Array, scale: float, bias: Array | float = 0.0
) -> Array:
    """One query at a time, over the keys that it may see and no others."""
    y = np.zeros((*q.shape[:-1], v.shape[-1]))
    bias = np.broadcast_to(bias, allowed.shape)
    for place in np.ndindex(*q.shape[:-1]):
        seen = [s for s in range(k.shape[-2]) if allowed[(*place, s)]]
        scores = [
            scale * float(q[place] @ k[(*place[:-1], s)]) + float(bias[(*place, s)]) for s in seen
        ]
        weights = [math.exp(score - max(scores)) for score in scores]
        for s, weight in zip(seen, weights, strict=True):
            y[place] += weight / math.fsum(weights) * v[(*place[:-1], s)]
    return y


@given(
    batch=st.lists(st.integers(1, 3), max_size=2), t=st.integers(1, 4), s=st.integers(1, 4),
    d=st.integers(1, 3), e=st.integers(1, 3),
    causal=st.booleans(), masked=st.booleans(), biased=st.booleans(),
    scale=st.sampled_from([None, 0.3]), seed=st.integers(0, 99),
)  # fmt: skip
def test_values_by_hand(
    batch: list[int],
    t: int,
    s: int,
    d: int,
    e: int,
    causal: bool,
    masked: bool,
    biased: bool,
    scale: float | None,
    seed: int,
    device: str,
) -> None:
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal((*batch, *shape)) for shape in ((t, d), (s, d), (s, e)))
    mask = rng.random((t, s)) < 0.6 if masked else None
    bias = rng.standard_normal((*batch[1:], 1, s)) if biased else None
    allowed = (
        np.ones((*batch, t, s), bool) if mask is None else np.broadcast_to(mask, (*batch, t, s))
    )
    if causal:
        allowed = allowed & np.array(
            [[key <= query + s - t for key in range(s)] for query in range(t)]
        )
    exact = by_hand(q, k, v, allowed, scale or 1 / math.sqrt(d), 0.0 if bias is None else bias)
    inputs = [Tensor(x, device=device) for x in (q, k, v)] + (
        [Tensor(bias, device=device)] if bias is not None else []
    )
    y = tensor.attention(*inputs, mask=mask, causal=causal, scale=scale)
    assert np.allclose(y.numpy(), exact, rtol=1e-12, atol=1e-14)


def test_against_pytorch(device: str) -> None:
    torch = pytest.importorskip("torch")
    q, k, v, bias = draw(device, (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 7), (3, 4, 6))
    theirs = [torch.tensor(x.numpy().copy(), requires_grad=True) for x in (q, k, v, bias)]
    mask = np.random.default_rng(3).random((4, 6)) < 0.7
    mask[:, 0] = True  # no row without a key: there PyTorch's answer depends on its version
    y = tensor.attention(q, k, v, bias, mask=mask)
    z = torch.nn.functional.scaled_dot_product_attention(
        *theirs[:3], attn_mask=theirs[3].masked_fill(torch.tensor(~mask), -INF)
    )
    assert np.allclose(y.numpy(), z.detach().numpy(), rtol=1e-12, atol=1e-14)
    z.backward(torch.tensor(np.random.default_rng(1).standard_normal(y.shape)))
    for ours, x in zip(gradients(y, q, k, v, bias), theirs, strict=True):
        assert np.allclose(ours, x.grad.numpy(), rtol=1e-11, atol=1e-13)


# -- nothing may be seen


@pytest.mark.parametrize("dtype", DTYPES)
def test_bug_33_query_that_sees_nothing(dtype: str, device: str) -> None:
    q, k, v = (
        leaf(x.numpy(), device, dtype) for x in draw(device, (2, 3, 4), (2, 5, 4), (2, 5, 6))
    )
    mask = np.ones((3, 5), bool)
    mask[1] = False
    y = tensor.attention(q, k, v, mask=mask)
    assert not y[:, 1].numpy().any()
    dq, dk, dv = gradients(y, q, k, v)
    assert not dq[:, 1].any()
    assert all(np.isfinite(g).all() for g in (dq, dk, dv))
    others = tensor.attention(q[:, [0, 2]], k, v) - y[:, [0, 2]]
    assert np.abs(others.numpy().astype(np.float64)).max() <= 4 * float(ml_dtypes.finfo(dtype).eps)
    assert all(not g.any() for g in gradients(y[:, 1], q, k, v))


def test_bug_33_more_queries_than_keys(device: str) -> None:
    q, k, v = draw(device, (5, 2), (3, 2), (3, 2))
    y = tensor.attention(q, k, v, causal=True)
    assert not y[:2].numpy().any()  # these two stand before the first key
    assert np.allclose(y[2].numpy(), v[0].numpy(), rtol=1e-15)
    assert not gradients(y, q)[0][:2].any()


def test_bug_33_bias_that_hides_everything(device: str) -> None:
    q, k, v = draw(device, (3, 2), (4, 2), (4, 2))
    bias = leaf(np.where(np.arange(3)[:, None] == 1, -INF, np.zeros((3, 4))), device)
    y = tensor.attention(q, k, v, bias)
    assert not y[1].numpy().any()
    for dx in gradients(y, q, k, v, bias):
        assert np.isfinite(dx).all()
    assert not gradients(y, bias)[0][1].any()


def test_no_keys_at_all(device: str) -> None:
    q, k, v = draw(device, (2, 3), (0, 3), (0, 4))
    y = tensor.attention(q, k, v)
    assert y.tolist() == [[0] * 4] * 2
    assert not gradients(y, q)[0].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_bug_33_anything_behind_a_mask(bad: float, dtype: str, device: str) -> None:
    q, k, v = (
        leaf(x.numpy(), device, dtype) for x in draw(device, (2, 3, 4), (2, 5, 4), (2, 5, 6))
    )
    mask = np.array([True, True, False, True, False])
    spoilt_k, spoilt_v = k.numpy().copy(), v.numpy().copy()
    spoilt_k[:, ~mask] = spoilt_v[:, ~mask] = bad
    spoilt = [leaf(x, device, dtype) for x in (q.numpy(), spoilt_k, spoilt_v)]
    clean, y = tensor.attention(q, k, v, mask=mask), tensor.attention(*spoilt, mask=mask)
    assert np.array_equal(clean.numpy(), y.numpy())
    for exact, found in zip(gradients(clean, q, k, v), gradients(y, *spoilt), strict=True):
        assert np.array_equal(exact, found)
    assert not gradients(y, spoilt[1])[0][:, ~mask].any()
    assert not gradients(y, spoilt[2])[0][:, ~mask].any()


def test_bad_values_in_sight_are_seen(device: str) -> None:
    """Hiding NaN behind a mask must not hide it from the queries that look at it."""
    q, k, v = draw(device, (3, 2), (3, 2), (3, 2))
    spoilt = v.numpy().copy()
    spoilt[1, 0] = NAN
    y = tensor.attention(q, k, Tensor(spoilt, device=device), causal=True).numpy()
    assert np.array_equal(np.isnan(y), [[False, False], [True, False], [True, False]])
    spoilt = k.numpy().copy()
    spoilt[2] = NAN
    y = tensor.attention(q, Tensor(spoilt, device=device), v, causal=True).numpy()
    assert np.array_equal(np.isnan(y), [[False, False], [False, False], [True, True]])


# -- the future


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("score", [-2e4, -3e9])
def test_bug_34_future_weighs_exactly_nothing(score: float, dtype: str, device: str) -> None:
    """What may be seen scores -20,000 (then -3e9), the future 0: a mask that only adds or fills in
    -1e4 or -1e9 would let it win.
    """
    q = leaf([[1.0], [1.0], [0.0]], device, dtype)
    k = leaf([[-1.0], [-1.0], [0.0]], device, dtype)
    v = leaf([[1.0], [2.0], [64.0]], device, dtype)
    y = tensor.attention(q, k, v, causal=True, scale=-score)
    assert y[:2].tolist() == [[1], [1.5]]
    for t in (0, 1):
        for dx in gradients(y[t], k, v):
            assert not dx[t + 1 :].any()
            assert not np.isnan(dx).any()
    assert gradients(y[1], v)[0][:2].all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_bug_34_changing_the_future_changes_no_bit_of_the_past(dtype: str, device: str) -> None:
    q, k, v = (
        leaf(30 * x.numpy(), device, dtype) for x in draw(device, (2, 6, 4), (2, 6, 4), (2, 6, 4))
    )
    y = tensor.attention(q, k, v, causal=True)
    for t in range(5):
        later_k, later_v = k.numpy().copy(), v.numpy().copy()
        later_k[:, t + 1 :] = 1000
        later_v[:, t + 1 :] = -1000
        z = tensor.attention(
            q, Tensor(later_k, device=device), Tensor(later_v, device=device), causal=True
        )
        assert np.array_equal(y.numpy()[:, : t + 1], z.numpy()[:, : t + 1])
        for dx in gradients(y[:, : t + 1], k, v):
            assert not dx[:, t + 1 :].any()


def test_causal_is_aligned_to_the_end(device: str) -> None:
    """With 5 keys and 2 queries, the first query sees 4 keys and the second all 5: the older keys
    are a cache.
    """
    q, k = leaf(np.zeros((2, 3)), device), leaf(np.zeros((5, 3)), device)
    y = tensor.attention(q, k, np.eye(5), causal=True)  # of equal scores, the weights themselves
    assert np.allclose(y.numpy(), [[0.25] * 4 + [0], [0.2] * 5], rtol=1e-15, atol=0)
    mask = np.array([True, False, True, True, True])
    both = tensor.attention(q, k, np.eye(5), causal=True, mask=mask)
    assert np.allclose(
        both.numpy(), [[1 / 3, 0, 1 / 3, 1 / 3, 0], [0.25, 0, 0.25, 0.25, 0.25]], rtol=1e-15, atol=0
    )


# -- dropout and errors


def test_dropout_of_weights(device: str) -> None:
    """Some weights are 0 and the rest scaled up; on average nothing changes; forward and backward
    see one mask.
    """
    q, k = leaf(np.zeros((50, 8, 3)), device), leaf(np.zeros((50, 40, 3)), device)
    weights = tensor.attention(
        q, k, np.broadcast_to(np.eye(40), (50, 40, 40)), dropout=0.3, key=Key(1)
    ).numpy()
    assert np.allclose(np.unique(weights), [0, 1 / 40 / 0.7], rtol=1e-14, atol=0)
    assert abs((weights == 0).mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / weights.size)
    gradcheck(
        lambda q, k, v: tensor.attention(q, k, v, causal=True, dropout=0.5, key=Key(5)),
        draw(device, (2, 4, 3), (2, 4, 3), (2, 4, 3)),
    )
    with pytest.raises(ValueError, match="needs a key"):
        tensor.attention(q, k, k, dropout=0.3)


def test_what_is_wrong_is_said(device: str) -> None:
    q, k, v = draw(device, (2, 3), (4, 3), (4, 3))
    with pytest.raises(
        ShapeError, match=r"q \(2, 3\), k \(4, 2\), v \(4, 3\): q and k share their last axis"
    ):
        tensor.attention(q, k[:, :2], v)
    with pytest.raises(ShapeError):
        tensor.attention(q, k, v[:3])
    with pytest.raises(ShapeError, match=r"q \(2, 0\): queries of no elements"):
        tensor.attention(q[:, :0], k[:, :0], v)
    assert tensor.attention(q[:, :0], k[:, :0], v, scale=1.0).shape == (2, 3)
    with pytest.raises(DTypeError, match="mask must hold bools"):
        tensor.attention(q, k, v, mask=np.zeros((2, 4)))
    mask = np.ones((2, 4), bool)
    for bias in (mask, mask.tolist(), Tensor(mask, device=device)):
        with pytest.raises(DTypeError, match=r"not bools; what may be seen .* is `mask=`"):
            tensor.attention(q, k, v, bias)
    assert tensor.attention(q, k, v, mask.astype(int)).shape == (2, 3)


def test_bug_33_dropout_beside_a_hidden_value_that_is_not_finite(device: str) -> None:
    """The slopes are those of the weights that were kept."""
    mask, slopes = [True, True, False], []
    for hidden in (0.0, NAN):
        q = leaf([[1.0], [2.0], [3.0]], device)
        k, v = [[1.0], [2.0], [3.0]], [[1.0], [4.0], [hidden]]
        y = tensor.attention(q, k, v, mask=mask, dropout=0.5, key=Key(1))
        slopes.append(grad(y.sum(), q)[0].numpy())
    assert slopes[0].any()
    np.testing.assert_allclose(slopes[1], slopes[0])
