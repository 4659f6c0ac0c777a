"""`tinygpt step` of an encoder-decoder: a source and a target, forward and backward."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.program import refused
from tests.tinygpt.inside.test_step import damaged, stepped
from tinygpt.ids import EOS, SOS, SourceTarget
from tinygpt.inside.step.recorded import Session, recorded
from tinygpt.runs import run as runs

SOURCE = "adbfc"


def session(run: Path, target: str | None = None) -> Session:
    return recorded(*runs.load(run), SOURCE, "reference", target)


def test_the_pair_goes_forward_and_backward(
    reversing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The target is what the model writes, or the given one; the loss is the model's, and all
    parameters get a gradient.
    """
    _, model, tokenizer = runs.load(reversing)
    source = tokenizer.encode(SOURCE)
    for target, more, why in (
        (SOURCE[::-1], [], "as the model writes it"),
        ("ccc", ["--target", "ccc"], "as given"),
    ):
        out = " ".join(stepped(capsys, str(reversing), "--prompt", SOURCE, *more).split())
        ids = [*tokenizer.encode(target), EOS]
        x = SourceTarget(np.array([source]), np.array([[SOS, *ids[:-1]]]))
        assert f"source 'adbfc': 5 tokens target '{target}<eos>': {len(ids)} tokens, {why};" in out
        assert f"ids (1, 5) and (1, {len(ids)}) " in out
        assert f"loss {float(model.loss(x, np.array([ids]))):.4f} nats a token" in out
    walk = session(reversing).walk
    assert walk.modules["encoder.0.attention"] == "encoder.0"
    assert walk.modules["decoder.0.cross_attention"] == "decoder.0"
    named = {name for name, _ in model.named_parameters()}
    assert named <= {seen.to for stop in walk.stops for seen in stop.seen}


def test_cross_attention_reads_the_source_from_its_end(
    reversing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights have the target at their rows and the source at their columns, and the better
    head is the anti-diagonal.
    """
    found = []
    for head in (0, 1):
        name = f"decoder.0.cross_attention.weights[0, {head}]"
        out = stepped(capsys, str(reversing), "--prompt", SOURCE, "--show", name)
        head_line, *rows = out.partition("std")[2].splitlines()[2:]
        assert re.findall("'(.*?)'", head_line) == list(SOURCE)
        assert [row.split()[0] for row in rows] == ["'<sos>'", "'c'", "'f'", "'b'", "'d'", "'a'"]
        found.append(np.array([row.split()[1:] for row in rows], dtype=float))
    best = max(found, key=lambda weights: float(np.trace(weights[:5, ::-1])))
    assert best[:5].argmax(-1).tolist() == [4, 3, 2, 1, 0]
    assert np.trace(best[:5, ::-1]) > 4


def test_an_axis_is_named_only_where_its_text_is_known(reversing: Path) -> None:
    """Here the source and the target have five tokens each."""
    names = session(reversing, "ccfb").names
    source = [f"'{letter}'" for letter in SOURCE]
    target = [f"'{token}'" for token in ("<sos>", *"ccfb")]
    none: list[str] = []
    for name, shape, expected in (
        ("encoder.0.attention.weights", (1, 2, 5, 5), (source, source)),
        ("encoder_norm.layer_norm", (1, 5, 32), (source, none)),
        ("decoder.0.attention.weights.grad", (1, 2, 5, 5), (target, target)),
        ("decoder.0.cross_attention.weights[0, 1]", (5, 5), (target, source)),
        ("decoder.0.cross_attention.kv.linear", (1, 5, 64), (none, none)),
        ("embed.add#2", (1, 5, 32), (none, none)),
        ("logits", (1, 5, 9), (target, none)),
        ("decoder.0.cross_attention.q.weight", (32, 32), (none, none)),
    ):
        assert names.of(name, shape) == expected, name
    names = session(reversing).names  # five and six tokens
    assert names.of("decoder.0.cross_attention.kv.linear", (1, 5, 64)) == (source, none)
    assert names.of("embed.add#2", (1, 6, 32))[0][0] == "'<sos>'"


def test_says_who_made_a_nan(
    reversing: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing can be drawn from broken logits, and the walk goes on to the op."""
    run = Path(shutil.copytree(reversing, here / "broken"))
    damaged(run, "decoder.0.cross_attention.q.weight", (3, 4), np.nan)
    out = stepped(capsys, "broken", "--break", "nan")
    assert "target   '<eos>': 1 token, since its logits are not finite;" in out
    assert "decoder.0.cross_attention.q  linear" in out


def test_refuses(reversing: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = str(reversing)
    for arguments, says in (
        (
            ["story-1", "--target", "cat"],
            "--target is for a run that answers, or names a label, and runs/story-1 predicts the "
            "tokens of the prompt itself",
        ),
        ([pairs, "--prompt", "abcabcabc"], "'abcabcabc' has 9 characters, and"),
        ([pairs, "--prompt", ""], "'' has 0 characters, and"),
        ([pairs, "--prompt", "abx"], "character 'x' at position 2 is not one of the"),
        ([pairs, "--target", "abcabcab"], "the target has 8 tokens and <eos>, but the model"),
        ([pairs, "--target", "a", "--train"], "--target and --train do not go together"),
    ):
        refused(capsys, "step", "--plain", *arguments, says=says)
