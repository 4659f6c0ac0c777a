"""`tinygpt step --train`: one step of a run's training, to the optimiser's update; and that the run
does not notice.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensor
from tests.helpers.program import TINY, contents, refused
from tests.tinygpt.inside.test_step import damaged, stepped
from tinygpt.__main__ import main
from tinygpt.inside.step.recorded import How
from tinygpt.inside.step.training import batch, trained
from tinygpt.runs import run as runs
from tinygpt.training import jobs
from tinygpt.training.step import objective_of, train

KINDS: list[list[str]] = [
    [],
    ["--optimizer", "muon"],
    ["--accumulation", "3", "--dropout", "0.2", "--batches", "random"],
    ["--clip", "0.01", "--dtype", "bfloat16"],
    ["--dtype", "float16", "--recompute"],
    ["--label-smoothing", "0.2"],
    ["--pairs", "pairs.txt", "--validation", "0"],
]


@pytest.mark.parametrize("more", KINDS)
@pytest.mark.parametrize("how", ["reference", "as run"])
def test_the_weight_after_is_what_training_makes_of_it(
    how: How, more: list[str], here: Path
) -> None:
    """Bit for bit: every weight, the optimiser's state, the loss, the norm and the learning rate.
    And the run stays as it is.
    """
    (here / "pairs.txt").write_text("ab\tba\nbaa\taab\na\ta\nbbab\tbabb\n")
    assert main(["train", *TINY, *more, "--steps", "6", "--until", "4", "--snapshots", "0"]) == 0
    before = contents()
    job, other = jobs.reopened(None), jobs.reopened(None)
    _, step = trained(job, how)
    record = next(
        train(
            other.model,
            other.data.windows,
            other.run.training,
            other.optimizer,
            other.progress.step,
            objective_of(other.run.training),
        )
    )
    assert (step.number, step.loss, step.lr, step.norm) == (
        record.step,
        record.loss,
        record.lr,
        record.gradient_norm,
    )
    assert not step.skipped
    expected = dict(other.model.named_parameters())
    assert [update.name for update in step.updates if update.name not in expected] == []
    assert len(step.updates) == len(expected)
    for update in step.updates:
        after = expected[update.name].numpy()
        assert np.array_equal(update.after["w"].astype(after.dtype), after), update.name
        assert not np.array_equal(update.before["w"], update.after["w"]), update.name
    ours, theirs = job.optimizer.state_dict()["arrays"], other.optimizer.state_dict()["arrays"]
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert contents() == before


def test_the_update_of_a_named_weight_is_adamws(run: Path) -> None:
    """Loshchilov & Hutter's algorithm 2 in float64, from the run's own choices, and the gradient of
    another pass.
    """
    job = jobs.reopened(None)
    config, t = job.run.training, job.progress.step + 1
    _, step = trained(job, "reference")
    model, (x, y) = jobs.reopened(None).model, batch(job)
    with tensor.kernels.off():
        model.loss(x, y).backward()
    parameters = dict(model.named_parameters())
    for update in step.updates:
        parameter = parameters[update.name]
        assert parameter.grad is not None
        g = parameter.grad.numpy().astype(np.float64) * step.factor
        assert np.allclose(update.gradient * step.factor, g, rtol=1e-4, atol=1e-6)
        w, m, v = (update.before[name].astype(np.float64) for name in "wmv")
        g = update.before["g"].astype(np.float64)
        m = config.beta1 * m + (1 - config.beta1) * g
        v = config.beta2 * v + (1 - config.beta2) * g**2
        decay = config.weight_decay if w.ndim >= 2 else 0.0
        w = (
            w
            - step.lr * decay * w
            - step.lr * (m / (1 - config.beta1**t)) / (np.sqrt(v / (1 - config.beta2**t)) + 1e-8)
        )
        for name, exact in (("m", m), ("v", v), ("w", w)):
            assert np.allclose(
                update.after[name], exact, rtol=1e-5, atol=1e-7 * np.abs(exact).max()
            ), (update.name, name)
            again, _ = update.lines()
            assert np.allclose(again[name], exact, rtol=1e-5, atol=1e-7 * np.abs(exact).max())
        assert np.abs(update.after["w"] - update.before["w"]).max() > 1e-6


def test_a_named_weight_as_text(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its contributions, before and after, the rule line by line, one element by hand that comes to
    what the step left.
    """
    out = stepped(capsys, "--train", "--weight", "token_embedding.weight", "--into")
    assert "step 4, one more than its 3; nothing is saved" in " ".join(out.split())
    assert re.findall(r"to token_embedding.weight: (\d of \d)", out) == ["1 of 2", "2 of 2"]
    assert re.findall(r"^ +(?:before|after) +(\w) \(", out, re.MULTILINE) == [
        "w",
        "m",
        "v",
        "w",
        "m",
        "v",
    ]
    for line in ("m \\*= b1", "v \\+= \\(1 - b2\\) \\* \\(g \\* g\\)", "w -= denominator"):
        assert re.search(rf"^ +\d+  {line}$", out, re.MULTILINE), line
    by_hand, left = (
        re.findall(r"^  w +=.* = (\S+)$", out, re.MULTILINE),
        re.findall(r"the step left (\S+)", out),
    )
    assert float(by_hand[0]) == pytest.approx(float(left[0]), rel=1e-6)
    assert max(map(len, out.splitlines())) <= 80


