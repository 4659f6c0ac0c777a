"""Bugs of pairs of a source and a target."""

from __future__ import annotations

from tests.zoo.bug import Bug

SPECIAL = "tests/tinygpt/tokenizers/test_special.py::"
TESTS = "tests/tinygpt/data/test_pairs.py::"
FILE = "tinygpt/data/pairs.py"

ZOO = [
    Bug(  # letters take the ids of special tokens
        row=97,
        file="tinygpt/tokenizers/special.py",
        old="[i + k for i in ids]",
        new="ids",
        test=SPECIAL + "test_a_text_gives_no_special_token",
    ),
    Bug(  # the parts of a text are not shifted
        row=97,
        file="tinygpt/tokenizers/special.py",
        old="map(self._shifted, self.inner.encode_parts(parts))",
        new="self.inner.encode_parts(parts)",
        test=SPECIAL + "test_a_text_gives_no_special_token",
    ),
    Bug(  # the model learns to write PAD
        row=97,
        file=FILE,
        old="np.where(target[:, 1:] == PAD, IGNORED, target[:, 1:])",
        new="target[:, 1:]",
        test=TESTS + "test_nothing_but_targets_and_eos_is_learned",
    ),
    Bug(  # and never to stop
        row=97,
        file=FILE,
        old="== PAD, IGNORED, target[:, 1:])",
        new="<= EOS, IGNORED, target[:, 1:])",
        test=TESTS + "test_the_target_is_shifted_right",
    ),
    Bug(  # the decoder reads what it is to predict
        row=97,
        file=FILE,
        old="target[:, :-1] == EOS, PAD, target[:, :-1]",
        new="target[:, 1:] == EOS, PAD, target[:, 1:]",
        test=TESTS + "test_the_target_is_shifted_right",
    ),
    Bug(  # the end of a target is lost where another is longer
        row=97,
        file=FILE,
        old="self.target_lengths[rows].max()",
        new="self.target_lengths[rows].min()",
        test=TESTS + "test_a_batch_is_as_long_as_its_longest",
    ),
    Bug(  # a source with two targets is learned from and measured on
        row=97,
        file=FILE,
        old="pairs if pair.source not in kept]",
        new="pairs[: len(pairs) - len(kept)]]",
        test=TESTS + "test_no_source_is_in_both_parts",
    ),
]
