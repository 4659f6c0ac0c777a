"""A decoder's pass over a new token of each of many texts, and over whole prompts, by cuBLASLt.
A weight of 8 bits is widened for its product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensor.dtypes import float32
from tensor.kernels.cuda.attention.by_hand import attention_by_hand
from tensor.kernels.cuda.generation.attention import THREADS, attend, attention_source, keep
from tensor.kernels.cuda.generation.decoder import Block, Decoder
from tensor.kernels.cuda.generation.sampling import Rows
from tensor.kernels.cuda.launch import empty
from tensor.kernels.cuda.layer_norm import (
    layer_norm_in_registers,
    residual_layer_norm_in_registers,
)
from tensor.kernels.cuda.linear import linear_gelu_by_products
from tensor.kernels.cuda.products import product
from tensor.memory.devices import Array, cupy


def logits_of_many(decoder: Decoder, keys: Array, values: Array, state: Rows) -> Array:
    """The logits after each row's token, which joins the cache: as `Decoder.logits`.

    keys, values: (layers, rows, heads, capacity, D)
    """
    R, C, H = len(state.token), decoder.width, decoder.heads
    source = attention_source(C // H, 1, 1)

    def attended(layer: int, block: Block, h: Array) -> Array:
        qkv, y = empty((1, R, 3 * C), float32), empty((R, C), decoder.dtype)
        product(h, block.qkv.widened(decoder.dtype), qkv[0])
        attend(source, qkv, block.qkv_bias, state.seen, keys[layer], values[layer], H, y)
        return y

    return decoder.logits(_through(decoder, state.token, state.seen, attended))


def read(decoder: Decoder, keys: Array, values: Array, ids: Array) -> Array:
    """What the head reads after each of the first tokens of texts, which join the cache: (B T, C).
    ids: (B, T), int32
    """
    (B, T), C = ids.shape, decoder.width
    places = cupy().tile(cupy().arange(T, dtype=ids.dtype), B)

    def attended(layer: int, block: Block, h: Array) -> Array:
        qkv = product(h, block.qkv.widened(decoder.dtype), bias=block.qkv_bias)
        qkv = qkv.reshape(B, T, 3 * C)
        keep(qkv, keys[layer], values[layer])
        y, _ = attention_by_hand(qkv, heads=decoder.heads, causal=True)
        return y.reshape(B * T, C)

    return _through(decoder, ids.reshape(-1), places, attended)


def _through(
    decoder: Decoder, ids: Array, places: Array, attended: Callable[[int, Block, Array], Array]
) -> Array:
    """norm(x) after all blocks, (rows, C).   ids, places: (rows,), int32

    attended(layer, block, h): what attention answers to norm(x), before its projection
    """
    x, eps = _embedded(decoder, ids, places), decoder.eps
    first = decoder.blocks[0]
    h, _ = layer_norm_in_registers(x, first.norm, first.norm_bias, eps=eps)
    following = [(block.norm, block.norm_bias) for block in decoder.blocks[1:]]
    following.append((decoder.norm, decoder.norm_bias))
    for layer, (block, after) in enumerate(zip(decoder.blocks, following, strict=True)):
        y = attended(layer, block, h)
        y = product(y, block.project.widened(decoder.dtype), bias=block.project_bias)
        x, h = _add_and_norm(x, y, block.norm2, block.norm2_bias, eps)
        y = _wide(decoder, block, h)
        y = product(y, block.contract.widened(decoder.dtype), bias=block.contract_bias)
        x, h = _add_and_norm(x, y, *after, eps)
    return h


def _embedded(decoder: Decoder, ids: Array, places: Array) -> Array:
    """scale tokens[id] + positions[place]"""
    C, dtype = decoder.width, decoder.dtype
    x = empty((len(ids), C), dtype)
    source = attention_source(C // decoder.heads, 1, 1)
    given = ids, places, decoder.tokens, decoder.positions, x, C, decoder.scale
    kinds: dict[str, Any] = {"dtype": dtype, "width": 16 // dtype.itemsize}
    source.launch("embed", (len(ids),), (THREADS,), *given, **kinds)
    return x


def _wide(decoder: Decoder, block: Block, h: Array) -> Array:
    """activation(h W1 + b1)"""
    expand = block.expand.widened(decoder.dtype)
    if decoder.relu:
        return cupy().maximum(product(h, expand, bias=block.expand_bias), 0)
    y, _ = linear_gelu_by_products(h, expand, block.expand_bias)
    return y


def _add_and_norm(x: Array, y: Array, gain: Array, bias: Array, eps: float) -> tuple[Array, Array]:
    """(x + y, its norm)"""
    (_, _, s, _), (_, _, h, _) = residual_layer_norm_in_registers(x, y, gain, bias, eps=eps)
    return s, h
