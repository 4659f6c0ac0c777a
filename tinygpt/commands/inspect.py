"""What a trained GPT is made of: how many parameters, and where. `tinygpt inspect` takes the run saved last, `tinygpt inspect RUN` that one.

Prints its modules as a tree, in the order of computation, with the shape, the strides and the size of every array. `--matrices` shows the
same arrays one by one: what their numbers are like, and a small picture of each, denser where they are larger. Nothing is changed or written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any, NamedTuple

import numpy as np

from tensor.tape import in_bytes
from tinygpt import inspection, runs
from tinygpt.cli import Parser, nearest
from tinygpt.console import say
from tinygpt.errors import InputError
from tinygpt.inspection import Branch, Matrix
from tinygpt.metrics import finite
from tinygpt.model import GPT
from tinygpt.runs import Run

WIDTH = 80
ROWS, COLUMNS = 8, 64  # cells of the picture of a matrix, at most
SHADES = " .:-=+*#%@"
PLAIN = str.maketrans("├└│─", "|`|-")  # for a terminal whose encoding has no such lines


class Row(NamedTuple):
    """A line of the tree."""

    name: str
    note: str
    shape: str
    strides: str
    numbers: str
    bytes: str


def arguments(parser: Parser) -> None:
    """The run, which of its weights, which view."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="a name in runs/ or the path of a run folder (default: the run saved last)")
    parser.add_argument("--last", action="store_true", help="the last weights, not those with the lowest validation loss")
    parser.add_argument("--matrices", action="store_true", help="each matrix with its statistics and a small picture")
    parser.add_argument("--only", metavar="TEXT", help="of these, the ones with TEXT in their name, such as qkv or blocks.0")
    parser.add_argument("--json", action="store_true", help="all of it for programs")


def run(options: argparse.Namespace) -> int:
    """Load, count, print."""
    run, model, _ = runs.load(runs.find(options.run), best=not options.last)
    best = not options.last and (run.folder / runs.BEST).exists()
    which = "best" if best else "last"
    chosen = _chosen(inspection.matrices(model), options.only)
    with np.errstate(all="ignore"):
        if options.json:
            say(as_json(run, model, which, chosen))
        elif options.matrices or options.only is not None:
            _say(matrix_view(chosen))
        else:
            _say(graph_view(run, model, which))
    return 0


def _chosen(matrices: list[Matrix], only: str | None) -> list[Matrix]:
    """Those with the text in their names. Raises InputError where it is in none."""
    found = [matrix for matrix in matrices if only is None or only in matrix.name]
    if not found:
        raise InputError(f"no matrix has {only!r} in its name{nearest(str(only), [m.name for m in matrices])}\ntheir names: tinygpt inspect --matrices")
    return found


def _say(lines: Iterator[str]) -> None:
    """Print them, in plain characters where the output's encoding has no others."""
    for line in lines:
        try:
            line.encode(sys.stdout.encoding or "utf-8")
        except UnicodeEncodeError:
            line = line.translate(PLAIN)
        say(line)


# -- the graph view -----------------------------------------------------------------------------------------------------


def graph_view(run: Run, model: GPT, which: str) -> Iterator[str]:
    """The tree as a table, the totals, and where the parameters are."""
    root, config = inspection.tree(model), run.model
    yield f"run         {run.name}, its {which} weights"
    yield f"model       V {config.vocabulary:,} tokens, T {config.context:,} places, C {config.width:,} wide, B windows at once"
    yield ""
    yield from _table(list(_rows(root, "", "")))
    yield ""
    yield f"parameters  {root.numbers:,}, {in_bytes(root.bytes)} in {run.training.dtype}"
    for matrix in inspection.matrices(model):
        if not matrix.learned:
            yield f"buffer      {matrix.name}: {matrix.numbers:,} numbers that do not learn, not counted"
    yield "strides     in numbers, not bytes: [i, j] lies at i strides[0] + j strides[1]"
    if model.head is None:
        yield "tied        the head is the table of tokens once more, and counted once"
    yield ""
    yield "Where are they?"
    yield ""
    for share in inspection.shares(model):
        yield f"{share.share:6.1%}  {share.part:<14}  {share.numbers:>11,}  {share.what}"


