"""A training step on a GPU: this project beside PyTorch, the same model, random data.

    python benchmarks/gpu.py                          # gpt2, baby and story
    python benchmarks/gpu.py gpt2 --modes eager       # one size, some of PyTorch's modes
    python benchmarks/gpu.py --losses                 # the losses of 200 steps in each precision
    python benchmarks/gpu.py --parts                  # each part of the gpt2 step and its floor
    python benchmarks/gpu.py --out benchmarks         # also writes gpu.md, gpu.json and gpu.png
    python benchmarks/gpu.py tiny --device cpu        # tries the program without a GPU

A step is forward, backward, clipping to norm 1, and AdamW. PyTorch runs nanoGPT's model eager and
compiled, with fused AdamW. First come heats of 10 steps: with autocast over float32 weights and
with weights in bfloat16, with flash attention and with cuDNN's. The faster of each pair runs. Then
all sides take turns of 10 steps, so that a change in the speed of the GPU meets all of them. Each
side has taken 20 steps before. A step's time is that between two CUDA events, and nothing is read
from the GPU before a turn has ended.

MFU is the share of the FLOP/s that the data sheet promises for 16 bits, counted as in
tinygpt/training/gpu.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
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

MODES = ["eager", "compile", "reduce-overhead", "max-autotune-no-cudagraphs"]
LIBRARIES = ["ours", "PyTorch"]
HEAT = 10  # steps
COLUMNS = "size|side|ms|5 % - 95 %|tokens/s|MFU|peak GiB|held GiB|driver's GiB|time / ours"
HEAD = f"| {COLUMNS.replace('|', ' | ')} |\n|{'---|' * 10}\n"


class Field:
    """The sides of one size that have not lost a heat."""

    def __init__(self, name: str, device: str):
        self.name, self.device = name, device
        self.sides: list[Side] = []
        self.heats: dict[str, float] = {}  # the median ms of each that ran in one

    def enter(self, names: list[str]) -> list[Side]:
        """Start sides and warm them up, all at once: most of that is the work of compilers. A side
        that fails is left out.
        """
        sides = [Side(name, self.name, self.device) for name in names]
        with ThreadPoolExecutor(len(sides) or 1) as pool:
            warm = list(pool.map(_warmed, sides))
        started = [side for side, alive in zip(sides, warm, strict=True) if alive]
        self.sides += started
        return started

    def heat(self, names: list[str]) -> str | None:
        """The fastest of these, which stays; the others end."""
        sides = self.enter(names)
        for side in sides:
            self.heats[side.name] = statistics.median(side.turn(HEAT))
            print(f"  {self.name}: {side.name}: {self.heats[side.name]:.2f} ms", file=sys.stderr)
        if not sides:
            return None
        best = min(sides, key=lambda side: self.heats[side.name])
        for side in sides:
            if side is not best:
                self.sides.remove(side)
                side.close()
        return best.name

    def close(self) -> None:
        for side in self.sides:
            side.close()


def _warmed(side: Side) -> bool:
    try:
        side.turn(WARM)
        side.ask("memory")  # forgets the peak of the warm-up
    except RuntimeError as error:
        print(f"  left out: {error}", file=sys.stderr)
        return False
    return True


def peers(field: Field, modes: list[str], narrow: bool, gpu: bool) -> None:
    """PyTorch's sides, at the precision and with the attention that win their heats."""
    precisions = ["autocast", "bfloat16"] if narrow else ["tf32"]
    attentions = ["flash", "cudnn"] if narrow and gpu else ["any"]
    pairs = [f"{precision} {attention}" for precision in precisions for attention in attentions]
    best = field.heat([f"eager {pair}" for pair in pairs])
    if best is None:
        return
    _, precision, attention = best.split()
    if "eager" not in modes:
        field.sides.pop().close()
    compiled = [mode for mode in modes if mode != "eager"]
    if compiled and narrow:  # what is best compiled need not be best eager
        first = field.heat([f"{compiled[0]} {other} {attention}" for other in precisions])
        precision = first.split()[1] if first else precision
        compiled = compiled[1:]
    field.enter([f"{mode} {precision} {attention}" for mode in compiled])


