"""What a GPT learns from the examples in a text: how many answers are right by the number of
examples, with one layer and with two, and when the ability comes.

    python benchmarks/in_context.py                 # 27 trainings: a quarter of an hour
    python benchmarks/in_context.py --seeds 0 --share 0.05 --out /tmp       # a quick look

Writes in_context.md and in_context.png. A training is that of `tinygpt train --task TASK`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import in_context_picture
import numpy as np

from tinygpt.commands.choices import read_choices
from tinygpt.data.in_context import TASKS, InContext
from tinygpt.data.tasks import DEFAULTS
from tinygpt.inside.induction import induction_scores
from tinygpt.model.sizes import parameter_count
from tinygpt.training.jobs import Job, Request
from tinygpt.training.measure import right_answers
from tinygpt.training.starting import fresh
from tinygpt.training.step import arithmetic, train

EXAMPLES = 0, 1, 2, 4, 8
MANY = 4  # examples for which the curves are measured
WATCHED = 200  # texts on which they are measured
GROWN = "patterns"  # the task whose models are of several sizes
WIDTHS, LAYERS = (16, 32, 64), (1, 2, 3)
SCORED = 100  # texts for the scores of heads


class Result(NamedTuple):
    """What came of a training."""

    shares: dict[int, float]  # right answers to unseen rules, by the number of examples
    scores: Any  # (layers, H): of induction heads
    by_chance: float  # the score of equal weights
    curve: list[tuple[int, float]]  # (step, right answers with MANY examples)
    parameters: int
    seconds: float  # shortest step times the steps


def measure(task: str, share: float, **chosen: Any) -> tuple[Result, Job]:
    """Train with these choices, and ask about rules that were kept back."""
    steps = max(1, int(share * DEFAULTS[task]["steps"]))
    options = argparse.Namespace(task=task, steps=steps, **chosen)
    job = fresh(Request(*read_choices(options)))
    config, texts = job.run.training, job.data.validation
    assert isinstance(texts, InContext)
    watched = InContext(task, texts.context, config.seed, job.data.tokenizer, WATCHED)
    every, curve, seconds = max(1, steps // 30), [(0, 0.0)], list[float]()
    with arithmetic(job.run.model, config):
        for record in train(job.model, job.data.windows, config, job.optimizer):
            seconds.append(record.seconds)
            if record.step % every == 0:
                right, count = right_answers(job.model, watched)[MANY]
                curve.append((record.step, right / count))
                job.model.train()
        found = right_answers(job.model, texts)
        drawn = texts.drawn(np.arange(SCORED))
        scores, chance = induction_scores(job.model, drawn.ids[:, :-1], drawn.known[:, 1:])
    shares = {n: found[n][0] / found[n][1] for n in EXAMPLES}
    size = parameter_count(job.run.model)
    return Result(shares, scores, chance, curve, size, min(seconds) * steps), job


def jump(curve: Sequence[tuple[int, float]]) -> int | None:
    """The first measured step with at least half of the answers right."""
    return next((step for step, share in curve if share >= 0.5), None)


def median(results: Sequence[Result]) -> dict[int, float]:
    """The median of the seeds, by the number of examples."""
    return {n: statistics.median(result.shares[n] for result in results) for n in EXAMPLES}


# -- the page


def page(
    by_task: dict[tuple[str, int], list[Result]], by_size: dict[tuple[int, int], Result]
) -> str:
    """The two tables, and what they say."""
    lines = [HEAD, *shares_table(by_task), MIDDLE]
    lines += size_table(by_size)
    lines.append("\n![accuracy, jumps, heads and what a head looks at](in_context.png)\n")
    return "\n".join(lines)


HEAD = """# Learning in context

Made by `python benchmarks/in_context.py`. Each text of a task draws a rule of its own, and the
answers follow from the examples in the text alone. The table has the share of right answers in
1,000 texts whose rules were kept back. No weight changes meanwhile. A row without a seed is the
median. "Induction" is the highest score of a head: its attention to the token after the earlier
occurrence of the present token. "s" is the shortest step times the steps.

| task | layers | seed | 0 examples | 1 | 2 | 4 | 8 | chance | induction | s |
|---|---|---|---|---|---|---|---|---|---|---|"""

MIDDLE = """
With one layer a head can look at a token, but not at what stands beside the token. So one layer
finds out which answers occur in the text, and guesses between them. With two layers, the first
layer tells each token which token is before it, and the second looks there. In `patterns` one
example shows three of the five letters of a circle: 60 % of the answers can be known.

In `map` two layers answer everything, but no head is an induction head by the score. With seed 0,
two heads of the second layer look one token further, at the token after the answer: with 60 % and
55 % of their attention, and equal weights would give 22 %. So a low score does not mean that a
model cannot copy.

## Size and steps

Task `patterns`, seed 0. "Jump" is the first measured step with half of the answers right, with 4
examples before.

| width | layers | parameters | jump at step | with 4 examples at the end |
|---|---|---|---|---|"""


def shares_table(by_task: dict[tuple[str, int], list[Result]]) -> list[str]:
    """A row a training, and one for the median of the seeds."""
    lines = []
    for (task, layers), results in by_task.items():
        name, chance = f"{task} | {layers}", f"{1 / TASKS[task].answers:.1%}"
        for seed, result in enumerate(results):
            cells = [f"{result.shares[n]:.1%}" for n in EXAMPLES]
            end = f"{chance} | {result.scores.max():.2f} | {result.seconds:.0f}"
            lines.append(f"| {name} | {seed} | {' | '.join(cells)} | {end} |")
        cells = [f"**{share:.1%}**" for share in median(results).values()]
        lines.append(f"| {name} | | {' | '.join(cells)} | {chance} | | |")
    return lines


def size_table(by_size: dict[tuple[int, int], Result]) -> list[str]:
    """A row a model."""
    lines = []
    for (width, layers), result in by_size.items():
        at = jump(result.curve)
        where = "none" if at is None else f"{at:,}"
        share = f"{result.shares[MANY]:.1%}"
        lines.append(f"| {width} | {layers} | {result.parameters:,} | {where} | {share} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--share", type=float, default=1.0, help="share of the steps")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    options = parser.parse_args()
    by_task: dict[tuple[str, int], list[Result]] = {}
    by_size: dict[tuple[int, int], Result] = {}
    looked: list[Job] = []
    for task in TASKS:
        for layers in (2, 1):
            for seed in options.seeds:
                result, job = measure(task, options.share, layers=layers, seed=seed)
                by_task.setdefault((task, layers), []).append(result)
                looked.append(job)
                print(task, layers, seed, result.shares, f"{result.seconds:.0f} s", flush=True)
    for width in WIDTHS:
        for layers in LAYERS:
            result, _ = measure(GROWN, options.share, width=width, layers=layers, seed=0)
            by_size[width, layers] = result
            print(width, layers, jump(result.curve), result.shares[MANY], flush=True)
    (options.out / "in_context.md").write_text(page(by_task, by_size), encoding="utf-8")
    in_context_picture.draw(by_task, by_size, looked[0], options.out / "in_context.png")


if __name__ == "__main__":
    main()
