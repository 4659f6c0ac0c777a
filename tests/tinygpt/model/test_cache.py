"""The cache: equal to no cache wherever tokens come, in whatever portions, side by side, with the
kernel and without; and really used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels, no_grad, optim, random
from tensor.errors import ShapeError
from tensor.kernels import KERNELS
from tests.helpers.kernel_runs import compiled_kernels, judge, taken
from tinygpt import GPT, GPTConfig, SampleConfig
from tinygpt.generation.generate import steps
from tinygpt.generation.sampling import distribution, pick
from tinygpt.model.cache import Cache

__all__ = ["compiled_kernels"]
SIZES = {"vocabulary": 11, "context": 40, "width": 24, "heads": 3, "layers": 3}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"norm": "post"},
    {"activation": "relu"},
    {"bias": False},
    {"tied": False},
    {"positions": "sinusoidal"},
    {"norm": "post", "bias": False, "tied": False, "activation": "relu"},
    {"layers": 1},
    {"layers": 1, "norm": "post"},
    {"heads": 1, "width": 20},
]
PORTIONS = [[40], [1] * 40, [7, 1, 1, 20, 11], [39, 1], [2, 37, 1]]


def make(dtype: str, device: str = "cpu", **options: Any) -> GPT:
    """The same weights in every dtype; every parameter counts, the gains and biases too."""
    model = GPT(
        GPTConfig(**SIZES | options), generator=random.Generator(3), dtype=dtype, device=device
    ).eval()
    draws = np.random.default_rng(1)
    for parameter in model.parameters():
        drawn = draws.standard_normal(parameter.shape).astype(np.float32) * 0.3
        with no_grad():
            parameter[...] = Tensor(
                drawn + (parameter.ndim == 1), dtype=parameter.dtype, device=device
            )
    return model


def ids_of(rows: int, length: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 11, (rows, length))


def in_portions(model: GPT, ids: Any, portions: Sequence[int], last: bool = False) -> Any:
    """The logits of all tokens, given in portions; with `last` those of the last of each."""
    cache, start, found = model.new_cache(len(ids)), 0, []
    for size in portions:
        found.append(model(ids[:, start : start + size], cache, last).numpy().astype(np.float64))
        start += size
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("portions", PORTIONS, ids=lambda sizes: str(len(sizes)))
def test_bug_56_cache_equals_no_cache(
    options: dict[str, Any], portions: list[int], device: str
) -> None:
    """Every position, in float64."""
    model, ids = make("float64", device, **options), ids_of(2, 40)
    whole = model(ids).numpy()
    ends = np.cumsum(portions) - 1
    np.testing.assert_allclose(
        in_portions(model, ids, portions), whole, rtol=0, atol=1e-12 * np.abs(whole).max()
    )
    np.testing.assert_allclose(
        in_portions(model, ids, portions, last=True),
        whole[:, ends],
        rtol=0,
        atol=1e-12 * np.abs(whole).max(),
    )


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("portions", PORTIONS, ids=lambda sizes: str(len(sizes)))
@pytest.mark.parametrize("rows", [1, 3])
def test_bug_56_kernel_of_the_cache(
    options: dict[str, Any], portions: list[int], rows: int, compiled_kernels: Any
) -> None:
    """In float32 the kernel is as close to float64 as the reference; and its last logits are the
    last of all, bit for bit or nearly.
    """
    ids, wide, narrow = ids_of(rows, 40), make("float64", **options), make("float32", **options)
    exact, found = wide(ids).numpy(), in_portions(narrow, ids, portions)
    assert taken("decode") == ("decode_in_one_call", "cpu kernel")
    with kernels.off():
        reference = in_portions(narrow, ids, portions)
    judge(found, reference, exact)
    judge(
        in_portions(narrow, ids, portions, last=True),
        reference[:, np.cumsum(portions) - 1],
        exact[:, np.cumsum(portions) - 1],
    )


@pytest.mark.parametrize(("dtype", "close"), [("float16", 4e-3), ("bfloat16", 3e-2)])
def test_a_cache_in_few_bits(dtype: str, close: float, device: str) -> None:
    """Scores and weights are float32 between the rounded arrays, as they are without a cache."""
    model, ids = make(dtype, device), ids_of(2, 12)
    expected = model(ids).numpy().astype(np.float64)
    found = in_portions(model, ids, [7, 1, 4])
    np.testing.assert_allclose(found, expected, rtol=0, atol=close * abs(expected).max())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_bug_56_rows_of_unequal_length(dtype: str, device: str) -> None:
    """Rows that have seen 1, 17 and 30 tokens go on side by side, all or some of them, each as if
    it were alone.
    """
    model, ids, lengths = make(dtype, device), ids_of(3, 40), [1, 17, 30]
    cache = model.new_cache(3)
    for row, length in enumerate(lengths):
        model(ids[row, :length], cache.of([row]))
    seen = list(lengths)
    whole = model(ids).numpy()
    close = 1e-12 if dtype == "float64" else 2e-6
    for rows, size in (([0, 1, 2], 1), ([2, 0], 3), ([1], 2), ([0, 1, 2], 4)):
        new = [ids[row, seen[row] : seen[row] + size] for row in rows]
        logits = model(np.stack(new), cache.of(rows)).numpy()
        for place, row in enumerate(rows):
            expected = whole[row, seen[row] : seen[row] + size]
            np.testing.assert_allclose(
                logits[place], expected, rtol=0, atol=close * np.abs(whole).max()
            )
            seen[row] += size
    assert cache.seen.tolist() == seen
    assert cache.of([0]).free == 40 - seen[0]
    assert cache.free == 40 - max(seen)


def test_bug_56_cleared_cache_is_as_new(device: str) -> None:
    model, ids = make("float64", device), ids_of(2, 40)
    cache = model.new_cache(2)
    first = model(ids[:, :9], cache).numpy()
    model(ids[:, 9:], cache)
    cache.clear()
    assert cache.free == 40
    assert np.array_equal(model(ids[:, :9], cache).numpy(), first)


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("length", [1, 30, 40, 57])
def test_bug_56_generation_past_the_context(length: int, kernel: bool, device: str) -> None:
    """The same tokens as by the whole window anew for each; 25 of them, up to the end of the
    context and past it.
    """
    model, prompt = (
        make("float64" if not kernel else "float32", device),
        ids_of(1, length)[0].tolist(),
    )
    tokens, generator = list(prompt), random.Generator(5)
    for _ in range(25):
        p = distribution(model(tokens[-40:]).numpy()[0, -1], SampleConfig())
        tokens.append(pick(p, generator))
    assert model.generate(prompt, 25, generator=random.Generator(5)) == tokens


def test_bug_56_prompts_side_by_side(device: str) -> None:
    """Prompts of unequal length, some of which run past the context, each as if it were alone; one
    that has ended goes no further.
    """
    model, ended = make("float64", device), {1}
    prompts = [ids_of(1, n, seed=n)[0].tolist() for n in (1, 5, 33, 33, 60, 5)]
    texts = [list(prompt) for prompt in prompts]
    for i, step in steps(
        model, prompts, SampleConfig(length=12), [random.Generator(i) for i in range(6)], ended
    ):
        texts[i].append(step.token)
        if i == 3 and len(texts[3]) == 33 + 4:
            ended.add(3)
    for i, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        alone = model.generate(prompt, 12, generator=random.Generator(i))
        assert text == alone[: len(prompt) + {1: 0, 3: 4}.get(i, 12)]


def test_a_batch_is_continued_row_by_row(device: str) -> None:
    model, ids = make("float64", device), ids_of(3, 6)
    for given in (ids, ids.tolist(), Tensor(ids, device=device)):
        out = model.generate(given, 5, temperature=0)
        assert out == [model.generate(row, 5, temperature=0) for row in ids.tolist()]
    assert model.generate(ids[:1], 2, temperature=0) == [model.generate(ids[0], 2, temperature=0)]


# -- the cache is used


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queries each layer's attention, or each call of the kernel, had to answer."""
    sizes: list[int] = []
    attend = Cache.attend

    def counted(cache: Cache, layer: int, qkv: Tensor) -> Tensor:
        sizes.append(qkv.shape[1])
        return attend(cache, layer, qkv)

    monkeypatch.setattr(Cache, "attend", counted)

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(ids: Any, *rest: Any, **options: Any) -> Any:
            sizes.append(ids.shape[1])
            return function(ids, *rest, **options)

        return call

    monkeypatch.setitem(
        KERNELS,
        "decode",
        [kernel._replace(function=counting(kernel.function)) for kernel in KERNELS["decode"]],
    )
    return sizes


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_bug_57_each_token_is_computed_once(
    dtype: str, device: str, worked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt of 5 and 30 more tokens: 5 queries a layer, then 1 a step; no other attention."""
    model = make(dtype, device)
    monkeypatch.setattr("tensor.multi_head_attention", lambda *_, **__: 1 / 0)
    with kernels.off("generate"):  # which does all steps on a GPU at once
        model.generate([1, 2, 3, 4, 5], 31)
    layers = len(worked) // 31  # the kernel does all at once
    assert layers in (1, 3)
    assert worked == [5] * layers + [1] * (30 * layers)


def test_a_cache_takes_no_more_than_it_holds(device: str) -> None:
    model = make("float64", device)
    cache = model.new_cache(2)
    model(ids_of(2, 39), cache)
    with pytest.raises(
        ShapeError, match="2 new tokens for a cache that holds 39 and has room for 1"
    ):
        model(ids_of(2, 2), cache)
    with pytest.raises(ShapeError, match="1 rows of new tokens for a cache of 2"):
        model([1], cache)
    assert cache.seen.tolist() == [39, 39]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_with_a_cache_nothing_is_recorded_and_no_dropout(dtype: str, device: str) -> None:
    model = make(dtype, device, dropout=0.5)
    expected = model(ids_of(1, 6)).numpy()
    model.train()
    logits = model(ids_of(1, 6), model.new_cache())
    assert not logits.requires_grad
    np.testing.assert_allclose(logits.numpy(), expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    assert all(module.training for _, module in model.named_modules())


def test_weights_that_are_not_numbers(compiled_kernels: Any) -> None:
    """A NaN in one row's text stays in that row, as in the reference."""
    model = make("float32")
    with no_grad():
        model.token_embedding.weight[7] = np.nan
    ids = np.array([[1, 2, 3, 4], [1, 2, 7, 4]])
    logits = model(ids, model.new_cache(2)).numpy()
    assert np.isfinite(logits[:, :2, :7]).all()
    assert np.isfinite(logits[0, :, :7]).all()
    assert np.isnan(logits[1, 2:]).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_parameters_that_were_packed_meanwhile(dtype: str, device: str) -> None:
    """An optimiser moves all parameters to memory of its own: a cache that was there before reads
    them there, not where they were.
    """
    model = make(dtype, device)
    cache = model.new_cache()
    assert model([1, 2, 3], cache).numpy().any()
    optim.AdamW(model, lr=0.1)
    with no_grad():
        model.token_embedding.weight[...] = 0  # the tied head
    assert not model([4], cache).numpy().any()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "options", [{}, {"norm": "post", "activation": "relu"}, {"bias": False, "tied": False}], ids=str
)
def test_bug_33_weights_that_are_not_finite(options: dict[str, Any], compiled_kernels: Any) -> None:
    """NaN and infinities in the logits stand where they do without the kernel, whatever parameter
    they come from. Where a number is so large that a sum may overflow, the finite logits agree.
    """
    ids = ids_of(2, 20)
    for which in range(len(list(make("float32", **options).parameters()))):
        for value in (np.nan, np.inf, -np.inf, 3e38, 1e-45):
            ways = []
            for switch in (nullcontext(), kernels.off()):
                model = make("float32", **options)
                parameter = list(model.parameters())[which]
                with no_grad(), switch:
                    parameter[(1,) * parameter.ndim] = value
                    ways.append(in_portions(model, ids, [7, 1, 12]))
            a, b = ways
            finite = np.isfinite(b)
            if value == 3e38:  # a sum overflows midway in one order, and not in another
                finite &= np.isfinite(a)
            else:
                np.testing.assert_array_equal(
                    np.where(np.isfinite(a), 0, a),
                    np.where(finite, 0, b),
                    err_msg=f"{value} in parameter {which}",
                )
            np.testing.assert_allclose(
                a[finite], b[finite], rtol=0, atol=1e-3 * np.abs(b[finite]).max(initial=1)
            )


