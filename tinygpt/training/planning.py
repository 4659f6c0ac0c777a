"""What a training will take, before it starts: `counted` counts, `predict` also times a step.

parameters, FLOPs    by formula
activations          by one traced step of a small model, scaled to the sizes of the real one
seconds              by timing one step here, scaled by its FLOPs where the step is shortened
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tensor.dtypes import NARROW, as_dtype
from tensor.graph import Node, reachable
from tensor.kernels import pick
from tensor.kernels.cuda.attention.by_cudnn import WIDTHS
from tensor.memory.devices import array_module, move
from tensor.optim import clipped_step
from tensor.random import Key, keyed
from tensor.recording import in_bytes
from tinygpt.config import (
    BERTConfig,
    EncoderDecoderConfig,
    FinetuneConfig,
    GPTClassifierConfig,
    ModelConfig,
    TrainConfig,
)
from tinygpt.errors import InputError
from tinygpt.ids import IGNORED
from tinygpt.model.kinds import KINDS
from tinygpt.model.sizes import adapter_count, matrix_count, parameter_count
from tinygpt.training import gpu, memory, stages
from tinygpt.training.step import arithmetic, gradients, optimizer_of

SECONDS = 0.1  # for timing, at least
# FLOPs of a step that is timed, at most: on a CPU, and on a GPU, which is fast only when it is full
WORK, WORK_ON_GPU = 1.5e9, 3e13
FEWEST = 64  # tokens in a row that is timed, if the model has no fewer
# The traced model: different primes, none of which divides anything else that makes up an array's
# size. Attention goes by blocks beyond 128 tokens. A GPU has kernels for heads of 8, 16, ..., 128
# numbers: such a head is traced as it is, or as PART times EIGHT where ROWS or HEADS divides it.
ROWS, HEADS, PART, EIGHT = 11, 5, 7, 8
SHORT, LONG = 61, 131
SCALED = "scaled from a smaller step timed here"
# the parts of the memory of a step, as a plan names them; those of an alignment alone
PARTS = "weights", "gradients", "moments", "activations", "logits", "windows"
OF_ALIGNING = "reference", "reward", "rollout"


@dataclass(frozen=True)
class Plan:
    """What a training takes; memory in bytes."""

    model: ModelConfig
    training: TrainConfig
    weights: int  # with the float32 copies that 16-bit floats are computed in
    gradients: int
    moments: int  # the optimiser's, with the float32 masters of 16-bit weights
    layer: int  # kept for backward by each layer
    # what a layer has to keep while backward has computed it again; 0 where it never does
    again: int
    activations: int  # all that is kept for backward, but the logits
    logits: int  # these, their gradient, and what cross-entropy makes of them on the way
    windows: int  # the ids and targets of a step
    flops: float  # a step
    reference: int = 0  # the weights of an alignment that stay
    reward: int = 0  # those of the reward model
    rollout: int = 0  # of PPO, while the policy writes: nothing is kept for backward then
    seconds: float = math.nan  # a step; NaN where nothing was measured
    by: str = "by a step timed here just now"  # how the seconds are known
    where: str = "this machine"
    peak: float | None = None  # FLOP/s of the GPU, where that is known

    @property
    def memory(self) -> int:
        """At the peak of a step, without Python and its libraries; `passing` comes on top."""
        passing = self.activations + max(self.logits, self.again)
        return (
            self.weights
            + self.reference
            + self.reward
            + self.gradients
            + self.moments
            + self.windows
            + max(passing, self.rollout)
        )

    @property
    def parts(self) -> dict[str, int]:
        """The bytes of each part of the memory."""
        names = [name for name in OF_ALIGNING if getattr(self, name)]
        return {name: getattr(self, name) for name in (*PARTS, *names)}

    @property
    def passing(self) -> int:
        """An upper bound of what backward makes and drops again: all that a layer works with."""
        return self.again or self.layer

    @property
    def tokens(self) -> int:
        """A step."""
        return stages.row_count(self.training) * self.model.context

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    @property
    def mfu(self) -> float:
        """The share of the GPU's peak that a step reaches.   Chowdhery et al. 2022, section 4.1"""
        return self.speed * gpu.flops_per_token(self.model) / (self.peak or math.nan)


