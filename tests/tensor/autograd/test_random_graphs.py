"""Random graphs against dual numbers: diamonds, shared nodes, one tensor twice in an op, views,
broadcasts, several outputs, some unused.

Whatever one op's check cannot see (accumulation, order, aliasing, stale gradients) shows here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tensor import Tensor, grad, ops
from tensor.gradient_cases import WITHOUT_GRADIENT
from tensor.graph import Output, reachable
from tensor.ops.op import OPS
from tests.helpers.dual import NAMES, Dual, gradients, variables
from tests.helpers.making import private
from tests.helpers.sharing import assert_nothing_shared, saved_arrays

Array = Any
GRAPHS, STEPS, LARGEST = 200, 24, 60
SHAPES: list[tuple[int, ...]] = [
    (),
    (3,),
    (4,),
    (2, 3),
    (3, 1),
    (1, 3),
    (3, 3),
    (2, 1, 3),
    (2, 3, 2),
    (2, 2, 3, 2),
]


@private
def sum_and_product(a: Array, b: Array) -> Any:
    """An op with two outputs, of which either may go unused."""

    def backward(dsum: Array | None, dproduct: Array | None) -> tuple[Array, Array]:
        dsum, dproduct = (np.zeros_like(a) if dy is None else dy for dy in (dsum, dproduct))
        return dsum + dproduct * b, dsum + dproduct * a

    return (a + b, a * b), backward


ENGINE: dict[str, Callable[..., Any]] = {**vars(ops), "sum_and_product": sum_and_product}
DUAL: dict[str, Callable[..., Any]] = {
    **NAMES,
    "sum_and_product": lambda a, b: (NAMES["add"](a, b), NAMES["multiply"](a, b)),
}


class Graph:
    """One program, run by the engine and by dual numbers side by side."""

    def __init__(self, seed: int, device: str):
        self.rng, self.device = np.random.default_rng(seed), device
        shapes = [SHAPES[i] for i in self.rng.integers(len(SHAPES), size=self.rng.integers(2, 5))]
        self.inputs = variables(*(self.rng.standard_normal(shape) for shape in shapes))
        self.leaves = [
            Tensor.from_array(
                _elsewhere(Tensor(x.value, device=device).array, self.rng), requires_grad=True
            )
            for x in self.inputs
        ]
        self.duals: list[Dual] = list(self.inputs)
        self.tensors: list[Tensor] = list(self.leaves)
        self.used: set[int] = set()

    def shape(self, i: int) -> tuple[int, ...]:
        return self.tensors[i].shape

    def value(self, i: int) -> Array:
        return self.duals[i].value

    def pick(self) -> int:
        """A place, late ones more often, and now and then one that was used before."""
        if self.used and self.rng.random() < 0.3:
            return int(self.rng.choice(sorted(self.used)))
        return len(self.tensors) - 1 - int(len(self.tensors) * self.rng.random() ** 2)

    def axis(self, i: int) -> int:
        return int(self.rng.integers(-len(self.shape(i)), len(self.shape(i))))

    def apply(self, name: str, *operands: Any, **options: Any) -> int:
        """Run an op on both sides; a `Place` among the operands stands for what lies there. Returns
        the place of the (first) result.
        """
        ys = ENGINE[name](*_resolve(operands, self.tensors), **options)
        duals = DUAL[name](*_resolve(operands, self.duals), **options)
        if not isinstance(ys, tuple):
            ys, duals = (ys,), (duals,)
        first = len(self.tensors)
        for y, dual in zip(ys, duals, strict=True):
            assert y.shape == dual.shape, name
            np.testing.assert_allclose(y.numpy(), dual.value, rtol=1e-11, atol=1e-12, err_msg=name)
            self.tensors.append(y)
            self.duals.append(dual)
        return first

    def outputs(self) -> list[int]:
        """The last ten tensors: what the gradients are taken of."""
        return [
            i
            for i in range(max(len(self.leaves), len(self.tensors) - 10), len(self.tensors))
            if self.tensors[i].requires_grad
        ]

    def grow(self) -> None:
        """One op more, where it fits; what grows large in value is brought back."""
        name = str(self.rng.choice(list(MOVES)))
        count = len(self.tensors)
        MOVES[name](self, Place(self.pick()))
        for i in range(count, len(self.tensors)):
            if self.value(i).size and np.abs(self.value(i)).max() > 6:
                self.apply("tanh", Place(i))


class Place(int):
    """Where in the list of tensors an operand is, as against a number that is meant as a number."""


def _resolve(operands: Any, values: list[Any]) -> list[Any]:
    return [
        values[x]
        if isinstance(x, Place)
        else _resolve(x, values)
        if isinstance(x, list) and isinstance(x[0], Place)
        else x
        for x in operands
    ]


def _elsewhere(x: Array, rng: np.random.Generator) -> Array:
    """The same values in another memory layout."""
    way = int(rng.integers(4)) if x.ndim else 0
    if way == 1:
        return np.asfortranarray(x) if isinstance(x, np.ndarray) else x.T.copy().T
    if way == 2:
        return x[::-1].copy()[::-1]
    if way == 3:
        around = np.stack([x, x * np.nan], -1)
        return around[..., 0]
    return x


# -- the moves


def elementwise(g: Graph, i: Place) -> None:
    g.apply(
        str(
            g.rng.choice(
                [
                    "sin",
                    "cos",
                    "tanh",
                    "sigmoid",
                    "relu",
                    "silu",
                    "abs",
                    "negative",
                    "exp",
                    "erf",
                    "clone",
                    "contiguous",
                ]
            )
        ),
        i,
    )


def gelu(g: Graph, i: Place) -> None:
    g.apply("gelu", i, form=str(g.rng.choice(["tanh", "erf"])))


def positive(g: Graph, i: Place) -> None:
    """sqrt, log and a fractional power, of x * x + 1/2."""
    base = Place(g.apply("add", Place(g.apply("multiply", i, i)), 0.5))
    name = str(g.rng.choice(["sqrt", "log", "power"]))
    g.apply(name, base, *((1.5,) if name == "power" else ()))


def binary(g: Graph, i: Place) -> None:
    """Two operands that broadcast, or the same one twice."""
    name = str(g.rng.choice(["add", "subtract", "multiply", "maximum", "minimum"]))
    partners = [j for j in range(len(g.tensors)) if _broadcasts(g.shape(i), g.shape(j))]
    j = i if g.rng.random() < 0.2 else Place(g.rng.choice(partners))
    g.apply(name, *((i, j) if g.rng.random() < 0.5 else (j, i)))


def divide(g: Graph, i: Place) -> None:
    base = Place(g.apply("add", Place(g.apply("multiply", i, i)), 0.5))
    partners = [j for j in range(len(g.tensors)) if _broadcasts(g.shape(i), g.shape(j))]
    g.apply("divide", Place(g.rng.choice(partners)), base)
    g.apply("divide", 1.5, base)


def scalar(g: Graph, i: Place) -> None:
    name = str(g.rng.choice(["add", "subtract", "multiply"]))
    g.apply(name, *((i, 1.25) if g.rng.random() < 0.5 else (0.75, i)))


def constant(g: Graph, i: Place) -> None:
    """An operand that no gradient goes to."""
    g.apply(str(g.rng.choice(["multiply", "subtract"])), i, g.rng.standard_normal(g.shape(i)))


def choice(g: Graph, i: Place) -> None:
    mask = g.rng.random(g.shape(i)) < 0.5
    j = Place(g.rng.choice([j for j in range(len(g.tensors)) if g.shape(j) == g.shape(i)]))
    if g.rng.random() < 0.5:
        g.apply("where", mask, i, j)
    else:
        g.apply("masked_fill", i, mask, 0.5)
    g.apply("clip", i, low=-0.7, high=0.9)


def reduction(g: Graph, i: Place) -> None:
    name = str(g.rng.choice(["sum", "mean", "var", "max", "min", "logsumexp", "std"]))
    axes = [a for a in range(len(g.shape(i))) if g.rng.random() < 0.6]
    axis: Any = None if len(axes) == len(g.shape(i)) else tuple(axes)
    if name == "std" and not (g.value(i).var(axis) > 1e-2).all():
        return
    g.apply(name, i, axis=axis, keepdims=bool(g.rng.random() < 0.4))


def along(g: Graph, i: Place) -> None:
    if g.shape(i):
        g.apply(str(g.rng.choice(["softmax", "log_softmax", "cumsum"])), i, axis=g.axis(i))


def matmul(g: Graph, i: Place) -> None:
    shape = g.shape(i)
    for j in map(Place, g.rng.permutation(len(g.tensors))):
        other = g.shape(j)
        if (
            shape
            and other
            and shape[-1] == other[-2 if len(other) > 1 else 0]
            and _broadcasts(shape[:-2], other[:-2])
        ):
            g.apply("matmul", i, j)
            return
    if len(shape) > 1:
        g.apply("matmul", i, Place(g.apply("transpose", i, -1, -2)))  # x @ x.mT


def layer_norm(g: Graph, i: Place) -> None:
    if g.shape(i) and (g.value(i).var(-1) > 1e-2).all():
        rows = [j for j in range(len(g.tensors)) if g.shape(j) == g.shape(i)[-1:]]
        gain, bias = (
            Place(g.rng.choice(rows)) if rows else g.rng.standard_normal(g.shape(i)[-1:])
            for _ in range(2)
        )
        g.apply("layer_norm", i, gain, bias)


def attention(g: Graph, i: Place) -> None:
    alike = [j for j in range(len(g.tensors)) if g.shape(j) == g.shape(i)]
    if len(g.shape(i)) > 1:
        g.apply(
            "attention",
            i,
            Place(g.rng.choice(alike)),
            Place(g.rng.choice(alike)),
            causal=bool(g.rng.random() < 0.5),
        )


def losses(g: Graph, i: Place) -> None:
    if g.shape(i):
        g.apply("cross_entropy", i, g.rng.integers(g.shape(i)[-1], size=g.shape(i)[:-1]))


def axes(g: Graph, i: Place) -> None:
    """Views that move axes."""
    n = len(g.shape(i))
    if n:
        g.apply("permute", i, *map(int, g.rng.permutation(n)))
        g.apply("transpose", i, g.axis(i), g.axis(i))
    g.apply("unsqueeze", i, int(g.rng.integers(n + 1)))
    g.apply("squeeze", i)


def shapes(g: Graph, i: Place) -> None:
    """Views that regroup or repeat: from one row of all elements back, and stride 0."""
    size = g.value(i).size
    factor = int(g.rng.choice([k for k in range(1, size + 1) if size % k == 0] or [1]))
    g.apply("reshape", i, factor, size // factor)
    if size <= LARGEST // 2:
        g.apply("expand", i, 2, *g.shape(i))


def slices(g: Graph, i: Place) -> None:
    """Basic keys: steps of both signs, integers, None and `...`."""
    key: list[Any] = []
    for n in g.shape(i):
        part = slice(
            *(None if g.rng.random() < 0.4 else int(k) for k in g.rng.integers(-n, n + 1, 2)),
            int(g.rng.choice([-2, -1, 1, 2])),
        )
        key.append(
            int(g.rng.integers(-n, n))
            if g.rng.random() < 0.3 and n
            else part
            if len(range(n)[part])
            else slice(None)
        )
    if g.rng.random() < 0.3:
        key.insert(0, None)
    g.apply("getitem", i, tuple([*key, ...] if g.rng.random() < 0.3 else key))


def places(g: Graph, i: Place) -> None:
    """Integer arrays with repeats, as a key, by gather and by embedding."""
    shape = g.shape(i)
    if shape:
        g.apply("getitem", i, (g.rng.integers(-shape[0], shape[0], 3),))
        g.apply("gather", i, g.rng.integers(shape[-1], size=(*shape[:-1], 2)))
    if len(shape) == 2:
        g.apply("embedding", g.rng.integers(shape[0], size=(2, 2)), i)


def split(g: Graph, i: Place) -> None:
    """Several views from one node; what later moves do not pick stays unused."""
    if g.shape(i):
        axis = g.axis(i)
        g.apply("split", i, int(g.rng.integers(1, g.shape(i)[axis] + 1)), axis)


def two_outputs(g: Graph, i: Place) -> None:
    g.apply(
        "sum_and_product",
        i,
        Place(g.rng.choice([j for j in range(len(g.tensors)) if g.shape(j) == g.shape(i)])),
    )


def join(g: Graph, i: Place) -> None:
    alike = [Place(j) for j in range(len(g.tensors)) if g.shape(j) == g.shape(i)]
    parts = [i, i] if g.rng.random() < 0.2 else [i, alike[g.rng.integers(len(alike))]]
    if g.shape(i) and g.rng.random() < 0.5:
        g.apply("concatenate", parts, axis=g.axis(i))
    else:
        g.apply("stack", parts, axis=int(g.rng.integers(len(g.shape(i)) + 1)))
    if g.value(i).size < 10:
        g.apply("pad", i, width=1, value=0.3)


MOVES: dict[str, Callable[[Graph, Place], None]] = {
    f.__name__: f
    for f in (
        elementwise, gelu, positive, binary, divide, scalar, constant, choice, reduction, along,
        matmul, layer_norm, attention, losses,
        axes, shapes, slices, places, split, two_outputs, join,
    )
}  # fmt: skip


def _broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        return int(np.prod(np.broadcast_shapes(a, b))) <= LARGEST
    except ValueError:
        return False


# -- the proof


def build(seed: int, device: str) -> Graph:
    """A graph of about STEPS moves, none larger than LARGEST elements."""
    g = Graph(seed, device)
    for _ in range(STEPS):
        count = len(g.tensors)
        g.grow()
        keep = [i for i in range(len(g.tensors)) if i < count or 0 < g.value(i).size <= LARGEST]
        g.tensors, g.duals = [g.tensors[i] for i in keep], [g.duals[i] for i in keep]
    return g


def compare(found: dict[str, Array | None], expected: list[Array]) -> None:
    """Each gradient within 1e-10 of its own scale; a true 0 (softmax().sum()) is known up to
    rounding; None only where it is exactly 0.
    """
    for (name, dx), want in zip(found.items(), expected, strict=True):
        scale = np.abs(want).max()
        if dx is None:
            assert scale == 0, f"{name} has no gradient, but a derivative"
        else:
            assert np.abs(dx - want).max() <= (1e-10 * scale if scale > 1e-12 else 1e-12), name


def test_the_graphs_hold_what_they_are_meant_to(device: str) -> None:
    """Every move, tensors with several consumers, one tensor twice in an op, outputs of which some
    go unused, gradients worth comparing.
    """
    ops_met: set[str] = set()
    diamonds = twice = unused = gradients_met = 0
    for seed in range(0, GRAPHS, 2):
        g = build(seed, device)
        nodes = reachable(g.tensors[i].node for i in g.outputs())
        parents = [parent for node in nodes for parent in node.parents if parent is not None]
        ops_met |= {node.op for node in nodes}
        diamonds += len(parents) - len(set(parents))
        twice += sum(
            len(node.parents) > 1 and node.parents[0] is node.parents[1] is not None
            for node in nodes
        )
        outputs = {
            id(node.parents[0]): node.parents[0].outputs for node in nodes if type(node) is Output
        }
        unused += sum(outputs.values()) - sum(type(node) is Output for node in nodes)
        gradients_met += len(set(nodes) & {leaf.node for leaf in g.leaves})
    losses = {name for name, op in OPS.items() if op.__module__ == "tensor.ops.losses"}
    wanted = (
        set(OPS)
        - WITHOUT_GRADIENT
        - (losses - {"cross_entropy"})
        - {"dropout", "linear", "cast", "transfer"}
    )
    # in float64 they are their compositions: other ops' nodes
    wanted -= {name for name, op in OPS.items() if op.__module__ == "tensor.ops.fused"}
    assert sorted(wanted - ops_met) == []
    assert diamonds > 700
    assert twice > 150
    assert unused > 60
    assert gradients_met > 180


@pytest.mark.parametrize("seed", range(GRAPHS))
def test_random_graph(seed: int, device: str) -> None:
    g = build(seed, device)
    ys, duals = [g.tensors[i] for i in g.outputs()], [g.duals[i] for i in g.outputs()]
    seeds = [
        _elsewhere(Tensor(g.rng.standard_normal(y.shape), device=device).array, g.rng) for y in ys
    ]
    expected = gradients(duals, [Tensor.from_array(s).numpy() for s in seeds], g.inputs)
    data = {f"tensor {i}": t for i, t in enumerate(g.tensors)}
    before = [t.numpy().copy() for t in g.tensors] + [s.copy() for s in seeds]
    others = {**data, **{f"upstream {i}": s for i, s in enumerate(seeds)}, **saved_arrays(*ys)}

    found = {
        f"gradient of leaf {i}": dx
        for i, dx in enumerate(grad(ys, g.leaves, seeds, retain_graph=True))
    }
    compare({name: None if dx is None else dx.numpy() for name, dx in found.items()}, expected)
    assert_nothing_shared({name: dx for name, dx in found.items() if dx is not None}, others)
    assert all(leaf.grad is None for leaf in g.leaves)

    loss = sum((y * Tensor.from_array(s)).sum() for y, s in zip(ys, seeds, strict=True))
    loss.backward(retain_graph=True)
    once = {f".grad of leaf {i}": leaf.grad for i, leaf in enumerate(g.leaves)}
    compare({name: None if dx is None else dx.numpy() for name, dx in once.items()}, expected)
    reached = {name: dx for name, dx in once.items() if dx is not None}
    assert_nothing_shared(
        reached,
        {
            **others,
            **saved_arrays(loss),
            **{name: dx for name, dx in found.items() if dx is not None},
        },
    )

    loss.backward()
    compare(
        {
            f"{name} after a second pass": None if dx is None else dx.numpy()
            for name, dx in once.items()
        },
        [2 * dx for dx in expected],
    )
    for array, was in zip([*g.tensors, *map(Tensor.from_array, seeds)], before, strict=True):
        np.testing.assert_array_equal(
            array.numpy(),
            was if isinstance(was, np.ndarray) else was.get(),
            err_msg="backward wrote to data or upstream",
        )
