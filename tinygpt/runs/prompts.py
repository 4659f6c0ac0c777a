"""The tokens that a run's model is given to begin with."""

from __future__ import annotations

from tinygpt.data.instructions import prompt_of
from tinygpt.data.labels import text_ids
from tinygpt.errors import InputError
from tinygpt.files import brief
from tinygpt.runs.run import Run
from tinygpt.terminal import number_of
from tinygpt.tokenizers import SpecialTokenizer, Tokenizer


def prompt_ids(run: Run, tokenizer: Tokenizer, prompt: str | None) -> list[int]:
    """The tokens of a prompt, after the run's separator; as an instruction, of a run that answers
    and of one that scores answers. None: the opening of what it learned from.

    Raises InputError where the prompt is the source of an encoder-decoder, which has to read all of
    it, and does not fit the context.
    """
    text = run.opening if prompt is None else prompt
    if run.answers or run.stage == "reward":
        assert isinstance(tokenizer, SpecialTokenizer)
        return prompt_of(tokenizer, text)
    if run.model.labels:
        return text_ids(tokenizer, text, run.training.base)
    ids, most = tokenizer.encode(run.separator + text), run.model.context
    if run.kind == "encoder-decoder" and not 0 < len(ids) <= most:
        raise InputError(
            f"'{brief(text)}' has {number_of(len(ids), tokenizer.unit)}, and {run.name} reads 1 to "
            f"{most}, its context\ngive another prompt, or train with a larger --context"
        )
    return ids
