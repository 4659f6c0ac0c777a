"""The update of a training step: what the optimiser is given, and what it makes of the weights and
of its state. As text: the norms of each parameter, or one parameter by hand.

The numbers are those of the real step, by the kernels that train. The optimiser's reference runs
again on copies, line by line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensor.memory.devices import to_host
from tensor.nn.packing import Flat, Slot
from tensor.optim import Optimizer, clip_gradients
from tensor.optim.adamw import adamw
from tensor.recording import Moment
from tensor.recording.replay import replay
from tinygpt.errors import InputError
from tinygpt.inside.arrays import floats, norm, number
from tinygpt.terminal import nearest, shown
from tinygpt.training.jobs import Job
from tinygpt.training.step import learning_rate

# w, g and the optimiser's state, named as the parameters of its function; all of one shape
Arrays = dict[str, Any]
TITLES = ["w", "w after", "moved", "g", "clipped", "m (u)", "after", "v", "after"]
LABELS = {
    "w": "the weight",
    "m": "mean of gradients",
    "v": "mean of squared gradients",
    "u": "momentum: the sum of gradients",
}


@dataclass(frozen=True)
class Update:
    """What the optimiser did with one parameter."""

    name: str
    rule: Any  # adamw or muon with its numbers, a partial
    count: int  # the step of this parameter, from 1
    gradient: Any  # as backward left it, without the loss scale
    before: Arrays  # what the optimiser was given: g after clipping
    after: Arrays  # what the optimiser left, without g

    @property
    def moved(self) -> float:
        """The norm of the change of the weight."""
        return norm(floats(self.after["w"]) - floats(self.before["w"]))

    def lines(self) -> tuple[Arrays, list[Moment]]:
        """The optimiser's source run line by line on copies of what it was given: the copies after
        that, and the lines.
        """
        copies = {name: array.copy() for name, array in self.before.items()}
        _, moments = replay(self.rule.func, list(copies.values()), self.rule.keywords)
        return copies, moments


@dataclass(frozen=True)
class Step:
    """One step, taken."""

    number: int  # from 1
    loss: float
    lr: float
    norm: float  # of all gradients together, before clipping
    limit: float
    updates: list[Update]

    @property
    def factor(self) -> float:
        """The factor of all gradients in clipping."""
        return self.limit / self.norm if self.limit < self.norm < math.inf else 1.0

    @property
    def skipped(self) -> bool:
        """Whether the norm was not finite, so that nothing was updated."""
        return not math.isfinite(self.norm)


def take(job: Job, learn: Callable[[], float], only: str | None = None) -> Step:
    """Take an update of the job's next step, on the model in memory. learn: computes the gradients,
    and returns the loss.   only: the one parameter whose arrays are kept. Raises InputError where
    no parameter has that name.
    """
    optimizer, config, step = job.optimizer, job.run.training, job.progress.step
    kept: dict[str, tuple[Flat, Arrays, Slot]] = {}
    for flat, state in zip(optimizer.flats, optimizer.state, strict=True):
        kept |= {slot.name: (flat, state, slot) for slot in flat.slots}
    if only is not None:
        if only not in kept:
            raise InputError(
                f"--weight {shown(only)}: no parameter has that name{nearest(only, kept)}\n"
                "its parameters: tinygpt step --train --plain"
            )
        kept = {only: kept[only]}
    optimizer.lr = learning_rate(step, config)
    scale = 1.0 if optimizer.loss_scale is None else optimizer.loss_scale.value
    limit = config.clip or math.inf

    def arrays() -> dict[str, Arrays]:
        return {name: _arrays(optimizer, *found, scale) for name, found in kept.items()}

    loss = learn()
    raw = {name: found["g"] for name, found in arrays().items()}
    total = clip_gradients(optimizer, limit * scale) / scale
    before = arrays()
    counts = {name: optimizer.counts[name] + 1 for name in kept}
    if math.isfinite(total):
        optimizer.step()
    updates = []
    for name, after in arrays().items():
        del after["g"]
        rule = optimizer.rule(kept[name][0], optimizer.param_groups[0], counts[name])
        updates.append(Update(name, rule, counts[name], raw[name], before[name], after))
    return Step(step + 1, loss, optimizer.lr, total, limit, updates)


def _arrays(optimizer: Optimizer, flat: Flat, state: Arrays, slot: Slot, scale: float) -> Arrays:
    """What the optimiser is given, named as the parameters of its function: w (of 16-bit weights
    the master), g (in float32 at least, without the loss scale), and its state.
    """

    def part(whole: Any) -> Any:
        """A copy of the parameter's part of a flat array, on the host."""
        return to_host(whole)[slot.start : slot.stop].reshape(slot.parameter.shape).copy()

    g = part(flat.gradients.array) * np.float32(1 / scale)  # a power of two
    own = {name: part(state[name]) for name in optimizer.state_names_of(flat)}
    return {"w": part(state.get("master", flat.weights.array)), "g": g, **own}


