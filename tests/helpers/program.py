"""Running the command line as a user does, and what is checked each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

import tinygpt
from tinygpt.__main__ import main
from tinygpt.runs import checkpoint
from tinygpt.runs import run as runs
from tinygpt.runs.run import Run
from tinygpt.tokenizers import Tokenizer

PROGRAM = [sys.executable, "-m", "tinygpt"]
TINY = ["--width", "8", "--heads", "2", "--layers", "1", "--context", "8", "--batch", "4"]


def environment(**more: str) -> dict[str, str]:
    """The variables of a process of its own that finds this very package."""
    return {
        **os.environ,
        "PYTHONPATH": str(Path(tinygpt.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
        **more,
    }


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """The program as a process, its output to be read."""
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def losses(run: Path) -> list[Any]:
    """The records in a run's metrics."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def sampled(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `tinygpt sample` prints."""
    assert main(["sample", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, says: str) -> None:
    """Exit code 2, one or two lines on stderr, nothing on stdout, the same files as before."""
    before = contents()
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tinygpt: error: ")
    assert err.count("\n") in (1, 2)
    assert "Traceback" not in err
    assert says in err
    assert contents() == before


def contents() -> dict[str, bytes | None]:
    """All files below this folder, which is the test's own."""
    assert not Path("pyproject.toml").exists(), "a test that looks at all files needs `here`"
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


def created(run: Run, tokenizer: Tokenizer) -> Run:
    """The run, in a folder of its own that nobody holds."""
    with runs.create(run, tokenizer) as (made, _):
        return made


def put_weights(run: Path, weights: dict[str, Any], name: str = "model.safetensors") -> None:
    """These arrays as a file of the run's checkpoint."""
    save_file(weights, run / name)
    reseal(run, name)


def reseal(run: Path, name: str) -> None:
    """Let state.json say that this file of the checkpoint is as it should be."""
    path = run / "state.json"
    state = json.loads(path.read_text())
    state["files"][name] = asdict(checkpoint.Seal.of((run / name).read_bytes()))
    path.write_text(json.dumps(state))
