"""How many questions about stories a model answers exactly: after fine-tuning all of its weights,
and after fine-tuning adapters of some rank (LoRA).

    tinygpt train --text grammar --tokenizer bpe --tokens 512 --context 128 --width 256 --heads 8 \\
        --steps 600 --optimizer muon --muon-lr 0.03 --out runs/wide
    python benchmarks/lora.py wide --ranks 8 --device cuda      # three seeds

A training is that of `tinygpt finetune RUN --data FILE --lora RANK`; rank 0 stands for all weights.
The questions are those of `--data questions`, and the same ones are kept back. A space stands
before each answer. Byte pairs have another token for a word after a space, and the stories have
that token alone: the one without a space means nothing to the base model, and the table of tokens,
which adapters leave as it is, never learns it. "merged" is the largest difference of a logit
between the model with its adapters and the merged model, as a share of the largest logit.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from tensor import no_grad
from tinygpt.config import FinetuneConfig, GPTConfig, SampleConfig
from tinygpt.data.questions import questions
from tinygpt.generation.answers import continued
from tinygpt.ids import CHAT_TOKENS
from tinygpt.model.adapters import merged
from tinygpt.model.freezing import learning
from tinygpt.runs import run as runs
from tinygpt.tokenizers import with_special
from tinygpt.training.jobs import Job, Request
from tinygpt.training.starting import fresh
from tinygpt.training.step import arithmetic, train

COLUMNS = "{:>4} {:>6} {:>6} {:>8} {:>8} {:>8}"
TOGETHER = 50  # questions that are answered together
LONGEST = 20  # tokens of an answer, at most


class Result(NamedTuple):
    """What came of a training."""

    seconds: float
    learning: float  # share of the parameters
    exact: float  # share of the answers
    merged: float


def written(base: str, seed: int, folder: Path) -> dict[str, Any]:
    """Write the questions to a file, a space before each answer: the choices that read them."""
    run, _, tokenizer = runs.load(runs.find(base))
    learned, kept = questions(seed, run.model.context, with_special(tokenizer, CHAT_TOKENS))
    path = folder / f"questions-{seed}.jsonl"
    with path.open("w") as file:
        for instruction, answer, input, later in (*learned, *kept):
            turns = [(question, f" {right}") for question, right in later]
            line = {"instruction": instruction, "answer": f" {answer}", "input": input}
            file.write(json.dumps(line | {"later": turns}) + "\n")
    return {"data": str(path), "validation": len(kept) / (len(kept) + len(learned))}


def measure(base: str, config: FinetuneConfig) -> Result:
    """Fine-tune the base run, and let it answer each question that was kept back."""
    job = fresh(Request(config, lambda vocabulary: GPTConfig(vocabulary), init=base))
    learns, whole = learning(job.model)
    with arithmetic(job.run.model, config):
        records = train(job.model, job.data.windows, config, job.optimizer)
        seconds = sum(record.seconds for record in records)
        plain = merged(job.model.eval())
        return Result(seconds, learns / whole, exact(plain, job), difference(job, plain))


def exact(model: Any, job: Job) -> float:
    """The share of answers that are right to the letter, of likeliest tokens."""
    kept: Any = job.data.validation
    config = SampleConfig(temperature=0, length=LONGEST)
    written: list[str] = []
    for start in range(0, len(kept.prompts), TOGETHER):
        found = continued(model, kept.prompts[start : start + TOGETHER], config, kept.end)
        written += map(job.data.tokenizer.decode, found)
    return float(np.mean([a == b for a, b in zip(written, kept.answers, strict=True)]))


def difference(job: Job, plain: Any) -> float:
    """Of the logits of a batch, with adapters and merged."""
    assert job.data.validation is not None
    x, _ = job.data.validation[np.arange(8)]
    with no_grad():
        logits = job.model(x).numpy()
        return float(np.abs(logits - plain(x).numpy()).max() / np.abs(logits).max())


def row(rank: int, seed: str, found: Result) -> str:
    """A line of the table."""
    seconds, learns, right, apart = found
    numbers = f"{seconds:.0f}", f"{learns:.2%}", f"{right:.1%}", f"{apart:.0e}"
    return COLUMNS.format(rank, seed, *numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("base", metavar="RUN", help="the run to start from")
    parser.add_argument("--ranks", nargs="+", type=int, default=[0, 8])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    names = "steps", "batch", "lr", "device"
    chosen: dict[str, Any] = {name: getattr(options, name) for name in names}
    chosen["weight_decay"] = 0.0
    print(COLUMNS.format("rank", "seed", "s", "learning", "exact", "merged"))
    for rank in options.ranks:
        found = []
        for seed in options.seeds:
            with TemporaryDirectory() as folder:
                data = written(options.base, seed, Path(folder))
                config = FinetuneConfig(lora=rank or None, seed=seed, **chosen, **data)
                found.append(measure(options.base, config))
            print(row(rank, str(seed), found[-1]), flush=True)
        middle = Result(*(statistics.median(column) for column in zip(*found, strict=True)))
        print(row(rank, "median", middle), flush=True)


if __name__ == "__main__":
    main()
