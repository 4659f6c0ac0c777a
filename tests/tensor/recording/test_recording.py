"""A tape says what ran: every op and every gradient, in order, as it was, under names that a reader
can guess; and it changes nothing.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, grad, kernels, nn, no_grad, optim
from tensor.errors import ShapeError
from tensor.mode import MODE
from tensor.ops.op import OPS
from tensor.recording import Backward, Recording, Work
from tests.helpers.recorded import IDS, model, recorded

# -- what is on it


def test_an_op_with_all_that_is_known_of_it(device: str) -> None:
    x = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True, device=device)
    with tensor.record() as tape:
        y = x.T * 2.0
        y.sum().backward()
    turn, double, total = tape.forwards
    assert [e.op for e in tape.forwards] == ["permute", "multiply", "sum"]
    assert (turn.implementation, turn.inputs[0].source, turn.inputs[0].bytes) == ("view", "x", 24)
    out = turn.outputs[0]
    assert (out.shape, out.strides, out.offset, out.contiguous, out.dtype, out.device) == (
        (3, 2),
        (1, 3),
        0,
        False,
        "float32",
        x.device,
    )
    assert (double.inputs[0].source, double.inputs[1].source, double.inputs[1].array.item()) == (
        turn.name,
        "constant",
        2.0,
    )
    assert double.line.number == total.line.number - 1
    assert "test_recording.py" in str(double.line)
    assert "y = x.T * 2.0" in str(double.line)
    assert total.outputs[0].array == 42.0
    assert double.formula.startswith(str(OPS["multiply"].__doc__).split("\n")[0])
    assert all(e.seconds > 0 for e in tape.entries)
    assert all(
        a.start + a.seconds <= b.start for a, b in zip(tape.entries, tape.entries[1:], strict=False)
    )
    assert [(e.op, e.of.op if e.of else None) for e in tape.backwards] == [
        ("sum", "sum"),
        ("multiply", "multiply"),
        ("permute", "permute"),
    ]
    (last,) = tape.backwards[-1].contributions
    assert (last.to, last.number, last.count) == ("x", 1, 1)
    assert (last.value.array == 2).all()


def test_what_an_op_keeps_is_named_and_measured() -> None:
    x, w = (
        Tensor(np.ones((4, 8), np.float32), requires_grad=True),
        nn.Parameter(np.ones((8, 2), np.float32)),
    )
    with tensor.record() as tape, kernels.off():
        h = x.exp()
        h @ w
    exp, matmul = tape.forwards
    assert [(s.shape, s.bytes, s.made) for s in exp.saved] == [((4, 8), 128, True)]
    assert exp.saved_bytes == 128
    named = {s.name: s for s in matmul.saved}
    assert named["left"].source == exp.name
    assert (named["right"].source, named["right"].made) == ("w", False)
    assert matmul.saved_bytes == 128
    totals = {row.name: row for row in tape.by("op")}
    assert (totals["exp"].saved, totals["matmul"].saved, totals["exp"].calls) == (128, 128, 1)


def test_arrays_stay_as_they_were(device: str) -> None:
    """The tape holds copies: what is written later, through the tensor or behind it, changes
    nothing on it.
    """
    memory = np.ones(3, np.float32)
    shared = Tensor.from_array(memory)
    weight = nn.Parameter(np.full(3, 2.0, np.float32), device=device)
    with tensor.record() as tape:
        y = weight * weight
        if device == "cpu":
            shared + 1.0
        y.sum().backward()
        with no_grad():
            weight[...] = 7.0
        weight * 1.0
    memory[:] = 9.0
    weight.grad[...] = 5.0  # type: ignore[index]
    first, last = tape.forwards[0], tape.forwards[-1]
    assert first.inputs[0].array.tolist() == [2.0, 2.0, 2.0]
    assert last.inputs[0].array.tolist() == [7.0, 7.0, 7.0]
    assert [c.value.array.tolist() for c in tape.backwards[-1].contributions] == [
        [2.0] * 3,
        [2.0] * 3,
    ]
    assert dict(first.lines()[-1].values)["return"].tolist() == [4.0, 4.0, 4.0]
    if device == "cpu":
        assert tape.forwards[1].inputs[0].array.tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="read-only"):
        first.inputs[0].array[0] = 1.0


def test_contributions_are_counted_as_they_come(device: str) -> None:
    x = Tensor([1.0, 2.0], requires_grad=True, device=device)
    with tensor.record() as tape:
        y = x * x
        loss = (y + x).sum()
        loss.backward(retain_graph=True)
        first = len(tape.entries)
        loss.backward(retain_graph=True)
    come = [
        (c.to, c.input, c.number, c.count)
        for e in tape.entries[:first]
        if isinstance(e, Backward)
        for c in e.contributions
    ]
    assert come == [
        ("add", "x", 1, 1),
        ("multiply", "a", 1, 1),
        ("x", "b", 1, 3),
        ("x", "a", 2, 3),
        ("x", "b", 3, 3),
    ]
    more = [
        (c.to, c.input, c.number, c.count)
        for e in tape.entries[first:]
        if isinstance(e, Backward)
        for c in e.contributions
    ]
    assert more == come
    with tensor.record() as again:
        loss.backward()
    # counted anew in each walk
    assert [(c.number, c.count) for e in again.backwards for c in e.contributions] == [
        (n, m) for _, _, n, m in come
    ]
    assert all(e.of is None for e in again.backwards)  # these ops ran before


def test_contributions_of_a_packed_tied_weight_are_each_alone(device: str) -> None:
    """Where gradients are written straight into the flat storage, the second would be the sum of
    both.
    """
    gpt = model(device)
    optim.AdamW(gpt)
    tape = recorded(gpt, "as run")
    parts = [
        c.value.array
        for e in tape.backwards
        for c in e.contributions
        if c.to == "token_embedding.weight"
    ]
    assert len(parts) == 2
    whole = gpt.token_embedding.weight.grad
    assert whole is not None
    np.testing.assert_allclose(parts[0] + parts[1], whole.numpy(), rtol=1e-5, atol=1e-7)
    assert np.abs(parts[1] - whole.numpy()).max() > 1e-3


def test_contributions_add_up_to_what_arrives(device: str) -> None:
    """For every op: the sum of what was handed to it is what its backward was given. And every
    parameter's is its gradient.
    """
    gpt = model(device)
    tape = recorded(gpt)
    sums: dict[str, Any] = {}
    counts: dict[str, tuple[int, int]] = {}
    for step in tape.backwards:
        if step.of and step.of.op != "cross_entropy":
            target = step.of.name if len(step.upstream) == 1 else f"{step.of.name}[0]"
            assert step.upstream[0] is not None
            np.testing.assert_allclose(step.upstream[0].array, sums[target], rtol=1e-6, atol=1e-9)
            assert counts[target][0] == counts[target][1]
        for c in step.contributions:
            sums[c.to] = sums[c.to] + c.value.array if c.to in sums else c.value.array
            assert c.number == counts.get(c.to, (0, 0))[0] + 1
            counts[c.to] = c.number, c.count
    for name, parameter in gpt.named_parameters():
        assert parameter.grad is not None
        np.testing.assert_allclose(
            tape[f"{name}.grad"], parameter.grad.numpy(), rtol=1e-6, atol=1e-9
        )


def test_broadcasting_shows_its_expand() -> None:
    x, b = (
        Tensor(np.ones((3, 2), np.float32), requires_grad=True),
        Tensor([1.0, 2.0], requires_grad=True),
    )
    with tensor.record() as tape:
        (x * b).sum().backward()
    product, expand = tape.backwards[1:]
    assert [(c.input, c.to) for c in product.contributions] == [("a", "x"), ("b", "expand of b")]
    assert (expand.op, expand.of, expand.contributions[0].to) == ("expand", None, "b")
    assert expand.contributions[0].value.array.tolist() == [3.0, 3.0]
    assert tape.nodes == 3  # multiply, expand, sum


def test_a_view_of_a_parameter_is_no_memory_of_backwards_own() -> None:
    gpt = model()
    tape = recorded(gpt)
    head = next(e for e in tape.forwards if e.name == "logits.linear")
    kept = {s.name: s for s in head.saved}
    assert (kept["matrix"].source, kept["matrix"].made) == ("token_embedding.weight", False)
    assert head.saved_bytes == kept["rows"].bytes == 2 * 6 * 8 * 4


# -- what a recording does not change


@pytest.mark.parametrize("packed", [False, True])
def test_recording_changes_no_number(device: str, packed: bool) -> None:
    def losses(watched: bool) -> list[Any]:
        gpt = model(device, dropout=0.2)
        optimizer = optim.AdamW(gpt, lr=0.01) if packed else None
        seen = []
        for step in range(3):
            with tensor.random.keyed(tensor.random.Key(1, step)):
                gpt.zero_grad()
                if watched:
                    with tensor.record():
                        loss = gpt.loss(IDS, IDS)
                        loss.backward()
                else:
                    loss = gpt.loss(IDS, IDS)
                    loss.backward()
                seen += [
                    float(loss),
                    *(p.grad.numpy().copy() for p in gpt.parameters() if p.grad is not None),
                ]
                if optimizer:
                    optimizer.step()
        return seen

    for a, b in zip(losses(True), losses(False), strict=True):
        if device == "cpu":
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_off_means_off() -> None:
    with tensor.record() as tape:
        tensor.ones(2).exp()
    tensor.ones(2).exp()
    assert MODE.get().tape is None
    with pytest.raises(ShapeError), tape_of_an_error() as broken:
        tensor.ones(2, 3) @ tensor.ones(2, 3)
    assert MODE.get().tape is None
    assert len(tape.entries) == 1
    assert broken.entries == []


def tape_of_an_error() -> Any:
    return tensor.record()


def test_another_thread_is_not_recorded_and_records_for_itself() -> None:
    tapes: list[Recording] = []

    def work() -> None:
        tensor.ones(2).exp()
        with tensor.record() as own:
            tensor.ones(2).log()
        tapes.append(own)

    with tensor.record() as tape:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        tensor.ones(2).sqrt()
    assert [e.op for e in tape.forwards] == ["sqrt"]
    assert [e.op for e in tapes[0].forwards] == ["log"]


def test_a_checkpoint_records_its_second_run(device: str) -> None:
    plain, again = model(device), model(device)
    again.recompute = True
    a, b = recorded(plain.train()), recorded(again.train())
    assert len(b.forwards) > len(a.forwards)
    for name, parameter in plain.named_parameters():
        np.testing.assert_allclose(a[f"{name}.grad"], b[f"{name}.grad"], rtol=1e-6, atol=1e-9)
        assert parameter.shape == b[name].shape
    assert (
        next(e.module for e in b.forwards if e.module.startswith("blocks.1.attention"))
        == "blocks.1.attention_norm"
    )
    counted = {c.to: (c.number, c.count) for e in b.backwards for c in e.contributions}
    assert all(
        counted[name] == (2 if name == "token_embedding.weight" else 1,) * 2
        for name, _ in plain.named_parameters()
    )


def test_grad_of_some_inputs_shows_only_their_way() -> None:
    x, y = Tensor([2.0], requires_grad=True), Tensor([3.0], requires_grad=True)
    with tensor.record() as tape:
        grad((x.exp() * y.exp()).sum(), x)
    assert [c.to for e in tape.backwards for c in e.contributions] == ["multiply", "exp", "x"]


def test_an_optimiser_stands_on_it_as_work() -> None:
    gpt = model()
    optimizer = optim.AdamW(gpt)
    with tensor.record(values=False) as tape:
        optimizer.zero_grad()
        gpt.loss(IDS, IDS).backward()
        optim.clip_gradients(optimizer, 1.0)
        optimizer.step()
    assert [e.name for e in tape.entries if isinstance(e, Work)] == [
        "Optimizer.zero_grad",
        "clip_gradients",
        "Optimizer.step",
    ]
