"""`tinygpt finetune`: from a run to a run that answers.   Tests: commands/finetune.py,
model/growing.py, training/jobs.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.helpers.program import losses, refused
from tinygpt.__main__ import main
from tinygpt.model.growing import with_new_tokens
from tinygpt.runs import run as runs
from tinygpt.runs import snapshots

BASE = ["train", "--tokenizer", "byte", "--context", "48", "--width", "16", "--heads", "2"]
BASE += ["--layers", "1", "--steps", "2", "--batch", "4", "--snapshots", "0", "--out", "runs/base"]
WORDS = ["one", "two", "six", "ten", "red", "blue", "green", "cat", "dog", "owl"]
LINES = [
    {"instruction": f"say {word}", "answer": word, "input": "as it is" * (i % 2)}
    for i, word in enumerate(WORDS)
]
QUICK = ["--batch", "4", "--snapshots", "0", "--data", "examples.jsonl"]


@pytest.fixture
def base(here: Path) -> Path:
    """A run of bytes, and a file of examples."""
    (here / "text.txt").write_text("one two six ten red blue green cat dog owl\n" * 40)
    assert main([*BASE, "--text", "text.txt"]) == 0
    (here / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return here


def weights(folder: str) -> dict[str, Any]:
    _, model, _ = runs.load(Path("runs") / folder)
    return {name: x.numpy() for name, x in model.state_dict().items()}


def test_a_run_that_answers(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--steps", "200", "--lr", "0.01", "--validation", "0", "--dropout", "0"]
    assert main(["finetune", "base", *QUICK, *flags]) == 0
    out = capsys.readouterr().out
    assert "examples  10 of at most 48 bytes" in out
    assert "start     the best weights of base" in out.replace("runs/", "")
    run, _, tokenizer = runs.load(Path("runs/examples-1"))
    assert (run.stage, run.kind) == ("finetune", "gpt")
    assert tokenizer.size == 259
    assert main(["eval", "examples-1"]) == 0
    assert "exact       100.0%, 10 of 10 answers" in capsys.readouterr().out
    assert main(["sample", "examples-1", "--prompt", "as it is\nsay red"]) == 0
    # the odd ones have an input
    assert main(["sample", "examples-1", "--prompt", "as it is\nsay two"]) == 0
    assert capsys.readouterr().out.endswith("as it is\nsay two\ntwo\n")
    refused(capsys, "eval", "examples-1", "--text", "story", says="learned from examples")
    refused(capsys, "eval", "base", "--data", "examples.jsonl", says="learned from a text")


def test_the_base_is_kept_and_new_tokens_are_added(base: Path) -> None:
    before = weights("base")
    assert main(["finetune", "base", *QUICK, "--steps", "1", "--lr", "1e-9"]) == 0
    after = weights("examples-1")
    assert all(np.array_equal(x, weights("base")[name]) for name, x in before.items())
    table = after["token_embedding.weight"]
    np.testing.assert_allclose(table[3:], before["token_embedding.weight"], atol=1e-6)
    assert table[:3].std() > 0.01


def test_a_stopped_fine_tuning_goes_on_with_the_same_bits(base: Path) -> None:
    flags = ["finetune", "base", *QUICK, "--steps", "6", "--packing"]
    assert main([*flags, "--out", "whole"]) == 0
    assert main([*flags, "--out", "parts", "--until", "3"]) == 0
    (base / "examples.jsonl").rename(base / "moved.jsonl")
    assert main(["finetune", "--resume", "parts", "--data", "moved.jsonl"]) == 0
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert Path("whole", name).read_bytes() == Path("parts", name).read_bytes()
    one, other = ([x.get("loss") for x in losses(Path(name))] for name in ("whole", "parts"))
    assert one == other


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_frozen_parts_stay_bit_for_bit(
    optimizer: str, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in a run that was stopped, whose optimiser keeps nothing for them."""
    flags = ["finetune", "base", *QUICK, "--steps", "4", "--freeze", "blocks", "--lr", "0.1"]
    flags += ["--optimizer", optimizer, "--weight-decay", "0.5"]
    assert main([*flags, "--out", "whole"]) == 0
    # the table of 259 tokens and 48 places, and the last norm
    assert "learning  4,944 of the 8,224 parameters, 60.12%" in capsys.readouterr().out
    assert main([*flags, "--out", "parts", "--until", "2"]) == 0
    assert main(["finetune", "--resume", "parts"]) == 0
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert Path("whole", name).read_bytes() == Path("parts", name).read_bytes()
    state = json.loads(Path("whole/state.json").read_text())
    learned = {"token_embedding.weight", "position_embedding", "final_norm.gain", "final_norm.bias"}
    assert set(state["optimizer"]["counts"]) == learned
    before, after = weights("base"), weights("../whole")
    same = {name for name, x in after.items() if np.array_equal(x, before[name])}
    assert same == set(after) - learned
    assert main(["step", "whole", "--train", "--plain"]) == 0


