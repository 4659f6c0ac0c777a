"""Every choice that shapes a run, as frozen dataclasses. The command line makes its flags from
these fields and their `help`.

    GPTConfig     the model
    TrainConfig   its training
    SampleConfig  what it is asked to write

The command line adds what belongs to no run: which run, which file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from tinygpt.config.options import (
    DTYPES,
    LARGE,
    SEEDS,
    STEPS,
    VOCABULARY,
    check,
    check_fields,
    one_of,
    option,
)

IN_CONTEXT = "copy", "map", "patterns"  # tasks of a GPT: each text has a rule of its own


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained: AdamW, global-norm clipping, a learning rate that warms up and then
    follows half a cosine.
    """

    stage: ClassVar[str] = "train"  # the name of the command, in config.json
    # UTF-8
    text: str | None = option(
        None,
        "file or folder to learn from, - for standard input, or `story` or `grammar` (the story, "
        "if none is given)",
        "TEXT",
    )
    # masked: words of a text; copy, map, patterns: texts made by rule; the others: pairs
    task: (
        Literal["reverse", "sort", "dates", "translate", "copy", "map", "patterns", "masked"] | None
    ) = option(
        None,
        "learn a task: to reverse or sort letters, to write dates as 2021-03-03, to translate "
        "phrases to French; to learn from examples in the text itself: copy, map or patterns; or "
        "to fill in masked tokens of --text (the next token of a text, if not given)",
        "TASK",
    )
    # two columns with a tab between
    pairs: str | None = option(
        None, "file of lines `source TAB target`: learn to write the target", "FILE"
    )
    # the story is measured on itself
    validation: float = option(
        0.1, "share of a file's tokens, its end, kept back to measure on", least=0, below=1
    )
    # bpe: byte pairs, trained on the text
    tokenizer: Literal["character", "byte", "word", "bpe"] = option("character", "what a token is")
    # V, for these two
    tokens: int = option(
        1024, "different tokens that bpe learns, or word keeps", least=2, most=VOCABULARY
    )
    # those of a folder's files, and the parts of a file between two literal <|endoftext|>
    documents: bool = option(
        True, "of several documents, each ends with the special token <|endoftext|>"
    )
    # each of `context` tokens
    batch: int = option(16, "windows in one step, B", least=1, most=100_000)
    # as one batch that many times larger
    accumulation: int = option(1, "batches whose gradients make one step", least=1, most=100_000)
    # both follow from the seed
    batches: Literal["epochs", "random"] = option(
        "epochs", "each window once an epoch, or windows drawn at random"
    )
    steps: int = option(500, "updates of the weights", least=1, most=STEPS)  # one batch each
    evaluate: int | None = option(
        None,
        "steps from one measuring of the validation loss to the next (a tenth of all, if not "
        "given)",
        least=1,
        most=STEPS,
    )
    # 1: all windows each time
    evaluate_share: float = option(
        0.1,
        "share of the time that these measurings may take: they take so many of the windows kept "
        "back, the same ones each time; all are measured at the end",
        above=0,
        most=1,
    )
    # by the loss of these measurings, as the best weights
    patience: int | None = option(
        None,
        "early stopping: measurings without a better loss after which training ends (never, if not "
        "given)",
        least=1,
        most=STEPS,
    )
    # muon: for matrices; the rest stays AdamW's
    optimizer: Literal["adamw", "muon"] = option("adamw", "what turns gradients into updates")
    # follows the same schedule
    muon_lr: float = option(0.02, "highest learning rate of muon's matrices", above=0, most=LARGE)
    # reached after the warm-up
    lr: float = option(3e-3, "highest learning rate", above=0, most=LARGE)
    # where the cosine ends
    final_lr: float = option(
        0.1, "share of the learning rate that is left at the end", least=0, most=1
    )
    warmup: int | None = option(
        None,
        "steps over which the learning rate rises (a tenth of all, if not given)",
        least=0,
        most=STEPS,
    )
    # of Vaswani et al. 2017: lr * min(t / warmup, sqrt(warmup / t))
    schedule: Literal["cosine", "inverse_square_root"] = option(
        "cosine", "how the learning rate falls after the warm-up"
    )
    label_smoothing: float = option(
        0.0, "share of each target's probability given to all tokens alike", least=0, below=1
    )
    # not of gains and biases
    weight_decay: float = option(
        0.1,
        "share of matrices and tables taken off a step, times the learning rate",
        least=0,
        most=LARGE,
    )
    # and with the first, a tied head
    decay_embeddings: bool = option(True, "the tables of tokens and positions decay too")
    # 0.9 looks back about 10 steps
    beta1: float = option(0.9, "memory of AdamW's mean gradient", least=0, below=1)
    # 0.99 looks back about 100 steps
    beta2: float = option(0.99, "memory of AdamW's mean squared gradient", least=0, below=1)
    # 0 turns it off
    clip: float = option(
        1.0,
        "largest global gradient norm; longer gradients are shortened to it",
        least=0,
        most=LARGE,
    )
    # 1: every window there is
    stride: int = option(
        1, "tokens from the start of one training window to the next", least=1, most=STEPS
    )
    # the same seed, the same run
    seed: int = option(0, "what all randomness follows from", least=0, most=SEEDS)
    device: str = option("cpu", "cpu, cuda or cuda:N")  # where the arrays live
    # of weights and activations
    dtype: str = option("float32", one_of(DTYPES))
    # 11 bits of an operand, and float32's range
    tf32: bool = option(False, "on a GPU, matrix products of float32 in TF32: faster, less exact")
    # cuDNN's attention gives other last bits each time
    deterministic: bool = option(
        False,
        "on a GPU, equal runs have equal bits: attention by hand, not by cuDNN; on a CPU they "
        "always have",
    )
    # the same numbers
    recompute: bool = option(
        False, "activations of each block are computed again in backward: less memory, more time"
    )
    snapshots: int = option(
        8,
        "copies of the weights kept along the way, for tinygpt look to show how they were learned; "
        "0: none",
        least=0,
        most=100_000,
    )
    # needs its package
    tensorboard: bool = option(False, "event files for TensorBoard in the run's folder")
    # must not hold another run
    out: str | None = option(
        None, "folder of the run (runs/ and a new name, if not given)", "FOLDER"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("text", "pairs", "data", "out"):
            value = getattr(self, name, None) or ""
            check(
                value == value.encode("utf-8", "ignore").decode(),
                f"{name} {value!a}: config.json cannot hold a name that is no UTF-8: give it "
                "another",
            )
        check(
            self.text != "",
            "text is empty: give the path of a file or folder, or leave it out for the story",
        )
        check(
            self.task in (None, "masked") or self.text is self.pairs is None,
            f"task {self.task} makes its own examples: leave out text and pairs",
        )
        check(
            self.pairs is None or self.text is self.task is None,
            "pairs is a file to learn from: leave out text and task",
        )
        check(
            self.warmup is None or self.warmup < self.steps,
            f"warmup {self.warmup}: fewer than the {self.steps} steps, so that the learning rate "
            "can come down again",
        )
        check(
            re.fullmatch("cpu|cuda(:[0-9]{1,3})?", self.device) is not None,
            f"device {self.device!r}: choose cpu, cuda or cuda:N",
        )
        check(self.dtype in DTYPES, f"dtype {self.dtype!r}: choose {one_of(DTYPES)}")

    @property
    def kind(self) -> str:
        """The kind of model that is trained: "gpt", "encoder-decoder" or "bert"."""
        if self.task == "masked":
            return "bert"
        if self.in_context or self.task is self.pairs is None:
            return "gpt"
        return "encoder-decoder"

    @property
    def in_context(self) -> bool:
        """Whether each text has a rule of its own, and examples of the rule."""
        return self.task in IN_CONTEXT

    @property
    def learned_from(self) -> str:
        """The name of the task, or of the file or folder."""
        made = None if self.task == "masked" else self.task
        return made or self.pairs or self.text or "story"

    @property
    def source(self) -> str:
        """The field that names the file or folder."""
        return "text" if self.pairs is None else "pairs"

    @property
    def measures(self) -> bool:
        """Whether a loss is measured on what was kept back."""
        return True

    @property
    def updates(self) -> int:
        """The updates of the weights in a step."""
        return 1

    @property
    def evaluate_steps(self) -> int:
        """The steps between two measurings: as given, else a tenth of all."""
        return max(1, self.steps // 10) if self.evaluate is None else self.evaluate

    @property
    def warmup_steps(self) -> int:
        """The steps of warm-up: as given, else a tenth of all."""
        return self.steps // 10 if self.warmup is None else self.warmup