@pytest.mark.parametrize("on", [True, False])
def test_bug_33_what_a_cache_forgot_harms_nobody(on: bool, compiled_kernels: Any) -> None:
    """A run that ended in NaN leaves its keys and values behind; tokens that come after clear() see
    nothing of them.
    """
    model = make("float32")
    clean, stained = model.new_cache(2), model.new_cache(2)
    stained.keys[...] = stained.values[...] = np.nan
    with nullcontext() if on else kernels.off():
        for row, length in ((0, 9), (1, 4)):  # so that row 1 is shorter, when both come together
            for cache in (clean, stained):
                model(ids_of(1, length), cache.of([row]))
        a, b = (model(ids_of(2, 3), cache).numpy() for cache in (stained, clean))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("recording", [False, True])
def test_keys_are_copied_only_for_a_graph_and_for_some_rows(
    recording: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph keeps keys and values, and the next token would change them."""
    attend, shared = tensor.attention, []

    def attention(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        pairs = (k.array, cache.keys), (v.array, cache.values)
        shared.append([np.shares_memory(*pair) for pair in pairs])
        return attend(q, k, v, **options)

    monkeypatch.setattr(tensor, "attention", attention)
    cache = Cache(GPTConfig(**SIZES), 3, like=np.zeros(0, np.float32))
    qkv = tensor.randn(3, 2, 72)
    with nullcontext() if recording else no_grad():
        cache.attend(0, qkv)
        cache.of([0, 1, 2]).attend(0, qkv)
        cache.of([2, 1, 0]).attend(0, qkv)
        cache.of([0, 2]).attend(0, qkv[:2])
    whole = [not recording] * 2
    assert shared == [whole, whole, [False] * 2, [False] * 2]
