"""Run folders: their names, finding one, and refusing what does not belong together."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensor.random import Generator
from tests.helpers.program import created
from tinygpt import GPT, CharacterTokenizer, GPTConfig, TrainConfig
from tinygpt.errors import InputError
from tinygpt.runs import checkpoint
from tinygpt.runs import run as runs
from tinygpt.runs.checkpoint import Seal
from tinygpt.runs.ownership import Owner
from tinygpt.runs.run import Run
from tinygpt.training.step import optimizer_of

TOKENIZER = CharacterTokenizer("The cat sat.")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(folder: Path = runs.RUNS, text: str | None = None, **training: Any) -> Run:
    model = GPTConfig(TOKENIZER.size, context=4, width=8, heads=2, layers=1)
    return created(
        Run(model, TrainConfig(text=text, **training), "The cat", folder=folder), TOKENIZER
    )


def saved(folder: Path = runs.RUNS, step: int = 1, **training: Any) -> tuple[Run, GPT]:
    run = new(folder, **training)
    model = GPT(run.model, generator=Generator(step), dtype=run.training.dtype)
    runs.save(run, runs.gathered(model, optimizer_of(model, run.training), runs.Progress(step)))
    return run, model


def age(run: Run, seconds: int) -> None:
    for path in run.folder.iterdir():
        os.utime(path, (1e9 - seconds, 1e9 - seconds))


def test_a_run_of_an_older_version_keeps_its_meaning() -> None:
    """Its model added sinusoids to token embeddings without a factor."""
    model = GPTConfig(TOKENIZER.size, context=4, width=8, heads=2, positions="sinusoidal")
    run = created(Run(model, TrainConfig(), "The cat"), TOKENIZER)
    runs.save(
        run, runs.gathered(GPT(model), optimizer_of(GPT(model), run.training), runs.Progress(1))
    )
    assert runs.load(run.folder)[1].scale == 8**0.5
    path = run.folder / runs.CONFIG
    content = json.loads(path.read_text())
    del content["model"]["scaled"]
    path.write_text(json.dumps(content))
    run, model_then, _ = runs.load(run.folder)
    assert run.model.scaled is False
    assert model_then.scale == 1


# -- making


def test_names_count_up() -> None:
    assert [new().folder for _ in range(3)] == [Path(f"runs/story-{n}") for n in (1, 2, 3)]
    assert new(text="books/My first\x1b text.v2.txt").folder == Path("runs/My-first-text.v2-1")
    assert new(text="???.txt").folder == Path("runs/text-1")
    assert new(text="größe.txt").folder == Path("runs/größe-1")
    assert len(new(text="x" * 300).folder.name) < 50


def test_two_that_start_at_once_get_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one makes the folder between the look and the making."""
    make = Path.mkdir

    def slow(self: Path, *args: Any, **kwargs: Any) -> None:
        if self.name == "story-1" and not self.exists():
            make(self, *args, **kwargs)
        make(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", slow)
    assert new().folder == Path("runs/story-2")


def test_a_chosen_folder(here: Path) -> None:
    assert new(Path("deep/mine")).folder == Path("deep/mine")
    (here / "empty").mkdir()
    assert new(Path("empty")).folder == Path("empty")
    before = sorted(os.listdir("deep/mine"))
    with pytest.raises(InputError, match="is not empty"):
        new(Path("deep/mine"))
    assert sorted(os.listdir("deep/mine")) == before == ["config.json", "tokenizer.json"]


def test_what_cannot_be_written_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").touch()
    for folder in (Path("file"), Path("file/below")):
        with pytest.raises(InputError, match="cannot write to"):
            new(folder)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "write_json", full)
    with pytest.raises(
        InputError, match=r"cannot write to runs.story-1 \(No space left on device\)"
    ):
        new()
    assert os.listdir("runs") == []
    (here / "empty").mkdir()
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setattr(CharacterTokenizer, "save", full)
    for folder in (Path("empty"), Path("fresh")):
        with pytest.raises(InputError, match="cannot write to"):
            new(folder)
    assert os.listdir("empty") == []  # it was there before
    assert not (here / "fresh").exists()
    assert (here / "file").read_bytes() == b""


