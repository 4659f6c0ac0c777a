"""`tinygpt step --plain`: the forward and the backward pass of a run, op by op, as text; and how a
walk moves.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import tensor
from tests.helpers.program import TINY, contents, put_weights, refused
from tinygpt.__main__ import main
from tinygpt.errors import InputError
from tinygpt.inside.arrays import heat_map, plane, statistics
from tinygpt.inside.step.recorded import How, Session, recorded
from tinygpt.inside.step.walk import Walk
from tinygpt.runs import run as runs

PROMPT = "The cat"


def stepped(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `tinygpt step --plain` prints."""
    assert main(["step", "--plain", *arguments]) == 0
    return capsys.readouterr().out


def session(prompt: str | None = PROMPT, how: How = "reference") -> Session:
    return recorded(*runs.load(runs.find(None)), prompt, how)


def walk(prompt: str | None = PROMPT, how: How = "reference") -> Walk:
    return session(prompt, how).walk


def damaged(run: Path, name: str, place: tuple[int, ...], value: float) -> None:
    """Write one element of a run's weights."""
    weights = load_file(run / "model.safetensors")
    weights[name] = weights[name].copy()
    weights[name][place] = value
    put_weights(run, weights)


# -- the walk as text


def test_every_op_in_order_with_shapes_strides_and_contributions(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same ops, in the order and with the facts that the tape has of this very pass."""
    out = stepped(capsys, "--prompt", PROMPT)
    _, model, tokenizer = runs.load(run)
    ids = tokenizer.encode(PROMPT)
    with tensor.record(implementation="reference") as tape:
        model.loss(np.array([ids[:-1]]), np.array([ids[1:]])).backward()
    heads = re.findall(r"^ *(\d+)/(\d+) (forward|backward) +(.*)$", out, re.MULTILINE)
    entries = [*tape.forwards, *tape.backwards]
    assert [int(number) for number, *_ in heads] == list(range(1, len(entries) + 1))
    assert all(int(count) == len(entries) for _, count, *_ in heads)
    assert [phase for _, _, phase, _ in heads] == ["forward"] * len(tape.forwards) + [
        "backward"
    ] * len(tape.backwards)
    assert [where.replace("  ", ".") for *_, where in heads] == [
        entry.name.removesuffix(".backward") for entry in entries
    ]
    parts = re.split(r"^ *\d+/\d+ (?:forward|backward) .*$", out, flags=re.MULTILINE)[1:]
    for part, entry in zip(parts, entries, strict=True):
        told = " ".join(part.split())
        values = (
            [*entry.inputs, *entry.outputs]
            if entry in tape.forwards
            else [v for v in entry.upstream if v] + [c.value for c in entry.contributions]
        )
        for value in values:
            shape, strides = (
                str(numbers).replace(" ", "") for numbers in (value.shape, value.strides)
            )
            contiguous = "contiguous" if value.contiguous else "not contiguous"
            assert re.search(
                rf"{re.escape(shape)}, strides {re.escape(strides)}( from \d+)?, "
                rf"{contiguous}, {value.dtype}",
                told,
            ), (entry.name, value)
        for c in getattr(entry, "contributions", ()):
            assert f"to {c.to}: {c.number} of {c.count}" in told


def test_node_counts_of_both_ways(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, model, tokenizer = runs.load(run)
    ids = tokenizer.encode(PROMPT)
    nodes = {}
    for how in ("reference", "as run"):
        with tensor.record(implementation=how, values=False) as tape:
            model.loss(np.array([ids[:-1]]), np.array([ids[1:]]))
        nodes[how] = tape.nodes
    assert nodes["as run"] < nodes["reference"] or tensor.kernels.disabled()
    expected = f"{nodes['reference']} nodes op by op, {nodes['as run']} as run"
    assert expected in stepped(capsys, "--prompt", PROMPT)
    assert expected in stepped(capsys, "--prompt", PROMPT, "--as-run")


def test_contributions_add_up_to_the_gradient(run: Path) -> None:
    """The norm of the sum, when the last one has arrived, is that of the parameter's gradient."""
    _, model, tokenizer = runs.load(run)
    ids = tokenizer.encode(PROMPT)
    with tensor.kernels.off():
        model.loss(np.array([ids[:-1]]), np.array([ids[1:]])).backward()
    notes = [seen.note for stop in walk().stops for seen in stop.outputs]
    gradient = model.token_embedding.weight.grad
    assert gradient is not None
    last = next(note for note in notes if note.startswith("to token_embedding.weight: 2 of 2"))
    assert float(last.rpartition(" ")[2]) == pytest.approx(
        np.linalg.norm(gradient.numpy()), rel=1e-3
    )


def test_eighty_columns_however_it_is_asked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--values", "--into"], ["--as-run", "--values"]):
        out = stepped(capsys, *more)
        assert max(map(len, out.splitlines())) <= 80


def test_formula_on_first_use_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = stepped(capsys)
    assert out.count("y = x weight + bias,") == 1
    assert out.count("  linear\n") > 4


def test_only_some_stops(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def heads(pattern: str) -> list[str]:
        return re.findall(r"^ *\d+/\d+ (.*)$", stepped(capsys, "--only", pattern), re.MULTILINE)

    assert all(head.endswith("  linear") for head in heads("linear"))
    assert all(
        "blocks.0.attention" in head and "attention_norm" not in head
        for head in heads("blocks.0.attention")
    )
    assert heads("blocks.*.attention") == heads("blocks.0.attention")
    assert len(heads("loss")) == 2


def test_into_shows_each_line_with_what_it_made(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = stepped(capsys, "--only", "blocks.0.attention.attention*", "--into", "--prompt", PROMPT)
    assert re.search(r"scores = scale \* \(q @ k\.swapaxes.*\n +scores \(1,2,6,6\)", out)
    assert re.search(r"weights = softmax_array.*\n +weights \(1,2,6,6\)", out)
    assert re.search(r"dscores = weights \* .*\n +dscores \(1,2,6,6\)", out)  # its backward too


def test_values_in_numbers_and_maps(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = stepped(capsys, "--only", "loss", "--values", "--prompt", PROMPT)
    _, model, tokenizer = runs.load(run)
    ids = tokenizer.encode(PROMPT)
    with tensor.kernels.off():
        loss = float(model.loss(np.array([ids[:-1]]), np.array([ids[1:]])))
    assert f"value {loss:.4g}" in out
    assert "█ = " in out


@pytest.mark.parametrize(
    "more",
    [
        [
            "--dtype",
            "bfloat16",
            "--norm",
            "post",
            "--positions",
            "sinusoidal",
            "--no-tied",
            "--no-bias",
            "--activation",
            "relu",
        ],
        [
            "--dtype",
            "float16",
            "--recompute",
            "--dropout",
            "0.1",
            "--accumulation",
            "2",
            "--tokenizer",
            "byte",
        ],
    ],
)
def test_every_kind_of_run_can_be_walked_line_by_line(
    more: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Casts, masks, a head of its own, fused ops: nothing stands in the way, nothing is wider than
    it may be.
    """
    assert main(["train", *TINY, *more, "--steps", "2", "--snapshots", "0"]) == 0
    capsys.readouterr()
    for arguments in ([], ["--as-run"], ["--train"], ["--train", "--as-run"]):
        out = stepped(capsys, "--into", "--values", *arguments)
        assert "backward" in out
        assert max(map(len, out.splitlines())) <= 80


# -- what is not finite


def test_who_made_this_nan_a_parameter(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged(run, "blocks.0.feed_forward.expand.weight", (3, 7), np.nan)
    out = stepped(capsys, "--break", "nan")
    assert re.search(r"/\d+ forward  blocks.0.feed_forward  linear\n", out)
    assert "held already by weight, blocks.0.feed_forward.expand.weight: 1 NaN of 256" in " ".join(
        out.split()
    )
    assert (
        "blocks.0.feed_forward.expand.weight (8, 32) holds 1 NaN of 256 "
        "before anything has run, first at [3, 7]" in " ".join(out.split())
    )
    assert "forward  blocks.0.feed_forward_norm" not in out  # the first one alone
    assert stepped(capsys)  # and the whole can be walked


def test_who_made_this_nan_an_op(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Finite weights whose product is too large for float32: that op made it, and it is said so."""
    damaged(run, "blocks.0.attention_norm.gain", (0,), 1e38)
    damaged(run, "blocks.0.attention.qkv.weight", (0, 0), 1e38)
    out = " ".join(stepped(capsys, "--break", "nan").split())
    assert "forward blocks.0.attention.qkv linear" in out
    assert "all its inputs are finite: it is this linear that made it" in out


def test_nothing_is_not_finite(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "halts at nan: all that was made is finite" in stepped(capsys, "--break", "nan")


@pytest.mark.parametrize(
    ("condition", "first"),
    [
        ("op=attention", "blocks.0.attention  attention"),
        ("module=blocks.0.feed_forward", "blocks.0.feed_forward  linear"),
        ("shape=1,2,6,4", "blocks.0.attention  transpose"),
        ("shape=(1, 2, 6, 4)", "blocks.0.attention  transpose"),
    ],
)
def test_breakpoints_print_the_first_stop_in_full(
    condition: str, first: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = stepped(capsys, "--prompt", PROMPT, "--break", condition)
    assert re.findall(r"^ *\d+/\d+ forward  (.*)$", out, re.MULTILINE) == [first]
    assert "min " in out  # with values


# -- moving


def test_next_and_back_visit_the_same_stops(run: Path) -> None:
    w = walk()
    there = [w.stop.name]
    while not w.next():
        there.append(w.stop.name)
    back = [w.stop.name]
    while not w.back():
        back.append(w.stop.name)
    assert len(there) == len(w.stops)
    assert back == there[::-1]


def test_into_goes_line_by_line_and_out_comes_back(run: Path) -> None:
    w = walk()
    w.find("blocks.0.attention.attention")
    assert w.into() == ""
    lines = [w.moment]
    while w.lines and w.line + 1 < len(w.lines):
        w.next()
        lines.append(w.moment)
    assert len(lines) > 10
    assert any(m is not None and "weights" in m.values for m in lines)
    at = w.at
    assert w.out() == ""
    assert (w.at, w.moment) == (at, None)
    w.into()
    w.back()  # out of the first line
    assert (w.at, w.moment) == (at, None)


def test_out_of_a_module_and_on_to_the_next(run: Path) -> None:
    w = walk()
    w.find("blocks.0.attention.qkv")
    w.next()
    assert w.stop.module == "blocks.0.attention"
    w.out()
    assert w.stop.within("blocks.0.attention")
    w.out()
    assert w.stop.module == "blocks.0"
    w.module()
    assert w.stop.module == "blocks.0.feed_forward_norm"
    w.find("backward")
    assert (w.stop.phase, w.stop.module) == ("backward", "loss")
    assert w.stop.inputs[0].note == "backward starts here: dL/dL = 1"


def test_names_lead_to_stops_lines_and_parameters(run: Path) -> None:
    w = walk()
    w.find("blocks.0.attention.weights")
    assert w.moment is not None
    assert w.moment.text.startswith("weights = softmax_array")
    w.find("blocks.0.attention.qkv.bias")
    assert w.stop.module == "blocks.0.attention.qkv"
    w.find("token_embedding.weight.grad")
    first = w.at
    w.find("token_embedding.weight.grad")
    assert {w.stops[first].op, w.stop.op} == {"linear", "embedding"}
    w.find("3")
    assert w.at == 2
    assert {"blocks.0.attention", "blocks.0.attention.weights", "linear"} <= set(w.names())
    with pytest.raises(InputError, match=r"near it: .*blocks\.0\.attention"):
        w.find("blocks.0.atention")
    with pytest.raises(InputError, match="stops 1 to"):
        w.find("0")
    assert w.array("blocks.0.attention.weights").value.shape[1] == 2


def test_continue_halts_at_breakpoints_alone(run: Path) -> None:
    w = walk()
    w.halt_at("op=gelu")
    w.halt_at("op=gelu")
    assert len(w.breaks) == 1
    halts = []
    while not w.resume():
        halts.append((w.stop.phase, w.stop.op))
    assert halts == [("forward", "gelu"), ("backward", "gelu")]
    assert w.at == len(w.stops) - 1
    w.breaks.clear()
    w.go(0)
    assert "no breakpoint" in w.resume()


def test_as_run_has_no_lines_for_a_kernels_backward(run: Path) -> None:
    if tensor.kernels.disabled():
        pytest.skip("kernels are off")
    w = walk(how="as run")
    ran = [stop.ran.op if stop.ran else "" for stop in w.stops]
    fused = [i for i, op in enumerate(ran) if op == "residual_layer_norm"]
    if not fused:
        pytest.skip("no compiled kernels here")
    w.go(fused[0])
    assert w.into() == ""  # forward: the composition it stands for
    w.go(fused[-1])
    assert "no source to step through" in w.into()


# -- values


def test_statistics_of_what_is_finite() -> None:
    facts = statistics(np.array([0.0, 2.0, -4.0, np.nan, np.inf, -np.inf]))
    assert facts[:4] == (6, -4.0, 2.0, pytest.approx(-2 / 3))
    assert (facts.zeros, facts.nans, facts.infinities) == (1, 1, 2)
    assert str(statistics(np.zeros((0, 3)))) == "empty"
    assert "1 NaN" in str(statistics(np.array([np.nan])))
    assert "zeros 50 %" in str(statistics(np.array([0, 7])))


def test_planes_of_the_leading_axes() -> None:
    array = np.arange(24.0).reshape(2, 2, 2, 3)
    found = plane(array, 3)
    assert (found.text, found.planes) == ("[1, 1, :, :]", 4)
    assert np.array_equal(found.values, array[1, 1])
    assert plane(array, -1).text == "[1, 1, :, :]"
    assert plane(np.arange(3.0)).values.shape == (1, 3)
    assert plane(np.float32(2)).values.shape == (1, 1)
    assert plane(np.zeros((2, 0, 3))).values.size == 0


def test_a_map_shows_sign_size_and_what_is_not_finite() -> None:
    drawn = heat_map(np.array([[4.0, -4.0, 0.0, 0.5], [np.nan, np.inf, -np.inf, 2.0]]), 2, 4)
    assert drawn.lines == ["██-█ ·░░", "Na+∞-∞▓▓"]
    assert drawn.largest == 4.0
    pooled = heat_map(np.array([[1.0, -3.0, 0.0, 1.0], [0.0, 2.0, 0.0, np.nan]]), 1, 2)
    assert (pooled.lines, pooled.block) == (["-█Na"], (2, 2))
    assert heat_map(np.zeros((0, 3)), 2, 2).lines == []


# -- bad input


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompt", "The cät"], "is not one of the"),
        (["--prompt", "The cat sat on the mat"], "the prompt has 22 tokens, but the model sees 8"),
        (["--prompt", "T"], "has no next token to predict"),
        (["--prompt", ""], "the prompt is empty"),
        (["--break", "op=sofmax"], "that is no op"),
        (["--break", "op=softmax"], "here a line inside attention computes softmax"),
        (["--break", "op=relu"], "is an op, but not of this walk"),
        (["--break", "module=blocks.0.atention"], "did you mean blocks.0.attention?"),
        (["--break", "shape=a,b"], "whole numbers with commas"),
        (["--break", "first"], "is none of op=NAME"),
        (["--break", "\x1b[2J"], "\\x1b[2J"),
        (["--only", "blocks.7"], "no stop has such an op"),
        (["nowhere"], "no run is named 'nowhere'"),
    ],
)
def test_bad_input_in_two_lines(
    arguments: list[str], says: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, "step", "--plain", *arguments, says=says)


def test_without_a_terminal_it_says_what_to_do(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, "step", says="tinygpt step --plain")
    refused(capsys, "step", "--values", says="give --plain too")


def test_the_opening_is_cut_to_the_context_and_escaped(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents()
    out = stepped(capsys)
    assert "9 tokens" in out
    assert contents() == before
    assert "\x1b" not in out
