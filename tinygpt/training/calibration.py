"""How often the reply that a model prefers is the better one, and how surely the model prefers it.

    p = sigmoid(r(better) - r(worse))     the probability of the better reply
    max(p, 1 - p)                         of the preferred one, from 0.5 to 1

A model is calibrated if of all pairs that it is 80 % sure of, 80 % are ordered rightly, and so on.
Guo et al. 2017
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygpt.data.preferences import Preference
from tinygpt.data.replies import true_score
from tinygpt.files import drawing, write_picture
from tinygpt.terminal import number_of

PICTURE = "calibration.png"
BINS = 10
GUESS = 0.5
# replies, by their true score
SCORED = {1.0: "right and kind", 0.5: "right and rude", 0.0: "wrong"}


class Bin(NamedTuple):
    """The pairs that a model is about as sure of."""

    low: float  # the preferred reply's probability, from here
    high: float  # to here
    pairs: int
    sure: float  # the mean of these probabilities
    right: float  # the share that is ordered rightly

    @property
    def error(self) -> float:
        """The standard error of `right`, if the pairs are as sure as the model is."""
        return float(np.sqrt(self.sure * (1 - self.sure) / self.pairs))


def bins_of(p: Any) -> list[Bin]:
    """The bins of equal width that are not empty.   p: (N,), of each pair's better reply"""
    sure = np.maximum(p, 1 - p)
    numbers = np.minimum(((sure - GUESS) * 2 * BINS).astype(int), BINS - 1)
    edges = np.linspace(GUESS, 1, BINS + 1)
    found = []
    for i in np.unique(numbers).tolist():
        inside = numbers == i
        right = float((p[inside] > GUESS).mean())
        means = float(sure[inside].mean()), right
        found.append(Bin(edges[i], edges[i + 1], int(inside.sum()), *means))
    return found


def error_of(bins: Sequence[Bin]) -> float:
    """How far `right` is from `sure`, the mean over the pairs: the expected calibration error."""
    gaps = [abs(part.right - part.sure) * part.pairs for part in bins]
    return sum(gaps) / sum(part.pairs for part in bins)


# -- as text


def accuracy(p: Any) -> str:
    """91.2%, 456 of 500 pairs"""
    right = int((p > GUESS).sum())
    return f"{right / len(p):.1%}, {right:,} of {number_of(len(p), 'pair')}"


def report(pairs: Sequence[Preference], p: Any) -> Iterator[str]:
    """How many pairs are ordered rightly, of each kind and of each probability."""
    yield f"right       {accuracy(p)}; a guess is right in {GUESS:.0%}"
    for kind, some in kinds_of(pairs).items():
        yield f"            {accuracy(p[some])}: {kind}"
    yield ""
    yield "p of the reply that it prefers   pairs     mean    right"
    bins = bins_of(p)
    for part in bins:
        between = f"{part.low:.2f} to {part.high:.2f}"
        yield f"{between:<30} {part.pairs:>7,} {part.sure:>8.1%} {part.right:>8.1%}"
    yield f"off by      {error_of(bins):.1%}: how far right is from the mean p, over all pairs"


def kinds_of(pairs: Sequence[Preference]) -> dict[str, Any]:
    """Which pairs are of each kind: bools (N,); no kind where no rule knows the truth."""
    kinds = []
    for pair in pairs:
        if pair.answer is None:
            return {}
        better, worse = (SCORED[true_score(reply, pair.answer)] for reply in pair[1:3])
        kinds.append(f"{better} against {worse}")
    return {kind: np.array(kinds) == kind for kind in sorted(set(kinds))}


# -- as a picture


@drawing()
def draw(p: Any, name: str, path: Path) -> None:
    """Draw the bins. name: of the pairs. Raises InputError where the picture cannot be written."""
    from matplotlib.figure import Figure  # here: it takes longer to import than all the rest

    bins = bins_of(p)
    figure = Figure(figsize=(6, 6), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    above.plot((GUESS, 1), (GUESS, 1), color="grey", linestyle="--", label="calibrated")
    above.errorbar(
        [part.sure for part in bins],
        [part.right for part in bins],
        [part.error for part in bins],
        fmt="o-",
        capsize=3,
        label=f"this model: off by {error_of(bins):.1%}",
    )
    above.set(ylabel="share of pairs that it orders rightly", xlim=(GUESS - 0.01, 1.01))
    above.set_ylim(-0.02, 1.02)
    above.set_title(f"{accuracy(p)}: right\n{name}", fontsize=10, parse_math=False)
    above.legend(loc="lower right")
    below.bar(
        [part.low for part in bins],
        [part.pairs for part in bins],
        (1 - GUESS) / BINS,
        align="edge",
        edgecolor="white",
    )
    below.set(ylabel="pairs", xlabel="probability of the reply that it prefers")
    for axes in above, below:
        axes.grid(alpha=0.3)
    write_picture(figure, path, "free some space there; the run itself is saved")
