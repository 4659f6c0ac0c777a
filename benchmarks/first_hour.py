"""What users of PyTorch, NumPy and micrograd type: works, is answered with the name here, or is
not here yet.

    python benchmarks/first_hour.py                # prints the counts
    python benchmarks/first_hour.py --out FOLDER   # writes first_hour.md there too

Typed are the lines of first_hour.txt, each in a namespace of its own, and the name of every public
function of torch, torch.nn.functional, torch.Tensor, numpy, numpy.ndarray and micrograd's Value.
Names that mean nothing here are left out by the patterns in first_hour_elsewhere.txt. Exits with 1
if a line or a name gets an AttributeError or a TypeError that does not say what to write.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tensor
from tensor import nn, optim
from tensor.errors import TensorError

HERE = Path(__file__).parent
VALUE = "data grad backward relu tanh exp"  # of micrograd
WORKS, ANSWERED, LATER, BARE = "works", "answered", "not here yet", "BARE"
Row = tuple[str, str, str]  # what was typed, what happens, the words


def namespace() -> dict[str, Any]:
    """The variables of first_hour.txt."""
    return {
        "x": tensor.randn(3, 4),
        "r": tensor.randn(3, 4, requires_grad=True),
        "v": tensor.randn(4),
        "A": tensor.randn(4, 4),
        "i": tensor.arange(4),
        "np": np,
        "tensor": tensor,
        "Tensor": tensor.Tensor,
        "nn": nn,
        "optim": optim,
    }


def tried(typed: str) -> Row:
    """What happens when a line is typed."""
    try:
        exec(typed, namespace())
    except Exception as error:
        words = str(error)
        if "Write this: " in words:
            return typed, ANSWERED, "`" + words.partition("Write this: ")[2] + "`"
        if " yet" in words:
            return typed, LATER, words.partition(" yet")[2].lstrip(":. ")
        bare = isinstance(error, (AttributeError, TypeError)) and not isinstance(error, TensorError)
        return typed, BARE if bare else ANSWERED, words
    return typed, WORKS, ""


def names(owner: Any, elsewhere: re.Pattern[str]) -> list[str]:
    """The public functions of a module, or attributes of a class, that mean something here."""
    every = [name for name in dir(owner) if name[0] != "_" and not elsewhere.fullmatch(name)]
    return every if isinstance(owner, type) else [n for n in every if callable(getattr(owner, n))]


def areas() -> dict[str, list[Row]]:
    """Area -> its rows."""
    lines = (HERE / "first_hour.txt").read_text().splitlines()
    patterns = (HERE / "first_hour_elsewhere.txt").read_text().splitlines()
    kept = [line.partition(":")[2].split() for line in patterns if line and line[0] != "#"]
    elsewhere = re.compile("|".join(pattern for line in kept for pattern in line))
    owners = {
        "torch.Tensor": ("x", torch.Tensor),
        "numpy.ndarray": ("x", np.ndarray),
        "torch": ("tensor", torch),
        "torch.nn.functional": ("tensor", torch.nn.functional),
        "numpy": ("tensor", np),
    }
    typed = {
        area: [f"{here}.{name}" for name in names(owner, elsewhere)]
        for area, (here, owner) in owners.items()
    }
    typed = {"lines of first_hour.txt": [line for line in lines if line and line[0] != "#"]} | typed
    typed["micrograd.Value"] = [f"x.{name}" for name in VALUE.split()]
    return {area: [tried(line) for line in rows] for area, rows in typed.items()}


def report(found: dict[str, list[Row]]) -> str:
    """The areas as Markdown."""
    kinds = (WORKS, ANSWERED, LATER, BARE)
    text = [
        "# The first hour",
        "",
        "Made by `python benchmarks/first_hour.py --out benchmarks`. What users of other libraries",
        "type, and what happens here. An answer is an error that says what to write.",
        "",
        "| area | typed | " + " | ".join(kinds) + " |",
        "|---|---|---|---|---|---|",
    ]
    for area, rows in found.items():
        counts = Counter(kind for _, kind, _ in rows)
        text.append(f"| {area} | {len(rows)} | {' | '.join(str(counts[k]) for k in kinds)} |")
    for area, rows in found.items():
        text += ["", f"## {area}"]
        works = [f"`{typed}`" for typed, kind, _ in rows if kind == WORKS]
        text += ["", "Works: " + ", ".join(works)]
        answers = [(typed, words) for typed, kind, words in rows if kind in (ANSWERED, BARE)]
        text += ["", "| typed | the answer |", "|---|---|"]
        text += [f"| `{cell(typed)}` | {cell(words)} |" for typed, words in answers]
        later = defaultdict(list)
        for typed, kind, words in rows:
            if kind == LATER:
                later[words.removesuffix(" may come later")].append(f"`{typed}`")
        text += ["", "Not here yet:", ""]
        text += [f"- {reason}: {', '.join(typed)}" for reason, typed in sorted(later.items())]
    return "\n".join(text) + "\n"


def cell(text: str) -> str:
    """Text that fits a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write first_hour.md there")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    tensor.manual_seed(0)
    found = areas()
    if arguments.out:
        (arguments.out / "first_hour.md").write_text(report(found))
    for area, rows in found.items():
        counts = Counter(kind for _, kind, _ in rows)
        print(f"{area:24} {len(rows):4} " + ", ".join(f"{k} {n}" for k, n in counts.items()))
    bare = [row for rows in found.values() for row in rows if row[1] == BARE]
    for typed, _, words in bare:
        print(f"bare: {typed}: {words}")
    return bool(bare)


if __name__ == "__main__":
    sys.exit(main())
