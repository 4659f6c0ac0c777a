"""Bugs of interrupts: what a KeyboardInterrupt leaves on, or half done."""

from __future__ import annotations

from tests.zoo.bug import Bug

TEST = "tests/faults/test_interrupts.py::test_bug_83_"
UPDATE = "                self._update_run(flat, state, rule, start, stop)\n"
COUNT = "                self.counts |= dict.fromkeys([slot.name for slot in run], count)\n"
MODE, OPTIMIZER = "tensor/mode.py", "tensor/optim/optimizer.py"

ZOO = [
    Bug(
        83,
        MODE,
        "        (_,) = map(MODE.set, (mode,))\n",
        "        MODE.set(mode)\n",
        TEST + "an_interrupt_leaves_no_switch_on",
    ),
    Bug(
        83,
        MODE,
        "= left.__next__",
        "= lambda: next(left)",
        TEST + "an_interrupt_leaves_no_switch_on",
    ),
    Bug(  # evaluation for all threads
        83,
        MODE,
        'MODE: ContextVar[Mode] = ContextVar("tensor_mode", default=Mode())',
        'MODE: Any = type("Shared", (), {"mode": Mode(), "get": lambda self: self.mode, '
        '"set": lambda self, mode: [setattr(self, "mode", mode)]})()',
        TEST + "evaluation_of_one_thread_is_not_that_of_another",
    ),
    Bug(
        83,
        "tensor/autograd/recompute.py",
        "        stream = random.Generator()\n",
        "        stream = random.default\n",
        TEST + "the_second_run_of_a_checkpoint_leaves_the_default_generator_alone",
    ),
    Bug(
        83,
        "tensor/tensor.py",
        "        except KeyboardInterrupt:  # between the two, perhaps: a write must be "
        "counted\n            self.bump(region)\n",
        "        except KeyboardInterrupt:\n",
        TEST + "a_write_that_was_interrupted_is_counted",
    ),
    Bug(
        83,
        "tensor/tensor.py",
        "        except KeyboardInterrupt:  # between the two, perhaps\n            x.bump()\n",
        "        except KeyboardInterrupt:\n",
        TEST + "a_write_that_was_interrupted_is_counted",
    ),
    Bug(
        83,
        "tensor/base.py",
        "            self.gradient.bump()  # first: an interrupt must leave no write "
        "uncounted\n            np.add(total, dx, out=total)\n",
        "            np.add(total, dx, out=total)\n            self.gradient.bump()\n",
        TEST + "a_gradient_that_was_interrupted_is_counted",
    ),
    Bug(
        83,
        OPTIMIZER,
        UPDATE + COUNT,
        COUNT + UPDATE,
        TEST + "a_step_that_was_interrupted",
    ),
    Bug(
        83,
        OPTIMIZER,
        "                flat.weights.bump(Layout((stop - start,), (1,), start))\n" + UPDATE,
        UPDATE + "                flat.weights.bump(Layout((stop - start,), (1,), start))\n",
        TEST + "a_step_that_was_interrupted",
    ),
    Bug(
        83,
        "tensor/recording/replay.py",
        "_apart(partial(copy_context().run, recorder.watch, call))",
        "recorder.watch(call)",
        TEST + "a_replay_traces_no_thread_but_its_own",
    ),
]
