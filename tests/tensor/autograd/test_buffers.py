"""Gradients that a backward function writes straight into their buffer: overwritten first, added to
afterwards, and only where nobody else looks.

Each case is computed with kernels and packed parameters , and again without either; NaN lies
in every buffer that must be overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, detect_anomaly, grad, kernels, nn
from tensor.base import Accumulator
from tensor.errors import GradientError, MutationError
from tensor.ops.op import OPS
from tensor.optim import AdamW
from tests.helpers.kernel_runs import compiled_kernels, draw
from tests.helpers.making import private
from tests.helpers.sharing import assert_nothing_shared

__all__ = ["compiled_kernels"]
pytestmark = pytest.mark.usefixtures("compiled_kernels")

Array = Any
linear = OPS["linear"]
IDS = Tensor([[0, 2, 0, 4], [1, 1, 2, 0]])
C, V, T = 6, 5, 4


class Model(nn.Module):
    """One parameter of each kind that has a buffer, and two gains that are one."""

    def __init__(self) -> None:
        self.tokens, self.positions = nn.Parameter(draw(V, C)), nn.Parameter(draw(T + 2, C, seed=1))
        self.gain, self.bias = nn.Parameter(1 + draw(C, seed=2)), nn.Parameter(draw(C, seed=3))
        self.weight, self.shift = nn.Parameter(draw(C, C, seed=4)), nn.Parameter(draw(C, seed=5))
        self.wide, self.wide_bias = (
            nn.Parameter(draw(C, 2 * C, seed=6)),
            nn.Parameter(draw(2 * C, seed=7)),
        )


Call = Callable[[Model], Tensor]
INPUT = Tensor(draw(2, T, C, seed=9))


def embedded(m: Model) -> Tensor:
    return tensor.positional_embedding(IDS, m.tokens, m.positions)


CASES: dict[str, Call] = {
    "linear": lambda m: linear(INPUT, m.weight, m.shift),
    "linear, turned": lambda m: linear(INPUT, m.weight, m.shift, transposed=True),
    "linear_gelu": lambda m: tensor.linear_gelu(INPUT, m.wide, m.wide_bias),
    "linear_gelu without bias": lambda m: tensor.linear_gelu(INPUT, m.wide),
    "layer_norm": lambda m: tensor.layer_norm(INPUT, m.gain, m.bias),
    "residual_layer_norm": lambda m: sum(
        tensor.residual_layer_norm(INPUT, INPUT * 2, m.gain, m.bias)
    ),
    "positional_embedding": lambda m: embedded(m),
    "gain is bias": lambda m: tensor.layer_norm(INPUT, m.gain, m.gain),
    "weight is x": lambda m: linear(m.weight, m.weight),
    "tokens are positions": lambda m: tensor.positional_embedding(IDS, m.positions, m.positions),
    "tied": lambda m: linear(embedded(m), m.tokens, transposed=True),
    "one weight in two layers": lambda m: linear(
        linear(INPUT, m.weight, m.shift), m.weight, m.shift, transposed=True
    ),
    "one norm twice": lambda m: tensor.layer_norm(
        tensor.layer_norm(INPUT, m.gain, m.bias) * INPUT, m.gain, m.bias
    ),
    "two tables of one": lambda m: embedded(m) * embedded(m),
    "an op with a buffer and one without": lambda m: (
        linear(INPUT, m.weight, m.shift) * m.shift + (m.weight * m.weight).sum(0)
    ),
    "one without and an op with a buffer": lambda m: (
        linear(INPUT * m.weight.sum(), m.weight, m.shift) + m.shift
    ),
    "all": lambda m: linear(
        sum(
            tensor.residual_layer_norm(
                embedded(m), linear(INPUT, m.weight, m.shift), m.gain, m.bias
            )
        ),
        m.tokens,
        transposed=True,
    ),
}  # fmt: skip


def spoil(model: Model) -> None:
    """Forget all gradients, and leave NaN where they were."""
    model.zero_grad()
    for flat in model.flats:
        flat.gradients.array[...] = np.nan


def backward(model: Model, call: Call, scale: float = 1) -> None:
    y = call(model)
    y.backward(Tensor(np.float32(scale) * draw(*y.shape, seed=11)))


def gradients(model: Model) -> dict[str, Array]:
    return {
        name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None
    }


def plain(call: Call) -> dict[str, Array]:
    """Without kernels, without packing, in float64."""
    model = Model()
    model.to(dtype="float64")
    with kernels.off():
        y = call(model)
        y.backward(Tensor(draw(*y.shape, seed=11), dtype="float64"))
    return gradients(model)


def same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert list(found) == list(expected)
    for name, dx in found.items():
        np.testing.assert_allclose(
            dx,
            expected[name],
            rtol=0,
            atol=2e-6 * max(1, np.abs(expected[name]).max()),
            err_msg=name,
        )


@contextmanager
def buffers_given(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """What buffers the backward pass gives out: whether each is to be added to."""
    given: list[bool] = []
    offer = Accumulator.offer

    def noted(node: Accumulator, inputs: Any) -> tuple[Array | None, bool]:
        out, add = offer(node, inputs)
        given.extend([] if out is None else [add])
        return out, add

    with monkeypatch.context() as patch:
        patch.setattr(Accumulator, "offer", noted)
        yield given


@pytest.mark.parametrize("name", CASES)
def test_bug_01_a_buffer_is_overwritten_first_and_added_to_then(name: str) -> None:
    """The first pass of a step overwrites, every further one adds, whatever lies there; and after
    zero_grad from the start.
    """
    model, expected = Model(), plain(CASES[name])
    model.pack()
    for _ in range(2):
        spoil(model)
        for passes in (1, 2, 3):
            backward(model, CASES[name])
            same(gradients(model), {key: passes * dx for key, dx in expected.items()})
    for flat in model.flats:
        for place in flat.slots:
            if place.name in expected:
                gradient: Any = place.parameter.grad
                assert np.shares_memory(gradient.array, flat.gradients.array)
            else:
                # not a bit of the neighbours' places
                assert np.isnan(flat.gradients.array[place.start : place.stop]).all()
            # nor of the padding
            assert np.isnan(flat.gradients.array[place.stop : place.end]).all()


@pytest.mark.parametrize("name", CASES)
def test_a_graph_kept_for_a_second_pass(name: str) -> None:
    model, expected = Model(), plain(CASES[name])
    model.pack()
    spoil(model)
    y = CASES[name](model)
    dy = Tensor(draw(*y.shape, seed=11))
    y.backward(dy, retain_graph=True)
    y.backward(dy)
    same(gradients(model), {key: 2 * dx for key, dx in expected.items()})


def test_buffers_are_really_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """To one use to overwrite, to the next to add; none for a leaf that is two inputs, has a hook,
    or is asked for by grad().
    """
    buffers = {
        "linear": [False, False], "linear_gelu": [False, False], "layer_norm": [False, False],
        "positional_embedding": [False, False],
        "tied": [False, True, False], "one weight in two layers": [False, False, True, True],
        "gain is bias": [], "weight is x": [], "tokens are positions": [],
    }  # fmt: skip
    for name, expected in buffers.items():
        model = Model()
        with buffers_given(monkeypatch) as given:
            backward(model, CASES[name])
            assert given == []  # not packed
            model.pack()
            spoil(model)
            backward(model, CASES[name])
            assert given == expected, name
            y = CASES[name](model)
            grad(y, [model.weight, model.gain, model.tokens], Tensor(draw(*y.shape)))
            with detect_anomaly():
                backward(model, CASES[name])
            assert given == expected, name


def test_gradients_taken_by_grad_touch_no_buffer() -> None:
    model = Model()
    model.pack()
    for call in CASES.values():
        spoil(model)
        y = call(model)
        parameters = [p for p in model.parameters() if p.grad is None]
        found = grad(y, parameters, Tensor(draw(*y.shape, seed=11)))
        names = [name for name, _ in model.named_parameters()]
        same(
            {name: dx.numpy() for name, dx in zip(names, found, strict=True) if dx is not None},
            plain(call),
        )
        assert all(np.isnan(flat.gradients.array).all() for flat in model.flats)
        assert_nothing_shared(
            {name: dx for name, dx in zip(names, found, strict=True) if dx is not None},
            {"flat": model.flats[0].gradients},
        )


@pytest.mark.parametrize("name", ["tied", "one weight in two layers", "layer_norm", "all"])
def test_a_hook_sees_the_whole_gradient_once(name: str) -> None:
    """The sum over all uses; and what it returns is what counts."""
    model, expected = Model(), plain(CASES[name])
    model.pack()
    spoil(model)
    seen: dict[str, list[Array]] = {key: [] for key in expected}
    for key in expected:
        getattr(model, key).register_hook(
            lambda g, key=key: seen[key].append(g.numpy().copy()) or g * 3
        )
    for passes in (1, 2):
        backward(model, CASES[name])
        same(gradients(model), {key: 3 * passes * dx for key, dx in expected.items()})
    for key, gs in seen.items():
        assert len(gs) == 2
        same({key: gs[0]}, {key: expected[key]})


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in CASES
        if name
        not in ("gain is bias", "weight is x", "tokens are positions", "linear_gelu without bias")
    ],
)
def test_frozen_parameters_get_nothing(name: str) -> None:
    """One after the other of those that the case uses; the others get what they got."""
    expected = plain(CASES[name])
    for frozen in expected:
        model = Model()
        getattr(model, frozen).requires_grad = False
        model.pack()
        spoil(model)
        backward(model, CASES[name])
        assert getattr(model, frozen).grad is None
        same(gradients(model), {key: dx for key, dx in expected.items() if key != frozen})


def test_a_given_gradient_is_added_to() -> None:
    model, expected = Model(), plain(CASES["tied"])
    model.pack()
    spoil(model)
    model.tokens.grad = Tensor(draw(V, C, seed=20))
    backward(model, CASES["tied"])
    same(gradients(model), {**expected, "tokens": expected["tokens"] + draw(V, C, seed=20)})
    model.tokens.grad = None  # and forgotten, overwritten
    backward(model, CASES["tied"])
    same(gradients(model), {"tokens": expected["tokens"], "positions": 2 * expected["positions"]})


def test_part_of_the_parameters_reached() -> None:
    """What was not reached in a step has no gradient, though last step's numbers lie in its place;
    the optimiser leaves it alone.
    """
    model = Model()
    optimizer = AdamW(model, lr=0.1)
    backward(model, CASES["linear"])
    backward(model, CASES["layer_norm"])
    optimizer.step()
    optimizer.zero_grad()
    before = {name: p.numpy().copy() for name, p in model.named_parameters()}
    backward(model, CASES["layer_norm"])
    assert set(gradients(model)) == {"gain", "bias"}
    optimizer.step()
    assert [
        name for name, p in model.named_parameters() if not np.array_equal(p.numpy(), before[name])
    ] == ["gain", "bias"]


def test_bug_03_a_gradient_as_an_input() -> None:
    """x = w.grad, kept by the op: its backward may not write there while it reads."""
    found = []
    for packed in (False, True):
        model = Model()
        if packed:
            model.pack()
        backward(model, CASES["linear"])
        assert model.weight.grad is not None
        backward(model, lambda m: linear(m.weight.grad, m.weight))
        backward(model, lambda m: linear(m.weight.grad, m.weight, transposed=True))
        found.append(model.weight.grad.numpy().copy())
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-5 * np.abs(found[0]).max())


def test_bug_22_writing_to_a_buffer_is_a_write() -> None:
    """An op that kept a `.grad` notices that a later pass overwrote it."""
    model = Model()
    model.pack()
    backward(model, CASES["linear"])
    y = model.gain * model.weight.grad
    model.zero_grad()
    backward(model, CASES["linear"])
    with pytest.raises(MutationError):
        y.sum().backward()


def test_anomalies_are_found_before_anything_is_written() -> None:
    model = Model()
    model.pack()
    backward(model, CASES["linear"])
    before = gradients(model)
    y = CASES["linear"](model)
    with pytest.raises(GradientError), detect_anomaly():
        y.backward(Tensor(np.full(y.shape, np.nan, np.float32)))
    for name, dx in gradients(model).items():
        np.testing.assert_array_equal(dx, before[name])


def test_rules_with_keywords_of_their_own() -> None:
    """Only `out` asks for a buffer."""

    @private
    def doubled(x: Array) -> Any:
        def dx(dy: Array, *, factor: float = 2.0) -> Array:
            return factor * dy

        return 2 * x, (dx,)

    @private
    def tripled(x: Array) -> Any:
        def rule(dy: Array, *, factor: float = 3.0) -> tuple[Array]:
            return (factor * dy,)

        return 3 * x, rule

    model = Model()
    model.pack()
    (doubled(model.gain) + tripled(model.gain)).sum().backward()
    assert model.gain.grad is not None
    assert model.gain.grad.tolist() == [5] * C


@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed: int) -> None:
    """Layers in any order over shared parameters, some results used twice, some not at all: as
    without kernels in float64.
    """

    def program(m: Model) -> Tensor:
        rng = np.random.default_rng(seed)
        results = [tensor.positional_embedding(IDS, m.tokens, m.positions)]
        for _ in range(8):
            x, y = (results[int(rng.integers(len(results)))] for _ in range(2))
            move = int(rng.integers(6))
            if move == 0:
                results.append(
                    linear(
                        x,
                        m.weight,
                        m.shift if rng.random() < 0.5 else None,
                        transposed=bool(rng.random() < 0.5),
                    )
                )
            elif move == 1:
                results.append(
                    linear(tensor.linear_gelu(x, m.wide, m.wide_bias), m.wide, transposed=True)
                )
            elif move == 2:
                results.append(
                    tensor.layer_norm(x, m.gain, m.bias if rng.random() < 0.7 else m.gain)
                )
            elif move == 3:
                results += tensor.residual_layer_norm(x, y, m.gain, m.bias)
            elif move == 4:
                results.append(
                    tensor.multi_head_attention(
                        tensor.concatenate([x, y, x], -1), heads=2, causal=True
                    )
                )
            else:
                results.append(tensor.gelu(x))
            results = [
                r if np.abs(r.numpy()).max() < 20 else tensor.layer_norm(r, m.gain, m.bias)
                for r in results
            ]
        logits = linear(
            tensor.layer_norm(sum(results[-2:]), m.gain, m.bias), m.tokens, transposed=True
        )
        return tensor.cross_entropy(logits, Tensor(rng.integers(0, V, (2, T))))

    found: list[dict[str, Array]] = []
    for dtype in ("float32", "float64"):
        model = Model()
        model.to(dtype=dtype)
        with kernels.off() if dtype == "float64" else nullcontext():
            if dtype == "float32":
                model.pack()
                spoil(model)
            loss = program(model)
            loss.backward()
        found.append({"loss": loss.numpy(), **gradients(model)})
    for name, exact in found[1].items():
        np.testing.assert_allclose(
            found[0][name], exact, rtol=0, atol=1e-4 * max(1e-2, np.abs(exact).max()), err_msg=name
        )
