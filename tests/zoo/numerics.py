"""Bugs of values and gradients: counts, overflow, masks, kinks, 16 bits, randomness."""

from __future__ import annotations

from tests.zoo.bug import Bug

INDEXING, REDUCTIONS, SOFTMAX, NORM = (
    f"tensor/ops/{name}.py" for name in ("indexing", "reductions", "softmax", "normalization")
)
ELEMENTWISE, LOSS, ATTEND, DROPOUT = (
    f"tensor/ops/{name}.py" for name in ("elementwise", "losses", "attention", "dropout")
)

ZOO = [
    Bug(  # of equal ids the last one's gradient is kept
        row=26,
        file="tensor/memory/devices.py",
        old="(cupy() if is_cuda(target) else np).add.at(target, key, values)",
        new="target[key] += values",
        test="tests/tensor/ops/test_numerics.py::test_bug_26_repeated_ids_add_up",
    ),
    Bug(  # of equal ids the first one's gradient is kept
        row=26,
        file=INDEXING,
        old="np.add.reduceat(rows[order], starts, axis=0)",
        new="rows[order][starts]",
        test="tests/tensor/ops/test_numerics.py::test_bug_26_repeated_ids_add_up",
    ),
    Bug(  # gradients of a table are summed in its own 16 bits
        row=26,
        file="tensor/ops/wider.py",
        old="fitting(backward(widened(dy)))",
        new="fitting(backward(dy))",
        test="tests/tensor/ops/test_numerics.py::test_bug_26_many_repeats_in_16_bits",
    ),
    Bug(  # of several axes only the first counts
        row=29,
        file=REDUCTIONS,
        old='axes, count = _over(x, axis, keepdims, "mean")',
        new='axes = normalise_axes(axis, x.ndim)\n    _, count = _over(x, axes[:1], False, "mean")',
        test="tests/tensor/ops/test_numerics.py::test_bug_29_mean_divides_by_what_it_summed",
    ),
    Bug(  # the value is right, its gradient is that of a sum
        row=29,
        file=REDUCTIONS,
        old="share = dy / count",
        new="share = dy / 1",
        test="tests/tensor/ops/test_numerics.py::test_bug_29_mean_divides_by_what_it_summed",
    ),
    Bug(  # always the population's variance
        row=31,
        file=REDUCTIONS,
        old="/ size, size - correction",
        new="/ size, size",
        test="tests/tensor/ops/test_numerics.py::test_bug_31_divisor_of_variance",
    ),
    Bug(  # 0 / 0 where nothing varies
        row=31,
        file=REDUCTIONS,
        old="np.where(y == 0, 1, y)",
        new="y",
        test="tests/tensor/ops/test_numerics.py::test_bug_31_one_element",
    ),
    Bug(  # a mean that rounds leaves a spread where there is none
        row=31,
        file=REDUCTIONS,
        old="shifted = x - 1.0 * first",
        new="shifted = x - 0.0 * first",
        test="tests/tensor/ops/test_numerics.py::test_bug_31_constant_rows_have_no_spread",
    ),
    Bug(  # the third term forgotten
        row=32,
        file=NORM,
        old=(
            "        dx = inverse_std * (\n"
            "            dnormed\n"
            "            - dnormed.mean(-1, keepdims=True)\n"
            "            - normed * (dnormed * normed).mean(-1, keepdims=True)\n"
            "        )\n"
        ),
        new="        dx = inverse_std * (dnormed - dnormed.mean(-1, keepdims=True))\n",
        test="tests/tensor/ops/test_numerics.py::test_bug_32_layer_norm_backward",
    ),
    Bug(  # the second term forgotten
        row=32,
        file=NORM,
        old=(
            "        dx = inverse_std * (\n"
            "            dnormed\n"
            "            - dnormed.mean(-1, keepdims=True)\n"
            "            - normed * (dnormed * normed).mean(-1, keepdims=True)\n"
            "        )\n"
        ),
        new=(
            "        dx = inverse_std * (dnormed - normed * (dnormed * normed).mean(-1, "
            "keepdims=True))\n"
        ),
        test="tests/tensor/ops/test_numerics.py::test_bug_32_layer_norm_backward",
    ),
    Bug(  # gain's gradient takes one row of each sequence for all
        row=32,
        file=NORM,
        old="(dy * normed).sum(rows)",
        new="(dy * normed)[(slice(None), *(0,) * (dy.ndim - 2))].sum(0)",
        test="tests/tensor/ops/test_numerics.py::test_bug_32_layer_norm_backward",
    ),
    Bug(
        row=32,
        file=NORM,
        old="variance = (centred * centred).mean(-1, keepdims=True) + eps",
        new="variance = (np.sqrt((centred * centred).mean(-1, keepdims=True)) + eps) ** 2",
        test="tests/tensor/ops/test_numerics.py::test_bug_32_epsilon_is_inside_the_root",
    ),
    Bug(
        row=33,
        file=SOFTMAX,
        old="y = np.exp(x - np.where(np.isneginf(m), 0, m))",
        new="y = np.exp(x)",
        test="tests/tensor/ops/test_numerics.py::test_bug_33_softmax_does_not_overflow",
    ),
    Bug(
        row=33,
        file=SOFTMAX,
        old="return y / np.where(total == 0, 1, total)",
        new="return y / total",
        test="tests/tensor/ops/test_numerics.py::test_bug_33_softmax_of_a_row_without_weight",
    ),
    Bug(
        row=33,
        file=SOFTMAX,
        old="return y / np.where(total == 0, 1, total)",
        new="return y / total",
        test="tests/tensor/ops/test_attention.py::test_bug_33_query_that_sees_nothing",
    ),
    Bug(  # a weight of 0 times NaN
        row=33,
        file=ATTEND,
        old="    if finite.all():",
        new="    if True:",
        test="tests/tensor/ops/test_attention.py::test_bug_33_anything_behind_a_mask",
    ),
    Bug(
        row=34,
        file=ATTEND,
        old="scores = np.where(allowed, scores, -np.inf)",
        new="scores = np.where(allowed, scores, -1e4).astype(q.dtype)",
        test="tests/tensor/ops/test_attention.py::test_bug_34_future_weighs_exactly_nothing",
    ),
    Bug(
        row=34,
        file=ATTEND,
        old="scores = np.where(allowed, scores, -np.inf)",
        new="scores = np.where(allowed, scores, -1e9).astype(q.dtype)",
        test="tests/tensor/ops/test_attention.py::test_bug_34_future_weighs_exactly_nothing",
    ),
    Bug(  # added, not put in place
        row=34,
        file=ATTEND,
        old="scores = np.where(allowed, scores, -np.inf)",
        new="scores = (scores + np.where(allowed, 0.0, -1e4)).astype(q.dtype)",
        test=(
            "tests/tensor/ops/test_attention.py::"
            "test_bug_34_changing_the_future_changes_no_bit_of_the_past"
        ),
    ),
    Bug(
        row=35,
        file=ELEMENTWISE,
        old="return dy * s if _finite(s) else _taken(dy, lambda: dy * s)",
        new="return dy * s",
        test="tests/tensor/ops/test_numerics.py::test_bug_35_branch_not_taken_sends_nothing_back",
    ),
    Bug(  # b a^(b-1) at 0^0: 0 times infinity
        row=36,
        file=ELEMENTWISE,
        old="np.where(b == 0, 0, b * powers)",
        new="(b * powers)",
        test="tests/tensor/ops/test_numerics.py::test_bug_36_pinned_values_and_subgradients",
    ),
    Bug(  # ln(0) y at 0^b: infinity times 0
        row=36,
        file=ELEMENTWISE,
        old="np.where(np.equal(a, 0) & np.greater_equal(b, 0), 0, grown)",
        new="grown",
        test="tests/tensor/ops/test_numerics.py::test_bug_36_pinned_values_and_subgradients",
    ),
    Bug(  # a tie sends the whole gradient to both
        row=36,
        file=ELEMENTWISE,
        old="np.where(np.equal(a, b), 0.5,",
        new="np.where(np.equal(a, b), 1.0,",
        test="tests/tensor/ops/test_numerics.py::test_bug_36_pinned_values_and_subgradients",
    ),
    Bug(  # so does a maximum that occurs twice
        row=36,
        file=REDUCTIONS,
        old="dy.reshape(y.shape) / chosen.sum(axis=axes, keepdims=True).astype(dy.dtype)",
        new="dy.reshape(y.shape)",
        test="tests/tensor/ops/test_numerics.py::test_bug_36_pinned_values_and_subgradients",
    ),
    Bug(
        row=36,
        file="tensor/ops/activations.py",
        old="dy * ~(x <= 0)",
        new="dy * ~(x < 0)",
        test="tests/tensor/ops/test_numerics.py::test_bug_36_pinned_values_and_subgradients",
    ),
    Bug(  # the erf form computed by the other
        row=37,
        file="tensor/ops/activations.py",
        old='_normal_tail if form == "erf" else _tanh_tail',
        new="_tanh_tail",
        test="tests/tensor/ops/test_numerics.py::test_bug_37_two_forms_of_gelu",
    ),
    Bug(  # the default changed over
        row=37,
        file="tensor/ops/activations.py",
        old='def gelu(x: Array, form: str = "tanh") -> Any:',
        new='def gelu(x: Array, form: str = "erf") -> Any:',
        test="tests/tensor/ops/test_numerics.py::test_bug_37_two_forms_of_gelu",
    ),
    Bug(  # 0.044715 mistyped
        row=37,
        file="tensor/ops/activations.py",
        old="math.sqrt(2 / math.pi), 0.044715",
        new="math.sqrt(2 / math.pi), 0.04475",
        test="tests/tensor/ops/test_numerics.py::test_bug_37_two_forms_of_gelu",
    ),
    Bug(
        row=38,
        file=LOSS,
        old="x = x - x.max(-1, keepdims=True)",
        new="x = x + 0",
        test="tests/tensor/ops/test_losses.py::test_bug_38_large_logits",
    ),
    Bug(  # every row looks up the target of the first
        row=38,
        file=LOSS,
        old="np.take_along_axis(x, ids, -1))[..., 0]",
        new="x[..., ids.reshape(-1)[:1]])[..., 0]",
        test="tests/tensor/ops/test_losses.py::test_bug_38_cross_entropy_by_hand",
    ),
    Bug(  # the gradient of a mean is that of a sum
        row=38,
        file=LOSS,
        old=("lambda dloss: dloss / count"),
        new="lambda dloss: dloss",
        test="tests/tensor/ops/test_losses.py::test_bug_38_cross_entropy_by_hand",
    ),
    Bug(  # smoothed where it should not be: the row's gradient no longer adds up to 0
        row=38,
        file=LOSS,
        old=("wanted = onehot * (1 - label_smoothing) +"),
        new=("wanted = onehot +"),
        test="tests/tensor/ops/test_losses.py::test_bug_38_cross_entropy_by_hand",
    ),
    Bug(  # ids in 16 bits
        row=38,
        file=LOSS,
        old="ids = np.where(used, targets, 0)[..., None]",
        new="ids = np.where(used, targets, 0)[..., None].astype(np.uint16)",
        test="tests/tensor/ops/test_losses.py::test_bug_38_many_classes",
    ),
    Bug(  # the mean is over all targets
        row=39,
        file=LOSS,
        old="count = np.maximum(used.sum(), 1).astype(losses.dtype)",
        new="count = np.maximum(used.size, 1).astype(losses.dtype)",
        test="tests/tensor/ops/test_losses.py::test_bug_39_mean_over_what_is_not_ignored",
    ),
    Bug(  # 0 / 0 when nothing is left
        row=39,
        file=LOSS,
        old="count = np.maximum(used.sum(), 1).astype(losses.dtype)",
        new="count = used.sum().astype(losses.dtype)",
        test="tests/tensor/ops/test_losses.py::test_bug_39_all_ignored",
    ),
    Bug(  # what is ignored is computed all the same
        row=39,
        file=LOSS,
        old="x = np.where(used[..., None], logits, 0)",
        new="x = logits",
        test="tests/tensor/ops/test_losses.py::test_bug_39_anything_may_stand_in_an_ignored_row",
    ),
    Bug(
        row=40,
        file="tensor/ops/op.py",
        old="if NARROW & met:",
        new="if False:",
        test="tests/tensor/ops/test_numerics.py::test_bug_40_long_sums_in_16_bits",
    ),
    Bug(  # the sum that undoes a broadcast
        row=40,
        file="tensor/autograd/broadcast.py",
        old="    if x.dtype in NARROW:",
        new="    if False:",
        test="tests/tensor/ops/test_numerics.py::test_bug_40_long_sums_in_16_bits",
    ),
    Bug(
        row=47,
        file="tensor/nn/layers.py",
        old="if not self.learning or self.p == 0:",
        new="if self.p == 0:",
        test="tests/tensor/nn/test_modules.py::test_bug_47_evaluation_is_the_identity",
    ),
    Bug(  # what is left is not scaled up
        row=47,
        file=DROPOUT,
        old="(1 / (1 - p) if p < 1 else 0.0)",
        new="1.0",
        test="tests/tensor/nn/test_modules.py::test_bug_47_expectation_is_kept",
    ),
    Bug(  # another mask on the way back
        row=47,
        file=DROPOUT,
        old="(lambda dy: dy * factor,)",
        new="(lambda dy: dy * scaled_mask(x, p, key._replace(step=key.step + 1)),)",
        test="tests/tensor/nn/test_modules.py::test_bug_47_one_mask_forward_and_backward",
    ),
]
