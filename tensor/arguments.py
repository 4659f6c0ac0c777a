"""Arguments that do not fit a function: what was given, and what to write in its place.

A call costs nothing here as long as it succeeds. When it fails, `mistake` compares its arguments
with the signature: names, number, and kinds as the annotations say.
"""

from __future__ import annotations

import inspect
import operator
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from numbers import Number, Real
from typing import Any

_AS_TEXT: dict[str, Any] = {}
if sys.version_info >= (3, 14):  # annotations as text: their names need not exist yet
    from annotationlib import Format

    _AS_TEXT["annotation_format"] = Format.STRING

# Arguments of PyTorch and NumPy, each with the arguments here that may mean the same.
_NAMES = """
    axis: dim dims axes
    order: dims axes
    i: dim0 axis1 axis0
    j: dim1 axis2
    start: start_dim
    end: end_dim
    keepdims: keepdim
    correction: unbiased ddof
    x: input self a tensor
    a: input self x1 input1 x
    b: other x2 input2 exponent mat2 y
    logits: input
    p: input prob
    prediction: input
    targets: target labels
    target: targets labels
    tensors: arrays seq tup
    shape: size sizes newshape
    size: split_size split_size_or_sections indices_or_sections
    n: chunks sections
    low: min a_min
    high: max a_max
    indices: index
    ids: input
    count: num_classes num_embeddings
    value: fill_value constant_values
    slope: negative_slope
    limit: max_norm
    width: pad pad_width embedding_dim normalized_shape
    diagonal: k
    rows: n N
    columns: m M
    stop: end
    form: approximate
    q: query
    k: key
    v: value
    mask: attn_mask
    causal: is_causal
    dropout: dropout_p
    inputs: in_features
    outputs: out_features
    y: outputs
    gradient: grad_outputs grad_tensors
    data: object obj
    dtype: type
"""
# Arguments of PyTorch and NumPy that no argument here replaces.
_ADVICE = {
    "create_graph": "Second derivatives are not here yet",
    "allow_unused": "The gradient of an unused tensor is None",
    "out": "Write y[...] = the result, for a constant y",
    "dtype": "Write .to(dtype) after the call",
    "where": "Write tensor.where(mask, x, 0) as the first argument",
    "initial": "Combine the result with the initial value after the call",
    "inplace": "The result is always a new tensor",
    "size_average": "Write reduction='mean'",
    "mode": "Padding with one value is the only kind here",
    "padding_idx": "Write zeros into that row, under no_grad()",
    "memory_format": "Write x.permute(...).contiguous()",
    "copy": "Write .clone() for a copy",
    "set_to_none": "A gradient that is forgotten is None",
    "closure": "Call the closure before: loss = closure()",
    "amsgrad": "This variant of Adam is not here",
    "maximize": "Write (-loss).backward() to climb",
    "foreach": "Parameters are packed, and are updated together",
    "fused": "The kernel is chosen where there is one; see tensor.kernels.explain()",
    "norm_type": "The norm is the root of the sum of squares",
    "strict": "Write {**model.state_dict(), **state} for a state in which names are missing",
    "prefix": "Write {prefix + name: x for name, x in model.state_dict().items()}",
    "recurse": "Write vars(model) for the attributes of one module",
    "keep_vars": "Write dict(model.named_parameters()) for the parameters themselves",
    "training": "Write nn.Dropout(p)(x), which knows whether the model is in training",
}
# A function, if what is typed elsewhere means something else here.
_HINTS = {
    "transpose": "x.T reverses all axes, x.permute(1, 0, 2) orders them",
    "gather": "The indices come first",
    "dropout": "nn.Dropout(p)(x) draws a key by itself",
    "where": "np.nonzero(mask.numpy()) gives the places of one mask",
    "view": "x.to(dtype) changes the dtype",
    "randint": "The shape is a tuple",
    "save": "The path comes first: tensor.save('FILE.safetensors', {'name': x})",
}


def is_operand(value: Any) -> bool:
    """Whether a tensor can be made of a value: numbers, lists, arrays. An array class that wants
    its own operators says so with `__array_ufunc__ = None`.
    """
    return isinstance(value, (Number, list, tuple, range)) or (
        hasattr(value, "__array__") and getattr(value, "__array_ufunc__", 0) is not None
    )


