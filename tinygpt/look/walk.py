"""One pass through the model, recorded on a tape: every array on the way from ids to the probabilities of the next token.

The references of all ops run, so that every intermediate exists: a fused attention never makes its weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tensor
from tensor.layout import contiguous_strides
from tensor.nn import evaluating
from tensor.tape import Forward, Value
from tinygpt.model import GPT


def walk(model: GPT, ids: list[int]) -> dict[str, Value]:
    """name -> array, for each step of steps.py."""
    with tensor.no_grad(), evaluating(), tensor.record(implementation="reference") as tape:
        given = model.check_ids(np.array(ids))
        model(given).softmax(-1)
    entries = {entry.name: entry for entry in tape.forwards}
    last = entries["softmax"]
    embedded = entries["embed.add"]
    found = {"ids": _made("ids", given.array), "tokens": embedded.inputs[0], "positions": embedded.inputs[1], "embed": embedded.outputs[0]}
    for i in range(model.config.layers):
        found |= _block(entries, f"blocks.{i}.")
    return found | {"final_norm": entries["final_norm.layer_norm"].outputs[0], "logits": last.inputs[0], "probabilities": last.outputs[0]}


def _block(entries: dict[str, Forward], at: str) -> dict[str, Value]:
    attend = entries[at + "attention.attention"]
    projection = entries[at + "attention.projection.linear"]
    activation = next(entries[name] for name in (at + "feed_forward.gelu", at + "feed_forward.relu") if name in entries)
    scores, weights = _scores_and_weights(attend)
    return {
        at + "attention_norm": entries[at + "attention_norm.layer_norm"].outputs[0],
        at + "qkv": entries[at + "attention.qkv.linear"].outputs[0],
        **dict(zip((at + "q", at + "k", at + "v"), attend.inputs, strict=False)),
        at + "scores": _made(at + "attention.scores", scores),
        at + "weights": _made(at + "attention.weights", weights),
        at + "heads": attend.outputs[0],
        at + "merged": projection.inputs[0],
        at + "projection": projection.outputs[0],
        at + "middle": entries[at + "add"].outputs[0],
        at + "feed_forward_norm": entries[at + "feed_forward_norm.layer_norm"].outputs[0],
        at + "expanded": activation.inputs[0],
        at + "activation": activation.outputs[0],
        at + "feed_forward": entries[at + "feed_forward.projection.linear"].outputs[0],
        at + "out": entries[at + "add#2"].outputs[0],
    }


def _scores_and_weights(attend: Forward) -> tuple[Any, Any]:
    """Two variables in the source of the op, which is run again for them: the scores before the mask, and the weights.   (B, H, T, T) each"""
    moments = attend.lines()
    scores = [moment.values["scores"] for moment in moments if "scores" in moment.values]
    weights = [moment.values["weights"] for moment in moments if "weights" in moment.values]
    return scores[0], weights[-1]


def _made(source: str, array: Any) -> Value:
    """An array that was made row by row, and belongs to no op's output."""
    shape = array.shape
    return Value("y", source, shape, contiguous_strides(shape), 0, True, array.dtype.name, "cpu", array.nbytes, array)
