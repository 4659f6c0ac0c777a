"""The choices that shape fine-tuning: what a trained model learns next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tinygpt.config.options import changed, option
from tinygpt.config.training import TrainConfig

# fields of TrainConfig that the base run decides, or that belong to a text
FIXED = "text", "pairs", "documents", "tokenizer", "tokens", "stride"


@dataclass(frozen=True)
class FinetuneConfig(TrainConfig):
    """How a trained model learns a narrower task from examples."""

    stage: ClassVar[str] = "finetune"
    data: str = option(
        "questions",
        "file of examples (.jsonl), or `questions`: about stories of the grammar, made by rule",
        "DATA",
    )
    task: Literal["answer"] = option(  # type: ignore[assignment]
        "answer", "learn to answer instructions"
    )
    packing: bool = option(
        False, "a row holds as many examples as fit the context; else one, and padding"
    )
    steps: int = changed(TrainConfig, "steps", 1500)
    lr: float = changed(TrainConfig, "lr", 1e-3)

    @property
    def kind(self) -> str:
        """The kind of model that is trained."""
        return "gpt"

    @property
    def source(self) -> str:
        """The field that names the file."""
        return "data"

    @property
    def learned_from(self) -> str:
        """`questions`, or the name of the file."""
        return self.data
