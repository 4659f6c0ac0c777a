"""benchmarks/gpu.py and its parts, tried at a tiny size: without a GPU on the CPU."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
sides: Any = importlib.import_module("gpu_sides")
parts: Any = importlib.import_module("gpu_parts")
profile: Any = importlib.import_module("gpu_profile")
losses: Any = importlib.import_module("gpu_losses")
errors: Any = importlib.import_module("gpu_errors")
gpu: Any = importlib.import_module("gpu")


def test_a_race_of_our_own_step_is_a_table(tmp_path: Path, device: str) -> None:
    result = gpu.race("tiny", ["ours bfloat16", "ours bfloat16 by-hand"], 1, device)
    row, by_hand = result["rows"]
    assert by_hand["side"] == "ours bfloat16 by-hand"
    assert row["side"] == "ours bfloat16"
    assert row["steps"] == gpu.TURN
    assert row["tokens/s"] == pytest.approx(4 * 16 / row["ms"] * 1e3)
    assert gpu.table([result]).count("| tiny | ours bfloat16 |") == 1
    other = {**result, "size": "other"}
    for one in (result, other, result):  # a size that is measured again has new rows
        gpu.save({"race": [one]}, tmp_path)
    text = (tmp_path / "gpu.md").read_text()
    assert (text.count("| tiny | ours"), text.count("| other | ours")) == (2, 2)


@pytest.mark.parametrize("precision", ["float32", "autocast", "bfloat16"])
def test_pytorch_takes_the_same_steps(precision: str, device: str) -> None:
    pytest.importorskip("torch")
    ours = sides.Server("ours float32", "tiny", device).losses(steps=20, seed=1)
    theirs = sides.Server(f"eager {precision} any", "tiny", device).losses(steps=20, seed=1)
    assert np.allclose(ours, theirs, atol=1e-5 if precision == "float32" else 1e-2)
    assert ours[-1] < ours[0]


def test_a_turn_gives_the_time_of_each_step(device: str) -> None:
    server = sides.Server("ours bfloat16", "tiny", device)
    assert len(server.turn(3)) == 3
    assert min(server.turn(2)) > 0


def test_the_text_can_be_learnt() -> None:
    """Half of the tokens follow from the one before."""
    (x, y), *others = sides.text_batches(sides.SIZES["tiny"], 50, 0)
    assert len(others) == 49
    follows = np.mean([np.mean(b == (a * 31 + 7) % 96) for a, b in [(x, y), *others]])
    assert 0.5 < follows < 0.56
    assert (x.min(), x.max()) >= (0, 0)
    assert max(a.max() for a, _ in others) == 95


def test_every_part_has_a_time_and_a_floor(tmp_path: Path, device: str) -> None:
    measured = parts.measure(sides.SIZES["tiny"], device)
    rates = parts.Rates(**measured["rates"])
    for fields in measured["parts"]:
        part = parts.Part(**fields)
        assert part.ms > 0, part.name
        assert 0 < part.floor(rates) < np.inf, part.name
    gpu.save({"parts": measured}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"gpu.json", "gpu.md", "gpu.png"}
    assert "AdamW" in (tmp_path / "gpu.md").read_text()


def test_the_parts_count_the_products_of_the_model() -> None:
    """Their FLOPs are those of `planning.flops`, which counts from the sizes of the weights."""
    from tinygpt import GPTConfig
    from tinygpt.training.planning import flops

    size = sides.SIZES["tiny"]._replace(dtype="float32")
    config = GPTConfig(size.vocabulary, size.context, size.width, size.heads, size.layers)
    products = 0.0
    for call in parts.calls(size, "cpu"):
        if call.name in ("qkv", "projection", "expand + GELU", "contract", "head + cross-entropy"):
            work = call.forward[0] + sum(flops for _, flops, _ in call.backward.values())
            products += call.count * work
        if call.name == "attention":  # backward is 2.5 times forward, where 2 is the least
            products += call.count * 3 * call.forward[0]
    assert products == pytest.approx(flops(config, size.batch))


def test_gaps_between_kernels_are_found() -> None:
    events = [
        {"name": "a", "ts": 0, "dur": 2000},
        {"name": "b", "ts": 1000, "dur": 2000},  # of another stream
        {"name": "a", "ts": 4000, "dur": 1000},
    ]
    found = profile.totals(events, steps=2)
    assert (found["span"], found["busy"]) == (2.5, 2.0)
    assert found["kernels"] == [("a", [1.0, 1.5]), ("b", [0.5, 1.0])]
    assert "waits 0.50 ms" in profile.table(found)


def test_differences_of_losses_count_from_the_middle_on() -> None:
    exact, found = np.zeros((2, 4)), np.array([[9, 9, 3, 4], [9, 9, 0, 0]])
    assert losses.rms(found, exact) == pytest.approx(2.5)


def test_errors_are_in_eps_of_the_largest_number() -> None:
    def fact(*values: float) -> Any:
        return errors.Fact(np.array(values), None)

    found = {"result 0": fact(1.0, 2.5), "gradient 0": fact(1e-9), "gradient 1": fact(4.0)}
    exact = {"result 0": fact(1.0, 2.0), "gradient 0": fact(0.0), "gradient 1": fact(4.0)}
    assert errors.errors(found, exact, 0.125) == (2, 2e-9)
    assert errors.error(fact(np.nan, 2.0), fact(np.nan, 2.0), 0.125) == 0
    assert errors.error(fact(np.nan), fact(1.0), 0.125) == np.inf
    assert errors.error(fact(1.0), fact(np.inf), 0.125) == np.inf
    assert errors.error("TypeError", fact(1.0), 0.125) == np.inf


def test_errors_of_an_op_in_every_dtype(device: str) -> None:
    rows = errors.rows_of("gelu", device)
    assert [dtype for dtype, _ in rows] == errors.DTYPES
    for dtype, (numpy, *on_gpu) in rows:
        assert numpy.value <= (0 if dtype == "float64" else 1)
        assert all(found.value < 4 and found.gradient < 8 for found in on_gpu)
