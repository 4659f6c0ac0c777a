"""Copies of the weights as they were learned: which, how large, whole or not there, the same after
a break.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from tensor.random import Generator
from tests.helpers.program import PROGRAM, TINY, environment, refused, reseal
from tests.tinygpt.runs.test_checkpoint import wait_for
from tinygpt import GPT, GPTConfig, TrainConfig, story
from tinygpt.__main__ import main
from tinygpt.errors import InputError
from tinygpt.runs import checkpoint, snapshots
from tinygpt.runs import run as runs
from tinygpt.runs.snapshots import chosen, described, steps_of

CHOICES = [
    *TINY,
    "--dropout",
    "0.2",
    "--steps",
    "12",
    "--text",
    "text.txt",
    "--validation",
    "0.3",
    "--evaluate",
    "5",
]


@pytest.fixture
def text(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # takes longer than the steps
    monkeypatch.setattr("tinygpt.training.loop.Training.draw", lambda training: True)
    (here / "text.txt").write_text(story(), encoding="utf-8")


def kept(run: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("runs", run, "snapshots").iterdir()}


# -- which


def test_evenly_in_the_logarithm_of_the_step() -> None:
    assert steps_of(500, 8) == (0, 10, 19, 37, 71, 136, 261, 500)
    assert steps_of(5000, 8) == (0, 100, 192, 368, 707, 1357, 2605, 5000)
    assert [steps_of(500, n) for n in (0, 1, 2, 3)] == [(), (0,), (0, 500), (0, 10, 500)]
    assert [steps_of(n, 8) for n in (1, 2, 12)] == [(0, 1), (0, 1, 2), (0, 1, 2, 3, 5, 8, 12)]


@given(st.integers(1, 10**6), st.integers(2, 100))
def test_distinct_and_increasing_from_the_fresh_weights_to_the_last_step(
    steps: int, count: int
) -> None:
    found = steps_of(steps, count)
    assert found == tuple(sorted(set(found)))
    assert (found[0], found[-1]) == (0, steps)
    assert len(found) <= count
    assert len(found) == count or steps < 50 * count


def test_no_more_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model that is too large for 8 there are fewer, of one too large for any none; and it is
    said.
    """
    model = GPT(GPTConfig(22), draw=False)
    for budget, count, said in (
        (1 << 26, 8, "8 in float16, 1.6 MiB together: for tinygpt look"),
        (1 << 20, 4, "4 of 8: 206.6 KiB each in float16, and 1.0 MiB is the most for all"),
        (1 << 17, 0, "none: one takes 206.6 KiB in float16, and 128.0 KiB is the most for all"),
    ):
        monkeypatch.setattr(snapshots, "BUDGET", budget)
        assert chosen(model, TrainConfig()) == steps_of(500, count)
        assert described(model, TrainConfig()) == said
    assert described(model, TrainConfig(snapshots=0)) == "none: --snapshots is 0"


def test_files_are_no_larger_than_was_said(text: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *CHOICES, "--layers", "12", "--out", "runs/one"]) == 0
    assert (
        f"snapshots {described(runs.load(Path('runs/one'))[1], TrainConfig(steps=12))}\n"
        in capsys.readouterr().out
    )
    model = runs.load(Path("runs/one"))[1]
    assert all(len(content) <= snapshots.bytes_of(model) for content in kept("one").values())


# -- what is in them


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_training_keeps_its_weights(dtype: str, text: None) -> None:
    """The last one is the model's, rounded; the first one what the seed gives; and each fits the
    model.
    """
    assert main(["train", *CHOICES, "--dtype", dtype, "--out", "runs/one"]) == 0
    run, model, _ = runs.load(Path("runs/one"))
    states = snapshots.load(run)
    assert [step for step, _ in states] == [0, 1, 2, 3, 5, 8, 12] == snapshots.found(run)
    fresh = GPT(run.model, dtype=dtype, generator=Generator(run.training.seed))
    for (_, state), weights in zip(
        (states[0], states[-1]), (fresh.state_dict(), model.state_dict()), strict=True
    ):
        assert set(state) == set(weights)
        for name, array in state.items():
            assert array.dtype == np.float16
            np.testing.assert_array_equal(array, weights[name].array.astype(np.float16))
    for _, state in states:
        model.load_state_dict(state)
    assert not np.array_equal(states[3][1]["final_norm.gain"], states[4][1]["final_norm.gain"])


def test_none_where_none_are_wanted(text: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *CHOICES, "--snapshots", "0", "--out", "runs/one"]) == 0
    assert "snapshots none: --snapshots is 0\n" in capsys.readouterr().out
    assert not Path("runs/one/snapshots").exists()
    assert snapshots.load(runs.load(Path("runs/one"))[0]) == []
    refused(capsys, "train", "--snapshots", "-1", says="--snapshots -1: a whole number, at least 0")


