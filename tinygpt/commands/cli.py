"""The command line, made from the configuration dataclasses: a field is a flag, its type is the
check, its default is in `--help`.

    layers: int = option(2, "transformer blocks")     ->     --layers N    transformer blocks
    (default: 2)

Each command is a module of tinygpt/commands, imported when it is the one asked for.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tinygpt
from tinygpt.commands import COMMANDS
from tinygpt.commands.names import ABSENT, OF_RUNS, OTHERS
from tinygpt.config.options import KINDS, kinds
from tinygpt.errors import InputError
from tinygpt.terminal import command, nearest, shown

C = TypeVar("C")

LAST = "the last weights, not those with the lowest validation loss"

METAVARS: dict[type, str] = {int: "N", float: "X", str: "NAME"}
WHOLE = {"html": "a page", "npy": "an array"}  # files of these types are no pictures
WRITTEN = "prompt", "stop"  # texts in which \\n is a line end, which is hard to type in a shell


def run(arguments: Sequence[str]) -> int:
    """Find the command, read its flags, run it; its exit code."""
    parser = _top()
    name = parser.parse_args(arguments[:1]).command  # --help and --version end here
    if name is None:
        parser.print_help()
        return 0
    if name not in COMMANDS:
        raise InputError(
            f"no command is named {name!r}{nearest(name, COMMANDS)}\nsee: tinygpt --help"
        )
    options = parser_of(name).parse_args(arguments[1:])
    import numpy as np  # the commands need NumPy, the list of them does not

    # what is not finite is an error of the command, in words
    with np.errstate(all="ignore"):
        return int(_module(name).run(options))


def _module(name: str) -> Any:
    return importlib.import_module("tinygpt.commands." + name.replace("-", "_"))


def parser_of(name: str) -> Parser:
    """What reads the flags of a command."""
    module = _module(name)
    parser = Parser(
        prog=f"tinygpt {name}",
        description=module.__doc__,
        allow_abbrev=False,
        formatter_class=Paragraphs,
    )
    module.arguments(parser)
    return parser


def _top() -> Parser:
    commands = "\n".join(f"  {name:<14}{summary}" for name, summary in COMMANDS.items())
    parser = Parser(
        prog="tinygpt",
        usage="tinygpt COMMAND [flags]",
        description="A GPT from first principles, small enough to read.",
        epilog=f"commands:\n{commands}\n\n`tinygpt COMMAND --help` lists the flags of one; "
        "start with `tinygpt train`.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS, metavar="COMMAND")
    parser.add_argument("--version", action="version", version=f"tinygpt {tinygpt.__version__}")
    return parser


class Paragraphs(argparse.HelpFormatter):
    """Help in which an empty line stays one, and each paragraph is filled to the width of the
    terminal.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            super(Paragraphs, self)._fill_text(paragraph, width, indent)
            for paragraph in text.split("\n\n")
        )


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises InputError instead of exiting, and knows the flag that a
    misspelt one, or one of another program, stands for.
    """

    words: Sequence[str] = ()

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.words = args
        options, unknown = self.parse_known_args(args, namespace)
        self._check_known(unknown)
        if unknown:
            raise InputError(f"{unknown[0]!r} is one word too many\n{self._place_of(unknown[0])}")
        return options

    def _place_of(self, word: str) -> str:
        """Where a word may belong that no flag is before: a text, a prompt, or nowhere."""
        name = self.prog.partition(" ")[2]
        if name == "plan" and any(Path(folder, word).is_dir() for folder in ("runs", ".")):
            return f"what starts from a run has a flag: {command('finetune', word, '--plan')}"
        if "--text" in self.flags and os.path.exists(word):
            return f"a text is named by a flag: {command(name, '--text', word)}"
        if "--prompt" in self.flags:
            return f"a prompt is given by a flag: {command(name, '--prompt', word)}"
        return f"see: {self.prog} --help"

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Of a flag that is followed by `--` argparse makes an empty list."""
        value = super()._get_values(action, arg_strings)
        if action.nargs is None and isinstance(value, list):
            raise argparse.ArgumentError(action, "expected one argument")
        return value

    def _check_known(self, words: Iterable[str]) -> None:
        """Raise InputError for the first flag among these words that does not exist."""
        for word in words:
            name = word.split("=")[0]
            if name.startswith("-") and name not in self._option_string_actions:
                raise InputError(
                    f"no flag is named {shown(name)}{self._meant(name)}\nsee: {self.prog} --help"
                )

    def _meant(self, name: str) -> str:
        """What a flag that does not exist is here: `; did you mean --lr?` for --learning-rate,
        --learning_rate and --lrr.
        """
        known, theirs = self._option_string_actions, name.replace("_", "-")
        if any(flag.startswith(theirs) for flag in known):
            return f"; did you mean {theirs}?" if theirs in known else nearest(theirs, known)
        ours = OTHERS.get(theirs, theirs)
        if ours in known:
            return f"; did you mean {ours}?"
        if theirs in ABSENT:
            return f": {ABSENT[theirs]}"
        if theirs in OF_RUNS and any(action.dest == "run" for action in self._actions):
            return f": a run is named without a flag, {self.prog} RUN"
        having = [other for other in COMMANDS if ours in parser_of(other).flags]
        return f"; tinygpt {having[0]} has {ours}" if having else nearest(theirs, known)

    @property
    def flags(self) -> Collection[str]:
        """All flags that the command has."""
        return self._option_string_actions

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required"):
            # the missing one may be there under another name
            self._check_known(word for word in self.words if word.startswith("--") and word[2:])
        message = message.removeprefix("argument ")
        how = f"see: {self.prog} --help"
        name, _, problem = message.partition(": ")
        if problem == "expected one argument" and (value := self._value_after(name)):
            message = f"{name}: {value!r} looks like a flag, since it begins with -"
            how = f"join the two: {shlex.quote(f'{name}={value}')}"
        raise InputError(f"{shown(message)}\n{shown(how)}")

    def _value_after(self, name: str) -> str:
        """The word after a flag, if it is no flag itself: `-x` of `--prompt -x`."""
        if name not in self.words:
            return ""
        following = [*self.words, ""][self.words.index(name) + 1]
        return "" if following.split("=")[0] in self._option_string_actions else following


