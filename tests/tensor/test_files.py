"""Tensors in files: every dtype, views, files that are none, and a write that fails."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor
from tensor.errors import FileError
from tensor.files import CODES


def test_every_dtype_and_view_comes_back(tmp_path: Path, device: str) -> None:
    path = tmp_path / "some.safetensors"
    x = tensor.arange(24, device=device).reshape(4, 6)
    given: dict[str, Any] = {dtype.name: (x > 11).to(dtype) for dtype in CODES}
    w = tensor.randn(3, 5, requires_grad=True)
    given |= {"turned": x.T, "steps": x[::-2, 1::2], "grown": x[:, :1].expand(4, 9)}
    given |= {"scalar": x[1, 1], "none": x[:0], "result": w * 2, "leaf": w, "array": np.eye(2)}
    tensor.save(path, given)
    assert os.listdir(tmp_path) == ["some.safetensors"]
    back = tensor.load(str(path))
    assert set(back) == set(given)
    for name, value in given.items():
        y = Tensor.wrap(value)
        assert (back[name].shape, back[name].dtype) == (y.shape, y.dtype)
        assert back[name].numpy().tobytes() == y.detach().to("cpu").numpy().tobytes()
    back["turned"][0] = 7  # one's own memory
    torch = pytest.importorskip("safetensors.torch")
    theirs = torch.load_file(path)["bfloat16"].float().numpy()
    assert np.array_equal(theirs, given["bfloat16"].to("float32").to("cpu").numpy())


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, x = tmp_path / "w.safetensors", tensor.ones(3)
    tensor.save(path, {"x": x})
    before = path.read_bytes()
    for bad, message in (
        ({"x": x, "lr": 0.1}, "save writes tensors, and 'lr' is a float"),
        ({"x": x, 3: x}, "3 cannot be the name of a tensor"),
        (x, "save writes {name: tensor}, not a Tensor"),
    ):
        with pytest.raises(TypeError, match=message):
            tensor.save(path, bad)  # type: ignore[arg-type]
    for first in (x, {"x": x}):
        with pytest.raises(TypeError, match=r"takes path as a path, not .* The path comes first: "):
            tensor.save(first, "x.pt")  # type: ignore[arg-type]
    missing = tmp_path / "missing" / "w.safetensors"
    with pytest.raises(FileNotFoundError) as error:
        tensor.save(missing, {"x": x})
    assert error.value.filename == str(missing)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        tensor.save(path, {"x": x * 2})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_a_strange_file_is_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "strange"
    tensor.save(path, {"x": tensor.ones(3)})
    whole = path.read_bytes()
    contents = b"", b"PK\3\4 a zip file", whole[:-1], whole + b"1", whole.replace(b"F32", b"F8_")
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(FileError, match=r"^\S+strange is damaged or no safetensors") as error:
            tensor.load(path)
        assert str(error.value).count("\n") == 0
        assert [entry.name for entry in error.traceback][1:] == ["load"]
    header = b'{"w": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"1")
    with pytest.raises(FileError, match="strange: w has the dtype F8_E4M3, which is not known"):
        tensor.load(path)
    with pytest.raises(FileError, match="is no regular file"):
        tensor.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        tensor.load(tmp_path / "nowhere")
