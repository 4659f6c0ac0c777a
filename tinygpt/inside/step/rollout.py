"""The rollout of a step of PPO as stops, before the forward pass: what the policy wrote, the
rewards of the tokens, and their advantages. One reply is calculated by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any

import numpy as np

from tensor import no_grad
from tensor.nn import evaluating
from tensor.random import Key
from tensor.recording.replay import replay
from tinygpt.data.instructions import end_of
from tinygpt.ids import IGNORED, Ids
from tinygpt.inside.arrays import floats, term, value_of
from tinygpt.inside.step.names import quoted
from tinygpt.inside.step.stops import Seen, Stop
from tinygpt.terminal import shown
from tinygpt.tokenizers import word_of
from tinygpt.training.jobs import Job
from tinygpt.training.objectives.ppo import (
    PPOLoss,
    Replies,
    advantages_of,
    token_log_p,
    token_rewards,
    whitened,
)
from tinygpt.training.ppo import learned_from, minibatches, parts_of, rolled_out
from tinygpt.training.rollouts import Rollout, roll_out
from tinygpt.training.step import update

SHOWN = 12  # tokens of a reply that are calculated by hand, at most: its last ones
LATER = 8  # updates after the first one that are taken, at most
MADE = "ids", "targets", "log_p", "log_q", "entropy", "values", "scores"
FORMULAS = {
    roll_out: "a reply to each prompt, each token drawn as the policy says, at temperature 1",
    token_rewards: "r_t = -beta (ln p_t - ln q_t), and at the last token + the score",
    advantages_of: (
        "d_t = r_t + gamma V_t+1 - V_t   A_t = d_t + gamma lambda A_t+1, from the last token back "
        "to the first; after the last there is no V and no A   Schulman et al. 2016, equation 16"
    ),
    whitened: "(A_t - mean) / standard deviation, of the tokens of all replies",
}
LABELS = {
    "ids": "prompts and replies",
    "targets": "the tokens of the replies; -1 elsewhere",
    "log_p": "ln p of each token, of the policy that wrote it",
    "log_q": "ln q, of the reference",
    "entropy": "of what each token was drawn from, in nats",
    "values": "V, the return that the value head expects",
    "scores": "of the reward model, standardised",
    "rewards": "r, of each token",
    "advantages": "A, of each token",
    "white": "A with mean 0 and standard deviation 1",
}


def rollout_of(job: Job) -> RolledOut:
    """The rollout of the job's next step."""
    config, step, price = job.run.training, job.progress.step, job.progress.price
    price = config.beta if price is None else price
    model = job.model.train()
    rollout = rolled_out(model, job.data.windows, config, step)[1]  # type: ignore[arg-type]
    return RolledOut(job, rollout, learned_from(rollout, config, price), price)


