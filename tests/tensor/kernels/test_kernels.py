"""Kernels: which one is taken and why, and the three ways to turn them off."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import kernels
from tensor.kernels import KERNELS, Kernel, cuda, kernel_for  # noqa: F401 (cuda registers)
from tensor.kernels.cpu import compiled
from tensor.memory.devices import Array
from tensor.ops.op import OPS
from tensor.optim import captured  # noqa: F401 (registers)
from tensor.random import Key

# functions on bare arrays, which kernels may stand in for too
NO_OPS = {
    "adamw", "clipped_adamw", "decode", "generate", "muon", "random_bits", "scale",
    "squared_norm", "training_step",
}  # fmt: skip


def double(x: Array) -> Any:
    """A stand-in for relu that gives itself away."""
    return 2 * x, (lambda dy: 20 * dy,)


def triple(x: Array) -> Any:
    return 3 * x, (lambda dy: 30 * dy,)


@pytest.fixture
def planted(device: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two kernels for relu: the first takes rows of 4 only, the second anything but bfloat16; and
    one for silu.
    """
    place = "cuda" if device.startswith("cuda") else "cpu"
    monkeypatch.setattr(kernels, "_DISABLED", False)
    monkeypatch.setattr(kernels, "_last", {})
    before = {name: KERNELS[name][:] for name in ("relu", "silu")}
    for name in before:
        KERNELS[name].clear()  # the very lists that the ops hold
    kernel_for(
        "relu",
        device=place,
        supports=lambda x: None if x.shape[-1] == 4 else f"last axis {x.shape[-1]} is not 4",
    )(double)
    kernel_for(
        "relu",
        device=place,
        supports=lambda x: "dtype bfloat16" if x.dtype == tensor.bfloat16 else None,
    )(triple)
    kernel_for("silu", device=place, supports=lambda x: None)(double)
    yield
    for name, registered in before.items():
        KERNELS[name][:] = registered


def relu(device: str, *shape: int, dtype: str = "float32") -> float:
    """What relu makes of 1: 1 by the reference, 2 or 3 by a planted kernel."""
    return float(tensor.ones(*shape, dtype=dtype, device=device).relu().numpy().ravel()[0])


def needs_compiled_kernels() -> None:
    if compiled.unavailable():
        pytest.skip(str(compiled.unavailable()))


def row(name: str) -> list[str]:
    """Op, implementation and reason, as `explain` prints them."""
    (line,) = (line for line in kernels.explain().splitlines() if line.split()[0] == name)
    return line.split(maxsplit=2)


# -- choosing


@pytest.mark.usefixtures("planted")
def test_first_kernel_that_supports_the_call_is_taken(device: str) -> None:
    place = "cuda" if device.startswith("cuda") else "cpu"
    assert relu(device, 3, 4) == 2
    assert row("relu") == ["relu", "double", f"{place} kernel"]
    assert relu(device, 4, 3) == 3
    assert row("relu") == ["relu", "triple", f"{place} kernel"]
    assert relu(device, 4, 3, dtype="bfloat16") == 1
    # what each of them says
    assert row("relu") == ["relu", "reference", "last axis 3 is not 4; dtype bfloat16"]


@pytest.mark.usefixtures("planted")
def test_a_kernel_brings_its_own_backward(device: str) -> None:
    x = tensor.ones(4, device=device, requires_grad=True)
    y = x.relu()
    with kernels.off():  # backward belongs to the forward that ran
        y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [20] * 4
    assert x.node is not None
    assert y.node.op == "relu"


