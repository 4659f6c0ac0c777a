"""Bugs of looking inside: what was shown was not what ran."""

from __future__ import annotations

from tests.zoo.bug import Bug

STEP = "tests/tinygpt/inside/test_step_training.py"

ZOO = [
    Bug(  # a step is shown without the label smoothing of its training
        row=97,
        file="tinygpt/inside/step/training.py",
        old="objective = objective_of(config)",
        new="objective = objective_of(type(config)())",
        test=f"{STEP}::test_the_weight_after_is_what_training_makes_of_it[as run-more5]",
    ),
    Bug(  # the keys of a source are named after the tokens of a target that is as long
        row=97,
        file="tinygpt/inside/step/names.py",
        old="fitting = [text] if known else []",
        new="fitting = [text]",
        test="tests/tinygpt/inside/test_step_pairs.py::test_an_axis_is_named_only_where_its_text"
        "_is_known",
    ),
]
