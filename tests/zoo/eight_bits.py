"""Bugs of weights of 8 bits."""

from __future__ import annotations

from tests.zoo.bug import Bug

ROUNDING, KERNEL = "tinygpt/model/int8.py", "tensor/kernels/cpu/int8.c"
TESTS = "tests/tinygpt/model/test_int8.py::"
AGREES = TESTS + "test_the_kernel_agrees_with_dequantised_weights"

ZOO = [
    Bug(  # one scale for each input, not for each output
        row=97,
        file=ROUNDING,
        old="abs(w).max(1) / np.float32(MOST)",
        new="abs(w).max(1).max() / np.float32(MOST) * np.ones_like(w[:, 0])",
        test=TESTS + "test_each_channel_has_a_scale_and_no_weight_is_off_by_more_than_half_of_it",
    ),
    Bug(  # cut off, not rounded
        row=97,
        file=ROUNDING,
        old="q.round(out=q).clip",
        new="q.clip",
        test=TESTS + "test_halves_and_signs",
    ),
    Bug(  # a channel of zeros is 0 / 0
        row=97,
        file=ROUNDING,
        old="np.where(scale > 0, scale, np.float32(1))",
        new="scale",
        test=TESTS + "test_each_channel_has_a_scale_and_no_weight_is_off_by_more_than_half_of_it",
    ),
    Bug(  # NaN becomes some whole number
        row=97,
        file=ROUNDING,
        old="if not np.isfinite(w).all():",
        new="if False:",
        test=TESTS + "test_numbers_that_are_not_finite",
    ),
    Bug(  # a tied head reads the token table in float32
        row=97,
        file="tinygpt/model/gpt.py",
        old="        if self.head is None:\n            self.head = Int8Linear",
        new="        if False:\n            self.head = Int8Linear",
        test=TESTS + "test_every_product_is_rounded_and_nothing_else",
    ),
    Bug(  # the table of tokens learns, and a tied head stays
        row=97,
        file="tinygpt/model/gpt.py",
        old="        self.requires_grad_(False)\n",
        new="",
        test=TESTS + "test_a_rounded_model_does_not_learn",
    ),
    Bug(  # 520 products of 127 and 32767 do not fit into 32 bits
        row=97,
        file=KERNEL,
        old="fmaxf(largest / INT16_MAX, sum / (float)(INT32_MAX / MOST - inputs))",
        new="largest / INT16_MAX",
        test=TESTS + "test_sums_stay_below_32_bits",
    ),
    Bug(  # x has 8 bits too
        row=97,
        file=KERNEL,
        old="fmaxf(largest / INT16_MAX,",
        new="fmaxf(largest / INT8_MAX,",
        test=AGREES,
    ),
    Bug(  # the last output of an odd number is left out
        row=97,
        file=KERNEL,
        old="            one_sum(job, i, j);\n            if (two_rows)",
        new="            if (two_rows) one_sum(job, i, j);\n            if (two_rows)",
        test=AGREES,
    ),
    Bug(  # infinities become whole numbers
        row=97,
        file=KERNEL,
        old="sum - sum == 0 ? step : NAN",
        new="sum - sum == 0 ? step : 0",
        test=TESTS + "test_numbers_that_are_not_finite",
    ),
    Bug(  # a layer's scale is that of the layer before
        row=97,
        file="tensor/kernels/cpu/decoder.c",
        old="scale = item_of(d->scales, number)",
        new="scale = item_of(d->scales, number > 14 ? number - 12 : number)",
        test=AGREES,
    ),
    Bug(  # a model that cannot be rounded gives a traceback
        row=97,
        file="tinygpt/commands/int8.py",
        old="if type(model) is not GPT:",
        new="if model is None:",
        test="tests/tinygpt/commands/test_sample.py::test_int8_is_for_a_gpt",
    ),
]
