"""Bugs that hand-written GPTs have had: in the windows, the initialisation, the mask, the tying,
the heads and the sampling.
"""

from __future__ import annotations

from tests.zoo.bug import Bug

ZOO = [
    Bug(  # the model is asked for what it was given
        row=49,
        file="tinygpt/data/windows.py",
        old="return texts[:, :-1].copy(), texts[:, 1:].copy()",
        new="return texts[:, :-1].copy(), texts[:, :-1].copy()",
        test="tests/tinygpt/data/test_windows.py::test_bug_49_shift_and_last_window",
    ),
    Bug(  # the tail of the text is never seen
        row=49,
        file="tinygpt/data/windows.py",
        old="return -(-self.last // self.stride) + 1",
        new="return max(-(-self.last // self.stride), 1)",
        test="tests/tinygpt/data/test_windows.py::test_bug_49_shift_and_last_window",
    ),
    Bug(
        row=49,
        file="tinygpt/data/windows.py",
        old="np.minimum(rows * self.stride, self.last)",
        new="np.minimum(rows * (self.stride + 1), self.last)",
        test="tests/tinygpt/data/test_windows.py::test_bug_49_each_token_is_a_target_once_an_epoch",
    ),
    Bug(  # a text of exactly context + 1 tokens
        row=49,
        file="tinygpt/data/windows.py",
        old="    if last < 0:",
        new="    if last < 1:",
        test="tests/tinygpt/data/test_windows.py::test_bug_49_text_of_just_one_window",
    ),
    Bug(
        row=53,
        file="tinygpt/model/transformer.py",
        old="residual = SPREAD / math.sqrt(2 * self.config.layers)",
        new="residual = SPREAD",
        test="tests/tinygpt/model/test_gpt.py::test_bug_53_spread_of_fresh_weights",
    ),
    Bug(
        row=53,
        file="tinygpt/model/transformer.py",
        old="residual = SPREAD / math.sqrt(2 * self.config.layers)",
        new="residual = SPREAD / math.sqrt(self.config.layers)",
        test="tests/tinygpt/model/test_gpt.py::test_bug_53_spread_of_fresh_weights",
    ),
    Bug(  # the embedding keeps the N(0, 1) of nn.Embedding, and the tied head with it
        row=53,
        file="tinygpt/model/transformer.py",
        old="drawn = generator.normal(parameter.shape) * spread",
        new=(
            "drawn = generator.normal(parameter.shape) * spread\n"
            "                    drawn /= spread if parameter is self.token_embedding.weight else 1"
        ),
        test=(
            "tests/tinygpt/model/test_gpt.py::"
            "test_bug_53_first_loss_is_that_of_a_model_that_knows_nothing"
        ),
    ),
    Bug(  # the tied matrix is drawn for the embedding, and again for the head
        row=53,
        file="tinygpt/model/transformer.py",
        old="drawn = generator.normal(parameter.shape) * spread",
        new=(
            "drawn = generator.normal(parameter.shape) * spread\n"
            "                    if parameter is self.token_embedding.weight and self.head is None:"
            "\n                        drawn = generator.normal(parameter.shape) * spread"
        ),
        test="tests/tinygpt/model/test_gpt.py::test_bug_53_each_weight_is_drawn_once",
    ),
    Bug(  # a softmax before the loss that has its own
        row=54,
        file="tinygpt/model/transformer.py",
        old="        logits,\n        targets,",
        new="        logits.softmax(),\n        targets,",
        test="tests/tinygpt/model/test_gpt.py::test_bug_54_one_batch_is_learnt_by_heart",
    ),
    Bug(  # only what comes after the last block learns
        row=54,
        file="tinygpt/model/block.py",
        old="x, h = norm.after_sum(x, layer(h))\n    return h",
        new="x, h = norm.after_sum(x.detach(), layer(h).detach())\n    return h",
        test="tests/tinygpt/model/test_gpt.py::test_bug_54_one_batch_is_learnt_by_heart",
    ),
    Bug(
        row=55,
        file="tinygpt/model/attention.py",
        old="None, mask, self.causal)",
        new="None, mask, False)",
        test="tests/tinygpt/model/test_gpt.py::test_bug_55_no_token_sees_the_future",
    ),
    Bug(  # one token too far
        row=55,
        file="tensor/ops/attention.py",
        old="[:, None] + (keys - queries)",
        new="[:, None] + (keys - queries) + 1",
        test="tests/tinygpt/model/test_gpt.py::test_bug_55_no_token_sees_the_future",
    ),
    Bug(  # a leak outside attention: a statistic over time
        row=55,
        file="tinygpt/model/gpt.py",
        old="through_blocks(self.blocks, self.final_norm, x, around,",
        new=(
            "through_blocks(self.blocks, self.final_norm, x - 1e-6 * x.mean(axis=1, "
            "keepdims=True), around,"
        ),
        test="tests/tinygpt/model/test_gpt.py::test_bug_55_no_token_sees_the_future",
    ),
    Bug(  # a finite number for "never"
        row=55,
        file="tensor/ops/attention.py",
        old="scores = np.where(allowed, scores, -np.inf)",
        new="scores = np.where(allowed, scores, -1e4)",
        test="tests/tinygpt/model/test_gpt.py::test_bug_55_with_scores_of_any_size",
    ),
    Bug(  # aligned to the start: the last query does not see the last key
        row=58,
        file="tensor/ops/attention.py",
        old="[:, None] + (keys - queries)",
        new="[:, None]",
        test=(
            "tests/tinygpt/model/test_attention.py::test_bug_58_causal_with_more_keys_than_queries"
        ),
    ),
    Bug(  # the head is a copy: right in value, but it teaches the embedding nothing
        row=59,
        file="tinygpt/model/transformer.py",
        old="tensor.linear(h, self.token_embedding.weight, ",
        new="tensor.linear(h, Tensor(self.token_embedding.weight), ",
        test="tests/tinygpt/model/test_gpt.py::test_bug_59_gradient_of_both_uses",
    ),
    Bug(  # the head is a view taken once: after packing or loading it shows the old weights
        row=59,
        file="tinygpt/model/transformer.py",
        old="tensor.linear(h, self.token_embedding.weight, ",
        new=(
            'tensor.linear(h, self.__dict__.setdefault("taken", '
            "[self.token_embedding.weight.detach()])[0], "
        ),
        test="tests/tinygpt/model/test_gpt.py::test_bug_59_the_head_is_the_embedding_always",
    ),
    Bug(  # heads cut without moving the time axis behind them
        row=60,
        file="tensor/ops/fused.py",
        old="x.view(B, x.shape[1], heads, C // heads).transpose(1, 2)",
        new="x.reshape(B, heads, x.shape[1], C // heads)",
        test="tests/tinygpt/model/test_attention.py::test_bug_60_heads",
    ),
    Bug(  # heads merged without moving it back
        row=60,
        file="tensor/ops/fused.py",
        old="y.transpose(1, 2).contiguous().view(B, T, C)",
        new="y.contiguous().view(B, T, C)",
        test="tests/tinygpt/model/test_attention.py::test_bug_60_heads",
    ),
    Bug(  # silent only where T = H
        row=60,
        file="tensor/ops/fused.py",
        old="    y = attention(q, k, v,",
        new=(
            "    k, v = (k.transpose(1, 2), v.transpose(1, 2)) if T == heads else (k, v)\n"
            "    y = attention(q, k, v,"
        ),
        test="tests/tinygpt/model/test_attention.py::test_bug_60_heads",
    ),
    Bug(
        row=60,
        file="tensor/ops/fused.py",
        old="    q, k, v = (x",
        new="    k, q, v = (x",
        test="tests/tinygpt/model/test_attention.py::test_bug_60_heads",
    ),
    Bug(  # everything that ties with the k-th is kept
        row=62,
        file="tinygpt/generation/sampling.py",
        old='np.argsort(-x[ids], kind="stable")[:count]',
        new='np.argsort(-x[ids], kind="stable")',
        test=(
            "tests/tinygpt/generation/test_sampling.py::"
            "test_bug_62_ties_keep_exactly_k_lowest_ids_first"
        ),
    ),
    Bug(  # of equal tokens the last ones
        row=62,
        file="tinygpt/generation/sampling.py",
        old='np.argsort(-x[ids], kind="stable")[:count]',
        new="np.lexsort((-ids, -x[ids]))[:count]",
        test=(
            "tests/tinygpt/generation/test_sampling.py::"
            "test_bug_62_ties_keep_exactly_k_lowest_ids_first"
        ),
    ),
    Bug(  # what top-k leaves out keeps a logit of 0, not of -inf
        row=62,
        file="tinygpt/generation/sampling.py",
        old=("    p = np.zeros_like(x)\n    p[kept] = kept_p\n"),
        new=(
            "    p = np.exp(np.where(np.isin(np.arange(x.size), kept), (x - x.max()) / "
            "temperature, 0) - 1)\n"
            "    p /= p.sum()\n"
        ),
        test="tests/tinygpt/generation/test_sampling.py::test_bug_62_exact_distributions",
    ),
    Bug(  # the token that crosses p is left out: with a small p nothing would be left
        row=62,
        file="tinygpt/generation/sampling.py",
        old="count = 1 + int(np.searchsorted(np.cumsum(kept_p), top_p - ROUNDING))",
        new="count = max(1, int(np.searchsorted(np.cumsum(kept_p), top_p - ROUNDING)))",
        test="tests/tinygpt/generation/test_sampling.py::test_bug_62_exact_distributions",
    ),
    Bug(  # softmax of a softmax
        row=62,
        file="tinygpt/generation/generate.py",
        old="model.decode(ids, of_part, last=True).array)",
        new="model.decode(ids, of_part, last=True).softmax().array)",
        test=(
            "tests/tinygpt/generation/test_sampling.py::test_bug_62_frequencies_of_generated_tokens"
        ),
    ),
    Bug(
        row=62,
        file="tinygpt/generation/sampling.py",
        old="np.exp(below / temperature)",
        new="np.exp(below * temperature)",
        test="tests/tinygpt/generation/test_sampling.py::test_bug_62_exact_distributions",
    ),
    Bug(  # the draw is not uniform
        row=62,
        file="tinygpt/generation/sampling.py",
        old="float(generator.uniform()) * edges[-1]",
        new="float(generator.uniform()) ** 2 * edges[-1]",
        test="tests/tinygpt/generation/test_sampling.py::test_bug_62_frequencies_of_draws",
    ),
    Bug(  # the beginning is kept and what was said last forgotten
        row=63,
        file="tinygpt/generation/generate.py",
        old="texts[i][-context:][cache.seen[i] :]",
        new="texts[i][:context][cache.seen[i] :]",
        test=(
            "tests/tinygpt/generation/test_sampling.py::"
            "test_bug_63_prompt_of_the_context_and_longer"
        ),
    ),
    Bug(  # one token of the context is never used
        row=63,
        file="tinygpt/generation/generate.py",
        old="texts[i][-context:][cache.seen[i] :]",
        new="texts[i][1 - context :][cache.seen[i] :]",
        test=(
            "tests/tinygpt/generation/test_sampling.py::"
            "test_bug_63_prompt_of_the_context_and_longer"
        ),
    ),
    Bug(  # an empty prompt starts from token 0, unasked
        row=63,
        file="tinygpt/generation/generate.py",
        old="    tokens = np.asarray(ids.numpy() if isinstance(ids, Tensor) else ids)\n",
        new=(
            "    tokens = np.asarray(ids.numpy() if isinstance(ids, Tensor) else ids)\n"
            "    tokens = tokens if tokens.size else np.zeros(1, dtype=np.int64)\n"
        ),
        test="tests/tinygpt/generation/test_sampling.py::test_bug_63_empty_prompt",
    ),
    Bug(
        row=47,
        file="tinygpt/model/gpt.py",
        old="            with tensor.no_grad(), nn.evaluating():\n",
        new="            with tensor.no_grad():\n",
        test=(
            "tests/tinygpt/generation/test_sampling.py::"
            "test_bug_47_generate_without_dropout_restores_the_mode"
        ),
    ),
    Bug(
        row=47,
        file="tinygpt/model/gpt.py",
        old="            with tensor.no_grad(), nn.evaluating():\n",
        new="            self.eval()\n            with tensor.no_grad():\n",
        test=(
            "tests/tinygpt/generation/test_sampling.py::"
            "test_bug_47_generate_without_dropout_restores_the_mode"
        ),
    ),
]
