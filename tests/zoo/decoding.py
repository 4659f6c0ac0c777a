"""Bugs of decoding with an encoder-decoder, of beam search, and of label smoothing."""

from __future__ import annotations

from tests.zoo.bug import Bug

CACHE, PAIRS = "tinygpt/model/cache.py", "tinygpt/model/encoder_decoder.py"
BEAM_SEARCH = "tinygpt/generation/beam.py"
ENTROPY = "tensor/kernels/cpu/cross_entropy"
SMOOTHED = "tests/tensor/kernels/test_cpu.py::test_cross_entropy"
STEP = "tests/tinygpt/training/test_pairs_step.py::"
BEAM = "tests/tinygpt/generation/test_beam.py::"
GIVEN = "tests/tinygpt/model/test_given.py::"

ZOO = [
    Bug(  # the <pad> after a short source is read as text
        row=97,
        file=PAIRS,
        old="cache.memory_mask = None if self.mask is None else self.mask.array",
        new="cache.memory_mask = None",
        test=GIVEN + "test_the_cache_equals_the_whole_pass",
    ),
    Bug(  # rows that go on look at the masks of the first ones
        row=97,
        file=CACHE,
        old="mask[self.sources[self.rows]]",
        new="mask[: len(self.rows)]",
        test=GIVEN + "test_some_rows_go_on_and_others_ended",
    ),
    Bug(  # rows that go on look at the sources of the first ones
        row=97,
        file=CACHE,
        old="self.memory[layer][self.sources[self.rows]]",
        new="self.memory[layer][: len(self.rows)]",
        test=GIVEN + "test_some_rows_go_on_and_others_ended",
    ),
    Bug(  # a row keeps its own keys and values, and gets the text of another
        row=97,
        file=CACHE,
        old="for array in (self.keys, self.values):",
        new="for array in ():",
        test=GIVEN + "test_rows_that_were_reordered",
    ),
    Bug(  # a row keeps its own source, and gets the text of another
        row=97,
        file=CACHE,
        old="self.seen[taken], self.sources[taken]",
        new="self.seen[taken], self.sources[into]",
        test=GIVEN + "test_rows_that_were_reordered",
    ),
    Bug(  # the window slides, and <sos> is forgotten
        row=97,
        file=PAIRS,
        old="slides = False",
        new="slides = True",
        test=GIVEN + "test_a_target_ends_with_the_context",
    ),
    Bug(  # the end token is not counted in the probability of a text
        row=97,
        file=BEAM_SEARCH,
        old="        origin, token, log_p = _continued(log_p, logits, alive, greedy)",
        new="        before = log_p.ravel()\n"
        "        origin, token, log_p = _continued(log_p, logits, alive, greedy)\n"
        "        log_p = np.where(token == end, before[origin], log_p)",
        test="tests/tinygpt/generation/test_answers.py::test_the_best_answers_of_a_beam",
    ),
    Bug(  # nor in its length
        row=97,
        file=BEAM_SEARCH,
        old="p / penalty(count, alpha))",
        new="p / penalty(count - (token[b, k] == end), alpha))",
        test=BEAM + "test_a_wide_beam_is_a_search_of_all_texts",
    ),
    Bug(  # hypotheses go on with the keys and values of others
        row=97,
        file=BEAM_SEARCH,
        old="        cache.reorder(origin.ravel())\n",
        new="        cache.seen[:] = cache.seen.max()\n",
        test=BEAM + "test_a_wide_beam_is_a_search_of_all_texts",
    ),
    Bug(  # the text of greedy decoding is lost on the way
        row=97,
        file=BEAM_SEARCH,
        old="rank[greedy, total[greedy, :V].argmax(-1)] = np.inf",
        new="pass",
        test=BEAM + "test_a_beam_of_one_is_greedy_and_a_wider_one_never_worse",
    ),
    Bug(  # a text is taken for the best although a longer one can still have a better score
        row=97,
        file=BEAM_SEARCH,
        old="log_p.max(1) / penalty(most, alpha)",
        new="log_p.max(1) / penalty(count, alpha)",
        test=BEAM + "test_a_longer_text_may_still_be_better",
    ),
    Bug(  # an answer goes on after <eos>
        row=97,
        file="tinygpt/generation/answers.py",
        old="            ended.add(i)",
        new="            pass",
        test="tests/tinygpt/generation/test_answers.py::"
        "test_answers_side_by_side_equal_answers_one_by_one",
    ),
    Bug(  # an answer that goes on after the target counts as right
        row=97,
        file="tinygpt/commands/eval.py",
        old="if given[i] != text]",
        new="if not text.startswith(given[i])]",
        test="tests/tinygpt/commands/test_eval_pairs.py::test_answers_are_right_to_the_letter",
    ),
    Bug(  # the answer of the first source for the first of each batch
        row=97,
        file="tinygpt/commands/eval.py",
        old="ids[start : start + together]",
        new="ids[: min(together, len(ids) - start)]",
        test="tests/tinygpt/commands/test_eval_pairs.py::test_answers_are_right_to_the_letter",
    ),
    Bug(  # <eos> is written out
        row=97,
        file="tinygpt/commands/sample.py",
        old='new = "" if step.token in begun.ends else texts[i].add(step.token)',
        new="new = texts[i].add(step.token)",
        test="tests/tinygpt/commands/test_sample_pairs.py::"
        "test_a_line_is_the_prompt_and_its_answer",
    ),
    Bug(  # the kernel smooths the loss, and not its gradient
        row=97,
        file=ENTROPY + ".c",
        old="    job->uniform = (float)(smoothing / job->width);\n",
        new="    job->uniform = 0;\n",
        test=SMOOTHED,
    ),
    Bug(  # the target gets its share of what is spread, and loses nothing
        row=97,
        file=ENTROPY + ".c",
        old="(float)(1 - smoothing + smoothing / job->width)",
        new="(float)(1 + smoothing / job->width)",
        test=SMOOTHED,
    ),
    Bug(  # the kernel leaves the smoothing out of the loss
        row=97,
        file=ENTROPY + ".c",
        old="        if (!job->smoothing) continue;\n",
        new="        continue;\n",
        test=SMOOTHED,
    ),
    Bug(  # what the reference must compute again is not smoothed
        row=97,
        file=ENTROPY + ".py",
        old='"label_smoothing": label_smoothing}',
        new='"label_smoothing": 0}',
        test="tests/tensor/kernels/test_extremes.py::"
        "test_bug_33_kernel_and_reference_agree_on_what_is_not_finite",
    ),
    Bug(  # parts of a batch are not smoothed
        row=97,
        file="tinygpt/training/step.py",
        old="model.loss(x, y, reduction, config.label_smoothing)",
        new="model.loss(x, y, reduction, config.label_smoothing * (reduction == 'mean'))",
        test=STEP + "test_the_loss_of_a_step_is_pytorchs",
    ),
    Bug(  # the peak of the schedule is not the learning rate that was chosen
        row=97,
        file="tinygpt/training/step.py",
        old="scale=peak * math.sqrt(warmup)",
        new="scale=peak",
        test=STEP + "test_the_schedule_of_the_paper",
    ),
    Bug(  # a text goes on with the logits of another, where lengths differ
        row=97,
        file="tinygpt/generation/generate.py",
        old="np.concatenate(found)[order]",
        new="np.concatenate(found)",
        test="tests/tinygpt/model/test_cache.py::test_bug_56_prompts_side_by_side",
    ),
]
