"""Folders of GPT-2 as they are found: other tokenizers, other names, other choices. What is
followed computes what `transformers` computes; the rest is refused by its name.
"""

from __future__ import annotations

import json
import os
import pathlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.helpers.gpt2_folder import Keys, drawn, tokens, write
from tests.helpers.program import refused
from tinygpt.__main__ import main
from tinygpt.runs import gpt2
from tinygpt.runs import run as runs
from tinygpt.tokenizers import BytePairTokenizer, TokenizerError, gpt2_folder

SIZE: Keys = {"vocab_size": 37, "n_positions": 12, "n_embd": 24, "n_head": 3, "n_layer": 2}
TEXT = "The cat sat on the mat. The dog ran in the park. " * 3
SAMPLES = ["The cat<|endoftext|> [PAD] <s>x", "é 猫 hello", " at the [PAD]<s><s>\n\n x", ""]
END = "<|endoftext|>"


def folder(
    path: Path, *extra: str, added: tuple[str, ...] = (), settings: Keys | None = None
) -> Path:
    """A tokenizer of 300 tokens and END as GPT-2 stores it. extra: tokens at the end of vocab.json.
    added: tokens of added_tokens.json. settings: tokenizer_config.json.
    """
    path.mkdir(exist_ok=True)
    BytePairTokenizer.train(TEXT, 301).save_gpt2(path / "vocab.json", path / "merges.txt")
    ids = json.loads((path / "vocab.json").read_text())
    ids |= {text: len(ids) + i for i, text in enumerate(extra)}
    (path / "vocab.json").write_text(json.dumps(ids))
    if added:
        more = {text: len(ids) + i for i, text in enumerate(added)}
        (path / "added_tokens.json").write_text(json.dumps(more))
    if settings is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(settings))
    (path / "config.json").write_text('{"model_type": "gpt2"}')
    return path


# -- tokenizers


@pytest.mark.filterwarnings("ignore")
def test_bug_89_ids_and_texts_are_those_of_transformers(transformers: Any, tmp_path: Path) -> None:
    """Also after transformers has saved each folder as tokenizer.json alone."""
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    size = len(json.loads((folder(tmp_path / "0") / "vocab.json").read_text()))
    folders = [
        tmp_path / "0",
        folder(tmp_path / "1", added=("<s>", "[PAD]")),
        folder(tmp_path / "2", "[PAD]", "<s>"),
        folder(
            tmp_path / "3", "[PAD]", settings={"pad_token": "[PAD]", "model_max_length": 10**30}
        ),
        folder(tmp_path / "4", added=("<s>",), settings={"additional_special_tokens": ["<s>"]}),
        folder(
            tmp_path / "5",
            settings={"added_tokens_decoder": {str(size): {"content": "<s>", **flags}}},
        ),
        folder(tmp_path / "6", settings={"add_prefix_space": False, "add_bos_token": False}),
    ]
    for path in folders:
        theirs = transformers.AutoTokenizer.from_pretrained(path)
        saved = path.with_name(f"{path.name} saved")
        theirs.save_pretrained(saved)
        assert not (saved / "vocab.json").exists()
        for place in (path, saved):
            ours = gpt2_folder.load(place)
            for text in SAMPLES:
                ids = theirs(text)["input_ids"]
                assert ours.encode(text) == ids, (place, text)
                assert ours.decode(ids) == theirs.decode(ids), (place, text)


@pytest.mark.filterwarnings("ignore")
def test_bug_89_special_tokens_on_the_way_back(transformers: Any, tmp_path: Path) -> None:
    source = write(folder(tmp_path / "a", "[PAD]", added=("<s>",)), SIZE, drawn(SIZE))
    ours = gpt2_folder.load(source)
    gpt2.save(gpt2.load(source), tmp_path / "b", tokenizer=ours)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    for text in SAMPLES:
        assert theirs(text)["input_ids"] == ours.encode(text)
    assert gpt2_folder.load(tmp_path / "b").hash == ours.hash


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"add_prefix_space": True}, "tokenizer_config.json: add_prefix_space true"),
        ({"add_bos_token": True}, "tokenizer_config.json: add_bos_token true"),
        ({"add_eos_token": True}, "tokenizer_config.json: add_eos_token true"),
        ({"split_special_tokens": True}, "tokenizer_config.json: split_special_tokens true"),
        ({"tokenizer_class": "RobertaTokenizer"}, 'tokenizer_class "RobertaTokenizer" is not'),
        ({"pad_token": "[PAD]"}, "the special token '[PAD]' has no id in any file"),
        ({"mask_token": {"content": END, "lstrip": True}}, f"token '{END}': lstrip true is not"),
    ],
    ids=str,
)
def test_bug_89_a_setting_that_changes_ids_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], settings: Keys, says: str
) -> None:
    write(folder(here / "a", settings=settings), SIZE, drawn(SIZE))
    refused(capsys, "import-gpt2", "a", says=says)


