"""A small GPT, and a tape of one pass through it and back."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensor
from tensor.recording import Recording
from tinygpt import GPT, GPTConfig

IDS = np.arange(12).reshape(2, 6) % 11


def model(device: str = "cpu", **choices: Any) -> GPT:
    options = {"vocabulary": 11, "context": 6, "width": 8, "heads": 2, "layers": 2, **choices}
    return GPT(GPTConfig(**options), generator=tensor.Generator(3), device=device)


def recorded(gpt: GPT, how: Any = "reference") -> Recording:
    gpt.zero_grad()
    with tensor.record(how) as tape:
        gpt.loss(IDS, IDS[:, ::-1].copy()).backward()
    return tape


def handed(tape: Recording) -> list[tuple[str, int, int]]:
    """Every contribution: to whom, the which, of how many."""
    return [(c.to, c.number, c.count) for e in tape.backwards for c in e.contributions]