def test_kernels_of_other_devices_are_passed_over(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_DISABLED", False)
    place, other = ("cuda", "cpu") if device.startswith("cuda") else ("cpu", "cuda")
    KERNELS["relu"].append(Kernel(other, double, lambda x: None))
    try:
        assert relu(device, 4) == 1
        assert row("relu") == ["relu", "reference", f"no kernel for {place}"]
    finally:
        KERNELS["relu"].pop()


@pytest.mark.usefixtures("planted")
def test_explain_is_a_table() -> None:
    lines = kernels.explain().splitlines()
    lines = lines[: len(lines) - len(kernels.NOTES)]
    assert lines[0].split() == ["op", "implementation", "reason"]
    assert row("silu") == ["silu", "-", "not called yet"]
    assert all(line == line.rstrip() for line in lines)
    start = lines[0].index("implementation")
    assert all(line[start - 1] == " " and line[start] != " " for line in lines)
    assert "exp" not in [line.split()[0] for line in lines]  # ops without kernels are not listed


def test_explain_says_why_an_op_ran_without_its_kernel(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no kernel was asked: fused ops in 16 bits, with a key, under detect_anomaly; and
    where one was, and gave up.
    """
    monkeypatch.setattr(kernels, "_DISABLED", False)
    monkeypatch.setattr(kernels, "_last", {})

    def gives_up(*arrays: Array, **options: Any) -> Any:
        return NotImplemented

    for name in ("multi_head_attention", "relu"):
        KERNELS[name].insert(
            0,
            Kernel(
                "cuda" if device.startswith("cuda") else "cpu",
                gives_up,
                lambda *arrays, **options: None,
            ),
        )
    x = tensor.rand(2, 3, 12, device=device)
    try:
        tensor.multi_head_attention(x, heads=2, causal=True)
        x.relu()
        assert row("multi_head_attention")[1:] == [
            "reference",
            "gives_up met values that it leaves to the composition",
        ]
        assert row("relu")[1:] == [
            "reference",
            "gives_up met values that it leaves to the reference",
        ]
        tensor.multi_head_attention(x.to("bfloat16"), heads=2, causal=True)
        # a kernel on a GPU takes 16 bits
        asked = "gives_up met values that it leaves to the composition"
        not_asked = "dtype bfloat16: each op of the composition goes by float32"
        why = not_asked if device == "cpu" else asked
        assert row("multi_head_attention")[1:] == ["reference", why]
        with tensor.detect_anomaly():
            tensor.multi_head_attention(x, heads=2, causal=True)
        assert row("multi_head_attention")[1:] == [
            "reference",
            "detect_anomaly looks at every op of the composition",
        ]
        with kernels.off():
            tensor.multi_head_attention(x.to("bfloat16"), heads=2, causal=True)
        assert row("multi_head_attention")[1:] == ["reference", "kernels are off"]
    finally:
        for name in ("multi_head_attention", "relu"):
            KERNELS[name].pop(0)


# -- off


@pytest.mark.usefixtures("planted")
def test_off_for_a_stretch_of_code(device: str) -> None:
    with kernels.off():
        assert relu(device, 4) == 1
        assert row("relu") == ["relu", "reference", "kernels are off"]
    assert relu(device, 4) == 2


@pytest.mark.usefixtures("planted")
def test_off_for_one_op(device: str) -> None:
    with kernels.off("relu"):
        assert relu(device, 4) == 1
        assert row("relu") == ["relu", "reference", "this kernel is off"]
        assert tensor.ones(4, device=device).silu().tolist() == [2] * 4
    assert relu(device, 4) == 2
    with pytest.raises(ValueError, match="no op is named 'rely'"):
        kernels.off("relu", "rely")
    with pytest.raises(TypeError, match=r"takes names as text, not \['relu'\]. Here: off\("):
        kernels.off(["relu"])  # type: ignore[arg-type]


@pytest.mark.usefixtures("planted")
def test_off_switches_nest_and_add_up(device: str) -> None:
    silu_off = kernels.off("silu")  # made here, entered there
    with kernels.off("relu"):
        with silu_off:
            assert relu(device, 4) == 1  # an inner switch turns nothing back on
        with kernels.off():
            assert relu(device, 4) == 1
        assert relu(device, 4) == 1
        assert tensor.ones(4, device=device).silu().tolist() == [2] * 4
    assert relu(device, 4) == 2


@pytest.mark.usefixtures("planted")
def test_off_as_a_decorator(device: str) -> None:
    @kernels.off("silu")
    def inner() -> float:
        return relu(device, 4)

    @kernels.off()
    def outer() -> list[float]:
        return [relu(device, 4), inner()]

    assert inner() == 2
    assert outer() == [1, 1]
    assert relu(device, 4) == 2
    with pytest.raises(ZeroDivisionError), kernels.off():
        _ = 1 / 0
    assert relu(device, 4) == 2


@pytest.mark.usefixtures("planted")
def test_off_is_seen_by_one_thread_and_one_task(device: str) -> None:
    found: list[float] = []
    with kernels.off():
        thread = threading.Thread(target=lambda: found.append(relu(device, 4)))
        thread.start()
        thread.join()
    assert found == [2]

    async def without() -> float:
        with kernels.off():
            await asyncio.sleep(0)
            return relu(device, 4)

    async def both() -> list[float]:
        task = asyncio.create_task(without())
        await asyncio.sleep(0)
        return [relu(device, 4), await task]

    assert asyncio.run(both()) == [2, 1]


@pytest.mark.parametrize(
    ("setting", "taken"),
    [
        ("off", "reference"),
        ("0", "reference"),
        ("OFF", "reference"),
        ("on", "gelu_without_tanh"),
        (None, "gelu_without_tanh"),
    ],
)
def test_off_by_the_environment(setting: str | None, taken: str) -> None:
    if taken != "reference":
        needs_compiled_kernels()
    program = "import tensor; tensor.Tensor([1.0]).gelu(); print(tensor.kernels.explain())"
    environment = {
        name: value for name, value in os.environ.items() if name != "TENSOR_KERNELS"
    } | ({} if setting is None else {"TENSOR_KERNELS": setting})
    root = Path(tensor.__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = (line for line in run.stdout.splitlines() if line.startswith("gelu"))
    assert line.split()[1] == taken
    assert ("kernels are off" in line) == (taken == "reference")


# -- the kernels that there are


def test_kernels_of_a_gpu_load_when_cupy_does() -> None:
    """So who has no GPU does not wait for them; `off` knows their names."""
    code = """
import sys, tensor
assert "tensor.kernels.cuda" not in sys.modules
tensor.kernels.off("clipped_adamw")
assert "tensor.kernels.cuda" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("op", ["gelu", "dropout", "embedding", "layer_norm", "cross_entropy"])
def test_kernels_of_a_gpu_take_floats_alone(op: str) -> None:
    x, ids, vector = np.ones((2, 4), np.int8), np.zeros(2, np.int64), np.ones(4, np.int8)
    (kernel,) = [kernel for kernel in KERNELS[op] if kernel.device == "cuda"]
    calls: dict[str, Any] = {
        "gelu": lambda: kernel.supports(x),
        "dropout": lambda: kernel.supports(x, 0.5, key=Key()),
        "embedding": lambda: kernel.supports(ids, x),
        "layer_norm": lambda: kernel.supports(x, vector, vector),
        "cross_entropy": lambda: kernel.supports(x, ids),
    }
    assert "int8" in calls[op]()


def test_every_kernel_stands_in_for_an_op_or_a_function_on_arrays() -> None:
    assert {name for name, registered in KERNELS.items() if registered} - set(OPS) == NO_OPS
    assert {kernel.device for registered in KERNELS.values() for kernel in registered} == {
        "cpu",
        "cuda",
    }
    assert "reference" not in {
        kernel.function.__name__ for registered in KERNELS.values() for kernel in registered
    }
