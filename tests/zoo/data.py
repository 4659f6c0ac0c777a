"""Bugs of loaders: what comes twice, what comes again after a break, what was to be measured on,
and numbers too large for their place.
"""

from __future__ import annotations

from tests.zoo.bug import Bug

TRAINING, DATA, FILES = (
    "tinygpt/training/step.py",
    "tinygpt/data/prepare.py",
    "tinygpt/data/token_files.py",
)
TESTS = "tests/tinygpt/data/test_token_files.py::"

ZOO = [
    Bug(
        row=50,  # drawn with replacement: a third of the windows never comes
        file="tinygpt/training/order.py",
        old="            rows[i] = order[in_block] * blocks + block\n",
        new="            rows[i] = random_rows(step, i + 1, windows, seed)[i]\n",
        test=TESTS + "test_bug_50_no_window_comes_twice_an_epoch",
    ),
    Bug(
        row=50,  # every epoch in the same order
        file="tinygpt/training/order.py",
        old="generator.draws = EPOCHS + number",
        new="generator.draws = EPOCHS",
        test=TESTS + "test_bug_50_no_window_comes_twice_an_epoch",
    ),
    Bug(
        row=50,  # blocks that overlap
        file="tinygpt/training/order.py",
        old="order[in_block] * blocks + block",
        new="order[in_block] + block",
        test=TESTS + "test_bug_50_no_window_comes_twice_an_epoch",
    ),
    Bug(
        row=50,  # a resumed run begins its data anew
        file=TRAINING,
        old="windows[rows_of(step, config",
        new="windows[rows_of(step - first, config",
        test=TESTS + "test_bug_50_the_same_batches_after_resuming",
    ),
    Bug(
        row=50,  # a resumed run learns from other tokens than it began with
        file=FILES,
        old="{h.tokens} {h.learned}",
        new="{h.tokens}",
        test=TESTS + "test_bug_50_a_resumed_run_on_a_token_folder",
    ),
    Bug(
        row=50,  # windows of the whole text
        file=DATA,
        old="Windows(ids[:learned], context, stride)",
        new="Windows(ids, context, stride)",
        test=TESTS + "test_bug_50_nothing_measured_on_is_learned_from",
    ),
    Bug(
        row=50,  # the first window to measure on begins with what was learned
        file=DATA,
        old="SideBySide(ids[learned:], context)",
        new="SideBySide(ids[learned - 1 :], context)",
        test=TESTS + "test_bug_50_nothing_measured_on_is_learned_from",
    ),
    Bug(
        row=50,  # 16 bits whatever the vocabulary
        file=FILES,
        old="np.fromiter(ids, DTYPES[dtype], len(ids)).tobytes()",
        new='np.array(ids).astype("<u2").astype(DTYPES[dtype]).tobytes()',
        test=TESTS + "test_bug_50_ids_fit_their_dtype",
    ),
    Bug(
        row=50,  # off by one
        file=FILES,
        old='"uint16" if tokenizer.size <= 1 << 16 else',
        new='"uint16" if tokenizer.size < 1 << 16 else',
        test=TESTS + "test_bug_50_ids_fit_their_dtype",
    ),
    Bug(
        row=50,  # a file of 16 bits for a tokenizer that has more
        file=FILES,
        old="if own.size > np.iinfo(DTYPES[header.dtype]).max + 1:",
        new="if False:",
        test=TESTS + "test_bug_50_a_dtype_too_narrow_for_the_tokenizer",
    ),
]
