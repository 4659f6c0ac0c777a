"""Checkpoints: what is written comes back, what is damaged is refused, and a kill at any moment
leaves a whole one.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import numpy as library

from tensor import Tensor
from tinygpt.errors import InputError
from tinygpt.files import read_json, replace, write_json
from tinygpt.runs import checkpoint
from tinygpt.runs.checkpoint import State

Arrays = dict[str, np.ndarray[Any, Any]]

ARRAYS: Arrays = {
    "table": np.arange(6, dtype=np.float32).reshape(2, 3),
    "wide": np.array([1 / 3, -np.inf]),
    "half": np.array([[0.1], [65504]], dtype=np.float16),
    "brain": np.array([1 / 3, -1e38, np.nan], dtype=ml_dtypes.bfloat16),
    "scalar": np.array(7.0),
    "empty": np.zeros((0, 4), dtype=np.float32),
}


def header(arrays: Arrays) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, array.dtype.name) for name, array in arrays.items()}


def write(folder: Path, arrays: Any = ARRAYS, step: int = 0) -> Path:
    checkpoint.save(folder, {"model.safetensors": arrays}, State(step))
    return folder / "model.safetensors"


# -- there and back


def test_arrays_come_back_bit_by_bit(tmp_path: Path) -> None:
    back = checkpoint.load_arrays(write(tmp_path), ARRAYS)
    assert header(back) == header(ARRAYS)
    for name, array in ARRAYS.items():
        assert back[name].tobytes() == array.tobytes(), name


def test_tensors_of_any_layout_and_device(tmp_path: Path, device: str) -> None:
    x = Tensor(np.arange(6.0).reshape(2, 3), device=device)
    back = checkpoint.load_arrays(
        write(tmp_path, {"x": x.T.array}), {"x": np.empty((3, 2), "float64")}
    )
    assert np.array_equal(back["x"], x.numpy().T)


def test_other_programs_read_it_and_it_reads_theirs(tmp_path: Path) -> None:
    # the library's reader for NumPy does not know bfloat16
    plain = {name: array for name, array in ARRAYS.items() if name != "brain"}
    theirs = library.load_file(write(tmp_path, plain))
    assert all(np.array_equal(theirs[name], array) for name, array in plain.items())
    library.save_file(plain, tmp_path / "theirs.safetensors")
    back = checkpoint.load_arrays(tmp_path / "theirs.safetensors", plain)
    assert all(np.array_equal(back[name], array) for name, array in plain.items())


def test_pytorch_reads_bfloat16(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors.torch")
    from safetensors.torch import load_file

    theirs = load_file(write(tmp_path))["brain"]
    assert theirs.dtype == torch.bfloat16
    assert np.array_equal(
        theirs.float().numpy(), ARRAYS["brain"].astype(np.float32), equal_nan=True
    )


def test_json_comes_back(tmp_path: Path) -> None:
    content = {"text": "Käse \x1b[2J", "list": [1, 2.5, None], "loss": 0.1}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json", dict[str, Any]) == content
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert read_json(tmp_path / "a.json", dict[str, Any]) == content  # the old one, whole
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    write(tmp_path, step=1)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


# -- what is refused


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({**ARRAYS, "more": np.empty(1, "float32")}, "more is not in it"),
        (
            {**ARRAYS, "table": np.empty((3, 2), "float32")},
            r"table is \(2, 3\) float32, not \(3, 2\) float32",
        ),
        (
            {**ARRAYS, "table": np.empty((2, 3), "float64")},
            r"table is \(2, 3\) float32, not \(2, 3\) float64",
        ),
        (
            {name: spec for name, spec in ARRAYS.items() if name != "wide"},
            "it holds wide, which the model has not",
        ),
    ],
)
def test_other_names_shapes_and_dtypes(tmp_path: Path, expected: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        checkpoint.load_arrays(write(tmp_path), expected)


def test_names_from_a_file_are_escaped(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        checkpoint.load_arrays(write(tmp_path, {"\x1b[2Jx": np.zeros(1)}), {})
    assert "\x1b" not in str(caught.value)
    assert r"\x1b[2Jx" in str(caught.value)


def test_a_file_that_gets_its_name_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training saves: what was still under .new when looked for lies under its own name when it
    is read.
    """
    write(tmp_path, {"x": np.ones(1)}, step=3)
    for name in ("model.safetensors", "state.json"):
        (tmp_path / name).rename(tmp_path / f"{name}.new")
    read = checkpoint._sealed

    def moved_meanwhile(path: Path, seal: checkpoint.Seal) -> bytes | None:
        checkpoint.settle(tmp_path)
        return read(path, seal)

    monkeypatch.setattr(checkpoint, "_sealed", moved_meanwhile)
    monkeypatch.setattr(
        checkpoint,
        "_unmoved",
        lambda folder, state: (
            ["model.safetensors"] if (tmp_path / "model.safetensors.new").exists() else []
        ),
    )
    state, arrays = checkpoint.load(tmp_path, {"model.safetensors": {"x": np.empty(1, "float64")}})
    assert arrays["model.safetensors"]["x"].tolist() == [1]
    assert state is not None
    assert state.step == 3


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        checkpoint.load_arrays(tmp_path / "model.safetensors", {})
    with pytest.raises(InputError, match="is missing"):
        read_json(tmp_path / "config.json", dict[str, Any])


