"""Muon: its orthogonalisation against the SVD, its step against one by hand, which parameters are
its own, resuming, learning.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensor
from tensor import Tensor, nn, optim
from tensor.errors import GraphError, StateError
from tensor.memory.devices import Array, to_host
from tensor.optim.muon import orthogonal

LOW, HIGH = 0.68, 1.14  # where singular values that began above 0.01 are after 5 steps


class Model(nn.Module):
    """Three matrices in the middle, tables, vectors; one table under two names, of which the second
    only says what it is.
    """

    def __init__(self, dtype: str = "float64", device: str = "cpu", seed: int = 0):
        rng = np.random.default_rng(seed)

        def made(*shape: int, role: str | None = None) -> nn.Parameter:
            values = rng.standard_normal(shape) * 0.5
            return nn.Parameter(values, dtype=dtype, device=device, role=role)

        self.token_embedding, self.position_embedding = nn.Embedding(7, 4), made(6, 4, role="table")
        self.token_embedding.weight = made(7, 4, role="table")
        self.table = made(5, 4, role="head")
        self.wide, self.gain = made(4, 9), made(4)
        self.heads, self.bias = [made(9, 4), made(4, 4)], made(9)
        self.head = self.table


MATRICES = ["wide", "heads.0", "heads.1"]
TABLES = ["token_embedding.weight", "position_embedding", "table"]
VECTORS = ["gain", "bias"]


def gradients(
    step: int, shapes: dict[str, tuple[int, ...]], seed: int = 1
) -> dict[str, Array | None]:
    """What each parameter gets at a step: None for some."""
    rng = np.random.default_rng((seed, step))
    drawn = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    return {
        name: None if (step + i) % 4 == 0 and i % 3 else g
        for i, (name, g) in enumerate(drawn.items())
    }


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: parameter.shape for name, parameter in model.named_parameters()}


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


def on(device: str, array: Array) -> Array:
    return Tensor(array, device=device).array


# -- orthogonal


def with_singular_values(
    rng: np.random.Generator, rows: int, columns: int, s: Array
) -> tuple[Array, Array, Array]:
    u, _, vt = np.linalg.svd(rng.standard_normal((rows, columns)), full_matrices=False)
    return (u * s) @ vt, u, vt


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (5, 19), (19, 5), (1, 6), (6, 1), (64, 128)])
def test_singular_values_go_to_about_one_and_vectors_stay(
    rows: int, columns: int, dtype: str, device: str
) -> None:
    rng = np.random.default_rng(rows * columns)
    count = min(rows, columns)
    s = np.geomspace(1, 0.05, count)
    matrix, u, vt = with_singular_values(rng, rows, columns, s)
    assert s[-1] / np.linalg.norm(s) > 0.01 or count > 60  # the band's promise holds for these
    made = to_host(orthogonal(on(device, matrix.astype(dtype))))
    assert made.shape == matrix.shape
    assert made.dtype == dtype
    core = u.T @ made.astype(np.float64) @ vt.T  # diagonal when the vectors are the same
    assert np.allclose(
        core, np.diag(np.diag(core)), rtol=0, atol=1e-10 if dtype == "float64" else 2e-5
    )
    # nothing outside them
    assert np.linalg.norm(made - u @ core @ vt) < (1e-10 if dtype == "float64" else 2e-4)
    promised = np.diag(core)[s / np.linalg.norm(s) > 0.01]
    assert len(promised) > 0
    assert LOW < promised.min() <= promised.max() < HIGH
    scalar = s / np.linalg.norm(s)
    for _ in range(5):
        scalar = 3.4445 * scalar - 4.7750 * scalar**3 + 2.0315 * scalar**5
    assert np.allclose(np.diag(core), scalar, rtol=0, atol=1e-10 if dtype == "float64" else 1e-4)


def test_the_band_over_all_singular_values_it_is_promised_for() -> None:
    s = np.append(np.linspace(0.01, 1, 100_001), 1.0)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    assert LOW < s.min() < LOW + 0.01
    assert HIGH - 0.01 < s.max() < HIGH


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_invariances(rows: int, columns: int, seed: int) -> None:
    """Scale, sign, transposition and rotation on either side: what U V^T has, this has."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((rows, columns))
    made = orthogonal(matrix)
    left, right = (np.linalg.qr(rng.standard_normal((n, n)))[0] for n in (rows, columns))
    for other, expected in [
        (matrix * 1e-150, made),
        (matrix * 1e150, made),
        (-3 * matrix, -made),
        (matrix.T, made.T),
        (left @ matrix, left @ made),
        (matrix @ right, made @ right),
        (
            np.concatenate([matrix, np.zeros((3, columns))]),
            np.concatenate([made, np.zeros((3, columns))]),
        ),
    ]:
        assert np.allclose(orthogonal(other), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zero_and_tiny_and_huge(dtype: str, device: str) -> None:
    assert not to_host(orthogonal(on(device, np.zeros((3, 4), dtype)))).any()
    matrix = np.random.default_rng(0).standard_normal((3, 4))
    made = orthogonal(matrix)
    for size in (1e-30, 1e30):  # the squares of these are beyond float32
        assert np.allclose(
            to_host(orthogonal(on(device, (matrix * size).astype(dtype)))), made, rtol=0, atol=1e-4
        )


def test_the_matrix_given_is_left_alone() -> None:
    matrix = np.random.default_rng(0).standard_normal((5, 3))
    before = matrix.copy()
    orthogonal(matrix)
    assert np.array_equal(matrix, before)


# -- a step


def by_svd(m: Array, steps: int = 5) -> Array:
    """orthogonal(m) from its definition on singular values."""
    u, s, vt = np.linalg.svd(m, full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return np.asarray((u * s) @ vt)


@pytest.mark.parametrize(
    ("nesterov", "steps", "momentum"), [(True, 5, 0.95), (False, 5, 0.5), (True, 3, 0.0)]
)
def test_steps_by_hand(nesterov: bool, steps: int, momentum: float, device: str) -> None:
    model = Model(device=device)
    shapes, exact = shapes_of(model), values(model)
    optimizer = optim.Muon(
        model, lr=0.03, momentum=momentum, nesterov=nesterov, steps=steps, weight_decay=0.2
    )
    memory = {name: np.zeros(shapes[name]) for name in MATRICES}
    for step in range(6):
        optimizer.lr = 0.03 / (1 + step)
        given = gradients(step, shapes)
        give(model, given)
        optimizer.step()
        for name in MATRICES:
            g = given[name]
            if g is not None:
                memory[name] = momentum * memory[name] + g
                direction = by_svd(g + momentum * memory[name] if nesterov else memory[name], steps)
                # sqrt(outputs / inputs) where that is above 1
                scale = {"wide": math.sqrt(9 / 4)}.get(name, 1.0)
                exact[name] = (
                    exact[name] * (1 - 0.2 * optimizer.lr) - optimizer.lr * scale * direction
                )
    assert (
        sum(
            g is None
            for step in range(6)
            for name, g in gradients(step, shapes).items()
            if name in MATRICES
        )
        > 0
    )
    for name in MATRICES:
        assert np.allclose(values(model)[name], exact[name], rtol=0, atol=1e-11), name


def test_the_size_of_an_update_does_not_follow_the_gradient(device: str) -> None:
    """Every direction moves by lr sqrt(max(1, outputs / inputs)), within the band, be the gradient
    steep or flat there.
    """
    rng = np.random.default_rng(0)
    for shape, scale in (((6, 24), 2.0), ((24, 6), 1.0)):
        g, _, _ = with_singular_values(rng, *shape, np.array([5.0, 4, 2, 1, 0.5, 0.25]))
        for size in (1.0, 1e-6):
            w = nn.Parameter(np.zeros(shape), device=device)
            optimizer = optim.Muon([w], lr=0.1)
            w.grad = Tensor(g * size, device=device)
            optimizer.step()
            moved = np.linalg.svd(w.numpy(), compute_uv=False) / (0.1 * scale)
            assert LOW < moved.min() <= moved.max() < HIGH


def test_what_is_no_hidden_matrix_takes_the_step_of_adamw(device: str) -> None:
    model, other = Model(device=device), Model(device=device)
    muon = optim.Muon(model, lr=0.05, weight_decay=0.2, adamw_lr=0.01, betas=(0.8, 0.95), eps=1e-3)
    adamw = optim.AdamW(other, lr=0.01, weight_decay=0.2, betas=(0.8, 0.95), eps=1e-3)
    shapes = shapes_of(model)
    for step in range(10):
        muon.lr, adamw.lr = 0.05 / (1 + step), 0.01 / (1 + step)  # a schedule moves both
        give(model, gradients(step, shapes))
        give(other, gradients(step, shapes))
        muon.step()
        adamw.step()
    for name in TABLES + VECTORS:
        assert np.allclose(values(model)[name], values(other)[name], rtol=0, atol=1e-15), name
        assert not np.array_equal(values(model)[name], values(Model())[name])
    for name in MATRICES:
        assert np.abs(values(model)[name] - values(other)[name]).max() > 1e-2, name


def test_decay_of_matrices_and_tables_each_at_its_own_rate(device: str) -> None:
    model = Model(device=device)
    start = values(model)
    optimizer = optim.Muon(model, lr=0.1, weight_decay=0.3, adamw_lr=0.01)
    for _ in range(7):
        give(model, {name: np.zeros(shape) for name, shape in shapes_of(model).items()})
        optimizer.step()
    for name, after in values(model).items():
        keep = 1 - 0.3 * 0.1 if name in MATRICES else 1 - 0.3 * 0.01 if name in TABLES else 1
        assert np.allclose(after, start[name] * keep**7, rtol=1e-13), name


# -- what is whose


def test_groups_by_name_and_tied_under_any_name() -> None:
    model = Model()
    optimizer = optim.Muon(model)
    groups = {flat.group: [place.name for place in flat.slots] for flat in optimizer.flats}
    assert groups == {"decayed": TABLES, "matrices": MATRICES, "not decayed": ["gain", "bias"]}
    assert [sorted(state) for state in optimizer.state] == [
        ["m", "v"] if flat.group != "matrices" else ["u"] for flat in optimizer.flats
    ]
    assert optimizer.flats == model.flats  # the model's own packing, for clipping and checkpoints
    w, cube, gain = (
        nn.Parameter(np.ones((2, 3))),
        nn.Parameter(np.ones((2, 3, 4))),
        nn.Parameter(np.ones(3)),
    )
    loose = optim.Muon([w, cube, gain, w])
    for flat, (group, kept) in zip(
        loose.flats, [("matrices", w), ("decayed", cube), ("not decayed", gain)], strict=True
    ):
        assert flat.group == group
        # == of tensors is by element
        assert [id(place.parameter) for place in flat.slots] == [id(kept)]


def test_frozen_and_empty_and_no_matrices(device: str) -> None:
    model = Model(device=device)
    model.wide.requires_grad = False
    model.none = nn.Parameter(np.zeros((0, 4)), device=device)  # type: ignore[attr-defined]
    model.last = nn.Parameter(np.ones((3, 4)), device=device)  # type: ignore[attr-defined]
    start = values(model)
    optimizer = optim.Muon(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = tensor.ones(*parameter.shape, dtype="float64", device=device)
    optimizer.step()
    unmoved = [name for name, after in values(model).items() if np.array_equal(after, start[name])]
    assert unmoved == ["wide", "none"]
    bias = nn.Parameter(np.zeros(3), device=device)
    bias.grad = Tensor(np.array([1.0, -2.0, 3.0]), device=device)
    optim.Muon([bias], adamw_lr=0.5, eps=1e-12).step()
    assert np.allclose(bias.numpy(), [-0.5, 0.5, -0.5])


def test_optimizers_of_other_groups_pack_anew(device: str) -> None:
    """A packing by other groups would let AdamW forget the decay of the matrices, and Muon the
    matrices.
    """
    model = Model(device=device)
    adamw = optim.AdamW(model)
    muon = optim.Muon(model)
    again = optim.Muon(model)
    assert again.flats == muon.flats  # of the same groups: shared
    give(model, {name: np.zeros(shape) for name, shape in shapes_of(model).items()})
    with pytest.raises(GraphError, match="packed again"):
        adamw.step()
    muon.step()
    before = values(model)
    optim.AdamW(model, lr=0.1, weight_decay=0.5).step()
    assert np.allclose(values(model)["wide"], 0.95 * before["wide"], rtol=1e-12)
    with pytest.raises(GraphError, match="packed again"):
        muon.step()


def test_a_change_of_dtype_asks_for_a_new_optimizer(device: str) -> None:
    model = Model(device=device)
    optimizer = optim.Muon(model)
    model.to(dtype="float32")
    with pytest.raises(GraphError, match="packed again"):
        optimizer.step()
    assert {flat.group for flat in optim.Muon(model).flats} == {
        "decayed",
        "matrices",
        "not decayed",
    }


@pytest.mark.parametrize("options", [{"lr": 0.0}, {"lr": -1.0}, {"eps": 0.0}])
def test_what_cannot_be(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^Muon (lr|eps)=-?\d.0"):
        optim.Muon(Model(), **options)  # type: ignore[arg-type]


def test_clipping_and_padding(device: str) -> None:
    model = Model("float32", device)
    optimizer = optim.Muon(model)
    for step in range(3):
        give(model, gradients(step, shapes_of(model)))
        norm = optim.gradient_norm(model.parameters())
        assert optim.clip_gradients(optimizer, 0.5) == pytest.approx(norm, rel=1e-6)
        assert optim.gradient_norm(optimizer) == pytest.approx(0.5, rel=1e-5)
        optimizer.step()
    for flat, state in zip(optimizer.flats, optimizer.state, strict=True):
        inside = np.zeros(flat.weights.size, bool)
        for place in flat.slots:
            inside[place.start : place.stop] = True
        assert not inside.all()
        for array in (flat.weights.array, *state.values()):
            assert not to_host(array)[~inside].any()


# -- resuming, learning


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_resuming_continues_bit_for_bit(dtype: str, device: str) -> None:
    def make(model: nn.Module) -> optim.Optimizer:
        return optim.Muon(model, lr=0.02, weight_decay=0.1)

    model = Model(dtype, device)
    optimizer = make(model)
    for step in range(9):
        if step == 4:
            weights, state = (
                {name: x.numpy().copy() for name, x in model.state_dict().items()},
                copy.deepcopy(optimizer.state_dict()),
            )
        give(model, gradients(step, shapes_of(model)))
        optimizer.step()
    resumed = Model(dtype, device, seed=9)
    again = make(resumed)
    again.lr = 5.0
    resumed.load_state_dict(weights)
    again.load_state_dict(state)
    assert (again.lr, again.counts) == (0.02, state["counts"])
    for step in range(4, 9):
        give(resumed, gradients(step, shapes_of(resumed)))
        again.step()
    assert all(
        np.array_equal(values(model)[name], after) for name, after in values(resumed).items()
    )
    with pytest.raises(StateError, match="does not fit this AdamW"):
        optim.AdamW(Model(dtype, device)).load_state_dict(state)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_small_updates_survive_in_16_bits(dtype: str, device: str) -> None:
    w = nn.Parameter(np.eye(4) * 256, dtype=dtype, device=device)
    optimizer = optim.Muon([w], lr=1e-3, weight_decay=0)
    for _ in range(1000):
        w.grad = tensor.Tensor(np.eye(4), dtype=dtype, device=device)
        optimizer.step()
    master = to_host(optimizer.state[0]["master"])[:16].reshape(4, 4)
    assert master.dtype == np.float32
    assert np.all((np.diag(master) > 256 - HIGH) & (np.diag(master) < 256 - LOW))
    assert np.array_equal(
        w.numpy().astype(np.float32), master.astype(w.numpy().dtype).astype(np.float32)
    )


def learn(make: Callable[[nn.Module], optim.Optimizer], device: str, steps: int) -> list[float]:
    """Losses of a small network that learns a table of 32 random targets by heart."""
    tensor.manual_seed(3)
    rng = np.random.default_rng(0)

    class Network(nn.Module):
        def __init__(self) -> None:
            self.embedding = nn.Embedding(32, 24)
            self.first, self.second, self.head = (
                nn.Linear(24, 48),
                nn.Linear(48, 24),
                nn.Linear(24, 32),
            )

        def __call__(self, ids: Any) -> Tensor:
            x = self.embedding(ids)
            return self.head(x + self.second(self.first(x).gelu()))

    network = Network().to(device=device)
    optimizer = make(network)
    ids, targets = (
        Tensor(np.arange(32), device=device),
        Tensor(rng.integers(0, 32, 32), device=device),
    )
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = tensor.cross_entropy(network(ids), targets)
        loss.backward()
        if step == 0:
            first = optimizer.lr
        optimizer.lr = first * (1 - step / steps)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_small_problem_is_learnt_by_heart(device: str) -> None:
    losses = learn(lambda model: optim.Muon(model, lr=0.05), device, 100)
    assert losses[0] > 3
    assert losses[-1] < 0.005
    matrices_only = learn(lambda model: optim.Muon(model, lr=0.05, adamw_lr=0.0), device, 100)
    assert matrices_only[-1] < 0.1  # also without the help of AdamW
