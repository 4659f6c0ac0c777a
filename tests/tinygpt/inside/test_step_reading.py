"""How `tinygpt step --plain` reads: names of tokens, what stands for what, counts, encodings, and
what is refused.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import tensor
from tests.helpers.program import TINY, refused
from tests.tinygpt.inside.test_step import PROMPT, damaged, session, stepped, walk
from tinygpt.__main__ import main
from tinygpt.errors import InputError
from tinygpt.inside import arrays
from tinygpt.inside.arrays import heat_map, plane
from tinygpt.inside.step import panes, picture
from tinygpt.inside.step.names import Names, frame
from tinygpt.inside.step.training import trained
from tinygpt.runs import run as runs
from tinygpt.training import jobs

# -- halting and finding


def test_only_the_breakpoints_that_are_met_are_named(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--prompt",
        PROMPT,
        "--break",
        "shape=1,6,32",
        "--break",
        "nan",
        "--break",
        "op=gelu",
    ]
    assert re.findall("^halted at (.*)$", stepped(capsys, *arguments), re.MULTILINE) == [
        "shape=1,6,32"
    ]
    damaged(run, "blocks.0.feed_forward.expand.weight", (3, 7), np.nan)
    assert re.findall("^halted at (.*)$", stepped(capsys, *arguments), re.MULTILINE) == [
        "shape=1,6,32, nan"
    ]


def test_the_end_of_a_name_is_enough(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    w = walk()
    w.find("weights")
    assert w.moment is not None
    assert w.moment.text.startswith("weights = softmax_array")
    w.find("attention.qkv")
    assert w.stop.module == "blocks.0.attention.qkv"
    w.find("attention.dscores")
    assert (w.stop.phase, w.stop.op) == ("backward", "attention")
    for name in ("qkv", "attention.qkv"):
        heads = re.findall(r"^ *\d+/\d+ (.*)$", stepped(capsys, "--only", name), re.MULTILINE)
        assert heads == [
            "forward  blocks.0.attention.qkv  linear",
            "backward blocks.0.attention.qkv  linear",
        ]
    # what is called so comes first: the op
    assert "linear" not in stepped(capsys, "--only", "attention")


def test_phases_are_names(run: Path) -> None:
    w = trained(jobs.reopened(None), "reference")[0].walk
    for phase in ("clip", "update", "backward", "forward"):
        w.find(phase)
        assert w.stop.phase == phase
        assert all(stop.phase != phase for stop in w.stops[: w.at])
    with pytest.raises(InputError, match="this walk has no clip: a step of training has one"):
        walk().find("clip")


def test_a_watched_name_takes_a_place(run: Path) -> None:
    w = walk()
    whole = w.array("blocks.0.attention.weights").value.array
    assert np.array_equal(w.array("blocks.0.attention.weights[0, 1]").value.array, whole[0, 1])
    with pytest.raises(InputError, match=r"has shape \(1, 2, 6, 6\)"):
        w.array("blocks.0.attention.weights[0,2]")
    with pytest.raises(InputError, match="nothing in this recording is named"):
        w.array("blocks.0.attention.waits")


# -- what is said


def test_counts_are_those_of_the_stops(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = len(list(runs.load(run)[1].parameters()))
    for arguments, more in (
        ([], ""),
        (["--train", "--weight", "final_norm.bias"], ", 1 clip, 1 update"),
        (["--train"], f", 1 clip, {count} updates"),
    ):
        out = stepped(capsys, *arguments)
        total, forward, backward, rest = re.findall(
            r"^walk     (\d+) stops: (\d+) forward, (\d+) backward(.*)$", out, re.MULTILINE
        )[0]
        assert rest == more
        assert int(total) == int(forward) + int(backward) + (
            0 if not more else 2 if more.endswith("update") else 1 + count
        )
        assert set(re.findall(r"^ *\d+/(\d+) ", out, re.MULTILINE)) == {total}


def test_clipping_has_what_goes_in_and_what_comes_out(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = " ".join(
        stepped(capsys, "--train", "--weight", "final_norm.bias", "--only", "clip").split()
    )
    assert re.search(
        r"in gradient \(8,\), .* of final_norm\.bias, as backward left it, norm \S+ out g \(8,\)",
        out,
    )


def test_why_there_is_no_kernel(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if tensor.kernels.disabled():
        pytest.skip("kernels are off")
    out = " ".join(stepped(capsys, "--only", "loss").split())
    assert "by reference: walked op by op; --as-run shows the kernel" in out
    assert "kernels are off" not in out


def test_a_kernels_lines_are_those_of_its_reference(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "the reference of this kernel, line by line"
    assert said not in stepped(capsys, "--into")
    if not any(stop.stands_in for stop in walk(how="as run").stops):
        pytest.skip("no kernels here")
    assert said in stepped(capsys, "--into", "--as-run")


def test_as_run_says_where_an_array_would_be(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if tensor.kernels.disabled():
        pytest.skip("kernels are off")
    refused(
        capsys,
        "step",
        "--plain",
        "--as-run",
        "--show",
        "blocks.0.attention.waits",
        says="fused ops make fewer arrays: leave out --as-run",
    )


def test_what_is_cut_is_marked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = stepped(capsys, "--into", "--only", "linear", "--prompt", PROMPT)
    cut = [line for line in out.splitlines() if re.match(r" +\d+  def linear\(", line)]
    assert cut
    assert all(line.endswith("…") and len(line) == 80 for line in cut)


def test_a_line_end_is_escaped_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.txt").write_text("a\nb\x1b[2J\n" * 30)
    assert main(["train", *TINY, "--text", "text.txt", "--steps", "1"]) == 0
    capsys.readouterr()
    assert r"text     'a\nb\x1b[2J': 7 tokens" in stepped(capsys, "--prompt", "a\nb\x1b[2J")
    assert r"'a\nb' · loss" in session("a\nb").title


# -- names of tokens


def test_logits_name_the_likeliest_next_tokens(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = stepped(capsys, "--prompt", PROMPT, "--show", "logits").splitlines()[-6:]
    _, model, tokenizer = runs.load(run)
    with tensor.no_grad():
        p = tensor.softmax(model([tokenizer.encode("The ca")]), -1).numpy()[0]
    for token, row, line in zip("The ca", p, lines, strict=True):
        best = np.argsort(-row)[:5]
        assert line.startswith(f"{token!r}  ")
        assert re.findall(r"('.') ([\d.]+)", line[5:]) == [
            (repr(tokenizer.decode([int(i)])), f"{row[i]:.3f}") for i in best
        ]
    assert "likeliest" not in stepped(capsys, "--prompt", PROMPT, "--show", "logits.grad")


def test_the_table_of_tokens_is_named_by_them(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, model, tokenizer = runs.load(run)
    for name in ("token_embedding.weight", "token_embedding.weight.grad"):
        lines = stepped(capsys, "--prompt", PROMPT, "--show", name).splitlines()[
            -model.config.vocabulary :
        ]
        assert [line[:3] for line in lines] == [
            repr(tokenizer.decode([i])) for i in range(model.config.vocabulary)
        ]


def test_which_axes_have_tokens() -> None:
    names = Names(("a", " b", "\n", "d"), (), 7, lambda i: f"t{i}", frozenset({8, 16}))
    four = ["'a'", "' b'", r"'\n'", "'d'"]
    assert names.of("blocks.0.attention.weights", (1, 2, 4, 4)) == (four, four)
    assert names.of("blocks.0.attention.y", (1, 4, 16)) == (four, [])
    assert names.of("ids", (1, 4)) == ([], four)
    assert names.of("blocks.0.attention.qkv.weight", (4, 4)) == ([], [])
    assert names.of("loss", ()) == ([], [])
    assert names.of("token_embedding.weight.grad", (7, 16))[0] == [f"'t{i}'" for i in range(7)]
    assert Names().of("x", (4, 4)) == ([], [])
    # four tokens, and heads that are four wide
    ambiguous = Names(names.tokens, (), 7, str, frozenset({4}))
    assert ambiguous.of("q", (1, 2, 4, 4)) == (four, [])
    assert ambiguous.of("blocks.0.attention.weights[0, 1]", (4, 4)) == (four, four)


def test_names_stand_beside_a_map_of_single_cells() -> None:
    rows = ["'a'", "' bcdefghijk'"]
    top, lefts = frame(heat_map(np.ones((2, 2)), 2, 2), rows, rows)
    assert lefts == ["       'a' ", "' bcdefghi "]
    assert top == " " * 11 + "a ␣b"
    assert frame(heat_map(np.ones((2, 2)), 1, 1), rows, rows) == ("", [""])
    assert frame(heat_map(np.ones((1, 2)), 1, 2), [], ["'漢字'", "'字'"]) == ("漢字", [""])


def test_a_picture_has_names_and_a_legal_one_itself(tmp_path: Path) -> None:
    array = np.ones((1, 2, 3, 3))
    path = picture.draw(
        plane(array, 1),
        "blocks.0.attention.view#2.y",
        tmp_path,
        ["'a'", "'$'", "'漢'"],
        ["'a'", "' '", "'c'"],
    )
    assert path.name == "step-blocks.0.attention.view#2.y[0,1].png"
    assert (
        path.read_bytes()
        != picture.draw(plane(array, 1), "blocks.0.attention.view#2.y", tmp_path).read_bytes()
    )
    assert picture.draw(plane(array[0, 0]), "a/b:c", tmp_path).name == "step-a-b-c.png"


# -- the source, at first look


def test_the_source_begins_below_the_checks(run: Path) -> None:
    w = walk()
    for name, first in (
        ("blocks.0.attention_norm", "centred ="),
        ("blocks.0.attention.qkv", "matrix ="),
        ("loss", "if weight is not None"),
    ):
        w.find(name)
        assert (
            panes.source(w, panes.View(), 80, 3)
            .plain.splitlines()[0]
            .split(maxsplit=2)[2]
            .startswith(first)
        )
    view = panes.View(source=-2)
    assert "_check_targets(" in panes.source(w, view, 80, 3).plain
    view.source = 999
    panes.source(w, view, 80, 3)
    assert view.source < 100  # as far as there is source


@pytest.mark.parametrize("height", [5, 17])
def test_the_line_that_works_is_in_sight_and_marked(height: int, run: Path) -> None:
    """Forward it is no line of the gradient, at 80 x 24 too; backward it is one."""
    w = walk()
    for number, stop in enumerate(w.stops):
        w.go(number)
        lines = panes.source(w, panes.View(), 56, height).plain.splitlines()
        marked = [i for i, line in enumerate(lines) if line.startswith("➤")]
        if "no source" in lines[0]:
            continue
        assert len(marked) == 1, stop.name
        text, found = lines[marked[0]], stop.source()
        at = int(text[1:].split()[0]) - found.first
        depth = len(text[7:]) - len(text[7:].lstrip())
        forward = depth == 4 and "def " not in text
        assert forward or stop.phase == "backward" or not at, (stop.name, text)


# -- encodings


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_plain_characters_where_there_are_no_others(
    encoding: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(
        sys, "stdout", io.TextIOWrapper(buffer, encoding=encoding, errors="backslashreplace")
    )
    assert main(["step", "--plain", "--values", "--into", "--prompt", PROMPT]) == 0
    sys.stdout.flush()
    out = buffer.getvalue().decode(encoding)
    assert "\\u" not in out
    assert "# = " in out
    assert re.search(r"^ +(##|%%|\+\+|::| \.|-[#%+:])+$", out, re.MULTILINE)


def test_blocks_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arrays.written("░▒▓█·") in ("░▒▓█·", ":+%#.")
    monkeypatch.setattr(arrays, "is_plain", lambda: True)
    assert arrays.written("-░▒▒ ·+∞…") == "-:++ .+I~"


# -- refused


def test_show_goes_with_nothing_that_prints_stops(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in (["--into"], ["--values"], ["--break", "nan"], ["--only", "linear"]):
        refused(
            capsys,
            "step",
            "--plain",
            "--show",
            "loss",
            *more,
            says=f"--show prints one array, {more[0]} is for stops",
        )


def test_the_run_is_missed_before_the_terminal(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, "step", "nope-1", says="no run is named 'nope-1'")
    monkeypatch.setenv("TERM", "dumb")
    refused(capsys, "step", says="tinygpt step --plain")
