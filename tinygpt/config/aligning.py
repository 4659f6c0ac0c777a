"""The choices that shape alignment: a reward model learns which replies are better, and a policy
learns to write such replies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tinygpt.config.options import LARGE, changed, check, option
from tinygpt.config.training import TrainConfig

PREFERENCES = "preferences"  # the data that is made by rule
# fields of TrainConfig that the base run decides, or that belong to a text
FIXED = "text", "task", "pairs", "documents", "tokenizer", "tokens", "stride", "label_smoothing"
# of a nat of KL. DPO's scores are not standardised, and it learns pairs by heart if KL is cheap
PRICES = {"ppo": 0.1, "dpo": 2.0}
# fields of AlignConfig of which one method makes no use
OF_ROLLOUTS = "epochs", "minibatches", "clip_range", "gamma", "gae", "value_weight"
PPO_ALONE = "reward", "kl_target", *OF_ROLLOUTS
DPO_ALONE = "accumulation", "evaluate", "evaluate_share", "patience"


@dataclass(frozen=True)
class PreferencesConfig(TrainConfig):
    """What both stages learn from."""

    data: str = option(
        PREFERENCES,
        "file of a prompt, a better and a worse reply a line (.jsonl); or `preferences`, replies "
        "about stories of the grammar, judged by rule",
        "DATA",
    )

    @property
    def source(self) -> str:
        """The field that names the file."""
        return "data"

    @property
    def learned_from(self) -> str:
        """The name of what is made by rule, or of the file."""
        return self.data

    @property
    def conversations(self) -> bool:
        """Whether one question may follow another: each prompt stands by itself."""
        return False


@dataclass(frozen=True)
class RewardConfig(PreferencesConfig):
    """How a reward model learns which of two replies is better."""

    stage: ClassVar[str] = "reward"
    batch: int = changed(TrainConfig, "batch", 64)
    steps: int = changed(TrainConfig, "steps", 2500)
    lr: float = changed(TrainConfig, "lr", 8e-4)

    @property
    def kind(self) -> str:
        """The kind of model that is trained."""
        return "gpt-classifier"


@dataclass(frozen=True)
class AlignConfig(PreferencesConfig):
    """How a policy learns to write better replies: by PPO from a reward model's scores of its own
    replies, or by DPO from pairs of replies.
    """

    stage: ClassVar[str] = "align"
    # Schulman et al. 2017; Rafailov et al. 2023
    method: Literal["ppo", "dpo"] = option(
        "ppo", "learn from scores of its own replies, or from pairs of replies"
    )
    reward: str | None = option(
        None, "ppo: the run of `tinygpt reward` whose model scores the replies", "RUN"
    )
    # the strength of the pull back to the reference, in both
    kl: float | None = option(
        None,
        "beta, the price of a nat of KL to the reference (0.1 for ppo, 2 for dpo, if not given)",
        least=0,
        most=LARGE,
    )
    # Ziegler et al. 2019, section 2.2
    kl_target: float | None = option(
        None,
        "ppo: nats of KL a reply that the price of KL is steered to (a fixed price, if not given)",
        above=0,
        most=LARGE,
    )
    batch: int = changed(TrainConfig, "batch", 64)
    epochs: int = option(
        2, "ppo: how often each rollout, a batch of replies, is learned from", least=1, most=1_000
    )
    minibatches: int = option(
        2, "ppo: parts of a rollout, each of which gives an update", least=1, most=100_000
    )
    clip_range: float = option(
        0.2,
        "ppo: how far the probability of a token may move from that of the rollout, as a share",
        above=0,
        most=LARGE,
    )
    gamma: float = option(1.0, "ppo: weight of the next token's reward", least=0, most=1)
    # lambda of generalised advantages: Schulman et al. 2016
    gae: float = option(
        0.95, "ppo: advantages look ahead: 0 by one token, 1 to the end", least=0, most=1
    )
    value_weight: float = option(
        0.1, "ppo: weight of the value head's loss beside the policy's", least=0, most=LARGE
    )
    length: int = option(24, "tokens of a reply, at most", least=1, most=100_000)
    true_score: bool = option(
        False, "note the true score of the replies too, for data of which a rule knows the truth"
    )
    steps: int = changed(TrainConfig, "steps", 200)
    lr: float = changed(TrainConfig, "lr", 5e-4)
    weight_decay: float = changed(TrainConfig, "weight_decay", 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl is None:
            object.__setattr__(self, "kl", PRICES[self.method])
        check(
            self.method == "dpo" or self.minibatches <= self.batch,
            f"minibatches {self.minibatches}: a rollout of {self.batch} replies cannot be cut into "
            "more parts than that: take fewer, or a larger batch",
        )
        check(
            self.method == "ppo" or self.beta > 0,
            "kl 0: DPO's scores are beta times a logarithm, so with beta 0 nothing is learned: "
            "take a larger one",
        )

    @property
    def beta(self) -> float:
        """The price of a nat of KL; of PPO in the first step."""
        assert self.kl is not None
        return self.kl

    @property
    def kind(self) -> str:
        """The kind of model that is trained."""
        return "gpt"

    @property
    def measures(self) -> bool:
        """Whether a loss is measured: that of PPO says nothing about the replies."""
        return self.method == "dpo"

    @property
    def updates(self) -> int:
        """The updates of the weights in a step."""
        return self.epochs * self.minibatches if self.method == "ppo" else 1
