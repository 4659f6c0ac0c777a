"""The picture of learning in context: right answers by examples, the jumps, the heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import tensor
from tensor.nn import evaluating
from tinygpt.data.in_context import TASKS, InContext
from tinygpt.terminal import number_of
from tinygpt.training.jobs import Job

COLORS = {"copy": "#4477aa", "map": "#ee6677", "patterns": "#228833"}
SHOWN = 30  # tokens of the text in the picture of a head


def draw(by_task: Any, by_size: Any, job: Job, path: Path) -> None:
    """Write a PNG. job: the training of `copy` whose best head is drawn."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(12, 10))
    by_examples(axes[0, 0], by_task)
    jumps(axes[0, 1], by_size)
    heads(axes[1, 0], by_task)
    looks_at(axes[1, 1], job, by_task["copy", 2][0].scores)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def by_examples(axes: Any, by_task: Any) -> None:
    """Right answers by the number of examples; two layers solid, one layer dashed."""
    for (task, layers), results in by_task.items():
        numbers = list(results[0].shares)
        places = np.arange(len(numbers))
        shares = np.median([list(result.shares.values()) for result in results], axis=0)
        style = "o-" if layers == 2 else "o--"
        axes.plot(
            places, shares, style, color=COLORS[task], label=f"{task}, {number_of(layers, 'layer')}"
        )
        axes.set_xticks(places, [str(number) for number in numbers])
    for task, color in COLORS.items():
        axes.axhline(1 / TASKS[task].answers, color=color, linewidth=0.6, linestyle=":")
    axes.set(xlabel="examples in the text before", ylabel="right answers, unseen rules")
    axes.set_title("no weight changes; dotted: chance", loc="left")
    axes.legend()


def jumps(axes: Any, by_size: Any) -> None:
    """Right answers with 4 examples, by the step of the training."""
    widths = sorted({width for width, _ in by_size})
    for (width, layers), result in by_size.items():
        steps, shares = zip(*result.curve, strict=True)
        color = f"C{layers - 1}"
        line = 0.8 + widths.index(width)
        label = f"{number_of(layers, 'layer')} of width {width}"
        axes.plot(steps, shares, color=color, linewidth=line, label=label)
    axes.set(xlabel="step", ylabel="right answers with 4 examples")
    axes.set_title("patterns: where the ability jumps", loc="left")
    axes.legend(fontsize=8)


def heads(axes: Any, by_task: Any) -> None:
    """The score of each head, one layer beside two; seed 0."""
    rows, names = [], []
    for (task, layers), results in by_task.items():
        for layer, scores in enumerate(results[0].scores):
            rows.append(scores)
            names.append(f"{task}, layer {layer} of {layers}")
    image = axes.imshow(rows, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axes.set_yticks(np.arange(len(names)), names, fontsize=8)
    axes.set_xticks(np.arange(len(rows[0])), [f"head {i}" for i in range(len(rows[0]))])
    for y, row in enumerate(rows):
        for x, score in enumerate(row):
            color = "white" if score > 0.5 else "black"
            axes.text(x, y, f"{score:.2f}", ha="center", va="center", color=color, fontsize=8)
    axes.set_title("score of each head as an induction head", loc="left")
    axes.figure.colorbar(image, ax=axes)


def looks_at(axes: Any, job: Job, scores: Any) -> None:
    """What the best head looks at: a row for each token, a column for each token before."""
    layer, head = np.unravel_index(np.argmax(scores), scores.shape)
    texts = job.data.validation
    assert isinstance(texts, InContext)
    ids = texts.drawn(np.arange(1)).ids[:, :SHOWN]
    with tensor.no_grad(), evaluating(), tensor.record(implementation="reference") as recording:
        job.model(ids)  # type: ignore[operator]
    weights = np.asarray(recording[f"blocks.{layer}.attention.weights"])[0, head]
    letters = [job.data.tokenizer.decode([int(i)]) for i in ids[0]]
    axes.imshow(weights, vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(np.arange(SHOWN), letters, fontsize=8)
    axes.set_yticks(np.arange(SHOWN), letters, fontsize=8)
    axes.set_title(f"copy: head {head} of layer {layer} looks after the same letter", loc="left")
