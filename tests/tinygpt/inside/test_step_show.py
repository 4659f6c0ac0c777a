"""`tinygpt step --plain --show NAME`: one array of the walk, with its tokens, and where a gradient
came from.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import tensor
from tinygpt.__main__ import main
from tinygpt.runs import run as runs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("show") / "story"
    assert main(["train", "--steps", "3", "--snapshots", "0", "--out", str(folder)]) == 0
    return folder


def shown(
    run: Path, capsys: pytest.CaptureFixture[str], name: str, prompt: str = "The cat"
) -> list[str]:
    capsys.readouterr()
    assert main(["step", str(run), "--plain", "--prompt", prompt, "--show", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith(f"{name}: ")) :]


def test_attention_weights_have_their_tokens_and_are_the_models(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _, _, head, *rows = shown(run, capsys, "blocks.1.attention.weights[0, 2]")
    assert first == "blocks.1.attention.weights[0, 2]: shape (6, 6), float32"
    assert head.split() == ["'T'", "'h'", "'e'", "'", "'", "'c'", "'a'"]
    printed = np.array([[float(cell) for cell in re.sub(r"^'.'", "", row).split()] for row in rows])
    _, model, tokenizer = runs.load(run)
    seen: list[np.ndarray] = []
    with tensor.no_grad():
        x = model.embed([tokenizer.encode("The ca")])
        for block in model.blocks:
            h = block.attention.qkv(block.attention_norm(x)).numpy()[0].reshape(6, 3, 4, 16)
            scores = np.einsum("thd,shd->hts", h[:, 0], h[:, 1]) / 4 + np.where(
                np.tri(6, dtype=bool), 0, -np.inf
            )
            seen.append(np.exp(scores) / np.exp(scores).sum(-1, keepdims=True))
            x = block(x)
    np.testing.assert_allclose(printed, seen[1][2], atol=0.00051)


def test_a_gradient_says_where_it_came_from(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, one, two, *_ = shown(run, capsys, "token_embedding.weight.grad")
    parts = [
        re.match(r"(\d) of (\d) from (\S+) \((\w+)\): norm (\S+?)(, the sum so far (\S+))?$", line)
        for line in (one, two)
    ]
    assert [m and m.groups()[:4] for m in parts] == [
        ("1", "2", "logits.linear.backward", "linear"),
        ("2", "2", "embed.embedding.backward", "embedding"),
    ]
    _, model, tokenizer = runs.load(run)
    ids = tokenizer.encode("The cat")
    model.loss([ids[:-1]], [ids[1:]]).backward()
    whole = model.token_embedding.weight.grad
    assert whole is not None
    assert parts[1]
    assert float(parts[1][7]) == pytest.approx(float(np.linalg.norm(whole.numpy())), rel=1e-3)


def test_what_is_too_wide_is_a_map_within_the_terminal(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = shown(run, capsys, "blocks.0.attention.qkv.weight")
    assert any("█ = " in line for line in lines)
    assert max(map(len, lines)) <= 60
    (_, value) = shown(run, capsys, "loss")
    assert value.startswith("value ")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("blocks.0.atention.weights", "near it: .*blocks.0.attention"),
        ("blocks.0.attention.weights[0, 4]", r"out of bounds.*\n.*has shape \(1, 4, 6, 6\)"),
        ("blocks.0.attention.weights[0, 1, 2, 3, 4]", r"too many indices.*\n.*has shape"),
        ("blocks.0.attention.weights[--1]", "invalid literal"),
        ("nothing[0]", "named 'nothing'"),
    ],
)
def test_what_is_not_there(
    run: Path, capsys: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    assert main(["step", str(run), "--plain", "--prompt", "The cat", "--show", name]) == 2
    assert re.search(says, capsys.readouterr().err)


def test_it_is_for_text(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["step", str(run), "--show", "loss"]) == 2
    assert "--show is for text: give --plain too" in capsys.readouterr().err
