"""A transformer block, and the way of the residual stream through all blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import tensor
from tensor import Tensor, nn
from tensor.kernels import all_off
from tinygpt.config import ModelConfig
from tinygpt.model.attention import Attention, CrossAttention
from tinygpt.model.cache import Cache
from tinygpt.model.feed_forward import FeedForward

# a layer that adds to the residual stream, and the LayerNorm before or after it
Part: TypeAlias = tuple[nn.LayerNorm, Callable[[Tensor], Tensor]]


class Around(NamedTuple):
    """What the tokens of a block may look at. A mask is of bools, True: look."""

    mask: Tensor | None = None  # (B, 1, 1, T); None: all tokens
    memory: Tensor | None = None  # what an encoder made, (B, S, C)
    memory_mask: Tensor | None = None  # (B, 1, 1, S)
    cache: Cache | None = None  # the tokens before these


class Block(nn.Module):
    """Attention, cross-attention if there is an encoder, then feed-forward. Each adds to the
    residual stream x: (B, T, C).

    A block of a GPT is causal; one of an encoder is not; one of a decoder is causal, with
    cross-attention.
    """

    def __init__(self, config: ModelConfig, causal: bool = True, cross: bool = False):
        self.attention_norm = nn.LayerNorm(config.width, config.epsilon)
        self.attention = Attention(config, causal)
        self.cross_attention: CrossAttention | None = None
        if cross:
            self.cross_norm = nn.LayerNorm(config.width, config.epsilon)
            self.cross_attention = CrossAttention(config)
        self.feed_forward_norm = nn.LayerNorm(config.width, config.epsilon)
        self.feed_forward = FeedForward(config)
        self.pre_norm = config.norm == "pre"

    def __call__(self, x: Tensor, around: Around = Around()) -> Tensor:  # noqa: B008 (immutable)
        for norm, layer in self.parts(around):
            x = x + layer(norm(x)) if self.pre_norm else norm(x + layer(x))
        return x

    def answers(self, memory: Tensor) -> Tensor:
        """The keys and values of an encoder's memory.   (B, S, C) -> (B, S, 2C)"""
        assert self.cross_attention is not None
        return self.cross_attention.kv(memory)

    def parts(self, around: Around, number: int = 0) -> list[Part]:
        """The layers in their order. number: that of the block, for the cache."""
        mask, memory, memory_mask, cache = around
        attention, cross = self.attention, self.cross_attention
        parts: list[Part] = [
            (self.attention_norm, lambda x: attention(x, mask, cache, number)),
        ]
        if cross is not None:
            answer = lambda x: cross(x, memory, memory_mask, cache, number)
            parts.append((self.cross_norm, answer))
        return [*parts, (self.feed_forward_norm, self.feed_forward)]


def through_blocks(
    blocks: Sequence[Block],
    final_norm: nn.LayerNorm | None,
    x: Tensor,
    around: Around = Around(),  # noqa: B008
    recompute: bool = False,
) -> Tensor:
    """h = final_norm(x after every block): `for block in blocks: x = block(x, around)`, with each
    residual sum and the LayerNorm after it as one op.   x, h: (B, T, C)

    A sum and the norm that follows may belong to neighbouring blocks, so this function looks across
    blocks. With kernels off it is that loop, and a recording shows each block. recompute: each
    block keeps its input alone, and backward computes the block again. The numbers are the same in
    all three. Post-norm needs no final norm.
    """
    if recompute or (around.cache is None and all_off()):
        for block in blocks:
            x = tensor.checkpoint(block, x, around) if recompute else block(x, around)
        return x if final_norm is None else final_norm(x)
    parts: list[Part] = []
    for number, block in enumerate(blocks):
        parts += block.parts(around, number)
    if not blocks[0].pre_norm:
        for norm, layer in parts:
            _, x = norm.after_sum(x, layer(x))
        return x if final_norm is None else final_norm(x)
    assert final_norm is not None
    h = parts[0][0](x)
    following = [*(norm for norm, _ in parts[1:]), final_norm]
    for (_, layer), norm in zip(parts, following, strict=True):
        x, h = norm.after_sum(x, layer(h))
    return h
