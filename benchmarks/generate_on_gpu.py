"""Tokens a second of GPT-2 with 124 M parameters on a GPU, in bfloat16: tinygpt beside PyTorch.

    python benchmarks/generate_on_gpu.py --out FOLDER

With `--int8` tinygpt's weights have 8 bits, and PyTorch's stay in bfloat16.

256 new tokens after prompts of 32, at temperature 1 from the 200 likeliest, for one prompt and for
64 side by side. A turn begins with the prompts on the host, and ends with all new tokens on the
host. The two sides take turns in one process, and the median counts.

PyTorch's side is nanoGPT's model with our weights, and a static cache with room for these tokens.
Its step is compiled, and one CUDA graph with the sampling of gpt-fast in it (top-k, softmax, argmax
of p over exponential noise), as ours is one. Reading the prompts is a graph, too. The host takes
the tokens once, at the end. Attention over the cache is written in two ways, and the faster counts:
`efficient` is PyTorch's attention with a mask, `sums` is products and sums that the compiler fuses.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer import Peer
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from tensor.random import Generator
from tinygpt import GPT, GPTConfig
from tinygpt.config import SampleConfig
from tinygpt.generation.generate import steps
from tinygpt.generation.sampling import draws

PROMPT, NEW, TOP_K = 32, 256, 200
TURNS = 7
CONFIG = GPTConfig(50257, 1024, 768, 12, 12)


def our_side(model: GPT, prompts: Any) -> Callable[[], Any]:
    """A function that writes: the new tokens, (rows, NEW)."""
    config = SampleConfig(length=NEW, top_k=TOP_K)

    def write() -> Any:
        generators = [draws(0, i) for i in range(len(prompts))]
        found = [step.token for _, step in steps(model, list(prompts), config, generators)]
        return np.reshape(found, (NEW, len(prompts))).T

    return write


def efficient(q: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over the places that were seen.   q: (B, H, 1, D)   keys, values:
    (B, H, S, D)   seen: (S,), bools
    """
    mask = torch.zeros(1, len(seen), dtype=q.dtype, device=q.device)
    mask = mask.masked_fill(~seen, float("-inf"))
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        return functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask)


