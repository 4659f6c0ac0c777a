"""Bugs of kernels: blocks and bands that miss their tail, terms left out, gradients written where
they should be added.
"""

from __future__ import annotations

from tests.zoo.bug import Bug

FOLDER = "tensor/kernels/cpu/"
FUSED = "tests/tensor/kernels/test_fused.py::"
NORM, GELU, ENTROPY, EMBED, PRODUCT, ADAMW = (
    f"{FOLDER}{n}.c"
    for n in ("layer_norm", "gelu", "cross_entropy", "embedding", "product", "adamw")
)

ROWS = [
    Bug(
        32,
        NORM,
        "dgain[j] += n * dout[j];",
        "dgain[j] += dout[j];",
        "tests/tensor/kernels/test_cpu.py::test_layer_norm",
    ),
    Bug(
        32,
        NORM,
        " - (s[j] - mean) * scale * dot)",
        ")",
        "tests/tensor/kernels/test_cpu.py::test_layer_norm",
    ),
    Bug(  # eps outside the root
        32,
        NORM,
        "float variance = fmaxf(squares / width - rest * rest, 0) + job->eps;",
        "float variance = powf(sqrtf(fmaxf(squares / width - rest * rest, 0)) + job->eps, 2);",
        "tests/tensor/kernels/test_cpu.py::test_layer_norm",
    ),
    # the variance is that of another mean
    Bug(
        32, NORM, "        mean += rest;\n", "", "tests/tensor/kernels/test_cpu.py::test_layer_norm"
    ),
    Bug(  # of a residual sum, y gets nothing
        14,
        f"{FOLDER}layer_norm.py",
        "(lambda ds: ds, lambda ds: ds)",
        "(lambda ds: ds, None)",
        "tests/tensor/kernels/test_cpu.py::test_residual_layer_norm",
    ),
    Bug(  # the norm of a residual sum leads past the sum: a hook on the sum sees a part
        14,
        "tensor/autograd/forward.py",
        'parents = [getattr(known[i], "node", None) for i in positions]',
        'parents = [getattr(known[i % len(inputs)], "node", None) for i in positions]',
        f"{FUSED}test_a_hook_on_the_residual_stream_sees_its_whole_gradient",
    ),
    Bug(  # a gradient that another op holds is added to
        3,
        "tensor/autograd/backward.py",
        "        elif alone:",
        "        elif True:",
        "tests/tensor/autograd/test_backward.py::test_bug_01_overwrite_instead_of_accumulate",
    ),
    Bug(  # the last rows, which fill no block, are left out
        18,
        f"{FOLDER}kernels.h",
        "return (rows + ROWS - 1) / ROWS;",
        "return rows < ROWS ? 1 : rows / ROWS;",
        "tests/tensor/kernels/test_cpu.py::test_layer_norm",
    ),
    Bug(
        18,
        f"{FOLDER}sums.c",
        "for (size block = 1; block < blocks; block++)",
        "for (size block = 1; block + 1 < blocks; block++)",
        "tests/tensor/kernels/test_cpu.py::test_layer_norm",
    ),
    # 0.044715 mistyped
    Bug(
        37,
        GELU,
        "0x1.2444f2p-4f",
        "0x1.2480f2p-4f",
        "tests/tensor/kernels/test_cpu.py::test_bug_37_constants_of_gelu",
    ),
    Bug(
        37,
        GELU,
        "+ 3.0f * CUBIC * z * z",
        "+ CUBIC * z * z",
        "tests/tensor/kernels/test_cpu.py::test_bug_37_constants_of_gelu",
    ),
    Bug(
        33,
        GELU,
        "FAR = 11.0f",
        "FAR = 9.0f",
        "tests/tensor/kernels/test_cpu.py::test_gelu_of_very_negative_numbers_is_0",
    ),
    # the bias of the layer before gets what came after GELU
    Bug(
        37,
        GELU,
        "sum[j] += dx[j];",
        "sum[j] += dy[j];",
        "tests/tensor/kernels/test_cpu.py::test_linear_gelu",
    ),
    Bug(
        38,
        ENTROPY,
        "(x[j] - most) - level",
        "x[j] - (most + level)",
        "tests/tensor/kernels/test_cpu.py::test_cross_entropy_of_logits_far_from_0",
    ),
    Bug(
        38,
        ENTROPY,
        "float most = -INFINITY, sum = 0;",
        "float most = 0, sum = 0;",
        "tests/tensor/kernels/test_cpu.py::test_cross_entropy_of_logits_far_from_0",
    ),
    Bug(  # a wrong target is a write to another row
        38,
        ENTROPY,
        "        if (target < 0 || target >= width) continue;\n",
        "",
        "tests/tensor/kernels/test_edges.py::test_ids_written_uncounted_since_harm_no_other_row",
    ),
    Bug(  # the gradient of a mean is that of a sum
        38,
        f"{FOLDER}cross_entropy.py",
        'dloss / count if reduction == "mean" else dloss',
        "dloss",
        "tests/tensor/kernels/test_cpu.py::test_cross_entropy",
    ),
    Bug(
        39,
        f"{FOLDER}cross_entropy.py",
        "max(int(np.count_nonzero(targets != ignore_index)), 1)",
        "rows",
        "tests/tensor/kernels/test_cpu.py::test_bug_39_ignored_targets",
    ),
    Bug(
        39,
        ENTROPY,
        "if (job->ignores && target == job->ignored) {  /*",
        "if (0) {  /*",
        "tests/tensor/kernels/test_cpu.py::test_bug_39_ignored_targets",
    ),
    Bug(
        26,
        EMBED,
        "to[id[i] * width + j] += (float)scale",
        "to[id[i] * width + j] = (float)scale",
        "tests/tensor/kernels/test_cpu.py::test_positional_embedding",
    ),
    Bug(
        26,
        EMBED,
        "job->ids[i] >= job->count",
        "job->ids[i] > job->count",
        "tests/tensor/kernels/test_edges.py::test_ids_and_targets_out_of_range_raise",
    ),
    Bug(
        63,
        EMBED,
        "i % job->context * width",
        "(i + 1) % job->context * width",
        "tests/tensor/kernels/test_cpu.py::test_positional_embedding",
    ),
    # every row of a batch has one mask
    Bug(
        47,
        f"{FOLDER}random.c",
        "key.sample += (uint32_t)row;",
        ";",
        "tests/tensor/kernels/test_cpu.py::test_random_bits",
    ),
    # a word keeps more than its 32 bits
    Bug(
        47,
        f"{FOLDER}random.c",
        "k0 = low(k0 + 0x9E3779B9u);",
        "k0 = k0 + 0x9E3779B9u;",
        "tests/tensor/kernels/test_cpu.py::test_random_bits",
    ),
]

