"""Bugs of the cache: it differs from no cache, or is not used."""

from __future__ import annotations

from tests.zoo.bug import Bug

CACHE, DECODER, GENERATION, MODEL = (
    "tinygpt/model/cache.py",
    "tensor/kernels/cpu/decoder.c",
    "tinygpt/generation/generate.py",
    "tinygpt/model/gpt.py",
)
TESTS = "tests/tinygpt/model/test_cache.py::"

ZOO = [
    Bug(  # a full cache goes on at its last position
        row=56,
        file=GENERATION,
        old="cache.seen[i] = 0",
        new="cache.seen[i] = context - 1",
        test=TESTS + "test_bug_56_generation_past_the_context",
    ),
    Bug(  # new tokens always stand at the beginning
        row=56,
        file="tinygpt/model/transformer.py",
        old="time = seen[:, None] + np.arange(ids.shape[1])",
        new="time = 0 * seen[:, None] + np.arange(ids.shape[1])",
        test=TESTS + "test_bug_56_cache_equals_no_cache",
    ),
    Bug(  # a portion counts as one token
        row=56,
        file=MODEL,
        old="cache.seen[cache.rows] += ids.shape[1]",
        new="cache.seen[cache.rows] += 1",
        test=TESTS + "test_bug_56_cache_equals_no_cache",
    ),
    Bug(  # tokens of a portion see those after them
        row=56,
        file=CACHE,
        old="np.arange(total) <= time[:, None, :, None]",
        new="np.arange(total) <= time.max(1)[:, None, None, None]",
        test=TESTS + "test_bug_56_cache_equals_no_cache",
    ),
    Bug(  # a short row sees what lies beyond its end, since another is longer
        row=56,
        file=CACHE,
        old="time = seen[rows, None] + np.arange(T)",
        new="time = seen[rows].max() + np.arange(T) + 0 * rows[:, None]",
        test=TESTS + "test_bug_56_rows_of_unequal_length",
    ),
    Bug(  # all rows write where the first one stands
        row=56,
        file=CACHE,
        old="keys[rows[:, None], :, time] =",
        new="keys[rows[:, None], :, time[:1] + 0 * time] =",
        test=TESTS + "test_bug_56_rows_of_unequal_length",
    ),
    Bug(
        row=56,
        file=CACHE,
        old="self.seen[self.rows] = 0",
        new="pass",
        test=TESTS + "test_bug_56_cleared_cache_is_as_new",
    ),
    Bug(  # the kernel: positions
        row=56,
        file=DECODER,
        old="+ (old + t) * C;",
        new="+ t * C;",
        test=TESTS + "test_bug_56_kernel_of_the_cache",
    ),
    Bug(  # the kernel: a token does not see itself
        row=56,
        file=DECODER,
        old="for (size s = 0; s <= last; s++)\n            for (size d = 0; d < D; d++) y[d] +=",
        new="for (size s = 0; s < last; s++)\n            for (size d = 0; d < D; d++) y[d] +=",
        test=TESTS + "test_bug_56_kernel_of_the_cache",
    ),
    Bug(  # the kernel: every row as long as the first
        row=56,
        file=DECODER,
        old="seen = job->seen[job->row[b]];",
        new="seen = job->seen[job->row[0]];",
        test=TESTS + "test_bug_56_rows_of_unequal_length",
    ),
    Bug(  # the whole text for every token: right, and slow
        row=57,
        file=GENERATION,
        old="        if cache.seen[i] == context:",
        new="        if cache.seen[i]:",
        test=TESTS + "test_bug_57_each_token_is_computed_once",
    ),
    Bug(  # old memory is read after the parameters were packed
        row=56,
        file=MODEL,
        old=(
            "if not cache.parameters or cache.parameters[0] is not "
            "self.token_embedding.weight.array:"
        ),
        new="if not cache.parameters:",
        test=TESTS + "test_parameters_that_were_packed_meanwhile",
    ),
]
