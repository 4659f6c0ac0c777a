"""Byte-pair encoding: against a slow trainer and a slow encoder written from the definition."""

from __future__ import annotations

import copy
import json
import pickle
import random
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.program import environment
from tinygpt import InputError, story
from tinygpt.tokenizers import BytePairTokenizer, TokenizerError, byte_pair
from tinygpt.tokenizers.byte_pair import BYTES, END, words
from tinygpt.tokenizers.gpt2_files import CHARACTERS, to_bytes, to_text

EMPTY = BytePairTokenizer([*BYTES, END.encode()], [], {END: 256})

PROSE = """It's what we've always said: they'll come when they're ready, and I'd wait. Don't \
you? The cat's mat wasn't the dog's.
"Hello, world!" he said -- 'twas 1999, or 2000; 3.14159 and 1,000,000 times more...   Ça coûte \
42 €, naïve façade, Straße, ÅNGSTRÖM.
Ёлки-палки, привет мир! Καλημέρα κόσμε. שלום עולם. مرحبا بالعالم 123 ١٢٣ १२३ ² ½ Ⅻ\n\n\nA new \
paragraph,\tand\t\ttabs. \n \n  Indented.
"""
CODE = """def loss(self, ids: Sequence[int]) -> float:
    if not ids:  ## nothing
        return 0.0
    for i, x in enumerate(ids[1:]):
        total += math.log(p[i, x]) * 1e-3    # nats
\treturn -total / len(ids)\n\n\n    def __init__(self):\n        pass\r\n    }\n    }\n</div>\n"""
FAR = """猫坐在垫子上。狗在公园里跑。日本語のテキスト、カタカナ。한국어 텍스트입니다. \
中文分词，没有空格！　全角
😀😀 👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇺🇳 e\u0301 \u200b\ufeff ﷺ 𝔘𝔫𝔦 \x00\x1c\x85\xa0\u2003\u2028\u3000 <|\
endoftext|> """
TEXTS = st.lists(
    st.sampled_from(["a", "aa", "aaa", "ab", "ba", "b", "bc", " ", " a", "'s", "é", "è", "\n"]),
    max_size=60,
).map("".join)


# -- definitions, written slowly


def merged(ids: list[Any], pair: tuple[Any, Any], new: Any) -> list[Any]:
    """Every occurrence of the pair made one, from left to right."""
    out, i = [], 0
    while i < len(ids):
        out.append(new if tuple(ids[i : i + 2]) == pair else ids[i])
        i += 2 if tuple(ids[i : i + 2]) == pair else 1
    return out


def slow_merges(text: str, count: int) -> list[tuple[bytes, bytes]]:
    """Count all pairs of all words anew for every merge."""
    tokens = list(BYTES)
    rows = [list(word.encode()) for word in words(text)]
    found: list[tuple[bytes, bytes]] = []
    while len(found) < count:
        counts = Counter(pair for row in rows for pair in pairwise(row))
        if not counts or max(counts.values()) < 2:
            break
        best = min(pair for pair in counts if counts[pair] == max(counts.values()))
        found.append((tokens[best[0]], tokens[best[1]]))
        rows = [merged(row, best, len(tokens)) for row in rows]
        tokens.append(b"".join(found[-1]))
    return found


def slow_tokens(word: str, merges: list[tuple[bytes, bytes]]) -> list[bytes]:
    """Every merge in turn, over the whole word."""
    parts = [bytes([byte]) for byte in word.encode()]
    for pair in merges:
        parts = merged(parts, pair, b"".join(pair))
    return parts


def tokens_of(tokenizer: BytePairTokenizer, text: str) -> list[bytes]:
    return [tokenizer.tokens[i] for i in tokenizer.encode(text)]


# -- bytes and words


