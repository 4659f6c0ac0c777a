"""Bugs that random programs beside PyTorch have found."""

from __future__ import annotations

from tests.zoo.bug import Bug

GRAD = "tests/tensor/autograd/test_grad.py::"

ZOO = [
    Bug(  # the kept gradient is the one before a later hook
        row=97,
        file="tensor/graph.py",
        old="        hooks[other] = hooks.pop(other)",
        new="        pass",
        test=GRAD + "test_a_kept_gradient_is_the_one_after_all_hooks",
    ),
    Bug(  # a result goes on adding to the gradient that it was to forget
        row=97,
        file="tensor/base.py",
        old="self.leaf or retainer(self.node)\n",
        new="self.leaf\n",
        test=GRAD + "test_any_tensor_may_forget_its_gradient",
    ),
    Bug(  # an update is half done when it is refused
        row=97,
        file="tensor/tensor.py",
        old="            and (value.storage, value.layout) == (self.storage, region)\n",
        new="            and False\n",
        test="tests/tensor/memory/test_writes.py::"
        "test_a_part_of_a_result_may_be_updated_under_no_grad",
    ),
    Bug(  # an axis that an empty tensor does not have is taken
        row=97,
        file="tensor/ops/softmax.py",
        old="        normalise_axis(axis, x.ndim)\n        return x.copy(), (lambda",
        new="        return x.copy(), (lambda",
        test="tests/tensor/ops/test_numerics.py::test_empty_reductions",
    ),
    Bug(  # a leaf that was frozen after the first run of a checkpoint gets no gradient
        row=97,
        file="tensor/autograd/recompute.py",
        old="set(parents) != set(node.parents)",
        new="not set(parents) <= set(node.parents)",
        test="tests/tensor/autograd/test_recompute_refused.py::"
        "test_a_leaf_that_leaves_the_graph_is_noticed",
    ),
    Bug(  # of a weight with three axes, matrices are taken
        row=97,
        file="tensor/ops/indexing.py",
        old="    if weight.ndim != 2:\n",
        new="    if False:\n",
        test="tests/tensor/ops/test_indexing.py::test_positions_out_of_range_raise",
    ),
    Bug(  # a graph from before goes on adding to the gradient of a frozen leaf
        row=97,
        file="tensor/base.py",
        old="        if self.frozen:\n",
        new="        if False:\n",
        test=GRAD + "test_a_leaf_that_was_frozen_after_forward_gets_nothing",
    ),
]
