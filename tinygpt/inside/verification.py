"""Checks, on a checkpoint of one's own, that two ways to compute the same thing give the same.

    cache    logits with the cache            = without the cache        1e-12, float64
    resume   6 steps                          = 3 steps, saved, and 3    bit for bit
             more in a new process
    causal   logits before a changed token    = those before the change  bit for bit,
             and gradients of later tokens    = 0

The ids are drawn at random, so only `resume` needs the text. Each check takes the run and its
model, and returns a text with its numbers. Raises DifferenceError, which names the first place.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import deserialize

import tensor
from tensor import Tensor, no_grad
from tensor.files import DTYPES
from tensor.random import Generator
from tinygpt.config import SampleConfig
from tinygpt.data.reading import STANDARD_INPUT
from tinygpt.errors import InputError
from tinygpt.files import RESTORE, write_json
from tinygpt.generation.sampling import Floats, distribution, pick
from tinygpt.ids import Ids
from tinygpt.model.gpt import GPT
from tinygpt.runs import checkpoint, metrics
from tinygpt.runs import run as runs
from tinygpt.runs.run import Run
from tinygpt.terminal import shown

EXACT = 1e-12  # of the largest number, in float64: some thousand roundings
PACKAGES = Path(__file__).parents[2]  # the folder of this tinygpt and this tensor
PROGRAM = [
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(PACKAGES)!r}); "
    "from tinygpt.__main__ import main; sys.exit(main())",
]
REFUSED = "tinygpt: error: "  # the beginning of the program's reason
STEPS = 6  # taken at once, and in two halves
NEAR_END = 8  # tokens generated up to the end of the context, and as many past the end
CHUNK = 3  # tokens that a cache is given at a time


class DifferenceError(Exception):
    """The two ways give different results. The text names the first place."""


# -- shared


def in_float64(model: GPT) -> GPT:
    """A copy in float64 on the same device, with dropout off."""
    return copy.deepcopy(model).to(dtype="float64").eval()


def drawn(model: GPT) -> Ids:
    """Two rows of ids at random, as long as the context; the same each time."""
    config = model.config
    return np.random.default_rng(0).integers(0, config.vocabulary, (2, config.context))


def host(x: Tensor) -> Floats:
    """The values in NumPy, as float64."""
    return np.array(x.detach().to("cpu").numpy(), dtype=np.float64)


def spread(least: int, below: int) -> list[int]:
    """Up to 8 of the numbers from `least` on, evenly spread, both ends among them."""
    return np.unique(np.linspace(least, below - 1, 8).astype(int)).tolist() if least < below else []


def first_wrong(right: Any) -> int | None:
    """The first position at which not all is right.   right: bool (rows, positions, numbers)."""
    wrong = np.flatnonzero(~right.all(axis=(0, 2)))
    return int(wrong[0]) if len(wrong) else None


# -- cache


def cache(run: Run, model: GPT) -> str:
    """The logits at every position, and the tokens generated up to the end of the context and past
    the end.
    """
    wide, context = in_float64(model), model.config.context
    ids = drawn(model)
    worst = 0.0
    with no_grad():
        whole = host(wide(ids))  # (2, T, V)
        for name, size in (("one at a time", 1), ("in chunks", CHUNK)):
            store = wide.new_cache(2)
            parts = [host(wide(ids[:, t : t + size], store)) for t in range(0, context, size)]
            off = np.abs(np.concatenate(parts, axis=1) - whole) / (np.abs(whole).max() or 1.0)
            wrong = first_wrong(off <= EXACT)  # a NaN is wrong too
            if wrong is not None:
                by = f"{off[:, wrong].max():.1e} of the largest, tokens given {name}"
                raise DifferenceError(f"the logits of position {wrong} differ by {by}")
            worst = max(worst, float(off.max()))
    prompt = ids[0, : max(1, context - NEAR_END)].tolist()
    length = context - len(prompt) + NEAR_END
    cached = wide.generate(prompt, length, generator=Generator(0))
    for i, (a, b) in enumerate(zip(cached, _generated(wide, prompt, length), strict=True)):
        if a != b:
            raise DifferenceError(
                f"token {i} of a generated text is {a} with the cache, {b} without; "
                f"the context is {context}"
            )
    return (
        f"at most {worst:.1e} of the largest logit, at {context} positions; {length} tokens drawn, "
        f"{NEAR_END} past the context, are the same"
    )


def _generated(model: GPT, prompt: list[int], length: int) -> list[int]:
    """GPT.generate without a cache: the whole window anew for each token."""
    tokens, generator = list(prompt), Generator(0)
    for _ in range(length):
        with no_grad():
            logits = host(model(tokens[-model.context :]))[0, -1]
        tokens.append(pick(distribution(logits, SampleConfig()), generator))
    return tokens


# -- resume


def resume(run: Run, model: GPT) -> str:
    """Two copies of the run in a temporary folder go on, by the program itself, on the CPU: one at
    once, the other in two processes.
    """
    if not checkpoint.current(run.folder, runs.OPTIMIZER).exists():
        raise InputError(
            f"{run.name} was not trained here: it has no {runs.OPTIMIZER} to go on with\n"
            "leave resume out"
        )
    if run.training.text == STANDARD_INPUT:
        raise InputError(
            f"{run.name} was trained on standard input, which two trainings cannot both read\n"
            "leave resume out"
        )
    with tempfile.TemporaryDirectory(prefix="tinygpt-") as folder:
        straight, halves = Path(folder) / "straight", Path(folder) / "halves"
        step = _copy(run, straight)
        # a copy of the copy: the run may be in training, and have gone on
        shutil.copytree(straight, halves)
        _go_on(straight, step + STEPS)
        _go_on(halves, step + STEPS // 2)
        _go_on(halves, step + STEPS)
        ours, theirs = _arrays(halves), _arrays(straight)
        for (file, name), array in theirs.items():
            if ours[file, name].tobytes() != array.tobytes():
                by = f"{np.abs(ours[file, name] - array).max():.1e}"
                after = f"after {STEPS // 2} + {STEPS // 2} steps"
                raise DifferenceError(f"{name} in {file} differs by up to {by} {after}")
        for a, b in zip(_losses(halves, step), _losses(straight, step), strict=True):
            if a != b:
                raise DifferenceError(
                    f"step {b.step}: loss {a.loss!r} after a break, {b.loss!r} without; "
                    f"gradient norms {a.gradient_norm!r}, {b.gradient_norm!r}"
                )
        if checkpoint.state_of(halves) != checkpoint.state_of(straight):
            raise DifferenceError(f"{runs.STATE} differs, though no tensor does")
    return (
        f"steps {step + 1} to {step + STEPS} at once = in two processes: {len(theirs)} arrays and "
        f"{STEPS} losses bit for bit"
    )


def _copy(run: Run, folder: Path) -> int:
    """Copy the checkpoint of the run, which may be in training meanwhile. The copy has more steps
    left than will be taken, and measures nothing. Returns the step of the checkpoint.
    """
    state, contents = checkpoint.contents(
        run.folder, dict.fromkeys((runs.MODEL, runs.OPTIMIZER), sys.maxsize)
    )
    if state is None:
        raise InputError(f"{runs.STATE} in {run.name} is missing\n{RESTORE}")
    folder.mkdir()
    shutil.copy2(run.folder / runs.TOKENIZER, folder)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    write_json(folder / runs.STATE, asdict(state))
    steps = max(run.training.steps, state.step) + STEPS + 1
    training = replace(
        run.training, steps=steps, evaluate=steps, patience=None, snapshots=0, device="cpu"
    )
    write_json(folder / runs.CONFIG, runs.choices(replace(run, training=training)))
    return state.step


def _go_on(folder: Path, until: int) -> None:
    """`tinygpt train --resume FOLDER --until N` in a process of its own, by this very package."""
    command = [*PROGRAM, "train", "--resume", str(folder), "--until", str(until)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        # the reason of the program, or the last line of a traceback
        why = next((line for line in said if line.startswith(REFUSED)), said[-1])
        why = why.removeprefix(REFUSED).replace(f"{folder}{os.sep}", "").replace(str(folder), "it")
        raise InputError(f"the copy could not go on: {shown(why):.200}")


def _arrays(folder: Path) -> dict[tuple[str, str], Any]:
    """The arrays of a checkpoint, by file and name."""
    arrays = {}
    for file in (runs.MODEL, runs.OPTIMIZER):
        data = (folder / file).read_bytes()
        for name, part in sorted(deserialize(data)):  # type: ignore[no-untyped-call]
            arrays[file, name] = np.frombuffer(part["data"], DTYPES[part["dtype"]])
    return arrays


def _losses(folder: Path, after: int) -> list[metrics.Record]:
    """The records of the steps after one."""
    records = metrics.records(folder / runs.METRICS)
    return [record for record in records if record.lr is not None and record.step > after]


# -- causal


def causal(run: Run, model: GPT) -> str:
    """Values and gradients, in the run's own dtype (with its kernels) and in float64."""
    context = model.config.context
    changed, asked = spread(1, context), spread(0, context - 1)
    for kind in (model, in_float64(model)):
        _check_causal(kind, changed, asked)
    return (
        f"{len(changed)} changes leave all logits before them as they were; "
        f"{len(asked)} gradients are 0 for what comes later"
    )


