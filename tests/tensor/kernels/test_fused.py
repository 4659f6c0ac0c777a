"""An op with a kernel is the same op with kernels off, in all that a user can ask of it: values,
shapes, dtypes, flags, hooks, and the gradients of inputs, outputs and outputs inside other outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import product
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, grad, kernels
from tensor.kernels import KERNELS
from tests.helpers.kernel_runs import compiled_kernels, draw, taken
from tests.tensor.kernels.test_edges import CALLS, leaves, outputs, upstream
from tests.tensor.kernels.test_kernels import NO_OPS

__all__ = ["compiled_kernels"]
pytestmark = pytest.mark.usefixtures("compiled_kernels")


def seen(name: str, learns: Sequence[bool], used: Sequence[bool], scale: float | None) -> list[Any]:
    """All that can be asked of a call of which these inputs learn and these outputs are used, with
    a hook on each tensor that multiplies its gradient.   scale: by which number; None for no hooks.
    """
    xs = leaves(name)
    for x, value in zip(xs, learns, strict=True):
        x.requires_grad = value
    ys = outputs(name, xs)
    found: list[Any] = [(y.requires_grad, y.is_leaf, y.shape, y.dtype) for y in ys]
    terms = [y * dy for y, dy, use in zip(ys, upstream(ys), used, strict=True) if use]
    loss = sum((term.sum() for term in terms), Tensor(0.0))
    if not loss.requires_grad:
        return [*found, *(y.numpy() for y in ys)]
    asked = [x for x in (*xs, *ys) if x.requires_grad]
    found += grad(loss, asked, retain_graph=True)
    told: list[Any] = [None] * len(asked)

    def hook(i: int) -> Any:
        def multiplied(dx: Tensor) -> Tensor:
            told[i] = dx
            return dx * scale

        return multiplied

    if scale is not None:
        for i, x in enumerate(asked):
            x.register_hook(hook(i))
    for y in ys:
        if y.requires_grad:
            y.retain_grad()
    loss.backward()
    found += [*told, *(x.grad for x in asked), *ys]
    return [x.detach().numpy() if isinstance(x, Tensor) else x for x in found]


def test_every_op_with_a_kernel_is_compared() -> None:
    with_kernels = {name for name, found in KERNELS.items() if "cpu" in {k.device for k in found}}
    assert with_kernels - NO_OPS == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_a_kernel_shows_what_its_composition_shows(name: str) -> None:
    inputs, results = len(leaves(name)), len(outputs(name, leaves(name)))
    for learns in product([True, False], repeat=inputs):
        for used in product([True, False], repeat=results):
            for scale in (None, 2.0):
                a = seen(name, learns, used, scale)
                assert taken(name)[1] == "cpu kernel"
                with kernels.off():
                    b = seen(name, learns, used, scale)
                assert len(a) == len(b)
                for x, y in zip(a, b, strict=True):
                    if isinstance(y, np.ndarray):
                        assert x is not None
                        assert (x.shape, x.dtype) == (y.shape, y.dtype)
                        scale_of = max(1.0, np.abs(y).max())
                        np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * scale_of)
                    else:
                        assert x == y, (learns, used)


@pytest.mark.parametrize("how", [nullcontext, kernels.off])
def test_a_hook_on_the_residual_stream_sees_its_whole_gradient(how: Any) -> None:
    """What comes through the norm, and what comes for the sum itself."""
    xs, told = leaves("residual_layer_norm"), list[Tensor]()
    with how():
        s, n = tensor.residual_layer_norm(*xs)
    weights = Tensor(draw(*n.shape, seed=9))
    (through,) = grad((n * weights).sum(), s, retain_graph=True)
    s.register_hook(told.append)
    ((n * weights).sum() + (s * 3.0).sum()).backward()
    assert through is not None
    np.testing.assert_allclose(told[0].numpy(), through.numpy() + 3.0, rtol=1e-6)
    assert xs[0].grad is not None
    assert np.array_equal(xs[0].grad.numpy(), told[0].numpy())


def test_ids_and_masks_that_are_no_tensors_keep_the_kernel() -> None:
    """Lists and arrays, and options that are NumPy's scalars. `linear_cross_entropy` would else
    make the logits of a whole batch on a GPU.
    """
    ids = [[0, 1, 2], [0, 1, 3]]
    x, tokens, q = (Tensor(draw(*shape)) for shape in ((2, 3, 6), (4, 6), (2, 3, 12)))
    mask = np.tri(3, dtype=bool)
    for given in (ids, np.array(ids)):
        y = tensor.positional_embedding(given, tokens, tokens, scale=np.float32(2))
        assert taken("positional_embedding")[0] == "positional_embedding_by_rows"
        assert np.array_equal(
            y, tensor.positional_embedding(Tensor(ids), tokens, tokens, scale=2.0)
        )
        tensor.linear_cross_entropy(x, tokens, given, transposed=True, ignore_index=np.int64(1))
        assert taken("linear_cross_entropy") == ("reference", "no kernel for cpu")
    for given in (mask, mask.tolist()):
        tensor.multi_head_attention(q, mask=given, heads=2)
        assert taken("multi_head_attention")[0] == "attention_by_heads"
