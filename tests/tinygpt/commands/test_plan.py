"""`tinygpt plan`: what is counted is what there is."""

from __future__ import annotations

import math
import re
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensor import random
from tensor.memory.devices import array_module
from tensor.random import Key
from tensor.recording import in_bytes
from tests.helpers.program import contents, refused
from tinygpt import GPT, ConfigError, GPTConfig, TrainConfig
from tinygpt.__main__ import main
from tinygpt.config import EncoderDecoderConfig, ModelConfig
from tinygpt.ids import PAD, SourceTarget
from tinygpt.model.kinds import KINDS
from tinygpt.model.positions import SINUSOIDS
from tinygpt.model.sizes import least_bytes, parameter_count, parts
from tinygpt.runs import checkpoint
from tinygpt.training import planning
from tinygpt.training.gpu import kept_by_kernels, logits_by_kernels
from tinygpt.training.planning import affordable, flops, kept_sizes, predict
from tinygpt.training.step import optimizer_of, update
from tinygpt.training.table import in_words, table

# longer, wider and deeper than the traced model
SMALL = GPTConfig(1, 168, 3 * 24, 3, 3)


# -- counted


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from(["learned", "sinusoidal"]),
    st.booleans(),
    st.booleans(),
)
def test_parameters(
    vocabulary: int,
    context: int,
    heads: int,
    head_width: int,
    layers: int,
    positions: Any,
    bias: bool,
    tied: bool,
) -> None:
    config = GPTConfig(
        vocabulary,
        context,
        heads * head_width,
        heads,
        layers,
        positions=positions,
        bias=bias,
        tied=tied,
    )
    assert parameter_count(config) == sum(
        parameter.size for parameter in GPT(config, draw=False).parameters()
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"positions": "sinusoidal"},
        {"tied": False},
        {"bias": False},
        {"layers": 30},
        {"width": 1, "heads": 1},
    ],
    ids=str,
)
def test_bug_86_the_smallest_file_of_a_model(
    choices: dict[str, Any], dtype: str, tmp_path: Path
) -> None:
    """Never more than is written, and at most a third less, also where the header is most of it."""
    config = GPTConfig(
        **{"vocabulary": 5, "context": 3, "width": 4, "heads": 2, "layers": 1} | choices
    )
    path = tmp_path / "model.safetensors"
    model = GPT(config, dtype=dtype)
    checkpoint.write_arrays(
        path, {name: weights.array for name, weights in model.state_dict().items()}
    )
    assert (
        2 / 3 * path.stat().st_size
        < least_bytes(config, 2 if dtype == "float16" else 4)
        <= path.stat().st_size
    )
    assert least_bytes(config) <= least_bytes(config, 4)


def test_bug_86_a_table_that_no_file_bounds() -> None:
    """1 kB of config.json could ask for gigabytes of sinusoids."""
    largest = (SINUSOIDS + parameter_count(GPTConfig(5, 8, 64, positions="sinusoidal"))) // 64
    with pytest.raises(
        ConfigError,
        match=rf"a table of {largest + 1:,} x 64 sinusoids is far larger than the model\n"
        rf".*a context of at most {largest:,}$",
    ):
        GPT(GPTConfig(5, largest + 1, 64, positions="sinusoidal"), draw=False)
    assert GPT(
        GPTConfig(5, largest, 64, positions="sinusoidal"), draw=False
    ).position_embedding.shape == (largest, 64)


def test_flops_are_those_of_the_products() -> None:
    """Multiply-adds, one product at a time."""
    V, T, C, L, B = 11, 5, 6, 2, 3
    # qkv, projection, expand, projection
    layer = B * T * (C * 3 * C + C * C + C * 4 * C + 4 * C * C)
    # scores and values of the tokens up to t
    attention = B * sum(2 * (t + 1) * C for t in range(T))
    assert flops(GPTConfig(V, T, C, 2, L), B) == 2 * 3 * (L * (layer + attention) + B * T * C * V)
    assert (
        flops(GPTConfig(V, T, C, 2, L), B, recompute=True)
        == 2 * 4 * L * (layer + attention) + 2 * 3 * B * T * C * V
    )


