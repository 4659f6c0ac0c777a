"""nanoGPT's Shakespeare run for a GPU, in tinygpt and in PyTorch: whole processes, from the first
import to the last file.

    python benchmarks/shakespeare_on_gpu.py tinyshakespeare.txt --save benchmarks
    python benchmarks/shakespeare_on_gpu.py FILE --seeds 0 --steps 300    # flags of tinygpt train
    python benchmarks/shakespeare_on_gpu.py FILE --sides ours eager --seeds 0 --device cpu \
        --steps 40 --evaluate 20 --layers 1 --width 24 --context 16 --batch 4    # without a GPU
    python benchmarks/shakespeare_on_gpu.py FILE --seeds 0 1 2 3 4 5 6 7 8 9 --until 2250 \
        --together 5      # the losses of many seeds, and no wall times

Ours is one command, `tinygpt train --text FILE --preset shakespeare --device cuda`. PyTorch trains
the same model by nanoGPT's recipe: torch.compile in its fastest mode for this size, which uses CUDA
graphs; flash attention, bfloat16 by autocast over float32 weights, fused AdamW, and a file of
weights and moments whenever the validation loss is the best so far. Both sides see the same
batches, and measure all validation windows every 250 steps. PyTorch draws its own fresh weights,
and measures with the model that is not compiled, which saves a second compilation.

Each training is a process of its own. The wall time holds imports, reading the text, compilation
with empty caches of compiled code, measuring, and saving.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tinygpt import GPT
from tinygpt.commands import cli
from tinygpt.commands.choices import read_choices
from tinygpt.data.prepare import prepare
from tinygpt.training import gpu
from tinygpt.training.order import rows_of
from tinygpt.training.step import learning_rate

TOGETHER = 109  # windows that PyTorch measures at a time: a quarter of all
CACHES = "CUPY_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH"
METRICS = "metrics.jsonl"
NANOGPT = 1.4697  # the best loss that nanoGPT reports, on windows drawn at random
PAGE = """# nanoGPT's Shakespeare run on a GPU

{gpu}, PyTorch {torch}. Made by
`python benchmarks/shakespeare_on_gpu.py tinyshakespeare.txt --save benchmarks`.

`ours` is `tinygpt train --text tinyshakespeare.txt --preset shakespeare --device cuda`. The other
name is a mode of torch.compile. A wall time is that of a whole process, with imports, compilation,
measuring and saving; no code had been compiled before. The validation loss is the mean over all of
the last tenth of the text. nanoGPT reports {nanogpt}, on windows drawn at random.

