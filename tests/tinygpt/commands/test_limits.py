"""Numbers, words and models beyond all bounds: refused in two short lines, before anything is
built.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import tracemalloc
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensor.kernels.cpu import compiled
from tests.helpers.program import TINY, contents, refused
from tinygpt import GPTConfig, InputError, SampleConfig, TrainConfig
from tinygpt.__main__ import main
from tinygpt.commands import COMMANDS, cli
from tinygpt.config import LookConfig
from tinygpt.config.options import LIMITS, kinds
from tinygpt.model.gpt import GPT
from tinygpt.terminal import MOST, brief
from tinygpt.training import memory, planning, starting, step

pytestmark = pytest.mark.usefixtures("here")  # `refused` reads all files of the working folder

# -- flags

NINES = "9" * 4000, "9" * 5000  # Python reads at most 4,300 digits
NUMBERS = [
    str(10**30),
    str(10**20),
    str(2**63),
    str(2**64),
    "-1",
    "0",
    "nan",
    "inf",
    "1e308",
    "1e-308",
    "",
    " ",
    "١٢",
    "²",
    "0x10",
    "--",
    *NINES,
]
WORDS = [
    "",
    "-1",
    "--",
    "a\n\x1b[2J\u202e",
    "x" * 10_000,
    "cuda:²",
    f"cuda:{NINES[1]}",
    "shape=²",
    f"shape={NINES[1]}",
    f"attention#{NINES[1]}",
]
USUAL = {  # what each command needs besides the flag that is tried
    "train": TINY,
    "plan": TINY,
    "sample": ["--length", "3"],
    "look": ["--length", "3"],
    "step": ["--plain"],
    "verify": ["cache"],
    "tokenize": ["text.txt", "--out", "tokens"],
    "import-gpt2": ["gpt2"],
    "export-gpt2": ["story-1", "gpt2"],
}


@pytest.mark.parametrize("config", [GPTConfig, TrainConfig, SampleConfig, LookConfig])
def test_every_number_of_a_configuration_has_limits(config: Any) -> None:
    for field in fields(config):
        if kinds(config)[field.name].type in (int, float):
            assert {"least", "above"} & set(field.metadata), field.name
            assert {"most", "below"} & set(field.metadata), field.name
        else:
            assert not set(LIMITS) & set(field.metadata), field.name


@pytest.mark.parametrize("command", COMMANDS)
def test_bug_93_values_that_nobody_means(
    command: str, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each flag of each command with each of them: taken, or refused in two short lines that hold
    no control character.
    """

    def stop(*arguments: Any) -> Any:
        raise InputError("all flags are good")

    # training takes seconds; its flags are checked before
    monkeypatch.setattr(starting, "prepare", stop)
    monkeypatch.setattr(planning, "step_seconds", lambda model, config: 1.0)
    Path("text.txt").write_text("the cat sat on the mat. " * 20)
    parser = cli.Parser()
    importlib.import_module("tinygpt.commands." + command.replace("-", "_")).arguments(parser)
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or not action.option_strings:
            continue
        flag, is_number = action.option_strings[0], action.metavar in ("N", "X")
        for value in NUMBERS if is_number else WORDS:
            given = (
                [f"{flag}={value}"] if action.nargs == 0 or value.startswith("-") else [flag, value]
            )
            taken_or_told(capsys, command, *USUAL.get(command, []), *given)
            shutil.rmtree("tokens", ignore_errors=True)