PRODUCTS = [
    # each band adds the first band's bias
    Bug(
        18,
        PRODUCT,
        "job->bias + column",
        "job->bias",
        "tests/tensor/kernels/test_cpu.py::test_linear",
    ),
    Bug(  # rows past the last whole block of 16 are left out
        18,
        PRODUCT,
        "stop = job->by_rows ? m : n;",
        "stop = job->blocks > 0 ? job->blocks * 16 : job->by_rows ? m : n;",
        "tests/tensor/kernels/test_cpu.py::test_linear",
    ),
    Bug(
        18,
        PRODUCT,
        "job->gelu + (row + i) * job->n + column",
        "job->gelu + (row + i) * job->n",
        "tests/tensor/kernels/test_cpu.py::test_linear_gelu",
    ),
    Bug(  # of a single row, what the four at a time leave over
        18,
        PRODUCT,
        "    for (; i < k; i++)\n",
        "    for (; i + 4 <= k; i++)\n",
        "tests/tensor/kernels/test_cpu.py::test_linear",
    ),
    Bug(  # bands so small that BLAS takes other code for them
        51,
        PRODUCT,
        "LEAST = 1 << 20;",
        "LEAST = 1 << 15;",
        "tests/tensor/kernels/test_compiled.py::test_the_same_bits_of_products_of_any_size",
    ),
    Bug(  # the second thread that comes takes the first one's setting for BLAS's own
        10,
        PRODUCT,
        "if (change > 0 && inside == 0) {",
        "if (change > 0) {",
        (
            "tests/tensor/kernels/test_compiled.py::"
            "test_threads_of_the_program_do_not_disturb_each_other"
        ),
    ),
    Bug(  # a library made for another processor
        65,
        f"{FOLDER}built.py",
        ", _processor().encode()]",
        "]",
        "tests/tensor/kernels/test_built.py::test_what_a_library_was_made_from_is_in_its_name",
    ),
]

