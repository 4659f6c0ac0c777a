"""Proofs, on a checkpoint of one's own, that two ways to compute the same thing give the same.

    cache          logits with the cache            = without it                              1e-12, float64
    resume         6 steps                          = 3 steps, saved, 3 in a new process      bit for bit
    causal         logits before a changed token    = those before the change                 bit for bit; later gradients exactly 0
    accumulation   gradients of a batch in parts    = of the whole                            1e-12, float64
    parity         with kernels                     = without, both as far from float64; and = PyTorch, where it is installed

The ids are drawn, so that no text is needed, except to resume. Each check takes the run and its model and returns a Verdict.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
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
from tensor import Tensor, kernels, no_grad
from tensor.optim import Optimizer
from tensor.random import Generator, Key
from tinygpt import checkpoint, generation, metrics, runs, training
from tinygpt.cache import Cache
from tinygpt.checkpoint import DTYPES
from tinygpt.config import GPTConfig
from tinygpt.console import shown
from tinygpt.corpus import IGNORED, Ids
from tinygpt.errors import InputError
from tinygpt.files import RESTORE, write_json
from tinygpt.model import GPT
from tinygpt.runs import Run

EXACT = 1e-12  # of the largest number, in float64: some thousand roundings
CLOSE = 1e-9  # to PyTorch, whose sums are in another order and whose tanh is another
PROGRAM = [sys.executable, "-m", "tinygpt"]
REFUSED = "tinygpt: error: "  # how it begins to say why not
STEPS = 6  # that are taken at once, and in two halves
NEAR_END = 8  # tokens generated up to the end of the context, and as many past it
Floats = np.ndarray[Any, np.dtype[np.float64]]
Gradients = dict[str, Floats]


class Verdict(NamedTuple):
    """Whether it holds, with the number; or the first place where it does not."""

    passed: bool
    text: str


# -- what they share ----------------------------------------------------------------------------------------------------


def as_dtype(model: GPT, dtype: str) -> GPT:
    """A copy in another dtype, on the same device, with dropout off."""
    copy = GPT(model.config, dtype=dtype, device=model.token_embedding.weight.device, draw=False)
    copy.load_state({name: weights.to(dtype=dtype) for name, weights in model.state().items()})
    return copy.eval()


def drawn(config: GPTConfig, rows: int, length: int | None = None) -> Ids:
    """Ids at random, the same each time.   (rows, length), by default as many as the context holds."""
    return np.random.default_rng(0).integers(0, config.vocabulary, (rows, length or config.context))


def host(x: Tensor) -> Floats:
    """The values in NumPy, as float64."""
    return np.array(x.detach().to("cpu").numpy(), dtype=np.float64)


def apart(a: Floats, b: Floats, largest: float | None = None) -> float:
    """The largest difference, in shares of b's largest number, if not of another."""
    return float(np.abs(a - b).max() / ((np.abs(b).max() if largest is None else largest) or 1.0))


def places(count: int, least: int, below: int) -> list[int]:
    """Up to `count` of the numbers from `least` on, evenly spread, both ends among them."""
    return sorted(set(np.linspace(least, below - 1, count).astype(int).tolist())) if least < below else []


def check_finite(run: Run, model: GPT) -> None:
    """Raise InputError for a model whose logits are no finite numbers: nothing could be said of two that are not, equal or not."""
    with no_grad(), np.errstate(all="ignore"):
        if not np.isfinite(host(model(drawn(model.config, rows=2)))).all():
            raise InputError(f"the logits of {run.name} are not finite numbers: its weights are broken\nrestore them from a copy, or train again")


# -- cache --------------------------------------------------------------------------------------------------------------


def cache(run: Run, model: GPT) -> Verdict:
    """The logits at every position, and what is generated up to the end of the context and past it."""
    wide, context = as_dtype(model, "float64"), model.config.context
    ids = drawn(model.config, rows=2)
    worst = 0.0
    with no_grad():
        whole = host(wide(ids))  # (2, T, V)
        largest = float(np.abs(whole).max())
        for name, sizes in (("one at a time", [1] * context), ("in chunks", range(1, context + 1))):
            store, start = Cache(wide, rows=2), 0
            for size in sizes:
                stop = min(start + size, context)
                if start == stop:
                    break
                off = apart(host(wide(ids[:, start:stop], store)), whole[:, start:stop], largest)
                if not off <= EXACT:
                    where = f"position {start}" if size == 1 else f"positions {start} to {stop - 1}"
                    return Verdict(False, f"the logits of {where} differ by {off:.1e} of the largest, tokens given {name}")
                worst, start = max(worst, off), stop
    tokens = ids[0, : max(1, context - NEAR_END)].tolist()
    length = context - len(tokens) + NEAR_END
    with_cache, without = wide.generate(tokens, length, generator=Generator(0)), _generated(wide, tokens, length)
    for place, (a, b) in enumerate(zip(with_cache, without, strict=True)):
        if a != b:
            return Verdict(False, f"token {place} of a generated text is {a} with the cache, {b} without; the context is {context}")
    return Verdict(True, f"at most {worst:.1e} of the largest logit, at {context} positions; {length} tokens drawn, {NEAR_END} past the context, are the same")


