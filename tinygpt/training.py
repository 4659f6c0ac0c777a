"""Training: the loop, and what it is made of. Nothing here prints or writes a file: each step comes out as a record.

    for record in train(model, Windows(ids, context), config):
        print(record.step, record.loss)

So the console, the metrics and the curve stay outside, and the loop can be read, and stepped through, alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tensor import full_like, no_grad
from tensor.nn import evaluating
from tensor.optim import AdamW, LossScale, Muon, Optimizer, clip_gradients, warmup_cosine
from tensor.random import Generator, Key, keyed, philox
from tinygpt.config import GPTConfig, TrainConfig
from tinygpt.corpus import IGNORED, Ids, Windows
from tinygpt.model import GPT

EPOCHS = 1 << 32  # the draw that shuffles epoch 0: far from the draws that made the weights, which count from 0
KEPT = 1 << 22  # windows of which the order of an epoch is kept as an array, 32 MB; of more it is worked out where it is needed
SCATTER = 0xFFFFFFFE  # the word of the counter that keeps these numbers apart from those of layers, and of generators
LARGEST = 1 << 24  # numbers in the widest array of a batch that is measured on: 64 MB of logits


class StepRecord(NamedTuple):
    """What one step saw and did."""

    step: int  # from 1
    loss: float  # nats a token, the mean over this batch, before the update
    lr: float
    gradient_norm: float  # of all gradients together, before clipping
    skipped: bool  # the norm was not finite, so nothing was updated
    tokens: int  # targets in the batch
    seconds: float  # wall time of the step
    loss_scale: float | None = None  # what the loss was multiplied with for backward; None but for float16


def optimizer_of(model: GPT, config: TrainConfig) -> Optimizer:
    """AdamW over the model's packed parameters; or Muon for its matrices, and AdamW for the rest. For float16 with a loss scale."""
    betas, decay, embeddings = config.betas, config.weight_decay, config.decay_embeddings
    optimizer: Optimizer
    if config.optimizer == "muon":
        optimizer = Muon(model, lr=config.muon_lr, adamw_lr=config.lr, betas=betas, weight_decay=decay, decay_embeddings=embeddings)
    else:
        optimizer = AdamW(model, lr=config.lr, betas=betas, weight_decay=decay, decay_embeddings=embeddings)
    optimizer.loss_scale = LossScale() if config.dtype == "float16" else None
    return optimizer


def train(model: GPT, windows: Windows, config: TrainConfig, optimizer: Optimizer | None = None, first: int = 0) -> Iterator[StepRecord]:
    """Take the steps `first` to `config.steps` (from 0) on batches of the windows; yields a record after each.

    A step is a function of its number, the weights and the optimiser's state alone: its batch, masks and learning rate follow from
    (config, number). A step whose gradient norm is not finite changes nothing: one NaN in AdamW's means would stay for good.
    """
    optimizer = optimizer or optimizer_of(model, config)
    model.recompute = config.recompute
    model.train()
    for step in range(first, config.steps):
        start = time.perf_counter()
        rows = batch_rows if config.batches == "epochs" else random_rows
        x, y = windows[rows(step, config.batch * config.accumulation, len(windows), config.seed)]  # (B, T), (B, T)
        optimizer.lr = learning_rate(step, config)
        scale = optimizer.loss_scale.value if optimizer.loss_scale else None

        loss, norm = update(model, optimizer, x, y, config.clip or math.inf, config.accumulation, Key(config.seed, step))

        yield StepRecord(step + 1, loss, optimizer.lr, norm, not math.isfinite(norm), x.size, time.perf_counter() - start, scale)


def update(
    model: GPT,
    optimizer: Optimizer,
    x: Ids,
    y: Ids,
    clip: float,
    accumulation: int = 1,
    key: Key = Key(),  # noqa: B008 (immutable)
) -> tuple[float, float]:
    """One step on one batch x, y: (B, T). Returns the loss before it and the gradient norm; a norm that is not finite changes nothing.

    With the optimiser's loss scale, gradients are that many times too large until the update; the norm is the true one.
    """
    total = gradients(model, optimizer, x, y, accumulation, key)
    scale = 1.0 if optimizer.loss_scale is None else optimizer.loss_scale.value
    norm = clip_gradients(optimizer, clip * scale) / scale
    if math.isfinite(norm):
        optimizer.step()
    if optimizer.loss_scale is not None:
        optimizer.loss_scale.adapt(math.isfinite(norm))
    return total, norm


