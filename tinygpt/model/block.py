"""A transformer block, and the way of the residual stream through all blocks."""

from __future__ import annotations

import tensor
from tensor import Tensor, nn
from tensor.kernels import all_off
from tinygpt.config import GPTConfig
from tinygpt.model.attention import Attention
from tinygpt.model.cache import Cache
from tinygpt.model.feed_forward import FeedForward


class Block(nn.Module):
    """Attention, then feed-forward; each adds to the residual stream x: (B, T, C)."""

    def __init__(self, config: GPTConfig):
        self.attention_norm = nn.LayerNorm(config.width, config.epsilon)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.LayerNorm(config.width, config.epsilon)
        self.feed_forward = FeedForward(config)
        self.pre_norm = config.norm == "pre"

    def __call__(self, x: Tensor) -> Tensor:
        if self.pre_norm:
            x = x + self.attention(self.attention_norm(x))
            x = x + self.feed_forward(self.feed_forward_norm(x))
        else:
            x = self.attention_norm(x + self.attention(x))
            x = self.feed_forward_norm(x + self.feed_forward(x))
        return x


def through_blocks(
    blocks: list[Block],
    final_norm: nn.LayerNorm,
    x: Tensor,
    cache: Cache | None = None,
    recompute: bool = False,
) -> Tensor:
    """h = final_norm(x after every block): `for block in blocks: x = block(x)`, with each residual
    sum and the LayerNorm after it as one op.   x, h: (B, T, C)

    A sum and the norm that follows may belong to neighbouring blocks, so this function looks across
    blocks. With kernels off it is that loop, and a recording shows each block. recompute: each
    block keeps its input alone, and backward computes the block again. The numbers are the same in
    all three.
    """
    if recompute or (cache is None and all_off()):
        for block in blocks:
            x = tensor.checkpoint(block, x) if recompute else block(x)
        return final_norm(x)
    if not blocks[0].pre_norm:
        for layer, block in enumerate(blocks):
            _, x = block.attention_norm.after_sum(x, block.attention(x, cache, layer))
            _, x = block.feed_forward_norm.after_sum(x, block.feed_forward(x))
        return final_norm(x)
    h = blocks[0].attention_norm(x)
    following = [*(block.attention_norm for block in blocks[1:]), final_norm]
    for layer, block in enumerate(blocks):
        x, h = block.feed_forward_norm.after_sum(x, block.attention(h, cache, layer))
        x, h = following[layer].after_sum(x, block.feed_forward(h))
    return h