def test_a_saved_file_that_is_gone_is_restored(tmp_path: Path) -> None:
    """The run had its first checkpoint, so the advice is not to look for one."""
    write(tmp_path, {"x": np.zeros(1)}, step=3).unlink()
    with pytest.raises(InputError, match="is missing\nrestore it from a copy"):
        checkpoint.load(tmp_path, {"model.safetensors": {"x": np.empty(1, "float64")}})


GARBAGE = {
    "empty": b"",
    "short": b"\x10",
    "text": b"this is no safetensors file, it is some text",
    "endless header": b"\xff" * 8 + b"{}",
    "no JSON": (10).to_bytes(8, "little") + b"not json!!",
    "a list": (2).to_bytes(8, "little") + b"[]",
    "beyond the end": (66).to_bytes(8, "little")
    + b'{"table":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24000000]}}'[:66],
    "unknown dtype": (61).to_bytes(8, "little")
    + b'{"table":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}}   '
    + bytes(8),
    "negative shape": (62).to_bytes(8, "little")
    + b'{"table":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}   '
    + bytes(8),
    "a pickle": pickle.dumps({"table": [1.0]}),
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged|does not fit"):
        checkpoint.load_arrays(path, {"table": np.empty((2, 3), "float32")})


@given(st.data())
def test_no_cut_and_no_wrong_byte_in_the_header_is_missed(
    tmp_path: Path, data: st.DataObject
) -> None:
    """Either it is refused, or the arrays are exactly those expected (a changed byte of metadata or
    spacing).
    """
    small = {"a": np.arange(3.0), "b": np.ones((2, 1), dtype=np.float32)}
    whole = write(tmp_path, small).read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    path = tmp_path / "other.safetensors"
    if data.draw(st.booleans()):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(InputError):
            checkpoint.load_arrays(path, small)
        return
    place = data.draw(st.integers(0, start - 1))
    path.write_bytes(whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :])
    try:
        back = checkpoint.load_arrays(path, small)
    except InputError:
        return
    assert header(back) == header(small)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff\xfe", b"nothing", b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}"],
)
def test_garbage_instead_of_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        read_json(tmp_path / "config.json", dict[str, Any])


# -- killed


def versions(folder: Path) -> set[int]:
    """The version numbers in the files of the checkpoint; a whole one has the same in all."""
    header = {"x": np.empty(20_000, "float64")}
    state, arrays = checkpoint.load(
        folder, {"model.safetensors": header, "optimizer.safetensors": header}
    )
    assert state is not None
    return {
        state.step,
        *(int(array) for content in arrays.values() for array in np.unique(content["x"])),
    }


def save_version(folder: Path, version: int) -> None:
    x = np.full(20_000, float(version))
    checkpoint.save(
        folder, {"model.safetensors": {"x": x}, "optimizer.safetensors": {"x": x}}, State(version)
    )


FOREVER = """
import itertools, pathlib, sys
from tests.tinygpt.runs.test_checkpoint import save_version
for version in itertools.count(int(sys.argv[2])):
    save_version(pathlib.Path(sys.argv[1]), version)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_killed_for_real(tmp_path: Path) -> None:
    """A process that saves without pause, killed at odd moments."""
    root = Path(checkpoint.__file__).parents[2]
    version = 0
    for pause in (0.0, 0.013, 0.037):
        process = subprocess.Popen(
            [sys.executable, "-c", FOREVER, str(tmp_path), str(version + 1)],
            env=dict(os.environ, PYTHONPATH=str(root)),
        )
        try:
            wait_for(
                lambda least=version: (
                    (tmp_path / "state.json").exists()
                    and min(versions(tmp_path), default=0) > least
                )
            )
            time.sleep(pause)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        (found,) = versions(tmp_path)
        assert found > version
        version = found
    save_version(tmp_path, version + 1)
    assert versions(tmp_path) == {version + 1}


def wait_for(condition: Any, seconds: float = 30.0) -> None:
    """Until the condition holds; what it raises while files are just being moved does not count."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except InputError:
            pass
        time.sleep(0.002)
    raise AssertionError("waited in vain")


