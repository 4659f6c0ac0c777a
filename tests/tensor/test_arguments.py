"""Arguments that do not fit, operands of foreign classes, and ops that are typed into a console."""

from __future__ import annotations

import linecache
import traceback
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, nn
from tensor.errors import ArgumentError, DTypeError, GraphError, MutationError, TensorError
from tensor.gradcheck import gradcheck

# what a user types -> what the error says
SAYS = {
    "x.mean('a')": "`mean` takes axis as an integer, a tuple of integers or None, not 'a'",
    "x.sum(dim=1)": "`sum` has no dim=. Write axis=. Here: sum(x, axis=None, keepdims=False)",
    "x.max(0, keepdim=True)": "`max` has no keepdim=. Write keepdims=",
    "x.var(unbiased=False)": "`var` has no unbiased=. Write correction=",
    "x.std(ddof=1)": "`std` has no ddof=. Write correction=",
    "x.sum(dtype='float64')": "`sum` has no dtype=. Write .to(dtype) after the call",
    "x.add(other=x)": "`add` has no other=. Write b=. Here: add(a, b)",
    "x.add(x, alpha=2)": "`add` has no alpha=. Here: add(a, b)",
    "tensor.cross_entropy(x, [0, 1, 2], smoothing=0.1)": "`cross_entropy` has no smoothing=. Here:",
    # the kernel of many queries would pass over the name
    "tensor.attention(*[tensor.ones(600, 4, dtype='float64')] * 3, window=2)": "`attention` has no "
    "window=. Here:",
    "x.add()": "`add` takes b as a tensor, an array, a list or a number, not None",
    "tensor.softmax(input=x, dim=0)": "`softmax` has no input=. Write x=",
    "x.cumsum(None)": "`cumsum` takes axis as an integer, not None",
    "x.argmax((0, 1))": "`argmax` takes axis as an integer or None, not (0, 1)",
    "x.gather(0, ids)": "`gather` takes axis as an integer, not an array or tensor of shape (1, 4)",
    "x.split(2, dim=1)": "`split` has no dim=. Write axis=",
    "x.split('a')": "`split` takes size as an integer or a tuple of integers, not 'a'",
    "x.chunk(chunks=2)": "`chunk` has no chunks=. Write n=",
    "x.flatten(start_dim=1)": "`flatten` has no start_dim=. Write start=",
    "x.transpose()": "`transpose`: missing a required argument: 'i'. Here: transpose(x, i, j). x.T",
    "x.reshape('a')": "`reshape` takes shape as an integer or a tuple of integers, not 'a'",
    "x.view(1.5)": "`view` takes shape as an integer or a tuple of integers, not 1.5",
    "tensor.stack([x, x], dim=1)": "`stack` has no dim=. Write axis=",
    "tensor.concatenate(5)": "`concatenate` takes tensors as a list of tensors, not 5",
    "tensor.concatenate([x, None])": "`concatenate` takes tensors as a list of tensors, not",
    "tensor.zeros(2.5)": "`zeros` takes shape as an integer or a tuple of integers, not 2.5",
    "tensor.zeros(-1)": "shape (-1,): sizes are at least 0",
    "tensor.full(2)": "`full`: missing a required argument: 'value'",
    "tensor.randint(5, 2, (2,))": "integers from 5 to 2: the range is empty",
    "tensor.attention(x, x, x, causl=True)": "`attention` has no causl=",
    "tensor.attention(x, x, x, is_causal=True)": "`attention` has no is_causal=. Write causal=",
    "tensor.linear(x)": "`linear`: missing a required argument: 'weight'",
    "tensor.dropout(x, 0.5)": "`dropout`: missing a required argument: 'key'. Here: dropout(x, p",
    "tensor.cross_entropy(x, target=[0, 1, 2])": "`cross_entropy` has no target=. Write targets=",
    "tensor.cross_entropy(x, [0, 1, 2], reduction='x')": "reduction is 'mean', 'sum' or 'none'",
    "tensor.multi_head_attention(x[None], heads=0)": "multi_head_attention of (1, 3, 4) with 0 he",
    "tensor.multi_head_attention(x[None], 2)": "`multi_head_attention`: missing a req",
    "tensor.pad(x, 'a')": "pad width 'a' for 2 axes: an integer, a pair (before, after)",
    "tensor.pad(x, ((1, 1),) * 3)": "pad width ((1, 1), (1, 1), (1, 1)) for 2 axes",
    "tensor.pad(x, 1.5)": "pad width 1.5 for 2 axes",
    "x.to('gpu')": "no dtype is named 'gpu'; use float64, float32, float16, bfloat16, an integer or"
    " bool; devices are 'cpu', 'cuda' and 'cuda:N'",
    "r.sum().backward(create_graph=True)": "`backward` has no create_graph=. Second derivatives",
    "tensor.grad(r.sum(), r, allow_unused=True)": "`grad` has no allow_unused=",
    "nn.Linear(in_features=4, out_features=2)": "`Linear` has no in_features=. Write inputs=",
    "nn.Linear(4, 2)(tensor.ones(3, 5))": "linear of x (3, 5): its last axis has 5 numbers",
    "x[[0, 7]]": "index 7 is out of bounds for axis 0 with size 3",
    "x[[0, 7]] = 5": "index 7 is out of bounds for axis 0 with size 3",
    "x[0] = None": "a tensor holds numbers: None cannot be written into it",
    "x[0] = '1.5'": "a tensor holds numbers: '1.5' cannot be written into it",
    "(x > 0) - (x > 0)": "`subtract` is not defined for bool: use .to('int64')",
    "-(x > 0)": "`negative` is not defined for bool",
    "~x": "`invert` is not defined for float32: compare first, as in (x > 0) & (y > 0)",
    "x & x": "`bitwise_and` is not defined for float32: compare first",
    "x + 'a'": "`add` takes b as a tensor, an array, a list or a number, not 'a'",
    "x.multiply(None)": "`multiply` takes b as a tensor, an array, a list or a number, not None",
    "x @ (lambda: 0)": "unsupported operand",
    "x * None": "unsupported operand",
    "x += None": "unsupported operand",
    "r += 1": "a leaf (3, 4) with requires_grad=True is written outside no_grad()",
    "r **= 2": "a leaf (3, 4) with requires_grad=True is written outside no_grad()",
    "r.grad = 5.0": ".grad is a tensor (3, 4) float32 or None, not 5.0",
    "float(x)": "item() of a tensor of shape (3, 4): 12 values, not 1",
    "list(x.sum())": "a tensor of shape () has no length",
    "x.size()": "size is the number of elements, 12. Write x.shape",
    "x.size(0)": "size is the number of elements, 12. Write x.shape[0]",
    "Tensor(np.ones(3, 'c8'))": "tensors hold floats, integers and bools, not complex numbers",
    "Tensor.from_array(np.ones(3, 'c8'))": "tensors hold floats, integers and bools, not complex",
    "tensor.from_dlpack(5)": "from_dlpack takes an array of another library, not 5",
    "Tensor(['a'])": "tensors hold floats, integers and bools, not text",
    "Tensor(None)": "tensors hold floats, integers and bools, not Python objects",
    "np.sum(r, where=[True] * 4)": "`sum` has no where=. Write tensor.where(mask, x, 0)",
    "np.sum(r, out=np.zeros(()))": "`sum` has no out=. Write y[...] = the result",
    "np.add(r, 1, out=np.zeros((3, 4)))": "np.add with out= or where= of a tensor in a graph would",
    "np.linalg.norm(r)": "np.norm of a tensor in a graph would lose its gradient. Write this: (x",
}  # fmt: skip


