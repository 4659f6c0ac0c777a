"""What stands beside a policy."""

from __future__ import annotations

import numpy as np

from tensor import Generator, no_grad
from tinygpt import GPT
from tinygpt.config import GPTConfig
from tinygpt.model.aligned import Aligned


def test_the_reference_is_the_policy_as_it_was() -> None:
    """Equal weights in memory of their own: it stays where the policy moves."""
    policy = GPT(GPTConfig(9, 8, width=12, heads=3, layers=2), generator=Generator(0))
    model, ids = Aligned(policy), [[1, 2, 3]]
    before = policy(ids).numpy().copy()
    assert np.array_equal(model.reference(ids).numpy(), before)
    assert not any(x.requires_grad for x in model.reference.parameters())
    with no_grad():
        for x in policy.parameters():
            x += 0.1
    assert not np.array_equal(policy(ids).numpy(), before)
    assert np.array_equal(model.reference(ids).numpy(), before)
