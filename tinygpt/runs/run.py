"""Runs: a folder for each training, `runs/NAME`, with all that is needed to look at it, sample from
it and go on with it.

    config.json            the choices for model and training          written once, at the start
    tokenizer.json         the characters, in the order of their ids   written once, at the start
    metrics.jsonl          a line a step; the last `loss` is the mean over the windows of the text
    loss.png               the losses as a curve
    model.safetensors      the weights                                 }
    optimizer.safetensors  the optimiser's means                       }  one checkpoint
    state.json             step, losses, the optimiser's counts        }
    base.safetensors       the weights that do not learn, which are in no other file: of adapters
                           what is beside them, of a policy the reference and the reward model
    best.safetensors       the weights with the lowest validation loss so far, where one is measured
    snapshots/STEP.safetensors   small copies of the weights as they were learned: snapshots.py

checkpoint.py says how a checkpoint is replaced and never half there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from tensor.dtypes import as_dtype
from tensor.optim import Optimizer
from tinygpt.config import STAGES, GPTClassifierConfig, ModelConfig, TrainConfig
from tinygpt.config.options import one_of
from tinygpt.data.grammar import END
from tinygpt.errors import InputError
from tinygpt.files import RESTORE, brief, read_json, write_json, writing
from tinygpt.model.kinds import KINDS
from tinygpt.model.prepared import parted, plain_model, prepared
from tinygpt.model.sizes import least_bytes, parameter_count
from tinygpt.model.transformer import Transformer
from tinygpt.runs import checkpoint
from tinygpt.runs.checkpoint import Count, Numbers, Progress, State
from tinygpt.runs.fitting import unfit
from tinygpt.runs.ownership import Owner
from tinygpt.terminal import nearest, number_of, shown
from tinygpt.tokenizers import Tokenizer
from tinygpt.tokenizers import load as load_tokenizer

M = TypeVar("M", bound=ModelConfig)
T = TypeVar("T", bound=TrainConfig)

RUNS = Path("runs")
CONFIG, TOKENIZER, METRICS, PICTURE = "config.json", "tokenizer.json", "metrics.jsonl", "loss.png"
MODEL, OPTIMIZER = checkpoint.MODEL, checkpoint.OPTIMIZER
STATE, BEST, BASE = checkpoint.STATE, checkpoint.BEST, checkpoint.BASE
TOGETHER = "put the files of one run together, or train again"
ELSEWHERE = "name a folder you may write to: --out FOLDER"


class Named(msgspec.Struct):
    """The kind of model in config.json, and the stage of its training."""

    kind: str = "gpt"
    stage: str = "train"


@dataclass(frozen=True)
class Choices(Generic[M, T]):
    """config.json"""

    model: M
    training: T
    opening: str  # the first words of its text: what a sample continues when no prompt is given
    text: str = ""  # sha256 of the text, so that a run goes on with the text it began with
    tokenizer: str = ""  # hash of the tokenizer: with another one the weights mean nothing
    kind: str = "gpt"  # of the model, as model/kinds.py names them
    stage: str = "train"  # the command that made the run, as config.STAGES names them
    new_rows: tuple[Count, Count] = (0, 0)  # of tokens that its base did not know: first, number
    reward: GPTClassifierConfig | None = None  # of PPO: the model that scores the replies


@dataclass(frozen=True)
class Run(Choices[Any, Any]):
    """A run folder and the choices in its config.json."""

    folder: Path = RUNS

    @property
    def name(self) -> str:
        """The folder's name, safe to print."""
        return shown(self.folder)

    @property
    def has_best(self) -> bool:
        """Whether there are weights with the lowest validation loss."""
        return (self.folder / BEST).exists()

    @property
    def answers(self) -> bool:
        """Whether it learned to answer what it is asked."""
        return self.stage in ("finetune", "align") and not self.model.labels

    @property
    def separator(self) -> str:
        """What stood before and after each text it learned from: a line end around a story of the
        grammar, else nothing.
        """
        return END if self.training.text == "grammar" else ""


def described(model: ModelConfig) -> str:
    """The size of a model, in a line."""
    return (
        f"{parameter_count(model):,} parameters: {number_of(model.layers, 'layer')} of width "
        f"{model.width}, {number_of(model.heads, 'head')}"
    )


# -- making one


@contextmanager
def create(run: Run, tokenizer: Tokenizer, name: str | None = None) -> Iterator[tuple[Run, Owner]]:
    """Make the folder, with config.json and tokenizer.json in it; ours alone until the end of the
    `with`.

    With no folder chosen (`run.folder` is RUNS) it becomes runs/NAME-1, or the first number that is
    free. NAME is `name`, by default that of the text. Raises InputError, and leaves nothing, where
    that cannot be done.
    """
    if name is None:
        name = name_of(Path(run.training.learned_from).stem, "text")
    folder = run.folder
    with writing(folder, ELSEWHERE):
        found = folder != RUNS and folder.exists()
        if folder == RUNS:
            folder = _make_numbered(RUNS / name)
        else:
            folder.mkdir(parents=True, exist_ok=True)
        # before the look into it: of two that start at once, one finds it locked, or not empty
        owner = Owner(folder)
    with owner:
        if any(folder.iterdir()):
            raise InputError(
                f"{shown(folder)} is not empty: a run would be mixed with what is there\n"
                "name a new folder: --out FOLDER"
            )
        run = replace(run, folder=folder, tokenizer=tokenizer.hash)
        with discarding(run, owner, found):
            with writing(folder, ELSEWHERE):
                _write_choices(run, tokenizer)
            yield run, owner


