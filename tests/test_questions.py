"""The ten commands of docs/questions.md, run on a fresh story, print what the page shows. Numbers
may differ.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?s)```console\n\$ (.*?)\n(.*?)```", PAGE)
NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?(e[-+]?\d+)?")


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    start = {"tinygpt": [sys.executable, "-m", "tinygpt"], "python": [sys.executable]}[program]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [*start, *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a story, and with a run that went wrong as the page says."""
    place = tmp_path_factory.mktemp("questions")
    trained = run(place, "tinygpt train --snapshots 0")
    assert trained.returncode == 0, trained.stderr
    (breaking,) = re.findall(r"`(tinygpt train --out runs/broken [^`]+)`", PAGE)
    assert "weights are broken" in run(place, breaking).stderr
    os.utime(place / "runs" / "story-1" / "model.safetensors")  # the run saved last
    return place


def in_words(text: str) -> str:
    """The words, with each number as #: training elsewhere rounds in another way."""
    return " ".join(NUMBER.sub("#", text).split())


def test_there_are_ten() -> None:
    assert len(BLOCKS) == 10


@pytest.mark.parametrize(
    ("command", "printed"), BLOCKS, ids=[command[:40] for command, _ in BLOCKS]
)
def test_the_answer_is_real(folder: Path, command: str, printed: str) -> None:
    done = run(folder, command)
    said, start = in_words(done.stdout + done.stderr), 0
    for part in re.split(r"(?m)^\.\.\.$", printed):
        found = said.find(in_words(part), start)
        assert found >= 0, f"not printed, or not there:\n{part}\n{done.stdout}{done.stderr}"
        start = found + len(in_words(part))
