"""Arguments that were overlooked, and gradients that NumPy's functions dropped."""

from __future__ import annotations

from tests.zoo.bug import Bug

ARGUMENTS = "tests/tensor/test_arguments.py::"
FUNCTIONS = "tests/tensor/test_numpy_functions.py::"
SHORT = ARGUMENTS + "test_an_error_is_short_and_says_what_to_write"
WRITTEN = ARGUMENTS + "test_every_assignment_writes_rebinds_or_refuses"

ZOO = [
    Bug(  # a kernel takes an option of another name, and does not follow the option
        row=97,
        file="tensor/ops/inputs.py",
        old="        if not options.keys() <= set(self.options):\n",
        new="        if False:\n",
        test=SHORT,
    ),
    Bug(  # x[0] = None writes NaN, x[0] = "1.5" writes 1.5
        row=97,
        file="tensor/tensor.py",
        old="        if not is_operand(value):\n",
        new="        if False:\n",
        test=SHORT,
    ),
    Bug(  # a tensor of complex numbers
        row=97,
        file="tensor/base.py",
        old="if self.dtype not in KNOWN and as_dtype(self.dtype) != self.dtype:",
        new="if False:",
        test=SHORT,
    ),
    Bug(  # the option alpha= of a sum is overlooked
        row=97,
        file="tensor/ops/op.py",
        old="not (mode.observed or kernels or options)",
        new="not (mode.observed or kernels)",
        test=SHORT,
    ),
    Bug(  # np.linalg.svd drops the gradient, for its result is a tuple
        row=97,
        file="tensor/interop.py",
        old="        return all(map(_is_constant, result))\n",
        new="        return True\n",
        test=FUNCTIONS + "test_lists_and_complex_results_are_looked_at_too",
    ),
    Bug(  # np.fft.fft drops the gradient, for its result is complex
        row=97,
        file="tensor/interop.py",
        old='.kind in "iubUS"',
        new='.kind in "iubcUS"',
        test=FUNCTIONS + "test_lists_and_complex_results_are_looked_at_too",
    ),
    Bug(  # np.cumsum of a matrix goes along the last axis
        row=97,
        file="tensor/numpy_functions.py",
        old="    return ops.cumsum(ops.flatten(a), 0) if axis is None else ops.cumsum(a, axis)\n",
        new="    return ops.cumsum(a, -1 if axis is None else axis)\n",
        test=FUNCTIONS + "test_numpys_functions_of_several_arguments",
    ),
    Bug(  # h **= 2 writes into a result
        row=97,
        file="tensor/tensor.py",
        old="    __ipow__ = _in_place(np.power, __pow__)\n",
        new="    def __ipow__(self, v: Any) -> Any:\n        self.array[...] **= v\n"
        "        return self\n",
        test=WRITTEN,
    ),
    Bug(  # the operator of another class is never asked
        row=97,
        file="tensor/arguments.py",
        old="    return not is_operand(value) and not isinstance(value, (str, bytes))\n",
        new="    return False\n",
        test=ARGUMENTS + "test_operators_of_foreign_classes_are_tried",
    ),
]
