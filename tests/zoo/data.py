"""Bugs of loaders: what comes twice, what comes again after a break, what was to be measured on, and numbers too large for their place."""

from __future__ import annotations

from tests.zoo.bug import Bug

TRAINING, DATA, FILES = "tinygpt/training.py", "tinygpt/data.py", "tinygpt/token_files.py"
TESTS = "tests/tinygpt/test_token_files.py::"

ZOO = [
    Bug(
        row=50,  # drawn with replacement: a third of the windows never comes
        file=TRAINING,
        old="rows[now] = _shuffled(epoch, windows, seed)[places[now]] if windows <= KEPT else scattered(places[now], windows, epoch, seed)",
        new="rows[now] = random_rows(step, int(now.sum()), windows, seed)",
        test=TESTS + "test_bug_50_no_window_comes_twice_an_epoch",
    ),
    Bug(
        row=50,  # every epoch in the same order
        file=TRAINING,
        old='"draws": EPOCHS + epoch})',
        new='"draws": EPOCHS})',
        test=TESTS + "test_bug_50_no_window_comes_twice_an_epoch",
    ),
    Bug(
        row=50,  # what ends beyond the last window is bent back onto others
        file=TRAINING,
        old="        out = rows >= count\n",
        new="        rows %= count\n        out = rows >= count\n",
        test=TESTS + "test_bug_50_each_place_of_a_scattered_order_holds_another",
    ),
    Bug(
        row=50,  # a resumed run begins its data anew
        file=TRAINING,
        old="windows[rows(step, config.batch",
        new="windows[rows(step - first, config.batch",
        test=TESTS + "test_bug_50_the_same_batches_after_resuming",
    ),
    Bug(
        row=50,  # a resumed run learns from other tokens than it began with
        file=FILES,
        old="self.header.dtype, str(self.header.tokens), str(self.header.learned)",
        new="self.header.dtype, str(self.header.tokens)",
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
        old='"uint16" if size <= 1 << 16 else',
        new='"uint16" if size < 1 << 16 else',
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
