"""What a classifier says: the label of a text, and how many labels are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tensor import no_grad
from tensor.nn import evaluating
from tinygpt.data.labels import text_batch, text_ids
from tinygpt.errors import InputError
from tinygpt.files import brief
from tinygpt.ids import Ids
from tinygpt.runs.run import Run
from tinygpt.terminal import number_of, say, shown
from tinygpt.tokenizers import Tokenizer

TABLE = 12  # labels of which the table of confusions is printed, at most
CONFUSIONS = 5  # of more labels: the most frequent confusions


def say_classes(
    run: Run,
    model: Any,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    count: int = 0,
    show: Callable[[str], str] = shown,
) -> None:
    """A line for each text: the text, a tab, the likeliest label and its probability; with a count,
    so many of the likeliest labels.
    """
    for text, p in zip(texts, _probabilities(run, model, tokenizer, texts), strict=True):
        likeliest = np.argsort(-p, kind="stable")[: count or 1].tolist()
        said = "  ".join(f"{run.model.labels[i]} {p[i]:.1%}" for i in likeliest)
        say(f"{show(text)}\t{show(said)}")


def _probabilities(
    run: Run, model: Any, tokenizer: Tokenizer, texts: Sequence[str]
) -> Iterator[Any]:
    """Those of the labels, (K,), for each text. Raises InputError for a text that is empty, or that
    the context does not hold.
    """
    rows = [text_ids(tokenizer, text, run.training.base) for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if not text.strip() or len(row) > run.model.context:
            raise InputError(
                f"'{brief(text)}' has {number_of(len(row), 'token')}, and {run.name} reads 1 to "
                f"{run.model.context}, its context\ngive another text"
            )
    with no_grad(), evaluating():
        for row in rows:
            x, places = text_batch([row], run.training.base)
            logits = model(x).to(dtype="float64", device="cpu")
            yield logits.softmax().numpy()[0, places[0]]


# -- how many are right


def report(labels: Sequence[str], table: Ids) -> Iterator[str]:
    """The share of right labels beside that of the most frequent one, and which are confused.
    table: (K, K), as `confusion` counts
    """
    total, right, counts = int(table.sum()), int(np.trace(table)), table.sum(1)
    most = int(counts.argmax())
    yield f"accuracy    {right / total:.2%}, {right:,} of {number_of(total, 'text')}"
    yield (
        f"majority    {counts[most] / total:.2%}: always '{brief(labels[most])}', the most "
        "frequent label"
    )
    if len(labels) <= TABLE:
        yield from ("", "label, below; what the model says, on the right", "")
        yield from _cells(labels, table)
        return
    wrong = table * (1 - np.eye(len(labels), dtype=np.int64))
    for place in np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS].tolist():
        label, said = divmod(place, len(labels))
        if wrong[label, said]:
            yield (
                f"confused    {wrong[label, said]:,} times '{brief(labels[said])}' for "
                f"'{brief(labels[label])}'"
            )


def _cells(labels: Sequence[str], table: Ids) -> Iterator[str]:
    """The table with a row and a column for each label, and the share of each row that is right."""
    names = [brief(label) for label in labels]
    cells = [[*names, "right"]]
    for i, row in enumerate(table.tolist()):
        share = f"{row[i] / sum(row):.1%}" if sum(row) else "none"
        cells.append([*(f"{count:,}" for count in row), share])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    first = max(map(len, names))
    for name, row in zip(["", *names], cells, strict=True):
        yield "  ".join([name.ljust(first), *map(str.rjust, row, widths)])
