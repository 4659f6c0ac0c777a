"""A decoder's step on a GPU, token by token, beside the whole model in float64. Without a GPU the
kernels run on the CPU, with NumPy in the place of cuBLASLt and of the norms.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from tensor import kernels, nn, no_grad
from tensor.dtypes import as_dtype, float32
from tensor.kernels.cuda.generation import attention, decoder, few_rows, many_rows, writing
from tensor.kernels.cuda.generation.few_rows import logits_of_few
from tensor.kernels.cuda.generation.many_rows import logits_of_many
from tensor.kernels.cuda.generation.sampling import Rows
from tensor.memory.devices import move, to_host
from tensor.ops.op import reference_of
from tensor.random import Generator
from tests.helpers.cuda_on_cpu import run_kernels_on_cpu
from tests.helpers.without_cudnn import OnGPU, empty, on_gpu
from tinygpt import GPT, GPTConfig
from tinygpt.config import SampleConfig
from tinygpt.generation.generate import steps
from tinygpt.generation.sampling import draws

UNITS = {"float32": 3e-6, "bfloat16": 0.03}
Logits = Callable[..., Any]


@pytest.fixture
def there(device: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """What moves an array to where the kernels run."""
    if device != "cpu":
        return lambda x: move(x, device)
    run_kernels_on_cpu(monkeypatch)

    def product(a: Any, b: Any, out: Any = None, *, bias: Any = None) -> Any:
        wide = a.astype(float32) @ b.astype(float32) + (0 if bias is None else bias)
        out = empty(wide.shape, a.dtype) if out is None else out
        out[...] = wide
        return out

    def linear_gelu(*arrays: Any) -> Any:
        y, _ = reference_of("gelu")(product(*arrays[:2], bias=arrays[2]))
        return on_gpu(y), None

    def norm(x: Any, gain: Any, bias: Any, *, eps: float) -> Any:
        y, _ = reference_of("layer_norm")(x, gain, bias, eps=eps)
        return on_gpu(y.astype(x.dtype)), None

    def norm_of_sum(x: Any, y: Any, gain: Any, bias: Any, *, eps: float) -> Any:
        return (0, 0, x + y, 0), (0, 0, norm(x + y, gain, bias, eps=eps)[0], 0)

    def attended(qkv: Any, *, heads: int, causal: bool) -> Any:
        B, T, C3 = qkv.shape
        q, k, v = np.moveaxis(qkv.reshape(B, T, 3, heads, -1), (2, 3), (0, 2))
        y, _ = reference_of("attention")(q, k, v, causal=causal)  # (B, H, T, D)
        return on_gpu(np.ascontiguousarray(y.swapaxes(1, 2)).reshape(B, T, C3 // 3)), None

    numpy = SimpleNamespace(
        tile=lambda x, n: on_gpu(np.tile(x, n)), arange=np.arange, maximum=np.maximum
    )
    for name, stand_in in {
        "cupy": lambda: numpy,
        "product": product,
        "layer_norm_in_registers": norm,
        "residual_layer_norm_in_registers": norm_of_sum,
        "linear_gelu_by_products": linear_gelu,
        "attention_by_hand": attended,
    }.items():
        monkeypatch.setattr(many_rows, name, stand_in)
    monkeypatch.setattr(decoder, "product", product)
    stand_in_for_a_writer(monkeypatch)
    for cache in (few_rows.sources, attention.attention_source):
        cache.cache_clear()
    return on_gpu


class Again:
    """What a graph is: the same work again."""

    def __init__(self, work: Callable[[], None], memory: object):
        self.replay = work


def stand_in_for_a_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of the CPU in the place of the GPU's and of pinned memory."""

    class Array(OnGPU):
        def get(self, out: Any, blocking: bool) -> None:
            assert not blocking
            out[...] = self

    class Memory:
        event = SimpleNamespace(record=lambda: None, synchronize=lambda: None)

        def __init__(self, size: int):
            self.bytes = np.zeros(size, np.uint8)
            self.__array_interface__ = self.bytes.__array_interface__

    numpy = SimpleNamespace(
        empty=lambda shape, dtype: empty(shape, dtype),
        zeros=lambda shape, dtype: np.zeros(shape, dtype).view(Array),
        asarray=lambda x: np.array(x).view(OnGPU),
        cuda=SimpleNamespace(runtime=SimpleNamespace(getDevice=lambda: 0)),
    )
    monkeypatch.setattr(writing, "cupy", lambda: numpy)
    monkeypatch.setattr(decoder, "cupy", lambda: numpy)
    monkeypatch.setattr(writing, "Graph", Again)
    monkeypatch.setattr(writing, "Pinned", Memory)
    monkeypatch.setattr(writing, "_memory", lambda _: None)


