"""Training: the loop, and its parts. Nothing here prints or writes: each step gives a record.

    for record in train(model, Windows(ids, context), config):
        print(record.step, record.loss)

So the console, the metrics and the curve stay outside, and a debugger can step through the loop
alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from tensor import Tensor, kernels
from tensor.optim import (
    AdamW,
    Captured,
    LossScale,
    Muon,
    Optimizer,
    clipped_step,
    inverse_square_root,
    warmup_cosine,
)
from tensor.random import Key, keyed
from tinygpt.config import AlignConfig, ModelConfig, RewardConfig, TrainConfig
from tinygpt.data.windows import Examples
from tinygpt.ids import IGNORED, Ids
from tinygpt.model.transformer import Transformer
from tinygpt.training.objectives.preferences import dpo_loss, reward_loss
from tinygpt.training.order import rows_of
from tinygpt.training.reading import Moment, Number, Reading

# (model, x, y, reduction) -> the loss of a batch; reduction is "mean" or "sum"
Objective: TypeAlias = "Callable[[Any, Any, Ids, str], Tensor]"


def own_loss(model: Any, x: Any, y: Ids, reduction: str) -> Tensor:
    """The loss that the model defines: of a GPT, -ln p(y[b, t]) given x[b, :t+1]."""
    loss: Tensor = model.loss(x, y, reduction)
    return loss


def objective_of(config: TrainConfig, measuring: bool = False) -> Objective:
    """The model's own loss, with smoothed labels where they were chosen and nothing is measured;
    that of pairs of replies for what learns from pairs.
    """
    if isinstance(config, RewardConfig):
        return reward_loss
    if isinstance(config, AlignConfig):
        return dpo_loss(config.beta)
    if measuring or not config.label_smoothing:
        return own_loss
    return lambda model, x, y, reduction: model.loss(x, y, reduction, config.label_smoothing)


class StepRecord:
    """The numbers of one step. Those that a GPU makes are there when it has taken the step: whoever
    asks before waits.
    """

    def __init__(self, step: int, lr: float, tokens: int, reading: Reading):
        self.step = step  # from 1
        self.lr = lr
        self.tokens = tokens  # targets in the batch
        self._reading = reading  # of the loss, the norm, and the loss scale where there is one

    @property
    def carried(self) -> dict[str, Any]:
        """What of a checkpoint's progress is new after the step, beside its number."""
        return {}

    @property
    def said(self) -> list[str]:
        """What a live line says of the step."""
        return [f"loss {self.loss:.4f}", f"lr {self.lr:.1e}", f"norm {self.gradient_norm:.2f}"]

    @property
    def ready(self) -> bool:
        """Whether the step was taken, so that nobody would wait."""
        return self._reading.ready

    @property
    def loss(self) -> float:
        """Nats a token, the mean over this batch, before the update."""
        return self._reading.floats[0]

    @property
    def gradient_norm(self) -> float:
        """Of all gradients together, before clipping."""
        return self._reading.floats[1]

    @property
    def skipped(self) -> bool:
        """Whether the norm was not finite, so that nothing was updated."""
        return not math.isfinite(self.gradient_norm)

    @property
    def loss_scale(self) -> float | None:
        """What the loss was multiplied with for backward; None but for float16."""
        scale = self._reading.floats[2:]
        return scale[0] if scale else None

    @property
    def seconds(self) -> float:
        """Wall time of the step; on a GPU, its time there."""
        return self._reading.seconds

    def as_dict(self) -> dict[str, Any]:
        """All numbers by name, as they are noted."""
        names = "step", "loss", "lr", "gradient_norm", "skipped", "tokens", "seconds", "loss_scale"
        return {name: getattr(self, name) for name in names}


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
    model: Any,  # a Transformer, or an Aligned
    windows: Examples,
    config: TrainConfig,
    optimizer: Optimizer | None = None,
    first: int = 0,
    objective: Objective = own_loss,
) -> Iterator[StepRecord]:
    """Take the steps `first` to `config.steps` (from 0) on batches of the windows; yield a record
    after each. On a GPU a step is then queued, and nothing has waited for it.

    A step is a function of its number, the weights and the optimiser's state alone. The batch, the
    masks and the learning rate follow from (config, number). A step whose gradient norm is not
    finite changes nothing: one NaN in AdamW's means would stay for good.
    """
    optimizer = optimizer or optimizer_of(model, config)
    model.recompute = config.recompute
    model.train()
    device = optimizer.flats[0].weights.device
    chosen = config.clip or math.inf, config.accumulation

    def take(x: Any, y: Ids, key: Key) -> tuple[Number, Number]:
        return update(model, optimizer, x, y, *chosen, key, objective)

    if device != "cpu":
        take = Captured(take, model, optimizer, model.check_range)
    for step in range(first, config.steps):
        start = Moment(device)
        x, y = windows[rows_of(step, config, len(windows))]
        optimizer.lr = learning_rate(step, config)
        # before the step adapts the scale
        scales = [] if optimizer.loss_scale is None else [_number(optimizer.loss_scale.tensor())]

        numbers = take(x, y, Key(config.seed, step))

        yield StepRecord(step + 1, optimizer.lr, x.size, Reading(start, *numbers, *scales))


