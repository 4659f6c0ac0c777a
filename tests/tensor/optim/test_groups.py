"""Parameter groups, schedules as learning rates, Adam, and what optimisers refuse."""

from __future__ import annotations

import copy
import math
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, nn, optim
from tensor.errors import StateError
from tests.tensor.optim.test_optimizers import Model, give, gradients, values

INF, NAN = math.inf, math.nan


def cosine(step: int) -> float:
    return optim.warmup_cosine(step, peak=0.2, warmup=3, total=15, floor=0.01)


# the optimiser, its options, those of a group of its own for the matrix and the bias
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}, {}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, {"lr": 0.01, "momentum": 0.5}),
    ("SGD", {"lr": cosine, "momentum": 0.9}, {"lr": 0.3, "nesterov": True}),
    ("SGD", {"lr": 0.1}, {"weight_decay": 0.3}),
    ("Adam", {}, {}),
    ("Adam", {"lr": 0.1, "betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.2}, {}),
    ("Adam", {"lr": cosine, "weight_decay": 0.1}, {"betas": (0.0, 0.99), "weight_decay": 0}),
    ("Adam", {"lr": 0.05}, {"lr": cosine, "eps": 0.1, "weight_decay": 0.3}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0}, {"lr": cosine, "betas": (0.5, 0.6), "eps": 0.1}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0}, {"weight_decay": 0.3}),
]


@pytest.mark.parametrize(("kind", "options", "own"), CASES)
def test_groups_and_schedules_against_pytorch(
    kind: str, options: dict[str, Any], own: dict[str, Any], device: str
) -> None:
    """Twenty steps in float64, in which parameters miss gradients now and then."""
    torch = pytest.importorskip("torch")
    model = Model(device=device)
    theirs = {n: torch.tensor(w, requires_grad=True) for n, w in values(model).items()}
    groups: Any = model
    if own:
        groups = [
            {"params": [model.table, model.gain]},
            {"params": [model.matrix, model.bias], **own},
        ]
    ours = getattr(optim, kind)(groups, **options)
    first = {name: value for name, value in options.items() if not callable(value)}
    second = {name: value for name, value in own.items() if not callable(value)}
    other = getattr(torch.optim, kind)(
        [
            {"params": [theirs["table"], theirs["gain"]]},
            {"params": [theirs["matrix"], theirs["bias"]], **second},
        ],
        **first,
    )
    for step in range(20):
        given = gradients(step)
        give(model, given)
        for n, g in given.items():
            theirs[n].grad = None if g is None else torch.tensor(g)
        for group, chosen in zip(other.param_groups, (options, {**options, **own}), strict=True):
            if callable(chosen.get("lr")):
                group["lr"] = chosen["lr"](step)
        if callable(options.get("lr")):
            assert ours.lr == options["lr"](step)
        ours.step()
        other.step()
    for n, w in values(model).items():
        assert np.allclose(w, theirs[n].detach().numpy(), rtol=0, atol=1e-13), n


def test_a_group_may_be_a_module_and_a_rate_may_be_changed(device: str) -> None:
    """The names of its parameters stay, and `param_groups` and `lr` are read at each step."""
    body, head = nn.Linear(2, 2).to(device=device), nn.Linear(2, 1).to(device=device)
    optimizer = optim.SGD([{"params": body, "lr": 0.5}, {"params": head.parameters()}], lr=0.1)
    assert list(optimizer.counts) == ["0.weight", "0.bias", "1.0", "1.1"]
    assert optimizer.param_groups[1]["params"] == (head.weight, head.bias)
    assert repr(optimizer) == (
        "SGD of 2 parameters: lr=0.5, momentum=0.0, nesterov=False, weight_decay=0.0\n"
        "SGD of 2 parameters: lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0"
    )
    with pytest.raises(ValueError, match=r"the groups have the rates \[0.5, 0.1\]"):
        optimizer.lr = 1.0
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.lr = 1.0
    for parameter in (body.bias, head.bias):
        assert parameter is not None
        before = parameter.numpy().copy()
        parameter.grad = tensor.ones(*parameter.shape, device=device)
        optimizer.step()
        assert np.allclose(parameter.numpy(), before - 1)
        parameter.grad = None