def predict(
    model: ModelConfig, config: TrainConfig, reward: GPTClassifierConfig | None = None
) -> Plan:
    """Count, and time a step. Draws from no generator, and leaves nothing behind. Raises
    DeviceError for a device that is not there.   reward: of PPO, the reward model
    """
    plan, passed = counted(model, config, reward=reward), stages.passed(config)
    seconds = step_seconds(model, passed) * config.updates
    if not stages.by_ppo(config):
        seconds *= stages.work(config)
    else:
        seconds += _rollout_seconds(model, config)
    small = affordable(model, passed.batch, work_on(config.device)) != (model, passed.batch)
    by = SCALED if small else Plan.by
    return replace(plan, seconds=seconds, by=by, peak=gpu.peak(config.device))


def at_mfu(plan: Plan, name: str, peak: float, mfu: float) -> Plan:
    """The plan for a step that reaches a share of the peak of a GPU of some name. What a layer
    computes again takes its time, and does not count for MFU.
    """
    model, again = plan.model, plan.training.recompute
    longer = flops(model, 1, again) / flops(model, 1)
    seconds = longer * plan.tokens * gpu.flops_per_token(model) / (mfu * peak)
    by = f"at {mfu:.1%} of {peak / 1e12:,.0f} TFLOP/s" + ", forward twice" * again
    return replace(plan, seconds=seconds, by=by, where=f"one {name}", peak=peak)


def counted(
    model: ModelConfig,
    config: TrainConfig,
    elsewhere: bool = False,
    reward: GPTClassifierConfig | None = None,
) -> Plan:
    """Count alone, which takes a fraction of a second for a model of any size.

    elsewhere: on a GPU that is not here, by the formulas of its kernels.   reward: of PPO, the
    reward model.
    """
    size, passed = as_dtype(config.dtype).itemsize, stages.passed(config)
    reference, judge, value = stages.beside(model, config, reward)
    count = parameter_count(model) + value
    adapters = _adapters(model, config)
    learning = adapters or count
    matrices = min(matrix_count(model), learning) if config.optimizer == "muon" else 0
    wide, narrow = max(size, 4), as_dtype(config.dtype) in NARROW
    of_pairs = config.kind == "encoder-decoder"  # of three arrays: sources, targets, predictions
    kept = gpu.kept_by_kernels if elsewhere else activations
    layer, ends = kept(model, passed)
    again = kept(model, replace(passed, recompute=False))[0] if config.recompute else 0
    # on a CPU 16-bit weights are widened, all at once at the most
    copies = 4 * count if narrow and config.device == "cpu" else 0
    return Plan(
        model,
        config,
        weights=(count + adapters) * size + copies,
        gradients=learning * size,
        moments=wide * (2 * (learning - matrices) + matrices + narrow * learning),
        layer=layer,
        again=again,
        activations=model.layers * layer + ends,
        logits=logits_bytes(model, passed, elsewhere),
        windows=(3 if of_pairs else 2) * 8 * stages.row_count(config) * model.context,
        flops=flops(model, stages.row_count(config), config.recompute) * stages.work(config),
        reference=reference * size,
        reward=judge * size,
        rollout=stages.rollout_bytes(model, config),
    )


def _adapters(model: ModelConfig, config: TrainConfig) -> int:
    """The parameters of the adapters, which alone learn; 0 without adapters."""
    rank = config.lora if isinstance(config, FinetuneConfig) else None
    return 0 if rank is None else adapter_count(model, rank)


def shortage(plan: Plan, loaded: int = 0, there: gpu.GPU | None = None) -> str:
    """Why the device has too little memory for a step: `12.0 GiB for a step, and 8.0 GiB are free`;
    "" where there is enough, or nobody knows.

    loaded: the bytes of the plan that are in memory already.   there: a GPU that is not here
    """
    if there is not None:
        most, where = there.memory << 30, f"one {there.name} has {there.memory} GiB"
    else:
        free = memory.free(plan.training.device)
        if free is None:
            return ""
        most, where = free + loaded, f"{in_bytes(free + loaded)} are free"
    return "" if plan.memory <= most else f"{in_bytes(plan.memory)} for a step, and {where}"


