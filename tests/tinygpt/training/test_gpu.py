"""What is known of a GPU by its name, the FLOPs that MFU counts, and where they are shown."""

from __future__ import annotations

import pytest

from tensor.kernels.cuda.graphs import Memory
from tensor.memory.devices import array_module
from tinygpt.config import EncoderDecoderConfig, GPTConfig
from tinygpt.model.sizes import parameter_count
from tinygpt.training import gpu
from tinygpt.training.progress import LiveLine
from tinygpt.training.reading import Moment, Reading
from tinygpt.training.step import StepRecord


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("RTX4090", 165e12),
        ("h200", 989e12),
        ("h200 nvl", 835e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("NVIDIA MIG H200", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_the_peak_follows_from_the_name(name: str, rate: float | None) -> None:
    assert gpu.peak_of(name) == rate


def test_a_name_may_say_that_there_is_less_memory() -> None:
    for name, size in {
        "NVIDIA A100-SXM4-40GB": 40,
        "NVIDIA A100-SXM4-80GB": 80,
        "NVIDIA GH200 480GB": 96,  # of the CPU
        "H200": 141,
    }.items():
        found = gpu.known(name)
        assert found is not None
        assert found.memory == size


def test_the_cpu_has_no_peak() -> None:
    assert gpu.peak("cpu") is None


def test_the_gpu_under_test_has_a_name_and_a_pool(device: str) -> None:
    if device == "cpu":
        pytest.skip("needs a GPU, --device cuda")
    assert gpu.peak(device) == gpu.peak_of(gpu.name(device))
    before = gpu.pool_bytes(device)
    memory = Memory()
    with memory.used():
        array = array_module(device).zeros(1 << 20, "uint8")
    assert gpu.pool_bytes(device) - before == memory.bytes >= array.nbytes


def test_flops_per_token_are_those_of_the_palm_paper() -> None:
    gpt2 = GPTConfig(50257, 1024, 768, 12, 12, bias=False)
    # without biases, a GPT has matrices, the head, positions, and two vectors a norm
    matrices = parameter_count(gpt2) - 1024 * 768 - (2 * 12 + 1) * 2 * 768
    assert gpu.flops_per_token(gpt2) == 6 * matrices + 12 * 12 * 768 * 1024
    pairs = EncoderDecoderConfig(100, 32, 64, 4, 2)
    wider = EncoderDecoderConfig(100, 33, 64, 4, 2)
    assert gpu.flops_per_token(wider) - gpu.flops_per_token(pairs) == 12 * 3 * 2 * 64


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (989e12, "loss 10.9877  630k tok/s  MFU 54%  115.2 GiB  12:42:09 left"),
        (None, "loss 10.9877  630k tok/s  115.2 GiB  12:42:09 left"),
    ],
)
def test_the_live_line_of_a_gpu(
    rate: float | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32,768 tokens in 52 ms: by hand, 630,154 x 855 MFLOP a second. It fits 80 columns."""
    monkeypatch.setattr(gpu, "peak", lambda device: rate)
    monkeypatch.setattr(gpu, "pool_bytes", lambda device: int(115.2 * 2**30))
    monkeypatch.setattr(Reading, "seconds", 0.052)
    line = LiveLine(879_406, GPTConfig(50304, 1024, 768, 12, 12), "cuda")
    drawn: list[tuple[int, int, str]] = []
    monkeypatch.setattr(line, "draw", lambda *given: drawn.append(given))
    line.show(StepRecord(7, 6e-4, 32_768, Reading(Moment("cpu"), 10.98765, 0.5)))
    assert drawn == [(7, 879_406, expected)]
    assert len("879406/879406 ━ " + expected + "   ") <= 80
