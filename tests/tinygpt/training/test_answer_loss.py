"""The loss of fine-tuning is that of transformers with labels of -100 on the prompt: GPT-2 of the
same weights, labels made here from the texts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygpt import GPT, GPTConfig
from tinygpt.config import FinetuneConfig
from tinygpt.data.instructions import Example, Instructions
from tinygpt.ids import CHAT_TOKENS
from tinygpt.runs import gpt2
from tinygpt.tokenizers import ByteTokenizer, SpecialTokenizer
from tinygpt.training.step import gradients, optimizer_of

CONTEXT = 40
EXAMPLES = [
    Example("Tell who slept.", "Tom", "Tom slept."),
    Example("Say it.", "a"),
    Example("Tell what.", "the dog", later=(("And who?", "Mia"),)),
    Example("?", "nobody at all"),
    Example("Tell.", "no"),
]
# the same, by hand: for each row the prompts and the answers, with <|user|> 0, <|assistant|> 1 and
# <|end|> 2 before the bytes
TURNS = [
    [("Tom slept.\nTell who slept.", "Tom")],
    [("Say it.", "a")],
    [("Tell what.", "the dog"), ("And who?", "Mia")],
    [("?", "nobody at all")],
    [("Tell.", "no")],
]
PACKED = [TURNS[0], TURNS[1], TURNS[2], [*TURNS[3], *TURNS[4]]]


def labelled(rows: list[list[tuple[str, str]]]) -> tuple[Any, Any, Any]:
    """Ids, labels and attention mask as transformers takes them, padded at the end."""
    ids, labels = [], []
    for turns in rows:
        row, label = list[int](), list[int]()
        for prompt, answer in turns:
            asked = [0, *(byte + 3 for byte in prompt.encode()), 1]
            told = [*(byte + 3 for byte in answer.encode()), 2]
            row += asked + told
            label += [-100] * len(asked) + told
        ids.append(row)
        labels.append(label)
    longest = max(map(len, ids))
    known = [[1] * len(row) + [0] * (longest - len(row)) for row in ids]
    ids = [row + [7] * (longest - len(row)) for row in ids]
    labels = [row + [-100] * (longest - len(row)) for row in labels]
    return ids, labels, known


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_loss_and_gradients_of_transformers(
    packing: bool,
    accumulation: int,
    tmp_path: Path,
    torch: Any,
    transformers: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = SpecialTokenizer(ByteTokenizer(), CHAT_TOKENS)
    windows = Instructions(EXAMPLES, tokenizer, CONTEXT, packing)
    rows = PACKED if packing else TURNS
    assert len(windows) == len(rows)
    config = GPTConfig(tokenizer.size, CONTEXT, 16, 2, 2, positions="learned", norm="pre")
    model, rng = GPT(config, dtype="float64"), np.random.default_rng(0)
    drawn = {name: 0.3 * rng.standard_normal(w.shape) for name, w in model.state_dict().items()}
    model.load_state_dict(drawn)
    gpt2.save(model, tmp_path / "made")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "made", dtype=torch.float64)
    # its loss makes float32 of all logits
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)
    ids, labels, known = map(torch.tensor, labelled(rows))
    expected = theirs.eval()(ids, labels=labels, attention_mask=known).loss
    expected.backward()

    choices = FinetuneConfig(dtype="float64", batch=len(rows))
    x, y = windows[range(len(rows))]
    found = gradients(model, optimizer_of(model, choices), x, y, accumulation)
    assert expected.dtype == torch.float64
    np.testing.assert_allclose(float(found), expected.item(), rtol=1e-12)
    for name, dw in (
        ("token_embedding.weight", theirs.transformer.wte.weight.grad),
        ("position_embedding", theirs.transformer.wpe.weight.grad),
        ("blocks.0.attention.qkv.weight", theirs.transformer.h[0].attn.c_attn.weight.grad),
    ):
        ours = dict(model.named_parameters())[name].grad
        assert ours is not None
        np.testing.assert_allclose(ours.numpy(), dw.numpy(), rtol=0, atol=1e-12)
