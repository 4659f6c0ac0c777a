"""Optimisers against closed forms in float64 and against PyTorch; decay, clipping, schedules;
resuming; parameters of 16 bits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, nn, optim
from tensor.errors import MutationError, StateError
from tensor.memory.devices import Array
from tensor.optim.optimizer import TILE

SHAPES = {"table": (7, 3), "gain": (3,), "matrix": (3, 5), "bias": (5,)}


class Model(nn.Module):
    """Two matrices, which decay, two vectors, which do not, and a second name for one of them."""

    table: nn.Parameter
    gain: nn.Parameter
    matrix: nn.Parameter
    bias: nn.Parameter

    def __init__(self, dtype: str = "float64", device: str = "cpu", seed: int = 0):
        rng = np.random.default_rng(seed)
        for name, shape in SHAPES.items():
            setattr(
                self, name, nn.Parameter(rng.standard_normal(shape), dtype=dtype, device=device)
            )
        self.head = self.table


def gradients(step: int, seed: int = 1) -> dict[str, Array | None]:
    """What each parameter gets at a step; None now and then, so that parameters have taken unequal
    numbers of steps.
    """
    rng = np.random.default_rng((seed, step))
    drawn = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    return {
        name: None if (step + i) % 5 == 0 and i != 2 else g
        for i, (name, g) in enumerate(drawn.items())
    }


def give(model: nn.Module, given: dict[str, Array | None]) -> None:
    for name, parameter in model.named_parameters():
        g = given[name]
        parameter.grad = (
            None if g is None else Tensor(g, dtype=parameter.dtype, device=parameter.device)
        )


def values(model: nn.Module) -> dict[str, Array]:
    return {
        name: parameter.numpy().astype(np.float64) for name, parameter in model.named_parameters()
    }


# -- AdamW


def adamw_closed_form(
    w: Array, gs: Sequence[Array], lr: float, betas: tuple[float, float], eps: float, decay: float
) -> Array:
    """The moments as the weighted sums that they are, not as recursions."""
    b1, b2 = betas
    for t in range(1, len(gs) + 1):
        m = sum((1 - b1) * b1 ** (t - i) * gs[i - 1] for i in range(1, t + 1)) / (1 - b1**t)
        v = sum((1 - b2) * b2 ** (t - i) * gs[i - 1] ** 2 for i in range(1, t + 1)) / (1 - b2**t)
        w = w - lr * decay * w - lr * m / (np.sqrt(v) + eps)
    return w


@pytest.mark.parametrize("eps", [1e-8, 0.1])
def test_bug_41_ten_steps_against_the_closed_form(eps: float, device: str) -> None:
    model = Model(device=device)
    start = values(model)
    optimizer = optim.AdamW(model, lr=0.03, betas=(0.8, 0.95), eps=eps, weight_decay=0.2)
    taken: dict[str, list[Array]] = {name: [] for name in start}
    for step in range(10):
        given = gradients(step)
        give(model, given)
        optimizer.step()
        for name, g in given.items():
            taken[name] += [] if g is None else [g]
    assert len({len(gs) for gs in taken.values()}) > 1  # unequal numbers of steps
    assert optimizer.counts == {name: len(gs) for name, gs in taken.items()}
    for name, after in values(model).items():
        exact = adamw_closed_form(
            start[name], taken[name], 0.03, (0.8, 0.95), eps, 0.2 if len(SHAPES[name]) == 2 else 0.0
        )
        assert np.allclose(after, exact, rtol=0, atol=1e-13), name


def test_bug_41_first_update_is_the_sign(device: str) -> None:
    w = nn.Parameter(np.zeros(5), device=device)
    optimizer = optim.AdamW([w], lr=0.01, eps=1e-12)
    w.grad = Tensor(np.array([5.0, -1e-3, 1e3, -2.0, 1e-5]), device=device)
    optimizer.step()
    assert np.allclose(w.numpy(), -0.01 * np.sign([5, -1, 1, -1, 1]), rtol=1e-6)


def test_bug_41_epsilon_stands_outside_the_root_and_after_the_correction(device: str) -> None:
    """Of a gradient as small as eps, half the step is left, at every t."""
    w = nn.Parameter(np.zeros(2), device=device)
    optimizer = optim.AdamW([w], lr=0.01, eps=1e-8)
    for t in range(1, 4):
        w.grad = Tensor(np.array([1e-8, -1e-8]), device=device)
        optimizer.step()
        assert np.allclose(w.numpy(), [-0.005 * t, 0.005 * t], rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize(
    "make",
    [
        lambda m: optim.AdamW(m, lr=0.02),
        lambda m: optim.SGD(m, lr=0.02, momentum=0.9, nesterov=True),
    ],
    ids=["AdamW", "SGD"],
)
def test_bug_41_resuming_continues_bit_for_bit(
    make: Callable[[nn.Module], optim.Optimizer], dtype: str, device: str
) -> None:
    model = Model(dtype, device)
    optimizer = make(model)
    for step in range(12):
        if step == 5:
            weights, state = (
                {name: x.numpy().copy() for name, x in model.state_dict().items()},
                copy.deepcopy(optimizer.state_dict()),
            )
        give(model, gradients(step))
        optimizer.step()
    resumed = Model(dtype, device, seed=9)
    again = make(resumed)
    again.lr = 5.0
    resumed.load_state_dict(weights)
    again.load_state_dict(state)
    assert (again.lr, again.counts) == (0.02, state["counts"])
    for step in range(5, 12):
        give(resumed, gradients(step))
        again.step()
    assert all(
        np.array_equal(values(model)[name], after) for name, after in values(resumed).items()
    )


def test_state_of_another_optimizer_writes_nothing() -> None:
    optimizer = optim.AdamW(Model(), lr=0.1)
    give_up = [optim.SGD(Model()).state_dict(), optim.AdamW(nn.Linear(2, 2)).state_dict()]
    short = optim.AdamW(Model()).state_dict()
    short["arrays"]["0.m"] = short["arrays"]["0.m"][:1]
    for state in (*give_up, short):
        with pytest.raises(StateError, match="the state does not fit this AdamW\n  "):
            optimizer.load_state_dict({**state, "lr": 7.0})
        assert optimizer.lr == 0.1
        assert set(optimizer.counts.values()) == {0}


# -- decay


@pytest.mark.parametrize("make", [optim.AdamW, optim.SGD])
def test_bug_42_decay_is_decoupled(make: Any, device: str) -> None:
    """With zero gradients weights shrink by 1 - lr * decay a step: the moments stay 0."""
    model = Model(device=device)
    start = values(model)
    optimizer = make(model, lr=0.1, weight_decay=0.3)
    for _ in range(7):
        give(model, {name: np.zeros(shape) for name, shape in SHAPES.items()})
        optimizer.step()
    after = values(model)
    for name in ("table", "matrix"):
        assert np.allclose(after[name], start[name] * (1 - 0.1 * 0.3) ** 7, rtol=1e-13)
    for name in ("gain", "bias"):
        assert np.array_equal(after[name], start[name])


def test_bug_42_groups_by_name_and_tied_once(device: str) -> None:
    model = Model(device=device)
    optimizer = optim.AdamW(model)
    assert {flat.group: [place.name for place in flat.slots] for flat in optimizer.flats} == {
        "decayed": ["table", "matrix"],
        "not decayed": ["gain", "bias"],
    }
    for parameters in (model, [model.table, model.head]):
        optimizer = optim.AdamW(parameters, lr=0.1, weight_decay=1.0)
        give(model, {name: np.zeros(shape) for name, shape in SHAPES.items()})
        before = values(model)["table"]
        optimizer.step()
        # 0.81 if its two names counted
        assert np.allclose(values(model)["table"], 0.9 * before, rtol=1e-14)


class Tied(nn.Module):
    """A head that is the table of tokens under another name, and one that is not."""

    def __init__(self, device: str):
        self.token_embedding, self.position_embedding = (
            nn.Embedding(5, 4),
            nn.Parameter(np.ones((3, 4), np.float32), role="table"),
        )
        self.layer, self.norm, self.head = (
            nn.Linear(4, 4),
            nn.LayerNorm(4),
            nn.Linear(4, 5, bias=False, role="head"),
        )
        self.tied_head = self.token_embedding.weight
        self.to(device=device)


@pytest.mark.parametrize("make", [optim.AdamW, optim.Muon])
def test_bug_42_embeddings_decay_by_choice(make: Any, device: str) -> None:
    """With zero gradients: matrices shrink in any case, gains and biases never, and tables, under
    whatever further names, as chosen.
    """
    for choice in (True, False):
        model = Tied(device)
        model.pack()  # in the groups that are common: the optimiser makes its own
        optimizer = make(
            model,
            lr=0.1,
            weight_decay=0.5,
            decay_embeddings=choice,
            **({"adamw_lr": 0.1} if make is optim.Muon else {}),
        )
        before = values(model)
        for parameter in model.parameters():
            parameter.grad = tensor.zeros_like(parameter.detach())
        optimizer.step()
        tables = {"token_embedding.weight", "position_embedding"}
        decaying = {"layer.weight", "head.weight"} | (tables if choice else set())
        for name, after in values(model).items():
            np.testing.assert_allclose(
                after, before[name] * (0.95 if name in decaying else 1.0), rtol=1e-6, err_msg=name
            )
        assert model.tied_head is model.token_embedding.weight
        optimizer.load_state_dict(optimizer.state_dict())


def test_bug_42_decay_is_of_the_old_weight(device: str) -> None:
    w = nn.Parameter(np.array([[2.0]]), device=device)
    optimizer = optim.AdamW([w], lr=0.5, eps=1e-300, weight_decay=0.5)
    w.grad = Tensor(np.array([[4.0]]), device=device)
    optimizer.step()
    # 1.0; decaying what the step left would give 1.125
    assert w.item() == pytest.approx(2 - 0.5 * 0.5 * 2 - 0.5, rel=1e-14)


# -- against PyTorch

PAIRS: dict[
    str, tuple[Callable[[nn.Module], optim.Optimizer], Callable[[Any, list[Any], list[Any]], Any]]
] = {
    "SGD": (
        lambda m: optim.SGD(m, lr=0.1),
        lambda t, decayed, rest: t.optim.SGD(decayed + rest, lr=0.1),
    ),
    "momentum": (
        lambda m: optim.SGD(m, lr=0.1, momentum=0.9),
        lambda t, decayed, rest: t.optim.SGD(decayed + rest, lr=0.1, momentum=0.9),
    ),
    "nesterov": (
        lambda m: optim.SGD(m, lr=0.1, momentum=0.9, nesterov=True),
        lambda t, decayed, rest: t.optim.SGD(decayed + rest, lr=0.1, momentum=0.9, nesterov=True),
    ),
    "AdamW": (
        lambda m: optim.AdamW(m, lr=0.1, betas=(0.7, 0.9), eps=1e-3, weight_decay=0.2),
        lambda t, decayed, rest: t.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.2}, {"params": rest, "weight_decay": 0}],
            lr=0.1,
            betas=(0.7, 0.9),
            eps=1e-3,
        ),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_twenty_steps_against_pytorch(name: str, device: str) -> None:
    torch = pytest.importorskip("torch")
    model = Model(device=device)
    theirs = {n: torch.tensor(w, requires_grad=True) for n, w in values(model).items()}
    ours_made, theirs_made = PAIRS[name]
    optimizer = ours_made(model)
    other = theirs_made(
        torch, [theirs["table"], theirs["matrix"]], [theirs["gain"], theirs["bias"]]
    )
    for step in range(20):
        given = gradients(step)
        give(model, given)
        for n, g in given.items():
            theirs[n].grad = None if g is None else torch.tensor(g)
        optimizer.lr = 0.1 / (1 + step % 3)
        for group in other.param_groups:
            group["lr"] = optimizer.lr
        optimizer.step()
        other.step()
    for n, w in values(model).items():
        assert np.allclose(w, theirs[n].detach().numpy(), rtol=0, atol=1e-12), n


def test_tiles_change_nothing(device: str) -> None:
    """More elements than two tiles, and parameters that end inside one."""
    rng = np.random.default_rng(0)
    shapes = [(3, TILE - 5), (7, 11), (2, TILE)]
    ws = [nn.Parameter(rng.standard_normal(shape), device=device) for shape in shapes]
    start, gs = [w.numpy().copy() for w in ws], [rng.standard_normal(shape) for shape in shapes]
    optimizer = optim.SGD(ws, lr=0.5, momentum=0.5, weight_decay=0.1)
    for w, g in zip(ws, gs, strict=True):
        w.grad = Tensor(g, device=device)
    optimizer.step()
    optimizer.step()
    for w, before, g in zip(ws, start, gs, strict=True):
        assert np.allclose(
            w.numpy(), (before * 0.95 - 0.5 * g) * 0.95 - 0.5 * 1.5 * g, rtol=1e-13, atol=1e-14
        )


def test_a_step_is_a_write(device: str) -> None:
    """Backward of a graph that kept a weight raises after an update of that weight, and not after
    one of another.
    """
    w, u = (
        nn.Parameter(np.ones((2, 2)), device=device),
        nn.Parameter(np.ones((2, 2)), device=device),
    )
    optimizer = optim.SGD([w, u], lr=0.1)
    y, z = (w * w).sum(), (u * u).sum()
    w.grad = Tensor(np.ones((2, 2)), device=device)
    optimizer.step()
    z.backward()
    with pytest.raises(MutationError, match="written at"):
        y.backward()


# -- clipping


def three_four(device: str, packed: bool, dtype: str = "float64") -> Model:
    """Gradients of norms 3 and 4 on a matrix and a vector; the other parameters have none."""
    model = Model(dtype, device)
    if packed:
        model.pack()
    matrix, bias = np.zeros((3, 5)), np.zeros(5)
    matrix[0, :3], bias[4] = (1, -2, 2), 4
    give(model, {"table": None, "gain": None, "matrix": matrix, "bias": bias})
    return model


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("packed", [False, True])
def test_bug_43_one_norm_for_all(packed: bool, dtype: str, device: str) -> None:
    model = three_four(device, packed, dtype)
    assert optim.gradient_norm(model) == 5
    assert optim.clip_gradients(model, 6) == 5  # below the limit nothing changes
    assert optim.gradient_norm(model) == 5
    assert optim.clip_gradients(model, 2.5) == 5
    assert model.matrix.grad[0].tolist() == [0.5, -1, 1, 0, 0]
    assert model.bias.grad.tolist() == [0, 0, 0, 0, 2]
    assert model.table.grad is None
    assert optim.gradient_norm(model) == 2.5
    assert optim.gradient_norm(model.parameters()) == 2.5
    # an iterator is walked once
    assert optim.clip_gradients((p for p in model.parameters()), 1.25) == 2.5
    assert optim.gradient_norm(list(model.parameters())) == 1.25


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("packed", [False, True])
def test_bug_43_a_norm_that_is_not_finite_is_reported(
    bad: float, packed: bool, device: str
) -> None:
    model = three_four(device, packed)
    model.bias.grad = Tensor(np.array([1.0, bad, 2.0, 0.0, 0.0]), device=device)
    norm = optim.clip_gradients(model, 1.0)
    assert math.isnan(norm) if math.isnan(bad) else norm == math.inf
    assert np.array_equal(model.bias.grad.numpy(), [1, bad, 2, 0, 0], equal_nan=True)
    assert model.matrix.grad[0].tolist() == [1, -2, 2, 0, 0]


def test_bug_43_tied_counts_once(device: str) -> None:
    w = nn.Parameter(np.zeros(2), device=device)
    w.grad = Tensor(np.array([3.0, 4.0]), device=device)
    assert optim.gradient_norm([w, w]) == 5
    assert optim.clip_gradients([w, w], 1.0) == 5
    assert np.allclose(w.grad.numpy(), [0.6, 0.8], rtol=1e-14)


def test_norm_of_nothing_and_of_much(device: str) -> None:
    assert optim.gradient_norm(Model(device=device)) == 0
    assert optim.clip_gradients([], 1.0) == 0
    w = nn.Parameter(np.zeros(300_000), dtype="float32", device=device)
    w.grad = tensor.full((300_000,), 2.0, device=device)
    assert optim.gradient_norm([w]) == pytest.approx(2 * math.sqrt(300_000), rel=1e-6)


# -- schedules

# step: share of the peak, for a warm-up of 5 steps in 25 and a floor of 0.1
WARM_5_OF_25 = {
    0: 1 / 6,
    3: 4 / 6,
    4: 5 / 6,
    5: 1,
    10: 0.8681980515339463,
    15: 0.55,
    24: 0.10554024673218801,
    25: 0.1,
    26: 0.1,
    900: 0.1,
}


@pytest.mark.parametrize("step", WARM_5_OF_25)
def test_bug_45_table_of_learning_rates(step: int) -> None:
    assert optim.warmup_cosine(step, peak=2.0, warmup=5, total=25, floor=0.2) == pytest.approx(
        2 * WARM_5_OF_25[step], rel=1e-14
    )


def test_bug_45_ends_of_the_schedule() -> None:
    assert optim.warmup_cosine(0, peak=3.0, warmup=0, total=10) == 3  # no warm-up: the peak at once
    assert optim.warmup_cosine(10, peak=3.0, warmup=0, total=10) == 0
    assert optim.warmup_cosine(11, peak=3.0, warmup=9, total=10) == 0
    rates = [
        optim.warmup_cosine(step, peak=1.0, warmup=9, total=40, floor=0.01) for step in range(45)
    ]
    assert min(rates) > 0  # no step is wasted on a rate of 0
    assert rates.index(max(rates)) == 9
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    for warmup in (10, 11, -1):
        with pytest.raises(
            ValueError, match=f"warm-up of {warmup} steps in a schedule of 10: it must be shorter"
        ):
            optim.warmup_cosine(0, peak=1.0, warmup=warmup, total=10)


# -- 16 bits


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "make",
    [lambda w: optim.SGD([w], lr=1e-4), lambda w: optim.AdamW([w], lr=1e-4, weight_decay=0)],
    ids=["SGD", "AdamW"],
)
def test_small_updates_survive_in_16_bits(make: Any, dtype: str, device: str) -> None:
    """1 - 1e-4 is 1 in both; the float32 master adds the steps up."""
    w = nn.Parameter(np.ones((2, 2)), dtype=dtype, device=device)
    optimizer = make(w)
    for _ in range(100):
        w.grad = tensor.ones(2, 2, dtype=dtype, device=device)
        optimizer.step()
    assert w.tolist() == [[Tensor(np.array(0.99), dtype=dtype).item()] * 2] * 2
    assert np.allclose(optimizer.state[0]["master"][:4], 0.99, rtol=1e-5)
    assert optimizer.state[0]["master"].dtype == np.float32


def test_weights_written_by_others_reach_the_master(device: str) -> None:
    """load_state_dict between two steps must not be undone by a master that never heard of it."""
    layer = nn.Linear(3, 2).to(dtype="bfloat16", device=device)
    optimizer = optim.SGD(layer, lr=1e-4)
    layer.bias.grad = tensor.ones(2, dtype="bfloat16", device=device)
    optimizer.step()
    kept = optimizer.state[1]["master"].copy()
    layer.load_state_dict({"weight": np.full((3, 2), 5.0), "bias": layer.bias.detach()})
    layer.weight.grad = tensor.zeros(3, 2, dtype="bfloat16", device=device)
    layer.bias.grad = tensor.zeros(2, dtype="bfloat16", device=device)
    optimizer.step()
    assert layer.weight.tolist() == [[5, 5]] * 3
    # what still rounds to its weight keeps its digits
    assert np.array_equal(tensor.Tensor(optimizer.state[1]["master"]).numpy(), Tensor(kept).numpy())