def test_groups_are_those_that_the_optimizer_was_made_with() -> None:
    """What is added later would not learn, and an option of another name would change nothing."""
    w, late = nn.Parameter([1.0]), nn.Parameter([1.0])
    for kind in ("SGD", "AdamW", "Muon"):
        optimizer = getattr(optim, kind)([w], lr=0.1)
        group = optimizer.param_groups[0]
        with pytest.raises(AttributeError):
            optimizer.param_groups.append({"params": [late]})
        with pytest.raises(AttributeError):
            group["params"].append(late)
        with pytest.raises(TypeError, match=rf"a {kind} stay: .* a new optimiser, {kind}\(groups"):
            optimizer.param_groups = [{"params": [late]}]
        with pytest.raises(AttributeError, match=rf"{kind} has no 'add_param_group'. Write this: "):
            optimizer.add_param_group({"params": [late]})
        optimizer.step()
        for change, message in (
            ({"params": (w, late)}, f'{kind}: the "params" of a group are those that the optim'),
            ({"learning_rate": 0.2}, f"{kind}: a group has 'learning_rate', and the options are l"),
        ):
            optimizer = getattr(optim, kind)([w], lr=0.1)
            optimizer.param_groups[0].update(change)
            with pytest.raises(TypeError, match=message):
                optimizer.step()
        optimizer = getattr(optim, kind)([w], lr=0.1)
        del optimizer.param_groups[0]["lr"]
        with pytest.raises(TypeError, match=f"{kind}: a group has no 'lr' any more; the options"):
            copy.deepcopy(optimizer).step()


def test_all_parameters_of_a_group_that_sets_weight_decay_decay() -> None:
    """With gradients of zero nothing but the decay moves a parameter."""
    for kind, options in (
        ("SGD", {"lr": 0.1}),
        ("AdamW", {"lr": 0.1, "decay_embeddings": False}),
        ("Muon", {"lr": 0.1, "adamw_lr": 0.1, "decay_embeddings": False}),
    ):
        bias, gain, other = (nn.Parameter([1.0]) for _ in range(3))
        table = nn.Parameter([[1.0]], role="table")
        optimizer = getattr(optim, kind)(
            [
                {"params": [bias, table], "weight_decay": 0.5},
                {"params": [gain], "weight_decay": 0.0},
                {"params": [other]},
            ],
            weight_decay=0.25,
            **options,
        )
        for parameter in (bias, table, gain, other):
            parameter.grad = tensor.zeros(*parameter.shape)
        optimizer.step()
        moved = [parameter.item() for parameter in (bias, table, gain, other)]
        assert moved == pytest.approx([0.95, 0.95, 1, 1], rel=1e-6), kind


def test_a_schedule_goes_on_where_it_was(device: str) -> None:
    """The steps of the optimiser count, not those of a parameter that missed some."""
    schedule = partial(optim.warmup_linear, peak=1.0, warmup=2, total=9)
    model, other = Model(device=device), Model(device=device)
    optimizer = optim.SGD(model, lr=schedule, momentum=0.5)
    pickle.dumps(optimizer.param_groups[0]["lr"])
    again = optim.SGD(other, lr=schedule, momentum=0.5)
    for step in range(8):
        if step == 4:
            other.load_state_dict(model.state_dict())
            again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            assert again.lr == optimizer.lr == schedule(4)
            optimizer = again
            model = other
        give(model, {name: None if step % 2 else g for name, g in gradients(step).items()})
        optimizer.step()
    assert set(optimizer.counts.values()) == {3, 4}
    assert optimizer.lr == schedule(8)
    with pytest.raises(StateError, match="has groups, taken, counts, arrays; missing: arrays"):
        again.load_state_dict({"groups": [], "taken": 3, "counts": {}})
    with pytest.raises(StateError, match="missing: table"):
        again.load_state_dict(optim.SGD([{"params": [nn.Parameter([1.0])]}]).state_dict())


