"""One owner for a run folder, from its making on; a folder that is renamed or removed while it
trains.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tensor.optim import clip_gradients
from tests.helpers.program import PROGRAM, TINY, created, environment, refused, sampled
from tests.tinygpt.training.test_resume import checkpoint_of, noted
from tinygpt import CharacterTokenizer, GPTConfig, TrainConfig, story
from tinygpt.__main__ import main
from tinygpt.errors import InputError
from tinygpt.runs import run as runs
from tinygpt.runs.ownership import Owner
from tinygpt.runs.run import Run

pytest.importorskip("fcntl")
pytestmark = pytest.mark.usefixtures("here")
CHOICES = [*TINY, "--steps", "12", "--evaluate", "3", "--text", "text.txt", "--validation", "0.3"]
TOKENIZER = CharacterTokenizer("The cat.")
RUN = Run(GPTConfig(TOKENIZER.size, 4, 8, 2, 1), TrainConfig(), "The", folder=Path("one"))


@pytest.fixture(autouse=True)
def text(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # takes longer than the steps
    monkeypatch.setattr("tinygpt.training.loop.Training.draw", lambda training: True)
    (here / "text.txt").write_text(story(), encoding="utf-8")


# -- two trainings


def test_bug_85_the_folder_is_ours_before_it_is_looked_into(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another training finds it made and empty, and is refused; the folder of the first stays as it
    is.
    """
    with runs.create(RUN, TOKENIZER) as (run, _):
        (run.folder / runs.CONFIG).unlink()
        (run.folder / runs.TOKENIZER).unlink()  # as it is just after it was made
        with (
            pytest.raises(InputError, match="one is being trained by another process"),
            runs.create(RUN, TOKENIZER),
        ):
            pass
        assert os.listdir("one") == []
    with runs.create(RUN, TOKENIZER):
        pass
    with pytest.raises(InputError, match="is not empty"), runs.create(RUN, TOKENIZER):
        pass


def test_bug_85_files_that_are_replaced_do_not_free_it() -> None:
    run = created(RUN, TOKENIZER)
    with Owner(run.folder):
        for name in (runs.CONFIG, runs.TOKENIZER):
            shutil.copy(run.folder / name, "copy")
            os.replace("copy", run.folder / name)
        with pytest.raises(InputError, match="by another process"):
            Owner(run.folder)


def test_bug_85_two_that_start_together(capsys: pytest.CaptureFixture[str]) -> None:
    """One trains, the other is refused, and the run loads."""
    command = [*PROGRAM, "train", *CHOICES, "--out", "runs/one"]
    both = [
        subprocess.Popen(
            command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    (refusal,) = [err for err, process in zip(said, both, strict=True) if process.returncode]
    assert "is being trained by another process" in refusal or "is not empty" in refusal
    assert sampled(capsys, "one", "--length", "3")
    assert [record["step"] for record in noted("one") if "lr" in record] == list(range(1, 13))


@pytest.mark.skipif(os.name == "nt", reason="links need rights")
def test_bug_85_a_copy_of_links_is_a_run_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """After `cp -al` both folders have the same files, until one of them is trained."""
    assert main(["train", *CHOICES, "--out", "runs/one", "--until", "4"]) == 0
    with Path("runs/one/metrics.jsonl").open("a") as file:
        file.write('{"step": 5}\n')
    before = {path: path.read_bytes() for path in Path("runs/one").rglob("*") if path.is_file()}
    shutil.copytree("runs/one", "runs/two", copy_function=os.link)
    assert main(["train", "--resume", "two"]) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert [record["step"] for record in noted("two") if "lr" in record] == list(range(1, 13))


# -- renamed, removed


def renamed() -> str:
    Path("runs/parts").rename("runs/elsewhere")
    return "elsewhere"


def renamed_and_replaced() -> str:
    """Something else has its name now."""
    Path("runs/parts").rename("runs/elsewhere")
    Path("runs/parts").mkdir()
    return "elsewhere"


def removed() -> str:
    shutil.rmtree("runs/parts")
    return "parts"


def emptied() -> str:
    for path in Path("runs/parts").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return "parts"


def removed_and_replaced() -> str:
    shutil.rmtree("runs/parts")
    Path("runs/parts").mkdir()
    Path("runs/parts/mine").touch()
    return "parts-1"


@pytest.mark.parametrize(
    "change", [renamed, renamed_and_replaced, removed, emptied, removed_and_replaced]
)
@pytest.mark.parametrize("step", [1, 8, 12])
def test_bug_85_a_folder_that_changes_while_it_trains(
    change: Callable[[], str],
    step: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All of the run is in the folder where it ends, as if nothing had been; and it is said."""
    if not os.path.exists("/proc/self/fd") and "renamed" in change.__name__:
        pytest.skip("this system does not say where the folder is")
    assert main(["train", *CHOICES, "--out", "runs/whole"]) == 0
    norm, count, places = clip_gradients, iter(range(1, 100)), []

    def changing(*arguments: Any) -> float:
        if next(count) == step:
            places.append(change())
        return norm(*arguments)

    monkeypatch.setattr("tensor.optim.clipping.clip_gradients", changing)
    capsys.readouterr()
    assert main(["train", *CHOICES, "--out", "runs/parts"]) == 0
    out, err = capsys.readouterr()
    (place,) = places
    assert f"runs/parts was renamed or removed meanwhile: the run goes on in runs/{place}\n" in err
    assert f"saved in runs/{place};" in out
    assert (checkpoint_of(place), noted(place)) == (checkpoint_of("whole"), noted("whole"))
    assert sampled(capsys, place, "--length", "5") == sampled(capsys, "whole", "--length", "5")
    refused(capsys, "train", "--resume", place, "--steps", "12", says="has taken 12 steps already")


def test_a_folder_that_is_renamed_while_it_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the writing: it looks again."""
    write, names = runs.checkpoint.write_arrays, iter(["elsewhere"])

    def renaming(path: Path, *rest: Any) -> Any:
        if path.name.startswith("optimizer") and (name := next(names, None)):
            Path("runs/one").rename(Path("runs", name))
        return write(path, *rest)

    monkeypatch.setattr(runs.checkpoint, "write_arrays", renaming)
    assert main(["train", *CHOICES, "--out", "runs/one"]) == 0
    assert os.listdir("runs") == ["elsewhere"]
    assert main(["sample", "elsewhere"]) == 0
