"""What optimisers share: parameters laid out flat, updated in tiles that fit a cache."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

import numpy as np

from tensor.dtypes import NARROW, float32
from tensor.errors import ArgumentError, GraphError, OptionError, StateError, brief
from tensor.kernels import pick
from tensor.memory.devices import Array, device_of, move
from tensor.memory.layout import Layout
from tensor.mode import watched
from tensor.names import Answer
from tensor.nn.module import Module
from tensor.nn.packing import Flat, Slot, group_of, pack
from tensor.nn.state import check
from tensor.optim.groups import (
    Parameters,
    Rate,
    check_options,
    check_unchanged,
    groups_of,
    numbers_of,
)
from tensor.optim.scaling import LossScale
from tensor.tensor import Tensor

# an update and its numbers; a kernel of the function's name may stand in for it
Rule: TypeAlias = "partial[None]"
# elements: what a tile touches stays in a core's cache from one line of the rule to the next
TILE = 32 * 1024


class Optimizer:
    """Base: packs the parameters, keeps the state arrays `state_names` as flat as they are, and
    calls `update` tile by tile.

    Parameters whose gradient is None are skipped, and their step count stands still. For float16
    and bfloat16 the update runs on float32 master weights. Raises GraphError at a step after the
    parameters were packed anew.
    """

    state_names: tuple[str, ...] = ()
    # where one is set, gradients are those of the loss times its value
    loss_scale: LossScale | None = None
    add_param_group = Answer("add_param_group")

    def __init__(self, parameters: Parameters, **options: Any):
        groups = groups_of(type(self).__name__, parameters, options)
        self._groups = tuple(group for group, _, _ in groups)
        self._made = tuple(group.copy() for group in self._groups)
        packed: list[tuple[Flat, int]] = []
        if isinstance(parameters, Module):
            packed = [(flat, 0) for flat in self._packed(parameters)]
        else:
            for i, (_, named, decays) in enumerate(groups):
                group_of = self._decaying if decays else self.group_of
                packed += [(flat, i) for flat in pack(named, group_of)]
        self.frozen = tuple(flat for flat, _ in packed if flat.group == "frozen")
        learning = [(flat, i) for flat, i in packed if flat.group != "frozen"]
        self.flats = tuple(flat for flat, _ in learning)
        self.group_numbers = [i for _, i in learning]  # of each flat, its place in param_groups
        self._taken = 0
        self._counts = {slot.name: 0 for flat in self.flats for slot in flat.slots}
        # parameters of the latest steps that a GPU may have skipped, and how many it did
        self._unsure: tuple[str, ...] = ()
        self._skipped: Array = None
        self.state: list[dict[str, Array]] = [self._new_state(flat) for flat in self.flats]
        self._seen = [flat.weights.storage.version for flat in self.flats]

    def __repr__(self) -> str:
        kind, lines = type(self).__name__, []
        for group in self.param_groups:
            options = ", ".join(f"{name}={x}" for name, x in group.items() if name != "params")
            lines.append(f"{kind} of {len(group['params'])} parameters: {options}")
        return "\n".join(lines)

    def _packed(self, module: Module) -> tuple[Flat, ...]:
        """The flats of the module, packed anew where its groups are not this optimiser's."""
        fits = module.packed and all(flat.grouped_by(self.group_of) for flat in module.flats)
        return module.flats if fits else module.pack(self.group_of)

    @property
    def param_groups(self) -> tuple[dict[str, Any], ...]:
        """The options of each group and its "params", a tuple. Options may be set; groups and
        parameters are those that the optimiser was made with. An assignment raises TypeError.
        """
        return self._groups

    @param_groups.setter
    @brief
    def param_groups(self, groups: Any) -> None:
        kind = type(self).__name__
        raise ArgumentError(
            f'param_groups of a {kind} stay: set an option, as in param_groups[0]["lr"] = 0.1, or '
            f"make a new optimiser, {kind}(groups)"
        )

    @property
    def taken(self) -> int:
        """Steps of this optimiser. After a `clipped_step` on a GPU, this waits for the GPU."""
        self._take_back()
        return self._taken

    @taken.setter
    def taken(self, steps: int) -> None:
        self._take_back()
        self._taken = steps

    @property
    def counts(self) -> dict[str, int]:
        """Steps taken, by parameter. After a `clipped_step` on a GPU, this waits for the GPU."""
        self._take_back()
        return self._counts

    @counts.setter
    def counts(self, steps: dict[str, int]) -> None:
        self._take_back()
        self._counts = steps

    def _take_back(self) -> None:
        """Uncount the steps that a GPU skipped."""
        if not self._unsure:
            return
        skipped, names = int(self._skipped[0]), self._unsure
        self._skipped[0] = 0
        self._unsure = ()
        self._counts |= {name: self._counts[name] - skipped for name in names}
        self._taken -= skipped

    def _leave_to(self, device: str, names: tuple[str, ...]) -> None:
        """Let a GPU decide whether the next step of these parameters is skipped."""
        if names != self._unsure:
            self._take_back()
            self._unsure = names
        if self._skipped is None:
            self._skipped = move(np.zeros(1), device)

    def _count(self, i: int, run: list[Slot]) -> int:
        """Note that a run of a flat is written, and count its step: the number, from 1."""
        weights, start, count = self.flats[i].weights, run[0].start, self._counts[run[0].name] + 1
        weights.bump(Layout((run[-1].end - start,), (1,), start))
        self._seen[i] = weights.storage.version
        self._counts |= dict.fromkeys([slot.name for slot in run], count)
        return count

    @property
    def lr(self) -> float:
        """The learning rate of the first group at the next step. An assignment sets the rate of all
        groups, to a number or a function of the step. Raises ValueError where groups have rates of
        their own: `param_groups[i]["lr"]` is one group's.
        """
        rate = self.param_groups[0]["lr"]
        return float(rate(self.taken)) if callable(rate) else rate

    @lr.setter
    @brief
    def lr(self, rate: Rate) -> None:
        rates = [group["lr"] for group in self.param_groups]
        if any(other != rates[0] for other in rates):
            raise OptionError(
                f"the groups have the rates {rates}: set param_groups[i]['lr'] of each, or give "
                "each group a function of the step as its lr"
            )
        if not callable(rate):
            check_options(type(self).__name__, {"lr": rate})
        for group in self.param_groups:
            group["lr"] = rate

    def group_of(self, parameter: Tensor) -> str:
        """Which parameters lie side by side: those that `rule` treats alike."""
        return group_of(parameter)

    def _decaying(self, parameter: Tensor) -> str:
        """`group_of` in a parameter group that sets weight_decay: all its parameters decay."""
        group = self.group_of(parameter)
        return "decayed" if group == "not decayed" else group

    def state_names_of(self, flat: Flat) -> tuple[str, ...]:
        """The names of a flat's state arrays."""
        return self.state_names

    def _new_state(self, flat: Flat) -> dict[str, Array]:
        weights = flat.weights.array
        state = {"master": weights.astype(float32)} if flat.dtype in NARROW else {}
        like = state.get("master", weights)
        return state | {name: np.zeros_like(like) for name in self.state_names_of(flat)}

    @brief
    @watched
    def zero_grad(self) -> None:
        """Forget all gradients."""
        for flat in self.flats:
            for slot in flat.slots:
                slot.parameter.grad = None

    @brief
    @watched
    def step(self) -> None:
        """One update of every parameter that has a gradient.

        An interrupt leaves some parameters updated and others not, each with its own step count.
        """
        numbers = self._numbers()
        self._take_back()
        for i, (flat, state) in enumerate(zip(self.flats, self.state, strict=True)):
            self._see(i)
            for run in self._runs(flat.reached()):
                start, stop, count = run[0].start, run[-1].end, self.counts[run[0].name] + 1
                rule = self.rule(flat, numbers[self.group_numbers[i]], count)
                # first: an interrupt must leave no write uncounted
                flat.weights.bump(Layout((stop - start,), (1,), start))
                self._update_run(flat, state, rule, start, stop)
                self.counts |= dict.fromkeys([slot.name for slot in run], count)
            self._seen[i] = flat.weights.storage.version
        self.taken += 1

    def clipped_on_device(self, limit: float) -> Array | None:
        """`clip_gradients` and `step` with the norm, the skip and the loss scale decided on the
        GPU. Returns the norm, () float64 there; None where the host must decide.
        """
        return None

    def _numbers(self) -> list[dict[str, Any]]:
        """The options of each group for a step. Raises for what makes no step possible."""
        kind = type(self).__name__
        for flat in (*self.flats, *self.frozen):
            if not flat.current:
                raise _stale(kind, flat)
        for group, made in zip(self.param_groups, self._made, strict=True):
            check_unchanged(kind, group, made)
        scheduled = any(callable(x) for group in self.param_groups for x in group.values())
        taken = self.taken if scheduled else self._taken
        return [numbers_of(kind, group, taken) for group in self.param_groups]

    def _see(self, i: int) -> None:
        """Take what others wrote to the weights of a flat into their masters."""
        weights, state = self.flats[i].weights, self.state[i]
        if "master" in state and weights.storage.version != self._seen[i]:
            _follow(weights.array, state["master"])

    def _runs(self, reached: list[Slot]) -> list[list[Slot]]:
        """Neighbouring parameters that have gradients and equal counts: usually one run, all of
        them.
        """
        runs: list[list[Slot]] = []
        counts = self._counts
        for slot in reached:
            last = runs[-1][-1] if runs else None
            if last and last.end == slot.start and counts[last.name] == counts[slot.name]:
                runs[-1].append(slot)
            else:
                runs.append([slot])
        return runs

    def _exact(self, gradients: Array, dtype: Any) -> Array:
        """Gradients in the dtype that the update runs in, freed of the loss scale."""
        wide = gradients.astype(dtype, copy=False)
        return wide if self.loss_scale is None else wide * (1 / self.loss_scale.value)

    def _update_run(
        self, flat: Flat, state: dict[str, Array], rule: Rule, start: int, stop: int
    ) -> None:
        """Run the rule over one run: whole by a kernel or on a GPU, else in tiles."""
        weights, gradients = flat.weights.array, flat.gradients.array
        tile = TILE
        kernel = pick(rule.func.__name__, weights, gradients) if self.loss_scale is None else None
        on_cpu = isinstance(weights, np.ndarray)
        if kernel or not on_cpu:
            tile = max(stop - start, 1)
        exact: Array = state.get("master", weights)
        for low in range(start, stop, tile):
            part = slice(low, min(low + tile, stop))
            arrays = [state[name][part] for name in self.state_names]
            if kernel and not on_cpu:  # which takes gradients as they are, and rounds
                narrow = None if exact is weights else weights[part]
                kernel(exact[part], gradients[part], *arrays, **rule.keywords, narrow=narrow)
                continue
            g = self._exact(gradients[part], exact.dtype)
            (kernel or rule.func)(exact[part], g, *arrays, **rule.keywords)
            if exact is not weights:
                weights[part] = exact[part].astype(flat.dtype)

    def rule(self, flat: Flat, options: dict[str, Any], count: int) -> Rule:
        """The update `function(weights, gradients, *state, **numbers)`, in place, with its numbers
        for step `count` (from 1) of this flat. options: those of its parameter group.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Steps, options of the groups (but functions), loss scale, and state arrays by name, the
        optimiser's own memory: all that a resumed run needs beside the weights.
        """
        arrays = {
            f"{i}.{name}": array
            for i, state in enumerate(self.state)
            for name, array in state.items()
        }
        scale = {} if self.loss_scale is None else {"loss_scale": self.loss_scale.state_dict()}
        groups = [_numbers_in(group) for group in self.param_groups]
        steps = {"taken": self.taken, "counts": dict(self.counts)}
        return {"groups": groups, **steps, **scale, "arrays": arrays}

    @brief
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict` of the same model and optimiser. Raises StateError where
        names or sizes differ, before anything is written.
        """
        mine = self.state_dict()
        absent = [name for name in mine if name not in state]
        if absent:
            raise StateError(
                f"the state of an optimiser has {', '.join(mine)}; missing: {absent[0]}"
            )
        own, given = mine["arrays"], state["arrays"]
        check(type(self).__name__, {**self.counts, **own}, {**state["counts"], **given})
        if self.loss_scale is not None:
            self.loss_scale.load_state_dict(state["loss_scale"])
        self.taken, self.counts = state["taken"], dict(state["counts"])
        for group, options in zip(self.param_groups, state["groups"], strict=True):
            group.update({name: x for name, x in options.items() if not callable(group[name])})
        for name, array in own.items():
            array[...] = move(given[name], device_of(array))


def _stale(kind: str, flat: Flat) -> GraphError:
    """The error of a step where a flat is not current."""
    moved = [s.name for s in flat.slots if s.parameter.storage is not flat.weights.storage]
    if moved:
        return GraphError(
            f"{kind}: parameter `{moved[0]}` was packed again after this optimiser was made, by "
            "another optimiser, by pack() or by to(). Make a new optimiser, and give each "
            "parameter to one optimiser only"
        )
    learning = [s.name for s in flat.slots if s.parameter.requires_grad]
    return GraphError(
        f"{kind}: parameter `{learning[0]}` was frozen when this optimiser was made, and learns "
        "now. Make a new optimiser"
    )


def _numbers_in(group: dict[str, Any]) -> dict[str, Any]:
    """The options of a group that can be saved: no parameters, and no functions."""
    return {name: x for name, x in group.items() if name != "params" and not callable(x)}


def _follow(weights: Array, master: Array) -> None:
    """Take into the master what others wrote to the weights since the last step (load_state_dict,
    say): where it no longer rounds to them.
    """
    master[...] = np.where(master.astype(weights.dtype) == weights, master, weights.astype(float32))
