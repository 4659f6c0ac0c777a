"""Going on: a run that stopped and went on ends where one that never stopped does, bit for bit, and
a kill never costs a checkpoint.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensor.random import Generator, Key
from tests.helpers.program import TINY, created, environment, sampled
from tinygpt import GPT, CharacterTokenizer, GPTConfig, TrainConfig, story
from tinygpt.__main__ import main
from tinygpt.data.windows import SideBySide, Windows
from tinygpt.ids import IGNORED
from tinygpt.runs import run as runs
from tinygpt.runs.run import Progress, Run
from tinygpt.training.measure import mean_loss
from tinygpt.training.order import random_rows
from tinygpt.training.step import learning_rate, optimizer_of, train, update

CHOICES = [
    *TINY,
    "--dropout",
    "0.2",
    "--steps",
    "12",
    "--evaluate",
    "5",
    "--text",
    "text.txt",
    "--validation",
    "0.3",
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # takes longer than the steps
    monkeypatch.setattr("tinygpt.training.loop.Training.draw", lambda training: True)
    (tmp_path / "text.txt").write_text(story(), encoding="utf-8")
    return tmp_path


def checkpoint_of(run: str) -> dict[str, bytes]:
    return {
        name: Path("runs", run, name).read_bytes()
        for name in (runs.MODEL, runs.OPTIMIZER, runs.BEST, runs.STATE)
    }


def noted(run: str) -> list[dict[str, Any]]:
    lines = Path("runs", run, runs.METRICS).read_text(encoding="utf-8").splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name != "seconds"}
        for line in lines
    ]


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--batches", "random"],
        ["--accumulation", "3"],
        ["--evaluate-share", "0.02"],
        ["--optimizer", "muon"],
        ["--dtype", "bfloat16", "--deterministic"],
        ["--dtype", "float16", "--recompute"],
    ],
)
def test_bug_51_a_resumed_run_equals_one_that_never_stopped(
    more: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *CHOICES, *more, "--out", "runs/whole"]) == 0
    assert main(["train", *CHOICES, *more, "--out", "runs/parts", "--until", "4"]) == 0
    for until in (["--until", "5"], ["--until", "9"], []):
        assert main(["train", "--resume", "parts", *until]) == 0
    assert runs.load(Path("runs", "parts"))[0].training.deterministic is ("--deterministic" in more)
    assert checkpoint_of("parts") == checkpoint_of("whole")
    assert noted("parts") == noted("whole")
    capsys.readouterr()
    assert sampled(capsys, "parts", "--length", "30") == sampled(capsys, "whole", "--length", "30")


def test_bug_51_in_a_process_of_its_own(here: Path) -> None:
    """The second process needs nothing of the first: no cache, no random state."""
    command = [sys.executable, "-m", "tinygpt", "train"]
    for arguments in (
        [*CHOICES, "--out", "runs/whole"],
        [*CHOICES, "--out", "runs/parts", "--until", "7"],
        ["--resume", "parts"],
    ):
        subprocess.run([*command, *arguments], env=environment(), check=True, capture_output=True)
    assert checkpoint_of("parts") == checkpoint_of("whole")


# a learning rate of nothing never makes the loss better
HOPELESS = [
    *TINY,
    *[
        "--text",
        "text.txt",
        "--validation",
        "0.3",
        "--lr",
        "1e-30",
        "--steps",
        "50",
        "--evaluate",
        "2",
    ],
]


def test_bug_51_early_stopping_counts_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing gets better than the first measuring: the third that does not ends the run, however
    it was cut.
    """
    choices = [*HOPELESS, "--patience", "3"]
    assert main(["train", *choices, "--out", "runs/parts", "--until", "5"]) == 0
    assert main(["train", "--resume", "parts", "--until", "7"]) == 0
    assert main(["train", "--resume", "parts"]) == 0
    assert "stopped after step 8: 3 measurings in a row gave no loss" in capsys.readouterr().out


def test_bug_51_the_best_weights_are_those_that_were_measured(here: Path) -> None:
    """Not those of a checkpoint that comes after the measuring and before the next."""
    assert main(["train", *CHOICES, "--out", "runs/measured", "--until", "5"]) == 0
    assert main(["train", *CHOICES, "--out", "runs/later", "--until", "7"]) == 0
    best = Path("runs/later", runs.BEST).read_bytes()
    assert (
        best
        == Path("runs/measured", runs.BEST).read_bytes()
        == Path("runs/measured", runs.MODEL).read_bytes()
    )
    assert best != Path("runs/later", runs.MODEL).read_bytes()


