"""Bugs where NumPy's functions, losses and reductions meet tensors."""

from __future__ import annotations

from tests.zoo.bug import Bug

INTEROP = "tests/tensor/test_interop.py::"
BEHIND = INTEROP + "test_what_numpy_would_do_behind_the_graph_raises"
REFUSED = "tests/tensor/test_numpy_functions.py::test_what_numpy_refuses_is_refused"

ZOO = [
    Bug(  # np.put writes values of a graph into an array
        row=97,
        file="tensor/interop.py",
        old="kwargs, name, name in _WRITERS)",
        new="kwargs, name)",
        test=BEHIND,
    ),
    Bug(  # np.full_like(x, y) drops the gradient of y
        row=97,
        file="tensor/interop.py",
        old='(args[1:], kwargs.get("fill_value"))',
        new="()",
        test=BEHIND,
    ),
    Bug(  # 2 ** 64 of integers is 0
        row=97,
        file="tensor/numpy_functions.py",
        old='"exp2": lambda x: 2.0**x',
        new='"exp2": lambda x: 2**x',
        test=INTEROP + "test_ufuncs_with_fractions_give_floats_of_integers",
    ),
    Bug(  # np.inner of a number transposes
        row=97,
        file="tensor/numpy_functions.py",
        old="return dot(a, b.T if a.ndim else b)",
        new="return dot(a, b.T)",
        test="tests/tensor/test_numpy_functions.py::test_numpys_functions_of_several_arguments",
    ),
    Bug(  # a probability of NaN counts as 0
        row=97,
        file="tensor/ops/losses.py",
        old="possible = p != 0",
        new="possible = p > 0",
        test="tests/tensor/ops/test_loss_options.py::test_nan_among_probabilities_reaches_the"
        "_divergence",
    ),
    Bug(  # x.sum(0, 1) sums over axis 0 alone
        row=97,
        file="tensor/ops/reductions.py",
        old="    if keepdims is not True and keepdims is not False:\n",
        new="    if keepdims is None:\n",
        test="tests/tensor/ops/test_messages.py::test_a_second_axis_is_no_keepdims",
    ),
    Bug(  # a number of NumPy's class gives parts of unequal size
        row=97,
        file="tensor/numpy_shapes.py",
        old="if np.ndim(indices_or_sections) == 0 and",
        new="if isinstance(indices_or_sections, int) and",
        test=REFUSED,
    ),
    Bug(  # a mask is taken for a mask, though NumPy takes it for positions
        row=97,
        file="tensor/numpy_functions.py",
        old="if _tensor(indices).dtype == bool:",
        new="if False:",
        test=REFUSED,
    ),
    Bug(  # a number and a vector have a scalar product
        row=97,
        file="tensor/numpy_functions.py",
        old="if a.shape[-1:] != b.shape[-1:]:",
        new="if False:",
        test=REFUSED,
    ),
    Bug(  # the triangle of bools is one of integers
        row=97,
        file="tensor/numpy_functions.py",
        old="~_triangle(m, k), False)",
        new="~_triangle(m, k), 0)",
        test="tests/tensor/test_numpy_functions.py::test_triangles_keep_the_dtype",
    ),
    Bug(  # an axis of size 0 has one part, of size 0
        row=97,
        file="tensor/numpy_shapes.py",
        old="ops.split(x, [1] * length, axis)",
        new="ops.split(x, 1, axis)",
        test="tests/tensor/test_numpy_functions.py::test_numpys_functions_of_several_arguments",
    ),
]
