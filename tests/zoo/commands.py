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
    Bug(  # the key that closes the help moves the walk too
        row=97,
        file="tinygpt/inside/step/dialogs.py",
        old="        event.stop()\n",
        new="",
        test="tests/tinygpt/inside/test_step_keys.py::"
        "test_the_key_that_closes_the_help_does_nothing_else",
    ),
    Bug(  # the source shows the gradient while the walk goes forward
        row=97,
        file="tinygpt/inside/step/panes.py",
        old="    if isinstance(part, ast.FunctionDef):\n        return False\n",
        new="",
        test="tests/tinygpt/inside/test_step_reading.py::"
        "test_the_line_that_works_is_in_sight_and_marked",
    ),
    Bug(  # pictures litter the folder in which the command runs
        row=97,
        file="tinygpt/inside/step/screen.py",
        old="title, self.folder, *names",
        new='title, type(self.folder)("."), *names',
        test="tests/tinygpt/inside/test_step_keys.py::test_pictures_go_where_they_are_asked",
    ),
    Bug(  # \\n is a line end in --stop alone
        row=97,
        file="tinygpt/commands/cli.py",
        old='WRITTEN = "prompt", "stop"',
        new='WRITTEN = ("stop",)',
        test="tests/tinygpt/commands/test_flags.py::"
        "test_a_line_end_is_written_alike_in_every_text_of_a_flag",
    ),
    Bug(  # all samples of a prompt are one text
        row=97,
        file="tinygpt/commands/sample.py",
        old="*part, number=start, show=show,",
        new="*part[:1], number=0, show=show,",
        test="tests/tinygpt/commands/test_flags.py::test_several_samples_of_one_prompt",
    ),
    Bug(  # a command that is printed means another folder
        row=97,
        file="tinygpt/terminal.py",
        old='shlex.join(map(str, ("tinygpt", *words)))',
        new='" ".join(map(str, ("tinygpt", *words)))',
        test="tests/tinygpt/commands/test_flags.py::test_a_command_can_be_pasted",
    ),
]