def test_bug_64_characters_of_bytes() -> None:
    assert len(set(CHARACTERS)) == 256
    assert to_text(b"~ the\n\x00\x7f\xa0\xad\xff") == "~ĠtheĊĀġłŃÿ"
    # ASCII that prints stands for itself
    assert "".join(CHARACTERS[33:127]) == "".join(map(chr, range(33, 127)))
    assert to_text("é☃".encode()) == "Ã©âĺĥ"
    for byte in range(256):
        assert to_bytes(CHARACTERS[byte]) == bytes([byte])
    with pytest.raises(TokenizerError, match=r"'\\u2603' in 'a\\u2603' stands for no byte"):
        to_bytes("a☃")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world", ["Hello", ",", " world"]),
        ("Hello,  world  ", ["Hello", ",", " ", " world", "  "]),
        ("  x\n\n  y\tz\n", ["  x"[:1], " x", "\n\n ", " y", "\t", "z", "\n"]),
        ("don't we'll I'M 'tis", ["don", "'t", " we", "'ll", " I", "'", "M", " '", "tis"]),
        ("a1b22 3.14", ["a", "1", "b", "22", " 3", ".", "14"]),
        ("naïve猫が ½²٣ __x", ["naïve猫が", " ½²٣", " __", "x"]),
        ("", []),
    ],
)
def test_bug_64_words(text: str, expected: list[str]) -> None:
    assert list(words(text)) == expected


@given(st.text())
def test_words_are_the_text(text: str) -> None:
    assert "".join(words(text)) == text


# -- training


def test_bug_64_overlaps() -> None:
    tokenizer = BytePairTokenizer.train("aaabdaaabac", 300, specials=())
    assert tokenizer.merges == ((b"a", b"a"), (b"a", b"b"), (b"aa", b"ab"))
    assert tokens_of(tokenizer, "aaabdaaabac") == [b"aaab", b"d", b"aaab", b"a", b"c"]
    assert tokens_of(tokenizer, "aaa") == [b"aa", b"a"]
    again = BytePairTokenizer.train("aaaaa,aaaaa", 300)  # aa aa a, aa aaa, aaaaa
    assert again.merges == ((b"a", b"a"), (b"aa", b"a"), (b"aa", b"aaa"))
    assert tokens_of(again, "aaaaaaa") == [b"aa", b"aaaaa"]


def test_bug_64_ties_go_to_the_smallest_ids() -> None:
    # every pair twice, the largest first
    tokenizer = BytePairTokenizer.train("yz,yz,abc,abc,ax,ax", 300)
    assert tokenizer.merges == ((b"a", b"b"), (b"a", b"x"), (b"y", b"z"), (b"ab", b"c"))


@given(TEXTS, st.integers(0, 20))
def test_bug_64_merges_of_the_definition(text: str, count: int) -> None:
    if text:
        tokenizer = BytePairTokenizer.train(text, 256 + count, specials=())
        assert list(tokenizer.merges) == slow_merges(text, count)
        assert tokenizer.tokens == (*BYTES, *(left + right for left, right in tokenizer.merges))


@given(TEXTS, TEXTS)
def test_bug_64_encoding_of_the_definition(text: str, other: str) -> None:
    tokenizer = BytePairTokenizer.train(text + ".", 300)
    for each in (text, other):
        assert tokens_of(tokenizer, each) == [
            token for word in words(each) for token in slow_tokens(word, list(tokenizer.merges))
        ]


def test_merges_of_the_definition_on_prose() -> None:
    text = story() + PROSE + CODE + FAR.replace(END, "")
    tokenizer = BytePairTokenizer.train(text, 257 + 120)
    assert list(tokenizer.merges) == slow_merges(text, 120)


HASHED = """
import sys
from pathlib import Path
from tinygpt.tokenizers import BytePairTokenizer
text = Path(sys.argv[1]).read_text(encoding="utf-8")
tokenizer = BytePairTokenizer.train(text, 330, specials=("<|endoftext|>", "<a>", "<b>", "<c>"))
tokenizer.save(sys.argv[2])
print(tokenizer.hash)
"""


