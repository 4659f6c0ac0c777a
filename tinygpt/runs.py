"""Runs: a folder for each training, `runs/NAME`, with all that is needed to look at it, sample from it and go on with it.

    config.json            the choices for model and training          written once, at the start
    tokenizer.json         the characters, in the order of their ids   written once, at the start
    metrics.jsonl          a line a step; the last `loss` is the mean over the windows of the text
    loss.png               the losses as a curve
    model.safetensors      the weights                                 }
    optimizer.safetensors  the optimiser's means                       }  one checkpoint
    state.json             step, losses, the optimiser's counts        }
    best.safetensors       the weights with the lowest validation loss so far, where one is measured
    snapshots/STEP.safetensors   a few small copies of the weights as they were learned; see snapshots.py

How a checkpoint is replaced without ever being half there is told in checkpoint.py.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tensor.dtypes import as_dtype
from tensor.optim import Optimizer
from tinygpt import checkpoint
from tinygpt.cli import nearest
from tinygpt.config import GPTConfig, TrainConfig
from tinygpt.console import shown
from tinygpt.errors import InputError
from tinygpt.files import write_json
from tinygpt.grammar import END
from tinygpt.model import GPT
from tinygpt.tokenizers import Tokenizer
from tinygpt.tokenizers import load as load_tokenizer

RUNS = Path("runs")
CONFIG, TOKENIZER, METRICS, PICTURE = "config.json", "tokenizer.json", "metrics.jsonl", "loss.png"
MODEL, OPTIMIZER, STATE, BEST = "model.safetensors", "optimizer.safetensors", "state.json", "best.safetensors"
TOGETHER = "put the files of one run together, or train again"


@dataclass(frozen=True)
class Run:
    """A run folder and the choices in its config.json."""

    folder: Path
    model: GPTConfig
    training: TrainConfig
    opening: str  # the first words of its text: what a sample continues when no prompt is given
    text: str = ""  # sha256 of the text, so that a run goes on with the text it began with
    tokenizer: str = ""  # hash of the tokenizer: with another one the weights mean nothing

    @property
    def name(self) -> str:
        """The folder's name, safe to print."""
        return shown(self.folder)

    @property
    def separator(self) -> str:
        """What stood before and after each text it learned from: a line end around a story of the grammar, else nothing."""
        return END if self.training.text == "grammar" else ""


# -- making one -------------------------------------------------------------------------------------------------------


def create(run: Run, tokenizer: Tokenizer) -> Run:
    """Make the folder, with config.json and tokenizer.json in it. Raises InputError, and leaves nothing, where that cannot be done.

    With no folder chosen (`run.folder` is RUNS) it becomes runs/NAME-1, or the first number that is free.
    """
    folder = run.folder
    try:
        found = folder != RUNS and folder.exists()
        folder = _make(folder) if folder != RUNS else _make_numbered(RUNS / _name_of(run.training.text))
        try:
            choices = {"model": asdict(run.model), "training": asdict(run.training), "opening": run.opening, "text": run.text, "tokenizer": tokenizer.hash}
            write_json(folder / CONFIG, choices)
            tokenizer.save(folder / TOKENIZER)
        except OSError:
            (folder / CONFIG).unlink(missing_ok=True)
            if not found:
                folder.rmdir()
            raise
    except OSError as error:
        raise InputError(f"cannot write to {shown(folder)} ({error.strerror or error})\nname a folder you may write to: --out FOLDER") from None
    return replace(run, folder=folder, tokenizer=tokenizer.hash)


def _make(folder: Path) -> Path:
    """The folder, new or found empty."""
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{shown(folder)} is not empty: a run would be mixed with what is there\nname a new folder: --out FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _make_numbered(stem: Path) -> Path:
    """The first of stem-1, stem-2, ... that did not exist; two trainings that start at once get two."""
    for number in itertools.count(1):
        folder = stem.with_name(f"{stem.name}-{number}")
        if not os.path.lexists(folder):
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder
    raise AssertionError("numbers do not end")


def _name_of(text: str | None) -> str:
    """story; for an own text its file name, of letters, digits, dot and dash: "my text.txt" -> my-text"""
    return re.sub(r"[^\w.]+", "-", Path(text).stem)[:40].strip("-.") or "text" if text else "story"