@pytest.mark.parametrize("before", [[], *([command] for command in COMMANDS)], ids=str)
def test_words_that_nobody_means(
    before: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a command, or as what follows it."""
    for word in WORDS:
        if before != ["verify"] or word != "--":  # which verifies everything
            taken_or_told(capsys, *before, word)


def taken_or_told(capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
    """Exit code 0 and nothing on stderr; or 2 and two short lines, all printable."""
    code = main(arguments)
    _, err = capsys.readouterr()
    told = ascii(arguments)
    assert code in (0, 2), told
    assert (code == 2) == bool(err), told
    assert len(err) <= 300, told
    assert err.count("\n") <= 2, told
    assert err.replace("\n", "").isprintable(), told


@pytest.mark.usefixtures("here")
def test_bug_93_limits_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        (
            ["--stride", str(10**30)],
            f"--stride {10**30}: a whole number, at least 1 and at most 1,000,000,000, is needed",
        ),
        (
            ["--layers", str(10**9)],
            "--layers 1000000000: a whole number, at least 1 and at most 10,000, is needed",
        ),
        (["--lr", "1e308"], "--lr 1e+308: a number, above 0 and at most 1,000,000, is needed"),
        (["--beta1", "nan"], "--beta1 nan: a number, at least 0 and below 1, is needed"),
        (["--device", "cuda:²"], "--device 'cuda:²': choose cpu, cuda or cuda:N"),
        (["--steps", "--"], "--steps: '--' looks like a flag"),
    ):
        refused(capsys, "train", *arguments, says=says)


# -- errors


def test_bug_96_errors_are_short_and_safe() -> None:
    assert brief("what\nfix") == "what\nfix"
    assert brief("what") == "what"
    assert brief("a\x1b[2J\nb\nc") == "a\\x1b[2J\nb\\nc"
    cut = brief(f"--layers: '{'x' * 5000}' is not a whole number\nsee: tinygpt train --help")
    assert cut.startswith("--layers: 'xxx")
    assert cut.endswith("xxx' is not a whole number\nsee: tinygpt train --help")
    for problem in ("\x1b" * 10_000, "\n" * 10_000, "x" * 1000 + "\n" + "\x1b" * 1000):
        assert len(brief(problem)) <= MOST


def test_bug_96_a_long_error_takes_no_memory() -> None:
    problem = "\x1b" * 10_000_000
    tracemalloc.start()
    try:
        brief(problem)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


# -- memory


def no_model(*arguments: Any, **options: Any) -> None:
    raise AssertionError("a model that does not fit is not built")


@pytest.mark.usefixtures("here")
def test_bug_94_what_does_not_fit_is_not_built(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free", lambda device: 8 << 30)
    kinds = {"gpt": starting.KINDS["gpt"]._replace(model=no_model)}
    monkeypatch.setattr(starting, "KINDS", kinds)
    plain = os.environ.get("TENSOR_KERNELS") == "off" or compiled.unavailable()
    activations = "41.3 GiB" if plain else "26.3 GiB"  # the kernels keep less for backward
    for arguments, says in (
        (
            ["--width", "100000"],
            "too little memory: 3.5 TiB for a step, and 8.0 GiB are free "
            "(weights 894.1 GiB, gradients 894.1 GiB",
        ),
        (["--batch", "100000"], f"activations {activations}"),
        (
            ["--batch", "1000", "--accumulation", "100000"],
            "windows 47.7 GiB)\ntake a smaller --batch",
        ),
        (["--width", "100000"], "or try it: --ignore-memory"),
    ):
        refused(capsys, "train", *arguments, says=says)


@pytest.mark.usefixtures("here")
def test_memory_may_be_ignored(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free", lambda device: 1000)
    refused(capsys, "train", *TINY, says="and 1000 B are free")
    assert main(["train", *TINY, "--steps", "1", "--ignore-memory"]) == 0
    assert "ignore" not in Path("runs/story-1/config.json").read_text()


def test_memory_of_a_run_that_goes_on(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights and moments are in memory when the rest is asked for."""
    config = run / "config.json"
    config.write_text(config.read_text().replace('"steps": 3', '"steps": 5'))
    plan = planning.counted(GPTConfig(22, 8, 8, 2, 1), TrainConfig(batch=4))
    needed = plan.memory - plan.weights - plan.moments
    monkeypatch.setattr(memory, "free", lambda device: needed - 1)
    refused(capsys, "train", "--resume", "story-1", says="too little memory")
    monkeypatch.setattr(memory, "free", lambda device: plan.memory - plan.weights - 1)
    refused(capsys, "train", "--init", "story-1", "--batch", "4", says="too little memory")
    monkeypatch.setattr(memory, "free", lambda device: needed)
    assert main(["train", "--resume", "story-1"]) == 0
    assert (
        main(["train", "--init", "story-1", "--batch", "4", "--steps", "1", "--ignore-memory"]) == 0
    )


@pytest.mark.usefixtures("here")
def test_bug_94_a_plan_of_what_does_not_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By formula; nothing is measured, for that would take the memory."""
    monkeypatch.setattr(planning, "step_seconds", no_model)
    largest = {
        "context": 10**6,
        "width": 10**6,
        "heads": 10**6,
        "layers": 10**4,
        "batch": 10**5,
        "accumulation": 10**5,
        "vocabulary": 10**7,
    }
    for choices in (
        {"width": 100_000},
        largest,
        {**largest, "heads": 1},
        {**largest, "width": 1, "heads": 1},
    ):
        before = contents()
        assert (
            main(
                [
                    "plan",
                    *(
                        word
                        for name, value in choices.items()
                        for word in (f"--{name}", str(value))
                    ),
                ]
            )
            == 0
        )
        out, err = capsys.readouterr()
        assert err == ""
        assert contents() == before
        assert "GFLOP a step\n\ntoo little memory: " in out
        assert "are free; so no speed is given" in out


def test_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of what the machine has and what each control group leaves, of either version."""
    machine, process, groups = tmp_path / "meminfo", tmp_path / "cgroup", tmp_path / "groups"
    monkeypatch.setattr(memory, "MACHINE", machine)
    monkeypatch.setattr(memory, "PROCESS", process)
    monkeypatch.setattr(memory, "GROUPS", groups)
    machine.write_text("MemTotal:       24000 kB\nMemFree:  1 kB\nMemAvailable:    1000 kB\n")
    assert memory.free("cpu") == 1000 << 10  # no control groups

    def group(path: str, limit: str, used: str, most: object, now: int, cached: str) -> None:
        folder = groups / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(f"{most}\n")
        (folder / used).write_text(f"{now}\n")
        (folder / "memory.stat").write_text(f"anon 5\n{cached} 100\n")

    process.write_text("0::/outer/inner\n")
    assert memory.free("cpu") == 1000 << 10  # which cannot be read
    group("outer/inner", "memory.max", "memory.current", "max", 600, "inactive_file")
    assert memory.free("cpu") == 1000 << 10  # without a limit
    group("outer", "memory.max", "memory.current", 2000, 600, "inactive_file")
    assert memory.free("cpu") == 1500
    # a container sees its own group here
    group("", "memory.max", "memory.current", 1700, 600, "inactive_file")
    assert memory.free("cpu") == 1200
    process.write_text("5:cpu,memory:/docker/1\n1:name=systemd:/\n0::/\n")
    group(
        "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", 900, 600, "total_inactive_file"
    )
    assert memory.free("cpu") == 400
    machine.unlink()
    assert memory.free("cpu") == 400
    shutil.rmtree(groups)
    assert (memory.free("cpu") or 1 << 30) > 1 << 20  # what is built in, where the system tells


def test_free_memory_of_a_device(device: str) -> None:
    room = memory.free(device)
    assert room is None or room > 1 << 20


def test_the_plan_is_no_more_than_a_step_takes() -> None:
    """What works is not refused: the count leaves out what backward makes in passing."""
    plan = planning.counted(GPTConfig(65, 64, 128, 4, 4), TrainConfig(batch=12))
    x = np.zeros((12, 64), np.int64)
    tracemalloc.start()
    try:
        model = GPT(plan.model, draw=False).train()
        optimizer = step.optimizer_of(model, plan.training)
        for _ in range(2):
            step.update(model, optimizer, x, x, 1.0)
        assert plan.memory <= tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
