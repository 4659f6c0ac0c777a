"""Damaged files against every command that reads them: the table, and what failed as files.

    python -m tests.faults --minutes 30           goes on where it stood
    python -m tests.faults --inputs 20000         so many over the readers in all
    python -m tests.faults --again FILE ...       kept inputs once more

Exit code 1 where anything failed: a traceback, a hang, more than 2 s, or more memory than 64 MB + 3
times the file.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from mmap import mmap
from pathlib import Path

import threadpoolctl

from tests.faults import batches, commands, readers
from tests.faults.batches import OTHERS, Pool, Slot
from tests.faults.readers import READERS
from tests.faults.table import Table, kept
from tests.faults.watch import ROOT
from tests.faults.workplace import Workplace

FAST = Path("/dev/shm")  # a file system in memory, on Linux
EVER = 1 << 62


def main() -> int:
    """Make the workplaces, try, print."""
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was found is kept
    os.environ["TENSOR_THREADS"] = "1"
    threadpoolctl.threadpool_limits(1, user_api="blas")
    with ExitStack() as held:
        folder = Path(
            held.enter_context(
                tempfile.TemporaryDirectory(
                    prefix="faults-", dir=FAST if os.access(FAST, os.W_OK) else None
                )
            )
        )
        here = Path.cwd()
        first = Workplace.made(folder / "0" / "place")
        check_whole(first)
        slots = [
            slot(
                folder / str(i),
                first if i == 0 else Workplace(folder / str(i) / "place", first.files),
            )
            for i in range(options.processes)
        ]
        os.chdir(here)
        gc.collect()
        gc.freeze()  # a fork that collects garbage would copy all that is here
        if options.again:
            return try_again(options.again, slots[0])
        return search(options, slots)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, help="stop after so many")
    parser.add_argument(
        "--inputs",
        type=int,
        help="stop after so many over the readers, those of earlier starts counted",
    )
    parser.add_argument(
        "--commands", type=int, help="and so many over whole commands (a hundredth of --inputs)"
    )
    parser.add_argument(
        "--readers",
        nargs="+",
        metavar="NAME",
        choices=[*READERS, *OTHERS],
        help=f"these alone: {'; '.join([*READERS, *OTHERS])}",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="what all inputs follow from (default: 0)"
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=ROOT / ".faults" / "state.json",
        help="where the table is kept; failures in cases/ beside it",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        help="forks side by side (as many as cores)",
    )
    parser.add_argument(
        "--again", nargs="+", type=Path, metavar="FILE", help="try these kept inputs"
    )
    options = parser.parse_args()
    if not (options.again or options.inputs or options.minutes):
        parser.error("say how long: --minutes, --inputs or both")
    return options


def slot(folder: Path, place: Workplace) -> Slot:
    return Slot(place, mmap(-1, batches.AT.size), folder / "log", folder / "result")


def check_whole(place: Workplace) -> None:
    """Raise RuntimeError where a command refuses whole files. Imports what the commands need."""
    os.chdir(place.folder)
    for name, reader in READERS.items():
        file = reader.files[0]
        for way in dict.fromkeys(reader.ways):
            verdict = readers.tried(
                place, readers.Input(file, place.files[file], way), pictures=False
            )
            if verdict.kind != "accepted" and not (
                way[0] == "export-gpt2" and "GPT-2 cannot hold" in verdict.what
            ):
                raise RuntimeError(f"{name}: {way} gives {verdict} with whole files")
    for way in commands.MORE:
        with readers.quiet():
            readers.perform(tuple("character" if word == readers.RUN else word for word in way))
        place.restore()


def search(options: argparse.Namespace, slots: list[Slot]) -> int:
    """Try inputs until the time is over or there are enough of them."""
    options.state.parent.mkdir(parents=True, exist_ok=True)
    table = Table.load(options.state, options.seed)
    chosen = options.readers or [*READERS, *OTHERS]
    shares = {name: READERS[name].share if name in READERS else 0.2 for name in chosen}
    most = limits(options, shares)
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    pool = Pool(table, slots, options.state.parent / "cases")
    said = time.monotonic()

    def done() -> None:
        nonlocal said
        if time.monotonic() - said > 5:
            said = time.monotonic()
            table.save(options.state)
            if sys.stderr.isatty():
                print(
                    f"\r{sum(row.inputs for row in table.rows.values()):,} inputs, "
                    f"{table.failures:,} failures ",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )

    try:
        pool.work(
            batches.batches(table, chosen, shares, most), lambda: time.monotonic() < end, done
        )
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on", file=sys.stderr)
    table.save(options.state)
    for line in table.lines():
        print(line)
    if table.failures:
        print(
            f"try one again: python -m tests.faults --again {os.path.relpath(pool.cases)}/NAME.json"
        )
    return int(table.failures > 0)


def limits(options: argparse.Namespace, shares: dict[str, float]) -> dict[str, int]:
    """The inputs of each reader: --inputs shared among the readers, --commands among the others."""
    if options.inputs is None:
        return dict.fromkeys(shares, EVER)
    whole = options.inputs // 100 if options.commands is None else options.commands
    found: dict[str, int] = {}
    for names, count in (
        ([n for n in shares if n in READERS], options.inputs),
        ([n for n in shares if n in OTHERS], whole),
    ):
        together = sum(shares[name] for name in names)
        found |= {name: -int(-count * shares[name] // together) for name in names}
    return found


def try_again(files: Sequence[Path], slot: Slot) -> int:
    """Each kept input, with its verdict then and now."""
    failed = 0
    for file in files:
        name, seed, number, given = kept(file)
        os.chdir(slot.place.folder)
        verdict = batches.tried(
            name,
            given,
            batches.given_input(name, seed, number, slot.place)[1],
            slot.place,
            slot.log,
        )
        failed += not verdict.sound
        print(
            f"{file.name}: {' '.join(given.way)[:100]}\n"
            f"    {verdict.kind}, {verdict.seconds:.2f} s, "
            f"{verdict.memory >> 20} MB  {verdict.what}  {verdict.place}"
        )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
