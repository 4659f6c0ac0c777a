"""What a training will take, told before it starts: `counted(model_config, train_config)`, and `predict`, which measures the time too.

    parameters, FLOPs    counted by formula
    activations          counted on the graph of small models of this depth and context: whatever the ops keep for backward here and now
    seconds              measured, in about a second: a step of this model with one layer, and one layer more

A step of L layers then takes what one of a single layer takes, and L - 1 times what a layer takes; all numbers kept for backward are linear
in rows, layers and width, and quadratic in the context.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from statistics import median
from types import FunctionType
from typing import Any, NamedTuple, cast

import numpy as np
from threadpoolctl import threadpool_limits

from tensor import Tensor
from tensor.devices import array_module, move
from tensor.dtypes import NARROW, as_dtype
from tensor.graph import Node, reachable
from tensor.kernels import KERNELS, choose
from tensor.mode import MODE
from tensor.nn import Module
from tensor.optim import clip_gradients
from tensor.random import Key, keyed
from tensor.recompute import Recomputed
from tensor.tape import in_bytes
from tinygpt import memory, training
from tinygpt.config import GPTConfig, TrainConfig
from tinygpt.console import duration, short
from tinygpt.corpus import IGNORED
from tinygpt.errors import InputError
from tinygpt.model import GPT, parameter_count, through_blocks

SECONDS = 0.1  # for each of four measurements
WORK = 1.5e9  # FLOPs in what is measured, at most (a hundred times that on a GPU): larger models are measured on fewer rows, or narrower
FEWEST = 64  # tokens in a row that is measured, if not fewer in the model
CONTEXTS, HEADS, HEAD_WIDTHS = (144, 160), (1, 2), (8, 16)  # of the small models whose graphs are counted; past 128 attention goes by blocks


@dataclass(frozen=True)
class Plan:
    """The prediction; memory in bytes."""

    model: GPTConfig
    training: TrainConfig
    parameters: int
    weights: int  # with the float32 copies that 16-bit floats are computed in
    gradients: int
    moments: int  # the optimiser's, with the float32 masters of 16-bit weights
    layer: int  # kept for backward by each layer
    again: int  # what a layer has to keep while backward has computed it again; 0 where it never does
    ends: int  # by the embedding and the last norm
    logits: int  # these, their gradient, and what cross-entropy makes of them on the way
    windows: int  # the ids and targets of a step
    flops: float  # a step
    seconds: float = math.nan  # a step; NaN where nothing was measured

    @property
    def activations(self) -> int:
        """All that is kept for backward, but the logits."""
        return self.model.layers * self.layer + self.ends

    @property
    def memory(self) -> int:
        """At the peak of a step, beside Python and its libraries; what backward makes in passing comes on top."""
        return self.weights + self.gradients + self.moments + self.activations + self.windows + max(self.logits, self.again)

    @property
    def passing(self) -> int:
        """What backward makes in passing was less in what was measured: all that a layer works with."""
        return self.again or self.layer

    @property
    def tokens(self) -> int:
        """A step."""
        return self.training.batch * self.training.accumulation * self.model.context

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    def score(self, tokens: int, seconds: float) -> str:
        """How well the speed was predicted: `98k were predicted, 7% too many`. tokens: trained on in so many seconds."""
        ratio = self.speed * seconds / tokens
        return f"{short(self.speed)} were predicted" + ("" if abs(ratio - 1) < 0.005 else f", {abs(ratio - 1):.0%} too {'many' if ratio > 1 else 'few'}")


def predict(model: GPTConfig, config: TrainConfig) -> Plan:
    """Count and measure. Draws from no generator, and leaves nothing behind. Raises DeviceError for a device that is not there."""
    return replace(counted(model, config), seconds=step_seconds(model, config))


def counted(model: GPTConfig, config: TrainConfig) -> Plan:
    """Count alone, which takes a fraction of a second for a model of any size."""
    size, count = as_dtype(config.dtype).itemsize, parameter_count(model)
    matrices = 12 * model.layers * model.width**2 if config.optimizer == "muon" else 0
    wide, narrow = max(size, 4), as_dtype(config.dtype) in NARROW
    layer, ends = activations(model, config)
    again = activations(model, replace(config, recompute=False))[0] if config.recompute else 0
    return Plan(
        model,
        config,
        parameters=count,
        weights=count * (size + 4 * narrow),
        gradients=count * size,
        moments=wide * (2 * (count - matrices) + matrices + narrow * count),
        layer=layer,
        again=again,
        ends=ends,
        logits=config.batch * model.context * model.vocabulary * bytes_a_logit(config),
        windows=2 * 8 * config.batch * config.accumulation * model.context,
        flops=flops(model, config.batch, config.recompute) * config.accumulation,
    )


def shortage(plan: Plan, loaded: int = 0) -> str:
    """Why the device has too little memory for a step: `12.0 GiB for a step, and 8.0 GiB are free`; "" where there is enough, or nobody knows.

    loaded: the bytes of them that are in memory already.
    """
    room = memory.free(plan.training.device)
    if room is None or plan.memory <= room + loaded:
        return ""
    return f"{in_bytes(plan.memory)} for a step, and {in_bytes(room + loaded)} are free"


def check_memory(model: GPTConfig, config: TrainConfig, *loaded: str) -> None:
    """Raise InputError, with the numbers of the plan, where a step does not fit into the memory that is free.

    loaded: which of weights and moments are in memory already.
    """
    plan = counted(model, config)
    if why := shortage(plan, sum(getattr(plan, kind) for kind in loaded)):
        kinds = ("weights", "gradients", "moments", "activations", "logits", "windows")
        parts = ", ".join(f"{kind} {in_bytes(getattr(plan, kind))}" for kind in kinds)
        raise InputError(f"too little memory: {why} ({parts})\ntake a smaller --batch, --context, --width or --layers, or try it: --ignore-memory")


# -- counted ------------------------------------------------------------------------------------------------------------


def flops(model: GPTConfig, rows: int, recompute: bool = False) -> float:
    """Of the matrix products, forward and backward, which is twice forward: 3 x 2 x (multiply-adds); 4 x 2 in layers that are computed again.

    A token of a layer meets 12 C^2 weights, and (T + 1) / 2 keys and as many values of C numbers; in the head, V C weights.
    """
    V, T, C = model.vocabulary, model.context, model.width
    return 6.0 * rows * T * (model.layers * (12 * C**2 + (T + 1) * C) * (4 / 3 if recompute else 1) + V * C)


def activations(model: GPTConfig, config: TrainConfig) -> tuple[int, int]:
    """(bytes that each layer keeps for backward, bytes that what is around the layers keeps), without the logits.

    What is kept grows with rows, heads and head width along straight lines, and so does the part of each token with the context: two
    small models a line tell what a large one keeps.
    """
    return _activations(model, config, MODE.get().kernels_off)


@lru_cache(maxsize=4)  # a training asks twice: whether there is memory, and how fast it will be
def _activations(model: GPTConfig, config: TrainConfig, kernels_off: frozenset[str]) -> tuple[int, int]:
    def kept(context: int, heads: int, head_width: int) -> Any:
        small = replace(model, vocabulary=1, context=context, heads=heads, width=heads * head_width)
        (a, b), (c, d) = ([kept_bytes(replace(small, layers=layers), config, rows) for layers in (1, 2)] for rows in (1, 2))
        one, two = c - a, d - b  # a row more, with one layer and with two
        return np.array([two - one, 2 * one - two]) / context

    def at(context: int, heads: int) -> Any:
        return on_line(lambda head_width: kept(context, heads, head_width), model.width // model.heads, *HEAD_WIDTHS)

    a_token = on_line(lambda context: on_line(lambda heads: at(context, heads), model.heads, *HEADS), model.context, *CONTEXTS)
    layer, ends = a_token * model.context * config.batch
    return round(layer), round(ends)


def on_line(f: Callable[[int], Any], x: int, low: int, high: int) -> Any:
    """f(x); above `high`, where f would be costly, from the straight line through f(low) and f(high)."""
    return f(x) if x <= high else f(low) + (f(high) - f(low)) * ((x - low) / (high - low))


def bytes_a_logit(config: TrainConfig) -> int:
    """At the peak: a kernel has the logit and its gradient; the reference has four numbers, and what was wanted in float64."""
    dtype = as_dtype(config.dtype)
    arrays = [move(np.zeros((1, 1), dtype), config.device), move(np.zeros(1, np.int64), config.device)]
    options = {"ignore_index": IGNORED, "reduction": "mean"}
    kernel = choose("cross_entropy", KERNELS["cross_entropy"], arrays, options, MODE.get().kernels_off) if dtype not in NARROW else None
    wide = max(dtype.itemsize, 4)
    return 2 * wide if kernel else 4 * wide + 8


def kept_bytes(model: GPTConfig, config: TrainConfig, rows: int) -> int:
    """The memory that the graph of a loss holds, beside the parameters."""
    gpt = GPT(model, dtype=config.dtype, device=config.device, draw=False).train()
    gpt.recompute = config.recompute
    ids = np.zeros((rows, model.context), np.int64)
    with keyed(Key()):
        loss = gpt.loss(ids, ids)
    own = {id(root(parameter.array)) for parameter in gpt.parameters()}
    rules = [node.backward for node in reachable([loss.node]) if type(node) is Node]
    roots = {id(memory): memory.nbytes for memory in map(root, held(rules)) if id(memory) not in own}
    return sum(roots.values())


def held(value: Any) -> Iterator[Any]:
    """The arrays that functions name, also through tuples and inner functions; and those that a checkpoint starts from."""
    if hasattr(value, "nbytes"):
        yield value
    elif isinstance(value, Tensor):
        yield value.array
    elif isinstance(value, Recomputed):
        yield from held(value.inputs)
    elif isinstance(value, FunctionType):
        yield from held([cell.cell_contents for cell in value.__closure__ or ()])
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from held(part)


def root(array: Any) -> Any:
    """The array that owns the memory."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


