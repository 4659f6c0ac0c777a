"""The programs that check a training on a GPU, tried on the CPU."""

from __future__ import annotations

import re

import pytest

from tensor.kernels.cuda.launch import FOLDER, Source
from tests.faults import cuda_determinism, cuda_sanitizer
from tinygpt import GPTConfig


def test_equal_runs_have_the_same_bits_and_others_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_determinism, "SHAPE", GPTConfig(50, 16, 32, 2, 1, dropout=0.1))
    for attention in ("by hand", "readable"):
        assert cuda_determinism.check("cpu", 2, attention) == 0
    run = cuda_determinism.losses("cpu", 2, 1)
    losses, state = run
    weights = {name: x + 0 for name, x in state["weights"].items()}
    weights["final_norm.bias"].view("uint16")[0] ^= 1
    assert cuda_determinism.differences(run, run) == []
    changed = losses, {**state, "weights": weights}
    assert cuda_determinism.differences(run, changed) == ["final_norm.bias"]


def test_every_kernel_of_a_cu_file_must_be_launched() -> None:
    files = sorted(FOLDER.rglob("*.cu*"))
    assert cuda_sanitizer.declared() == {
        name for path in files for name in Source(str(path.relative_to(FOLDER))).parameters
    }
    text = "".join(path.read_text() for path in files)
    assert len(cuda_sanitizer.declared()) == len(re.findall(r"^KERNEL\b", text, re.MULTILINE))
