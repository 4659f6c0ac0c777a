"""Bugs of the table of parts: parameters in the wrong line, without a word."""

from __future__ import annotations

from tests.zoo.bug import Bug

SIZES = "tinygpt/model/sizes.py"
TEST = "tests/tinygpt/commands/test_plan.py::test_the_parts_are_those_of_the_model"

ZOO = [
    Bug(  # the cross-attention of a decoder is left out
        row=97,
        file=SIZES,
        old='"attention": (blocks + config.layers * of_pairs)',
        new='"attention": blocks',
        test=TEST,
    ),
    Bug(  # the norm after the blocks is left out
        row=97,
        file=SIZES,
        old="config.layers * of_pairs + 1 + of_pairs",
        new="config.layers * of_pairs + of_pairs",
        test=TEST,
    ),
    Bug(  # a tied head is counted again
        row=97,
        file=SIZES,
        old="V * C * (not config.tied) + bert",
        new="V * C + bert",
        test=TEST,
    ),
]