def check_memory(
    model: ModelConfig,
    config: TrainConfig,
    *loaded: str,
    fix: str,
    reward: GPTClassifierConfig | None = None,
) -> None:
    """Raise InputError, with the numbers of the plan, where the free memory does not hold a step.

    loaded: which of the parts are in memory already.   fix: what the user can do.
    """
    plan = counted(model, config, reward=reward)
    if why := shortage(plan, sum(getattr(plan, kind) for kind in loaded)):
        parts = ", ".join(f"{kind} {in_bytes(size)}" for kind, size in plan.parts.items())
        raise InputError(f"too little memory: {why} ({parts})\n{fix}, or try it: --ignore-memory")


# -- counted


def flops(model: ModelConfig, rows: int, recompute: bool = False) -> float:
    """Of the matrix products, forward and backward, which is twice forward: 3 x 2 x
    (multiply-adds); 4 x 2 in layers that are computed again.

    A token of a layer meets 12 C^2 weights, and (T + 1) / 2 keys and as many values of C numbers;
    in the head, V C weights, or K C of a classifier. A token of an encoder meets all T keys, and
    one of a decoder those of the memory too.
    """
    V, T, C = model.outcomes, model.context, model.width
    keys = model.layers * (T + 1)
    if isinstance(model, EncoderDecoderConfig):
        keys += model.layers * 4 * T
    if isinstance(model, BERTConfig):
        keys += model.layers * (T - 1)
    layers = (matrix_count(model) + keys * C) * (4 / 3 if recompute else 1)
    return 6.0 * rows * T * (layers + V * C)


def activations(model: ModelConfig, config: TrainConfig) -> tuple[int, int]:
    """(bytes that each layer keeps for backward, bytes that embedding, last norm and loss keep),
    without the logits.

    A size of the traced model is a prime. So the primes that divide an array's size say which
    sizes the array has, and the array of the real model follows:

        rows x context x heads x head width x 4 bytes, of the traced model   11 x 131 x 5 x 64 x 4
        of GPT-2 with a batch of 16                                         16 x 1024 x 12 x 64 x 4
    """
    head_width = model.width // model.heads
    context = LONG if model.context > 128 else SHORT
    sizes = {ROWS: config.batch, context: model.context, HEADS: model.heads}
    width = HEADS * head_width
    if head_width not in WIDTHS or not head_width % ROWS or not head_width % HEADS:
        unit = EIGHT if head_width in WIDTHS else 1
        sizes[PART] = head_width // unit
        width = HEADS * PART * unit
    small = replace(model, vocabulary=1, context=context, heads=HEADS, width=width, layers=1)
    if model.labels:
        one: Any = {"labels": model.labels[:1]}
        small = replace(small, **one)

    def scaled(size: int) -> int:
        factor = 1 if size % ROWS == 0 else 0  # a copy of a weight is counted with the weights
        for prime, wanted in sizes.items():
            while size % prime == 0:
                size //= prime
                factor *= wanted
        return size * factor

    one, two = (
        sum(map(scaled, kept_sizes(replace(small, layers=n), config, ROWS))) for n in (1, 2)
    )
    return two - one, 2 * one - two


def logits_bytes(model: ModelConfig, config: TrainConfig, elsewhere: bool = False) -> int:
    """At the peak: a kernel has a chunk of the logits, or each logit and its gradient; the
    reference has four numbers a logit, and what was wanted in float64.
    """
    if elsewhere:
        return gpu.logits_by_kernels(model, config)
    dtype = as_dtype(config.dtype)
    examples = np.zeros((1, 1), dtype), np.zeros((1, 1), dtype), np.zeros(1, np.int64)
    x, weight, targets = (move(array, config.device) for array in examples)
    options = {"ignore_index": IGNORED, "reduction": "mean"}
    if pick("linear_cross_entropy", x, weight, targets, **options):
        return gpu.logits_by_kernels(model, config)
    kernel = pick("cross_entropy", x, targets, **options) if dtype not in NARROW else None
    wide = max(dtype.itemsize, 4)
    return config.batch * model.context * model.outcomes * (2 * wide if kernel else 4 * wide + 8)