def _check_causal(model: GPT, changed: list[int], asked: list[int]) -> None:
    """Raise DifferenceError where logits change with a later token, or have a gradient for one."""
    ids, dtype = drawn(model), model.token_embedding.weight.dtype.name
    with no_grad():
        before = host(model(ids))
        for j in changed:
            other = ids.copy()
            other[:, j] = (ids[:, j] + 1) % model.config.vocabulary
            wrong = first_wrong(host(model(other))[:, :j] == before[:, :j])
            if wrong is not None:
                what = f"changes the logits of position {wrong}, in {dtype}"
                raise DifferenceError(f"a change of token {j} {what}")
    x = model.embed(ids).detach()
    x.requires_grad = True
    logits = model.logits(model.through(x))
    for t in asked:
        part = logits[:, t]  # (2, V)
        dpart = np.random.default_rng(t).standard_normal(part.shape).astype(part.dtype)
        (dx,) = tensor.grad(part, x, dpart, retain_graph=True)
        assert dx is not None
        wrong = first_wrong(host(dx)[:, t + 1 :] == 0)  # a NaN is not 0
        if wrong is not None:
            what = f"with respect to embedding {t + 1 + wrong} is not 0, in {dtype}"
            raise DifferenceError(f"the gradient of the logits of position {t} {what}")


CHECKS = {"cache": cache, "resume": resume, "causal": causal}
