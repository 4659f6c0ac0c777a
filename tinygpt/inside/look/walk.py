"""One recorded pass through the model: every array from the ids to the probabilities of the next
token.

The references of all ops run, so that every intermediate exists: a fused attention never makes its
weights.
"""

from __future__ import annotations

import numpy as np

import tensor
from tensor.nn import evaluating
from tensor.recording import Forward, Value
from tinygpt.inside.arrays import value_of
from tinygpt.model.gpt import GPT

OUTPUTS = {  # of a block: the op that makes the array
    "attention_norm": "attention_norm.layer_norm",
    "qkv": "attention.qkv.linear",
    "heads": "attention.attention",
    "projection": "attention.projection.linear",
    "middle": "add",
    "feed_forward_norm": "feed_forward_norm.layer_norm",
    "feed_forward": "feed_forward.projection.linear",
    "out": "add#2",
}


def walk(model: GPT, ids: list[int]) -> dict[str, Value]:
    """name -> array, for each step of steps.py."""
    with tensor.no_grad(), evaluating(), tensor.record(implementation="reference") as recording:
        given = model.check_ids(np.array(ids))
        model(given).softmax(-1)
    entries = {entry.name: entry for entry in recording.forwards}
    embedded, last = entries["embed.add"], entries["softmax"]
    found = {"ids": value_of("y", given.array, "ids"), "embed": embedded.outputs[0]}
    found["tokens"], found["positions"] = embedded.inputs
    for i in range(model.config.layers):
        block = _block(entries, f"blocks.{i}.", model.config.activation)
        found |= {f"blocks.{i}.{name}": value for name, value in block.items()}
    return found | {
        "final_norm": entries["final_norm.layer_norm"].outputs[0],
        "logits": last.inputs[0],
        "probabilities": last.outputs[0],
    }


def _block(entries: dict[str, Forward], at: str, activation: str) -> dict[str, Value]:
    attend = entries[at + "attention.attention"]
    # variables in the source of the op, which runs again for them: (B, H, T, T) each
    variables = [moment.values for moment in attend.lines()]
    scores = next(found["scores"] for found in variables if "scores" in found)  # before the mask
    weights = next(found["weights"] for found in reversed(variables) if "weights" in found)
    made = OUTPUTS | {"activation": f"feed_forward.{activation}"}
    return {
        **dict(zip("qkv", attend.inputs, strict=False)),
        **{name: entries[at + op].outputs[0] for name, op in made.items()},
        "scores": value_of("y", scores, at + "attention.scores"),
        "weights": value_of("y", weights, at + "attention.weights"),
        "merged": entries[at + "attention.projection.linear"].inputs[0],
        "expanded": entries[at + made["activation"]].inputs[0],
    }
