"""Bugs of training loops."""

from __future__ import annotations

from tests.zoo.bug import Bug

TESTS = "tests/tinygpt/test_training.py::"

ZOO = [
    Bug(
        row=42,  # a tied table is two parameters to the optimiser
        file="tensor/nn/module.py",
        old="            if id(parameter) not in seen:\n",
        new="            if True:\n",
        test=TESTS + "test_bug_42_tied_table_decays_once",
    ),
    Bug(
        row=42,  # gains and biases decay too
        file="tensor/nn/packing.py",
        old='return "decayed" if parameter.ndim >= 2 else "not decayed"',
        new='return "decayed" if parameter.ndim >= 1 else "not decayed"',
        test=TESTS + "test_bug_42_tied_table_decays_once",
    ),
    Bug(
        row=43,  # a NaN norm goes into the weights and stays in AdamW's means
        file="tinygpt/training.py",
        old="    if math.isfinite(norm):\n        optimizer.step()",
        new="    optimizer.step()",
        test=TESTS + "test_bug_43_non_finite_step_changes_nothing",
    ),
    Bug(
        row=43,  # skipped, and nobody is told
        file="tinygpt/training.py",
        old="norm, not math.isfinite(norm), x.size",
        new="norm, False, x.size",
        test=TESTS + "test_bug_43_non_finite_step_changes_nothing",
    ),
    Bug(
        row=46,  # gradients of all steps so far are added up
        file="tinygpt/training.py",
        old="    optimizer.zero_grad()\n",
        new="",
        test=TESTS + "test_bug_46_gradients_are_those_of_one_pass",
    ),
    Bug(
        row=46,  # forgotten only after the first step: its gradients carry what was there before
        file="tinygpt/training.py",
        old="    optimizer.zero_grad()\n",
        new="    if optimizer.counts[next(iter(optimizer.counts))]:\n        optimizer.zero_grad()\n",
        test=TESTS + "test_bug_46_gradients_are_those_of_one_pass",
    ),
    Bug(
        row=46,  # forgotten between backward and the update: nothing is learned
        file="tinygpt/training.py",
        old="        loss.backward()\n",
        new="        loss.backward()\n        optimizer.zero_grad()\n",
        test=TESTS + "test_bug_46_gradients_are_those_of_one_pass",
    ),
    Bug(
        row=47,
        file="tinygpt/training.py",
        old="    with no_grad(), evaluating(model):\n",
        new="    with no_grad():\n",
        test=TESTS + "test_bug_47_measuring_is_without_dropout",
    ),
    Bug(
        row=47,
        file="tinygpt/training.py",
        old="    with no_grad(), evaluating(model):\n",
        new="    model.eval()\n    with no_grad():\n",
        test=TESTS + "test_bug_47_measuring_is_without_dropout",
    ),
    Bug(
        row=47,
        file="tinygpt/training.py",
        old="    model.train()\n",
        new="",
        test=TESTS + "test_bug_47_training_is_with_dropout",
    ),
]
