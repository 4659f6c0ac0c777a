"""`tinygpt inspect`: what is shown is what there is, adds up, and fits 80 columns."""

from __future__ import annotations

import json
import math
import os
import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

import tensor
from tensor.random import Generator
from tests.helpers.program import PROGRAM, environment, put_weights, refused
from tinygpt import GPT, GPTConfig, TrainConfig
from tinygpt.__main__ import main
from tinygpt.commands.inspect import graph_view, matrix_view
from tinygpt.config import EncoderDecoderConfig, ModelConfig
from tinygpt.inside.arrays import heat_map, statistics
from tinygpt.inside.weights import matrices, shares, tree
from tinygpt.model.encoder_decoder import EncoderDecoder
from tinygpt.model.sizes import parameter_count
from tinygpt.runs.run import Run

pytestmark = pytest.mark.usefixtures("here")  # `refused` reads all files of the working folder

SMALL = GPTConfig(11, context=5, width=6, heads=2, layers=3)
KINDS = [
    replace(SMALL, positions=positions, norm=norm, bias=bias, tied=tied)  # type: ignore[arg-type]
    for positions, norm, bias, tied in product(
        ("learned", "sinusoidal"), ("pre", "post"), (True, False), (True, False)
    )
]


PAIRS = [
    EncoderDecoderConfig(11, context=5, width=6, heads=2, layers=3, norm=norm, bias=norm == "pre")
    for norm in ("pre", "post")  # type: ignore[arg-type]
]


def view(config: GPTConfig) -> str:
    return "\n".join(
        graph_view(
            Run(config, TrainConfig(), "", folder=Path("runs/one")), GPT(config, draw=False), "last"
        )
    )


