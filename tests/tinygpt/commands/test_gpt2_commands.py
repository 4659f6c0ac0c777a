"""`tinygpt import-gpt2` and `export-gpt2`: there and back, what does not fit is named, nothing is
left by halves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from tensor import random
from tests.helpers.gpt2_folder import BYTES, Keys, drawn, write
from tests.helpers.program import environment, put_weights, refused, sampled
from tinygpt import GPT, GPTConfig
from tinygpt.__main__ import main
from tinygpt.errors import InputError
from tinygpt.runs import checkpoint, gpt2
from tinygpt.runs.tensors import HEADER

FILES = ["config.json", "merges.txt", "model.safetensors", "vocab.json"]
GREEDY = ["--prompt", "the", "--length", "20", "--temperature", "0"]


# -- there and back


@pytest.mark.parametrize("dtype", ["float32", "float16", ml_dtypes.bfloat16])
def test_the_commands_there_and_back(
    here: Path, capsys: pytest.CaptureFixture[str], dtype: Any
) -> None:
    """Byte for byte: tensors, choices that only they know, tokens."""
    write(
        here / "My GPT",
        BYTES,
        drawn(BYTES, dtype),
        activation_function="gelu_pytorch_tanh",
        n_inner=32,
        attn_pdrop=0.1,
    )
    assert main(["import-gpt2", "My GPT"]) == 0
    assert (
        f"dtype     {np.dtype(dtype)}: as in the file\nrun       runs/My-GPT-1"
        in capsys.readouterr().out
    )
    first = sampled(capsys, *GREEDY)
    assert main(["export-gpt2", "My-GPT-1", "back/there"]) == 0
    assert sorted(os.listdir("back/there")) == FILES
    for name in FILES:
        assert Path("back/there", name).read_bytes() == Path("My GPT", name).read_bytes(), name
    assert main(["import-gpt2", "back/there", "--out", "again"]) == 0
    capsys.readouterr()
    assert sampled(capsys, "again", *GREEDY) == first
    assert main(["import-gpt2", "My GPT"]) == 0
    assert sorted(os.listdir("runs")) == ["My-GPT-1", "My-GPT-2"]


def test_another_dtype_as_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "a", BYTES, drawn(BYTES, "float16"))
    assert main(["import-gpt2", "a", "--dtype", "float32"]) == 0
    assert "float32: as asked" in capsys.readouterr().out
    assert main(["export-gpt2", "a-1", "b"]) == 0
    assert {array.dtype for array in load_file("b/model.safetensors").values()} == {
        np.dtype("float32")
    }
    assert gpt2.read_keys("b")["dtype"] == "float32"


def test_a_trained_run_of_characters(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its weights can go; its tokens are no byte pairs, and the command says so."""
    assert main(["export-gpt2", "story-1", "made"]) == 0
    assert (
        "wrote config.json, model.safetensors to made: runs/story-1, its last weights\n"
        "no vocab.json and merges.txt" in capsys.readouterr().out
    )
    model = gpt2.load("made")
    assert model.config == GPTConfig(22, 8, 8, 2, 1)
    theirs = checkpoint.load_arrays(run / "model.safetensors", model.state_dict())
    assert all(np.array_equal(theirs[name], w.numpy()) for name, w in model.state_dict().items())


