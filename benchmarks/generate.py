"""Tokens a second for one prompt on the CPU: tinygpt with its cache, nanoGPT's loop without one,
and transformers with its cache.

    python benchmarks/generate.py                 # both sizes, with random weights
    python benchmarks/generate.py shakespeare     # one of them; the other is gpt2

Shakespeare size: 63 new tokens after a prompt of one, inside the context of 64. Then 64 more tokens
past the context, where every token moves to another position, so that no key or value can be kept.
GPT-2, with 124 M parameters: 32 new tokens after a prompt of 16.

Each program has a process of its own. The processes take turns, and the median counts. A turn
writes the text of the Shakespeare size four times. Ours takes 10 ms, a tenth of them to fetch
weights that the other program pushed out of the processor's cache. All sample at temperature 1 from
all tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAUSE = 0.1
PAIRS = {"shakespeare": 12, "gpt2": 5}
TEXTS = {"shakespeare": 4, "gpt2": 1}  # in a turn
PEER = {"shakespeare": "nanoGPT", "gpt2": "transformers"}


def our_side(name: str) -> Callable[[str], tuple[int, float]]:
    """A function of "inside" or "past" that writes tokens: how many, and in how many seconds."""
    from tensor.random import Generator
    from tinygpt import GPT, GPTConfig

    config = (
        GPTConfig(65, 64, 128, 4, 4)
        if name == "shakespeare"
        else GPTConfig(50257, 1024, 768, 12, 12)
    )
    model = GPT(config, generator=Generator(0))
    prompts = {
        "inside": [1] if name == "shakespeare" else list(range(100, 116)),
        "past": [i % 65 for i in range(64)],
    }
    counts = {"inside": 63 if name == "shakespeare" else 32, "past": 64}

    def write(where: str) -> tuple[int, float]:
        start = time.perf_counter()
        for _ in range(TEXTS[name]):
            model.generate(prompts[where], counts[where], generator=Generator(1))
        return TEXTS[name] * counts[where], time.perf_counter() - start

    return write


def nanogpt_side() -> Callable[[str], tuple[int, float]]:
    """nanoGPT's generate: the whole window through the model for every token."""
    import torch
    from peer import Peer
    from torch.nn import functional

    from tensor.random import Generator
    from tinygpt import GPT, GPTConfig

    torch.set_num_threads(2)
    peer = Peer(GPT(GPTConfig(65, 64, 128, 4, 4), generator=Generator(0)))

    @torch.no_grad()
    def write(where: str) -> tuple[int, float]:
        prompt, count = (
            (torch.tensor([[1]]), 63) if where == "inside" else (torch.arange(64)[None, :], 64)
        )
        start = time.perf_counter()
        for _ in range(TEXTS["shakespeare"]):
            ids = prompt
            for _ in range(count):
                window = ids[:, -64:]
                h = peer.token_embedding(window) + peer.position_embedding(
                    peer.positions[: window.shape[1]]
                )
                for block in peer.blocks:
                    h = block(h)
                # of the last position alone
                logits = peer.final_norm(h[:, -1]) @ peer.token_embedding.weight.T
                ids = torch.cat(
                    [ids, torch.multinomial(functional.softmax(logits, dim=-1), 1)], dim=1
                )
        return TEXTS["shakespeare"] * count, time.perf_counter() - start

    return write


def transformers_side() -> Callable[[str], tuple[int, float]]:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(2)
    model = GPT2LMHeadModel(GPT2Config()).eval()
    prompt = torch.arange(100, 116)[None, :]

    @torch.no_grad()
    def write(where: str) -> tuple[int, float]:
        start = time.perf_counter()
        options: dict[str, Any] = {
            "max_new_tokens": 32,
            "min_new_tokens": 32,
            "do_sample": True,
            "top_k": 0,
            "pad_token_id": 0,
        }
        model.generate(prompt, attention_mask=torch.ones_like(prompt), use_cache=True, **options)
        return 32, time.perf_counter() - start

    return write


def serve(name: str, side: str) -> None:
    write = (
        our_side(name)
        if side == "ours"
        else nanogpt_side()
        if name == "shakespeare"
        else transformers_side()
    )
    for line in sys.stdin:
        count, seconds = write(line.strip())
        print(count / seconds, flush=True)


class Side:
    """A process that writes tokens on request."""

    def __init__(self, name: str, side: str):
        self.process = subprocess.Popen(
            [sys.executable, __file__, name, "--serve", side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def speed(self, where: str) -> float:
        """Tokens a second."""
        time.sleep(PAUSE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(where + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a side of the benchmark ended early; its error is above")
        return float(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens a second on the CPU, one prompt.")
    parser.add_argument("sizes", nargs="*", choices=[*PAIRS, []], help="default: all")
    parser.add_argument("--out", type=Path, help="folder for generate.json")
    parser.add_argument("--serve", choices=["ours", "peer"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.sizes[0], options.serve)
        return
    rows = []
    print(
        "size         where     ours tok/s     peer tok/s                 ratio  lowest - highest"
    )
    for name in options.sizes or list(PAIRS):
        ours, theirs = Side(name, "ours"), Side(name, "peer")
        for where in ("inside", "past") if name == "shakespeare" else ("inside",):
            ours.speed(where), theirs.speed(where)  # to warm up
            pairs = [(ours.speed(where), theirs.speed(where)) for _ in range(PAIRS[name])]
            ratios = [a / b for a, b in pairs]
            a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
            rows.append(
                {
                    "size": name,
                    "where": where,
                    "ours": a,
                    "peer": b,
                    "ratio": statistics.median(ratios),
                }
            )
            print(
                f"{name:12} {where:8} {a:11.0f} {b:14.0f} {PEER[name]:14} "
                f"{statistics.median(ratios):13.2f}  {min(ratios):.2f} - {max(ratios):.2f}",
                flush=True,
            )
        for side in (ours, theirs):
            side.process.communicate("")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "generate.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
