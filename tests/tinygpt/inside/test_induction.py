"""The score of an induction head: the weight on the token after the same token before."""

from __future__ import annotations

import numpy as np
import pytest

import tensor
from tinygpt import GPT, GPTConfig
from tinygpt.inside.induction import after_earlier, induction_scores

IDS = np.array([[3, 1, 4, 3, 1, 3, 3]])


def test_places_after_the_same_token() -> None:
    #             3  1  4  3  1  3  3
    expected = [
        "0000000",  # 3: nothing before
        "0000000",
        "0000000",
        "0100000",  # 3 was at 0, and 1 comes after
        "0010000",
        "0100100",
        "0100101",  # and 3 at 5: this very token comes after
    ]
    rows = ["".join(str(int(x)) for x in row) for row in after_earlier(IDS)[0]]
    assert rows == expected


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_scores_are_sums_of_attention(norm: str) -> None:
    config = GPTConfig(5, 7, width=12, heads=3, layers=2, norm=norm)  # type: ignore[arg-type]
    model = GPT(config, generator=tensor.Generator(1)).eval()
    generator = tensor.Generator(2)
    with tensor.no_grad():
        for weight in model.parameters():
            weight[...] = generator.normal(weight.shape)
    asked = np.array([[False, False, False, True, False, True, True]])
    scores, equal = induction_scores(model, IDS, asked)
    states = model.hidden_states(IDS)
    by_hand = np.zeros((2, 3))
    for layer, block in enumerate(model.blocks):
        x = states[layer] if norm == "post" else block.attention_norm(states[layer])
        q, k, _ = block.attention.qkv(x).numpy().reshape(7, 3, 3, 4).transpose(1, 2, 0, 3)
        weights = np.exp(q @ k.swapaxes(1, 2) / 2) * np.tri(7)
        weights /= weights.sum(axis=-1, keepdims=True)
        looked = [weights[:, 3, 1], weights[:, 5, [1, 4]], weights[:, 6, [1, 4, 6]]]
        sums = [w if w.ndim == 1 else w.sum(axis=1) for w in looked]
        by_hand[layer] = np.mean(sums, axis=0)
    np.testing.assert_allclose(scores, by_hand, rtol=1e-4)
    assert equal == pytest.approx((1 / 4 + 2 / 6 + 3 / 7) / 3)
