"""The choices that shape fine-tuning: what a trained model learns next."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from tinygpt.config.options import LARGE, changed, check, option
from tinygpt.config.training import TrainConfig

# fields of TrainConfig that the base run decides, or that belong to a text
FIXED = "text", "pairs", "documents", "tokenizer", "tokens", "stride", "base"
# what can be frozen; a number of blocks is from 1 on
FROZEN = re.compile(r"embeddings|blocks(:[1-9][0-9]{0,8})?")
# a task -> the data that are made by rule, the first if none is named
DATA = {"answer": ("questions", "replies"), "classify": ("larger",)}
MADE = tuple(name for names in DATA.values() for name in names)


@dataclass(frozen=True)
class FinetuneConfig(TrainConfig):
    """How a trained model learns a narrower task from examples."""

    stage: ClassVar[str] = "finetune"
    data: str | None = option(
        None,
        "file of examples (.jsonl, or .csv to classify); or made by rule about stories of the "
        "grammar: `questions` and right answers, `replies` that may be wrong or rude, or to "
        "classify `larger`, which animal is larger (questions or larger, if not given)",
        "DATA",
    )
    task: Literal["answer", "classify"] = option(  # type: ignore[assignment]
        "answer", "learn to answer instructions, or to name the label of a text"
    )
    base: Literal["gpt", "bert"] = option("gpt", "the kind of the run that it starts from")
    packing: bool = option(
        False, "a row holds as many examples as fit the context; else one, and padding"
    )
    freeze: str | None = option(
        None,
        "parts that do not learn, with commas between: embeddings, blocks, or blocks:N for the "
        "first N (all parts learn, if not given)",
        "PARTS",
    )
    lora: int | None = option(
        None,
        "LoRA: the model stays, and small matrices of this rank beside its own learn (no such "
        "matrices, if not given)",
        "RANK",
        least=1,
        most=LARGE,
    )
    lora_alpha: float = option(
        16.0, "what these matrices add is scaled by alpha / RANK", above=0, most=LARGE
    )
    steps: int = changed(TrainConfig, "steps", 1500)
    lr: float = changed(TrainConfig, "lr", 1e-3)

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in [] if self.freeze is None else self.freeze.split(","):
            check(
                FROZEN.fullmatch(part) is not None,
                f"freeze {self.freeze!a}: {part!a} is no part of a model\nname parts with commas "
                "between: embeddings, blocks, or blocks:2 for the first two",
            )
        if self.data is None:
            object.__setattr__(self, "data", DATA[self.task][0])
        for task, names in DATA.items():
            check(
                self.data not in names or self.task == task,
                f"data {self.data} is for --task {task}: leave one of the two out",
            )
        check(
            self.task == "answer" or not self.packing,
            "packing is for --task answer: a text to classify is a row of its own",
        )
        check(
            self.task == "classify" or self.base == "gpt",
            f"base {self.base}: a GPT is needed to answer, for a BERT writes no text",
        )

        check(
            self.lora is None or self.freeze is None,
            "lora trains its own matrices alone, so freeze has nothing to freeze: leave one out",
        )

    @property
    def kind(self) -> str:
        """The kind of model that is trained."""
        return "gpt" if self.task == "answer" else f"{self.base}-classifier"

    @property
    def conversations(self) -> bool:
        """Whether a row may hold several questions, one after the other."""
        return self.packing or self.data in DATA["answer"]

    @property
    def source(self) -> str:
        """The field that names the file."""
        return "data"

    @property
    def learned_from(self) -> str:
        """The name of what is made by rule, or of the file."""
        return str(self.data)