def test_read_while_it_is_saved(tmp_path: Path) -> None:
    """A reader beside a training that saves without pause: each time it gets one checkpoint, whole,
    and never a false alarm.
    """
    root = Path(checkpoint.__file__).parents[2]
    seen: list[int] = []
    end = time.monotonic() + 60
    with subprocess.Popen(
        [sys.executable, "-c", FOREVER, str(tmp_path), "1"],
        env=dict(os.environ, PYTHONPATH=str(root)),
    ) as process:
        try:
            wait_for(lambda: versions(tmp_path))
            while len(seen) < 100 or (len(set(seen)) < 4 and time.monotonic() < end):
                (found,) = versions(tmp_path)
                seen.append(found)
        finally:
            process.kill()
    assert seen == sorted(seen)
    assert len(set(seen)) > 3


# -- which files belong to it


def test_bug_81_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, {"x": np.zeros(100)})
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        InputError,
        match=r"model\.safetensors is not the file that its state\.json was written for: "
        r"it was changed or is damaged\n",
    ):
        checkpoint.load(tmp_path, {"model.safetensors": {"x": np.empty(100, "float64")}})


def test_bug_81_a_file_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    save_version(tmp_path, 1)
    before = (tmp_path / "model.safetensors").read_bytes()
    save_version(tmp_path, 2)
    (tmp_path / "model.safetensors").write_bytes(before)
    with pytest.raises(InputError, match=r"model\.safetensors is not the file"):
        versions(tmp_path)


@pytest.mark.parametrize("moments", [{1}, {2}, {1, 2}, {2, 4}])
def test_bug_81_a_checkpoint_that_is_replaced_while_it_is_read(
    moments: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two files: all of them are read anew."""
    read, places = checkpoint._content, iter(range(1, 100))

    def saved_meanwhile(*arguments: Any) -> bytes:
        if next(places) in moments:
            with monkeypatch.context() as plain:
                plain.setattr(checkpoint, "_content", read)
                save_version(tmp_path, max(versions(tmp_path)) + 1)
        return read(*arguments)

    save_version(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "_content", saved_meanwhile)
    (found,) = versions(tmp_path)
    assert found > 1


def test_a_file_that_no_state_names_is_refused(tmp_path: Path) -> None:
    write(tmp_path).rename(tmp_path / "best.safetensors")
    with pytest.raises(InputError, match="is not the file"):
        checkpoint.load(tmp_path, {"best.safetensors": ARRAYS})


def test_without_seals_all_is_taken(tmp_path: Path) -> None:
    """As an older version wrote it; or the weights alone, as somebody passed them on."""
    write(tmp_path, {"x": np.zeros(1)}, step=3)
    state = json.loads((tmp_path / "state.json").read_text())
    del state["files"]
    expected = {"model.safetensors": {"x": np.empty(1, "float64")}}
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert checkpoint.load(tmp_path, expected)[0] == State(3)
    (tmp_path / "state.json").unlink()
    assert checkpoint.load(tmp_path, expected)[0] is None


def test_no_more_is_read_than_the_model_can_have(tmp_path: Path) -> None:
    """A file of holes is refused by its size."""
    path = write(tmp_path, {"x": np.zeros(1)})
    os.truncate(path, 1 << 40)
    with pytest.raises(InputError, match="is not the file"):
        checkpoint.load(tmp_path, {"model.safetensors": {"x": np.empty(1, "float64")}})
    (tmp_path / "state.json").unlink()
    with pytest.raises(InputError, match=r"1,0\d\d,\d\d\d"):
        checkpoint.load(tmp_path, {"model.safetensors": {"x": np.empty(1, "float64")}})


@pytest.mark.skipif(os.name == "nt", reason="no FIFOs")
def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="no regular file"):
        checkpoint.load(tmp_path, {"model.safetensors": {}})
    os.mkfifo(tmp_path / "state.json")
    with pytest.raises(InputError, match="no regular file"):
        checkpoint.load(tmp_path, {"model.safetensors": {}})


# -- operating systems


def test_windows_tries_again_when_a_file_is_open_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    pauses: list[float] = []
    move = os.replace

    def busy(source: Path, target: Path) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise PermissionError(13, "used by another process")
        move(source, target)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(os, "open", None)  # folders cannot be opened there
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "new"
    assert len(tries) == 3
    assert len(pauses) == 2

    def locked(source: Path, target: Path) -> None:
        raise PermissionError(13, "used by another process")

    monkeypatch.setattr(os, "replace", locked)
    with pytest.raises(PermissionError):  # not for ever
        replace(tmp_path / "old", tmp_path / "new")


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be flushed there")
def test_elsewhere_the_folder_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bool] = []
    monkeypatch.setattr(
        os,
        "fsync",
        lambda descriptor: flushed.append(
            os.path.sameopenfile(descriptor, os.open(tmp_path, os.O_RDONLY))
        ),
    )
    (tmp_path / "new").write_text(json.dumps(1))
    replace(tmp_path / "new", tmp_path / "old")
    assert flushed == [True]