def test_what_an_optimizer_refuses() -> None:
    w, x = nn.Parameter([1.0]), Tensor([1.0], requires_grad=True)
    frozen, model = Tensor([1.0]), nn.Linear(1, 1)
    for kind, parameters, options, message in (
        ("SGD", [w], {"lr": -1}, "SGD lr=-1: a number from 0 on is needed"),
        ("Muon", [w], {"lr": NAN}, "Muon lr=nan: a number from 0 on is needed"),
        ("SGD", [w], {"lr": "0.1"}, "SGD lr='0.1': a number"),
        ("SGD", [w], {"lr": INF}, "SGD lr=inf: a number"),
        ("SGD", [w], {"lr": lambda step: NAN}, "SGD lr=nan: a number"),
        ("SGD", [w], {"momentum": -0.1}, "SGD momentum=-0.1: a number"),
        ("SGD", [w], {"weight_decay": NAN}, "SGD weight_decay=nan: a number"),
        ("Adam", [w], {"betas": (0.9, 1)}, r"Adam betas=\(0.9, 1\): two numbers are needed, from"),
        ("AdamW", [w], {"betas": 0.9}, "AdamW betas=0.9: two numbers"),
        ("AdamW", [w], {"betas": (0.9, -0.1)}, r"AdamW betas=\(0.9, -0.1\): two numbers"),
        ("Adam", [w], {"eps": 0.0}, "Adam eps=0.0: above 0, or an element whose gradient"),
        ("Muon", [w], {"adamw_lr": cosine}, "Muon lr=0.02, adamw_lr=<function cosine"),
        ("SGD", [], {}, "SGD needs a parameter with requires_grad=True, and got an empty list"),
        ("SGD", [frozen], {}, "SGD needs .* and got 1 that are all frozen"),
        ("SGD", w, {}, "SGD got a Parameter: give it a module, or a list of parameters"),
        ("SGD", None, {}, "SGD got a NoneType: give it a module"),
        ("SGD", {"params": [w]}, {}, "SGD got a dict: give it a module, or a list"),
        ("SGD", [x * 2], {}, "SGD: element 0 is the result of `multiply`, and only leaves learn"),
        ("SGD", [w, np.ones(2)], {}, "SGD: element 1 is a ndarray, and parameters are needed"),
        ("SGD", [("w", w)], {}, "SGD: element 0 is a tuple, and parameters are needed"),
        ("SGD", [{"params": [w]}, w], {}, 'SGD: group 1 is no dict with "params"'),
        ("SGD", [{"lr": 0.1}], {}, 'SGD: group 0 is no dict with "params"'),
        ("SGD", [{"params": w}], {}, "SGD got a Parameter: give it"),
        (
            "SGD",
            [{"params": [w], "learning_rate": 1}],
            {},
            "SGD: group 0 has 'learning_rate', and the options are lr, momentum, nesterov, w",
        ),
        ("Adam", [{"params": [x]}, {"params": [w], "lr": -2}], {}, "Adam group 1 lr=-2: a number"),
        (
            "SGD",
            [{"params": [x]}, {"params": [w, x]}],
            {},
            "SGD: parameter 0 of group 0 and parameter 1 of group 1 are one and the same: leave",
        ),
        (
            "AdamW",
            [{"params": model.parameters()}, {"params": model}],
            {},
            "AdamW: parameter 0 of group 0 and parameter weight of group 1 are one and the same",
        ),
        ("SGD", nn.ReLU(), {}, "SGD: this ReLU has no nn.Parameter, so nothing would learn: set"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            getattr(optim, kind)(parameters, **options)
    optimizer = optim.SGD([w], lr=lambda step: 0.1 if step == 0 else NAN)
    w.grad = tensor.ones(1)
    optimizer.step()
    with pytest.raises(ValueError, match="SGD lr=nan"):
        optimizer.step()
    assert w.item() == pytest.approx(0.9)
    with pytest.raises(ValueError, match="SGD lr=-1"):
        optimizer.lr = -1


def test_clipping_of_one_tensor_and_limits(device: str) -> None:
    w = nn.Parameter(np.zeros(2), device=device)
    w.grad = Tensor(np.array([3.0, 4.0]), device=device)
    for limit in (-1.0, NAN):
        with pytest.raises(ValueError, match=f"clip_gradients limit={limit}: a norm is at least 0"):
            optim.clip_gradients(w, limit)
    with pytest.raises(TypeError, match="element 0 is a tuple, and parameters are needed"):
        optim.clip_gradients(nn.Linear(2, 2).named_parameters(), 1.0)  # type: ignore[arg-type]
    assert optim.gradient_norm(w) == 5
    assert optim.clip_gradients(w, INF) == 5
    assert optim.clip_gradients(w, 1.0) == 5
    assert np.allclose(w.grad.numpy(), [0.6, 0.8], rtol=1e-14)


def test_schedules_of_the_step() -> None:
    linear = [optim.warmup_linear(s, peak=2.0, warmup=2, total=6, floor=1.0) for s in range(8)]
    assert np.allclose(linear, [2 / 3, 4 / 3, 2, 1.75, 1.5, 1.25, 1, 1], rtol=1e-14)
    constant = [optim.warmup_constant(s, peak=3.0, warmup=2) for s in range(4)]
    assert np.allclose(constant, [1, 2, 3, 3], rtol=1e-14)
    for step in (1, 7, 3999, 4000, 4001, 90_000):  # as the paper counts, from 1
        exact = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
        ours = optim.inverse_square_root(step - 1, width=512, warmup=4000)
        assert ours == pytest.approx(exact, rel=1e-15)
    assert optim.inverse_square_root(3, width=4, warmup=0, scale=2.0) == 0.5
    with pytest.raises(ValueError, match="warm-up of 6 steps in a schedule of 6"):
        optim.warmup_linear(0, peak=1.0, warmup=6, total=6)
