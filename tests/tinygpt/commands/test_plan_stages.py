"""`--plan` of what starts from a run: what a fine-tuning, a reward model and an alignment take.

Tests: training/stages.py, training/planning.py
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.program import contents, refused
from tinygpt.__main__ import main
from tinygpt.config import AlignConfig, GPTClassifierConfig, GPTConfig, RewardConfig
from tinygpt.model.aligned import Aligned
from tinygpt.model.gpt import GPT
from tinygpt.training import memory, planning, stages
from tinygpt.training.planning import activations, counted, flops, predict
from tinygpt.training.step import optimizer_of

SHAPE = GPTConfig(11, 16, 8, 2, 1)
JUDGE = GPTClassifierConfig(11, 16, 8, 2, 3, labels=("reward",))
SCORER = GPTClassifierConfig(11, 16, 8, 2, 1, labels=("reward",))
PPO, DPO = AlignConfig(batch=8, length=4), AlignConfig(method="dpo", batch=8)


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said; nothing is written."""
    before = contents()
    capsys.readouterr()
    assert main([*words, "--plan"]) == 0
    assert contents() == before
    return capsys.readouterr().out


def test_the_weights_are_those_of_all_models() -> None:
    plan, model = counted(SHAPE, PPO, reward=JUDGE), Aligned(GPT(SHAPE), JUDGE)
    assert model.reward is not None
    sizes = [
        4 * sum(parameter.size for parameter in part.parameters())
        for part in (model.reference, model.reward, model)
    ]
    assert [plan.reference, plan.reward] == sizes[:2]
    assert plan.weights + plan.reference + plan.reward == sizes[2]
    assert plan.memory - replace(plan, reference=0).memory == plan.reference
    assert plan.memory - replace(plan, reward=0).memory == plan.reward
    learning = sum(parameter.size for parameter in model.parameters() if parameter.requires_grad)
    assert plan.gradients == 4 * learning
    state = optimizer_of(model, PPO).state_dict()["arrays"]
    assert plan.moments == 2 * 4 * learning <= sum(array.nbytes for array in state.values())
    dpo = counted(SHAPE, DPO)
    assert (dpo.reference, dpo.reward, dpo.rollout) == (plan.reference, 0, 0)
    assert counted(SCORER, RewardConfig()).reference == 0


def test_rows_and_work() -> None:
    """Two replies of each pair; of PPO a part of the rollout at a time, and each part often."""
    one = counted(SCORER, RewardConfig(batch=4))
    two = counted(SCORER, RewardConfig(batch=8))
    assert two.activations == 2 * one.activations
    assert one.activations == sum(activations(SCORER, RewardConfig(batch=8)))  # of one layer
    assert two.flops == flops(SCORER, 16)
    assert two.tokens == 2 * 8 * 16
    assert counted(SHAPE, DPO).flops == pytest.approx(flops(SHAPE, 16) * (1 + 1 / 3))
    halves = counted(SHAPE, AlignConfig(batch=8, minibatches=2), reward=JUDGE)
    whole = counted(SHAPE, AlignConfig(batch=8, minibatches=1), reward=JUDGE)
    assert whole.activations == 2 * halves.activations
    often = counted(SHAPE, AlignConfig(batch=8, epochs=4), reward=JUDGE)
    assert often.flops == pytest.approx(flops(SHAPE, 8) * (4 + 4 / 3))


def test_a_rollout_is_there_before_the_activations() -> None:
    """So the larger of the two counts."""
    long = counted(SHAPE, AlignConfig(batch=8, length=16), reward=JUDGE)
    short = counted(SHAPE, AlignConfig(batch=8, length=1), reward=JUDGE)
    assert long.rollout - short.rollout == 15 * 11 * (8 * 4 + 3 * 8)
    passing = short.activations + short.logits
    assert long.memory - short.memory == max(passing, long.rollout) - max(passing, short.rollout)


def test_a_step_of_ppo_is_timed_with_its_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "step_seconds", lambda model, config: 1.0)
    monkeypatch.setattr(stages, "rollout_seconds", lambda model, config, rows: 100.0)
    assert predict(SHAPE, PPO, JUDGE).seconds == 100 + PPO.updates
    assert predict(SHAPE, DPO).seconds == pytest.approx(1 + 1 / 3)
    monkeypatch.undo()
    assert 0 < predict(SHAPE, PPO, JUDGE).seconds < math.inf


def test_plans_of_all_stages(
    answering: Path, preferring: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, reward = str(answering), str(preferring / "reward")
    data = ["--data", str(preferring / "preferences.jsonl")]
    out = planned(capsys, "align", run, "--reward", reward, *data, "--batch", "8")
    assert "8 prompts of up to 48\n" in out
    for part in ("reference ", "reward ", "rollout "):
        assert f"\n{part}" in out
    assert "On this machine 200 steps take about" in out
    out = planned(capsys, "reward", run, *data, "--batch", "8")
    assert "768 tokens: 8 pairs of up to 48\n" in out
    assert "reference" not in out
    out = planned(capsys, "align", run, "--method", "dpo", *data)
    assert "\nreference " in out
    assert "\nrollout" not in out
    examples = ["--data", str(answering.parent / "examples.jsonl")]
    assert "windows of up to 48\n" in planned(capsys, "finetune", run, *examples)
    assert "\nreward " in planned(capsys, "align", "--resume", str(preferring / "ppo"))
    assert "\nwindows " in planned(capsys, "train", "--steps", "3")
    refused(capsys, "plan", run, says=f"has a flag: tinygpt finetune {run} --plan")


def test_too_little_memory_for_the_models_beside(
    answering: Path,
    preferring: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(memory, "free", lambda device: 10_000)
    reward = str(preferring / "reward")
    words = ["align", str(answering), "--reward", reward]
    words += ["--data", str(preferring / "preferences.jsonl")]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "too little memory" in err
    assert "reference 3" in err
    assert "reward 3" in err
    assert "so no speed is given" in planned(capsys, *words)