def test_bug_51_what_was_noted_after_the_checkpoint_is_noted_once(here: Path) -> None:
    """A killed run's metrics go on past its checkpoint, and may end in half a line."""
    assert main(["train", *CHOICES, "--out", "runs/whole"]) == 0
    assert main(["train", *CHOICES, "--out", "runs/parts", "--until", "4"]) == 0
    with Path("runs/parts", runs.METRICS).open("a", encoding="utf-8") as metrics:
        metrics.write(
            '{"step": 5, "loss": 1.5, "lr": 0.1}\n{"step": 6, "validation_loss": 1.5}\n'
            '{"step": 7, "lo'
        )
    assert main(["train", "--resume", "parts"]) == 0
    assert noted("parts") == noted("whole")


def test_resume_refuses(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *CHOICES, "--out", "runs/one", "--until", "4"]) == 0
    for arguments, message in (
        (["--lr", "1"], "--lr cannot be chosen with --resume"),
        (["--init", "one"], "--init cannot be chosen with --resume"),
        (["--until", "13"], "--until 13: a step from 1 to 12"),
        (
            ["--until", "4"],
            "--until 4: runs/one has taken 4 steps already\nname a later one, up to 12",
        ),
    ):
        assert main(["train", "--resume", "one", *arguments]) == 2
        assert message in capsys.readouterr().err
    Path("text.txt").write_text(story() + " The cat.", encoding="utf-8")
    assert main(["train", "--resume", "one"]) == 2
    assert "is not the text that runs/one was trained on" in capsys.readouterr().err