LORA = ["--lora", "3", "--lr", "0.02", "--steps", "6", "--out"]


@pytest.mark.parametrize("more", [[], ["--optimizer", "muon"], ["--dtype", "float16"]])
def test_a_stopped_lora_goes_on_with_the_same_bits(more: list[str], base: Path) -> None:
    flags = ["finetune", "base", *QUICK, *more]
    assert main([*flags, *LORA, "whole"]) == 0
    assert main([*flags, *LORA, "parts", "--until", "1"]) == 0
    kept = Path("parts/base.safetensors").stat().st_mtime_ns
    for until in (["--until", "4"], []):
        assert main(["finetune", "--resume", "parts", *until]) == 0
    assert Path("parts/base.safetensors").stat().st_mtime_ns == kept  # written once
    for name in ("model", "optimizer", "best", "base"):
        file = f"{name}.safetensors"
        assert Path("whole", file).read_bytes() == Path("parts", file).read_bytes()
    assert Path("whole/state.json").read_bytes() == Path("parts/state.json").read_bytes()
    names = set(load_file("parts/model.safetensors"))
    assert {name.rpartition(".")[2] for name in names} == {"A", "B", "new"}
    assert all(x.any() for x in load_file("parts/model.safetensors").values())  # all has learned
    counts = json.loads(Path("parts/state.json").read_text())["optimizer"]["counts"]
    assert set(counts) == names


