"""Text that comes token by token is the text that `decode` gives of all tokens at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.program import sampled
from tinygpt.__main__ import main
from tinygpt.generation.generate import Step
from tinygpt.generation.text import Continuation
from tinygpt.tokenizers import BytePairTokenizer, ByteTokenizer, Tokenizer

# whole characters, their beginnings, lone continuations, surrogates, bytes of no UTF-8
PIECES = [
    *(text.encode() for text in ("a", "é", "猫", "🐈", "\ufffd", "\n", "\u2028")),
    *(b"\xf0\x9f", b"\xe7\x8c", b"\xc3", b"\x80", b"\x99\x82", b"\xed\xa0\x80", b"\xff", b"\xc0"),
]


def streamed(tokenizer: Tokenizer, ids: list[int], stop: str = "") -> str:
    """The parts of a continuation, one after the other, until `stop` has come."""
    text, parts = Continuation(tokenizer, stop), list[str]()
    for token in ids:
        parts.append(text.add(token))
        if text.ended:
            break
    return "".join([*parts, text.rest()])


def streams(count: int) -> list[list[int]]:
    """Random bytes: half of them any bytes, half of them of pieces that nearly fit."""
    draw = random.Random(0)
    pieces = [b"".join(draw.choices(PIECES, k=draw.randint(1, 8))) for _ in range(count)]
    return [list(p) if i % 2 else list(draw.randbytes(len(p))) for i, p in enumerate(pieces)]


def test_bug_87_every_stream_of_bytes_is_that_of_decode() -> None:
    """Half of a character and then the whole one, and 5,000 others."""
    bytes_, shortest = ByteTokenizer(), list(bytes.fromhex("f09ff09f9982"))
    for ids in [shortest, *streams(5000)]:
        assert streamed(bytes_, ids) == bytes_.decode(ids), bytes(ids)


def test_bug_87_every_stop_is_found_where_it_stands() -> None:
    """Also one of several bytes, one of broken bytes, one at the end."""
    bytes_ = ByteTokenizer()
    for stop in ("é", "a猫", "\ufffd", "\ufffda", "🐈🐈"):
        for ids in streams(1000):
            expected = bytes_.decode(ids).partition(stop)[0]
            assert streamed(bytes_, ids, stop) == expected, (stop, bytes(ids))


def test_bug_87_byte_pairs_that_end_inside_a_character() -> None:
    """A token may hold the end of one character, a whole one and the beginning of a third."""
    pairs = BytePairTokenizer.train("猫猫🐈🐈 猫ì猫í猫î猫ï 🐈é🐈é " * 4, 290)
    assert "猫".encode() + b"\xc3" in pairs.tokens
    draw = random.Random(1)
    for _ in range(2000):
        ids = draw.choices(range(pairs.size), k=6)
        text = pairs.decode(ids)
        assert streamed(pairs, ids) == text, ids
        assert streamed(pairs, ids, "猫") == text.partition("猫")[0], ids


@pytest.mark.parametrize("flags", [[], ["--explain", "1"]], ids=["text", "explained"])
def test_bug_87_a_stop_across_bytes_ends_the_sample(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
) -> None:
    """After a broken byte too, and with a line for each token."""
    Path("text.txt").write_text("The cat. " * 30)
    small = ["--tokenizer", "byte", "--context", "8", "--width", "8", "--layers", "1"]
    assert main(["train", "--text", "text.txt", *small, "--steps", "1"]) == 0
    capsys.readouterr()
    drawn = [0x61, 0xF0, 0x9F, *"ébc".encode()]

    def told(*arguments: Any, with_logits: bool) -> Iterator[tuple[int, Step]]:
        ended = arguments[-1]
        assert with_logits == bool(flags)
        for token in drawn:
            if 0 in ended:
                return
            yield 0, Step(token, [0.0] * 256)

    monkeypatch.setattr("tinygpt.commands.sample.steps", told)
    out = sampled(capsys, "--prompt", "T", "--stop", "é", *flags)
    if flags:
        assert out.splitlines()[-1].startswith(r"'\xa9'")
    else:
        assert out == "Ta\ufffd\n"


def test_bug_87_a_line_of_prompts_ends_at_a_newline_alone(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other characters, at which str.splitlines would cut, are part of a prompt."""
    given: list[str] = []
    # the run's tokenizer knows none of them
    monkeypatch.setattr("tinygpt.tokenizers.CharacterTokenizer.encode", lambda _, text: [])
    monkeypatch.setattr(
        "tinygpt.commands.sample.write", lambda *args, **options: given.extend(args[4:])
    )
    prompts = ["a\x0bb\x0cc", "d\x1ce\x85f", "g\u2028h\u2029i", "j"]
    Path("prompts.txt").write_bytes("\r\n".join(prompts).encode() + b"\n")
    assert main(["sample", "--prompts", "prompts.txt"]) == 0
    assert given == prompts