def sums(q: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """The same without products of matrices."""
    scores = (q.float() * keys.float()).sum(-1) / q.shape[-1] ** 0.5  # (B, H, S)
    p = functional.softmax(scores.masked_fill(~seen, float("-inf")), dim=-1)
    return (p[..., None] * values.float()).sum(-2, keepdim=True).to(q.dtype)


WAYS = {"sums": sums, "efficient": efficient}


class Torch(nn.Module):
    """PyTorch's decoder with a static cache: keys and values of each layer, (B, H, S, D).

    Each tensor of the cache has memory of its own. The compiler would copy a larger tensor at each
    write into a part.
    """

    def __init__(self, peer: Peer, rows: int, way: str):
        super().__init__()
        self.peer, self.attend = peer, WAYS[way]
        H, S, D = CONFIG.heads, PROMPT + NEW, CONFIG.width // CONFIG.heads
        self.cache = [
            torch.zeros(rows, H, S, D, dtype=torch.bfloat16, device="cuda")
            for _ in range(2 * CONFIG.layers)
        ]
        self.places = torch.arange(S, device="cuda")

    def forward(self, ids: Tensor, at: Tensor) -> Tensor:
        """The logits after the last of the ids, (B, V).   ids: (B, T), a token each, or the whole
        prompts   at: (T,), their places
        """
        peer = self.peer
        B, T = ids.shape
        x = peer.token_embedding(ids) + peer.position_embedding(at)
        for layer, block in enumerate(peer.blocks):
            q, k, v = (
                t.view(B, T, block.heads, -1).transpose(1, 2)
                for t in block.qkv(block.attention_norm(x)).split(CONFIG.width, dim=2)
            )
            keys, values = self.cache[2 * layer : 2 * layer + 2]
            keys.index_copy_(2, at, k)
            values.index_copy_(2, at, v)
            if T == 1:
                y = self.attend(q, keys, values, self.places <= at)
            else:
                y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + block.attention_projection(y.transpose(1, 2).reshape(B, T, CONFIG.width))
            wide = functional.gelu(block.expand(block.feed_forward_norm(x)), approximate="tanh")
            x = x + block.feed_forward_projection(wide)
        return functional.linear(peer.final_norm(x[:, -1]), peer.token_embedding.weight)


def drawn(logits: Tensor) -> Tensor:
    """A token for each row, (B, 1)."""
    largest, ids = torch.topk(logits.float(), TOP_K)
    p = functional.softmax(largest, dim=-1)
    noise = torch.empty_like(p).exponential_(1)
    return ids.gather(1, torch.argmax(p / noise, dim=-1, keepdim=True))


def captured(work: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """The work as a graph, after three runs of it."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        work()
    return graph


def torch_side(peer: Peer, prompts: Any, way: str) -> Callable[[], Any]:
    """The same in PyTorch."""
    rows = len(prompts)
    model = Torch(peer, rows, way)
    ids = torch.from_numpy(prompts).cuda()
    token = torch.zeros((rows, 1), dtype=torch.int64, device="cuda")
    at = torch.full((1,), PROMPT, dtype=torch.int64, device="cuda")
    tokens = torch.zeros((rows, PROMPT + NEW + 1), dtype=torch.int64, device="cuda")
    places = torch.arange(PROMPT, device="cuda")

    def first() -> None:
        token.copy_(drawn(model(ids, places)))
        at.fill_(PROMPT)
        tokens.index_copy_(1, at, token)

    def step() -> None:
        token.copy_(drawn(model(token, at)))
        at.add_(1)
        tokens.index_copy_(1, at, token)

    with torch.no_grad():
        beginning, further = captured(first), captured(torch.compile(step))

    def write() -> Any:
        ids.copy_(torch.from_numpy(prompts))
        beginning.replay()
        for _ in range(NEW - 1):
            further.replay()
        return tokens[:, PROMPT : PROMPT + NEW].cpu().numpy()

    return write


def measure(model: GPT, peer: Peer, rows: int, way: str) -> dict[str, Any]:
    """Tokens a second of both sides, for so many prompts."""
    prompts = np.random.default_rng(0).integers(0, CONFIG.vocabulary, (rows, PROMPT))
    torch.compiler.reset()
    sides = {"tinygpt": our_side(model, prompts), "PyTorch": torch_side(peer, prompts, way)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(TURNS + 2):
        for name, write in sides.items():
            start = time.perf_counter()
            found = write()
            taken = time.perf_counter() - start
            assert found.shape == (rows, NEW)
            assert 0 <= found.min() <= found.max() < CONFIG.vocabulary
            if turn > 1:  # the first ones warm up
                seconds[name].append(taken)
    speeds = {name: rows * NEW / statistics.median(taken) for name, taken in seconds.items()}
    return {"prompts": rows, "way": way, **speeds, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens a second of GPT-2 on a GPU.")
    parser.add_argument("rows", nargs="*", type=int, default=[1, 64], help="prompts side by side")
    parser.add_argument("--out", type=Path, help="folder for generate_on_gpu.json")
    parser.add_argument("--int8", action="store_true", help="tinygpt's weights in 8 bits")
    options = parser.parse_args()
    model = GPT(CONFIG, generator=Generator(0), dtype="bfloat16", device="cuda")
    if options.int8:
        model.to_int8()
    peer = Peer(GPT(CONFIG, generator=Generator(0))).cuda().bfloat16()
    results = []
    for way in WAYS:
        for rows in options.rows:
            result = {"int8": options.int8, **measure(model, peer, rows, way)}
            ours, theirs = result["tinygpt"], result["PyTorch"]
            print(
                f"{rows:3} prompts: tinygpt {ours:9,.0f} tokens/s, PyTorch ({way}) "
                f"{theirs:9,.0f}, ratio {ours / theirs:.2f}",
                flush=True,
            )
            results.append(result)
            if options.out:
                options.out.mkdir(parents=True, exist_ok=True)
                text = json.dumps(results, indent=1) + "\n"
                (options.out / "generate_on_gpu.json").write_text(text)


if __name__ == "__main__":
    main()
