"""Bugs of what stands beside a policy."""

from __future__ import annotations

from tests.zoo.bug import Bug

ZOO = [
    Bug(  # KL is to a model whose weights are 0: to equal probabilities
        row=97,
        file="tinygpt/model/aligned.py",
        old="        self.reference.load_state_dict(policy.state_dict())\n",
        new="",
        test="tests/tinygpt/model/test_aligned.py::test_the_reference_is_the_policy_as_it_was",
    ),
]
