"""copy, pickle and processes: a copy has memory of its own, one truth about it, and goes on to the
same bits as its original.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels, no_grad, optim
from tensor.errors import GraphError, MutationError
from tensor.nn import GELU, Embedding, LayerNorm, Linear, Module, Parameter, RMSNorm, Sequential
from tensor.optim import Optimizer, warmup_cosine

Make = Callable[..., Optimizer]


def pickled(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


COPIES = pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
DATA = np.random.default_rng(0).integers(0, 5, (4, 6))


class Model(Module):
    """A table that is its head too, layers with kernels and without, in a list and in a dict."""

    def __init__(self) -> None:
        self.table = Embedding(5, 8)
        self.layers = [Linear(8, 24), Sequential(Linear(8, 8), GELU(), RMSNorm(8))]
        self.parts = {"norm": LayerNorm(8), "scale": Parameter([1.0] * 8)}
        self.again = self.layers[0]

    def forward(self, ids: Any) -> Tensor:
        x = self.table(ids)
        y = tensor.multi_head_attention(self.again(x), heads=2, causal=True)
        x, h = self.parts["norm"].after_sum(x, y)
        x = x + self.layers[1](h * self.parts["scale"])
        return tensor.cross_entropy(tensor.linear(x, self.table.weight, transposed=True), ids)


def step(model: Module, optimizer: Optimizer) -> float:
    optimizer.zero_grad()
    loss: Tensor = model(DATA)
    loss.backward()
    optimizer.step()
    return loss.item()


def bits(model: Module, optimizer: Optimizer) -> dict[str, bytes]:
    """All that training changes."""
    arrays = {name: p.numpy() for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        if p.grad is not None:
            arrays[f"{name}.grad"] = p.grad.numpy()
    state = optimizer.state_dict()
    found = {name: array.tobytes() for name, array in (arrays | state["arrays"]).items()}
    return found | {"counts": repr(state["counts"]).encode()}


def went_on(both: tuple[Module, Optimizer]) -> tuple[list[float], dict[str, bytes]]:
    """Three steps more: the losses, and what they leave."""
    return [step(*both) for _ in range(3)], bits(*both)


def halved(gradient: Tensor) -> Tensor:
    return gradient * 0.5


def trained(make: Make, dtype: str = "float32", steps: int = 3) -> tuple[Model, Optimizer]:
    """A model with a frozen parameter and a hook, and its optimiser."""
    tensor.manual_seed(7)
    model = Model().to(dtype=dtype)
    model.layers[1][0].bias.requires_grad = False
    model.again.bias.register_hook(halved)
    optimizer = make(model)
    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


MAKERS: dict[str, Make] = {
    "momentum": partial(optim.SGD, lr=0.1, momentum=0.9),
    "adam": partial(optim.Adam, lr=0.01),
    "adamw, a schedule": partial(
        optim.AdamW, lr=partial(warmup_cosine, peak=0.01, warmup=2, total=20)
    ),
    "muon": partial(optim.Muon, lr=0.02),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_copy_goes_on_to_the_same_bits(make: Make) -> None:
    """Before training and after three steps; the model with its optimiser, in one object."""
    for dtype in ("float32", "float64", "bfloat16"):
        for steps in (0, 3):
            for copied in (copy.deepcopy, pickled, lambda both: pickled(copy.deepcopy(both))):
                model, optimizer = trained(make, dtype, steps)
                both = {"model": model, "rest": [optimizer]}
                other = copied(both)
                its: tuple[Any, Any] = other["model"], other["rest"][0]
                assert its[0].again is its[0].layers[0]
                assert its[0].packed == model.packed
                mine, theirs = storages(model, optimizer), storages(*its)
                assert not any(np.shares_memory(a, b) for a in mine for b in theirs)
                losses, after = went_on((model, optimizer))
                assert went_on(its) == (losses, after)
                assert len(set(losses)) == 3


def storages(model: Module, optimizer: Optimizer) -> Iterator[Any]:
    """The memory of all parameters, gradients and states."""
    for parameter in model.parameters():
        yield parameter.array
        if parameter.grad is not None:
            yield parameter.grad.array
    yield from optimizer.state_dict()["arrays"].values()


def test_a_pickled_model_computes_with_kernels() -> None:
    """NumPy's pickled arrays have dtypes that equal float32 and are not float32."""
    model = pickled(Model())
    assert all(p.dtype is tensor.float32 for p in model.parameters())
    assert Tensor(pickled(np.ones(3, np.float32))).dtype is tensor.float32
    assert Tensor.from_array(pickled(np.ones(3, np.float32))).dtype is tensor.float32
    model(DATA)
    before = kernels.latest("residual_layer_norm")
    Model()(DATA)
    assert kernels.latest("residual_layer_norm") == before


def test_copies_without_an_optimiser_go_on() -> None:
    """A model that no optimiser has packed, trained by hand."""
    tensor.manual_seed(7)
    model = Model()
    models = [model, copy.deepcopy(model), pickled(model)]
    for _ in range(3):
        models += [copy.deepcopy(models[0]), pickled(models[0])]
        for each in models:
            each.zero_grad()
            each(DATA).backward()
            with no_grad():
                for parameter in each.parameters():
                    parameter -= parameter.grad * 0.1
        states = [
            {name: x.numpy().tobytes() for name, x in each.state_dict().items()} for each in models
        ]
        assert all(state == states[0] for state in states[:3])
        del models[3:]


