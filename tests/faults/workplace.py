"""A folder with one of everything that a command reads, small, and put back after each input.

runs/                                  runs of the four tokenizers, of a folder, of tokens, of an
imported GPT-2; after 2 of 4 steps
text.txt texts/ prompts.txt tokens/    what to learn from and to continue
gpt2/ shards/                          a GPT-2 of Hugging Face in one file, and in two with an index
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import TypeAlias

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.helpers import gpt2_folder
from tests.helpers.program import TINY
from tinygpt.commands.cli import run

Mark: TypeAlias = tuple[int, int, int]

TEXT = (
    "The cat sat on the mat. The dog ran in the park.\n"
    "The cat and the dog played together. They became friends.\n" * 5
)
TRAIN = [*TINY, "--steps", "4", "--until", "2", "--evaluate", "1", "--snapshots", "3"]
RUNS = {
    "character": [],
    "byte": ["--tokenizer", "byte", "--optimizer", "muon", "--no-tied", "--norm", "post"],
    "word": ["--tokenizer", "word", "--tokens", "12", "--dtype", "float16"],  # with a loss scale
    "bpe": [
        "--tokenizer",
        "bpe",
        "--tokens",
        "262",
        "--positions",
        "sinusoidal",
        "--accumulation",
        "2",
        "--batches",
        "random",
    ],
    "folder": ["--text", "texts"],
    "tokens": ["--text", "tokens"],
}


class Workplace:
    """That folder, and what stands in each of its files."""

    def __init__(self, folder: Path, files: dict[str, bytes]):
        self.folder, self.files = folder, files
        self._folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
        self._kept: dict[str, Mark] = {}  # of each file as it was last put back
        self._like: dict[str, list[bytes]] = {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.restore()

    @classmethod
    def made(cls, folder: Path) -> Workplace:
        """A new one: trains its runs, in a second."""
        folder.mkdir(parents=True)
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            _fill()
            files = {
                str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()
            }
        return cls(folder, files)

    def like(self, name: str) -> list[bytes]:
        """The other files of its kind; where there is none, the file itself."""
        if name not in self._like:
            others = sorted(
                other
                for other in self.files
                if Path(other).suffix == Path(name).suffix and other != name
            )
            self._like[name] = [self.files[other] for other in others or [name]]
        return self._like[name]

    def write(self, name: str, data: bytes) -> None:
        """A damaged file."""
        (self.folder / name).write_bytes(data)

    def seen(self) -> dict[str, Mark]:
        """A mark of each file, and of each folder that does not belong here."""
        found: dict[str, Mark] = {}
        waiting = [""]
        while waiting:
            below = waiting.pop()
            with os.scandir(self.folder / below) as entries:
                for entry in entries:
                    name = f"{below}/{entry.name}" if below else entry.name
                    if name in self._folders and entry.is_dir(follow_symlinks=False):
                        waiting.append(name)
                    else:
                        found[name] = mark(entry.stat(follow_symlinks=False))
        return found

    def restore(self) -> None:
        """Each file as it was, and nothing else."""
        for name in differing(self._kept, self.seen()) | (self.files.keys() - self._kept.keys()):
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(
                missing_ok=True
            )
            self._kept.pop(name, None)
            if name in self.files:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.files[name])
                os.utime(path, ns=(0, 0))  # whoever writes to it makes it younger
                self._kept[name] = mark(path.lstat())


def mark(stat: os.stat_result) -> Mark:
    """What a change of a file changes."""
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def differing(before: dict[str, Mark], after: dict[str, Mark]) -> set[str]:
    """The names of what was changed, made or removed."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _fill() -> None:
    """Make all of it in the current folder."""
    Path("text.txt").write_text(TEXT)
    Path("texts/more").mkdir(parents=True)
    Path("texts/a.txt").write_text(TEXT[:300])
    Path("texts/more/b.txt").write_text(TEXT[300:])
    Path("prompts.txt").write_text("The cat\nThe dog ran\nThey\n")
    run(["tokenize", "text.txt", "--out", "tokens", "--tokenizer", "character"])
    for name, choices in RUNS.items():
        run(["train", "--text", "text.txt", "--out", f"runs/{name}", *TRAIN, *choices])
    gpt2_folder.write(Path("gpt2"), gpt2_folder.BYTES, gpt2_folder.drawn(gpt2_folder.BYTES))
    _shards(Path("gpt2"), Path("shards"))
    run(["import-gpt2", "gpt2", "--out", "runs/gpt2"])
    # the seconds of a step differ each time, and the inputs must not
    for metrics in Path("runs").glob("*/metrics.jsonl"):
        records = [json.loads(line) for line in metrics.read_text().splitlines()]
        metrics.write_text(
            "".join(
                json.dumps(record | ({"seconds": 0.01} if "seconds" in record else {})) + "\n"
                for record in records
            )
        )


def _shards(whole: Path, folder: Path) -> None:
    """The same GPT-2 in two files."""
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    arrays = load_file(whole / "model.safetensors")
    names = sorted(arrays)
    places = {
        name: f"model-0000{1 + (i >= len(names) // 2)}-of-00002.safetensors"
        for i, name in enumerate(names)
    }
    for file in set(places.values()):
        save_file(
            {name: np.ascontiguousarray(arrays[name]) for name in names if places[name] == file},
            folder / file,
            metadata={"format": "pt"},
        )
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": places})
    )
