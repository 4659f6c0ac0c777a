"""Talk with a fine-tuned GPT: `tinygpt chat RUN` reads a question a line, and writes the answer
token by token.

A run that learned conversations (the built-in questions, or --packing) sees the earlier questions
and answers too. Any other run learned from one question at a time, and so each question is answered
by itself.

In a line \\n is a line end: a text stands before it, and the question about the text after it.
Ctrl-C stops an answer, /reset begins anew, Ctrl-D or /quit ends. A pipe as standard input works as
well: then an answer a line is printed, and nothing else. Answers are of likeliest tokens, unless a
flag for draws is given.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from io import TextIOWrapper
from typing import Any, cast

from tinygpt.commands.cli import Parser, add_flags, add_run, read_config, unescaped
from tinygpt.commands.sample import DRAWS
from tinygpt.config import SampleConfig
from tinygpt.data.instructions import end_of
from tinygpt.errors import InputError
from tinygpt.generation.chat import Conversation
from tinygpt.generation.text import Continuation
from tinygpt.runs import run as runs
from tinygpt.runs.prompts import prompt_ids
from tinygpt.runs.run import Run
from tinygpt.terminal import brief, command, say, shown, visible
from tinygpt.tokenizers import end_tokens

RESET, QUIT = "/reset", "/quit"
LONGEST = 1 << 16  # characters of a line of a pipe
ALONE = "each question by itself: --remember shows it the earlier ones as well"
HOW = f"Ctrl-C stops an answer, {RESET} begins anew, Ctrl-D or {QUIT} ends; \\n is a line end"


def arguments(parser: Parser) -> None:
    """The run, and how freely it answers."""
    add_run(parser)
    parser.add_argument(
        "--remember",
        action=argparse.BooleanOptionalAction,
        help="the model sees the earlier questions and answers (default: if the run learned "
        "conversations)",
    )
    add_flags(parser, SampleConfig, only=("length", *DRAWS))


def run(options: argparse.Namespace) -> int:
    """Load the run, answer question after question."""
    drawn = any(hasattr(options, name) for name in DRAWS)
    config = read_config(SampleConfig, options, **{} if drawn else {"temperature": 0})
    run, model, tokenizer = runs.load(runs.find(options.run), best=not options.last)
    runs.check_kind(run, "chat", "gpt")
    _check_stage(run)
    asked = sys.stdin.isatty() and sys.stdout.isatty()
    remember = run.training.conversations if options.remember is None else options.remember
    if asked:
        how = "and sees the earlier questions as well" if remember else ALONE
        say(f"{run.name} answers {how}\n{HOW}")
    chat = Chat(run, model, tokenizer, config, remember)
    for number, line in enumerate(_typed() if asked else _piped(), 1):
        if line.strip() == QUIT:
            break
        try:
            chat.take(line)
        except KeyboardInterrupt:
            if not asked:
                raise
        except InputError as error:
            if not asked:
                raise InputError(f"line {number:,} of standard input: {error}") from None
            say(brief(str(error)))
    return 0


def _check_stage(run: Run) -> None:
    """Raise InputError where the run has not learned to answer."""
    if not run.answers:
        raise InputError(
            f"{run.name} has learned to go on with a text, not to answer\n"
            f"teach it: {command('finetune', run.folder)}; or let it go on with a text: "
            f"{command('sample', run.folder)}"
        )


class Chat:
    """A conversation on the terminal."""

    def __init__(self, run: Run, model: Any, tokenizer: Any, config: SampleConfig, remember: bool):
        self.run, self.model, self.tokenizer, self.config = run, model, tokenizer, config
        self.alone = not remember
        self.begin()

    def begin(self) -> None:
        """Forget all, and draw as at the start."""
        end, ends = end_of(self.tokenizer), end_tokens(self.tokenizer)
        self.conversation = Conversation(self.model, self.config, end, ends, self.alone)

    def take(self, line: str) -> None:
        """Do what a line says, or answer the line."""
        word = line.strip()
        if word == RESET:
            self.begin()
        elif word.startswith("/") and len(word.split()) == 1:
            raise InputError(f"no command is named {shown(word)}\nthere are {RESET} and {QUIT}")
        elif word:
            self.answer(prompt_ids(self.run, self.tokenizer, unescaped(line)))

    def answer(self, prompt: list[int]) -> None:
        """Print the answer, each token as soon as it is drawn; on stderr, that the context is full
        for the first time.
        """
        conversation, text = self.conversation, Continuation(self.tokenizer)
        before = conversation.forgotten
        try:
            for token in conversation.ask(prompt):
                say(visible(text.add(token)), end="")
            say(visible(text.rest()), end="")
        finally:
            say()  # an error is printed on a line of its own
        if not before and conversation.forgotten:
            context = conversation.model.context
            full = f"the context of {context} tokens is full: the oldest turns are forgotten"
            print(full, file=sys.stderr, flush=True)


def _typed() -> Iterator[str]:
    """The lines that are typed, up to Ctrl-D. Ctrl-C gives a new line."""
    with contextlib.suppress(ImportError):  # not on Windows
        import readline  # noqa: F401 (`input` then edits the line, and keeps a history)
    _read_as(None)
    while True:
        try:
            yield input("> ")
        except KeyboardInterrupt:
            say()
        except EOFError:
            say()
            return


def _piped() -> Iterator[str]:
    """The lines of standard input, in UTF-8."""
    _read_as("utf-8-sig")
    while line := sys.stdin.readline(LONGEST):
        yield line.removesuffix("\n")


def _read_as(encoding: str | None) -> None:
    """Read standard input in an encoding, by default its own. A byte that is no text stays as half
    of a surrogate pair, which a tokenizer refuses in words.
    """
    cast("TextIOWrapper", sys.stdin).reconfigure(encoding=encoding, errors="surrogateescape")
