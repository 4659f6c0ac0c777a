"""The same GPT in PyTorch, from the same weights and at PyTorch's best settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tinygpt import GPT, GPTConfig


class Block(nn.Module):
    """Pre-norm attention and feed-forward, as nanoGPT writes them."""

    def __init__(self, width: int, heads: int, bias: bool, dropout: float):
        super().__init__()
        self.heads, self.p, self.dropout = heads, dropout, nn.Dropout(dropout)
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.attention_projection = (
            nn.Linear(width, 3 * width, bias),
            nn.Linear(width, width, bias),
        )
        self.expand, self.feed_forward_projection = (
            nn.Linear(width, 4 * width, bias),
            nn.Linear(4 * width, width, bias),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, C = x.shape
        q, k, v = (
            t.view(B, T, self.heads, -1).transpose(1, 2)
            for t in self.qkv(self.attention_norm(x)).split(C, dim=2)
        )
        y = functional.scaled_dot_product_attention(
            q, k, v, dropout_p=self.p if self.training else 0.0, is_causal=True
        )
        y = self.attention_projection(y.transpose(1, 2).contiguous().view(B, T, C))
        x = x + self.dropout(y)
        y = functional.gelu(self.expand(self.feed_forward_norm(x)), approximate="tanh")
        return x + self.dropout(self.feed_forward_projection(y))


class Peer(nn.Module):
    """nanoGPT's model with our weights; peer(ids, targets) is the mean cross-entropy."""

    def __init__(self, model: GPT):
        super().__init__()
        config: GPTConfig = model.config
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(
            [
                Block(config.width, config.heads, config.bias, config.dropout)
                for _ in range(config.layers)
            ]
        )
        self.final_norm, self.dropout = nn.LayerNorm(config.width), nn.Dropout(config.dropout)
        self.register_buffer("positions", torch.arange(config.context))
        state = {key: value.numpy().copy() for key, value in model.state_dict().items()}
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(torch.from_numpy(self._ours(state, name)))

    @staticmethod
    def _ours(state: dict[str, Any], name: str) -> np.ndarray[Any, Any]:
        """The value of one of these parameters in the state of our model, whose linear weights are
        (inputs, outputs).
        """
        path = name.replace("attention_projection", "attention.projection").replace(
            "feed_forward_projection", "feed_forward.projection"
        )
        path = path.replace(".qkv", ".attention.qkv").replace(".expand", ".feed_forward.expand")
        if name == "position_embedding.weight":
            path = "position_embedding"
        if path.endswith("norm.weight"):
            path = path.replace("weight", "gain")
        value = state[path]
        return value.T.copy() if "embedding" not in path and value.ndim == 2 else value

    def forward(
        self, ids: torch.Tensor, targets: torch.Tensor, reduction: str = "mean"
    ) -> torch.Tensor:
        x = self.token_embedding(ids) + self.position_embedding(self.positions[: ids.shape[1]])
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        logits = self.final_norm(x) @ self.token_embedding.weight.T
        return functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-1, reduction=reduction
        )


def peer_optimizer(
    peer: Peer, lr: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """Fused AdamW that decays matrices and tables, not gains and biases."""
    decayed = [p for p in peer.parameters() if p.ndim >= 2]
    others = [p for p in peer.parameters() if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def peer_step(
    model: GPT, lr: float, betas: tuple[float, float], weight_decay: float, clip: float, mode: str
) -> Callable[[Any, Any], float]:
    """A training step in PyTorch from our model's weights: forward, backward, clip, fused AdamW.
    mode: "eager" or "compile".
    """
    peer = Peer(model)
    optimizer = peer_optimizer(peer, lr, betas, weight_decay)
    loss_of = torch.compile(peer) if mode == "compile" else peer

    def step(ids: Any, targets: Any) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(torch.from_numpy(ids), torch.from_numpy(targets))
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), clip)
        optimizer.step()
        return float(loss.detach())

    return step
