"""Is a training on a GPU the same each time? Two equal runs, and one that stops and resumes.

    python -m tests.faults.cuda_determinism                       by hand, then the readable one
    python -m tests.faults.cuda_determinism --attention fastest   of all there are

Compared bit by bit are the losses of 100 steps of a small GPT in bfloat16 with dropout, and the
weights, masters and moments at the end. By hand is what `--deterministic` takes. cuDNN's attention
adds gradients in any order, so with it the runs may differ. Exit code 1 where they do.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from tensor import Generator, Tensor, kernels
from tensor.errors import DeviceError
from tensor.memory.devices import cupy, to_host
from tinygpt import GPT, GPTConfig
from tinygpt.config import TrainConfig
from tinygpt.data.windows import Windows
from tinygpt.training.step import optimizer_of, train

SHAPE = GPTConfig(vocabulary=1000, context=256, width=128, heads=2, layers=2, dropout=0.1)
ATTENTIONS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "by hand": kernels.deterministic,
    "readable": lambda: kernels.off("multi_head_attention", "attention"),
    "fastest": nullcontext,
}
State = dict[str, Any]


def windows() -> Windows:
    """Random tokens."""
    ids = np.random.default_rng(0).integers(0, SHAPE.vocabulary, 20_000)
    return Windows(ids, SHAPE.context)


def state_of(model: GPT, optimizer: Any) -> State:
    """Weights, and what the optimiser keeps, copied to the host."""
    weights = {name: host(value) for name, value in model.state_dict().items()}
    kept = optimizer.state_dict()
    arrays = {name: host(array) for name, array in kept["arrays"].items()}
    return {"weights": weights, "optimizer": {**kept, "arrays": arrays}}


def host(value: Any) -> Any:
    return np.array(to_host(value.array if isinstance(value, Tensor) else value))


def losses(device: str, steps: int, stop: int, state: State | None = None) -> tuple[Any, State]:
    """Train to step `stop` of `steps`, from a state or from fresh weights: (losses, state)."""
    config = TrainConfig(steps=steps, batch=8, dtype="bfloat16", device=device, lr=1e-3)
    model = GPT(SHAPE, generator=Generator(0), dtype=config.dtype, device=device)
    optimizer, first = optimizer_of(model, config), 0
    if state is not None:
        first = state["optimizer"]["taken"]
        model.load_state_dict({name: Tensor(x) for name, x in state["weights"].items()})
        optimizer.load_state_dict(state["optimizer"])
    found: list[float] = []
    for record in train(model, windows(), config, optimizer, first):
        found.append(float(record.loss))
        if record.step == stop:
            break
    return found, state_of(model, optimizer)


def differences(one: tuple[Any, State], other: tuple[Any, State]) -> list[str]:
    """The names of the arrays in which two trainings differ in any bit."""
    (losses, state), (other_losses, other_state) = one, other
    arrays = {"losses": np.array(losses), **state["weights"], **state["optimizer"]["arrays"]}
    others = {
        "losses": np.array(other_losses),
        **other_state["weights"],
        **other_state["optimizer"]["arrays"],
    }
    return [name for name, x in arrays.items() if x.tobytes() != others[name].tobytes()]


def check(device: str, steps: int, attention: str) -> int:
    """Print how equal runs compare; the number of comparisons that differ."""
    start = time.perf_counter()
    with ATTENTIONS[attention]():
        first, again = losses(device, steps, steps), losses(device, steps, steps)
        early, state = losses(device, steps, steps // 2)
        late, end = losses(device, steps, steps, state)
    pairs = {"the same run again": again, "stopped and resumed": ([*early, *late], end)}
    found = {name: differences(first, other) for name, other in pairs.items()}
    seconds, taken = time.perf_counter() - start, kernels.latest("multi_head_attention")[0]
    print(f"attention {attention} ({taken}), {steps} steps, {seconds:.0f} s", flush=True)
    for name, differing in found.items():
        print(f"  {name}: {', '.join(differing) or 'the same bits'}")
    return sum(map(bool, found.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=100)
    usual = ["by hand", "readable"]
    parser.add_argument("--attention", nargs="+", choices=ATTENTIONS, default=usual)
    options = parser.parse_args()
    try:
        if options.device != "cpu":
            cupy()
    except DeviceError as error:
        print(f"skipped: {error}")
        return 0
    found = [check(options.device, options.steps, name) for name in options.attention]
    return int(any(found))


if __name__ == "__main__":
    sys.exit(main())
