"""From logits to tokens: which may be drawn, how often, and what the loop feeds the model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tensor import Tensor, kernels, manual_seed, random
from tinygpt import GPT, ConfigError, GPTConfig, InputError, SampleConfig
from tinygpt.generation import sampling
from tinygpt.generation.generate import steps
from tinygpt.generation.sampling import Floats, pick

P = [0.4, 0.3, 0.15, 0.1, 0.05]
LOGITS = np.log(P) + 7.0  # softmax does not see the 7


def small(device: str, **options: Any) -> GPT:
    return GPT(
        GPTConfig(5, context=4, width=8, heads=2, layers=1, **options),
        generator=random.Generator(3),
        device=device,
    )


def distribution(logits: Any, **options: Any) -> Floats:
    return sampling.distribution(logits, SampleConfig(**options))


def stream(
    model: GPT, ids: Any, length: int, generator: random.Generator | None = None, **options: Any
) -> Iterator[int]:
    """The new tokens, each as soon as it is drawn."""
    config = SampleConfig(length=length, **options)
    return (step.token for _, step in steps(model, [ids], config, [generator or random.default]))


@contextmanager
def watched() -> Iterator[list[tuple[list[int], Tensor]]]:
    """The inputs and logits of each call of a model, as they come. On a GPU the kernel that writes
    without calls is off.
    """
    calls: list[tuple[list[int], Tensor]] = []
    decode = GPT.decode

    def recorded(self: GPT, ids: Tensor, *rest: Any, **options: Any) -> Tensor:
        logits = decode(self, ids, *rest, **options)
        calls.append((ids.tolist()[0], logits))
        return logits

    with pytest.MonkeyPatch.context() as patch, kernels.off("generate"):
        patch.setattr(GPT, "decode", recorded)
        yield calls


# -- exact distributions on five tokens


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, P),
        ({"temperature": 0.5}, np.square(P) / np.square(P).sum()),
        ({"temperature": 2.0}, np.sqrt(P) / np.sqrt(P).sum()),
        ({"temperature": 0}, [1, 0, 0, 0, 0]),
        ({"temperature": 1e-300}, [1, 0, 0, 0, 0]),
        ({"top_k": 1}, [1, 0, 0, 0, 0]),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0, 0]),
        ({"top_k": 5}, P),
        ({"top_k": 99}, P),
        ({"top_p": 0.7}, [4 / 7, 3 / 7, 0, 0, 0]),  # 0.4 + 0.3 reaches 0.7
        ({"top_p": 0.71}, [8 / 17, 6 / 17, 3 / 17, 0, 0]),
        ({"top_p": 0.4}, [1, 0, 0, 0, 0]),
        ({"top_p": 1e-9}, [1, 0, 0, 0, 0]),  # at least one
        ({"top_p": 1.0}, P),
        # of the four, the first two have 0.7 / 0.95 = 0.737
        ({"top_k": 4, "top_p": 0.75}, [8 / 17, 6 / 17, 3 / 17, 0, 0]),
        # 0.16 and 0.09 of 0.285 are 0.877
        ({"temperature": 0.5, "top_p": 0.87}, [16 / 25, 9 / 25, 0, 0, 0]),
    ],
)
def test_bug_62_exact_distributions(options: dict[str, Any], expected: list[float]) -> None:
    p = distribution(LOGITS, **options)
    np.testing.assert_allclose(p, expected, rtol=1e-12)
    assert np.array_equal(p == 0, np.equal(expected, 0))  # what is left out cannot be drawn at all


def test_bug_62_order_of_the_tokens_does_not_matter() -> None:
    order = [3, 0, 4, 2, 1]
    np.testing.assert_allclose(
        distribution(LOGITS[order], top_k=3), (np.array([8, 6, 3, 0, 0]) / 17)[order], rtol=1e-12
    )


@pytest.mark.parametrize(
    ("logits", "options", "kept"),
    [
        ([1, 2, 2, 2, 0], {"top_k": 2}, [1, 2]),
        ([2, 1, 1, 1, 1], {"top_k": 3}, [0, 1, 2]),
        ([0, 0, 0, 0, 0], {"top_k": 4}, [0, 1, 2, 3]),
        ([0, 0, 0, 0, 0], {"top_p": 0.4}, [0, 1]),
        ([0, 0, 0, 0, 0], {"top_p": 0.41}, [0, 1, 2]),
        ([0, 3, 1, 3, 3], {"temperature": 0}, [1]),
    ],
)
def test_bug_62_ties_keep_exactly_k_lowest_ids_first(
    logits: list[float], options: dict[str, Any], kept: list[int]
) -> None:
    assert np.flatnonzero(distribution(logits, **options)).tolist() == kept


def test_logits_of_any_size() -> None:
    assert distribution([1e4, -1e4, 0, 0, 0]).tolist() == [1, 0, 0, 0, 0]
    assert distribution([-np.inf, 0, -np.inf, 0, -np.inf], top_k=4).tolist() == [0, 0.5, 0, 0.5, 0]
    for broken in (np.nan, np.inf):
        with pytest.raises(InputError, match="not finite"):
            distribution([0.0, broken])
    with pytest.raises(InputError, match="not finite"):
        distribution([-np.inf, -np.inf])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1}, "temperature -1"),
        ({"top_k": 0}, "top_k 0"),
        ({"top_p": 0.0}, "top_p 0"),
        ({"top_p": 1.5}, "top_p 1.5"),
        ({"temperature": math.nan}, "nan"),
    ],
)
def test_impossible_options(options: dict[str, Any], words: str, device: str) -> None:
    with pytest.raises(ConfigError, match=words):
        distribution(LOGITS, **options)
    with pytest.raises(ConfigError, match=words):
        stream(small(device), [0], 1, **options)  # at once, not at the first token


# -- draws


def chi_squared(counts: Any, p: Any) -> float:
    expected = np.asarray(p) * np.sum(counts)
    assert not np.any(np.asarray(counts)[expected == 0])
    used = expected > 0
    return float(np.sum((np.asarray(counts)[used] - expected[used]) ** 2 / expected[used]))


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}, {"top_k": 3}, {"top_p": 0.8}])
def test_bug_62_frequencies_of_draws(options: dict[str, Any]) -> None:
    p = distribution(LOGITS, **options)
    generator = random.Generator(11)
    counts = np.bincount([pick(p, generator) for _ in range(2000)], minlength=5)
    assert chi_squared(counts, p) < 18.5  # exceeded by chance once in 1000 at 4 degrees of freedom


def test_bug_62_frequencies_of_generated_tokens(device: str) -> None:
    """End to end: the token after a prompt is drawn as often as the model's softmax says, which
    nothing flattens or sharpens again.
    """
    model = small(device)
    model.token_embedding.weight.array[...] *= 60  # a distribution far from uniform
    logits = model([1, 2]).numpy()[0, -1].astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum()
    assert p.max() > 0.4
    generator = random.Generator(5)
    counts = np.bincount(
        [next(stream(model, [1, 2], 1, generator)) for _ in range(400)], minlength=5
    )
    assert chi_squared(counts, p) < 18.5


def test_pick_never_takes_what_has_no_probability() -> None:
    class Fixed(random.Generator):
        value = 0.0

        def uniform(self, *_: Any) -> Any:
            return self.value

    generator = Fixed()
    for value, token in ((0.0, 1), (0.4999, 1), (0.5, 3), (1 - 2**-53, 3)):
        generator.value = value
        assert pick(np.array([0, 0.5, 0, 0.5, 0]), generator) == token


def test_draws_follow_from_the_generator(device: str) -> None:
    model = small(device)
    first, again, other = (
        model.generate([0], 12, generator=random.Generator(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other
    manual_seed(4)
    first = model.generate([0], 12)
    manual_seed(4)
    assert model.generate([0], 12) == first


# -- the loop


def test_generate_returns_prompt_and_continuation(device: str) -> None:
    model = small(device)
    for ids in ([2, 0], np.array([2, 0], dtype=np.uint16), Tensor([2, 0], device=device)):
        out = model.generate(ids, 3, temperature=0)
        assert len(out) == 5
        assert out[:2] == [2, 0]
        assert all(type(i) is int for i in out)
    assert model.generate([2, 0], 0) == [2, 0]
    assert list(stream(model, [2, 0], 3, temperature=0)) == out[2:]


def test_temperature_zero_takes_the_likeliest(device: str) -> None:
    model = small(device)
    tokens = [1]
    for _ in range(6):
        tokens.append(int(model(tokens[-4:]).numpy()[0, -1].argmax()))
    assert model.generate([1], 6, temperature=0) == tokens


def test_stream_computes_one_token_at_a_time(device: str) -> None:
    with watched() as calls:
        tokens = stream(small(device), [0, 1], 4)
        assert len(calls) == 0
        next(tokens)
        assert len(calls) == 1
        next(tokens)
        assert len(calls) == 2


@pytest.mark.parametrize("length", [4, 5, 9])
def test_bug_63_prompt_of_the_context_and_longer(length: int, device: str) -> None:
    """The window is the last `context` tokens, at the positions 0 to context - 1; the first and any
    but the last do not matter.
    """
    model = small(device)
    prompt = [(3 * i * i + i) % 5 for i in range(length)]
    with watched() as calls:
        out = model.generate(prompt, 3, temperature=0)
    assert len(out) == length + 3
    assert [ids for ids, _ in calls] == [out[max(0, length + i - 4) : length + i] for i in range(3)]


def test_bug_63_empty_prompt(device: str) -> None:
    model = small(device)
    nothing = np.zeros(0, dtype=np.int64)
    for empty in (nothing.tolist(), nothing, Tensor(nothing, device=device)):
        with pytest.raises(InputError, match="prompt is empty"):
            model.generate(empty, 3)


def test_wrong_prompts(device: str) -> None:
    model = small(device)
    with pytest.raises(InputError, match=r"shape \(1, 2\)"):
        stream(model, [[0, 1]], 3)
    with pytest.raises(InputError, match="length -1"):
        model.generate([0], -1)
    with pytest.raises(IndexError, match="token 5"):
        stream(model, [0, 5], 3)


def test_bug_47_generate_without_dropout_restores_the_mode(device: str) -> None:
    model = small(device, dropout=0.5).train()
    model.blocks[0].attention.eval()  # a mixture, to come back as it was
    modes = [module.training for _, module in model.named_modules()]
    out = [model.generate([1], 10, temperature=0) for _ in range(3)]
    assert out[0] == out[1] == out[2]
    with kernels.off(), watched() as calls:
        for _ in range(3):
            model.generate([1], 1)
    # masks would differ each time
    assert all(np.array_equal(logits.numpy(), calls[0][1].numpy()) for _, logits in calls)
    assert [module.training for _, module in model.named_modules()] == modes
    tokens = stream(model, [1], 3)
    next(tokens)
    assert [module.training for _, module in model.named_modules()] == modes  # between tokens too
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GPT, "logits", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError), kernels.off():
            model.generate([1], 1)
    assert [module.training for _, module in model.named_modules()] == modes


def test_generate_records_nothing(device: str) -> None:
    model = small(device)
    with watched() as calls:
        next(stream(model, [1], 2))
    assert not calls[0][1].requires_grad
    assert model([1]).requires_grad  # and what runs between tokens still records
