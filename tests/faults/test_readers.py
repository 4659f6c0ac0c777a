"""Every reader refuses a damaged file in two lines, or what it accepts is of use. And the means."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from mmap import mmap
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("resource", reason="time and memory are measured as POSIX tells them")

from tests.faults import batches, commands, readers, watch
from tests.faults.__main__ import check_whole
from tests.faults.batches import OTHERS, Pool, Slot, given_input
from tests.faults.readers import READERS, Input
from tests.faults.table import Table, kept
from tests.faults.watch import Verdict, apart, attempt
from tests.faults.workplace import Workplace
from tinygpt.errors import InputError

EXAMPLES = 80  # of each reader, more and less by its share
# Python 3.12 warns where there are other threads
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """One of everything."""
    return Workplace.made(tmp_path_factory.mktemp("faults") / "place")


@pytest.fixture(autouse=True)
def _there(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(place.folder)
    yield
    place.restore()


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name: str, place: Workplace) -> None:
    @settings(max_examples=int(EXAMPLES * READERS[name].share), derandomize=True, database=None)
    @given(st.integers(min_value=0))
    def holds(number: int) -> None:
        given_file, _ = given_input(name, 0, number, place)
        verdict = readers.tried(place, given_file, pictures=False)
        assert verdict.sound, (given_file.way, given_file.data[:2000], verdict)

    holds()


# -- the means -------------------------------------------------------------------------------------


def test_whole_files_are_accepted(place: Workplace) -> None:
    check_whole(place)


@pytest.mark.parametrize("name", [*READERS, *OTHERS])
def test_an_input_follows_from_seed_and_number(name: str, place: Workplace) -> None:
    inputs = [given_input(name, 3, number, place)[0] for number in range(40)]
    assert inputs == [given_input(name, 3, number, place)[0] for number in range(40)]
    assert len(set(inputs)) > 30
    if name in READERS:
        assert sum(one.data != place.files[one.file] for one in inputs) > 35


def test_what_stands_beside_a_damaged_file_is_made_to_fit(place: Workplace) -> None:
    """Else checksums would hide all that is behind them."""
    found = [given_input("tokens.bin", 0, number, place)[0] for number in range(60)]
    sealed = [one for one in found if one.also]
    assert 20 < len(sealed) < 40
    for one in sealed:
        (name, text), size = one.also[0], len(one.data)
        assert name == "tokens/tokens.json"
        assert json.loads(text)["hash"] == sha256(one.data).hexdigest()
        assert json.loads(text)["tokens"] == size // 2


def _raises(error: BaseException) -> Callable[[], NoReturn]:
    def action() -> NoReturn:
        raise error

    return action


@pytest.mark.parametrize(
    ("action", "kind", "what"),
    [
        (lambda: None, "accepted", ""),
        (_raises(InputError("no\nyes")), "refused", "InputError: no / yes"),
        (_raises(OSError(5, "Input/output error")), "refused", "OSError"),
        (_raises(InputError("no\nyes\nand more")), "traceback", "long message: 3 lines"),
        (_raises(InputError("x" * 2000)), "traceback", "long message: 1 lines, 2,000 characters"),
        (_raises(KeyError("step")), "traceback", "KeyError"),
        (_raises(SystemExit(1)), "traceback", "SystemExit"),
        (lambda: np.ones(30 << 20), "large", ""),
        (lambda: time.sleep(0.7), "slow", "0.7 s"),
    ],
)
def test_verdicts(
    action: Callable[[], object], kind: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SLOWEST", 0.6)
    verdict = attempt(action, 8)
    assert (verdict.kind, verdict.what.startswith(what)) == (kind, True), verdict


def test_what_has_no_end_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PATIENCE", 0.2)
    assert attempt(lambda: time.sleep(60), 8).kind == "hang"


def test_the_place_of_an_error_is_the_last_of_ours(place: Workplace) -> None:
    verdict = attempt(lambda: readers.perform(("sample", "missing")), 0)
    assert verdict.kind == "refused"
    assert verdict.place.startswith("tinygpt/runs/run.py:")


def _asleep() -> Verdict:
    # as C code that never comes back to Python
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(60)
    return Verdict("accepted")


def _shot() -> Verdict:
    os.kill(os.getpid(), signal.SIGSEGV)
    return Verdict("accepted")


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (_asleep, "hang: Hang"),
        (_shot, "crash: SIGSEGV"),
        (_raises(KeyError("step")), "crash: no verdict"),
        (lambda: Verdict("accepted"), "accepted: "),
    ],
)
def test_what_ends_badly_in_a_process_of_its_own(
    action: Callable[[], Verdict], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PATIENCE", 0.3)
    assert apart(action, tmp_path / "log").group.startswith(expected)


# -- whole commands --------------------------------------------------------------------------------


def _tried(place: Workplace, tmp_path: Path, given_file: Input) -> Verdict:
    before = place.seen()
    verdict = commands.tried(place, given_file, tmp_path / "log")
    assert place.seen().keys() == before.keys()
    assert all(Path(name).read_bytes() == data for name, data in place.files.items())
    return verdict


@pytest.mark.parametrize(
    "odd",
    [
        "missing",
        "empty",
        "folder",
        "link to itself",
        "link to nothing",
        "/dev/null",
        "no permission",
        "name",
    ],
)
def test_odd_files_are_put_back(odd: str, place: Workplace, tmp_path: Path) -> None:
    verdict = _tried(
        place,
        tmp_path,
        Input("runs/character/config.json", b"", ("sample", "character", "--length", "2"), odd=odd),
    )
    assert verdict.kind == ("accepted" if odd == "name" else "refused"), verdict


def _writes(code: int, name: str, said: str) -> Callable[[object], int]:
    def main(argv: object) -> int:
        Path(name).write_text("other")
        os.write(2, said.encode())
        return code

    return main


@pytest.mark.parametrize(
    ("main", "kind", "what"),
    [
        (_writes(2, "runs/character/state.json", "tinygpt: error: no\n"), "refused", "no"),
        (
            _writes(2, "text.txt", "tinygpt: error: no\n"),
            "traceback",
            "refused, and yet changed: 'text.txt'",
        ),
        (
            _writes(2, "made", "tinygpt: error: no\n"),
            "traceback",
            "refused, and yet changed: 'made'",
        ),
        (
            _writes(0, "made", "Traceback (most recent call last):\nKeyError: 1\n"),
            "traceback",
            "KeyError: 1",
        ),
        (
            _writes(2, "runs/character/x", "tinygpt: error: no\n1\n2\n"),
            "traceback",
            "long message: 3 lines",
        ),
        (_writes(2, "runs/character/x", ""), "traceback", "no message"),
        (_writes(3, "made", ""), "traceback", "exit code 3"),
        (_writes(130, "made", ""), "accepted", ""),
    ],
)
def test_what_a_command_may_do(
    main: object,
    kind: str,
    what: str,
    place: Workplace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, "main", main)
    verdict = _tried(place, tmp_path, Input("", b"", ("sample", "character")))
    assert (verdict.kind, verdict.what.startswith(what)) == (kind, True), verdict


# -- the table -------------------------------------------------------------------------------------


def _pool(table: Table, place: Workplace, folder: Path) -> Pool:
    return Pool(
        table,
        [Slot(place, mmap(-1, batches.AT.size), folder / "log", folder / "result")],
        folder / "cases",
    )


def _work(
    table: Table,
    place: Workplace,
    folder: Path,
    most: int,
    goes_on: Callable[[], bool] = lambda: True,
) -> None:
    tasks = batches.batches(table, ["prompts"], {"prompts": 1.0}, {"prompts": most})
    _pool(table, place, folder).work(tasks, goes_on, lambda: table.save(folder / "state.json"))


def test_failures_are_counted_and_kept(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "perform", _fails)
    table = Table(5, "")
    _work(table, place, tmp_path, 50)
    row = table.rows["prompts"]
    assert (row.inputs, row.tracebacks, row.refused) == (50, 50, 0)
    assert [group.startswith("traceback: KeyError at tests/faults/") for group in row.groups] == [
        True
    ]
    cases = sorted((tmp_path / "cases").iterdir())
    assert len(cases) == 20
    name, seed, number, given_file = kept(cases[0])
    assert given_file == given_input(name, seed, number, place)[0]
    assert any("KeyError" in line for line in table.lines())


def _fails(way: object) -> NoReturn:
    raise KeyError("step")


def test_a_crash_costs_one_input(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fatal = given_input("prompts", 5, 17, place)[0].data

    def perform(way: object) -> None:
        if Path("prompts.txt").read_bytes() == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(readers, "perform", perform)
    table = Table(5, "")
    _work(table, place, tmp_path, 40)
    row = table.rows["prompts"]
    assert (row.inputs, row.accepted, row.tracebacks) == (40, 39, 1)
    assert [path.name for path in (tmp_path / "cases").iterdir()] == ["prompts-5-17.json"]


def test_a_table_goes_on_where_it_stood(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "perform", lambda way: None)
    monkeypatch.setattr("tests.faults.table.fingerprint", lambda: "these")
    path = tmp_path / "state.json"
    table = Table.load(path, 5)
    _work(table, place, tmp_path, 200)
    again = Table.load(path, 5)
    assert (again.rows["prompts"].inputs, again.next) == (200, {"prompts": 200})
    _work(again, place, tmp_path, 250)
    assert Table.load(path, 5).rows["prompts"].inputs == 250
    assert Table.load(path, 6).rows == {}
    monkeypatch.setattr("tests.faults.table.fingerprint", lambda: "others")
    assert Table.load(path, 5).rows == {}


def test_what_was_broken_off_is_tried_later(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "perform", lambda way: None)
    table, turns = Table(5, ""), iter([True, False])
    _work(table, place, tmp_path, 60, lambda: next(turns))
    assert table.unfinished == [("prompts", 0, 60)]
    assert table.rows == {}
    _work(table, place, tmp_path, 60)
    assert (table.rows["prompts"].inputs, table.unfinished) == (60, [])


def test_what_is_broken_off_leaves_no_process(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()  # its other end is open as long as a process lives that has it

    def main(argv: object) -> int:
        os.write(writing, b"here")
        time.sleep(60)
        return 0

    monkeypatch.setattr(commands, "main", main)
    tasks = iter([("flags", 0, 5)])
    _pool(Table(5, ""), place, tmp_path).work(
        tasks, lambda: not select.select([reading], [], [], 0.01)[0], lambda: None
    )
    os.close(writing)
    assert os.read(reading, 10) == b"here"
    assert select.select([reading], [], [], 10)[0]
    assert os.read(reading, 10) == b""
    os.close(reading)
