"""Bugs of what goes beyond: numbers beyond what a kernel or a float can hold, inputs that miss a
kernel, and a Ctrl-C that does not wait.
"""

from __future__ import annotations

from tests.zoo.bug import Bug

ZOO = [
    Bug(  # after a second Ctrl-C in a save, a run with checkpoints is called lost
        row=97,
        file="tinygpt/training/loop.py",
        old="state = folder and checkpoint.state_of(folder)",
        new="state = (folder / checkpoint.STATE).exists() and checkpoint.state_of(folder)",
        test="tests/tinygpt/test_terminal.py::test_a_second_ctrl_c_in_a_save_says_what_is_saved",
    ),
    Bug(  # of 2**64, C sees the last 64 bits: targets of 0 are left out
        row=97,
        file="tensor/ops/losses.py",
        old="if not -(2**63) <= (ignore_index or 0) < 2**63:",
        new="if False:",
        test="tests/tensor/ops/test_losses.py::test_no_target_is_an_ignore_index_beyond_64_bits",
    ),
    Bug(  # the words of ctypes
        row=97,
        file="tensor/errors.py",
        old="    words = mistake(function, inputs, options)\n",
        new="    if not isinstance(error, (TypeError, ValueError, AttributeError)):\n"
        "        return None\n    words = mistake(function, inputs, options)\n",
        test="tests/tensor/ops/test_losses.py::test_cross_entropy_says_what_is_wrong",
    ),
    Bug(  # targets that are a list: on a GPU the logits of the whole batch are made
        row=97,
        file="tensor/ops/op.py",
        old="inputs, options, parents = *signature.plain(inputs, options), []",
        new="parents = []",
        test="tests/tensor/kernels/test_fused.py::"
        "test_ids_and_masks_that_are_no_tensors_keep_the_kernel",
    ),
    Bug(  # after enough bad steps the scale is 0, and the norm is divided by 0
        row=97,
        file="tensor/optim/scaling.py",
        old="min(max(LEAST, value), MOST)",
        new="value",
        test="tests/tinygpt/training/test_half_precision.py::"
        "test_the_scale_stays_a_number_of_float32",
    ),
    Bug(  # and so on a GPU
        row=97,
        file="tensor/kernels/cuda/adamw.cu",
        old="fmin(fmax(LEAST, next), MOST)",
        new="next",
        test="tests/tensor/kernels/test_cuda_adamw.py::test_the_loss_scale_is_that_of_the_host",
        device="cuda",
    ),
]