def gradients(
    model: GPT,
    optimizer: Optimizer,
    x: Ids,
    y: Ids,
    accumulation: int = 1,
    key: Key = Key(),  # noqa: B008
) -> float:
    """The first half of a step: forward and backward. Returns the loss; the gradients stand in the parameters, times the loss scale if there is one.

    accumulation: the batch goes through the model in that many parts, and their gradients add up to those of the whole: each part's
    losses are summed and divided by the targets of the whole batch, since parts may hold unequal numbers of targets that count.
    """
    optimizer.zero_grad()
    scale = 1.0 if optimizer.loss_scale is None else optimizer.loss_scale.value
    targets, total = max(int(np.count_nonzero(y != IGNORED)), 1), 0.0
    for part in np.array_split(np.arange(len(x)), accumulation):
        with keyed(key._replace(sample=int(part[0]))):  # dropout's masks are those of the rows' places in the whole batch
            loss = model.loss(x, y) if accumulation == 1 else model.loss(x[part], y[part], reduction="sum") * (1 / targets)
        loss.backward(full_like(loss, scale))
        total += float(loss)
    return total


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of a step (from 0): up to its peak over the warm-up, then down half a cosine to its final share.

    The peak is config.lr; with Muon config.muon_lr, and the rate of what is left to AdamW follows in proportion.
    """
    peak = config.muon_lr if config.optimizer == "muon" else config.lr
    return warmup_cosine(step, peak=peak, warmup=config.warmup_steps, total=config.steps, floor=peak * config.final_lr)


def batch_rows(step: int, batch: int, windows: int, seed: int) -> Ids:
    """The numbers of the windows in the batch of a step (from 0).

    All windows in a random order, then all of them in another, and so on, cut into batches: each window comes once an epoch, and
    which comes when follows from the seed alone, so that a run can go on anywhere.
    """
    epochs, places = np.divmod(np.arange(step * batch, (step + 1) * batch), windows)
    rows = np.empty_like(places)
    for epoch in range(epochs[0], epochs[-1] + 1):
        now = epochs == epoch
        rows[now] = _shuffled(epoch, windows, seed)[places[now]] if windows <= KEPT else scattered(places[now], windows, epoch, seed)
    return rows


def random_rows(step: int, batch: int, windows: int, seed: int) -> Ids:
    """The numbers of windows drawn at random, with replacement, for the batch of a step (from 0): a function of seed and step."""
    generator = Generator()
    generator.load_state({"seed": seed, "draws": EPOCHS + step})
    rows: Ids = generator.integers(0, windows, (batch,))
    return rows


@lru_cache(maxsize=2)  # a batch may reach from one epoch into the next
def _shuffled(epoch: int, windows: int, seed: int) -> Ids:
    generator = Generator()
    generator.load_state({"seed": seed, "draws": EPOCHS + epoch})
    return generator.permutation(windows)  # type: ignore[no-any-return]


def scattered(places: Ids, count: int, epoch: int, seed: int) -> Ids:
    """What stands at those places of a random order of 0 to count - 1, worked out for them alone: an order of 10^9 takes 8 GB.

    Place x + y width of a rectangle with at least `count` places goes to x + F(y) and then y + F(x), each modulo its side, and so on: each
    round can be undone, so no two places meet, whatever F is; with four rounds of a random F the order is one that cannot be told from
    random (Luby and Rackoff 1988). One that ends beyond `count`, one in sqrt(count), goes on until it does not (Black and Rogaway 2002).
    """
    width = math.isqrt(count - 1) + 1
    height = -(-count // width)
    rows = places.copy()
    out = np.ones(len(rows), dtype=bool)
    while out.any():
        y, x = np.divmod(rows[out].astype(np.uint64), np.uint64(width))
        for turn in range(0, 4, 2):
            x = (x + _noise(y, turn, epoch, seed)) % np.uint64(width)
            y = (y + _noise(x, turn + 1, epoch, seed)) % np.uint64(height)
        rows[out] = (x + y * np.uint64(width)).astype(np.int64)
        out = rows >= count
    return rows


def _noise(values: Ids, turn: int, epoch: int, seed: int) -> Ids:
    """A random number below 2^32 for each, by the counter: a function of all four."""
    words = np.uint64(turn), np.uint64(SCATTER), np.uint64(epoch)
    noise: Ids = philox((values, *words), seed)[0]
    return noise


def threads(model: GPTConfig, config: TrainConfig) -> int | None:
    """1 where the largest matrix product of a step is too small to share between cores, else None: as many as the machine has.

    Two threads gained nothing at B T C 4C = 8 million multiply-adds (the story), a third at 50 million; and where another program
    also wants the cores, threads that wait for each other 40 times a step made training twice as slow.
    """
    return 1 if config.device == "cpu" and config.batch * model.context * 4 * model.width**2 < 1 << 25 else None


def mean_loss(model: GPT, windows: Windows, batch: int, rows: Ids | None = None) -> float:
    """The mean loss over the targets of those windows, all by default; dropout off, nothing recorded. Nats a token."""
    rows = np.arange(len(windows)) if rows is None else rows
    total, targets = 0.0, 0
    with no_grad(), evaluating():
        for start in range(0, len(rows), batch):
            x, y = windows[rows[start : start + batch]]
            total += float(model.loss(x, y, reduction="sum"))
            targets += int(np.count_nonzero(y != IGNORED))
    return total / max(targets, 1)


def batch_of(model: GPTConfig, context: int) -> int:
    """How many windows to measure at a time: as many as keep each array below LARGEST."""
    return max(1, min(64, LARGEST // (context * max(model.vocabulary, 4 * model.width))))


def measured_rows(windows: Windows) -> Ids:
    """The windows to measure the loss on: all of them, up to a million targets; of more, evenly spread ones with a quarter of a million.

    A text of a million characters would else take longer to measure than to train on.
    """
    targets = len(windows) * windows.context
    return np.arange(0, len(windows), 1 if targets <= 1 << 20 else -(-targets // (1 << 18)))
