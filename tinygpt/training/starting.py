"""The job of a new run: a fresh model, or one that starts with the weights of another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tensor import Tensor
from tensor.random import Generator
from tinygpt.config import (
    AlignConfig,
    FinetuneConfig,
    GPTClassifierConfig,
    ModelConfig,
    PreferencesConfig,
    RewardConfig,
)
from tinygpt.config.aligning import DPO_ALONE, PPO_ALONE, PREFERENCES
from tinygpt.config.finetuning import MADE
from tinygpt.data.data import Data
from tinygpt.data.labels import Labelled
from tinygpt.data.prepare import BUILT_IN, prepare
from tinygpt.data.token_files import is_token_folder
from tinygpt.data.windows import CorpusError
from tinygpt.errors import InputError
from tinygpt.ids import CHAT_TOKENS
from tinygpt.model.adapters import draw
from tinygpt.model.growing import with_new_tokens
from tinygpt.model.heads import GPTClassifier, with_fresh_head
from tinygpt.model.kinds import KINDS
from tinygpt.model.prepared import prepared
from tinygpt.runs import run as runs
from tinygpt.runs.checkpoint import Progress
from tinygpt.runs.run import Run
from tinygpt.terminal import command, shown
from tinygpt.tokenizers import Tokenizer, TokenizerError, with_special
from tinygpt.training.jobs import (
    MODEL_FIELDS,
    SMALLER,
    Job,
    Request,
    check,
    frozen,
    refuse,
    until_of,
)
from tinygpt.training.planning import check_memory
from tinygpt.training.rollouts import standardise
from tinygpt.training.step import optimizer_of

JUDGED = 256  # replies by which scores are standardised


class Start(NamedTuple):
    """All that the job of a new run is made of."""

    request: Request  # with the training as it was decided
    data: Data
    shape: ModelConfig
    weights: Mapping[str, Tensor] | None = None  # that the model gets; else fresh ones
    new_rows: tuple[int, int] = (0, 0)  # in the weights, of new tokens: the first, and their number
    judge: Any = None  # of PPO: the reward model

    @property
    def reward(self) -> GPTClassifierConfig | None:
        """The shape of the reward model."""
        return None if self.judge is None else self.judge.config


def fresh(request: Request) -> Job:
    """A model with fresh weights, or those of `init`, and the data that was chosen. No folder is
    made yet.
    """
    return job_of(started(request))


def started(request: Request) -> Start:
    """What was chosen, read and checked; no model is made yet."""
    config = request.training
    check(config)
    if isinstance(config, FinetuneConfig):
        return _finetuned(request, config)
    if isinstance(config, PreferencesConfig):
        return _preferring(request, config)
    if config.in_context:
        refuse(
            request,
            ["validation", "stride", "documents", "tokenizer", "tokens"],
            f"--task {config.task}, which makes its own texts\nleave it out",
        )
    elif config.task not in (None, "masked"):
        refuse(
            request,
            ["validation"],
            f"--task {config.task}, which makes its own pairs to measure on\n"
            "leave it out, or learn from pairs of your own: --pairs FILE",
        )
    elif config.pairs is None and config.text in BUILT_IN:
        refuse(
            request,
            ["validation"],
            f"--text {config.text or 'story'}: no part of it is kept back to measure on\n"
            "leave it out, or train on a text of your own: --text FILE",
        )
    if config.kind == "encoder-decoder":
        refuse(request, ["stride", "documents"], "pairs: each pair is read whole\nleave it out")
    if is_token_folder(config.text):
        text = shown(config.text)
        refuse(
            request,
            ("tokenizer", "tokens", "documents", "validation"),
            f"--text {text}: its tokens are made\nleave it out, or choose it with tinygpt tokenize",
        )
    if request.init is not None:
        return _initialised(request, request.init)
    data = prepare(config, request.model(1).context)
    return Start(request, data, request.model(data.tokenizer.size))


def _initialised(request: Request, init: str) -> Start:
    """Another run's model and tokenizer, another text: fine-tuning."""
    refuse(
        request,
        ["preset", *(name for name in MODEL_FIELDS if name != "dropout"), "tokenizer", "tokens"],
        "--init: the model and the tokenizer are that run's\nleave it out, or train from the start",
    )
    before, model, tokenizer = runs.load(runs.find(init), best=True)
    if before.kind != request.training.kind:
        raise InputError(
            f"--init {before.name}: its kind of model is {before.kind}, and this training's is "
            f"{request.training.kind}\nstart from a run of the same kind, or leave --init out"
        )
    dropout = request.model(1).dropout if "dropout" in request.chosen else before.model.dropout
    try:
        data = prepare(request.training, before.model.context, tokenizer)
    except (CorpusError, TokenizerError) as error:
        # the usual advice names flags that --init refuses
        problem = str(error).partition("\n")[0]
        raise InputError(f"{problem}\nuse another text, or train without --init") from None
    return Start(request, data, replace(before.model, dropout=dropout), model.state_dict())


