"""The page: one file of HTML that holds its style, its scripts and all arrays, and loads nothing.

Text is data. Text is in a JSON block, where `<`, `>` and `&` are written as escapes, so no text can
end the block. The script puts the text into the page as text, never as HTML. The policy in the head
of the page allows these scripts and this style only. Arrays are in blocks of base64, little endian.
An array is decoded when it is first shown.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from tensor.recording import Value
from tinygpt.files import write_output
from tinygpt.inside.look.gather import Look, words_of
from tinygpt.inside.look.steps import Step, read, steps
from tinygpt.tokenizers import Tokenizer

# in this order
NAMES = "data colours heat tokens attention steps learning map look"
SCRIPTS = [f"{name}.js" for name in NAMES.split()]
STEPS = 6 << 20  # bytes for the arrays of the steps; of a longer text the last tokens are kept
SNAPSHOTS = 6 << 20  # bytes for the attention of earlier weights; as above
COLUMNS = 1024  # numbers of a row that are kept, at most
# columns of the logits that are kept, those of the likeliest tokens, of more than twice as many
VOCABULARY = 256

Blocks = dict[str, Any]  # name -> array


def write(look: Look, tokenizer: Tokenizer, path: Path) -> int:
    """Write the page, whole or not at all, and return its bytes. Raises InputError where the page
    cannot be written.
    """
    text = page(look, tokenizer)
    write_output(path, text, "name another file: --out FILE")
    return len(text.encode())


def page(look: Look, tokenizer: Tokenizer) -> str:
    """The text of the file."""
    blocks: Blocks = {}
    facts = safe_json(_facts(look, tokenizer, blocks))
    style, scripts = read("look.css"), list(map(read, SCRIPTS))
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; "
        f"style-src {_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    )
    data = [f'<script type="application/json" id="facts">{facts}</script>']
    data += [_block(name, array) for name, array in blocks.items()]
    parts = {
        "policy": f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "style": f"<style>{style}</style>",
        "data": "\n".join(data),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    return re.sub("<!-- (.+) -->", lambda name: parts[name[1]], read("look.html"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def safe_json(content: Any) -> str:
    """JSON that cannot end its block: ASCII, without the letters that HTML looks at."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _block(name: str, array: Any) -> str:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    text, kind = base64.b64encode(little.tobytes()).decode(), array.dtype.name
    return f'<script type="text/plain" id="array {name}" data-kind="{kind}">{text}</script>'


# -- facts, and the arrays that go with them


def _facts(look: Look, tokenizer: Tokenizer, blocks: Blocks) -> dict[str, Any]:
    config, text = look.model.config, look.text
    blocks["map ids"] = np.array(look.mapped, np.int32)
    first, keep, columns = _rows_of_snapshots(look), _rows_of_steps(look), _columns(look)
    sights = [_sight(look, i, 0 if s.shown else first, blocks) for i, s in enumerate(look.sights)]
    shown = [_step(look, step, keep, columns, blocks) for step in steps(config)]
    candidates = [sight.candidates.ravel() for sight in look.sights]
    named = np.unique(np.concatenate([look.mapped, text.ids, columns, *candidates])).tolist()
    return {
        "run": look.run.name,
        **fields_of(text, "given", "written", "ids", "prompt"),
        "start": look.start,
        "words": dict(zip(named, words_of(tokenizer, named), strict=True)),
        **fields_of(config, "layers", "heads", "width", "context", "vocabulary"),
        "parameters": sum(parameter.size for parameter in look.model.parameters()),
        "dtype": look.model.token_embedding.weight.dtype.name,
        "columns": columns,
        "steps": shown,
        "sights": sights,
        "losses": fields_of(look.losses, "steps", "losses", "validation"),
        "share": look.share,
        "whyFew": look.why_few,
    }


def fields_of(thing: object, *names: str) -> dict[str, Any]:
    """These attributes, by name."""
    return {name: getattr(thing, name) for name in names}


def _rows_of_snapshots(look: Look) -> int:
    """The first token whose attention is kept for earlier weights: as many of the last tokens are
    kept as fit.
    """
    config, T = look.model.config, len(look.text.ids)
    most = SNAPSHOTS // (config.layers * config.heads * max(1, len(look.sights) - 1))
    return next(first for first in range(T + 1) if (T - first) * (T + first + 1) // 2 <= most)


def _sight(look: Look, number: int, first: int, blocks: Blocks) -> dict[str, Any]:
    """first: the first token whose attention is kept."""
    sight = look.sights[number]
    query, key = np.tril_indices(len(look.text.ids))
    query, key = query[query >= first], key[query >= first]
    for layer, weights in enumerate(sight.attention):
        for head, shares in enumerate(weights):
            triangle = shares[query, key]
            if not sight.shown:
                triangle = np.round(triangle * 255).astype(np.uint8)
            blocks[f"attention {number} {layer} {head}"] = triangle
    blocks[f"candidates {number}"] = sight.candidates
    blocks[f"probabilities {number}"] = sight.probabilities
    blocks[f"map {number}"] = sight.points
    return {"first": first, **fields_of(sight, "step", "shown", "best", "written", "loss")}


def _columns(look: Look) -> list[int]:
    """The tokens that are columns of the logits: all, or of a large vocabulary the likeliest."""
    V = look.model.config.vocabulary
    if V <= 2 * VOCABULARY:
        return list(range(V))
    likeliest = look.arrays["probabilities"].array[0].max(0)
    return sorted(np.argsort(-likeliest, kind="stable")[:VOCABULARY].tolist())


def _rows_of_steps(look: Look) -> int:
    """The number of the last tokens whose rows fit."""
    T = len(look.text.ids)
    stored = [look.arrays[step.name] for step in steps(look.model.config) if _is_stored(step)]
    row: int = sum(4 * value.array.size // T for value in stored)
    return max(1, min(T, STEPS // max(row, 1)))


def _is_stored(step: Step) -> bool:
    return not step.like and not step.name.endswith(".weights") and step.name != "ids"


def _step(look: Look, step: Step, keep: int, columns: list[int], blocks: Blocks) -> dict[str, Any]:
    value, name = look.arrays[step.name], f"step {step.name}"
    rows = kept = len(look.text.ids)
    if _is_stored(step):
        blocks[name] = _cropped(value, step, keep, columns)
    if _is_stored(step) or step.like:
        rows, kept = keep, blocks[name].shape[-1]
    layout = fields_of(
        value, "source", "shape", "strides", "offset", "contiguous", "dtype", "bytes"
    )
    shown = fields_of(step, "name", "part", "title", "words", "formula", "axes", "like")
    return {**shown, "rows": rows, "kept": kept, **layout}


def _cropped(value: Value, step: Step, keep: int, columns: list[int]) -> Any:
    """The rows of the last tokens and the columns that can be shown, in float32.

    (H, rows, columns) or (rows, columns)
    """
    array = value.array[0] if step.axes[0] == "B" else value.array
    array = array[..., -keep:, :]
    if step.axes[-1] == "V":
        array = array[..., columns]
    elif step.axes[-1] != "S":
        array = array[..., :COLUMNS]
    return array.astype(np.float32)