@pytest.mark.skipif(os.name == "nt", reason="links need rights")
def test_bug_85_a_folder_of_runs_that_is_a_link_to_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """It exists and cannot be made: no other number changes this."""
    mkdir, left = Path.mkdir, iter(range(100))

    def counted(path: Path, *args: Any, **kwargs: Any) -> None:
        assert next(left, None) is not None, "still trying"
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", counted)
    Path("runs").symlink_to("nowhere")
    with pytest.raises(InputError, match="cannot write to runs "):
        new()
    Path("nowhere").mkdir()
    assert new().folder == Path("runs/story-1")


def failed(run: Run, owner: Owner) -> None:
    with pytest.raises(KeyboardInterrupt), runs.discarding(run, owner):
        raise KeyboardInterrupt


def test_discarding_what_was_never_trained() -> None:
    """Not a run with a checkpoint, not one of which a step is noted, not another folder that has
    its name now.
    """
    run, _ = saved()
    noted = new()
    (noted.folder / runs.METRICS).write_text('{"step": 1}\n')
    for kept in (run, noted):
        with Owner(kept.folder) as owner:
            failed(kept, owner)
        assert kept.folder.exists()
    run = new()
    with Owner(run.folder) as owner:
        run.folder.rename("elsewhere")
        run.folder.mkdir()
        failed(run, owner)
        assert run.folder.exists()
        run.folder.rmdir()
        Path("elsewhere").rename(run.folder)
        failed(run, owner)
    assert not run.folder.exists()


# -- finding


def test_the_latest_is_the_one_saved_last() -> None:
    first, second = saved()[0], saved()[0]
    age(first, 10)
    age(second, 20)
    new()  # not saved yet: nothing to sample from
    assert runs.find(None) == first.folder
    age(first, 30)
    assert runs.find(None) == second.folder


def test_by_name_and_by_path(here: Path) -> None:
    run, elsewhere = saved()[0], saved(here / "elsewhere")[0]
    assert runs.find("story-1") == runs.find("runs/story-1") == run.folder
    assert runs.find(str(run.folder.resolve())) == run.folder.resolve()
    assert runs.find("elsewhere") == Path("elsewhere")
    assert elsewhere.folder.resolve() == (here / "elsewhere").resolve()


def test_not_found() -> None:
    with pytest.raises(InputError, match="no run here yet"):
        runs.find(None)
    with pytest.raises(InputError, match="no run is named 'mine'"):
        runs.find("mine")
    saved()
    with pytest.raises(InputError, match="no run is named 'storie-1'; did you mean story-1"):
        runs.find("storie-1")
    with pytest.raises(InputError, match="no run is named 'zzz'; the latest is story-1"):
        runs.find("zzz")


# -- there and back


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_a_run_comes_back(dtype: str) -> None:
    run, model = saved(dtype=dtype, lr=0.01)
    back, again, tokenizer = runs.load(run.folder)
    assert back == run
    assert tokenizer.tokens == TOKENIZER.tokens
    assert not again.training
    for name, parameter in model.state_dict().items():
        assert again.state_dict()[name].dtype.name == dtype
        assert again.state_dict()[name].numpy().tobytes() == parameter.numpy().tobytes()


def test_state_json() -> None:
    run, model = saved(step=7)
    state = checkpoint.state_of(run.folder)
    assert state is not None
    assert (state.step, state.loss) == (7, None)
    assert state.optimizer is not None
    assert set(state.optimizer.counts) == set(model.state_dict())
    assert state.files == {
        name: Seal.of((run.folder / name).read_bytes()) for name in (runs.MODEL, runs.OPTIMIZER)
    }


