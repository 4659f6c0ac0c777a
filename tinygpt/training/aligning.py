"""The loops of trainings on pairs of replies: at the end they say how often the better reply is the
preferred one. An alignment takes steps of PPO, draws their numbers, and compares its replies with
those of the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt.config import AlignConfig
from tinygpt.data.preferences import Preferences
from tinygpt.errors import InputError
from tinygpt.ids import Ids
from tinygpt.model.aligned import Aligned
from tinygpt.runs import panels
from tinygpt.terminal import number_of, say
from tinygpt.training import calibration
from tinygpt.training.loop import Training
from tinygpt.training.measure import better_p
from tinygpt.training.ppo import numbers_of, ppo, true_scores
from tinygpt.training.rollouts import Rollout, roll_out
from tinygpt.training.step import StepRecord, objective_of

ASKED = 500  # prompts that are answered at the end, at most
TOGETHER = 100
FIRST = 1 << 31  # the number of the first of their replies: none of a rollout has it
COLUMNS = "{:11} {:>9} {:>9}"


class Preferring(Training):
    """A training of a reward model that runs."""

    def measure(self) -> None:
        """The loss, and how many of the pairs that were kept back are ordered rightly."""
        super().measure()
        data, config = self.job.data, self.run.training
        pairs = data.validation or data.windows
        p = better_p(self.job.model, pairs, objective_of(config, measuring=True))
        say(f"right on {calibration.accuracy(p)}; a guess is right in {calibration.GUESS:.0%}")
        try:
            calibration.draw(p, data.name, self.run.folder / calibration.PICTURE)
        except InputError as error:
            self.live.note(str(error).splitlines()[0])


class Aligning(Preferring):
    """An alignment that runs. With DPO its steps are those of any training on pairs."""

    def __init__(self, *job: Any):
        super().__init__(*job)
        self.by_ppo = self.run.training.method == "ppo"

    def records(self, first: int) -> Iterator[StepRecord]:
        """The steps of PPO from `first` on; with DPO those of any training on pairs."""
        if not self.by_ppo:
            return super().records(first)
        job, price = self.job, self.progress.price
        pairs: Any = job.data.windows
        return ppo(job.model, pairs, self.run.training, job.optimizer, first, price)

    def measure(self) -> None:
        """The replies to prompts that were kept back, beside those of the reference."""
        if not self.by_ppo:
            super().measure()
        kept: Any = self.job.data.validation or self.job.data.windows
        which = "not learned from" if self.job.data.validation else "learned from"
        say(f"replies to {number_of(min(len(kept), ASKED), 'prompt')}, {which}:")
        for line in compared(self.job.model, kept, self.run.training):
            say(line)

    def draw_picture(self, metrics: Path, picture: Path) -> None:
        """The numbers of the rollouts; of DPO the losses."""
        if self.by_ppo:
            panels.draw(metrics, picture)
        else:
            super().draw_picture(metrics, picture)


def compared(model: Aligned, prompts: Preferences, config: AlignConfig) -> Iterator[str]:
    """A table of the reference's replies and the policy's."""
    columns = [assessed(each, prompts, config) for each in (unaligned(model), model)]
    yield COLUMNS.format("", "reference", "policy")
    for name in columns[0]:
        yield COLUMNS.format(name, *(f"{column[name]:z.3f}" for column in columns))


def unaligned(model: Aligned) -> Aligned:
    """The same with the reference as the policy."""
    before = copy(model)
    before.policy = model.reference
    return before


def assessed(model: Aligned, prompts: Preferences, config: AlignConfig) -> dict[str, float]:
    """The numbers of one reply to each prompt, means over the replies. The same replies each time
    for the same weights.
    """
    found: list[dict[str, float]] = []
    rows = np.arange(min(len(prompts), ASKED))
    parts = np.array_split(rows, -(-len(rows) // TOGETHER))
    for part in parts:
        rollout = replied(model, prompts, part, config)
        numbers = numbers_of(rollout)
        if config.true_score:
            numbers["true score"] = float(true_scores(rollout, prompts, part).mean())
        if model.reward is None:
            del numbers["reward"]
        del numbers["gap"]
        found.append(numbers)
    sizes = list(map(len, parts))
    return {
        name: float(np.average([each[name] for each in found], weights=sizes)) for name in found[0]
    }


def replied(model: Aligned, prompts: Preferences, rows: Ids, config: AlignConfig) -> Rollout:
    """A reply to each of some neighbouring prompts, as drawn whenever replies are compared."""
    asked, first = [prompts.prompts[i] for i in rows], FIRST + int(rows[0])
    return roll_out(model, asked, prompts.end, config.length, config.seed, first)