{table}
![the validation losses of all trainings](shakespeare_on_gpu.png)
"""
HEAD = """| side | seed | best validation loss | at step | at the end | wall time | until step 1 |
|---|---|---|---|---|---|---|
"""


class Course(NamedTuple):
    """A training that has ended."""

    side: str
    seed: int
    seconds: float  # of the process
    first: float  # seconds until the first step was noted
    losses: list[tuple[int, float]]  # (step, validation loss)

    @property
    def best(self) -> tuple[float, int]:
        """The lowest loss, and its step."""
        return min((loss, step) for step, loss in self.losses)


# -- PyTorch


def train_peer(mode: str, flags: list[str]) -> None:
    """The whole training in PyTorch; a line of metrics for the first step and each measuring."""
    import torch
    from peer import Peer, peer_optimizer

    chosen = cli.parser_of("train").parse_args(flags)
    config, model = read_choices(chosen)
    until = chosen.until or config.steps
    device, out = config.device, Path(str(config.out))
    data = prepare(config, model(1).context, None)
    torch.manual_seed(config.seed)
    torch.set_float32_matmul_precision("high")  # what autocast leaves in float32 may be TF32
    shape = model(data.tokenizer.size)
    peer = Peer(GPT(shape, draw=False))
    draw(peer, shape.layers)
    peer.to(device)
    betas = config.beta1, config.beta2
    optimizer = peer_optimizer(peer, config.lr, betas, config.weight_decay)
    loss_of = peer if mode == "eager" else torch.compile(peer, mode=mode)
    best = math.inf

    def moved(ids: Any) -> torch.Tensor:
        host = torch.from_numpy(ids)
        return host if device == "cpu" else host.pin_memory().to(device, non_blocking=True)

    def autocast() -> Any:
        kind, narrow = torch.device(device).type, config.dtype == "bfloat16"
        return torch.autocast(kind, torch.bfloat16, enabled=narrow)

    @torch.no_grad()
    def measured() -> float:
        windows, losses = data.validation, []
        assert windows is not None
        peer.eval()
        for first in range(0, len(windows), TOGETHER):
            x, y = windows[slice(first, first + TOGETHER)]
            with autocast():
                losses.append(peer(moved(x), moved(y), "sum"))
        peer.train()
        return sum(map(float, losses)) / (len(windows.tokens) - 1)

    learned = torch.zeros((), device=device)  # the sum of the losses since the last measuring
    with (out / METRICS).open("w", buffering=1) as metrics:
        for step in range(until):
            x, y = data.windows[rows_of(step, config, len(data.windows))]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            with autocast():
                loss = loss_of(moved(x), moved(y))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(peer.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            learned += loss.detach()
            if step == 0:
                metrics.write(json.dumps({"step": 1, "loss": loss.item()}) + "\n")
            if (step + 1) % config.evaluate_steps == 0 or step + 1 == until:
                validation = measured()
                line = {"step": step + 1, "validation_loss": validation}
                line["learned"] = learned.item() / config.evaluate_steps
                learned.zero_()
                metrics.write(json.dumps(line) + "\n")
                if validation < best:
                    best = validation
                    state = {"model": peer.state_dict(), "optimizer": optimizer.state_dict()}
                    torch.save(state, out / "best.pt")


def draw(peer: Any, layers: int) -> None:
    """Fresh weights, as nanoGPT and tinygpt draw them."""
    from torch import nn

    for name, parameter in peer.named_parameters():
        if parameter.ndim == 2:
            depth = 2 * layers if name.endswith("projection.weight") else 1
            nn.init.normal_(parameter, std=0.02 / math.sqrt(depth))
        else:
            nn.init.constant_(parameter, float(name.endswith("weight")))


# -- both


def run(side: str, seed: int, flags: list[str], folder: Path) -> Course:
    """One training in a process of its own, with empty caches. side: ours, or a mode of
    torch.compile.
    """
    name = f"{side}-{seed}"
    out, caches = folder / name, {cache: str(folder / f"{name}-{cache}") for cache in CACHES}
    flags = [*flags, "--preset", "shakespeare", "--seed", str(seed), "--out", str(out)]
    words = ["-m", "tinygpt", "train", *flags]
    if side != "ours":
        out.mkdir()
        words = [__file__, "--peer", side, *flags]
    start, first = time.perf_counter(), math.nan
    with (folder / f"{name}.txt").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=said, stderr=said, env=os.environ | caches
        )
        while process.poll() is None:
            if math.isnan(first) and any(records(out)):
                first = time.perf_counter() - start
            time.sleep(0.02)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{name} has failed:\n{(folder / f'{name}.txt').read_text()[-2000:]}")
    losses = {r["step"]: r["validation_loss"] for r in records(out) if "validation_loss" in r}
    return Course(side, seed, seconds, first, sorted(losses.items()))


def records(out: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of the metrics so far."""
    if (out / METRICS).exists():
        for line in (out / METRICS).read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def table(courses: list[Course]) -> str:
    """Markdown, with the medians of each side last."""
    lines = []
    for course in courses:
        loss, step = course.best
        lines.append(
            f"| {course.side} | {course.seed} | {loss:.4f} | {step:,} | "
            f"{course.losses[-1][1]:.4f} | {course.seconds:.1f} s | {course.first:.1f} s |\n"
        )
    for side in dict.fromkeys(course.side for course in courses):
        own = [course for course in courses if course.side == side]
        best, end, seconds, first = (
            statistics.median(values)
            for values in zip(
                *((c.best[0], c.losses[-1][1], c.seconds, c.first) for c in own), strict=True
            )
        )
        lines.append(
            f"| **{side}** | median of {len(own)} | **{best:.4f}** | | {end:.4f} | "
            f"**{seconds:.1f} s** | {first:.1f} s |\n"
        )
    return HEAD + "".join(lines)


def picture(courses: list[Course], path: Path) -> None:
    """The validation losses of all trainings."""
    from tinygpt.runs.curves import axes_of

    figure, axes = axes_of("nanoGPT's Shakespeare run on a GPU", "character")
    sides = list(dict.fromkeys(course.side for course in courses))
    for course in courses:
        colour, own = f"C{sides.index(course.side)}", course.seed == courses[0].seed
        label = {"label": course.side} if own else {}
        axes.plot(*zip(*course.losses, strict=True), color=colour, linewidth=1, **label)
    axes.axhline(NANOGPT, color="tab:gray", linestyle="--", label=f"nanoGPT reports {NANOGPT}")
    axes.legend()
    figure.savefig(path)


def save(courses: list[Course], path: Path, where: str) -> None:
    """The numbers, a page and the picture.   where: the name of the GPU"""
    path.write_text(json.dumps(courses, indent=1) + "\n")
    facts = {"gpu": where, "torch": version("torch"), "nanogpt": NANOGPT}
    path.with_suffix(".md").write_text(PAGE.format(table=table(courses), **facts))
    picture(courses, path.with_suffix(".png"))


def main() -> None:
    if sys.argv[1] == "--peer":
        train_peer(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(
        description="nanoGPT's Shakespeare run on a GPU, ours and PyTorch's.",
        epilog="all other flags are those of tinygpt train, for both",
    )
    parser.add_argument("text", help="tinyshakespeare.txt")
    parser.add_argument("--sides", nargs="*", default=["ours", "reduce-overhead"], metavar="SIDE")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--together", type=int, default=1, help="trainings at once; no true times")
    parser.add_argument("--save", type=Path, help="folder for the table and the picture")
    parser.add_argument("--keep", type=Path, help="folder for the runs (none, if not given)")
    options, flags = parser.parse_known_args()
    flags += ["--text", options.text, "--device", options.device]
    courses = []
    pairs = itertools.product(options.seeds, options.sides)
    with (
        tempfile.TemporaryDirectory() as temporary,
        ThreadPoolExecutor(options.together) as pool,
    ):
        folder = options.keep or Path(temporary)
        for course in pool.map(lambda pair: run(pair[1], pair[0], flags, folder), pairs):
            courses.append(course)
            print(table([course]).splitlines()[2], flush=True)
    print(table(courses))
    if options.save:
        save(courses, options.save / "shakespeare_on_gpu.json", gpu.name(options.device))


if __name__ == "__main__":
    main()
