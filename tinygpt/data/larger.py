"""Stories of the grammar, and which of their two animals is larger: texts with exact labels.

    Mia was a small dog. She liked the park. She met a cat named Tom. They slept ...            cat

A big animal is larger than one whose size is not told, and this one is larger than a small one. So
no word decides alone: a model has to read both sizes and to compare them. The three labels are
about as likely in what is learned from.

The stories that are measured on have two animals, with their names and sizes, whose combination no
story that is learned from has: so it is for a tenth of all combinations.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygpt.data import grammar
from tinygpt.data.labels import Example
from tinygpt.data.questions import facts
from tinygpt.data.tasks import withheld
from tinygpt.data.windows import CorpusError

LARGER = "larger"  # the name of this data
LEARNED, MEASURED = 20_000, 1_000  # stories
LEAST = 160  # characters that four stories in ten fit
SIZES = "small", "", "big"  # from small to large
NEITHER = "neither"


def larger(
    seed: int, longest: int, learned: int = LEARNED, measured: int = MEASURED
) -> tuple[list[Example], list[Example]]:
    """Stories of at most so many characters to learn from, and others to measure on. Raises
    CorpusError where few stories are so short.
    """
    if longest < LEAST:
        raise CorpusError(
            f"stories do not fit {longest} characters\nstart from a run with a --context of "
            f"{LEAST + 1} or more: 256 takes nearly all stories"
        )
    learn, measure, stories = list[Example](), list[Example](), grammar.stories(seed + (1 << 34))
    while len(learn) < learned or len(measure) < measured:
        text = next(stories).removesuffix(grammar.END)
        known = facts(text)
        if len(text) > longest or len(known.names) < 2:
            continue
        kept = withheld(f"{known.names} {known.kinds} {known.sizes}", seed)
        label = label_of(known.kinds, known.sizes)
        (measure if kept else learn).append(Example(text, label))
    return learn[:learned], measure[:measured]


def label_of(kinds: Sequence[str], sizes: Sequence[str]) -> str:
    """The kind of the larger animal of two, or `neither` where both are as large."""
    first, second = map(SIZES.index, sizes)
    return NEITHER if first == second else kinds[first < second]
