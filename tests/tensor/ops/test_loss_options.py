"""Class weights, probabilities as targets, pos_weight, delta: against PyTorch, and at the ends."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor
from tensor.errors import ShapeError
from tests.tensor.ops.test_losses import INF, gradient, leaf


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_class_weights_and_probabilities_against_pytorch(reduction: str, device: str) -> None:
    """Integer targets with weights, one of them 0; probabilities, which have a gradient too."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits, ids = rng.normal(0, 3, (2, 6, 5)), rng.integers(0, 5, (2, 6))
    ids[0, 2], soft = -100, rng.dirichlet(np.ones(5), (2, 6))
    soft[0, 0] = [0, 1, 0, 0, 0]
    for targets, weight, smoothing in (
        (ids, rng.random(5) * [1, 1, 0, 1, 1], 0.0), (ids, rng.random(5), 0.3),
        (soft, None, 0.0), (soft, None, 0.2), (soft, rng.random(5), 0.2),
    ):  # fmt: skip
        options: dict[str, Any] = {"label_smoothing": smoothing, "reduction": reduction}
        x, z = leaf(logits, device), torch.tensor(logits, requires_grad=True)
        of_soft = targets is soft
        t = leaf(soft, device) if of_soft else Tensor(targets, device=device)
        u = torch.tensor(targets, requires_grad=of_soft)
        given = None if weight is None else Tensor(weight, device=device)
        ignored = {} if of_soft else {"ignore_index": -100}
        y = tensor.cross_entropy(x, t, weight=given, **ignored, **options)
        w = torch.nn.functional.cross_entropy(
            z.movedim(-1, 1),
            u.movedim(-1, 1) if of_soft else u,
            weight=None if weight is None else torch.tensor(weight),
            **options,
        )
        assert np.allclose(y.numpy(), w.detach().numpy(), rtol=1e-13)
        dy = rng.standard_normal(y.shape)
        w.backward(torch.tensor(dy))
        assert np.allclose(gradient(y, x, dy), z.grad.numpy(), rtol=1e-11, atol=1e-15)
        if of_soft:
            assert np.allclose(gradient(y, t, dy), u.grad.numpy(), rtol=1e-12)


def test_weights_and_probabilities_at_the_ends(device: str) -> None:
    x = leaf([[0.0, -INF], [1.0, 2.0]], device)
    y = tensor.cross_entropy(x, [[1.0, 0.0], [0.0, 1.0]], reduction="none")
    assert np.allclose(y.numpy(), [0, math.log1p(math.exp(-1))])  # 0 times infinity is 0
    assert gradient(y, x, [1, 0]).tolist() == [[0, 0], [0, 0]]
    for options in ({"ignore_index": 7}, {"weight": [0.0, 1.0]}):
        y = tensor.cross_entropy(x, [7, 7] if "ignore_index" in options else [0, 0], **options)
        assert (y.item(), gradient(y, x).any()) == (0, False)
    # results have the dtype of the logits, gradients that of their tensor
    narrow, q = leaf([[1.0, 2.0]], device, "bfloat16"), leaf([[0.5, 0.5]], device, "float32")
    y = tensor.cross_entropy(narrow, q, weight=np.array([1.0, 2.0]))
    y.backward()
    assert [t.dtype.name for t in (y, narrow.grad, q.grad)] == ["bfloat16"] * 2 + ["float32"]
    wide, short = (
        tensor.cross_entropy(leaf([[0.3, 2], [1, 2]], device, dtype), [0, 1], weight=[1.0, 5.0])
        for dtype in ("float64", "float32")  # which have kernels for losses without weights
    )
    assert short.dtype.name == "float32"
    y = tensor.cross_entropy(leaf([[1.0, 2.0]], device, "float32"), np.array([[0.5, 0.5]]))
    assert y.dtype.name == "float32"  # data of NumPy is float64
    assert short.item() == pytest.approx(wide.item(), rel=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_with_numbers_of_their_own_against_pytorch(reduction: str, device: str) -> None:
    torch = pytest.importorskip("torch")
    functional, rng = torch.nn.functional, np.random.default_rng(0)
    a, b = rng.normal(0, 3, (4, 5)), rng.random((4, 5))
    log_q, p = a - np.log(np.exp(a).sum(-1, keepdims=True)), b / b.sum(-1, keepdims=True)
    p[0, 0] = 0

    def divergence(z: Any, u: Any, reduction: str) -> Any:
        each = functional.kl_div(z, u, reduction="none")
        theirs = functional.kl_div(z, u, reduction="batchmean" if reduction == "mean" else "sum")
        return each.sum(-1) if reduction == "none" else theirs

    for name, start, target, ours, theirs in (
        ("huber_loss", a, b, {"delta": 0.7}, partial(functional.huber_loss, delta=0.7)),
        ("kl_divergence", log_q, p, {}, divergence),
        *(
            (
                "binary_cross_entropy_with_logits",
                20 * a,
                b,
                {"pos_weight": w},
                partial(
                    functional.binary_cross_entropy_with_logits,
                    pos_weight=torch.tensor(w, dtype=torch.float64),
                ),
            )
            for w in (3.0, [0.5, 1.0, 2.0, 0.0, 9.0])
        ),
    ):
        x, t = leaf(start, device), leaf(target, device)
        z, u = torch.tensor(start, requires_grad=True), torch.tensor(target, requires_grad=True)
        options: Any = {**ours, "reduction": reduction}
        y, w = getattr(tensor, name)(x, t, **options), theirs(z, u, reduction=reduction)
        assert np.allclose(y.numpy(), w.detach().numpy(), rtol=1e-13), name
        dy = rng.standard_normal(y.shape)
        w.backward(torch.tensor(dy))
        assert np.allclose(gradient(y, x, dy), z.grad.numpy(), rtol=1e-12), name
        finite = target > 0
        exact = u.grad.numpy()[finite]
        assert np.allclose(gradient(y, t, dy)[finite], exact, rtol=1e-12), name
        assert not gradient(y, t, dy)[~finite].any()
    with pytest.raises(ValueError, match="huber_loss delta=0: above 0 is needed"):
        tensor.huber_loss(x, t, delta=0)
    with pytest.raises(ShapeError, match=r"pos_weight \(2, 4, 5\) is larger than the logits"):
        tensor.binary_cross_entropy_with_logits(x, t, pos_weight=np.ones((2, 4, 5)))
    rare = leaf([[-INF, 0.0]], device)  # what cannot be, and is not
    assert tensor.kl_divergence(rare, [[0.0, 1.0]]).item() == 0


def test_nan_among_probabilities_reaches_the_divergence(device: str) -> None:
    log_q = leaf([[-1.0, -1.0], [-1.0, -1.0]], device)
    p = leaf([[np.nan, 0.5], [0.0, 0.5]], device)
    loss = tensor.kl_divergence(log_q, p, reduction="none")
    assert np.isnan(loss.tolist()).tolist() == [True, False]
    loss.sum().backward()
    assert np.isnan(log_q.grad.tolist()).tolist() == [[True, False], [False, False]]
    assert np.isnan(p.grad.tolist()).tolist() == [[True, False], [False, False]]
