"""What the tests of CUDA kernels need."""

from __future__ import annotations

import pytest

from tensor import kernels


@pytest.fixture
def gpu(device: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The GPU under test, with kernels, also where the environment turns them off."""
    if device == "cpu":
        pytest.skip("a CUDA kernel needs a GPU: --device cuda")
    monkeypatch.setattr(kernels, "_DISABLED", False)
    return device
