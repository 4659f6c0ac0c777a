"""Bugs of recording: a tape that shows something else than what ran."""

from __future__ import annotations

from tests.zoo.bug import Bug

TESTS, READING = "tests/tensor/test_tape.py::", "tests/tensor/test_tape_reading.py::"
RECORDING, FIND, REPLAY, REPORT, AUTOGRAD = (f"tensor/{name}.py" for name in ("tape/recording", "tape/find", "tape/replay", "tape/report", "autograd"))

ZOO = [
    # an array of the user's, not a copy: what is written later changes the past
    Bug(3, RECORDING, "known = self._copies[id(x)] = array.copy()", "known = self._copies[id(x)] = array[...]", TESTS + "test_arrays_stay_as_they_were"),
    # an earlier copy for a tensor that was written since
    Bug(21, RECORDING, "or not np.array_equal(known, array, equal_nan=True)", "", TESTS + "test_arrays_stay_as_they_were"),
    # a second walk counts on from the first
    Bug(2, RECORDING, "            self._arrived.clear()\n", "", TESTS + "test_contributions_are_counted_as_they_come"),
    # the sum of all contributions so far, where one is asked for
    Bug(
        2,
        AUTOGRAD,
        "tape.backward(node, upstream, node.gradients(*upstream, allowed=allowed), start)",
        "tape.backward(node, upstream, node.gradients(*upstream, allowed=allowed, places=True), start)",
        TESTS + "test_contributions_of_a_packed_tied_weight_are_each_alone",
    ),
    # a checkpoint's node counted with those of its function
    Bug(2, RECORDING, "type(node) is Node and type(node.backward) is not Recomputed", "type(node) is Node", TESTS + "test_a_checkpoint_records_its_second_run"),
    # a new tensor at the address of a dead one has its name
    Bug(
        7,
        RECORDING,
        "if made is not None and made[0]() is x:",
        "if made is not None:",
        READING + "test_names_are_not_inherited_by_what_comes_later_at_the_same_address",
    ),
    # a line that writes in place changes the line before
    Bug(
        3,
        REPLAY,
        'self.known[name] = changed[name] = value.copy() if hasattr(value, "flags") else value',
        "self.known[name] = changed[name] = value",
        READING + "test_lines_of_an_op_show_each_assignment_as_it_was",
    ),
    # two runs of a module taken for one
    Bug(2, FIND, "runs[-1:] = [entry] if before in runs[-1:] else [*runs[-1:], entry]", "runs[:] = [entry]", READING + "test_a_module_that_runs_twice"),
]
