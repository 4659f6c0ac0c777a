"""The names that a program may use: source, which is run once and printed with a program."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tests.faults.programs.step import HERE, PLAIN, TORCH

BOTH = '''
from collections import defaultdict
import operator
import numpy as np

seen = defaultdict(list)  # the gradients that each hook saw


def numbers(seed, shape, kind):
    """Numbers that bfloat16 holds exactly."""
    rng = np.random.default_rng(seed)
    if kind == "ids":
        return rng.integers(0, 3, shape)
    if kind == "flags":
        return rng.random(shape) < 0.5
    if kind == "ties":
        return rng.integers(-2, 3, shape) * 1.0
    return np.asarray(rng.standard_normal(shape) * 16).round().clip(-63, 63) / 16
'''

SOURCES = {
    HERE: BOTH
    + '''
import tensor
from tensor import Tensor, checkpoint, grad, no_grad


def new(seed, shape, dtype, kind="normal", turned=False, leaf=False):
    """A tensor of those numbers; `turned`: its memory in column order."""
    array = np.array(numbers(seed, shape[::-1] if turned else shape, kind))
    array = array.astype(tensor.dtypes.as_dtype(dtype))
    return Tensor.from_array(array.T if turned else array, requires_grad=leaf)
''',
    TORCH: BOTH
    + '''
import torch
import torch.nn.functional as F
from torch import no_grad


def new(seed, shape, dtype, kind="normal", turned=False, leaf=False):
    """A tensor of those numbers; `turned`: its memory in column order."""
    array = np.array(numbers(seed, shape[::-1] if turned else shape, kind))
    made = torch.from_numpy(array).to(getattr(torch, dtype))
    made = made.permute(tuple(range(len(shape)))[::-1]) if turned else made
    made.requires_grad = leaf
    return made


def common(dtypes):
    """The dtype that NumPy gives to those together."""
    names = [str(dtype)[6:].replace("bfloat16", "float16") for dtype in dtypes]
    return getattr(torch, np.result_type(*names).name.replace("float16", "bfloat16"))


def met(*xs):
    """The operands in the dtype that NumPy gives them: 0-d tensors count like others, and int64
    beside float32 gives float64.
    """
    dtypes = {x.dtype for x in xs if isinstance(x, torch.Tensor)}
    if len(dtypes) < 2:
        return xs
    dtype = common(dtypes)
    return [x.to(dtype) if isinstance(x, torch.Tensor) else x for x in xs]


def updated(x, operation, value):
    """x += value as it is here: a result, or a value with a graph, makes a new tensor."""
    carries = isinstance(value, torch.Tensor) and value.requires_grad and not x.requires_grad
    if torch.is_grad_enabled() and (carries or not x.is_leaf):
        return operation(*met(x, value))
    getattr(operator, "i" + operation.__name__)(memory(x), clone(value))
    return x


def unrecorded(views, x):
    """Views made under no_grad(): PyTorch takes those of a leaf for leaves."""
    if isinstance(views, tuple):
        return tuple(view.detach() for view in views)
    return views if views is x or views is None else views.detach()


def memory(x):
    """The memory of x, for a write of which the graph knows nothing."""
    if x.requires_grad and x.is_leaf and torch.is_grad_enabled():
        raise RuntimeError("a leaf is written outside no_grad()")
    return x.data


def clone(x):
    """A value to write, or a gradient to start from. PyTorch refuses a value that overlaps with
    what is written, and takes the gradient itself as a `.grad`, to which it adds.
    """
    return x.detach().clone() if isinstance(x, torch.Tensor) else x


def grad(outputs, inputs, gradient=None, retain_graph=False):
    found = torch.autograd.grad(
        outputs, inputs, clone(gradient), retain_graph=retain_graph, allow_unused=True
    )
    return tuple(None if g is None else g.detach().clone() for g in found)


def checkpoint(function, *inputs):
    """The same values and gradients: only memory is saved by running it again."""
    return function(*inputs)


def in_float32(function, x):
    """Of bfloat16 in float32: PyTorch rounds a sum of exponentials to bfloat16 before it takes the
    logarithm, so the logarithm of 1.002 is 0.
    """
    return function(x.float()).bfloat16() if x.dtype == torch.bfloat16 else function(x)


def erf(x):
    """In float64: PyTorch's float32 loses the digits of small results."""
    return x.double().erf().to(x.dtype)


