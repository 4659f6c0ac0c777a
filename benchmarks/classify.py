"""How many texts a fine-tuned GPT and BERT classify rightly, of stories that were kept back.

    tinygpt train --text grammar --context 256 --steps 800 --optimizer muon --out runs/gpt
    tinygpt train --task masked --text grammar --context 258 --steps 2000 --out runs/bert
    python benchmarks/classify.py gpt               # three seeds: some minutes
    python benchmarks/classify.py bert --steps 600

A training is that of `tinygpt finetune RUN --task classify`: which animal of a story is larger.
"Majority" is the share of the most frequent label among the stories kept back.
"""

from __future__ import annotations

import argparse
import statistics
from typing import NamedTuple

from tinygpt.config import FinetuneConfig, GPTConfig
from tinygpt.training.jobs import Request
from tinygpt.training.measure import confusion
from tinygpt.training.starting import fresh
from tinygpt.training.step import arithmetic, train

COLUMNS = "{:12} {:>6} {:>6} {:>6} {:>9} {:>9}"


class Result(NamedTuple):
    """What came of a training."""

    steps: int
    seconds: float
    right: float  # share of the texts kept back
    majority: float


def measure(base: str, config: FinetuneConfig) -> Result:
    """Fine-tune the base run, and let it classify each text that was kept back."""
    job = fresh(Request(config, lambda vocabulary: GPTConfig(vocabulary), init=base))
    config = job.run.training
    assert job.data.validation is not None
    with arithmetic(job.run.model, config):
        records = train(job.model, job.data.windows, config, job.optimizer)
        seconds = sum(record.seconds for record in records)
        table = confusion(job.model, job.data.validation)
    total = table.sum()
    return Result(config.steps, seconds, table.trace() / total, table.sum(1).max() / total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bases", nargs="+", metavar="RUN", help="runs to start from")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    print(COLUMNS.format("base", "seed", "steps", "s", "right", "majority"))
    for base in options.bases:
        found = []
        for seed in options.seeds:
            config = FinetuneConfig(task="classify", steps=options.steps, seed=seed)
            found.append(measure(base, config))
            print(row(base, str(seed), found[-1]), flush=True)
        middle = Result(*(statistics.median(column) for column in zip(*found, strict=True)))
        print(row(base, "median", middle), flush=True)


def row(base: str, seed: str, found: Result) -> str:
    """A line of the table."""
    steps, seconds, right, majority = found
    return COLUMNS.format(base, seed, steps, f"{seconds:.0f}", f"{right:.2%}", f"{majority:.2%}")


if __name__ == "__main__":
    main()
