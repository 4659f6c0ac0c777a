"""Bugs of BERT, and of reading its weights: all shapes fit, and the model is another."""

from __future__ import annotations

from tests.zoo.bug import Bug

MODEL = "tests/tinygpt/model/test_bert.py::"
MASKED = "tests/tinygpt/data/test_masked.py::"
FILL = "tests/tinygpt/generation/test_fill.py::"
FILES = "tests/tinygpt/runs/test_bert.py::"

ZOO = [
    Bug(
        row=97,  # a token does not see those after it
        file="tinygpt/model/bert.py",
        old="Block(config, causal=False)",
        new="Block(config)",
        test=MODEL + "test_each_token_sees_all_tokens",
    ),
    Bug(
        row=97,  # a text's vectors depend on the longest text of its batch
        file="tinygpt/model/bert.py",
        old="x, around = self.embed(ids, segments), Around(mask=self.mask(ids))",
        new="x, around = self.embed(ids, segments), Around()",
        test=MODEL + "test_padding_changes_nothing",
    ),
    Bug(
        row=97,  # padding counts in the vector of a text
        file="tinygpt/model/bert.py",
        old="self.check_ids(ids).array != PAD",
        new="self.check_ids(ids).array >= PAD",
        test=MODEL + "test_padding_changes_nothing",
    ),
    Bug(
        row=97,  # all tokens are of the first text
        file="tinygpt/model/bert.py",
        old="        if segments is not None:\n",
        new="        if False:\n",
        test=MODEL + "test_segments",
    ),
    Bug(
        row=97,  # keys ask, and queries answer
        file="tinygpt/runs/bert.py",
        old='("query", "key", "value")',
        new='("key", "query", "value")',
        test=FILES + "test_what_transformers_saves",
    ),
    Bug(
        row=97,  # their square matrices lie on their side
        file="tinygpt/runs/bert.py",
        old="return array.T if row.turned else array",
        new="return array.T if row.turned and row.shape[0] != row.shape[1] else array",
        test=FILES + "test_what_transformers_saves",
    ),
    Bug(
        row=97,  # a head of its own takes the bias that it does not add
        file="tinygpt/runs/bert.py",
        old='f"{HEAD}bias" if config.tied else f"{HEAD}decoder.bias"',
        new='f"{HEAD}bias"',
        test=FILES + "test_what_transformers_saves",
    ),
    Bug(
        row=97,  # the targets follow from the place in the batch
        file="tinygpt/data/masked.py",
        old="int(numbers[row])",
        new="row",
        test=MASKED + "test_rows_depend_on_seed_and_number_alone",
    ),
    Bug(
        row=97,  # a window has the same targets each time
        file="tinygpt/data/masked.py",
        old="int(draws[row])",
        new="0",
        test=MASKED + "test_rows_depend_on_seed_and_number_alone",
    ),
    Bug(
        row=97,  # special tokens replace others
        file="tinygpt/data/masked.py",
        old="first + (other[changed].astype(np.uint64) * (vocabulary - first) >> 32)",
        new="other[changed].astype(np.uint64) * vocabulary >> 32",
        test=MASKED + "test_the_shares",
    ),
    Bug(
        row=97,  # all targets are hidden
        file="tinygpt/data/masked.py",
        old="x[hidden] = MASK",
        new="x[targets] = MASK",
        test=MASKED + "test_the_shares",
    ),
    Bug(
        row=97,  # the last token of a text is never seen
        file="tinygpt/data/windows.py",
        old="np.arange(self.context + 1)]",
        new="np.arange(self.context)]",
        test=MASKED + "test_no_token_is_lost",
    ),
    Bug(
        row=97,  # special tokens are filled in
        file="tinygpt/generation/fill.py",
        old="np.where(np.arange(logits.shape[1]) < len(MASK_TOKENS), -np.inf, logits)",
        new="logits",
        test=FILL + "test_the_surest_is_first_and_the_others_see_it",
    ),
    Bug(
        row=97,  # what was filled in is not seen
        file="tinygpt/generation/fill.py",
        old="logits = model(known)",
        new="logits = model(np.where(np.isin(known, [CLS, *ids]), known, MASK))",
        test=FILL + "test_the_surest_is_first_and_the_others_see_it",
    ),
]