@pytest.mark.parametrize(
    ("choices", "training"),
    [
        ({}, {}),
        ({"norm": "post", "activation": "relu", "bias": False}, {}),
        ({"dropout": 0.2}, {}),
        ({}, {"dtype": "float64"}),
        ({"context": 40, "layers": 1, "tied": False}, {"dtype": "float64"}),
        ({"context": 40, "dropout": 0.2}, {"dtype": "float64"}),
        ({"context": 40}, {"dtype": "bfloat16"}),
        ({"dropout": 0.2}, {"recompute": True}),
        ({"norm": "post"}, {"recompute": True, "dtype": "float64"}),
    ],
    ids=str,
)
def test_activations_are_what_the_graph_holds(
    choices: dict[str, Any], training: dict[str, Any], device: str
) -> None:
    """To the byte: the traced model says what this one keeps for a row."""
    model, config = replace(SMALL, **choices), TrainConfig(batch=1, device=device, **training)
    layer, ends = planning.activations(model, config)
    three, two = (sum(kept_sizes(model, config, rows)) for rows in (3, 2))
    assert model.layers * layer + ends == three - two
    twice = planning.activations(model, replace(config, batch=2))
    assert twice == (2 * layer, 2 * ends)


def measured(shape: ModelConfig, config: TrainConfig, x: Any, y: Any) -> tuple[int, Any]:
    """The peak of a step's memory, by NumPy's own count, and the optimiser."""
    tracemalloc.start()
    try:
        model = KINDS[config.kind].model(shape, dtype=config.dtype, draw=False).train()
        model.recompute = config.recompute
        moments = optimizer_of(model, config)
        update(model, moments, x, y, 1.0, 1, Key())
        tracemalloc.reset_peak()
        update(model, moments, x, y, 1.0, 1, Key())
        return tracemalloc.get_traced_memory()[1], moments
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("recompute", [False, True])
def test_memory_of_an_encoder_decoder(recompute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, with sources that end in <pad>."""
    monkeypatch.setattr(planning, "step_seconds", lambda model, config: 1.0)
    shape = EncoderDecoderConfig(300, 32, 48, 2, 3)
    config = TrainConfig(task="reverse", batch=8, recompute=recompute)
    plan = predict(shape, config)
    ids = np.random.default_rng(0).integers(3, 300, (8, 32))
    x = SourceTarget(np.where(np.arange(32) < 29, ids, PAD), ids)
    peak, _ = measured(shape, config, x, ids)
    assert 0.85 * plan.memory < peak < plan.memory + 1.1 * plan.passing
    assert table(plan)[1] == "step         256 tokens: 8 pairs of up to 32"


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_memory_is_what_a_step_takes(
    dtype: str, optimizer: Any, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy's own count of a step's peak lies between the sum, and the sum and what backward makes
    in passing.
    """
    monkeypatch.setattr(planning, "step_seconds", lambda model, config: 1.0)
    model, config = (
        GPTConfig(300, 32, 48, 2, 3),
        TrainConfig(batch=8, dtype=dtype, optimizer=optimizer, recompute=recompute),
    )
    plan = predict(model, config)
    x = np.random.default_rng(0).integers(0, 300, (8, 32))
    peak, moments = measured(model, config, x, x)
    assert 0.85 * plan.memory < peak < plan.memory + 1.1 * plan.passing
    states = sum(array.nbytes for array in moments.state_dict()["arrays"].values())
    assert plan.moments == pytest.approx(states, rel=0.05)  # places are rounded up to 256 bytes


def test_sizes_that_are_those_of_the_traced_model() -> None:
    """A size of the real model may hold primes of the traced one."""
    sizes = planning.ROWS, planning.LONG, planning.HEADS, planning.PART * planning.EIGHT
    batch, context, heads, head_width = sizes
    model = GPTConfig(1, context, heads * head_width, heads, 2)
    layer, ends = planning.activations(model, TrainConfig(batch=batch))
    three, two = (sum(kept_sizes(model, TrainConfig(), rows)) for rows in (3, 2))
    assert 2 * layer + ends == batch * (three - two)


@pytest.mark.parametrize(
    ("width", "traced"), [(64, 64), (112, 112), (40, 56), (88, 56), (120, 56), (3, 7), (136, 7)]
)
def test_the_head_that_is_traced(width: int, traced: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one where it can be told from the other sizes: its kernel is needed anyway."""
    seen: list[int] = []

    def sizes(model: GPTConfig, *rest: Any) -> list[int]:
        seen.append(model.width // model.heads)
        return kept_sizes(model, *rest)

    monkeypatch.setattr(planning, "kept_sizes", sizes)
    model, config = GPTConfig(1, 16, 2 * width, 2, 2), TrainConfig(batch=4)
    layer, ends = planning.activations(model, config)
    assert set(seen) == {traced}
    three, two = (sum(kept_sizes(model, config, rows)) for rows in (3, 2))
    assert 2 * layer + ends == 4 * (three - two)


def test_bytes_are_shown_in_units() -> None:
    shown = [in_bytes(n) for n in (0, 1023, 1024, 1.5 * 2**20, 3 * 2**30)]
    assert shown == ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "3.0 GiB"]


# -- timed


def test_what_is_too_large_is_timed_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward grow with the FLOPs, the update with the parameters."""
    model = GPTConfig(65, 64, 128, 4, 3)
    times = iter([0.01, 0.1] * 3)
    monkeypatch.setattr(planning, "_seconds", lambda work, device: next(times))
    monkeypatch.setattr(planning, "WORK", flops(model, 3))
    assert planning.step_seconds(model, TrainConfig(batch=3)) == pytest.approx(0.01 + 0.1)
    assert planning.step_seconds(model, TrainConfig(batch=12)) == pytest.approx(0.04 + 0.1)
    again = planning.step_seconds(model, TrainConfig(batch=3, accumulation=2))
    assert again == pytest.approx(0.02 + 0.1)


@given(
    st.integers(1, 10**6),
    st.integers(1, 10**5),
    st.integers(1, 128),
    st.integers(1, 128),
    st.integers(1, 100),
    st.integers(1, 10**4),
)
def test_anything_becomes_affordable(
    vocabulary: int, context: int, heads: int, head_width: int, layers: int, rows: int
) -> None:
    model, fewer = affordable(
        GPTConfig(vocabulary, context, heads * head_width, heads, layers), rows, 1e8
    )
    assert flops(model, fewer) <= 1e8
    assert 1 <= fewer <= rows


def test_seconds_are_seconds(device: str) -> None:
    """A test of the time itself would fail where others use the machine."""
    plan = predict(GPTConfig(22, 32, 32, 2, 3), TrainConfig(batch=8, device=device))
    assert 0 < plan.seconds < 60
    assert plan.speed == pytest.approx(8 * 32 / plan.seconds)


def test_the_shortest_of_some_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    steps = iter([0.09, *[0.02] * 50])

    def work() -> None:
        now[0] += next(steps)

    assert planning._seconds(work, "cpu") == pytest.approx(0.02)
    assert now[0] == pytest.approx(0.11)


def test_a_gpu_compiles_before_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waits = [0.0], []
    device = SimpleNamespace(synchronize=lambda: waits.append(now[0]))
    module = SimpleNamespace(cuda=SimpleNamespace(Device=lambda: device))
    monkeypatch.setattr(planning, "array_module", lambda name: module)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    steps = iter([3.0, 0.125])

    def work() -> None:
        now[0] += next(steps)

    assert planning._seconds(work, "cuda") == 0.125
    assert waits == [3, 3.125]


def test_predicting_draws_nothing() -> None:
    before = dict(random.default.state())
    predict(GPTConfig(22, dropout=0.1), TrainConfig())
    assert random.default.state() == before


# -- the parts


@pytest.mark.parametrize(
    ("name", "count", "table", "position", "attention", "feed_forward", "norms"),
    [
        ("gpt2", 124_439_808, 38_597_376, 786_432, 28_348_416, 56_669_184, 38_400),
        ("gpt2-medium", 354_823_168, 51_463_168, 1_048_576, 100_761_600, 201_449_472, 100_352),
        (
            "gpt3",
            174_604_259_328,
            617_558_016,
            25_165_824,
            57_986_777_088,
            115_970_015_232,
            4_743_168,
        ),
    ],
)
def test_where_each_million_is(
    name: str,
    count: int,
    table: int,
    position: int,
    attention: int,
    feed_forward: int,
    norms: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No text is read, and nothing is timed where a step does not fit."""
    monkeypatch.setattr(planning.memory, "free", lambda device: 1 << 30)
    assert main(["plan", "--preset", name]) == 0
    out = capsys.readouterr().out
    found = {}
    for line in out.partition("\npart ")[2].partition("\n\n")[0].splitlines()[1:]:
        part, number, share, size = re.split(" {2,}", line)
        found[part] = int(number.replace(",", ""))
        assert share == f"{found[part] / count:.2%}"
        assert size == in_bytes(4 * found[part])
    assert found == {
        "token table = head": table,
        "position table": position,
        "attention": attention,
        "feed-forward": feed_forward,
        "norms": norms,
        "together": count,
    }
    assert "too little memory" in out


@pytest.mark.parametrize(
    ("kind", "choices"),
    [
        ("gpt", {}),
        ("gpt", {"tied": False, "bias": False, "positions": "sinusoidal"}),
        ("encoder-decoder", {}),
        ("encoder-decoder", {"bias": False, "positions": "learned"}),
        ("bert", {}),
        ("bert", {"norm": "pre", "bias": False}),
    ],
)
def test_the_parts_are_those_of_the_model(kind: str, choices: dict[str, Any]) -> None:
    """Each parameter of a model is in one part, by its name."""
    names = {
        "token table": r"token_embedding\.weight",
        "position table": r"position_embedding",
        "segment table": r"segment_embedding\.weight",
        "attention": r".*attention\..*",
        "feed-forward": r".*feed_forward\..*",
        "norms": r"(?!transform).*norm\.(gain|bias)",
    }
    found = dict.fromkeys([*names, "head"], 0)
    config = KINDS[kind].config(7, 5, 12, 3, 2, **choices)
    for name, parameter in KINDS[kind].model(config, draw=False).named_parameters():
        own = (part for part, pattern in names.items() if re.fullmatch(pattern, name))
        found[next(own, "head")] += parameter.size
    assert parts(config) == found


def test_the_preset_shakespeare_has_the_characters_of_its_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not GPT-2's tokens: with those the model would be three times as large."""
    monkeypatch.setattr(planning.memory, "free", lambda device: 1 << 30)
    assert main(["plan", "--preset", "shakespeare"]) == 0
    out = capsys.readouterr().out
    assert f"{65 * 384:,}" == re.split(" {2,}", out.partition("token table = head")[2])[1]
    assert "10,750,080 parameters" in out
    assert main(["plan", "--preset", "shakespeare", "--vocabulary", "66"]) == 0
    assert "10,750,464 parameters" in capsys.readouterr().out


# -- for a GPU


def test_gpt2_on_a_gpu_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--preset", "gpt2", "--gpu-name", "nvidia h200", "--mfu", "0.5"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for said in (
        "124,439,808 parameters: 12 layers of width 768, 12 heads",
        "524,288 tokens: 32 x 16 windows of 1024",
        "weights       237.4 MiB   bfloat16",
        "moments         1.4 GiB   adamw, with the weights in float32",
        "each layer keeps 770.0 MiB",
        "logits          1.1 GiB   a chunk at a time, and the gradient of the head",
        "418,314   GFLOP a step, 798 MFLOP a token",
        "854   MFLOP a token: all keys of the context count",
        "579k   tokens/s, at 50.0% of 989 TFLOP/s",
        "On one H200 20,000 steps take about 5.0 hours",
    ):
        assert said in out


def test_a_plan_at_a_share_of_the_peak() -> None:
    model, config = GPTConfig(100, 8, 16, 2, 3), TrainConfig(batch=5, accumulation=2)
    plan = planning.at_mfu(plan_of(model=model, training=config), "X", 1e6, 0.25)
    per_token = 6 * (3 * 12 * 16 * 16 + 100 * 16) + 12 * 3 * 16 * 8
    assert plan.seconds == pytest.approx(5 * 2 * 8 * per_token / (0.25 * 1e6))
    assert plan.mfu == pytest.approx(0.25)
    again = planning.at_mfu(
        plan_of(model=model, training=replace(config, recompute=True)), "X", 1e6, 0.25
    )
    # four products in place of three in the layers, whose share this is
    layers = 3 * (12 * 16 * 16 + 9 * 16)
    share = layers / (layers + 100 * 16)
    assert again.seconds == pytest.approx(plan.seconds * (1 + share / 3))
    assert again.by.endswith(", forward twice")


@pytest.mark.parametrize(("name", "fits"), [("L40", True), ("A10", False), ("A100 40GB", False)])
def test_a_plan_that_does_not_fit(
    name: str, fits: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand, GPT-2 XL takes 43.1 GiB."""
    assert main(["plan", "--preset", "gpt2-xl", "--gpu-name", name]) == 0
    out = capsys.readouterr().out
    size = {"A10": 24, "A100 40GB": 40}.get(name)
    said = f"43.1 GiB for a step, and one {name[:4].strip()} has {size} GiB; so no speed is given"
    assert ("tokens/s" in out, said in out) == (fits, not fits)


GPT2 = ["--preset", "gpt2", "--gpu-name", "H200"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--gpu-name", "H200"], "not --dtype float32\nadd --dtype bfloat16; or plan on"),
        ([*GPT2, "--heads", "3"], "not heads of 256 numbers\nchoose --heads for multiples of 8"),
        ([*GPT2, "--heads", "768"], "not heads of 1 numbers\n"),
        ([*GPT2, "--dropout", "0.1"], "not --dropout 0.1\nadd --dropout 0; or"),
        ([*GPT2, "--norm", "post"], "not --norm post\nadd --norm pre; or"),
        ([*GPT2, "--activation", "relu"], "not --activation relu\nadd --activation gelu; or"),
        ([*GPT2[:-1], "Tesla V100-SXM2-32GB"], "not a V100\ncuDNN's attention needs an A100"),
        ([*GPT2[:-1], "t4"], "not a T4\n"),
        ([*GPT2, "--device", "cpu"], "and --device is cpu\nleave out --device"),
        ([*GPT2, "--device", "cuda:9"], "and --device is cuda:9\nleave out --device"),
        (["--mfu", "0.4"], "--device is cpu\nadd --gpu-name H200, or --device cuda on"),
        ([*GPT2, "--mfu", "2"], "--mfu 2: from 0.001 to 1, such as --mfu 0.4"),
        ([*GPT2, "--mfu", "1e-300"], "--mfu 1e-300: from 0.001 to 1"),
        (["--gpu-name", "H900"], "no GPU is known by the name 'H900'; did you mean H"),
        (["--device", "cuda:99"], "to plan for a GPU that is not here, add: --gpu-name H200"),
        (["--preset", "gpt2", "--task", "reverse"], "--preset gpt2 is for a GPT"),
        (["--preset", "gpt5"], "--preset: invalid choice: 'gpt5'"),
    ],
)
def test_plans_for_a_gpu_that_are_refused(
    flags: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(capsys, "plan", *flags, says=says)


@pytest.mark.parametrize("recompute", [False, True])
def test_formulas_are_what_kernels_keep(recompute: bool, gpu: str) -> None:
    model = GPTConfig(50257, 256, 128, 2, 3)
    config = TrainConfig(batch=4, dtype="bfloat16", device=gpu, recompute=recompute)
    assert planning.activations(model, config) == kept_by_kernels(model, config)
    assert planning.logits_bytes(model, config) == logits_by_kernels(model, config)


def test_memory_of_a_step_on_a_gpu(gpu: str) -> None:
    cupy: Any = array_module(gpu)
    model, config = GPTConfig(50257, 512, 768, 12, 3), TrainConfig(batch=16, dtype="bfloat16")
    config = replace(config, device=gpu)
    plan, pool = planning.counted(model, config), cupy.get_default_memory_pool()
    gpt = GPT(model, dtype="bfloat16", device=gpu)
    optimizer = optimizer_of(gpt, config)
    for _ in range(2):
        pool.free_all_blocks()
        update(gpt, optimizer, *gpt.example(16), config.clip)
    # what was used at once, as the pool holds what was dropped
    assert 0.8 * plan.memory < pool.total_bytes() < 1.1 * (plan.memory + plan.passing)


# -- said


def plan_of(**changes: Any) -> planning.Plan:
    numbers = {
        "weights": 4 << 20,
        "gradients": 4 << 20,
        "moments": 8 << 20,
        "layer": 1 << 20,
        "again": 0,
        "activations": (4 << 20) + (1 << 19),
        "logits": 1 << 10,
        "windows": 1 << 14,
    }
    plan = planning.Plan(
        GPTConfig(22, layers=4),
        TrainConfig(batch=16, accumulation=2),
        **numbers,
        flops=2e9,
        seconds=0.1,
    )
    return replace(plan, **changes)


def test_the_table() -> None:
    assert plan_of().tokens == 1024
    lines = table(plan_of())
    assert lines[0] == "model        203,520 parameters: 4 layers of width 64, 4 heads"
    assert lines[1] == "step         1,024 tokens: 16 x 2 windows of 32"
    assert "together       20.5 MiB   and up to 1.0 MiB while backward runs" in lines
    assert "work                  2   GFLOP a step" in lines
    said = "On this machine 500 steps take about 50 seconds, without measuring and saving."
    assert lines[-1] == said
    for seconds, said in (
        (0.2, "a second"),
        (89.4, "89 seconds"),
        (90, "1.5 minutes"),
        (24.6 * 60, "25 minutes"),
        (95 * 60, "1.6 hours"),
        (30 * 3600, "30 hours"),
        (99.6 * 86400, "100 days"),
    ):
        assert in_words(seconds) == said
    assert max(map(len, lines)) <= 80
    lines = table(plan_of(again=28 << 20))
    assert (
        "activations     4.5 MiB   each layer keeps 1.0 MiB of its 28.0 MiB for backward" in lines
    )
    assert "together       48.5 MiB   and up to 28.0 MiB while backward runs" in lines
    assert max(map(len, lines)) <= 80


# -- the command


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    before = contents()
    assert main(["plan", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert contents() == before
    return out


@pytest.mark.usefixtures("here")
def test_the_vocabulary_is_that_of_the_text(
    capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    """Of the story 22 and 103,552 parameters, as train says; no text is read where the number is
    given.
    """
    tiny = ["--width", "8", "--heads", "2", "--layers", "1", "--context", "8"]
    assert "model        103,552 parameters" in planned(capsys)
    (tmp_path / "own.txt").write_text("abcd" * 9)
    for arguments, vocabulary in (
        (["--text", "own.txt"], 4),
        (["--text", "own.txt", "--tokenizer", "byte"], 256),
        (["--text", "own.txt", "--tokenizer", "bpe", "--tokens", "300"], 300),
        (["--text", "nowhere.txt", "--vocabulary", "77"], 77),
    ):
        assert f"{parameter_count(GPTConfig(vocabulary, 8, 8, 2, 1)):,} parameters" in planned(
            capsys, *tiny, *arguments
        )


@pytest.mark.usefixtures("here")
def test_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        (["--width", "64", "--heads", "5"], "--width 64 is not divisible by heads 5"),
        (["--steps", "0"], "--steps 0: "),
        (["--vocabulary", "0"], "vocabulary 0: a whole number, at least 1"),
        (["--vocabulary", "1e9"], "--vocabulary: '1e9' is not a whole number"),
        (["--text", "nowhere.txt"], "no file is named 'nowhere.txt'"),
        (["--device", "cuda:99"], "device 'cuda"),
        (["--lyers", "3"], "no flag is named --lyers; did you mean --layers?"),
    ):
        refused(capsys, "plan", *arguments, says=says)


def test_huge_models_are_planned_too() -> None:
    """Of 65 thousand million parameters, without making them."""
    start = time.monotonic()
    plan = predict(GPTConfig(50257, 8192, 8192, 64, 80), TrainConfig())
    assert parameter_count(plan.model) == pytest.approx(64.9e9, rel=1e-2)
    assert math.isfinite(plan.seconds)
    assert time.monotonic() - start < 30
