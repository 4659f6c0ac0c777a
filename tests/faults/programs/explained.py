"""Where the two libraries differ by rule. Each reason is a sentence, and holds only where its
condition does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from tests.faults.programs.running import Run
    from tests.faults.programs.step import Step

ROUNDING = "rounding decides: the difference is within the spread of PyTorch with noise"
ORDER = "new memory may lie in another order of axes than PyTorch's (NumPy chooses it)"

SHARED = "PyTorch makes one element the .grad of two leaves, and adds to it for both"


class Rule(NamedTuple):
    """A reason, the message that it is about (with its notes), and when it holds. `halfway`: the
    step was half done, so the two cannot be compared after it.
    """

    reason: str
    message: str  # a pattern
    holds: Callable[[Run, Step], bool]
    halfway: bool = False


def _tensor(run: Run, step: Step, position: int = 0) -> torch.Tensor | None:
    """An input of the step; None where it has none there, or a number."""
    try:
        x = eval(step.inputs[position], run.there)
    except (IndexError, NameError, TypeError):
        return None
    return x if isinstance(x, torch.Tensor) else None


def _is_result(run: Run, step: Step) -> bool:
    x = _tensor(run, step)
    return x is not None and x.requires_grad and not x.is_leaf


def _value_carries(run: Run, step: Step) -> bool:
    """A value does that is itself in a graph, or is computed from a part of a result."""
    value = _tensor(run, step, 1)
    carries = value is not None and value.requires_grad
    return carries or (step.name == "update a part" and _is_result(run, step))


def _was_freed(run: Run, step: Step) -> bool:
    return any(before.options.get("retain") is False for before in run.steps)


def _was_written(run: Run, step: Step) -> bool:
    """Plain PyTorch refuses too, or could not know."""
    names = {before.name for before in run.steps}
    return "numpy" in names or run.plain_raises(step)


def _reads_a_gradient(run: Run, step: Step) -> bool:
    held = {before.out for before in run.steps if before.name == "grad"}
    return any(held & before.names for before in run.steps)


def _read_by_a_checkpoint_changed(run: Run, step: Step) -> bool:
    """What its function reads entered the graph, or left it, or is another tensor by now."""
    read: set[str] = set()
    changed = False
    for before in run.steps:
        if before.name.startswith("checkpoint"):
            read |= before.names
        elif before.name in ("freeze", "thaw", "update"):
            target = run.there.get(before.inputs[0].partition("[")[0])
            changed |= any(run.there.get(name) is target for name in read)
    return changed


def _is_empty(run: Run, step: Step) -> bool:
    x = _tensor(run, step)
    return x is not None and x.numel() == 0


def _joins_an_empty_row(run: Run, step: Step) -> bool:
    parts = [_tensor(run, step, i) for i in range(2)]
    return step.name == "concatenate" and any(x is not None and x.shape == (0,) for x in parts)


def _frees_all_parts(run: Run, step: Step) -> bool:
    return any(
        before.name.startswith("grad()")
        and before.options["retain"] is False
        and any("[" in x for x in before.inputs[1:3])
        for before in run.steps
    )


def _is_scalar(run: Run, step: Step) -> bool:
    x = _tensor(run, step)
    return x is not None and x.ndim == 0


def _holds_integers(run: Run, step: Step) -> bool:
    x = _tensor(run, step)
    return x is not None and not x.is_floating_point()


def _holds_bools(run: Run, step: Step) -> bool:
    x = _tensor(run, step)
    return x is not None and x.dtype == torch.bool


def _shapes_differ(run: Run, step: Step) -> bool:
    x, y = _tensor(run, step), _tensor(run, step, 1)
    return x is not None and y is not None and x.shape != y.shape


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
        "a pass adds to a .grad that an op kept, here as gradients come, in PyTorch at the end",
        r"was written[\s\S]*some \.grad may have a part",
        _reads_a_gradient,
        halfway=True,
    ),
    Rule(
        "memory that backward needs was written: PyTorch raises too, or cannot see writes of NumPy",
        "was written",
        _was_written,
    ),
    Rule(
        "a checkpoint is one op: from one of its results the pass goes all ways that lead to it",
        "was written",
        lambda run, step: any(before.name == "checkpoint of two" for before in run.steps),
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
        "what a checkpoint reads became another tensor, or entered or left the graph, since",
        "did something else when it ran again",
        _read_by_a_checkpoint_changed,
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
        _shapes_differ,
    ),
    Rule(
        "PyTorch's cat passes over tensors of shape (0,)",
        "all other axes must agree|out of range",
        _joins_an_empty_row,
    ),
    Rule(
        "attention of no width has no scale here",
        "pieces of 0",
        _is_empty,
    ),
    Rule(
        "expanded memory is not written here; PyTorch writes it by positions and masks",
        "one element has several indices",
        lambda run, step: step.name in ("write at ids", "write where"),
    ),
    Rule(
        "functions of floats refuse integers here; PyTorch converts them",
        "needs floats",
        _holds_integers,
    ),
    Rule(
        "a scalar has no axes here; PyTorch lends it one",
        "a scalar has no axes|which has 0 axes",
        _is_scalar,
    ),
    Rule(
        "over no elements there is no mean here; PyTorch gives NaN",
        "no elements|and not empty",
        _is_empty,
    ),
]


def refused_here(run: Run, step: Step, error: Exception | None) -> Rule | None:
    """Why a step is refused here and PyTorch is not asked; None where PyTorch must agree."""
    said = "" if error is None else "\n".join([str(error), *getattr(error, "__notes__", ())])
    for rule in HERE:
        if said and re.search(rule.message, said) and rule.holds(run, step):
            return rule
    return None


THERE = [
    Rule(
        "to a part of a split leads all that leads to the others in PyTorch, and is freed with it",
        "Trying to backward through the graph a second time",
        _frees_all_parts,
    ),
    Rule(
        "PyTorch lacks the op for this dtype",
        "not implemented for|upport|expected scalar type",
        lambda run, step: True,
    ),
    Rule(
        "PyTorch lacks the product of bools; of matrices without columns it says so in other words",
        "desired output type Bool",
        lambda run, step: step.name == "linear" and _holds_bools(run, step),
    ),
    Rule(
        "the mean of integers and bools is float32 here",
        "could not infer output dtype",
        _holds_integers,
    ),
    Rule(
        "attention takes integers here: their softmax is of floats, which PyTorch does not convert",
        "attention of integers",
        _holds_integers,
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
