"""Pictures of one text and one model, for a report: what each head looks at, and where the embeddings lie."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt.console import shown
from tinygpt.errors import InputError
from tinygpt.files import replace
from tinygpt.look.gather import Look, words_of
from tinygpt.tokenizers import Tokenizer

FORMATS = ("png", "svg", "pdf")
SHARES = ["#fffbe6", "#f3e3a1", "#c9c384", "#93a38b", "#5f8192", "#335c8d", "#143670", "#0a1744"]  # as on the page: colours.js
LONGEST = 12  # letters of a token that are shown
NAMED = 40  # tokens that can be named along an axis
FONTS = ["DejaVu Sans Mono", "DejaVu Sans"]  # matplotlib brings them; the second has letters that the first has not
LABELLED = 200  # points that can be named in the plane


def attention(look: Look, path: Path) -> None:
    """A map for each head, a row of them for each block: row t, column u, how much token t takes from token u."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm  # here: matplotlib takes longer to import than all the rest
    from matplotlib.figure import Figure

    layers, heads, words = look.model.config.layers, look.model.config.heads, [label(word) for word in look.text.words]
    named = len(words) <= NAMED
    side = min(max(1.6, 0.14 * len(words)) if named else 2.4, 50 / max(layers, heads))  # inches
    figure = Figure(figsize=(1.9 + side * heads, 0.7 + (side + 0.25) * layers), dpi=120, layout="constrained")
    grid = figure.subplots(layers, heads, squeeze=False, sharex=True, sharey=True)
    scale = LinearSegmentedColormap.from_list("shares", SHARES)
    seen = np.tri(len(words), dtype=bool)
    for block, row in enumerate(grid):
        for head, axes in enumerate(row):
            shares = np.where(seen, look.sight.attention[block][head], np.nan)  # the future is left blank
            image = axes.imshow(shares, cmap=scale, norm=PowerNorm(0.5, 0, 1), aspect="equal", interpolation="nearest")
            axes.set_title(f"block {block}, head {head}", fontsize=9)
            if named:
                _name(axes, words)
    figure.supylabel("token that looks", fontsize=10)
    figure.supxlabel("token looked at", fontsize=10)
    figure.colorbar(image, ax=grid, label="share of its attention", shrink=0.8)
    _save(figure, path, "attention")


def _name(axes: Any, words: list[str]) -> None:
    axes.set_xticks(range(len(words)), words, fontsize=7, rotation=90 if max(map(len, words)) > 1 else 0, fontfamily=FONTS)
    axes.set_yticks(range(len(words)), words, fontsize=7, fontfamily=FONTS)
    axes.tick_params(length=0)


def embeddings(look: Look, tokenizer: Tokenizer, path: Path) -> None:
    """The token embeddings in the plane in which they differ most; those of the text in colour."""
    from matplotlib.figure import Figure

    points, here = look.sight.points, set(look.text.ids)
    words = [label(word) for word in words_of(tokenizer, look.mapped)]
    figure = Figure(figsize=(7, 6), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for in_text, colour, what in ((False, "#7d8597", "other tokens"), (True, "#c2500a", "tokens of the text")):
        chosen = [i for i, token in enumerate(look.mapped) if (token in here) == in_text]
        axes.scatter(points[chosen, 0], points[chosen, 1], s=14, color=colour, alpha=0.9 if in_text else 0.5, label=what, marker="o" if in_text else "s")
        for i in chosen if len(look.mapped) <= LABELLED or in_text else []:
            axes.annotate(words[i], points[i], xytext=(4, 3), textcoords="offset points", fontsize=9, fontfamily=FONTS, color=colour)
    axes.set(xlabel="first principal component", ylabel="second", title=f"Token embeddings, in the plane that holds {look.share:.0%} of how they differ")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path, "embeddings")


def label(word: str) -> str:
    r"""A token as matplotlib takes it: `$` would begin a formula, and a space is not seen; a long one is cut."""
    word = word if len(word) <= LONGEST else word[: LONGEST - 1] + "\u2026"
    return word.replace(" ", "\u2423").replace("$", r"\$")


def _save(figure: Any, path: Path, flag: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # a letter that no font here has is drawn as a box
            figure.savefig(temporary, format=path.suffix[1:].lower())
        replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write to {shown(path)} ({error.strerror or error})\nname another file: --{flag} FILE") from None
    finally:
        with contextlib.suppress(OSError):  # a disk that takes no file gives none away either, not even one that is not there
            temporary.unlink(missing_ok=True)
