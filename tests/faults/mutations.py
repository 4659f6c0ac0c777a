"""Bytes -> damaged bytes. Each mutation takes a random generator and the bytes, and returns others.

bytes          any file: flipped, inserted, deleted, cut, repeated, spliced with another file
structure      JSON: a value replaced by a nasty one, renamed, dropped, doubled, swapped with
another
header         safetensors: names, shapes, dtypes, offsets, the length of the header
lines          JSON lines, merges, texts: dropped, doubled, swapped, joined, one of them damaged
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeAlias

Mutation: TypeAlias = Callable[[Random, bytes], bytes]
Path: TypeAlias = tuple[Any, ...]

DEEP = 100_000
# stands in a JSON text for what json.dumps cannot write; no file here holds this character
MARK = "\ue000{}\ue000"


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


# JSON values, as they stand in a file, that a reader may not expect.
NUMBERS = words("""
    null true false 0 -0.0 1 -1 2 3 7 0.5 1.5 -1.5 1e-320 1e308 -1e308 1e999 NaN Infinity -Infinity
    255 256 257 30000 1000000 100000000 2147483648 4294967296 9007199254740993 9223372036854775807
    9223372036854775808 18446744073709551616 -9223372036854775809
""")
LONG_NUMBERS = [
    "1" + "0" * 18,
    "1" + "0" * 30,
    "1" + "0" * 400,
    "1" + "0" * 5000,
    "-1" + "0" * 400,
    "0." + "0" * 400 + "1",
]
TEXTS = ["", " ", "a\0b", "\ud800", "\udc00\ud800", "\x1b[2J", "\u202ex", "a\nb\nc\nd"]
WORDS = words(
    "x 0 1 null nan 1e5 . text.txt texts tokens gpt2 /dev/null /dev/zero story cuda float16 F64 I64"
)
SCALARS = [*NUMBERS, *LONG_NUMBERS, *map(json.dumps, TEXTS), *map(json.dumps, WORDS)]
LISTS = [
    "[]",
    "[[]]",
    "[null]",
    "[0]",
    "[1, 2]",
    "[1, 2, 3]",
    "[-1, 8]",
    "[1e308]",
    '["a"]',
    "[4294967296, 4294967296]",
]
NESTED = [
    *LISTS,
    "{}",
    '{"a": 1}',
    '{"": {}}',
    '{"kind": "byte"}',
    "[" + "0, " * 99 + "0]",
    "[" + "1, " * 9999 + "1]",
]
DEEPS = ["[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, "[" * DEEP]
LONG = ['"' + "x" * 100_000 + '"', '"' + "\\u00e9\\n" * 10_000 + '"']
MANY = [  # short texts, which take ten times their bytes of memory
    "[" + ", ".join(f'"{i:x}"' for i in range(100_000)) + "]",
    "[" + '"a b", ' * 400_000 + '"a b"]',
    "{" + ", ".join(f'"{i:x}": {i}' for i in range(100_000)) + "}",
]
# UTF-8
BROKEN = [
    b"\x00",
    b"\xff",
    b"\xfe\xff",
    b"\xed\xa0\x80",
    b"\xf0\x9f",
    b"\xc0\x80",
    b"\x85",
    b"\xef\xbb\xbf",
]
PRINTED = [
    "\u2028",
    "\u202e",
    "e\u0301",
    "\U0001f469\u200d\U0001f469",
    "\ufffd",
    "中",
    "\x1b[2J",
    "\r",
    "\r\n",
    "\n\n",
    "\n",
    "\t",
    " ",
]
MARKS = words(r'0 9 - . e9 " \ \ud800 { } [ ] , : null NaN 1e999 # <unk> <|endoftext|>')
PIECES = [*BROKEN, *map(str.encode, PRINTED), *map(str.encode, MARKS)]


def nasty(rng: Random) -> str:
    """A JSON value as text, mostly a short one."""
    chance = rng.random()
    if chance < 0.02:
        return rng.choice(DEEPS)
    if chance < 0.04:
        return rng.choice(LONG)
    if chance < 0.043:
        return rng.choice(MANY)
    return rng.choice(NESTED if chance < 0.25 else SCALARS)


# -- any file --------------------------------------------------------------------------------------


def flip(rng: Random, data: bytes) -> bytes:
    """One to four bits."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4) if data else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def replace_byte(rng: Random, data: bytes) -> bytes:
    """One byte becomes any other."""
    place = rng.randrange(max(1, len(data)))
    return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]


