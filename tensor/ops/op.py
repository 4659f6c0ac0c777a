"""What turns a function on arrays into an operation on tensors.

    compute_op       (arrays, **options) -> (array, backward)        new memory
    copy_op          the same, where values only move
    elementwise_op   the same, after its inputs were brought to one dtype and one shape
    view_op          (layout, **options) -> (layout, backward)       another layout of the same
    memory
    fused_op         (tensors, **options) -> tensors                 a composition of ops, which a
    kernel may do as one

The function stays as it was, at `.reference`: bare arrays in, result and backward out, to be called
in a REPL or a test. Between a user's line and that function lies one frame. The frame has the name
of the op and a short way for two ready tensors: in `pdb`, eight presses of `s` lead from `a * b`
into `multiply`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from time import perf_counter
from types import CodeType
from typing import Annotated, Any, Concatenate, ParamSpec, TypeAlias

from numpy import ndarray

from tensor.arguments import is_foreign, signature_of
from tensor.autograd.forward import as_result, as_results
from tensor.base import TensorBase
from tensor.dtypes import FLOATS, NARROW, float16, float32, float64
from tensor.errors import DTypeError
from tensor.graph import Node
from tensor.kept_inputs import note_kept_inputs
from tensor.kernels import choose, passed_over
from tensor.memory.devices import Array
from tensor.memory.layout import Layout
from tensor.memory.storage import user_place
from tensor.mode import MODE, Mode
from tensor.ops.anomaly import check_finite
from tensor.ops.inputs import REALS, Options, Signature, refusal
from tensor.ops.wider import in_float32

P = ParamSpec("P")
Function: TypeAlias = Callable[..., Any]
# Inputs annotated so are no operands, neither promoted nor differentiated.
Mask: TypeAlias = Annotated[Any, "Mask"]  # the condition of a choice
Ids: TypeAlias = Annotated[Any, "Ids"]  # integers that point into an axis
# every op by name; a test fails when one has no gradient case
OPS: dict[str, Function] = {}
READY = frozenset((float32, float64))  # of these an op takes the arrays as they are
FUSED: dict[CodeType, str] = {}  # the code of a fused op's composition -> its name


def compute_op(reference: Callable[P, Any]) -> Callable[P, Any]:
    """Lift `reference(*arrays, **options) -> (y, backward)` to tensors. A kernel registered under
    its name may run instead.
    """
    return _registered(_of_any(_Lifted(reference)), reference)


def copy_op(reference: Callable[P, Any]) -> Callable[P, Any]:
    """A compute op that only moves values: float16 and bfloat16 are not widened to float32."""
    return _registered(_of_any(_Lifted(reference, exact=True)), reference)


def elementwise_op(reference: Callable[P, Any]) -> Callable[P, Any]:
    """A compute op on inputs of one dtype and one shape. Other inputs are cast and expanded first,
    and their gradients are cast and summed back.

    NumPy broadcasts by stride 0 itself, so no expanded array is built; the graph gets an `expand`
    node, whose backward sums.
    """
    lifted = _Lifted(reference, elementwise=True)
    call = _registered(_of_any(lifted), reference)
    return _registered(_of_two(lifted, call), reference) if lifted.is_of_two else call


def operator_of(op: Function, elementwise: bool = True) -> Function:
    """An op as Python calls it for `a + b`. For an operand of a foreign class it returns
    NotImplemented, and Python tries the operator of that class.
    """
    lifted = _Lifted(op.reference, elementwise)  # type: ignore[attr-defined]
    general = _named(_of_any(lifted, operator=True), lifted.reference)
    return _named(_of_two(lifted, general, True), lifted.reference) if elementwise else general


def _of_two(lifted: _Lifted, general: Function, operator: bool = False) -> Function:
    """An elementwise op of two operands, without options. Ready ones (a float32 tensor and another,
    or a scalar) go the short way, others that of `general`.
    """
    name, reference, kernels = lifted.name, lifted.reference, lifted.kernels

    def call(a: Any, b: Any = None, **options: Any) -> Any:
        x: Any
        y: Any
        try:
            mode, x, y = MODE.get(), getattr(a, "_array", None), getattr(b, "_array", b)
            plain, kind = not (mode.observed or kernels or options), type(y)
            ready = plain and type(x) is ndarray and x.dtype in READY
            if ready and (y.dtype is x.dtype and y is not b if kind is ndarray else kind in REALS):
                value, backward = reference(x, y)
                parents = [a.node, getattr(b, "node", None)]
                return as_result(name, (a, b), (x, y), parents, value, backward, mode, True)
            return general(a, b, **options)
        except Exception as error:
            if operator and (is_foreign(a) or is_foreign(b)):
                return NotImplemented
            error = refusal(error, reference, (a, b), options, True)
            if error is None:
                raise
            raise error from None

    return call


def _of_any(lifted: _Lifted, operator: bool = False) -> Function:
    """Any op."""
    name, elementwise = lifted.name, lifted.elementwise

    def call(*inputs: Any, **options: Any) -> Any:
        try:
            mode = MODE.get()
            inputs, arrays, parents, options, function, start = lifted.prepared(
                inputs, options, mode
            )
            result = function(*arrays, **options)
            if result is NotImplemented:
                result = lifted.instead_of(function, mode)(*arrays, **options)
            y, backward = result
            out = as_result(name, inputs, arrays, parents, y, backward, mode, elementwise)
            if mode.observed:
                _tell(mode, name, inputs, arrays, options, out, start)
            return out
        except Exception as error:
            if operator and any(map(is_foreign, inputs)):
                return NotImplemented
            error = refusal(error, lifted.reference, inputs, options, elementwise)
            if error is None:
                raise
            raise error from None

    return call


class _Lifted(Signature):
    """A reference, and what a call of the op needs: ready inputs, widened 16-bit floats, a kernel
    or the reference.
    """

    def __init__(self, reference: Function, elementwise: bool = False, exact: bool = False):
        super().__init__(reference, elementwise, exact)
        self.reference = reference
        note_kept_inputs(reference, self.count)

    def prepared(self, inputs: tuple[Any, ...], options: Options, mode: Mode) -> tuple[Any, ...]:
        """(inputs, their arrays, their nodes, options, the function to call, the time now)."""
        start = mode.observed and perf_counter()
        function = self.reference
        # options by position, as in x.sum(1); an optional tensor left out
        if len(inputs) != self.count:
            inputs, options = self.completed(inputs, options)
        parents: list[Any] = []
        arrays: Any = self.glance(inputs, options, parents)
        ready, kernel = type(arrays) is not str, None
        if not ready:
            inputs = self.prepare(inputs, options)
            arrays = [getattr(x, "array", x) for x in inputs]
            parents = [getattr(x, "node", None) for x in inputs]
        if self.kernels:
            kernel = choose(self.name, self.kernels, arrays, options, mode.kernels_off)
        if kernel is not None:
            function = _told(kernel, parents, mode)
        elif not (ready and type(arrays[0]) is ndarray):
            function = self.widened(inputs)
        return inputs, arrays, parents, options, function, start

    def widened(self, inputs: Sequence[Any]) -> Function:
        """The reference; for 16-bit floats and for integers around it what widens them."""
        met = {getattr(x, "dtype", None) for x in self.operands(inputs)}
        if self.exact:
            return self.reference
        if NARROW & met:
            return functools.partial(in_float32, self.reference)
        if not FLOATS & met:
            return functools.partial(_of_integers, self.reference)
        return self.reference

    def instead_of(self, kernel: Function, mode: Mode) -> Function:
        """The reference, where a kernel refuses the values."""
        reason = f"{kernel.__name__} met values that it leaves to the reference"
        passed_over(self.name, reason, mode.kernels_off)
        return self.reference


def _told(kernel: Function, parents: Sequence[Any], mode: Mode) -> Function:
    """The kernel; one with the keyword `wanted` is told which inputs want a gradient."""
    options = kernel.__kwdefaults__
    if options is None or "wanted" not in options:
        return kernel
    wanted = [mode.recording and node is not None for node in parents]
    return functools.partial(kernel, wanted=wanted)


def _tell(
    mode: Mode,
    name: str,
    inputs: Any,
    arrays: Any,
    options: Options,
    out: Any,
    start: float,
) -> None:
    """Tell a checkpoint and a recording of an op that has run, and look for values that are not
    finite.
    """
    if mode.reads is not None:
        mode.reads(*inputs, *options.values())
    if mode.tape is not None:
        mode.tape.forward(name, inputs, arrays, options, out, start)
    if mode.anomaly:
        for part in out if type(out) is tuple else (out,):
            check_finite(name, (*arrays, *options.values()), part)


def fused_op(composition: Callable[P, Any]) -> Callable[P, Any]:
    """Lift a composition of ops, written on tensors, to an op of its own: one node, where a kernel
    does it whole. A kernel with several results returns a list of Steps, one for each. A kernel
    that makes gradients in advance has a keyword `wanted`: which inputs want one.

    Elsewhere (`kernels.explain()` says why) the composition runs, node by node: it is the meaning
    of the op, and its oracle. So too where a kernel returns NotImplemented, for values that it
    cannot treat.
    """
    signature = Signature(composition)
    name, kernels = signature.name, signature.kernels

    def call(*inputs: Any, **options: Any) -> Any:
        try:
            mode = MODE.get()
            start = mode.observed and perf_counter()
            if len(inputs) != signature.count:
                inputs, options = signature.completed(inputs, options)
            parents: list[Any] = []
            arrays: Any = signature.glance(inputs, options, parents)
            if type(arrays) is str:  # a kernel may take the same as tensors and plain numbers
                inputs, options, parents = *signature.plain(inputs, options), []
                arrays = signature.glance(inputs, options, parents)
            if mode.anomaly:
                reason = "detect_anomaly looks at every op of the composition"
            elif type(arrays) is str:
                reason = arrays
            else:
                kernel = choose(name, kernels, arrays, options, mode.kernels_off)
                if kernel is None:
                    return composition(*inputs, **options)
                result = _told(kernel, parents, mode)(*arrays, **options)
                if result is not NotImplemented:
                    out = _of_kernel(result, name, inputs, arrays, parents, mode)
                    if mode.observed:
                        _tell(mode, name, inputs, arrays, options, out, start)
                    return out
                reason = f"{kernel.__name__} met values that it leaves to the composition"
            passed_over(name, reason, mode.kernels_off)
            return composition(*inputs, **options)
        except Exception as error:
            error = refusal(error, composition, inputs, options)
            if error is None:
                raise
            raise error from None

    FUSED[composition.__code__] = name
    return _registered(call, composition)


def _of_kernel(
    result: Any, name: str, inputs: Any, arrays: Any, parents: list[Any], mode: Mode
) -> Any:
    """The tensors of what a fused op's kernel returned."""
    if type(result) is list:
        return as_results(result, inputs, arrays, mode)
    y, backward = result
    return as_result(name, inputs, arrays, parents, y, backward, mode, False)


