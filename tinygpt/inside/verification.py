"""Checks, on a checkpoint of one's own, that two ways to compute the same thing give the same.

    cache    logits with the cache            = without the cache        1e-12, float64
    resume   6 steps                          = 3 steps, saved, and 3    bit for bit
             more in a new process
    causal   logits before a changed token    = those before the change  bit for bit,
             and gradients of later tokens    = 0

Of an encoder-decoder, the tokens are those of the target, and its sources stay the same. `causal`
also shows that each token of a source sees all tokens but <pad>, and that the target sees them too.

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
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

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
from tinygpt.generation.generate import Decoder, steps
from tinygpt.generation.sampling import Floats, distribution, pick
from tinygpt.ids import PAD, Ids, padded
from tinygpt.model.block import Around, through_blocks
from tinygpt.model.encoder_decoder import EncoderDecoder
from tinygpt.model.transformer import Transformer
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


class Ways(NamedTuple):
    """The ways to compute the same logits. An encoder-decoder has read two sources before."""

    whole: Callable[[Ids], Tensor]  # (2, T) ids -> logits, without a cache
    cached: Decoder
    through: Callable[[Tensor], Tensor]  # embeddings (2, T, C) -> what the head reads


def ways(model: Any) -> Ways:
    """Those of a GPT, or of an encoder-decoder that has read the `sources`."""
    if not isinstance(model, EncoderDecoder):
        return Ways(model, model, model.through)
    rows = sources(model)
    ids, _ = padded(rows)
    around = Around(memory=model.encode(ids), memory_mask=model.mask(ids))
    return Ways(
        lambda target: model(ids, target),
        model.given(rows),
        lambda x: through_blocks(model.decoder, model.decoder_norm, x, around),
    )


def sources(model: EncoderDecoder) -> list[list[int]]:
    """Two sources at random, one as long as the context, one about half as long."""
    config = model.config
    ids = np.random.default_rng(1).integers(PAD + 1, config.vocabulary, (2, config.context))
    return [ids[0].tolist(), ids[1, : (config.context + 1) // 2].tolist()]


def in_float64(model: Transformer) -> Any:
    """A copy in float64 on the same device, with dropout off."""
    return copy.deepcopy(model).to(dtype="float64").eval()


def drawn(model: Transformer) -> Ids:
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


def cache(run: Run, model: Transformer) -> str:
    """The logits at every position, and the tokens generated up to the end of the context; past the
    end too, if the model goes on there.
    """
    wide, context = in_float64(model), model.config.context
    whole, cached, _ = ways(wide)
    ids = drawn(model)
    worst = 0.0
    with no_grad():
        logits = host(whole(ids))  # (2, T, V)
        for name, size in (("one at a time", 1), ("in chunks", CHUNK)):
            store = cached.new_cache(2)
            chunks = (cached.check_ids(ids[:, t : t + size]) for t in range(0, context, size))
            parts = [host(cached.decode(chunk, store)) for chunk in chunks]
            off = np.abs(np.concatenate(parts, axis=1) - logits) / (np.abs(logits).max() or 1.0)
            wrong = first_wrong(off <= EXACT)  # a NaN is wrong too
            if wrong is not None:
                by = f"{off[:, wrong].max():.1e} of the largest, tokens given {name}"
                raise DifferenceError(f"the logits of position {wrong} differ by {by}")
            worst = max(worst, float(off.max()))
    prompts = ids[:, : max(1, context - NEAR_END)]
    past = NEAR_END if cached.slides else 1  # the last token is written, and not read
    length = context - prompts.shape[1] + past
    texts = _with_cache(cached, prompts, length), _anew(whole, prompts, length, context)
    differ = np.argwhere(texts[0] != texts[1])
    if len(differ):
        i, row = differ[0]
        raise DifferenceError(
            f"token {i} of a generated text is {texts[0][i, row]} with the cache, "
            f"{texts[1][i, row]} without; the context is {context}"
        )
    where = f"{past} past the context" if cached.slides else "to the end of the context"
    return (
        f"at most {worst:.1e} of the largest logit, at {context} positions; {length} tokens drawn, "
        f"{where}, are the same"
    )


def _with_cache(model: Decoder, prompts: Ids, length: int) -> Ids:
    """The tokens after two prompts, (length, 2), each drawn with a generator of its own."""
    found = steps(model, list(prompts), SampleConfig(length=length), [Generator(0), Generator(1)])
    return np.reshape([step.token for _, step in found], (length, 2))


def _anew(whole: Callable[[Ids], Tensor], prompts: Ids, length: int, context: int) -> Ids:
    """The same without a cache: the whole window anew for each token."""
    texts, generators = prompts, [Generator(0), Generator(1)]
    for _ in range(length):
        with no_grad():
            logits = host(whole(texts[:, -context:]))[:, -1]
        p = [distribution(row, SampleConfig()) for row in logits]
        texts = np.column_stack([texts, list(map(pick, p, generators))])
    return texts[:, -length:].T


# -- resume


def resume(run: Run, model: Transformer) -> str:
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
    files = [runs.MODEL, runs.OPTIMIZER]
    files += [runs.BASE] * checkpoint.current(run.folder, runs.BASE).exists()
    state, contents = checkpoint.contents(run.folder, dict.fromkeys(files, sys.maxsize))
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


def causal(run: Run, model: Transformer) -> str:
    """Values and gradients, in the run's own dtype (with its kernels) and in float64."""
    context = model.config.context
    changed, asked = spread(1, context), spread(0, context - 1)
    for kind in (model, in_float64(model)):
        _check_causal(kind, changed, asked)
    source = ""
    if isinstance(model, EncoderDecoder):
        _check_source(in_float64(model))
        source = "; each token of a source sees all of them, and so does the target"
    return (
        f"{len(changed)} changes leave all logits before them as they were; "
        f"{len(asked)} gradients are 0 for what comes later{source}"
    )


