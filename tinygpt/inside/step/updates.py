"""What the optimiser did with each parameter, as text: a line for each, or one parameter in full,
with one element worked out by hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tensor.optim.adamw import adamw
from tinygpt.inside.arrays import floats, norm, number
from tinygpt.inside.step.training import Arrays, Step, Update

TITLES = ["w", "w after", "moved", "g", "clipped", "m (u)", "after", "v", "after"]


def notes(step: Step, in_full: bool, width: int) -> dict[str, list[str]]:
    """The lines about each update, by the name of its stop."""
    names = [f"{update.name}.update" for update in step.updates]
    if in_full:
        found = [list(explained(step, update)) for update in step.updates]
    else:
        found = table(step.updates, width)
    return dict(zip(names, found, strict=True))


def table(updates: Sequence[Update], width: int) -> list[list[str]]:
    """The norms of each parameter: the weight, its change, its gradient before and after clipping,
    and the optimiser's state. A list of lines for each update: one line if it fits.

    The headings stand before the first.
    """
    rows = [TITLES, *map(_norms, updates)]
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    heading, *lines = (" ".join(map(str.rjust, row, sizes)) for row in rows)
    pairs = [(update.name, line) for update, line in zip(updates, lines, strict=True)]
    longest = max(len(update.name) for update in updates) + 2
    if longest + len(heading) <= width:
        headings = [" " * longest + heading]
        found = [[f"{name:<{longest}}{line}"] for name, line in pairs]
    else:
        headings = ["norms of each parameter:", f"  {heading}"]
        found = [[name, f"  {line}"] for name, line in pairs]
    return [headings + found[0], *found[1:]]


def _norms(update: Update) -> list[str]:
    before, after = update.before, update.after
    short = [update.moved, norm(update.gradient), norm(before["g"])]
    for name in [name for name in after if name != "w"]:
        short += [norm(before[name]), norm(after[name])]
    cells = [f"{norm(before['w']):.5g}", f"{norm(after['w']):.5g}"]
    cells += [f"{size:.2g}" for size in short]
    return cells + ["-"] * (len(TITLES) - len(cells))


def exactly(update: Update) -> Arrays:
    """The weight and the state after, by the optimiser's rule in float64."""
    given = {name: floats(array) for name, array in update.before.items()}
    update.rule(*given.values())
    return given


def explained(step: Step, update: Update) -> Iterator[str]:
    """How the weight after came about: one element by hand, and the distance of the rule in float64
    and of the run line by line from the step's result.
    """
    if step.skipped:
        kept = "the weight, its state and its count stay as they were"
        yield f"skipped: the gradient norm is not finite, so {kept}"
        return
    g = floats(update.before["g"])
    at = tuple(map(int, np.unravel_index(np.abs(g).argmax(), g.shape)))
    yield f"one element, {update.name}{list(at)}, where the gradient is largest:"
    by_hand = _adamw_by_hand if update.rule.func is adamw else _muon_by_hand
    clipping = f"{update.gradient[at]:.6g} * {number(step.factor)} = {g[at]:.6g}"
    yield f"  g  = {clipping}      clipping"
    for line in by_hand(update, at):
        yield f"  {line}"
    yield f"       the step left {update.after['w'][at]:.8g}"
    again, exact = update.lines()[0], exactly(update)
    yield f"the whole {update.name}: largest difference from what the step left"
    for name, array in update.after.items():
        size = _largest(array) or 1.0
        formula = f"{_largest(exact[name] - floats(array)) / size:.1e}"
        lines = f"{_largest(floats(again[name]) - floats(array)) / size:.1e}"
        hand = f"{formula} of its largest value, by the rule in float64"
        yield f"  {name}   {hand}; {lines}, by the rule line by line"


def _largest(array: Any) -> float:
    return float(np.abs(floats(array)).max())


def _adamw_by_hand(update: Update, at: tuple[int, ...]) -> Iterator[str]:
    """Loshchilov & Hutter 2019, algorithm 2, in float64."""
    numbers, t = update.rule.keywords, update.count
    b1, b2, eps, keep = (numbers[name] for name in ("b1", "b2", "eps", "decay"))
    w, g, m, v = (float(update.before[name][at]) for name in "wgmv")
    lr = numbers["step_size"] * (1 - b1**t)
    new_m, new_v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    m_hat, v_hat = new_m / (1 - b1**t), new_v / (1 - b2**t)
    new_w = keep * w - lr * m_hat / (math.sqrt(v_hat) + eps)
    decay = f"{keep:.8g} * " if keep != 1 else ""
    yield f"m  = {b1:g} * {m:.6g} + {1 - b1:g} * {g:.6g} = {new_m:.6g}"
    yield f"v  = {b2:g} * {v:.6g} + {1 - b2:g} * {g:.6g}^2 = {new_v:.6g}"
    yield f"m^ = m / (1 - {b1:g}^{t}) = {m_hat:.6g},   v^ = v / (1 - {b2:g}^{t}) = {v_hat:.6g}"
    yield f"w  = {decay}{w:.6g} - {lr:.6g} * m^ / (sqrt(v^) + {eps:g}) = {new_w:.8g}"


def _muon_by_hand(update: Update, at: tuple[int, ...]) -> Iterator[str]:
    numbers = update.rule.keywords
    momentum, nesterov, keep = (numbers[name] for name in ("momentum", "nesterov", "decay"))
    w, g, u = (floats(update.before[name]) for name in "wgu")
    new_u = momentum * u + g
    direction, looks = new_u, "u"
    if nesterov:
        direction, looks = g + momentum * new_u, "g + momentum u"
    made = next(m.values["update"] for m in update.lines()[1] if "update" in m.values)
    lr = numbers["lr"] * math.sqrt(max(1.0, g.shape[1] / g.shape[0]))
    spreads = f"{_spread(direction)} before, {_spread(made)} after"
    yield f"u  = {momentum:g} * {u[at]:.6g} + g = {new_u[at]:.6g}      momentum"
    yield f"o  = {made[at]:.6g} of orthogonal({looks}), {direction[at]:.6g} before"
    yield f"     singular values {spreads}; 1 is orthogonal"
    yield f"w  = {keep:.8g} * {w[at]:.6g} - {lr:.6g} * o = {keep * w[at] - lr * made[at]:.8g}"


def _spread(matrix: Any) -> str:
    values = np.linalg.svd(floats(matrix), compute_uv=False)
    return f"{number(values[-1])} to {number(values[0])}"