def _number(x: Tensor) -> Number:
    """The value of a tensor on the CPU. On a GPU the tensor: to read it would wait."""
    return float(x) if x.device == "cpu" else x


def update(
    model: Any,
    optimizer: Optimizer,
    x: Any,
    y: Ids,
    clip: float,
    accumulation: int = 1,
    key: Key = Key(),  # noqa: B008 (immutable)
    objective: Objective = own_loss,
) -> tuple[Number, Number]:
    """One step on one batch: x, y: (B, T) for a model's own loss. Returns the loss before the step
    and the gradient norm; a norm that is not finite changes nothing. On a GPU both are tensors, ()
    of the device.

    With a loss scale, the gradients are too large by that factor until the update; the norm
    returned is the true one.
    """
    loss = gradients(model, optimizer, x, y, accumulation, key, objective)
    return _number(loss), clipped_step(optimizer, clip)


def gradients(
    model: Any,
    optimizer: Optimizer,
    x: Any,
    y: Ids,
    accumulation: int = 1,
    key: Key = Key(),  # noqa: B008
    objective: Objective = own_loss,
) -> Tensor:
    """The first half of a step: forward and backward. Returns the loss, (); each parameter's
    `.grad` is the gradient, times the loss scale if there is one.

    accumulation: the number of parts in which the batch goes through the model. The gradients of
    the parts add up to those of the whole: the losses of a part are summed and divided by the
    targets of the whole batch, since parts may hold unequal numbers of targets that count.
    """
    optimizer.zero_grad()
    losses = []
    whole = accumulation == 1
    rows = np.arange(len(x))
    parts = [rows] if whole else np.array_split(rows, accumulation)
    for part in parts:
        # a row's dropout masks follow from its number in the whole batch
        with keyed(key._replace(sample=int(part[0]))):
            if whole:
                loss = objective(model, x, y, "mean")
            else:
                targets = max(int(np.count_nonzero(y != IGNORED)), 1)
                loss = objective(model, x[part], y[part], "sum") * (1 / targets)
        loss.backward(_scaled_one(loss, optimizer.loss_scale))
        losses.append(loss.detach())
    return losses[0] if whole else _total(losses)


def _scaled_one(loss: Tensor, scale: LossScale | None) -> Tensor | None:
    """dL/dL times the loss scale, which nobody waits for. None, which is 1, without a scale."""
    if scale is None:
        return None
    return scale.tensor().to(dtype=loss.dtype, device=loss.device)


def _total(losses: list[Tensor]) -> Tensor:
    """The sum, in float64."""
    wide = [loss.to("float64") for loss in losses]
    return sum(wide[1:], wide[0])


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
    """Compute as a training does: on that many BLAS threads, in TF32 and with equal bits each time
    if asked for, without warnings of NumPy, since a step that is skipped says so.
    """
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(threads(model, config), user_api="blas"))
        stack.enter_context(np.errstate(all="ignore"))
        if config.tf32:
            stack.enter_context(kernels.tf32())
        if config.deterministic:
            stack.enter_context(kernels.deterministic())
        yield
