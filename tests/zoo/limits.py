"""What has no bound: numbers of flags, models larger than memory, errors as long as what they
quote.
"""

from __future__ import annotations

from tests.zoo.bug import Bug

TESTS, GROWTH = "tests/tinygpt/commands/test_limits.py::", "tests/tinygpt/commands/test_growth.py::"
PAIRS = "tinygpt/tokenizers/pairs.py"
BYTE_PAIR = "tinygpt/tokenizers/byte_pair.py"

ZOO = [
    Bug(
        row=93,  # the limits of an option are written down, and nobody looks
        file="tinygpt/config/options.py",
        old=(
            "        check(\n"
            "            all(LIMITS[name][1](value, limit) for name, limit in limits.items()),\n"
            '            f"{f.name} {value!r}: {said}, {bounds}, is needed",\n'
            "        )\n"
        ),
        new='        check(True, f"{f.name} {value!r}: {said}, {bounds}, is needed")\n',
        test=TESTS + "test_bug_93_limits_are_told",
    ),
    Bug(
        row=93,  # a breakpoint's shape of 5,000 digits
        file="tinygpt/inside/step/walk.py",
        old="if not all(size.isdecimal() and len(size) < 19 for size in sizes):",
        new="if not all(size.isdecimal() for size in sizes):",
        test=TESTS + "test_bug_93_values_that_nobody_means[step]",
    ),
    Bug(
        row=93,  # the 10^5000th run of a module
        file="tensor/recording/find.py",
        old='re.fullmatch("(.*)#([0-9]{1,9})", name, re.DOTALL)',
        new='re.fullmatch("(.*)#([0-9]+)", name, re.DOTALL)',
        test=TESTS + "test_bug_93_values_that_nobody_means[step]",
    ),
    Bug(
        row=93,  # `--out=--` gives a list for a path
        file="tinygpt/commands/cli.py",
        old="        if action.nargs is None and isinstance(value, list):\n",
        new="        if False:\n",
        test=TESTS + "test_bug_93_values_that_nobody_means[tokenize]",
    ),
    Bug(
        row=93,  # a number of threads that is a superscript, or has 5,000 digits
        file="tensor/kernels/cpu/compiled.py",
        old='re.fullmatch("[0-9]{1,6}", given)',
        new="given.isdigit()",
        test="tests/tensor/kernels/test_compiled.py::test_bug_93_number_of_threads",
    ),
    Bug(
        row=94,  # fresh weights are drawn first
        file="tinygpt/training/starting.py",
        old="    if not request.ignore_memory:\n        loaded",
        new="    if False:\n        loaded",
        test=TESTS + "test_bug_94_what_does_not_fit_is_not_built",
    ),
    Bug(
        row=94,  # the windows of many accumulated batches are not counted
        file="tinygpt/training/planning.py",
        old="            + self.windows\n",
        new="",
        test=TESTS + "test_bug_94_what_does_not_fit_is_not_built",
    ),
    Bug(
        row=94,  # a plan measures a model that does not fit
        file="tinygpt/commands/plan.py",
        old="if not why:",
        new="if True:",
        test=TESTS + "test_bug_94_a_plan_of_what_does_not_fit",
    ),
    Bug(
        row=95,  # a list of numbers for each byte of a word to learn from
        file=PAIRS,
        old=(
            "        self.before = integers(range(-1, len(self.ids) - 1), size)\n"
            "        self.after = integers(range(1, len(self.ids) + 1), size)\n"
        ),
        new=(
            "        self.before = list(range(-1, len(self.ids) - 1))\n"
            "        self.after = list(range(1, len(self.ids) + 1))\n"
        ),
        test=GROWTH + "test_bug_95_memory_of_words_that_do_not_end",
    ),
    Bug(
        row=95,  # and of a word to encode
        file=BYTE_PAIR,
        old=(
            "        before, after = integers(range(-1, size - 1), size), integers(range(1, "
            "size), size)\n"
        ),
        new="        before, after = list(range(-1, size - 1)), list(range(1, size))\n",
        test=GROWTH + "test_bug_95_memory_of_words_that_do_not_end",
    ),
    Bug(
        row=95,  # a merge of a lower rank waits until all of this one are done
        file=BYTE_PAIR,
        old=("        while waiting:\n            rank, left = divmod(heappop(waiting), size)"),
        new=(
            "        rank = 0\n"
            "        while waiting:\n"
            "            least = min(waiting, key=lambda key: (key // size < rank, key))\n"
            "            waiting.remove(least)\n"
            "            rank, left = divmod(least, size)"
        ),
        test=GROWTH + "test_bug_95_a_merge_before_the_one_that_makes_its_parts",
    ),
    Bug(
        row=95,  # every point of a long curve goes to matplotlib
        file="tinygpt/runs/curves.py",
        old="    if len(values) <= POINTS:\n",
        new="    if True:\n",
        test=GROWTH + "test_bug_95_a_long_curve_is_drawn_as_a_short_one",
    ),
    Bug(
        row=95,  # one value of each stretch stands for it, and spikes are lost
        file="tinygpt/runs/curves.py",
        old="{start + int(stretch.argmin()), start + int(stretch.argmax())}",
        new="{start}",
        test=GROWTH + "test_bug_95_a_long_curve_is_drawn_as_a_short_one",
    ),
    Bug(
        row=95,  # the mean of what is drawn, not of what was measured
        file="tinygpt/runs/curves.py",
        old="smooth(found.losses, positions)",
        new="smooth(losses, range(len(losses)))",
        test=GROWTH + "test_bug_95_a_long_curve_is_drawn_as_a_short_one",
    ),
    Bug(
        row=95,  # all snapshots are looked at
        file="tinygpt/inside/look/learning.py",
        old="snapshots.load(run, SNAPSHOTS)",
        new="snapshots.load(run)",
        test=GROWTH + "test_bug_95_of_many_snapshots_some_are_looked_at",
    ),
    Bug(
        row=96,  # what is quoted is shown whole
        file="tinygpt/terminal.py",
        old="    fit = sum(map(len, lines)) <= MOST\n",
        new="    fit = True\n",
        test=TESTS + "test_bug_96_errors_are_short_and_safe",
    ),
    Bug(
        row=96,  # a control character becomes ten, after the cut
        file="tinygpt/terminal.py",
        old="_fitting([shown(line) for line in lines])",
        new="map(shown, lines)",
        test=TESTS + "test_bug_96_errors_are_short_and_safe",
    ),
    Bug(
        row=96,  # escaped first, cut then
        file="tinygpt/terminal.py",
        old='_fitting(problem.split("\\n", 1))',
        new='problem.split("\\n", 1)',
        test=TESTS + "test_bug_96_a_long_error_takes_no_memory",
    ),
]