def _table(rows: list[Row]) -> Iterator[str]:
    """The rows in columns; what a module does stands where an array has its shape and strides."""
    heads = Row("in the order of computation", "", "shape", "strides", "numbers", "bytes")
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(2, 6)]
    left = max(len(row.name) for row in rows)
    left = max(left, len(heads.name) - 2, WIDTH - sum(widths) - 8)
    for row in [heads, *rows]:
        sizes = f"  {row.numbers:>{widths[2]}}  {row.bytes:>{widths[3]}}".rstrip()
        if row.shape:
            yield f"{row.name:<{left}}  {row.shape:>{widths[0]}}  {row.strides:>{widths[1]}}{sizes}"
        else:
            yield f"{f'{row.name}  {row.note}':<{left + widths[0] + widths[1] + 4}}{sizes}"


def _rows(branch: Branch, first: str, rest: str) -> Iterator[Row]:
    """The line of it and of all below; `first` and `rest` are the lines of the tree before the first and the others."""
    matrix = branch.matrix
    if matrix is None:
        sizes = (f"{branch.numbers:,}", in_bytes(branch.bytes)) if branch.numbers else ("tied", "")
        yield Row(first + branch.name, branch.note, "", "", *sizes)
    else:
        name = first + branch.name if matrix.learned else f"{first}{branch.name} (buffer)"
        yield Row(name, "", str(matrix.shape), str(matrix.strides), f"{matrix.numbers:,}", in_bytes(matrix.bytes))
    branches = _folded(branch.branches) if branch.open else []
    for i, below in enumerate(branches, start=1):
        yield from _rows(below, rest + ("├─ " if i < len(branches) else "└─ "), rest + ("│  " if i < len(branches) else "   "))


def _folded(branches: tuple[Branch, ...]) -> list[Branch]:
    """Of the blocks the first one, and the others in a line: they are like it."""
    more = tuple(branch for branch in branches if branch.name.startswith("blocks.") and branch.name != "blocks.0")
    if not more:
        return list(branches)
    start, last = branches.index(more[0]), len(more)
    name, note = ("blocks.1", "as blocks.0") if last == 1 else (f"blocks.1 to {last}", f"each as blocks.0: {last} x {more[0].numbers:,}")
    return [*branches[:start], Branch(name, note, more, open=False), *branches[start + last :]]


# -- the matrix view ----------------------------------------------------------------------------------------------------


def matrix_view(matrices: list[Matrix]) -> Iterator[str]:
    """For each its facts, its statistics and a picture."""
    yield "picture     a character is a cell of the matrix, denser for larger numbers"
    yield "near zero   below a hundredth of the largest number"
    for matrix in matrices:
        facts = inspection.statistics(matrix.tensor)
        yield ""
        yield f"{matrix.name}{'' if matrix.learned else ' (buffer)'}  {matrix.shape}, strides {matrix.strides}"
        yield f"  {matrix.numbers:,} numbers, {in_bytes(matrix.bytes)}; norm {facts.norm:.4g}; {facts.near_zero:.1%} near zero"
        yield f"  mean {facts.mean:.4g}, std {facts.std:.4g}, from {facts.smallest:.4g} to {facts.largest:.4g}"
        if facts.not_finite:
            yield f"  {facts.not_finite:,} are not finite numbers, and left out of these"
        yield from picture(matrix)


def picture(matrix: Matrix) -> Iterator[str]:
    """A few lines of characters, the densest for the cell with the largest numbers, and ? where they are not finite."""
    cells = inspection.cells(matrix.tensor, ROWS, COLUMNS)
    known = np.isfinite(cells)
    largest = cells[known].max(initial=0.0) or 1.0
    levels = np.where(known, np.ceil(cells / largest * (len(SHADES) - 1)), 0).astype(int)
    for row, finite_row in zip(levels, known, strict=True):
        yield "  |" + "".join(SHADES[level] if there else "?" for level, there in zip(row, finite_row, strict=True)) + "|"


# -- for programs -------------------------------------------------------------------------------------------------------


def as_json(run: Run, model: GPT, which: str, matrices: list[Matrix]) -> str:
    """Both views, as JSON, which has no NaN: null stands for it."""
    root = inspection.tree(model)
    content = {
        "run": str(run.folder),
        "weights": which,
        "model": asdict(run.model),
        "parameters": root.numbers,
        "bytes": root.bytes,
        "tied": model.head is None,
        "parts": {share.part: share.numbers for share in inspection.shares(model)},
        "matrices": [_facts(matrix) for matrix in matrices],
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _facts(matrix: Matrix) -> dict[str, Any]:
    facts = {f.name: getattr(matrix, f.name) for f in fields(matrix) if f.name != "tensor"}
    return facts | {name: finite(value) for name, value in asdict(inspection.statistics(matrix.tensor)).items()}
