"""The losses of pairs of replies, and their gradients, are those written in PyTorch with GPT-2 of
the same weights.   Tests: training/objectives/preferences.py, data/preferences.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensor import no_grad
from tests.helpers.alignment import draw
from tinygpt import GPT, GPTConfig
from tinygpt.config import AlignConfig, GPTClassifierConfig, RewardConfig
from tinygpt.data.preferences import Preference, Preferences
from tinygpt.ids import CHAT_TOKENS
from tinygpt.model.aligned import Aligned
from tinygpt.model.heads import GPTClassifier
from tinygpt.runs import gpt2
from tinygpt.tokenizers import ByteTokenizer, SpecialTokenizer
from tinygpt.training.measure import mean_loss
from tinygpt.training.objectives.preferences import compared_scores, dpo_loss, reward_loss
from tinygpt.training.step import gradients, objective_of, optimizer_of

CONTEXT, BETA = 40, 0.7
PAIRS = [
    Preference("Tell who slept.", "Tom. Yes.", "the dog", "Tom slept."),
    Preference("Say it.", "a", "b"),
    Preference("?", "no", "nobody at all"),
    Preference("Tell.", "Mia went", "Mi"),
    Preference("Tell what.", "a cat", "cats", "A cat."),
]
TOKENIZER = SpecialTokenizer(ByteTokenizer(), CHAT_TOKENS)
SHAPE: dict[str, Any] = {"width": 16, "heads": 2, "layers": 2}
# our parameters, and theirs
NAMES = {
    "token_embedding.weight": "wte.weight",
    "position_embedding": "wpe.weight",
    "blocks.0.attention.qkv.weight": "h.0.attn.c_attn.weight",
    "blocks.1.attention.qkv.bias": "h.1.attn.c_attn.bias",
}


def texts() -> list[tuple[list[int], list[int], list[int]]]:
    """The ids of each prompt and of both replies, by hand: <|user|> is 0, <|assistant|> 1 and
    <|end|> 2, and the bytes come after.
    """
    found = []
    for pair in PAIRS:
        asked = f"{pair.input}\n{pair.prompt}" if pair.input else pair.prompt
        prompt = [0, *(byte + 3 for byte in asked.encode()), 1]
        better, worse = ([*(b + 3 for b in x.encode()), 2] for x in (pair.better, pair.worse))
        found.append((prompt, better, worse))
    return found


def drawn(seed: int) -> GPT:
    config = GPTConfig(TOKENIZER.size, CONTEXT, **SHAPE)
    model = GPT(config, dtype="float64")
    draw(model, seed, 0.3)
    return model


def in_theirs(model: GPT, folder: Path, torch: Any, transformers: Any) -> Any:
    gpt2.save(model, folder)
    return transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float64).eval()


def of_reply(theirs: Any, prompt: list[int], reply: list[int], torch: Any) -> Any:
    """ln p(reply | prompt) of a row of its own."""
    logits = theirs(torch.tensor([[*prompt, *reply]])).logits[0]
    logs = torch.log_softmax(logits, dim=-1)
    places = range(len(prompt) - 1, len(prompt) + len(reply) - 1)
    return sum(logs[place, token] for place, token in zip(places, reply, strict=True))


def compare(ours: Any, theirs: Any) -> None:
    """The gradients."""
    expected = dict(theirs.named_parameters())
    parameters = dict(ours.named_parameters())
    for name, other in NAMES.items():
        assert parameters[name].grad is not None
        found, dw = parameters[name].grad.numpy(), expected[other].grad.numpy()
        np.testing.assert_allclose(found, dw, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_dpo_is_that_of_pytorch(
    accumulation: int, tmp_path: Path, torch: Any, transformers: Any
) -> None:
    policy, reference = drawn(1), drawn(2)
    p, q = (
        in_theirs(model, tmp_path / name, torch, transformers)
        for model, name in ((policy, "p"), (reference, "q"))
    )
    margins = []
    for prompt, *replies in texts():
        with torch.no_grad():
            log_q = [of_reply(q, prompt, reply, torch) for reply in replies]
        log_p = [of_reply(p, prompt, reply, torch) for reply in replies]
        margins.append(BETA * ((log_p[0] - log_q[0]) - (log_p[1] - log_q[1])))
    expected = -torch.nn.functional.logsigmoid(torch.stack(margins)).mean()
    expected.backward()

    model = Aligned(policy)
    model.reference.load_state_dict(reference.state_dict())
    config = AlignConfig(method="dpo", kl=BETA, dtype="float64", batch=len(PAIRS))
    x, y = Preferences(PAIRS, TOKENIZER, CONTEXT)[range(len(PAIRS))]
    optimizer, objective = optimizer_of(model, config), objective_of(config)
    found = gradients(model, optimizer, x, y, accumulation, objective=objective)
    np.testing.assert_allclose(float(found), expected.item(), rtol=1e-12)
    compare(model.policy, p.transformer)
    assert all(w.grad is None for _, w in model.reference.named_parameters())
    model.reference.load_state_dict(policy.state_dict())
    with no_grad():  # the same model prefers nothing
        assert float(dpo_loss(BETA)(model, x, y, "mean")) == pytest.approx(np.log(2), rel=1e-14)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_loss_of_a_reward_model_is_that_of_pytorch(
    accumulation: int, tmp_path: Path, torch: Any, transformers: Any
) -> None:
    config = GPTClassifierConfig(TOKENIZER.size, CONTEXT, **SHAPE, labels=("reward",))
    model = GPTClassifier(config, dtype="float64")
    draw(model, 3, 0.3)
    body = drawn(4)
    own = model.state_dict()
    body.load_state_dict({name: own[name] for name in body.state_dict()})
    theirs = in_theirs(body, tmp_path / "r", torch, transformers).transformer
    head = torch.tensor(model.head.weight.numpy()[:, 0], requires_grad=True)
    margins, scores = [], []
    for prompt, *replies in texts():
        both = [
            theirs(torch.tensor([[*prompt, *reply]])).last_hidden_state[0, -1] @ head
            for reply in replies
        ]
        margins.append(both[0] - both[1])
        scores.append([score.item() for score in both])
    expected = -torch.nn.functional.logsigmoid(torch.stack(margins)).mean()
    expected.backward()

    pairs = Preferences(PAIRS, TOKENIZER, CONTEXT)
    x, y = pairs[range(len(PAIRS))]
    choices = RewardConfig(dtype="float64", batch=len(PAIRS))
    optimizer = optimizer_of(model, choices)
    found = gradients(model, optimizer, x, y, accumulation, objective=objective_of(choices))
    np.testing.assert_allclose(float(found), expected.item(), rtol=1e-12)
    compare(model, theirs)
    assert model.head.weight.grad is not None
    dw = model.head.weight.grad.numpy()[:, 0]
    np.testing.assert_allclose(dw, head.grad.numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(compared_scores(model, x).numpy(), scores, rtol=0, atol=1e-12)
    measured = mean_loss(model, pairs, batch=2, objective=reward_loss)
    assert measured == pytest.approx(expected.item(), rel=1e-12)
