"""`tinygpt train` and `tinygpt sample`: what they say, what they leave, how a training can end."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygpt
from tensor import kernels
from tensor.optim import clipping
from tensor.random import Key
from tests.helpers.program import TINY, losses, sampled
from tinygpt import GPTConfig, TrainConfig
from tinygpt.__main__ import main
from tinygpt.commands import train
from tinygpt.runs import run as runs

pytestmark = pytest.mark.usefixtures("here")


# -- the first two commands


def test_the_first_command_learns_the_story(capsys: pytest.CaptureFixture[str]) -> None:
    """`tinygpt train` ends below 0.1 and within 0.03 of the floor, and the sample goes on with the
    story.
    """
    assert main(["train"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 120  # the sample is one line of its own
    assert max(len(line) for line in out.splitlines() if not line.startswith("The cat")) <= 80
    for said in (
        "149 characters, 22 different",
        "103,552 parameters",
        "3.091 nats",
        "0.063 is the floor",
        "cpu: the default",
        "float32: the default",
    ):
        assert said in out
    final = losses(Path("runs/story-1"))[-1]
    assert final["loss"] < min(0.1, 0.0632 + 0.03)
    assert final["windows"] == 117
    assert f"loss {final['loss']:.4f}: the mean over all 117 windows, dropout off" in out
    assert "\nThe cat sat on the mat. The dog ran" in out

    assert (
        main(["sample", "--prompt", "The cat sat on the", "--temperature", "0", "--length", "5"])
        == 0
    )
    assert capsys.readouterr().out == "The cat sat on the mat.\n"


def test_what_a_run_leaves(run: Path) -> None:
    names = [
        "config.json",
        "loss.png",
        "metrics.jsonl",
        "model.safetensors",
        "optimizer.safetensors",
        "snapshots",
        "state.json",
        "tokenizer.json",
    ]
    assert sorted(os.listdir(run)) == names
    steps = losses(run)
    assert [record["step"] for record in steps] == [1, 2, 3, 3]
    assert set(steps[0]) == {"step", "loss", "lr", "gradient_norm", "skipped", "tokens", "seconds"}
    assert steps[-1]["windows"] == 141
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    state = json.loads((run / "state.json").read_text())
    assert (state["step"], state["loss"]) == (3, steps[-1]["loss"])


def test_the_last_loss_is_that_of_the_saved_model(run: Path) -> None:
    """Measured again from the files: over every window of the story, without dropout."""
    _, model, tokenizer = runs.load(run)
    x, y = tinygpt.windows(tokenizer.encode(tinygpt.story()), 8)
    assert losses(run)[-1]["loss"] == pytest.approx(model.loss(x, y).item(), rel=1e-5)


def test_flags_reach_the_run() -> None:
    arguments = [
        *TINY,
        "--steps",
        "2",
        "--seed",
        "5",
        "--lr",
        "0.1",
        "--dtype",
        "float64",
        "--dropout",
        "0.1",
        "--norm",
        "post",
        "--no-bias",
        "--no-tied",
    ]
    assert (
        main(
            ["train", *arguments, "--positions", "sinusoidal", "--activation=relu", "--out", "mine"]
        )
        == 0
    )
    config = json.loads(Path("mine/config.json").read_text())
    expected = {
        "width": 8,
        "heads": 2,
        "layers": 1,
        "context": 8,
        "dropout": 0.1,
        "norm": "post",
        "bias": False,
        "tied": False,
        "positions": "sinusoidal",
    }
    assert {**config["model"], **expected, "activation": "relu"} == config["model"]
    assert {
        **config["training"],
        "batch": 4,
        "steps": 2,
        "seed": 5,
        "lr": 0.1,
        "dtype": "float64",
        "out": "mine",
    } == config["training"]
    assert main(["sample", "mine", "--length", "3"]) == 0


def test_own_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a byte order mark and line ends of Windows, as an editor there writes it."""
    (here / "my text.txt").write_bytes(b"\xef\xbb\xbf" + "Es grünt so grün.\r\n".encode() * 3)
    assert main(["train", "--text", "my text.txt", *TINY, "--steps", "2"]) == 0
    out = capsys.readouterr().out
    assert "my text.txt: 54 characters" in out
    assert "\nEs grünt so grün.\nEs" in out  # the first five words are the prompt
    assert (
        json.loads((here / "runs/my-text-1/tokenizer.json").read_text(encoding="utf-8"))[
            "characters"
        ]
        == "Es grünto.\n"
    )


def test_a_text_without_doubt_and_one_of_a_single_character(here: Path) -> None:
    """Floor 0, and ln V = 0: there is no logarithm of them to draw."""
    (here / "all.txt").write_text("abcdefghijklmnop")
    (here / "one.txt").write_text("a" * 20)
    for name in ("all", "one"):
        assert (
            main(["train", "--text", f"{name}.txt", *TINY, "--steps", "2", "--validation", "0"])
            == 0
        )
        assert losses(Path(f"runs/{name}-1"))[-1]["loss"] >= 0


# -- sampling


def test_sampling_follows_its_seed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = sampled(capsys, "story-1", "--length", "40")
    assert (
        first
        == sampled(capsys, "--length", "40")
        == sampled(capsys, str(run), "--seed", "0", "--length", "40")
    )
    assert first != sampled(capsys, "--seed", "1", "--length", "40")
    assert first.startswith("The cat sat on the")
    assert len(first) == len("The cat sat on the") + 40 + 1