def follow(run: Run, owner: Owner, tokenizer: Tokenizer) -> Run:
    """The run in the folder where it is now, if that was renamed.

    One that was removed is made anew, with config.json and tokenizer.json.

    Raises InputError where that cannot be done.
    """
    with writing(run.folder, ELSEWHERE):
        folder = owner.follow()
        if folder is None:
            folder = run.folder if not os.path.lexists(run.folder) else _make_numbered(run.folder)
            folder.mkdir(parents=True, exist_ok=True)
            owner.take(folder)
        run = replace(run, folder=folder)
        if not all((folder / name).exists() for name in (CONFIG, TOKENIZER)):
            _write_choices(run, tokenizer)
    return run


def choices(run: Run) -> dict[str, Any]:
    """What config.json holds."""
    content = asdict(run)
    del content["folder"]
    return content


def change(run: Run) -> None:
    """Write other choices into the run's config.json, in one move."""
    with writing(run.folder, "free some space there", "save"):
        write_json(run.folder / CONFIG, choices(run))


def drawn(run: Run) -> bool:
    """Whether the picture shows all that was noted: a kill may have come between the two."""
    noted, picture = run.folder / METRICS, run.folder / PICTURE
    return picture.exists() and (
        not noted.exists() or picture.stat().st_mtime_ns >= noted.stat().st_mtime_ns
    )


def _write_choices(run: Run, tokenizer: Tokenizer) -> None:
    write_json(run.folder / CONFIG, choices(run))
    tokenizer.save(run.folder / TOKENIZER)


