"""Bugs of views, layouts, indices and dtypes."""

from __future__ import annotations

from tests.zoo.bug import Bug

VIEWS, GRADIENTS = "tests/tensor/ops/test_views.py::", "tests/tensor/ops/test_view_gradients.py::"
LAYOUT, INDEXING, DTYPES = (
    "tests/tensor/memory/test_layout.py::",
    "tests/tensor/ops/test_indexing.py::",
    "tests/tensor/test_dtypes.py::",
)

ZOO = [
    Bug(  # a stretched axis is cut to size 1, not summed
        row=15,
        file="tensor/autograd/broadcast.py",
        old="return accumulate(dy, stretched, True) if stretched else dy",
        new=(
            "return dy[tuple(slice(0, 1) if axis in stretched else slice(None) for axis in "
            "range(dy.ndim))]"
        ),
        test=GRADIENTS + "test_bug_15_gradients_of_broadcasts_are_summed_over_every_repeat",
    ),
    Bug(  # of new axes in front, the first repeat is taken for all
        row=15,
        file="tensor/autograd/broadcast.py",
        old="dy = accumulate(dy, tuple(range(new)), False)",
        new=(
            "dy = dy[(slice(0, 1),) * new].reshape(dy.shape[new:]) if dy.size else "
            "accumulate(dy, tuple(range(new)), False)"
        ),
        test=GRADIENTS + "test_bug_15_gradients_of_broadcasts_are_summed_over_every_repeat",
    ),
    Bug(  # an axis of 1 that was stretched to 0 is left empty
        row=15,
        file="tensor/autograd/broadcast.py",
        old="if n == 1 and dy.shape[axis] != 1)",
        new="if n == 1 and dy.shape[axis] > 1)",
        test=GRADIENTS + "test_bug_15_gradients_of_broadcasts_are_summed_over_every_repeat",
    ),
    Bug(  # every axis of size 1 is taken for a stretched one
        row=16,
        file="tensor/autograd/forward.py",
        old="if parent is not None and parent.shape != shape:",
        new="if parent is not None and (parent.shape != shape or 1 in shape):",
        test=GRADIENTS + "test_bug_16_equal_shapes_are_not_summed",
    ),
    Bug(  # the permutation where its inverse belongs
        row=17,
        file="tensor/ops/views.py",
        old="dy.transpose(np.argsort(axes).tolist())",
        new="dy.transpose(axes)",
        test=GRADIENTS + "test_bug_17_permutations_come_back_inverted",
    ),
    Bug(  # an axis from the end loses its sign
        row=17,
        file="tensor/ops/views.py",
        old="dy.swapaxes(i, j)",
        new="dy.swapaxes(i, abs(j))",
        test=GRADIENTS + "test_bug_17_an_axis_counted_from_the_end_is_that_axis",
    ),
    Bug(  # memory read in the order it lies in
        row=18,
        file="tensor/ops/matmul.py",
        old="left = a[None, :] if a.ndim == 1 else a ",
        new='left = a[None, :] if a.ndim == 1 else a.ravel(order="K").reshape(a.shape) ',
        test=GRADIENTS + "test_bug_18_the_way_through_memory_changes_nothing",
    ),
    Bug(  # the same, of an upstream gradient
        row=18,
        file="tensor/ops/indexing.py",
        old="rows = dy.reshape(ids.size, shape[1])",
        new='rows = dy.ravel(order="K").reshape(ids.size, shape[1])',
        test=GRADIENTS + "test_bug_18_the_way_through_memory_changes_nothing",
    ),
    Bug(  # .view copies where it cannot view, and says nothing
        row=19,
        file="tensor/tensor.py",
        old="view = ops.view\n",
        new="view = ops.reshape\n",
        test=VIEWS + "test_bug_19_views_of_repeated_and_reversed_memory",
    ),
    Bug(  # repeats and reversals are refused, although strides express them
        row=19,
        file="tensor/memory/layout.py",
        old="if runs and self.strides[axis] == runs[-1][1] * runs[-1][2]:",
        new=(
            "if runs and self.strides[axis] > 0 and self.strides[axis] == runs[-1][1] * "
            "runs[-1][2]:"
        ),
        test=VIEWS + "test_bug_19_views_of_repeated_and_reversed_memory",
    ),
    Bug(  # a new axis may reach across two runs of memory
        row=19,
        file="tensor/memory/layout.py",
        old="if filled != size:",
        new="if filled < size:",
        test=VIEWS + "test_bug_19_views_of_repeated_and_reversed_memory",
    ),
    Bug(  # the stride of an axis that never moves is looked at
        row=20,
        file="tensor/memory/layout.py",
        old=(
            "            if self.shape[axis] != 1:\n"
            "                if self.strides[axis] != expected:"
        ),
        new="            if True:\n                if self.strides[axis] != expected:",
        test=LAYOUT + "test_bug_20_strides_of_size_1_and_size_0_axes_do_not_matter",
    ),
    Bug(  # an empty tensor has to have the strides of a full one
        row=20,
        file="tensor/memory/layout.py",
        old="return self.size == 0 or self.first_gap() is None",
        new="return self.first_gap() is None",
        test=LAYOUT + "test_bug_20_strides_of_size_1_and_size_0_axes_do_not_matter",
    ),
    Bug(  # of an index that occurs twice, the last gradient wins
        row=27,
        file="tensor/ops/indexing.py",
        old="    add_at(dx, key, dy)\n",
        new="    dx[key] += dy\n",
        test=INDEXING + "test_bug_27_integer_arrays_add_up_repeats",
    ),
    Bug(  # what a slice left out keeps whatever the memory held
        row=27,
        file="tensor/ops/views.py",
        old="        dx = zeros_like(dy, shape)\n        dx[key] = dy",
        new="        dx = zeros_like(dy, shape) + 1\n        dx[key] = dy",
        test=INDEXING + "test_bug_27_basic_indices",
    ),
    # a Python int becomes an int64 tensor, which promotes int8
    Bug(
        row=28,
        file="tensor/ops/inputs.py",
        old="REALS = frozenset((bool, int, float, Count))",
        new="REALS = frozenset((bool, float, Count))",
        test=DTYPES + "test_bug_28_a_scalar_keeps_its_value",
    ),
    Bug(  # the same
        row=28,
        file="tensor/ops/inputs.py",
        old="REALS = frozenset((bool, int, float, Count))",
        new="REALS = frozenset((bool, float, Count))",
        test=DTYPES + "test_bug_28_a_python_scalar_never_promotes",
    ),
    Bug(  # a 0-d tensor counts as little as a scalar, as it did before NumPy 2
        row=28,
        file="tensor/ops/inputs.py",
        old="promote(*dtypes)",
        new="promote(*([x.dtype for x in tensors if x.ndim] or dtypes))",
        test=DTYPES + "test_bug_28_two_dtypes_meet_as_in_numpy",
    ),
    Bug(  # bfloat16 and float16 meet in one of the two
        row=28,
        file="tensor/dtypes.py",
        old="    if float16 in dtypes:",
        new="    if False:",
        test=DTYPES + "test_bug_28_bfloat16_meets",
    ),
    Bug(  # two Python floats make float64
        row=28,
        file="tensor/ops/op.py",
        old="if not FLOATS & met:",
        new="if None not in met and not FLOATS & met:",
        test=DTYPES + "test_bug_28_where_of_two_scalars",
    ),
    Bug(  # a float64 constant leaks into float32
        row=28,
        file="tensor/ops/attention.py",
        old="scale = 1 / math.sqrt(q.shape[-1])",
        new="scale = 1 / np.sqrt(q.shape[-1])",
        test=DTYPES + "test_bug_28_no_op_leaves_its_dtype",
    ),
    Bug(  # the integer part of a quotient
        row=30,
        file="tensor/ops/elementwise.py",
        old="return a / b, (lambda",
        new=(
            'whole = all(getattr(x, "dtype", np.dtype(int)).kind in "iu" for x in (a, b))\n'
            "    return (a // b if whole else a / b), (lambda"
        ),
        test=DTYPES + "test_bug_30_means_and_quotients_of_integers",
    ),
    Bug(  # the mean of integers is one
        row=30,
        file="tensor/ops/reductions.py",
        old="return total(x, axes, keepdims, count), (dx,)",
        new="return total(x, axes, keepdims, count).astype(x.dtype), (dx,)",
        test=DTYPES + "test_bug_30_means_and_quotients_of_integers",
    ),
    Bug(
        row=3,  # a copy has an array and a storage that are two memories
        file="tensor/base.py",
        old='"_layout": self.layout, "_array": None}',
        new='"_layout": self.layout, "_array": self.array}',
        test="tests/tensor/test_copies.py::test_a_copy_has_one_memory",
    ),
    Bug(
        row=3,  # a copy of a result has a graph of its own
        file="tensor/base.py",
        old="        if not self.is_leaf:\n            raise GraphError(\n                f"
        + '"copy of',
        new="        if False:\n            raise GraphError(\n                f" + '"copy of',
        test="tests/tensor/test_copies.py::test_a_result_is_not_copied_without_its_graph",
    ),
]
