"""Bugs of modules, files of tensors, losses and optimisers in the first hour."""

from __future__ import annotations

from tests.zoo.bug import Bug

MODULES = "tests/tensor/nn/test_modules.py::"
FILES = "tests/tensor/test_files.py::"
OPTIONS = "tests/tensor/ops/test_loss_options.py::"
MODES = "tests/tensor/autograd/test_modes.py::"
GROUPS = "tests/tensor/optim/test_groups.py::"

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
        old="        temporary.unlink(missing_ok=True)  # may be a link\n",
        new="        temporary.unlink(missing_ok=True)\n        target.unlink(missing_ok=True)\n",
        test=FILES + "test_a_write_that_fails_leaves_the_old_file",
    ),
    Bug(  # all groups take the numbers of the first
        row=97,
        file="tensor/optim/optimizer.py",
        old="packed += [(flat, i) for flat in pack(named, group_of)]",
        new="packed += [(flat, 0) for flat in pack(named, group_of)]",
        test=GROUPS + "test_groups_and_schedules_against_pytorch",
    ),
    Bug(  # Adam's decay is not part of its gradient
        row=97,
        file="tensor/optim/adam.py",
        old="adamw(w, g + l2 * w, m, v, **numbers)",
        new="adamw(w, g, m, v, **{**numbers, 'decay': 1 - 0.1 * l2})",
        test=GROUPS + "test_groups_and_schedules_against_pytorch",
    ),
    Bug(  # a resumed schedule starts anew
        row=97,
        file="tensor/optim/optimizer.py",
        old='self.taken, self.counts = state["taken"], dict(state["counts"])',
        new='self.counts = dict(state["counts"])',
        test=GROUPS + "test_a_schedule_goes_on_where_it_was",
    ),
    Bug(  # a rate that a schedule makes NaN reaches the weights
        row=97,
        file="tensor/optim/groups.py",
        old="    check_options(kind, options)\n    return options\n",
        new="    return options\n",
        test=GROUPS + "test_what_an_optimizer_refuses",
    ),
    Bug(  # one rate silently replaces those of all groups
        row=97,
        file="tensor/optim/optimizer.py",
        old="if any(other != rates[0] for other in rates):",
        new="if False:",
        test=GROUPS + "test_a_group_may_be_a_module_and_a_rate_may_be_changed",
    ),
    Bug(  # a tensor is taken for the list of its rows, whose gradients are None
        row=97,
        file="tensor/optim/clipping.py",
        old="[parameters] if isinstance(parameters, Tensor) else parameters",
        new="list(parameters) if isinstance(parameters, Tensor) else parameters",
        test=GROUPS + "test_clipping_of_one_tensor_and_limits",
    ),
    Bug(  # a negative limit turns the gradients round
        row=97,
        file="tensor/optim/clipping.py",
        old="    if not limit >= 0:",
        new="    if False:",
        test=GROUPS + "test_clipping_of_one_tensor_and_limits",
    ),
    Bug(  # the mean of weighted losses divides by their number
        row=97,
        file="tensor/ops/losses.py",
        old="count = np.where(used, w[ids[..., 0]], 0).sum()",
        new="count = used.sum()",
        test=OPTIONS + "test_class_weights_and_probabilities_against_pytorch",
    ),
    Bug(  # probabilities as targets lose their gradient
        row=97,
        file="tensor/ops/losses.py",
        old="(dlogits, dtargets if soft else None)",
        new="(dlogits, None)",
        test=OPTIONS + "test_class_weights_and_probabilities_against_pytorch",
    ),
    Bug(  # weighted targets do not add up to 1, and softmax is taken as if they did
        row=97,
        file="tensor/ops/losses.py",
        old="dx = np.exp(log_p) * t.sum(-1, keepdims=True) - t",
        new="dx = np.exp(log_p) - t",
        test=OPTIONS + "test_class_weights_and_probabilities_against_pytorch",
    ),
    Bug(  # 0 times the logarithm of 0 is NaN
        row=97,
        file="tensor/ops/losses.py",
        old="-np.where(t == 0, 0, t * log_p).sum(-1)",
        new="-(t * log_p).sum(-1)",
        test=OPTIONS + "test_weights_and_probabilities_at_the_ends",
    ),
    Bug(  # probabilities of NumPy make the loss float64
        row=97,
        file="tensor/ops/losses.py",
        old="q = targets.astype(logits.dtype, copy=False)",
        new="q = targets",
        test=OPTIONS + "test_weights_and_probabilities_at_the_ends",
    ),
    Bug(  # the kernel runs, and knows no weights
        row=97,
        file="tensor/kernels/cpu/cross_entropy.py",
        old="    if weight is not None:\n",
        new="    if False:\n",
        test=OPTIONS + "test_weights_and_probabilities_at_the_ends",
    ),
    Bug(  # pos_weight counts in the loss and not in its gradient
        row=97,
        file="tensor/ops/losses.py",
        old="            dx -= more * targets * logistic(-logits)\n",
        new="            pass\n",
        test=OPTIONS + "test_losses_with_numbers_of_their_own_against_pytorch",
    ),
    Bug(  # ln 0 where the target excludes a class
        row=97,
        file="tensor/ops/losses.py",
        old="np.where(possible, p * log_ratio, 0)",
        new="(p * log_ratio)",
        test=OPTIONS + "test_losses_with_numbers_of_their_own_against_pytorch",
    ),
    Bug(  # no_grad around it wins
        row=97,
        file="tensor/mode.py",
        old="    return Switch(recording=True)\n",
        new="    return Switch()\n",
        test=MODES + "test_gradients_switched_on_inside_no_grad",
    ),
    Bug(  # a line alone changes nothing, without a word
        row=97,
        file="tensor/mode.py",
        old="        if not self.used:\n",
        new="        if False:\n",
        test=MODES + "test_gradients_switched_on_inside_no_grad",
    ),
]
