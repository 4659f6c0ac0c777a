"""Pictures of one text and one model, for a report: what each head looks at, and where the
embeddings lie.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinygpt.files import drawing, write_picture
from tinygpt.inside.look.gather import Look, weights_of, words_of
from tinygpt.tokenizers import Tokenizer

FORMATS = ("png", "svg", "pdf")
# as on the page: colours.js
SHARES = ["#fffbe6", "#f3e3a1", "#c9c384", "#93a38b", "#5f8192", "#335c8d", "#143670", "#0a1744"]
LONGEST = 12  # letters of a token that are shown
NAMED = 40  # tokens that can be named along an axis
# matplotlib brings them; the second has letters that the first has not
FONTS = ["DejaVu Sans Mono", "DejaVu Sans"]
LABELLED = 200  # points that can be named in the plane


@drawing()
def attention(look: Look, path: Path) -> None:
    """A map for each head, a row of maps for each block. Row t, column u: how much token t takes
    from token u.
    """
    # here: matplotlib takes longer to import than all the rest
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.figure import Figure

    maps, words = look.maps, [label(word) for word in look.text.words]
    heads = look.run.model.heads
    named = len(words) <= NAMED
    # inches
    side = min(max(1.6, 0.14 * len(words)) if named else 2.4, 50 / max(len(maps), heads))
    size = 1.9 + side * heads, 0.7 + (side + 0.25) * len(maps)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    share: Any = "row" if look.text.source else "all"  # the texts along the axes
    grid = figure.subplots(len(maps), heads, squeeze=False, sharex=share, sharey=share)
    scale, norm = LinearSegmentedColormap.from_list("shares", SHARES), PowerNorm(0.5, 0, 1)
    for (row, head), axes in np.ndenumerate(grid):
        step, weights = maps[row], look.sight.attention[row][head]
        shares = np.where(weights_of(step, look.text), weights, np.nan)  # NaN is left blank
        image = axes.imshow(shares, scale, norm, interpolation="nearest")
        name = step.map if look.text.source else f"block {step.map}"
        axes.set_title(f"{name}, head {head}", fontsize=9)
        if named:
            upright = 90 if max(map(len, words)) > 1 else 0
            font = {"fontsize": 7, "fontfamily": FONTS}
            down = [words[place] for place in look.text.places(step.rows)]
            across = [words[place] for place in look.text.places(step.columns)]
            axes.set_xticks(range(len(across)), across, rotation=upright, **font)
            axes.set_yticks(range(len(down)), down, **font)
            axes.tick_params(length=0)
    figure.supylabel("token that looks", fontsize=10)
    figure.supxlabel("token looked at", fontsize=10)
    figure.colorbar(image, ax=grid, label="share of its attention", shrink=0.8)
    write_picture(figure, path, "name another file: --attention FILE")


@drawing()
def embeddings(look: Look, tokenizer: Tokenizer, path: Path) -> None:
    """The token embeddings in the plane in which they differ most; those of the text in colour."""
    from matplotlib.figure import Figure

    points, here = look.sight.points, set(look.text.ids)
    words = [label(word) for word in words_of(tokenizer, look.mapped)]
    figure = Figure(figsize=(7, 6), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for in_text, colour, marker, alpha, what in (
        (False, "#7d8597", "s", 0.5, "other tokens"),
        (True, "#c2500a", "o", 0.9, "tokens of the text"),
    ):
        chosen = [i for i, token in enumerate(look.mapped) if (token in here) == in_text]
        x, y = points[chosen].T
        axes.scatter(x, y, 14, colour, marker=marker, alpha=alpha, label=what)
        if len(look.mapped) > LABELLED and not in_text:
            continue
        font: dict[str, Any] = {"fontsize": 9, "fontfamily": FONTS, "color": colour}
        for i in chosen:
            axes.annotate(words[i], points[i], (4, 3), textcoords="offset points", **font)
    axes.set(
        xlabel="first principal component",
        ylabel="second",
        title=f"Token embeddings, in the plane that holds {look.share:.0%} of how they differ",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    write_picture(figure, path, "name another file: --embeddings FILE")


def label(word: str) -> str:
    r"""A token as matplotlib takes it: `$` would begin a formula, and a space is invisible; a long
    token is cut.
    """
    word = word if len(word) <= LONGEST else word[: LONGEST - 1] + "\u2026"
    return word.replace(" ", "\u2423").replace("$", r"\$")
