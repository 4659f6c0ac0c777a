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

BY_HAND = "by hand in float64"
TITLES = ["w", "w after", "moved", "g", "clipped", "m (u)", "after", "v", "after"]


def table(updates: Sequence[Update], width: int) -> list[list[str]]:
    """The norms of each parameter: the weight, its change, its gradient before and after clipping,
    and the optimiser's state. A list of lines for each update: one line if it fits.

    The headings stand before the first.
    """
    rows = [TITLES, *map(_norms, updates)]
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    heading, *lines = (
        " ".join(cell.rjust(size) for cell, size in zip(row, sizes, strict=True)) for row in rows
    )
    longest = max(len(update.name) for update in updates) + 2
    if longest + len(heading) <= width:
        headings = [" " * longest + heading]
        found = [
            [f"{update.name:<{longest}}{line}"] for update, line in zip(updates, lines, strict=True)
        ]
    else:
        headings = ["norms of each parameter:", f"  {heading}"]
        found = [[update.name, f"  {line}"] for update, line in zip(updates, lines, strict=True)]
    return [headings + found[0], *found[1:]]


def _norms(update: Update) -> list[str]:
    b, a = update.before, update.after
    short = [update.moved, norm(update.gradient), norm(b["g"])]
    for name in a:
        if name != "w":
            short += [norm(b[name]), norm(a[name])]
    cells = [f"{norm(b['w']):.5g}", f"{norm(a['w']):.5g}", *(f"{size:.2g}" for size in short)]
    return cells + ["-"] * (len(TITLES) - len(cells))


def exactly(update: Update) -> Arrays:
    """The weight and the state after, by the optimiser's formula in float64. For AdamW this is
    Loshchilov & Hutter's algorithm 2.
    """
    given = {name: floats(array) for name, array in update.before.items()}
    numbers = update.rule.keywords
    if update.rule.func is not adamw:
        update.rule.func(*given.values(), **numbers)
        return given
    w, g, b1, b2 = given["w"], given["g"], numbers["b1"], numbers["b2"]
    m = b1 * given["m"] + (1 - b1) * g
    v = b2 * given["v"] + (1 - b2) * g * g
    step = numbers["step_size"] * m / (numbers["bias_correction"] * np.sqrt(v) + numbers["eps"])
    return {"m": m, "v": v, "w": numbers["decay"] * w - step}


def explained(step: Step, update: Update) -> Iterator[str]:
    """How the weight after came about: one element by hand, and the distance of the formula and of
    the run line by line from the step's result.
    """
    if step.skipped:
        kept = "the weight, its state and its count stay as they were"
        yield f"skipped: the gradient norm is not finite, so {kept}"
        return
    g = update.before["g"]
    largest = np.unravel_index(np.abs(floats(g)).argmax(), g.shape)
    at = tuple(map(int, largest))
    yield f"one element, {update.name}{list(at)}, where the gradient is largest:"
    by_hand = _adamw_by_hand if update.rule.func is adamw else _muon_by_hand
    for line in by_hand(step, update, at):
        yield f"  {line}"
    again, exact = update.lines()[0], exactly(update)
    yield f"the whole {update.name}: largest difference from what the step left"
    for name, array in update.after.items():
        size = _largest(array) or 1.0
        formula = f"{_largest(floats(exact[name]) - floats(array)) / size:.1e}"
        lines = f"{_largest(floats(again[name]) - floats(array)) / size:.1e}"
        hand = f"{formula} of its largest value, {BY_HAND}"
        yield f"  {name}   {hand}; {lines}, by the rule line by line"


def _largest(array: Any) -> float:
    return float(np.abs(floats(array)).max())


def _adamw_by_hand(step: Step, update: Update, at: tuple[int, ...]) -> Iterator[str]:
    numbers, t, new = update.rule.keywords, update.count, exactly(update)
    b1, b2, eps, keep = (numbers[name] for name in ("b1", "b2", "eps", "decay"))
    w, g, m, v = (f"{update.before[name][at]:.6g}" for name in ("w", "g", "m", "v"))
    m_hat, v_hat = new["m"][at] / (1 - b1**t), new["v"][at] / (1 - b2**t)
    decay = f"{keep:.8g} * " if keep != 1 else ""
    lr = numbers["step_size"] * (1 - b1**t)
    yield f"g  = {update.gradient[at]:.6g} * {number(step.factor)} = {g}      clipping"
    yield f"m  = {b1:g} * {m} + {1 - b1:g} * {g} = {new['m'][at]:.6g}"
    yield f"v  = {b2:g} * {v} + {1 - b2:g} * {g}^2 = {new['v'][at]:.6g}"
    yield f"m^ = m / (1 - {b1:g}^{t}) = {m_hat:.6g},   v^ = v / (1 - {b2:g}^{t}) = {v_hat:.6g}"
    yield f"w  = {decay}{w} - {lr:.6g} * m^ / (sqrt(v^) + {eps:g}) = {new['w'][at]:.8g}"
    yield f"     the step left {update.after['w'][at]:.8g}"


def _muon_by_hand(step: Step, update: Update, at: tuple[int, ...]) -> Iterator[str]:
    numbers = update.rule.keywords
    momentum, nesterov, keep = (numbers[name] for name in ("momentum", "nesterov", "decay"))
    w, g, u = (floats(update.before[name]) for name in ("w", "g", "u"))
    new_u = momentum * u + g
    direction = g + momentum * new_u if nesterov else new_u
    looks = "g + momentum u" if nesterov else "u"
    made = next(m.values["update"] for m in update.lines()[1] if "update" in m.values)
    lr = numbers["lr"] * math.sqrt(max(1.0, g.shape[1] / g.shape[0]))
    spreads = f"{_spread(direction)} before, {_spread(made)} after"
    yield f"g  = {update.gradient[at]:.6g} * {number(step.factor)} = {g[at]:.6g}      clipping"
    yield f"u  = {momentum:g} * {u[at]:.6g} + g = {new_u[at]:.6g}      momentum"
    yield f"o  = {made[at]:.6g} of orthogonal({looks}), {direction[at]:.6g} before"
    yield f"     singular values {spreads}; 1 is orthogonal"
    yield f"w  = {keep:.8g} * {w[at]:.6g} - {lr:.6g} * o = {keep * w[at] - lr * made[at]:.8g}"
    yield f"     the step left {update.after['w'][at]:.8g}"


def _spread(matrix: Any) -> str:
    values = np.linalg.svd(floats(matrix), compute_uv=False)
    return f"{number(values[-1])} to {number(values[0])}"
