"""checkpoint(f, x) is f(x): values, gradients, masks, errors; and it keeps x alone."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, checkpoint, grad, kernels, nn, no_grad
from tensor.errors import GraphError
from tensor.graph import Node, reachable
from tensor.random import Key, keyed
from tests.helpers.kernel_runs import draw

Run = Callable[..., Any]
V, C = 7, 8
IDS = [[0, 2, 0, 4], [1, 6, 2, 0]]


def plain(function: Run, *inputs: Any, **options: Any) -> Any:
    return function(*inputs, **options)


class Layer(nn.Module):
    """A bit of everything: a matrix used twice, dropout, a norm, and an op of two outputs."""

    def __init__(self, number: int = 0):
        self.norm = nn.LayerNorm(C)
        self.wide, self.back = nn.Linear(C, 2 * C), nn.Linear(2 * C, C)
        self.dropout = nn.Dropout(0.3, number)

    def __call__(self, x: Tensor) -> Tensor:
        h = self.back(tensor.linear_gelu(self.norm(x), self.wide.weight, self.wide.bias))
        s, n = tensor.residual_layer_norm(x, self.dropout(h), self.norm.gain, self.norm.bias)
        return s + tensor.linear(n, self.wide.weight) @ self.back.weight


class Model(nn.Module):
    """Tokens, three layers of which the first and the last are one, and a head that is the table,
    which the middle uses too.
    """

    def __init__(self, device: str, dtype: Any):
        self.tokens, self.positions = nn.Embedding(V, C), nn.Parameter(draw(4, C))
        first = Layer(1)
        self.layers = [first, Layer(2), first]
        self.to(device=device, dtype=dtype)

    def loss(self, run: Run) -> Tensor:
        x = tensor.positional_embedding(IDS, self.tokens.weight, self.positions)
        table = self.tokens.weight
        for layer in self.layers:
            x = run(layer, x)
        x = run(lambda h: h + tensor.softmax(tensor.linear(h, table, transposed=True)) @ table, x)
        logits = tensor.linear(x, table, transposed=True)
        return tensor.cross_entropy(logits, Tensor(IDS, device=x.device))


def gradients(
    run: Run, device: str, dtype: Any, pack: bool, passes: int = 1
) -> tuple[list[Any], dict[str, Any]]:
    tensor.manual_seed(3)
    model = Model(device, dtype)
    if pack:
        model.pack()
    losses = []
    for step in range(passes):  # gradients of several passes add up
        with keyed(Key(5, step)):
            loss = model.loss(run)
        losses.append(loss.item())
        loss.backward()
    return losses, {
        name: parameter.grad.numpy().copy()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def assert_same(
    a: tuple[list[Any], dict[str, Any]], b: tuple[list[Any], dict[str, Any]], device: str
) -> None:
    if device != "cpu":  # rows of tables are added by atomics, in no fixed order
        assert a[0] == pytest.approx(b[0], rel=1e-4)
        for name in a[1]:
            np.testing.assert_allclose(a[1][name], b[1][name], rtol=1e-3, atol=1e-5, err_msg=name)
        return
    assert a[0] == b[0]
    assert list(a[1]) == list(b[1])
    for name in a[1]:
        assert np.array_equal(a[1][name], b[1][name]), name


def nested(function: Run, *inputs: Any) -> Any:
    return checkpoint(lambda *xs: checkpoint(function, *xs), *inputs)


@pytest.mark.parametrize("run", [checkpoint, nested])
@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_gradients_are_the_same_bit_for_bit(
    run: Run, passes: int, pack: bool, dtype: str, device: str
) -> None:
    """With dropout, shared layers, a table inside and outside, rooms for packed gradients, and
    several passes.
    """
    expected = gradients(plain, device, dtype, pack, passes)
    assert len(expected[1]) == 14
    assert_same(gradients(run, device, dtype, pack, passes), expected, device)
    with kernels.off():
        assert_same(
            gradients(run, device, dtype, pack, passes),
            gradients(plain, device, dtype, pack, passes),
            device,
        )


def test_what_it_reads_is_found(device: str) -> None:
    """Leaves and results that the function only names; and the order in which a leaf's gradients
    come is that of the uses.
    """
    for dtype in ("float32", "float64"):
        found = []
        for run in (plain, checkpoint):
            a, b, c = (
                Tensor(draw(3, 4, seed=i), dtype=dtype, device=device, requires_grad=True)
                for i in range(3)
            )
            h = a * b
            y = (a * 0.3).sin() * run(
                lambda x, h=h, c=c, a=a: x.exp() * h + c * c + a.tanh(), b * 1.1
            ) + h * a
            (y * Tensor(draw(3, 4, seed=7), dtype=dtype, device=device)).sum().backward()
            found.append([t.grad.numpy() for t in (a, b, c) if t.grad is not None])
        for one, other in zip(*found, strict=True):
            assert np.array_equal(one, other)


def test_it_keeps_its_inputs_alone(device: str) -> None:
    x = Tensor(draw(64, 64), device=device, requires_grad=True)
    y = checkpoint(lambda x: ((x.exp() + 1).log() * x.tanh()).softmax(), x)
    assert [node.op for node in reachable([y.node])] == ["leaf", "checkpoint"]
    assert set(y.node.kept()) == {"function", "inputs", "options"}
    assert y.node.kept()["inputs"] == (x,)
    assert "checkpoint" in repr(y.node)
    if device == "cpu":
        x = Tensor(draw(256, 256), requires_grad=True)
        kept = []
        for run in (plain, checkpoint):
            tracemalloc.start()
            ys = run(lambda x: [x := (x.exp() + 1).log() * x.tanh() for _ in range(8)][-1], x * 1.0)
            kept.append(tracemalloc.get_traced_memory()[0] / x.array.nbytes)
            tracemalloc.stop()
            del ys
        assert kept[0] > 20
        assert kept[1] < 2.2  # x * 1.0, and the result


def test_several_outputs_inputs_and_options(device: str) -> None:
    def function(
        x: Tensor, n: int, y: Tensor, *, scale: float, shift: Tensor
    ) -> tuple[Tensor, ...]:
        return x * n * scale, y.exp() + shift, Tensor([1, 2], device=device), x, (x * y).argmax()

    found = []
    for run in (plain, checkpoint):
        x, y, shift = (Tensor(draw(3, seed=i), device=device, requires_grad=True) for i in range(3))
        frozen = Tensor(draw(3, seed=5), device=device)
        a, b, ids, same, place = run(function, x, 3, y, scale=0.5, shift=shift)
        assert ids.node is None
        assert place.node is None
        unused = run(function, x, 3, frozen, scale=0.5, shift=frozen)
        assert unused[1].node is None
        (a * a + same * b).sum().backward()
        (unused[0] * 2).sum().backward()  # the other outputs get none
        found.append([t.grad.numpy() for t in (x, y, shift) if t.grad is not None])
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


def test_bug_01_one_tensor_is_two_outputs(device: str) -> None:
    """Or an output is the input, which is used elsewhere too: all that comes for it adds up."""

    def function(x: Tensor) -> Any:
        y = x.exp()
        return y, y, x

    found = []
    for run in (plain, checkpoint):
        x = Tensor(draw(3), device=device, requires_grad=True)
        h = x * 1.5
        a, b, c = run(function, h)
        (a * 2 + b * 3 + c * h * 5).sum().backward()
        assert x.grad is not None
        found.append(x.grad.numpy())
    assert np.array_equal(*found)


def test_what_needs_no_gradient_is_only_run(device: str) -> None:
    calls = []

    def function(x: Tensor) -> Any:
        calls.append(1)
        return x * 2

    assert checkpoint(function, Tensor([1.0], device=device)).node is None
    with no_grad():
        assert checkpoint(function, Tensor([1.0], device=device, requires_grad=True)).node is None
    x = Tensor([3.0], device=device, requires_grad=True)
    y = checkpoint(function, x)
    assert len(calls) == 3
    with no_grad():  # the walk runs where it is called; what runs again is recorded all the same
        y.backward(Tensor([1.0], device=device))
    assert len(calls) == 4
    assert x.grad is not None
    assert x.grad.tolist() == [2.0]


def test_a_second_backward(device: str) -> None:
    x = Tensor(draw(4), device=device, requires_grad=True)
    y = checkpoint(lambda x: x.exp() * x, x).sum()
    y.backward(retain_graph=True)
    assert x.grad is not None
    once = x.grad.numpy().copy()
    y.backward()
    assert np.array_equal(x.grad.numpy(), 2 * once)
    with pytest.raises(GraphError, match="second time"):
        y.backward()


def test_grad_touches_nothing(device: str) -> None:
    """Of a leaf that the function only names, of its input, of what lies behind; only what leads
    there is walked.
    """
    x, w, other = (Tensor(draw(4, seed=i), device=device, requires_grad=True) for i in range(3))
    h = x * 1.5
    y = checkpoint(lambda h: h.exp() * w + other, h).sum()
    z = (h.exp() * w + other).sum()
    for wanted in ([x], [w], [h, w], [other, x, h]):
        got, expected = grad(y, wanted, retain_graph=True), grad(z, wanted, retain_graph=True)
        for a, b in zip(got, expected, strict=True):
            assert a is not None
            assert b is not None
            assert np.array_equal(a.numpy(), b.numpy())
    assert x.grad is w.grad is other.grad is None
    assert grad(y, [Tensor([1.0], device=device, requires_grad=True)]) == (None,)


def test_hooks(device: str) -> None:
    """On the input, the output, a leaf, and a tensor that the function makes."""
    seen: list[list[Any]] = []
    for run in (plain, checkpoint):
        notes: list[Any] = []

        def note(name: str, notes: list[Any] = notes) -> Callable[[Tensor], Tensor]:
            def hook(dy: Tensor) -> Tensor:
                notes.append((name, dy.numpy().copy().tolist()))
                return dy * 2

            return hook

        def function(x: Tensor, note: Any = note) -> Any:
            h = x.exp()
            if h.node is not None:
                h.register_hook(note("inside"))
            return h * x

        x = Tensor(draw(3), device=device, requires_grad=True)
        h = x * 1.5
        x.register_hook(note("leaf"))
        h.register_hook(note("input"))
        y = run(function, h)
        y.register_hook(note("output"))
        (y * 3).sum().backward()
        assert [name for name, _ in notes] == ["output", "inside", "input", "leaf"]
        seen.append(notes)
    assert seen[0] == seen[1]


# -- random numbers


@pytest.mark.parametrize("outer", [True, False])
def test_bug_47_dropout_masks_are_those_of_forward(outer: bool, device: str) -> None:
    """Under a key, though backward runs outside it, and from the default generator, which stands as
    it did afterwards.
    """
    dropout = nn.Dropout(0.5)
    for _ in range(2):
        x = Tensor(np.ones((8, 32)), device=device, requires_grad=True)
        tensor.manual_seed(4)
        if outer:
            with keyed(Key(1, 2)):
                y = checkpoint(
                    lambda x: (
                        dropout(x) * 1.0 + tensor.rand(8, 32, dtype="float64", device=device) * x
                    ),
                    x,
                )
        else:
            y = checkpoint(
                lambda x: dropout(x) * 1.0 + tensor.rand(8, 32, dtype="float64", device=device) * x,
                x,
            )
        tensor.rand(5)
        state = tensor.random.default.state()
        y.sum().backward()
        assert tensor.random.default.state() == state
        assert x.grad is not None
        # of ones: each is the factor that it was given
        np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
        assert 0 < (y.numpy() < 1).sum() < y.size


# -- what is left


def test_the_inner_graph_is_freed_as_the_walk_goes(device: str) -> None:
    """After backward nothing of a checkpoint's second run is left."""
    kept: list[Any] = []

    def function(x: Tensor) -> Any:
        y = x.exp()
        kept.append(y.node)
        return y * y

    x = Tensor(draw(3), device=device, requires_grad=True)
    y = checkpoint(function, x)
    y.sum().backward()
    first, second = kept
    assert isinstance(first, Node)
    assert first is not second
    assert second.backward is None
    assert y.node.backward is None


def test_many_deep(device: str) -> None:
    """A thousand checkpoints after each other, and a dozen in each other."""
    x = Tensor([1.0], dtype="float64", device=device, requires_grad=True)
    y = x
    for _ in range(1000):
        y = checkpoint(lambda y: y * 1.001, y)

    def inner(x: Tensor, depth: int) -> Any:
        return checkpoint(inner, x * 1.1, depth - 1) if depth else x

    (y + inner(x, 12)).sum().backward()
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(1.001**1000 + 1.1**12, rel=1e-12)


def test_threads_walk_through_one_graph(device: str) -> None:
    if device != "cpu":
        pytest.skip("one stream")
    x = Tensor(draw(64, 64), requires_grad=True)
    dropout = nn.Dropout(0.5)
    with keyed(Key(1)):
        y = checkpoint(lambda x: ((dropout(x).exp() * x).tanh() * x).softmax() * x, x).sum()
    (expected,) = grad(y, x, retain_graph=True)
    assert expected is not None
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.extend(grad(y, x, retain_graph=True)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for dx in found:
        assert np.array_equal(dx.numpy(), expected.numpy())
