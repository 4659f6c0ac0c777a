"""A training step on a GPU: this project beside PyTorch, the same model, random data.

    python benchmarks/gpu.py                          # gpt2, baby and story
    python benchmarks/gpu.py gpt2 --peers ""          # one size, without PyTorch
    python benchmarks/gpu.py gpt2 --peers "compile bfloat16 cudnn, eager autocast flash"
    python benchmarks/gpu.py gpt2 --peers "ours bfloat16 by-hand"    # beside attention by hand
    python benchmarks/gpu.py baby --peers "ours bfloat16 queued"     # beside a step without a graph
    python benchmarks/gpu.py --losses                 # the losses of 200 steps in each precision
    python benchmarks/gpu.py --parts                  # each part of the gpt2 step and its floor
    python benchmarks/gpu.py --out benchmarks         # adds to gpu.md, gpu.json and gpu.png there
    python benchmarks/gpu.py tiny --device cpu        # tries the program without a GPU

A step is forward, backward, clipping to norm 1, and AdamW. PyTorch runs nanoGPT's model eager and
compiled, with fused AdamW, with weights in bfloat16 or with autocast over float32 weights, and with
flash attention or cuDNN's. Its sides "graph-eager" and "graph-compile" are the whole step in one
CUDA graph; the mode reduce-overhead makes graphs of parts. All sides take turns of 10 steps, so
that a change in the speed of the GPU meets all of them. Each side has taken 20 steps before. A
step's time is that between two CUDA events, and nothing is read from the GPU before a turn has
ended.

MFU is the share of the FLOP/s that the data sheet promises for 16 bits, counted as in
tinygpt/training/gpu.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
import gpu_losses
import gpu_parts
import gpu_picture
import gpu_profile
from gpu_sides import SIZES, WARM, Side

from tinygpt import GPTConfig
from tinygpt.training.gpu import flops_per_token, peak

TURN = 10  # steps
# kind, precision and attention of PyTorch's
NARROW = """eager bfloat16 cudnn, eager bfloat16 flash, eager autocast cudnn,
compile bfloat16 cudnn, compile bfloat16 flash, compile autocast cudnn,
reduce-overhead bfloat16 cudnn, max-autotune-no-cudagraphs bfloat16 cudnn,
graph-compile bfloat16 flash, graph-compile bfloat16 cudnn, graph-eager bfloat16 flash"""
WIDE = """eager float32 any, compile float32 any, reduce-overhead float32 any,
graph-compile float32 any, graph-eager float32 any, graph-compile tf32 any"""
ON_CPU = "eager bfloat16 any, eager autocast any"
COLUMNS = "size|side|ms|5 % - 95 %|tokens/s|MFU|peak GiB|held GiB|driver's GiB|time / ours"
HEAD = f"| {COLUMNS.replace('|', ' | ')} |\n|{'---|' * 10}\n"


def race(
    name: str, names: list[str], rounds: int, device: str, limit: float = 300
) -> dict[str, Any]:
    """Turns of these sides at one size."""
    sides = started([Side(side, name, device) for side in names], limit)
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides[:]:
            try:
                times[side.name] += side.turn(TURN)
                side.ask("rest")
            except RuntimeError as error:
                print(f"left out: {error}", file=sys.stderr)
                sides.remove(side)
    roof = peak(device)
    rows = [_row(name, side, times[side.name], roof) for side in sides]
    for side in sides:
        side.close()
    return {"size": name, "rows": rows}


def started(sides: list[Side], limit: float) -> list[Side]:
    """The sides that could be warmed up. All load at once; then all compile at once, which is work
    of the host and ends after `limit` seconds; the others follow one by one, because their memory
    together is too much.
    """
    compiled = [side for side in sides if not side.name.startswith(("ours", "eager"))]
    with ThreadPoolExecutor(len(sides)) as pool:
        list(pool.map(lambda side: _done(side, "facts"), sides))
        in_time = pool.map(lambda side: _warmed_within(side, limit), compiled)
        done = dict(zip(compiled, in_time, strict=True))
    done |= {side: _warmed(side) for side in sides if side not in done}
    return [side for side in sides if done[side]]


def _warmed_within(side: Side, limit: float) -> bool:
    """The same, for a side whose process is ended after so many seconds."""
    alarm = threading.Timer(limit, side.process.kill)
    alarm.start()
    try:
        return _warmed(side)
    finally:
        alarm.cancel()


def _warmed(side: Side) -> bool:
    """Whether the side took its first steps."""
    # the question for the memory forgets the peak of the warm-up
    return all(
        _done(side, question, **options)
        for question, options in (("turn", {"steps": WARM}), ("memory", {}), ("rest", {}))
    )


def _done(side: Side, question: str, **options: Any) -> bool:
    """Whether the side could answer."""
    try:
        side.ask(question, **options)
    except RuntimeError as error:
        print(f"left out: {error}", file=sys.stderr)
        return False
    return True


def _row(name: str, side: Side, times: list[float], roof: float | None) -> dict[str, Any]:
    """The figures of a side, after a last turn for its memory."""
    side.turn(2)
    held = drivers_memory().get(side.process.pid)
    size, ms = SIZES[name], statistics.median(times)
    config = GPTConfig(size.vocabulary, size.context, size.width, size.heads, size.layers)
    ordered, speed = sorted(times), size.batch * size.context / ms * 1e3
    memory, facts = side.ask("memory"), side.ask("facts")
    side.ask("rest")
    return {
        "side": side.name, "ms": ms, "steps": len(times),
        "low": ordered[len(times) // 20], "high": ordered[-1 - len(times) // 20],
        "tokens/s": speed,
        "MFU": flops_per_token(config) * speed / roof if roof else None,
        "driver": held, **memory, "facts": facts,
    }  # fmt: skip


def drivers_memory() -> dict[int, float]:
    """GiB on the GPU by process, as the driver counts; empty where it does not say."""
    command = [
        "nvidia-smi",
        "--query-compute-apps=pid,used_memory",
        "--format=csv,noheader,nounits",
    ]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    lines = [line.split(", ") for line in said.splitlines()]
    return {int(pid): float(mib) / 1024 for pid, mib in lines if mib.isdigit()}


def table(results: list[dict[str, Any]]) -> str:
    """Markdown. The last column: the time of a side over that of ours."""
    lines = []
    for result in results:
        ours = next((row["ms"] for row in result["rows"] if row["side"].startswith("ours")), None)
        for row in result["rows"]:
            memory = [_gib(row.get(kind)) for kind in ("peak", "held", "driver")]
            ratio = f"{row['ms'] / ours:.2f}" if ours else "-"
            lines.append(
                f"| {result['size']} | {row['side']} | {row['ms']:.2f} | {row['low']:.2f} - "
                f"{row['high']:.2f} | {row['tokens/s']:,.0f} | {_share(row['MFU'])} | "
                f"{' | '.join(memory)} | {ratio} |\n"
            )
    return HEAD + "".join(lines)


def _share(part: float | None) -> str:
    return "-" if part is None else f"{part:.1%}"


def _gib(size: float | None) -> str:
    return "-" if size is None else f"{size:.2f}"


def facts(results: list[dict[str, Any]]) -> str:
    """The GPU, the versions, our attention, and how many steps were timed."""
    rows = [row for result in results for row in result["rows"]]
    known: dict[str, str] = {}
    for row in rows:
        known |= {key: text for key, text in row["facts"].items() if key != "attention"}
        if row["side"].startswith("ours"):
            known.setdefault("our attention:", row["facts"]["attention"])
    steps = min((row["steps"] for row in rows), default=0)
    said = ", ".join(f"{key} {text}" for key, text in known.items())
    return f"{said}. The median of at least {steps} steps of each side, after {WARM}."


def page(measured: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    parts = ["# A training step on a GPU\n", "Made by `python benchmarks/gpu.py`.\n"]
    if "race" in measured:
        parts += [f"{facts(measured['race'])}\n", table(measured["race"])]
    if "losses" in measured:
        losses = measured["losses"]
        parts.append(f"## Losses: {losses['size']}, {losses['steps']} steps\n")
        parts.append(gpu_losses.table(losses))
    if "parts" in measured:
        parts += ["## Parts of the step\n", f"{measured['parts']['title']}.\n"]
        parts.append("![each part of the step under the roofline of the GPU](gpu.png)\n")
        parts.append(gpu_parts.table(measured["parts"]))
        parts += ["## Kernels of one step\n", gpu_profile.table(measured["parts"]["kernels"])]
    return "\n".join(parts)


def measure(options: argparse.Namespace, peers: str | None) -> dict[str, Any]:
    """What the options ask for.   peers: names with commas between, or those that are usual."""
    sizes, device = options.sizes or ["gpt2", "baby", "story"], options.device
    if options.join:
        joined: dict[str, Any] = json.loads(options.join.read_text())
        return joined
    if options.losses:
        name = options.sizes[0] if options.sizes else "losses"
        others = peers != ""
        return {"losses": gpu_losses.measure(name, others, options.steps, options.seeds, device)}
    if options.parts:
        return {"parts": gpu_parts.measure(SIZES[sizes[0]], device)}
    results = []
    for name in sizes:
        usual = WIDE if SIZES[name].dtype == "float32" else NARROW if device != "cpu" else ON_CPU
        names = [f"ours {SIZES[name].dtype}", *re.split(r",\s*", usual if peers is None else peers)]
        results.append(race(name, list(filter(None, names)), options.rounds, device, options.limit))
        print(table(results[-1:]), file=sys.stderr, flush=True)
    return {"race": results}


def save(measured: dict[str, Any], folder: Path) -> None:
    """Write gpu.json, gpu.md and gpu.png, with what earlier calls have measured."""
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "gpu.json"
    old = json.loads(known.read_text()) if known.exists() else {}
    whole = {**old, **measured}
    if "race" in measured:  # of other sizes
        new = {result["size"] for result in measured["race"]}
        kept = [result for result in old.get("race", []) if result["size"] not in new]
        whole["race"] = kept + measured["race"]
    known.write_text(json.dumps(whole) + "\n")
    (folder / "gpu.md").write_text(page(whole))
    if "parts" in measured:
        gpu_picture.draw(measured["parts"], folder / "gpu.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("sizes", nargs="*", help=f"of {', '.join(SIZES)} (gpt2, baby and story)")
    add("--peers", help="of PyTorch, with commas between (all usual ones); none: our own figures")
    add("--rounds", type=int, default=6, help="turns of each side (%(default)s)")
    add("--limit", type=float, default=300, help="seconds to compile a side in (%(default)s)")
    add("--losses", action="store_true", help="the losses of each precision")
    add("--steps", type=int, default=200, help="of --losses (%(default)s)")
    add("--seeds", type=int, default=3, help="of --losses (%(default)s)")
    add("--parts", action="store_true", help="each part of our step, and its kernels")
    add("--join", type=Path, help="a gpu.json whose figures to take, in place of measuring")
    add("--device", default="cuda", help="cpu tries the program (%(default)s)")
    add("--out", type=Path, help="folder for gpu.md, gpu.json and gpu.png")
    options = parser.parse_args()
    peers = options.peers
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed here: the figures are ours alone")
        peers = ""
    measured = measure(options, peers)
    print(page(measured))
    if options.out:
        save(measured, options.out)


if __name__ == "__main__":
    main()
