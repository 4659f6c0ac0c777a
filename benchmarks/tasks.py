"""How many answers of an encoder-decoder are exact, on pairs of each task that were kept back.

    python benchmarks/tasks.py                          # four tasks, three seeds: some minutes
    python benchmarks/tasks.py sort dates --seeds 0

A training is that of `tinygpt train --task TASK`. "Least" is the shortest step times the number of
steps: the time of the training where no other program runs. "Exact" counts the answers that are
right to the last character, written greedily. "Baseline" counts those of an answer without a model:
the source as it is, or for phrases the source word by word, each word as that French word which
most often comes with it.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from tinygpt.commands.choices import read_choices
from tinygpt.config import SampleConfig
from tinygpt.data.pairs import Pair, Pairs
from tinygpt.data.tasks import EXAMPLES
from tinygpt.generation.answers import answers
from tinygpt.model.encoder_decoder import EncoderDecoder
from tinygpt.training.jobs import Job, Request
from tinygpt.training.starting import fresh
from tinygpt.training.step import arithmetic, train

COLUMNS = "{:10} {:>6} {:>6} {:>9} {:>9} {:>7} {:>9}"


class Result(NamedTuple):
    """What came of a training."""

    steps: int
    seconds: float
    least: float  # seconds
    exact: int
    baseline: int


def measure(task: str, seed: int) -> Result:
    """Train, and let the model answer each source that was kept back."""
    job = fresh(Request(*read_choices(argparse.Namespace(task=task, seed=seed))))
    learned, others = job.data.windows, job.data.validation
    assert isinstance(learned, Pairs)
    assert isinstance(others, Pairs)
    config = job.run.training
    with arithmetic(job.run.model, config):
        records = train(job.model, learned, config, job.optimizer)
        seconds = [record.seconds for record in records]
        written = answered(job, others.pairs)
    plain = by_word(learned.pairs, others.pairs) if task == "translate" else sources(others.pairs)
    least = min(seconds) * config.steps
    return Result(
        config.steps, sum(seconds), least, right(written, others.pairs), right(plain, others.pairs)
    )


def answered(job: Job, pairs: Sequence[Pair]) -> list[str]:
    """The likeliest answer of the model to each source, a hundred at a time."""
    assert isinstance(job.model, EncoderDecoder)
    tokenizer, config = job.data.tokenizer, SampleConfig(temperature=0, length=job.model.context)
    written: list[str] = []
    for start in range(0, len(pairs), 100):
        ids = [tokenizer.encode(pair.source) for pair in pairs[start : start + 100]]
        written += [tokenizer.decode(answer) for answer in answers(job.model, ids, config)]
    return written


def right(written: Sequence[str], pairs: Sequence[Pair]) -> int:
    """The number of answers that are the targets."""
    return sum(text == pair.target for text, pair in zip(written, pairs, strict=True))


# -- answers without a model


def sources(pairs: Sequence[Pair]) -> list[str]:
    """Each source as it is."""
    return [pair.source for pair in pairs]


def by_word(learned: Sequence[Pair], pairs: Sequence[Pair]) -> list[str]:
    """Each source word by word. The French of a word e is the word f with the greatest
    n(e, f)^2 / n(f), where n counts the pairs that hold both, or f.
    """
    together, alone = Counter[tuple[str, str]](), Counter[str]()
    for source, target in learned:
        french = set(target.replace("'", "' ").split())
        alone.update(french)
        together.update(product(set(source.split()), french))
    best: dict[str, tuple[float, str]] = {}
    for (word, french_word), count in together.items():
        score = count**2 / alone[french_word]
        best[word] = max(best.get(word, (0.0, "")), (score, french_word))
    lines = [" ".join(best[word][1] for word in pair.source.split()) for pair in pairs]
    return [line.replace("' ", "'") for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tasks", nargs="*", default=list(EXAMPLES), choices=list(EXAMPLES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    print(COLUMNS.format("task", "seed", "steps", "s", "least, s", "exact", "baseline"))
    for task in options.tasks:
        found = []
        for seed in options.seeds:
            found.append(measure(task, seed))
            print(row(task, str(seed), found[-1]), flush=True)
        middle = Result(*(statistics.median(column) for column in zip(*found, strict=True)))
        print(row(task, "median", middle), flush=True)


def row(task: str, seed: str, found: Result) -> str:
    """A line of the table."""
    steps, seconds, least, exact, baseline = found
    return COLUMNS.format(task, seed, steps, f"{seconds:.0f}", f"{least:.0f}", exact, baseline)


if __name__ == "__main__":
    main()