def _finetuned(request: Request, config: FinetuneConfig) -> Start:
    """Another run's model, its tokenizer with the tokens of a conversation, and examples."""
    if config.data in MADE:
        refuse(
            request,
            ["validation"],
            f"--data {config.data}, which keeps its own back to measure on\n"
            "leave it out, or learn from examples of your own: --data FILE",
        )
    before, model, tokenizer = runs.load(runs.find(request.init), best=True)
    if config.task == "classify":
        return _classifier(request, config, before, model.state_dict(), tokenizer)
    runs.check_kind(before, "finetune", "gpt")
    known = with_special(tokenizer, CHAT_TOKENS)
    data = prepare(config, before.model.context, known)
    dropout = request.model(1).dropout if "dropout" in request.chosen else before.model.dropout
    shape = replace(before.model, vocabulary=known.size, dropout=dropout)
    new = known.size - tokenizer.size  # after the special tokens that there were
    first = len(known.special) - new
    start = with_new_tokens(model.state_dict(), first, new, config.seed)
    return Start(request, data, shape, start, (first, new))


def _classifier(
    request: Request,
    config: FinetuneConfig,
    before: Run,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
) -> Start:
    """The blocks of another run's model, a fresh head, and texts with labels."""
    runs.check_kind(before, "finetune --task classify", "gpt", "bert")
    base: Any = before.kind
    config = replace(config, base=base)
    request = replace(request, training=config)
    data = prepare(config, before.model.context, tokenizer)
    assert isinstance(data.windows, Labelled)
    dropout = request.model(1).dropout if "dropout" in request.chosen else before.model.dropout
    kind, fields = KINDS[config.kind], vars(before.model) | {"dropout": dropout}
    shape = kind.config(**fields, labels=data.windows.labels)
    return Start(request, data, shape, with_fresh_head(weights, kind.model, shape, config.seed))


def _preferring(request: Request, config: PreferencesConfig) -> Start:
    """A fine-tuned run's model, as a reward model or as a policy, and pairs of replies."""
    if config.data == PREFERENCES:
        refuse(
            request,
            ["validation"],
            f"--data {PREFERENCES}, which keeps its own back to measure on\n"
            "leave it out, or learn from pairs of your own: --data FILE",
        )
    if isinstance(config, AlignConfig):
        _refuse_of_other_method(request, config)
    before, model, tokenizer = runs.load(runs.find(request.init), best=True)
    if not before.answers:
        other = f"name one: {command(config.stage, 'RUN')}"
        teach = f"teach it: {command('finetune', before.folder)}"
        raise InputError(
            f"{before.name} has not learned to answer: tinygpt {config.stage} starts from a "
            f"fine-tuned run\n{teach if before.stage == 'train' else other}"
        )
    data = prepare(config, before.model.context, tokenizer)
    weights, shape = model.state_dict(), replace(before.model, dropout=0.0)
    if isinstance(config, RewardConfig):
        shape = GPTClassifierConfig(**vars(shape), labels=(config.stage,))
        return Start(
            request, data, shape, with_fresh_head(weights, GPTClassifier, shape, config.seed)
        )
    assert isinstance(config, AlignConfig)
    judge = _reward_model(config, before) if config.method == "ppo" else None
    return Start(request, data, shape, weights, judge=judge)