def test_the_formulas_of_one_element_give_their_values(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = stepped(capsys, "--train", "--weight", "token_embedding.weight")
    element = " ".join(out.partition("one element")[2].split())
    known: dict[str, Any] = {"sqrt": math.sqrt}
    lines = re.findall(r" ([mvw]\^?) = (.*?) = ([\d.e+-]+)", element)
    assert [name for name, *_ in lines] == ["m", "v", "m^", "v^", "w"]
    for name, formula, value in lines:
        squared = re.sub(r"(-[\d.e-]+)\^2", r"(\1)^2", formula)  # the sign is squared too
        code = re.sub(r"([mv])\^", r"\1_hat", squared).replace("^", "**")
        assert eval(code, known) == pytest.approx(float(value), rel=1e-3)
        known[name.replace("^", "_hat")] = float(value)


def test_all_weights_in_a_line_each(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, model, _ = runs.load(run)
    out = stepped(capsys, "--train")
    assert max(map(len, out.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "130")
    wide = stepped(capsys, "--train", "--only", "update").splitlines()
    rows = [line.split() for line in wide[-len(list(model.parameters())) :]]
    assert [row[0] for row in rows] == [
        update.name for update in trained(jobs.reopened(None), "reference")[1].updates
    ]
    assert {len(row) for row in rows} == {10}
    assert "the sum so far" in out
    assert "clip     clip_gradients" in out


def test_muons_matrices(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Momentum, the update made orthogonal, and the weight that follows from them."""
    assert main(["train", *TINY, "--optimizer", "muon", "--steps", "6", "--until", "4"]) == 0
    capsys.readouterr()
    out = stepped(capsys, "--train", "--weight", "blocks.0.attention.qkv.weight", "--into")
    assert "update = orthogonal(" in out
    by_hand, left = (
        re.findall(r"^  w +=.* = (\S+)$", out, re.MULTILINE),
        re.findall(r"the step left (\S+)", out),
    )
    assert float(by_hand[0]) == pytest.approx(float(left[0]), rel=1e-4)
    low, high, new_low, new_high = map(
        float, re.findall(r"values (\S+) to (\S+) before, (\S+) to (\S+) after", out)[0]
    )
    assert high / low > 3 * new_high / new_low
    assert 0.6 < new_high < 1.3
    # AdamW's still
    assert "before m (" in " ".join(
        stepped(capsys, "--train", "--weight", "final_norm.gain").split()
    )


def test_a_step_without_a_finite_gradient(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged(run, "final_norm.bias", (0,), np.nan)
    out = " ".join(stepped(capsys, "--train", "--weight", "final_norm.gain").split())
    assert "the norm is not finite: no weight changes, as in training" in out
    assert "so the weight, its state and its count stay as they were" in out


def test_training_steps_refuse(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(
        capsys,
        "step",
        "--plain",
        "--train",
        "--weight",
        "final_norm.gian",
        says="did you mean final_norm.gain?",
    )
    refused(capsys, "step", "--plain", "--train", "--prompt", "The", says="do not go together")
    refused(capsys, "step", "--plain", "--weight", "final_norm.gain", says="give --train too")
    Path("text.txt").write_text("The cat sat on the mat. " * 20)
    assert main(["train", *TINY, "--text", "text.txt", "--steps", "2"]) == 0
    capsys.readouterr()
    Path("text.txt").unlink()
    refused(capsys, "step", "--plain", "--train", says="no file is named 'text.txt'")
