"""Bugs of a head with its loss, and of the GPU's losses and embeddings: another loss or gradient
without a word.
"""

from __future__ import annotations

from tests.zoo.bug import Bug

LOSSES, LOSSES_CU = (f"tensor/kernels/cuda/cross_entropy.{end}" for end in ("py", "cu"))
TABLES_CU = "tensor/kernels/cuda/embedding.cu"
PRODUCT = "tests/tensor/kernels/test_cuda_losses.py::test_a_product_and_its_loss[65-plain-float64]"
IGNORED = (
    "tests/tensor/kernels/test_cuda_losses.py::test_what_is_ignored_has_no_gradient_for_any_dloss"
)
ROWS = "tests/tensor/kernels/test_cuda_embedding.py::test_rows_and_their_gradients"

ZOO = [
    Bug(  # the loss has three digits
        row=97,
        file="tensor/ops/fused.py",
        old="if logits.dtype in NARROW:",
        new="if False:",
        test="tests/tensor/ops/test_losses.py::"
        "test_the_loss_of_a_product_is_float32_at_least[bfloat16]",
    ),
    Bug(  # the weight's gradient is that of the last chunk of rows
        row=97,
        file=LOSSES,
        old="dweight, add=start > 0)",
        new="dweight)",
        test=PRODUCT,
        device="cuda",
    ),
    Bug(  # the mean's gradient is the sum's
        row=97,
        file=LOSSES_CU,
        old="W share = used ? dloss[0] / (count ? count[0] : 1) : 0;",
        new="W share = used ? dloss[0] : 0;",
        test=PRODUCT,
        device="cuda",
    ),
    Bug(  # an ignored row is NaN where dloss is infinite
        row=97,
        file=LOSSES_CU,
        old="W share = used ? dloss",
        new="W share = true ? dloss",
        test=IGNORED,
        device="cuda",
    ),
    Bug(  # an id with many rows loses those of its last stretch
        row=97,
        file=TABLES_CU,
        old="stretch <= (end - 1) / STRETCH;",
        new="stretch < (end - 1) / STRETCH;",
        test=f"{ROWS}[all equal-8-float32]",
        device="cuda",
    ),
    Bug(  # ids that stand in several chunks overwrite each other
        row=97,
        file=TABLES_CU,
        old="place_of(id, starts, tiles) + before + ranks[n]",
        new="place_of(id, starts, tiles) + ranks[n]",
        test=f"{ROWS}[as in texts-8-float32]",
        device="cuda",
    ),
]
