"""Bugs of copies, of processes, and of what belongs to a parameter."""

from __future__ import annotations

from tests.zoo.bug import Bug

COPIES = "tests/tensor/test_copies.py::"
PARAMETERS = "tests/tensor/nn/test_parameters.py::"
BASE, STORAGE = "tensor/base.py", "tensor/memory/storage.py"

ZOO = [
    Bug(  # in a new process a leaf is newer than its results, and its gradient comes too late
        row=97,
        file=BASE,
        old="        return Accumulator, (self.shape, self.dtype), (None, state)\n",
        new='        return object.__new__, (Accumulator,), (None, state | {"order": self.order, '
        '"shape": self.shape, "dtype": self.dtype})\n',
        test=COPIES + "test_another_process_goes_on_to_the_same_bits",
    ),
    Bug(  # an unpickled model computes without kernels
        row=97,
        file=STORAGE,
        old="storage = Storage(of_known_dtype(flat))",
        new="storage = Storage(flat)",
        test=COPIES + "test_a_pickled_model_computes_with_kernels",
    ),
    Bug(  # a copy has no hooks
        row=97,
        file=BASE,
        old='"hooks": self.hooks}',
        new='"hooks": None}',
        test=COPIES + "test_a_copy_goes_on_to_the_same_bits",
    ),
    Bug(  # a copy loses the attributes that a subclass adds
        row=97,
        file=BASE,
        old="return state[0], {**state[1], **memory}",
        new='return None, {**memory, "node": self.node}',
        test=COPIES + "test_a_copy_has_all_attributes",
    ),
    Bug(  # off and on again, and the hooks are gone
        row=97,
        file=BASE,
        old="self.leaf or Accumulator(",
        new="Accumulator(",
        test=PARAMETERS + "test_off_and_on_again_keeps_hooks_and_gradient",
    ),
    Bug(  # a frozen parameter that has a gradient moves
        row=97,
        file="tensor/nn/packing.py",
        old="return [slot for slot in learning if",
        new="return [slot for slot in self.slots if",
        test=PARAMETERS + "test_a_frozen_parameter_stands_still_whatever_its_gradient",
    ),
    Bug(  # to() drops the hooks
        row=97,
        file="tensor/nn/module.py",
        old="parameter.leaf.become(moved.dtype)",
        new="parameter.node = type(parameter.leaf)(moved.shape, moved.dtype)",
        test=PARAMETERS + "test_to_keeps_hooks_and_freezing",
    ),
    Bug(  # a plain tensor takes the place of a parameter, which learns no more
        row=97,
        file="tensor/nn/module.py",
        old="if lost and isinstance(",
        new="if False and isinstance(",
        test=PARAMETERS + "test_what_does_not_learn_takes_no_parameters_place",
    ),
    Bug(  # PyTorch writes to what a graph has kept, and nobody sees it
        row=97,
        file=BASE,
        old="        self.storage.give_out()\n",
        new="",
        test="tests/tensor/memory/test_mutation.py::test_a_write_through_dlpack_is_seen",
    ),
    Bug(
        row=97,
        file=STORAGE,
        old="if self.given is not None and self.given[0] > version:",
        new="if False:",
        test="tests/tensor/memory/test_mutation.py::test_a_write_through_dlpack_is_seen",
    ),
]
