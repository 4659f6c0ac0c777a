"""What was tried and what came of it: counted, kept between two starts, printed as a table."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.faults.readers import Input
from tests.faults.watch import ROOT, Verdict

KEPT = 20  # inputs of each group of failures that are kept as files; all are counted


@dataclass
class Row:
    """The counts of a reader."""

    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    tracebacks: int = 0  # crashes too
    hangs: int = 0
    over: int = 0  # too slow, or too much memory
    slowest: float = 0.0  # seconds
    memory: int = 0  # bytes, the most
    groups: dict[str, int] = field(default_factory=dict)  # failures by what they have in common

    def add(self, verdict: Verdict, size: int) -> None:
        """Count one input.   size: bytes of its file."""
        self.inputs += 1
        column = {
            "refused": "refused",
            "accepted": "accepted",
            "hang": "hangs",
            "slow": "over",
            "large": "over",
        }.get(verdict.kind, "tracebacks")
        setattr(self, column, getattr(self, column) + 1)
        self.slowest = max(self.slowest, verdict.seconds)
        self.memory = max(self.memory, verdict.memory - 3 * size)
        if not verdict.sound:
            self.groups[verdict.group] = self.groups.get(verdict.group, 0) + 1

    def join(self, other: Row) -> None:
        """Take in the counts of another."""
        for name in ("inputs", "refused", "accepted", "tracebacks", "hangs", "over"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slowest, self.memory = max(self.slowest, other.slowest), max(self.memory, other.memory)
        for group, count in other.groups.items():
            self.groups[group] = self.groups.get(group, 0) + count

    @property
    def failures(self) -> int:
        return self.tracebacks + self.hangs + self.over


@dataclass
class Table:
    """The rows, and where each reader goes on. Of one state of the sources: others begin anew."""

    seed: int
    sources: str
    rows: dict[str, Row] = field(default_factory=dict)
    next: dict[str, int] = field(default_factory=dict)
    # batches that were begun: reader, start, stop
    unfinished: list[tuple[str, int, int]] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path, seed: int) -> Table:
        """The table in a file, where it is of this seed and these sources; else an empty one."""
        sources = fingerprint()
        try:
            content = json.loads(path.read_bytes())
        except OSError:
            return cls(seed, sources)
        if content["seed"] != seed or content["sources"] != sources:
            return cls(seed, sources)
        rows = {name: Row(**row) for name, row in content["rows"].items()}
        return cls(
            seed, sources, rows, content["next"], [tuple(batch) for batch in content["unfinished"]]
        )

    def save(self, path: Path) -> None:
        """Write it, in one move."""
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(path)

    @property
    def failures(self) -> int:
        return sum(row.failures for row in self.rows.values())

    def lines(self) -> Iterator[str]:
        """The table, and under it the groups of failures."""
        head = f"{'reader':32} {'inputs':>9} {'refused':>9} {'accepted':>9} {'tracebacks':>10}"
        yield f"{head} {'hangs':>6} {'over':>5} {'slowest':>9} {'memory':>9}"
        together = Row()
        for name, row in self.rows.items():
            yield _line(name, row)
            together.join(row)
        yield _line("together", together)
        yield (
            "over: slower than 2 s, or more memory than 64 MB + 3 times the file, twice; "
            "memory: the most beyond 3 times the file"
        )
        for group, count in sorted(together.groups.items(), key=lambda item: -item[1]):
            where = ", ".join(name for name, row in self.rows.items() if group in row.groups)
            yield f"{count:7,}  {group}  ({where})"


def _line(name: str, row: Row) -> str:
    sound = f"{row.inputs:9,} {row.refused:9,} {row.accepted:9,}"
    counts = f"{sound} {row.tracebacks:10,} {row.hangs:6,} {row.over:5,}"
    return f"{name:32} {counts} {row.slowest:7.2f} s {max(0, row.memory) / (1 << 20):6.1f} MB"


def fingerprint() -> str:
    """A hash of all that decides what comes of an input."""
    digest = sha256()
    for folder in ("tinygpt", "tensor", "tests/faults"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


# -- kept inputs -----------------------------------------------------------------------------------


def keep(folder: Path, name: str, seed: int, number: int, given: Input, verdict: Verdict) -> None:
    """Write an input that failed into a file, with all that is needed to try it again."""
    content: dict[str, Any] = {
        "reader": name,
        "seed": seed,
        "number": number,
        **asdict(verdict),
        **given._asdict(),
    }
    content |= {
        "data": _text(given.data),
        "also": [(other, _text(data)) for other, data in given.also],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{re.sub('[^a-z0-9]+', '-', name.lower())}-{seed}-{number}.json").write_text(
        json.dumps(content)
    )


def kept(path: Path) -> tuple[str, int, int, Input]:
    """(reader, seed, number, input) of such a file."""
    content: Mapping[str, Any] = json.loads(path.read_bytes())
    also = tuple((name, base64.b64decode(data)) for name, data in content["also"])
    given = Input(
        content["file"],
        base64.b64decode(content["data"]),
        tuple(content["way"]),
        also,
        content["odd"],
    )
    return content["reader"], content["seed"], content["number"], given


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
