"""Runs: a folder for each training, `runs/NAME`, with all that is needed to look at it, sample from it and go on with it.

    config.json            the choices for model and training          written once, at the start
    tokenizer.json         the characters, in the order of their ids   written once, at the start
    metrics.jsonl          a line a step; the last `loss` is the mean over the windows of the text
    loss.png               the losses as a curve
    model.safetensors      the weights                                 }
    optimizer.safetensors  AdamW's means                               }  one checkpoint
    state.json             step, loss, the optimiser's counts          }

How a checkpoint is replaced without ever being half there is told in checkpoint.py.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tensor.dtypes import as_dtype
from tensor.optim import Optimizer
from tensor.random import Generator
from tinygpt import checkpoint
from tinygpt.cli import nearest
from tinygpt.config import GPTConfig, TrainConfig
from tinygpt.console import shown
from tinygpt.errors import InputError
from tinygpt.model import GPT
from tinygpt.tokenizers import CharacterTokenizer

RUNS = Path("runs")
CONFIG, TOKENIZER, METRICS, PICTURE = "config.json", "tokenizer.json", "metrics.jsonl", "loss.png"
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
TOGETHER = "put the files of one run together, or train again"


@dataclass(frozen=True)
class Run:
    """A run folder and the choices in its config.json."""

    folder: Path
    model: GPTConfig
    training: TrainConfig
    opening: str  # the first words of its text: what a sample continues when no prompt is given

    @property
    def name(self) -> str:
        """The folder's name, safe to print."""
        return shown(self.folder)


# -- making one -------------------------------------------------------------------------------------------------------


def create(run: Run, tokenizer: CharacterTokenizer) -> Run:
    """Make the folder, with config.json and tokenizer.json in it. Raises InputError, and leaves nothing, where that cannot be done.

    With no folder chosen (`run.folder` is RUNS) it becomes runs/NAME-1, or the first number that is free.
    """
    folder = run.folder
    try:
        found = folder != RUNS and folder.exists()
        folder = _make(folder) if folder != RUNS else _make_numbered(RUNS / _name_of(run.training.text))
        try:
            choices = {"model": asdict(run.model), "training": asdict(run.training), "opening": run.opening}
            checkpoint.write_json(folder / CONFIG, choices)
            tokenizer.save(folder / TOKENIZER)
        except OSError:
            (folder / CONFIG).unlink(missing_ok=True)
            if not found:
                folder.rmdir()
            raise
    except OSError as error:
        raise InputError(f"cannot write to {shown(folder)} ({error.strerror or error})\nname a folder you may write to: --out FOLDER") from None
    return Run(folder, run.model, run.training, run.opening)


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


def load(folder: Path) -> tuple[Run, GPT, CharacterTokenizer]:
    """The run in a folder: its choices, its model with the weights of the checkpoint, its tokenizer, on the CPU.

    Raises InputError when a file is missing or damaged, or when two of them do not belong together.
    """
    run = _read_choices(folder)
    try:
        tokenizer = CharacterTokenizer.load(folder / TOKENIZER)
    except (OSError, RecursionError) as error:
        raise InputError(f"{TOKENIZER} in {run.name} cannot be read ({shown(error):.100})\nrestore it from a copy, or train again") from None
    if tokenizer.size != run.model.vocabulary:
        raise InputError(f"{TOKENIZER} in {run.name} knows {tokenizer.size} tokens, the model {run.model.vocabulary}\n{TOGETHER}")
    return run, _load_model(run), tokenizer


def _read_choices(folder: Path) -> Run:
    path = folder / CONFIG
    if not path.exists():
        raise InputError(f"{shown(folder)} is no run: it holds no {CONFIG}\nname a run, such as runs/story-1, or make one: tinygpt train")
    choices = checkpoint.read_json(path)
    try:
        opening = choices["opening"]
        if not isinstance(opening, str):
            raise TypeError(f"opening {opening!r} is no text")
        return Run(folder, GPTConfig(**choices["model"]), TrainConfig(**choices["training"]), opening)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is not in it" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{shown(path)} is damaged: {shown(what):.200}\nrestore it from a copy, or train again") from None


def _load_model(run: Run) -> GPT:
    config, path = run.model, checkpoint.current(run.folder, MODEL)
    least = config.width * (config.layers * config.width + config.vocabulary + config.context * (config.positions == "learned"))
    if path.exists() and least > path.stat().st_size:  # before memory is asked for on the word of a damaged file
        raise InputError(f"{shown(path)} is too small for the model of {CONFIG}: one of them is damaged\n{TOGETHER}")
    model = GPT(config, dtype=run.training.dtype, generator=Generator())
    dtype = as_dtype(run.training.dtype).name
    model.load_state(checkpoint.load_arrays(path, {name: (weights.shape, dtype) for name, weights in model.state().items()}))
    return model.eval()


# -- saving one -------------------------------------------------------------------------------------------------------


def save(run: Run, model: GPT, optimizer: Optimizer, step: int, loss: float | None = None) -> None:
    """Write a checkpoint after `step` steps; `loss`, once known, is the mean over the windows of the text."""
    weights = {name: parameter.array for name, parameter in model.state().items()}
    moments = optimizer.state_dict()
    state: dict[str, Any] = {"step": step, "loss": loss, "lr": moments["lr"], "counts": moments["counts"]}
    try:
        checkpoint.save(run.folder, {MODEL: weights, OPTIMIZER: moments["arrays"]}, state)
    except OSError as error:
        raise InputError(f"cannot save to {run.name} ({error.strerror or error})\nmake room there; the checkpoint before this one, if any, is whole") from None
