"""Are the gradients right? Analytic ones against central differences, in float64.

    dL/dx_i  ~  (L(x + h e_i) - L(x - h e_i)) / 2h,      L(x) = <dy, f(x)>, dy random

Ones in place of a random dy would accept any gradient of softmax and LayerNorm, whose gradient is
then truly 0. The error of a central difference is h^2 from the curvature plus 1e-16 / h from
rounding: smallest, about 3e-11, near h = 1e-5.

`python -m tensor.gradcheck [OP ...]` checks every op of the registry over shapes and memory
layouts.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from tensor import ops
from tensor.autograd.backward import grad
from tensor.dtypes import FLOATS, float64
from tensor.errors import DeviceError, DTypeError, GradientError
from tensor.gradient_cases import CASES, LAYOUTS, WITHOUT_GRADIENT, Case
from tensor.memory.devices import Array, array_module, move, to_host
from tensor.memory.layout import Shape
from tensor.memory.storage import Storage
from tensor.mode import no_grad
from tensor.tensor import Tensor

# inputs up to this size are differenced element by element, larger ones along random directions
ELEMENTS = 600
DIRECTIONS = 8


def gradcheck(
    function: Callable[..., Any],
    inputs: Any,
    step: float = 1e-5,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    seed: int = 0,
) -> float:
    """The worst relative error max|a - n| / max|n| over the float inputs of `function`; where n is
    0 throughout, max|a - n|.

    inputs: tensors or arrays, or a single one; floats must be float64 and are differentiated,
    others are passed as they are. The function may return a tensor or a tuple of them. Small
    functions are checked by their full Jacobian (one row an output element), all by a random
    upstream gradient. Raises GradientError naming input, index and both numbers when the error of
    an input exceeds rtol (atol where n is 0).
    """
    several = isinstance(inputs, (list, tuple))
    tensors = [Tensor.wrap(x) for x in (inputs if several else (inputs,))]
    checked = [i for i, x in enumerate(tensors) if x.dtype in FLOATS]
    for i in checked:
        if tensors[i].dtype != float64:
            raise DTypeError(
                f"gradcheck needs float64, input {i} is {tensors[i].dtype}: "
                "in fewer bits the differences are mostly rounding"
            )
    leaves = [Tensor.from_array(x.array, requires_grad=i in checked) for i, x in enumerate(tensors)]
    wanted = [leaves[i] for i in checked]
    outputs = _as_tuple(function(*leaves))
    total = sum(y.size for y in outputs)
    rng = np.random.default_rng(seed)
    upstreams = rng.standard_normal((1, total))  # each row: dL/dy of all outputs
    if sum(x.size for x in wanted) * total <= ELEMENTS:
        upstreams = np.concatenate([upstreams, np.eye(total)])  # the rows of the Jacobian

    worst = 0.0
    analytic = [_analytic(outputs, wanted, dy) for dy in upstreams]
    for position, i in enumerate(checked):
        directions = _directions(leaves[i].size, rng)
        changes = _differences(function, leaves, i, directions, step).reshape(
            len(directions), total
        )
        shape = leaves[i].shape if len(directions) == leaves[i].size else None
        for dy, gradients in zip(upstreams, analytic, strict=True):
            exact, numeric = directions @ gradients[position], changes @ dy
            worst = max(worst, _compare(exact, numeric, i, shape, rtol, atol))
    return worst


def _as_tuple(y: Any) -> tuple[Tensor, ...]:
    return tuple(y) if isinstance(y, (tuple, list)) else (y,)


def _analytic(outputs: tuple[Tensor, ...], leaves: list[Tensor], dy: Array) -> list[Array]:
    """dL/dleaf from the engine, zeros where nothing arrives.   dy: of all outputs, as (total,)"""
    if not leaves:
        return []
    parts = np.split(dy, np.cumsum([y.size for y in outputs]))  # and an empty one behind them
    reached = [(y, part) for y, part in zip(outputs, parts, strict=False) if y.requires_grad]
    if not reached:
        raise GradientError(
            "the function's result carries no graph: every output must depend on an input"
        )
    ys = [y for y, _ in reached]
    xp: Any = array_module(ys[0].device)
    upstream = [xp.asarray(part.reshape(y.shape)) for y, part in reached]
    gradients = grad(ys, leaves, upstream, retain_graph=True)
    return [
        np.zeros(x.size) if g is None else to_host(g.array).ravel()
        for x, g in zip(leaves, gradients, strict=True)
    ]


def _directions(size: int, rng: np.random.Generator) -> Array:
    """Unit vectors for every element of a small input, random directions of unit length in a large
    one.   (count, size)
    """
    if size <= ELEMENTS:
        return np.eye(size)
    drawn = rng.standard_normal((DIRECTIONS, size))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _differences(
    function: Callable[..., Any], leaves: list[Tensor], i: int, directions: Array, step: float
) -> Array:
    """Central differences of all outputs along each direction of input i.   (count, total)"""
    x = leaves[i].array
    xp: Any = array_module(leaves[i].device)

    def at(moved: Array) -> Array:
        arrays = [moved if j == i else leaf.array for j, leaf in enumerate(leaves)]
        with no_grad():
            outputs = _as_tuple(function(*map(Tensor.from_array, arrays)))
        return np.concatenate([to_host(y.array).ravel() for y in outputs])

    deltas = [xp.asarray(step * direction.reshape(x.shape)) for direction in directions]
    return np.array([(at(x + delta) - at(x - delta)) / (2 * step) for delta in deltas])


def _compare(
    exact: Array, numeric: Array, i: int, shape: Shape | None, rtol: float, atol: float
) -> float:
    """The relative error of the gradient of input i. Raises GradientError past the tolerance, or
    when a value is not finite.   shape: of the input, where its elements were moved one by one.
    """
    scale = float(np.abs(numeric).max(initial=0))
    difference = np.abs(exact - numeric)
    zero = scale < atol
    error = float(difference.max(initial=0)) / (1 if zero else scale)
    if not error <= (atol if zero else rtol):  # NaN compares false, and so is caught
        at = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
        where = f"direction {at}"
        if shape is not None:
            where = f"index {tuple(map(int, np.unravel_index(at, shape)))}"
        raise GradientError(
            f"gradient of input {i} at {where}: backward gives {exact[at]:.10g}, "
            f"central differences {numeric[at]:.10g} (error {error:.1e} of the largest)"
        )
    return 0.0 if zero else error


# -- every op, shape and layout


def check_case(
    case: Case, layout: str, device: str = "cpu", seed: int = 0, rtol: float = 1e-6
) -> float:
    """One case with its inputs in one memory layout."""
    laid_out = [Tensor.from_array(LAYOUTS[layout](x)) for x in case.inputs(seed)]
    inputs = [Tensor.over(Storage(move(x.storage.flat, device)), x.layout) for x in laid_out]
    return gradcheck(case.call, inputs, rtol=rtol, seed=seed)


def check_op(name: str, device: str = "cpu", seed: int = 0) -> tuple[int, float, str | None]:
    """(cases run, worst relative error, first failure) of one op over all its cases and layouts."""
    worst, count = 0.0, 0
    for case, layout in product(CASES, LAYOUTS):
        if case.op != name or (layout == "expanded" and not case.repeats):
            continue
        count += 1
        try:
            worst = max(worst, check_case(case, layout, device, seed))
        except GradientError as error:
            return count, np.inf, f"shapes {case.shapes}, layout {layout}: {error}"
    return count, worst, None if count else "it has no case in tensor/gradient_cases.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print op, cases and worst relative error; 1 when one is above 1e-6."""
    parser = argparse.ArgumentParser(
        prog="python -m tensor.gradcheck",
        description="Check the gradient of every op against central differences in float64.",
    )
    parser.add_argument("ops", nargs="*", metavar="OP", help="check only these")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the inputs and upstream gradients (default: 0)"
    )
    options = parser.parse_args(arguments)
    names = options.ops or sorted(ops.OPS)
    try:
        array_module(options.device)
        if unknown := [name for name in names if name not in ops.OPS]:
            known = ", ".join(sorted(ops.OPS))
            raise LookupError(f"no op is named {unknown[0]!r}; the ops are: {known}")
    except (DeviceError, LookupError) as error:
        print(error, file=sys.stderr)
        return 2
    failures, total, worst_of_all = 0, 0, 0.0
    print(f"{'op':22}{'cases':>7}  worst relative error")
    for name in names:
        if name in WITHOUT_GRADIENT:
            print(f"{name:22}{'-':>7}  no gradient")
            continue
        count, worst, failure = check_op(name, options.device, options.seed)
        failures += failure is not None
        total, worst_of_all = total + count, max(worst_of_all, worst)
        failed = f"  FAILED {failure}" if failure else ""
        print(f"{name:22}{count:7}  {worst:.1e}{failed}", flush=True)
    print(f"{total} cases, worst {worst_of_all:.1e}, {failures} ops failed")
    return int(failures > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