@COPIES
def test_a_copy_of_a_module_names_what_it_cannot_copy(copied: Any) -> None:
    model: Any = Sequential(Linear(2, 2))
    model[0].kept = model(tensor.ones(1, 2))
    with pytest.raises(GraphError, match=r"copy of a Linear: its attribute `kept` is a result"):
        copied(model)
    model[0].kept = model[0].kept.detach()
    copied(model)


@COPIES
def test_a_copy_has_one_memory(copied: Callable[[Tensor], Tensor]) -> None:
    """Its elements, its views and its array agree after a write, and the original stays."""
    x = Tensor(np.arange(12.0).reshape(3, 4))
    view = x.T[1:]  # now x has both an array and a storage
    for original in (x, view):
        before = original.numpy().copy()
        y = copied(original)
        y[1] = 50.0
        assert np.array_equal(y[1].numpy(), y.numpy()[1])
        assert np.array_equal(y.T.numpy(), y.numpy().T)
        assert (y[1].numpy() == 50.0).all()
        assert np.array_equal(original.numpy(), before)
        assert (y.shape, y.strides, y.offset) == (original.shape, original.strides, original.offset)


@COPIES
def test_what_shared_memory_shares_it_in_the_copy(copied: Callable[[Any], Any]) -> None:
    """A tensor and its views; a model, its state and its optimiser."""
    x = tensor.arange(6.0)
    one, view, rest = copied((x, x[::-2], {"same": x}))
    assert rest["same"] is one
    one[5] = 9.0
    assert view.tolist() == [9.0, 3.0, 1.0]
    model, optimizer = trained(MAKERS["adam"])
    found, state, its = copied((model, model.state_dict(), optimizer))
    with no_grad():
        found.table.weight[...] = 100.0
    assert (state["table.weight"].numpy() == 100).all()
    assert (found.state_dict()["table.weight"].numpy() == 100).all()
    assert any((flat.weights.numpy() == 100).any() for flat in its.flats)
    assert not (model.table.weight.numpy() == 100).any()


def test_the_average_of_the_weights_and_the_best_weights() -> None:
    """What is kept while a model trains does not train with it."""
    model, optimizer = trained(MAKERS["adam"])
    average, best = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    expected = {name: x.numpy().copy() for name, x in best.items()}
    for _ in range(3):
        step(model, optimizer)
        with no_grad():
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow *= 0.9
                slow += fast * 0.1
        for name, p in model.named_parameters():
            expected[name] = expected[name] * np.float32(0.9) + p.numpy() * np.float32(0.1)
    for name, x in average.state_dict().items():
        np.testing.assert_array_equal(x.numpy(), expected[name])
    model.load_state_dict(best)
    for name, x in model.state_dict().items():
        assert x.numpy().tobytes() == best[name].numpy().tobytes()


def test_a_shallow_copy_shares_the_memory_and_the_count_of_writes() -> None:
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    other = copy.copy(x)
    y = (x * x).sum()
    with no_grad():
        other[0] = 100.0
    assert x.tolist() == [100.0, 2.0, 3.0]
    with pytest.raises(MutationError):
        y.backward()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_result_is_not_copied_without_its_graph(copied: Callable[[Tensor], Tensor]) -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(GraphError, match=r"copy of a result .*clone.*detach"):
        copied(x * 2.0)


@COPIES
def test_a_gradient_is_copied_and_then_lives_alone(copied: Callable[[Tensor], Tensor]) -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    y = copied(x)
    (y * y).sum().backward()
    assert y.grad is not None
    assert x.grad is not None
    assert y.grad.tolist() == [4.0, 8.0]
    assert x.grad.tolist() == [2.0, 4.0]


class Named(Parameter):
    """A class of a user's own, whose tensors have further attributes."""

    name = "a class attribute"


@COPIES
def test_a_copy_has_all_attributes(copied: Callable[[Any], Any]) -> None:
    model = Model()
    model.table.weight = found = Named(model.table.weight)
    found.name, found.role = "tokens", "table"
    found.requires_grad = False
    its = copied(model).table.weight
    assert (type(its), its.name, its.role, its.requires_grad) == (Named, "tokens", "table", False)
    assert vars(its) == {"name": "tokens"}


# -- processes


def asked(x: Tensor, both: tuple[Module, Optimizer]) -> Any:
    """In another process: a gradient by `grad`, one by a hook, and three steps."""
    y = (x * x).sum()
    (gradient,) = tensor.grad(y, x, retain_graph=True)
    told: list[Any] = []
    x.register_hook(lambda dx: told.append(dx.tolist()))
    y.backward()
    assert gradient is not None
    return gradient.tolist(), told, went_on(both)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_another_process_goes_on_to_the_same_bits(start: str) -> None:
    """In a new process the numbers of nodes begin again at 0, and a leaf is older than its results
    there too.
    """
    if start == "fork" and not hasattr(os, "fork"):
        pytest.skip("no fork here")
    both = trained(MAKERS["adamw, a schedule"])
    x = Tensor([1.0, 2.0], requires_grad=True)
    with multiprocessing.get_context(start).Pool(1) as pool:
        gradient, told, after = pool.apply_async(asked, (x, both)).get(timeout=120)
    assert gradient == [2.0, 4.0]
    assert told == [[2.0, 4.0]]
    assert after == went_on(both)


@COPIES
def test_a_copy_of_a_leaf_is_a_new_node(copied: Callable[[Tensor], Tensor]) -> None:
    x = Tensor([1.0], requires_grad=True)
    y = copied(x)
    assert x.node is not None
    assert y.node is not None
    assert y.node.order > x.node.order
