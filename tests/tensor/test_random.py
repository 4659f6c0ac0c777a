"""Random numbers: the bits against published ones and a Philox of plain integers; their
distribution; what they depend on and what not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensor
from tensor import Generator, Tensor
from tensor.memory.devices import array_module, to_host
from tensor.memory.layout import Shape
from tensor.random import Key, keep_mask, keyed, next_key, philox, random_bits

WORD = 2**32


def philox_by_hand(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 as in Salmon et al. 2011, section 3.3, on Python's integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [second // WORD ^ c[1] ^ k[0], second % WORD, first // WORD ^ c[3] ^ k[1], first % WORD]
        k = [(k[0] + 0x9E3779B9) % WORD, (k[1] + 0xBB67AE85) % WORD]
    return c


# The known answers that come with the authors' Random123: counter, key, output.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([WORD - 1] * 4, [WORD - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_known_answers(counter: list[int], key: list[int], output: list[int]) -> None:
    counters: Any = tuple(np.array([word], np.uint64) for word in counter)
    words = philox(counters, key[0] + WORD * key[1])
    assert [int(word[0]) for word in words] == output == philox_by_hand(counter, key)


@given(
    rows=st.integers(1, 5), columns=st.integers(1, 9), seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**32 - 1),
    module=st.integers(0, 2**32 - 1), sample=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_each_number_depends_on_key_and_place_alone(
    rows: int, columns: int, seed: int, step: int, module: int, sample: int, device: str
) -> None:
    bits = to_host(
        random_bits(rows, columns, Key(seed, step, module, sample), array_module(device))
    )
    assert bits.dtype == np.uint32
    assert bits.shape == (rows, columns)
    for r in range(rows):
        for c in range(columns):
            assert (
                bits[r, c]
                == philox_by_hand(
                    [c // 4, step, module, (sample + r) % WORD], [seed % WORD, seed // WORD]
                )[c % 4]
            )


# -- distributions: fixed seeds, bounds of four to five standard deviations


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_uniform_number_is_made_of_its_bits_as_many_are(shape: Shape) -> None:
    """u = (53 bits) / 2^53, the first word above the second; exactly, and the generator has moved
    on by one draw.
    """
    one, bits = Generator(7), Generator(7)
    for _ in range(200):
        high, low = (int(word) for word in bits.bits(2))
        u = one.uniform(shape)
        assert u.shape == shape
        assert u.dtype == np.float64
        assert float(u.reshape(())) == ((high * 2**21) ^ (low // 2**11)) / 2**53
    assert one.state() == bits.state()


def test_uniform_is_uniform(device: str) -> None:
    n = 200_000
    u = to_host(Generator(1).uniform((n,), device))
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)
    assert abs(u.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / n)
    for bits in (1, 256, 2**20, 2**45):  # of the leading eight bits, and of eight deeper ones
        counts = np.bincount((u * bits % 1 * 256).astype(int), minlength=256)
        chi_square = ((counts - n / 256) ** 2).sum() / (n / 256)
        assert abs(chi_square - 255) < 5 * math.sqrt(2 * 255)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / math.sqrt(n)


def test_normal_is_normal(device: str) -> None:
    n = 200_001
    z = to_host(Generator(2).normal((n,), device))
    assert z.shape == (n,)
    # power: E[z^k], var[z^k]
    moments = {1: (0.0, 1.0), 2: (1.0, 2.0), 3: (0.0, 15.0), 4: (3.0, 96.0), 6: (15.0, 10170.0)}
    for power, (expected, variance) in moments.items():
        assert abs((z**power).mean() - expected) < 5 * math.sqrt(variance / n), power
    for bound in (0.5, 1.0, 2.0, 3.0):
        share = math.erfc(bound / math.sqrt(2))
        assert abs((np.abs(z) > bound).mean() - share) < 5 * math.sqrt(share / n)
    # the sine half against the cosine half
    assert abs(np.corrcoef(z[: n // 2], z[n // 2 : n // 2 * 2])[0, 1]) < 5 / math.sqrt(n / 2)


def test_distributions_against_scipy(device: str) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert stats.kstest(to_host(Generator(3).uniform((50_000,), device)), "uniform").pvalue > 1e-4
    assert stats.kstest(to_host(Generator(4).normal((50_000,), device)), "norm").pvalue > 1e-4


def test_integers(device: str) -> None:
    drawn = to_host(Generator(5).integers(-3, 4, (70_000,), device))
    assert drawn.dtype == np.int64
    counts = np.bincount(drawn + 3, minlength=7)
    assert len(counts) == 7
    assert (np.abs(counts - 10_000) < 5 * math.sqrt(10_000)).all()
    assert Generator(5).integers(2, 3, (4,)).tolist() == [2] * 4
    for low, high in ((2, 2), (2, 1)):
        with pytest.raises(ValueError, match="the range is empty"):
            Generator().integers(low, high)


def test_permutation() -> None:
    firsts = np.zeros(5, int)
    generator = Generator(6)
    for _ in range(2000):
        order = generator.permutation(5)
        assert sorted(order) == list(range(5))
        firsts[order[0]] += 1
    assert (np.abs(firsts - 400) < 5 * math.sqrt(400)).all()
    assert (
        Generator(6).permutation(1000).tolist()
        == Generator(6).permutation(1000).tolist()
        != list(range(1000))
    )


class Top(Generator):
    """Draws the largest number below 1 that float64 has."""

    def uniform(self, shape: Shape = (), device: str = "cpu") -> Any:
        return array_module(device).full(shape, 1 - 2.0**-53)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_rand_is_below_one_in_every_dtype(dtype: str, device: str) -> None:
    x = tensor.rand(3, dtype=dtype, device=device, generator=Top())
    assert x.dtype == tensor.dtypes.as_dtype(dtype)
    assert max(x.tolist()) < 1  # rounding to nearest would make 1 of it
    assert (
        abs(
            tensor.rand(10_000, dtype=dtype, device=device, generator=Generator(1))
            .to("float64")
            .mean()
            .item()
            - 0.5
        )
        < 0.02
    )


# -- seeds, states, keys


def draws(generator: Generator | None, device: str) -> list[Any]:
    options: dict[str, Any] = {"device": device, "generator": generator}
    drawn = [
        tensor.rand(3, **options),
        tensor.randn(2, 2, **options),
        tensor.randint(0, 99, (4,), **options),
        tensor.rand_like(tensor.zeros(2, device=device), generator=generator),
    ]
    return [x.tolist() for x in drawn]


def test_manual_seed(device: str) -> None:
    generator = tensor.manual_seed(7)
    first = draws(None, device)
    assert draws(None, device) != first
    tensor.manual_seed(7)
    assert draws(None, device) == first
    assert draws(Generator(7), device) == first
    assert draws(Generator(8), device) != first
    assert generator is tensor.random.default
    assert draws(Generator(7 + 2**32), device) != first  # all 64 bits of a seed count
    with keyed(Key(3)):
        tensor.manual_seed(7)
        assert draws(None, device) == first  # a key is for layers, not for the generators


def test_draws_differ_from_each_other(device: str) -> None:
    generator = Generator(0)
    rows = [tuple(tensor.rand(4, generator=generator, device=device).tolist()) for _ in range(50)]
    assert len({value for row in rows for value in row}) == 200


def test_generator_state_continues_the_stream(device: str) -> None:
    generator = Generator(11)
    draws(generator, device)
    state = generator.state()
    after = draws(generator, device)
    other = Generator(0)
    other.load_state(state)
    assert draws(other, device) == after


def test_keyed_blocks() -> None:
    with keyed(Key(5, 6)):
        assert next_key(3) == next_key(3) == Key(5, 6, 3)
        with keyed(Key(9, sample=4)):
            assert next_key(1) == Key(9, 0, 1, 4)
        assert next_key() == Key(5, 6)
    tensor.manual_seed(2)
    assert (next_key(1), next_key(1)) == (Key(2, 0, 1), Key(2, 1, 1))  # outside, each is another


# -- masks


@pytest.mark.parametrize("shape", [(6, 5), (6, 3, 4), (6, 1), (6, 2, 3, 2)])
def test_mask_does_not_depend_on_the_split_of_the_batch(shape: Shape, device: str) -> None:
    xp = array_module(device)
    x, key = xp.zeros(shape), Key(1, 2, 3, 100)
    whole = to_host(keep_mask(x, 0.4, key))
    for cut in (1, 2, 5):
        parts = [
            keep_mask(x[:cut], 0.4, key),
            keep_mask(x[cut:], 0.4, key._replace(sample=100 + cut)),
        ]
        assert np.array_equal(np.concatenate([to_host(part) for part in parts]), whole)
    for other in (Key(2, 2, 3, 100), Key(1, 3, 3, 100), Key(1, 2, 4, 100), Key(1, 2, 3, 50)):
        if whole.size > 10:
            assert not np.array_equal(to_host(keep_mask(x, 0.4, other)), whole)


def test_mask_keeps_the_right_share(device: str) -> None:
    x = array_module(device).zeros((100, 1000))
    for p in (0.0, 0.1, 0.5, 0.999, 1.0):
        kept = to_host(keep_mask(x, p, Key(4)))
        assert abs(kept.mean() - (1 - p)) <= 5 * math.sqrt(p * (1 - p) / x.size)
    assert to_host(keep_mask(x[:0], 0.5, Key())).shape == (0, 1000)
    assert to_host(keep_mask(x[:, :0], 0.5, Key())).shape == (100, 0)


def test_mask_is_the_same_for_every_dtype_and_layout(device: str) -> None:
    x = Tensor(np.arange(1.0, 25).reshape(4, 6), device=device)
    masks = [
        tensor.dropout(y, 0.5, key=Key(1)).numpy() != 0
        for y in (x, x.to("float32"), x.to("bfloat16"), x.T.contiguous().T, -x)
    ]
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    with pytest.raises(ValueError, match="probability between 0 and 1"):
        tensor.dropout(x, 1.5, key=Key())
