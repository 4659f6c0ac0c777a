"""Bugs of recording: something else is shown than what ran."""

from __future__ import annotations

from tests.zoo.bug import Bug

ZOO = [
    # an array of the user's, not a copy: what is written later changes the past
    Bug(
        3,
        "tensor/recording/recording.py",
        "known = _duplicate(array)",
        "known = array[...]",
        "tests/tensor/recording/test_recording.py::test_arrays_stay_as_they_were",
    ),
    # an earlier copy for a tensor that was written since
    Bug(
        21,
        "tensor/recording/recording.py",
        " or not _same_bits(known, array)",
        "",
        "tests/tensor/recording/test_recording.py::test_arrays_stay_as_they_were",
    ),
    # a second pass counts on from the first
    Bug(
        2,
        "tensor/autograd/backward.py",
        "mode.tape.backward_pass(nodes, leading)",
        "vars(mode.tape).setdefault('only', mode.tape.backward_pass(nodes, leading))",
        "tests/tensor/recording/test_recording.py::test_contributions_are_counted_as_they_come",
    ),
    # the sum of all contributions so far, where one is asked for
    Bug(
        2,
        "tensor/autograd/backward.py",
        "twice = self.recorder.values and direct and node.writes_buffers()",
        "twice = False",
        (
            "tests/tensor/recording/test_recording.py::"
            "test_contributions_of_a_packed_tied_weight_are_each_alone"
        ),
    ),
    # a checkpoint's node counted with those of its function
    Bug(
        2,
        "tensor/recording/recording.py",
        "type(node) is Node and type(node.backward) is not Recomputed",
        "type(node) is Node",
        "tests/tensor/recording/test_recording.py::test_a_checkpoint_records_its_second_run",
    ),
    # a new tensor at the address of a dead one has its name
    Bug(
        7,
        "tensor/recording/naming.py",
        "fact if ref is not None and ref() is thing else None",
        "fact",
        (
            "tests/tensor/recording/test_reading.py::"
            "test_names_are_not_inherited_by_what_comes_later_at_the_same_address"
        ),
    ),
    # a line that writes in place changes the line before
    Bug(
        3,
        "tensor/recording/replay.py",
        "new = _copy(value)",
        "new = value",
        (
            "tests/tensor/recording/test_reading.py::"
            "test_lines_of_an_op_show_each_assignment_as_it_was"
        ),
    ),
    # two runs of a module taken for one
    Bug(
        2,
        "tensor/recording/find.py",
        "[list(ops) for inside, ops in stretches if inside]",
        "[[op for inside, ops in stretches if inside for op in ops]]",
        "tests/tensor/recording/test_reading.py::test_a_module_that_runs_twice",
    ),
    # two tensors under one name, so that their gradients are one
    Bug(
        9,
        "tensor/recording/naming.py",
        "self.numbered(name or",
        "(name or",
        "tests/tensor/recording/test_names.py::test_two_tensors_of_one_variable_are_told_apart",
    ),
    # the frame that ran again holds the recorder that holds the frame
    Bug(
        7,
        "tensor/recording/replay.py",
        "            self.frame = None  #",
        "            pass  #",
        "tests/tensor/recording/test_odd.py::test_a_replay_leaves_no_cycle",
    ),
    # a contribution that is the sum by the time one looks
    Bug(
        3,
        "tensor/recording/recording.py",
        'f"d{key}", name, copy=True)',
        'f"d{key}", name)',
        "tests/tensor/recording/test_odd.py::test_a_rule_runs_once",
    ),
]