def test_the_best_weights_go_unless_the_last_are_asked_for(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that sample and eval take, too."""
    arrays = load_file(run / "model.safetensors")
    put_weights(run, {name: 2 * array for name, array in arrays.items()}, "best.safetensors")
    for flags, which, factor in ((["--last"], "last", 1), ([], "best", 2)):
        assert main(["export-gpt2", "story-1", which, *flags]) == 0
        assert f"to {which}: runs/story-1, its {which} weights\n" in capsys.readouterr().out
        assert np.array_equal(
            load_file(f"{which}/model.safetensors")["transformer.wte.weight"],
            factor * arrays["token_embedding.weight"],
        )


def test_the_next_command_can_be_pasted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "a", BYTES, drawn(BYTES))
    assert main(["import-gpt2", "a", "--out", "my run; ls"]) == 0
    assert "try it: tinygpt sample 'my run; ls' --prompt" in capsys.readouterr().out


def test_without_torch_and_transformers(here: Path) -> None:
    write(here / "a", BYTES, drawn(BYTES))
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None, tokenizers=None)\n"
        "from tinygpt.__main__ import main\n"
        "sys.exit(main(['import-gpt2', 'a']) or main(['export-gpt2', 'a-1', 'b']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert (here / "a/model.safetensors").read_bytes() == (
        here / "b/model.safetensors"
    ).read_bytes()


# -- what is refused


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            {"activation_function": "silu"},
            'activation_function "silu" is not supported, only "gelu_new" or "gelu_pytorch_tanh"',
        ),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon 0: a number, above 0 and at most 1"),
        ({"n_inner": 33}, "n_inner 33 is not supported, only null or 4 n_embd, here 32"),
        ({"scale_attn_weights": False}, "scale_attn_weights false"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx true"),
        ({"add_cross_attention": True}, "add_cross_attention true"),
        (
            {"model_type": "llama\x1b[2J"},
            'model_type "llama\\u001b[2J" is not supported, only "gpt2"',
        ),
        ({"embd_pdrop": 1.0}, "embd_pdrop 1.0: a number, at least 0 and below 1, is needed"),
        (
            {"resid_pdrop": 1, "embd_pdrop": 1, "attn_pdrop": 1},
            "resid_pdrop 1: a number, at least 0 and below 1, is needed",
        ),
        ({"n_head": 3}, "n_embd 8 is not divisible by heads 3"),
        ({"n_head": 10**6}, "n_embd 8 is not divisible by heads 1000000"),
        (
            {"n_head": 10**12},
            "n_head 1000000000000: a whole number, at least 1 and at most 1,000,000, is needed",
        ),
        ({"n_head": 0}, "n_head 0: a whole number"),
        ({"n_layer": "two"}, 'n_layer "two": a value like 12 is needed'),
        ({"n_layer": True}, "n_layer true: a value like 12 is needed"),
        ({"n_layer": 10**4}, "h.2.ln_1.weight of shape (8,) is missing"),  # at once
        (
            {"n_layer": 1},
            "h.1.attn.c_attn.bias of shape (24,) is in model.safetensors, "
            "and the model of config.json has no such tensor",
        ),
        # without asking for the memory
        ({"n_embd": 10**6}, "wte.weight has shape (258, 8), not (258, 1000000)"),
        ({"n_positions": 15}, "wpe.weight has shape (16, 8), not (15, 8)"),
        (
            {"vocab_size": 257},
            "the tokenizer of a knows 258 tokens, vocab_size in config.json is 257",
        ),
        ({"tie_word_embeddings": False}, "lm_head.weight of shape (258, 8) is missing"),
    ],
    ids=str,
)
def test_other_models(
    here: Path, capsys: pytest.CaptureFixture[str], keys: Keys, says: str
) -> None:
    write(here / "a", BYTES, drawn(BYTES), **keys)
    refused(capsys, "import-gpt2", "a", says=says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"h.1.mlp.c_fc.bias": None},
            "h.1.mlp.c_fc.bias of shape (32,) is missing in model.safetensors",
        ),
        # a Linear's layout
        (
            {"h.1.attn.c_attn.weight": np.ones((24, 8))},
            "h.1.attn.c_attn.weight has shape (24, 8), not (8, 24)",
        ),
        (
            {"h.0.attn.c_attn.extra\x1b": np.ones(3)},
            "h.0.attn.c_attn.extra\\x1b of shape (3,) is in model.safetensors",
        ),
        (
            {"lm_head.weight": np.ones((258, 8))},
            "lm_head.weight differs from wte.weight, which config.json ties it to",
        ),
        (
            {"wte.weight": np.ones((258, 8), np.int8)},
            "wte.weight is I8: tensors of F64, F32, F16 and BF16 can be read",
        ),
        ({"transformer.wte.weight": np.ones((258, 8))}, "wte.weight stands twice"),
    ],
    ids=str,
)
def test_other_tensors(
    here: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], says: str
) -> None:
    prefix = "" if "transformer.wte.weight" in change else "transformer."
    arrays = {name: array for name, array in (drawn(BYTES) | change).items() if array is not None}
    write(here / "a", BYTES, drawn(BYTES) | {"wte.weight": np.ones((258, 8), np.float32)})
    write(here / "a", BYTES, arrays, prefix)
    refused(capsys, "import-gpt2", "a", says=says)


@pytest.mark.parametrize("name", FILES)
def test_missing_and_damaged_files(
    here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write(here / "a", BYTES, drawn(BYTES))
    for content in (b"", b"\xff\xfe", b"[1]", b'{"a": NaN}', b'{"a": "\\ud800"}'):
        (here / "a" / name).write_bytes(content)
        refused(capsys, "import-gpt2", "a", says=name)
    os.remove(here / "a" / name)
    refused(capsys, "import-gpt2", "a", says=name)
    refused(capsys, "import-gpt2", "nowhere", says="nowhere/config.json is missing")


def test_bug_86_a_header_of_any_size(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only as much of it is read as a model's can have."""
    path = write(here / "a", BYTES, drawn(BYTES)) / "model.safetensors"
    whole = path.read_bytes()
    for size in (2**63, 2**40, HEADER + 1):
        path.write_bytes(size.to_bytes(8, "little") + whole[8:])
        os.truncate(path, 40 << 30)
        assert main(["import-gpt2", "a"]) == 2
        assert (
            f"its header has {size:,} bytes, and {HEADER:,} are the most" in capsys.readouterr().err
        )


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"shape": [1] * 70, "data_offsets": [0, 4]}, "Expected `array` of length <= 8"),
        ({"shape": [2**40, 2**20, 0], "data_offsets": [0, 0]}, "Expected `int` >= 1"),
        ({"shape": [2**40, 2**40], "data_offsets": [0, 4]}, "is damaged or no safetensors file"),
        ({"shape": [1], "data_offsets": [0, 8]}, "is damaged or no safetensors file"),
        ({"shape": [1], "data_offsets": [-4, 0]}, "is damaged or no safetensors file"),
        ({"shape": [1.5], "data_offsets": [0, 4]}, "is damaged or no safetensors file"),
    ],
    ids=str,
)
def test_bug_86_tensors_that_cannot_be(
    here: Path, capsys: pytest.CaptureFixture[str], entry: dict[str, Any], says: str
) -> None:
    path = write(here / "a", BYTES, drawn(BYTES)) / "model.safetensors"
    header = json.dumps({"wte.weight": {"dtype": "F32"} | entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(entry["data_offsets"][1]))
    refused(capsys, "import-gpt2", "a", says=says)


@pytest.mark.parametrize(
    "keys",
    [{"n_layer": 10**9}, {"n_positions": 10**12}, {"vocab_size": 10**15}, {"n_embd": 8 * 10**9}],
    ids=str,
)
def test_a_config_that_asks_for_more_than_the_file_holds(here: Path, keys: Keys) -> None:
    """Found before anything is made of it."""
    write(here / "a", BYTES, drawn(BYTES), **keys)
    tracemalloc.start()
    with pytest.raises(InputError):
        gpt2.load(here / "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "value",
    [10**30, "x" * 10_000, [[[[[[[[1]]]]]]]], {"a": 1}, "\x1b[2J"],
    ids=lambda value: str(value)[:20],
)
def test_bug_86_odd_values_are_told_in_short(
    here: Path, capsys: pytest.CaptureFixture[str], value: Any
) -> None:
    for key in (*BYTES, "model_type", "n_inner", "attn_pdrop"):
        write(here / "a", BYTES, drawn(BYTES), **{key: value})
        assert main(["import-gpt2", "a"]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") in (1, 2)
        assert "\x1b" not in err
        assert len(err) < 500
        with pytest.raises(InputError) as error:
            gpt2.load(here / "a")
        assert len(str(error.value)) < 500


def test_a_pickle_is_not_opened(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "a", BYTES, drawn(BYTES))
    os.rename("a/model.safetensors", "a/pytorch_model.bin")
    assert main(["import-gpt2", "a"]) == 2
    said = capsys.readouterr().err.split("\n")
    assert said[0].endswith("a/pytorch_model.bin is a pickle, which can run code: it is not opened")
    assert [line[:11] for line in said[2:4]] == ["w = torch.l", "safetensors"]


@pytest.mark.parametrize(
    "places",
    [
        None,
        {},
        [],
        {"a": 1},
        {"a": "../b/model.safetensors"},
        {"a": "/etc/passwd"},
        {"a": "..\\b.safetensors"},
    ],
    ids=str,
)
def test_an_index_that_leads_elsewhere(
    here: Path, capsys: pytest.CaptureFixture[str], places: Any
) -> None:
    write(here / "b", BYTES, drawn(BYTES))
    write(here / "a", BYTES, drawn(BYTES))
    os.remove("a/model.safetensors")
    Path("a/model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    refused(capsys, "import-gpt2", "a", says="index.json is damaged (Expected `")


@given(st.data())
def test_no_cut_and_no_wrong_byte_is_a_crash(tmp_path: Path, data: st.DataObject) -> None:
    """It is refused, or the shapes are those of config.json."""
    size = BYTES | {"vocab_size": 5, "n_layer": 1}
    path = write(tmp_path / "a", size, drawn(size)) / "model.safetensors"
    whole = path.read_bytes()
    if data.draw(st.booleans()):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(InputError):
            gpt2.load(tmp_path / "a")
        return
    place = data.draw(st.integers(0, int.from_bytes(whole[:8], "little") + 7))
    path.write_bytes(whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :])
    try:
        gpt2.load(tmp_path / "a")
    except InputError as error:
        assert str(error).count("\n") <= 1  # noqa: PT017


@pytest.mark.parametrize(
    ("choice", "says"),
    [("norm", "post"), ("positions", "sinusoidal"), ("bias", "False")],
    ids=lambda value: value,
)
def test_what_gpt2_cannot_hold(tmp_path: Path, choice: str, says: str) -> None:
    chosen: dict[str, Any] = {choice: says if choice != "bias" else False}
    config = GPTConfig(22, 8, 8, 2, 1, **chosen)
    with pytest.raises(
        InputError, match=rf"GPT-2 cannot hold this model: its {choice} is {says}, GPT-2's \w+\n"
    ):
        gpt2.save(GPT(config, generator=random.Generator(0)), tmp_path / "made")
    assert os.listdir(tmp_path) == []


# -- nothing by halves


def test_folders_that_cannot_be(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "full").mkdir()
    (here / "full/file").touch()
    (here / "empty").mkdir()
    refused(capsys, "export-gpt2", "story-1", "full", says="full exists and is not an empty folder")
    refused(capsys, "export-gpt2", "story-1", "full/file", says="exists and is not an empty folder")
    refused(
        capsys, "export-gpt2", "story-1", "full/file/new", says="cannot write to full/file/new ("
    )
    refused(capsys, "export-gpt2", "story", "new", says="no run is named 'story'")
    refused(capsys, "export-gpt2", "story-1", says="DIR")
    write(here / "a", BYTES, drawn(BYTES))
    refused(capsys, "import-gpt2", "a", "--out", "full", says="full is not empty")
    assert main(["export-gpt2", "story-1", "empty"]) == 0
    assert len(os.listdir("empty")) == 2


@pytest.mark.parametrize(
    "problem", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr
)
def test_a_full_disk_leaves_nothing(
    run: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    problem: BaseException,
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise problem

    write(here / "a", BYTES, drawn(BYTES))
    monkeypatch.setattr(checkpoint, "write_arrays", full)
    for arguments, says in (
        (["export-gpt2", "story-1", "new"], "cannot write to new"),
        (["import-gpt2", "a"], "cannot save to runs/a-1"),
    ):
        if not isinstance(problem, KeyboardInterrupt):
            refused(capsys, *arguments, says=f"{says} (No space left on device)")
            continue
        assert main(arguments) == 130
        assert sorted(os.listdir()) == ["a", "runs"]
        assert os.listdir("runs") == ["story-1"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    gpt2.save(GPT(GPTConfig(22, 8, 8, 2, 1), generator=random.Generator(0)), tmp_path / "made")
    assert {path.stat().st_mode for path in (tmp_path / "made").iterdir()} == {
        (tmp_path / "other").stat().st_mode
    }


def test_an_encoder_decoder_is_no_gpt2(
    reversing: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says = "tinygpt export-gpt2 takes a run of kind gpt, and"
    refused(capsys, "export-gpt2", str(reversing), "folder", says=says)
    refused(capsys, "sample", str(reversing), "--fill", "a[MASK]", says="--fill: ")
