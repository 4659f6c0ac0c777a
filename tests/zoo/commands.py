"""Bugs of the commands: numbers that meant two things, work that was lost."""

from __future__ import annotations

from tests.zoo.bug import Bug

MEASURE = "tests/tinygpt/training/test_measure.py::"

ZOO = [
    Bug(  # measuring takes longer than learning
        row=97,
        file="tinygpt/training/measure.py",
        old="most = 3 * config.evaluate_steps * step",
        new="most = 30 * config.evaluate_steps * step",
        test=MEASURE + "test_measuring_takes_a_tenth_of_the_work_at_most",
    ),
    Bug(  # the last number is of a part of the windows
        row=97,
        file="tinygpt/training/loop.py",
        old="loss = self.validation_loss(np.arange(count))",
        new="loss = self.validation_loss(rows)",
        test=MEASURE + "test_what_was_measured_on_is_said",
    ),
    Bug(  # eval finds a loss below the floor that train printed
        row=97,
        file="tinygpt/commands/eval.py",
        old="return Measured(name, found.windows, found.floor, rows)",
        new="return Measured(name, SideBySide(found.windows.tokens, context))",
        test=MEASURE + "test_the_floor_of_train_and_eval_is_one_number",
    ),
    Bug(  # after a kill the picture never shows the last steps
        row=97,
        file="tinygpt/runs/run.py",
        old="picture.stat().st_mtime_ns >= noted.stat().st_mtime_ns",
        new="True",
        test=MEASURE + "test_a_run_that_was_killed_after_its_last_step_gets_its_picture",
    ),
    Bug(  # a longer run compares losses of other windows
        row=97,
        file="tinygpt/training/jobs.py",
        old="warmup=warmup, evaluate=evaluate))",
        new="warmup=warmup))",
        test=MEASURE + "test_a_run_goes_on_after_its_end",
    ),
]
