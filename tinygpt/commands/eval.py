"""Measure a trained GPT on a text: `tinygpt eval RUN` on what its training kept back, with `--text
FILE` on any other.

Prints the loss in nats a token, the perplexity e^loss, and bits per byte, which texts cut into
other tokens can be compared by. Each token but the first is a target once. A training that kept
nothing back is measured on all windows it learned from, as `tinygpt train` does at its end. No
weight of the run is changed.

An encoder-decoder answers the sources of the pairs kept back, or of `--pairs FILE`, and a
fine-tuned run the instructions kept back, or those of `--data FILE`. Printed is how many answers
are exactly right, and the first wrong ones. A BERT fills in hidden tokens of the text.
Printed is how many it gets wrong. A classifier names the labels of the texts kept back, or of
`--data FILE`. Printed is how many are right, and which labels it confuses.

A reward model orders the pairs of replies kept back, or those of `--data FILE`. Printed is how many
are ordered rightly, and how surely; calibration.png in the run's folder shows this. An aligned run
answers the prompts of the pairs. Printed are the numbers of its replies beside those of the
reference, and of DPO how it orders the pairs.

A GPT that learned from examples in the text (`--task copy`, `map` or `patterns`) is measured on
rules that it has never seen. Printed is how many answers are right, by the number of examples
before, and which heads find the example.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from tinygpt.commands import classes, int8, replies
from tinygpt.commands.cli import Parser, add_device, add_run, read_config, reader
from tinygpt.config import PreferencesConfig, SampleConfig
from tinygpt.data import documents, grammar, token_files
from tinygpt.data import prepare as data
from tinygpt.data.data import example_of
from tinygpt.data.in_context import InContext
from tinygpt.data.instructions import Instructions, check_known, read_examples
from tinygpt.data.labels import Labelled, read_labelled
from tinygpt.data.masked import Masked, inner_context
from tinygpt.data.pairs import Pairs, read_pairs
from tinygpt.data.preferences import Preferences
from tinygpt.data.windows import CorpusError, SideBySide, Windows
from tinygpt.devices import check_device
from tinygpt.errors import InputError
from tinygpt.files import brief
from tinygpt.generation.answers import answers, continued
from tinygpt.ids import IGNORED, MASK_TOKENS, Ids
from tinygpt.inside.induction import induction_scores
from tinygpt.model.prepared import plain_model
from tinygpt.runs import run as runs
from tinygpt.terminal import number_of, say, shown
from tinygpt.tokenizers import CharacterTokenizer, SpecialTokenizer, Tokenizer, WordTokenizer
from tinygpt.tokenizers.byte_pair import END
from tinygpt.training.jobs import own_text
from tinygpt.training.measure import (
    batch_of,
    confusion,
    mean_loss,
    measured_rows,
    right_answers,
    wrong_share,
)
from tinygpt.training.step import arithmetic, objective_of

# the flag that names what a run is measured on, and how people call that
SOURCES = {"text": "a text", "pairs": "pairs", "data": "examples"}
ANSWERED = 10_000  # pairs that are answered, at most: of more, evenly spread ones
EXAMPLES = 0, 1, 2, 4, 8  # numbers of them that are reported
WRONG = 5  # wrong answers that are shown


class Measured(NamedTuple):
    """What is measured on."""

    name: str  # for people
    windows: Any
    floor: float | None = None  # nats a token that no model can go below
    rows: Ids | None = None  # the numbers of the windows, if not all are measured on


def arguments(parser: Parser) -> None:
    """The run, the text, which of its weights, where."""
    which = parser.add_mutually_exclusive_group()
    add_run(parser, which)
    which.add_argument(
        "--best",
        action="store_true",
        help="the weights with the lowest validation loss (the default, where one was measured)",
    )
    parser.add_argument(
        "--text",
        metavar="TEXT",
        help="file or folder, or `story` or `grammar`, all of it "
        "(default: what the run's training kept back)",
    )
    parser.add_argument(
        "--pairs",
        metavar="FILE",
        help="for an encoder-decoder: a file of pairs, a source, a tab and a target a line "
        "(default: the pairs that the run's training kept back)",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="for a fine-tuned run: a file of examples, as `tinygpt finetune` reads; for a reward "
        "model or an aligned run: a file of pairs, as `tinygpt reward` reads "
        "(default: those that the run's training kept back)",
    )
    parser.add_argument(
        "--beam",
        metavar="K",
        type=reader(int),
        help="answers of a beam search that follows K texts at once (default: of likeliest tokens)",
    )
    int8.add_flag(parser)
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Load, measure, print."""
    folder, best = runs.find(options.run), not options.last
    run, model, tokenizer = runs.load(folder, best, plain=False)
    if not isinstance(run.training, PreferencesConfig):
        model = plain_model(model)
    if options.int8:
        int8.round_weights(run, model)
    best = not options.last and run.has_best
    if options.best and not best:
        raise InputError(
            f"{run.name} has no best weights: no validation loss was measured\n"
            "leave --best out: the last ones are there"
        )
    config = _answering(options, run)
    measured = _measured(options, run, tokenizer)
    check_device(options.device)
    model.to(device=options.device)
    rows = batch_of(run.model, measured.windows.context, options.device)
    step = replace(run.training, batch=rows, device=options.device)
    with arithmetic(run.model, step):
        objective = objective_of(run.training, measuring=True)
        loss = mean_loss(model, measured.windows, rows=measured.rows, objective=objective)
    if not math.isfinite(loss):
        other = "try --last" if best else "restore them from a copy"
        raise InputError(
            f"the loss of {run.name} is {loss}: what its weights give is no finite number\n"
            f"{other}, or train again"
        )
    weights = f"{'best' if best else 'last'} weights" + (", in 8 bits" if options.int8 else "")
    say(f"run         {run.name}, its {weights}")
    if isinstance(measured.windows, Preferences):
        say(f"pairs       {measured.name}")
        for line in replies.report(run, model, measured.name, measured.windows, measured.rows):
            say(line)
        return 0
    before = hash_of(model)
    _report(loss, measured, tokenizer)
    if isinstance(measured.windows, InContext):
        _report_in_context(model, measured.windows, before)
    if isinstance(measured.windows, Labelled):
        for line in classes.report(run.model.labels, confusion(model, measured.windows)):
            say(line)
    if isinstance(measured.windows, Pairs | Instructions):
        _report_answers(model, measured, tokenizer, config)
    if isinstance(measured.windows, Masked):
        wrong, hidden = wrong_share(model, measured.windows, measured.rows)
        say(
            f"wrong       {wrong:.2%} of {number_of(hidden, 'hidden token')}, all filled in at once"
        )
    return 0


