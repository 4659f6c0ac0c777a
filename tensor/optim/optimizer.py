"""What optimisers share: parameters laid out flat, updated in tiles that fit a cache."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from tensor.dtypes import NARROW, float32
from tensor.errors import GraphError, brief
from tensor.kernels import pick
from tensor.memory.devices import Array, device_of, move
from tensor.memory.layout import Layout
from tensor.mode import watched
from tensor.nn.module import Module
from tensor.nn.packing import Flat, Slot, group_of, pack
from tensor.nn.state import check
from tensor.optim.scaling import LossScale
from tensor.tensor import Tensor

# what an optimiser takes
Parameters: TypeAlias = "Module | Iterable[Tensor]"
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

    def __init__(self, parameters: Parameters, lr: float):
        if isinstance(parameters, Module):
            fits = parameters.packed and all(
                flat.grouped_by(self.group_of) for flat in parameters.flats
            )
            self.flats = parameters.flats if fits else parameters.pack(self.group_of)
        else:
            named = ((str(i), p) for i, p in enumerate(dict.fromkeys(parameters)))
            self.flats = pack(named, self.group_of)
        self.frozen = tuple(flat for flat in self.flats if flat.group == "frozen")
        self.flats = tuple(flat for flat in self.flats if flat.group != "frozen")
        if not self.flats:
            raise ValueError("an optimiser needs at least one parameter with requires_grad=True")
        self.lr = lr
        # steps taken, by parameter
        self.counts = {slot.name: 0 for flat in self.flats for slot in flat.slots}
        self.state: list[dict[str, Array]] = [self._new_state(flat) for flat in self.flats]
        self._seen = [flat.weights.storage.version for flat in self.flats]

    def group_of(self, parameter: Tensor) -> str:
        """Which parameters lie side by side: those that `rule` treats alike."""
        return group_of(parameter)

    def state_names_of(self, flat: Flat) -> tuple[str, ...]:
        """The names of a flat's state arrays."""
        return self.state_names

    def _new_state(self, flat: Flat) -> dict[str, Array]:
        weights = flat.weights.array
        state = {"master": weights.astype(float32)} if flat.dtype in NARROW else {}
        like = state.get("master", weights)
        return state | {name: np.zeros_like(like) for name in self.state_names_of(flat)}

    @watched
    def zero_grad(self) -> None:
        """Forget all gradients."""
        for flat in self.flats:
            for slot in flat.slots:
                if slot.parameter.requires_grad:
                    slot.parameter.grad = None

    @watched
    def step(self) -> None:
        """One update of every parameter that has a gradient.

        An interrupt leaves some parameters updated and others not, each with its own step count.
        """
        if not all(flat.current for flat in (*self.flats, *self.frozen)):
            raise GraphError(
                "the model was packed again after this optimiser was made (to(), pack(), another "
                "optimiser), or a parameter that was frozen then learns now: make a new optimiser"
            )
        for i, (flat, state) in enumerate(zip(self.flats, self.state, strict=True)):
            if "master" in state and flat.weights.storage.version != self._seen[i]:
                _follow(flat.weights.array, state["master"])
            for run in self._runs(flat):
                start, stop, count = run[0].start, run[-1].end, self.counts[run[0].name] + 1
                # first: an interrupt must leave no write uncounted
                flat.weights.bump(Layout((stop - start,), (1,), start))
                self._update_run(flat, state, start, stop, count)
                self.counts |= dict.fromkeys([slot.name for slot in run], count)
            self._seen[i] = flat.weights.storage.version

    def _runs(self, flat: Flat) -> list[list[Slot]]:
        """Neighbouring parameters that have gradients and equal counts: usually one run, all of
        them.
        """
        runs: list[list[Slot]] = []
        for slot in flat.reached():
            last = runs[-1][-1] if runs else None
            if last and last.end == slot.start and self.counts[last.name] == self.counts[slot.name]:
                runs[-1].append(slot)
            else:
                runs.append([slot])
        return runs

    def _exact(self, gradients: Array, dtype: Any) -> Array:
        """Gradients in the dtype that the update runs in, freed of the loss scale."""
        wide = gradients.astype(dtype, copy=False)
        return wide if self.loss_scale is None else wide * (1 / self.loss_scale.value)

    def _update_run(
        self, flat: Flat, state: dict[str, Array], start: int, stop: int, count: int
    ) -> None:
        """Run the rule over one run: whole by a kernel or on a GPU, else in tiles."""
        weights, gradients = flat.weights.array, flat.gradients.array
        rule, tile = self.rule(flat, count), TILE
        kernel = pick(rule.func.__name__, weights, gradients) if self.loss_scale is None else None
        if kernel or not isinstance(weights, np.ndarray):
            tile = max(stop - start, 1)
        exact: Array = state.get("master", weights)
        for low in range(start, stop, tile):
            part = slice(low, min(low + tile, stop))
            arrays = [state[name][part] for name in self.state_names]
            g = self._exact(gradients[part], exact.dtype)
            (kernel or rule.func)(exact[part], g, *arrays, **rule.keywords)
            if exact is not weights:
                weights[part] = exact[part].astype(flat.dtype)

    def rule(self, flat: Flat, count: int) -> Rule:
        """The update `function(weights, gradients, *state, **numbers)`, in place, with its numbers
        for step `count` (from 1) of this group.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Counts, loss scale, and state arrays by name, the optimiser's own memory: all that a
        resumed run needs beside the weights.
        """
        arrays = {
            f"{i}.{name}": array
            for i, state in enumerate(self.state)
            for name, array in state.items()
        }
        scale = {} if self.loss_scale is None else {"loss_scale": self.loss_scale.state_dict()}
        return {"lr": self.lr, "counts": dict(self.counts), **scale, "arrays": arrays}

    @brief
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict` of the same model and optimiser. Raises StateError where
        names or sizes differ, before anything is written.
        """
        own, given = self.state_dict()["arrays"], state["arrays"]
        check(type(self).__name__, {**self.counts, **own}, {**state["counts"], **given})
        if self.loss_scale is not None:
            self.loss_scale.load_state_dict(state["loss_scale"])
        self.lr, self.counts = state["lr"], dict(state["counts"])
        for name, array in own.items():
            array[...] = move(given[name], device_of(array))


def _follow(weights: Array, master: Array) -> None:
    """Take into the master what others wrote to the weights since the last step (load_state_dict,
    say): where it no longer rounds to them.
    """
    master[...] = np.where(master.astype(weights.dtype) == weights, master, weights.astype(float32))
