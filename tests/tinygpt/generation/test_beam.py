"""Beam search: equal to a search of all texts where the beam is wide enough, equal to greedy
decoding where it is 1, and never worse than greedy decoding between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tensor import Tensor, no_grad, random
from tensor.errors import ShapeError
from tinygpt import GPT, GPTConfig, SampleConfig
from tinygpt.config import EncoderDecoderConfig
from tinygpt.errors import InputError
from tinygpt.generation.beam import Hypothesis, beam_search, penalty
from tinygpt.generation.generate import steps
from tinygpt.ids import EOS, SOS
from tinygpt.model.cache import Cache
from tinygpt.model.encoder_decoder import EncoderDecoder

SMALL: dict[str, Any] = {"vocabulary": 5, "width": 8, "heads": 2, "layers": 2, "tied": False}
SOURCES = [[3], [4, 4, 3, 3], [4, 3]]
ALL = 1 + 4 + 16 + 64 + 256 + 1024  # texts of at most 5 tokens over 5, of which one ends a text


def drawn(model: Any, seed: int) -> Any:
    """Wide matrices and small biases, so that source and text decide what comes next."""
    draws = np.random.default_rng(seed)
    with no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.1 if parameter.ndim == 1 else 0.6
            values = draws.standard_normal(parameter.shape) * spread + name.endswith("gain")
            parameter[...] = Tensor(values, dtype=parameter.dtype)
    return model.eval()


def encoder_decoder(seed: int, context: int = 5) -> Any:
    config = EncoderDecoderConfig(**SMALL, context=context, positions="learned")
    return drawn(EncoderDecoder(config, dtype="float64", draw=False), seed)


def gpt(seed: int, context: int, vocabulary: int = 5, dtype: str = "float64") -> Any:
    config = GPTConfig(**SMALL | {"vocabulary": vocabulary}, context=context)
    return drawn(GPT(config, dtype=dtype, draw=False), seed)


def all_texts(next_of: Any, prompt: Sequence[int], length: int, alpha: float) -> list[Hypothesis]:
    """Every text that ends with EOS or has `length` tokens, the best first: no cache, no beam.
    next_of: texts (N, T) -> logits (N, V)
    """
    ended, open_texts = [], {(): 0.0}
    for count in range(1, length + 1):
        texts = np.array([[*prompt, *tokens] for tokens in open_texts])
        with no_grad():
            log_p = next_of(texts).log_softmax().numpy()
        longer = {}
        for (tokens, p), row in zip(open_texts.items(), log_p, strict=True):
            longer |= {(*tokens, i): p + row[i] for i in range(len(row))}
        ends = {text for text in longer if text[-1] == EOS or count == length}
        score = penalty(count, alpha)
        ended += [Hypothesis(list(text), longer[text], longer[text] / score) for text in ends]
        open_texts = {text: p for text, p in longer.items() if text not in ends}
    return sorted(ended, key=lambda text: -text.score)


def assert_equal(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [text.tokens for text in found] == [text.tokens for text in expected]
    numbers = [[text.log_p, text.score] for text in found]
    np.testing.assert_allclose(numbers, [text[1:] for text in expected], rtol=0, atol=1e-11)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_wide_beam_is_a_search_of_all_texts(alpha: float) -> None:
    """An encoder-decoder, three sources side by side: the 20 best texts and their ln p."""
    model = encoder_decoder(6)
    prompts = [[SOS]] * 3
    found = beam_search(model.given(SOURCES), prompts, ALL, 5, EOS, best=20, alpha=alpha)
    for source, texts in zip(SOURCES, found, strict=True):
        next_of = lambda ids: model([source] * len(ids), ids)[:, -1]  # noqa: B023
        assert_equal(texts, all_texts(next_of, [SOS], 5, alpha)[:20])


@pytest.mark.parametrize("context", [3, 9])
def test_a_wide_beam_of_a_gpt(context: int) -> None:
    """Prompts of unequal length; in a context of 3 the window slides."""
    model, prompts = gpt(3, context), [[1], [3, 0, 4, 1], [4, 4]]
    found = beam_search(model, prompts, ALL, 5, EOS, best=9)
    for prompt, texts in zip(prompts, found, strict=True):
        next_of = lambda ids: model(ids[:, -context:])[:, -1]
        assert_equal(texts, all_texts(next_of, prompt, 5, 0.6)[:9])


def greedy(decoder: Any, prompts: Any, length: int) -> list[Hypothesis]:
    """The likeliest token of each step, and the ln p of all."""
    tokens: list[list[int]] = [[] for _ in prompts]
    log_p, ended = [0.0] * len(prompts), set[int]()
    config = SampleConfig(length=length, temperature=0)
    for i, step in steps(decoder, prompts, config, [random.Generator(0)] * len(prompts), ended):
        tokens[i].append(step.token)
        log_p[i] += Tensor(step.logits).log_softmax().numpy()[step.token]
        if step.token == EOS:
            ended.add(i)
    each = zip(tokens, log_p, strict=True)
    return [Hypothesis(text, p, p / penalty(len(text), 0.6)) for text, p in each]


def test_a_beam_of_one_is_greedy_and_a_wider_one_never_worse() -> None:
    """Over ten models, some of which stop early and some not, a wider beam often finds a better
    text than greedy decoding.
    """
    better = 0
    for seed in range(10, 20):
        decoder, prompts = encoder_decoder(seed, 8).given(SOURCES), [[SOS]] * 3
        if seed % 2:
            decoder, prompts = gpt(seed, 6, 9), [[1], [3, 0, 4], [4] * 4]
        alone = greedy(decoder, prompts, 8)
        found = [texts[0] for texts in beam_search(decoder, prompts, 1, 8, EOS)]
        assert_equal(found, alone)
        for width in (2, 4):
            wide = beam_search(decoder, prompts, width, 8, EOS)
            more = np.array([w[0].score - g.score for w, g in zip(wide, alone, strict=True)])
            assert more.min() >= -1e-11
            better += int((more > 1e-6).sum())
    assert better > 20


def test_kernels_follow_reordered_rows() -> None:
    """In float32 the same texts, by the kernel that decodes a GPT in one call."""
    for seed in range(3):
        wide, narrow = gpt(seed, 16, 9), gpt(seed, 16, 9, "float32")
        exact, found = (beam_search(m, [[1], [3, 0, 4]], 4, 9, EOS, best=2) for m in (wide, narrow))
        for ours, theirs in zip(found, exact, strict=True):
            assert [text.tokens for text in ours] == [text.tokens for text in theirs]
            assert np.allclose([t.log_p for t in ours], [t.log_p for t in theirs], atol=1e-4)


class Table:
    """A decoder of given probabilities of a, b and $ after each text."""

    context, device, slides = 9, "cpu", False

    def __init__(self, **p: list[float]):
        self.p = p

    def check_ids(self, ids: Any) -> Any:
        return ids

    def new_cache(self, rows: int) -> Cache:
        return Cache(GPTConfig(3, self.context, 1, 1, 1), rows, like=np.zeros(()))

    def decode(self, ids: Tensor, cache: Cache, last: bool = False) -> Tensor:
        """The keys are the tokens."""
        for row, new in zip(cache.rows, ids.tolist(), strict=True):
            cache.keys[row, 0, 0, cache.seen[row] :, 0] = new[0]
        cache.seen[cache.rows] += 1
        texts = [cache.keys[row, 0, 0, 1 : cache.seen[row], 0] for row in cache.rows]
        names = ["_" + "".join("ab"[int(token)] for token in text) for text in texts]
        return Tensor(np.log([[self.p[name]] for name in names]))


def test_a_text_that_greedy_decoding_misses() -> None:
    """The picture of the module: `b $` is likelier than all that begins with a."""
    table = Table(_=[0.5, 0.4, 0.1], _a=[0.4, 0.3, 0.3], _b=[0.05, 0.05, 0.9], _aa=[0.3, 0.3, 0.4])
    (found,) = beam_search(table, [[0]], 2, 3, end=2, best=2, alpha=0)
    assert [text.tokens for text in found] == [[1, 2], [0, 0, 2]]
    np.testing.assert_allclose([text.log_p for text in found], np.log([0.36, 0.08]))
    assert greedy(table, [[0]], 3)[0].tokens == [0, 0, 2]


def test_a_longer_text_may_still_be_better() -> None:
    """$ is the likeliest text, with 0.5. `a b $`, with 0.49, has the better score."""
    sure = 1 - 2e-9
    table = Table(_=[0.49, 0.01, 0.5], _a=[1e-9, sure, 1e-9], _ab=[1e-9, 1e-9, sure])
    table.p["_b"] = table.p["_ba"] = table.p["_bb"] = table.p["_aa"] = [0.4, 0.3, 0.3]
    ((text,),) = beam_search(table, [[0]], 2, 3, end=2)
    assert text.tokens == [0, 1, 2]
    assert np.isclose(text.score, np.log(0.49) / (8 / 6) ** 0.6)
    assert beam_search(table, [[0]], 2, 3, end=2, alpha=0)[0][0].tokens == [2]


def test_prompts_side_by_side_are_as_alone() -> None:
    model, prompts = gpt(2, 6), [[1], [3, 0, 4, 1, 2, 3, 3], [4, 4]]
    together = beam_search(model, prompts, 3, 8, EOS, best=3)
    for prompt, texts in zip(prompts, together, strict=True):
        assert_equal(texts, beam_search(model, [prompt], 3, 8, EOS, best=3)[0])
        scores = [text.score for text in texts]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(text.tokens) for text in texts}) == 3


def test_without_an_end_every_text_has_the_length() -> None:
    for texts in beam_search(gpt(2, 6), [[1], [3, 4]], 4, 7, best=4):
        assert [len(text.tokens) for text in texts] == [7] * 4
    # a text of no tokens is certain
    assert beam_search(gpt(2, 6), [[1], [3, 4]], 4, 0) == [[Hypothesis([], 0.0, 0.0)]] * 2


def test_an_encoder_decoder_stops_where_its_context_is_full() -> None:
    decoder = encoder_decoder(5, context=6).given([[3], [4]])
    found = beam_search(decoder, [[SOS], [SOS, 3, 4]], 3, 50)
    assert [len(texts[0].tokens) for texts in found] == [6, 4]


def test_what_cannot_be_searched() -> None:
    model = gpt(2, 6)
    with pytest.raises(InputError, match="the prompt is empty"):
        beam_search(model, [[]], 2, 3)
    with pytest.raises(IndexError, match="token 5 is outside"):
        beam_search(model, [[5]], 2, 3)
    with pytest.raises(InputError, match="width 0, best 1"):
        beam_search(model, [[1]], 0, 3)
    with pytest.raises(InputError, match="width 2, best 0"):
        beam_search(model, [[1]], 2, 3, best=0)
    with pytest.raises(ShapeError, match="7 tokens do not fit"):
        beam_search(encoder_decoder(5, 6).given([[3]]), [[SOS] + [3] * 6], 2, 3)
    with no_grad():
        model.head.weight[3] = np.nan
    with pytest.raises(InputError, match="not finite numbers"):
        beam_search(model, [[1]], 2, 3)
