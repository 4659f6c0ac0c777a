"""glibc's thresholds: raised where there is a glibc, left alone where asked."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tensor.memory.freed import keep_freed_memory

LOOK = "from tensor.memory.freed import keep_freed_memory; print(keep_freed_memory())"


@pytest.mark.parametrize(
    "variables", [{"TENSOR_KEEP_MEMORY": "off"}, {"MALLOC_TRIM_THRESHOLD_": "1000000"}]
)
def test_it_can_be_told_not_to(variables: dict[str, str]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", LOOK],
        env={**os.environ, "PYTHONPATH": os.getcwd(), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "False"


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_freed_memory_is_reused() -> None:
    """Taking 64 MB again faults no pages anew: without the thresholds each round costs 16,384
    faults.
    """
    program = (
        "import resource, numpy as np, tensor\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(3): np.ones(1 << 23)\n"
        "before = faults()\n"
        "for _ in range(10): np.ones(1 << 23)\n"
        "print(faults() - before)"
    )
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "TENSOR_KEEP"))
    }
    counts = []
    for asked in ("on", "off"):
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={**environment, "PYTHONPATH": os.getcwd(), "TENSOR_KEEP_MEMORY": asked},
            capture_output=True,
            text=True,
            check=True,
        )
        counts.append(int(run.stdout))
    if not keep_freed_memory():
        pytest.skip("no glibc here")
    assert counts[0] < counts[1] / 10
