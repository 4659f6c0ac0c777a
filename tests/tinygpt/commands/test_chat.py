"""`tinygpt chat`: questions from a pipe and from a terminal.   Tests: commands/chat.py"""

from __future__ import annotations

import builtins
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.program import refused, sampled
from tinygpt.__main__ import main
from tinygpt.generation.chat import Conversation

pytestmark = pytest.mark.usefixtures("here")  # `refused` reads all files of the working folder


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What gives bytes to standard input."""

    def give(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "ascii"))

    return give


def test_questions_of_a_pipe(
    answering: Path, pipe: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """An answer a line. The context of 48 bytes is soon full, and that is said once."""
    run = str(answering)
    lines = ["say red", "", "say two", "/reset", "say owl", *["say cat"] * 4, "/quit"]
    lines += ["say six"]
    pipe("\r\n".join(lines).encode())
    assert main(["chat", run, "--remember"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "red"
    assert out.splitlines()[2] == "owl"
    assert len(out.splitlines()) == 7
    assert err == "the context of 48 tokens is full: the oldest turns are forgotten\n"
    prompt = "as it is\nsay two"
    draws = ["--temperature", "1.5", "--seed", "4", "--length", "9"]
    pipe(b"\xef\xbb\xbfas it is\\nsay two\n/reset\nas it is\\nsay two")  # a byte order mark first
    assert main(["chat", run, *draws]) == 0
    answer = capsys.readouterr().out
    assert prompt + "\n" + answer[: len(answer) // 2] == sampled(
        capsys, run, "--prompt", prompt, *draws
    )
    assert answer[: len(answer) // 2] == answer[len(answer) // 2 :]


def test_questions_by_themselves(
    answering: Path, pipe: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that learned one example a row sees one question, unless it is told to remember."""
    words = ["red", "blue", "owl", "dog", "one", "ten", "red", "cat"]
    asked = "\n".join(f"say {word}" for word in words).encode()
    found = []
    for more in ([], ["--no-remember"], ["--remember"]):
        pipe(asked)
        assert main(["chat", str(answering), *more]) == 0
        found.append(capsys.readouterr())
    assert found[0].out.split() == words
    assert found[1] == found[0]
    assert found[2].out != found[0].out
    assert [bool(each.err) for each in found] == [False, False, True]


def test_control_characters_are_escaped(
    answering: Path, pipe: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Conversation, "ask", lambda self, prompt: iter([*b"\x1b[2J\xc3\xa9"]))
    monkeypatch.setattr("tinygpt.commands.chat.end_tokens", lambda tokenizer: [])
    pipe(b"say \x1b[2J\n")
    assert main(["chat", str(answering)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b" in out or "\\x18" in out


def test_what_cannot_be(
    answering: Path, trained: Path, pipe: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for data, says in (
        (b"say " + b"x" * 45, "line 1 of standard input: the question has 51 tokens"),
        (b"\n/rest\n", "line 2 of standard input: no command is named /rest"),
        (b"say \xff", "half of a surrogate pair"),
        (b"x" * (1 << 20), "tokens, and the model sees 48"),
    ):
        pipe(data)
        assert main(["chat", str(answering)]) == 2
        out, err = capsys.readouterr()
        assert says in err
        assert err.count("\n") in (1, 2)
        assert out in ("", "\n")
    says = "has learned to go on with a text, not to answer"
    refused(capsys, "chat", str(answering.parent / "base"), says=says)
    refused(capsys, "chat", str(answering), "--beam", "2", says="no flag is named --beam")
    pipe(b"")
    assert main(["chat", str(answering)]) == 0


def test_a_terminal(
    answering: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C stops an answer, and gives up a question; errors are said; Ctrl-D ends."""
    typed = iter(["say blue", KeyboardInterrupt, "/rest", "/reset", "say red", EOFError])

    def give(prompt: str) -> str:
        line = next(typed)
        if isinstance(line, str):
            return line
        raise line

    ask, asked = Conversation.ask, list[int]()

    def interrupted(self: Conversation, prompt: list[int]) -> Iterator[int]:
        """The first answer is stopped after two tokens."""
        asked.append(len(self.turns))
        for number, token in enumerate(ask(self, prompt)):
            if number == 2 and len(asked) == 1:
                raise KeyboardInterrupt
            yield token

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(builtins, "input", give)
    monkeypatch.setattr(Conversation, "ask", interrupted)
    assert main(["chat", str(answering)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "each question by itself" in out[0]
    assert "Ctrl-C stops an answer" in out[1]
    rest = ["no command is named /rest", "there are /reset and /quit", "red", ""]
    assert out[2:] == ["bl", "", *rest]
    assert asked == [0, 0]