def _answering(options: argparse.Namespace, run: runs.Run) -> SampleConfig:
    """How a run answers. Raises InputError for a flag that is not for this run."""
    source = run.training.source
    if run.kind == "encoder-decoder":
        source = "pairs"  # also of a task
    preferring = isinstance(run.training, PreferencesConfig)
    searched = source != "text" and not run.model.labels and not preferring
    fitting = {source, "beam"} if searched else {source}
    wrong = [name for name in (*SOURCES, "beam") if vars(options)[name] and name not in fitting]
    if wrong:
        raise InputError(
            f"--{wrong[0]}: {run.name} learned from {_learned_from(run, source)}\n"
            f"leave it out, or name others: --{source} FILE"
        )
    chosen = argparse.Namespace(**{} if options.beam is None else {"beam": options.beam})
    return read_config(SampleConfig, chosen, length=run.model.context, temperature=0)


def _learned_from(run: runs.Run, source: str) -> str:
    """What a run learned from, for people."""
    return "pairs of replies" if isinstance(run.training, PreferencesConfig) else SOURCES[source]


def _report(loss: float, measured: Measured, tokenizer: Tokenizer) -> None:
    """The loss, and what follows from the loss."""
    targets, floor = targets_of(measured.windows, measured.rows), measured.floor
    answered = isinstance(measured.windows, Pairs | Instructions | Labelled)
    unit = getattr(measured.windows, "target", tokenizer.unit)
    say(f"{example_of(measured.windows) + 's' if answered else 'text':12}{measured.name}")
    over = number_of(len(targets), "target")
    say(f"loss        {loss:.4f} nats a {unit}, the mean over {over}")
    if floor is not None:
        say(
            f"floor       {floor:.4f}: no model can be better on such windows; {loss - floor:.4f} "
            "above"
        )
    with np.errstate(over="ignore"):
        many = f"{np.exp(loss):.4g}"
    between = "label" if isinstance(measured.windows, Labelled) else unit
    say(f"perplexity  {many}: as unsure as between that many {between}s, all as likely")
    if answered or isinstance(measured.windows, Masked | InContext):
        return
    size = byte_count(tokenizer, targets)
    bits = loss * len(targets) / math.log(2) / size
    say(f"bits        {bits:.4f} a byte, over {number_of(size, 'byte')}")
    words = tokenizer.inner if isinstance(tokenizer, SpecialTokenizer) else tokenizer
    unknown = int(np.count_nonzero(targets == tokenizer.size - words.size))
    if isinstance(words, WordTokenizer) and unknown:
        say(
            f"unknown     {unknown:,} of the targets are words it does not know, 5 bytes of <unk> "
            "each"
        )