def test_the_saved_optimiser_goes_on_where_it_was() -> None:
    """Its arrays and counts are on the disk, for a model packed in the same way."""
    run, model = saved()
    optimizer = optimizer_of(model, run.training)
    model.loss([1, 2, 3], [2, 3, 4]).backward()
    optimizer.step()
    runs.save(run, runs.gathered(model, optimizer, runs.Progress(2)))
    arrays = optimizer.state_dict()["arrays"]
    back = checkpoint.load_arrays(run.folder / runs.OPTIMIZER, arrays)
    assert any(array.any() for array in back.values())
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())


def test_bug_81_all_that_resumes_is_of_one_checkpoint() -> None:
    """A training saves between the loading of the model and that of its optimiser."""
    run, _ = saved()
    _, model, _ = runs.load(run.folder)
    later = GPT(run.model, generator=Generator(2))
    runs.save(run, runs.gathered(later, optimizer_of(later, run.training), runs.Progress(2)))
    assert runs.resume(run, model, optimizer_of(model, run.training)).step == 2
    assert all(
        np.array_equal(weights.numpy(), later.state_dict()[name].numpy())
        for name, weights in model.state_dict().items()
    )


# -- refusing


def change(run: Run, name: str, **changes: Any) -> None:
    path = run.folder / name
    content = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        part, _, inner = key.partition("__")
        if not inner:
            content[part] = value
        elif value is None:
            del content[part][inner]
        else:
            content[part][inner] = value
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__width": 16}, "is too small for the model"),
        ({"model__layers": 2}, "is too small for the model"),
        ({"model__width": 4}, "does not fit"),
        ({"model__width": 10**6}, "is too small for the model"),
        ({"model__layers": 10**9}, "at most 10,000"),
        ({"model__heads": 3}, "not divisible"),
        ({"model__width": "8"}, "config.json is damaged"),
        ({"model__surprise": 1}, "surprise"),
        ({"model__vocabulary": None}, "vocabulary"),
        ({"model__vocabulary": 5}, "knows 9 tokens, the model 5"),
        ({"training__dtype": "float64"}, "is too small for the model"),
        ({"training__dtype": "float16"}, "does not fit"),
        ({"training__dtype": "float99"}, "float99"),
        ({"model": [1]}, "config.json is damaged"),
        ({"model": None}, "config.json is damaged"),
        ({"opening": 3}, "opening"),
    ],
)
def test_a_config_that_says_something_else(changes: dict[str, Any], message: str) -> None:
    run, _ = saved()
    change(run, runs.CONFIG, **changes)
    with pytest.raises(InputError, match=message):
        runs.load(run.folder)


@pytest.mark.parametrize("name", [runs.CONFIG, runs.TOKENIZER, runs.MODEL])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"\xff\xff", b"[" * 100_000, None],
    ids=["empty", "cut", "list", "nothing", "no text", "deep", "missing"],
)
def test_damaged_files(name: str, content: bytes | None) -> None:
    run, _ = saved()
    (run.folder / name).unlink()
    if content is not None:
        (run.folder / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        runs.load(run.folder)
    assert name in str(caught.value)
    assert str(caught.value).count("\n") <= 1


def test_bug_65_the_tokenizer_of_another_run() -> None:
    """As many tokens, other ids: the model would read and write nonsense, so it is not loaded."""
    run, _ = saved()
    other = type(TOKENIZER)(TOKENIZER.tokens[::-1])
    assert other.size == TOKENIZER.size
    other.save(run.folder / runs.TOKENIZER)
    with pytest.raises(
        InputError,
        match=r"tokenizer\.json in runs.story-1 is not the one its model was trained with",
    ):
        runs.load(run.folder)
    TOKENIZER.save(run.folder / runs.TOKENIZER)
    assert runs.load(run.folder)[2].hash == TOKENIZER.hash


def test_a_folder_that_is_no_run(here: Path) -> None:
    with pytest.raises(InputError, match=r"is no run: it holds no config\.json"):
        runs.load(here)


def test_a_save_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    run, model = saved()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tinygpt.files.write_atomically", full)
    with pytest.raises(
        InputError, match=r"cannot save to runs.story-1 \(No space left on device\)"
    ):
        runs.save(run, runs.gathered(model, optimizer_of(model, run.training), runs.Progress(2)))
    runs.load(run.folder)
