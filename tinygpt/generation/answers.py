"""Answers: what an encoder-decoder writes for its sources, up to <eos>."""

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
    prompts, decoder = [[SOS]] * len(sources), model.given(sources)
    if config.beam is not None:
        found = beam_search(decoder, prompts, config.beam, config.length, EOS)
        return [_without_end(text.tokens) for best in found for text in best]
    generators = [draws(config.seed, number + i) for i in range(len(sources))]
    written: list[list[int]] = [[] for _ in sources]
    ended: set[int] = set()
    for i, step in steps(decoder, prompts, config, generators, ended):
        written[i].append(step.token)
        if step.token == EOS:
            ended.add(i)
    return [_without_end(tokens) for tokens in written]


def _without_end(tokens: list[int]) -> list[int]:
    return tokens[:-1] if tokens[-1:] == [EOS] else tokens