def test_bug_64_training_does_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    (tmp_path / "text").write_text(story() + PROSE, encoding="utf-8")
    outputs = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", HASHED, str(tmp_path / "text"), str(tmp_path / seed)]
        outputs.append(
            subprocess.run(
                command,
                env=environment(PYTHONHASHSEED=seed),
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
    assert outputs[0] == outputs[1]
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_training_ends_where_nothing_occurs_twice() -> None:
    assert BytePairTokenizer.train("abc", 1000).size == 257
    assert BytePairTokenizer.train("abab", 1000, specials=()).merges == ((b"a", b"b"),)


def test_training_tells_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []
    tokenizer = BytePairTokenizer.train(
        story(), 257 + 10, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(i, 10) for i in range(1, 11)]
    assert tokenizer.size == 267


def test_training_leaves_special_tokens_out() -> None:
    assert BytePairTokenizer.train("<s>ab<s>ab<s>", 300, specials=("<s>",)).merges == (
        (b"a", b"b"),
    )


@pytest.mark.parametrize(
    ("text", "size", "specials", "message"),
    [
        ("", 300, (END,), "it is empty"),
        ("ab", 256, (END,), "size 256: at least 257 tokens are needed, 256 bytes and 1 special"),
        ("ab", 300, ("<a>", "<a>"), "be there once"),
        ("ab", 300, ("",), "each must be some text"),
        ("ab\ud800", 300, (), r"'\\ud800' at position 2 is half of a surrogate pair"),
    ],
)
def test_training_that_cannot_be(
    text: str, size: int, specials: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TokenizerError, match=message):
        BytePairTokenizer.train(text, size, specials)


# -- encode and decode


@pytest.fixture(scope="module")
def tokenizer() -> BytePairTokenizer:
    return BytePairTokenizer.train(
        story() + PROSE + CODE + FAR, 420, specials=(END, "<s>", "<s><s>")
    )


def test_bug_64_ranks_decide() -> None:
    merges = [(b"b", b"c"), (b"a", b"b"), (b"ab", b"c"), (b"a", b"bc")]
    tokens = [*BYTES, b"bc", b"ab", b"abc"]  # two merges may make one token
    tokenizer = BytePairTokenizer(tokens, merges, {})
    assert tokenizer.encode("abc") == [258]
    assert BytePairTokenizer(tokens, merges[:3], {}).encode("abc ab") == [97, 256, 32, 257]
    assert BytePairTokenizer(tokens, [merges[1], merges[0], merges[2]], {}).encode("abc") == [258]


def test_bug_64_leading_spaces(tokenizer: BytePairTokenizer) -> None:
    assert tokens_of(tokenizer, " the the") == [b" the", b" the"]
    assert tokenizer.encode(" the") != tokenizer.encode("the")
    assert tokens_of(EMPTY, "Hello, x") == [b"H", b"e", b"l", b"l", b"o", b",", b" ", b"x"]


@given(st.binary(max_size=300))
def test_bug_64_any_bytes_come_back(data: bytes) -> None:
    tokenizer = BytePairTokenizer.train(story() + FAR, 300)
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    tokenizer = BytePairTokenizer.train(story() + FAR, 300)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(text, specials=False) == tokenizer.encode_bytes(text.encode())


def test_bug_64_invalid_utf8() -> None:
    assert EMPTY.decode([0x61, 0xFF, 0xE2, 0x98, 0x62]) == "a\ufffd\ufffdb"
    assert EMPTY.decode(list("☃".encode())) == "☃"  # three tokens, one character
    assert EMPTY.decode_bytes([0xE2]) == b"\xe2"
    with pytest.raises(TokenizerError, match=r"'\\udcff' at position 1"):
        EMPTY.encode("a\udcff")


def test_bug_64_specials(tokenizer: BytePairTokenizer) -> None:
    end, one, two = (tokenizer.specials[text] for text in (END, "<s>", "<s><s>"))
    assert (end, one, two) == (tokenizer.size - 3, tokenizer.size - 2, tokenizer.size - 1)
    cat = tokenizer.encode("cat")
    assert tokenizer.encode(f"cat{END}{END}cat") == [*cat, end, end, *cat]
    assert tokenizer.encode("<s><s><s>cat<s>") == [two, one, *cat, one]  # the longest that fits
    assert tokenizer.encode(END) == [end]
    ordinary = tokenizer.encode(f"cat{END}<s>", specials=False)
    assert max(ordinary) < end
    assert tokenizer.decode(ordinary) == f"cat{END}<s>"
    assert tokenizer.decode([end, *cat]) == END + "cat"


@pytest.mark.parametrize(
    ("ids", "message"),
    [([0, 257], "token 257 at position 1 is outside 0 to 256"), ([-1], "token -1 at position 0")],
)
def test_unknown_ids(ids: list[int], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        EMPTY.decode(ids)


def test_long_words_and_the_words_remembered(
    tokenizer: BytePairTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_pair, "CACHED", 10)
    fresh = BytePairTokenizer(tokenizer.tokens, tokenizer.merges, tokenizer.specials)
    text = PROSE + CODE
    assert fresh.encode(text) == tokenizer.encode(text)
    assert 0 < fresh._known.cache_info().currsize <= 10
    known = tokenizer._known.cache_info()
    draw = random.Random(0)
    word = "".join(draw.choice("thecatsodg") for _ in range(100_000))
    assert tokenizer.decode(tokenizer.encode(word)) == word  # n^2 steps would take hours
    assert tokenizer._known.cache_info() == known


# The first merges of GPT-2's own merges.txt: its ids 256 to 373. Its ids 0 to 255 are the bytes,
# those that print as ASCII first.
GPT2 = """
Ġ t|Ġ a|h e|i n|r e|o n|Ġt he|e r|Ġ s|a t|Ġ w|Ġ o|e n|Ġ c|i t|i s|a n|o r|e s|Ġ b|e d|Ġ f|in g|\
Ġ p|o u|Ġa n|a l|a r|Ġt o|Ġ m|Ġo f|Ġ in|Ġ d|Ġ h|
Ġan d|i c|a s|l e|Ġt h|i on|o m|l l|en t|Ġ n|Ġ l|s t|Ġ re|v e|Ġ e|r o|l y|Ġb e|Ġ g|Ġ T|c t|Ġ S|\
i d|o t|Ġ I|u t|e t|Ġ A|Ġ is|Ġ on|i m|a m|o w|a y|
a d|s e|Ġth at|Ġ C|i g|Ġf or|a c|Ġ y|v er|u r|Ġ u|l d|Ġs t|Ġ M|' s|Ġ he|Ġ it|at ion|it h|i r|c \
e|Ġy ou|i l|Ġ B|Ġw h|o l|Ġ P|Ġw ith|Ġ 1|t er|c h|
Ġa s|Ġw e|Ġ (|n d|i ll|Ġ D|i f|Ġ 2|a g|er s|k e|Ġ "|Ġ H|e m|Ġc on|Ġ W|Ġ R|he r|Ġw as
"""


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("!\n,\n.\n~", [0, 198, 11, 198, 13, 198, 93]),
        (
            " the of and to in is that for it you with was",
            [262, 286, 290, 284, 287, 318, 326, 329, 340, 345, 351, 373],
        ),
        (" the  of\n and", [262, 220, 286, 198, 290]),
        ("it's he was, that", [270, 338, 339, 373, 11, 326]),
        ("in\non\nation", [259, 198, 261, 198, 341]),
        ("\t", [197]),
        ("\r", [201]),
        ("\x00", [188]),
        ("\x7f", [221]),
        (END, [374]),
    ],
)
def test_bug_64_ids_of_gpt2(text: str, ids: list[int], tmp_path: Path) -> None:
    """Golden ids: the whole table would merge no further, for each word is one token. (It has
    50,257, of which <|endoftext|> is the last.)
    """
    merges = GPT2.replace("\n", "").split("|")
    symbols = [
        *map(chr, range(33, 127)),
        *map(chr, range(161, 173)),
        *map(chr, range(174, 256)),
        *map(chr, range(256, 256 + 68)),
    ]
    vocabulary = [*symbols, *(merge.replace(" ", "") for merge in merges), END]
    (tmp_path / "vocab.json").write_text(
        json.dumps({token: i for i, token in enumerate(vocabulary)})
    )
    (tmp_path / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8"
    )
    tokenizer = BytePairTokenizer.from_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert tokenizer.specials == {END: 374}
    assert tokenizer.encode(text) == ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_bytes(b"\xa9") == [102]


# -- files


def test_saved_and_loaded(tokenizer: BytePairTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = BytePairTokenizer.load(tmp_path / "tokenizer.json")
    assert (loaded.tokens, loaded.merges, loaded.specials, loaded.hash) == (
        tokenizer.tokens,
        tokenizer.merges,
        tokenizer.specials,
        tokenizer.hash,
    )
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_gpt2_files_written_and_read(tokenizer: BytePairTokenizer, tmp_path: Path) -> None:
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    tokenizer.save_gpt2(vocabulary, merges)
    text = vocabulary.read_text("ascii")
    assert text.startswith('{"\\u0100": 0, "\\u0101": 1, ')
    assert '"!": 33, "\\"": 34, ' in text
    size = tokenizer.size
    assert text.endswith(f'"{END}": {size - 3}, "<s>": {size - 2}, "<s><s>": {size - 1}}}')
    assert merges.read_bytes().startswith(b"#version: 0.2\n")
    read = BytePairTokenizer.from_gpt2(vocabulary, merges)
    assert read.hash == tokenizer.hash
    before = vocabulary.read_bytes(), merges.read_bytes()
    read.save_gpt2(vocabulary, merges)
    assert (vocabulary.read_bytes(), merges.read_bytes()) == before


def test_bug_64_newlines_and_marks_in_merges(tmp_path: Path) -> None:
    text = "##\n\n##\n\n  \n\n#!\u0085\u2028#!\u0085\u2028\t\t"
    tokenizer = BytePairTokenizer.train(text * 2, 290, specials=("END", "two words"))
    assert {(b"#", b"#"), (b"\n", b"\n")} <= set(tokenizer.merges)
    tokenizer.save_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt")
    read = BytePairTokenizer.from_gpt2(
        tmp_path / "vocab.json", tmp_path / "merges.txt", specials=("END", "two words")
    )
    assert (read.merges, read.hash, read.encode(text)) == (
        tokenizer.merges,
        tokenizer.hash,
        tokenizer.encode(text),
    )
    with pytest.raises(TokenizerError, match="lacks the special token '<s>'"):
        BytePairTokenizer.from_gpt2(
            tmp_path / "vocab.json", tmp_path / "merges.txt", specials=("<s>",)
        )


def test_special_token_that_reads_like_another(tmp_path: Path) -> None:
    tokenizer = BytePairTokenizer.train("ab", 257, specials=("a",))
    assert tokenizer.encode("ab") == [256, 98]
    tokenizer.save(tmp_path / "tokenizer.json")
    assert BytePairTokenizer.load(tmp_path / "tokenizer.json").encode("ab") == [256, 98]
    with pytest.raises(TokenizerError, match="two tokens read 'a'"):
        tokenizer.save_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt")


VOCABULARY = {text: i for i, text in enumerate([*CHARACTERS, "Ġt", "he", END])}
MERGES = "#version: 0.2\nĠ t\nh e\n"


def without(*names: str) -> str:
    return json.dumps(
        {name: i for i, name in enumerate(name for name in VOCABULARY if name not in names)}
    )


@pytest.mark.parametrize(
    ("vocabulary", "merges", "message"),
    [
        ("", MERGES, r"vocab.json is damaged \(Input data was truncated\)"),
        ("[]", MERGES, "Expected `object`, got `array`"),
        ('{"a": "b"}', MERGES, "Expected `int`, got `str`"),
        ('{"a": true}', MERGES, "Expected `int`, got `bool`"),
        ('{"a": 0, "b": 1, "a": 2}', MERGES, r"vocab.json is damaged \('a' stands in it twice\)"),
        ('{"a": 0, "b": 0}', MERGES, "vocab.json: 'a' and 'b' both have id 0"),
        ('{"a": 0, "b": 2}', MERGES, "of 2 tokens none has id 1"),
        (without("he"), MERGES, "token 'he' is missing: a merge needs it"),
        (json.dumps(VOCABULARY), "#version: 0.2\nĠ t\n", "no merge makes token 'he', id 257"),
        (json.dumps(VOCABULARY), MERGES + "h e\n", "the merge of 'h' and 'e' is there twice"),
        (json.dumps(VOCABULARY), MERGES + "h e e\n", "line 4: 'h e e' is not two tokens"),
        (json.dumps(VOCABULARY), MERGES + "\nh e\n", "line 4: '' is not two tokens"),
        (json.dumps(VOCABULARY), MERGES + "☃ e\n", r"'\\u2603' in '\\u2603' stands for no byte"),
        (json.dumps({**VOCABULARY, "": 259}), MERGES, "a token is empty"),
    ],
)
def test_bad_gpt2_files(vocabulary: str, merges: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(vocabulary, encoding="utf-8")
    (tmp_path / "merges.txt").write_text(merges, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        BytePairTokenizer.from_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt")


SOUND = msgspec.to_builtins(EMPTY.content())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"merges": ["a"]}, "'a' is not two tokens"),
        ({"merges": "a b"}, "(Expected `array`, got `str` - at `$.merges`)"),
        ({"merges": [3]}, "(Expected `str`, got `int` - at `$.merges[0]`)"),
        ({"specials": {END: True}}, "(Expected `int`, got `bool` - at `$.specials[...]`)"),
        (
            {"specials": {END: 10**400}},
            "(Expected `int` <= 9007199254740992 - at `$.specials[...]`)",
        ),
        (
            {"specials": {"<s>" * 10_000: 256}},
            f": special token '{'<s>' * 20}'... is not token 256",
        ),
        ({"merges": ["a" * 10_000]}, f": '{'a' * 60}'... is not two tokens"),
        ({"specials": {END: 300}}, "special token '<|endoftext|>' is not token 300"),
        ({"specials": {"<s>": 256}}, "special token '<s>' is not token 256"),
        ({"tokens": [*CHARACTERS, "a"], "specials": {}}, "token 'a' has two ids, 97 and 256"),
        ({"tokens": None}, "(Expected `array`, got `null` - at `$.tokens`)"),
    ],
)
def test_bug_86_bad_files(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(SOUND | change), encoding="utf-8")
    with pytest.raises(InputError, match=r"tokenizer\.json is damaged.*" + re.escape(message)):
        BytePairTokenizer.load(path)


def test_a_copy_has_a_cache_of_its_own() -> None:
    tokenizer = BytePairTokenizer.train(PROSE, 300)
    ids = tokenizer.encode(PROSE)
    for copied in (copy.copy(tokenizer), copy.deepcopy(tokenizer), pickled(tokenizer)):
        assert copied.encode(PROSE) == ids
        assert copied.decode(ids) == PROSE
        assert copied._known is not tokenizer._known


def pickled(tokenizer: BytePairTokenizer) -> Any:
    """As another process gets it."""
    return pickle.loads(pickle.dumps(tokenizer))