# -- the updates as text


def notes_of(step: Step, in_full: bool, width: int) -> dict[str, list[str]]:
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
    exact = {name: floats(array) for name, array in update.before.items()}
    update.rule(*exact.values())
    by_hand = _adamw_by_hand if update.rule.func is adamw else _muon_by_hand
    clipping = f"{update.gradient[at]:.6g} * {number(step.factor)} = {g[at]:.6g}"
    yield f"  g  = {clipping}      clipping"
    yield from (f"  {line}" for line in by_hand(update, exact, at))
    yield f"       the step left {update.after['w'][at]:.8g}"
    again = update.lines()[0]
    yield f"the whole {update.name}: largest difference from what the step left"
    for name, array in update.after.items():
        left = floats(array)
        size = np.abs(left).max() or 1.0
        formula, lines = (np.abs(made[name] - left).max() / size for made in (exact, again))
        hand = f"{formula:.1e} of its largest value, by the rule in float64"
        yield f"  {name}   {hand}; {lines:.1e}, by the rule line by line"


def _adamw_by_hand(update: Update, exact: Arrays, at: tuple[int, ...]) -> Iterator[str]:
    """Loshchilov & Hutter 2019, algorithm 2.   exact: what the rule leaves in float64."""
    numbers, t = update.rule.keywords, update.count
    b1, b2, eps, keep = (numbers[name] for name in ("b1", "b2", "eps", "decay"))
    w, g, m, v = (float(update.before[name][at]) for name in "wgmv")
    new_w, new_m, new_v = (exact[name][at] for name in "wmv")
    m_share, v_share = 1 - b1**t, 1 - b2**t
    m_hat, v_hat = new_m / m_share, new_v / v_share
    lr = numbers["step_size"] * m_share
    decay = f"{keep:.8g} * " if keep != 1 else ""
    yield f"m  = {b1:g} * {m:.6g} + {1 - b1:g} * {g:.6g} = {new_m:.6g}"
    yield f"v  = {b2:g} * {v:.6g} + {1 - b2:g} * {g:.6g}^2 = {new_v:.6g}"
    yield f"m^ = m / (1 - {b1:g}^{t}) = {m_hat:.6g},   v^ = v / (1 - {b2:g}^{t}) = {v_hat:.6g}"
    yield f"w  = {decay}{w:.6g} - {lr:.6g} * m^ / (sqrt(v^) + {eps:g}) = {new_w:.8g}"


def _muon_by_hand(update: Update, exact: Arrays, at: tuple[int, ...]) -> Iterator[str]:
    numbers = update.rule.keywords
    momentum, nesterov, keep = (numbers[name] for name in ("momentum", "nesterov", "decay"))
    w, u = (float(update.before[name][at]) for name in "wu")
    g, direction, looks = exact["g"], exact["u"], "u"
    if nesterov:
        direction, looks = g + momentum * direction, "g + momentum u"
    made = next(m.values["update"] for m in update.lines()[1] if "update" in m.values)
    lr = numbers["lr"] * math.sqrt(max(1.0, g.shape[1] / g.shape[0]))
    spreads = f"{_spread(direction)} before, {_spread(made)} after"
    yield f"u  = {momentum:g} * {u:.6g} + g = {exact['u'][at]:.6g}      momentum"
    yield f"o  = {made[at]:.6g} of orthogonal({looks}), {direction[at]:.6g} before"
    yield f"     singular values {spreads}; 1 is orthogonal"
    yield f"w  = {keep:.8g} * {w:.6g} - {lr:.6g} * o = {keep * w - lr * float(made[at]):.8g}"


def _spread(matrix: Any) -> str:
    values = np.linalg.svd(floats(matrix), compute_uv=False)
    return f"{number(values[-1])} to {number(values[0])}"
