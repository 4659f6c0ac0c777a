"""Bugs of saving: what a save that was cut short leaves, whose the folder is, who reads what is
said.
"""

from __future__ import annotations

from tests.zoo.bug import Bug

MODEL = "tests/faults/test_save_model.py::test_bug_80_whenever_a_save_is_cut_short"
CHECKPOINT = "tests/tinygpt/runs/test_checkpoint.py::"
OUTLIVING = "tests/tinygpt/training/test_progress.py::"
OWNER = "tests/tinygpt/runs/test_ownership.py::"
TOKENS = "tests/tinygpt/data/test_token_files.py::"
TRAIN = "tinygpt/commands/train.py"

ZOO = [
    # -- row 80: a save cut short leaves a file that the next save promotes
    Bug(
        row=80,  # it stays for ever
        file="tinygpt/runs/checkpoint.py",
        old="            path.unlink(missing_ok=True)\n",
        new="            pass\n",
        test=MODEL,
    ),
    Bug(
        row=80,  # moved because it is there
        file="tinygpt/runs/checkpoint.py",
        old="_sealed(_new(folder, name), seal) is not None",
        new="_new(folder, name).exists()",
        test=MODEL,
    ),
    Bug(
        row=80,  # of a version without seals: all .new files
        file="tinygpt/runs/checkpoint.py",
        old="[BEST] * state.at_best",
        new="[BEST]",
        test=MODEL,
    ),
    Bug(
        row=80,  # a save that was complete is thrown away
        file="tinygpt/runs/checkpoint.py",
        old="        _move(folder, _unmoved(folder, state))\n",
        new="        pass\n",
        test=MODEL,
    ),
    Bug(
        row=80,  # killed in between, the new state has old files
        file="tinygpt/runs/checkpoint.py",
        old="    for name in (*names, STATE):\n",
        new="    for name in (STATE, *names):\n",
        test=MODEL,
    ),
    Bug(
        row=80,  # the best weights of before belong to nothing
        file="tinygpt/runs/checkpoint.py",
        old="files=kept | written",
        new="files=written",
        test=MODEL,
    ),
    Bug(
        row=80,  # a power cut keeps the name and loses the content
        file="tinygpt/runs/checkpoint.py",
        old="        file.flush()\n        os.fsync(file.fileno())\n",
        new="",
        test=MODEL,
    ),
    # -- row 81: files of two checkpoints mixed
    Bug(
        row=81,  # of the right size is right enough
        file="tinygpt/runs/checkpoint.py",
        old="            return data if Seal.of(data) == seal else None\n",
        new="            return data\n",
        test=CHECKPOINT + "test_bug_81_a_flipped_bit_is_found",
    ),
    Bug(
        row=81,
        file="tinygpt/runs/checkpoint.py",
        old="            return data if Seal.of(data) == seal else None\n",
        new="            return data\n",
        test=CHECKPOINT + "test_bug_81_a_file_of_another_checkpoint_is_refused",
    ),
    Bug(
        row=81,  # a reader beside a training cries wolf
        file="tinygpt/runs/checkpoint.py",
        old="            if state == state_of(folder):  # nobody saved meanwhile\n",
        new="            if True:\n",
        test=CHECKPOINT + "test_bug_81_a_checkpoint_that_is_replaced_while_it_is_read",
    ),
    Bug(
        row=81,  # the weights of one, the means of the next
        file="tinygpt/runs/run.py",
        old="    model.load_state_dict(arrays[MODEL] | arrays.get(BASE, {}))\n    optimizer",
        new="    optimizer",
        test="tests/tinygpt/runs/test_run.py::test_bug_81_all_that_resumes_is_of_one_checkpoint",
    ),
    # -- row 84: the reader of a pipe ends
    Bug(
        row=84,  # and with it the training
        file=TRAIN,
        old="    with outliving():\n",
        new="    if True:\n",
        test=OUTLIVING + "test_bug_84_a_reader_that_ends",
    ),
    Bug(
        row=84,  # what was learned is removed
        file="tinygpt/runs/run.py",
        old="        stepped = noted.exists() and noted.stat().st_size > 0\n",
        new="        stepped = False\n",
        test=OUTLIVING + "test_bug_84_what_went_wrong_before_the_first_checkpoint",
    ),
    Bug(
        row=84,  # a terminal that is closed ends it where it stands
        file="tinygpt/terminal.py",
        old="    return signal.SIGINT, signal.SIGTERM, *hangup\n",
        new="    return signal.SIGINT, signal.SIGTERM\n",
        test=OUTLIVING + "test_bug_84_a_terminal_that_is_closed",
    ),
    Bug(
        row=84,  # every end is Ctrl-C
        file="tinygpt/training/loop.py",
        old="return 128 + asked if asked else 0",
        new="return 130 if asked else 0",
        test=OUTLIVING + "test_bug_84_a_reader_that_ends",
    ),
    Bug(
        row=84,  # no stderr
        file="tinygpt/commands/program.py",
        old="        if getattr(sys, name) is None:\n",
        new="        if False:\n",
        test=OUTLIVING + "test_bug_84_streams_that_are_closed",
    ),
    Bug(
        row=84,  # an encoding that escapes nothing
        file="tinygpt/commands/program.py",
        old="            except UnicodeError:",
        new="            except LookupError:",
        test="tests/tinygpt/test_terminal.py::test_bug_84_an_encoding_that_escapes_nothing",
    ),
    # -- row 85: two trainings in one folder
    Bug(
        row=85,  # the lock is on a file that is replaced
        file="tinygpt/files.py",
        old="    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)\n",
        new='    descriptor = os.open(folder / "config.json", os.O_RDONLY | os.O_CREAT)\n',
        test=OWNER + "test_bug_85_files_that_are_replaced_do_not_free_it",
    ),
    Bug(
        row=85,  # looked into before it is locked: what the second one finds is empty
        file="tinygpt/runs/run.py",
        old="        owner = Owner(folder)\n    with owner",
        new=(
            "        owner = Owner.__new__(Owner)\n"
            "        owner.folder, owner._descriptor = folder, None\n    with owner"
        ),
        test=OWNER + "test_bug_85_the_folder_is_ours_before_it_is_looked_into",
    ),
    Bug(
        row=85,  # renamed while it trains
        file="tinygpt/runs/run.py",
        old="        folder = owner.follow()\n",
        new="        folder = run.folder\n",
        test=OWNER + "test_bug_85_a_folder_that_changes_while_it_trains",
    ),
    Bug(
        row=85,  # removed while it trains: the metrics go into nothing
        file="tinygpt/runs/metrics.py",
        old="            shutil.copyfileobj(removed, self._file)\n",
        new="            pass\n",
        test=OWNER + "test_bug_85_a_folder_that_changes_while_it_trains",
    ),
    Bug(
        row=85,  # two write their tokens into one folder
        file="tinygpt/data/token_files.py",
        old="        with _locked(folder):\n",
        new="        if True:\n",
        test=TOKENS + "test_bug_85_two_that_write_to_one_folder",
    ),
    Bug(
        row=85,  # the second one looked before the first one was done
        file="tinygpt/data/token_files.py",
        old="            check_free(folder)  # another process may have written it meanwhile\n",
        new="",
        test=TOKENS + "test_bug_85_two_that_write_to_one_folder",
    ),
    Bug(
        row=85,  # what is wrong with the folder of all runs is taken for a run that is there
        file="tinygpt/runs/run.py",
        old=(
            "    stem.parent.mkdir(parents=True, exist_ok=True)\n"
            "    number = 1\n"
            "    while True:\n"
            '        folder = stem.with_name(f"{stem.name}-{number}")\n'
            "        try:\n"
            "            folder.mkdir()\n"
        ),
        new=(
            "    number = 1\n"
            "    while True:\n"
            '        folder = stem.with_name(f"{stem.name}-{number}")\n'
            "        try:\n"
            "            folder.mkdir(parents=True)\n"
        ),
        test="tests/tinygpt/runs/test_run.py::"
        "test_bug_85_a_folder_of_runs_that_is_a_link_to_nowhere",
    ),
    Bug(
        row=85,  # the metrics of a run are cut in each folder that has the same file
        file="tinygpt/runs/metrics.py",
        old="        if path.stat().st_nlink > 1:",
        new="        if False:",
        test=OWNER + "test_bug_85_a_copy_of_links_is_a_run_of_its_own",
    ),
]
