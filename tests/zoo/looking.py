"""Bugs of looking inside: what was shown was not what ran."""

from __future__ import annotations

from tests.zoo.bug import Bug

INSPECT = "tests/tinygpt/commands/test_inspect.py"
LOOK = "tests/tinygpt/inside/test_look_pairs.py"
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
    Bug(  # inspect leaves out the cross-attention of a decoder
        row=97,
        file="tinygpt/inside/weights.py",
        old='    ("cross_norm", "cross_attention"),\n',
        new="",
        test=f"{INSPECT}::test_an_encoder_decoder",
    ),
    Bug(  # the arrays of the target's embedding are those of the source
        row=97,
        file="tinygpt/inside/look/steps.py",
        old='    again="#2",\n',
        new="",
        test=f"{LOOK}::test_each_step_is_what_its_formula_says",
    ),
    Bug(  # attention of earlier weights stands in other rows
        row=97,
        file="tinygpt/inside/look/page.py",
        old="seen[:first] = False",
        new="seen[first:] = False",
        test=f"{LOOK}::test_of_earlier_weights_the_last_rows_are_kept",
    ),
    Bug(  # a target is measured on what its source predicts
        row=97,
        file="tinygpt/inside/look/gather.py",
        old="range(self.source + 1, len(self.ids)",
        new="range(self.source, len(self.ids) - 1",
        test=f"{LOOK}::test_the_loss_is_that_of_the_written_tokens",
    ),
    Bug(  # what is expected after a token of the target is what is expected after another
        row=97,
        file="tinygpt/inside/look/data.js",
        old="const begin = (token - facts.source) * count;",
        new="const begin = 0 * count;",
        test=f"{LOOK}::test_the_page",
    ),
    Bug(  # an encoder that sees only what came before passes
        row=97,
        file="tinygpt/inside/verification.py",
        old="        _check_source(in_float64(model))\n",
        new="",
        test="tests/tinygpt/commands/test_verify.py::test_finds_an_encoder_decoder_that_sees_too"
        "_little_or_too_much",
    ),
]