def _check_causal(model: Transformer, changed: list[int], asked: list[int]) -> None:
    """Raise DifferenceError where logits change with a later token, or have a gradient for one."""
    whole, _, through = ways(model)
    ids, dtype = drawn(model), model.token_embedding.weight.dtype.name
    with no_grad():
        before = host(whole(ids))
        for j in changed:
            other = ids.copy()
            other[:, j] = (ids[:, j] + 1) % model.config.vocabulary
            wrong = first_wrong(host(whole(other))[:, :j] == before[:, :j])
            if wrong is not None:
                what = f"changes the logits of position {wrong}, in {dtype}"
                raise DifferenceError(f"a change of token {j} {what}")
    x = model.embed(ids).detach()
    x.requires_grad = True
    logits = model.logits(through(x))
    for t in asked:
        wrong = first_wrong(_gradient(logits, t, x)[:, t + 1 :] == 0)  # a NaN is not 0
        if wrong is not None:
            what = f"with respect to embedding {t + 1 + wrong} is not 0, in {dtype}"
            raise DifferenceError(f"the gradient of the logits of position {t} {what}")


def _check_source(model: EncoderDecoder) -> None:
    """Raise DifferenceError where the memory or the target has no gradient for a token of a source,
    or has one for <pad>.
    """
    ids, _ = padded(sources(model))
    mask, known = model.mask(ids), ids != PAD
    x = model.embed(ids).detach()
    x.requires_grad = True
    memory = through_blocks(model.encoder, model.encoder_norm, x, Around(mask=mask))
    around = Around(memory=memory, memory_mask=mask)
    h = through_blocks(model.decoder, model.decoder_norm, model.embed(drawn(model)), around)
    for name, y, inputs in (("memory", memory, x), ("target", h, memory)):
        for t in spread(0, y.shape[1]):
            sees = (_gradient(y, t, inputs) != 0).any(-1)  # (2, S)
            asked = known[:, [t]] | (name == "target")  # nobody asks for the memory of <pad>
            wrong = np.argwhere((sees != known) & asked)
            if len(wrong):
                row, s = wrong[0]
                how = "does not see" if known[row, s] else "sees the <pad> that is"
                raise DifferenceError(f"position {t} of the {name} {how} token {s} of source {row}")


def _gradient(y: Tensor, t: int, x: Tensor) -> Floats:
    """Of y[:, t], weighted at random, with respect to x.   y: (2, T, N)   x: (2, S, C)"""
    part = y[:, t]
    dpart = np.random.default_rng(t).standard_normal(part.shape).astype(part.dtype)
    (dx,) = tensor.grad(part, x, dpart, retain_graph=True)
    assert dx is not None
    return host(dx)


CHECKS = {"cache": cache, "resume": resume, "causal": causal}
