"""Make the tokens of a text beforehand: `tinygpt tokenize FILE --out FOLDER`, and then `tinygpt
train --text FOLDER`.

The text is read, and its tokens are written, part by part: neither need fit in memory, here or in
training. The folder holds the tokens of the whole text, the tokenizer, and how many tokens are to
learn from: all but the last tenth, which is at most a million tokens unless --validation says
otherwise. A text of several documents has the special token <|endoftext|> after each: the files of
a folder are documents, and so are the parts of a file between two <|endoftext|>. Byte pairs and
words are learned from the first 33,554,432 characters of a longer text.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tinygpt.commands.cli import Parser, add_flags, read_config
from tinygpt.config import TrainConfig
from tinygpt.data import documents, token_files
from tinygpt.data import prepare as data
from tinygpt.data.reading import STANDARD_INPUT, read_parts
from tinygpt.errors import InputError
from tinygpt.runs import run as runs
from tinygpt.terminal import Bar, command, duration, say, short, shown
from tinygpt.tokenizers import CharacterTokenizer, Tokenizer, with_end
from tinygpt.tokenizers import load as load_tokenizer
from tinygpt.tokenizers.byte_pair import END

SEEN = 1 << 25  # characters that byte pairs and words are learned from, at most: ten seconds
# tokens kept back to measure on, at most, unless a share is asked for: more only take longer
MEASURED = 1_000_000
CHOICES = "tokenizer", "tokens", "validation", "documents"


class Source:
    """A text in files, read part by part, more than once, while a bar shows how far."""

    def __init__(self, path: str):
        if path == STANDARD_INPUT:
            raise InputError(
                "standard input can be read once, and a text is read twice to make its tokens\n"
                "save it to a file first"
            )
        self.name, self.files = shown(path), data.files(path)
        for file in self.files:
            # raises for one that is missing, empty, no text, or can be read only once
            next(read_parts(file))
        self.bytes = sum(os.path.getsize(file) for file in self.files)

    def parts(self, doing: str, between: str = documents.EMPTY_LINE) -> Iterator[str]:
        """All of it, from the start. `between` stands between two files."""
        start, done = time.monotonic(), 0

        def progress(count: int) -> None:
            nonlocal done
            done += count
            speed = done / max(time.monotonic() - start, 1e-9)
            text = f"{doing}  {short(done)} of {short(self.bytes)} bytes  {short(speed)}/s"
            left = duration((self.bytes - done) / max(speed, 1))
            bar.draw(done, self.bytes, f"{text}  {left} left", count=f"{done / self.bytes:4.0%}")

        with Bar() as bar:
            yield from data.parts(self.files, progress, between)


def arguments(parser: Parser) -> None:
    """The text, the folder, and the choices of the tokenizer."""
    parser.add_argument(
        "text",
        metavar="FILE",
        help="a file of UTF-8, or a folder, of which all .txt and .md files are taken",
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
    token_files.check_apart(out, source.files)
    of_run = _of_run(options) if options.run is not None else None
    between = documents.between_files(config.documents, of_run and of_run[0])
    # the tokens of a text of one document are those of the whole text, to the last line end
    several = between == END and documents.holds_end(source.parts("looking", between))
    tokenizer, how = of_run or _made(config, source, between, several)
    among = f" in {len(source.files):,} files" * (len(source.files) > 1)
    say(f"text       {source.name}: {short(source.bytes)} bytes{among}")
    say(f"tokenizer  {tokenizer.size:,} different tokens: {how}")
    header = token_files.write(
        out,
        tokenizer,
        source.parts("encoding", between),
        config.validation,
        None if hasattr(options, "validation") else MEASURED,
        several,
    )
    each = f"{header.characters / header.tokens:.3g}"
    unit = "character" if each == "1" else "characters"
    say(
        f"tokens     {header.tokens:,} as {header.dtype}, {each} {unit} each, "
        f"of {header.characters:,}"
    )
    kept = header.tokens - header.learned
    measured = f"the last {kept:,}" if kept else "none"
    say(f"split      {header.learned:,} to learn from, {measured} to measure on")
    seconds = time.monotonic() - start
    say(f"time       {duration(seconds)}, {short(source.bytes / seconds)} bytes/s")
    say(f"\ntrain on it: {command('train', '--text', out)}")
    return 0


def _of_run(options: argparse.Namespace) -> tuple[Tokenizer, str]:
    for name in ("tokenizer", "tokens"):
        if hasattr(options, name):
            raise InputError(
                f"--{name} cannot be chosen with --from: the tokenizer is that run's\n"
                "leave one of the two out"
            )
    folder = runs.find(options.run)
    tokenizer = load_tokenizer(folder / runs.TOKENIZER, "name a run, or a folder of tokens")
    return tokenizer, f"those of {shown(folder)}"


def _made(
    config: TrainConfig, source: Source, between: str, several: bool
) -> tuple[Tokenizer, str]:
    """The tokenizer that was chosen, and what it was made from. The text is read for its characters
    or, to learn from, for its start and its length.
    """
    if config.tokenizer == "byte":
        return data.learn_tokenizer(config, "", several), "bytes"
    characters, start, count = dict[str, None](), list[str](), 0
    parts = source.parts("reading", between)
    if config.tokenizer == "character":
        for part in documents.marked(parts) if several else parts:
            characters |= dict.fromkeys(part if part != END else "")
        tokenizer = CharacterTokenizer("".join(characters))
        return with_end(tokenizer) if several else tokenizer, "characters"
    for part in parts:
        if count < SEEN:
            start.append(part)
        count += len(part)
    seen = "".join(start)[: min(SEEN, count - int(count * config.validation))]
    kind = "words" if config.tokenizer == "word" else "byte pairs"
    how = f"{kind} learned from the first {len(seen):,} of {count:,} characters"
    return data.learn_tokenizer(config, seen, several), how
