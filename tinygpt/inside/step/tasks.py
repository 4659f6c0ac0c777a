"""What a walk computes for a run and a prompt: what the model reads, what it is to predict, and the
loss.

    a GPT                each token of the prompt but the first, from those before
    an encoder-decoder   the tokens of a target, from a source
    a fine-tuned run     the tokens of an answer, from an instruction
    a classifier         the label of a text
    a reward model       nothing: the score of a reply is walked in the place of a loss
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tensor import Tensor, no_grad
from tensor.nn import evaluating
from tinygpt.config import SampleConfig
from tinygpt.data.instructions import end_of, row_of
from tinygpt.data.labels import text_batch
from tinygpt.data.preferences import after_prompts
from tinygpt.errors import InputError
from tinygpt.files import brief
from tinygpt.generation.answers import answers, continued
from tinygpt.ids import EOS, IGNORED, SOS, Ids, SourceTarget
from tinygpt.inside.step.names import quoted
from tinygpt.runs.prompts import prompt_ids
from tinygpt.runs.run import Run
from tinygpt.terminal import command, nearest, number_of, shown
from tinygpt.tokenizers import Tokenizer, word_of
from tinygpt.training.objectives.preferences import scores_of

LIKELIEST = 3  # labels that are told


class Task(NamedTuple):
    """What the model reads, and what it is to predict."""

    x: Any  # ids (1, T), or a SourceTarget
    y: Ids  # (1, T)
    shown: str  # the texts, in one line
    facts: list[str]
    what: str = "loss"  # the number that the walk leads to
    unit: str = "nats a token"

    def compute(self, model: Any) -> Tensor:
        """The loss, or the score."""
        if self.what == "loss":
            loss: Tensor = model.loss(self.x, self.y)
            return loss
        return scores_of(model, self.x, self.y).sum()


def task_of(
    run: Run, model: Any, tokenizer: Tokenizer, prompt: str | None, target: str | None
) -> Task:
    """The task of a run. prompt: by default the opening of its text. target: what is to be
    predicted, by default what the model says itself. Raises InputError for a text that is too
    long, too short, or has unknown tokens.
    """
    if run.kind == "encoder-decoder":
        return _pair(run, model, tokenizer, prompt, target)
    if run.answers:
        return _answer(run, model, tokenizer, prompt, target)
    if run.stage == "reward":
        return _reply(run, model, tokenizer, prompt, target)
    if run.model.labels:
        return _label(run, model, tokenizer, prompt, target)
    if target is not None:
        raise InputError(
            f"--target is for a run that answers, or names a label, and {run.name} predicts the "
            "tokens of the prompt itself\nleave --target out"
        )
    return _text(run, tokenizer, prompt)


def _text(run: Run, tokenizer: Tokenizer, prompt: str | None) -> Task:
    """Each token of a text but the first, from those before."""
    ids = _ids(run, run.model.context + 1, tokenizer, prompt)
    x, y = np.array([ids[:-1]]), np.array([ids[1:]])
    text = shown(repr(tokenizer.decode(ids)))
    task = f"from each of the first {x.size}, predict the one that follows: ids {x.shape}"
    return Task(x, y, text, [f"text     {text}: {len(ids)} tokens", f"task     {task}"])


def _pair(
    run: Run, model: Any, tokenizer: Tokenizer, prompt: str | None, target: str | None
) -> Task:
    """Each token of a target and <eos>, from the source and the tokens of the target before."""
    source, most = prompt_ids(run, tokenizer, prompt), run.model.context

    def write(config: SampleConfig) -> list[int]:
        return answers(model, [source], config)[0]

    ids, why = _target(tokenizer, target, EOS, most, write)
    x = SourceTarget(np.array([source]), np.array([[SOS, *ids[:-1]]]))
    texts = [shown(repr(tokenizer.decode(part))) for part in (source, ids)]
    sizes = f"ids {x.source.shape} and {x.target.shape}"
    facts = [
        f"source   {texts[0]}: {number_of(len(source), 'token')}",
        f"target   {texts[1]}: {number_of(len(ids), 'token')}, {why}; the model reads <sos> first",
        f"task     from the source and the tokens before, predict each of the target: {sizes}",
    ]
    return Task(x, np.array([ids]), " -> ".join(texts), facts)


def _answer(run: Run, model: Any, tokenizer: Any, prompt: str | None, target: str | None) -> Task:
    """Each token of an answer and <|end|>, from the instruction and the tokens of the answer
    before.
    """
    given, context, end = prompt_ids(run, tokenizer, prompt), run.model.context, end_of(tokenizer)
    most = context + 1 - len(given)
    if most < 1:
        raise InputError(
            f"the prompt has {len(given)} tokens, but the model sees {context} at once\n"
            "give a shorter one: --prompt TEXT"
        )

    def write(config: SampleConfig) -> list[int]:
        return continued(model, [given], config, end)[0]

    ids, why = _target(tokenizer, target, end, most, write)
    x, y = (row[None] for row in row_of([(given, ids)]))
    texts = [shown(repr(tokenizer.decode(part))) for part in (given, ids)]
    facts = [
        f"prompt   {texts[0]}: {number_of(len(given), 'token')}, no targets: -1 in y",
        f"answer   {texts[1]}: {number_of(len(ids), 'token')}, {why}",
        f"task     from the prompt and the tokens before, predict the answer: ids {x.shape}",
    ]
    return Task(x, y, " -> ".join(texts), facts)


def _label(
    run: Run, model: Any, tokenizer: Tokenizer, prompt: str | None, target: str | None
) -> Task:
    """The label of a text, at the one token that has seen all of the text."""
    ids, labels = prompt_ids(run, tokenizer, prompt), run.model.labels
    text = run.opening if prompt is None else prompt
    if not text.strip() or len(ids) > run.model.context:
        raise InputError(
            f"'{brief(text)}' has {number_of(len(ids), 'token')}, and {run.name} reads 1 to "
            f"{run.model.context}, its context\ngive another text: --prompt TEXT"
        )
    if target is not None and target not in labels:
        raise InputError(
            f"--target {shown(target)}: no label has that name{nearest(target, labels)}\n"
            f"{run.name} knows {number_of(len(labels), 'label')}: {brief(', '.join(labels))}"
        )
    x, (place,) = text_batch([ids], run.training.base)
    with no_grad(), evaluating():
        p = model(x)[0, int(place)].to(dtype="float64").softmax().numpy()
    likeliest = np.argsort(-p, kind="stable")[:LIKELIEST].tolist()
    number, why = likeliest[0], "the likeliest"
    if target is not None:
        number, why = labels.index(target), "as given"
    y = np.full(x.shape, IGNORED)
    y[0, place] = number
    says = ", ".join(f"{shown(labels[i])} {p[i]:.1%}" for i in likeliest)
    said, at = shown(repr(tokenizer.decode(ids))), quoted(word_of(tokenizer, ids[place]))
    facts = [
        f"text     {said}: {number_of(len(ids), 'token')}",
        f"says     {says}",
        f"task     predict the label '{shown(labels[number])}', {why}, at token {place + 1}, {at}; "
        f"-1 in y elsewhere: ids {x.shape}",
    ]
    return Task(x, y, f"{said} -> {shown(labels[number])}", facts, unit="nats a text")


def _reply(run: Run, model: Any, tokenizer: Any, prompt: str | None, target: str | None) -> Task:
    """The score of a reply, at its last token."""
    if target is None:
        example = command("step", run.folder, "--prompt", "Say hello.", "--target", "Hello.")
        raise InputError(
            f"{run.name} gives a score to a reply, and writes none\ngive one: {example}; or see "
            "how it learns from pairs: --train"
        )
    given, reply = prompt_ids(run, tokenizer, prompt), tokenizer.encode(target)
    ids, targets = after_prompts([(given, [*reply, end_of(tokenizer)])])
    size, context = ids.shape[1], run.model.context
    if size > context:
        raise InputError(
            f"the prompt and the reply have {size} tokens, and {run.name} sees {context} at once\n"
            "give shorter ones: --prompt TEXT --target TEXT"
        )
    with no_grad(), evaluating():
        scores = model(ids).numpy()[0, len(given) :, 0]
    words = [quoted(word_of(tokenizer, i)) for i in ids[0, len(given) :].tolist()]
    each = ", ".join(f"{word} {score:.3f}" for word, score in zip(words, scores, strict=True))
    texts = [shown(repr(tokenizer.decode(part))) for part in (given, reply)]
    facts = [
        f"prompt   {texts[0]}: {number_of(len(given), 'token')}",
        f"reply    {texts[1]}: {number_of(len(words), 'token')} with the end",
        f"at each  {each}",
        f"task     the score at the last token of the reply, which has seen all: ids {ids.shape}",
    ]
    return Task(ids, targets, " -> ".join(texts), facts, "score", "of the reply")


def _target(
    tokenizer: Tokenizer,
    target: str | None,
    end: int,
    most: int,
    write: Callable[[SampleConfig], list[int]],
) -> tuple[list[int], str]:
    """The tokens that are to be predicted, at most so many with the end, and where they are from.
    write: what gives the model's own, without the end.
    """
    ids, why = [], "as given"
    if target is None:
        why = "as the model writes it"
        try:
            ids = write(SampleConfig(length=most, temperature=0))
        except InputError:  # the weights are broken, and a walk shows where
            why = "since its logits are not finite"
    else:
        ids = tokenizer.encode(target)
        if len(ids) >= most:
            raise InputError(
                f"the target has {len(ids)} tokens and {tokenizer.decode([end])}, but the model "
                f"writes {most}, up to its context\ngive one of at most {most - 1}: --target TEXT"
            )
    return [*ids, end][:most], why


def _ids(run: Run, most: int, tokenizer: Tokenizer, prompt: str | None) -> list[int]:
    """The tokens. The model looks at all but the last, which is only predicted."""
    ids = prompt_ids(run, tokenizer, prompt)
    if prompt is None:
        return ids[:most]
    if len(ids) > most:
        raise InputError(
            f"the prompt has {len(ids)} tokens, but the model sees {most - 1}, "
            f"and predicts one more\ngive one of at most {most}: --prompt TEXT"
        )
    if prompt and len(ids) > 1:
        return ids
    problem = "a prompt of one token has no next token to predict"
    if not prompt:
        problem = "the prompt is empty: there is nothing to walk through"
    raise InputError(f"{problem}\ngive it at least two tokens: --prompt TEXT")