def test_sampling_options(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    likeliest = sampled(capsys, "--temperature", "0")
    assert likeliest == sampled(capsys, "--top-k", "1") == sampled(capsys, "--top-p", "1e-9")
    assert likeliest != sampled(capsys, "--temperature", "2")
    assert sampled(capsys, "--prompt", "dog", "--length", "0") == "dog\n"


def test_a_sample_is_printed_as_it_goes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token is on its way before the next one is computed."""

    class Terminal(io.StringIO):
        flushed: list[int] = []

        def flush(self) -> None:
            self.flushed.append(len(self.getvalue()))

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["sample", "--length", "10", "--prompt", "dog"]) == 0
    assert [3 + n for n in range(11)] == [n for n in terminal.flushed if n][:11]


def test_control_characters_are_shown_not_obeyed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a text, from a file's name, from a prompt; also those that turn the direction of what
    follows.
    """
    name = "a\x1b[2Jb.txt"
    (here / name).write_text("\x1b[31m\x07 \u202ered \x9b\x7f\n" * 10, encoding="utf-8")
    assert main(["train", "--text", name, *TINY, "--steps", "1"]) == 0
    out = capsys.readouterr().out
    assert r"a\x1b[2Jb.txt: " in out
    assert r"\x1b[31m\x07 \u202ered \x9b\x7f" in out
    for number in ("1", "2"):
        out += sampled(capsys, "--seed", number)
    assert main(["sample", "--prompt", "\x1b[2J\x1b"]) == 2
    assert main(["sample", "\x1b[2J"]) == 2
    assert main(["tr\x1b[2Jn"]) == 2
    out += "".join(capsys.readouterr())
    assert set(out) & set(map(chr, [*range(10), *range(11, 32), *range(127, 160), 0x202E])) == set()


# -- a training that goes wrong


def test_bug_43_skipped_steps_are_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once when it happens, in the count at the end, and in the metrics, which stay JSON."""
    norms = iter([1.0, math.nan, 1.0, math.inf, 1.0])
    monkeypatch.setattr(clipping, "clip_gradients", lambda *_: next(norms))
    assert main(["train", *TINY, "--steps", "5"]) == 0
    out, err = capsys.readouterr()
    assert err == "step 2 skipped: its gradient norm is nan; the weights stay as they were\n"
    assert "; 2 of them skipped" in out
    records = losses(Path("runs/story-1"))
    assert [record["skipped"] for record in records[:5]] == [False, True, False, True, False]
    assert records[1]["gradient_norm"] is None


def test_a_training_that_diverges_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clipping, "clip_gradients", lambda *_: math.nan)
    assert main(["train", *TINY, "--steps", "500"]) == 1
    out = capsys.readouterr().out
    assert (
        "20 steps in a row had no finite gradient: training has diverged; try a lower --lr" in out
    )
    assert len(losses(Path("runs/story-1"))) == 20


def test_out_of_memory_while_training_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> float:
        raise MemoryError("Unable to allocate 3 TiB")

    monkeypatch.setattr(clipping, "clip_gradients", full)
    assert main(["train", *TINY]) == 2
    assert (
        "out of memory (Unable to allocate 3 TiB)\ntake a smaller --batch"
        in capsys.readouterr().err
    )
    assert os.listdir(here / "runs") == []


def test_checkpoints_are_written_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here after each step; the last once more, with the loss over all windows."""
    saved: list[int] = []
    save = runs.save

    def counted(run: runs.Run, content: runs.Content) -> None:
        saved.append(content.state.step)
        save(run, content)

    monkeypatch.setattr("tinygpt.training.loop.SAVE_SECONDS", 0.0)
    monkeypatch.setattr(runs, "save", counted)
    assert main(["train", *TINY, "--steps", "3"]) == 0
    assert saved == [1, 2, 3, 3]


def test_attention_of_a_gpu_is_asked_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the very shapes of a step, without a GPU: the arrays are NumPy's."""
    config, asked = TrainConfig(device="cuda", dtype="float16", batch=3), []
    model = GPTConfig(22, 8, 16, 2, 1, dropout=0.5)

    def pick(name: str, qkv: Any, **options: Any) -> Any:
        asked.append((name, qkv.shape, str(qkv.dtype), options))
        return None if options["dropout"] else print

    monkeypatch.setattr(train, "array_module", lambda device: np)
    monkeypatch.setattr(kernels, "pick", pick)
    monkeypatch.setattr(kernels, "_last", {"multi_head_attention": ("reference", "dropout 0.5")})
    monkeypatch.setattr(kernels, "NOTES", ["no fixed order"])
    assert train._cuda_kernels(model, config) == "CUDA, but none for attention, slower: dropout 0.5"
    assert train._cuda_kernels(replace(model, dropout=0), config) == "CUDA; no fixed order"
    equal, said = replace(config, deterministic=True), "so equal runs have equal bits"
    assert train._cuda_kernels(replace(model, dropout=0), equal).endswith(said)
    options = {"heads": 2, "causal": True, "dropout": 0.5, "key": Key()}
    assert asked[0] == ("multi_head_attention", (3, 8, 48), "float16", options)