def discard_unsaved(run: Run) -> None:
    """Remove the folder of a run that has no checkpoint: nothing in it could be used."""
    if not checkpoint.current(run.folder, MODEL).exists():
        shutil.rmtree(run.folder, ignore_errors=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Raise InputError when another process trains the run in that folder: two would write over each other. Held until the end, however it comes.

    Windows and some network drives know no such locks: nothing is held there.
    """
    with ExitStack() as held:
        try:
            import fcntl

            file = held.enter_context((folder / CONFIG).open("rb"))  # written once: never another file of that name
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{shown(folder)} is being trained by another process\nwait for it, or stop it: Ctrl-C there saves what it has learned") from None
        except (ImportError, OSError):
            pass
        yield


# -- finding one ------------------------------------------------------------------------------------------------------


def find(name: str | None) -> Path:
    """The folder of a run: a name in runs/, a path, or by default the run saved last. Raises InputError with what there is."""
    finished = sorted(_saved_in(RUNS), key=lambda folder: (checkpoint.current(folder, MODEL).stat().st_mtime_ns, folder.name))
    if name is None:
        if not finished:
            raise InputError("there is no run here yet (looked in runs/)\nmake one: tinygpt train")
        return finished[-1]
    folders = [folder for folder in (RUNS / name, Path(name)) if folder.is_dir()]
    if folders:
        return next((folder for folder in folders if (folder / CONFIG).exists()), folders[-1])
    close = nearest(name, [folder.name for folder in finished])
    latest = f"; the latest is {shown(finished[-1].name)}" if finished and not close else ""
    raise InputError(f"no run is named {name!r}{close}{latest}\na run is a folder in runs/, or a path to one; make one: tinygpt train")


def _saved_in(folder: Path) -> list[Path]:
    """The runs with a checkpoint."""
    return [path for path in folder.iterdir() if checkpoint.current(path, MODEL).is_file()] if folder.is_dir() else []


def load(folder: Path, best: bool = False) -> tuple[Run, GPT, Tokenizer]:
    """The run in a folder: its choices, its model with the weights of the checkpoint, its tokenizer, on the CPU.

    best: the weights with the lowest validation loss, where one was measured.

    Raises InputError when a file is missing or damaged, or when two of them do not belong together.
    """
    run = _read_choices(folder)
    try:
        tokenizer = load_tokenizer(folder / TOKENIZER)
    except (OSError, RecursionError) as error:
        why = shown(getattr(error, "strerror", None) or error)
        raise InputError(f"{TOKENIZER} in {run.name} cannot be read ({why:.100})\nrestore it from a copy, or train again") from None
    if tokenizer.size != run.model.vocabulary:
        raise InputError(f"{TOKENIZER} in {run.name} knows {tokenizer.size} tokens, the model {run.model.vocabulary}\n{TOGETHER}")
    if run.tokenizer and tokenizer.hash != run.tokenizer:
        raise InputError(f"{TOKENIZER} in {run.name} is not the one its model was trained with: its ids mean other tokens\n{TOGETHER}")
    return run, _load_model(run, BEST if best and (folder / BEST).exists() else MODEL), tokenizer


def _read_choices(folder: Path) -> Run:
    path = folder / CONFIG
    if not path.exists():
        raise InputError(f"{shown(folder)} is no run: it holds no {CONFIG}\nname a run, such as runs/story-1, or make one: tinygpt train")
    choices = checkpoint.read_json(path)
    try:
        opening = choices["opening"]
        if not isinstance(opening, str):
            raise TypeError(f"opening {opening!r} is no text")
        return Run(
            folder, GPTConfig(**choices["model"]), TrainConfig(**choices["training"]), opening, str(choices.get("text", "")), str(choices.get("tokenizer", ""))
        )
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is not in it" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{shown(path)} is damaged: {shown(what):.200}\nrestore it from a copy, or train again") from None


def _load_model(run: Run, file: str = MODEL) -> GPT:
    config, path = run.model, checkpoint.current(run.folder, file)
    least = config.width * (config.layers * config.width + config.vocabulary + config.context * (config.positions == "learned"))
    if path.exists() and least > path.stat().st_size:  # before memory is asked for on the word of a damaged file
        raise InputError(f"{shown(path)} is too small for the model of {CONFIG}: one of them is damaged\n{TOGETHER}")
    model = GPT(config, dtype=run.training.dtype, draw=False)
    dtype = as_dtype(run.training.dtype).name
    model.load_state(checkpoint.load_arrays(path, {name: (weights.shape, dtype) for name, weights in model.state().items()}))
    return model.eval()


# -- saving one -------------------------------------------------------------------------------------------------------


class Progress(NamedTuple):
    """What a checkpoint says beside weights and moments."""

    step: int = 0  # steps taken
    loss: float | None = None  # the last measured: over the validation windows, or at the end over those of the text
    best: float | None = None  # the lowest of these
    best_step: int = 0  # when that was
    worse: int = 0  # measurings since then


def save(run: Run, model: GPT, optimizer: Optimizer, progress: Progress) -> None:
    """Write a checkpoint; also as the best one, when its loss, measured at this very step, is the lowest so far."""
    weights = {name: parameter.array for name, parameter in model.state().items()}
    moments = optimizer.state_dict()
    files = {MODEL: weights, OPTIMIZER: moments["arrays"]}
    if progress.best is not None and progress.step == progress.best_step:
        files[BEST] = weights
    numbers = {name: value for name, value in moments.items() if name != "arrays"}
    try:
        checkpoint.save(run.folder, files, {**progress._asdict(), "optimizer": numbers})
    except OSError as error:
        raise InputError(f"cannot save to {run.name} ({error.strerror or error})\nmake room there; the checkpoint before this one, if any, is whole") from None


def resume(run: Run, model: GPT, optimizer: Optimizer) -> Progress:
    """Weights, moments and numbers of the checkpoint into a model and optimiser of the run's choices; where it stood."""
    state = checkpoint.read_json(checkpoint.current(run.folder, STATE))
    try:
        progress = Progress(**{name: state[name] for name in Progress._fields})
        arrays = optimizer.state_dict()["arrays"]
        expected = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
        optimizer.load_state_dict({**state["optimizer"], "arrays": checkpoint.load_arrays(checkpoint.current(run.folder, OPTIMIZER), expected)})
        if type(progress.step) is not int or not 0 <= progress.step <= run.training.steps:
            raise KeyError(f"step {progress.step}")
    except (KeyError, TypeError) as error:
        raise InputError(f"{STATE} in {run.name} does not fit this run ({shown(error):.100})\nrestore it from a copy, or train again") from None
    return progress
