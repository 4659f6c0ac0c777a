"""Bugs of the kernels of attention: masks, dropout, blocks of queries."""

from __future__ import annotations

from tests.zoo.bug import Bug

FOLDER = "tensor/kernels/cpu/"
ATTEND = f"{FOLDER}attention.c"
EDGES = "tests/tensor/kernels/test_cpu.py::test_attention_at_its_edges"
ANY_KIND = "tests/tensor/kernels/test_cpu.py::test_attention_of_any_kind"

ZOO = [
    Bug(  # a mask in the place of the bias adds 1 where it is True
        97,
        "tensor/ops/attention.py",
        '    if str(dtype).endswith("bool"):',
        "    if False:",
        "tests/tensor/ops/test_attention.py::test_what_is_wrong_is_said",
    ),
    Bug(  # the mask of the first head serves every head
        60, ATTEND, "+ item % job->H * mask.head +", "+", ANY_KIND
    ),
    Bug(60, ATTEND, "t * mask.row;", "0;", ANY_KIND),
    Bug(  # a score that overflowed hides its key
        77,
        ATTEND,
        "if (zeros[i] != 0) tell(&job->not_finite);\n    return seen;",
        ";\n    return seen;",
        EDGES,
    ),
    Bug(  # a mask of the keys is written out for every query
        97,
        f"{FOLDER}attention.py",
        "_by_heads(np.broadcast_to(mask, shape))",
        "_by_heads(np.broadcast_to(mask, shape).copy())",
        "tests/tensor/kernels/test_attention.py::test_memory_grows_with_the_number_of_tokens",
    ),
    Bug(  # dropout in NumPy, where all weights are in memory at once
        97,
        f"{FOLDER}attention.py",
        "if dropout and not (usable",
        "if dropout or not (usable",
        "tests/tensor/kernels/test_attention.py::test_memory_grows_with_the_number_of_tokens",
    ),
    Bug(  # a term of the exponential is forgotten: its error is 2e-6
        97,
        f"{FOLDER}kernels.h",
        "float p = 1.3981999507e-3f + r * 1.9875691500e-4f;",
        "float p = 0;",
        "tests/tensor/kernels/test_attention.py::test_error_is_at_most_twice_that_of_the_reference",
    ),
    Bug(  # every pair of the first two of five axes is a sample
        67, f"{FOLDER}attention.py", "len(full) in (3, 4)", "len(full) > 2", EDGES
    ),
    Bug(  # beside a hidden value that is not finite, slopes go through weights that were dropped
        33,
        "tensor/ops/attention.py",
        "kept(product(dy",
        "(product(dy",
        "tests/tensor/ops/test_attention.py::"
        "test_bug_33_dropout_beside_a_hidden_value_that_is_not_finite",
    ),
    Bug(
        67,
        f"{FOLDER}attention.py",
        "key is not None and 0 < dropout < 1",
        "True",
        "tests/tensor/kernels/test_cpu.py::test_dropout_of_attention_is_checked_with_kernels_too",
    ),
    Bug(  # a query that sees nothing
        60, ATTEND, "if (most == -INFINITY) most = 0;", "", ANY_KIND
    ),
    Bug(  # every sample has the dropout of the first
        67, ATTEND, "key.sample += (uint32_t)(item / job->H);", "", ANY_KIND
    ),
    Bug(  # dropout is forgotten in dv
        67, ATTEND, "if (drawn) drop(job, row,", "if (0) drop(job, row,", ANY_KIND
    ),
    Bug(  # one token too far
        55,
        ATTEND,
        "larger(0, t + 1 + job->S - job->T)",
        "smaller(job->S, t + 2 + job->S - job->T)",
        "tests/tensor/kernels/test_cpu.py::test_bug_55_no_kernel_sees_the_future",
    ),
    Bug(  # one token too few
        55,
        ATTEND,
        "larger(0, t + 1 + job->S - job->T)",
        "larger(1, t + job->S - job->T)",
        "tests/tensor/kernels/test_cpu.py::test_multi_head_attention",
    ),
    Bug(  # the last queries, which fill no block, are left out
        60,
        ATTEND,
        "job->k.row, turned_k, S, D);\n    for (size start = 0; start < T; start += BLOCK) {",
        "job->k.row, turned_k, S, D);\n"
        "    for (size start = 0; start == 0 || start + BLOCK <= T; start += BLOCK) {",
        "tests/tensor/kernels/test_cpu.py::test_multi_head_attention",
    ),
    Bug(  # values and keys changed over
        60,
        ATTEND,
        "k.first += C, v.first += 2 * C;",
        "v.first += C, k.first += 2 * C;",
        "tests/tinygpt/model/test_cache.py::test_bug_56_kernel_of_the_cache",
    ),
    Bug(  # every head takes the sums of the first
        60,
        ATTEND,
        "const float *greatest = job->most + item * T, *totals = job->total + item * T;",
        "const float *greatest = job->most + item * T, *totals = job->total;",
        "tests/tensor/kernels/test_cpu.py::test_multi_head_attention",
    ),
    Bug(  # of several blocks of queries the last one's dv is kept
        1,
        ATTEND,
        "dv, 1, W, P, P, seen, P, count, 1}",
        "dv, 1, W, P, P, seen, P, count, 0}",
        "tests/tensor/kernels/test_cpu.py::test_multi_head_attention",
    ),
    Bug(
        60,
        ATTEND,
        "(drow[i] - dot) * scale",
        "(drow[i] - dot)",
        "tests/tensor/kernels/test_cpu.py::test_multi_head_attention",
    ),
    Bug(
        60,
        ATTEND,
        "row[i] * (drow[i] - dot)",
        "row[i] * drow[i]",
        "tests/tensor/kernels/test_cpu.py::test_multi_head_attention",
    ),
    Bug(  # a finite number for "never"
        34,
        ATTEND,
        "i < keys; i++) row[i] = -INFINITY;",
        "i < keys; i++) row[i] = -1e4f;",
        "tests/tensor/ops/test_attention.py::test_bug_34_future_weighs_exactly_nothing",
    ),
    Bug(  # in NumPy: one token too far, across a block's edge too
        55,
        f"{FOLDER}attention.py",
        "keys = S - T + here.stop if",
        "keys = min(S, S - T + here.stop + 1) if",
        "tests/tensor/kernels/test_edges.py::test_attention_by_blocks_in_numpy",
    ),
    Bug(
        1,
        f"{FOLDER}attention.py",
        "dk[..., :keys, :] +=",
        "dk[..., :keys, :] =",
        "tests/tensor/kernels/test_edges.py::test_attention_by_blocks_in_numpy",
    ),
]
