"""Bugs of decoding by hand on a GPU, of the cache, and of the choice of equal bits. None of them
says a word.
"""

from __future__ import annotations

from tests.zoo.bug import Bug

DECODING = "tensor/kernels/cuda/attention/decoding.cu"
TESTS = "tests/tensor/kernels/test_cuda_attention_by_hand.py::"

ZOO = [
    Bug(  # what a hidden key holds gets out: 0 times NaN
        row=97,
        file=DECODING,
        old="                if (!(lookers[n] >> i & 1)) continue;  // 0 times NaN would be NaN\n",
        new="",
        test=TESTS + "test_decoding_from_a_cache",
    ),
    Bug(  # parts are added to different bases
        row=97,
        file=DECODING,
        old="        sums[i].shrink_to(top);\n        W sum",
        new="        W sum",
        test=TESTS + "test_decoding_on_the_cpu",
    ),
    Bug(  # the join forgets the bases
        row=97,
        file=DECODING,
        old="if (d < D) output += weight_of(one[D], top) * one[d];",
        new="if (d < D) output += one[d];",
        test=TESTS + "test_decoding_on_the_cpu",
    ),
    Bug(  # backward of tensor cores reads log-sums to base e as if to base 2
        row=97,
        file="tensor/kernels/cuda/attention/versions.py",
        old="        unit=math.log2(math.e),\n",
        new="",
        test=TESTS + "test_decoding_on_the_cpu",
    ),
    Bug(  # the mask of dropout is the first query's
        row=97,
        file=DECODING,
        old="kept(c, at, t + i, first + n * GROUPS)",
        new="kept(c, at, t, first + n * GROUPS)",
        test=TESTS + "test_decoding_on_the_cpu",
    ),
    Bug(  # a graph keeps keys that the next token changes
        row=97,
        file="tinygpt/model/cache.py",
        old="if MODE.get().recording or not",
        new="if not",
        test="tests/tinygpt/model/test_cache.py"
        "::test_keys_are_copied_only_for_a_graph_and_for_some_rows",
    ),
    Bug(  # a training that was asked for equal bits takes cuDNN's attention
        row=97,
        file="tinygpt/training/step.py",
        old="            stack.enter_context(kernels.deterministic())\n",
        new="            pass\n",
        test="tests/tinygpt/training/test_step.py::test_equal_bits_while_it_computes",
    ),
]
