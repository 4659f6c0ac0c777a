"""Bugs of decoding with an encoder-decoder, and of beam search."""

from __future__ import annotations

from tests.zoo.bug import Bug

CACHE, PAIRS = "tinygpt/model/cache.py", "tinygpt/model/encoder_decoder.py"
GIVEN = "tests/tinygpt/model/test_given.py::"

ZOO = [
    Bug(  # the <pad> after a short source is read as text
        row=97,
        file=PAIRS,
        old="cache.memory_mask = None if self.mask is None else self.mask.array",
        new="cache.memory_mask = None",
        test=GIVEN + "test_the_cache_equals_the_whole_pass",
    ),
    Bug(  # rows that go on look at the masks of the first ones
        row=97,
        file=CACHE,
        old="mask[self.sources[self.rows]]",
        new="mask[: len(self.rows)]",
        test=GIVEN + "test_some_rows_go_on_and_others_ended",
    ),
    Bug(  # rows that go on look at the sources of the first ones
        row=97,
        file=CACHE,
        old="self.memory[layer][self.sources[self.rows]]",
        new="self.memory[layer][: len(self.rows)]",
        test=GIVEN + "test_some_rows_go_on_and_others_ended",
    ),
    Bug(  # a row keeps its own keys and values, and gets the text of another
        row=97,
        file=CACHE,
        old="for array in (self.keys, self.values):",
        new="for array in ():",
        test=GIVEN + "test_rows_that_were_reordered",
    ),
    Bug(  # a row keeps its own source, and gets the text of another
        row=97,
        file=CACHE,
        old="self.seen[taken], self.sources[taken]",
        new="self.seen[taken], self.sources[into]",
        test=GIVEN + "test_rows_that_were_reordered",
    ),
    Bug(  # the window slides, and <sos> is forgotten
        row=97,
        file=PAIRS,
        old="slides = False",
        new="slides = True",
        test=GIVEN + "test_a_target_ends_with_the_context",
    ),
]
