"""Every kernel of one training step, and how long the GPU waits between them.

PyTorch's profiler reads the kernels from the driver (CUPTI), so it sees those of CuPy, cuBLASLt and
cuDNN too.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from gpu_ours import Ours, wait
from gpu_sides import RECIPE, Size, random_batches

GPU_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
WARM, STEPS = 5, 5  # steps before the profile, and in it


def kernels_of_step(size: Size, device: str) -> dict[str, Any]:
    """The work of the GPU in the mean step of some in a row, in ms: "span" from the first kernel to
    the last, "busy" in any kernel, and for each kernel the calls and the time. Empty without a GPU
    or PyTorch.
    """
    if device == "cpu" or importlib.util.find_spec("torch") is None:
        return {}
    from torch.profiler import ProfilerActivity, profile

    ours, batch = Ours(size, device), random_batches(size, 1)[0]
    for _ in range(WARM):
        ours.step(*batch, RECIPE["lr"])
    wait(device)
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as trace:
        for _ in range(STEPS):
            ours.step(*batch, RECIPE["lr"])
        wait(device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        trace.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return totals([event for event in events if event.get("cat") in GPU_WORK], STEPS)


def totals(events: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    """For each step, of events with a name, a start "ts" and a duration "dur" in microseconds."""
    rows: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    busy, covered = 0.0, 0.0
    for event in sorted(events, key=lambda event: event["ts"]):
        end = event["ts"] + event["dur"]
        busy += max(0.0, end - max(event["ts"], covered))  # two streams may overlap
        covered = max(covered, end)
        rows[event["name"]][0] += 1 / steps
        rows[event["name"]][1] += event["dur"] / 1e3 / steps
    if not events:
        return {}
    span = covered - min(event["ts"] for event in events)
    slowest = sorted(rows.items(), key=lambda row: -row[1][1])
    return {"span": span / 1e3 / steps, "busy": busy / 1e3 / steps, "kernels": slowest}


def table(found: dict[str, Any], most: int = 40) -> str:
    """Markdown, the slowest kernels first."""
    if not found:
        return "The kernels of a step need a GPU, and PyTorch, whose profiler lists them.\n"
    span, busy = found["span"], found["busy"]
    lines = [
        f"The mean of {STEPS} steps: {span:.2f} ms from first to last, {busy:.2f} ms of it in "
        f"kernels; the GPU waits {span - busy:.2f} ms ({1 - busy / span:.1%}).\n",
        "| kernel | calls | ms | share |",
        "|---|---|---|---|",
    ]
    for name, (calls, ms) in found["kernels"][:most]:
        lines.append(f"| `{short(name)}` | {calls:.3g} | {ms:.3f} | {ms / busy:.1%} |")
    rest = found["kernels"][most:]
    if rest:
        calls, ms = (sum(row[1][i] for row in rest) for i in (0, 1))
        lines.append(f"| {len(rest)} others | {calls:.3g} | {ms:.3f} | {ms / busy:.1%} |")
    return "\n".join(lines) + "\n"


def short(name: str, most: int = 70) -> str:
    """A name without its C++ arguments, for a line of a table."""
    plain = name.replace("|", " ").split("(")[0] or name
    return plain if len(plain) <= most else plain[: most - 3] + "..."
