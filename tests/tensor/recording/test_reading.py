"""Reading a tape: arrays under names that a reader can guess, each op once more line by line,
tables and files.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels, nn, no_grad
from tensor.recording import Backward, Forward
from tests.helpers.recorded import IDS, model, recorded

# -- modules and names


def test_module_paths() -> None:
    tape = recorded(model())
    block = [
        "attention_norm",
        "attention.qkv",
        "attention",
        "attention.projection",
        "",
        "feed_forward_norm",
        "feed_forward",
        "feed_forward.projection",
        "",
    ]
    paths = [f"blocks.{i}.{name}".rstrip(".") for i in range(2) for name in block]
    assert list(dict.fromkeys(e.module for e in tape.forwards)) == list(
        dict.fromkeys(["embed", *paths, "final_norm", "logits", "loss"])
    )
    assert list(dict.fromkeys(e.module for e in tape.backwards)) == list(
        dict.fromkeys(reversed(["embed", *paths, "final_norm", "logits", "loss"]))
    )
    assert {e.within for e in tape.forwards if e.op == "attention"} == {("multi_head_attention",)}
    assert all(e.implementation in ("reference", "view") for e in tape.forwards)


def test_the_fused_form_is_the_same_model_in_fewer_nodes() -> None:
    gpt = model()
    reference, fused = recorded(gpt), recorded(gpt, "as run")
    np.testing.assert_allclose(reference["loss"], fused["loss"], rtol=1e-5)
    assert reference.nodes > fused.nodes or kernels.disabled()
    for name in ("embed", "blocks.0.attention", "blocks.1.feed_forward", "final_norm", "logits"):
        np.testing.assert_allclose(reference[name], fused[name][..., :], rtol=2e-4, atol=2e-6)


def test_implementation_and_reason() -> None:
    if kernels.KERNELS["gelu"] and not kernels.disabled():
        x = Tensor(np.ones((64, 64), np.float32))
        with tensor.record() as tape:
            x.gelu()
            with kernels.off("gelu"):
                x.gelu()
            x.to("float64").gelu()
        fast, off, _, wide = tape.forwards
        took, why = kernels.latest("gelu")
        assert off.implementation == wide.implementation == took == "reference"
        assert (off.reason, wide.reason) == ("this kernel is off", why)
        assert fast.implementation.startswith("kernel ") or "compile" in fast.reason


def test_arrays_by_name() -> None:
    gpt = model()
    tape = recorded(gpt)
    attention = next(e for e in tape.forwards if e.op == "attention")
    q, k = attention.inputs[0].array, attention.inputs[1].array
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(4) + np.where(np.tri(6, dtype=bool), 0, -np.inf)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(tape["blocks.0.attention.weights"], weights, rtol=1e-5, atol=1e-7)
    assert tape["blocks.0.attention.scores"].shape == (2, 2, 6, 6)
    assert tape["blocks.1.attention.dscores"].shape == (2, 2, 6, 6)  # a variable of the backward
    np.testing.assert_array_equal(
        tape["blocks.0"],
        next(e for e in tape.forwards if e.name == "blocks.0.add#2").outputs[0].array,
    )
    np.testing.assert_array_equal(
        tape["blocks.0.add"],
        next(e for e in tape.forwards if e.name == "blocks.0.add").outputs[0].array,
    )
    np.testing.assert_array_equal(
        tape["blocks.0.attention.qkv.weight"], gpt.blocks[0].attention.qkv.weight.numpy()
    )
    np.testing.assert_allclose(tape["logits.grad"].sum(-1), 0, atol=1e-6)  # softmax - one hot
    with pytest.raises(KeyError, match=r"near it: .*blocks\.0\.attention"):
        tape["blocks.0.attentoin"]
    with pytest.raises(KeyError, match=r"near it: blocks\.0\.attention\.weights"):
        tape["blocks.0.attention.wieghts"]


def test_a_module_that_runs_twice() -> None:
    layer, other = nn.Linear(2, 2), nn.LayerNorm(2)

    class Net(nn.Module):
        def __init__(self) -> None:
            self.layer, self.other = layer, other

        def __call__(self, x: Tensor) -> Tensor:
            return self.layer(self.other(self.layer(x)))

    with tensor.record() as tape:
        y = Net()(tensor.ones(3, 2))
    assert [e.name for e in tape.forwards] == ["layer.linear", "other.layer_norm", "layer.linear#2"]
    np.testing.assert_array_equal(tape["layer"], tape["layer.linear"])
    np.testing.assert_array_equal(tape["layer#2"], y.numpy())
    np.testing.assert_array_equal(tape["layer#2"], tape["layer.linear#2"])
    with pytest.raises(KeyError):
        tape["layer#3"]


def test_names_are_not_inherited_by_what_comes_later_at_the_same_address() -> None:
    with tensor.record() as tape:
        for _ in range(50):
            (tensor.ones(3) * 2.0).exp()
    assert all(e.inputs[0].source == "constant" for e in tape.forwards if e.op == "multiply")


# -- run again, line by line


def test_lines_of_an_op_show_each_assignment_as_it_was() -> None:
    x, w, b = tensor.ones(2, 3), tensor.ones(3, 2), Tensor([1.0, 2.0])
    with tensor.record("reference") as tape:
        y = tensor.linear(x, w, b)
    values = {m.text: m.values for m in tape.forwards[0].lines()}
    assert values["y = rows @ matrix  # (N, O)"]["y"].tolist() == [[3.0, 3.0]] * 2
    assert values["y += bias"]["y"].tolist() == y.tolist() == [[4.0, 5.0]] * 2
    assert values["y += bias"].keys() == {"y"}
    first = tape.forwards[0].lines()[0]
    assert first.text.startswith("def linear(")
    assert first.values["weight"].shape == (3, 2)


def test_lines_of_every_op_end_with_what_it_returned() -> None:
    gpt = model()
    tape = recorded(gpt)
    for entry in tape.forwards:
        result = entry.lines()[-1].values["return"]
        if entry.implementation == "view":
            layouts = result if isinstance(result, tuple) else (result,)
            assert [(v.shape, v.strides, v.offset) for v in entry.outputs] == [
                (x.shape, x.strides, x.offset) for x in layouts
            ]
        else:
            np.testing.assert_array_equal(result, entry.outputs[0].array)
    for step in tape.backwards:
        if step.of:
            returned = [m.values["return"] for m in step.lines() if "return" in m.values]
            arrays = [
                g for r in returned for g in (r if isinstance(r, tuple) else (r,)) if g is not None
            ]
            assert len(arrays) == len(step.contributions)
            for g, c in zip(arrays, step.contributions, strict=True):
                np.testing.assert_array_equal(g, c.value.array)


def test_lines_of_a_composition_and_of_16_bit_floats() -> None:
    with tensor.record() as tape, no_grad():
        model().loss(IDS, IDS)
        tensor.ones(2, 2, dtype="bfloat16") @ tensor.ones(2, 2, dtype="bfloat16")
    fused = [e for e in tape.forwards if e.implementation.startswith("fused")]
    for entry in fused:
        result = entry.lines()[-1].values["return"]
        part = result[0] if isinstance(result, tuple) else result
        np.testing.assert_allclose(part, entry.outputs[0].array, rtol=2e-4, atol=2e-6)
    assert tape.forwards[-1].lines()[-1].values["return"].dtype == np.float32


# -- tables and files


def test_the_table_has_a_line_for_each_entry() -> None:
    tape = recorded(model())
    lines = tape.table().splitlines()
    assert len(lines) == len(tape.entries) + 1
    row = next(
        line for line in lines if " attention " in line and "<-" not in line and "blocks.1" in line
    )
    assert "(2, 2, 6, 4)" in row
    assert "attention.py:" in row
    assert any("token_embedding.weight 2/2" in line for line in lines)


def test_totals_count_what_was_recorded() -> None:
    tape = recorded(model(), "as run")
    for what in ("module", "op"):
        rows = tape.by(what)  # type: ignore[arg-type]
        assert sum(row.calls for row in rows) == len(tape.forwards)
        assert sum(row.forward + row.backward for row in rows) == pytest.approx(
            sum(e.seconds for e in tape.entries)
        )
    with pytest.raises(ValueError, match='choose "module" or "op"'):
        tape.by("line")  # type: ignore[arg-type]


def test_files(tmp_path: Path) -> None:
    gpt = model()
    tape = recorded(gpt)
    for suffix in ("txt", "json", "npz"):
        tape.save(tmp_path / f"tape.{suffix}")
    assert (tmp_path / "tape.txt").read_text().rstrip("\n") == tape.table()
    events = json.loads((tmp_path / "tape.json").read_text())["traceEvents"]
    assert len(events) == len(tape.entries)
    assert all(e["ph"] == "X" and e["dur"] > 0 for e in events)
    assert events[0]["args"]["outputs"][0]["strides"] == [48, 8, 1]
    with np.load(tmp_path / "tape.npz") as arrays:
        np.testing.assert_array_equal(arrays["logits.linear"], tape["logits"])
        np.testing.assert_array_equal(
            arrays["token_embedding.weight.grad"], tape["token_embedding.weight.grad"]
        )
        assert {name for name, _ in gpt.named_parameters()} < set(arrays)
    with pytest.raises(ValueError, match=r"\.txt"):
        tape.save(tmp_path / "tape.html")
    with pytest.raises(OSError, match="missing"):
        tape.save(tmp_path / "missing" / "tape.txt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tape.json", "tape.npz", "tape.txt"]


def test_without_values(tmp_path: Path) -> None:
    gpt = model()
    with tensor.record(values=False) as tape:
        gpt.loss(IDS, IDS).backward()
    assert all(v.array is None for e in tape.forwards for v in (*e.inputs, *e.outputs))
    assert tape.table()
    tape.save(tmp_path / "tape.json")
    with pytest.raises(ValueError, match="values=True"):
        tape["logits"]
    with pytest.raises(ValueError, match="values=True"):
        next(e for e in tape.forwards if e.op in ("linear", "linear_gelu")).lines()
    with pytest.raises(ValueError, match="values=True"):
        tape.save(tmp_path / "tape.npz")
    assert not (tmp_path / "tape.npz").exists()


def test_a_wrong_choice() -> None:
    with pytest.raises(ValueError, match='"as run" or "reference"'):
        tensor.record("fast")  # type: ignore[arg-type]


def test_entries_are_of_three_kinds() -> None:
    tape = recorded(model())
    assert [*tape.forwards, *tape.backwards] == [
        e for kind in (Forward, Backward) for e in tape.entries if isinstance(e, kind)
    ]
    assert [e.number for e in tape.entries] == list(range(len(tape.entries)))
