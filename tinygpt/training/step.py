"""Training: the loop, and its parts. Nothing here prints or writes: each step gives a record.

    for record in train(model, Windows(ids, context), config):
        print(record.step, record.loss)

So the console, the metrics and the curve stay outside, and a debugger can step through the loop
alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from tensor import Tensor, full_like, kernels
from tensor.optim import (
    AdamW,
    LossScale,
    Muon,
    Optimizer,
    clip_gradients,
    inverse_square_root,
    warmup_cosine,
)
from tensor.random import Key, keyed
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.data.windows import Examples
from tinygpt.ids import IGNORED, Ids
from tinygpt.model.transformer import Transformer
from tinygpt.training.order import batch_rows, random_rows

# (model, x, y, reduction) -> the loss of a batch; reduction is "mean" or "sum"
Objective: TypeAlias = "Callable[[Any, Any, Ids, str], Tensor]"


def own_loss(model: Any, x: Any, y: Ids, reduction: str) -> Tensor:
    """The loss that the model defines: of a GPT, -ln p(y[b, t]) given x[b, :t+1]."""
    loss: Tensor = model.loss(x, y, reduction)
    return loss


def objective_of(config: TrainConfig) -> Objective:
    """The model's own loss, with smoothed labels where they were chosen."""
    if not config.label_smoothing:
        return own_loss
    return lambda model, x, y, reduction: model.loss(x, y, reduction, config.label_smoothing)


class StepRecord(NamedTuple):
    """The numbers of one step."""

    step: int  # from 1
    loss: float  # nats a token, the mean over this batch, before the update
    lr: float
    gradient_norm: float  # of all gradients together, before clipping
    skipped: bool  # the norm was not finite, so nothing was updated
    tokens: int  # targets in the batch
    seconds: float  # wall time of the step
    # what the loss was multiplied with for backward; None but for float16
    loss_scale: float | None = None


def optimizer_of(model: Transformer, config: TrainConfig) -> Optimizer:
    """AdamW over the model's packed parameters; or Muon for its matrices, and AdamW for the rest.
    For float16 with a loss scale.
    """
    options: dict[str, Any] = {
        "betas": (config.beta1, config.beta2),
        "weight_decay": config.weight_decay,
        "decay_embeddings": config.decay_embeddings,
    }
    optimizer: Optimizer
    if config.optimizer == "muon":
        optimizer = Muon(model, lr=config.muon_lr, adamw_lr=config.lr, **options)
    else:
        optimizer = AdamW(model, lr=config.lr, **options)
    optimizer.loss_scale = LossScale() if config.dtype == "float16" else None
    return optimizer


def train(
    model: Transformer,
    windows: Examples,
    config: TrainConfig,
    optimizer: Optimizer | None = None,
    first: int = 0,
    objective: Objective = own_loss,
) -> Iterator[StepRecord]:
    """Take the steps `first` to `config.steps` (from 0) on batches of the windows; yield a record
    after each.

    A step is a function of its number, the weights and the optimiser's state alone. The batch, the
    masks and the learning rate follow from (config, number). A step whose gradient norm is not
    finite changes nothing: one NaN in AdamW's means would stay for good.
    """
    optimizer = optimizer or optimizer_of(model, config)
    model.recompute = config.recompute
    model.train()
    for step in range(first, config.steps):
        start = time.perf_counter()
        rows = batch_rows if config.batches == "epochs" else random_rows
        x, y = windows[rows(step, config.batch * config.accumulation, len(windows), config.seed)]
        optimizer.lr = learning_rate(step, config)
        scale = optimizer.loss_scale.value if optimizer.loss_scale else None

        loss, norm = update(
            model,
            optimizer,
            x,
            y,
            config.clip or math.inf,
            config.accumulation,
            Key(config.seed, step),
            objective,
        )

        yield StepRecord(
            step + 1,
            loss,
            optimizer.lr,
            norm,
            not math.isfinite(norm),
            x.size,
            time.perf_counter() - start,
            scale,
        )


