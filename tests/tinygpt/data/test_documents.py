"""`<|endoftext|>`: the special token after each document of a text of several."""

from __future__ import annotations

import json
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.program import losses, sampled
from tinygpt import CharacterTokenizer, TokenizerError
from tinygpt.__main__ import main
from tinygpt.config import TrainConfig
from tinygpt.data import documents, token_files
from tinygpt.data.documents import encode_documents, holds_end, marked
from tinygpt.data.prepare import prepare
from tinygpt.runs import run as runs
from tinygpt.tokenizers import BytePairTokenizer, ByteTokenizer, Tokenizer, end_tokens, with_end
from tinygpt.tokenizers.byte_pair import END

CAT, DOG = "The cat sat.", "The dog ran in the park."
SMALL = "--context", "8", "--width", "8", "--heads", "2"
PIECES = st.sampled_from([END, "<|end", "oftext|>", " ", "\n", "a", "<", "cat sat"])
KINDS = "character", "byte", "word", "bpe"


def plain(text: str) -> list[str]:
    """The documents of a text, at once."""
    return [document for part in text.split(END) if (document := part.strip())]


@given(st.lists(PIECES, max_size=12), st.lists(st.integers(0, 60), max_size=5))
def test_documents_do_not_depend_on_the_parts(pieces: list[str], cuts: list[int]) -> None:
    text = "".join(pieces)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[a:b] for a, b in pairwise(edges)]
    assert "".join(marked(parts)) == "".join(document + END for document in plain(text))
    assert holds_end(parts) == (END in text)
    tokenizer = with_end(ByteTokenizer())
    expected = [[*tokenizer.encode(document), 0] for document in plain(text)]
    assert [*chain(*encode_documents(tokenizer, parts))] == [*chain(*expected)]


def test_a_mark_over_two_parts_is_found() -> None:
    text = f"The cat {END} sat"
    assert all(holds_end([text[:cut], text[cut:]]) for cut in range(len(text)))
    assert holds_end(text)
    assert not holds_end(["<|endof", " ", "text|>"])


def test_a_part_of_a_document_is_given_before_its_end() -> None:
    """A document may be larger than memory."""
    parts = iter(["a cat " * 5, "sat " * 5])
    assert next(marked(parts)).startswith("a cat")
    assert next(parts) == "sat " * 5


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight documents of each kind: in a folder of files, and in one file."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for i in range(16):
        Path(f"folder/{i:02}.txt").write_text(f"{DOG if i % 2 else CAT}\n")
    Path("one.txt").write_text(f"{CAT}\n{END}\n{DOG}\n{END}\n" * 8)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_and_a_file_and_tokens_are_the_same(texts: Path, kind: str) -> None:
    """Each document ends with the token, the last one too, and no other token knows its letters."""
    options = ["--tokenizer", kind, "--tokens", "270", "--validation", "0"]
    assert main(["tokenize", "one.txt", "--out", "tokens", *options]) == 0
    made = token_files.read("tokens").tokenizer
    for text in ("folder", "one.txt", "tokens"):
        config = TrainConfig(text=text, tokenizer=kind, tokens=270, validation=0.0)  # type: ignore[arg-type]
        data = prepare(config, 8)
        ids = np.asarray(data.windows.tokens)  # type: ignore[attr-defined]
        assert data.tokenizer.hash == made.hash
        assert data.tokenizer.decode(ids.tolist()) == f"{CAT}{END}{DOG}{END}" * 8
        (end,) = end_tokens(data.tokenizer)
        assert np.count_nonzero(ids == end) == 16
        assert data.opening == "The cat sat."
        # with the run's tokenizer, as a resumed training reads it
        again = prepare(config, 8, data.tokenizer)
        assert np.array_equal(again.windows.tokens, ids)  # type: ignore[attr-defined]
        assert again.hash == data.hash


def test_white_space_in_a_document_is_a_token(texts: Path) -> None:
    """Also where it is the last character that is new."""
    Path("lines.txt").write_text(f"cat\nact{END}cat")
    assert main(["tokenize", "lines.txt", "--out", "tokens", "--validation", "0"]) == 0
    found = token_files.read("tokens")
    assert found.tokenizer.decode(np.asarray(found.ids)) == f"cat\nact{END}cat{END}"
    config = TrainConfig(text="lines.txt", validation=0.0)
    assert found.tokenizer.hash == prepare(config, 4).tokenizer.hash


