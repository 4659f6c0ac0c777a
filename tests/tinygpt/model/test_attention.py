"""Attention against its definition: one head, one query, one key at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels
from tinygpt import GPTConfig
from tinygpt.model.attention import Attention


def test_bug_58_causal_with_more_keys_than_queries(device: str) -> None:
    """Two queries at the end of five keys: the first sees four, the last all; equal scores share
    the weight evenly.
    """
    golden = np.array([[1 / 4, 1 / 4, 1 / 4, 1 / 4, 0], [1 / 5, 1 / 5, 1 / 5, 1 / 5, 1 / 5]])
    q, k, v = (
        Tensor(np.ones((2, 3)), device=device),
        Tensor(np.zeros((5, 3)), device=device),
        tensor.eye(5, dtype="float64", device=device),
    )
    for switch in (kernels.off(), tensor.no_grad()):  # the reference, and what runs by default
        with switch:
            weights = tensor.attention(q, k, v, causal=True).numpy()
        np.testing.assert_allclose(weights, golden, rtol=1e-15)
        assert weights[0, 4] == 0
    square = tensor.attention(
        Tensor(np.ones((3, 3)), device=device),
        Tensor(np.zeros((3, 3)), device=device),
        tensor.eye(3, dtype="float64", device=device),
        causal=True,
    )
    np.testing.assert_allclose(
        square.numpy(), np.tril(np.ones((3, 3))) / [[1], [2], [3]], rtol=1e-15
    )


def attention_by_hand(module: Attention, x: Any, heads: int) -> Any:
    """Head by head, query by query, as on paper."""
    assert module.qkv.bias is not None
    weight, bias = (p.to("cpu").numpy() for p in (module.qkv.weight, module.qkv.bias))
    B, T, C = x.shape
    D = C // heads
    out = np.zeros_like(x)
    for b in range(B):
        q, k, v = (
            x[b] @ weight[:, i * C : (i + 1) * C] + bias[i * C : (i + 1) * C] for i in range(3)
        )
        for h in range(heads):
            mine = slice(h * D, (h + 1) * D)
            for t in range(T):
                scores = np.array([q[t, mine] @ k[s, mine] / math.sqrt(D) for s in range(t + 1)])
                weights = np.exp(scores) / np.exp(scores).sum()
                out[b, t, mine] = sum(w * v[s, mine] for s, w in enumerate(weights))
    return (
        out @ module.projection.weight.to("cpu").numpy() + module.projection.bias.to("cpu").numpy()
    )  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("B", "T", "H", "D"),
    # all distinct; T = H; all alike; one token
    [(2, 7, 3, 5), (5, 3, 2, 4), (2, 3, 3, 5), (3, 4, 4, 4), (4, 1, 4, 2)],
)
def test_bug_60_heads(B: int, T: int, H: int, D: int, device: str) -> None:
    module = Attention(GPTConfig(11, context=9, width=H * D, heads=H, layers=1)).to(
        dtype="float64", device=device
    )
    x = np.random.default_rng(0).standard_normal((B, T, H * D))
    np.testing.assert_allclose(
        module(Tensor(x, device=device)).numpy(),
        attention_by_hand(module, x, H),
        rtol=0,
        atol=1e-12,
    )
