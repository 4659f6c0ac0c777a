"""Bugs at the edge: digits lost in tails, overflow on the way, gradients of branches not taken."""

from __future__ import annotations

from tests.zoo.bug import Bug

EDGE = "tests/tensor/ops/test_edge.py::"
RANGE = EDGE + "test_bug_77_errors_over_the_whole_range_of_floats"
BRANCH = EDGE + "test_bug_76_a_branch_not_taken_gets_no_gradient"
WIDTH_1 = EDGE + "test_bug_77_layer_norm_of_one_number_and_of_tiny_ones"
NOTHING = EDGE + "test_bug_33_log_softmax_of_nothing_but_minus_infinity"
GELU, NORM = (f"tensor/kernels/cpu/{name}.c" for name in ("gelu", "layer_norm"))
ACTIVATIONS, ELEMENTWISE, REDUCTIONS, LOSSES, SOFTMAX = (
    f"tensor/ops/{name}.py"
    for name in ("activations", "elementwise", "reductions", "losses", "softmax")
)

FUNCTIONS = [
    Bug(  # e^-t has the rounding errors of t = 80
        97, GELU, "scaled_exponential(-t, -rest, 64)", "scaled_exponential(-t, 0, 64)",
        RANGE + "[gelu, tanh]",
    ),
    Bug(  # e^-t is 0 before z e^-t is
        97, GELU, "return scaled_exponential(", "return t > 87 ? 0 : scaled_exponential(",
        RANGE + "[gelu, tanh]",
    ),
    Bug(  # the square of x is rounded before e^x of it
        97, ACTIVATIONS, "density = bell(z, 0.5)", "density = np.exp(-0.5 * z * z)",
        RANGE + "[gelu, erf]",
    ),
    Bug(97, ACTIVATIONS, "product = z.astype(float64)", "product = z.copy()",
        RANGE + "[gelu, tanh]"),
    Bug(97, ACTIVATIONS, "np.exp(-near), np.exp(near - z)", "np.exp(-z), 1", RANGE + "[silu]"),
    Bug(97, ACTIVATIONS, "small / (1 + small) ** 2", "y * (1 - y)", RANGE + "[sigmoid]"),
    Bug(97, ELEMENTWISE, "4 * e / (1 + e) ** 2", "1 - np.tanh(x) ** 2", RANGE + "[tanh]"),
    Bug(97, ELEMENTWISE, "bell(np.clip(x, -40, 40))", "np.exp(-x * x)", RANGE + "[erf]"),
    Bug(97, ELEMENTWISE, "np.subtract(b, 1, dtype=float64)", "b - 1", RANGE + "[power]"),
    Bug(  # 0.5 (1 + erf): 0 from -8.5 on
        97, ACTIVATIONS, "z * density * tail, ", "z * (1 - (1 - density * tail)), ",
        EDGE + "test_bug_77_the_tail_of_the_exact_gelu",
    ),
]  # fmt: skip

BRANCHES = [
    Bug(  # infinity times 0 is NaN
        97, ELEMENTWISE, "(lambda dy: slope(dy, b), lambda dy: slope(dy, a))",
        "(lambda dy: dy * b, lambda dy: dy * a)",
        EDGE + "test_bug_76_the_entropy_of_probabilities_of_zero",
    ),
    Bug(97, ELEMENTWISE, "_taken(dy, lambda: dy / b)", "dy / b", BRANCH + "[divide-True]"),
    Bug(97, ELEMENTWISE, "slope(dy, np.sign(x))", "dy * np.sign(x)", BRANCH + "[abs-True]"),
    Bug(97, GELU, "dy[j] == 0 ? 0.0f : slope * dy[j]", "slope * dy[j]",
        BRANCH + "[gelu, tanh-True]"),
    Bug(97, ACTIVATIONS, "return slope(dy, np.where(x > 0, 1 - below, below))",
        "return dy * np.where(x > 0, 1 - below, below)", BRANCH + "[gelu, tanh-False]"),
]  # fmt: skip

SUMS = [
    Bug(97, REDUCTIONS, "lost = overflowed(y)", "lost = False", RANGE + "[mean]"),
    Bug(97, REDUCTIONS, "if squares_lost(y):", "if False:", RANGE + "[var]"),
    Bug(97, REDUCTIONS, "if squares_lost(squares):", "if False:",
        EDGE + "test_bug_77_spread_at_every_scale"),
    Bug(97, "tensor/ops/normalization.py", "if squares_lost(variance):", "if False:",
        RANGE + "[layer_norm]"),
    Bug(97, NORM, " || variance < 1e-30f", "", WIDTH_1),
    Bug(  # a product less its rounded self, in one instruction: the rounding error
        97, NORM, "scale * (dx[j] - total", "scale * (dout[j] * gain[j] - total", WIDTH_1,
    ),
    Bug(97, LOSSES, "if overflowed(loss):\n        both", "if False:\n        both",
        RANGE + "[mean_squared_error]"),
    Bug(97, LOSSES, "if overflowed(loss):\n        options", "if False:\n        options",
        RANGE + "[cross_entropy]"),
    Bug(97, "tensor/kernels/cpu/cross_entropy.py", "if math.isfinite(loss) else NotImplemented",
        "if True else NotImplemented", RANGE + "[cross_entropy]"),
    Bug(97, "tensor/ops/attention.py", "if _scores_lost(scores, q, k, allowed):", "if False:",
        EDGE + "test_bug_77_attention_of_scores_beyond_float32"),
    Bug(97, SOFTMAX, "np.log(np.where(nothing, 1, total))", "np.log(total)", NOTHING),
    Bug(97, SOFTMAX, "is_cuda(dy) or nothing.any() else", "False else", NOTHING),
    Bug(97, "tensor/nn/layers.py", "size = x.detach().abs().max(-1, keepdims=True).clip(1)",
        "size = 1", RANGE + "[RMSNorm]"),
]  # fmt: skip

ZOO = [*FUNCTIONS, *BRANCHES, *SUMS]