def _report_in_context(model: Any, texts: InContext, before: str) -> None:
    """How many answers are right, by the number of examples before; then the induction heads.
    before: the hash of the weights before the first question.
    """
    right = right_answers(model, texts)
    shown = [n for n in EXAMPLES if n in right]
    shares = [right[n][0] / right[n][1] for n in shown]
    say(f"examples    {''.join(f'{n:>8}' for n in shown)}   in the text before")
    say(f"right       {''.join(f'{share:8.1%}' for share in shares)}   of answers by unseen rules")
    say(f"chance      {1 / texts.task.answers:8.1%}   a guess")
    after = hash_of(model)
    said = "the same" if after == before else after[:16]
    say(f"weights     {before[:16]} before all answers, {said} after: SHA-256")
    drawn = texts.drawn(np.arange(100))
    scores, equal = induction_scores(model, drawn.ids[:, :-1], drawn.known[:, 1:])
    for layer, heads in enumerate(scores):
        name = "" if layer else "induction"
        say(f"{name:12}layer {layer}: {'  '.join(f'{score:.2f}' for score in heads)}")
    say(f"{'':12}the share of each head on the token after the same one; {equal:.2f} by chance")


def hash_of(model: Any) -> str:
    """SHA-256 of all weights."""
    digest = sha256()
    for name, weight in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.to("cpu").numpy().tobytes())
    return digest.hexdigest()


