"""Show the parts of a trained model, and how many parameters each has. `tinygpt inspect` takes the
run saved last, `tinygpt inspect RUN` that run.

Prints the modules as a tree, in the order of computation, with the shape, the strides and the size
of every array. `--matrices` shows the same arrays one by one: what their numbers are like, and a
small picture of each, darker where the numbers are larger. Nothing is changed or written.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np

from tensor.recording import in_bytes
from tinygpt.commands.cli import Parser, add_described, add_run
from tinygpt.errors import InputError
from tinygpt.inside import weights
from tinygpt.inside.arrays import floats, heat_map, statistics, written
from tinygpt.inside.weights import Branch, Matrix
from tinygpt.model.transformer import Transformer
from tinygpt.runs import run as runs
from tinygpt.runs.metrics import finite
from tinygpt.runs.run import Run
from tinygpt.terminal import nearest, number_of, say

WIDTH = 80
ROWS, COLUMNS = 8, 32  # cells of the picture of a matrix, at most
FLAGS = {
    "--matrices": "each matrix with its statistics and a small picture",
    "--only TEXT": "of these, the ones with TEXT in their name, such as qkv or blocks.0",
    "--json": "all of it for programs",
}
# in JSON, of each matrix
FACTS = "name", "shape", "strides", "dtype", "numbers", "bytes", "learned"
STATISTICS = "mean", "std", "smallest", "largest", "norm", "near_zero", "not_finite"


Row: TypeAlias = tuple[str, ...]
HEADS: Row = "in the order of computation", "", "shape", "strides", "numbers", "bytes"


def arguments(parser: Parser) -> None:
    """RUN, which of its weights, which view."""
    add_run(parser)
    add_described(parser, FLAGS)


def run(options: argparse.Namespace) -> int:
    """Load, count, print."""
    run, model, _ = runs.load(runs.find(options.run), best=not options.last)
    best = not options.last and run.has_best
    which = "best" if best else "last"
    chosen = _chosen(weights.matrices(model), options.only)
    with np.errstate(all="ignore"):
        if options.json:
            say(as_json(run, model, which, chosen))
            return 0
        every = options.matrices or options.only is not None
        for line in matrix_view(chosen) if every else graph_view(run, model, which):
            say(written(line))
    return 0


def _chosen(matrices: list[Matrix], only: str | None) -> list[Matrix]:
    """Those with the text in their names. Raises InputError where no name has the text."""
    found = [matrix for matrix in matrices if only is None or only in matrix.name]
    if not found:
        near = nearest(str(only), [matrix.name for matrix in matrices])
        raise InputError(
            f"no matrix has {only!r} in its name{near}\ntheir names: tinygpt inspect --matrices"
        )
    return found


# -- the graph view


def graph_view(run: Run, model: Transformer, which: str) -> Iterator[str]:
    """The tree as a table, the totals, and the parts of the model with their parameters."""
    root, config = weights.tree(model), run.model
    sizes = f"V {config.vocabulary:,} tokens, T {config.context:,} places, C {config.width:,} wide"
    if config.labels:
        sizes += f", K {number_of(len(config.labels), 'label')}"
    yield f"run         {run.name}, its {which} weights"
    yield f"model       {sizes}, B windows at once"
    yield ""
    yield from _table(list(_rows(root, "", "")))
    yield ""
    yield f"parameters  {root.numbers:,}, {in_bytes(root.bytes)} in {run.training.dtype}"
    for matrix in root.matrices():
        if not matrix.learned:
            size = f"{matrix.numbers:,} numbers that do not learn, not counted"
            yield f"buffer      {matrix.name}: {size}"
    yield "strides     in numbers, not bytes: [i, j] lies at i strides[0] + j strides[1]"
    if model.head is None:
        yield "tied        the head is the table of tokens once more, and counted once"
    yield from ("", "Where are they?", "")
    shares = weights.shares(model)
    width = max(len(share.part) for share in shares)
    for share in shares:
        count = f"{share.numbers:,}".rjust(25 - width)
        yield f"{share.share:6.1%}  {share.part:<{width}}  {count}  {share.what}"


def _table(rows: list[Row]) -> Iterator[str]:
    """The rows in columns. The note of a module stands where an array has its shape and strides."""
    names, _, *columns = zip(HEADS, *rows, strict=True)
    widths = [max(map(len, column)) for column in columns]
    left = max(*map(len, names[1:]), len(names[0]) - 2, WIDTH - sum(widths) - 8)
    for name, note, *cells in [HEADS, *rows]:
        shape, strides, numbers, size = map(str.rjust, cells, widths)
        text = f"{name:<{left}}  {shape}  {strides}"
        if note:
            text = f"{name}  {note}".ljust(len(text))
        yield f"{text}  {numbers}  {size}".rstrip()


def _rows(branch: Branch, first: str, rest: str) -> Iterator[Row]:
    """The row of a branch and of all below. `first` stands before its name, `rest` before the names
    below.
    """
    name, matrix = first + branch.name, branch.matrix
    shape = strides = ""
    counted = branch if matrix is None else matrix
    numbers, size = f"{counted.numbers:,}", in_bytes(counted.bytes)
    if matrix is not None:
        name += "" if matrix.learned else " (buffer)"
        shape, strides = str(matrix.shape), str(matrix.strides)
    elif not branch.numbers:
        numbers, size = "tied", ""
    yield name, branch.note, shape, strides, numbers, size
    parts = _folded(branch)
    for part in parts:
        fork, line = ("└─ ", "   ") if part is parts[-1] else ("├─ ", "│  ")
        yield from _rows(part, rest + fork, rest + line)


def _folded(branch: Branch) -> list[Branch]:
    """The branches that are shown below. The blocks after the first are alike: they are one row."""
    parts = list(branch.branches) if branch.open else []
    for stack in ("blocks", "encoder", "decoder"):
        more = tuple(part for part in parts if re.match(rf"{stack}\.[1-9]", part.name))
        if more:
            name, note, last = f"{stack}.1", f"as {stack}.0", len(more)
            if last > 1:
                name, note = f"{name} to {last}", f"each {note}: {last} x {more[0].numbers:,}"
            start = parts.index(more[0])
            parts[start : start + last] = [Branch(name, note, more, open=False)]
    return parts


# -- the matrix view


def matrix_view(matrices: list[Matrix]) -> Iterator[str]:
    """The facts, the statistics and a picture of each."""
    yield "picture     a cell is darker for a larger number, a minus stands for a negative"
    yield "near zero   below a hundredth of the largest number"
    for matrix in matrices:
        facts = statistics(matrix.tensor.numpy())
        name = matrix.name if matrix.learned else f"{matrix.name} (buffer)"
        size = f"{matrix.numbers:,} numbers, {in_bytes(matrix.bytes)}"
        extremes = f"from {facts.smallest:.4g} to {facts.largest:.4g}"
        yield ""
        yield f"{name}  {matrix.shape}, strides {matrix.strides}"
        yield f"  {size}; norm {facts.norm:.4g}; {facts.near_zero:.1%} near zero"
        yield f"  mean {facts.mean:.4g}, std {facts.std:.4g}, {extremes}"
        if facts.not_finite:
            yield f"  {facts.not_finite:,} are not finite numbers, and left out of these"
        picture = heat_map(np.atleast_2d(floats(matrix.tensor.numpy())), ROWS, COLUMNS)
        yield f"  {picture.legend}"
        yield from (f"  {line}" for line in picture.lines)


# -- for programs


def as_json(run: Run, model: Transformer, which: str, matrices: list[Matrix]) -> str:
    """Both views, as JSON, with null for NaN, which JSON has not."""
    root = weights.tree(model)
    content = {
        "run": str(run.folder),
        "weights": which,
        "model": asdict(run.model),
        "parameters": root.numbers,
        "bytes": root.bytes,
        "tied": model.head is None,
        "parts": {share.part: share.numbers for share in weights.shares(model)},
        "matrices": [_facts(matrix) for matrix in matrices],
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _facts(matrix: Matrix) -> dict[str, Any]:
    facts = statistics(matrix.tensor.numpy())
    return {
        **{name: getattr(matrix, name) for name in FACTS},
        **{name: finite(getattr(facts, name)) for name in STATISTICS},
    }
