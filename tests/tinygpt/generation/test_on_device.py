"""Writing on a GPU: the same tokens as on the host. Without a GPU a stand-in decodes and draws."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import pytest

from tensor import kernels
from tensor.random import Generator
from tinygpt import GPT, GPTConfig
from tinygpt.config import SampleConfig
from tinygpt.errors import InputError
from tinygpt.generation.generate import next_logits, steps
from tinygpt.generation.sampling import draw, draws

CONFIG = GPTConfig(vocabulary=50, context=24, width=32, heads=2, layers=2)
PROMPTS = [[1, 2, 3], [7], [4, 4, 9, 30, 2]]


def new_model(**options: Any) -> GPT:
    """One whose tokens are not all equally likely."""
    model = GPT(CONFIG, generator=Generator(2), **options)
    model.token_embedding.weight.array[...] *= 20
    return model


class OnHost:
    """A writer on the host."""

    chunk = 3

    def __init__(self, rows: int, model: GPT):
        self.model, self.tokens, self.queued = model, np.zeros((6, rows), np.int32), 0
        self.sent: list[Any] = []

    def begin(self, texts: list[list[int]], draws: Any, choice: Any, capacity: int) -> None:
        assert capacity <= self.model.context
        self.texts, self.draws = [list(text) for text in texts], draws.copy()
        self.cache = self.model.new_cache(len(texts))
        temperature, top_k, top_p = choice
        self.config = SampleConfig(temperature=temperature, top_k=top_k, top_p=top_p)
        self.more(1)

    def more(self, steps: int) -> None:
        assert 0 < steps <= self.chunk
        assert len(self.sent) <= 1
        for _ in range(steps):
            logits = next_logits(self.model, self.cache, self.texts, [*range(len(self.texts))])
            generators = []
            for seed, first, _ in self.draws.tolist():
                generators.append(Generator(seed))
                generators[-1].draws = first
            tokens = draw(logits, self.config, generators)
            self.draws[:, 1] += self.draws[:, 2]
            self.tokens[self.queued % len(self.tokens)] = tokens
            self.queued += 1
            for text, token in zip(self.texts, tokens, strict=True):
                text.append(token)
        self.sent.append(self.tokens.copy())

    def take(self) -> Any:
        return self.sent.pop(0)


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[OnHost]:
    """Those that were made."""
    made: list[OnHost] = []

    def writer(model: GPT, rows: int) -> OnHost:
        made.append(OnHost(rows, model))
        return made[-1]

    monkeypatch.setattr(GPT, "writer", writer)
    return made


def texts(
    model: GPT,
    config: SampleConfig,
    generators: list[Generator],
    ends: Container[int] = (),
    **options: Any,
) -> list[list[int]]:
    """The new tokens of each prompt; a token of `ends` ends a text."""
    found: list[list[int]] = [[] for _ in PROMPTS]
    ended: Any = set() if ends else ()
    for i, step in steps(model, PROMPTS, config, generators, ended, **options):
        found[i].append(step.token)
        if step.token in ends:
            ended.add(i)
    return found


def apart() -> list[Generator]:
    return [draws(3, i) for i in range(len(PROMPTS))]


@pytest.mark.parametrize("length", [0, 1, 4, 15, 40], ids=lambda n: f"{n} tokens")
def test_the_same_tokens_within_the_context_and_past_it(length: int, writers: list[OnHost]) -> None:
    model, config = new_model(), SampleConfig(length=length, top_k=20)
    ways = [(apart(), {"with_logits": True}), (apart(), {})]
    host, device = (texts(model, config, generators, **options) for generators, options in ways)
    assert device == host
    assert list(map(len, host)) == [length] * 3
    # each generator stands where it would
    states = [[generator.state() for generator in generators] for generators, _ in ways]
    assert states[0] == states[1]
    assert len(writers) == (length > 0)
    if writers:  # the longest text fills the context
        assert writers[0].queued == min(length, CONFIG.context + 1 - 5)


def test_rows_that_end_are_left_out_and_cost_two_chunks_at_most(writers: list[OnHost]) -> None:
    model, config = new_model(), SampleConfig(length=15)
    whole = texts(model, config, apart(), with_logits=True)
    ends = {whole[0][2], whole[1][3], whole[2][1]}
    generators = apart()
    found = texts(model, config, generators, ends)
    assert found == texts(model, config, apart(), ends, with_logits=True)
    longest = max(map(len, found))
    assert longest <= 4
    assert [generator.draws & 0xFF for generator in generators] == list(map(len, found))
    assert writers[-1].queued <= longest + 2 * 3


def test_texts_go_on_when_the_one_that_fills_the_context_has_ended(writers: list[OnHost]) -> None:
    model, config = new_model(), SampleConfig(length=22)
    whole = texts(model, config, apart(), with_logits=True)
    ends = {whole[2][4]} - {*whole[0], *whole[1]}
    assert ends
    found = texts(model, config, apart(), ends)
    assert found == texts(model, config, apart(), ends, with_logits=True)
    assert writers[0].queued == 22  # by a writer alone: the longest prompt has room for 20


def test_texts_that_share_a_generator_take_turns(writers: list[OnHost]) -> None:
    model, config = new_model(), SampleConfig(length=9)
    one, other = Generator(5), Generator(5)
    assert texts(model, config, [one] * 3) == texts(model, config, [other] * 3, with_logits=True)
    assert one.draws == other.draws == 27
    assert len(writers) == 1
    # not where the end of one changes the draws of the others
    assert texts(model, config, [Generator(5)] * 3, {1}) == texts(
        model, config, [Generator(5)] * 3, {1}, with_logits=True
    )
    assert len(writers) == 1


def test_broken_logits_are_told(writers: list[OnHost], monkeypatch: pytest.MonkeyPatch) -> None:
    more = OnHost.more

    def broken(writer: OnHost, steps: int) -> None:
        more(writer, steps)
        writer.sent[-1][writer.queued - 1, 1] = -1

    monkeypatch.setattr(OnHost, "more", broken)
    with pytest.raises(InputError, match="logits are not finite"):
        texts(new_model(), SampleConfig(length=3), apart())


CHOICES: list[dict[str, Any]] = [
    {},
    {"top_k": 5},
    {"top_p": 0.8},
    {"temperature": 0.0},
    {"length": 40},
]


def tokens_of(model: GPT, count: int, config: SampleConfig) -> list[int]:
    """Those that follow so many prompts."""
    prompts = [PROMPTS[i % 3] for i in range(count)]
    generators = [draws(3, i) for i in range(count)]
    return [step.token for _, step in steps(model, prompts, config, generators)]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_gpu_writes_what_the_cpu_does(choice: dict[str, Any], gpu: str) -> None:
    """One prompt, a few, and many; past the context too."""
    config = SampleConfig(**{"length": 12, **choice})
    cpu, there = new_model(), new_model(device=gpu)
    for count in (1, 3, 11):
        assert tokens_of(cpu, count, config) == tokens_of(there, count, config)
    assert kernels.latest("generate") == ("generate_by_graph", "cuda kernel")


@pytest.mark.parametrize("count", [1, 2, 11])
def test_the_gpu_writes_with_weights_of_8_bits(count: int, gpu: str) -> None:
    """As the reference of the host does: its kernel rounds what meets 8 bits."""
    config = SampleConfig(length=12)
    found = tokens_of(new_model(device=gpu).to_int8(), count, config)
    assert kernels.latest("generate") == ("generate_by_graph", "cuda kernel")
    with kernels.off():
        assert tokens_of(new_model().to_int8(), count, config) == found