def _report_answers(
    model: Any, measured: Measured, tokenizer: Tokenizer, config: SampleConfig
) -> None:
    """How many answers are the target, to the letter, and the first that are not."""
    windows = measured.windows
    asked, given = (windows.questions, windows.answers)
    some = np.arange(0, len(asked), -(-len(asked) // ANSWERED)).tolist()
    ids, written = [windows.prompts[i] for i in some], list[str]()
    together = max(1, batch_of(model.config, model.context) // (config.beam or 1))
    for start in range(0, len(ids), together):
        part = ids[start : start + together]
        found = (
            answers(model, part, config)
            if isinstance(windows, Pairs)
            else continued(model, part, config, windows.end)
        )
        written += map(tokenizer.decode, found)
    wrong = [(i, text) for i, text in zip(some, written, strict=True) if given[i] != text]
    right = len(some) - len(wrong)
    how = "likeliest tokens" if config.beam is None else f"a beam of {config.beam}"
    say(
        f"exact       {right / len(some):.1%}, {right:,} of {number_of(len(some), 'answer')}, of "
        f"{how}"
    )
    for i, text in wrong[:WRONG]:
        say(f"wrong       {brief(asked[i])} -> {brief(text)}, right: {brief(given[i])}")


# -- what to measure on


def _measured(options: argparse.Namespace, run: runs.Run, tokenizer: Tokenizer) -> Measured:
    """What the flags name, or what is the run's own."""
    known: Any = tokenizer
    if options.pairs is not None:
        pairs, _ = read_pairs(options.pairs, 0)
        name = f"{shown(options.pairs)}: {number_of(len(pairs), 'pair')}"
        try:
            return Measured(name, Pairs(pairs, known, run.model.context))
        except CorpusError as error:  # its advice is for a training
            problem = str(error).partition("\n")[0]
            raise InputError(f"{problem}\nleave the longer pairs out") from None
    if options.data is not None and isinstance(run.training, PreferencesConfig):
        return Measured(*replies.pairs_of(options.data, known, run.model.context))
    if options.data is not None and run.model.labels:
        labelled, _ = read_labelled(options.data, 0)
        check_known(tokenizer, [example.text for example in labelled])
        name = f"{shown(options.data)}: {number_of(len(labelled), 'text')}"
        base, context = run.training.base, run.model.context
        return Measured(name, Labelled(labelled, tokenizer, context, base, run.model.labels))
    if options.data is not None:
        examples, _ = read_examples(options.data, 0)
        check_known(known, [example.text for example in examples])
        name = f"{shown(options.data)}: {number_of(len(examples), 'example')}"
        return Measured(name, Instructions(examples, known, run.model.context))
    if options.text is not None:
        return _given(options.text, run, tokenizer)
    return _own(run, tokenizer)


def _own(run: runs.Run, tokenizer: Tokenizer) -> Measured:
    """What the run's training kept back. Where it kept nothing back, the windows it learned from,
    on which `tinygpt train` measures too: the loss and its floor are those numbers again.
    """
    config, context = run.training, run.model.context
    if config.text == "grammar":
        return _given("grammar", run, tokenizer)
    if not run.text:
        raise InputError(
            f"{run.name} was not trained here, so no text was kept back\n"
            "name one to measure on: --text FILE"
        )
    source = "pairs" if run.kind == "encoder-decoder" else config.source
    another = f"name {_learned_from(run, source)} to measure on: --{source} FILE"
    found = own_text(run, tokenizer, missing=another, changed=another)
    if found.validation is None:
        rows = measured_rows(found.windows)
        name = f"{shown(found.name)}: the {number_of(len(rows), found.example)} of its training"
        return Measured(name, found.windows, found.floor, rows)
    kept: Any = found.validation
    if source != "text":
        count = number_of(len(kept), found.example)
        name = f"{shown(found.name)}: {count}, not learned from"
        return Measured(name, kept)
    if isinstance(kept, InContext):
        name = f"{shown(found.name)}: {len(kept):,} texts, of rules that were not learned from"
        return Measured(name, kept, found.floor)
    ids = kept.windows.tokens if run.kind == "bert" else kept.tokens
    name = f"{shown(found.name)}: the last {len(ids):,} {found.unit}s, not learned from"
    return Measured(name, kept if run.kind == "bert" else SideBySide(ids, context))


def _given(text: str, run: runs.Run, tokenizer: Tokenizer) -> Measured:
    """All of a text; of the grammar, stories that no training of this seed learns from, each in a
    window of its own.
    """
    context = run.model.context
    if run.kind == "bert":
        return _hidden(text, run, tokenizer)
    if text == "grammar":
        stories = grammar.grammar_text(data.GRAMMAR_MEASURED, run.training.seed + (1 << 32))
        if run.training.text == "grammar" or isinstance(tokenizer, CharacterTokenizer):
            windows = grammar.StoryWindows(stories, context, tokenizer)
            return Measured("stories from a grammar, not learned from", windows, windows.floor())
        return Measured("stories from a grammar", SideBySide(tokenizer.encode(stories), context))
    if token_files.is_token_folder(text):
        found = token_files.read(text, tokenizer)
        return Measured(f"{shown(text)}: {len(found.ids):,} tokens", SideBySide(found.ids, context))
    between = documents.between_files(run.training.documents, tokenizer)
    content = data.read(text, between)
    several = between == END and END in content
    content = content if several else data.without_end(content, tokenizer)
    name = "the story that comes with tinygpt" if text == "story" else shown(text)
    ids = documents.encode_text(tokenizer, content, several)
    return Measured(f"{name}: {len(content):,} characters", SideBySide(ids, context))


def _hidden(text: str, run: runs.Run, tokenizer: Any) -> Measured:
    """All of a text, in which a BERT is to fill in tokens."""
    shape = replace(run.model, context=inner_context(run.model.context))
    inner = tokenizer.without(len(MASK_TOKENS))
    name, windows, *_ = _given(text, replace(run, model=shape, kind="gpt"), inner)
    return Measured(name, Masked(windows, tokenizer.size, run.training.seed))


def targets_of(windows: Windows, rows: Ids | None = None) -> Ids:
    """The targets of these windows that count, one after the other."""
    y = windows[np.arange(len(windows)) if rows is None else rows][1]
    targets: Ids = y[y != IGNORED]
    return targets


def byte_count(tokenizer: Tokenizer, ids: Ids) -> int:
    """The bytes of UTF-8 that the tokens stand for, also where one is only part of a character. The
    end of a document stands for none.
    """
    tokens, counts = np.unique(ids[ids != tokenizer.specials.get(END)], return_counts=True)
    return int(counts @ [len(tokenizer.decode_bytes([token])) for token in tokens.tolist()])
