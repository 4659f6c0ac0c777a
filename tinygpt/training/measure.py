"""The loss over windows, without learning from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tensor import no_grad
from tensor.nn import evaluating
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.data.data import Data
from tinygpt.data.in_context import InContext
from tinygpt.data.windows import Examples
from tinygpt.ids import IGNORED, MASK, Ids
from tinygpt.training.step import Objective, own_loss

# what is measured on together, at most: windows, and numbers in the widest array (64 MB of logits)
MOST, LARGEST = 64, 1 << 24
ON_GPU = 8  # times as much there: small batches would be done before the next one is queued


def mean_loss(
    model: Any,
    windows: Examples,
    batch: int | None = None,
    rows: Ids | None = None,
    objective: Objective = own_loss,
) -> float:
    """The mean loss over the targets of the windows, in nats a token. Dropout is off; nothing is
    recorded.

    batch: how many windows go through the model at a time; by default as many as fit.
    rows: the numbers of the windows; all by default.
    """
    losses, targets = list[Any](), 0
    with no_grad(), evaluating():
        for x, y in batches(model, windows, batch, rows):
            losses.append(objective(model, x, y, "sum"))
            targets += int(np.count_nonzero(y != IGNORED))
    # last: a GPU that is asked for a number has no work meanwhile
    return sum(map(float, losses)) / max(targets, 1)


def wrong_share(model: Any, windows: Examples, rows: Ids | None = None) -> tuple[float, int]:
    """The share of hidden tokens for which another token is likelier, and how many are hidden."""
    wrong = hidden = 0
    with no_grad(), evaluating():
        for x, y in batches(model, windows, rows=rows):
            places = (x == MASK) & (y != IGNORED)
            answers = model(x).to("cpu").numpy().argmax(axis=-1)
            wrong += int(np.count_nonzero(answers[places] != y[places]))
            hidden += int(np.count_nonzero(places))
    return wrong / max(hidden, 1), hidden


def right_answers(model: Any, texts: InContext) -> dict[int, tuple[int, int]]:
    """How many answers are right, and how many there are, by the number of examples before. The
    answer is the likeliest token.
    """
    hits, examples = list[Any](), list[Any]()
    with no_grad(), evaluating():
        for rows in np.array_split(np.arange(len(texts)), -(-len(texts) // 64)):
            drawn = texts.drawn(rows)
            answers = model(drawn.ids[:, :-1]).to("cpu").numpy().argmax(axis=-1)
            hits.append(answers == drawn.ids[:, 1:])
            examples.append(drawn.examples[:, 1:])
    right, before = np.concatenate(hits), np.concatenate(examples)
    numbers = [int(n) for n in np.unique(before) if n != IGNORED]
    return {n: (int(right[before == n].sum()), int((before == n).sum())) for n in numbers}


def confusion(model: Any, texts: Examples, rows: Ids | None = None) -> Ids:
    """How many texts of each label (row) the classifier gives each label (column).   (K, K)"""
    labels = len(model.config.labels)
    table = np.zeros((labels, labels), np.int64)
    with no_grad(), evaluating():
        for x, y in batches(model, texts, rows=rows):
            places = y != IGNORED
            answers = model(x).to("cpu").numpy()[places].argmax(axis=-1)
            np.add.at(table, (y[places], answers), 1)
    return table


def better_p(model: Any, pairs: Examples, objective: Objective, rows: Ids | None = None) -> Any:
    """The probability of the better reply of each pair, in float64; its -ln is the pair's loss."""
    losses = list[Any]()
    with no_grad(), evaluating():
        for x, y in batches(model, pairs, rows=rows):
            losses.append(objective(model, x, y, "none").to("cpu").numpy().astype(np.float64))
    return np.exp(-np.concatenate(losses))


def batches(
    model: Any, windows: Examples, batch: int | None = None, rows: Ids | None = None
) -> Iterator[tuple[Any, Ids]]:
    """The windows with these numbers (all by default), `batch` at a time."""
    rows = np.arange(len(windows)) if rows is None else rows
    batch = batch or batch_of(model.config, windows.context, model.device)
    for start in range(0, len(rows), batch):
        yield windows[rows[start : start + batch]]


def batch_of(model: ModelConfig, context: int, device: str = "cpu") -> int:
    """How many windows to measure at a time: as many as keep each array below LARGEST."""
    times = 1 if device == "cpu" else ON_GPU
    widest = context * max(model.vocabulary, 4 * model.width)
    return max(1, min(MOST * times, LARGEST * times // widest))


def measured_rows(windows: Examples) -> Ids:
    """The windows to measure the loss on: all of them, up to a million targets; of more, evenly
    spread ones with a quarter of a million.

    A text of a million characters would else take longer to measure than to train on.
    """
    targets = len(windows) * windows.context
    return np.arange(len(windows)) if targets <= 1 << 20 else spread_rows(windows, 1 << 18)


def rows_between(data: Data, config: TrainConfig) -> Ids:
    """The windows kept back on which each measuring between two stretches of training takes place.

    A step goes forward once, and backward takes twice as long. So a stretch of E tokens takes the
    time of 3 E tokens forward, and m measured tokens take at most the share s of all the time if

        m <= 3 E s / (1 - s)

    No clock decides: the windows follow from the configuration, so a run that is repeated or
    resumed measures on the same ones.
    """
    assert data.validation is not None
    share, step = config.evaluate_share, config.batch * config.accumulation * data.windows.context
    if share == 1:
        return np.arange(len(data.validation))
    most = 3 * config.evaluate_steps * step * share / (1 - share)
    return spread_rows(data.validation, int(most))


def spread_rows(windows: Examples, targets: int) -> Ids:
    """Evenly spread windows with at most so many targets, but at least one window."""
    count = max(1, targets // windows.context)
    return np.arange(0, len(windows), -(-len(windows) // count))
