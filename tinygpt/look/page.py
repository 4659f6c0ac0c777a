"""The page: one file of HTML with its style, its script and all arrays in it, which asks for nothing else.

Text is data. It stands in a JSON block, where `<`, `>` and `&` are written as escapes, so no text can end the block; the script puts it
into the page as text, never as HTML; and the policy in the page's head allows no script and no style but these very ones.
Arrays stand in blocks of base64, little endian, each decoded when it is first shown.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from tensor.tape import Value
from tinygpt.console import shown
from tinygpt.errors import InputError
from tinygpt.files import write_atomically
from tinygpt.look.gather import Look, Sight, words_of
from tinygpt.look.steps import Step, steps
from tinygpt.tokenizers import Tokenizer

SCRIPTS = ("data.js", "colours.js", "heat.js", "tokens.js", "attention.js", "steps.js", "learning.js", "map.js", "look.js")  # in this order
STEPS = 6 << 20  # bytes for the arrays of the steps; where a text is longer, those of its last tokens stay
SNAPSHOTS = 6 << 20  # bytes for the attention of earlier weights; as above
COLUMNS = 1024  # numbers of a row that are kept, at most
VOCABULARY = 256  # likeliest tokens that are kept as columns of the logits, where there are more than twice as many

Blocks = dict[str, Any]  # name -> array


def write(look: Look, tokenizer: Tokenizer, path: Path) -> int:
    """Write the page, whole or not at all; the bytes it has. Raises InputError where that cannot be done."""
    text = page(look, tokenizer)
    try:
        write_atomically(path, text)
    except OSError as error:
        raise InputError(f"cannot write to {shown(path)} ({error.strerror or error})\nname another file: --output FILE") from None
    return len(text.encode())


def page(look: Look, tokenizer: Tokenizer) -> str:
    """The text of the file."""
    blocks: Blocks = {}
    facts = _facts(look, tokenizer, blocks)
    style = _file("look.css")
    scripts = [_file(name) for name in SCRIPTS]
    policy = f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src {_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    parts = {
        "policy": f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "style": f"<style>{style}</style>",
        "data": "\n".join([f'<script type="application/json" id="facts">{safe_json(facts)}</script>', *(_block(*item) for item in blocks.items())]),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    pieces = _file("look.html").split("<!--")
    return pieces[0] + "".join(parts[name.strip()] + rest for name, _, rest in (piece.partition("-->") for piece in pieces[1:]))


def _file(name: str) -> str:
    return resources.files("tinygpt.look").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def safe_json(content: Any) -> str:
    """JSON that cannot end the block it stands in: all but ASCII is escaped, and of ASCII what HTML looks at."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _block(name: str, array: Any) -> str:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return f'<script type="text/plain" id="array {name}" data-kind="{array.dtype.name}">{base64.b64encode(little.tobytes()).decode()}</script>'


# -- facts, and the arrays that go with them -----------------------------------------------------------------------------


def _facts(look: Look, tokenizer: Tokenizer, blocks: Blocks) -> dict[str, Any]:
    config, text = look.model.config, look.text
    blocks["map ids"] = np.array(look.mapped, np.int32)
    first, keep = _rows_of_snapshots(look), _rows_of_steps(look)
    sights = [_sight(look, number, sight, first, blocks) for number, sight in enumerate(look.sights)]
    columns = _columns(look)
    walked = [_step(look, step, keep, columns, blocks) for step in steps(config)]
    named = sorted({*look.mapped, *text.ids, *columns, *(int(i) for sight in look.sights for i in np.unique(sight.candidates))})
    return {
        "run": look.run.name,
        "given": text.given,
        "written": text.written,
        "ids": text.ids,
        "prompt": text.prompt,
        "start": look.start,
        "words": dict(zip(named, words_of(tokenizer, named), strict=True)),
        "layers": config.layers,
        "heads": config.heads,
        "width": config.width,
        "context": config.context,
        "vocabulary": config.vocabulary,
        "parameters": sum(parameter.size for parameter in look.model.parameters()),
        "dtype": look.model.token_embedding.weight.dtype.name,
        "columns": columns,
        "steps": walked,
        "sights": sights,
        "losses": {"steps": look.losses.steps, "losses": look.losses.losses, "validation": look.losses.validation},
        "share": look.share,
        "whyFew": look.why_few,
    }


