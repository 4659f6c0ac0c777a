"""The command line as a user meets it: what it says, what it leaves, what it refuses and how."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygpt
from tensor.devices import array_module
from tensor.errors import DeviceError
from tinygpt import GPTConfig, SampleConfig, TrainConfig, cli, console, training
from tinygpt.__main__ import main
from tinygpt.commands import COMMANDS

ROOT = Path(tinygpt.__file__).parents[1]
TINY = ["--width", "8", "--heads", "2", "--layers", "1", "--context", "8", "--batch", "4"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small run in it."""
    folder = tmp_path_factory.mktemp("trained")
    done = subprocess.run([*PROGRAM, "train", *TINY, "--steps", "3"], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run(trained: Path, here: Path) -> Path:
    """A copy of that run, to be damaged."""
    return Path(shutil.copytree(trained / "runs", here / "runs")) / "story-1"


PROGRAM = [sys.executable, "-m", "tinygpt"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **more}


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([*PROGRAM, *arguments], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def losses(run: Path) -> list[Any]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# -- the first two commands -------------------------------------------------------------------------------------------


def test_the_first_command_learns_the_story(capsys: pytest.CaptureFixture[str]) -> None:
    """`tinygpt train` ends below 0.1 and within 0.03 of the floor, and the sample goes on with the story."""
    assert main(["train"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 120  # the sample is one line of its own
    assert max(len(line) for line in out.splitlines() if not line.startswith("The cat")) <= 80
    for said in ("149 characters, 22 different", "103,552 parameters", "3.091 nats", "0.063 is the floor", "cpu: the default", "float32: the default"):
        assert said in out
    final = losses(Path("runs/story-1"))[-1]
    assert final["loss"] < min(0.1, 0.0632 + 0.03)
    assert final["windows"] == 117
    assert f"loss {final['loss']:.4f}: the mean over all 117 windows, dropout off" in out
    assert "\nThe cat sat on the mat. The dog ran" in out

    assert main(["sample", "--prompt", "The cat sat on the", "--temperature", "0", "--length", "5"]) == 0
    assert capsys.readouterr().out == "The cat sat on the mat.\n"


def test_what_a_run_leaves(run: Path) -> None:
    names = ["config.json", "loss.png", "metrics.jsonl", "model.safetensors", "optimizer.safetensors", "state.json", "tokenizer.json"]
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
    _, model, tokenizer = tinygpt_load(run)
    x, y = tinygpt.windows(tokenizer.encode(tinygpt.story()), 8)
    assert losses(run)[-1]["loss"] == pytest.approx(model.loss(x, y).item(), rel=1e-5)


def tinygpt_load(run: Path) -> Any:
    from tinygpt import runs

    return runs.load(run)


def test_flags_reach_the_run() -> None:
    arguments = [*TINY, "--steps", "2", "--seed", "5", "--lr", "0.1", "--dtype", "float64", "--dropout", "0.1", "--norm", "post", "--no-bias", "--no-tied"]
    assert main(["train", *arguments, "--positions", "sinusoidal", "--activation=relu", "--out", "mine"]) == 0
    config = json.loads(Path("mine/config.json").read_text())
    expected = {"width": 8, "heads": 2, "layers": 1, "context": 8, "dropout": 0.1, "norm": "post", "bias": False, "tied": False, "positions": "sinusoidal"}
    assert {**config["model"], **expected, "activation": "relu"} == config["model"]
    assert {**config["training"], "batch": 4, "steps": 2, "seed": 5, "lr": 0.1, "dtype": "float64", "out": "mine"} == config["training"]
    assert main(["sample", "mine", "--length", "3"]) == 0


def test_own_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a byte order mark and line ends of Windows, as an editor there writes it."""
    (here / "my text.txt").write_bytes(b"\xef\xbb\xbf" + "Es grünt so grün.\r\n".encode() * 3)
    assert main(["train", "--text", "my text.txt", *TINY, "--steps", "2"]) == 0
    out = capsys.readouterr().out
    assert "my text.txt: 54 characters" in out
    assert "\nEs grünt so grün.\nEs" in out  # the first five words are the prompt
    assert json.loads((here / "runs/my-text-1/tokenizer.json").read_text(encoding="utf-8"))["characters"] == "Es grünto.\n"


def test_a_text_without_doubt_and_one_of_a_single_character(here: Path) -> None:
    """Floor 0, and ln V = 0: there is no logarithm of them to draw."""
    (here / "all.txt").write_text("abcdefghijklmnop")
    (here / "one.txt").write_text("a" * 20)
    for name in ("all", "one"):
        assert main(["train", "--text", f"{name}.txt", *TINY, "--steps", "2"]) == 0
        assert losses(Path(f"runs/{name}-1"))[-1]["loss"] >= 0


# -- sampling ---------------------------------------------------------------------------------------------------------


def sampled(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["sample", *arguments]) == 0
    return capsys.readouterr().out


def test_sampling_follows_its_seed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = sampled(capsys, "story-1", "--length", "40")
    assert first == sampled(capsys, "--length", "40") == sampled(capsys, str(run), "--seed", "0", "--length", "40")
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


def test_control_characters_are_shown_not_obeyed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a text, from a file's name, from a prompt; also those that turn the direction of what follows."""
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


def test_visible() -> None:
    assert console.visible("a\tb\nc é 漢 👩‍💻") == "a\tb\nc é 漢 👩‍💻"
    assert console.visible("\r\x00\x1b\x85\u2028\ud800\u2067") == r"\r\x00\x1b\x85\u2028\ud800\u2067"
    assert console.visible("a\tb\n", lines=False) == r"a\tb\n"


# -- help -------------------------------------------------------------------------------------------------------------


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
    modules = {path.stem for path in (ROOT / "tinygpt/commands").glob("*.py")} - {"__init__"}
    assert set(COMMANDS) == modules


@pytest.mark.parametrize(("command", "configs"), [("train", (TrainConfig, GPTConfig)), ("sample", (SampleConfig,))])
def test_help_names_every_field_and_its_default(capsys: pytest.CaptureFixture[str], command: str, configs: tuple[type, ...]) -> None:
    words = " ".join(helped(capsys, command).split())
    for config in configs:
        for field in fields(config):
            if field.name == "vocabulary":
                continue
            assert cli.flag(field.name) in words
            assert field.metadata["help"].replace("%%", "%") in words
            assert field.default is None or f"(default: {field.default})" in words


def test_the_flags_of_the_specification_exist() -> None:
    train, sample = cli.Parser(), cli.Parser()
    cli.add_flags(train, TrainConfig)
    cli.add_flags(train, GPTConfig)
    cli.add_flags(sample, SampleConfig)
    wanted = "--text --layers --heads --width --context --batch --steps --lr --seed --device --dtype --out"
    assert set(wanted.split()) <= set(train._option_string_actions)
    assert set("--prompt --length --temperature --top-k --top-p --seed".split()) <= set(sample._option_string_actions)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tinygpt {tinygpt.__version__}\n"


def test_help_loads_neither_matplotlib_nor_rich() -> None:
    program = "import sys; from tinygpt.__main__ import main; main(['train', '--help']); sys.exit(any(name in sys.modules for name in ('matplotlib', 'rich', 'cupy')))"
    assert subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, timeout=60).returncode == 0


# -- bad input --------------------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, says: str) -> None:
    """Exit code 2, one or two lines on stderr, nothing on stdout, no file more or less than before."""
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
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        # the text
        (["--text", "nowhere.txt"], "no file is named 'nowhere.txt'\ngive the path"),
        (["--text", "folder"], "'folder' is a folder"),
        (["--text", "latin1.txt"], "'latin1.txt' is not UTF-8: byte 0xe9 at offset 3\nsave it as UTF-8"),
        (["--text", "empty.txt"], "'empty.txt' is empty"),
        (["--text", "mark.txt"], "'mark.txt' is empty"),
        (["--text", "short.txt"], "5 tokens are too few for a context of 32"),
        (["--text", "short.txt", "--context", "5"], "use a longer text, or a context of at most 4"),
        (["--text", "a\0b"], "cannot be a file"),
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
def test_train_refuses(arguments: list[str], says: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "folder").mkdir()
    for name, content in {"empty": b"", "short": b"abcde", "latin1": b"caf\xe9, th\xe9", "mark": b"\xef\xbb\xbf"}.items():
        (here / f"{name}.txt").write_bytes(content)
    refused(capsys, "train", *arguments, says=says)


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_train_refuses_an_unwritable_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "locked").mkdir(mode=0o500)
    refused(capsys, "train", "--out", "locked/run", says="cannot write to")
    here.chmod(0o500)
    try:
        refused(capsys, "train", says="cannot write to")
    finally:
        here.chmod(0o700)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder that refuses the superuser too")
def test_train_refuses_a_folder_that_refuses_everybody(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "train", "--out", "/proc/run", says="cannot write to /proc/run")


def test_train_refuses_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        array_module("cuda")
        device = "cuda:99"
    except DeviceError:
        device = "cuda"
    refused(capsys, "train", "--device", device, says=f"--device {device}: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no command is named 'smaple'; did you mean sample?\nsee: tinygpt --help"),
    ],
)
def test_an_unknown_command(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "smaple", *arguments, says=says)
    refused(capsys, "fly", says="no command is named 'fly'\nsee: tinygpt --help")
    refused(capsys, "--hepl", says="no flag is named --hepl; did you mean --help?")
    refused(capsys, "sample", "--hepl", says="no flag is named --hepl; did you mean --help?\nsee: tinygpt sample --help")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "no run is named 'nowhere'"),
        (["story-2"], "no run is named 'story-2'; did you mean story-1?"),
        (["."], ". is no run: it holds no config.json"),
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "The Zebra"], "character 'Z' at position 4 is not one of the 22 this model knows"),
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
        (["--device", "cpu"], "no flag is named --device"),
        (["story-1", "more"], "'more' is one word too many"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_sample_refuses(arguments: list[str], says: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "sample", *arguments, says=says)


def test_sample_without_any_run(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "sample", says="there is no run here yet (looked in runs/)\nmake one: tinygpt train")


def cut(run: Path, name: str = "model.safetensors") -> None:
    (run / name).write_bytes((run / name).read_bytes()[:-100])


def garble(run: Path, name: str) -> None:
    (run / name).write_bytes(b"\x80\x05garbage \x1b[2J")


def shorten(run: Path) -> None:
    """A header that promises fewer bytes than it describes."""
    content = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes((5).to_bytes(8, "little") + content[8:])


def rewrite(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    from safetensors.numpy import load_file, save_file

    arrays = load_file(run / "model.safetensors")
    change(arrays)
    save_file(arrays, run / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "model.safetensors is damaged or no safetensors file"),
        (lambda run: garble(run, "model.safetensors"), "model.safetensors is damaged or no safetensors file"),
        (shorten, "model.safetensors is damaged or no safetensors file"),
        (lambda run: rewrite(run, lambda arrays: arrays.pop("final_norm.gain")), "final_norm.gain is not in it"),
        (lambda run: rewrite(run, lambda arrays: arrays.update({"final_norm.gain": np.ones(9, np.float32)})), "final_norm.gain is (9,) float32, not (8,)"),
        (lambda run: rewrite(run, lambda arrays: arrays.update({"final_norm.gain": np.ones(8)})), "final_norm.gain is (8,) float64, not (8,) float32"),
        (lambda run: rewrite(run, lambda arrays: arrays.update({"more": np.ones(8)})), "it holds more, which the model has not"),
        (lambda run: (run / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda run: garble(run, "config.json"), "config.json is damaged"),
        (lambda run: (run / "config.json").write_text('{"model": {}, "training": {}, "opening": ""}'), "config.json is damaged"),
        (lambda run: garble(run, "tokenizer.json"), "tokenizer.json"),
        (lambda run: (run / "tokenizer.json").write_text('{"kind": "character", "characters": "abc"}'), "knows 3 tokens, the model 22"),
        (lambda run: (run / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda run: (run / "config.json").unlink(), "is no run: it holds no config.json"),
    ],
    ids=["cut", "garbage", "header", "missing", "shape", "dtype", "extra", "gone", "config", "config fields", "tokenizer", "other tokenizer", "no tokenizer", "no config"],
)
def test_sample_refuses_damaged_files(damage: Callable[[Path], Any], says: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(run)
    refused(capsys, "sample", "story-1", says=says)


# -- a training that goes wrong ---------------------------------------------------------------------------------------


def test_bug_43_skipped_steps_are_reported(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once when it happens, in the count at the end, and in the metrics, which stay JSON."""
    norms = iter([1.0, math.nan, 1.0, math.inf, 1.0])
    monkeypatch.setattr(training, "clip_gradients", lambda *_: next(norms))
    assert main(["train", *TINY, "--steps", "5"]) == 0
    out, err = capsys.readouterr()
    assert err == "step 2 skipped: its gradient norm is nan; the weights stay as they were\n"
    assert "; 2 of them skipped" in out
    records = losses(Path("runs/story-1"))
    assert [record["skipped"] for record in records[:5]] == [False, True, False, True, False]
    assert records[1]["gradient_norm"] is None


def test_a_training_that_diverges_ends(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "clip_gradients", lambda *_: math.nan)
    assert main(["train", *TINY, "--steps", "500"]) == 1
    out = capsys.readouterr().out
    assert "20 steps in a row had no finite gradient: training has diverged; try a lower --lr" in out
    assert len(losses(Path("runs/story-1"))) == 20


# -- Ctrl-C and its like ----------------------------------------------------------------------------------------------


def stopped(here: Path, number: int) -> tuple[int, str, str]:
    """A long training that gets a signal after its first steps."""
    process = start("train", *TINY, "--steps", "1000000", cwd=here)
    metrics = here / "runs/story-1/metrics.jsonl"
    try:
        end = time.monotonic() + 30
        while not (metrics.exists() and metrics.read_text().count("\n") >= 3) and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.mark.skipif(os.name == "nt", reason="signals cannot be sent there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves(number: int, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = stopped(here, number)
    assert (code, err) == (130, "")
    records = losses(here / "runs/story-1")
    assert f"stopped after step {len(records)} of 1,000,000; try it: tinygpt sample runs/story-1" in out
    assert json.loads((here / "runs/story-1/state.json").read_text())["step"] == len(records) >= 3
    assert (here / "runs/story-1/loss.png").exists()
    assert sampled(capsys, "--length", "5").startswith("The cat sat on the")


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_killed_before_the_first_checkpoint(here: Path, capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    """Its folder is not taken for a run to sample from, and another training goes beside it."""
    assert stopped(here, signal.SIGKILL)[0] == -signal.SIGKILL
    refused(capsys, "sample", says="there is no run here yet")
    refused(capsys, "sample", "story-1", says="model.safetensors is missing\nthe run ended before its first checkpoint")
    assert main(["train", *TINY, "--steps", "1"]) == 0
    assert "runs/story-2" in capsys.readouterr().out


@pytest.fixture
def interrupt() -> Iterator[console.Interrupt]:
    before = [signal.getsignal(number) for number in console.stop_signals()]
    with console.Interrupt() as stop:
        yield stop
    assert [signal.getsignal(number) for number in console.stop_signals()] == before


def test_a_second_ctrl_c_stops_at_once(interrupt: console.Interrupt) -> None:
    signal.raise_signal(signal.SIGINT)
    assert interrupt.asked
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_only_the_main_thread_listens() -> None:
    """Python lets no other set a handler: training there still works."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["train", *TINY, "--steps", "1"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_signals_of_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert console.stop_signals() == (signal.SIGINT, signal.SIGTERM)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(signal, "SIGBREAK", 21, raising=False)
    assert console.stop_signals() == (signal.SIGINT, 21)


def test_ctrl_c_elsewhere(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tinygpt.commands.sample.write", pressed)
    assert main(["sample"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_out_of_memory_while_training_leaves_nothing(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> float:
        raise MemoryError("Unable to allocate 3 TiB")

    monkeypatch.setattr(training, "clip_gradients", full)
    assert main(["train", *TINY]) == 2
    assert "out of memory (Unable to allocate 3 TiB)\ntake a smaller --batch" in capsys.readouterr().err
    assert os.listdir(here / "runs") == []


# -- terminals and pipes ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="no pipes of this kind")
def test_a_reader_that_has_seen_enough(run: Path) -> None:
    process = start("sample", "--length", "100000", cwd=run.parents[1])
    assert process.stdout is not None
    assert process.stdout.read(10) == "The cat sa"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=30) == 0


def test_a_terminal_that_lacks_a_character(here: Path) -> None:
    (here / "text.txt").write_text("grün 漢字 " * 5, encoding="utf-8")
    command = [*PROGRAM, "train", "--text", "text.txt", *TINY, "--steps", "1"]
    done = subprocess.run(command, cwd=here, env=environment(PYTHONIOENCODING="ascii"), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert rb"gr\xfcn \u6f22\u5b57" in done.stdout


def on_a_terminal(here: Path, *arguments: str, columns: int = 80, **variables: str) -> str:
    """What a command writes to a terminal of so many columns."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {name: value for name, value in environment(TERM="xterm-256color", **variables).items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen([*PROGRAM, *arguments], cwd=here, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # how a terminal says that nobody writes any more
        pass
    finally:
        os.close(ours)
    assert process.wait(timeout=30) == 0
    return written.decode()


CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")
def test_the_live_line(here: Path) -> None:
    written = on_a_terminal(here, "train", *TINY, "--steps", "40")
    lines = [line for line in re.split(r"[\r\n]+", CONTROL.sub("", written)) if "tok/s" in line]
    assert lines
    assert max(map(len, lines)) <= 80
    assert re.match(r"40/40 ━+ loss \d\.\d{4}  lr \d\.\de-\d\d  norm \d+\.\d\d  [\d.]+k? tok/s  0 s left", lines[-1])
    assert "\x1b[38;5" in written or "\x1b[3" in written  # the bar has a colour


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")
def test_no_color(here: Path) -> None:
    written = on_a_terminal(here, "train", *TINY, "--steps", "20", NO_COLOR="1")
    assert "20/20" in written
    codes = [code for sequence in re.findall(r"\x1b\[([0-9;]*)m", written) for code in sequence.split(";")]
    assert not [code for code in codes if code.startswith(("3", "4", "9")) and code != "39"]


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")
def test_a_dumb_terminal_gets_no_live_line(here: Path) -> None:
    written = on_a_terminal(here, "train", *TINY, "--steps", "2", TERM="dumb")
    assert "\x1b" not in written
    assert "tok/s" not in written


def test_how_numbers_are_shown() -> None:
    assert [console.duration(seconds) for seconds in (-1, 0.2, 7, 59.4, 60, 65, 7400)] == ["0 s", "0 s", "7 s", "59 s", "1:00", "1:05", "2:03:20"]
    assert [console.short(number) for number in (0.5, 12, 950, 12345, 4.5e6, 3e9)] == ["0.5", "12", "950", "12.3k", "4.5M", "3G"]
