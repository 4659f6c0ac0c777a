"""Bugs of optimisers that a new user met: parameters that never learn."""

from __future__ import annotations

from tests.zoo.bug import Bug

GROUPS = "tests/tensor/optim/test_groups.py::"
LATE = GROUPS + "test_groups_are_those_that_the_optimizer_was_made_with"

ZOO = [
    Bug(  # a parameter that is appended to a group never learns
        row=97,
        file="tensor/optim/groups.py",
        old='"params": tuple(p for _, p in named)}',
        new='"params": [p for _, p in named]}',
        test=LATE,
    ),
    Bug(  # a group that is appended never learns
        row=97,
        file="tensor/optim/optimizer.py",
        old="self._groups = tuple(group for group, _, _ in groups)",
        new="self._groups = [group for group, _, _ in groups]",
        test=LATE,
    ),
    Bug(  # an option of an unknown name changes nothing
        row=97,
        file="tensor/optim/optimizer.py",
        old="            check_unchanged(kind, group, made)\n",
        new="            pass\n",
        test=LATE,
    ),
    Bug(  # biases in a group that sets weight_decay do not decay
        row=97,
        file="tensor/optim/optimizer.py",
        old="self._decaying if decays else self.group_of",
        new="self.group_of",
        test=GROUPS + "test_all_parameters_of_a_group_that_sets_weight_decay_decay",
    ),
    Bug(  # biases decay without a group that says so
        row=97,
        file="tensor/optim/optimizer.py",
        old="self._decaying if decays else self.group_of",
        new="self._decaying",
        test=GROUPS + "test_all_parameters_of_a_group_that_sets_weight_decay_decay",
    ),
]
