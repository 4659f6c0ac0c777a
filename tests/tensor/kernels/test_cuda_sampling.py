"""Tokens drawn by sampling.cu beside those of tinygpt/generation/sampling.py: the same ones, from
the same logits and draws. Without a GPU, the kernel runs on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tensor.kernels.cuda import launch
from tensor.kernels.cuda.generation import sampling
from tensor.kernels.cuda.generation.sampling import Choice, Rows
from tensor.memory.devices import move, to_host
from tensor.random import Generator
from tests.helpers.cuda_on_cpu import run_kernels_on_cpu
from tests.helpers.without_cudnn import on_gpu
from tinygpt.config import SampleConfig
from tinygpt.errors import InputError
from tinygpt.generation.sampling import draw, draws

RING = 4


@pytest.fixture
def there(device: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """What moves an array to where the kernel runs."""
    if device != "cpu":
        return lambda x: move(x, device)
    run_kernels_on_cpu(monkeypatch)
    monkeypatch.setattr(sampling, "SAMPLING", launch.Source(*SOURCE))
    return on_gpu


SOURCE = "generation/sampling.cu", "generation/early.cuh", "philox.cuh"


def state_of(generators: list[Generator], there: Callable[[Any], Any]) -> Rows:
    rows = len(generators)
    numbers = [(g.seed, g.draws, 1) for g in generators]
    at = np.array(numbers, np.uint64).view(np.int64)
    whole = [np.zeros(rows, np.int32) for _ in range(3)]
    arrays = *whole, at, np.full((RING, rows), -2, np.int32)
    return Rows(*map(there, arrays))


def tokens(logits: Any, config: SampleConfig, there: Callable[[Any], Any], n: int = 1) -> Any:
    """Those of n draws from the same logits, (n, rows), by the kernel."""
    generators = [draws(config.seed, i) for i in range(len(logits))]
    state = state_of(generators, there)
    choice = Choice(config.temperature, config.top_k, config.top_p)
    n_ids = logits.shape[1]
    wide = np.full((len(logits), -(-n_ids // 4) * 4), np.nan, np.float32)
    wide[:, :n_ids] = logits
    on_device, found = there(wide), []
    for i in range(n):
        sampling.draw(on_device, n_ids, state, choice, joined=i, most=5)
        written = to_host(state.written)
        assert (written[(i + 1) % RING] == (-2 if i < RING - 1 else found[i + 1 - RING])).all()
        found.append(written[i % RING].copy())
        assert (to_host(state.token) == np.maximum(found[-1], 0)).all()
        assert (to_host(state.seen) == min(5, i * (i + 1) // 2)).all()
    assert (to_host(state.count) == n).all()
    return np.array(found)


def right(logits: Any, config: SampleConfig, n: int = 1) -> Any:
    generators = [draws(config.seed, i) for i in range(len(logits))]
    return np.array([draw(logits, config, generators) for _ in range(n)])


def normal(rows: int, n: int, spread: float = 1.0) -> Any:
    return (np.random.default_rng(n).standard_normal((rows, n)) * spread).astype(np.float32)


CHOICES: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_k": 5, "seed": 2**40 + 3},
    {"top_k": 200},
    {"top_k": 700},
    {"top_p": 0.9},
    {"top_p": 1.0},
    {"top_k": 20, "top_p": 0.5, "temperature": 1.7},
    {"top_k": 600, "top_p": 0.95},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_tokens_are_those_of_the_host(choice: Any, there: Callable[[Any], Any]) -> None:
    config = SampleConfig(**choice)
    for logits in (normal(2, 3000, 2.0), normal(3, 17)):
        n = 6 if logits.shape[1] < 100 else 2
        assert (tokens(logits, config, there, n) == right(logits, config, n)).all()


def test_equal_logits_are_kept_by_their_ids(there: Callable[[Any], Any]) -> None:
    """Also where they are more than the threads of a block, and 0 beside -0."""
    few = np.round(normal(4, 300))
    equal = np.zeros((2, 2500), np.float32)
    equal[:, ::3] = -0.0
    for logits in (few, equal):
        for choice in ({"top_k": 7}, {"top_p": 0.01}, {"temperature": 0.0}, {"top_k": 40}):
            config = SampleConfig(**choice)
            assert (tokens(logits, config, there, 2) == right(logits, config, 2)).all()


def test_a_sum_that_reaches_top_p_but_for_rounding_is_enough(there: Callable[[Any], Any]) -> None:
    equal, config = np.zeros((60, 100), np.float32), SampleConfig(top_p=0.07)
    assert 0.07 * 100 > 7  # as floats
    found = tokens(equal, config, there)
    assert (found == right(equal, config)).all()
    assert set(found[0]) == set(range(7))


def test_broken_logits_are_told(there: Callable[[Any], Any]) -> None:
    logits = normal(6, 50)
    logits[0, 7], logits[1, 3], logits[2], logits[3, 4] = np.nan, np.inf, -np.inf, -np.inf
    logits[4, 9] = -np.float32(np.nan)
    for choice in ({}, {"temperature": 0.0}, {"top_k": 3}):
        config = SampleConfig(**choice)
        (found,) = tokens(logits, config, there)
        assert (found[[0, 1, 2, 4]] == -1).all()
        whole = draw(logits[[3, 5]], config, [draws(config.seed, i) for i in (3, 5)])
        assert found[[3, 5]].tolist() == whole
        for row in (0, 1, 2, 4):
            with pytest.raises(InputError, match="not finite"):
                right(logits[row : row + 1], config)


def test_rows_may_take_turns_at_the_draws_of_one_generator(there: Callable[[Any], Any]) -> None:
    logits, generator = normal(2, 40), Generator(9)
    state = state_of([generator] * 2, there)
    places = np.array([[9, 0, 2], [9, 1, 2]], np.int64)
    state = state._replace(draws=there(places))
    for number in range(3):
        sampling.draw(there(logits), 40, state, Choice(1.0, None, None), joined=1, most=9)
        expected = draw(logits, SampleConfig(), [generator] * 2)
        assert to_host(state.written)[number].tolist() == expected


def test_a_temperature_of_nearly_0_and_one_far_above(there: Callable[[Any], Any]) -> None:
    for temperature in (1e-30, 1e6):
        config = SampleConfig(temperature=temperature)
        logits = normal(3, 200, 30.0)
        assert (tokens(logits, config, there, 2) == right(logits, config, 2)).all()
