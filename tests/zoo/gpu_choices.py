"""Bugs of trainings on a GPU: a choice without effect, or gradients of other arrays."""

from __future__ import annotations

from tests.zoo.bug import Bug

ATTENTION = "tensor/kernels/cuda/attention/by_cudnn.py"
CUDNN = "tensor/kernels/cuda/cudnn.py"
TESTS = "tests/tensor/kernels/test_cuda_attention.py::"

ZOO = [
    Bug(  # --tf32 does nothing
        row=97,
        file="tinygpt/training/step.py",
        old="            stack.enter_context(kernels.tf32())\n",
        new="            pass\n",
        test="tests/tinygpt/training/test_step.py::test_tf32_while_it_computes",
    ),
    Bug(  # a preset overrides the flags
        row=97,
        file="tinygpt/commands/choices.py",
        old="**defaults | given",
        new="**given | defaults",
        test="tests/tinygpt/commands/test_flags.py::test_a_preset_is_gpt2_and_flags_count_more",
    ),
    Bug(  # values are read where keys are
        row=97,
        file=ATTENTION,
        old="return start, keys, keys + q.shape[2] * ITEMSIZE",
        new="return start, keys, keys",
        test=TESTS + "test_packed_arrays_are_read_and_written_in_place",
    ),
    Bug(  # with more keys than queries, the first query sees the first key alone
        row=97,
        file=CUDNN,
        old="ends.TOP_LEFT if S == T else ends.BOTTOM_RIGHT",
        new="ends.TOP_LEFT",
        test=TESTS + "test_packed_arrays_are_read_and_written_in_place",
    ),
    Bug(  # a gradient in another order is read as if it were row-major
        row=97,
        file=ATTENTION,
        old="dy, dq = contiguous(dy), empty(",
        new="dy, dq = dy, empty(",
        test=TESTS + "test_packed_arrays_are_read_and_written_in_place",
    ),
    Bug(  # equal bits were asked for, and the plan of before is taken
        row=97,
        file=ATTENTION,
        old="return q.dtype, heads, causal, deterministic, device",
        new="return q.dtype, heads, causal, False, device",
        test=TESTS + "test_explain_says_that_backward_is_not_deterministic",
    ),
]