# -- measured -----------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """What is timed apart: forward and backward grow with the rows, the update does not."""

    seconds: float
    update: float


def step_seconds(model: GPTConfig, config: TrainConfig) -> float:
    """Seconds of a step: what a model of one layer takes, and each layer more."""
    small, rows = affordable(replace(model, layers=1), config.batch, WORK if config.device == "cpu" else 100 * WORK)
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(training.threads(model, config), user_api="blas"))
        stack.enter_context(np.errstate(all="ignore"))
        stack.enter_context(keyed(Key()))
        whole, layer = _measured(small, config, rows)
    one, work = replace(model, layers=1), partial(flops, recompute=config.recompute)
    larger = work(one, config.batch) / work(small, rows)
    layers_larger = (work(replace(model, layers=2), config.batch) - work(one, config.batch)) / (work(replace(small, layers=2), rows) - work(small, rows))
    more = model.layers - 1
    in_parts = config.accumulation * (whole.seconds * larger + more * layer.seconds * layers_larger)
    wider = parameter_count(one) / parameter_count(small), (model.width / small.width) ** 2
    return in_parts + whole.update * wider[0] + more * layer.update * wider[1]


def affordable(model: GPTConfig, rows: int, work: float) -> tuple[GPTConfig, int]:
    """Fewer rows, then less of the rest, until the FLOPs of a step are at most `work`. Speed hardly depends on what is given up first."""
    while flops(model, rows) > work:
        if rows > 1:
            rows = max(1, min(rows - 1, int(rows * work / flops(model, rows))))
        elif model.vocabulary > 8 * model.width:
            model = replace(model, vocabulary=model.vocabulary // 2)
        elif model.context > FEWEST:
            model = replace(model, context=model.context // 2)
        elif model.vocabulary > model.width:
            model = replace(model, vocabulary=model.vocabulary // 2)
        elif model.heads > 1:
            heads = model.heads // 2
            model = replace(model, heads=heads, width=model.width // model.heads * heads)
        elif model.width > 1:
            model = replace(model, width=model.width // 2)
        else:
            break
    return model, rows


def _measured(model: GPTConfig, config: TrainConfig, rows: int) -> tuple[Part, Part]:
    """A model of one layer, with all that is around it; and the layer alone."""
    whole = GPT(model, dtype=config.dtype, device=config.device, draw=False).train()  # zeros: no product asks what it multiplies
    whole.recompute = config.recompute
    layer = GPT(replace(model, vocabulary=1), dtype=config.dtype, device=config.device, draw=False).train()
    block, norm = layer.blocks[0], layer.final_norm
    ids = np.random.default_rng(0).integers(0, model.vocabulary, (rows, model.context))
    x = layer.embed(np.zeros_like(ids)).detach()
    upstream = Tensor(np.random.default_rng(0).standard_normal(x.shape), dtype=x.dtype, device=x.device)
    x.requires_grad = True

    def alone() -> None:
        x.grad = None
        through_blocks([block], norm, x, recompute=config.recompute).backward(upstream)

    return _part(whole, lambda: whole.loss(ids, ids).backward(), config), _part(block, alone, config)


def _part(module: Module, work: Callable[[], None], config: TrainConfig) -> Part:
    optimizer = training.optimizer_of(cast(GPT, module), config)

    def learn() -> None:
        optimizer.zero_grad()
        work()

    def update() -> None:
        clip_gradients(optimizer, config.clip or math.inf)
        optimizer.step()

    return Part(_seconds(learn, config.device), _seconds(update, config.device))


def _seconds(work: Callable[[], Any], device: str) -> float:
    """The median time of it, over as many times as SECONDS allow, after a first one; that, where there is no time for another."""
    module = array_module(device)
    taken: list[float] = []
    while len(taken) < 2 or sum(taken[1:]) < SECONDS:
        start = time.perf_counter()
        work()
        if device != "cpu":
            module.cuda.Device().synchronize()
        taken.append(time.perf_counter() - start)
        if taken[0] > SECONDS:
            return min(taken)
    return median(taken[1:])


# -- shown --------------------------------------------------------------------------------------------------------------


def table(plan: Plan) -> list[str]:
    """The lines that `tinygpt plan` prints."""
    model, config = plan.model, plan.training
    batch = f"{config.batch}{f' x {config.accumulation}' if config.accumulation > 1 else ''} windows of {model.context}"
    kept = f"of its {in_bytes(plan.again)} for backward" if plan.again else "for backward"
    kinds = [
        ("weights", plan.weights, f"{config.dtype}"),
        ("gradients", plan.gradients, ""),
        ("moments", plan.moments, config.optimizer),
        ("activations", plan.activations, f"each layer keeps {in_bytes(plan.layer)} {kept}"),
        ("logits", plan.logits, f"{model.vocabulary:,} a token, with what the loss makes of them"),
        ("windows", plan.windows, "ids and targets"),
    ]
    lines = [
        f"model        {plan.parameters:,} parameters: {model.layers} layers of width {model.width}, {model.heads} heads",
        f"step         {plan.tokens:,} tokens: {batch}",
        "",
        *(f"{name:<13}{in_bytes(amount):>10}{'   ' if note else ''}{note}" for name, amount, note in kinds),
        f"together     {in_bytes(plan.memory):>10}   and up to {in_bytes(plan.passing)} in passing",
        "",
        f"work         {digits(plan.flops / 1e9):>10}   GFLOP a step",
    ]
    if math.isnan(plan.seconds):
        return lines
    return [
        *lines[:-1],
        f"{lines[-1]}, {digits(plan.flops / plan.seconds / 1e9)} GFLOP a second",
        f"speed        {short(plan.speed):>10}   tokens/s, {digits(plan.seconds * 1000)} ms a step: measured here just now",
        f"time         {duration(plan.seconds * config.steps):>10}   for {config.steps:,} steps, measuring and saving apart",
    ]


def digits(number: float) -> str:
    """0.319, 12.5, 13,100"""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