@dataclass(frozen=True)
class RolledOut:
    """The replies of a step, and what is learned from them."""

    job: Job
    rollout: Rollout
    replies: Replies
    price: float  # of a nat of KL

    @cached_property
    def parts(self) -> list[tuple[Replies, Key]]:
        """What each update learns from."""
        return list(minibatches(self.replies, self.job.run.training, self.job.progress.step))

    @property
    def objective(self) -> PPOLoss:
        """A new one, which has noted nothing."""
        config = self.job.run.training
        return PPOLoss(config.clip_range, config.value_weight)

    @property
    def first(self) -> tuple[Replies, Ids, Key, PPOLoss]:
        """x, y, key and objective of the first update."""
        x, key = self.parts[0]
        return x, x.targets, key, self.objective

    # -- one reply

    @cached_property
    def row(self) -> int:
        """The reply that is calculated by hand: the first one of the first update."""
        order = next(parts_of(len(self.replies), self.job.run.training, self.job.progress.step))
        return int(order[0])

    @cached_property
    def places(self) -> Ids:
        """The places of its tokens, each at the token before."""
        return np.nonzero(self.replies.targets[self.row] != IGNORED)[0]

    @cached_property
    def told(self) -> list[tuple[int, int]]:
        """(t, place) of the tokens that are told, t from 1."""
        return list(enumerate(self.places.tolist(), 1))[-SHOWN:]

    def word(self, place: int) -> str:
        """The token that was drawn there, in quotes."""
        token = int(self.replies.targets[self.row, place])
        return quoted(word_of(self.job.data.tokenizer, token))

    @cached_property
    def chosen(self) -> int:
        """The place of the token whose ratio is followed: the least likely one of the reply."""
        return int(self.places[np.argmin(self.rollout.log_p[self.row, self.places])])

    # -- stops

    def stops(self) -> Iterator[Stop]:
        """The rollout, the rewards, the advantages, and these made white."""
        rollout, config = self.rollout, self.job.run.training
        made = {name: getattr(rollout, name) for name in MADE}
        yield _stop(roll_out, {}, made, list(self._wrote()))
        given = {name: made[name] for name in ("scores", "log_p", "log_q", "targets")}
        rewards = token_rewards(**given, beta=self.price)
        lines, found = self._rewards(rewards), {"rewards": rewards}
        yield _stop(token_rewards, given, found, list(lines), beta=self.price)
        given = found | {name: made[name] for name in ("values", "targets")}
        factors = {"gamma": config.gamma, "lambda_": config.gae}
        advantages = advantages_of(**given, **factors)
        lines, found = self._advantages(rewards, advantages), {"advantages": advantages}
        yield _stop(advantages_of, given, found, list(lines), **factors)
        given = found | {"targets": made["targets"]}
        white = whitened(*given.values())
        yield _stop(whitened, given, {"white": white}, list(self._whitened(advantages)))

    def _wrote(self) -> Iterator[str]:
        rollout, row, model = self.rollout, self.row, self.job.model
        ids, start = rollout.ids[row], int(self.places[0]) + 1
        decode = self.job.data.tokenizer.decode
        count = len(rollout.replies)
        yield f"reply {row + 1} of {count:,}, the first one of the first update, by hand below:"
        yield f"prompt {shown(repr(decode(ids[:start].tolist())))}"
        yield f"reply {shown(repr(decode(rollout.replies[row])))}"
        mean, spread, score = float(model.mean), float(model.spread), rollout.scores[row]
        raw = score * spread + mean
        yield f"score ({raw:z.4f} - {term(mean)}) / {spread:z.4f} = {score:z.4f}, standardised"
        if rollout.replies[row][-1] != end_of(self.job.data.tokenizer):  # type: ignore[arg-type]
            yield "the reply was cut off, so its score is the lowest of all"
        if len(self.told) < len(self.places):
            yield f"the last {SHOWN} of its {len(self.places):,} tokens:"
        yield f"{'t':>3} {'token':>12} {'ln p':>9} {'ln q':>9} {'entropy':>9} {'V':>9}"
        for t, place in self.told:
            numbers = [
                array[row, place]
                for array in (rollout.log_p, rollout.log_q, rollout.entropy, rollout.values)
            ]
            yield f"{t:>3} {self.word(place):>12} " + " ".join(f"{x:>z9.4f}" for x in numbers)
        yield f"KL(p, q) {rollout.kl:z.4f} nats a reply: the mean of ln p(reply) - ln q(reply)"

    def _rewards(self, rewards: Any) -> Iterator[str]:
        log_p, log_q, beta = self.rollout.log_p, self.rollout.log_q, self.price
        for t, place in self.told:
            p, q, r = (array[self.row, place] for array in (log_p, log_q, rewards))
            last = place == self.places[-1]
            score = f" + {term(self.rollout.scores[self.row])}" if last else ""
            yield f"r_{t} = -{beta:g} * ({p:z.4f} - {term(q)}){score} = {r:z.4f}"

    def _advantages(self, rewards: Any, advantages: Any) -> Iterator[str]:
        config, next_v, next_a = self.job.run.training, 0.0, 0.0
        gamma, decay = config.gamma, config.gamma * config.gae
        for t, place in reversed(self.told):
            r, v, a = (
                float(array[self.row, place])
                for array in (rewards, self.rollout.values, advantages)
            )
            d = r + gamma * next_v - v
            yield f"d_{t} = {r:z.4f} + {gamma:g} * {term(next_v)} - {term(v)} = {d:z.4f}"
            yield f"A_{t} = {d:z.4f} + {decay:g} * {term(next_a)} = {d + decay * next_a:z.4f}"
            next_v, next_a = v, a

    def _whitened(self, advantages: Any) -> Iterator[str]:
        counts = self.rollout.targets != IGNORED
        mean, spread = advantages[counts].mean(), advantages[counts].std()
        yield f"mean {mean:z.4f}, standard deviation {spread:z.4f} over all {counts.sum():,} tokens"
        for t, place in self.told:
            a = advantages[self.row, place]
            white = (a - mean) / spread
            yield f"A_{t} becomes ({a:z.4f} - {term(mean)}) / {spread:z.4f} = {white:z.4f}"

    # -- the updates

    def explained(self, stops: Sequence[Stop]) -> list[Stop]:
        """The stops of the forward pass, the one that takes the smaller gain with the arithmetic of
        one token.
        """
        ops = [stop.op for stop in stops]
        at, clip = ops.index("minimum"), ops.index("clip")
        # of the tokens of the first update the reply's are the first ones
        number = int(np.searchsorted(self.places, self.chosen))
        ratio = float(floats(stops[clip].inputs[0].value.array)[number])
        lines = list(self._clipped(ratio))
        return [*stops[:at], replace(stops[at], notes=lines), *stops[at + 1 :]]

    def _clipped(self, ratio: float) -> Iterator[str]:
        reach, place = self.job.run.training.clip_range, self.chosen
        low, high = 1 - reach, 1 + reach
        a = float(self.replies.advantages[self.row, place])
        before = float(self.rollout.log_p[self.row, place])
        near = min(max(ratio, low), high)
        t = int(np.searchsorted(self.places, place)) + 1
        yield f"token {t} of the reply above, {self.word(place)}: ratio = p now / p then"
        now = np.log(ratio) + before
        yield f"ratio = e^(ln p now - ln p then) = e^({now:z.4f} - {term(before)}) = {ratio:z.4f}"
        yield f"clip(ratio, {low:g}, {high:g}) = {near:z.4f}"
        yield (
            f"gain = min({ratio:z.4f} * {term(a)}, {near:z.4f} * {term(a)}) = "
            f"{min(ratio * a, near * a):z.4f}; the loss has -gain"
        )
        yield "before the first update the policy is the one that wrote the reply: the ratio is 1"

    def later(self) -> Iterator[str]:
        """Take the other updates of the step, and tell each, with the ratio of the token."""
        model, config = self.job.model, self.job.run.training
        clip, count, word = config.clip or np.inf, len(self.parts), self.word(self.chosen)
        optimizer = self.job.optimizer
        for i, (x, key) in islice(enumerate(self.parts, 1), 1, 1 + LATER):
            ratio, objective = self._ratio(), self.objective
            loss, norm = update(model, optimizer, x, x.targets, clip, 1, key, objective)
            numbers = f"loss {float(loss):z.4f}, norm {float(norm):.4g}"
            clipped = f"{objective.clipped[0]:.0%} of tokens clipped"
            yield f"update   {i} of {count}: {numbers}, {clipped}; ratio of {word} {ratio:z.4f}"
        yield f"after    ratio of {word} {self._ratio():z.4f}"

    def _ratio(self) -> float:
        """p now / p then, of the token that is followed."""
        ids, targets = (array[[self.row]] for array in (self.replies.ids, self.replies.targets))
        with no_grad(), evaluating():
            log_p = token_log_p(self.job.model, ids, targets)[0].tolist()
        now = log_p[int(np.searchsorted(self.places, self.chosen))]
        return float(np.exp(now - self.rollout.log_p[self.row, self.chosen]))


def _stop(
    function: Callable[..., Any],
    given: dict[str, Any],
    made: dict[str, Any],
    notes: Sequence[str],
    **options: float,
) -> Stop:
    """A stop at a function of arrays; without any given, one that cannot be run again."""
    seen = [Seen("in", value_of(name, array), LABELS[name]) for name, array in given.items()]
    seen += [Seen("out", value_of(name, array), LABELS[name]) for name, array in made.items()]
    name = function.__name__
    settings = ", ".join(f"{option.strip('_')}={value:g}" for option, value in options.items())
    formula = FORMULAS[function] + (f"   with {settings}" if settings else "")
    lines: Any = partial(_lines, function, given, options) if given else tuple
    return Stop("rollout", "", name, name, formula, seen, lines, function=function, notes=notes)


def _lines(function: Callable[..., Any], given: dict[str, Any], options: dict[str, float]) -> Any:
    """The function line by line."""
    return replay(function, list(given.values()), dict(options))[1]
