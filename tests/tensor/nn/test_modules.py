"""Modules: what is found, by what name, how often; loading and moving; the layers themselves;
dropout in training and out of it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, nn
from tensor.errors import DTypeError, StateError
from tensor.memory.devices import Array
from tensor.random import Key, keyed


class Block(nn.Module):
    """A part of a model: a layer, a norm, dropout, and a table that is a buffer and not learnt."""

    def __init__(self, width: int):
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.5)
        self.table = tensor.ones(width)
        self.order = Tensor([2, 0, 1])
        self.seen = Tensor([True, False])

    def __call__(self, x: Any) -> Tensor:
        return self.dropout(self.norm(self.linear(x))) + self.table


class Tied(nn.Module):
    """A small model whose head is its embedding."""

    def __init__(self) -> None:
        self.embedding = nn.Embedding(7, 3)
        self.blocks = [Block(3), Block(3)]
        self.head = self.embedding.weight
        self.width = 3

    def __call__(self, ids: Any) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return x @ self.head.T


NAMES = [
    "embedding.weight", "blocks.0.linear.weight", "blocks.0.linear.bias", "blocks.0.norm.gain",
    "blocks.0.norm.bias",
    "blocks.1.linear.weight", "blocks.1.linear.bias", "blocks.1.norm.gain", "blocks.1.norm.bias",
]  # fmt: skip


def values(model: nn.Module) -> dict[str, Array]:
    return {
        name: parameter.numpy().astype(np.float64) for name, parameter in model.named_parameters()
    }


# -- walking


def test_parameters_are_found_once_in_order() -> None:
    model = Tied()
    # the tied one under its first name
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert len(list(model.parameters())) == len({id(p) for p in model.parameters()}) == 9
    assert [name for name, _ in model.named_modules()] == [
        "", "embedding", "blocks.0", "blocks.0.linear", "blocks.0.norm", "blocks.0.dropout",
        "blocks.1", "blocks.1.linear", "blocks.1.norm", "blocks.1.dropout",
    ]  # fmt: skip
    assert sum(p.size for p in model.parameters()) == 7 * 3 + 2 * (9 + 3 + 3 + 3)
    assert all(
        p.requires_grad and p.is_leaf and isinstance(p, nn.Parameter) for p in model.parameters()
    )


def test_a_module_may_define_forward() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(2, 3)

        def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
            return self.layer(x) * scale

    assert Net()(tensor.ones(4, 2), scale=2.0).shape == (4, 3)
    with pytest.raises(TypeError, match=r"Module defines neither forward\(self, x\) nor __call__"):
        nn.Module()(1)


def test_a_sequence_of_layers() -> None:
    tensor.manual_seed(0)
    first, last = nn.Linear(4, 3), nn.Linear(6, 2)
    model = nn.Sequential(first, nn.ReLU(), nn.Flatten(), last)
    x = tensor.randn(5, 2, 4)
    np.testing.assert_array_equal(model(x).numpy(), last(tensor.relu(first(x)).view(5, 6)).numpy())
    assert list(dict(model.named_parameters())) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert len(model) == 4
    assert model[-1] is last


@pytest.mark.parametrize(
    ("layer", "oracle"),
    [
        (nn.ReLU(), lambda x: np.maximum(x, 0)),
        (nn.LeakyReLU(0.1), lambda x: np.where(x > 0, x, 0.1 * x)),
        (nn.SiLU(), lambda x: x / (1 + np.exp(-x))),
        (nn.Tanh(), np.tanh),
        (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
        (nn.Softmax(0), lambda x: np.exp(x) / np.exp(x).sum(0)),
        (nn.GELU("erf"), lambda x: tensor.gelu(x, form="erf").numpy()),
        (nn.RMSNorm(3), lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)),
    ],
)
def test_activations_and_rms_norm(layer: Any, oracle: Any) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3))
    y = layer(Tensor(x, dtype="float32"))
    np.testing.assert_allclose(y.numpy(), oracle(x), rtol=2e-6, atol=1e-7)
    assert y.dtype == tensor.float32


def test_modules_in_containers_learn() -> None:
    """Lists, tuples and dictionaries to any depth; a shared one counts once."""

    class Net(nn.Module):
        def __init__(self) -> None:
            shared = nn.Linear(1, 1, bias=False)
            self.by_name = {"a": shared, "b": [nn.Embedding(2, 1), {"deep": (shared, 3)}]}
            self.table = [[nn.Parameter([1.0])], []]

    names = [name for name, _ in Net().named_parameters()]
    assert names == ["by_name.a.weight", "by_name.b.0.weight", "table.0.0"]


def test_modules_below_are_found_frozen_and_changed() -> None:
    """Those that are shared, once."""
    model: Any = Tied()
    model.again = model.blocks[0]
    assert list(model.children()) == [model.embedding, *model.blocks]
    assert len(list(model.modules())) == 10
    assert next(iter(model.modules())) is model
    seen: list[nn.Module] = []
    assert model.apply(seen.append) is model
    assert seen[0] is model.embedding
    assert seen[-2:] == [model.blocks[1], model]
    assert model.requires_grad_(False) is model
    assert not any(p.requires_grad for p in model.parameters())
    model.blocks[0].requires_grad_()
    assert sum(p.requires_grad for p in model.parameters()) == 4
    assert next(model.named_parameters("gpt"))[0] == "gpt.embedding.weight"


def test_tied_parameter_gets_the_gradient_of_both_uses() -> None:
    model = Tied().eval()
    ids = Tensor([[1, 4, 1]])
    model(ids).sum().backward()
    tied = model.head.grad.numpy().copy()
    head = nn.Parameter(model.head)  # the same values in a leaf of its own
    x = model.embedding(ids)
    for block in model.blocks:
        x = block(x)
    one, other = tensor.grad((x @ head.T).sum(), [model.embedding.weight, head])
    assert one is not None
    assert other is not None
    assert np.allclose(tied, one.numpy() + other.numpy(), rtol=1e-5)
    assert np.abs(one.numpy()).max() > 1e-3
    assert np.abs(other.numpy()).max() > 1e-3


def test_train_and_eval_reach_everything() -> None:
    model = Tied()
    assert all(module.training for _, module in model.named_modules())
    assert model.eval() is model
    assert not any(module.training for _, module in model.named_modules())
    model.train()
    assert all(module.training for _, module in model.named_modules())
    assert nn.Module.training  # the class is untouched


def test_zero_grad() -> None:
    model = Tied()
    model.blocks[1].linear.weight.requires_grad = False  # frozen: has no gradient to forget
    model([1, 2]).sum().backward()
    assert sum(p.grad is not None for p in model.parameters()) == 8
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


# -- state


def test_state_round_trip() -> None:
    tensor.manual_seed(1)
    model, other = Tied(), Tied()
    state = model.state_dict()
    assert list(state) == [name for name, _ in model.named_parameters()]
    assert all(not x.requires_grad for x in state.values())
    assert np.shares_memory(state["embedding.weight"].array, model.head.array)
    other.load_state_dict({name: x.numpy() for name, x in state.items()})  # arrays do too
    ids = Tensor([[0, 5, 6]])
    assert np.array_equal(model.eval()(ids).numpy(), other.eval()(ids).numpy())
    assert other.embedding.weight is other.head
    assert not np.shares_memory(model.head.array, other.head.array)


def test_state_that_does_not_fit_writes_nothing() -> None:
    model = Tied()
    before = values(model)
    state: dict[str, Any] = {name: np.full(x.shape, 5.0) for name, x in model.state_dict().items()}
    gone, wide, nose = "blocks.0.norm.gain", "blocks.1.norm.bias", np.zeros(3)
    rest = {name: x for name, x in state.items() if name != gone}
    for bad, problems in (
        (rest, f"  missing: {gone}"),
        ({**state, "nose": nose}, "  unexpected: nose"),
        ({**state, wide: np.zeros(4)}, f"  wrong shape: {wide} (4,), not (3,)"),
        # would broadcast
        ({**state, wide: np.zeros((1, 3))}, f"  wrong shape: {wide} (1, 3), not (3,)"),
        (
            {**rest, "nose": nose, wide: np.zeros(4)},
            f"  missing: {gone}\n  unexpected: nose\n  wrong shape: {wide} (4,), not (3,)",
        ),
        ({}, f"  missing: {', '.join(NAMES[:8])} and 1 more"),
    ):
        with pytest.raises(StateError) as error:
            model.load_state_dict(bad)
        assert str(error.value) == f"the state does not fit this Tied\n{problems}"
        assert [entry.name for entry in error.traceback][1:] == ["load_state_dict"]
    with pytest.raises(TypeError, match=r"takes a dict {name: tensor}, not a str"):
        model.load_state_dict("model.safetensors")  # type: ignore[arg-type]
    assert all(np.array_equal(before[name], after) for name, after in values(model).items())


def test_a_module_in_a_file(tmp_path: Path, device: str) -> None:
    """Whole or not at all, into the parameters that are there: optimiser and tying hold."""
    model = Tied().to(dtype="bfloat16", device=device)
    model.pack()
    model.save(tmp_path / "model.safetensors")
    other = Tied().to(dtype="bfloat16", device=device)
    weight = other.embedding.weight
    other.load(tmp_path / "model.safetensors")
    assert other.embedding.weight is weight is other.head
    for name, value in values(model).items():
        assert np.array_equal(value, values(other)[name])
    with pytest.raises(StateError, match=r"unexpected: blocks\.0\.linear\.bias"):
        model.blocks[0].load(tmp_path / "model.safetensors")


def test_print_shows_the_tree() -> None:
    """A parameter of two names counts once; lists and dicts are seen through."""
    model: Any = Tied()
    model.more = {"deep": [nn.Linear(3, 20_000), nn.ReLU()]}
    assert str(model) == (
        "Tied  head = embedding.weight: 80,057 parameters\n"
        "  embedding: Embedding  weight (7, 3)                        21\n"
        "  blocks.0: Block                                            18\n"
        "    linear: Linear  weight (3, 3), bias (3,)                 12\n"
        "    norm: LayerNorm  gain (3,), bias (3,)                     6\n"
        "    dropout: Dropout\n"
        "  blocks.1: Block                                            18\n"
        "    linear: Linear  weight (3, 3), bias (3,)                 12\n"
        "    norm: LayerNorm  gain (3,), bias (3,)                     6\n"
        "    dropout: Dropout\n"
        "  more.deep.0: Linear  weight (3, 20000), bias (20000,)  80,000\n"
        "  more.deep.1: ReLU"
    )
    assert repr(nn.ReLU()) == "ReLU: 0 parameters"


def test_loading_casts_and_keeps_what_learns(device: str) -> None:
    layer = nn.Linear(2, 1).to(dtype="bfloat16", device=device)
    layer.load_state_dict({"weight": Tensor([[1.0], [1.001]]), "bias": np.array([3.0])})
    assert layer.weight.tolist() == [[1], [1]]
    assert layer.weight.dtype == tensor.bfloat16
    assert layer.weight.device == Tensor([0], device=device).device
    assert layer.weight.requires_grad


# -- moving


def test_to_changes_every_parameter_in_place(device: str) -> None:
    model = Tied()
    model.blocks[0].linear.bias.requires_grad = False
    model([1]).sum().backward()
    objects, before = list(model.parameters()), values(model)
    assert model.to(dtype="float64", device=device) is model
    assert all(a is b for a, b in zip(objects, model.parameters(), strict=True))
    assert model.head is model.embedding.weight
    assert all(
        p.dtype == np.float64 and p.device == Tensor([0], device=device).device and p.grad is None
        for p in model.parameters()
    )
    assert all(np.array_equal(before[name], after) for name, after in values(model).items())
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == [
        "blocks.0.linear.bias"
    ]
    block = model.blocks[1]
    # only floats are cast
    assert (block.table.dtype, block.order.dtype, block.seen.dtype) == (np.float64, np.int64, bool)
    assert block.order.device == model.head.device
    model(Tensor([1, 2], device=device)).sum().backward()
    assert model.head.grad is not None
    assert model.head.grad.dtype == np.float64


def test_to_takes_a_dtype_or_a_device_without_its_name(device: str) -> None:
    model = Tied()
    assert model.to(device) is model
    assert model.to("float64").head.dtype == np.float64
    assert model.to(np.float32, device).head.dtype == np.float32
    assert model.head.device == Tensor([0], device=device).device


def test_to_a_dtype_that_cannot_learn() -> None:
    model = Tied()
    with pytest.raises(DTypeError, match="floats, not int64"):
        model.to(dtype="int64")
    with pytest.raises(DTypeError, match="floats, not int64"):
        model.to("int64")
    with pytest.raises(DTypeError, match="devices are 'cpu', 'cuda' and 'cuda:N'"):
        model.to("gpu")
    assert all(p.dtype == np.float32 and p.requires_grad for p in model.parameters())


# -- layers


def test_linear() -> None:
    tensor.manual_seed(0)
    layer = nn.Linear(400, 50)
    x = tensor.randn(3, 2, 400)
    assert layer.weight.shape == (400, 50)
    assert np.allclose(
        layer(x).numpy(),
        np.einsum("abi,io->abo", x.numpy(), layer.weight.numpy()) + layer.bias.numpy(),
        atol=1e-5,
    )
    assert nn.Linear(4, 2, bias=False).bias is None
    assert [name for name, _ in nn.Linear(4, 2, bias=False).named_parameters()] == ["weight"]
    for drawn in (layer.weight.numpy(), layer.bias.numpy()):  # uniform in +-1/20
        assert 0.04 < np.abs(drawn).max() <= 0.05
        assert abs(drawn.mean()) < 5 * 0.05 / math.sqrt(3 * drawn.size)


def test_embedding_and_layer_norm() -> None:
    tensor.manual_seed(0)
    layer = nn.Embedding(300, 40)
    assert np.array_equal(layer([[3, 0]]).numpy(), layer.weight.numpy()[[[3, 0]]])
    assert abs(layer.weight.numpy().std() - 1) < 5 / math.sqrt(2 * 12000)
    norm = nn.LayerNorm(6, eps=0.0)
    y = norm(tensor.randn(4, 6)).numpy()
    assert np.allclose(y.mean(-1), 0, atol=1e-6)
    assert np.allclose(y.std(-1), 1, atol=1e-5)


# -- dropout


def test_bug_47_evaluation_is_the_identity(device: str) -> None:
    layer = nn.Dropout(0.5)
    x = tensor.rand(20, 30, device=device)
    assert not np.array_equal(layer(x).numpy(), x.numpy())
    layer.eval()
    assert np.array_equal(layer(x).numpy(), x.numpy())
    assert np.array_equal(layer(x).numpy(), layer(x).numpy())
    model = Tied().to(device=device).eval()
    ids = Tensor([[1, 2, 3]], device=device)
    assert np.array_equal(model(ids).numpy(), model(ids).numpy())
    assert not np.array_equal(model.train()(ids).numpy(), model(ids).numpy())


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_bug_47_expectation_is_kept(p: float, device: str) -> None:
    x = tensor.ones(500, 400, dtype="float64", device=device)
    y = tensor.dropout(x, p, key=Key(1)).numpy()
    assert np.allclose(np.unique(y), [0, 1 / (1 - p)], rtol=1e-15)
    assert abs(y.mean() - 1) < 5 * math.sqrt(p / (1 - p) / x.size)


def test_bug_47_one_mask_forward_and_backward(device: str) -> None:
    """The mask is kept, not drawn again: gradient = upstream * y / x, whatever was drawn since."""
    tensor.manual_seed(0)
    layer = nn.Dropout(0.4)
    x = Tensor(np.random.default_rng(0).uniform(1, 2, (30, 20)), device=device, requires_grad=True)
    y = layer(x)
    layer(x)
    tensor.rand(5)
    tensor.manual_seed(9)
    dy = np.random.default_rng(1).standard_normal(x.shape)
    y.backward(Tensor(dy, device=device))
    assert x.grad is not None
    assert np.allclose(x.grad.numpy(), dy * y.numpy() / x.numpy(), rtol=1e-14)
    assert 0.3 < (y.numpy() == 0).mean() < 0.5


def test_dropout_under_a_key_is_repeatable_and_layers_differ(device: str) -> None:
    first, second = nn.Dropout(0.5, number=1), nn.Dropout(0.5, number=2)
    x = tensor.ones(8, 9, device=device)
    with keyed(Key(3, 4)):
        one, again, other = first(x).numpy(), first(x).numpy(), second(x).numpy()
    with keyed(Key(3, 5)):
        later = first(x).numpy()
    with keyed(Key(3, 4, sample=2)):
        tail = first(x[2:]).numpy()
    assert np.array_equal(one, again)
    assert np.array_equal(one[2:], tail)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, later)
    assert not np.array_equal(first(x).numpy(), first(x).numpy())  # outside, each call draws anew


def test_dropout_ends(device: str) -> None:
    x = tensor.ones(3, 4, device=device)
    assert np.array_equal(nn.Dropout(0.0)(x).numpy(), x.numpy())
    assert not nn.Dropout(1.0)(x).numpy().any()
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError, match="probability between 0 and 1"):
            nn.Dropout(p)
