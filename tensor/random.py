"""Random numbers from a counter: number i of a stream is a function of (key, i), with no state in
between.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): ten rounds that
mix a 128-bit counter with a 64-bit key. The same bits on NumPy and CuPy, in any order, on any
number of threads, and again when a layer is recomputed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tensor.errors import OptionError, brief
from tensor.kernels import pick
from tensor.memory.devices import Array, array_module
from tensor.memory.layout import Shape
from tensor.mode import MODE, Switch
from tensor.names import unknown

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
# added to the key each round: the golden ratio and sqrt(3) - 1, as fractions of 2^32
_WEYL = 0x9E3779B9, 0xBB67AE85
MASK = 0xFFFFFFFF


class Key(NamedTuple):
    """What a random op's numbers depend on: nothing else does."""

    seed: int = 0
    step: int = 0
    module: int = 0
    sample: int = 0  # of the first row of the batch; row i has sample + i


def philox(
    words: tuple[Array, Array, Array, Array], seed: int
) -> tuple[Array, Array, Array, Array]:
    """Four 32-bit random words for each counter of four 32-bit words (arrays of uint64, which
    broadcast), under a 64-bit seed.
    """
    c0, c1, c2, c3 = words
    k0, k1 = seed & MASK, (seed >> 32) & MASK
    for _ in range(10):
        # 32 x 32 -> 64 bits
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        high0, low0 = p0 >> 32, p0 & MASK
        high1, low1 = p1 >> 32, p1 & MASK
        # ^ of an array that nobody holds and a NumPy number reuses the array's memory
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(k0), low1, high0 ^ c3 ^ np.uint64(k1), low0
        k0, k1 = (k0 + _WEYL[0]) & MASK, (k1 + _WEYL[1]) & MASK
    return c0, c1, c2, c3


def random_bits(rows: int, columns: int, key: Key, xp: Any = np) -> Array:
    """(rows, columns) of uint32: row r, column c are word c % 4 of the counter (c // 4, step,
    module, sample + r).
    """
    bits = xp.empty((rows, columns), np.uint32)
    kernel = pick("random_bits", bits, key)
    if kernel:
        kernel(bits, key)
        return bits
    blocks = xp.arange(-(-columns // 4), dtype=np.uint64)[None, :]
    sample = (xp.arange(rows, dtype=np.uint64) + key.sample)[:, None] & MASK
    step, module = (xp.full((1, 1), n & MASK, dtype=np.uint64) for n in (key.step, key.module))
    words = xp.stack(philox((blocks, step, module, sample), key.seed), axis=-1)  # (rows, blocks, 4)
    return words.astype(np.uint32).reshape(rows, blocks.size * 4)[:, :columns]


def keep_mask(x: Array, p: float, key: Key) -> Array:
    """Bools of x's shape, False with probability p. The first axis counts samples."""
    rows = x.shape[0] if x.ndim > 1 else 1
    xp: Any = np if isinstance(x, np.ndarray) else array_module("cuda")
    bits = random_bits(rows, x.size // max(rows, 1), key, xp)
    threshold = threshold_of(p)
    if threshold > MASK:
        return xp.zeros(x.shape, bool)
    return bits.reshape(x.shape) >= np.uint32(threshold)


def threshold_of(p: float) -> int:
    """A word of 32 random bits is below this number with probability p. Words are whole numbers: as
    many are below p * 2^32.
    """
    return math.ceil(p * 2.0**32)


def keyed(key: Key) -> Switch[None]:
    """`with keyed(Key(seed, step)):` random layers inside use that key, each with its own module
    number.
    """
    return Switch(key=key)


def next_key(module: int = 0) -> Key:
    """The key of the surrounding `keyed` block, or else a new one from the default generator."""
    key: Key | None = MODE.get().key
    return key._replace(module=module) if key is not None else Key(*default.advance(), module)


class Generator:
    """A stream of draws: draw n of seed s is the same everywhere. Its state is (seed, draws)."""

    def __init__(self, seed: int = 0):
        self.seed, self.draws = seed, 0

    def _now(self) -> Generator:
        """The generator that draws for this one.

        While a checkpoint runs again, Mode.stream draws for the default generator: the same numbers
        as in the first run. So nothing here must be put back afterwards.
        """
        return MODE.get().stream or self if self is default else self

    def advance(self) -> tuple[int, int]:
        """(the seed, the number of this draw)"""
        now = self._now()
        now.draws += 1
        return now.seed, now.draws - 1

    def state(self) -> dict[str, int]:
        """What `load_state` takes: enough to continue the stream."""
        now = self._now()
        return {"seed": now.seed, "draws": now.draws}

    def load_state(self, state: dict[str, int]) -> None:
        now = self._now()
        now.seed, now.draws = int(state["seed"]), int(state["draws"])

    def bits(self, count: int, device: str = "cpu") -> Array:
        """`count` words of 32 random bits."""
        seed, draw = self.advance()
        # apart from the keys of layers
        key = Key(seed, draw & MASK, 0xFFFFFFFF, (draw >> 32) & MASK)
        return random_bits(1, count, key, array_module(device))[0]

    def uniform(self, shape: Shape = (), device: str = "cpu") -> Array:
        """float64 in [0, 1), 53 random bits each."""
        count = math.prod(shape)
        # the same in Python's integers, a third quicker: generation draws one for each token
        if count == 1 and device == "cpu":
            high, low = self.bits(2).tolist()
            return np.full(shape, ((high << 21) ^ (low >> 11)) * 2.0**-53)
        words = self.bits(2 * count, device).astype(np.uint64)
        return ((words[:count] << 21) ^ (words[count:] >> 11)).astype(np.float64).reshape(
            shape
        ) * 2.0**-53

    def normal(self, shape: Shape = (), device: str = "cpu") -> Array:
        """float64, mean 0 and variance 1, by Box and Muller (1958): sqrt(-2 ln u) cos(2 pi v)."""
        count = math.prod(shape)
        u = self.uniform((2, (count + 1) // 2), device)
        radius, angle = np.sqrt(-2 * np.log1p(-u[0])), 2 * math.pi * u[1]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count].reshape(
            shape
        )

    def integers(self, low: int, high: int, shape: Shape = (), device: str = "cpu") -> Array:
        """int64 in [low, high), each equally likely to within 2^-53 of the range."""
        if high <= low:
            raise OptionError(f"integers from {low} to {high}: the range is empty")
        return (np.floor(self.uniform(shape, device) * (high - low)).astype(np.int64) + low).clip(
            low, high - 1
        )

    def permutation(self, n: int) -> Array:
        """0 to n - 1 in random order."""
        return np.argsort(self.bits(2 * n).view(np.uint64), kind="stable")


default = Generator()  # of whoever names none


@brief
def manual_seed(seed: int) -> Generator:
    """Restart the default generator; everything random that was given no generator or key follows
    from it.
    """
    default.load_state({"seed": seed, "draws": 0})
    return default


if not TYPE_CHECKING:  # a type checker would take any name for one of this module

    def __getattr__(name: str) -> Any:
        raise unknown(__name__, name)
