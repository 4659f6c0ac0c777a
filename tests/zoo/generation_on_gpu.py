"""Bugs of generation on a GPU: the draw, the decoder's step, and the loop of the host."""

from __future__ import annotations

from tests.zoo.bug import Bug

FOLDER = "tensor/kernels/cuda/generation/"
DRAWS = "tests/tensor/kernels/test_cuda_sampling.py::test_"
STEPS = "tests/tensor/kernels/test_cuda_decoder.py::test_"
LOOP = "tests/tinygpt/generation/test_on_device.py::test_"

ZOO = [
    Bug(  # of equal logits the higher id comes first
        row=98,
        file=f"{FOLDER}sampling.cu",
        old="(other.key == own.key && other.id < own.id)",
        new="(other.key == own.key && other.id > own.id)",
        test=DRAWS + "equal_logits_are_kept_by_their_ids",
    ),
    Bug(  # -0 counts less than 0
        row=98,
        file=f"{FOLDER}sampling.cu",
        old="    x = x == 0 ? 0 : x;  // also -0\n",
        new="",
        test=DRAWS + "equal_logits_are_kept_by_their_ids",
    ),
    Bug(  # a share that is reached but for rounding is not enough
        row=98,
        file=f"{FOLDER}sampling.cu",
        old="there && sum < (top_p - ROUNDING) * total",
        new="there && sum < top_p * total",
        test=DRAWS + "a_sum_that_reaches_top_p_but_for_rounding_is_enough",
    ),
    Bug(  # the token that reaches the share is left out
        row=98,
        file=f"{FOLDER}sampling.cu",
        old="int kept = 1 + __sync",
        new="int kept = __sync",
        test=DRAWS + "tokens_are_those_of_the_host",
    ),
    Bug(  # NaN is passed over by comparisons
        row=98,
        file=f"{FOLDER}sampling.cu",
        old="broken |= logit != logit;",
        new="broken |= logit == INFINITY;",
        test=DRAWS + "broken_logits_are_told",
    ),
    Bug(  # rows that share a generator draw the same numbers
        row=98,
        file=f"{FOLDER}sampling.cu",
        old="draw[1] += draw[2];",
        new="draw[1] += 1;",
        test=DRAWS + "rows_may_take_turns_at_the_draws_of_one_generator",
    ),
    Bug(  # all rows have the length of the first
        row=98,
        file=f"{FOLDER}attention.cu",
        old="last = seen[row];",
        new="last = seen[0];",
        test=STEPS + "steps_are_the_whole_pass",
    ),
    Bug(  # the new token does not see itself
        row=98,
        file=f"{FOLDER}attention.cu",
        old="if (reads && at == last)",
        new="if (reads && at == last + 1)",
        test=STEPS + "steps_are_the_whole_pass",
    ),
    Bug(  # a part of the keys has the weights of the first part's largest score
        row=98,
        file=f"{FOLDER}attention.cu",
        old="W weight = weight_of(tops[w], largest);",
        new="W weight = weight_of(tops[0], largest);",
        test=STEPS + "a_text_longer_than_the_keys_that_a_block_reads_at_once",
    ),
    Bug(  # the residual stream loses the biases
        row=98,
        file=f"{FOLDER}few_rows.cu",
        old="x[at] + ((W)biases.own[i] + joined<N>(parts + at, ROWS * C))",
        new="x[at] + joined<N>(parts + at, ROWS * C)",
        test=STEPS + "steps_are_the_whole_pass",
    ),
    Bug(  # the weights that a thread reads later are the first ones again
        row=98,
        file=f"{FOLDER}few_rows.cu",
        old="            if (from) ask(weight, from);\n",
        new="",
        test=STEPS + "a_block_reads_more_of_a_weight_than_it_asks_for_ahead",
    ),
    Bug(  # weights of 8 bits have the scale of the thread's first output
        row=98,
        file=f"{FOLDER}few_rows.cu",
        old="scale_of(scales, blockIdx.x * COLUMNS + threadIdx.x % COLUMNS, OUTPUTS)",
        new="scale_of(scales, column, OUTPUTS)",
        test=STEPS + "steps_are_the_whole_pass",
    ),
    Bug(  # tokens that a warp reads together have the scale of the first
        row=98,
        file=f"{FOLDER}few_rows.cu",
        old="scale_of(scales, first + n, vocabulary)",
        new="scale_of(scales, first, vocabulary)",
        test=STEPS + "steps_are_the_whole_pass",
    ),
    Bug(  # negative numbers of 8 bits are taken for large ones
        row=98,
        file=f"{FOLDER}few_rows.cu",
        old="v[i / 4] ^ 0x80808080;",
        new="v[i / 4] + 0x80;",
        test=STEPS + "steps_are_the_whole_pass",
    ),
    Bug(  # prompts meet weights of 8 bits without their scales
        row=98,
        file=f"{FOLDER}decoder.py",
        old="(self.q * self.scale).astype(dtype)",
        new="self.q.astype(dtype)",
        test=STEPS + "prompts_of_unequal_length_are_read_at_once",
    ),
    Bug(  # a prompt's keys stand one place later
        row=98,
        file=f"{FOLDER}attention.cu",
        old="capacity + t) * D + c % D",
        new="capacity + t + 1) * D + c % D",
        test=STEPS + "prompts_of_unequal_length_are_read_at_once",
    ),
    Bug(  # after a text on a GPU, the next one has the same draws
        row=98,
        file="tinygpt/generation/on_device.py",
        old="                    generators[i].advance()\n",
        new="                    pass\n",
        test=LOOP + "the_same_tokens_within_the_context_and_past_it",
    ),
    Bug(  # the GPU writes past the context
        row=98,
        file="tinygpt/generation/on_device.py",
        old="model.context + 1 - len(text)",
        new="model.context + 2 - len(text)",
        test=LOOP + "the_same_tokens_within_the_context_and_past_it",
    ),
    Bug(  # a row that fills its context stops the others, after its own end too
        row=98,
        file="tinygpt/generation/on_device.py",
        old="        last = min([last, *(rooms[i] for i in going if rooms[i] < most[i])])\n",
        new="        last = min([last, *(rooms[i] for i in range(len(texts)))])\n",
        test=LOOP + "texts_go_on_when_the_one_that_fills_the_context_has_ended",
    ),
    Bug(  # where the ends of some rows change the draws of others
        row=98,
        file="tinygpt/generation/on_device.py",
        old=" or ended == ()",
        new=" or True",
        test=LOOP + "texts_that_share_a_generator_take_turns",
    ),
    Bug(  # broken logits give the last token of the vocabulary
        row=98,
        file="tinygpt/generation/on_device.py",
        old="if token < 0:",
        new="if token < -1:",
        test=LOOP + "broken_logits_are_told",
    ),
]
