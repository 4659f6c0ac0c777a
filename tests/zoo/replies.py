"""Bugs in what is measured of reward models and aligned runs."""

from __future__ import annotations

from tests.zoo.bug import Bug

FILE = "tinygpt/training/calibration.py"
TESTS = "tests/tinygpt/training/test_calibration.py::"
COMMANDS = "tests/tinygpt/commands/test_eval_replies.py::"

ZOO = [
    # a model that is sure of the worse reply counts as unsure
    Bug(97, FILE, "sure = np.maximum(p, 1 - p)", "sure = np.maximum(p, GUESS)",
        TESTS + "test_bins_by_hand"),
    # bins count alike, however few pairs they have
    Bug(97, FILE, "abs(part.right - part.sure) * part.pairs for", "abs(part.right - part.sure) for",
        TESTS + "test_bins_by_hand"),
    # a tie counts as right
    Bug(97, FILE, "int((p > GUESS).sum())", "int((p >= GUESS).sum())",
        TESTS + "test_the_kinds_of_pairs_are_those_of_their_true_scores"),
    # the kinds of all pairs are those of the first
    Bug(97, FILE, "{accuracy(p[some])}: {kind}", "{accuracy(p)}: {kind}",
        TESTS + "test_the_kinds_of_pairs_are_those_of_their_true_scores"),
    # the policy is compared with itself
    Bug(97, "tinygpt/training/aligning.py", "    before.policy = model.reference\n", "",
        COMMANDS + "test_an_aligned_run_is_compared_with_its_reference[ppo]"),
    # a true score of 0 is given where no rule knows the truth
    Bug(97, "tinygpt/commands/replies.py", "replace(config, true_score=known)",
        "replace(config, true_score=True)",
        COMMANDS + "test_an_aligned_run_is_compared_with_its_reference[ppo]"),
]  # fmt: skip