BUFFERS_AND_UPDATES = [
    # last step's gradient is added to
    Bug(
        5,
        f"{FOLDER}linear.py",
        "        out = np.empty(shape, x.dtype) if out is None else out\n",
        "        add, out = out is not None, np.empty(shape, x.dtype) if out is None else out\n",
        (
            "tests/tensor/autograd/test_buffers.py::"
            "test_bug_01_a_buffer_is_overwritten_first_and_added_to_then"
        ),
    ),
    Bug(
        1,
        f"{FOLDER}linear.py",
        "in_order(dy), out, *sizes, add)",
        "in_order(dy), out, *sizes, False)",
        (
            "tests/tensor/autograd/test_buffers.py::"
            "test_bug_01_a_buffer_is_overwritten_first_and_added_to_then"
        ),
    ),
    # of a tied table, what the head wrote is lost
    Bug(
        1,
        f"{FOLDER}embedding.py",
        "        elif not add:\n",
        "        else:\n",
        (
            "tests/tensor/autograd/test_buffers.py::"
            "test_bug_01_a_buffer_is_overwritten_first_and_added_to_then"
        ),
    ),
    # positions that were not met keep what lay there
    Bug(
        5,
        f"{FOLDER}embedding.py",
        "        out[T:] = 0\n",
        "",
        (
            "tests/tensor/autograd/test_buffers.py::"
            "test_bug_01_a_buffer_is_overwritten_first_and_added_to_then"
        ),
    ),
    Bug(
        1,
        "tensor/base.py",
        "return buffer.array, gradient is not None",
        "return buffer.array, False",
        (
            "tests/tensor/autograd/test_buffers.py::"
            "test_bug_01_a_buffer_is_overwritten_first_and_added_to_then"
        ),
    ),
    # one buffer for two gradients
    Bug(
        3,
        "tensor/base.py",
        "taken or inputs.count(self) > 1 or",
        "taken or",
        (
            "tests/tensor/autograd/test_buffers.py::"
            "test_bug_01_a_buffer_is_overwritten_first_and_added_to_then"
        ),
    ),
    Bug(
        3,
        "tensor/base.py",
        "inputs.count(self) > 1 or buffer.storage.saved:",
        "inputs.count(self) > 1:",
        "tests/tensor/autograd/test_buffers.py::test_bug_03_a_gradient_as_an_input",
    ),
    Bug(
        1,
        "tensor/base.py",
        "if self.hooks or taken",
        "if taken",
        "tests/tensor/autograd/test_buffers.py::test_a_hook_sees_the_whole_gradient_once",
    ),
    Bug(
        23,
        "tensor/autograd/backward.py",
        "    if MODE.get().anomaly:  # no",
        "    if False:  # no",
        "tests/tensor/autograd/test_buffers.py::test_buffers_are_really_given",
    ),
    Bug(
        13,
        "tensor/autograd/backward.py",
        "direct = leading is None  #",
        "direct = True  #",
        "tests/tensor/autograd/test_buffers.py::test_gradients_taken_by_grad_touch_no_buffer",
    ),
    Bug(
        41,
        ADAMW,
        "(float)(1 - b2)",
        "1.0f - (float)b2",
        "tests/tensor/kernels/test_cpu.py::test_adamw",
    ),
    Bug(
        41,
        ADAMW,
        "sqrtf(v[i]) * bias_correction + eps",
        "sqrtf(v[i] + eps) * bias_correction",
        "tests/tensor/kernels/test_cpu.py::test_adamw",
    ),
    Bug(
        42,
        ADAMW,
        "w[i] = w[i] * decay - step_size * (m[i] / (sqrtf(v[i]) * bias_correction + eps));",
        "w[i] = (w[i] - step_size * (m[i] / (sqrtf(v[i]) * bias_correction + eps))) * decay;",
        "tests/tensor/kernels/test_cpu.py::test_adamw",
    ),
    Bug(
        43,
        ADAMW,
        "return (n + STRETCH - 1) / STRETCH;",
        "return n < STRETCH ? 1 : n / STRETCH;",
        "tests/tensor/kernels/test_cpu.py::test_norm_and_scale",
    ),
    Bug(
        43,
        ADAMW,
        "    double total = 0;\n#pragma",
        "    float total = 0;\n#pragma",
        "tests/tensor/kernels/test_cpu.py::test_norm_and_scale",
    ),
]

ZOO = [*ROWS, *PRODUCTS, *BUFFERS_AND_UPDATES]
