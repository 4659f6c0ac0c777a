"""`tinygpt doctor`: with a GPU and without, with broken libraries, without a compiler."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tensor import kernels
from tensor.kernels.cpu import built, compiled
from tensor.kernels.cuda import cudnn
from tensor.memory import devices
from tests.helpers.program import refused
from tinygpt.__main__ import main
from tinygpt.commands import doctor

pytestmark = pytest.mark.usefixtures("here")
Report = Callable[..., tuple[int, str]]


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Report]:
    """The exit code and the report, in lines of at most 80 characters, then with spaces between all
    words.
    """
    monkeypatch.setattr(kernels, "_DISABLED", False)
    monkeypatch.setattr(kernels, "_last", {})
    monkeypatch.setattr(kernels, "NOTES", [])
    devices.cupy.cache_clear()

    def printed(*arguments: str) -> tuple[int, str]:
        code = main(["doctor", *arguments])
        out, err = capsys.readouterr()
        assert err == ""
        assert max(map(len, out.splitlines())) <= 80
        return code, " ".join(out.split())

    yield printed
    devices.cupy.cache_clear()


class Missing:
    """A finder of modules that finds no CuPy, wherever it is."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "cupy":
            raise ModuleNotFoundError(name=name)


def stand_in(monkeypatch: pytest.MonkeyPatch, count: int, version: str = "14.2.0") -> None:
    """A CuPy that finds so many GPUs, and can do nothing with them."""
    cupy = ModuleType("cupy")
    facts = {"name": b"Test GPU", "totalGlobalMem": 3 << 30, "major": 9, "minor": 0}
    cupy.__version__ = version  # type: ignore[attr-defined]
    cupy.ndarray = type("ndarray", (), {})  # type: ignore[attr-defined]
    cupy.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
        runtime=SimpleNamespace(
            getDeviceCount=lambda: count,
            getDeviceProperties=lambda number: facts,
            driverGetVersion=lambda: 13010,
            runtimeGetVersion=lambda: 13000,
        ),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)


def test_without_cupy(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    code, text = report()
    assert code == 0
    assert "Python 3." in text
    assert "openblas" in text
    assert "needs CuPy, which is not installed: install the extra" in text
    assert "pip install -e '.[cuda13]'" in text
    assert "a GPT in float32 on cpu kernels " in text
    assert text.endswith("linear_cross_entropy: as usual, their kernels are for a GPU")
    assert report("--device", "cuda")[0] == 1
    assert report("--device", "cpu")[0] == 0


def test_with_a_broken_cupy(
    report: Report,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(here)
    for content, said in {
        "raise ImportError('\\n===\\nlibcuda.so.1: not there')": "=== libcuda.so.1: not there",
        "import nowhere_to_be_found": "No module named 'nowhere_to_be_found'",
        "": "module 'cupy' has no attribute '__version__'",
    }.items():
        (here / "cupy.py").write_text(content)
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
        devices.cupy.cache_clear()
        code, text = report("--device", "cuda:1")
        assert code == 1
        assert f"device 'cuda' needs CuPy, which fails to load ({said}): install" in text
        for command in ("plan", "train", "sample"):
            says = f"device 'cuda' needs CuPy, which fails to load ({said}): install"
            refused(capsys, command, "--device", "cuda", says=says)
        devices._is_of_cupy.cache_clear()
        assert not devices.is_cuda("no array")


def test_with_an_old_cupy_and_one_gpu(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, count=1, version="9.0.0")
    code, text = report("--device", "cuda")
    assert code == 1
    assert "device 'cuda' needs CuPy 14, and 9.0.0 is here: install the extra" in text
    devices.cupy.cache_clear()
    stand_in(monkeypatch, count=1)
    assert "'cuda:1': this machine has 1 GPU, cuda:0 " in report("--device", "cuda:1")[1]


def test_without_a_gpu(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, count=0)
    code, text = report()
    assert code == 0
    assert "GPU none to use: device 'cuda': this machine has no GPU" in text


def test_what_a_gpu_runs(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, count=1)
    monkeypatch.setattr(cudnn, "frontend", lambda: "no package: pip install it")

    def took(device: str, dtype: str) -> dict[str, tuple[str, str]]:
        if dtype == "bfloat16":
            kernels.NOTES.append("cuDNN adds in no fixed order")
        taken = {"adamw": ("adamw", "cuda kernel"), "gelu": ("reference", "no kernel for cuda")}
        return taken | {"relu": ("reference", "no kernel for cuda")}

    monkeypatch.setattr(doctor, "step_of", took)
    code, text = report("--device", "cuda")
    assert code == 0
    assert "CuPy 14.2.0 GPU Test GPU, 3.0 GiB, compute capability 9.0" in text
    assert "CUDA driver for 13.1, runtime 13.0, compiler NVRTC 13.0" in text
    assert "cuDNN no package: pip install it; without it attention is by hand" in text
    assert "TF32 off" in text
    assert "`tinygpt train --deterministic` takes attention by hand" in text
    assert "bfloat16 on cuda kernels adamw references gelu, relu: no kernel for cuda" in text
    assert text.endswith("note cuDNN adds in no fixed order")

    def breaks(device: str, dtype: str) -> Any:
        if device != "cpu":
            raise RuntimeError("nvrtc: error: invalid value for --gpu-architecture")
        return {}

    monkeypatch.setattr(doctor, "step_of", breaks)
    code, text = report()
    assert code == 1
    assert text.count("fails RuntimeError: nvrtc: error: invalid value") == 2


def test_without_a_compiler(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built.shutil, "which", lambda name: None)
    monkeypatch.setattr(compiled, "unavailable", lambda: "no C compiler found")
    code, text = report("--device", "cpu")
    assert code == 0
    assert "compiler no C compiler found (cc, gcc, clang): install one" in text
    assert "kernels none references adamw, cross_entropy," in text
    assert "CuPy" not in text


def test_a_library_that_fails_is_one_line(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> str:
        raise OSError("no such device")

    monkeypatch.setattr(doctor, "_blas", fails)
    code, text = report("--device", "cpu")
    assert code == 0
    assert "with unknown (no such device)" in text


def test_a_device_that_has_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("gpu", ""):
        says = f"device {name!r}: choose cpu, cuda or cuda:N"
        refused(capsys, "doctor", "--device", name, says=says)


def test_on_this_gpu(report: Report, device: str) -> None:
    if device == "cpu":
        pytest.skip("needs a GPU")
    code, text = report("--device", device)
    assert code == 0
    assert "fails" not in text
    assert "unknown" not in text
    assert f"a GPT in bfloat16 on {device} kernels " in text
    assert "layer_norm" in text
