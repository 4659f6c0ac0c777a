"""What turns a function on arrays into an operation on tensors.

    compute_op       (arrays, **options) -> (array, backward)        new memory
    copy_op          the same, where values only move
    elementwise_op   the same, after its inputs were brought to one dtype and one shape
    view_op          (layout, **options) -> (layout, backward)       the same memory, seen through another layout
    fused_op         (tensors, **options) -> tensors                 a composition of ops, which a kernel may do as one

The function itself stays what it was, at `.reference`: bare arrays in, result and backward out, to be called in a REPL or a test.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from types import CodeType
from typing import Any, Concatenate, ParamSpec, TypeAlias, cast

import numpy as np

import tensor.core as core
from tensor.devices import Array, as_array, device_of, is_cuda, move
from tensor.dtypes import FLOATS, NARROW, DType, float32, promote
from tensor.errors import DeviceError, DTypeError, GradientError, GraphError
from tensor.graph import Node, Output, behind, describe
from tensor.kernels import KERNELS, choose, passed_over
from tensor.layout import Layout, broadcast_shape
from tensor.mode import MODE
from tensor.results import UNSTUDIED, as_result
from tensor.storage import user_line, user_place

P = ParamSpec("P")
Mask: TypeAlias = Array  # inputs annotated so are no operands, neither promoted nor differentiated: the condition of a choice,
Ids: TypeAlias = Array  # and integers that point into an axis
OPS: dict[str, Callable[..., Any]] = {}  # every op by name; a test fails when one has no gradient case
FUSED: dict[CodeType, str] = {}  # the code of a fused op's composition -> its name
LOOK_FIRST: dict[str, Callable[..., None]] = {}  # op -> a check of its inputs as they are given, before any is moved to a GPU
_INPUTS = frozenset(("Array", "Array | None", "Mask", "Ids", "Tensor", "Tensor | None"))  # annotations of parameters that are inputs
_SCALARS = frozenset((bool, int, float))
_PLAIN = frozenset((int, float, bool, str, tuple, type(None)))  # options that are no arrays


def compute_op(reference: Callable[P, Any]) -> Callable[P, core.Tensor]:
    """Lift `reference(*arrays, **options) -> (y, backward)` to tensors. A kernel registered under its name may stand in for it."""
    return _lift(reference, elementwise=False)


def copy_op(reference: Callable[P, Any]) -> Callable[P, core.Tensor]:
    """A compute op that only moves values: float16 and bfloat16 pass through it as they are, without going by float32."""
    return _lift(reference, elementwise=False, exact=True)


def elementwise_op(reference: Callable[P, Any]) -> Callable[P, core.Tensor]:
    """A compute op on inputs of one dtype and one shape: others are cast and expanded first, and so are gradients on the way back.

    NumPy broadcasts by stride 0 itself, so no expanded array is built; the graph gets an `expand` node, whose backward sums.
    """
    return _lift(reference, elementwise=True)


def _lift(reference: Callable[P, Any], elementwise: bool, exact: bool = False) -> Callable[P, core.Tensor]:
    name = reference.__name__.lstrip("_")
    signature = _Signature(reference)
    kernels = KERNELS.setdefault(name, [])

    @functools.wraps(reference)
    def call(*inputs: Any, **options: Any) -> Any:
        if len(inputs) != signature.count:  # options given by position, as in x.sum(1); an optional tensor left out
            inputs, options = signature.completed(inputs, options)
        mode, narrow = MODE.get(), False
        start = perf_counter() if mode.tape is not None else 0.0
        parents: list[Any] = []
        arrays = _glance(inputs, options, elementwise, signature.some_operands, parents)
        if arrays is None:
            inputs = _prepare(name, inputs, options, elementwise, signature)
            arrays = [x.array if isinstance(x, core.Tensor) else x for x in inputs]
            parents = [x.node if isinstance(x, core.Tensor) else None for x in inputs]
            narrow = not exact and any(getattr(a, "dtype", None) in NARROW for a in arrays)

        function = reference if not kernels else choose(name, kernels, arrays, options, mode.kernels_off) or reference  # kernels: here only
        if narrow and function is reference:
            y, backward = _in_float32(function, arrays, options)
        else:
            try:
                result = function(*arrays, **options)
                if result is NotImplemented:
                    passed_over(name, f"{function.__name__} met values that it leaves to the reference", mode.kernels_off)
                    result = reference(*arrays, **options)
                y, backward = result
            except ValueError:
                if elementwise:
                    broadcast_shape(*(x.shape for x in inputs if isinstance(x, core.Tensor)))  # raises, naming the axis
                raise
        if mode.reads is not None:
            mode.reads(*inputs, *options.values())
        out = as_result(name, inputs, arrays, parents, y, backward, mode, elementwise)
        if mode.tape is not None:
            mode.tape.forward(name, inputs, arrays, options, out, start)
        if mode.anomaly:
            for part in out if type(out) is tuple else (out,):
                _check_finite(name, (*arrays, *options.values()), part)
        return out

    _register(name, call, reference)
    UNSTUDIED[name] = reference, signature.count
    return call


def fused_op(composition: Callable[P, Any]) -> Callable[P, Any]:
    """Lift a composition of ops, written on tensors, to an op of its own: one node, where a kernel does it whole.

    Where none can (`kernels.explain()` says why), the composition runs, node by node: it is the meaning of the op, and its oracle. A kernel
    that meets values it cannot treat returns NotImplemented, and the composition runs too.
    """
    name = composition.__name__
    signature = _Signature(composition)
    kernels = KERNELS.setdefault(name, [])

    @functools.wraps(composition)
    def call(*inputs: Any, **options: Any) -> Any:
        if len(inputs) != signature.count:
            inputs, options = signature.completed(inputs, options)
        mode = MODE.get()
        start = perf_counter() if mode.tape is not None else 0.0
        parents: list[Any] = []
        arrays = _glance(inputs, options, False, signature.some_operands, parents)
        function = choose(name, kernels, arrays, options, mode.kernels_off) if arrays is not None and not mode.anomaly else None
        result = NotImplemented if function is None else function(*arrays, **options)  # type: ignore[misc]
        if result is NotImplemented:
            if kernels and (function is not None or arrays is None or mode.anomaly):
                passed_over(name, _in_ops_because(function, inputs, options, mode.anomaly), mode.kernels_off)
            return composition(*inputs, **options)
        y, backward = result
        if mode.reads is not None:
            mode.reads(*inputs, *options.values())
        out = as_result(name, inputs, cast("list[Any]", arrays), parents, y, backward, mode, False)
        if mode.tape is not None:
            mode.tape.forward(name, inputs, arrays, options, out, start)
        return out

    _register(name, call, composition)
    FUSED[composition.__code__] = name
    return call


def _in_ops_because(function: Callable[..., Any] | None, inputs: Sequence[Any], options: dict[str, Any], anomaly: bool) -> str:
    """Why a fused op runs as its composition, where `choose` does not know."""
    if function is not None:
        return f"{function.__name__} met values that it leaves to the composition"
    if anomaly:
        return "detect_anomaly looks at every op of the composition"
    dtypes = {x.dtype: None for x in inputs if isinstance(x, core.Tensor)}
    if narrow := [dtype for dtype in dtypes if dtype in NARROW]:
        return f"dtype {narrow[0]}: each op of the composition goes by float32"
    if kept := [name for name, value in options.items() if type(value) not in _PLAIN]:
        return f"option {kept[0]} is a {type(options[kept[0]]).__name__}"
    return f"inputs of several dtypes or devices, or not all of them tensors ({', '.join(map(str, dtypes))})"


class _Signature:
    """What a rule's parameters say: those annotated Array, Mask or Ids are inputs and come first, the others are options."""

    def __init__(self, reference: Callable[..., Any]):
        self.name = reference.__name__.lstrip("_")
        parameters = list(inspect.signature(reference).parameters.values())
        arrays = [p for p in parameters if p.annotation in _INPUTS and p.kind is not p.KEYWORD_ONLY]
        if not arrays:
            raise TypeError(f"op `{self.name}` has no parameter annotated Array, Mask or Ids (as text: the file needs `from __future__ import annotations`)")
        endless = arrays[-1].kind is inspect.Parameter.VAR_POSITIONAL
        self.count = sys.maxsize if endless else len(arrays)
        self.needed = sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in arrays)
        self.options = [p.name for p in parameters if p not in arrays]
        self.operands = [p.annotation not in ("Mask", "Ids") for p in arrays]
        self.some_operands = None if all(self.operands) else self.operands

    def is_operand(self, position: int) -> bool:
        return self.operands[min(position, len(self.operands) - 1)]

    def completed(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments past the arrays put under the names of the options in order; None for optional arrays that were left out."""
        if len(inputs) < self.needed or len(inputs) > self.count + len(self.options):
            options_text = f" and the options {', '.join(self.options)}" if self.options else ""
            raise TypeError(f"`{self.name}` takes {self.needed} tensors{options_text}; got {len(inputs)} arguments")
        if self.count == sys.maxsize:
            return inputs, options
        given = dict(zip(self.options, inputs[self.count :], strict=False))
        return inputs[: self.count] + (None,) * (self.count - len(inputs)), {**given, **options}


def reference_of(name: str) -> Callable[..., Any]:
    """The function of an op as it is written: bare arrays in, result and backward out."""
    return OPS[name].reference  # type: ignore[attr-defined, no-any-return]


def _register(name: str, call: Callable[..., Any], reference: Callable[..., Any]) -> None:
    call.reference = reference  # type: ignore[attr-defined]
    OPS[name] = call


# -- inputs -----------------------------------------------------------------------------------------------------------


def _glance(inputs: Sequence[Any], options: dict[str, Any], elementwise: bool, ids: list[bool] | None, parents: list[Any]) -> list[Any] | None:
    """The arrays of inputs that are ready as they are: tensors of one dtype, not a 16-bit one, and one kind of array. Else None.

    Their nodes are appended to `parents`.
    """
    arrays: list[Any] = []
    first = None
    for x in inputs:
        if isinstance(x, core.Tensor):
            array = x._array
            if array is None:
                array = x.array
            if ids is not None and not ids[min(len(arrays), len(ids) - 1)]:  # a mask, or indices: of any dtype
                if type(array) is not np.ndarray:
                    return None
            elif first is None:
                first = array
                if array.dtype is not float32 and array.dtype in NARROW:
                    return None
            elif array.dtype is not first.dtype or type(array) is not type(first):
                return None
            arrays.append(array)
            parents.append(x.node)
        elif x is None or (elementwise and type(x) in _SCALARS):
            arrays.append(x)
            parents.append(None)
        else:
            return None
    if first is None:
        return None
    if options and ("dim" in options or "keepdim" in options or not all(type(value) in _PLAIN for value in options.values())):
        return None
    return arrays


def _prepare(name: str, inputs: Sequence[Any], options: dict[str, Any], elementwise: bool, signature: _Signature) -> tuple[Any, ...]:
    """Inputs as tensors (None, and scalars of elementwise ops, stay) on one device, operands of one dtype; tensor options as arrays."""
    if "dim" in options or "keepdim" in options:
        raise TypeError(f"`{name}` names it axis= (and keepdims=), as NumPy does, not dim=")
    device = _one_device(name, inputs)
    if device != "cpu" and name in LOOK_FIRST:
        LOOK_FIRST[name](*inputs, **options)
    tensors = [x if isinstance(x, core.Tensor) or x is None or (elementwise and type(x) in _SCALARS) else core.Tensor(x, device=device) for x in inputs]
    for key, value in options.items():
        if isinstance(value, core.Tensor):
            if value.node is not None and MODE.get().recording:
                raise GraphError(f"option {key!r} of `{name}` is a constant, and this tensor carries a graph: pass its .detach()")
            options[key] = value.array.copy()  # copies: a rule may keep them for backward, where later writes would change them
        elif isinstance(value, np.ndarray):
            options[key] = move(value.copy(), device)
    if tensors and not any(isinstance(x, core.Tensor) for x in tensors):
        tensors[0] = core.Tensor(tensors[0])
    operands = [i for i, x in enumerate(tensors) if isinstance(x, core.Tensor) and signature.is_operand(i)]
    if len({tensors[i].dtype for i in operands}) > 1:
        dtype = promote(*(tensors[i].dtype for i in operands))
        for i in operands:
            tensors[i] = tensors[i].to(dtype)
    return tuple(tensors)


def _one_device(name: str, inputs: Sequence[Any]) -> str:
    devices = list(dict.fromkeys(x.device for x in inputs if isinstance(x, core.Tensor)))
    devices += [d for d in dict.fromkeys(device_of(x) for x in inputs if is_cuda(x)) if d not in devices]
    if len(devices) > 1:
        raise DeviceError(f"`{name}` got tensors on {' and '.join(devices)}: move one with .to('{devices[0]}')")
    return devices[0] if devices else "cpu"


def _in_float32(function: Callable[..., Any], arrays: Sequence[Any], options: dict[str, Any]) -> tuple[Any, Any]:
    """Run a rule on float16 or bfloat16 arrays in float32 and round its results once; so too its gradients."""
    dtypes = [getattr(a, "dtype", None) for a in arrays]
    wide = [a.astype(float32) if dtype in NARROW else a for a, dtype in zip(arrays, dtypes, strict=True)]
    narrow = promote(*(dtype for dtype in dtypes if dtype is not None and dtype in FLOATS))
    y, backward = function(*wide, **options)

    def rounded(array: Any) -> Any:
        return array.astype(narrow) if array.dtype == float32 else array

    def restored(dx: Any, dtype: DType | None) -> Any:
        return None if dx is None else as_array(dx).astype(dtype or narrow)

    def widened(dy: Any) -> Any:
        return dy.astype(float32) if dy is not None and dy.dtype in NARROW else dy

    ys = tuple(rounded(as_array(part)) for part in y) if isinstance(y, tuple) else rounded(as_array(y))
    if backward is None:
        return ys, None

    def around(rule: Callable[[Array], Array] | None, dtype: DType | None) -> Callable[[Array], Array] | None:
        return None if rule is None else lambda dy: restored(rule(widened(dy)), dtype)

    if isinstance(backward, tuple):
        return ys, tuple(around(rule, dtype) for rule, dtype in zip(backward, dtypes, strict=True))
    return ys, lambda *dys: tuple(restored(dx, dtype) for dx, dtype in zip(backward(*map(widened, dys)), dtypes, strict=True))


def _check_finite(name: str, inputs: Sequence[Any], out: core.Tensor) -> None:
    """detect_anomaly: stop at a NaN, and at an infinity that no input or option held already (masks are made of -inf on purpose)."""
    y, node = out.array, out.node.parents[0] if type(out.node) is Output else out.node
    if y.dtype not in FLOATS or np.isfinite(y).all():
        return
    asked_for = any(np.isinf(a).any() for a in inputs if type(a) is float or getattr(a, "dtype", None) in FLOATS)
    if np.isnan(y).any() or not asked_for:
        shapes = ", ".join(str(getattr(a, "shape", a)) for a in inputs)
        what = describe(node) if node else f"`{name}` at {user_line(1)}, {y.shape} <- {shapes}"
        bad, given = int(y.size - np.isfinite(y).sum()), "; ".join(_span(a) for a in inputs if getattr(a, "dtype", None) in FLOATS and a.size)
        raise GradientError(
            f"{bad} of {y.size} values not finite from {what}\nit was given {given or 'no floats'}\n{behind(node) if node else 'nothing recorded behind it'}"
        )


def _span(x: Array) -> str:
    """From the least value to the largest, and how many are not finite: `(2, 3) from -1 to 0`."""
    finite = x[np.isfinite(x)]
    span = f" from {float(finite.min()):.4g} to {float(finite.max()):.4g}" if finite.size else ""
    return f"{x.shape}{span}" + (f", {x.size - finite.size} of {x.size} not finite" if finite.size < x.size else "")


# -- views ------------------------------------------------------------------------------------------------------------


def view_op(reference: Callable[Concatenate[Layout, P], Any]) -> Callable[Concatenate[Any, P], Any]:
    """Lift `reference(layout, **options) -> (layout or layouts, backward)`: no element is touched, the storage is shared.

    backward is a function of one gradient for each resulting layout, and returns the one gradient of the input.
    """
    name = reference.__name__.lstrip("_")
    wants_itemsize = "itemsize" in inspect.signature(reference).parameters  # for an error that says what a copy costs

    @functools.wraps(reference)
    def call(x: Any, *args: Any, **options: Any) -> Any:
        mode = MODE.get()
        start = perf_counter() if mode.tape is not None else 0.0
        x = core.Tensor.wrap(x)
        if wants_itemsize:
            options["itemsize"] = x.dtype.itemsize
        layouts, backward = reference(x.layout, *args, **options)
        recorded = x.node is not None and mode.recording
        if type(layouts) is tuple:
            outs = tuple(core.Tensor.over(x.storage, layout) for layout in layouts)
            if recorded and outs:
                node = Node(name, (x.node,), lambda *dys: (backward(*dys),), (), layouts[0].shape, x.dtype, user_place(1))
                node.outputs = len(outs)
                for index, out in enumerate(outs):
                    out.node = Output(node, index, out.shape, x.dtype)
            if mode.tape is not None:
                mode.tape.forward(name, (x,), args, options, outs, start, how="view")
            return outs
        out = core.Tensor.over(x.storage, layouts)
        if recorded:
            out.node = Node(name, (x.node,), (backward,), (), layouts.shape, x.dtype, user_place(1))
        if mode.tape is not None:
            mode.tape.forward(name, (x,), args, options, out, start, how="view")
        return out

    _register(name, call, reference)
    return cast("Callable[Concatenate[Any, P], Any]", call)


def check_float(name: str, x: Array) -> None:
    """Raise DTypeError unless x holds floats."""
    if x.dtype not in FLOATS:
        raise DTypeError(f"`{name}` needs floats, not {x.dtype}: use x.to('float32')")
