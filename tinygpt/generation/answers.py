"""Answers: what a model writes up to the token that ends an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tinygpt.config import SampleConfig
from tinygpt.generation.beam import beam_search
from tinygpt.generation.generate import Decoder, steps
from tinygpt.generation.sampling import draws
from tinygpt.ids import EOS, SOS


class Reader(Protocol):
    """A model that reads sources, and then writes."""

    def given(self, sources: Sequence[Sequence[int]]) -> Decoder:
        """What writes the targets of these sources."""


def answers(
    model: Reader, sources: Sequence[Sequence[int]], config: SampleConfig, number: int = 0
) -> list[list[int]]:
    """The ids that the model writes for each source, (S,) ids of its own length, without <sos> and
    <eos>. An answer ends after `config.length` tokens at the latest, or where the context is full.

    With `config.beam`, the best answer of a beam search, else drawn tokens: temperature 0 takes the
    likeliest. number: that of the first source, whose draws follow from it and the seed.
    """
    return continued(model.given(sources), [[SOS]] * len(sources), config, EOS, number)


def continued(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    config: SampleConfig,
    end: int,
    number: int = 0,
) -> list[list[int]]:
    """The ids that the model writes after each prompt, up to the token `end`, without it. The
    options are those of `answers`.
    """
    if config.beam is not None:
        found = beam_search(model, prompts, config.beam, config.length, end)
        return [_before(end, text.tokens) for best in found for text in best]
    generators = [draws(config.seed, number + i) for i in range(len(prompts))]
    written: list[list[int]] = [[] for _ in prompts]
    ended: set[int] = set()
    for i, step in steps(model, prompts, config, generators, ended):
        written[i].append(step.token)
        if step.token == end:
            ended.add(i)
    return [_before(end, tokens) for tokens in written]


def _before(end: int, tokens: list[int]) -> list[int]:
    return tokens[:-1] if tokens[-1:] == [end] else tokens
