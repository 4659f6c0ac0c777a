"""Attention by hand against the reference in float64: on a GPU; and without one, compiled for the
CPU, with loops in the place of tensor cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels
from tensor.dtypes import as_dtype
from tensor.kept_inputs import KEPT_INPUTS
from tensor.kernels.cuda.attention import BY_HAND, by_hand, versions
from tensor.kernels.cuda.attention.versions import decoding, plain, tensor_cores, tiles
from tensor.memory.devices import move, to_host
from tensor.ops.op import reference_of
from tensor.random import Key
from tests.helpers.attention_cases import UNITS, Example, errors, random_example
from tests.helpers.cuda_on_cpu import CUPY_ON_CPU, run_kernels_on_cpu
from tests.helpers.without_cudnn import on_gpu

Array = Any
Choice = Callable[..., Any]


def choose(monkeypatch: pytest.MonkeyPatch, version: Choice) -> None:
    monkeypatch.setattr(by_hand, "version_for", lambda *_: version)


# -- without a GPU


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    run_kernels_on_cpu(monkeypatch)
    caches = plain, tiles, tensor_cores, decoding, versions._has_instructions
    for module in (by_hand, versions):
        monkeypatch.setattr(module, "cupy", lambda: CUPY_ON_CPU)
    monkeypatch.setattr(by_hand, "is_cuda", lambda _: True)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def assert_right(example: Example) -> None:
    assert errors(example, on_gpu, np.asarray) <= UNITS[example.dtype], example


@pytest.mark.usefixtures("on_cpu")
def test_plain_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, plain)
    assert_right(Example("float64", 2, 2, 70, 9, 8, True, "padding", 0.3))
    assert_right(Example("float64", 2, 2, 9, 70, 8, True, "all", 0.5, packed=False))


@pytest.mark.usefixtures("on_cpu")
def test_tiles_on_the_cpu() -> None:
    for sizes in ((130, 130), (33, 65), (100, 40)):
        assert_right(Example("float32", 1, 2, *sizes, 20, True))
    assert_right(Example("float32", 1, 2, 64, 100, 20, packed=False))
    assert_right(Example("float32", 2, 2, 70, 70, 20, True, "padding", 0.3))
    assert_right(Example("float32", 2, 2, 65, 9, 20, False, "all", 1.0))


@pytest.mark.usefixtures("on_cpu")
def test_tensor_cores_on_the_cpu() -> None:
    for sizes in ((130, 130), (33, 130), (100, 40), (200, 64)):
        assert_right(Example("bfloat16", 1, 2, *sizes, 32, True))
    assert_right(Example("bfloat16", 1, 1, 70, 100, 128, True, packed=False))
    assert_right(Example("bfloat16", 2, 2, 70, 70, 32, True, "padding", 0.3))
    assert_right(Example("bfloat16", 2, 2, 65, 9, 32, False, "all", 0.5, packed=False))
    assert_right(Example("bfloat16", 1, 2, 72, 132, 32, True, dropout=0.3))
    assert_right(Example("float16", 1, 1, 65, 129, 16))


@pytest.mark.usefixtures("on_cpu")
def test_decoding_on_the_cpu() -> None:
    with tensor.no_grad():
        assert_right(Example("bfloat16", 2, 2, 4, 300, 64, True, packed=False))
        assert_right(Example("float32", 2, 2, 1, 257, 20, False, "padding"))
        assert_right(Example("float32", 1, 2, 3, 259, 37, True, "all", 0.3))


@pytest.mark.usefixtures("on_cpu")
def test_decoding_from_a_cache() -> None:
    """Rows of unequal length, in arrays that have room for more: the rest is NaN. The second query
    sees the first NaN.
    """
    rng, dtype = np.random.default_rng(0), as_dtype("bfloat16")
    k, v = (on_gpu(rng.standard_normal((3, 2, 500, 64)).astype(dtype)) for _ in range(2))
    q = on_gpu(rng.standard_normal((3, 2, 2, 64)).astype(dtype))
    seen = np.array([399, 130, 1])
    visible = np.arange(400) < (seen[:, None] + [0, 1])[:, None, :, None]
    for b, n in enumerate(seen):
        k[b, :, n:] = v[b, :, n:] = np.nan
    k, v = k[:, :, :400], v[:, :, :400]
    with tensor.no_grad():
        y = np.float64(by_hand.attention_of_heads_by_hand(q, k, v, mask=on_gpu(visible))[0])
    clean = (np.nan_to_num(np.asarray(x, np.float64)) for x in (q, k, v))
    right = reference_of("attention")(*clean, mask=visible)[0]
    assert np.abs(y - right)[:, :, 0].max() < 0.02
    assert np.isnan(y[:, :, 1]).all()


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_padding_hides_does_not_get_out(dtype: str) -> None:
    """NaN in hidden keys and values, and a sequence of nothing else."""
    example = Example(dtype, 2, 1, 5, 7, 32)
    q, kv = on_gpu(example.draw(0, 2, 5, 32)), on_gpu(example.draw(1, 2, 7, 64))
    mask = on_gpu(np.ones((2, 1, 1, 7), bool))
    mask[0, ..., 4:] = mask[1] = False
    kv[0, 4:] = kv[1] = np.nan
    y, backward = by_hand.attention_by_hand(q, kv, mask, heads=1)
    y, dq, dkv = (np.asarray(x, np.float32) for x in (y, *backward(on_gpu(np.array(q)))[:2]))
    assert all(np.isfinite(x).all() for x in (y, dq, dkv))
    assert not y[1].any()
    assert not dkv[0, 4:].any()
    assert dkv[0, :4].any()
    assert not dkv[1].any()


@pytest.mark.usefixtures("on_cpu")
def test_which_version_takes_what(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(x: Array, D: int, scale: float = 0.1, sizes: Any = (64, 64)) -> Choice:
        place: Any = by_hand._packed(x, 0, 1, D)
        return versions.version_for(x.dtype, D, scale, sizes, (place,))

    x = on_gpu(Example("bfloat16", 1, 1, 1, 1, 1).draw(0, 2, 5, 80))
    assert chosen(x, 64) is tensor_cores
    assert chosen(x, 24) is tiles
    assert chosen(x, 64, -0.1) is tiles
    assert chosen(x[:, :, 1:], 64) is tiles
    assert chosen(x[:, :, 8:], 64) is tensor_cores
    assert chosen(on_gpu(np.concatenate([x, x[:, :, :4]], -1)), 64) is tiles
    wide = on_gpu(np.zeros((2, 5, 64), np.float32))
    assert chosen(wide, 64) is tiles
    assert chosen(x, 64, sizes=(4, 256)) is tensor_cores  # there may be a backward
    few: Any = {"backward": tensor_cores, "queries": 4, "width": 8}
    with tensor.no_grad():
        assert chosen(x, 64, sizes=(5, 256)) is chosen(x, 64, sizes=(4, 255)) is tensor_cores
        assert chosen(x, 64, sizes=(4, 256)).keywords == few
        assert chosen(x, 64, sizes=(1, 256)).keywords == few | {"queries": 1}
        others = chosen(wide, 64, sizes=(2, 256)), chosen(x, 20, sizes=(2, 256))
    assert [one.keywords["width"] for one in others] == [4, 1]
    assert all(one.keywords["backward"] is tiles for one in others)
    monkeypatch.setattr(versions, "_has_instructions", lambda: False)
    assert chosen(x, 64) is tiles


def test_what_is_refused() -> None:
    def refused(x: Array, kv: Array | None = None, mask: Any = None, **options: Any) -> str:
        said = by_hand.supports_packed(x, kv, mask, **{"heads": 2, **options})
        assert said is not None
        return said

    x = np.zeros((2, 5, 48), np.float32)
    assert by_hand.supports_packed(x, heads=2, mask=np.ones((5, 1), bool)) is None
    assert by_hand.supports_packed(x, heads=2, dropout=0.5, key=Key()) is None
    assert refused(x.astype(int)).startswith("dtypes int64")
    assert refused(np.zeros((2, 5, 6 * 136), np.float32)).startswith("heads of 136 numbers")
    assert refused(x, mask=np.ones((4, 1), bool)).startswith("a mask (4, 1) for weights")
    assert refused(x, mask=np.ones((5, 1))).startswith("a mask that is no array of bools")
    assert refused(x, dropout=0.5).startswith("dropout 0.5")
    assert refused(x, heads=5).endswith("with 5 heads")
    assert refused(x[:, :0]).startswith("shape")
    assert refused(x[:, :, :16], x[:1, :, :32]).startswith("q (2, 5, 16), kv (1, 5, 32)")
    q = np.zeros((2, 3, 5, 8), np.float32)
    assert by_hand.supports(q, q, q) is None
    assert str(by_hand.supports(q, q, q, q)).startswith("a bias")
    assert str(by_hand.supports(q[0], q[0], q[0])).startswith("q (3, 5, 8)")
    many = np.broadcast_to(np.float32(0), (1, 2**31, 6))
    assert "too many to count" in str(by_hand.supports_packed(many, heads=1))


def test_by_hand_comes_first_where_equal_bits_are_asked_for() -> None:
    x = np.zeros((2, 5, 48), np.float32)
    first, *_, last = [
        one for one in kernels.KERNELS["multi_head_attention"] if one.device == "cuda"
    ]
    assert first.function is last.function is BY_HAND["multi_head_attention"][0]
    assert first.supports(x, heads=2) == "equal bits are not asked for"
    assert last.supports(x, heads=2) is None
    with kernels.deterministic():
        assert first.supports(x, heads=2) is None
    assert first.reason == "cuda kernel, since equal bits are asked for"


@pytest.mark.usefixtures("on_cpu")
def test_the_graph_knows_which_inputs_backward_keeps() -> None:
    q, kv = (on_gpu(np.ones((1, 3, n), np.float32)) for n in (8, 16))
    _, backward = by_hand.attention_by_hand(q, kv, heads=1)
    cells = [cell.cell_contents for cell in backward.__closure__]
    assert any(cell is q for cell in cells)
    assert any(cell is kv for cell in cells)
    assert id(backward.__code__) in KEPT_INPUTS


# -- on a GPU


@pytest.mark.parametrize(
    "version", [plain, tiles, tensor_cores, decoding], ids=lambda v: v.__name__
)
def test_random_shapes(version: Choice, gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, version)
    wider = {plain: "float64", tiles: "float32", decoding: "float32"}
    dtypes, widths = ["bfloat16", wider.get(version, "float16")], [64]
    rng = np.random.default_rng(0)
    for _ in range(25):
        example = random_example(rng, dtypes, 200, widths)
        error = errors(example, lambda x: move(x, gpu), to_host)
        assert error <= UNITS[example.dtype], example


def test_few_queries(gpu: str) -> None:
    """By the version that is chosen for them."""
    rng = np.random.default_rng(1)
    for dtype in ("bfloat16", "float16", "float32", "float64"):
        for _ in range(8):
            example = random_example(rng, [dtype], 700)
            example = example._replace(T=int(rng.choice([1, 3, 4])), S=max(256, example.S))
            with tensor.no_grad():
                error = errors(example, lambda x: move(x, gpu), to_host)
            assert error <= UNITS[dtype], example


def test_equal_bits_with_dropout(gpu: str) -> None:
    """And the mask is the CPU's."""
    x = tensor.randn(3, 257, 3 * 128, dtype="bfloat16", device=gpu, requires_grad=True)
    dy = tensor.randn(3, 257, 128, dtype="bfloat16", device=gpu)
    options: Any = {"heads": 2, "causal": True, "dropout": 0.2, "key": Key(5)}
    found = []
    with kernels.deterministic():
        for _ in range(3):
            y = tensor.multi_head_attention(x, **options)
            found.append([y.numpy(), tensor.grad(y, x, dy)[0].numpy()])
    assert kernels.latest("multi_head_attention")[0] == "attention_by_hand"
    for other in found[1:]:
        assert all((one == two).all() for one, two in zip(found[0], other, strict=True))
    right = tensor.multi_head_attention(Tensor(x.numpy(), dtype="float64"), **options)
    assert np.abs(found[0][0].astype(np.float64) - right.numpy()).max() < 0.05
