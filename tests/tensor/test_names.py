"""Names of other libraries: each answer is code that runs."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, nn, optim
from tensor.answers import HERE, MODULES
from tensor.errors import DeviceError
from tensor.later import LATER
from tensor.nn.answers import CLASSES, MODEL

ANSWERS = {**HERE, **MODULES}
CODES = ANSWERS | CLASSES | {f"model.{name}": code for name, code in MODEL.items()}


def namespace() -> dict[str, Any]:
    """The variables that the answers speak of."""
    tensor.manual_seed(0)
    a = tensor.randn(3, 3)
    return {
        "x": tensor.randn(2, 3), "y": tensor.rand(2, 3) + 1, "p": tensor.rand(2, 3),
        "a": a, "b": a + 1, "v": a[0], "w": a[1], "r": tensor.ones(3, requires_grad=True),
        "ids": Tensor([1, 0, 1]), "model": nn.Linear(3, 3),
        "np": np, "tensor": tensor, "nn": nn, "optim": optim,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_an_answer_is_code_that_runs(name: str, code: str) -> None:
    try:
        exec(code, namespace())
    except DeviceError:
        assert name in ("cuda", "model.cuda")


@pytest.mark.parametrize("name", [*HERE, *LATER])
def test_no_answer_hides_what_is_here(name: str) -> None:
    assert not (hasattr(Tensor, name) and hasattr(tensor, name))


def test_an_unknown_name_is_answered() -> None:
    x = Tensor([1.0])
    for owner, name, answer in (
        (x, "numel", "Tensor has no 'numel'. Write this: x.size"),
        (tensor, "cat", "tensor has no 'cat'. Write this: tensor.concatenate([x, y])"),
        (nn, "MSELoss", "tensor.nn has no 'MSELoss'. Write this: tensor.mean_squared_error(x, y)"),
        (optim, "RMSprop", "tensor.optim has no 'RMSprop' yet"),
        (Tensor, "from_numpy", "Tensor has no 'from_numpy'. Write this: tensor.Tensor.from_array"),
        (tensor.random, "permutation", "tensor.random has no 'permutation'. Write this: tensor."),
        (tensor.random, "seed", "tensor.random has no 'seed'. Write this: tensor.manual_seed(0)"),
        (tensor.autograd, "grad", "tensor.autograd has no 'grad'. Write this: tensor.grad("),
        (tensor.autograd, "Function", "tensor.autograd has no 'Function' yet: derivatives of"),
        (x, "exp_", "Tensor has no 'exp_'. Write this: with tensor.no_grad(): x[...] = x.exp()"),
        (
            x,
            "requires_grad_",
            "Tensor has no 'requires_grad_'. Write this: x.requires_grad = True  ",
        ),
        (nn, "utils", "tensor.nn has no 'utils'. Write this: optim.clip_gradients(model.param"),
        (tensor, "utils", "tensor has no 'utils' yet"),
        (nn, "MultiheadAttention", "tensor.nn has no 'MultiheadAttention'. Write this: tensor.mul"),
        (tensor, "inference_mode", "tensor has no 'inference_mode'. Write this: tensor.no_grad()"),
        (tensor, "linalg", "tensor has no 'linalg'. Write this: np.linalg.inv(a.numpy())  # or "),
        (x, "cuda", "Tensor has no 'cuda'. Write this: x.to('cuda')"),
        (x, "triu", "Tensor has no 'triu'. Write this: tensor.triu(a)"),
        (nn.ReLU(), "half", "ReLU has no 'half'. Write this: model.to('float16')"),
        (nn.ReLU(), "double", "ReLU has no 'double'. Write this: model.to('float64')"),
        (nn.ReLU(), "halve", "'ReLU' object has no attribute 'halve'"),
        (x, "sume", "'Tensor' object has no attribute 'sume'"),
    ):
        with pytest.raises(AttributeError) as error:
            getattr(owner, name)
        assert str(error.value).startswith(answer)
    assert {"sum", "shape", "numpy", "grad"} < set(dir(x))
    assert not set(dir(x)).intersection(ANSWERS, LATER)
    assert not hasattr(x, "__array_interface__")
    assert {"parameters", "weight"} < set(dir(nn.Linear(1, 1)))
    assert not set(dir(nn.Linear(1, 1))).intersection(MODEL)


@pytest.mark.parametrize("leaf", [False, True])
def test_an_answer_to_a_method_in_place_changes_the_tensor(leaf: bool) -> None:
    """Of every name with an underscore at its end: the tensor, or what its name stands for."""
    torch = pytest.importorskip("torch")
    names = [name for name in HERE if name.endswith("_") and name != "requires_grad_"]
    assert {"mul_", "copy_", "clamp_", "addmm_", "t_"} < set(names)
    for name in names:
        given = {**namespace(), "ids": Tensor([5, 0, 2])}
        for key in "xav":
            given[key] = nn.Parameter(given[key].detach(), requires_grad=leaf)
        before = dict(given)
        old = {key: given[key].numpy().copy() for key in ("x", "a", "v", "ids")}
        exec(HERE[name], given)
        renamed = [key for key in old if given[key] is not before[key]]
        changed = [key for key in old if not np.array_equal(given[key].numpy(), old[key])]
        assert renamed or changed, name
        assert not renamed or HERE[name].startswith(f"{renamed[0]} = "), name
        if name in ("add_", "sub_", "mul_", "div_", "copy_", "zero_", "exp_", "addcmul_"):
            x, y = torch.tensor(old["x"]), torch.tensor(given["y"].numpy())
            inputs = {"zero_": (), "exp_": (), "addcmul_": (x.clone(), y)}.get(name, (y,))
            expected = getattr(x.clone(), name)(*inputs)
            np.testing.assert_allclose(given["x"].numpy(), expected.numpy(), rtol=1e-6)


# the answers that have a function of the same meaning in PyTorch
BY_TORCH = """
    t ravel flip cat hstack vstack dstack trace log2 log10 exp2 sign tan sinh cosh square
    reciprocal rsqrt isnan isinf isfinite norm count_nonzero mm dot outer mv softsign softplus
    elu leaky_relu logsigmoid nll_loss smooth_l1_loss mse_loss relu6 cosine_similarity amax amin
    addcmul addcdiv lerp logical_and logical_or logical_xor logical_not eq ne lt le gt ge clamp
    clamp_min clamp_max dist
