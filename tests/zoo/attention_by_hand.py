"""Bugs of attention by hand on a GPU, each a wrong value or gradient without a word."""

from __future__ import annotations

from tests.zoo.bug import Bug

FOLDER = "tensor/kernels/cuda/attention/"
TESTS = "tests/tensor/kernels/test_cuda_attention_by_hand.py::"
CORES = TESTS + "test_tensor_cores_on_the_cpu"

ZOO = [
    Bug(  # with more keys than queries, the first query sees the first key alone
        row=97,
        file=f"{FOLDER}heads.cuh",
        old="t + 1 + c.keys - c.queries",
        new="t + 1",
        test=TESTS + "test_plain_on_the_cpu",
    ),
    Bug(  # the sum of before does not shrink when a larger score comes
        row=97,
        file=f"{FOLDER}plain.cu",
        old="sum *= shrink;",
        new="",
        test=TESTS + "test_plain_on_the_cpu",
    ),
    Bug(  # each head gets the mask of the first
        row=97,
        file=f"{FOLDER}heads.cuh",
        old="return ((unsigned long long)at.h * c.queries + t)",
        new="return ((unsigned long long)t)",
        test=TESTS + "test_plain_on_the_cpu",
    ),
    Bug(  # 0 times NaN
        row=97,
        file=f"{FOLDER}tiles.cu",
        old="if (!careful || w[i].v[e] != 0) sums",
        new="sums",
        test=TESTS + "test_what_padding_hides_does_not_get_out",
    ),
    Bug(  # the same, on tensor cores
        row=97,
        file=f"{FOLDER}heads.cuh",
        old="return MASKED && mask.query == 0 &&",
        new="return MASKED && mask.query == 1 &&",
        test=TESTS + "test_what_padding_hides_does_not_get_out",
    ),
    Bug(  # warps multiply what others have not copied yet
        row=97,
        file=f"{FOLDER}tensor_cores.cu",
        old="        __syncthreads();  // the tile is there, and nobody reads the other one\n",
        new="",
        test=CORES,
    ),
    Bug(  # queries of the tile before the first that sees a key are left out of dk and dv
        row=97,
        file=f"{FOLDER}tensor_cores.cu",
        old="max(0, first_query(c, first)) / QUERIES * QUERIES",
        new="max(0, first) / QUERIES * QUERIES",
        test=CORES,
    ),
    Bug(  # a lane takes the bits of dropout that it made, though they are another row's
        row=97,
        file=f"{FOLDER}warp_tiles.cuh",
        old="(lane() & ~1) + i)",
        new="lane())",
        test=CORES,
    ),
    Bug(  # the same, for dk and dv
        row=97,
        file=f"{FOLDER}warp_tiles.cuh",
        old="(lane() & ~12) + 4 * i)",
        new="lane())",
        test=CORES,
    ),
    Bug(  # the keys of a row begin in the middle of a counter of dropout
        row=97,
        file=f"{FOLDER}heads.cuh",
        old="eight >> i % 4 & 15",
        new="eight & 15",
        test=CORES,
    ),
    Bug(  # rows that tensor cores cannot copy by 16 bytes
        row=97,
        file=f"{FOLDER}versions.py",
        old="together |= stride * dtype.itemsize",
        new="together |= 0",
        test=TESTS + "test_which_version_takes_what",
    ),
]