def kept_sizes(model: ModelConfig, config: TrainConfig, rows: int) -> list[int]:
    """The bytes of each array that the graph of a loss keeps, without the parameters."""
    traced = _zero_model(model, config)
    with keyed(Key()):
        loss = traced.loss(*traced.example(rows))
    own = {id(owner(parameter.array)) for parameter in traced.parameters()}
    nodes = [node for node in reachable([loss.node]) if type(node) is Node]
    owners = [owner(array) for node in nodes for _, _, array in node.saved]
    sizes = {id(array): array.nbytes for array in owners}
    return [size for identity, size in sizes.items() if identity not in own]


def _zero_model(model: ModelConfig, config: TrainConfig) -> Any:
    """A model to trace or to time: its weights are zeros."""
    zero = KINDS[config.kind].model(model, dtype=config.dtype, device=config.device, draw=False)
    zero.recompute = config.recompute
    return zero.train()


def owner(array: Any) -> Any:
    """The array that owns the memory."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


# -- timed


def step_seconds(model: ModelConfig, config: TrainConfig) -> float:
    """Seconds of a step. A step that takes too long is timed with a smaller model, and grows with
    the FLOPs; the update grows with the parameters.
    """
    small, rows = affordable(model, config.batch, work_on(config.device))
    timed = _zero_model(small, config)
    optimizer = optimizer_of(timed, config)
    x, y = timed.example(rows)

    with arithmetic(model, config):
        learn_seconds = _seconds(lambda: gradients(timed, optimizer, x, y), config.device)
        limit = config.clip or math.inf
        update_seconds = _seconds(lambda: clipped_step(optimizer, limit), config.device)
    times = (
        config.accumulation
        * flops(model, config.batch, config.recompute)
        / flops(small, rows, config.recompute)
    )
    return learn_seconds * times + update_seconds * parameter_count(model) / parameter_count(small)


def _rollout_seconds(model: ModelConfig, config: Any) -> float:
    """Of one with a smaller model, where this takes too long."""
    small, rows = affordable(model, config.batch, work_on(config.device))
    times = flops(model, config.batch) / flops(small, rows)
    return times * stages.rollout_seconds(small, config, rows)


def work_on(device: str) -> float:
    """The FLOPs of a step that is timed, at most."""
    return WORK if device == "cpu" else WORK_ON_GPU


def affordable(model: ModelConfig, rows: int, work: float) -> tuple[ModelConfig, int]:
    """A model and a number of rows whose step takes at most `work` FLOPs: fewer rows first, then
    layers, tokens, words and heads; a narrower head last, since narrow products are slow.
    """
    head_width = model.width // model.heads
    while rows > 1 and flops(model, rows) > work:
        rows //= 2
    limits = {"layers": 1, "context": FEWEST, "vocabulary": model.width, "heads": 1}
    for name, least in limits.items():
        while getattr(model, name) > least and flops(model, rows) > work:
            fewer = max(least, getattr(model, name) // 2)
            width = fewer * head_width if name == "heads" else model.width
            model = replace(model, **{name: fewer, "width": width})
    while model.width > model.heads and flops(model, rows) > work:
        model = replace(model, heads=1, width=model.width // 2)
    return model, rows


def _seconds(work: Callable[[], Any], device: str) -> float:
    """The shortest time of some runs that last SECONDS together; on a GPU after one that compiles
    kernels.
    """
    module = array_module(device)
    if device != "cpu":
        work()
        module.cuda.Device().synchronize()
    taken: list[float] = []
    while sum(taken) < SECONDS:
        start = time.perf_counter()
        work()
        if device != "cpu":
            module.cuda.Device().synchronize()
        taken.append(time.perf_counter() - start)
    return min(taken)
