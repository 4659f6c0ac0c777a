"""Filling in [MASK]: with the likeliest token, the surest [MASK] first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensor import Tensor, no_grad
from tinygpt import BERT, BERTConfig, CharacterTokenizer
from tinygpt.commands.embed import vectors
from tinygpt.errors import InputError
from tinygpt.generation.fill import fill, masked_ids
from tinygpt.ids import CLS, MASK, MASK_TOKENS
from tinygpt.tokenizers import SpecialTokenizer

TOKENIZER = SpecialTokenizer(CharacterTokenizer("abc"), MASK_TOKENS)
A, B, C = 4, 5, 6


class Scripted:
    """A model whose logits at a position depend on the token before: (before, token) -> logit."""

    def __init__(self, logits: dict[tuple[int, int], float]):
        self.seen: list[list[int]] = []
        self.table = np.zeros((7, 7), np.float32)
        for place, logit in logits.items():
            self.table[place] = logit

    def __call__(self, ids: Any) -> Tensor:
        self.seen.append(ids.tolist())
        return Tensor(self.table[np.roll(ids, 1)][None])


def test_masked_ids() -> None:
    assert masked_ids(TOKENIZER, "a[MASK]c[MASK]") == [A, MASK, C, MASK]
    assert masked_ids(TOKENIZER, "[MASK]") == [MASK]
    assert masked_ids(TOKENIZER, "abc") == [A, B, C]


def test_the_surest_is_first_and_the_others_see_it() -> None:
    """After MASK nothing is known but that a special token is likeliest, which is never taken. The
    second [MASK] is filled in after the first one, whose token it depends on.
    """
    model = Scripted({(A, B): 2.0, (B, C): 5.0, (MASK, CLS): 9.0, (MASK, A): 1.0})
    found = list(fill(model, [A, MASK, MASK]))
    assert [(step.position, step.token) for step in found] == [(1, B), (2, C)]
    assert model.seen == [[CLS, A, MASK, MASK], [CLS, A, B, MASK]]
    for step in found:
        assert step.p[: len(MASK_TOKENS)].sum() == 0
        np.testing.assert_allclose(step.p.sum(), 1)
    np.testing.assert_allclose(found[0].p[B], np.exp(2) / (np.exp(2) + 2))
    # the surest one stands last here
    surer = Scripted({(A, B): 1.0, (C, A): 4.0})
    assert [step.position for step in fill(surer, [A, MASK, C, MASK])] == [3, 1]


def test_of_a_model() -> None:
    model = BERT(BERTConfig(TOKENIZER.size, 8)).eval()
    ids = [A, MASK, B, MASK, MASK]
    found = list(fill(model, ids))
    assert sorted(step.position for step in found) == [1, 3, 4]
    assert all(step.token >= len(MASK_TOKENS) for step in found)
    assert ids == [A, MASK, B, MASK, MASK]
    assert list(fill(model, [A, B])) == []


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_broken_weights_fill_in_nothing(wrong: float) -> None:
    """Of probabilities that are NaN the first is the largest: that of [PAD]."""
    model = BERT(BERTConfig(TOKENIZER.size, 8)).eval()
    with no_grad():
        model.token_embedding.weight[B, 0] = wrong
    with pytest.raises(InputError, match="not finite numbers: its weights are broken"):
        list(fill(model, [A, MASK, C]))
    with pytest.raises(InputError, match="the vectors are not finite numbers"):
        vectors(model, [[A, B]])
