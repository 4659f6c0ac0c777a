"""Folders to run commands in, and the libraries that are oracles."""

from __future__ import annotations

import json
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.browser import chromium, look_page, opened, tab  # noqa: F401 (fixtures)
from tests.helpers.program import PROGRAM, TINY, environment
from tinygpt.__main__ import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small run in it."""
    folder = tmp_path_factory.mktemp("trained")
    done = subprocess.run(
        [*PROGRAM, "train", *TINY, "--steps", "3"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def reversing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned to reverse five letters."""
    folder, rng = tmp_path_factory.mktemp("reversing"), np.random.default_rng(0)
    texts = ["".join(letters) for letters in rng.choice(list("abcdef"), (2000, 5))]
    (folder / "pairs.txt").write_text("".join(f"{text}\t{text[::-1]}\n" for text in texts))
    shape = "--width 32 --heads 2 --layers 1 --context 8 --positions learned --norm pre"
    how = "--steps 500 --batch 32 --lr 1e-2 --warmup 10 --validation 0 --snapshots 3"
    files = ["--pairs", str(folder / "pairs.txt"), "--out", str(folder / "run")]
    assert main(["train", *files, *shape.split(), *how.split()]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of bytes that has learned to answer: say red -> red. Beside it `base`, which it began
    with, and its examples.
    """
    folder = tmp_path_factory.mktemp("answering")
    words = ["one", "two", "six", "ten", "red", "blue", "green", "cat", "dog", "owl"]
    lines = [{"instruction": f"say {word}", "answer": word} for word in words]
    lines += [line | {"input": "as it is"} for line in lines]
    (folder / "text.txt").write_text(f"{' '.join(words)}\n" * 40)
    (folder / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    base, run, quick = str(folder / "base"), str(folder / "run"), ["--validation", "0"]
    shape = "--tokenizer byte --context 48 --width 16 --heads 2 --layers 1 --snapshots 0"
    text = ["--text", str(folder / "text.txt"), "--steps", "2", "--out", base]
    assert main(["train", *shape.split(), *text, *quick]) == 0
    how = "--steps 200 --batch 4 --lr 0.01 --snapshots 2 --dropout 0"
    examples = ["--data", str(folder / "examples.jsonl"), "--out", run]
    assert main(["finetune", base, *how.split(), *examples, *quick]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def preferring(answering: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with preferences.jsonl, and runs that began with `answering`: `reward`, which has
    learned that the word of the question is better than another, and `ppo` and `dpo` after two of
    four steps.
    """
    folder = tmp_path_factory.mktemp("preferring")
    words = ["one", "two", "six", "ten", "red", "blue", "green", "cat", "dog", "owl"]
    pairs = [(better, worse) for better in words for worse in words if better != worse]
    lines = [{"prompt": f"say {a}", "better": a, "worse": b} for a, b in pairs]
    (folder / "preferences.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = ["--data", str(folder / "preferences.jsonl"), "--validation", "0.2", "--batch", "8"]
    reward, some = str(folder / "reward"), ["--steps", "4", "--until", "2", "--length", "6"]
    quick = ["--snapshots", "2", "--out"]
    how = ["--steps", "60", "--lr", "0.01"]
    assert main(["reward", str(answering), *data, *how, *quick, reward]) == 0
    for method in ("ppo", "dpo"):
        by = ["--method", method] + ["--reward", reward] * (method == "ppo")
        out = str(folder / method)
        assert main(["align", str(answering), *data, *by, *some, *quick, out]) == 0
    return folder


@pytest.fixture
def run(trained: Path, here: Path) -> Path:
    """A copy of that run, to be damaged."""
    return Path(shutil.copytree(trained / "runs", here / "runs")) / "story-1"


@pytest.fixture(scope="module")
def torch() -> Iterator[Any]:
    """PyTorch on one thread: at this size its threads spend their time waiting for each other."""
    module = pytest.importorskip("torch")
    threads = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(threads)


@pytest.fixture(scope="module")
def transformers(torch: Any) -> Any:
    """The library, on one thread, silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("transformers")
    module.logging.set_verbosity_error()
    module.logging.disable_progress_bar()
    return module