@pytest.mark.filterwarnings("ignore")
def test_bug_89_settings_inside_tokenizer_json(transformers: Any, tmp_path: Path) -> None:
    transformers.AutoTokenizer.from_pretrained(folder(tmp_path / "a")).save_pretrained(
        tmp_path / "b"
    )
    path = tmp_path / "b/tokenizer.json"
    sound = json.loads(path.read_text())
    special = [{"SpecialToken": {"id": END, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    for change, says in (
        ({"normalizer": {"type": "NFC"}}, "normalizer"),
        ({"pre_tokenizer": None}, "pre_tokenizer: type null"),
        (
            {"pre_tokenizer": sound["pre_tokenizer"] | {"add_prefix_space": True}},
            "add_prefix_space",
        ),
        ({"post_processor": {"type": "TemplateProcessing", "single": special}}, "post_processor"),
        ({"model": sound["model"] | {"dropout": 0.1}}, "dropout 0.1 is not supported"),
        ({"model": sound["model"] | {"ignore_merges": True}}, "ignore_merges true"),
        ({"model": sound["model"] | {"end_of_word_suffix": "</w>"}}, 'end_of_word_suffix "</w>"'),
    ):
        path.write_text(json.dumps(sound | change))
        with pytest.raises(ValueError, match=says):
            gpt2_folder.load(tmp_path / "b")


def test_a_vocabulary_without_all_bytes(tmp_path: Path) -> None:
    """Its texts are read; a byte that it lacks is named, and not dropped."""
    path = folder(tmp_path / "a")
    ids = json.loads((path / "vocab.json").read_text())
    kept = [text for text in ids if len(text) > 1 or text in {*TEXT.replace(" ", "Ġ")}]
    (path / "vocab.json").write_text(json.dumps({text: i for i, text in enumerate(kept)}))
    tokenizer = gpt2_folder.load(path)
    assert tokenizer.size < 70
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    with pytest.raises(TokenizerError, match="byte 0x78 of ' x' has no token"):
        tokenizer.encode("The x")


def test_openais_names_and_a_padded_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A token that no text has is never drawn: its row is left out, and this is said."""
    size = SIZE | {"vocab_size": 320}
    path = write(folder(here / "a", added=("<s>",)), size, drawn(size))
    os.rename(path / "vocab.json", path / "encoder.json")
    os.rename(path / "merges.txt", path / "vocab.bpe")
    count = gpt2_folder.load(path).size
    assert main(["import-gpt2", "a"]) == 0
    said = f"{320 - count} rows of the table have no token: left out"
    assert said in capsys.readouterr().out
    _, model, tokenizer = runs.load(Path("runs/a-1"))
    assert tokenizer.size == model.config.vocabulary == count
    ids = tokens(size | {"vocab_size": count})
    np.testing.assert_allclose(
        model(ids).numpy(), gpt2.load(path)(ids).numpy()[..., :count], rtol=0, atol=1e-5
    )
    write(path, SIZE | {"vocab_size": 2000}, drawn(SIZE | {"vocab_size": 2000}))
    says = f"knows {count} tokens, vocab_size in config.json is 2,000"
    refused(capsys, "import-gpt2", "a", says=says)


# -- models


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "choices",
    [
        {"activation_function": "relu"},
        {"activation_function": "gelu", "layer_norm_epsilon": 1e-3},
        {"activation_function": "gelu_fast", "embd_pdrop": 0.0, "attn_pdrop": 0.3},
    ],
    ids=str,
)
def test_other_choices_compute_what_transformers_computes(
    transformers: Any, tmp_path: Path, choices: Keys
) -> None:
    """With kernels and a cache too; and on the way back each key is as it was."""
    import torch

    write(tmp_path / "a", SIZE, drawn(SIZE), **choices)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "a").eval()
    ids = tokens(SIZE)
    with torch.no_grad():
        expected = theirs(torch.tensor(ids[None])).logits.numpy()
        text = theirs.generate(
            torch.tensor(ids[None, :3]), max_new_tokens=9, do_sample=False, eos_token_id=None
        )[0].tolist()
    model = gpt2.load(tmp_path / "a")
    for logits in (model(ids), model(ids, model.new_cache())):
        np.testing.assert_allclose(logits.numpy(), expected, rtol=0, atol=1e-4)
    assert model.generate(ids[:3], 9, temperature=0) == text
    keys = gpt2.read_keys(tmp_path / "a")
    gpt2.save(model, tmp_path / "b", keys=keys)
    back = gpt2.read_keys(tmp_path / "b")
    assert {key: back.get(key) for key in keys} == keys


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.transformer."])
def test_prefixes_of_training_programs(tmp_path: Path, prefix: str) -> None:
    write(tmp_path / "a", SIZE, drawn(SIZE))
    write(tmp_path / "b", SIZE, drawn(SIZE), prefix)
    plain, found = (gpt2.load(tmp_path / name).state_dict() for name in "ab")
    assert all(np.array_equal(plain[name].numpy(), w.numpy()) for name, w in found.items())


def test_a_shard_with_spaces_in_its_name(tmp_path: Path) -> None:
    write(tmp_path, SIZE, drawn(SIZE))
    whole, name = load_file(tmp_path / "model.safetensors"), "my model (1).safetensors"
    os.rename(tmp_path / "model.safetensors", tmp_path / name)
    index = {"weight_map": dict.fromkeys(whole, name)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert gpt2.load(tmp_path).config.layers == 2


def test_a_pointer_of_git_lfs_is_called_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n"
    for name in ("model.safetensors", "vocab.json", "config.json"):
        path = write(folder(here / name), SIZE | {"vocab_size": 301}, drawn(SIZE))
        (path / name).write_text(pointer)
        refused(capsys, "import-gpt2", name, says=f"{name}/{name} is a pointer of Git LFS")


def test_pickles_are_refused_with_the_lines_that_convert_them(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines run, and what they write is the model: pytorch_model.bin with a tied head, and
    nanoGPT's ckpt.pt with layers on their side, without biases.
    """
    torch = pytest.importorskip("torch")
    import safetensors.torch

    arrays = {name: torch.tensor(array) for name, array in drawn(SIZE).items()}
    write(here / "bin", SIZE, drawn(SIZE))
    expected = gpt2.load(here / "bin").state_dict()
    os.remove(here / "bin/model.safetensors")
    weights = {f"transformer.{name}": array for name, array in arrays.items()}
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    torch.save(weights, here / "bin/pytorch_model.bin")

    (here / "nano").mkdir()
    nano = {f"_orig_mod.{k}": v.t().clone() if ".c_" in k else v for k, v in weights.items()}
    nano = {name: array for name, array in nano.items() if not name.endswith(".bias")}
    names = {"n_layer": 2, "n_head": 3, "n_embd": 24, "block_size": 12, "vocab_size": 37}
    model_args = names | {"bias": False, "dropout": 0.0}
    torch.save({"model": nano, "model_args": model_args}, here / "nano/ckpt.pt")

    for name, file in (("bin", "pytorch_model.bin"), ("nano", "ckpt.pt")):
        assert main(["import-gpt2", name]) == 2
        error, advice, *lines = capsys.readouterr().err.splitlines()
        assert f"{name}/{file} is a pickle, which can run code" in error
        assert advice.endswith("import json, pathlib, safetensors.torch, torch")
        assert len(lines) == 2
        monkeypatch.chdir(here / name)
        scope = {"json": json, "pathlib": pathlib, "safetensors": safetensors, "torch": torch}
        exec("\n".join(lines), scope)
        scope.clear()
        monkeypatch.chdir(here)
        found = gpt2.load(here / name)
        assert found.config.bias is (name == "bin")
        assert found.config.activation == ("gelu" if name == "bin" else "gelu_erf")
        for key, array in found.state_dict().items():
            wanted = expected[key].numpy() * (name == "bin" or not key.endswith("bias"))
            assert np.array_equal(array.numpy(), wanted), key
