"""Bugs of kernels, and of their references, at the edge: where NaN, infinity and 3e38 stand, and
memory that C must not walk.
"""

from __future__ import annotations

from tests.zoo.bug import Bug

FOLDER = "tensor/kernels/cpu/"
ATTEND, NORM, GELU, ENTROPY = (
    f"{FOLDER}{n}.c" for n in ("attention", "layer_norm", "gelu", "cross_entropy")
)
EXTREMES, MEMORY = (f"tests/tensor/kernels/test_{name}.py::" for name in ("extremes", "memory"))
SEEN = f"{EXTREMES}test_bug_33_what_is_not_finite_reaches_the_gradients_of_who_sees_it"
COPIED = f"{MEMORY}test_bug_18_gradients_that_are_not_aligned_are_copied"

KERNELS = [
    # -infinity in q; values whose sum overflows before it is divided
    Bug(
        33,
        ATTEND,
        "zero += copy_back(out, ",
        "copy_back(out, ",
        EXTREMES + "test_bug_33_infinite_queries_and_weights_that_overflow",
    ),
    # an infinite upstream gradient times a weight of 0
    Bug(
        33,
        ATTEND,
        "zero += from[t * padded(D) + d] * 0.0f;",
        "",
        EXTREMES + "test_bug_33_kernel_and_reference_agree_on_what_is_not_finite",
    ),
    Bug(
        33,
        f"{FOLDER}attention.py",
        "                dpart[...] = wanted\n",
        "                pass\n",
        EXTREMES + "test_bug_33_kernel_and_reference_agree_on_what_is_not_finite",
    ),
    Bug(
        33,
        NORM,
        "!(squares <= FLT_MAX) || ",
        "",
        "tests/tensor/kernels/test_extremes.py::test_bug_33_rows_whose_sums_overflow",
    ),
    Bug(
        33,
        NORM,
        "        if (!(fabsf(total) <= FLT_MAX) || !(fabsf(dot) <= FLT_MAX)) tell(&job->lost);\n",
        "",
        "tests/tensor/kernels/test_extremes.py::test_bug_33_rows_whose_sums_overflow",
    ),
    Bug(
        77,
        GELU,
        "return fabsf(x) > FAR ? FAR : fabsf(x);",
        "return fabsf(x);",
        EXTREMES + "test_bug_77_gelu_has_its_slope_up_to_the_largest_number",
    ),
    Bug(
        33,
        ENTROPY,
        "        if (!(fabsf(share) <= FLT_MAX)) tell(&job->not_finite);\n",
        "",
        EXTREMES + "test_bug_33_kernel_and_reference_agree_on_what_is_not_finite",
    ),
    Bug(
        33,
        ENTROPY,
        "if (job->ignores && target == job->ignored) {  /*",
        "if (share == 0) {  /*",
        "tests/tensor/kernels/test_extremes.py::test_bug_33_no_gradient_for_a_row_of_nan",
    ),
    Bug(
        41,
        f"{FOLDER}adamw.c",
        "step_size * (m[i] / (sqrtf(v[i]) * bias_correction + eps));",
        "step_size * m[i] / (sqrtf(v[i]) * bias_correction + eps);",
        "tests/tensor/kernels/test_extremes.py::test_bug_41_adamw_of_extremes",
    ),
    Bug(  # fmaxf drops NaN
        33,
        f"{FOLDER}muon.c",
        "    float norm = (float)sqrt(squares);\n",
        "    float norm = fmaxf((float)sqrt(squares), 1.17549435e-38f);\n",
        "tests/tensor/kernels/test_extremes.py::test_bug_33_muon_of_extremes",
    ),
    Bug(
        33,
        f"{FOLDER}decoder.c",
        "return not_finite || !all_finite",
        "return !all_finite",
        "tests/tinygpt/model/test_cache.py::test_bug_33_weights_that_are_not_finite",
    ),
    Bug(
        33,
        f"{FOLDER}decoder.py",
        "return NotImplemented if strange else logits",
        "return logits",
        "tests/tinygpt/model/test_cache.py::test_bug_33_weights_that_are_not_finite",
    ),
]

REFERENCES = [
    Bug(
        33,
        "tensor/ops/attention.py",
        "weights = np.where(allowed, weights, 0)  # a",
        "pass  # a",
        SEEN,
    ),
    Bug(
        33,
        "tensor/ops/attention.py",
        "product: Any = _seen_product if careful else np.matmul",
        "product: Any = np.matmul",
        SEEN,
    ),
    Bug(  # dq and dk stay finite
        33,
        "tensor/ops/attention.py",
        "np.where(weights == 0, 0, kept(product(dy, v.swapaxes(-1, -2))))",
        "dy @ np.nan_to_num(v, posinf=0, neginf=0).swapaxes(-1, -2)",
        SEEN,
    ),
    Bug(
        33, "tensor/ops/attention.py", "dscores = np.where(weights == 0, 0, dscores)", "pass", SEEN
    ),
    Bug(
        33,
        "tensor/ops/attention.py",
        "    y[((a > 0) @ below) | ((a < 0) @ above)] -= np.inf  # where both are, NaN\n",
        "",
        SEEN,
    ),
    Bug(
        77,
        "tensor/ops/activations.py",
        "tail(as_array(np.minimum(np.abs(x), 1000)))",
        "tail(as_array(np.abs(x)))",
        EXTREMES + "test_bug_77_gelu_has_its_slope_up_to_the_largest_number",
    ),
    Bug(
        43,
        "tensor/optim/clipping.py",
        "part.astype(np.float64, copy=False)",
        "part",
        "tests/tensor/kernels/test_extremes.py::test_bug_43_a_norm_whose_squares_overflow",
    ),
    Bug(  # what a row forgot, or has not seen, is NaN times 0
        33,
        "tinygpt/model/cache.py",
        "(q, k, v)), mask=visible)",
        "(q, k, v)), bias=np.where(visible, 0, -np.inf).astype(q.dtype))",
        "tests/tinygpt/model/test_cache.py::test_bug_33_what_a_cache_forgot_harms_nobody",
    ),
]

WALKS = [
    Bug(
        18,
        f"{FOLDER}compiled.py",
        "IN_ORDER = 0x101",
        "IN_ORDER = 0x001",
        MEMORY + "test_bug_18_what_is_not_aligned_is_left_to_the_reference",
    ),
    *(
        Bug(
            18,
            f"{FOLDER}{file}.py",
            text,
            text.replace("in_order(", "np.ascontiguousarray("),
            COPIED,
        )
        for file, text in (
            ("attention", "_split(in_order(dy), 1, heads)"),
            ("embedding", "library.add_rows(ids, in_order(dy)"),
            ("linear", "library.gelu_backward(x, in_order(dy)"),
            ("layer_norm", "dy, dx = in_order(dy)"),
            ("linear", "library.linear_dx(in_order(dy)"),
        )
    ),
    Bug(
        18,
        f"{FOLDER}updates.py",
        'refusal(w, *others) if w.flags.writeable else "read-only"',
        "refusal(w, *others)",
        "tests/tensor/kernels/test_memory.py::test_bug_18_updates_write_only_what_may_be_written",
    ),
    Bug(  # C takes row -1 for memory before the cache
        56,
        "tinygpt/model/cache.py",
        "np.arange(len(self.seen))[list(rows)]",
        "np.array(rows)",
        MEMORY + "test_bug_56_rows_of_a_cache_are_counted_from_its_start",
    ),
]

ZOO = [*KERNELS, *REFERENCES, *WALKS]
