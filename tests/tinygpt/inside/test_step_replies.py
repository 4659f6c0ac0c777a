"""`tinygpt step` of reward models and aligned runs: the score of a reply, a pair by hand, and a
step of PPO from its rollout to its updates.   Tests: inside/step/rollout.py, preferred.py, tasks.py
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tensor import no_grad
from tests.helpers.program import contents, refused
from tests.tinygpt.inside.test_step import stepped
from tinygpt.data.instructions import prompt_of
from tinygpt.ids import IGNORED
from tinygpt.inside.step.recorded import How, Session
from tinygpt.inside.step.rollout import RolledOut, rollout_of
from tinygpt.inside.step.training import batch, trained
from tinygpt.runs import run as runs
from tinygpt.training import jobs
from tinygpt.training.objectives.ppo import token_log_p
from tinygpt.training.ppo import ppo
from tinygpt.training.step import objective_of, train


@pytest.fixture(scope="module")
def walked(preferring: Path) -> tuple[Session, RolledOut]:
    """The walk of a step of PPO, and its rollout."""
    session, _ = trained(jobs.reopened(str(preferring / "ppo")), "reference")
    return session, rollout_of(jobs.reopened(str(preferring / "ppo")))


def notes(session: Session, name: str) -> str:
    """The arithmetic at the stop of that name."""
    return "\n".join(next(stop.notes for stop in session.walk.stops if stop.name == name))


def numbers(text: str, name: str) -> list[float]:
    """What stands behind the last `=` of each line that begins with name_t, by t."""
    found = re.findall(rf"^{name}_(\d+) .*= (-?[\d.]+)$", text, re.MULTILINE)
    return [float(value) for _, value in sorted(found, key=lambda pair: int(pair[0]))]


def test_the_score_of_a_reply_is_that_of_its_end(
    preferring: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(preferring / "reward")
    _, model, tokenizer = runs.load(Path(run), best=True)
    ids = [*prompt_of(tokenizer, "say red"), *tokenizer.encode("red"), 2]  # type: ignore[arg-type]
    scores = model(ids).numpy()[0, -4:, 0]
    out = " ".join(stepped(capsys, run, "--prompt", "say red", "--target", "red").split())
    each = ", ".join(
        f"'{word}' {score:.3f}"
        for word, score in zip(["r", "e", "d", "<|end|>"], scores, strict=True)
    )
    assert f"at each {each}" in out
    assert f"score {scores[-1]:.4f} of the reply" in out
    assert "backward head linear" in out
    refused(capsys, "step", run, "--plain", says="gives a score to a reply")
    long = ["--prompt", "say red", "--target", "red" * 20]
    refused(capsys, "step", run, "--plain", *long, says="have 70 tokens")
    refused(capsys, "sample", run, says="gives scores to replies, and writes none")


@pytest.mark.parametrize("name", ["reward", "dpo"])
def test_a_pair_by_hand(name: str, preferring: Path) -> None:
    """p and the loss of the first pair, and the step is that of the training."""
    session, step = trained(jobs.reopened(str(preferring / name)), "reference")
    job = jobs.reopened(str(preferring / name))
    x, y = batch(job)
    objective = objective_of(job.run.training)
    with no_grad():
        losses = objective(job.model, x, y, "none").numpy()
    lines = "\n".join(line for stop in session.walk.stops for line in stop.notes)
    assert f"pair 1 of {len(y)}: 'say " in lines
    assert f"= {np.exp(-losses[0]):.4f}\nloss = -ln " in lines
    assert f" = {losses[0]:.4f}; the loss is the mean over all pairs" in lines
    assert ("\nr(worse) = " in lines) == (name == "dpo")
    config, first = job.run.training, job.progress.step
    config = config if first < config.steps else replace(config, steps=first + 1)
    record = next(train(job.model, job.data.windows, config, job.optimizer, first, objective))
    assert step.loss == record.loss == pytest.approx(losses.mean())


@pytest.mark.parametrize("how", ["reference", "as run"])
def test_the_updates_are_those_of_the_training(how: How, preferring: Path, here: Path) -> None:
    """Bit for bit, after all updates of a step; and the run stays as it is."""
    run = str(shutil.copytree(preferring / "ppo", here / "ppo"))
    before, job, other = contents(), jobs.reopened(run), jobs.reopened(run)
    session, step = trained(job, how)
    record = next(ppo(other.model, other.data.windows, other.run.training,  # type: ignore[arg-type]
                      other.optimizer, other.progress.step, other.progress.price))  # fmt: skip
    theirs = dict(other.model.named_parameters())
    assert all(
        np.array_equal(theirs[name].numpy(), parameter.numpy())
        for name, parameter in job.model.named_parameters()
    )
    said = [fact for fact in session.facts if fact.startswith("update")]
    losses = [step.loss, *(float(re.findall(r"loss (-?[\d.]+)", fact)[0]) for fact in said)]
    assert len(losses) == job.run.training.updates == 4
    assert np.mean(losses) == pytest.approx(record.loss, abs=1e-4)
    assert {update.name for update in step.updates} == {
        name for name, parameter in theirs.items() if parameter.requires_grad
    }
    to = {seen.to for stop in session.walk.stops for seen in stop.seen}
    assert {update.name for update in step.updates} <= to
    assert contents() == before


def test_one_reply_by_hand(walked: tuple[Session, RolledOut]) -> None:
    """Each printed number is that of the formula, written out in another way."""
    session, rolled = walked
    rollout, config = rolled.rollout, rolled.job.run.training
    row, places = rolled.row, np.nonzero(rolled.rollout.targets[rolled.row] != IGNORED)[0]
    p, q, v = (array[row, places] for array in (rollout.log_p, rollout.log_q, rollout.values))
    rewards = -rolled.price * (p - q) + rollout.scores[row] * (places == places[-1])
    shown = numbers(notes(session, "token_rewards"), "r")
    assert shown == pytest.approx(rewards[-12:], abs=1e-4)
    errors = rewards + config.gamma * np.append(v[1:], 0) - v
    decay = config.gamma * config.gae
    advantages = [
        sum(decay ** (k - t) * errors[k] for k in range(t, len(errors))) for t in range(len(errors))
    ]
    lines = notes(session, "advantages_of")
    assert numbers(lines, "d") == pytest.approx(errors[-12:], abs=1e-4)
    assert numbers(lines, "A") == pytest.approx(advantages[-12:], abs=1e-4)
    white = rolled.replies.advantages[row, places]
    assert numbers(notes(session, "whitened"), "A") == pytest.approx(white[-12:], abs=1e-3)
    assert f" = {rollout.scores[row]:z.4f}, standardised" in notes(session, "roll_out")
    for name in ("token_rewards", "advantages_of", "whitened"):
        for line in re.findall(r"^[rdA]_.*", notes(session, name), re.MULTILINE):
            left, _, right = line.replace("becomes", "=").partition(" = ")[2].rpartition(" = ")
            assert eval(left) == pytest.approx(float(right), abs=2e-3), line


def test_a_long_reply_is_told_from_its_end(walked: tuple[Session, RolledOut]) -> None:
    session, rolled = walked
    count = len(rolled.places)
    lines = notes(session, "advantages_of").splitlines()
    assert lines[0].startswith(f"d_{count} = ")
    assert len(lines) == 2 * min(count, 12)


def test_ratio_and_clip_of_one_token(walked: tuple[Session, RolledOut]) -> None:
    """The token is the least likely one of its reply. Its ratio is followed to the last update."""
    session, rolled = walked
    row, place = rolled.row, rolled.chosen
    assert np.array_equal(rolled.first[0].ids[0], rolled.replies.ids[row])
    log_p = rolled.rollout.log_p[row]
    assert log_p[place] == log_p[rolled.places].min()
    gain = rolled.replies.advantages[row, place]
    lines = notes(session, "minimum")
    assert "= 1.0000\nclip(ratio, 0.8, 1.2) = 1.0000\n" in lines
    assert f" = {gain:z.4f}; the loss has -gain" in lines
    job = rolled.job
    next(ppo(job.model, job.data.windows, job.run.training,  # type: ignore[arg-type]
             job.optimizer, job.progress.step, job.progress.price))  # fmt: skip
    x = rolled.replies
    with no_grad():
        now = token_log_p(job.model, x.ids[[row]], x.targets[[row]])[0].numpy()
    ratio = np.exp(now[list(rolled.places).index(place)] - log_p[place])
    assert f"after    ratio of {rolled.word(place)} {ratio:.4f}" in session.facts


def test_advantages_line_by_line(walked: tuple[Session, RolledOut]) -> None:
    """Its source runs again in the walk, to the same array."""
    session, _ = walked
    stop = next(stop for stop in session.walk.stops if stop.name == "advantages_of")
    last = [m.values["advantages"] for m in stop.lines() if "advantages" in m.values][-1]
    assert np.array_equal(last, stop.outputs[0].value.array)
    session.walk.find("rollout")
    assert session.walk.at == 0
    assert session.walk.into() == "there are no lines to step through here"


def test_a_weight_of_the_policy_and_its_update(
    preferring: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "policy.blocks.0.attention.qkv.weight"
    out = stepped(capsys, str(preferring / "ppo"), "--train", "--weight", name)
    assert len(re.findall(r"^ *\d+/\d+ backward", out, re.MULTILINE)) == 1
    assert f"to {name}: 1 of 1" in out
    assert f"one element, {name}[" in out
