"""Byte-pair encoding against libraries that others wrote: the same files, the same ids."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tinygpt.tokenizers.test_byte_pair import CODE, FAR, PROSE
from tinygpt import story
from tinygpt.tokenizers import BytePairTokenizer
from tinygpt.tokenizers.byte_pair import END, words
from tinygpt.tokenizers.gpt2_files import CHARACTERS, to_bytes

EMOJI = ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇺🇳", "❤️", "\u200d", "\ufe0f", "🏽", "1️⃣"]
SPACES = [
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "\t\t",
    " \n ",
    "\u00a0",
    "\u2003",
    "\u3000",
    "\x0b",
    "\x1c",
    "\x85",
    "\u200b",
]
CONTRACTIONS = [
    "I'm",
    "don't",
    "we've",
    "they'll",
    "he'd",
    "you're",
    "it's",
    "IT'S",
    "'",
    "''s",
    "'tis",
    "o'clock",
    "'re",
    "’s",
    "'ll've",
]
# Assigned since Unicode 3.2 and of the same category today: libraries differ in how new their
# tables are.
SETTLED = [
    c
    for c in map(chr, range(0x30000))
    if (k := unicodedata.ucd_3_2_0.category(c)) == unicodedata.category(c)
    and k not in ("Cn", "Cs", "Co")
]


def cut(draw: random.Random, text: str) -> str:
    """A piece of a text, from anywhere to anywhere."""
    start = draw.randrange(len(text))
    return text[start : start + draw.randrange(60)]


KINDS: list[Callable[[random.Random], str]] = [
    lambda draw: "".join(draw.choices(SETTLED, k=draw.randrange(12))),
    lambda draw: cut(draw, PROSE + story()),
    lambda draw: cut(draw, CODE),
    lambda draw: cut(draw, FAR),
    lambda draw: "".join(draw.choices(EMOJI, k=draw.randrange(6))),
    lambda draw: "".join(chr(draw.randrange(0x4E00, 0x9FA6)) for _ in range(draw.randrange(8))),
    lambda draw: "".join(draw.choices(SPACES, k=draw.randrange(8))),
    lambda draw: draw.choice(["", " "]).join(draw.choices(CONTRACTIONS, k=draw.randrange(5))),
    lambda draw: (
        draw.choice(["{:d}", " {:,d}", "{:.3e}", "0x{:x}", "-{:d}"]).format(draw.randrange(10**9))
        if draw.random() < 0.8
        else "٣½²"
    ),
    lambda draw: draw.randbytes(draw.randrange(12)).decode("utf-8", "replace"),
    lambda draw: draw.choice([END, END * 2, "<|endoftext", "|>", "<pad>", "<pad", "<pad><pad>"]),
    lambda draw: draw.choice("aeou #=-") * draw.randrange(20),
]


def strings(count: int) -> list[str]:
    """Strings of one to five pieces of any kinds; the same ones every time."""
    draw = random.Random(64)
    return [
        "".join(draw.choice(KINDS)(draw) for _ in range(draw.randrange(1, 6))) for _ in range(count)
    ]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Path]:
    """A tokenizer that the library trained, and the two files it wrote."""
    oracle = pytest.importorskip("tokenizers").ByteLevelBPETokenizer()
    oracle.train_from_iterator(
        [story(), PROSE, CODE, FAR, *strings(300)],
        vocab_size=1000,
        special_tokens=[END, "<pad>"],
        show_progress=False,
    )
    vocabulary, merges = oracle.save_model(str(tmp_path_factory.mktemp("library")))
    return oracle, Path(vocabulary), Path(merges)


def test_characters_of_bytes() -> None:
    alphabet = pytest.importorskip("tokenizers").pre_tokenizers.ByteLevel.alphabet()
    assert sorted(CHARACTERS) == sorted(alphabet)


def test_words_of_the_library() -> None:
    cutter = pytest.importorskip("tokenizers").pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in strings(1000):
        assert [word.encode() for word in words(text)] == [
            to_bytes(word) for word, _ in cutter.pre_tokenize_str(text)
        ]


def test_ids_of_the_library(library: tuple[Any, Path, Path]) -> None:
    oracle, vocabulary, merges = library
    tokenizer = BytePairTokenizer.from_gpt2(vocabulary, merges)
    assert tokenizer.size == oracle.get_vocab_size() > 700
    assert tokenizer.specials == {END: 0, "<pad>": 1}
    texts = strings(10_000)
    for text, expected in zip(texts, oracle.encode_batch(texts), strict=True):
        ids = tokenizer.encode(text)
        assert ids == expected.ids, ascii(text)
        assert tokenizer.decode(ids) == text == oracle.decode(ids, skip_special_tokens=False)


def test_broken_ids_of_the_library(library: tuple[Any, Path, Path]) -> None:
    oracle, vocabulary, merges = library
    tokenizer = BytePairTokenizer.from_gpt2(vocabulary, merges)
    draw = random.Random(0)
    for _ in range(1000):
        ids = draw.choices(range(tokenizer.size), k=draw.randrange(10))
        assert tokenizer.decode(ids) == oracle.decode(ids, skip_special_tokens=False)


def test_files_of_the_library_come_back(library: tuple[Any, Path, Path], tmp_path: Path) -> None:
    _, vocabulary, merges = library
    BytePairTokenizer.from_gpt2(vocabulary, merges).save_gpt2(
        tmp_path / "vocab.json", tmp_path / "merges.txt"
    )
    assert (tmp_path / "merges.txt").read_bytes() == merges.read_bytes()
    # it writes JSON without spaces; the files of GPT-2 itself have them
    content = json.loads(vocabulary.read_text("utf-8"))
    assert (tmp_path / "vocab.json").read_text("utf-8") == json.dumps(content)


def test_libraries_read_our_files(tmp_path: Path) -> None:
    tokenizer = BytePairTokenizer.train(story() + PROSE + CODE + FAR, 500)
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    tokenizer.save_gpt2(vocabulary, merges)
    oracle = pytest.importorskip("tokenizers").ByteLevelBPETokenizer(str(vocabulary), str(merges))
    oracle.add_special_tokens([END])
    texts = strings(2000)
    ids = [tokenizer.encode(text) for text in texts]
    assert ids == [encoding.ids for encoding in oracle.encode_batch(texts)]


def test_transformers_reads_our_files(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = BytePairTokenizer.train(story() + PROSE + CODE + FAR, 500)
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    tokenizer.save_gpt2(vocabulary, merges)
    oracle = transformers.GPT2Tokenizer(str(vocabulary), str(merges))
    texts = strings(300)
    assert [tokenizer.encode(text) for text in texts] == oracle(texts)["input_ids"]