@pytest.mark.parametrize("line", SAYS)
def test_an_error_is_short_and_says_what_to_write(line: str) -> None:
    """At most 8 lines that end at the user's line and one line of the engine."""
    x, r = tensor.ones(3, 4), tensor.ones(3, 4, requires_grad=True)
    ids = tensor.zeros(1, 4, dtype="int64")
    names = {"x": x, "r": r, "ids": ids, "np": np, "nn": nn, "tensor": tensor, "Tensor": Tensor}
    linecache.cache["typed"] = len(line), None, [line], "typed"
    with pytest.raises(Exception) as caught:  # noqa: PT011 (the words are compared below)
        exec(compile(line, "typed", "exec"), names)
    assert str(caught.value).startswith(SAYS[line])
    assert isinstance(caught.value, TensorError) or "unsupported operand" in SAYS[line]
    assert caught.value.__traceback__ is not None
    trace = caught.value.__traceback__.tb_next
    lines = "".join(traceback.format_exception(type(caught.value), caught.value, trace))
    assert len(lines.splitlines()) <= 8, lines
    assert lines.count('  File "') <= 2


def test_a_fault_in_an_op_keeps_its_traceback() -> None:
    @tensor.ops.op.elementwise_op
    def broken(x: tensor.memory.devices.Array) -> Any:
        return x.nothing, None

    try:
        with pytest.raises(AttributeError, match="nothing") as caught:
            broken(tensor.ones(2))
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert frames[-1].filename == __file__
    finally:
        del tensor.ops.OPS["broken"]


def test_inputs_by_name() -> None:
    x, gain, bias = tensor.ones(2, 3), tensor.ones(3), tensor.zeros(3)
    assert tensor.matmul(x, b=x.T).tolist() == (x @ x.T).tolist()
    assert tensor.multiply(a=x, b=2.0).tolist() == (x * 2).tolist()
    assert tensor.sum(x=x, axis=0).tolist() == [2, 2, 2]
    assert tensor.layer_norm(x, bias=bias, gain=gain).tolist() == [[0, 0, 0]] * 2
    assert tensor.linear(x, x.T, bias=tensor.ones(2)).tolist() == [[4, 4]] * 2
    assert tensor.stack(x for x in (gain, bias)).tolist() == [[1, 1, 1], [0, 0, 0]]
    assert set(tensor.randint(3, (99,)).tolist()) == {0, 1, 2}