def test_every_command_takes_a_run_with_adapters_as_a_plain_one(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["finetune", "base", *QUICK, "--snapshots", "2", *LORA, "lora"]
    assert main([*flags, "--validation", "0"]) == 0
    out = capsys.readouterr().out
    assert "learning  816 of the 9,040 parameters, 9.03%" in out
    before, after = weights("base"), weights("../lora")
    shapes = {name: x.shape for name, x in before.items()}
    assert {name: x.shape for name, x in after.items()} == shapes | {
        "token_embedding.weight": (259, 16)
    }
    table = after["token_embedding.weight"]
    np.testing.assert_array_equal(table[3:], before["token_embedding.weight"])
    _, snapshot = snapshots.load(runs.load(Path("lora"))[0])[-1]
    for name, x in after.items():
        np.testing.assert_array_equal(snapshot[name], x.astype(np.float16))
    assert main(["merge", "lora", "--out", "plain"]) == 0
    assert not Path("plain/base.safetensors").exists()
    one, other = weights("../lora"), weights("../plain")
    assert all(np.array_equal(x, other[name]) for name, x in one.items())
    capsys.readouterr()
    for command in (["sample", "--prompt", "say red"], ["eval"], ["inspect"]):
        said = []
        for run in ("lora", "plain"):
            assert main([command[0], run, *command[1:]]) == 0
            said.append(capsys.readouterr().out.partition("\n")[2])
        assert said[0] == said[1]
    assert main(["step", "lora", "--train", "--plain"]) == 0
    assert main(["finetune", "lora", *QUICK, *LORA, "again"]) == 0  # its base is the merged one
    assert main(["verify", "resume", "lora"]) == 0
    capsys.readouterr()
    refused(capsys, "merge", "plain", says="has no adapters")
    refused(capsys, "merge", "base", says="has no adapters")
    refused(capsys, "merge", "lora", "--out", "plain", says="is not empty")
    refused(capsys, "train", "--resume", "plain", says="there is no training to go on with")
    refused(capsys, "finetune", "--resume", "lora", "--lora", "4", says="--lora cannot be chosen")


def test_weights_that_do_not_fit_the_adapters(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", "base", *QUICK, *LORA, "lora"]) == 0
    capsys.readouterr()
    config = json.loads(Path("lora/config.json").read_text())
    training = config["training"]
    for changes, says in (
        ({"training": training | {"lora": 4}}, "best.safetensors"),
        ({"training": training | {"lora": None}}, "token_embedding.weight"),
        ({"new_rows": [0, 2]}, "token_embedding.new"),
        ({"new_rows": [300, 3]}, "token_embedding.new"),
        ({"new_rows": [-1, 3]}, "config.json"),
    ):
        Path("lora/config.json").write_text(json.dumps(config | changes))
        refused(capsys, "sample", "lora", says=says)
    Path("lora/config.json").write_text(json.dumps(config))
    file = Path("lora/base.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    refused(capsys, "sample", "lora", says="base.safetensors is not the file")
    refused(capsys, "finetune", "--resume", "lora", says="base.safetensors is not the file")
    file.unlink()
    refused(capsys, "sample", "lora", says="is too small")


def test_what_cannot_be(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, says in (
        (["none"], "no run is named"),
        (["base", "--data", "gone.jsonl"], "gone.jsonl"),
        (["base", "--data", "text.txt"], "is no example"),
        (["base"], "do not fit a context of 48"),
        (["base", "--validation", "0.2"], "--data questions"),
        (["base", "--data", "examples.jsonl", "--freeze", "blocks:2"], "at most blocks:1"),
        (["base", "--freeze", "head"], "'head' is no part of a model"),
        (["base", "--freeze", "blocks", "--lora", "8"], "leave one out"),
        (["base", "--lora", "0"], "at least 1"),
        (["base", "--resume", "base"], "leave one of the two out"),
        (["--resume", "base"], "goes on"),
    ):
        if flags != ["--resume", "base"]:
            refused(capsys, "finetune", *flags, says=says)
    (base / "long.jsonl").write_text(json.dumps({"instruction": "x" * 60, "answer": "y"}))
    refused(capsys, "finetune", "base", "--data", "long.jsonl", "--validation", "0", says="48")
    config = json.loads(Path("runs/base/config.json").read_text())
    Path("runs/base/config.json").write_text(json.dumps(config | {"stage": "teach"}))
    refused(capsys, "sample", "base", says="no stage of training is named 'teach'")


@pytest.mark.parametrize("flags", [(), ("--data", "replies")])
def test_a_base_run_that_lacks_characters_of_the_made_examples(
    run: Path, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    says = "that come with tinygpt: character "
    refused(capsys, "finetune", "story-1", *flags, says=says)


def test_rows_of_new_tokens_stand_in_between() -> None:
    """The ids before keep their rows, those after move up; a head of its own grows too."""
    from tensor import Tensor

    table, head = np.arange(12.0).reshape(4, 3), np.arange(12.0).reshape(3, 4)
    given = {"token_embedding.weight": Tensor(table), "head.weight": Tensor(head)}
    grown = {name: x.numpy() for name, x in with_new_tokens(given, 1, 2, seed=0).items()}
    np.testing.assert_array_equal(grown["token_embedding.weight"][[0, 3, 4, 5]], table)
    np.testing.assert_array_equal(grown["head.weight"][:, [0, 3, 4, 5]], head)
    assert np.abs(grown["token_embedding.weight"][1:3]).max() < 0.1


def test_plot_and_export_say_what_differs(
    answering: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loss of answers is not that of a text; special tokens have no place in vocab.json."""
    run, base = str(answering), str(answering.parent / "base")
    assert main(["plot", run, base, "--out", "a.png"]) == 0
    assert "does not compare with the loss of a text" in capsys.readouterr().out
    assert main(["plot", run, "--out", "a.png"]) == 0
    assert "compare" not in capsys.readouterr().out
    assert main(["export-gpt2", run, "made"]) == 0
    assert "the tokens of this run begin with <|user|>, <|ass" in capsys.readouterr().out
