"""Whole commands: `tinygpt.__main__.main` in a fork of this process.

    commands     any reader's damaged file, and a command that reads it
    odd files    no file, a FIFO, a folder, a link to itself or to /dev/zero, 40 GB of nothing,
                 no permission, a name that is no UTF-8
    flags        values that no one means

A command may exit with 0, 1, 2 or 130, and prints no traceback. One that exits with 2 has changed
no
file outside its run.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

from tests.faults.mutations import words
from tests.faults.readers import READERS, RUN, TEXTS, Input, drawn
from tests.faults.watch import LONGEST, Verdict, apart, attempt, bounded, place_in
from tests.faults.workplace import Workplace, differing
from tinygpt.__main__ import main
from tinygpt.commands.cli import Parser

CODES = {0: "accepted", 1: "accepted", 2: "refused", 130: "accepted"}
TINY = ("--width", "8", "--heads", "2", "--layers", "1", "--context", "8", "--batch", "4")
MORE = (
    ("step", RUN, "--plain"),
    ("step", RUN, "--plain", "--train"),
    ("verify", "causal", RUN),
    ("plot", RUN, "bpe"),
    ("inspect", RUN, "--matrices", "--json"),
)
OF_TEXT = (
    ("plan", "--text", "text.txt", *TINY),
    ("sample", "word", "--length", "2", "--prompts", "text.txt"),
)
NAME = "\udcff\udc80"  # two bytes that are no UTF-8, as Python tells them


# -- odd files -------------------------------------------------------------------------------------


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 40 << 30)


def _closed(path: Path) -> None:
    path.touch()
    path.chmod(0)


ODD: dict[str, Callable[[Path], None]] = {
    "missing": lambda path: None,
    "empty": lambda path: path.touch(),
    "FIFO": lambda path: os.mkfifo(path),
    "folder": lambda path: path.mkdir(),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "/dev/null": lambda path: path.symlink_to("/dev/null"),
    "40 GB": _sparse,
    "no permission": _closed,
    "name": lambda path: None,
}


@cache
def odd_inputs() -> list[Input]:
    """Every odd file in place of every file, with every command that reads it, well mixed."""
    found = [
        Input(file, b"", way, odd=odd)
        for reader in READERS.values()
        for file in reader.files
        for way in dict.fromkeys((*reader.ways, *_more(file)))
        for odd in ODD
        if not (odd == "40 GB" and file.endswith(".txt"))  # a text may be that long
    ]
    Random(0).shuffle(found)
    return found


def _more(file: str) -> tuple[tuple[str, ...], ...]:
    """Commands beside the reader's own."""
    if not file.startswith("runs/"):
        return OF_TEXT if file == "text.txt" else ()
    run = file.split("/")[1]
    return tuple(tuple(run if word == RUN else word for word in way) for way in MORE)


def _renamed(given: Input, place: Workplace) -> tuple[str, ...]:
    """The command line for a run, a folder or a file that goes by a name that is no UTF-8."""
    parts = Path(given.file).parts
    top = Path(*parts[:2]) if parts[0] == "runs" else Path(parts[0])
    (place.folder / top).rename(place.folder / top.with_name(NAME))
    return tuple(NAME if word == top.name else word for word in given.way)


# -- flags -----------------------------------------------------------------------------------------

BASES = (
    ("sample", "character", "--length", "2"),
    ("eval", "character"),
    ("plot", "character"),
    ("look", "character", "--length", "1"),
    ("inspect", "character"),
    ("step", "character", "--plain"),
    ("verify", "causal", "character"),
    (*TEXTS, "text.txt", "--until", "1"),
    ("train", "--resume", "character", "--until", "3"),
    (
        "train",
        "--init",
        "character",
        "--text",
        "text.txt",
        "--steps",
        "2",
        "--until",
        "1",
        "--batch",
        "4",
        "--out",
        "made",
    ),
    ("tokenize", "text.txt", "--out", "cut"),
    ("plan", *TINY),
    ("import-gpt2", "gpt2", "--out", "imported"),
    ("export-gpt2", "gpt2", "exported"),
)
SHORT = [
    "",
    " 1 ",
    "\udcff",
    "a\nb\nc",
    "\x1b[2J",
    *words("0 -0 1 -1 2 3 0.5 1.5 nan inf -inf 1e308 1e-320 1e999 1_0 0x1 １ -- - x"),
]
LONG = [*("1" + "0" * n for n in (12, 18, 20, 30, 400, 5000)), "x" * 300, "x" * 20_000]
NAMES = words(
    "character gpt2 text.txt texts tokens runs . missing/x.png x.png x.svg x.html story cuda cpu "
    "float64 bpe"
)
VALUES = [*SHORT, *LONG, *NAMES]  # no number that a patient user with a large machine may mean
ENDLESS = ("--help", "--length", "--until")  # a sample of 10^12 tokens is what was asked for


