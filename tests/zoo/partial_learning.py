"""Bugs of a training in which a part of the model learns: frozen parts, adapters."""

from __future__ import annotations

from tests.zoo.bug import Bug

FREEZING, JOBS = "tinygpt/model/freezing.py", "tinygpt/training/jobs.py"
FROZEN = "tests/tinygpt/model/test_freezing.py::test_what_is_frozen_does_not_move_by_a_bit"
RUN = "tests/tinygpt/commands/test_finetune.py::"

ZOO = [
    # one block more is frozen
    Bug(97, FREEZING, "if number < count]", "if number <= count]", FROZEN),
    # a table of tokens learns on
    Bug(97, FREEZING, "if role_of(parameter) == \"table\"]", "if role_of(parameter) == \"head\"]",
        FROZEN),
    # a run that goes on learns what was frozen
    Bug(97, JOBS, "    _freeze(model, config)\n    optimizer = optimizer_of(model.train(), config)",
        "    optimizer = optimizer_of(model.train(), config)",
        RUN + "test_frozen_parts_stay_bit_for_bit"),
]  # fmt: skip
