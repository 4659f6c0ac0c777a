"""What `tinygpt eval` says of a reward model and of an aligned run: which replies are preferred,
and which are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tinygpt.config import AlignConfig
from tinygpt.data.instructions import check_known
from tinygpt.data.preferences import Preferences, read_preferences, texts_of
from tinygpt.errors import InputError
from tinygpt.files import brief
from tinygpt.ids import Ids
from tinygpt.model.aligned import Aligned
from tinygpt.runs.run import Run
from tinygpt.terminal import number_of, shown
from tinygpt.training import calibration
from tinygpt.training.aligning import ASKED, compared, replied, unaligned
from tinygpt.training.measure import better_p
from tinygpt.training.ppo import true_scores
from tinygpt.training.step import objective_of

EXAMPLES = 3  # prompts whose replies are shown


def report(
    run: Run, model: Any, name: str, pairs: Preferences, rows: Ids | None = None
) -> Iterator[str]:
    """How a reward model, or a policy of DPO, orders the pairs; of a policy also its replies to
    their prompts. Draws calibration.png.   rows: which of the pairs, all by default
    """
    config = run.training
    if not (isinstance(config, AlignConfig) and config.method == "ppo"):
        yield from _ordered(run, model, name, pairs, rows)
    if isinstance(config, AlignConfig):
        known = all(pair.answer is not None for pair in pairs.pairs)
        yield from _answered(model, pairs, replace(config, true_score=known))


def pairs_of(path: str, tokenizer: Any, context: int) -> tuple[str, Preferences]:
    """The pairs of a file, all of them, and their name for people."""
    pairs, _ = read_preferences(path, 0)
    check_known(tokenizer, texts_of(pairs), "pair")
    name = f"{shown(path)}: {number_of(len(pairs), 'pair')}"
    return name, Preferences(pairs, tokenizer, context)


def _ordered(
    run: Run, model: Any, name: str, pairs: Preferences, rows: Ids | None
) -> Iterator[str]:
    """The loss, the accuracy, and the calibration as a table and as a picture."""
    rows = np.arange(len(pairs)) if rows is None else rows
    p = better_p(model, pairs, objective_of(run.training, measuring=True), rows)
    yield (
        f"loss        {-np.log(p).mean():.4f} nats a pair, the mean over "
        f"{number_of(len(p), 'pair')}; a guess has {np.log(2):.4f}"
    )
    yield from calibration.report([pairs.pairs[i] for i in rows.tolist()], p)
    picture = run.folder / calibration.PICTURE
    try:
        calibration.draw(p, name, picture)
    except InputError as error:  # also of a run that only others may write to
        yield str(error).partition("\n")[0]
    else:
        yield f"picture     {shown(picture)}"


def _answered(model: Aligned, prompts: Preferences, config: AlignConfig) -> Iterator[str]:
    """The numbers of the replies beside those of the reference, and the first replies."""
    yield f"\na reply to each of {number_of(min(len(prompts), ASKED), 'prompt')}, drawn:"
    yield from compared(model, prompts, config)
    rows = np.arange(min(len(prompts), EXAMPLES))
    told = [list(_replies(each, prompts, rows, config)) for each in (unaligned(model), model)]
    for row, before, after in zip(rows.tolist(), *told, strict=True):
        pair = prompts.pairs[row]
        yield ""
        if pair.input:
            yield f"about       {brief(pair.input)}"
        yield f"prompt      {brief(pair.prompt)}"
        yield f"reference   {before}"
        yield f"policy      {after}"


def _replies(model: Aligned, prompts: Preferences, rows: Ids, config: AlignConfig) -> Iterator[str]:
    """The reply to each of these prompts, and its scores."""
    rollout = replied(model, prompts, rows, config)
    true = true_scores(rollout, prompts, rows)
    for i, reply in enumerate(rollout.replies):
        scores = []
        if model.reward is not None:
            scores.append(f"reward {rollout.scores[i]:.2f}")
        if config.true_score:
            scores.append(f"true score {true[i]:g}")
        yield "   ".join([brief(prompts.tokenizer.decode(reply)), *scores])
