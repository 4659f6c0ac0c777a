"""A step of a program: data, from which the line of Python for either library is made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

HERE, TORCH, PLAIN = "here", "torch", "plain torch"


@dataclass(frozen=True)
class Op:
    """How an op is written. `{0}`, `{1}` stand for inputs, `{name}` for options, `{out}` for the
    name of the result; a text without `{out}` is an expression.

    kind: "value" makes new memory, "view" shares it, "write" changes it, "act" is the rest (hooks,
    backward).
    """

    here: str
    torch: str
    kind: str = "value"

    @property
    def statement(self) -> bool:
        return self.kind in ("write", "act")


@dataclass(frozen=True)
class Step:
    """An op on values by name. `inputs` are expressions: `x3`, `x4[1]`, `0.5`."""

    op: Op
    name: str  # of the op
    out: str
    inputs: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    quiet: bool = False  # under no_grad()

    def text(self, library: str) -> str:
        """The line of Python for a library."""
        template = self.op.here if library == HERE else self.op.torch
        line = template.format(*self.inputs, out=self.out, **self.options)
        if self.quiet and self.op.kind == "view" and library == TORCH:
            line = f"unrecorded({line}, {self.inputs[0]})"
        if not self.op.statement:
            line = f"{self.out} = {line}"
        return f"with no_grad():\n    {line}" if self.quiet else line

    @property
    def names(self) -> set[str]:
        """The variables that the step reads."""
        return set(re.findall(r"\bx\d+\b", self.text(HERE))) - {self.out}

    def renamed(self, old: str, new: str) -> Step:
        """The same step on the value `new` in place of the variable `old`."""
        word = re.compile(rf"\b{old}\b")
        options = {
            name: word.sub(new, value) if isinstance(value, str) else value
            for name, value in self.options.items()
        }
        inputs = tuple(word.sub(new, x) for x in self.inputs)
        return replace(self, inputs=inputs, options=options)