@cache
def _flags(command: str) -> tuple[str, ...]:
    parser = Parser()
    importlib.import_module("tinygpt.commands." + command.replace("-", "_")).arguments(parser)
    return tuple(
        flag for action in parser._actions for flag in action.option_strings if flag not in ENDLESS
    )


def flag_input(rng: Random) -> Input:
    """A command line with one or two values that no one means."""
    base = rng.choice(BASES)
    flags = [
        word
        for _ in range(rng.choice((1, 1, 2)))
        for word in (rng.choice(_flags(base[0])), rng.choice(VALUES))
    ]
    line = list(base)
    if rng.random() < 0.1:
        line[rng.randrange(len(line))] = rng.choice(VALUES)
    return Input("", b"", (*line, *flags))


# -- one input -------------------------------------------------------------------------------------


def command_input(rng: Random, place: Workplace) -> Input:
    """Any reader's input, for one of its commands or another one."""
    given = drawn(rng.choice(list(READERS)), rng, place)
    more = _more(given.file)
    return given._replace(way=rng.choice(more)) if more and rng.random() < 0.2 else given


def tried(place: Workplace, given: Input, log: Path) -> Verdict:
    """What comes of it. The current folder is the workplace."""
    for name, data in ((given.file, given.data), *given.also):
        if name:
            place.write(name, data)
    way = given.way
    try:
        if given.odd == "name":
            place.restore()
            way = _renamed(given, place)
        elif given.odd:
            (place.folder / given.file).unlink()
            ODD[given.odd](place.folder / given.file)
        before = place.seen()
        verdict = apart(lambda: _performed(way, given, log), log)
        after = place.seen()
        left = sorted(
            name
            for name in differing(before, after)
            if not _of_run(name, way) and not _has_a_step(place.folder / name)
        )
        if verdict.kind == "refused" and left:
            return Verdict(
                "traceback",
                verdict.seconds,
                verdict.memory,
                f"refused, and yet changed: {left[0]!a}",
                place_in(verdict.what),
            )
        return verdict
    finally:
        place.restore()


def _has_a_step(run: Path) -> bool:
    """Whether a training noted a step there: no error removes such a folder."""
    metrics = run / "metrics.jsonl"
    return metrics.is_file() and metrics.stat().st_size > 0


def _of_run(name: str, way: tuple[str, ...]) -> bool:
    """Whether the file is of the run that a command line names."""
    return name.startswith("runs/") and name.split("/")[1] in way


def _performed(way: tuple[str, ...], given: Input, log: Path) -> Verdict:
    """In the fork: the command, and what its exit code and its stderr tell."""
    codes: list[int] = []
    if given.odd == "no permission":
        _powerless()
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
    sys.stderr = open(log, "a", encoding="utf-8")  # noqa: SIM115

    def command() -> None:
        try:
            codes.append(main(way))
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stderr.flush()

    verdict = attempt(command, len(given.data))
    if not codes:
        return verdict
    said = log.read_text(encoding="utf-8", errors="replace")
    error = said.partition("tinygpt: error: ")[2]
    judged = Verdict(
        CODES.get(codes[0], "traceback"),
        verdict.seconds,
        verdict.memory,
        error[:200] or f"exit code {codes[0]}",
    )
    if "Traceback" in said:
        judged = Verdict(
            "traceback", what=said.strip().rpartition("\n")[2][:200], place=place_in(said)
        )
    elif codes[0] == 2 and not error:
        judged = Verdict("traceback", what="no message")
    elif codes[0] == 2 and (error.count("\n") > 2 or len(error) > LONGEST):
        judged = Verdict(
            "traceback",
            what=f"long message: {error.count(chr(10))} lines, {len(error):,} characters: "
            + error[:100],
        )
    return bounded(judged, len(given.data))


def _powerless() -> None:
    """A user who is root gives up reading what it may not: all capabilities."""
    if os.geteuid() == 0 and sys.platform == "linux":
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
            raise OSError(ctypes.get_errno(), "capset")
