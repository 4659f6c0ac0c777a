"""The cost of starting: import time, memory of the idle process, size on disk, and the time from a
command to its first training step.

    python benchmarks/startup.py                       # everything: about two minutes
    python benchmarks/startup.py --only import size    # some sections
    python benchmarks/startup.py --out results         # writes JSON and a picture there too

*Import, memory.* New processes take turns. Each imports numpy, then one package more. Measured are
the time of the second import and the memory after it. A first round, which is not counted, writes
the compiled bytecode.

*Size.* This is the size of the files of the core dependencies in pyproject.toml, and of what these
need, as their metadata lists them; beside the size of torch.

*First step.* This is the time from the start of `python -m tinygpt train --steps 1` in an empty
folder to the line of that step in its metrics. Beside it is a script that imports torch, builds the
same model (peer.py), and takes one eager step on the same text. The script imports tinygpt for the
first weights, and the time of this is subtracted. One more start has an empty cache, as on the
first day, when the kernels must be compiled.

MB are 10^6 bytes. On systems without /proc the memory is the peak.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MB = 1e6

IMPORT = """
import time
start = time.perf_counter()
import numpy
middle, cpu = time.perf_counter(), time.process_time()
import {module}
end, cpu_end = time.perf_counter(), time.process_time()
try:
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    memory = int(status["VmRSS"].split()[0]) * 1024
except OSError:
    import resource, sys
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(middle - start, end - middle, cpu_end - cpu, memory)
"""

PEER = """
import time
import numpy, torch
start = time.perf_counter()
from tinygpt import GPT, GPTConfig
from tinygpt.corpus import Windows, story
from tinygpt.tokenizers import CharacterTokenizer
tokenizer = CharacterTokenizer(story())
model = GPT(GPTConfig(tokenizer.size))
ours = time.perf_counter() - start
from peer import peer_step
x, y = Windows(tokenizer.encode(story()), model.config.context)[:16]
peer_step(model, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.1, clip=1.0, mode="eager")(x, y)
print(ours, flush=True)
"""


def environment() -> dict[str, str]:
    """This process's, with the repository on the path from any folder, and with bytecode kept."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONPATH": path,
    }


# -- import time and memory


def measure_imports(repeats: int) -> list[dict[str, Any]]:
    """numpy alone; tensor, tinygpt and torch beyond it. Medians over fresh processes, which take
    turns.
    """
    modules = ("numpy", "tensor", "tinygpt", "torch")
    taken: dict[str, list[list[float]]] = {module: [] for module in modules}
    for repeat in range(1 + repeats):
        for module in modules:
            command = [sys.executable, "-c", IMPORT.format(module=module)]
            answer = subprocess.run(
                command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
            )
            if answer.returncode:
                raise SystemExit(f"import {module} failed:\n{answer.stderr}")
            if repeat:
                taken[module].append([float(part) for part in answer.stdout.split()])
    rows = []
    print(
        "import                    s (min)      cpu s   idle process, MB      "
        f"medians of {repeats} processes"
    )
    for module, figures in taken.items():
        alone, beyond, cpu, memory = zip(*figures, strict=True)
        seconds, name = (
            (alone, "numpy") if module == "numpy" else (beyond, f"{module} beyond numpy")
        )
        row: dict[str, Any] = {
            "import": name,
            "seconds": statistics.median(seconds),
            "min": min(seconds),
            "MB": statistics.median(memory) / MB,
        }
        row["cpu seconds"] = None if module == "numpy" else statistics.median(cpu)
        processor = "" if module == "numpy" else f"{row['cpu seconds']:.3f}"
        rows.append(row)
        print(f"{name:22}{row['seconds']:7.3f} ({row['min']:.3f}){processor:>9}{row['MB']:19.0f}")
    return rows


# -- size on disk


def closure(names: list[str]) -> dict[str, Distribution]:
    """The named distributions and all that they need here, extras left out. Raises SystemExit for
    one that is not installed.
    """
    from packaging.requirements import Requirement

    found: dict[str, Distribution] = {}
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{name} is not installed: its size cannot be measured") from None
        waiting += [Requirement(text) for text in found[name].requires or []]
    return found


def size_of(package: Distribution) -> int:
    """Bytes of the files that an install writes, bytecode included where it was compiled then."""
    paths = [Path(str(file.locate())) for file in package.files or []]
    return sum(path.stat().st_size for path in paths if path.is_file())