def update(
    model: Transformer,
    optimizer: Optimizer,
    x: Ids,
    y: Ids,
    clip: float,
    accumulation: int = 1,
    key: Key = Key(),  # noqa: B008 (immutable)
    objective: Objective = own_loss,
) -> tuple[float, float]:
    """One step on one batch x, y: (B, T). Returns the loss before the step and the gradient norm; a
    norm that is not finite changes nothing.

    With a loss scale, the gradients are too large by that factor until the update; the norm
    returned is the true one.
    """
    total = gradients(model, optimizer, x, y, accumulation, key, objective)
    scale = 1.0 if optimizer.loss_scale is None else optimizer.loss_scale.value
    norm = clip_gradients(optimizer, clip * scale) / scale
    if math.isfinite(norm):
        optimizer.step()
    if optimizer.loss_scale is not None:
        optimizer.loss_scale.adapt(math.isfinite(norm))
    return total, norm


def gradients(
    model: Transformer,
    optimizer: Optimizer,
    x: Ids,
    y: Ids,
    accumulation: int = 1,
    key: Key = Key(),  # noqa: B008
    objective: Objective = own_loss,
) -> float:
    """The first half of a step: forward and backward. Returns the loss; each parameter's `.grad`
    is the gradient, times the loss scale if there is one.

    accumulation: the number of parts in which the batch goes through the model. The gradients of
    the parts add up to those of the whole: the losses of a part are summed and divided by the
    targets of the whole batch, since parts may hold unequal numbers of targets that count.
    """
    optimizer.zero_grad()
    scale = 1.0 if optimizer.loss_scale is None else optimizer.loss_scale.value
    targets, total = max(int(np.count_nonzero(y != IGNORED)), 1), 0.0
    for part in np.array_split(np.arange(len(x)), accumulation):
        # a row's dropout masks follow from its number in the whole batch
        with keyed(key._replace(sample=int(part[0]))):
            if accumulation == 1:
                loss = objective(model, x, y, "mean")
            else:
                loss = objective(model, x[part], y[part], "sum") * (1 / targets)
        loss.backward(full_like(loss, scale))
        total += float(loss)
    return total


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of a step (from 0): up to the peak over the warm-up, then down half a
    cosine to the final share of the peak, or as the inverse square root of the step.

    The peak is config.lr; with Muon config.muon_lr, and the rate of AdamW's parameters follows in
    proportion.
    """
    peak = config.muon_lr if config.optimizer == "muon" else config.lr
    if config.schedule == "inverse_square_root":
        warmup = max(config.warmup_steps, 1)
        return inverse_square_root(step, width=1, warmup=warmup, scale=peak * math.sqrt(warmup))
    return warmup_cosine(
        step,
        peak=peak,
        warmup=config.warmup_steps,
        total=config.steps,
        floor=peak * config.final_lr,
    )


def threads(model: ModelConfig, config: TrainConfig) -> int | None:
    """The number of BLAS threads: 1 where the largest matrix product of a step is too small to
    share between cores, else None, as many as the machine has.

    Two threads gained nothing at B T C 4C = 8 million multiply-adds (the story), and a third at 50
    million. Where another program also wants the cores, threads that wait for each other 40 times a
    step made training twice as slow.
    """
    small = config.batch * model.context * 4 * model.width**2 < 1 << 25
    return 1 if config.device == "cpu" and small else None


@contextmanager
def arithmetic(model: ModelConfig, config: TrainConfig) -> Iterator[None]:
    """Compute as a training does: on that many BLAS threads, in TF32 if asked for, without warnings
    of NumPy, since a step that is skipped says so.
    """
    limits = threadpool_limits(threads(model, config), user_api="blas")
    products = kernels.tf32() if config.tf32 else nullcontext()
    with limits, products, np.errstate(all="ignore"):
        yield
