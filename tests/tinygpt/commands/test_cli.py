"""The flags and their help, and what is refused: exit code 2, one or two lines, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import tinygpt
from tensor.errors import DeviceError
from tensor.memory.devices import array_module
from tests.helpers.program import environment, put_weights, refused
from tinygpt import GPTConfig, SampleConfig, TrainConfig
from tinygpt.__main__ import main
from tinygpt.commands import COMMANDS, cli
from tinygpt.config import ModelConfig

pytestmark = pytest.mark.usefixtures("here")


# -- help


def helped(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    return out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys)
    assert all(name in text and summary in text for name, summary in COMMANDS.items())
    assert main([]) == 0
    assert capsys.readouterr().out == text
    files = Path(tinygpt.__file__).with_name("commands").glob("*.py")
    modules = {path.stem for path in files} - {
        "__init__",
        "choices",
        "classes",
        "cli",
        "int8",
        "names",
        "program",
        "replies",
    }
    assert {name.replace("-", "_") for name in COMMANDS} == modules


@pytest.mark.parametrize(
    ("command", "configs"), [("train", (TrainConfig, ModelConfig)), ("sample", (SampleConfig,))]
)
def test_help_names_every_field_and_its_default(
    capsys: pytest.CaptureFixture[str], command: str, configs: tuple[type, ...]
) -> None:
    words = " ".join(helped(capsys, command).split())
    for config in configs:
        for field in fields(config):
            if field.name == "vocabulary":
                continue
            assert cli.flag(field.name) in words
            assert field.metadata["help"].replace("%%", "%") in words
            assert field.default is None or f"(default: {field.default})" in words


def test_help_ends_no_sentence_in_the_middle(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(helped(capsys, "train").split())
    for config in (ModelConfig, TrainConfig):
        assert " ".join((config.__doc__ or "").split("\n\n")[0].split()) in text


def test_the_flags_of_the_specification_exist() -> None:
    train, sample = cli.Parser(), cli.Parser()
    cli.add_flags(train, TrainConfig)
    cli.add_flags(train, GPTConfig)
    cli.add_flags(sample, SampleConfig)
    for parser, wanted in (
        (
            train,
            "--text --layers --heads --width --context --batch --steps --lr --seed "
            "--device --dtype --out",
        ),
        (sample, "--prompt --length --temperature --top-k --top-p --seed"),
    ):
        assert set(wanted.split()) <= set(parser._option_string_actions)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tinygpt {tinygpt.__version__}\n"


def test_help_loads_neither_matplotlib_nor_rich() -> None:
    program = (
        "import sys; from tinygpt.__main__ import main; main(['train', '--help']); "
        "sys.exit(bool({'matplotlib', 'rich', 'cupy'} & set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", program], env=environment(), capture_output=True, timeout=60
        ).returncode
        == 0
    )


# -- bad input


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        # the text
        (["--text", "nowhere.txt"], "no file is named 'nowhere.txt'\ngive the path"),
        (["--text", "folder"], "the folder 'folder' holds no .txt file"),
        (
            ["--text", "latin1.txt"],
            "'latin1.txt' is not UTF-8: byte 0xe9 at offset 3\nsave it as UTF-8",
        ),
        (["--text", "empty.txt"], "'empty.txt' is empty"),
        (["--text", "mark.txt"], "'mark.txt' is empty"),
        (["--text", "short.txt"], "5 tokens are too few for a context of 32"),
        (
            ["--text", "short.txt", "--context", "5"],
            "text or --context 4 with --validation 0",
        ),
        (["--text", "a\0b"], "'a\\x00b' cannot be read: embedded null byte"),
        (["--context", "149"], "149 tokens are too few for a context of 149"),
        # sizes
        (["--width", "64", "--heads", "5"], "--width 64 is not divisible by heads 5"),
        (["--layers", "-1"], "--layers -1: "),
        (["--heads", "0"], "--heads 0: "),
        (["--context=0"], "--context 0: "),
        (["--steps", "0"], "--steps 0: "),
        (["--batch", "-3"], "--batch -3: "),
        (["--stride", "0"], "--stride 0: "),
        (["--layers", "two"], "--layers: 'two' is not a whole number"),
        (["--layers", "2.5"], "--layers: '2.5' is not a whole number"),
        (["--until", "1.5"], "--until: '1.5' is not a whole number"),
        (["--lr", "fast"], "--lr: 'fast' is not a number"),
        (["--lr", "0"], "--lr 0.0: "),
        (["--lr", "nan"], "--lr nan: "),
        (["--dropout", "1"], "--dropout 1.0: "),
        (["--seed", "-1"], "--seed -1: "),
        (["--warmup", "500"], "--warmup 500: "),
        (["--layers"], "--layers: expected one argument"),
        # names
        (["--dtype", "float99"], "--dtype 'float99': choose float32"),
        (["--dtype", "int32"], "--dtype 'int32': choose float32"),
        (["--device", "gpu"], "--device 'gpu': choose cpu, cuda or cuda:N"),
        (["--tf32"], "--tf32 is for float32 on a GPU, not for float32 on cpu"),
        (["--tf32", "--device", "cuda", "--dtype", "float16"], "not for float16 on cuda"),
        (["--norm", "middle"], "--norm: invalid choice: 'middle'"),
        # flags
        (["--lyers", "3"], "no flag is named --lyers; did you mean --layers?"),
        (["--lyers=3"], "no flag is named --lyers; did you mean --layers?"),
        (["--lay", "3"], "no flag is named --lay"),
        (["--no-ties"], "did you mean --no-tied?"),
        (["--xyzzy"], "no flag is named --xyzzy\nsee: tinygpt train --help"),
        (["--vocabulary", "3"], "no flag is named --vocabulary"),
        (["story.txt"], "'story.txt' is one word too many"),
        # where to
        (["--out", "short.txt"], "cannot write to short.txt"),
        (["--out", "short.txt/run"], "cannot write to short.txt/run"),
        (["--out", "."], ". is not empty"),
    ],
    ids=lambda value: " ".join(value).replace("\0", "") if isinstance(value, list) else "",
)
def test_train_refuses(
    arguments: list[str], says: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "folder").mkdir()
    for name, content in {
        "empty": b"",
        "short": b"abcde",
        "latin1": b"caf\xe9, th\xe9",
        "mark": b"\xef\xbb\xbf",
    }.items():
        (here / f"{name}.txt").write_bytes(content)
    refused(capsys, "train", *arguments, says=says)


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="the superuser may write anywhere",
)
def test_train_refuses_an_unwritable_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "locked").mkdir(mode=0o500)
    refused(capsys, "train", "--out", "locked/run", says="cannot write to")
    here.chmod(0o500)
    try:
        refused(capsys, "train", says="cannot write to")
    finally:
        here.chmod(0o700)


@pytest.mark.skipif(
    not Path("/proc/self").is_dir(), reason="no folder that refuses the superuser too"
)
def test_train_refuses_a_folder_that_refuses_everybody(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "train", "--out", "/proc/run", says="cannot write to /proc/run")


def test_train_refuses_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        array_module("cuda")
        device = "cuda:99"
    except DeviceError:
        device = "cuda"
    refused(capsys, "train", "--device", device, says=f"device {device!r}")


def test_unknown_commands_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    refused(
        capsys,
        "smaple",
        says="no command is named 'smaple'; did you mean sample?\nsee: tinygpt --help",
    )
    refused(capsys, "fly", says="no command is named 'fly'\nsee: tinygpt --help")
    refused(capsys, "--hepl", says="no flag is named --hepl; did you mean --help?")
    refused(
        capsys,
        "sample",
        "--hepl",
        says="no flag is named --hepl; did you mean --help?\nsee: tinygpt sample --help",
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "no run is named 'nowhere'"),
        (["story-2"], "no run is named 'story-2'; did you mean story-1?"),
        (["."], ". is no run: it holds no config.json"),
        (["--prompt", ""], "the prompt is empty"),
        (
            ["--prompt", "The Zebra"],
            "character 'Z' at position 4 is not one of the 22 this tokenizer knows",
        ),
        (["--prompt", "Käse"], "character 'K' at position 0"),
        (["--temperature", "-1"], "--temperature -1.0: "),
        (["--temperature", "hot"], "--temperature: 'hot' is not a number"),
        (["--temperature", "inf"], "--temperature inf: "),
        (["--top-k", "0"], "--top-k 0: "),
        (["--top-k", "1.5"], "--top-k: '1.5' is not a whole number"),
        (["--top-p", "2"], "--top-p 2.0: "),
        (["--top-p", "0"], "--top-p 0.0: "),
        (["--length", "-1"], "--length -1: "),
        (["--seed", "x"], "--seed: 'x' is not a whole number"),
        (["--topk", "3"], "no flag is named --topk; did you mean --top-k?"),
        (["--device", "gpu"], "no device is named 'gpu'"),
        (["--dtype", "int8"], "--dtype 'int8': choose float32, float64, bfloat16 or float16"),
        (["story-1", "more"], "'more' is one word too many"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_sample_refuses(
    arguments: list[str], says: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, "sample", *arguments, says=says)


def test_sample_without_any_run(capsys: pytest.CaptureFixture[str]) -> None:
    refused(
        capsys, "sample", says="there is no run here yet (looked in runs/)\nmake one: tinygpt train"
    )


def cut(run: Path, name: str = "model.safetensors") -> None:
    (run / name).write_bytes((run / name).read_bytes()[:-100])


def garble(run: Path, name: str) -> None:
    (run / name).write_bytes(b"\x80\x05garbage \x1b[2J")


def shorten(run: Path) -> None:
    """A header that promises fewer bytes than it describes."""
    content = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes((5).to_bytes(8, "little") + content[8:])


def rewrite(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    arrays = load_file(run / "model.safetensors")
    change(arrays)
    put_weights(run, arrays)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "model.safetensors is not the file that its state.json was written for"),
        (
            lambda run: garble(run, "model.safetensors"),
            "model.safetensors is too small for the model of config.json",
        ),
        (shorten, "model.safetensors is not the file that its state.json was written for"),
        (
            lambda run: rewrite(run, lambda arrays: arrays.pop("final_norm.gain")),
            "final_norm.gain is not in it",
        ),
        (
            lambda run: rewrite(
                run, lambda arrays: arrays.update({"final_norm.gain": np.ones(9, np.float32)})
            ),
            "final_norm.gain is (9,) float32, not (8,)",
        ),
        (
            lambda run: rewrite(run, lambda arrays: arrays.update({"final_norm.gain": np.ones(8)})),
            "final_norm.gain is (8,) float64, not (8,) float32",
        ),
        (
            lambda run: rewrite(run, lambda arrays: arrays.update({"more": np.ones(8)})),
            "it holds more, which the model has not",
        ),
        (lambda run: (run / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda run: garble(run, "config.json"), "config.json is damaged"),
        (
            lambda run: (run / "config.json").write_text(
                '{"model": {}, "training": {}, "opening": ""}'
            ),
            "config.json is damaged",
        ),
        (lambda run: garble(run, "tokenizer.json"), "tokenizer.json"),
        (
            lambda run: (run / "tokenizer.json").write_text(
                '{"kind": "character", "characters": "abc"}'
            ),
            "knows 3 tokens, the model 22",
        ),
        (lambda run: (run / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda run: (run / "config.json").unlink(), "is no run: it holds no config.json"),
    ],
    ids=[
        "cut",
        "garbage",
        "header",
        "missing",
        "shape",
        "dtype",
        "extra",
        "gone",
        "config",
        "config fields",
        "tokenizer",
        "other tokenizer",
        "no tokenizer",
        "no config",
    ],
)
def test_sample_refuses_damaged_files(
    damage: Callable[[Path], Any], says: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(run)
    refused(capsys, "sample", "story-1", says=says)
