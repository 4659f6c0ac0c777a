"""What a checkpoint refuses: memory written before backward, a function that changes, graphs that
are gone, numbers that are not finite.
"""

from __future__ import annotations

import numpy as np
import pytest

from tensor import (
    Tensor,
    attention,
    checkpoint,
    detect_anomaly,
    multi_head_attention,
    nn,
    no_grad,
)
from tensor.errors import GradientError, GraphError, MutationError
from tensor.optim import AdamW
from tests.helpers.kernel_runs import draw


@pytest.mark.parametrize("written", ["x", "h", "w", "bias", "buffer", "numpy"])
def test_bug_21_what_it_reads_may_not_be_written(written: str, device: str) -> None:
    """Also where the ops inside keep no array: the second run would read other values. Nothing is
    deposited.
    """
    x, w, bias = (Tensor(draw(4, 4, seed=i), device=device, requires_grad=True) for i in range(3))
    buffer, plain_numpy = Tensor(draw(4, 4, seed=5), device=device), Tensor(draw(4, 4, seed=6))
    if device != "cpu" and written == "numpy":
        pytest.skip("a GPU's memory has no window in NumPy")
    window = plain_numpy.numpy()
    h = Tensor(draw(4, 4, seed=7), device=device)
    y = checkpoint(
        lambda x, h: x @ w + bias + buffer + h + (plain_numpy if device == "cpu" else 0), x, h
    ).sum()
    with no_grad():
        if written == "numpy":
            window[0] = 9
        else:
            {"x": x, "h": h, "w": w, "bias": bias, "buffer": buffer}[written][1:2] = 5.0
    with pytest.raises(MutationError, match=r"`checkpoint` at test_recompute_refused\.py"):
        y.backward()
    assert x.grad is w.grad is bias.grad is None


@pytest.mark.parametrize("heads", [None, 2])
def test_a_mask_that_it_reads_may_not_be_written(heads: int | None, device: str) -> None:
    """A mask is an option of an op, or the composition of an op gives it on as an option. The
    second run would let tokens see others than the first run.
    """
    x = Tensor(draw(2, 3, 12), dtype="float64", device=device, requires_grad=True)
    mask = Tensor(np.array([True, True, False]), device=device)

    def seen(x: Tensor) -> Tensor:
        if heads is None:
            return attention(x, x, x, mask=mask)
        return multi_head_attention(x, None, mask, heads=heads)

    y = checkpoint(seen, x).sum()
    mask[...] = True
    with pytest.raises(MutationError):
        y.backward()
    assert x.grad is None


def test_a_step_between_forward_and_backward_is_noticed(device: str) -> None:
    layer = nn.Linear(8, 8).to(device=device)
    optimizer = AdamW(layer, lr=0.1)
    x = Tensor(draw(2, 4, 8), device=device)
    layer(x).sum().backward()
    y = checkpoint(layer, x).sum()
    optimizer.step()
    with pytest.raises(MutationError):
        y.backward()


def test_a_function_that_changes_is_noticed(device: str) -> None:
    x, other = (
        Tensor([1.0], device=device, requires_grad=True),
        Tensor([1.0], device=device, requires_grad=True),
    )
    uses = iter([x, other])
    y = checkpoint(lambda x: x * next(uses), x)
    with pytest.raises(
        GraphError,
        match=r"checkpoint at test_recompute_refused.py:\d+ .* "
        "did something else when it ran again",
    ):
        y.backward(Tensor([1.0], device=device))
    with pytest.raises(TypeError, match="must return a tensor or a tuple of tensors, not list"):
        checkpoint(lambda x: [x], x)
    with pytest.raises(ZeroDivisionError):
        checkpoint(lambda x: x * (1 // 0), x)
    assert (x * 2).node is not None


def test_a_leaf_that_leaves_the_graph_is_noticed(device: str) -> None:
    """The second run would know nothing of it, and its gradient would be lost."""
    x, w = (Tensor(draw(3, seed=i), device=device, requires_grad=True) for i in range(2))
    for frozen in ([x], [x, w]):
        y = checkpoint(lambda x: x * w, x)
        for leaf in frozen:
            leaf.requires_grad = False
        with pytest.raises(GraphError, match="did something else when it ran again"):
            y.sum().backward()
        for leaf in frozen:
            leaf.requires_grad = True


def test_outputs_are_part_of_the_graph(device: str) -> None:
    """Also one that is a view of the input, or the input itself: written to, it would change what
    backward reads.
    """
    x = Tensor(draw(4), device=device, requires_grad=True)
    h = x * 2
    for y in (
        checkpoint(lambda h: h * 2, h),
        checkpoint(lambda h: h.view(2, 2), h),
        checkpoint(lambda h: h, h),
    ):
        with pytest.raises(MutationError):
            y[...] = 1.0
        x.grad = None
        (y * y).sum().backward(retain_graph=True)
        assert x.grad is not None
    assert checkpoint(lambda h: h[1:3], h).storage is h.storage


def test_anomalies_are_found_inside(device: str) -> None:
    x = Tensor([0.0], device=device, requires_grad=True)
    with np.errstate(all="ignore"):
        y = checkpoint(lambda x: (x * 1.0).sqrt(), x)
        with (
            detect_anomaly(),
            pytest.raises(GradientError, match="non-finite gradient from backward of `sqrt`"),
        ):
            y.backward(Tensor([1.0], device=device))
        assert x.grad is None
        with detect_anomaly(), pytest.raises(GradientError, match="values not finite from `log`"):
            checkpoint(lambda x: x.log() * 0, x - 1)


def test_freed_graphs_behind_it(device: str) -> None:
    x = Tensor(draw(3), device=device, requires_grad=True)
    h = x.exp()
    y = checkpoint(lambda h: h * h, h).sum()
    h.sum().backward()
    with pytest.raises(GraphError, match=r"`exp`.* a second time"):
        y.backward()