def add_run(
    parser: argparse.ArgumentParser, which: argparse._ActionsContainer | None = None
) -> None:
    """RUN, and which of its weights. which: the group of flags that `--last` belongs to."""
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        help="a name in runs/ or the path of a run folder (default: the run saved last)",
    )
    (which or parser).add_argument("--last", action="store_true", help=LAST)


def add_device(parser: argparse._ActionsContainer) -> None:
    """--device, the CPU if not given."""
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:N (default: cpu)"
    )


def add_described(parser: argparse._ActionsContainer, flags: Mapping[str, str]) -> None:
    """Flags and their help. A flag with a word behind it takes a value."""
    for flag, text in flags.items():
        name, _, value = flag.partition(" ")
        if value:
            kind = unescaped if name.removeprefix("--") in WRITTEN else str
            parser.add_argument(name, metavar=value, type=kind, help=text)
        else:
            parser.add_argument(name, action="store_true", help=text)


def output_path(command: str, flag: str, text: str, types: Sequence[str]) -> Path:
    """The path of a file to write. InputError where its name has none of these types, or its folder
    is missing.
    """
    path = Path(text)
    if path.suffix[1:].lower() not in types:
        what = next((what for kind, what in WHOLE.items() if kind in types), "a picture")
        *others, last = (f".{kind}" for kind in types)
        ends = f"{', '.join(others)} or {last}" if others else last
        raise InputError(
            f"--{flag} {shown(path)}: {what}'s name ends in {ends}\nsee: tinygpt {command} --help"
        )
    if path.is_dir() or not path.parent.is_dir():
        why = "it is a folder" if path.is_dir() else "there is no such folder"
        raise InputError(f"cannot write to {shown(path)} ({why})\nname another file: --{flag} FILE")
    return path


# -- dataclass -> flags -> dataclass


def add_flags(
    parser: argparse.ArgumentParser,
    config: type,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> None:
    """A flag for each field that has a default, or for those of `only`, but none for those of
    `without`; one without a default (the vocabulary) follows from the text.

    What is not given stays out of the parsed options, so that the default has one home, the
    dataclass.
    """
    group: argparse._ActionsContainer = parser
    if only is None:
        summary = " ".join((config.__doc__ or "").split("\n\n")[0].split())
        group = parser.add_argument_group(config.__name__, summary)
    for field in _choosable(config):
        if field.name in without or (only is not None and field.name not in only):
            continue
        kind, choices, _ = kinds(config)[field.name]
        text = field.metadata["help"].replace("%", "%%")
        if field.default is not None:
            text += f" (default: {field.default})"
        options: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": text}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif choices:
            options["choices"], name = choices, field.metadata["metavar"]
            if name:  # they are too many for the line of usage
                options |= {"metavar": name, "help": f"{', '.join(choices)}: {text}"}
        else:
            options["type"] = unescaped if field.name in WRITTEN else reader(kind)
            options["metavar"] = field.metadata["metavar"] or METAVARS[kind]
        group.add_argument(flag(field.name), **options)


def read_config(config: type[C], options: argparse.Namespace, **given: Any) -> C:
    """The dataclass of what was given on the command line and what the caller knows. Raises
    InputError, naming the flag.
    """
    names = {field.name for field in _choosable(config)}
    values = {name: value for name, value in vars(options).items() if name in names}
    try:
        return config(**values, **given)
    except ValueError as error:
        name, space, rest = str(error).partition(" ")
        message = f"{flag(name)}{space}{rest}" if name in names else str(error)
        raise InputError(message) from None


def flag(name: str) -> str:
    """top_k -> --top-k"""
    return "--" + name.replace("_", "-")


def _choosable(config: type) -> list[Field[Any]]:
    return [field for field in fields(config) if field.default is not MISSING]


def unescaped(text: str) -> str:
    r"""The text with a line end in place of each \n."""
    return text.replace("\\n", "\n")


def reader(kind: type) -> Callable[[str], Any]:
    """The type with an error that says what was expected."""

    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {KINDS[kind][1]}") from None

    return read