class Case(NamedTuple):
    """A model, what its logits should be, and its decoder and cache where the kernels run."""

    ids: Any  # (rows, context)
    right: Any  # (rows, context, V), in float64
    decoder: decoder.Decoder
    keys: Any
    values: Any


def decoder_there(model: GPT, there: Callable[[Any], Any]) -> decoder.Decoder:
    """The model's decoder where the kernels run."""
    parameters, scales = (tuple(there(x.copy()) for x in part) for part in model._in_order())
    options = {**model.choices(), "scales": scales, "heads": model.config.heads}
    return decoder.decoder_of(*parameters, **options)


def case_of(
    config: GPTConfig, rows: int, dtype: str, there: Callable[[Any], Any], int8: bool = False
) -> Case:
    """int8: with weights of 8 bits"""
    model = GPT(config, generator=Generator(1), dtype=dtype)
    for _, parameter in model.named_parameters():  # biases and gains that differ
        noise = Generator(parameter.size).normal(parameter.shape) * 0.1
        parameter.array[...] += noise.astype(as_dtype(dtype))
    if int8:
        model.to_int8()
    made = decoder_there(model, there)
    ids = np.random.default_rng(0).integers(0, config.vocabulary, (rows, config.context))
    with no_grad():
        right = model.to(dtype="float64")(ids).numpy()
    shape = config.layers, rows, config.heads, config.context, config.width // config.heads
    keys, values = (there(np.full(shape, np.nan, as_dtype(dtype))) for _ in range(2))
    return Case(ids, right, made, keys, values)


def state_of(case: Case, t: Any, there: Callable[[Any], Any]) -> Rows:
    """The rows before token t[r] of row r is read."""
    token = case.ids[np.arange(len(t)), t].astype(np.int32)
    nothing = np.zeros(0)
    return Rows(there(token), there(t.astype(np.int32)), nothing, nothing, nothing)


def errors(
    config: GPTConfig,
    rows: int,
    dtype: str,
    there: Callable[[Any], Any],
    by: Logits,
    int8: bool = False,
) -> Any:
    """The largest error at each step, in shares of the largest logit. The last row is a step
    behind.
    """
    case = case_of(config, rows, dtype, there, int8)
    found = []
    for step in range(config.context):
        t = np.maximum(step - (np.arange(rows) == rows - 1) * (rows > 1), 0)
        logits = to_host(by(case.decoder, case.keys, case.values, state_of(case, t, there)))
        off = logits[:, : config.vocabulary] - case.right[np.arange(rows), t]
        found.append(np.abs(off).max() / np.abs(case.right).max())
    return np.array(found)


SMALL = GPTConfig(vocabulary=37, context=5, width=32, heads=2, layers=2)
BOTH = pytest.mark.parametrize("int8", [False, True], ids=["floats", "int8"])


@BOTH
@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize("by", [logits_of_few, logits_of_many])
@pytest.mark.parametrize("rows", [1, 2])
def test_steps_are_the_whole_pass(
    by: Logits, rows: int, dtype: str, int8: bool, there: Any
) -> None:
    assert errors(SMALL, rows, dtype, there, by, int8).max() <= UNITS[dtype]


