"""Which commands read which file; and one input: a damaged file and one of these commands.

A command runs whole, as `tinygpt COMMAND` would, but its flags are parsed once, and a picture is
drawn
for one input in a hundred. What was accepted so goes a little further: a sample of two tokens, a
step
and a save.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import importlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest.mock import patch

import matplotlib.figure
import numpy as np

from tests.faults.mutations import at, mutate, paths
from tests.faults.watch import Verdict, attempt
from tests.faults.workplace import RUNS, Workplace
from tinygpt.commands import train
from tinygpt.commands.cli import Parser
from tinygpt.config import SampleConfig
from tinygpt.training import step

RUN = "RUN"  # stands in a command line for the run
# tokens of a step that are taken here: a larger batch takes what it asks for, and tells nothing
# about reading
ROOM = 1 << 12
# of 6 inputs that go to another command: these take longer
OFTEN = {"look": 1, "train": 2, "tokenize": 2}
TEXT = 50_000  # bytes of a drawn text, at most
DRAWN = 0.01  # share of inputs for which pictures are drawn


class Reader(NamedTuple):
    """Files of one kind, and the command lines that read them."""

    files: tuple[str, ...]
    ways: tuple[tuple[str, ...], ...]
    share: float = 1.0  # of the inputs: less where each takes long
    most: int | None = None  # bytes: any text is whole, and a long one is work, not damage


class Input(NamedTuple):
    """A damaged file and what is to read it."""

    file: str
    data: bytes
    way: tuple[str, ...]
    also: tuple[tuple[str, bytes], ...] = ()  # other files that were changed to fit
    odd: str = ""  # what stands in place of the file, where that is no damaged one: a FIFO, nothing


COMMANDS = {
    "sample": ("sample", RUN, "--length", "2"),
    "explain": ("sample", RUN, "--length", "2", "--explain", "2", "--last"),
    "resume": ("train", "--resume", RUN, "--until", "3"),
    "init": (
        "train",
        "--init",
        RUN,
        "--text",
        "text.txt",
        "--steps",
        "1",
        "--batch",
        "4",
        "--out",
        "made",
    ),
    "eval": ("eval", RUN, "--text", "text.txt"),
    "own": ("eval", RUN),
    "look": ("look", RUN, "--length", "1"),
    "plot": ("plot", RUN),
    "inspect": ("inspect", RUN),
    "matrices": ("inspect", RUN, "--matrices"),
    "json": ("inspect", RUN, "--json"),
    "export": ("export-gpt2", RUN, "exported"),
    "from": ("tokenize", "text.txt", "--out", "cut", "--from", RUN),
}


def _ways(run: str, *names: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(run if word == RUN else word for word in COMMANDS[name]) for name in names)


def _imported(folder: str) -> tuple[tuple[str, ...], ...]:
    return (
        ("import-gpt2", folder, "--out", "imported"),
        ("import-gpt2", folder, "--out", "imported", "--dtype", "float32"),
    )


ANY = ("sample", "explain", "resume", "init", "own", "look", "inspect", "export")
WEIGHTS = ("sample", "explain", "resume", "init", "eval", "look", "matrices", "json", "export")
VOCABULARY = ("sample", "explain", "resume", "init", "eval", "from", "look")
TEXTS = (
    "train",
    "--out",
    "made",
    "--steps",
    "1",
    "--batch",
    "4",
    "--width",
    "8",
    "--heads",
    "2",
    "--layers",
    "1",
    "--context",
    "8",
    "--text",
)


def _of_text(text: str, run: str) -> tuple[tuple[str, ...], ...]:
    sizes = ("--tokens", "270")
    trained = tuple(
        (*TEXTS, text, "--tokenizer", kind, *sizes) for kind in ("character", "byte", "word", "bpe")
    )
    cut = tuple(
        ("tokenize", text, "--out", "cut", "--tokenizer", kind, *sizes)
        for kind in ("character", "byte", "word", "bpe")
    )
    return (
        *trained,
        *cut,
        *(("eval", name, "--text", text) for name in RUNS),
        *_ways(run, "resume", "own"),
    )


OF_TOKENS = (
    (*TEXTS, "tokens"),
    ("eval", "tokens"),
    ("eval", "tokens", "--text", "tokens"),
    ("train", "--resume", "tokens", "--until", "3"),
)
CUT_FROM = ("tokenize", "text.txt", "--out", "cut", "--from", "tokens")

READERS: dict[str, Reader] = {
    "config.json": Reader(("runs/character/config.json",), _ways("character", *ANY), 1.5),
    "config.json, bpe": Reader(("runs/bpe/config.json",), _ways("bpe", *ANY), 1.5),
    "state.json": Reader(
        ("runs/character/state.json",), _ways("character", *["resume"] * 4, "look", "own"), 0.5
    ),
    "state.json, float16": Reader(
        ("runs/word/state.json",), _ways("word", *["resume"] * 4, "look"), 0.5
    ),
    "state.json, muon": Reader(("runs/byte/state.json",), _ways("byte", "resume"), 0.5),
    "model.safetensors": Reader(
        ("runs/character/model.safetensors",), _ways("character", *WEIGHTS)
    ),
    "model.safetensors, float16": Reader(("runs/word/model.safetensors",), _ways("word", *WEIGHTS)),
    "best.safetensors": Reader(("runs/character/best.safetensors",), _ways("character", *WEIGHTS)),
    "optimizer.safetensors": Reader(
        ("runs/character/optimizer.safetensors",), _ways("character", "resume"), 0.5
    ),
    "optimizer.safetensors, float16": Reader(
        ("runs/word/optimizer.safetensors",), _ways("word", "resume"), 0.5
    ),
    "optimizer.safetensors, muon": Reader(
        ("runs/byte/optimizer.safetensors",), _ways("byte", "resume"), 0.5
    ),
    "snapshots": Reader(
        ("runs/character/snapshots/0.safetensors", "runs/character/snapshots/1.safetensors"),
        _ways("character", "look"),
        0.1,
    ),
    "tokenizer.json, character": Reader(
        ("runs/character/tokenizer.json",), _ways("character", *VOCABULARY), 1.5
    ),
    "tokenizer.json, byte": Reader(("runs/byte/tokenizer.json",), _ways("byte", *VOCABULARY), 1.5),
    "tokenizer.json, word": Reader(("runs/word/tokenizer.json",), _ways("word", *VOCABULARY), 1.5),
    "tokenizer.json, bpe": Reader(
        ("runs/bpe/tokenizer.json",), _ways("bpe", *VOCABULARY, "export"), 1.5
    ),
    "metrics.jsonl": Reader(
        ("runs/character/metrics.jsonl",),
        _ways("character", "plot", "look", "resume", "resume", "resume"),
    ),
    "tokens.bin": Reader(("tokens/tokens.bin",), OF_TOKENS),
    "tokens.json": Reader(("tokens/tokens.json",), (*OF_TOKENS, CUT_FROM)),
    "tokenizer.json, tokens": Reader(("tokens/tokenizer.json",), (*OF_TOKENS, CUT_FROM)),
    "vocab.json": Reader(("gpt2/vocab.json",), _imported("gpt2")),
    "merges.txt": Reader(("gpt2/merges.txt",), _imported("gpt2")),
    "config.json, GPT-2": Reader(("gpt2/config.json",), _imported("gpt2")),
    "model.safetensors, GPT-2": Reader(("gpt2/model.safetensors",), _imported("gpt2")),
    "shards, GPT-2": Reader(
        ("shards/model-00001-of-00002.safetensors", "shards/model-00002-of-00002.safetensors"),
        _imported("shards"),
    ),
    "index, GPT-2": Reader(("shards/model.safetensors.index.json",), _imported("shards")),
    "gpt2.json": Reader(("runs/gpt2/gpt2.json",), _ways("gpt2", "export"), 0.5),
    "text file": Reader(("text.txt",), _of_text("text.txt", "character"), 0.5, TEXT),
    "text folder": Reader(
        ("texts/a.txt", "texts/more/b.txt"), _of_text("texts", "folder"), 0.5, TEXT
    ),
    "prompts": Reader(
        ("prompts.txt",),
        tuple(
            ("sample", run, "--prompts", "prompts.txt", "--length", "2")
            for run in ("character", "byte", "word", "bpe")
        ),
        most=TEXT,
    ),
}
FURTHER = {  # what an accepted command made, and what its user does with it
    "made/state.json": (("sample", "made", "--length", "2"),),
    "cut/tokens.json": ((*TEXTS, "cut"),),
    "imported/state.json": (
        ("sample", "imported", "--length", "2"),
        ("export-gpt2", "imported", "exported"),
    ),
}


# -- one input -------------------------------------------------------------------------------------


def drawn(name: str, rng: Random, place: Workplace) -> Input:
    """An input of that reader. In half of them the files beside it are made to fit."""
    reader = READERS[name]
    file = rng.choice(reader.files)
    whole = place.files[file]
    data = mutate(rng, whole, Path(file).suffix, place.like(file))[: reader.most]
    ways = [
        way for way in reader.ways if way[0] != "train" or _step_of(data) <= ROOM
    ] or reader.ways
    way = rng.choices(ways, [OFTEN.get(way[0], 6) for way in ways])[0]
    return Input(file, data, way, tuple(_sealed(place, file, data)) if rng.random() < 0.5 else ())


def _step_of(data: bytes) -> int:
    """The tokens of a step that a config.json asks for, if a machine might hold them; else 0."""
    with contextlib.suppress(Exception):
        content = json.loads(data)
        training, model = content["training"], content["model"]
        size = int(training["batch"]) * int(training["accumulation"]) * int(model["context"])
        return size if size < 1 << 40 else 0
    return 0


def _sealed(place: Workplace, file: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The JSON files beside the damaged file with its digest and size, and no tokenizer's hash."""
    whole, folder = place.files[file], str(Path(file).parent)
    for name, content in place.files.items():
        if name == file or not name.endswith(".json") or str(Path(name).parent) != folder:
            continue
        fitting = content
        for digest, old in _digests(whole).items():
            if old.encode() in content:
                fitting = _fitted(
                    fitting,
                    {old: digest(data).hexdigest()},
                    {len(whole) // n: len(data) // n for n in (1, 2, 4)},
                )
        if name.endswith("/config.json") and file.endswith("/tokenizer.json"):
            fitting = json.dumps(json.loads(content) | {"tokenizer": ""}).encode()
        if fitting != content:
            yield name, fitting


def _fitted(content: bytes, digests: Mapping[str, str], sizes: Mapping[int, int]) -> bytes:
    """A JSON file with other digests, and other sizes beside them: counts of bytes, or of words."""
    tree = json.loads(content)
    for path in paths(tree):
        parent = at(tree, path[:-1])
        if isinstance(parent, dict) and str(parent[path[-1]]) in digests:
            for key, value in parent.items():
                known = digests if isinstance(value, str) else sizes if type(value) is int else {}
                parent[key] = known.get(value, value)
    return json.dumps(tree).encode()


@cache
def _digests(whole: bytes) -> dict[Callable[[bytes], Any], str]:
    """What a file beside it may say of it."""
    return {
        digest: digest(whole).hexdigest()
        for digest in (hashlib.sha256, hashlib.sha1, hashlib.md5, hashlib.blake2b, hashlib.blake2s)
    }


def tried(place: Workplace, given: Input, pictures: bool) -> Verdict:
    """What comes of it. The current folder is the workplace."""
    for name, data in ((given.file, given.data), *given.also):
        place.write(name, data)
    try:
        with quiet(), brief(pictures):
            return attempt(lambda: goes_on(given.way), len(given.data))
    finally:
        place.restore()


def goes_on(way: tuple[str, ...]) -> None:
    """The command, and what comes after it. Raises what they raise."""
    perform(way)
    for made, ways in FURTHER.items():
        if Path(made).exists():
            for further in ways:
                perform(further)


def perform(way: tuple[str, ...]) -> None:
    """A command, in this process."""
    module, options = _parsed(way)
    module.run(copy.copy(options))


@cache
def _parsed(way: tuple[str, ...]) -> tuple[Any, argparse.Namespace]:
    module = importlib.import_module("tinygpt.commands." + way[0].replace("-", "_"))
    parser = Parser()
    module.arguments(parser)
    return module, parser.parse_args(list(way[1:]))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What is printed is thrown away."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


class Blank:
    """Takes every call: a figure that draws nothing, but needs numbers; a context that limits
    nothing.
    """

    def __init__(self, *arguments: Any, **options: Any):
        pass

    def __getattr__(self, name: str) -> Any:
        return Blank()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        for argument in arguments:
            if isinstance(argument, (list, tuple)):
                np.asarray(argument, dtype=np.float64)
        return Blank()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def savefig(self, file: Any, **options: Any) -> None:
        if isinstance(file, Path):
            file.touch()


@contextlib.contextmanager
def brief(pictures: bool) -> Iterator[None]:
    """Leave out what takes long and reads no file: drawing, and a long sample after a training."""
    with contextlib.ExitStack() as held:
        held.enter_context(patch.object(train, "SampleConfig", partial(SampleConfig, length=2)))
        held.enter_context(patch.object(step, "threadpool_limits", Blank))
        if not pictures:
            held.enter_context(patch.object(matplotlib.figure, "Figure", Blank))
        yield
