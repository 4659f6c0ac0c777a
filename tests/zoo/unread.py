"""Bugs of steps that a GPU decides: what the host only learns later."""

from __future__ import annotations

from tests.zoo.bug import Bug

ADAMW, OPTIMIZER = "tensor/optim/adamw.py", "tensor/optim/optimizer.py"
CLIPPED = "tests/tensor/optim/test_clipped_step.py::"
SKIPS = CLIPPED + "test_a_device_that_skips_leaves_what_the_host_leaves"
RESUMED = CLIPPED + "test_a_resumed_run_is_bit_equal"

READING = "tests/tinygpt/training/test_reading.py::"
LOOP = "tinygpt/training/loop.py"

ZOO = [
    Bug(  # a checkpoint whose last steps are not noted
        row=97,
        file=LOOP,
        old='        anew.\n        """\n        self.catch_up()\n',
        new='        anew.\n        """\n',
        test=READING + "test_a_checkpoint_has_all_its_steps_in_the_metrics",
    ),
    Bug(  # a step more than on the CPU
        row=97,
        file=LOOP,
        old="hopeless = self.in_a_row + len(self.waiting) >= HOPELESS",
        new="hopeless = False",
        test=READING + "test_a_training_that_diverges_ends_at_the_same_step",
    ),
    Bug(  # a step is noted after the measuring that follows it
        row=97,
        file=LOOP,
        old="        assert self.rows is not None\n        self.catch_up()\n",
        new="        assert self.rows is not None\n",
        test=READING + "test_a_run_is_the_same_a_step_late",
    ),
    Bug(  # a GPU that has nothing to do while a step is noted
        row=97,
        file=LOOP,
        old="len(self.waiting) > 1 or self.waiting[0].ready",
        new="len(self.waiting) > 0 or self.waiting[0].ready",
        test=READING + "test_a_run_is_the_same_a_step_late",
    ),
    Bug(  # an error takes the step before it along
        row=97,
        file=LOOP,
        old="        finally:\n            self.catch_up()\n",
        new="        finally:\n            self.waiting.clear()\n",
        test=READING + "test_what_goes_wrong_later_loses_no_step",
    ),
    Bug(  # skipped steps count
        row=97,
        file=OPTIMIZER,
        old="self._counts |= {name: self._counts[name] - skipped for name in names}",
        new="self._counts |= {}",
        test=SKIPS,
    ),
    Bug(  # they are taken back twice
        row=97,
        file=OPTIMIZER,
        old="        self._skipped[0] = 0\n",
        new="",
        test=SKIPS,
    ),
    Bug(  # they are taken back from parameters that were not reached
        row=97,
        file=OPTIMIZER,
        old="        if names != self._unsure:\n            self._take_back()\n",
        new="        if names != self._unsure:\n",
        test=SKIPS,
    ),
    Bug(  # parameters with other counts make one run
        row=97,
        file=ADAMW,
        old="        # before the runs, which parameters with equal counts make\n"
        "        self._leave_to(device, tuple(slot.name for here in slots for slot in here))\n"
        "        self.runs = tuple((i, run) for i in reached for run in self._runs(slots[i]))\n",
        new="        self.runs = tuple((i, run) for i in reached for run in self._runs(slots[i]))\n"
        "        self._leave_to(device, tuple(slot.name for here in slots for slot in here))\n",
        test=SKIPS,
    ),
    Bug(  # a schedule stands still
        row=97,
        file=ADAMW,
        old="        self._taken += 1\n",
        new="",
        test=SKIPS,
    ),
    Bug(  # a schedule runs on through skipped steps
        row=97,
        file=OPTIMIZER,
        old="taken = self.taken if scheduled else self._taken",
        new="taken = self._taken",
        test=CLIPPED + "test_the_step_of_a_schedule_is_the_true_one",
    ),
    Bug(  # a loss scale that changes under whoever holds it
        row=97,
        file="tensor/optim/scaling.py",
        old="self.numbers[:1].copy().reshape(())",
        new="self.numbers[:1].reshape(())",
        test=CLIPPED + "test_a_loss_scale_as_a_tensor",
    ),
]