class Foreign:
    """Answers operators from either side, and looks like a sequence to NumPy."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> float:
        return [1.0, 2.0][i]

    def said(self, other: Any) -> str:
        return "foreign"

    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rpow__ = __rmatmul__ = said
    __rand__ = __ror__ = __rxor__ = __lt__ = __gt__ = said


def test_operators_of_foreign_classes_are_tried() -> None:
    x, other = tensor.ones(2), Foreign()
    for y in (x + other, x - other, x * other, x / other, x**other, x @ other, x & other):
        assert y == "foreign"
    assert (x < other, x > other, x | other, x ^ other) == ("foreign",) * 4
    x += other
    assert x == "foreign"
    with pytest.raises(ArgumentError, match="takes b as"):
        tensor.add(tensor.ones(2), other)
    with pytest.raises(TypeError, match="unsupported operand"):
        tensor.ones(2) - {}  # type: ignore[operator]
    with pytest.raises(DTypeError, match="Python objects"):
        tensor.ones(2) * Fraction(1, 2)


def test_every_assignment_writes_rebinds_or_refuses() -> None:
    names = {"+": 3.0, "-": 3.0, "*": 3.0, "/": 3.0, "**": 3.0, "@": [[1.0, 2.0], [3.0, 4.0]]}
    bits = {"&": 1, "|": 1, "^": 1}
    for sign, value in {**names, **bits}.items():
        start = Tensor([[1, 2], [3, 5]], dtype="int64" if sign in bits else "float32")
        expected = eval(f"start {sign} value", {"start": start, "value": value})
        x, alias = start.clone(), None
        alias = x[:]
        exec(f"x {sign}= value", names := {"x": x, "value": value})
        assert names["x"] is x
        assert x.tolist() == alias.tolist() == expected.tolist()
        if sign in bits:
            continue
        leaf = Tensor(start, requires_grad=True)
        with pytest.raises(MutationError, match="no_grad"):
            exec(f"x {sign}= value", {"x": leaf, "value": value})
        result = leaf * 1
        exec(f"x {sign}= value", names := {"x": result, "value": value})
        assert names["x"] is not result
        assert result.tolist() == start.tolist()
        assert names["x"].requires_grad
        assert names["x"].tolist() == expected.tolist()
    n = Tensor([1, 2])
    with pytest.raises(
        DTypeError, match=r"float32 cannot be written into int64.*x.divide\(value\)"
    ):
        n /= 2
    assert (+n).tolist() == [1, 2]


# an op as it is typed into a console: annotations are objects, and there is no file
TYPED = """
from tensor.memory.devices import Array
from tensor.ops.op import Ids, Mask, compute_op, elementwise_op

@elementwise_op
def cube(x: Array):
    return x**3, (lambda dy: 3 * x * x * dy,)

@compute_op
def picked(x: Array, ids: Ids, bias: Array | None = None, scale: float = 1.0):
    def dx(dy):
        out = x * 0
        out[ids] = dy * scale
        return out
    return x[ids] * scale + (0 if bias is None else bias), (dx, None, lambda dy: dy)

@elementwise_op
def kept(x: Array, mask: Mask):
    return x * mask, (lambda dy: dy * mask, None)
"""


@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_an_op_typed_into_a_console(future: str) -> None:
    typed: dict[str, Any] = {}
    exec(compile(future + TYPED, "<stdin>", "exec", dont_inherit=True), typed)
    try:
        x = tensor.randn(4, dtype="float64", requires_grad=True)
        bias = tensor.randn(2, dtype="float64", requires_grad=True)
        gradcheck(typed["cube"], x)
        gradcheck(lambda x, b: typed["picked"](x, Tensor([0, 2]), b, scale=3.0), [x, bias])
        assert typed["kept"](x, [True, False, True, False]).dtype == tensor.float64
        with pytest.raises(ArgumentError, match="`picked` takes scale as a number, not 'a'"):
            typed["picked"](x, [0, 2], scale="a")
        with pytest.raises(ArgumentError, match=r"takes bias as a tensor, .* or None, not 'a'"):
            typed["picked"](x, [0, 2], "a")
    finally:
        for name in ("cube", "picked", "kept"):
            del tensor.ops.OPS[name]


def test_an_assigned_gradient_is_a_tensor() -> None:
    leaf = tensor.ones(2, requires_grad=True)
    leaf.grad = tensor.ones(2) * 3
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [3, 3]
    with pytest.raises(GraphError, match="or None, not"):
        leaf.grad = [1.0, 2.0]
