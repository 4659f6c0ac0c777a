"""Settings for known trainings: `tinygpt train --preset gpt2`. A flag that is given counts more.

The sizes are GPT-2's (Radford et al. 2019, table 2), the learning rates those of GPT-3 for such
sizes (Brown et al. 2020, table 2.1). A step is 524,288 tokens, and a training 10.5 billion.
GPT-3 itself is for `tinygpt plan` alone: a step is 3.2 million tokens, a training 300 billion.

`shakespeare` is nanoGPT's training on the works of Shakespeare, character by character, for a GPU:
its config/train_shakespeare_char.py. All validation windows are measured each time.
"""

from __future__ import annotations

from typing import Any

VOCABULARY = 50257  # of GPT-2's tokenizer
CHARACTERS = 65  # of the works of Shakespeare, as nanoGPT learns from them
COMMON: dict[str, Any] = {
    "context": 1024,
    "steps": 20_000,
    "warmup": 700,
    "beta2": 0.95,
    "snapshots": 0,
}


def _size(width: int, heads: int, layers: int, lr: float, batch: int) -> dict[str, Any]:
    shape = {"width": width, "heads": heads, "layers": layers}
    return COMMON | shape | {"lr": lr, "batch": batch, "accumulation": 512 // batch}


PRESETS = {
    "gpt2": _size(768, 12, 12, lr=6e-4, batch=32),
    "gpt2-medium": _size(1024, 16, 24, lr=3e-4, batch=16),
    "gpt2-large": _size(1280, 20, 36, lr=2.5e-4, batch=8),
    "gpt2-xl": _size(1600, 25, 48, lr=2e-4, batch=8),
    "gpt3": COMMON
    | {"context": 2048, "width": 12288, "heads": 96, "layers": 96, "lr": 6e-5}
    | {"batch": 1, "accumulation": 1562, "steps": 93_750, "warmup": 117},
    "shakespeare": {"context": 256, "width": 384, "heads": 6, "layers": 6, "dropout": 0.2}
    | {"bias": False, "batch": 64, "batches": "random", "steps": 5000, "lr": 1e-3, "warmup": 100}
    | {"evaluate": 250, "evaluate_share": 1.0},
}
PLANNED = "gpt3"  # to plan for, not to train


def vocabulary(name: str) -> int:
    """The different tokens of the text that a preset is for."""
    return CHARACTERS if name == "shakespeare" else VOCABULARY


def preset(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a preset, for what was given beside it: bfloat16 on a GPU; a warm-up of a
    tenth at the most, where the steps are chosen.
    """
    chosen = dict(PRESETS[name])
    if given.get("device", "cpu") != "cpu":
        chosen["dtype"] = "bfloat16"
    if "steps" in given:
        chosen["warmup"] = min(chosen["warmup"], given["steps"] // 10)
    return chosen