def _of_integers(function: Function, *arrays: Any, **options: Any) -> tuple[Any, Any]:
    """Run a reference on integers. Floats that come of them are float32: NumPy would take float64,
    and float16 for the smallest integers.
    """
    y, backward = function(*arrays, **options)
    dtype = getattr(y, "dtype", None)
    if dtype == float16:
        wide = [x.astype(float32) if getattr(x, "ndim", None) is not None else x for x in arrays]
        return function(*wide, **options)
    return y.astype(float32) if dtype == float64 else y, backward


# -- views


def view_op(reference: Callable[Concatenate[Layout, P], Any]) -> Callable[Concatenate[Any, P], Any]:
    """Lift `reference(layout, **options) -> (layout or layouts, backward)`: no element is touched,
    the storage is shared.

    `backward` takes a gradient for each resulting layout and returns the gradient of the input.
    """
    name = reference.__name__
    # for an error that says what a copy costs
    wants_itemsize = "itemsize" in signature_of(reference).parameters

    def call(x: Any, *args: Any, **options: Any) -> Any:
        try:
            mode = MODE.get()
            start = mode.observed and perf_counter()
            x = TensorBase.wrap(x)
            if wants_itemsize:
                options["itemsize"] = x.dtype.itemsize
            layouts, backward = reference(x.layout, *args, **options)
            several = type(layouts) is tuple
            if several:
                out: Any = tuple([TensorBase.over(x.storage, layout) for layout in layouts])
            else:
                out = TensorBase.over(x.storage, layouts)
            if x.node is not None and mode.recording and layouts != ():
                shape = (out[0] if several else out).shape
                node = Node(name, (x.node,), (backward,), (), shape, x.dtype, user_place(1))
                if several:
                    node.give_outputs(out)
                else:
                    out.node = node
            if mode.tape is not None:
                mode.tape.forward(name, (x,), args, options, out, start, how="view")
            return out
        except Exception as error:
            error = refusal(error, reference, (x, *args), options)
            if error is None:
                raise
            raise error from None

    return _registered(call, reference)


def reference_of(name: str) -> Function:
    """The function of an op as it is written: bare arrays in, result and backward out."""
    return OPS[name].reference  # type: ignore[attr-defined]


def _registered(call: Function, reference: Function) -> Function:
    """`call` as the op of that reference, in OPS too."""
    op = _named(call, reference)
    OPS[reference.__name__.lstrip("_")] = op
    return op


def _named(call: Function, reference: Function) -> Function:
    """`call` with frames that are named after the op, in a traceback and in a debugger."""
    name = reference.__name__.lstrip("_")
    call.__code__ = call.__code__.replace(co_name=name, co_qualname=name)
    op = functools.update_wrapper(call, reference)
    op.reference = reference  # type: ignore[attr-defined]
    return op


def check_float(name: str, x: Array) -> None:
    """Raise DTypeError unless x holds floats."""
    if x.dtype not in FLOATS:
        raise DTypeError(f"`{name}` needs floats, not {x.dtype}: use x.to('float32')")
