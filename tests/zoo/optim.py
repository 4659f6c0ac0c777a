"""Bugs of optimisers, clipping and schedules."""

from __future__ import annotations

from tests.zoo.bug import Bug

TESTS = "tests/tensor/optim/test_optimizers.py::"
ADAMW, SGD, CLIPPING, SCHEDULES = (
    f"tensor/optim/{name}.py" for name in ("adamw", "sgd", "clipping", "schedules")
)

ZOO = [
    Bug(  # moments not corrected for their start at 0
        row=41,
        file=ADAMW,
        old="step_size=lr / (1 - b1**count)",
        new="step_size=lr",
        test=TESTS + "test_bug_41_first_update_is_the_sign",
    ),
    Bug(  # steps counted from 0, so that the correction lags
        row=41,
        file=ADAMW,
        old="bias_correction=1 / math.sqrt(1 - b2**count)",
        new="bias_correction=1 / math.sqrt(1 - b2 ** max(count - 1, 1))",
        test=TESTS + "test_bug_41_ten_steps_against_the_closed_form",
    ),
    Bug(  # eps before the correction
        row=41,
        file=ADAMW,
        old="    denominator *= bias_correction\n    denominator += eps\n",
        new="    denominator += eps\n    denominator *= bias_correction\n",
        test=TESTS + "test_bug_41_epsilon_stands_outside_the_root_and_after_the_correction",
    ),
    Bug(  # eps under the root
        row=41,
        file=ADAMW,
        old=(
            "    denominator = np.sqrt(v)\n    denominator *= bias_correction\n"
            "    denominator += eps\n"
        ),
        new="    denominator = np.sqrt(v * bias_correction**2 + eps)\n",
        test=TESTS + "test_bug_41_ten_steps_against_the_closed_form",
    ),
    Bug(  # one count for all: a parameter that was skipped is corrected as if it had not been
        row=41,
        file="tensor/optim/optimizer.py",
        old="run[-1].end, self.counts[run[0].name] + 1\n",
        new="run[-1].end, max(self.counts.values()) + 1\n",
        test=TESTS + "test_bug_41_ten_steps_against_the_closed_form",
    ),
    Bug(  # a resumed run starts counting anew
        row=41,
        file="tensor/optim/optimizer.py",
        old='self.taken, self.counts = state["taken"], dict(state["counts"])',
        new='self.taken = state["taken"]',
        test=TESTS + "test_bug_41_resuming_continues_bit_for_bit",
    ),
    Bug(  # decay as part of the gradient, Adam with L2
        row=42,
        file=ADAMW,
        old="    m *= b1\n    m += (1 - b1) * g\n",
        new=(
            "    g = g + (1 - decay) / 0.05 * w\n    decay = 1\n    m *= b1\n"
            "    m += (1 - b1) * g\n"
        ),
        test=TESTS + "test_bug_42_decay_is_decoupled",
    ),
    Bug(  # decay without the learning rate
        row=42,
        file=ADAMW,
        old="decay=1 - lr * decayed",
        new="decay=1 - decayed",
        test=TESTS + "test_bug_42_decay_is_decoupled",
    ),
    Bug(  # gains and biases decay too
        row=42,
        file=SGD,
        old=' if flat.group == "decayed" else 1.0\n',
        new="\n",
        test=TESTS + "test_bug_42_decay_is_decoupled",
    ),
    Bug(  # decay of what the step left
        row=42,
        file=ADAMW,
        old="    if decay != 1:\n        w *= decay\n    w -= denominator\n",
        new="    w -= denominator\n    if decay != 1:\n        w *= decay\n",
        test=TESTS + "test_bug_42_decay_is_of_the_old_weight",
    ),
    Bug(  # vectors in the group that decays
        row=42,
        file="tensor/nn/packing.py",
        old='return "decayed" if parameter.ndim >= 2 else "not decayed"',
        new='return "decayed" if parameter.ndim >= 1 else "not decayed"',
        test=TESTS + "test_bug_42_groups_by_name_and_tied_once",
    ),
    Bug(  # each name of a tied table gets a slot of its own
        row=42,
        file="tensor/nn/module.py",
        old="        if id(tensor) not in seen:\n",
        new="        if True:\n",
        test=TESTS + "test_bug_42_groups_by_name_and_tied_once",
    ),
    Bug(  # each array against its own norm
        row=43,
        file=CLIPPING,
        old="            array *= limit / norm\n",
        new="            array *= min(1.0, limit / math.sqrt(_squared(array) or 1.0))\n",
        test=TESTS + "test_bug_43_one_norm_for_all",
    ),
    Bug(  # a norm of infinity scales all gradients to 0, and the infinite one to NaN
        row=43,
        file=CLIPPING,
        old="if math.isfinite(norm) and norm > limit:",
        new="if norm > limit:",
        test=TESTS + "test_bug_43_a_norm_that_is_not_finite_is_reported",
    ),
    Bug(  # NaN is not above the limit, and so passes for small
        row=43,
        file=CLIPPING,
        old="return math.sqrt(sum(map(_squared, arrays)))",
        new="return math.sqrt(np.nan_to_num(sum(map(_squared, arrays))))",
        test=TESTS + "test_bug_43_a_norm_that_is_not_finite_is_reported",
    ),
    Bug(  # what occurs twice counts twice, and is scaled twice
        row=43,
        file="tensor/optim/groups.py",
        old="enumerate(dict.fromkeys(elements(kind, parameters)))",
        new="enumerate(elements(kind, parameters))",
        test=TESTS + "test_bug_43_tied_counts_once",
    ),
    Bug(  # the first step has a rate of 0
        row=45,
        file=SCHEDULES,
        old="return peak * (step + 1) / (warmup + 1) if",
        new="return peak * step / warmup if",
        test=TESTS + "test_bug_45_ends_of_the_schedule",
    ),
    Bug(  # the cosine counts from 0, not from the end of the warm-up
        row=45,
        file=SCHEDULES,
        old="return min(1.0, (step - warmup) / (total - warmup))",
        new="return min(1.0, step / total)",
        test=TESTS + "test_bug_45_table_of_learning_rates",
    ),
    Bug(  # past its end the rate climbs again
        row=45,
        file=SCHEDULES,
        old="return min(1.0, (step - warmup) / (total - warmup))",
        new="return (step - warmup) / (total - warmup)",
        test=TESTS + "test_bug_45_table_of_learning_rates",
    ),
    Bug(  # a warm-up as long as the schedule
        row=45,
        file=SCHEDULES,
        old="if not 0 <= warmup < total:",
        new="if not 0 <= warmup <= total + 1:",
        test=TESTS + "test_bug_45_ends_of_the_schedule",
    ),
]
