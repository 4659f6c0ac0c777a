"""What the optimiser did with each parameter, as text: a line for each, or all of one, with one element worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tensor.optim.adamw import adamw
from tinygpt.step.training import Arrays, Step, Update
from tinygpt.step.values import norm, number

BY_HAND = "by hand in float64"


def table(updates: Sequence[Update], width: int) -> list[list[str]]:
    """The norms of each parameter: the weight, how far it moved, its gradient, clipped too, and the optimiser's state; a line each if they fit.

    Lines for each update; the first has the headings before it.
    """
    titles = ["w", "w after", "moved", "g", "clipped", "m (u)", "after", "v", "after"]
    rows = [_norms(update) for update in updates]
    sizes = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    lines = [" ".join(cell.rjust(size) for cell, size in zip(row, sizes, strict=True)) for row in [titles, *rows]]
    longest = max(len(update.name) for update in updates)
    if longest + 2 + len(lines[0]) <= width:
        found = [[f"{update.name:<{longest}}  {line}"] for update, line in zip(updates, lines[1:], strict=True)]
        return [[" " * (longest + 2) + lines[0], *found[0]], *found[1:]]
    found = [[update.name, f"  {line}"] for update, line in zip(updates, lines[1:], strict=True)]
    return [["norms of each parameter:", f"  {lines[0]}", *found[0]], *found[1:]]


def _norms(update: Update) -> list[str]:
    b, a = update.before, update.after
    state = [f"{norm(arrays[name]):.2g}" for name in b if name not in ("w", "g") for arrays in (b, a)]
    moved = norm(a["w"].astype(np.float64) - b["w"].astype(np.float64))
    return [
        f"{norm(b['w']):.5g}",
        f"{norm(a['w']):.5g}",
        *(f"{size:.2g}" for size in (moved, norm(update.gradient), norm(b["g"]))),
        *state,
        *["-"] * (4 - len(state)),
    ]


def exactly(update: Update) -> Arrays:
    """The state and weight after, by the rule's formula in float64. For AdamW this is Loshchilov & Hutter's algorithm 2."""
    given, numbers = {name: array.astype(np.float64) for name, array in update.before.items()}, update.rule.keywords
    w, g = given["w"], given["g"]
    if update.rule.func is adamw:
        b1, b2 = numbers["b1"], numbers["b2"]
        m = b1 * given["m"] + (1 - b1) * g
        v = b2 * given["v"] + (1 - b2) * g * g
        return {"m": m, "v": v, "w": numbers["keep"] * w - numbers["size"] * m / (numbers["spread"] * np.sqrt(v) + numbers["eps"])}
    names = list(given)
    update.rule.func(*given.values(), **numbers)
    return {name: given[name] for name in names if name != "g"}


def told(step: Step, update: Update) -> Iterator[str]:
    """How the weight after came about: one element by hand, and how near the formula and the line by line run come to it."""
    if step.skipped:
        yield "skipped: the gradient norm is not finite, so the weight, its state and its count stay as they were"
        return
    place = tuple(int(i) for i in np.unravel_index(int(np.abs(update.before["g"].astype(np.float64)).argmax()), update.before["g"].shape))
    yield f"one element, {update.name}{list(place)}, where the gradient is largest:"
    yield from (f"  {line}" for line in (_adamw_by_hand if update.rule.func is adamw else _muon_by_hand)(step, update, place))
    again, _ = update.lines()
    yield f"the whole {update.name}: largest difference from what the step left"
    for name, array in update.after.items():
        size = float(np.abs(array.astype(np.float64)).max()) or 1.0
        differences = [_far(exactly(update)[name], array) / size, _far(again[name], array) / size]
        yield f"  {name}   {differences[0]:.1e} of its largest value, {BY_HAND}; {differences[1]:.1e}, by the rule line by line"


def _far(a: Any, b: Any) -> float:
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())


def _adamw_by_hand(step: Step, update: Update, place: tuple[int, ...]) -> Iterator[str]:
    numbers, t = update.rule.keywords, update.count
    b1, b2, eps = numbers["b1"], numbers["b2"], numbers["eps"]
    w, g, m, v = (float(update.before[name][place]) for name in ("w", "g", "m", "v"))
    raw, lr = float(update.gradient[place]), numbers["size"] * (1 - b1**t)
    new_m, new_v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    m_hat, v_hat = new_m / (1 - b1**t), new_v / (1 - b2**t)
    new = numbers["keep"] * w - lr * m_hat / (math.sqrt(v_hat) + eps)
    yield f"g  = {_f(raw)} * {number(step.factor)} = {_f(g)}      clipping"
    yield f"m  = {b1:g} * {_f(m)} + {1 - b1:g} * {_f(g)} = {_f(new_m)}"
    yield f"v  = {b2:g} * {_f(v)} + {1 - b2:g} * {_f(g)}^2 = {_f(new_v)}"
    yield f"m^ = m / (1 - {b1:g}^{t}) = {_f(m_hat)},   v^ = v / (1 - {b2:g}^{t}) = {_f(v_hat)}"
    decay = f"{numbers['keep']:.8g} * " if numbers["keep"] != 1 else ""
    yield f"w  = {decay}{_f(w)} - {lr:.6g} * m^ / (sqrt(v^) + {eps:g}) = {new:.8g}"
    yield f"     the step left {float(update.after['w'][place]):.8g}"


def _muon_by_hand(step: Step, update: Update, place: tuple[int, ...]) -> Iterator[str]:
    numbers = update.rule.keywords
    g, u = update.before["g"].astype(np.float64), update.before["u"].astype(np.float64)
    new_u = numbers["momentum"] * u + g
    direction = g + numbers["momentum"] * new_u if numbers["nesterov"] else new_u
    _, moments = update.lines()
    made = next(m.values["update"] for m in moments if "update" in m.values)
    w, scale = float(update.before["w"][place]), numbers["lr"] * math.sqrt(max(1.0, g.shape[1] / g.shape[0]))
    yield f"g  = {_f(float(update.gradient[place]))} * {number(step.factor)} = {_f(float(g[place]))}      clipping"
    yield f"u  = {numbers['momentum']:g} * {_f(float(u[place]))} + g = {_f(float(new_u[place]))}      momentum"
    yield f"o  = {_f(float(made[place]))} of orthogonal({'g + momentum u' if numbers['nesterov'] else 'u'}), {_f(float(direction[place]))} before"
    yield f"     singular values {_spread(direction)} before, {_spread(made)} after; 1 is orthogonal"
    yield f"w  = {numbers['keep']:.8g} * {_f(w)} - {scale:.6g} * o = {numbers['keep'] * w - scale * float(made[place]):.8g}"
    yield f"     the step left {float(update.after['w'][place]):.8g}"


def _spread(matrix: Any) -> str:
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    return f"{number(float(values[-1]))} to {number(float(values[0]))}"


def _f(value: float) -> str:
    return f"{value:.6g}"
