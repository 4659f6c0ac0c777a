"""Bugs of recording: a tape that shows something else than what ran."""

from __future__ import annotations

from tests.zoo.bug import Bug

TESTS, READING, NAMES, ODD = (f"tests/tensor/test_tape{name}.py::" for name in ("", "_reading", "_names", "_odd"))
RECORDING, NAMING, FIND, REPLAY, AUTOGRAD = (f"tensor/{name}.py" for name in ("tape/recording", "tape/naming", "tape/find", "tape/replay", "autograd"))

ZOO = [
    # an array of the user's, not a copy: what is written later changes the past
    Bug(3, RECORDING, "known = _duplicate(array)", "known = array[...]", TESTS + "test_arrays_stay_as_they_were"),
    # an earlier copy for a tensor that was written since
    Bug(21, RECORDING, " or not _same_bits(known, array)", "", TESTS + "test_arrays_stay_as_they_were"),
    # a second walk counts on from the first
    Bug(
        2,
        AUTOGRAD,
        "mode.tape.walk(nodes, allowed)",
        "vars(mode.tape).setdefault('only', mode.tape.walk(nodes, allowed))",
        TESTS + "test_contributions_are_counted_as_they_come",
    ),
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
        NAMING,
        "if known is not None and known[0]() is thing else None",
        "if known is not None else None",
        READING + "test_names_are_not_inherited_by_what_comes_later_at_the_same_address",
    ),
    # a line that writes in place changes the line before
    Bug(
        3,
        REPLAY,
        "self.known[name] = changed[name] = _copy(value)",
        "self.known[name] = changed[name] = value",
        READING + "test_lines_of_an_op_show_each_assignment_as_it_was",
    ),
    # two runs of a module taken for one
    Bug(2, FIND, "runs[-1:] = [entry] if before in runs[-1:] else [*runs[-1:], entry]", "runs[:] = [entry]", READING + "test_a_module_that_runs_twice"),
    # two tensors under one name, so that their gradients are one
    Bug(9, NAMING, "known := self.numbered(name or", "known := (name or", NAMES + "test_two_tensors_of_one_variable_are_told_apart"),
    # the frame that ran again holds all that its callers hold
    Bug(7, REPLAY, "            self.frame = None  #", "            pass  #", ODD + "test_a_tape_goes_when_it_is_dropped[that_was_read]"),
    # a contribution that is the sum by the time one looks
    Bug(3, RECORDING, 'f"d{key}", name, copy=True)', 'f"d{key}", name)', ODD + "test_a_rule_runs_once"),
]