def is_foreign(value: Any) -> bool:
    """Whether a value is of a class whose own operators should be tried. Text is not: `"ab" * 2`
    repeats, and a tensor is no count.
    """
    return not is_operand(value) and not isinstance(value, (str, bytes))


def _is_index(value: Any) -> bool:
    try:
        operator.index(value)
    except Exception:
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) or getattr(value, "shape", None) == ()


def _are_indices(value: Any) -> bool:
    return _is_index(value) or (isinstance(value, Sequence) and all(map(_is_index, value)))


# An annotation -> (what it asks for, whether a value is such).
_TENSOR = "a tensor, an array, a list or a number", is_operand
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "Array": _TENSOR,
    "Mask": _TENSOR,
    "Ids": _TENSOR,
    "TensorBase": _TENSOR,
    "int": ("an integer", _is_index),
    "float": ("a number", _is_number),
    "bool": ("True or False", lambda value: _is_number(value) or hasattr(value, "__bool__")),
    "str": ("text", lambda value: isinstance(value, str)),
    "str | PathLike[str]": ("a path", lambda value: isinstance(value, (str, os.PathLike))),
    "Axis": ("an integer, a tuple of integers or None", lambda x: x is None or _are_indices(x)),
    "Sizes": ("an integer or a tuple of integers", _are_indices),
    "Sequence[Any]": (
        "a list of tensors",
        lambda value: hasattr(value, "__len__") and all(map(is_operand, value)),
    ),
}


def signature_of(function: Any) -> inspect.Signature:
    """The parameters of a function."""
    return inspect.signature(function, **_AS_TEXT)


def kind_of(parameter: inspect.Parameter) -> str:
    """The annotation of a parameter as text, without modules: "Array", "int", "Array | None".

    Annotations are text or, without `from __future__ import annotations`, objects. An alias says
    its name: Annotated[Any, "Array"].
    """
    annotation = parameter.annotation
    if isinstance(annotation, str) and "." not in annotation:
        return annotation
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"(\w+\.)+", "", text)
    text = re.sub(r"Annotated\[Any, '(\w+)'\]", r"\1", text)
    return re.sub(r"Optional\[(\w+)\]", r"\1 | None", text)


def mistake(function: Any, inputs: Sequence[Any], options: Mapping[str, Any]) -> str | None:
    """What is wrong with the arguments of a call, and how the call looks here. None if the
    arguments fit the signature.
    """
    signature = signature_of(function)
    name = function.__qualname__.removesuffix(".__init__").rpartition(".")[2].strip("_")
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "itemsize")]
    bare = [p.replace(annotation=p.empty) for p in parameters]
    call = f"{name}{signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)}"
    call += f". {_HINTS[name]}" if name in _HINTS else ""
    try:
        given = signature.bind(*inputs, **options).arguments
    except TypeError as error:
        return f"{_unknown_name(name, parameters, options) or f'`{name}`: {error}'}. Here: {call}"
    for parameter in parameters:
        words = parameter.name in given and _unlike(parameter, given[parameter.name])
        if words:
            return f"`{name}` takes {parameter.name} as {words}. Here: {call}"
    return None


def _unknown_name(
    name: str, parameters: Sequence[inspect.Parameter], options: Mapping[str, Any]
) -> str | None:
    """The first argument whose name is not among the parameters, and the name here."""
    here = [p.name for p in parameters]
    for option in options:
        if option not in here:
            found = [word for word in here if option in _THERE.get(word, ())]
            advice = f"Write {found[0]}=" if found else _ADVICE.get(option, "")
            return f"`{name}` has no {option}=" + f". {advice}" * bool(advice)
    return None


def _unlike(parameter: inspect.Parameter, value: Any) -> str | None:
    """What a parameter asks for and what it was given, if the two differ."""
    kind = kind_of(parameter)
    words, fits = _KINDS.get(kind.removesuffix(" | None"), ("", lambda value: True))
    optional = kind.endswith(" | None")
    several = parameter.kind is parameter.VAR_POSITIONAL
    for part in value if several else (value,):
        if not fits(part) and not (optional and part is None):
            return f"{words}{' or None' * optional}, not {_in_short(part)}"
    return None


def _in_short(value: Any) -> str:
    """A value in a few words."""
    if hasattr(value, "shape"):
        return f"an array or tensor of shape {value.shape}"
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"


_LINES = (line.split(":") for line in _NAMES.strip().splitlines())
_THERE = {here.strip(): there.split() for here, there in _LINES}
