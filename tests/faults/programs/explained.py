"""Where the two libraries differ by rule. Each reason is a sentence, and holds only where its
condition does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.faults.programs.running import Run
    from tests.faults.programs.step import Step

ROUNDING = "rounding decides: the difference is within the spread of PyTorch with noise"
ORDER = "new memory may lie in another order of axes than PyTorch's (NumPy chooses it)"


class Rule(NamedTuple):
    """A reason, the message that it is about, and when it holds. `halfway`: the step was half done,
    so the two cannot be compared after it.
    """

    reason: str
    message: str  # a pattern
    holds: Callable[[Run, Step], bool]
    halfway: bool = False


def _input(run: Run, step: Step) -> Any:
    return eval(step.inputs[0], run.there)


def _is_result(run: Run, step: Step) -> bool:
    x = _input(run, step)
    return bool(x.requires_grad and not x.is_leaf)


def _value_carries(run: Run, step: Step) -> bool:
    return bool(eval(step.inputs[1], run.there).requires_grad)


def _was_freed(run: Run, step: Step) -> bool:
    return any(before.options.get("retain") is False for before in run.steps)


def _was_written(run: Run, step: Step) -> bool:
    """Plain PyTorch refuses too, or could not know."""
    names = {before.name for before in run.steps}
    return "numpy" in names or run.plain_raises(step)


def _is_empty(run: Run, step: Step) -> bool:
    return 0 in _input(run, step).shape


HERE = [
    Rule(
        "a result in a live graph is not written here; PyTorch records the write",
        "is part of a live graph",
        _is_result,
    ),
    Rule(
        "a value that carries a graph is not written into a constant here; PyTorch records it",
        "carries a graph would lose its gradient",
        _value_carries,
    ),
    Rule(
        "a second backward raises here even where PyTorch kept nothing that it needs",
        "a second time",
        _was_freed,
    ),
    Rule(
        "memory that backward needs was written: PyTorch raises too, or cannot see writes of NumPy",
        "was written",
        _was_written,
    ),
    Rule(
        "a checkpoint reads its inputs again, so none of them may be written before backward",
        "saved by `checkpoint`",
        lambda run, step: True,
    ),
    Rule(
        "NumPy's window on memory that a graph kept is read-only here",
        "read-only",
        lambda run, step: step.name == "numpy",
    ),
    Rule(
        "the variance of too few elements is an error here; PyTorch gives NaN",
        "needs more than",
        lambda run, step: True,
    ),
    Rule(
        "fused ops, attention and the norms have one backward function, which keeps all inputs",
        "saved by `(attention|multi_head_attention|layer_norm|residual_layer_norm|linear_gelu)`",
        lambda run, step: True,
    ),
    Rule(
        "PyTorch's product of expanded operands keeps copies of them",
        "saved by `matmul`",
        lambda run, step: True,
    ),
    Rule(
        "what a checkpoint reads entered the graph, or left it, before the second run",
        "did something else when it ran again",
        lambda run, step: any(before.name in ("freeze", "thaw") for before in run.steps),
        halfway=True,
    ),
    Rule(
        "an op keeps its input here and PyTorch its result, or the other way round",
        "saved by `(relu|power|cross_entropy|tanh|sigmoid|softmax|log_softmax|exp|sqrt)`",
        lambda run, step: True,
    ),
    Rule(
        "losses do not broadcast here; PyTorch warns of it",
        "nothing is broadcast here",
        lambda run, step: _input(run, step).shape != eval(step.inputs[1], run.there).shape,
    ),
    Rule(
        "expanded memory is not written here; PyTorch writes it by positions and masks",
        "one element has several indices",
        lambda run, step: step.name in ("write at ids", "write where"),
    ),
    Rule(
        "functions of floats refuse integers here; PyTorch converts them",
        "needs floats",
        lambda run, step: not _input(run, step).is_floating_point(),
    ),
    Rule(
        "a scalar has no axes here; PyTorch lends it one",
        "a scalar has no axes|which has 0 axes",
        lambda run, step: _input(run, step).ndim == 0,
    ),
    Rule(
        "over no elements there is no mean here; PyTorch gives NaN",
        "no elements|and not empty",
        _is_empty,
    ),
]


def refused_here(run: Run, step: Step, error: Exception | None) -> Rule | None:
    """Why a step is refused here and PyTorch is not asked; None where PyTorch must agree."""
    for rule in HERE:
        if error is not None and re.search(rule.message, str(error)) and rule.holds(run, step):
            return rule
    return None


THERE = [
    Rule(
        "PyTorch lacks the op for this dtype",
        "not implemented for|upport|expected scalar type",
        lambda run, step: True,
    ),
    Rule(
        "the mean of integers and bools is float32 here",
        "could not infer output dtype",
        lambda run, step: not _input(run, step).is_floating_point(),
    ),
    Rule(
        "a condition may hold numbers here, as in NumPy",
        "bool",
        lambda run, step: step.name in ("where", "masked_fill"),
    ),
]


def refused_there(
    run: Run, step: Step, error: Exception | None, other: Exception | None
) -> str | None:
    """Why only one of the two raised."""
    for rule in THERE:
        said = str(error or other)
        if re.search(rule.message, said) and rule.holds(run, step):
            return rule.reason
    return None