def test_a_text_of_one_document_stays_as_it_is(
    texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("cat.txt").write_text(f"{CAT}\n")
    assert main(["tokenize", "cat.txt", "--out", "tokens", "--validation", "0"]) == 0
    found = token_files.read("tokens")
    assert found.tokenizer.decode(np.asarray(found.ids)) == f"{CAT}\n"
    assert ", 1 character each, " in capsys.readouterr().out
    for options in ({}, {"documents": False}):
        data = prepare(TrainConfig(text="cat.txt", validation=0.0, **options), 8)  # type: ignore[arg-type]
        assert isinstance(data.tokenizer, CharacterTokenizer)
        assert data.tokenizer.decode(data.windows.tokens) == f"{CAT}\n"  # type: ignore[attr-defined]


def test_without_documents_the_mark_is_text(texts: Path) -> None:
    for text, between in (("folder", "\n\n"), ("one.txt", END)):
        config = TrainConfig(text=text, validation=0.0, documents=False)
        data = prepare(config, 8)
        assert isinstance(data.tokenizer, CharacterTokenizer)
        assert f"{CAT}\n{between}" in data.tokenizer.decode(data.windows.tokens)  # type: ignore[attr-defined]


def test_a_tokenizer_without_the_token_reads_documents_as_text(texts: Path) -> None:
    """A training with --init has the tokenizer of its run."""
    known = CharacterTokenizer(CAT + DOG + "\n" + END)
    data = prepare(TrainConfig(text="folder", validation=0.0), 8, known)
    assert known.decode(data.windows.tokens).startswith(f"{CAT}\n\n\n{DOG}")  # type: ignore[attr-defined]


def test_a_sample_stops_at_the_end_of_a_document(
    texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one prompt, of several, of a beam, before the length is reached; and a prompt cannot hold
    the token.
    """
    choices = ["--context", "16", "--width", "32", "--steps", "150", "--validation", "0"]
    assert main(["train", "--text", "folder", *choices]) == 0
    written = capsys.readouterr().out
    assert f"{END}" not in written
    greedy = "--temperature", "0", "--length", "100"
    assert sampled(capsys, "--prompt", "The d", *greedy) == f"{DOG}\n"
    assert sampled(capsys, "--prompt", "The c", "--beam", "3") == f"{CAT}\n"
    assert sampled(capsys, "--prompt", "The d", "--beam", "3", "--stop", ".") == f"{DOG[:-1]}\n"
    assert sampled(capsys, "--prompt", "The c", "--beam", "3", "--stop", "k") == f"{CAT}\n"
    Path("prompts.txt").write_text("The c\nThe d\n")
    assert sampled(capsys, "--prompts", "prompts.txt", *greedy) == f"{CAT}\n{DOG}\n"
    assert (
        sampled(capsys, "--prompt", "The c", "--explain", "1")
        .splitlines()[-1]
        .startswith(f"'{END}'")
    )
    assert main(["sample", "--prompt", END]) == 2
    assert "character '<' at position 0" in capsys.readouterr().err
    for command in (["eval"], ["eval", "--text", "one.txt"], ["step", "--plain"], ["look"]):
        assert main(command) == 0
    out = capsys.readouterr().out
    assert "over 287 bytes" in out  # of 304 tokens: 16 ends stand for none
    resumed = main(["train", "--resume", "folder-1", "--steps", "160"])
    assert resumed == 0
    assert main(["train", "--init", "folder-1", "--text", "one.txt", "--steps", "1"]) == 0
    assert main(["tokenize", "one.txt", "--out", "tokens", "--from", "folder-1"]) == 0
    assert 0 in np.asarray(token_files.read("tokens").ids)
    assert main(["train", "--init", "folder-1", "--text", "tokens", "--steps", "1"]) == 0


def test_an_older_run_goes_on_with_its_own_text(
    texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte pairs knew the token before, but files were joined by an empty line."""
    choices = ["--tokenizer", "bpe", "--tokens", "270", *SMALL, "--steps", "4", "--validation", "0"]
    assert main(["train", "--text", "folder", *choices, "--no-documents", "--out", "whole"]) == 0
    half = ["--no-documents", "--out", "old", "--until", "2"]
    assert main(["train", "--text", "folder", *choices, *half]) == 0
    path = Path("old/config.json")
    content = json.loads(path.read_text())
    del content["training"]["documents"]
    path.write_text(json.dumps(content))
    assert main(["train", "--resume", "old"]) == 0
    old, whole = (
        [(record["step"], record["loss"]) for record in losses(Path(name))]
        for name in ("old", "whole")
    )
    assert old == whole
    assert runs.load(Path("old"))[0].training.documents is False


def test_documents_for_bert(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choices = [*SMALL, "--steps", "2", "--text", "folder"]
    assert main(["train", "--task", "masked", *choices]) == 0
    assert main(["sample", "--fill", "The [MASK]at"]) == 0
    assert main(["eval"]) == 0
    assert main(["eval", "--text", "one.txt"]) == 0
    run, _, tokenizer = runs.load(runs.find(None))
    assert tokenizer.tokens[:6] == ("[PAD]", "[CLS]", "[SEP]", "[MASK]", END, "T")
    data = prepare(run.training, run.model.context, tokenizer)
    assert (data.windows[np.arange(40)][0] == 4).any()
    assert data.hash == run.text
    assert main(["train", "--resume", "folder-1", "--steps", "4"]) == 0


@pytest.mark.parametrize(
    "tokenizer", [with_end(CharacterTokenizer("cat")), BytePairTokenizer.train("cat cat", 260)]
)
def test_one_function_finds_the_end(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode([i]) for i in end_tokens(tokenizer)] == [END]
    assert end_tokens(CharacterTokenizer(END)) == []
    assert with_end(tokenizer) is tokenizer


def test_an_unknown_character_is_named_with_its_document(texts: Path) -> None:
    Path("odd.txt").write_text(f"{CAT}{END}The {END} {END}\nA{END}")
    with pytest.raises(TokenizerError, match="document 3: character 'A' at position 0 is not"):
        prepare(TrainConfig(text="odd.txt"), 8, with_end(CharacterTokenizer(CAT)))


def test_the_beginning_of_a_mark_that_was_cut() -> None:
    assert documents.without_cut(f"cat{END}The <|endof") == f"cat{END}The "
    assert documents.without_cut(f"cat{END}") == f"cat{END}"
    assert documents.without_cut("") == ""
