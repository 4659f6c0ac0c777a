"""Bugs of a plan for a GPU, and of a preset: numbers that are wrong without a word."""

from __future__ import annotations

from tests.zoo.bug import Bug

PLAN = "tests/tinygpt/commands/test_plan.py::"

ZOO = [
    Bug(  # memory is counted for heads that have no kernel
        row=97,
        file="tinygpt/training/gpu.py",
        old="(D not in WIDTHS, f",
        new="(False, f",
        test=PLAN + "test_plans_for_a_gpu_that_are_refused",
    ),
    Bug(  # what is computed again takes no time
        row=97,
        file="tinygpt/training/planning.py",
        old="longer * plan.tokens",
        new="plan.tokens",
        test=PLAN + "test_a_plan_at_a_share_of_the_peak",
    ),
    Bug(  # a step that does not fit is planned like any other
        row=97,
        file="tinygpt/commands/plan.py",
        old="shortage(plan, there=there)",
        new='""',
        test=PLAN + "test_a_plan_that_does_not_fit",
    ),
    Bug(  # --steps changes the warm-up of a preset
        row=97,
        file="tinygpt/config/presets.py",
        old='min(chosen["warmup"], given["steps"] // 10)',
        new="None",
        test="tests/tinygpt/commands/test_flags.py::test_a_preset_is_gpt2_and_flags_count_more",
    ),
    Bug(  # a part of the validation windows is measured, and nanoGPT's losses do not compare
        row=97,
        file="tinygpt/config/presets.py",
        old=' | {"evaluate": 250, "evaluate_share": 1.0}',
        new=' | {"evaluate": 250}',
        test="tests/tinygpt/commands/test_flags.py::test_the_preset_shakespeare_is_nanogpts",
    ),
    Bug(  # the start of a training compiles attention for heads that its model does not have
        row=97,
        file="tinygpt/training/planning.py",
        old="    if head_width not in WIDTHS or ",
        new="    if True or ",
        test=PLAN + "test_the_head_that_is_traced",
    ),
    Bug(  # heads of 40 numbers are counted as heads of 8 numbers, and more of them
        row=97,
        file="tinygpt/training/planning.py",
        old=" or not head_width % HEADS:",
        new=":",
        test=PLAN + "test_the_head_that_is_traced",
    ),
    Bug(  # a name is searched anew from each character: a part of a GPU is taken for the whole
        row=97,
        file="tinygpt/training/gpu.py",
        old="re.match(",
        new="re.search(",
        test="tests/tinygpt/training/test_gpu.py::test_the_peak_follows_from_the_name",
    ),
]
