"""Texts with labels: batches, files, what is kept back, stories with their larger animal."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tinygpt.data.labels import Example, Labelled, labels_of, read_labelled
from tinygpt.data.larger import larger
from tinygpt.data.questions import facts
from tinygpt.data.windows import CorpusError
from tinygpt.ids import CLS, IGNORED, MASK_TOKENS, PAD
from tinygpt.tokenizers import CharacterTokenizer, SpecialTokenizer

EXAMPLES = [Example("bab", "dog"), Example("a", "cat"), Example("ab", "owl")]


def test_a_gpt_says_the_class_at_the_last_token() -> None:
    texts = Labelled(EXAMPLES, CharacterTokenizer("ab"), 4, "gpt")
    assert texts.labels == ("cat", "dog", "owl")
    x, y = texts[[0, 1, 2]]
    assert x.tolist() == [[1, 0, 1], [0, PAD, PAD], [0, 1, PAD]]
    assert y.tolist() == [[-1, -1, 1], [0, -1, -1], [-1, 2, -1]]
    assert texts[[1]][0].shape == (1, 1)


def test_a_bert_says_the_class_at_cls() -> None:
    tokenizer = SpecialTokenizer(CharacterTokenizer("ab"), MASK_TOKENS)
    x, y = Labelled(EXAMPLES, tokenizer, 4, "bert")[[0, 1]]
    assert x.tolist() == [[CLS, 5, 4, 5], [CLS, 4, PAD, PAD]]
    assert y.tolist() == [[1, -1, -1, -1], [0, -1, -1, -1]]


def test_what_does_not_fit() -> None:
    tokenizer = CharacterTokenizer("ab")
    with pytest.raises(CorpusError, match=r"text 1 does not fit the context of 2: 'bab' has 3"):
        Labelled(EXAMPLES, tokenizer, 2, "gpt")
    with pytest.raises(CorpusError, match="text 3 has the label 'owl', which no text"):
        Labelled(EXAMPLES, tokenizer, 4, "gpt", ("cat", "dog"))
    with pytest.raises(CorpusError, match="no text to learn from"):
        Labelled([], tokenizer, 4, "gpt")


def test_labels_have_the_same_numbers_in_any_order() -> None:
    for examples in (EXAMPLES, EXAMPLES[::-1]):
        assert labels_of(examples) == ("cat", "dog", "owl")


# -- files


def test_csv_and_jsonl_say_the_same(tmp_path: Path) -> None:
    """Quotes, commas, line ends in a text, a byte order mark; other columns are not read."""
    rows = [("He ran, and", "cat"), ('"so" it\nwas', "dog"), ("ä 字", "1")]
    table, lines = tmp_path / "a.csv", tmp_path / "a.jsonl"
    cells = ['"He ran, and",7, cat ', '"""so"" it\nwas",8,dog', "ä 字,9,1"]
    content = "\r\n".join(["text,number,label", *cells]) + "\r\n"
    table.write_bytes("\ufeff".encode() + content.encode())
    written = [{"text": text, "label": label, "number": 7} for text, label in rows]
    written[2]["label"] = 1  # a number is a label too
    lines.write_text("".join(json.dumps(line) + "\n" for line in written))
    expected = [Example(*row) for row in rows]
    assert read_labelled(str(table), 0) == (expected, [])
    assert read_labelled(str(lines), 0) == (expected, [])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "text,labels\na,b\n", "names no column label"),
        ("a.csv", "He ran,cat\n", "names no column text"),
        ("a.csv", "text,label\n", "has no line below its first"),
        ("a.csv", "text,label\na,b\n,c\n", "line 3 has an empty text"),
        ("a.csv", "text,label\na\n", "line 2 has an empty label"),
        ("a.csv", 'text,label\n"a" b,c\n', "line 2 is no CSV"),
        ("a.csv", 'text,label\n"a,b\n', "is no CSV"),
        ("a.csv", f"text,label\n{'a' * 200_000},b\n", "line 2 is no CSV"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text": "a"}\n', "line 2 is no text with"),
        ("a.jsonl", '{"text": "a", "label": null}\n', "line 1 is no text with"),
        ("a.jsonl", '{"text": " ", "label": "b"}\n', "line 1 has an empty text"),
        ("a.jsonl", "text,label\n", "line 1 is no text with"),
    ],
)
def test_what_is_no_labelled_text(tmp_path: Path, name: str, content: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(CorpusError, match=says) as raised:
        read_labelled(str(path), 0)
    assert str(raised.value).count("\n") == 1


def test_each_label_is_kept_back_in_its_share(tmp_path: Path) -> None:
    """Also in a file that is sorted by label; and no text is in both parts."""
    lines = [("cat", i) for i in range(40)] + [("dog", i) for i in range(20)]
    rows = [f"{label} {i},{label}" for label, i in lines]
    rows += [f"dog {i},dog" for i in range(20)] + ["cat 0,dog", "cat 39,dog", "one,owl"]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    learned, kept = read_labelled(str(path), 0.1)
    assert Counter(example.label for example in kept) == {"cat": 4, "dog": 2 * 2 + 1}
    assert not {example.text for example in learned} & {example.text for example in kept}
    assert len(learned) + len(kept) == len(rows)
    assert ("one", "owl") in learned
    with pytest.raises(CorpusError, match="keeps none back"):
        read_labelled(str(path), 0.001)


# -- stories


def test_stories_and_which_animal_is_larger() -> None:
    learned, kept = larger(1, 255, 2000, 300)
    assert (len(learned), len(kept)) == (2000, 300)
    assert (learned, kept) == larger(1, 255, 2000, 300)
    assert labels_of(learned) == labels_of(kept) == ("cat", "dog", "neither")
    assert max(Counter(example.label for example in learned).values()) < 0.4 * len(learned)
    assert max(Counter(example.label for example in kept).values()) < 0.6 * len(kept)
    keys = [{facts(text)[:3] for text, _ in part} for part in (learned, kept)]
    assert not keys[0] & keys[1]
    for text, label in learned[:300]:
        sizes = {
            kind: ("small " in before) * -1 + ("big " in before)
            for before, kind in re.findall(r"a (\w+ )?(cat|dog)", text)
        }
        expected = "neither" if sizes["cat"] == sizes["dog"] else max(sizes, key=sizes.__getitem__)
        assert label == expected, text
    with pytest.raises(CorpusError, match="do not fit 48"):
        larger(1, 48)


def test_each_text_has_one_target() -> None:
    _, y = Labelled(EXAMPLES, CharacterTokenizer("ab"), 4, "gpt")[np.arange(3)]
    assert (y != IGNORED).sum(axis=1).tolist() == [1, 1, 1]