def measure_sizes() -> list[dict[str, Any]]:
    """A row for us and one for torch: MB in all, and of each package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = sum(
        path.stat().st_size
        for folder in ("tensor", "tinygpt")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    )
    rows: list[dict[str, Any]] = []
    print("install           MB   packages, the largest first, MB")
    for label, names, extra in (
        ("ours", project["dependencies"], {"tensor and tinygpt": own / MB}),
        ("torch and numpy", ["torch", "numpy"], {}),
    ):
        sizes = extra | {name: size_of(package) / MB for name, package in closure(names).items()}
        sizes = dict(sorted(sizes.items(), key=lambda item: -item[1]))
        rows.append({"install": label, "MB": sum(sizes.values()), "packages": sizes})
        print(
            f"{label:16}{rows[-1]['MB']:4.0f}   {len(sizes)}: "
            f"{', '.join(f'{name} {size:.1f}' for name, size in list(sizes.items())[:6])}"
        )
    return rows


# -- from the command to the first step


def our_first_step(first_ever: bool = False) -> tuple[float, float]:
    """Seconds until the first step's line is in the metrics, and until the command has ended (loss
    measured, curve drawn, sample written).

    first_ever: with an empty cache, so that what is kept between runs, kernels for instance, is
    built.
    """
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "tinygpt", "train", "--steps", "1"]
        variables = environment() | ({"XDG_CACHE_HOME": f"{folder}/cache"} if first_ever else {})
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not any(path.stat().st_size for path in Path(folder).glob("runs/*/metrics.jsonl")):
            if process.poll() is not None:
                raise SystemExit(f"tinygpt train ended without a step:\n{process.communicate()[1]}")
            time.sleep(0.001)
        first = time.perf_counter() - start
        errors = process.communicate()[1]
        if process.returncode:
            raise SystemExit(f"tinygpt train failed:\n{errors}")
        return first, time.perf_counter() - start


def torch_first_step() -> tuple[float, float]:
    """The same of the script in PyTorch, without what it spends on tinygpt."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", PEER],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        first = time.perf_counter() - start
        errors = process.communicate()[1]
        if process.returncode:
            raise SystemExit(f"the script in PyTorch failed:\n{errors}")
        return first - float(line), time.perf_counter() - start - float(line)


def measure_first_steps(repeats: int) -> list[dict[str, Any]]:
    """Both commands in turn, after one of each that is not counted; then ours with no cache."""
    pairs = [(our_first_step(), torch_first_step()) for _ in range(1 + repeats)][1:]
    ours, theirs = zip(*pairs, strict=True)
    rows = []
    print(
        "first step                       s (min)       command ended, s      "
        f"medians of {repeats}; the empty cache once"
    )
    for label, turns in (
        ("tinygpt train", ours),
        ("tinygpt train, empty cache", [our_first_step(first_ever=True)]),
        ("PyTorch", theirs),
    ):
        first, whole = zip(*turns, strict=True)
        row = {
            "command": label,
            "seconds": statistics.median(first),
            "min": min(first),
            "whole": statistics.median(whole),
        }
        rows.append(row)
        print(f"{label:30}{row['seconds']:7.2f} ({row['min']:.2f}){row['whole']:18.2f}")
    return rows


# -- picture and command line


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A panel of bars for each measurement that was made."""
    from matplotlib.figure import Figure

    panels: list[tuple[str, str, list[tuple[str, float]]]] = []
    if "import" in results:
        panels.append(
            ("import, seconds", "%.2f s", [(r["import"], r["seconds"]) for r in results["import"]])
        )
        panels.append(
            (
                "memory of the idle process, MB",
                "%.0f MB",
                [(r["import"].split()[0], r["MB"]) for r in results["import"]],
            )
        )
    if "size" in results:
        panels.append(
            ("installed size, MB", "%.0f MB", [(r["install"], r["MB"]) for r in results["size"]])
        )
    if "first-step" in results:
        panels.append(
            (
                "command to first step, seconds",
                "%.2f s",
                [(r["command"], r["seconds"]) for r in results["first-step"]],
            )
        )
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(9, 0.4 + 1.9 * rows), layout="constrained")
    for axes, (title, label, bars) in zip(
        figure.subplots(rows, 2, squeeze=False).flat,
        panels + [("", "", [])] * (len(panels) % 2),
        strict=True,
    ):
        if not bars:
            axes.axis("off")
            continue
        names, values = zip(*bars, strict=True)
        theirs = [name.startswith(("torch", "PyTorch")) for name in names]
        drawn = axes.barh(
            names,
            values,
            0.6,
            color=[
                "#bbbbbb" if name == "numpy" else "#ee6677" if other else "#4477aa"
                for name, other in zip(names, theirs, strict=True)
            ],
        )
        axes.bar_label(drawn, fmt=label, padding=3, fontsize=9)
        axes.set_title(title, fontsize=10)
        axes.margins(x=0.25)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    sections: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
        "import": lambda options: measure_imports(options.repeats),
        "size": lambda options: measure_sizes(),
        "first-step": lambda options: measure_first_steps(max(1, options.repeats // 2)),
    }
    parser = argparse.ArgumentParser(
        description="What it costs to begin, beside PyTorch: import time, memory, size on disk, "
        "time to the first training step."
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(sections),
        default=list(sections),
        help="some sections (default: all)",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=15,
        metavar="N",
        help="processes of each kind; half as many commands (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write startup.json and startup.png there"
    )
    options = parser.parse_args()
    results = {}
    for number, name in enumerate(options.only):
        print(end="\n" * (number > 0))
        results[name] = sections[name](options)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "startup.json").write_text(json.dumps(results, indent=1) + "\n")
        draw(results, options.out / "startup.png")


if __name__ == "__main__":
    main()
