"""Whether a state.json fits a run: all that can be wrong in it is found before a step is taken."""

from __future__ import annotations

from tensor.optim import Optimizer
from tinygpt.config import TrainConfig
from tinygpt.runs.checkpoint import State


def unfit(state: State, config: TrainConfig, optimizer: Optimizer) -> str | None:
    """What in a state no training of these choices can have written."""
    numbers, scale = state.optimizer, optimizer.loss_scale
    if numbers is None:
        return "it has no numbers of an optimiser"
    if state.step > config.steps:
        return f"step {state.step:,} of {config.steps:,}"
    if state.best_step > state.step or state.worse > state.step:
        return f"best_step {state.best_step:,} and worse {state.worse:,} at step {state.step:,}"
    if (state.best is None) != (state.best_step == 0):
        return f"best {state.best} at best_step {state.best_step:,}"
    if set(numbers.counts) != set(optimizer.counts):
        return "it counts the steps of other parameters"
    updates = state.step * config.updates
    if max(numbers.counts.values()) > updates:
        return f"a parameter took {max(numbers.counts.values()):,} updates, the run {updates:,}"
    by_ppo = not config.measures
    if (state.price is not None) != (by_ppo and state.step > 0):
        return f"price {state.price} of a nat of KL"
    if (numbers.loss_scale is None) != (scale is None):
        return f"loss_scale {numbers.loss_scale} with {config.dtype}"
    if scale and numbers.loss_scale and numbers.loss_scale.good >= scale.patience:
        return f"loss_scale with {numbers.loss_scale.good:,} good steps"
    return None