def race(
    name: str, libraries: list[str], modes: list[str], rounds: int, device: str
) -> dict[str, Any]:
    """Turns of all sides of one size."""
    size, field = SIZES[name], Field(name, device)
    if "PyTorch" in libraries:
        peers(field, modes, size.dtype != "float32", device != "cpu")
    if "ours" in libraries:
        others = list(field.sides)
        field.sides = field.enter([f"ours {size.dtype}"]) + others
    times: dict[str, list[float]] = {side.name: [] for side in field.sides}
    for _ in range(rounds):
        for side in field.sides:
            times[side.name] += side.turn(HEAT)
    held = drivers_memory()
    roof = peak(device)
    rows = [_row(name, side, times[side.name], held, roof) for side in field.sides]
    field.close()
    return {"size": name, "rows": rows, "heats": field.heats}


def _row(
    name: str, side: Side, times: list[float], held: dict[int, float], roof: float | None
) -> dict[str, Any]:
    size, ms = SIZES[name], statistics.median(times)
    config = GPTConfig(size.vocabulary, size.context, size.width, size.heads, size.layers)
    ordered, speed = sorted(times), size.batch * size.context / ms * 1e3
    memory: dict[str, float] = side.ask("memory")
    return {
        "side": side.name, "ms": ms, "steps": len(times),
        "low": ordered[len(times) // 20], "high": ordered[-1 - len(times) // 20],
        "tokens/s": speed,
        "MFU": flops_per_token(config) * speed / roof if roof else None,
        "driver": held.get(side.process.pid), **memory, "facts": side.ask("facts"),
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
    """The GPU and the versions, in a line."""
    known: dict[str, str] = {}
    for result in results:
        for row in result["rows"]:
            known |= {key: text for key, text in row["facts"].items() if key != "attention"}
    return ", ".join(f"{key} {text}" for key, text in known.items())


def page(measured: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    parts = ["# A training step on a GPU\n", "Made by `python benchmarks/gpu.py`.\n"]
    if "race" in measured:
        parts += [f"{facts(measured['race'])}\n", table(measured["race"])]
        for result in measured["race"]:
            heats = ", ".join(f"{side} {ms:.2f}" for side, ms in result["heats"].items())
            parts.append(f"Heats of {result['size']}, ms: {heats or 'none'}.\n")
    if "losses" in measured:
        losses = measured["losses"]
        parts.append(f"## Losses: {losses['size']}, {losses['steps']} steps\n")
        parts.append(gpu_losses.table(losses))
    if "parts" in measured:
        parts += ["## Parts of the step\n", f"{measured['parts']['title']}.\n"]
        parts.append(gpu_parts.table(measured["parts"]))
        parts += ["## Kernels of one step\n", gpu_profile.table(measured["parts"]["kernels"])]
    return "\n".join(parts)


def measure(options: argparse.Namespace, libraries: list[str]) -> dict[str, Any]:
    """What the options ask for."""
    sizes, device = options.sizes or ["gpt2", "baby", "story"], options.device
    if options.losses:
        name = "losses" if not options.sizes else sizes[0]
        return {"losses": gpu_losses.measure(name, libraries, options.steps, options.seeds, device)}
    if options.parts:
        return {"parts": gpu_parts.measure(SIZES[sizes[0]], device)}
    results = []
    for name in sizes:
        results.append(race(name, libraries, options.modes, options.rounds, device))
        print(table(results[-1:]), flush=True)
    return {"race": results}


def save(measured: dict[str, Any], folder: Path) -> None:
    """Write gpu.json, gpu.md and gpu.png, with what earlier calls have measured."""
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "gpu.json"
    whole = {**(json.loads(known.read_text()) if known.exists() else {}), **measured}
    known.write_text(json.dumps(whole) + "\n")
    (folder / "gpu.md").write_text(page(whole))
    if "parts" in measured:
        gpu_picture.draw(measured["parts"], folder / "gpu.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("sizes", nargs="*", help=f"of {', '.join(SIZES)} (gpt2, baby and story)")
    add("--modes", nargs="+", default=MODES, help="of PyTorch (%(default)s)")
    add("--rounds", type=int, default=6, help="turns of each side (%(default)s)")
    add("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES)
    add("--losses", action="store_true", help="the losses of each precision")
    add("--steps", type=int, default=200, help="of --losses (%(default)s)")
    add("--seeds", type=int, default=3, help="of --losses (%(default)s)")
    add("--parts", action="store_true", help="each part of our step, and its kernels")
    add("--device", default="cuda", help="cpu tries the program (%(default)s)")
    add("--out", type=Path, help="folder for gpu.md, gpu.json and gpu.png")
    options = parser.parse_args()
    libraries = options.libraries
    if "PyTorch" in libraries and importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed here: the figures are ours alone")
        libraries = ["ours"]
    measured = measure(options, libraries)
    print(page(measured))
    if options.out:
        save(measured, options.out)


if __name__ == "__main__":
    main()