@BOTH
@pytest.mark.parametrize(
    "choice",
    [
        {"activation": "relu"},
        {"bias": False},
        {"tied": False, "scaled": True},
        {"width": 96, "heads": 3, "layers": 1},
    ],
    ids=str,
)
def test_steps_of_other_decoders(choice: dict[str, Any], int8: bool, there: Any) -> None:
    config = GPTConfig(**{**vars(SMALL), **choice})
    assert errors(config, 2, "float32", there, logits_of_few, int8).max() <= UNITS["float32"]


@BOTH
@pytest.mark.parametrize("by", [logits_of_few, logits_of_many])
def test_prompts_of_unequal_length_are_read_at_once(by: Logits, int8: bool, there: Any) -> None:
    case = case_of(SMALL, 2, "float32", there, int8)
    lengths = np.array([1, 3])
    padded = case.ids[:, :3].astype(np.int32).copy()
    padded[0, 1:] = 0
    h = many_rows.read(case.decoder, case.keys, case.values, there(padded))
    last = h.reshape(2, 3, -1)[np.arange(2), lengths - 1]
    logits = to_host(case.decoder.logits(last))[:, : SMALL.vocabulary]
    largest, unit = np.abs(case.right).max(), UNITS["float32"]
    for t in (lengths - 1, lengths, lengths + 1):
        assert np.abs(logits - case.right[np.arange(2), t]).max() <= unit * largest
        at = state_of(case, np.minimum(t + 1, 4), there)
        logits = to_host(by(case.decoder, case.keys, case.values, at))[:, : SMALL.vocabulary]


@BOTH
def test_a_block_reads_more_of_a_weight_than_it_asks_for_ahead(
    int8: bool, there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_rows, "SUM_BLOCKS", 1)
    config = GPTConfig(vocabulary=9, context=2, width=160, heads=5, layers=1)
    assert errors(config, 1, "float32", there, logits_of_few, int8).max() <= UNITS["float32"]


def test_scales_are_float32_when_the_model_has_moved_to_16_bits(there: Any) -> None:
    made = decoder_there(GPT(SMALL).to_int8().to("bfloat16"), there)
    scales = made.head.scale, made.blocks[0].qkv.scale
    assert [scale.dtype for scale in scales if scale is not None] == [float32, float32]


def test_weights_of_8_bits_that_are_refused() -> None:
    narrow = GPTConfig(**{**vars(SMALL), "width": 24})
    some = GPT(SMALL).to_int8()
    some.blocks[1].feed_forward.expand = nn.Linear(32, 128)
    for model, reason in (GPT(narrow).to_int8(), "24 channels"), (some, "for all weights"):
        parameters, _ = model._in_order()
        assert reason in (decoder.refusal(*parameters, heads=2, **model.choices()) or "")


def test_a_text_longer_than_the_keys_that_a_block_reads_at_once(there: Any) -> None:
    config = GPTConfig(vocabulary=9, context=40, width=32, heads=1, layers=1)
    assert errors(config, 2, "float32", there, logits_of_many).max() <= UNITS["float32"]


@BOTH
@pytest.mark.parametrize("rows", [2, 3])
def test_a_writer_writes_what_the_host_does(
    rows: int, int8: bool, there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the kernels for few rows, and by those for many, chunk after chunk. The reference of the
    host: its kernel rounds what meets 8 bits.
    """
    model = GPT(GPTConfig(**{**vars(SMALL), "context": 8}), generator=Generator(1))
    model.token_embedding.weight.array[...] *= 20
    if int8:
        model.to_int8()
    prompts, config = [[5], [1, 2, 3], [7, 8]][:rows], SampleConfig(length=6, top_k=9)

    def written() -> list[int]:
        generators = [draws(4, i) for i in range(rows)]
        return [step.token for _, step in steps(model, prompts, config, generators)]

    with kernels.off():
        by_host = written()
    made = decoder_there(model, there)
    monkeypatch.setattr(writing.Writer, "chunk", 2)
    monkeypatch.setattr(GPT, "writer", lambda _, n: writing.Writer(made, n))
    assert written() == by_host