def test_bug_65_a_tokenizer_of_another_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same size, other ids: text would come out as other text."""
    assert main(["train", *CHOICES, "--out", "runs/one", "--until", "1"]) == 0
    CharacterTokenizer(story()[::-1]).save("runs/one/tokenizer.json")
    assert main(["sample", "one"]) == 2
    assert "is not the one its model was trained with" in capsys.readouterr().err


def test_fine_tuning_starts_from_the_other_run(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *CHOICES, "--out", "runs/one", "--until", "1"]) == 0
    assert (
        main(
            [
                "train",
                "--init",
                "one",
                "--text",
                "text.txt",
                "--steps",
                "1",
                "--lr",
                "1e-30",
                "--weight-decay",
                "0",
                "--out",
                "runs/two",
            ]
        )
        == 0
    )
    for name, weights in runs.load(Path("runs/one"))[1].state_dict().items():
        np.testing.assert_allclose(
            runs.load(Path("runs/two"))[1].state_dict()[name].numpy(), weights.numpy(), atol=1e-12
        )
    assert main(["train", "--init", "one", "--width", "16"]) == 2
    assert "--width cannot be chosen with --init" in capsys.readouterr().err
    assert main(["train", "--init", "one", "--tokenizer", "bpe"]) == 2
    assert (
        "--tokenizer cannot be chosen with --init: the model and the tokenizer are that run's"
        in capsys.readouterr().err
    )


# -- accumulation


def gradients(
    accumulation: int, dropout: float = 0.0
) -> tuple[float, dict[str, np.ndarray[Any, Any]]]:
    """Of one step on a batch of 7 rows with very unequal numbers of targets that count."""
    model = GPT(
        GPTConfig(22, 8, 8, 2, 1, dropout=dropout), generator=Generator(1), dtype="float64"
    ).train()
    x, y = Windows(CharacterTokenizer(story()).encode(story()), 8)[np.arange(7)]
    y = np.where(np.arange(8) < np.array([8, 1, 0, 5, 8, 2, 1])[:, None], y, IGNORED)
    loss, _ = update(model, optimizer_of(model, TrainConfig()), x, y, 1e9, accumulation, Key(3, 5))
    return loss, {
        name: parameter.grad.numpy().copy()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("accumulation", [2, 3, 7])
def test_bug_44_accumulation_equals_one_large_batch(accumulation: int, dropout: float) -> None:
    (loss, whole), (total, parts) = gradients(1, dropout), gradients(accumulation, dropout)
    assert total == pytest.approx(loss, rel=1e-13)
    for name, gradient in whole.items():
        np.testing.assert_allclose(
            parts[name], gradient, rtol=1e-11, atol=1e-14 + 1e-12 * abs(gradient).max()
        )


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_bug_44_measuring_counts_each_target_once(batch: int) -> None:
    """The last window reaches back over the one before it, and asks anew only for what is left: a
    mean of batch means would count that too much.
    """
    model = GPT(GPTConfig(22, 8, 8, 2, 1), generator=Generator(1), dtype="float64")
    ids = CharacterTokenizer(story()).encode(story())[:42]
    windows = SideBySide(ids, 8)  # 5 windows of 8, and one for the last target
    losses = [
        float(
            model.loss(
                ids[max(0, stop - 8) : stop], ids[max(0, stop - 8) + 1 : stop + 1], reduction="none"
            )[0, -1]
        )
        for stop in (41,)
    ]
    losses += [
        float(part)
        for row in range(5)
        for part in model.loss(
            ids[8 * row : 8 * row + 8], ids[8 * row + 1 : 8 * row + 9], reduction="none"
        )[0]
    ]
    assert len(losses) == 41
    assert mean_loss(model, windows, batch) == pytest.approx(np.mean(losses), rel=1e-12)


def test_bug_50_random_windows_are_a_function_of_seed_and_step() -> None:
    assert np.array_equal(random_rows(7, 16, 1000, 3), random_rows(7, 16, 1000, 3))
    drawn = np.concatenate([random_rows(step, 64, 50, 1) for step in range(40)])
    assert set(drawn.tolist()) == set(range(50))
    assert not np.array_equal(random_rows(7, 16, 1000, 3), random_rows(8, 16, 1000, 3))
    assert not np.array_equal(random_rows(7, 16, 1000, 3), random_rows(7, 16, 1000, 4))


def test_bug_50_validation_shares_no_token_with_training(here: Path) -> None:
    from tinygpt.data.prepare import prepare

    data = prepare(TrainConfig(text="text.txt", validation=0.3), 8)
    assert data.validation is not None
    assert len(data.windows.tokens) + len(data.validation.tokens) == len(story())
    assert data.tokenizer.decode([*data.windows.tokens, *data.validation.tokens]) == story()


def test_bug_45_steps_count_updates(here: Path) -> None:
    """With accumulation too: the learning rate falls over updates, not over parts."""
    for accumulation in (1, 4):
        config = TrainConfig(steps=6, batch=2, accumulation=accumulation, warmup=2, final_lr=0.0)
        model = GPT(GPTConfig(22, 8, 8, 2, 1), generator=Generator(1))
        optimizer = optimizer_of(model, config)
        records = list(
            train(model, Windows(CharacterTokenizer(story()).encode(story()), 8), config, optimizer)
        )
        assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
        assert [round(record.lr / config.lr, 6) for record in records] == [
            0.333333,
            0.666667,
            1.0,
            0.853553,
            0.5,
            0.146447,
        ]
        assert {record.tokens for record in records} == {16 * accumulation}
        assert set(optimizer.counts.values()) == {6}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_bug_45_table_of_the_trainer(optimizer: Any) -> None:
    """In shares of the peak: steps 0, warm-up - 1, warm-up, half-way, the last, the end and past
    it. A tenth is left.
    """
    config = TrainConfig(
        steps=25, warmup=5, lr=0.5, muon_lr=0.25, final_lr=0.1, optimizer=optimizer
    )
    peak = 0.25 if optimizer == "muon" else 0.5
    table = {0: 1 / 6, 4: 5 / 6, 5: 1.0, 15: 0.55, 24: 0.1 + 0.9 * 0.0061558297, 25: 0.1, 26: 0.1}
    for step, share in table.items():
        assert learning_rate(step, config) == pytest.approx(peak * share, rel=1e-8)


def test_early_stopping(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A learning rate of nothing never makes the loss better: the second measuring without a better
    one is the last.
    """
    choices = [*HOPELESS, "--patience", "2"]
    assert main(["train", *choices]) == 0
    assert "stopped after step 6: 2 measurings in a row gave no loss" in capsys.readouterr().out


# -- kill -9