def gelu(x, form="tanh"):
    """In float64, without the cancellation of 1 + tanh, or 1 + erf, far below 0."""
    if not x.is_floating_point():
        raise TypeError(f"gelu of {x.dtype}")
    z = x.double()
    if form == "erf":
        return (z * torch.erfc(z * -(0.5**0.5)) / 2).to(x.dtype)
    return (z * torch.sigmoid(2 * (2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3))).to(x.dtype)


def attention(q, k, v, causal):
    """The query t sees the keys up to t + S - T; one that sees nothing gives 0."""
    if not q.is_floating_point():
        raise TypeError("attention of integers")
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if causal:
        T, S = scores.shape[-2:]
        hidden = torch.arange(S) > torch.arange(T)[:, None] + (S - T)
        scores = scores.masked_fill(hidden, -torch.inf)
        return scores.softmax(-1).masked_fill(hidden, 0) @ v
    return scores.softmax(-1) @ v


def multi_head_attention(rows, heads, causal):
    if rows[0].ndim != 3 or len({part.shape[-1] for part in rows}) > 1:
        raise ValueError(f"multi_head_attention of {[part.shape for part in rows]}")
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in rows)
    return attention(q, k, v, causal).transpose(1, 2).flatten(2)


def residual_layer_norm(x, y, gain, bias):
    s = x + y
    return s, F.layer_norm(s, s.shape[-1:], gain, bias)


def pad(x, width, value):
    """NumPy's pairs, one for each axis."""
    return F.pad(x, [n for pair in width[::-1] for n in pair], value=value)


def cross_entropy(x, targets, ignore_index, label_smoothing, reduction):
    if targets.shape != x.shape[:-1]:
        raise ValueError(f"cross_entropy of {x.shape} and {targets.shape}")
    loss = in_float32(
        lambda rows: F.cross_entropy(
            rows, targets.reshape(-1), ignore_index=ignore_index,
            label_smoothing=label_smoothing, reduction=reduction,
        ),
        x.reshape(-1, x.shape[-1]),
    )
    return loss.reshape(targets.shape) if reduction == "none" else loss


def binary_cross_entropy_with_logits(x, y, reduction):
    """y ln(1 + e^-x) + (1 - y) ln(1 + e^x), in float64: PyTorch subtracts ln(1 / (1 + e^-x)) from
    (1 - y) x, and loses the digits of small results.
    """
    if x.shape != y.shape or not x.is_floating_point():
        raise ValueError(f"binary_cross_entropy_with_logits of {x.dtype}, {x.shape}, {y.shape}")
    z, p, zero = x.double(), y.double(), torch.zeros((), dtype=torch.float64)
    losses = p * torch.logaddexp(zero, -z) + (1 - p) * torch.logaddexp(zero, z)
    return {"none": losses, "sum": losses.sum(), "mean": losses.mean()}[reduction].to(x.dtype)
''',
}

# PyTorch with its own check of writes, and ops that keep their inputs, not copies in float64
SOURCES[PLAIN] = (
    SOURCES[TORCH]
    + """

def memory(x):
    return x


def gelu(x, form="tanh"):
    return F.gelu(x, approximate="none" if form == "erf" else form)


def erf(x):
    return x.erf()


def in_float32(function, x):
    return function(x)


binary_cross_entropy_with_logits = F.binary_cross_entropy_with_logits


some_of_the_pass = grad


def grad(outputs, inputs, gradient=None, retain_graph=False):
    found = some_of_the_pass(outputs, inputs, gradient, retain_graph=True)
    # a view whose base was written has a new place in the graph, to which not all ways lead:
    # PyTorch checks nothing of what lies on the others, so the whole pass is asked
    if any(x._is_view() and x._version for x in inputs):
        outputs.backward(clone(gradient), retain_graph=retain_graph)
    return found
"""
)


def made(library: str) -> dict[str, Any]:
    """A fresh namespace."""
    if library not in _made:
        _made[library] = {}
        exec(SOURCES[library], _made[library])
    return {**_made[library], "seen": defaultdict(list)}


_made: dict[str, dict[str, Any]] = {}
