"""Inputs in batches. Each batch has a fork of this process, which may crash or hang.

A fork writes down which input it is at. When it ends before its batch does, that input is the
failure, and two other forks try the rest of the batch.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import struct
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from mmap import mmap
from pathlib import Path
from random import Random

from tests.faults import commands, readers
from tests.faults.readers import Input
from tests.faults.table import KEPT, Row, Table, keep
from tests.faults.watch import PATIENCE, Verdict, apart, crashed
from tests.faults.workplace import Workplace

OTHERS = ("commands", "odd files", "flags")  # tried as processes
STUCK = 5 * PATIENCE  # seconds after which nothing inside a fork has ended an input
AT = struct.Struct("qd")  # the number of an input, and when it began
Batch = tuple[str, int, int]  # reader, first number, the number after the last


@dataclass
class Slot:
    """A place where one fork at a time works."""

    place: Workplace
    cell: mmap  # AT
    log: Path
    result: Path
    batch: Batch = ("", 0, 0)
    child: int = 0


def given_input(name: str, seed: int, number: int, place: Workplace) -> tuple[Input, bool]:
    """(the input of that number, whether pictures are drawn): both follow from seed and number."""
    rng = Random(f"{seed} {name} {number}")
    if name == "odd files":
        known = commands.odd_inputs()
        return known[number % len(known)], True
    if name == "flags":
        return commands.flag_input(rng), True
    if name == "commands":
        return commands.command_input(rng, place), True
    return readers.drawn(name, rng, place), rng.random() < readers.DRAWN


def tried(name: str, given: Input, pictures: bool, place: Workplace, log: Path) -> Verdict:
    """What comes of an input. One that took too much is tried once more, alone."""
    if name in OTHERS:
        verdict = commands.tried(place, given, log)
        return (
            commands.tried(place, given, log)
            if verdict.kind in ("slow", "large", "hang")
            else verdict
        )
    verdict = readers.tried(place, given, pictures)
    if verdict.kind in ("slow", "large", "hang"):
        verdict = apart(lambda: readers.tried(place, given, pictures), log)
        place.restore()
    return verdict


class Pool:
    """Forks that work through batches side by side."""

    def __init__(self, table: Table, slots: list[Slot], cases: Path):
        self.table, self.slots, self.cases = table, slots, cases
        self.again: list[Batch] = list(table.unfinished)

    def work(
        self, batches: Iterator[Batch], goes_on: Callable[[], bool], done: Callable[[], None]
    ) -> None:
        """Work until no batch is left, or `goes_on` says no; call `done` after each batch.

        Batches that run at the end are broken off, and stand in `table.unfinished`.
        """
        waiting = True
        try:
            while goes_on() and (waiting or self.again or any(slot.child for slot in self.slots)):
                for slot in self.slots:
                    if slot.child:
                        if self._ended(slot):
                            self._note()
                            done()
                    elif batch := self.again.pop() if self.again else next(batches, None):
                        self._start(slot, batch)
                    else:
                        waiting = False
                self._note()
                time.sleep(0.005)
        finally:
            for slot in self.slots:
                if slot.child:
                    os.killpg(slot.child, signal.SIGKILL)
                    os.waitpid(slot.child, 0)

    def _note(self) -> None:
        """What is begun and has not ended, for the next start."""
        self.table.unfinished = [*self.again, *(slot.batch for slot in self.slots if slot.child)]

    def _start(self, slot: Slot, batch: Batch) -> None:
        slot.batch = batch
        slot.log.write_bytes(b"")
        slot.result.unlink(missing_ok=True)
        AT.pack_into(slot.cell, 0, batch[1], time.monotonic())
        slot.child = os.fork()
        if slot.child == 0:
            try:
                os.setpgid(0, 0)  # so that what it starts ends with it
                faulthandler.enable(os.open(slot.log, os.O_WRONLY | os.O_APPEND))
                self._perform(slot)
            except BaseException:
                slot.log.write_text(
                    traceback.format_exc(), encoding="ascii", errors="backslashreplace"
                )
            os._exit(0)
        with suppress(OSError):  # it may have done so itself, and have ended
            os.setpgid(slot.child, slot.child)

    def _perform(self, slot: Slot) -> None:
        """In the fork: the whole batch."""
        name, start, stop = slot.batch
        os.chdir(slot.place.folder)
        slot.place.restore()
        row, known = Row(), dict(self.table.rows.get(name, Row()).groups)
        for number in range(start, stop):
            AT.pack_into(slot.cell, 0, number, time.monotonic())
            given, pictures = given_input(name, self.table.seed, number, slot.place)
            verdict = tried(name, given, pictures, slot.place, slot.log)
            row.add(verdict, len(given.data))
            if (
                not verdict.sound
                and known.get(verdict.group, 0) + row.groups[verdict.group] <= KEPT
            ):
                keep(self.cases, name, self.table.seed, number, given, verdict)
        slot.result.write_text(json.dumps(asdict(row)))

    def _ended(self, slot: Slot) -> bool:
        """Whether the fork has ended its batch; what it found is in the table then."""
        number, began = AT.unpack_from(slot.cell, 0)
        if began and time.monotonic() - began > STUCK:  # 0 while it is being written
            os.kill(slot.child, signal.SIGABRT)
            time.sleep(1)  # in which faulthandler writes where it stood
            os.killpg(slot.child, signal.SIGKILL)
        child, status = os.waitpid(slot.child, os.WNOHANG)
        if not child:
            return False
        leader, slot.child = slot.child, 0
        name, start, stop = slot.batch
        row = self.table.rows.setdefault(name, Row())
        if slot.result.exists():
            row.join(Row(**json.loads(slot.result.read_bytes())))
            return True
        with suppress(OSError):
            os.killpg(leader, signal.SIGKILL)  # what it had started
        verdict = crashed(status, slot.log)
        given, _ = given_input(name, self.table.seed, number, slot.place)
        row.add(verdict, len(given.data))
        keep(self.cases, name, self.table.seed, number, given, verdict)
        self.again += [
            batch
            for batch in ((name, start, number), (name, number + 1, stop))
            if batch[1] < batch[2]
        ]
        return True


def batches(
    table: Table, names: list[str], shares: dict[str, float], most: dict[str, int]
) -> Iterator[Batch]:
    """Batch after batch, each reader in turn by its share, up to so many inputs of each."""
    while open_ := [name for name in names if table.next.get(name, 0) < most[name]]:
        name = min(open_, key=lambda name: table.next.get(name, 0) / shares[name])
        start = table.next.get(name, 0)
        table.next[name] = min(start + (20 if name in OTHERS else 200), most[name])
        yield name, start, table.next[name]
