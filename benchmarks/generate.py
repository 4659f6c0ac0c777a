"""Tokens a second for one prompt on the CPU: tinygpt with its cache, nanoGPT's loop without one,
transformers and CTranslate2 with theirs; tinygpt and CTranslate2 also with weights of 8 bits.

    python benchmarks/generate.py                 # both sizes, with random weights
    python benchmarks/generate.py shakespeare     # one of them; the other is gpt2

Shakespeare size: 63 new tokens after a prompt of one, inside the context of 64. Then 64 more tokens
past the context, where every token moves to another position, so that no key or value can be kept.
GPT-2, with 124 M parameters: 64 new tokens after a prompt of 16.

Each program has a process of its own. The processes take turns, and the median counts. A turn
writes the text of the Shakespeare size four times. Ours takes 10 ms, a tenth of them to fetch
weights that the other program pushed out of the processor's cache. All sample at temperature 1 from
all tokens. Each uses both cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAUSE = 0.1
TURNS = {"shakespeare": 12, "gpt2": 7}
TEXTS = {"shakespeare": 4, "gpt2": 1}  # in a turn
NEW = 64  # tokens of GPT-2
SIDES = {
    "shakespeare": ["ours", "nanoGPT"],
    "gpt2": ["ours", "ours-int8", "transformers", "CTranslate2", "CTranslate2-int8"],
}


def our_side(name: str, int8: bool = False) -> Callable[[str], tuple[int, float]]:
    """A function of "inside" or "past" that writes tokens: how many, and in how many seconds."""
    from tensor.random import Generator
    from tinygpt import GPT, GPTConfig

    config = (
        GPTConfig(65, 64, 128, 4, 4)
        if name == "shakespeare"
        else GPTConfig(50257, 1024, 768, 12, 12)
    )
    model = GPT(config, generator=Generator(0))
    if int8:
        model.to_int8()
    prompts = {
        "inside": [1] if name == "shakespeare" else list(range(100, 116)),
        "past": [i % 65 for i in range(64)],
    }
    counts = {"inside": 63 if name == "shakespeare" else NEW, "past": 64}

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
            "max_new_tokens": NEW,
            "min_new_tokens": NEW,
            "do_sample": True,
            "top_k": 0,
            "pad_token_id": 0,
        }
        model.generate(prompt, attention_mask=torch.ones_like(prompt), use_cache=True, **options)
        return NEW, time.perf_counter() - start

    return write


def ctranslate2_side(kind: str) -> Callable[[str], tuple[int, float]]:
    """A GPT-2 with random weights, converted here: its tokens have their numbers as names."""
    import ctranslate2
    from ctranslate2.converters.transformers import GPT2Loader
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config()
    spec = GPT2Loader().get_model_spec(GPT2LMHeadModel(config).eval())
    spec.register_vocabulary([str(i) for i in range(config.vocab_size)])
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = "0"
    spec.validate()
    spec.optimize(quantization=kind)
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        model = ctranslate2.Generator(folder, compute_type=kind, inter_threads=1, intra_threads=2)
    prompt = [str(i) for i in range(100, 116)]
    options: dict[str, Any] = {"max_length": NEW, "min_length": NEW, "sampling_topk": 0}

    def write(where: str) -> tuple[int, float]:
        start = time.perf_counter()
        (found,) = model.generate_batch([prompt], include_prompt_in_result=False, **options)
        return len(found.sequences_ids[0]), time.perf_counter() - start

    return write


MAKE: dict[str, Callable[[str], Callable[[str], tuple[int, float]]]] = {
    "ours": our_side,
    "ours-int8": lambda name: our_side(name, int8=True),
    "nanoGPT": lambda name: nanogpt_side(),
    "transformers": lambda name: transformers_side(),
    "CTranslate2": lambda name: ctranslate2_side("float32"),
    "CTranslate2-int8": lambda name: ctranslate2_side("int8"),
}


def serve(name: str, side: str) -> None:
    """Write a text for each line of standard input. Prints tokens a second."""
    write = MAKE[side](name)
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


def measure(name: str, where: str, sides: dict[str, Side]) -> list[dict[str, Any]]:
    """A row for each side: the median of its speeds, and of ours to its speed in the same round."""
    for side in sides.values():
        side.speed(where)  # to warm up
    rounds = [{key: side.speed(where) for key, side in sides.items()} for _ in range(TURNS[name])]
    rows = []
    for key in sides:
        row = {"size": name, "where": where, "side": key}
        row["speed"] = statistics.median(speeds[key] for speeds in rounds)
        for own in ("ours", "ours-int8"):
            if own in sides:
                row[own] = [speeds[own] / speeds[key] for speeds in rounds]
        rows.append(row)
    return rows


def shown(ratios: list[float] | None) -> str:
    """median (lowest - highest)"""
    if ratios is None:
        return ""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens a second on the CPU, one prompt.")
    parser.add_argument("sizes", nargs="*", choices=[*SIDES, []], help="default: all")
    parser.add_argument("--out", type=Path, help="folder for generate.json")
    parser.add_argument("--serve", choices=MAKE, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.sizes[0], options.serve)
        return
    rows = []
    print("| size | where | side | tokens/s | ours / it | ours with int8 / it |")
    print("|---|---|---|---|---|---|")
    for name in options.sizes or list(SIDES):
        sides = {key: Side(name, key) for key in SIDES[name]}
        for where in ("inside", "past") if name == "shakespeare" else ("inside",):
            for row in measure(name, where, sides):
                rows.append(row)
                ratios = " | ".join(shown(row.get(own)) for own in ("ours", "ours-int8"))
                print(f"| {name} | {where} | {row['side']} | {row['speed']:,.0f} | {ratios} |")
        for side in sides.values():
            side.process.communicate("")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "generate.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