def test_weights_beyond_float16_are_told_and_left_out(
    text: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """No snapshot is better than one with infinities; the training goes on."""
    assert main(["train", *CHOICES, "--out", "runs/one"]) == 0
    path = Path("runs/one/best.safetensors")  # what --init takes
    weights = load_file(path)
    weights["final_norm.bias"][0] = 1e6
    checkpoint.write_arrays(path, weights)
    reseal(Path("runs/one"), "best.safetensors")
    assert (
        main(["train", "--init", "one", "--text", "text.txt", "--steps", "1", "--out", "runs/two"])
        == 0
    )
    assert (
        "no snapshot of step 0: final_norm.bias holds numbers beyond float16\n"
        in capsys.readouterr().err
    )
    assert Path("runs/two/model.safetensors").exists()
    assert not Path("runs/two/snapshots").exists()


def test_a_snapshot_that_cannot_be_written_ends_no_training(
    text: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint.write_arrays

    def full(path: Path, *rest: Any) -> checkpoint.Seal:
        if path.parent.name == "snapshots" and path.name.startswith("5."):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return write(path, *rest)

    monkeypatch.setattr(checkpoint, "write_arrays", full)
    assert main(["train", *CHOICES, "--out", "runs/one"]) == 0
    assert "no snapshot of step 5: No space left on device\n" in capsys.readouterr().err
    assert sorted(kept("one")) == sorted(f"{step}.safetensors" for step in (0, 1, 2, 3, 8, 12))


# -- going on


@pytest.mark.parametrize("more", [[], ["--optimizer", "muon"], ["--dtype", "float16"]])
def test_bug_51_a_resumed_run_has_the_same_snapshots(more: list[str], text: None) -> None:
    """Breaks before, at and after the steps that have one; and what a killed run had kept past its
    checkpoint is written again.
    """
    assert main(["train", *CHOICES, *more, "--out", "runs/whole"]) == 0
    assert main(["train", *CHOICES, *more, "--out", "runs/parts", "--until", "4"]) == 0
    Path("runs/parts/snapshots/5.safetensors").write_bytes(b"of a run that went on, and was killed")
    Path("runs/parts/snapshots/5.safetensors.tmp").write_bytes(b"half")
    for until in (["--until", "5"], ["--until", "9"], []):
        assert main(["train", "--resume", "parts", *until]) == 0
    assert len(kept("whole")) == 7
    assert kept("parts") == kept("whole")


def test_a_run_from_before_there_were_snapshots(text: None) -> None:
    """Its choices name no number of them: it goes on with the default, from where it stands."""
    assert main(["train", *CHOICES, "--snapshots", "0", "--out", "runs/one", "--until", "4"]) == 0
    path = Path("runs/one/config.json")
    choices = json.loads(path.read_text())
    del choices["training"]["snapshots"]
    path.write_text(json.dumps(choices))
    assert snapshots.load(runs.load(Path("runs/one"))[0]) == []
    assert main(["train", "--resume", "one"]) == 0
    assert snapshots.found(runs.load(Path("runs/one"))[0]) == [5, 8, 12]


def test_bug_52_a_snapshot_has_no_name_until_it_is_whole(
    text: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill while it is written would leave what is there then: the ones before it, and a
    temporary file.
    """
    write, seen = checkpoint.write_arrays, []

    def looked_at(path: Path, *rest: Any) -> checkpoint.Seal:
        seal = write(path, *rest)
        if path.parent.name == "snapshots":
            seen.append(len(list(path.parent.glob("*.safetensors"))))
        return seal

    monkeypatch.setattr(checkpoint, "write_arrays", looked_at)
    assert main(["train", *CHOICES, "--out", "runs/one"]) == 0
    assert seen == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_while_it_keeps_them(text: None) -> None:
    """One after each step: those that have their name are whole."""
    command = [
        *PROGRAM,
        "train",
        *TINY,
        "--text",
        "text.txt",
        "--steps",
        "20000",
        "--snapshots",
        "20000",
        "--out",
        "runs/one",
    ]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(lambda: len(list(Path("runs/one/snapshots").glob("*.safetensors"))) > 1)
            time.sleep(0.05)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    choices = json.loads(Path("runs/one/config.json").read_text())
    model, training = GPTConfig(**choices["model"]), TrainConfig(**choices["training"])
    run = runs.Run(model, training, "", folder=Path("runs/one"))
    assert len(snapshots.load(run)) > 1


# -- damaged


@pytest.mark.parametrize("content", [b"", b"no safetensors", None])
def test_a_damaged_snapshot_is_refused(content: bytes | None, run: Path) -> None:
    path = run / "snapshots" / "2.safetensors"
    if content is None:
        path.write_bytes(path.read_bytes()[:-3])
    else:
        path.write_bytes(content)
    loaded, _, _ = runs.load(run)
    with pytest.raises(
        InputError, match=r"snapshots.2\.safetensors is damaged or no safetensors file"
    ) as caught:
        snapshots.load(loaded)
    assert str(caught.value).endswith(
        "\nrestore it from a copy, or delete it: only the pictures of how the run learned need it"
    )
    assert str(caught.value).count("\n") == 1
    path.unlink()
    assert [step for step, _ in snapshots.load(loaded)] == [0, 1, 3]


def test_a_snapshot_of_another_model_is_refused(run: Path) -> None:
    checkpoint.write_arrays(run / "snapshots" / "2.safetensors", {"x": np.zeros(1, np.float16)})
    with pytest.raises(
        InputError,
        match=r"does not fit the config\.json beside it: token_embedding\.weight is not in it",
    ):
        snapshots.load(runs.load(run)[0])


def test_other_files_are_no_snapshots(run: Path) -> None:
    for name in (
        "best.safetensors",
        "007.safetensors",
        "-1.safetensors",
        "4.safetensors.tmp",
        "notes.txt",
    ):
        (run / "snapshots" / name).write_bytes(b"?")
    assert [step for step, _ in snapshots.load(runs.load(run)[0])] == [0, 1, 2, 3]


def test_verify_resume_copies_and_keeps_none(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "snapshots")
    (run / "snapshots").write_bytes(b"in the way")
    assert main(["verify", "resume"]) == 0
    assert "PASS  resume" in capsys.readouterr().out
    assert os.path.isfile(run / "snapshots")
