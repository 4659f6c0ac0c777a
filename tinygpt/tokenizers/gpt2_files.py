"""The two files in which GPT-2 keeps its tokenizer: vocab.json, {"token": id}, and merges.txt, a
merge a line, the first learned first.

    {"!": 0, "\\"": 1, ..., "\\u0120t": 256, "\\u0120a": 257, ..., "<|endoftext|>": 50256}
    where \\u0120t is Ġt, as Python's json.dumps writes it

    #version: 0.2
    Ġ t
    Ġ a

Both files are text, and tokens are bytes, so each byte is written as a character. A byte that
prints is its own character. The others (white space, control characters, bytes that are no
character alone) take the characters from U+0100 on, in their order: the space, the 33rd, is Ġ, and
the newline is Ċ.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec

from tinygpt.files import (
    TOKENS,
    VOCABULARY,
    FilePath,
    parse_json,
    read_bytes,
    reason,
    write_atomically,
)
from tinygpt.terminal import shown
from tinygpt.tokenizers.tokenizer import TokenizerError, quoted, read_tokens

Id: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]  # of a token, as a file may say
RESTORE = "restore it from where it came from"
VERSION = "#version: 0.2"


def _byte_characters() -> list[str]:
    prints = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("ÿ") + 1)} - {ord("\xad")}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in prints else chr(next(others)) for byte in range(256)]


CHARACTERS = _byte_characters()
BYTES = {character: byte for byte, character in enumerate(CHARACTERS)}


def to_text(token: bytes) -> str:
    """Each byte as its character: b" the" -> "Ġthe"."""
    return "".join(CHARACTERS[byte] for byte in token)


def to_bytes(text: str) -> bytes:
    """The inverse of to_text: "Ġthe" -> b" the". Raises TokenizerError for a character that stands
    for no byte, and for an empty text.
    """
    try:
        token = bytes(BYTES[character] for character in text)
    except KeyError as error:
        raise TokenizerError(f"{error.args[0]!a} in {quoted(text)} stands for no byte") from None
    if not token:
        raise TokenizerError("a token is empty")
    return token


def read_vocabulary(path: FilePath) -> dict[str, int]:
    """The ids of the tokens in a vocab.json. Raises InputError for a file that holds none."""
    return parse_json(read_tokens(path, RESTORE), dict[str, Id], path, RESTORE)


def in_order(content: Mapping[str, int], path: FilePath) -> list[str]:
    """The tokens in the order of their ids. path: the file that an error names.

    Raises TokenizerError unless the ids are 0, 1, 2, ..., each once.
    """
    tokens = sorted(content, key=content.__getitem__)
    for number, token in enumerate(tokens):
        if content[token] < number:
            both = f"{quoted(tokens[number - 1])} and {quoted(token)} both have id {number - 1}"
            raise TokenizerError(f"{shown(path)}: {both}")
        if content[token] > number:
            raise TokenizerError(f"{shown(path)}: of {len(tokens)} tokens none has id {number}")
    return tokens


def read_merges(path: FilePath) -> list[str]:
    """The lines of merges in a merges.txt. Raises InputError, naming the line that is none."""
    data = read_bytes(path, VOCABULARY, RESTORE)
    if data.count(b"\n") > TOKENS:
        raise TokenizerError(f"{shown(path)} has more than {TOKENS:,} merges\n{RESTORE}")
    try:
        lines = data.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{shown(path)} is not UTF-8 ({reason(error)})\n{RESTORE}") from None
    if lines[-1] == "":  # after the last newline
        lines.pop()
    merges = []
    for number, line in enumerate(lines, 1):
        if number == 1 and line.startswith("#version"):  # later lines with a # merge a #
            continue
        try:
            read_merge(line)
        except TokenizerError as error:
            raise TokenizerError(f"{shown(path)}, line {number}: {error}") from None
        merges.append(line)
    return merges


def read_merge(line: str) -> tuple[str, str]:
    """The two tokens of a merge: "Ġ t" -> "Ġ", "t". Raises TokenizerError for a line that is not
    two words.
    """
    left, _, right = line.partition(" ")
    if not left or not right or " " in right:
        raise TokenizerError(f"{quoted(line)} is not two tokens with a space between")
    return left, right


def write_vocabulary(path: FilePath, tokens: Sequence[str]) -> None:
    """Write vocab.json as GPT-2's is written. Raises TokenizerError for two tokens with the same
    text.
    """
    content = {token: number for number, token in enumerate(tokens)}
    if len(content) < len(tokens):
        again = next(token for number, token in enumerate(tokens) if content[token] != number)
        raise TokenizerError(
            f"two tokens read {quoted(again)}, of which vocab.json can hold one: give the special "
            "token another text"
        )
    write_atomically(Path(path), json.dumps(content))


def write_merges(path: FilePath, merges: Iterable[str]) -> None:
    """Write merges.txt as GPT-2's is written."""
    write_atomically(Path(path), "\n".join([VERSION, *merges]) + "\n")