def _refuse_of_other_method(request: Request, config: AlignConfig) -> None:
    """Raise InputError for a choice that would do nothing."""
    if config.method == "dpo":
        refuse(
            request,
            PPO_ALONE,
            "--method dpo, which learns from pairs alone\nleave it out, or learn from scores: "
            "--method ppo",
        )
    else:
        refuse(
            request,
            DPO_ALONE,
            "PPO: a rollout is cut into --minibatches, and its numbers are noted at each step\n"
            "leave it out, or learn from pairs: --method dpo",
        )
    if config.data != PREFERENCES:
        refuse(
            request,
            ["true_score"],
            "--data FILE: no rule knows how good a reply to its prompts is\n"
            "leave it out, or leave out --data, for the replies that come with tinygpt",
        )


def _reward_model(config: AlignConfig, before: Run) -> Any:
    """The reward model. Raises InputError where it cannot read what the policy writes."""
    if config.reward is None:
        raise InputError(
            "PPO learns from the scores of a reward model, and none is named\n"
            f"make one: {command('reward', before.folder)}; then name it: --reward RUN; or learn "
            "from pairs: --method dpo"
        )
    run, model, tokenizer = runs.load(runs.find(config.reward), best=True)
    if run.stage != "reward":
        raise InputError(
            f"--reward {run.name}: it is a run of tinygpt {run.stage}, and no reward model\n"
            f"make one: {command('reward', before.folder)}"
        )
    if tokenizer.hash != before.tokenizer:
        raise InputError(
            f"--reward {run.name}: it reads other tokens than {before.name} writes\n"
            f"make one that reads them: {command('reward', before.folder)}"
        )
    if run.model.context < before.model.context:
        raise InputError(
            f"--reward {run.name}: its context is {run.model.context}, and that of {before.name} "
            f"is {before.model.context}\nmake one of this run: {command('reward', before.folder)}"
        )
    return model


def job_of(start: Start) -> Job:
    """The job of a new run. Raises InputError where the free memory does not hold a step."""
    request, data, shape, weights, new_rows, judge = start
    config, reward = request.training, start.reward
    if not request.ignore_memory:
        loaded, fix = [], SMALLER
        if weights is not None:
            loaded, fix = ["weights", *["reward"] * (judge is not None)], "take a smaller --batch"
        check_memory(shape, config, *loaded, fix=fix, reward=reward)
    model: Any = KINDS[config.kind].model(
        shape,
        generator=Generator(config.seed),
        dtype=config.dtype,
        device=config.device,
        draw=weights is None,
    )
    if weights is not None:
        model.load_state_dict(_in_dtype(weights, config.dtype))
    folder = Path(config.out or runs.RUNS)
    stages: dict[str, Any] = {"kind": config.kind, "stage": config.stage, "new_rows": new_rows}
    run = Run(shape, config, data.opening, data.hash, **stages, reward=reward, folder=folder)
    model = prepared(model, config, new_rows, reward)
    draw(model, Generator(config.seed))
    frozen(model, config)
    until = until_of(run, request)
    job = Job(run, data, model, optimizer_of(model, config), Progress(), until)
    if isinstance(config, AlignConfig) and judge is not None:
        pairs: Any = data.windows
        model.reward.load_state_dict(_in_dtype(judge.state_dict(), config.dtype))
        standardise(model, pairs.prompts[:JUDGED], pairs.end, config.length)
    return job


def _in_dtype(weights: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    return {name: x.to(dtype=dtype) for name, x in weights.items()}
