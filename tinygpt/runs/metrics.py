"""The numbers of a run as they come: lines of metrics.jsonl, and how they are read again.

With `--tensorboard` they are written into event files as well.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple, TypeAlias

import msgspec

from tinygpt.errors import InputError
from tinygpt.files import RESTORE, open_regular, reading, reason, replacing
from tinygpt.terminal import shown

LINE = 1 << 16  # bytes of a line, at most: a longer one was not written here
SCALARS = {  # in a record: in TensorBoard
    "loss": "loss",
    "validation_loss": "validation_loss",
    "lr": "learning_rate",
    "gradient_norm": "gradient_norm",
    "loss_scale": "loss_scale",
    "reward": "reward",
    "kl": "kl",
    "entropy": "entropy",
    "clipped": "clipped",
    "length": "length",
    "true_score": "true_score",
}


class Metrics:
    """`with Metrics(path, step) as metrics:` goes on with the file after that step. A fresh run
    (step 0) begins with an empty file.
    """

    def __init__(self, path: Path, step: int = 0, tensorboard: bool = False):
        if step:
            cut(path, step)
        self._file = _lines(path, "a+" if step else "w+")
        self._events = EventFile(path.parent, step) if tensorboard else None

    def note(self, record: dict[str, Any]) -> None:
        """A line of JSON, which has no NaN and no infinity; what is None is left out."""
        numbers = {name: finite(value) for name, value in record.items() if value is not None}
        self._file.write(json.dumps(numbers) + "\n")
        if self._events:
            self._events.add(numbers)

    def follow(self, path: Path) -> bool:
        """Go on in `path`, with all that was noted, if the file was removed; whether it was."""
        if os.fstat(self._file.fileno()).st_nlink > 0:
            return False
        self._file.seek(0)
        with self._file as removed:
            self._file = _lines(path, "w+")
            shutil.copyfileobj(removed, self._file)
        return True

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        if self._events:
            self._events.close()


def finite(value: float) -> float | None:
    """The number, or None where JSON has none."""
    return value if math.isfinite(value) else None


def _lines(path: Path, mode: str) -> IO[str]:
    """The file, written a line at a time: others may read along."""
    return path.open(mode, encoding="utf-8", buffering=1)


def cut(path: Path, step: int) -> None:
    """Forget what was noted after the checkpoint of that step: it will be again.

    A part of a line at the end goes too.

    Raises InputError for a file that cannot be read.
    """
    if not path.exists():
        return
    end = 0
    try:
        with open_regular(path) as file:
            # a longer one was not written here
            while (line := file.readline(LINE)).endswith(b"\n"):
                record = _record(line)
                if record and record.step > step:
                    break
                end = file.tell() if record else end
        if path.stat().st_nlink > 1:  # another folder has the same file, as after `cp -al`
            with replacing(path) as copy:
                shutil.copyfile(path, copy)
        os.truncate(path, end)
    except OSError as error:
        raise InputError(
            f"{shown(path)} cannot be read or cut ({reason(error)})\n"
            "move it away: the run goes on without what it noted so far"
        ) from None


# -- reading

LARGEST = 1e38  # about what float32 holds: no picture shows more
Loss: TypeAlias = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]


class Record(msgspec.Struct):
    """A line of metrics.jsonl, as far as it is read.

    A step has `lr`, and a measuring has `windows` and `loss`, or `validation_loss` for windows that
    were not learned from.
    """

    step: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    loss: Loss | None = None
    validation_loss: Loss | None = None
    lr: float | None = None
    gradient_norm: float | None = None
    windows: int | None = None
    # of a step of PPO, which has all but the last
    reward: Loss | None = None
    kl: Loss | None = None
    entropy: Loss | None = None
    clipped: Loss | None = None
    length: Loss | None = None
    true_score: Loss | None = None


DECODER = msgspec.json.Decoder(Record)


class Losses(NamedTuple):
    """What the records of a run say of its losses, nats a token."""

    steps: list[int]
    losses: list[float]  # of the batch of each of these steps
    validation: list[tuple[int, float]]  # (step, loss)
    # the mean over the windows of the text, measured after the last step
    final: tuple[int, float] | None


def read(path: Path, advice: str = RESTORE) -> Losses:
    """The losses in a metrics.jsonl that are finite.

    Raises InputError, which ends with `advice`, where there is no file to read.
    """
    found = Losses([], [], [], None)
    with reading(path, advice):
        for record in records(path):
            if record.lr is not None and record.loss is not None:
                found.steps.append(record.step)
                found.losses.append(record.loss)
            if record.validation_loss is not None:
                # after the last step come some of the windows, and then all
                if found.validation and found.validation[-1][0] == record.step:
                    found.validation.pop()
                found.validation.append((record.step, record.validation_loss))
            if record.windows is not None and record.loss is not None:
                found = found._replace(final=(record.step, record.loss))
    return found


def records(path: Path) -> Iterator[Record]:
    """Line by line. What is no Record is left out: half a line, where a run was killed or writes
    now.

    Raises OSError.
    """
    with open_regular(path) as file:
        for line in iter(partial(file.readline, LINE), b""):
            if len(line) == LINE:
                return
            if record := _record(line):
                yield record


def _record(line: bytes) -> Record | None:
    try:
        return DECODER.decode(line)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None


# -- TensorBoard


def check_tensorboard() -> None:
    """Raise InputError, with what to install, where the package is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "--tensorboard needs the package tensorboard, which is not here\n"
            "install it: pip install 'tinygpt[tensorboard]'"
        )


class EventFile:
    """Scalars in the form that `tensorboard --logdir runs` reads, through that package's own
    writer.

    The first event says at which step the run goes on. TensorBoard then leaves out what a killed
    run had written after that step.
    """

    def __init__(self, folder: Path, step: int):
        # here: they take a second to import
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._scalar = Event, scalar_pb
        self._writer = EventFileWriter(str(folder), flush_secs=10)
        start = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def add(self, record: dict[str, Any]) -> None:
        """The numbers of a record that are shown."""
        if "windows" in record and "loss" in record:  # over the windows: not that of a batch
            numbers = {"final_loss": record["loss"]}
        else:
            numbers = {tag: record.get(name) for name, tag in SCALARS.items()}
        if "tokens" in record:
            numbers["tokens_per_second"] = record["tokens"] / record["seconds"]
        now, step = time.time(), record["step"]
        for tag, value in numbers.items():
            if value is not None:
                event = self._event(wall_time=now, step=step, summary=self._scalar(tag, value))
                self._writer.add_event(event)

    def close(self) -> None:
        self._writer.close()
