"""The numbers of a run as they come: lines of metrics.jsonl and, by `--tensorboard`, event files beside it."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tinygpt.errors import InputError
from tinygpt.files import write_atomically

SCALARS = {  # in a record: in TensorBoard
    "loss": "loss",
    "validation_loss": "validation_loss",
    "lr": "learning_rate",
    "gradient_norm": "gradient_norm",
    "loss_scale": "loss_scale",
}


class Metrics:
    """`with Metrics(path, step) as metrics:` goes on with the file after that step; nothing of a fresh run stands in it before."""

    def __init__(self, path: Path, step: int = 0, tensorboard: bool = False):
        if step:
            cut(path, step)
        self._file: IO[str] = path.open("a" if step else "w", encoding="utf-8", buffering=1)  # a line at a time: others may read along
        self._events = EventFile(path.parent, step) if tensorboard else None

    def note(self, record: dict[str, Any]) -> None:
        """A line of JSON, which has no NaN and no infinity; what is None is left out."""
        numbers = {name: finite(value) for name, value in record.items() if value is not None}
        self._file.write(json.dumps(numbers) + "\n")
        if self._events:
            self._events.add(numbers)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if self._events:
            self._events.close()


def finite(value: float) -> float | None:
    """The number, or None where JSON has none."""
    return value if math.isfinite(value) else None


def cut(path: Path, step: int) -> None:
    """Forget what was noted after the checkpoint of that step: it will be again."""
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if _step_of(line) <= step]
        write_atomically(path, "".join(line + "\n" for line in lines))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # half a line, where a run was killed
        return math.inf


# -- TensorBoard ----------------------------------------------------------------------------------------------------------


def check_tensorboard() -> None:
    """Raise InputError, with what to install, where the package is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard needs the package tensorboard, which is not here\ninstall it: pip install 'tinygpt[tensorboard]'")


class EventFile:
    """Scalars in the form that `tensorboard --logdir runs` reads, through that package's own writer.

    What a killed run had written after the checkpoint that it goes on from is left out by TensorBoard, which is told where the start is.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # here: they take a second to import
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._scalar = Event, scalar_pb
        self._writer = EventFileWriter(str(folder), flush_secs=10)
        self._writer.add_event(Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, record: dict[str, Any]) -> None:
        """The numbers of a record that are shown."""
        shown = {SCALARS[name]: value for name, value in record.items() if name in SCALARS and value is not None}
        if "tokens" in record:
            shown["tokens_per_second"] = record["tokens"] / record["seconds"]
        if "windows" in record:  # the loss at the end, over the windows: another one than that of a batch
            shown = {"final_loss": record["loss"]}
        for tag, value in shown.items():
            self._writer.add_event(self._event(wall_time=time.time(), step=record["step"], summary=self._scalar(tag, value)))

    def close(self) -> None:
        self._writer.close()