def insert(rng: Random, data: bytes) -> bytes:
    """A piece, up to three times in a row."""
    place = rng.randint(0, len(data))
    return data[:place] + rng.choice(PIECES) * rng.randint(1, 3) + data[place:]


def delete(rng: Random, data: bytes) -> bytes:
    """Some bytes in a row, few of them or very many."""
    place = rng.randrange(max(1, len(data)))
    return data[:place] + data[place + rng.choice((1, 1, 2, 8, 64, len(data) // 2 + 1)) :]


def truncate(rng: Random, data: bytes) -> bytes:
    """The beginning alone, down to nothing."""
    return data[: rng.choice((0, 1, 7, 8, 9, len(data) - 1, rng.randint(0, len(data))))]


def repeat(rng: Random, data: bytes) -> bytes:
    """A stretch, many times."""
    start = rng.randrange(max(1, len(data)))
    stretch = data[start : start + rng.choice((1, 2, 16, 256, len(data)))]
    return data[:start] + stretch * rng.choice((2, 3, 50)) + data[start:]


def blank(rng: Random, data: bytes) -> bytes:
    """A stretch of zeros, as a disk leaves behind after a power cut."""
    start = rng.randrange(max(1, len(data)))
    end = min(len(data), start + rng.choice((1, 8, 512, len(data))))
    return data[:start] + bytes(end - start) + data[end:]


def splice(rng: Random, data: bytes, other: bytes) -> bytes:
    """The beginning of the one file and the end of the other."""
    place = rng.randint(0, len(data))
    return data[:place] + other[rng.choice((place, rng.randint(0, len(other)))) :]


BYTES: tuple[Mutation, ...] = (
    flip,
    flip,
    replace_byte,
    insert,
    insert,
    delete,
    truncate,
    repeat,
    blank,
)


# -- JSON ------------------------------------------------------------------------------------------


def paths(tree: Any) -> list[Path]:
    """Where each value of a JSON tree stands: (key or index, ...), without the tree itself."""
    found: list[Path] = []
    waiting: list[tuple[Path, Any]] = [((), tree)]
    while waiting:
        path, value = waiting.pop()
        below = (
            value.items()
            if isinstance(value, dict)
            else enumerate(value)
            if isinstance(value, list)
            else ()
        )
        for key, part in below:
            found.append((*path, key))
            waiting.append(((*path, key), part))
    return found


def at(tree: Any, path: Path) -> Any:
    """The value that stands there."""
    for key in path:
        tree = tree[key]
    return tree


def near(rng: Random, value: Any) -> str:
    """A value close to the one that is there: of its kind, or of another kind with its text."""
    if isinstance(value, bool):
        return json.dumps(rng.choice((int(value), str(value), not value)))
    if isinstance(value, (int, float)):
        real = value if abs(value) < 2**1000 else float("inf")  # a longer number is no float
        return json.dumps(
            rng.choice(
                (
                    value + 1,
                    value - 1,
                    -value,
                    value * 2,
                    float(real),
                    str(value),
                    [value],
                    real + 0.5,
                    value * 10**18,
                )
            )
        )
    if isinstance(value, str):
        return json.dumps(
            rng.choice(
                (
                    value + "x",
                    value[:-1],
                    value.upper(),
                    [value],
                    {value: value},
                    value * 2,
                    value[::-1],
                )
            )
        )
    if isinstance(value, list):
        return json.dumps(
            rng.choice(
                (
                    value[:-1],
                    [*value, *value[-1:]],
                    value[::-1],
                    [value],
                    dict.fromkeys(map(str, value)),
                )
            )
        )
    return json.dumps(
        rng.choice(
            ([value], list(value or ()), [*(value or {}).values()]),
        )
        if isinstance(value, dict)
        else 0
    )


def structure(rng: Random, data: bytes) -> bytes:
    """One to three changes of the tree; bytes that are no JSON any more are changed as bytes."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return rng.choice(BYTES)(rng, data)
    return changed(rng, tree).encode("utf-8", "surrogatepass")


def changed(rng: Random, tree: Any) -> str:
    """The text of a JSON tree after one to three changes."""
    raw: list[str] = []  # texts that json.dumps cannot write, by the number in their mark
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = paths(tree)
        if not places or rng.random() < 0.02:
            return nasty(rng)
        path = rng.choice(places)
        _change(rng, tree, path, raw)
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5)
    for number, part in enumerate(raw):
        for mark in (
            json.dumps(MARK.format(number)),
            json.dumps(MARK.format(number), ensure_ascii=False),
        ):
            text = text.replace(mark, part)
    return text


def copied(tree: Any) -> Any:
    """Another tree of the same values: a later exchange between two aliases would make a circle."""
    return json.loads(json.dumps(tree))


def _change(rng: Random, tree: Any, path: Path, raw: list[str]) -> None:
    parent, key = at(tree, path[:-1]), path[-1]

    def unwritable(text: str) -> str:
        raw.append(text)
        return MARK.format(len(raw) - 1)

    how = rng.random()
    if how < 0.5:
        parent[key] = unwritable(nasty(rng))
    elif how < 0.7:
        parent[key] = unwritable(near(rng, parent[key]))
    elif how < 0.8:
        del parent[key]
    elif how < 0.86:
        other = rng.choice(paths(tree))
        if path[: len(other)] != other and other[: len(path)] != path:  # neither holds the other
            elsewhere = at(tree, other[:-1])
            parent[key], elsewhere[other[-1]] = elsewhere[other[-1]], parent[key]
    elif isinstance(parent, list):
        parent.insert(key, copied(parent[key]))
    elif how < 0.93:
        parent[unwritable(json.dumps(key))] = copied(parent[key])  # the same name twice
    else:
        parent[rng.choice((key + "x", key.upper(), "", "x" * 1000, "\ud800", "\x1b[2J\n\n"))] = (
            parent.pop(key)
        )


# -- safetensors -----------------------------------------------------------------------------------


def header(rng: Random, data: bytes) -> bytes:
    """The header changed as a tree, or in what a reader trusts; its length told truly, mostly."""
    length = int.from_bytes(data[:8], "little")
    try:
        tree = json.loads(data[8 : 8 + length])
        if rng.random() < 0.4:
            text = changed(rng, tree)
        else:
            entries = [entry for name, entry in tree.items() if name != "__metadata__"]
            _lie(rng, tree, rng.choice(entries), entries)
            text = json.dumps(tree)
    # damaged before
    except (ValueError, RecursionError, AttributeError, IndexError, KeyError, TypeError):
        return rng.choice(BYTES)(rng, data)
    new = text.encode("utf-8", "surrogatepass")
    new += b" " * (-len(new) % 8 if rng.random() < 0.8 else rng.randrange(8))
    said = (
        rng.choice(
            (
                0,
                1,
                len(new) - 1,
                len(new) + 1,
                len(data),
                100_000_001,
                1 << 32,
                (1 << 63) - 1,
                (1 << 64) - 1,
            )
        )
        if rng.random() < 0.1
        else len(new)
    )
    return said.to_bytes(8, "little") + new + data[8 + length :]


def _lie(rng: Random, tree: Any, entry: Any, entries: Sequence[Any]) -> None:
    """One entry says something that is wrong, and mostly looks right."""
    how = rng.randrange(7)
    if how == 0:
        tree[rng.choice(("unknown", "", "x" * 300, "\x1b[2J\n", "token_embedding.weight"))] = {
            "dtype": "F32",
            "shape": [0],
            "data_offsets": [0, 0],
        }
    elif how == 1:
        entry["dtype"] = rng.choice(
            (
                "F64",
                "F32",
                "F16",
                "BF16",
                "I64",
                "I32",
                "U8",
                "BOOL",
                "F8_E4M3",
                "F4",
                "I16",
                "U64",
                "C64",
                "",
                "x",
            )
        )
    elif how == 2:
        entry["shape"] = rng.choice(
            (
                entry["shape"][::-1],
                [],
                [0],
                [*entry["shape"], 1],
                [1, *entry["shape"]],
                [-1],
                [1 << 62, 4],
                [1 << 64],
                [True],
            )
        )
    elif how == 3:
        entry["data_offsets"] = rng.choice(entries)["data_offsets"]
    elif how == 4:
        start, end = entry["data_offsets"]
        entry["data_offsets"] = rng.choice(
            (
                [end, start],
                [start, start],
                [start + 1, end + 1],
                [start, end + 8],
                [-1, end],
                [start, 1 << 63],
                [start],
            )
        )
    elif how == 5:
        entry["dtype"], entry["shape"] = "F16", [2, *entry["shape"]]  # as many bytes
    else:
        tree["__metadata__"] = rng.choice(
            ({}, {"format": "pt"}, {"format": 1}, [], None, {"a": "\x1b[2J"})
        )


# -- lines -----------------------------------------------------------------------------------------


def lines(rng: Random, data: bytes) -> bytes:
    """One to three changes of whole lines, or of the JSON in one."""
    parts = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
        how = rng.randrange(8)
        if how == 0:
            del parts[i]
        elif how == 1:
            parts.insert(i, parts[j])
        elif how == 2:
            parts[i], parts[j] = parts[j], parts[i]
        elif how == 3:
            parts[i] += parts.pop(i + 1) if i + 1 < len(parts) else b""
        elif how == 4:
            parts.insert(i, nasty(rng).encode())
        elif how == 5:
            parts[i] = rng.choice(BYTES)(rng, parts[i])
        else:
            parts[i] = structure(rng, parts[i])
        parts = parts or [b""]
    return b"\n".join(parts)


# -- numbers ---------------------------------------------------------------------------------------


def numbers(rng: Random, data: bytes) -> bytes:
    """Whole words of 2 or 4 bytes become the largest, the smallest, or any; the size stays."""
    size = rng.choice((2, 4))
    place = rng.randrange(max(1, len(data) // size)) * size
    word = rng.choice(
        (
            b"\xff" * size,
            bytes(size),
            rng.randbytes(size),
            b"\x00" * (size - 1) + b"\x80",
            b"\x00\x00\xc0\x7f"[-size:],
        )
    )
    return data[:place] + word + data[place + size :]


KINDS: dict[str, tuple[Mutation, ...]] = {
    ".json": (structure,),
    ".jsonl": (lines,),
    ".safetensors": (header, header, numbers),
    ".txt": (lines, insert),
    ".bin": (numbers,),
}


def mutate(rng: Random, data: bytes, kind: str, others: Sequence[bytes]) -> bytes:
    """The bytes of a file, damaged once or twice; seldom another file instead.   kind: .json"""
    chance = rng.random()
    if chance < 0.01:
        return rng.choice(
            (b"", b"\n", b"{}", b"[]", b"null", b"\xef\xbb\xbf", b"0", rng.choice(others))
        )
    if chance < 0.04:
        return splice(rng, data, rng.choice(others))
    for _ in range(rng.choice((1, 1, 1, 2))):
        choices = KINDS.get(kind, ()) if rng.random() < 0.7 else BYTES
        data = rng.choice(choices or BYTES)(rng, data)
    return data
