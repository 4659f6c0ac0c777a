"""A BERT on the stories of the grammar, beside n-grams that see both sides, and beside the lowest
loss of a model that sees one side.

    python benchmarks/masked.py [--steps N] [--seed N]

Two questions, on stories that no training has seen:

    as trained      12 % of the characters are hidden, and 1.5 % replaced by random ones
    one hidden      one character of a story is hidden, and all others are there

An n-gram of k + k characters counts, for each k characters before and k after, what stood between
them. It answers with what stood there most often; where it has not seen these neighbours, it asks
for k - 1 + k - 1. The floor is that of a model that sees only what comes before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from tensor import no_grad
from tensor.nn import evaluating
from tensor.random import Generator
from tinygpt import BERT, BERTConfig, TrainConfig
from tinygpt.data import grammar
from tinygpt.data.masked import MASKS, Masked, inner_context
from tinygpt.data.prepare import GRAMMAR_CHARACTERS, GRAMMAR_MEASURED
from tinygpt.ids import CLS, IGNORED, MASK, MASK_TOKENS, PAD, Ids
from tinygpt.training.step import arithmetic, train

CONTEXT = 2 + grammar.greatest_length(grammar.STORY)
VOCABULARY = len(MASK_TOKENS) + grammar.grammar_tokenizer().size
MODEL: dict[str, Any] = {
    "width": 64,
    "heads": 4,
    "layers": 3,
    "norm": "pre",
    "positions": "sinusoidal",
}
TRAINING: dict[str, Any] = {"batch": 16, "optimizer": "muon"}
LONGEST = 5  # characters on each side of an n-gram
TOGETHER = 64  # stories that go through the model at once

Batch = tuple[Ids, Ids]


def stories(characters: int, seed: int) -> grammar.StoryWindows:
    text = grammar.grammar_text(characters, seed)
    return grammar.StoryWindows(text, inner_context(CONTEXT), grammar.grammar_tokenizer())


def as_trained(masked: Masked, rows: Ids) -> Batch:
    """Masked characters; of the targets those that are hidden."""
    x, y = masked[rows]
    return x, np.where(x == MASK, y, IGNORED)


def one_hidden(windows: grammar.StoryWindows, rows: Ids, seed: int) -> Batch:
    """One character of each story hidden, of the line end or any other."""
    texts = windows.texts(rows)
    x = np.where(texts == IGNORED, PAD, texts + len(MASK_TOKENS))
    lengths = np.count_nonzero(texts != IGNORED, axis=1)
    places = np.floor(Generator(seed).uniform((len(rows),)) * lengths).astype(np.int64)
    every, y = np.arange(len(rows)), np.full_like(x, IGNORED)
    y[every, places] = x[every, places]
    x[every, places] = MASK
    return np.insert(x, 0, CLS, axis=1), np.insert(y, 0, IGNORED, axis=1)


def everything(windows: grammar.StoryWindows, rows: Ids) -> Batch:
    """Each character a target, and nothing hidden: what n-grams of one hidden character count."""
    texts = windows.texts(rows)
    x = np.where(texts == IGNORED, PAD, texts + len(MASK_TOKENS))
    y = np.where(texts == IGNORED, IGNORED, x)
    return np.insert(x, 0, CLS, axis=1), np.insert(y, 0, IGNORED, axis=1)


# -- n-grams


def neighbours(batch: Batch, k: int) -> tuple[Ids, Ids]:
    """For each target the number of its k + k neighbours, and the target."""
    x, y = batch
    around = np.pad(x, ((0, 0), (k, k)))
    numbers = np.zeros_like(x)
    for offset in [*range(k), *range(k + 1, 2 * k + 1)]:
        numbers = numbers * VOCABULARY + around[:, offset : offset + x.shape[1]]
    counts = y != IGNORED
    return numbers[counts], y[counts]


class NGram:
    """What stood most often between k + k characters."""

    def __init__(self, batches: list[Batch], k: int):
        parts = [neighbours(batch, k) for batch in batches]
        numbers, targets = (np.concatenate(column) for column in zip(*parts, strict=True))
        places, inverse = np.unique(numbers, return_inverse=True)
        pairs, counts = np.unique(inverse * VOCABULARY + targets, return_counts=True)
        order = np.argsort(counts, kind="stable")  # the most frequent one is written last
        self.places, self.k = places, k
        self.likeliest = np.zeros(len(places), np.int64)
        self.likeliest[pairs[order] // VOCABULARY] = pairs[order] % VOCABULARY

    def answer(self, batch: Batch, otherwise: Ids) -> Ids:
        """The likeliest for each target, or `otherwise` where its neighbours are new."""
        numbers, _ = neighbours(batch, self.k)
        found = np.searchsorted(self.places, numbers).clip(max=len(self.places) - 1)
        return np.where(self.places[found] == numbers, self.likeliest[found], otherwise)


def n_gram_errors(learned: list[Batch], measured: list[Batch]) -> Iterator[float]:
    """The share of wrong answers for k = 0, 1, ..., LONGEST."""
    answers = [np.zeros(np.count_nonzero(y != IGNORED), np.int64) for _, y in measured]
    for k in range(LONGEST + 1):
        gram = NGram(learned, k)
        answers = [gram.answer(batch, a) for batch, a in zip(measured, answers, strict=True)]
        wrong = [a != y[y != IGNORED] for a, (_, y) in zip(answers, measured, strict=True)]
        yield float(np.concatenate(wrong).mean())


# -- the model


def measure(model: BERT, batches: list[Batch]) -> tuple[float, float]:
    """The share of wrong answers, and the loss in nats a target."""
    wrong = targets = 0
    loss = 0.0
    with no_grad(), evaluating():
        for x, y in batches:
            counts = y != IGNORED
            wrong += int((model(x).numpy().argmax(axis=-1) != y)[counts].sum())
            loss += model.loss(x, y, "sum").item()
            targets += int(counts.sum())
    return wrong / targets, loss / targets


def trained(windows: grammar.StoryWindows, config: TrainConfig) -> BERT:
    shape = BERTConfig(VOCABULARY, CONTEXT, **MODEL)
    model = BERT(shape, generator=Generator(config.seed))
    masked, start = Masked(windows, VOCABULARY, config.seed, MASKS), time.perf_counter()
    with arithmetic(shape, config):
        for record in train(model, masked, config):
            if record.step % max(1, config.steps // 10) == 0:
                seconds = time.perf_counter() - start
                print(
                    f"step {record.step:5}   loss {record.loss:.3f}   {seconds:.0f} s", flush=True
                )
    return model


def cut(rows: int) -> list[Ids]:
    return np.array_split(np.arange(rows), -(-rows // TOGETHER))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = TrainConfig(steps=options.steps, seed=options.seed, **TRAINING)
    windows = stories(GRAMMAR_CHARACTERS, config.seed)
    others = stories(GRAMMAR_MEASURED, config.seed + (1 << 32))
    hidden = Masked(windows, VOCABULARY, config.seed + 1, LONGEST), Masked(others, VOCABULARY, 0)
    questions = {
        "as trained": (
            [as_trained(hidden[0], rows) for rows in cut(len(hidden[0]))],
            [as_trained(hidden[1], rows) for rows in cut(len(others))],
        ),
        "one hidden": (
            [everything(windows, rows) for rows in cut(len(windows))],
            [one_hidden(others, rows, int(rows[0])) for rows in cut(len(others))],
        ),
    }
    grams = {name: list(n_gram_errors(*both)) for name, both in questions.items()}
    for name, errors in grams.items():
        shares = "  ".join(f"{k}+{k} {error:.2%}" for k, error in enumerate(errors))
        print(f"{name}   wrong answers of n-grams: {shares}", flush=True)
    model = trained(windows, config)
    for name, (_, measured) in questions.items():
        error, loss = measure(model, measured)
        best, floor = min(grams[name]), grammar.floor()
        share = f": {error / best:.2f} of it" if best else ""
        print(f"{name}   wrong {error:.2%}, of the best n-gram {best:.2%}{share}")
        print(f"{name}   loss {loss:.4f} nats, the floor of one side {floor:.4f}")


if __name__ == "__main__":
    main()