SAVING = """
import sys
from pathlib import Path
from tensor.random import Generator
from tinygpt import GPT
from tinygpt.runs import run as runs
from tinygpt.runs.checkpoint import Progress
from tinygpt.training.step import optimizer_of
run, _, _ = runs.load(Path("runs/one"))
model = GPT(run.model, generator=Generator(int(sys.argv[1])))
optimizer = optimizer_of(model, run.training)
for step in range(int(sys.argv[1]), 1 << 30):
    for parameter in model.parameters():
        parameter.array[...] = step
    for array in optimizer.state_dict()["arrays"].values():
        array[...] = step
    runs.save(run, runs.gathered(model, optimizer, Progress(step)))
    print(step, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_bug_52_twenty_kills_while_saving(here: Path) -> None:
    """Whenever a process is killed, the files of one whole checkpoint are there, and no older one
    than it had said was saved.
    """
    tokenizer, moments = CharacterTokenizer(story()), {}
    config = GPTConfig(tokenizer.size, context=64, width=64, heads=2, layers=2)
    run = created(Run(config, TrainConfig(), "The cat", folder=Path("runs/one")), tokenizer)
    model = GPT(config, generator=Generator(0))
    runs.save(run, runs.gathered(model, optimizer_of(model, run.training), Progress(0)))
    chance, last = random.Random(0), 0
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVING, str(last + 1)],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        said = int(process.stdout.readline())  # it is saving now, again and again
        time.sleep(chance.random() * 0.03)
        os.kill(process.pid, signal.SIGKILL)
        said = max([said, *map(int, process.stdout.read().split("\n")[:-1])])
        process.stdout.close()
        process.wait()
        _, model, _ = runs.load(run.folder)
        optimizer = optimizer_of(model, run.training)
        progress = runs.resume(run, model, optimizer)
        moments = optimizer.state_dict()["arrays"]
        assert said <= progress.step <= said + 1
        assert {float(v) for p in model.parameters() for v in (p.array.min(), p.array.max())} == {
            float(progress.step)
        }
        assert {float(v) for a in moments.values() for v in (a.min(), a.max())} == {
            float(progress.step)
        }
        last = progress.step


@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", 1)])
def test_bug_52_no_part_of_a_step_is_saved(
    number: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes while the second of three parts of step 4 is computed: what is saved is step
    4, whole, and the run goes on from it.
    """
    choices = [*CHOICES, "--accumulation", "3"]
    assert main(["train", *choices, "--out", "runs/whole", "--until", "4"]) == 0
    healthy, parts = GPT.loss, iter(range(1000))

    def loss(self: GPT, *arguments: Any, **options: Any) -> Any:
        # a part of a step names its reduction; counting memory asks for losses too
        if self.training and len(arguments) == 3 and next(parts) == 3 * 3 + 1:
            signal.raise_signal(number)
            if number != signal.SIGINT:  # a closing terminal sends more than one
                signal.raise_signal(number)
        return healthy(self, *arguments, **options)

    monkeypatch.setattr(GPT, "loss", loss)
    assert main(["train", *choices, "--out", "runs/parts"]) == 128 + number
    files = (runs.MODEL, runs.OPTIMIZER, runs.STATE)
    assert [Path("runs/parts", name).read_bytes() for name in files] == [
        Path("runs/whole", name).read_bytes() for name in files
    ]
    assert noted("parts") == noted("whole")


def test_a_best_checkpoint_is_kept(here: Path) -> None:
    run = created(
        Run(GPTConfig(22, 8, 8, 2, 1), TrainConfig(), "The cat", folder=Path("runs/one")),
        CharacterTokenizer(story()),
    )
    for step, progress in enumerate((Progress(1, 2.0, 2.0, 1, 0), Progress(2, 2.5, 2.0, 1, 1))):
        model = GPT(run.model, generator=Generator(step))
        runs.save(run, runs.gathered(model, optimizer_of(model, run.training), progress))
    last, best = (
        runs.load(run.folder, best=choice)[1].state_dict()["token_embedding.weight"].numpy()
        for choice in (False, True)
    )
    assert np.array_equal(last, model.state_dict()["token_embedding.weight"].numpy())
    assert np.array_equal(
        best, GPT(run.model, generator=Generator(0)).state_dict()["token_embedding.weight"].numpy()
    )
    assert replace(run, tokenizer="") != run
