"""Snapshots: a few small copies of the weights as they were learned,
RUN/snapshots/STEP.safetensors, for `tinygpt look` to show.

float16 is enough to look at, and half the bytes. They belong to no checkpoint: a run without them
goes on, and can be sampled from, as before.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tensor.memory import devices
from tensor.memory.devices import Array
from tensor.recording import in_bytes
from tinygpt.config import TrainConfig
from tinygpt.errors import InputError
from tinygpt.files import replacing
from tinygpt.model.kinds import KINDS
from tinygpt.model.prepared import plain_weights
from tinygpt.model.transformer import Transformer
from tinygpt.runs import checkpoint
from tinygpt.runs.checkpoint import Arrays
from tinygpt.runs.run import Run

FOLDER = checkpoint.SNAPSHOTS
BUDGET = 64 << 20  # bytes of all of them together
# bytes that the header of a file takes for each array, at most: name, dtype, shape, where it lies
HEADER = 160
EARLY = 50  # the first snapshot after the fresh weights is of this fraction of the steps


def steps_of(steps: int, snapshots: int) -> tuple[int, ...]:
    """0, and up to the last step evenly in its logarithm, since most is learned early: (500, 8) ->
    0, 10, 19, 37, 71, 136, 261, 500.

    At most as many as asked for, distinct and increasing; of few steps there are fewer.
    """
    after, first = min(snapshots, steps + 1) - 1, max(1.0, steps / EARLY)
    spread = {round(steps * (first / steps) ** (i / max(1, after - 1))) for i in range(after)}
    return (0, *sorted(spread)) if snapshots else ()


def chosen(model: Transformer, config: TrainConfig) -> tuple[int, ...]:
    """The steps after which a training keeps one: as many as asked for, or as fit the budget."""
    return steps_of(config.steps, min(config.snapshots, BUDGET // bytes_of(model)))


def bytes_of(model: Transformer) -> int:
    """What one takes, at most."""
    return sum(2 * weights.size + HEADER for weights in plain_weights(model).values())


def described(model: Transformer, config: TrainConfig) -> str:
    """How many are kept, and why not more, in a line."""
    steps, each = chosen(model, config), bytes_of(model)
    most = f"and {in_bytes(BUDGET)} is the most for all"
    if not config.snapshots:
        return "none: --snapshots is 0"
    if not steps:
        return f"none: one takes {in_bytes(each)} in float16, {most}"
    if BUDGET // each < config.snapshots:
        return f"{len(steps)} of {config.snapshots}: {in_bytes(each)} each in float16, {most}"
    return f"{len(steps)} in float16, {in_bytes(len(steps) * each)} together: for tinygpt look"


def save(run: Run, step: int, weights: Mapping[str, Array]) -> None:
    """Write these weights, which are plain, as the snapshot of that step, in one move. Raises
    OSError, and where a weight is beyond float16, OverflowError.
    """
    state = {}
    for name, array in weights.items():
        with np.errstate(over="ignore"):
            state[name] = np.asarray(devices.to_host(array)).astype(np.float16)
        if not np.isfinite(state[name]).all():
            raise OverflowError(f"{name} holds numbers beyond float16")
    path = run.folder / FOLDER / f"{step}.safetensors"
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        checkpoint.write_arrays(temporary, state)


def load(run: Run, most: int | None = None) -> list[tuple[int, Arrays]]:
    """(step, name -> float16 array) of each snapshot, the first one first; each state fits
    `model.load_state_dict`. None were kept: an empty list.

    most: of more than that, as many evenly spread ones, the first and the last among them.   Raises
    InputError for one that is damaged, or of another model.
    """
    expected = KINDS[run.kind].model(run.model, dtype="float16", draw=False).state_dict()
    steps = found(run)
    if most is not None and len(steps) > most:
        steps = [steps[i] for i in np.linspace(0, len(steps) - 1, most).round().astype(int)]
    try:
        return [
            (step, checkpoint.load_arrays(run.folder / FOLDER / f"{step}.safetensors", expected))
            for step in steps
        ]
    except InputError as error:
        problem = str(error).partition("\n")[0]
        raise InputError(
            f"{problem}\nrestore it from a copy, or delete it: only the pictures of how the run "
            "learned need it"
        ) from None


def found(run: Run) -> list[int]:
    """The steps of which there are snapshots; files of other names are none."""
    names = [path.stem for path in (run.folder / FOLDER).glob("*.safetensors")]
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)
