"""Make the tokens of a text beforehand: `tinygpt tokenize FILE --out FOLDER`, and then `tinygpt
train --text FOLDER`.

The text is read, and its tokens are written, a part at a time: neither need fit in memory, here or
in training. The folder holds the
tokens of the whole text, the tokenizer, and how many are to learn from: all but the last tenth,
which is at most a million tokens
unless --validation says otherwise. Byte pairs and words are learned from the first 33,554,432
characters, of a longer text.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tinygpt.commands.cli import Parser, add_flags, read_config
from tinygpt.config import TrainConfig
from tinygpt.data import prepare as data
from tinygpt.data import token_files
from tinygpt.data.reading import read_parts
from tinygpt.errors import InputError
from tinygpt.runs import run as runs
from tinygpt.terminal import Bar, duration, say, short, shown
from tinygpt.tokenizers import CharacterTokenizer, Tokenizer
from tinygpt.tokenizers import load as load_tokenizer

SEEN = 1 << 25  # characters that byte pairs and words are learned from, at most: ten seconds
# tokens kept back to measure on, at most, unless a share is asked for: more take longer to measure
# than they tell
MEASURED = 1_000_000
CHOICES = "tokenizer", "tokens", "validation"


class Source:
    """A text in files, to be read part by part, more than once, while a bar shows how far."""

    def __init__(self, path: str):
        self.name, self.files = shown(path), data.files(path)
        for file in self.files:
            # raises for one that is missing, empty, no text, or can be read only once
            next(read_parts(file))
        self.bytes = sum(os.path.getsize(file) for file in self.files)

    def parts(self, doing: str) -> Iterator[str]:
        """All of it, from the start."""
        start, done = time.monotonic(), 0

        def progress(count: int) -> None:
            nonlocal done
            done += count
            speed = done / max(time.monotonic() - start, 1e-9)
            text = f"{doing}  {short(done)} of {short(self.bytes)} bytes  {short(speed)}/s  {duration((self.bytes - done) / max(speed, 1))} left"
            bar.draw(done, self.bytes, text, count=f"{done / self.bytes:4.0%}")

        with Bar() as bar:
            yield from data.parts(self.files, progress)


def arguments(parser: Parser) -> None:
    """The text, the folder, and how to cut the one into the other."""
    parser.add_argument(
        "text",
        metavar="FILE",
        help="a file of UTF-8, or a folder, of which all .txt files are taken",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        required=True,
        help="folder to make, for the tokens; must not hold anything else",
    )
    parser.add_argument(
        "--from",
        dest="run",
        metavar="RUN",
        help="take the tokenizer of a run, or of another such folder, to fine-tune with --init",
    )
    add_flags(parser, TrainConfig, only=CHOICES)


def run(options: argparse.Namespace) -> int:
    """Find or make the tokenizer, then go through the text."""
    path, out = options.text, Path(options.out)
    del options.text, options.out  # names of other choices of a training
    config = read_config(TrainConfig, options)
    token_files.check_free(out)
    source, start = Source(path), time.monotonic()
    tokenizer, how = _of_run(options) if options.run is not None else _made(config, source)
    say(
        f"text       {source.name}: {short(source.bytes)} bytes"
        + f" in {len(source.files):,} files" * (len(source.files) > 1)
    )
    say(f"tokenizer  {tokenizer.size:,} different tokens: {how}")
    header = token_files.write(
        out,
        tokenizer,
        source.parts("encoding"),
        config.validation,
        None if hasattr(options, "validation") else MEASURED,
    )
    say(
        f"tokens     {header.tokens:,} as {header.dtype}, {header.characters / header.tokens:.3g} characters each, of {header.characters:,}"
    )
    kept = header.tokens - header.learned
    say(
        f"split      {header.learned:,} to learn from, "
        + (f"the last {kept:,} to measure on" if kept else "none to measure on")
    )
    seconds = time.monotonic() - start
    say(f"time       {duration(seconds)}, {short(source.bytes / seconds)} bytes/s")
    say(f"\ntrain on it: tinygpt train --text {shown(out)}")
    return 0


def _of_run(options: argparse.Namespace) -> tuple[Tokenizer, str]:
    for name in ("tokenizer", "tokens"):
        if hasattr(options, name):
            raise InputError(
                f"--{name} cannot be chosen with --from: the tokenizer is that run's\nleave one of the two out"
            )
    folder = runs.find(options.run)
    return load_tokenizer(
        folder / runs.TOKENIZER, "name a run, or a folder of tokens"
    ), f"those of {shown(folder)}"


def _made(config: TrainConfig, source: Source) -> tuple[Tokenizer, str]:
    """The tokenizer that was chosen, and what it was made from; the text is read once for its
    characters or their number.
    """
    if config.tokenizer == "byte":
        return data.make_tokenizer(config, ""), "bytes"
    characters, count = dict[str, None](), 0
    for part in source.parts("reading"):
        characters |= dict.fromkeys(part)
        count += len(part)
    if config.tokenizer == "character":
        return CharacterTokenizer("".join(characters)), "characters"
    seen = _first(source, min(SEEN, count - int(count * config.validation)))
    of = f"the first {len(seen):,} of {count:,} characters"
    return data.learn_tokenizer(
        config, seen
    ), f"{'words' if config.tokenizer == 'word' else 'byte pairs'} learned from {of}"


def _first(source: Source, count: int) -> str:
    """So many characters from the start."""
    found, missing = list[str](), count
    for part in data.parts(source.files):
        found.append(part[:missing])
        missing -= len(found[-1])
        if not missing:
            break
    return "".join(found)
