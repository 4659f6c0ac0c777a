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
from tinygpt.inside.look.gather import Look, first_outcome, weights_of, words_of
from tinygpt.inside.look.steps import Step, read, steps
from tinygpt.terminal import shown
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
# what the page says of a kind of model
SAYS: dict[str, dict[str, Any]] = {
    "gpt": {
        "kind": "a GPT of",
        "sees": "A token sees itself and what comes before it, never what comes after.",
        "example": "blocks.0.attention.weights[0, 2]",
        "lossOn": "loss on the prompt",
        "map": 0,
    },
    "gpt-classifier": {
        "kind": "a classifier of",
        "sees": "A token sees itself and what comes before it, never what comes after. So the last "
        "token alone has seen all of the text, and the label is read there.",
        "example": "blocks.0.attention.weights[0, 2]",
        "lossOn": "loss: no label is given",
        "map": 0,
    },
    "encoder-decoder": {
        "kind": "an encoder and a decoder of",
        "sees": "A token of the source sees all of the source. A token of the target, which begins "
        "with <sos>, sees itself, what comes before it in the target, and all of the source "
        "(cross-attention).",
        "example": "decoder.0.cross_attention.weights[0, 2]",
        "lossOn": "loss on the target",
        "map": -1,  # the cross-attention of the last block
    },
}


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
    config, text = look.run.model, look.text
    blocks["map ids"] = np.array(look.mapped, np.int32)
    first, keep, columns = _rows_of_snapshots(look), _rows_of_steps(look), _columns(look)
    sights = [_sight(look, i, 0 if s.shown else first, blocks) for i, s in enumerate(look.sights)]
    shown = [_step(look, step, keep, columns, blocks) for step in steps(config)]
    candidates = [sight.candidates.ravel() for sight in look.sights]
    named = np.unique(np.concatenate([look.mapped, text.ids, columns, *candidates])).tolist()
    return {
        "run": look.run.name,
        **SAYS[look.run.kind] | ({"lossOn": "loss on the answer"} if text.answer else {}),
        **fields_of(text, "given", "written", "ids", "source", "prompt"),
        "start": look.start,
        "maps": [_map(look, step) for step in look.maps],
        "words": dict(zip(named, _words(look, tokenizer, named), strict=True)),
        "labels": len(config.labels),
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


def _words(look: Look, tokenizer: Tokenizer, named: list[int]) -> list[str]:
    """Tokens, or labels, safe to show."""
    labels, count = look.run.model.labels, look.run.model.vocabulary
    words = words_of(tokenizer, [number for number in named if number < count])
    return words + [shown(labels[number - count]) for number in named if number >= count]


def _map(look: Look, step: Step) -> dict[str, Any]:
    """The choice of a map, and the places of its rows and columns in the text."""
    ends = [look.text.places(text) for text in (step.rows, step.columns)]
    rows, columns = ([places.start, places.stop] for places in ends)
    name, causal = step.part.removesuffix(": attention"), step.sees == "past"
    return {"name": name, "label": step.map, "rows": rows, "columns": columns, "causal": causal}


def fields_of(thing: object, *names: str) -> dict[str, Any]:
    """These attributes, by name."""
    return {name: getattr(thing, name) for name in names}


def _rows_of_snapshots(look: Look) -> int:
    """The first row of each map whose attention is kept for earlier weights: as many of the last
    rows are kept as fit.
    """
    most = SNAPSHOTS // (look.run.model.heads * max(1, len(look.sights) - 1))
    widths = np.zeros(len(look.text.ids) + 1, np.int64)  # of each row, of all maps together
    for step in look.maps:
        seen = weights_of(step, look.text)
        widths[: len(seen)] += seen.sum(1)
    left = widths[::-1].cumsum()[::-1]  # of a row and those after it
    return int((left <= most).argmax())


def _sight(look: Look, number: int, first: int, blocks: Blocks) -> dict[str, Any]:
    """first: the first row of each map that is kept."""
    sight = look.sights[number]
    for i, (step, weights) in enumerate(zip(look.maps, sight.attention, strict=True)):
        seen = weights_of(step, look.text)
        seen[:first] = False
        for head, shares in enumerate(weights):
            packed = shares[seen]  # row by row
            if not sight.shown:
                packed = np.round(packed * 255).astype(np.uint8)
            blocks[f"attention {number} {i} {head}"] = packed
    blocks[f"candidates {number}"] = sight.candidates
    blocks[f"probabilities {number}"] = sight.probabilities
    blocks[f"map {number}"] = sight.points
    return {"first": first, **fields_of(sight, "step", "shown", "best", "written", "loss")}


def _columns(look: Look) -> list[int]:
    """The tokens, or labels, that are columns of the logits: all, or of many the likeliest."""
    first, count = first_outcome(look.run.model), look.run.model.outcomes
    if count <= 2 * VOCABULARY:
        return list(range(first, first + count))
    likeliest = look.arrays["probabilities"].array[0].max(0)
    return sorted((first + np.argsort(-likeliest, kind="stable")[:VOCABULARY]).tolist())


def _rows_of_steps(look: Look) -> int:
    """The number of the last tokens whose rows fit."""
    row = sum(
        4 * look.arrays[step.name].array.size // len(look.text.places(step.rows))
        for step in steps(look.run.model)
        if _is_stored(step)
    )
    return max(1, min(len(look.text.ids), STEPS // max(row, 1)))


def _is_stored(step: Step) -> bool:
    return not step.like and not step.map and step.axes != "BT"


def _step(look: Look, step: Step, keep: int, columns: list[int], blocks: Blocks) -> dict[str, Any]:
    value, name = look.arrays[step.name], f"step {step.name}"
    places, across = look.text.places(step.rows), look.text.places(step.columns)
    rows, kept = len(places), len(across)
    if _is_stored(step):
        labels = first_outcome(look.run.model)
        blocks[name] = _cropped(value, step, keep, [column - labels for column in columns])
    if _is_stored(step) or step.like:
        rows, kept = blocks[name].shape[-2:]
    layout = fields_of(
        value, "source", "shape", "strides", "offset", "contiguous", "dtype", "bytes"
    )
    shown = fields_of(step, "name", "part", "title", "words", "formula", "axes", "like")
    first = {"first": places.stop - rows, "across": across.start}
    of_map = [other.name for other in look.maps].index(step.name) if step.map else None
    return {**shown, "rows": rows, "kept": kept, **first, "map": of_map, **layout}


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