"""


@pytest.mark.parametrize("name", BY_TORCH.split())
def test_an_answer_has_the_value_of_the_name(name: str) -> None:
    torch = pytest.importorskip("torch")
    given = namespace()
    x, y, a, b, v, w = (torch.tensor(given[key].numpy()) for key in "xyabvw")
    functional = torch.nn.functional
    special = {
        "t": lambda: a.T, "ravel": lambda: x.ravel(), "flip": lambda: x.flip(0),
        "cat": lambda: torch.cat([x, y]), "hstack": lambda: torch.hstack([x, y]),
        "vstack": lambda: torch.vstack([x, y]), "dstack": lambda: torch.dstack([x, y]),
        "trace": lambda: a.trace(), "mm": lambda: a @ b, "dot": lambda: v.dot(w),
        "outer": lambda: torch.outer(v, w), "mv": lambda: a.mv(v), "norm": lambda: x.norm(),
        "nll_loss": lambda: functional.nll_loss(a.log_softmax(-1), torch.tensor([1, 0, 1])),
        "cosine_similarity": lambda: functional.cosine_similarity(v, w, dim=0),
        "amax": lambda: x.amax(0), "amin": lambda: x.amin(0), "clamp": lambda: x.clamp(0, 1),
        "clamp_min": lambda: x.clamp(0), "clamp_max": lambda: x.clamp(max=1),
        "addcmul": lambda: torch.addcmul(x, x, y), "addcdiv": lambda: torch.addcdiv(x, x, y),
        "lerp": lambda: torch.lerp(x, y, 0.5), "dist": lambda: torch.dist(x, y),
        "logical_not": lambda: ~(x > 0), "mse_loss": lambda: functional.mse_loss(x, y),
        "smooth_l1_loss": lambda: functional.smooth_l1_loss(x, y),
    }  # fmt: skip
    if name.startswith("logical_") and name not in special:
        expected = getattr(torch, name)(x > 0, y > 0)
    elif name in ("eq", "ne", "lt", "le", "gt", "ge"):
        expected = getattr(torch, name)(x, y)
    elif name in special:
        expected = special[name]()
    else:
        expected = getattr(torch, name, None) or getattr(functional, name)
        expected = expected(x)
    exec(f"answer = {ANSWERS[name]}", given)
    np.testing.assert_allclose(given["answer"].numpy(), expected.numpy(), rtol=2e-5, atol=1e-6)


def test_an_import_is_answered() -> None:
    for line, answer in (
        ("from tensor import cat", "tensor has no 'cat'. Write this: tensor.concatenate([x, y])"),
        ("from tensor.nn import Linear, MSELoss", "tensor.nn has no 'MSELoss'. Write this: "),
        ("from tensor.optim import RMSprop", "tensor.optim has no 'RMSprop' yet"),
        ("from tensor import nothing", "cannot import name 'nothing' from 'tensor'"),
        ("import tensor.nn.functional as F", "tensor.nn has no functional. Write `import tensor"),
        ("from tensor.nn import functional", "tensor.nn has no functional. Write `import tensor"),
    ):
        with pytest.raises(ImportError) as error:
            exec(line)
        assert str(error.value).startswith(answer)


def test_what_looks_like_a_call_of_pytorch() -> None:
    made: Any = tensor.tensor
    assert made([1.0, 2.0], requires_grad=True).requires_grad
    assert made([1, 2], dtype="float64").dtype == tensor.float64
    x = Tensor([5.0, 7.0])
    assert x.size == 2
    assert (x.sum() / x.size).item() == 6
    for call, sign in (
        (lambda: x // 2, "//"), (lambda: 7 % x, "%"), (lambda: divmod(x, 2), "divmod"),
        (lambda: round(x), "round"), (lambda: x << 1, "<<"), (lambda: 2 >> x, ">>"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=f"Tensor has no {sign} yet. Of values without a grad"):
            call()


@pytest.mark.filterwarnings("ignore")
def test_nothing_of_the_first_hour_is_left_unanswered() -> None:
    """No bare AttributeError or TypeError."""
    pytest.importorskip("torch")
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "first_hour.py"
    areas = runpy.run_path(str(path))["areas"]().values()
    rows = [row for area in areas for row in area]
    assert [row for row in rows if row[1] == "BARE"] == []
    assert len(rows) > 1500
