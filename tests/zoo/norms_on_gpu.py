"""Bugs of LayerNorm on a GPU, and of the gradient that its backward adds to."""

from __future__ import annotations

from tests.zoo.bug import Bug

SO_FAR = "tests/tensor/autograd/test_gradient_so_far.py::"
NORMS = "tests/tensor/kernels/test_cuda_norms.py::"

ZOO = [
    Bug(  # the gradient so far counts twice
        row=97,
        file="tensor/graph.py",
        old="sums.pop(parents[0], (None,))[0]",
        new="sums.get(parents[0], (None,))[0]",
        test=f"{SO_FAR}test_the_sum_is_that_of_the_composition",
    ),
    Bug(  # a recording shows the sum for the gradient of one op
        row=97,
        file="tensor/autograd/backward.py",
        old="sums=None if self.recorder.values else self.total",
        new="sums=self.total",
        test=f"{SO_FAR}test_a_recording_shows_the_gradient_of_the_op_alone",
    ),
    Bug(  # rows near 1e20 have no variance in float32
        row=97,
        file="tensor/kernels/cuda/layer_norm.cu",
        old="moments<double>(held",
        new="moments<W>(held",
        test=f"{NORMS}test_rows_whose_squares_overflow_or_vanish",
        device="cuda",
    ),
    Bug(  # the gradients of gain and bias replace those of the batches before
        row=97,
        file="tensor/kernels/cuda/sums.cu",
        old="(blockIdx.y ? add_second : add) ?",
        new="false ?",
        test=f"{NORMS}test_layer_norm_of_all_shapes",
        device="cuda",
    ),
]
