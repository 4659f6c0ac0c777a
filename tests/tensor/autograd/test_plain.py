"""The plain backward pass equals the fast one bit for bit: over every gradient case, and over a
GPT.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels
from tensor.autograd import plain
from tensor.gradient_cases import CASES, LAYOUTS, Case
from tensor.nn import Module
from tinygpt import GPT, GPTConfig


def same_bits(a: Any, b: Any) -> bool:
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def compare(y: Tensor, leaves: list[Tensor]) -> int:
    """Both passes from a random upstream gradient; how many leaves got one."""
    dy = np.asarray(np.random.default_rng(1).standard_normal(y.shape), dtype=y.dtype)
    expected = plain.gradients(y, dy)
    y.backward(dy)
    for x in leaves:
        assert (x.grad is None) == (x.node not in expected)
        assert x.grad is None or same_bits(x.grad.array, expected[x.node])
    return sum(x.grad is not None for x in leaves)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.op)
def test_every_gradient_case(case: Case) -> None:
    for layout in LAYOUTS.values():
        arrays = [layout(x) for x in case.inputs(0)]
        results = case.call(*(Tensor.from_array(x, requires_grad=True) for x in arrays))
        for index in range(len(results) if isinstance(results, tuple) else 1):
            leaves = [Tensor.from_array(x, requires_grad=True) for x in arrays]
            result = case.call(*leaves)
            y = result[index] if isinstance(result, tuple) else result
            if y.node is not None:
                assert compare(y, leaves)


@pytest.mark.parametrize("off", [False, True], ids=["kernels", "references"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_gpt(off: bool, norm: Any) -> None:
    config = GPTConfig(vocabulary=11, context=8, width=16, heads=2, layers=2, norm=norm)
    model: Module = GPT(config, generator=tensor.Generator(0))
    ids = np.random.default_rng(0).integers(0, 11, (3, 9))
    with kernels.off(*(() if off else ("adamw",))):
        assert compare(model.loss(ids[:, :-1], ids[:, 1:]), list(model.parameters())) == 28


def test_a_result_used_twice_and_an_output_not_used() -> None:
    x = Tensor([[1.0, 2.0, 3.0, 4.0]], requires_grad=True)
    first, _ = x.split(2, axis=1)
    assert compare((first * first + first * x.sum()).sum(), [x]) == 1