def _rows_of_snapshots(look: Look) -> int:
    """The first token whose attention is kept for earlier weights too: all, or as many of the last as there is room for."""
    config, T = look.model.config, len(look.text.ids)
    heads = config.layers * config.heads * max(1, len(look.sights) - 1)
    room = SNAPSHOTS // heads
    return next(first for first in range(T + 1) if (T - first) * (T + first + 1) // 2 <= room)


def _sight(look: Look, number: int, sight: Sight, first: int, blocks: Blocks) -> dict[str, Any]:
    first = 0 if sight.shown else first
    T = len(look.text.ids)
    query, key = np.tril_indices(T)
    lower = query >= first
    for layer, weights in enumerate(sight.attention):
        for head in range(weights.shape[0]):
            triangle = weights[head][query[lower], key[lower]]
            blocks[f"attention {number} {layer} {head}"] = triangle if sight.shown else np.round(triangle * 255).astype(np.uint8)
    blocks[f"candidates {number}"], blocks[f"probabilities {number}"], blocks[f"map {number}"] = sight.candidates, sight.probabilities, sight.points
    return {"step": sight.step, "shown": sight.shown, "best": sight.best, "first": first, "written": sight.written, "loss": sight.loss}


def _columns(look: Look) -> list[int]:
    """The tokens that are columns of the logits: all, or of a large vocabulary the likeliest here."""
    V = look.model.config.vocabulary
    if V <= 2 * VOCABULARY:
        return list(range(V))
    likeliest = look.walked["probabilities"].array[0].max(0)
    return sorted(int(i) for i in np.argsort(-likeliest, kind="stable")[:VOCABULARY])


def _rows_of_steps(look: Look) -> int:
    """How many of the last tokens' rows fit."""
    T = len(look.text.ids)
    stored = [look.walked[step.name] for step in steps(look.model.config) if _is_stored(step)]
    row: int = sum(4 * value.array.size // T for value in stored)
    return max(1, min(T, STEPS // max(row, 1)))


def _is_stored(step: Step) -> bool:
    return not step.like and not step.name.endswith(".weights") and step.name != "ids"


def _step(look: Look, step: Step, keep: int, columns: list[int], blocks: Blocks) -> dict[str, Any]:
    value = look.walked[step.name]
    kept = len(look.text.ids)
    if _is_stored(step):
        array = blocks[f"step {step.name}"] = _cropped(value, step, keep, columns)
        kept = array.shape[-1]
    elif step.like:
        kept = blocks[f"step {step.name}"].shape[-1]
    return {
        "name": step.name,
        "part": step.part,
        "title": step.title,
        "words": step.words,
        "formula": step.formula,
        "axes": step.axes,
        "like": step.like,
        "rows": keep if _is_stored(step) or step.like else len(look.text.ids),
        "kept": kept,
        "source": value.source,
        "shape": value.shape,
        "strides": value.strides,
        "offset": value.offset,
        "contiguous": value.contiguous,
        "dtype": value.dtype,
        "bytes": value.bytes,
    }


def _cropped(value: Value, step: Step, keep: int, columns: list[int]) -> Any:
    """The rows of the last tokens, and no more columns than can be shown, in float32.   (H, rows, columns) or (rows, columns)"""
    array = value.array if step.axes[0] != "B" else value.array[0]
    array = array[..., -keep:, :]
    array = array[..., columns] if step.axes[-1] == "V" else array[..., :COLUMNS] if step.axes[-1] != "S" else array
    return array.astype(np.float32)
