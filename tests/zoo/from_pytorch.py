"""Bugs that users of PyTorch would meet in modules, hooks and choices."""

from __future__ import annotations

from tests.zoo.bug import Bug

BUFFERS = "tests/tensor/nn/test_buffers.py::"
MODULE = "tensor/nn/module.py"

ZOO = [
    Bug(  # a file of the model lacks its running means
        row=97,
        file=MODULE,
        old="(*self.named_parameters(), *self.named_buffers())",
        new="self.named_parameters()",
        test=BUFFERS + "test_a_state_has_the_buffers",
    ),
    Bug(  # a buffer becomes a number, and leaves the state without a word
        row=97,
        file=MODULE,
        old="        if name in self._buffers:\n            _check_buffer(name, value)\n",
        new="",
        test=BUFFERS + "test_what_is_no_buffer_is_refused",
    ),
    Bug(  # a buffer takes the place of a method
        row=97,
        file=MODULE,
        old="taken = hasattr(self, name) and name not in self._buffers",
        new="taken = False",
        test=BUFFERS + "test_what_is_no_buffer_is_refused",
    ),
    Bug(  # the gradient of a maximum that is NaN is lost: NaN for every element
        row=97,
        file="tensor/ops/reductions.py",
        old="chosen = (x == y) | (x != x)",
        new="chosen = x == y",
        test="tests/tensor/ops/test_numerics.py::test_nan_takes_the_gradient_of_an_extreme",
    ),
    Bug(  # max(NaN, 1) is NaN, and sends its gradient nowhere
        row=97,
        file="tensor/ops/elementwise.py",
        old="~np.less(a, b)",
        new="np.greater(a, b)",
        test="tests/tensor/ops/test_numerics.py::test_nan_takes_the_gradient_of_a_choice",
    ),
    Bug(  # relu of NaN is NaN, and sends its gradient nowhere
        row=97,
        file="tensor/ops/activations.py",
        old="dy * ~(x <= 0)",
        new="dy * (x > 0)",
        test="tests/tensor/ops/test_numerics.py::test_nan_takes_the_gradient_of_a_choice",
    ),
]
