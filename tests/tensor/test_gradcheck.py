"""The gradients of all ops, and that the check itself would notice wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels
from tensor.errors import DTypeError, GradientError
from tensor.gradcheck import check_case, gradcheck, main
from tensor.gradient_cases import CASES, LAYOUTS, WITHOUT_GRADIENT, Case
from tensor.ops.op import OPS

BY_OP: dict[str, list[Case]] = {}
for _case in CASES:
    BY_OP.setdefault(_case.op, []).append(_case)


def test_every_op_has_a_gradient_case() -> None:
    assert set(OPS) == set(BY_OP) | WITHOUT_GRADIENT
    assert not set(BY_OP) & WITHOUT_GRADIENT


@pytest.mark.parametrize("name", sorted(BY_OP))
def test_gradients_in_all_layouts(name: str, device: str) -> None:
    for case in BY_OP[name]:
        for layout in LAYOUTS:
            if case.repeats or layout != "expanded":
                check_case(case, layout, device)


@pytest.mark.parametrize("name", sorted(BY_OP))
def test_gradients_of_two_consumers(name: str, device: str) -> None:
    """Each input also goes into a second use, so that gradients must be added and not overwritten
    or shared.
    """
    case = BY_OP[name][0]

    def twice(*inputs: Tensor) -> Any:
        y = case.call(*inputs)
        first = y[0] if isinstance(y, tuple) else y
        return (first * first).sum() + sum((x * x * 0.5).sum() for x in inputs)

    gradcheck(twice, [Tensor(x, device=device) for x in case.inputs(1)])


# -- negative controls: a planted wrong rule must be caught

CORRUPTIONS = {
    "zero": lambda dx: dx * 0,
    "scaled": lambda dx: dx * (1 + 1e-4),
    "sign": lambda dx: -dx,
    "transposed": lambda dx: (
        dx.swapaxes(-1, -2).copy()
        if dx.ndim > 1 and dx.shape[-1] == dx.shape[-2]
        else dx[::-1].copy()
        if dx.ndim
        else -dx
    ),
}
SQUARE = {
    "softmax": (lambda x: tensor.softmax(x), [(4, 4)]),
    "log_softmax": (lambda x: tensor.log_softmax(x), [(4, 4)]),
    "layer_norm": (tensor.layer_norm, [(4, 4), (4,), (4,)]),
    "matmul": (tensor.matmul, [(4, 4), (4, 4)]),
    "multiply": (tensor.multiply, [(4, 4), (4, 4)]),
    "tanh": (tensor.tanh, [(4, 4)]),
    "gelu": (tensor.gelu, [(4, 4)]),
    "logsumexp": (tensor.logsumexp, [(4, 4)]),
    "cross_entropy": (lambda x: tensor.cross_entropy(x, [0, 3, 1, 1]), [(4, 4)]),
    "attention": (lambda q, k, v: tensor.attention(q, k, v, causal=True), [(4, 4), (4, 4), (4, 4)]),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("name", SQUARE)
def test_wrong_rules_are_caught(
    name: str, corruption: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, shapes = SQUARE[name]
    reference, corrupt = OPS[name].reference, CORRUPTIONS[corruption]  # type: ignore[attr-defined]

    def wrong(*arrays: Any, **options: Any) -> Any:
        y, backward = reference(*arrays, **options)
        if isinstance(backward, tuple):
            return y, tuple(
                None if rule is None else (lambda dy, rule=rule: corrupt(rule(dy)))
                for rule in backward
            )
        return y, lambda *dys: tuple(None if dx is None else corrupt(dx) for dx in backward(*dys))

    inputs = [
        Tensor(np.random.default_rng(3).standard_normal(shape), device=device) for shape in shapes
    ]
    with kernels.off():
        gradcheck(call, inputs)  # the right rule passes
    monkeypatch.setattr(kernels, "_DISABLED", False)
    planted = kernels.Kernel("cuda" if device != "cpu" else "cpu", wrong, lambda *a, **o: None)
    monkeypatch.setitem(kernels.KERNELS, name, kernels.KERNELS[name])
    kernels.KERNELS[name].insert(0, planted)
    try:
        with pytest.raises(GradientError, match="gradient of input"):
            gradcheck(call, inputs)
    finally:
        kernels.KERNELS[name].remove(planted)


# -- the function itself


def test_error_names_input_index_and_both_numbers() -> None:
    def function(a: Tensor, b: Tensor) -> Tensor:
        # part of what depends on a and b is hidden from the graph
        return (a * b.detach() + b).sum() + (b * (a.detach() * 1e-3)).sum()

    with pytest.raises(
        GradientError,
        match=r"gradient of input 0 at index \(\d, \d\): "
        r"backward gives [-\d.e]+, central differences [-\d.e]+",
    ):
        gradcheck(function, [np.arange(1.0, 7.0).reshape(2, 3), np.ones((2, 3))])


def test_large_inputs_are_checked_along_directions() -> None:
    assert (
        gradcheck(lambda x: (x * x).tanh(), [np.random.default_rng(0).standard_normal((40, 50))])
        < 1e-6
    )
    with pytest.raises(GradientError, match="direction"):
        gradcheck(lambda x: x * x.detach(), [np.random.default_rng(0).standard_normal((40, 50))])


def test_only_float64_can_be_checked() -> None:
    with pytest.raises(DTypeError, match="float64"):
        gradcheck(tensor.exp, [np.zeros(3, np.float32)])


def test_nan_is_never_a_pass() -> None:
    with pytest.raises(GradientError):
        gradcheck(lambda x: x * float("nan"), [np.ones(3)])


def test_integer_inputs_are_passed_through() -> None:
    gradcheck(
        lambda ids, w: tensor.embedding(ids, w),
        [np.array([0, 2, 0]), np.random.default_rng(0).standard_normal((3, 2))],
    )


def test_several_outputs_and_unused_ones() -> None:
    gradcheck(lambda x: x.split(2), [np.random.default_rng(0).standard_normal((5, 2))])
    gradcheck(lambda x: x.split(2)[0], [np.random.default_rng(0).standard_normal((5, 2))])


def test_command_reports_and_exits(capsys: pytest.CaptureFixture[str], device: str) -> None:
    assert main(["softmax", "argmax", "--device", device]) == 0
    assert "0 ops failed" in capsys.readouterr().out
    assert main(["sofmax"]) == 2
    assert "no op is named 'sofmax'" in capsys.readouterr().err


def test_one_tensor_needs_no_list() -> None:
    assert gradcheck(lambda x: x * x, Tensor([1.0, 2.0], dtype="float64")) < 1e-8
