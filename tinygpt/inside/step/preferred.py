"""The loss of one pair of replies by hand, in a step of training that learns from pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from tensor import no_grad
from tinygpt.config import AlignConfig
from tinygpt.files import brief
from tinygpt.ids import Ids
from tinygpt.inside.arrays import floats, term
from tinygpt.inside.step.stops import Stop
from tinygpt.training.jobs import Job
from tinygpt.training.objectives.preferences import reply_log_p


def explained(job: Job, rows: Ids, stops: Sequence[Stop]) -> list[Stop]:
    """The stops, the one that makes the loss with the arithmetic of the first pair. rows: the
    numbers of the pairs.
    """
    at = next(i for i, stop in enumerate(stops) if stop.op == "cross_entropy" and _of_pairs(stop))
    scores = floats(stops[at].inputs[0].value.array)[0].tolist()
    lines = [*_pair(job, rows), *_loss(scores)]
    return [*stops[:at], replace(stops[at], notes=lines), *stops[at + 1 :]]


def _of_pairs(stop: Stop) -> bool:
    """Whether the classes are the two replies of a pair."""
    return stop.inputs[0].value.shape[-1] == 2


def _pair(job: Job, rows: Ids) -> Iterator[str]:
    """The texts of the first pair, and of DPO its scores."""
    windows = job.data.windows
    pair = windows.pairs[int(rows[0])]  # type: ignore[attr-defined]
    yield f"pair 1 of {len(rows):,}: '{brief(pair.prompt)}'"
    yield f"better: '{brief(pair.better)}'   worse: '{brief(pair.worse)}'"
    if not isinstance(job.run.training, AlignConfig):
        return
    beta, (x, _) = job.run.training.beta, windows[rows[:1]]
    with no_grad():
        p, q = (
            reply_log_p(model, x.ids[0], x.targets[0]).tolist()
            for model in (job.model.policy, job.model.reference)
        )
    yield f"r = beta (ln p(reply) - ln q(reply)), beta = {beta:g}"
    for i, name in enumerate(("better", "worse")):
        r = beta * (p[i] - q[i])
        yield f"r({name}) = {beta:g} * ({p[i]:z.4f} - {term(q[i])}) = {r:z.4f}"


def _loss(scores: Sequence[float]) -> Iterator[str]:
    better, worse = scores
    p = 1 / (1 + np.exp(worse - better))
    gap = f"{better:z.4f} - {term(worse)}"
    yield f"p(better) = sigmoid(r(better) - r(worse)) = sigmoid({gap}) = {p:z.4f}"
    yield f"loss = -ln {p:z.4f} = {-np.log(p):z.4f}; the loss is the mean over all pairs"