def _generated(model: GPT, tokens: list[int], length: int) -> list[int]:
    """GPT.generate without a cache: the whole window anew for each token."""
    tokens, generator = list(tokens), Generator(0)
    for _ in range(length):
        with no_grad():
            logits = host(model(tokens[-model.config.context :]))[0, -1]
        tokens.append(generation.pick(generation.distribution(logits), generator))
    return tokens


# -- resume -------------------------------------------------------------------------------------------------------------


def resume(run: Run, model: GPT) -> Verdict:
    """Two copies of the run in a temporary folder go on, by the program itself, each process on its own. On the CPU."""
    if not checkpoint.current(run.folder, runs.OPTIMIZER).exists():
        raise InputError(f"{run.name} was not trained here: it has no {runs.OPTIMIZER} to go on with\nleave resume out")
    with tempfile.TemporaryDirectory(prefix="tinygpt-") as folder:
        straight, halves = Path(folder) / "straight", Path(folder) / "halves"
        step = _copy(run, straight)
        shutil.copytree(straight, halves)  # not the run once more: it may be in training, and have gone on
        _go_on(straight, step + STEPS)
        _go_on(halves, step + STEPS // 2)
        _go_on(halves, step + STEPS)
        count = 0
        for file in (runs.MODEL, runs.OPTIMIZER):
            ours, theirs = (_tensors(copy / file) for copy in (halves, straight))
            for name in dict.fromkeys([*theirs, *ours]):
                if ours.get(name) != theirs.get(name):
                    return Verdict(False, f"{name} in {file} {_difference(ours.get(name), theirs.get(name))} after {STEPS // 2} + {STEPS // 2} steps")
                count += 1
        for a, b in zip(_losses(halves, step), _losses(straight, step), strict=True):
            if a != b:
                norms = f"gradient norms {a.gradient_norm!r}, {b.gradient_norm!r}"
                return Verdict(False, f"step {b.step}: loss {a.loss!r} after a break, {b.loss!r} without; {norms}")
        if checkpoint.read_json(halves / runs.STATE) != checkpoint.read_json(straight / runs.STATE):
            return Verdict(False, f"{runs.STATE} differs, though no tensor does")
    return Verdict(True, f"steps {step + 1} to {step + STEPS} at once = in two processes: {count} arrays and {STEPS} losses bit for bit")


def _copy(run: Run, folder: Path) -> int:
    """The checkpoint of the run, also while it is in training, with more steps to take than will be taken, and nothing measured; its step."""
    state, contents = checkpoint.contents(run.folder, dict.fromkeys((runs.MODEL, runs.OPTIMIZER), sys.maxsize))
    if state is None:
        raise InputError(f"{runs.STATE} in {run.name} is missing\n{RESTORE}")
    folder.mkdir()
    shutil.copy2(run.folder / runs.TOKENIZER, folder)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    write_json(folder / runs.STATE, asdict(state))
    steps = max(run.training.steps, state.step) + STEPS + 1
    training = replace(run.training, steps=steps, evaluate=steps, patience=None, snapshots=0, device="cpu")
    write_json(folder / runs.CONFIG, runs.choices(replace(run, training=training)))
    return state.step


def _go_on(folder: Path, until: int) -> None:
    """`tinygpt train --resume FOLDER --until N`, in a process of its own, which finds this very package."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [*PROGRAM, "train", "--resume", str(folder), "--until", str(until)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        why = next((line.removeprefix(REFUSED) for line in said if line.startswith(REFUSED)), said[-1])  # else the last line of a traceback
        raise InputError(f"the copy could not go on: {shown(why.replace(f'{folder}{os.sep}', '').replace(str(folder), 'it')):.200}")


def _tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    """The arrays of a file, as their dtype and bytes."""
    return {name: (part["dtype"], bytes(part["data"])) for name, part in sorted(deserialize(path.read_bytes()))}  # type: ignore[no-untyped-call]


def _difference(a: tuple[str, bytes] | None, b: tuple[str, bytes] | None) -> str:
    if a is None or b is None or a[0] != b[0] or len(a[1]) != len(b[1]):
        return "is there only once, or in another dtype or size"
    x, y = (np.frombuffer(data, DTYPES[dtype]).astype(np.float64) for dtype, data in (a, b))
    return f"differs by up to {np.abs(x - y).max():.1e}"


def _losses(folder: Path, after: int) -> list[metrics.Record]:
    """What was noted of the steps after that one."""
    return [record for record in metrics.records(folder / runs.METRICS) if record.lr is not None and record.step > after]


# -- causal -------------------------------------------------------------------------------------------------------------


def causal(run: Run, model: GPT) -> Verdict:
    """Values and gradients, in the run's own dtype (with its kernels) and in float64."""
    context = model.config.context
    ids = drawn(model.config, rows=2)
    changed, asked = places(8, 1, context), places(8, 0, context - 1)
    for kind in (model, as_dtype(model, "float64")):
        dtype = kind.token_embedding.weight.dtype.name
        with no_grad():
            before = host(kind(ids))
        for j in changed:
            other = ids.copy()
            other[:, j] = (ids[:, j] + 1) % model.config.vocabulary
            with no_grad():
                after = host(kind(other))
            wrong = np.flatnonzero((after != before)[:, :j].any(axis=(0, 2)))
            if len(wrong):
                return Verdict(False, f"a change of token {j} changes the logits of position {wrong[0]}, in {dtype}")
        x = kind.embed(ids).detach()
        x.requires_grad = True
        logits = kind.logits(x)
        for t in asked:
            part = logits[:, t]  # (2, V)
            upstream = Tensor(np.random.default_rng(t).standard_normal(part.shape), dtype=part.dtype, device=part.device)
            (dx,) = tensor.grad(part, x, upstream, retain_graph=True)
            assert dx is not None
            later = host(dx)[:, t + 1 :]
            if np.any(later != 0):  # a NaN is not 0 either
                first = t + 1 + int(np.flatnonzero((later != 0).any(axis=(0, 2)))[0])
                return Verdict(False, f"the gradient of the logits of position {t} with respect to embedding {first} is not 0, in {dtype}")
    return Verdict(True, f"{len(changed)} changes leave all logits before them as they were; {len(asked)} gradients are 0 for what comes later")


# -- accumulation -------------------------------------------------------------------------------------------------------


class Unmoved(Optimizer):
    """An optimiser that leaves the weights, and so the gradients to look at."""

    def step(self) -> None:
        """Do nothing."""


def accumulation(run: Run, model: GPT) -> Verdict:
    """One batch whole, and in 3 parts of 3, 2 and 2 rows; dropout as in training, its masks those of the whole batch."""
    wide = as_dtype(model, "float64").train()
    x = drawn(model.config, 7, min(model.config.context, 64))
    y = np.roll(x, -1, axis=1)
    for row in range(len(y)):
        y[row, : row * y.shape[1] // 8] = IGNORED
    y[-1] = IGNORED
    counts = [int(np.count_nonzero(y[part] != IGNORED)) for part in np.array_split(np.arange(len(y)), 3)]
    optimizer, found = Unmoved(wide, lr=1.0), []
    for parts in (1, 3):
        loss, _ = training.update(wide, optimizer, x, y, np.inf, parts, Key(run.training.seed, 0))
        found.append((loss, _gradients(wide)))
    (loss, whole), (sum_of_parts, in_parts) = found
    worst = abs(sum_of_parts - loss) / (abs(loss) or 1.0)
    if not worst <= EXACT:
        return Verdict(False, f"the loss in parts is {sum_of_parts!r}, of the whole batch {loss!r}; counted targets {counts}")
    for name, gradient in whole.items():
        off = apart(in_parts[name], gradient)
        if not off <= EXACT:
            return Verdict(False, f"the gradient of {name} differs by {off:.1e} of its largest number; counted targets {counts}")
        worst = max(worst, off)
    return Verdict(True, f"at most {worst:.1e} of a gradient's largest number, in {len(whole)} gradients; {', '.join(map(str, counts))} counted targets")


def _gradients(model: GPT) -> Gradients:
    return {name: np.zeros(parameter.shape) if parameter.grad is None else host(parameter.grad) for name, parameter in model.named_parameters()}


# -- parity -------------------------------------------------------------------------------------------------------------


def parity(run: Run, model: GPT) -> Verdict:
    """Logits, with the cache too, and gradients: in float32 with kernels on and off, each against float64; float64 against PyTorch."""
    x = drawn(model.config, 2, min(model.config.context, 192))
    y = np.roll(x, -1, axis=1)
    y[0, 0] = IGNORED
    exact, single = as_dtype(model, "float64"), as_dtype(model, "float32")
    with kernels.off():
        right, plain = _answers(exact, x, y), _answers(single, x, y)
    with_kernels = _answers(single, x, y)
    worst_on = worst_off = 0.0
    for name, expected in right.items():
        on, off = apart(with_kernels[name], expected), apart(plain[name], expected)
        if not on <= allowed(off):
            return Verdict(False, f"{name}: {on:.1e} off float64 with kernels, {off:.1e} without")
        worst_on, worst_off = max(worst_on, on), max(worst_off, off)
    said = f"{len(right)} arrays at most {worst_on:.1e} off float64 with kernels, {worst_off:.1e} without"
    if importlib.util.find_spec("torch") is None:
        return Verdict(True, f"{said}; PyTorch is not installed")
    theirs, worst = torch_answers(exact, x, y), 0.0
    for name, expected in theirs.items():
        off = apart(right[name], expected)
        if not off <= CLOSE:
            return Verdict(False, f"{name}: {off:.1e} off PyTorch, in float64")
        worst = max(worst, off)
    return Verdict(True, f"{said}; {worst:.1e} off PyTorch, in float64")


def allowed(off: float) -> float:
    """How far from float64 a kernel's float32 may be, where that of the reference is so far: sums in another order round otherwise."""
    return 4 * off + 2e-6


def _answers(model: GPT, x: Ids, y: Ids) -> Gradients:
    """The logits, those with a cache, and the gradient of each parameter."""
    with no_grad():
        answers, store = {"logits": host(model(x))}, Cache(model, rows=len(x))
        first, rest = host(model(x[:, :-1], store)) if x.shape[1] > 1 else None, host(model(x[:, -1:], store))
        answers["logits with the cache"] = rest if first is None else np.concatenate([first, rest], axis=1)
    model.zero_grad()
    model.loss(x, y).backward()
    return answers | {f"gradient of {name}": gradient for name, gradient in _gradients(model).items()}


def torch_answers(model: GPT, x: Ids, y: Ids) -> Gradients:
    """The same logits and gradients from the same weights, by PyTorch alone, written from the formulas."""
    torch: Any = importlib.import_module("torch")
    config, functional = model.config, torch.nn.functional
    w = {name: torch.tensor(host(weights), requires_grad=True) for name, weights in model.state().items()}
    (B, T), C, H = x.shape, config.width, config.heads

    def linear(h: Any, name: str) -> Any:
        return functional.linear(h, w[f"{name}.weight"].T, w.get(f"{name}.bias"))

    def norm(h: Any, name: str) -> Any:
        return functional.layer_norm(h, (C,), w[f"{name}.gain"], w[f"{name}.bias"], 1e-5)

    def attention(h: Any, name: str) -> Any:
        q, k, v = (part.reshape(B, T, H, C // H).transpose(1, 2) for part in linear(h, f"{name}.qkv").chunk(3, dim=-1))
        heads = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return linear(heads.transpose(1, 2).reshape(B, T, C), f"{name}.projection")

    def feed_forward(h: Any, name: str) -> Any:
        h = linear(h, f"{name}.expand")
        return linear(functional.gelu(h, approximate="tanh") if config.activation == "gelu" else h.relu(), f"{name}.projection")

    positions = w["position_embedding"] if config.positions == "learned" else torch.tensor(host(model.position_embedding))
    h = w["token_embedding.weight"][torch.tensor(x)] + positions[:T]
    for i, branch in itertools.product(range(config.layers), (attention, feed_forward)):
        name, its_norm = f"blocks.{i}.{branch.__name__}", f"blocks.{i}.{branch.__name__}_norm"
        h = h + branch(norm(h, its_norm), name) if config.norm == "pre" else norm(h + branch(h, name), its_norm)
    head = w["token_embedding.weight"] if config.tied else w["head.weight"].T
    logits = functional.linear(norm(h, "final_norm"), head)
    functional.cross_entropy(logits.reshape(B * T, -1), torch.tensor(y).reshape(-1), ignore_index=IGNORED).backward()
    gradients = {f"gradient of {name}": weights.grad.numpy() for name, weights in w.items()}
    return {"logits": logits.detach().numpy(), "logits with the cache": logits.detach().numpy(), **gradients}


CHECKS: dict[str, Callable[[Run, GPT], Verdict]] = {
    "cache": cache,
    "resume": resume,
    "causal": causal,
    "accumulation": accumulation,
    "parity": parity,
}
