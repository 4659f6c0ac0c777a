"""pack(): the same parameters as views of flat storages, aligned, padded with zeros that stay zero;
gradients likewise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, nn, optim
from tensor.errors import GraphError
from tensor.memory.devices import Array
from tensor.nn.packing import ALIGNMENT, Flat, group_of


class Model(nn.Module):
    """Sizes that are no multiples of anything; one parameter under two names; one that some steps
    do not reach.
    """

    def __init__(self) -> None:
        self.embedding = nn.Embedding(11, 5)
        self.hidden = nn.Linear(5, 5)
        self.spare = nn.Linear(5, 3)
        self.norm = nn.LayerNorm(5)
        self.head = self.embedding.weight

    def __call__(self, ids: Any, spare: bool = False) -> Tensor:
        x = self.norm(self.hidden(self.embedding(ids)))
        loss = (x @ self.head.T).tanh().mean()
        return loss + self.spare(x).mean() if spare else loss


def made(device: str, dtype: str = "float32", packed: bool = True) -> Model:
    tensor.manual_seed(0)
    model = Model().to(dtype=dtype, device=device)
    if packed:
        model.pack()
    return model


def values(model: nn.Module) -> dict[str, Array]:
    return {
        name: parameter.numpy().astype(np.float64) for name, parameter in model.named_parameters()
    }


def gaps(flat: Flat, of: Tensor) -> Array:
    """What lies between the parameters."""
    inside = np.zeros(of.size, bool)
    for place in flat.slots:
        inside[place.start : place.stop] = True
    return of.numpy().astype(np.float64)[~inside]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_parameters_are_views_of_one_storage(dtype: str, device: str) -> None:
    model = made(device, dtype, packed=False)
    objects, before = dict(model.named_parameters()), values(model)
    flats = model.pack()
    assert flats is model.flats
    assert [flat.group for flat in flats] == ["decayed", "not decayed"]
    assert all(a is objects[name] for name, a in model.named_parameters())
    assert all(np.array_equal(before[name], after) for name, after in values(model).items())
    assert sorted(place.name for flat in flats for place in flat.slots) == sorted(before)
    for flat in flats:
        assert flat.current
        for place in flat.slots:
            assert place.parameter is objects[place.name]
            assert place.parameter.storage is flat.weights.storage
            assert place.parameter.offset == place.start
            assert place.start * flat.dtype.itemsize % ALIGNMENT == 0
            assert place.stop - place.start == place.parameter.size
            assert place.parameter.is_contiguous()
        assert flat.weights.size * flat.dtype.itemsize % ALIGNMENT == 0
        assert not gaps(flat, flat.weights).any()
        assert not gaps(flat, flat.gradients).any()


def test_writes_go_both_ways(device: str) -> None:
    model = made(device)
    flat = model.flats[0]
    with tensor.no_grad():
        model.hidden.weight[...] = 7.0
        place = next(p for p in flat.slots if p.name == "hidden.weight")
        assert (flat.weights[place.start : place.stop] == 7).numpy().all()
        flat.weights[place.start] = 9.0
    assert model.hidden.weight[0, 0].item() == 9


def test_groups() -> None:
    model = made("cpu", packed=False)
    model.hidden.weight.requires_grad = False
    groups = {flat.group: [place.name for place in flat.slots] for flat in model.pack()}
    assert groups == {
        "decayed": ["embedding.weight", "spare.weight"],
        "not decayed": ["hidden.bias", "spare.bias", "norm.gain", "norm.bias"],
        "frozen": ["hidden.weight"],
    }
    assert group_of(model.norm.gain) == "not decayed"
    model.norm.to(dtype="float64")
    assert [(flat.group, str(flat.dtype)) for flat in model.pack()] == [
        ("decayed", "float32"), ("frozen", "float32"), ("not decayed", "float32"),
        ("not decayed", "float64"),
    ]  # fmt: skip


def test_gradients_are_views_of_the_flat_gradients(device: str) -> None:
    packed, loose = made(device, "float64"), made(device, "float64", packed=False)
    ids = Tensor([[1, 4, 1], [0, 10, 3]], device=device)
    for _ in range(2):  # the second pass adds to the first
        packed(ids).backward()
        loose(ids).backward()
    reached = {place.name for flat in packed.flats for place in flat.reached()}
    assert reached == {
        name for name, _ in packed.named_parameters() if not name.startswith("spare")
    }
    for flat in packed.flats:
        for place in flat.slots:
            gradient = place.parameter.grad
            if place.name not in reached:
                assert gradient is None  # not zeros: the optimiser must skip it
                continue
            assert gradient is not None
            assert gradient.storage is flat.gradients.storage
            assert gradient.offset == place.start
            assert np.allclose(
                gradient.numpy(),
                dict(loose.named_parameters())[place.name].grad.numpy(),
                rtol=1e-13,
            )  # type: ignore[union-attr]
        assert not gaps(flat, flat.gradients).any()


def test_each_step_starts_from_nothing(device: str) -> None:
    """A stretch of the flat gradients is overwritten by the first gradient of a step, also where an
    old one lies.
    """
    model = made(device, "float64")
    model([1, 2]).backward()
    once = {
        name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None
    }
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    model([1, 2]).backward()
    assert all(
        np.array_equal(p.grad.numpy(), once[name])
        for name, p in model.named_parameters()
        if p.grad is not None
    )
    # what is set goes to the same place
    model.hidden.weight.grad = Tensor(np.ones((5, 5)), device=device)
    assert model.hidden.weight.grad.storage is model.flats[0].gradients.storage


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_padding_stays_zero(dtype: str, device: str) -> None:
    model = made(device, dtype)
    for optimizer in (
        optim.AdamW(model, lr=0.1),
        optim.SGD(model, lr=0.1, momentum=0.9, weight_decay=0.1),
    ):
        for step in range(4):
            optimizer.zero_grad()
            model([1, 2, 3], spare=step % 2 == 0).backward()
            optim.clip_gradients(model, 1e-3)
            optimizer.step()
        for flat, state in zip(optimizer.flats, optimizer.state, strict=True):
            for array in (flat.weights, flat.gradients, *map(Tensor.from_array, state.values())):
                assert not gaps(flat, array).any()


def test_packing_again_keeps_values_ties_and_gradients(device: str) -> None:
    model = made(device, "float64")
    model([1, 2]).backward()
    before, gradient = values(model), model.head.grad.numpy().copy()
    old = model.flats
    model.pack()
    assert not any(flat.current for flat in old)
    assert all(flat.current for flat in model.flats)
    assert all(np.array_equal(before[name], after) for name, after in values(model).items())
    assert model.head is model.embedding.weight
    assert np.array_equal(model.head.grad.numpy(), gradient)
    assert model.head.grad.storage is model.flats[0].gradients.storage
    assert model.spare.weight.grad is None
    model.head = nn.Parameter(model.head)  # a change of structure: untied
    assert [place.name for place in model.pack()[0].slots] == [
        "embedding.weight",
        "hidden.weight",
        "spare.weight",
        "head",
    ]
    assert all(
        np.array_equal(before[name if name != "head" else "embedding.weight"], after)
        for name, after in values(model).items()
    )


def test_packing_is_redone_after_a_change_of_dtype(device: str) -> None:
    model = made(device)
    model.to(dtype="bfloat16")
    assert all(flat.current and flat.dtype == tensor.bfloat16 for flat in model.flats)
    assert model.head is model.embedding.weight
    model(Tensor([1, 2], device=device)).backward()
    assert model.head.grad is not None
    assert model.head.grad.storage is model.flats[0].gradients.storage


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pack(),
        lambda m: m.to(dtype="float64"),
        lambda m: optim.SGD(m.hidden),
        lambda m: optim.SGD([m.norm.gain]),
    ],
)
def test_stale_optimizer_raises_before_it_writes(change: Any, device: str) -> None:
    model = made(device)
    optimizer = optim.AdamW(model)
    change(model)
    model([1, 2]).backward()
    before = values(model)
    with pytest.raises(GraphError, match="packed again after this optimiser was made"):
        optimizer.step()
    assert all(np.array_equal(before[name], after) for name, after in values(model).items())
    optim.AdamW(model).step()
    assert not np.array_equal(before["norm.gain"], values(model)["norm.gain"])


def test_a_second_optimizer_shares_the_packing(device: str) -> None:
    model = made(device)
    first, second = optim.SGD(model), optim.AdamW(model)
    assert first.flats == second.flats == model.flats
    model([1, 2]).backward()
    first.step()
    second.step()


def test_frozen_parameters_do_not_move_and_get_no_gradient_storage(device: str) -> None:
    model = made(device, packed=False)
    model.hidden.weight.requires_grad = False
    optimizer = optim.AdamW(model, lr=0.1, weight_decay=0.5)
    (frozen,) = (flat for flat in model.flats if flat.group == "frozen")
    assert frozen.gradients.size == 0
    assert frozen not in optimizer.flats
    before = values(model)
    for _ in range(3):
        optimizer.zero_grad()
        model([1, 2]).backward()
        optimizer.step()
    assert model.hidden.weight.grad is None
    assert np.array_equal(before["hidden.weight"], values(model)["hidden.weight"])
    assert not np.array_equal(before["hidden.bias"], values(model)["hidden.bias"])


def test_parameters_that_came_after_packing(device: str) -> None:
    """A layer added to a packed model is learnt, and counts in the norm."""
    model = made(device)
    model.extra = nn.Linear(5, 5).to(device=device)  # type: ignore[attr-defined]
    assert not model.packed
    model.extra.weight.grad = tensor.ones(5, 5, device=device)  # type: ignore[attr-defined]
    assert optim.gradient_norm(model) == 5
    optimizer = optim.SGD(model, lr=1.0)
    assert model.packed
    before = model.extra.weight.numpy().copy()
    optimizer.step()
    assert np.allclose(model.extra.weight.numpy(), before - 1, rtol=1e-6)


def test_freezing_after_packing(device: str) -> None:
    """A parameter may stop learning and start again under one optimiser: its gradient goes back to
    its place among the others.
    """
    model = made(device, "float64")
    optimizer = optim.SGD(model, lr=1.0)
    bias = model.hidden.bias

    def train() -> tuple[Array, Array | None]:
        optimizer.zero_grad()
        model([1, 2]).backward()
        optim.clip_gradients(model, 1e-3)
        before, gradient = (
            bias.numpy().copy(),
            None if bias.grad is None else bias.grad.numpy().copy(),
        )
        optimizer.step()
        return bias.numpy() - before, gradient

    train()
    bias.requires_grad = False
    moved, gradient = train()
    assert gradient is None
    assert not moved.any()
    bias.requires_grad = True
    moved, gradient = train()
    assert gradient is not None
    assert np.allclose(moved, -gradient, rtol=1e-9)
    assert np.abs(gradient).max() > 1e-6
    # it counted in the norm, and was scaled
    assert optim.gradient_norm(model) == pytest.approx(1e-3, rel=1e-9)


def test_learning_after_it_was_packed_as_frozen_needs_a_new_optimizer(device: str) -> None:
    model = made(device, packed=False)
    model.hidden.weight.requires_grad = False
    optimizer = optim.SGD(model)
    model.hidden.weight.requires_grad = True
    model([1, 2]).backward()
    with pytest.raises(GraphError, match=r"`hidden\.weight` was frozen when .* Make a new"):
        optimizer.step()
    optimizer = optim.SGD(model)
    assert "hidden.weight" in optimizer.counts


def test_optimizer_needs_something_to_learn() -> None:
    model = nn.Linear(2, 2)
    for parameter in model.parameters():
        parameter.requires_grad = False
    with pytest.raises(ValueError, match="got 2 that are all frozen"):
        optim.SGD(model)
