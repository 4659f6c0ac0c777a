"""Classifiers: a transformer whose head gives a logit for each label, in the place of each token.

    ids -> GPT or BERT without its head -> h (B, T, C) -> linear layer -> logits (B, T, K)

The class of a text is read at one token that has seen all of the text: the last token of a GPT, the
token [CLS] of a BERT.      Radford et al. 2018, section 3.2; Devlin et al. 2018, section 4.1

With one label, a logit is a score of the text.

Shapes:   B batch   T time (tokens)   C width (channels)   K labels
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from tensor import Generator, Tensor, nn
from tinygpt.config import ModelConfig
from tinygpt.model.bert import BERT
from tinygpt.model.gpt import GPT
from tinygpt.model.transformer import SPREAD, Transformer, token_loss


class Classifier(Transformer):
    """model(ids) -> logits (B, T, K). At a token stands the class of what this token has seen."""

    def _add_head(self) -> None:
        width, labels = self.config.width, len(self.config.labels)
        self.head = nn.Linear(width, labels, bias=False, role="head")

    def logits(self, h: Tensor) -> Tensor:
        """The head: how strongly each label is expected.   h: (B, T, C)   logits: (B, T, K)"""
        assert self.head is not None
        return self.head(h)

    def loss(
        self, ids: Any, targets: Any, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> Tensor:
        """-ln p(label) in nats, the mean over the targets that count. A target of -1 counts for
        nothing: so each text has one that counts.   ids, targets: (B, T) or (T,)
        """
        return token_loss(self(ids), targets, reduction, label_smoothing)


class GPTClassifier(Classifier, GPT):
    """A GPT that says the class of a text at its last token. Padding after a text is seen by
    nobody, for attention is causal.
    """

    def decode(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raise TypeError: the logits are of labels, and no token follows from them."""
        raise TypeError("a classifier writes no text: its logits are of labels, not of tokens")


class BERTClassifier(Classifier, BERT):
    """A BERT that says the class of a text at [CLS]. Padding, [PAD], is seen by nobody."""


def with_fresh_head(
    weights: Mapping[str, Tensor], model: type[Classifier], config: ModelConfig, seed: int
) -> dict[str, Tensor]:
    """The weights of a base model for the classifier made from it. The head is drawn from
    N(0, 0.02^2), and the base's own head is left out.
    """
    shapes = {name: x.shape for name, x in model(config, draw=False).state_dict().items()}
    drawn = Tensor(Generator(seed).normal(shapes["head.weight"]) * SPREAD)
    return {name: drawn if name == "head.weight" else weights[name] for name in shapes}
