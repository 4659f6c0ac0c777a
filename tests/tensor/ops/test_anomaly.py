"""detect_anomaly: the first value that is not finite stops everything, and says where it came from;
masks of -inf pass.
"""

from __future__ import annotations

import numpy as np
import pytest

import tensor
from tensor import Tensor, detect_anomaly
from tensor.errors import GradientError
from tests.helpers.making import array, draw, leaf, line, values
from tests.helpers.sharing import assert_nothing_shared


def test_anomaly_forward_names_op_line_shapes_and_five_behind(device: str) -> None:
    x = leaf([[1.0, -1.0]], device)
    with detect_anomaly():
        a = x * 2.0
        b = a + 1.0
        c = b - 0.5
        d = c * b
        e = d + a
        f = e - 10.0
        at = line() + 2
        with pytest.raises(GradientError) as caught:
            f.log()
    text = str(caught.value)
    first, given, *rest = text.splitlines()
    place = f"test_anomaly.py:{at} `f.log()`"
    assert first == f"2 of 2 values not finite from `log` at {place}, (1, 2) <- (1, 2)"
    assert given == "it was given (1, 2) from -10.5 to -0.5"
    assert len(rest) == 5
    # the nearest first
    assert [r.split("`")[1] for r in rest] == ["subtract", "add", "multiply", "subtract", "add"]
    assert "`f = e - 10.0`" in rest[0]
    assert all("test_anomaly.py:" in r and "(1, 2) <- " in r for r in rest)


def test_anomaly_backward_names_the_op(device: str) -> None:
    x, w = leaf([0.0, 4.0], device), leaf([1.0, 1.0], device)
    with detect_anomaly():
        h = x * 1.0
        at = line() + 1
        y = h.sqrt()
        loss = (w * y + w).sum()
        with pytest.raises(
            GradientError,
            match=r"non-finite gradient from backward of `sqrt` "
            rf"at test_anomaly\.py:{at} `y = h\.sqrt\(\)`",
        ) as caught:
            loss.backward()
    assert "input 0 of shape (2,)" in str(caught.value)
    assert "behind it: `multiply`" in str(caught.value)
    assert x.grad is None
    assert w.grad is None  # already known when it stopped, but not deposited
    (x.sqrt() * w).sum().backward()  # outside, infinities pass
    assert values(x.grad) == [float("inf"), 0.25]


def test_anomaly_gives_the_same_gradients(device: str) -> None:
    for hooked in (False, True):
        leaves = [leaf(draw(2, 3, seed=i), device) for i in range(3)]
        calm = [leaf(draw(2, 3, seed=i), device) for i in range(3)]

        def loss(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            h = tensor.concatenate([a * b, b + c]).softmax()
            first, _ = h.split(2)
            return (first * a).sum() + (b * b).sum()

        if hooked:
            for x in (leaves[1], calm[1]):
                x.register_hook(lambda g: g * 2.0)
        for _ in range(2):
            with detect_anomaly():
                loss(*leaves).backward()
            loss(*calm).backward()
        for x, y in zip(leaves, calm, strict=True):
            np.testing.assert_allclose(array(x.grad), array(y.grad), rtol=1e-14)
        assert_nothing_shared(
            {str(i): x.grad for i, x in enumerate(leaves)},
            {f"data {i}": x for i, x in enumerate(leaves)},
        )


def test_anomaly_does_not_accuse_masks(device: str) -> None:
    """-inf put there on purpose: by value, by option, in a constant, and what softmax and logsumexp
    make of it.
    """
    x = leaf(draw(3, 3), device)
    mask = np.triu(np.ones((3, 3), bool), 1)
    infinite = Tensor(np.where(mask, -np.inf, 0.0), device=device)
    with detect_anomaly():
        for scores in (
            x.masked_fill(mask, float("-inf")),
            tensor.where(mask, float("-inf"), x),
            x + infinite,
            x.pad(((0, 0), (0, 1)), value=float("-inf")),
            tensor.concatenate([x, infinite]),
            tensor.maximum(x.masked_fill(mask, float("-inf")), infinite),
        ):
            weights = scores.softmax()
            (weights * weights).sum().backward(retain_graph=True)
            picked = scores.log_softmax().masked_fill(
                Tensor(np.isinf(scores.numpy()), device=device), 0.0
            )
            (picked * picked).sum().backward(retain_graph=True)
            scores.logsumexp().sum().backward()
        everything = x.masked_fill(np.ones((3, 3), bool), float("-inf"))
        everything.softmax().sum().backward()
        tensor.attention(x, x, x, mask=~mask).sum().backward()
        tensor.attention(x, x, x, infinite).sum().backward()
        with pytest.raises(GradientError, match="from `exp`"):
            (x * 0.0 + 1e4).exp()  # an infinity that no input held
        with pytest.raises(GradientError, match="from `subtract`"):
            infinite - infinite  # and NaN in any case
    assert np.isfinite(array(x.grad)).all()


def test_anomaly_outside_a_graph_and_of_one_output_of_several(device: str) -> None:
    constant = Tensor(np.array([0.0, 1.0]), device=device)
    at = line() + 9
    with (
        detect_anomaly(),
        pytest.raises(
            GradientError,
            match=rf"1 of 2 values not finite from `log` at test_anomaly\.py:{at} .*\n"
            r"it was given \(2,\) from 0 to 1; nothing recorded behind it",
        ),
    ):
        constant.log()
    x = leaf([1.0, 2.0], device)
    with detect_anomaly(), pytest.raises(GradientError, match="behind it: leaves only"):
        (x / Tensor(np.array([0.0, 1.0]), device=device)).sum()
    with detect_anomaly():
        assert (constant > 0).tolist() == [False, True]
        assert x.to("int64").tolist() == [1, 2]
        assert Tensor([1.0], dtype="bfloat16", device=device).exp().dtype == tensor.bfloat16