def inspected(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["inspect", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    return out


# -- what there is


@pytest.mark.parametrize("config", [*KINDS, *PAIRS], ids=str)
def test_every_array_once_and_all_add_up(config: ModelConfig) -> None:
    kind = EncoderDecoder if isinstance(config, EncoderDecoderConfig) else GPT
    model = kind(config, generator=Generator(0))
    found = {matrix.name: matrix for matrix in matrices(model)}
    assert len(found) == len(matrices(model))
    assert {name for name, matrix in found.items() if matrix.learned} == {
        name for name, _ in model.named_parameters()
    }
    assert [name for name, matrix in found.items() if not matrix.learned] == [
        "position_embedding"
    ] * (config.positions == "sinusoidal")
    for name, parameter in model.named_parameters():
        matrix = found[name]
        assert (matrix.shape, matrix.strides, matrix.numbers) == (
            parameter.shape,
            parameter.strides,
            parameter.size,
        )
        assert matrix.bytes == parameter.array.nbytes
    root = tree(model)
    assert root.numbers == parameter_count(config) == sum(share.numbers for share in shares(model))
    assert root.bytes == 4 * root.numbers
    assert sum(share.share for share in shares(model)) == pytest.approx(1)


def test_parts_by_formula() -> None:
    V, T, C, L = 11, 5, 6, 3
    found = {share.part: share.numbers for share in shares(GPT(SMALL, draw=False))}
    assert (found["token table"], found["position table"]) == (V * C, T * C)
    assert found["attention"] == L * (4 * C * C + 4 * C)
    assert found["feed-forward"] == L * (8 * C * C + 5 * C)
    assert found["norms"] == (2 * L + 1) * 2 * C
    assert found["head"] == 0
    assert [share.numbers for share in shares(GPT(SMALL, draw=False))] == sorted(
        found.values(), reverse=True
    )


@pytest.mark.parametrize("config", PAIRS, ids=str)
def test_an_encoder_decoder(config: EncoderDecoderConfig) -> None:
    """Its parts by formula, its arrays in the order in which they are read, the view in 80 columns
    with equal blocks as one row.
    """
    model = EncoderDecoder(config, generator=Generator(0))
    C, L, bias = 6, 3, 4 * 6 * config.bias
    found = {share.part: share.numbers for share in shares(model)}
    assert found["attention"] == 2 * L * (4 * C * C + bias)
    assert found["cross-attention"] == L * (4 * C * C + bias)
    with tensor.record(implementation="reference") as recording:
        model([[3, 4]], [[1, 5]])
    names = {name for name, _ in model.named_parameters()}
    read = [value.source for entry in recording.forwards for value in entry.inputs]
    # the memory's keys and values are made before the queries
    parts = [name.replace(".kv.", ".q.") for name in read if name in names]
    listed = [m.name.replace(".kv.", ".q.") for m in matrices(model) if m.learned]
    assert list(dict.fromkeys(parts)) == list(dict.fromkeys(listed))
    run = Run(config, TrainConfig(), "", folder=Path("runs/one"))
    lines = list(graph_view(run, model, "last"))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "EncoderDecoder  source, target -> logits (B, T, V)" in text
    assert "├─ encoder.1 to 2  each as encoder.0: 2 x" in text
    assert "├─ decoder.1 to 2  each as decoder.0: 2 x" in text
    assert "cross-attention" in text


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_order_is_that_of_computation(norm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the parameters are read by a model that runs op by op."""
    model = GPT(replace(SMALL, norm=norm, tied=False), generator=Generator(0))
    names = {id(parameter.array): name for name, parameter in model.named_parameters()}
    seen: list[str] = []
    for op in ("embedding", "linear", "layer_norm"):
        monkeypatch.setattr(tensor.ops, op, _watched(getattr(tensor.ops, op), names, seen))
    x = model.token_embedding(model.check_ids([1, 2]))
    for block in model.blocks:
        x = block(x)
    assert model.head is not None
    model.head(model.final_norm(x))
    expanded = [
        name
        for name in (m.name for m in matrices(model))
        if "expand" not in name and name != "position_embedding"
    ]
    assert seen == expanded  # the expansion and its GELU are one op, looked up elsewhere


def _watched(op: Any, names: dict[int, str], seen: list[str]) -> Any:
    def call(*inputs: Any, **options: Any) -> Any:
        seen.extend(
            names[id(x.array)]
            for x in inputs
            if isinstance(x, tensor.Tensor) and id(x.array) in names
        )
        return op(*inputs, **options)

    return call


# -- what the numbers are like


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=50))
def test_statistics(values: list[float]) -> None:
    facts = statistics(np.array(values, np.float32))
    exact = [float(v) for v in values]
    mean = math.fsum(exact) / len(exact)
    scale = max(map(abs, exact))
    assert facts.mean == pytest.approx(mean, abs=1e-12 * scale)
    assert facts.std == pytest.approx(
        math.sqrt(math.fsum((v - mean) ** 2 for v in exact) / len(exact)),
        rel=1e-9,
        abs=1e-12 * scale,
    )
    assert (facts.smallest, facts.largest) == (min(exact), max(exact))
    assert facts.norm == pytest.approx(math.sqrt(math.fsum(v * v for v in exact)), rel=1e-12)
    assert facts.near_zero == sum(abs(v) <= scale / 100 for v in exact) / len(exact)


def test_what_is_not_finite_is_counted_apart() -> None:
    facts = statistics([[1.0, math.nan], [-3.0, math.inf]])
    assert (facts.mean, facts.smallest, facts.largest, facts.not_finite) == (-1.0, -3.0, 1.0, 2)
    assert statistics([math.nan]).not_finite == 1


@pytest.mark.parametrize(
    "shape", [(1,), (5,), (200,), (1, 1), (3, 4), (8, 64), (9, 65), (100, 3), (50, 200)]
)
def test_cells_cover_each_number_once(shape: tuple[int, ...]) -> None:
    """A cell has the shade of the largest number of its block."""
    values = np.atleast_2d(np.random.default_rng(0).standard_normal(shape))
    drawn = heat_map(values, 8, 64)
    down, across = drawn.block
    assert len(drawn.rows) == -(-values.shape[0] // down) <= 8
    for r, row in enumerate(drawn.rows):
        assert len(row) == -(-values.shape[1] // across) <= 64
        for c, (_, level) in enumerate(row):
            block = values[r * down : (r + 1) * down, c * across : (c + 1) * across].ravel()
            number = block[abs(block).argmax()]
            share = number / abs(values).max()
            assert level == np.sign(number) * min(4, math.floor(4 * abs(share)) + 1)
    assert drawn.largest == abs(values).max()


# -- what is printed


def test_the_graph_view(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = inspected(capsys)
    assert out.startswith(
        "run         runs/story-1, its last weights\nmodel       V 22 tokens, T 8 places, C 8 wide"
    )
    words = [" ".join(line.split()) for line in out.splitlines()]
    for said in (
        "GPT ids (B, T) -> logits (B, T, V) 1,128 4.4 KiB",
        "│ └─ weight (22, 8) (8, 1) 176 704 B",
        "├─ position_embedding (8, 8) (8, 1) 64 256 B",
        "│ │ ├─ qkv queries, keys, values: 2 heads of 4 216 864 B",
        "│ │ │ ├─ weight (8, 24) (24, 1) 192 768 B",
        "└─ head token_embedding.weight, transposed (8, 22) tied",
        "parameters 1,128, 4.4 KiB in float32",
        "tied the head is the table of tokens once more, and counted once",
        "48.9% feed-forward 552 each token alone: 1 layer of 8 C C + 5 C",
    ):
        assert said in words


def test_blocks_that_are_alike_are_shown_once() -> None:
    assert "├─ blocks.1 to 2  each as blocks.0: 2 x 510  " in view(SMALL)
    assert "├─ blocks.1  as blocks.0  " in view(replace(SMALL, layers=2))
    assert "blocks.1" not in view(replace(SMALL, layers=1))


@pytest.mark.parametrize(
    "config",
    [
        *KINDS,
        GPTConfig(50257, 1024, 768, 12, 3, tied=False),
        GPTConfig(50257, 1024, 1600, 25, 2, positions="sinusoidal"),
    ],
    ids=str,
)
def test_no_line_is_too_long(config: GPTConfig) -> None:
    assert max(map(len, view(config).splitlines())) <= 80


def test_a_buffer_is_shown_and_not_counted() -> None:
    text = view(replace(SMALL, positions="sinusoidal"))
    assert "├─ position_embedding (buffer)" in text
    assert "buffer      position_embedding: 30 numbers that do not learn, not counted" in text
    assert "position table            0  computed, not learned" in text


def test_the_matrix_view(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = load_file(run / "model.safetensors")
    out = inspected(capsys, "--matrices")
    assert out.count("near zero\n") == len(weights)
    blocks = {
        block.splitlines()[0].split("  ")[0]: block.splitlines() for block in out.split("\n\n")[1:]
    }
    assert set(blocks) == set(weights)
    name = "blocks.0.attention.qkv.weight"
    head, size, facts, legend, *picture = blocks[name]
    assert head == f"{name}  (8, 24), strides (24, 1)"
    w = weights[name].astype(np.float64)
    near_zero = (abs(w) <= abs(w).max() / 100).mean()
    norm = f"norm {np.linalg.norm(w):.4g}; {near_zero:.1%} near zero"
    assert size == f"  192 numbers, 768 B; {norm}"
    assert facts == f"  mean {w.mean():.4g}, std {w.std():.4g}, from {w.min():.4g} to {w.max():.4g}"
    assert legend == f"  █ = {abs(w).max():.4g}"
    assert [len(row) for row in picture] == [2 + 2 * 24] * 8
    row, column = np.unravel_index(abs(w).argmax(), w.shape)
    assert picture[row][2 + 2 * column + 1] == "█"
    levels = np.minimum(4 * abs(w) / abs(w).max() + 1, 4).astype(int)
    assert [line[3::2] for line in picture] == ["".join(" ░▒▓█"[n] for n in row) for row in levels]
    assert [[c == "-" for c in line[2::2]] for line in picture] == (w < 0).tolist()


def test_only_some(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = inspected(capsys, "--only", "qkv")
    assert out.count("near zero\n") == 2
    assert "blocks.0.attention.qkv.bias  (24,), strides (1,)" in out
    refused(capsys, "inspect", "--only", "\x1b[2J", says=r"no matrix has '\x1b[2J' in its name")
    refused(capsys, "inspect", "--only", "final_norm.gian", says="did you mean final_norm.gain?")


def test_for_programs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(inspected(capsys, "--json"))
    weights = load_file(run / "model.safetensors")
    assert (found["weights"], found["tied"], found["parameters"], found["bytes"]) == (
        "last",
        True,
        1128,
        4512,
    )
    assert sum(found["parts"].values()) == 1128
    assert {m["name"]: tuple(m["shape"]) for m in found["matrices"]} == {
        name: w.shape for name, w in weights.items()
    }
    assert all(
        m["norm"] == pytest.approx(float(np.linalg.norm(weights[m["name"]])), rel=1e-6)
        for m in found["matrices"]
    )
    assert len(json.loads(inspected(capsys, "--json", "--only", "final"))["matrices"]) == 2


def test_broken_weights_are_shown_as_they_are(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No warning, no NaN in JSON, a mark in the picture."""
    weights = load_file(run / "model.safetensors")
    weights["final_norm.gain"][:] = math.nan
    weights["final_norm.bias"][:2] = math.inf, 3e38
    weights["blocks.0.attention.qkv.bias"][:] = 0
    put_weights(run, weights)
    out = inspected(capsys, "--matrices")
    assert "  8 are not finite numbers, and left out of these\n  █ = 0\n  NaNaNaNaNaNaNaNa" in out
    assert "  1 are not finite numbers, and left out of these\n  █ = 3.000e+38\n  +∞" in out
    found = {m["name"]: m for m in json.loads(inspected(capsys, "--json"))["matrices"]}
    assert found["final_norm.gain"]["mean"] is None
    assert found["blocks.0.attention.qkv.bias"]["near_zero"] == 1
    inspected(capsys)


def test_other_dtypes() -> None:
    for dtype, bytes_each in (("bfloat16", 2), ("float16", 2), ("float64", 8)):
        model = GPT(SMALL, dtype=dtype, generator=Generator(0))
        assert tree(model).bytes == bytes_each * tree(model).numbers
        assert max(map(len, matrix_view(matrices(model)))) <= 80


def test_plain_characters_where_the_terminal_has_no_others(run: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "inspect"],
        env=environment(PYTHONIOENCODING="ascii", PYTHONUTF8="0"),
        capture_output=True,
        check=True,
    )
    assert done.stdout.isascii()
    assert b"`- head  token_embedding.weight" in done.stdout
    assert b"\\u" not in done.stdout


def test_the_best_weights_or_the_last(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = load_file(run / "model.safetensors")
    put_weights(run, {name: 2 * w for name, w in weights.items()}, "best.safetensors")
    best, last = (json.loads(inspected(capsys, "--json", *more)) for more in ([], ["--last"]))
    assert (best["weights"], last["weights"]) == ("best", "last")
    assert best["matrices"][0]["norm"] == pytest.approx(2 * last["matrices"][0]["norm"])


def test_bad_input(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "inspect", "storie-1", says="no run is named 'storie-1'; did you mean story-1?")
    refused(
        capsys, "inspect", "--matrix", says="no flag is named --matrix; did you mean --matrices?"
    )
    (run / "model.safetensors").write_bytes(b"")
    refused(capsys, "inspect", says="is too small for the model")
    os.remove(run / "config.json")
    refused(capsys, "inspect", "story-1", says="is no run: it holds no config.json")
