"""One program in both libraries, side by side, compared after every step.

PyTorch keeps *copies* of what it needs for backward here: so its gradients are those of the values
that the forward pass saw, whatever was written since. The engine must raise MutationError, or give
the same gradients. Where it raises, plain PyTorch must raise too (`plain_raises`).
"""

from __future__ import annotations

from typing import Any

import torch

from tests.faults.programs import comparing, explained, namespaces, rounding
from tests.faults.programs.comparing import Difference
from tests.faults.programs.step import HERE, PLAIN, TORCH, Op, Step

# copies in both libraries, also where one of the two is in row-major order already
_COPY, _TORCH_COPY = "{0}.clone()", "{0}.clone(memory_format=torch.contiguous_format)"
_EACH = "tuple(None if y is None else {} for y in {{0}})"
ROW_MAJOR = Op(_COPY, _TORCH_COPY, "view")
EACH_ROW_MAJOR = Op(_EACH.format(_COPY.format("y")), _EACH.format(_TORCH_COPY.format("y")), "view")


class Run:
    """The two namespaces, and what was found.

    tried: all steps; steps: those that PyTorch ran too.   reasons: of the differences by rule.
    over: whether the two can no longer be compared.
    """

    def __init__(self) -> None:
        self.here, self.there = namespaces.made(HERE), namespaces.made(TORCH)
        self.tried: list[Step] = []
        self.steps: list[Step] = []
        self.both_raised = 0
        self.reasons: list[str] = []
        self.difference: Difference | None = None
        self.over = False

    # -- one step

    def do(self, step: Step) -> None:
        """Run a step in both libraries and compare. A step whose inputs are missing is left out."""
        if not step.names <= self.here.keys():
            return
        self.tried.append(step)
        error = _raised(step.text(HERE), self.here)
        rule = explained.refused_here(self, step, error)
        if rule:
            self.reasons.append(rule.reason)
            self.over = rule.halfway
        else:
            with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda x: x):
                other = _raised(step.text(TORCH), self.there)
            self.steps.append(step)
            if error is None and other is None:
                if step.op.kind == "value":
                    self.order_of(step.out, step)
                elif step.name == "update":
                    self.order_of(step.inputs[0], step)
                self.look_at_new(step)
            elif error is None or other is None:
                self.one_raises(step, error, other)
            else:
                self.both_raised += 1
        if step.op.statement and not self.over:
            self.look_at_all()

    def one_raises(self, step: Step, error: Exception | None, other: Exception | None) -> None:
        self.over = True
        reason = explained.refused_there(self, step, error, other)
        if reason:
            self.reasons.append(reason)
            return
        self.difference = Difference("error", step.name, f"{_said(error)}\nPyTorch: {_said(other)}")

    # -- comparing

    def look_at_new(self, step: Step) -> None:
        """The values that a step made."""
        here, there = dict(comparing.tensors(self.here)), dict(comparing.tensors(self.there))
        new = [name for name in here if name.partition("[")[0] == step.out]
        if new != [name for name in there if name.partition("[")[0] == step.out]:
            self.fail(Difference("results", step.out, f"{new}, PyTorch has others"))
            return
        for name in new:
            x, y = here[name], there[name]
            self.judge(comparing.values_differ(name, x, y), x, y)
            if not self.over:
                self.judge(comparing.layouts_differ(name, x, y), x, y)
            self.judge(comparing.flags_differ(name, x, y), x, y)
        for name in new if step.op.kind != "write" else [step.inputs[0]]:
            if not self.over:
                self.judge(comparing.memory_differs(name, here, there), None, None)

    def order_of(self, name: str, step: Step) -> None:
        """New memory may lie in another order than PyTorch's: then the program goes on with a copy
        in row-major order.
        """
        x, y = self.here[name], self.there[name]
        several = isinstance(x, tuple)
        pairs = zip(x, y, strict=True) if several else [(x, y)]
        if any(a is not None and comparing.layouts_differ("", a, b) for a, b in pairs):
            self.reasons.append(explained.ORDER)
            self.over = step.name == "grad"  # a copy would be no window on the gradient
            op = EACH_ROW_MAJOR if several else ROW_MAJOR
            self.do(Step(op, "clone", name, (name,)))

    def look_at_all(self) -> None:
        """Every value, flag and gradient of both programs."""
        if comparing.elements_shared(self.there):
            self.reasons.append(explained.SHARED)
            self.over = True
            return
        here, there = dict(comparing.tensors(self.here)), dict(comparing.tensors(self.there))
        for name, x in here.items():
            y = there[name]
            self.judge(comparing.values_differ(name, x, y), x, y)
            self.judge(comparing.flags_differ(name, x, y), x, y)
        for found in comparing.gradients_differ(self.here, self.there):
            self.judge(found, _value(found.where, self.here), _value(found.where, self.there))
        self.judge(comparing.gradients_share(self.here), None, None)

    def judge(self, found: Difference | None, x: Any, y: Any) -> None:
        """Keep a difference that rounding does not explain."""
        if found is None or self.over:
            return
        by_rounding = found.kind in ("value", "shape") and x is not None and y is not None
        if by_rounding and rounding.explains(self.steps, found.where, x, y):
            self.reasons.append(explained.ROUNDING)
            self.over = True
        else:
            self.fail(found)

    def fail(self, found: Difference) -> None:
        self.difference, self.over = found, True

    # -- PyTorch as it is

    def plain_raises(self, step: Step) -> bool:
        """Whether PyTorch, keeping no copies, refuses this step after the same ones. Without hooks:
        after writes that it follows, PyTorch 2.13 can crash when a hook is added.
        """
        namespace = namespaces.made(PLAIN)
        for before in self.steps:
            if "hook" not in before.name and before.name != "retain_grad":
                _raised(before.text(TORCH), namespace)
        return _raised(step.text(TORCH), namespace) is not None


def _raised(text: str, namespace: dict[str, Any]) -> Exception | None:
    try:
        exec(compile(text, "<program>", "exec"), namespace)
    except Exception as error:
        return error
    return None


def _said(error: Exception | None) -> str:
    return "no error" if error is None else f"{type(error).__name__}: {error}"


def _value(where: str, namespace: dict[str, Any]) -> Any:
    try:
        return eval(where, namespace)
    except IndexError:
        return None


def replayed(steps: list[Step]) -> Run:
    """A run of the steps."""
    run = Run()
    for step in steps:
        if not run.over:
            run.do(step)
    if not run.over:
        run.look_at_all()
    return run
