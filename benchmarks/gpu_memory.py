"""How the memory of a training step grows with the number of tokens, with attention by hand."""

from __future__ import annotations

import time

from gpu_ours import GIB, Ours, meter
from gpu_sides import RECIPE, SIZES, random_batches

RUNS = [(4096, 4), (8192, 4), (32768, 1)]  # T, B


def peak_of_a_step(T: int, B: int, device: str, size: str = "gpt2") -> float:
    """Print and return the GiB that a step takes beside weights, gradients and optimiser."""
    import cupy

    shape = SIZES[size]._replace(context=T, batch=B)
    ours, (batch,) = Ours(shape, device, by_hand=True), random_batches(shape, 1)
    ours.step(*batch, RECIPE["lr"])
    ours.wait()
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    held = pool.used_bytes()
    with meter(held) as hook:
        start = time.perf_counter()
        loss = ours.step(*batch, RECIPE["lr"])
        ours.wait()
    ms = 1e3 * (time.perf_counter() - start)
    own = (hook.peak - held) / GIB
    print(
        f"{size} {shape.dtype}, attention {ours.facts()['attention']}, B {B}, T {T}: peak "
        f"{hook.peak / GIB:.2f} GiB, {own:.2f} without what is held between steps; loss "
        f"{float(loss):.3f}, {ms:.0f} ms",
        flush=True,
    )
    ours.rest()
    return own


def measure(device: str = "cuda") -> None:
    found = [peak_of_a_step(T, B, device) for T, B in RUNS]
    print(f"memory of a step at T {RUNS[1][0]} / T {RUNS[0][0]}: {found[1] / found[0]:.3f}")