def _make_numbered(stem: Path) -> Path:
    """The first of stem-1, stem-2, ... that did not exist; two trainings that start at once get
    two.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = stem.with_name(f"{stem.name}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def name_of(text: str, otherwise: str) -> str:
    """A name of letters, digits, dot and dash: "my text" -> my-text"""
    return re.sub(r"[^\w.]+", "-", text)[:40].strip("-.") or otherwise


@contextmanager
def discarding(run: Run, owner: Owner, found: bool = False) -> Iterator[None]:
    """After an error, remove the folder of a run in which no step was taken: nothing in it could be
    used. A folder that was found empty is empty again.
    """
    try:
        yield
    except BaseException:
        noted = run.folder / METRICS
        stepped = noted.exists() and noted.stat().st_size > 0
        if owner.stays() and not stepped and not checkpoint.current(run.folder, MODEL).exists():
            shutil.rmtree(run.folder, ignore_errors=True)
            if found:
                run.folder.mkdir(exist_ok=True)
        raise


# -- finding one


def find(name: str | None) -> Path:
    """The folder of a run: a name in runs/, a path, or by default the run saved last.

    Raises InputError with what there is.
    """
    models = [checkpoint.current(folder, MODEL) for folder in RUNS.glob("*")]
    saved = [(model.stat().st_mtime_ns, model.parent) for model in models if model.is_file()]
    finished = [folder for _, folder in sorted(saved)]
    if name is None:
        if not finished:
            raise InputError("there is no run here yet (looked in runs/)\nmake one: tinygpt train")
        return finished[-1]
    folders = [folder for folder in (RUNS / name, Path(name)) if folder.is_dir()]
    if folders:
        return next((folder for folder in folders if (folder / CONFIG).exists()), folders[-1])
    close = nearest(name, [folder.name for folder in finished])
    latest = f"; the latest is {shown(finished[-1].name)}" if finished and not close else ""
    raise InputError(
        f"no run is named {name!r}{close}{latest}\n"
        "a run is a folder in runs/, or a path to one; make one: tinygpt train"
    )


def load(folder: Path, best: bool = False, plain: bool = True) -> tuple[Run, Any, Tokenizer]:
    """The run in a folder: its choices, its model with the weights of the checkpoint, its
    tokenizer, on the CPU.

    best: the weights with the lowest validation loss, where one was measured.   plain: the model
    as any other; else with what its training needs: adapters, or what stands beside a policy.

    Raises InputError when a file is missing or damaged, or when two of them do not belong together.
    """
    if not (folder / CONFIG).exists():
        raise InputError(no_run(folder))
    named = read_json(folder / CONFIG, Named)
    for what, name, known in (
        ("kind of model", named.kind, tuple(KINDS)),
        ("stage of training", named.stage, tuple(STAGES)),
    ):
        if name not in known:
            raise InputError(
                f"{shown(folder / CONFIG)}: no {what} is named '{brief(name)}'\n"
                f"there is {one_of(known)}: a newer tinygpt may know it"
            )
    schema: Any = Choices[KINDS[named.kind].config, STAGES[named.stage]]  # type: ignore[misc]
    run = Run(**vars(read_json(folder / CONFIG, schema)), folder=folder)
    written = read_json(folder / CONFIG, dict[str, Any])
    if "scaled" not in written["model"]:  # of an older version
        run = replace(run, model=replace(run.model, scaled=False))
    if "documents" not in written["training"]:  # of an older version
        run = replace(run, training=replace(run.training, documents=False))
    tokenizer = load_tokenizer(folder / TOKENIZER)
    if tokenizer.size != run.model.vocabulary:
        raise InputError(
            f"{TOKENIZER} in {run.name} knows {tokenizer.size:,} tokens, the model "
            f"{run.model.vocabulary:,}\n{TOGETHER}"
        )
    if run.tokenizer and tokenizer.hash != run.tokenizer:
        raise InputError(
            f"{TOKENIZER} in {run.name} is not the one its model was trained with: its ids mean "
            f"other tokens\n{TOGETHER}"
        )
    model = _load_model(run, BEST if best and run.has_best else MODEL)
    return run, plain_model(model) if plain else model, tokenizer


def check_kind(run: Run, program: str, *kinds: str) -> None:
    """Raise InputError where the run's model is of another kind than these, which the command of
    that name takes.
    """
    if run.kind not in kinds:
        raise InputError(
            f"tinygpt {program} takes a run of kind {' or '.join(kinds)}, and {run.name} is of "
            f"kind {run.kind}\nname another run: tinygpt {program} RUN"
        )


def no_run(folder: Path) -> str:
    """What to say of a folder that is no run."""
    return (
        f"{shown(folder)} is no run: it holds no {CONFIG}\n"
        "name a run, such as runs/story-1, or make one: tinygpt train"
    )


def _load_model(run: Run, file: str) -> Any:
    path, dtype = checkpoint.current(run.folder, file), as_dtype(run.training.dtype)
    base = checkpoint.current(run.folder, BASE)
    found = sum(part.stat().st_size for part in (path, base) if part.exists())
    # before memory is asked for on the word of a damaged file
    if path.exists() and least_bytes(run.model, dtype.itemsize) > found:
        raise InputError(
            f"{shown(path)} is too small for the model of {CONFIG}: one of them is damaged\n"
            f"{TOGETHER}"
        )
    model = KINDS[run.kind].model(run.model, dtype=run.training.dtype, draw=False)
    model = prepared(model, run.training, run.new_rows, run.reward)
    _, arrays = checkpoint.load(run.folder, _parts(model, file))
    model.load_state_dict(arrays[file] | arrays.get(BASE, {}))
    return model.eval()


def _parts(model: Transformer, file: str = MODEL) -> dict[str, dict[str, Any]]:
    """The weights of a model as the files of a checkpoint: two, where some weights stay."""
    staying, learning = parted(model)
    return {file: learning} | ({BASE: staying} if staying else {})


# -- saving one


class Content(NamedTuple):
    """What a checkpoint is made of."""

    learning: Mapping[str, Any]  # weights
    staying: Mapping[str, Any]  # weights that do not learn: they are written once
    moments: Mapping[str, Any]
    state: State


def gathered(model: Transformer, optimizer: Optimizer, progress: Progress) -> Content:
    """What a checkpoint of this moment is made of: the arrays themselves, which a step changes."""
    numbers, (staying, learning) = optimizer.state_dict(), parted(model)
    kept = msgspec.convert({**numbers, "lr": numbers["groups"][0]["lr"]}, Numbers)
    state = State(**asdict(progress), optimizer=kept)
    return Content(learning, staying, numbers["arrays"], state)


def save(run: Run, content: Content) -> None:
    """Write a checkpoint; also as the best one, when its loss, measured at this very step, is the
    lowest so far.
    """
    arrays = {MODEL: content.learning, OPTIMIZER: content.moments}
    if content.staying and not (run.folder / BASE).exists():
        arrays[BASE] = content.staying
    if content.state.at_best:
        arrays[BEST] = content.learning
    advice = "free some space there; the checkpoint before this one, if any, is whole"
    with writing(run.folder, advice, "save"):
        checkpoint.save(run.folder, arrays, content.state)


def resume(run: Run, model: Transformer, optimizer: Optimizer) -> Progress:
    """Weights, moments and numbers of the checkpoint, all of one, into a model and optimiser of the
    run's choices; where it stood.

    All that can be wrong in state.json is found here, before a step is taken.
    """
    moments = optimizer.state_dict()["arrays"]
    state, arrays = checkpoint.load(run.folder, {**_parts(model), OPTIMIZER: moments})
    problem = "it is missing" if state is None else unfit(state, run.training, optimizer)
    if state is None or state.optimizer is None or problem:
        raise InputError(f"{STATE} in {run.name} does not fit this run ({problem})\n{RESTORE}")
    numbers = {"groups": [{"lr": state.optimizer.lr}], "taken": state.step * run.training.updates}
    numbers |= asdict(state.optimizer)
    model.load_state_dict(arrays[MODEL] | arrays.get(BASE, {}))
    optimizer.load_state_dict({**numbers, "arrays": arrays[OPTIMIZER]})
    return msgspec.convert(state, Progress, from_attributes=True)
