"""Bugs of modules, files of tensors, losses and optimisers in the first hour."""

from __future__ import annotations

from tests.zoo.bug import Bug

MODULES = "tests/tensor/nn/test_modules.py::"
FILES = "tests/tensor/test_files.py::"

ZOO = [
    Bug(  # a state of another shape is broadcast
        row=97,
        file="tensor/nn/state.py",
        old="if name in state and np.shape(state[name]) != np.shape(value)",
        new="if False",
        test=MODULES + "test_state_that_does_not_fit_writes_nothing",
    ),
    Bug(  # what no parameter has is passed over
        row=97,
        file="tensor/nn/state.py",
        old="[str(name) for name in state if name not in own]",
        new="[]",
        test=MODULES + "test_state_that_does_not_fit_writes_nothing",
    ),
    Bug(  # a tied parameter counts twice
        row=97,
        file="tensor/nn/tree.py",
        old="total += 0 if met_before else child.size",
        new="total += child.size",
        test=MODULES + "test_print_shows_the_tree",
    ),
    Bug(  # a view is written in the order of its storage
        row=97,
        file="tensor/files.py",
        old="np.ascontiguousarray(to_host(array)).reshape(-1)",
        new='to_host(array).reshape(-1, order="A")',
        test=FILES + "test_every_dtype_and_view_comes_back",
    ),
    Bug(  # the old file is gone before the new one is whole
        row=97,
        file="tensor/files.py",
        old="    temporary.unlink(missing_ok=True)  # may be a link\n",
        new="    temporary.unlink(missing_ok=True)\n    target.unlink(missing_ok=True)\n",
        test=FILES + "test_a_write_that_fails_leaves_the_old_file",
    ),
]
