"""Bugs of reward models, PPO and DPO: what counts, at which token, and who learns."""

from __future__ import annotations

from tests.zoo.bug import Bug

LOSS, STEPS = "tinygpt/training/objectives/ppo.py", "tinygpt/training/ppo.py"
ROLLOUTS, PAIRS = "tinygpt/training/rollouts.py", "tinygpt/data/preferences.py"
COMPARED, MODELS = "tinygpt/training/objectives/preferences.py", "tinygpt/model/aligned.py"
TESTS = "tests/tinygpt/training/test_ppo.py::"
FORMULAS = TESTS + "test_advantages_and_loss_are_those_of_the_formulas"
GRADIENTS = TESTS + "test_gradients_are_those_of_finite_differences"
STEP = TESTS + "test_a_step_is_a_rollout_and_its_updates"
ROLLOUT = "tests/tinygpt/training/test_rollouts.py::test_a_rollout_is_that_of_the_formulas"
ENDS = "tests/tinygpt/training/test_rollouts.py::"
ENDS += "test_replies_end_early_are_cut_off_and_fill_the_context"
PLACES = "tests/tinygpt/data/test_preferences.py::test_each_reply_stands_after_its_prompt"
LOSSES = "tests/tinygpt/training/test_preferences_losses.py::"
DPO = LOSSES + "test_dpo_is_that_of_pytorch"
REWARD = LOSSES + "test_the_loss_of_a_reward_model_is_that_of_pytorch"
COMMAND = "tests/tinygpt/commands/test_align.py::"
RESUMED = COMMAND + "test_a_stopped_ppo_goes_on_with_the_same_bits"
STAYING = COMMAND + "test_ppo_raises_the_reward_and_the_models_beside_it_stay"
REFUSED = COMMAND + "test_what_cannot_be_is_refused_and_leaves_nothing"

ZOO = [
    # advantages have a gradient: that of the values in them
    Bug(97, LOSS, "tensor.minimum(ratio * advantages, near * advantages)",
        "tensor.minimum(*(r * (advantages + values - values.detach()) for r in (ratio, near)))",
        GRADIENTS),
    # the value that a return is compared with has no gradient
    Bug(97, LOSS, "errors = (values - returns) ** 2", "errors = (values.detach() - returns) ** 2",
        GRADIENTS),
    # KL is paid for, not charged
    Bug(97, LOSS, "-beta * (log_p - log_q)", "beta * (log_p - log_q)", FORMULAS),
    # KL of the reference to the policy
    Bug(97, ROLLOUTS, "(self.log_p - self.log_q).sum", "(self.log_q - self.log_p).sum", ROLLOUT),
    # the log-probability of the token that was read, not of the one that was written
    Bug(97, LOSS, "chosen = Tensor(targets[places]", "chosen = Tensor(ids[places]", FORMULAS),
    # the state after the token
    Bug(97, LOSS, "model.policy.hidden(ids)[places]",
        "model.policy.hidden(ids)[places[0], places[1] + 1]", FORMULAS),
    # the sampler's distribution of one token is noted with another
    Bug(97, ROLLOUTS, "log_p[np.arange(len(reply)), reply]",
        "log_p[np.arange(len(reply)), np.roll(reply, 1)]", ROLLOUT),
    # a target is the token that is there
    Bug(97, PAIRS, "np.roll(ids, -1, axis=1)", "ids", PLACES),
    # the last token of the prompt is a target, and the end is none
    Bug(97, PAIRS, "next_place = np.arange(1, ids.shape[1] + 1)",
        "next_place = np.arange(2, ids.shape[1] + 2)", PLACES),
    # padding is a target
    Bug(97, PAIRS, "(next_place >= starts[:, None]) & (next_place < lengths[:, None])",
        "(next_place >= starts[:, None]) & (next_place < ids.shape[1])", PLACES),
    # the mean over all places, also of prompts and padding
    Bug(97, LOSS, 'return loss.mean() if reduction == "mean"',
        'return loss.sum() * (1 / y.size) if reduction == "mean"', FORMULAS),
    # prompts and padding count in the mean and the spread of advantages
    Bug(97, LOSS, "advantages[counts].mean(), advantages[counts].std()",
        "advantages.mean(), advantages.std()", FORMULAS),
    # the advantage after the end is not 0
    Bug(97, LOSS, "values = np.where(counts, values, 0.0)  # after the end nothing comes",
        "values = np.where(counts.any(), values, 0.0)",
        TESTS + "test_advantages_look_as_far_ahead_as_they_are_asked_to"),
    # KL is a mean over tokens
    Bug(97, ROLLOUTS, "self.log_q).sum(axis=1).mean()", "self.log_q).mean()", ROLLOUT),
    # the entropy is also that of prompts and padding
    Bug(97, STEPS, "rollout.entropy[counts].mean()", "rollout.entropy.mean()", ROLLOUT),
    # the score is read at the padding
    Bug(97, COMPARED, "time - np.argmax(targets[:, ::-1] != IGNORED, axis=1)",
        "np.full(len(targets), time - 1)", REWARD),
    # the score is read before the end of the reply
    Bug(97, COMPARED, "return time - np.argmax(", "return time - 1 - np.argmax(", REWARD),
    # the score comes at the first token
    Bug(97, LOSS, "last = targets.shape[1] - 1 - np.argmax(counts[:, ::-1], axis=1)",
        "last = np.argmax(counts, axis=1)", FORMULAS),
    # the score comes after the reply
    Bug(97, LOSS, "last = targets.shape[1] - 1 -", "last = targets.shape[1] - 2 -", FORMULAS),
    # a reply that was cut off is scored as a whole one
    Bug(97, ROLLOUTS, "np.where(whole, found, found.min())", "found", ROLLOUT),
    # a reply is longer than the context
    Bug(97, ROLLOUTS, "step.token == end or len(prompts[i]) + len(replies[i]) == policy.context",
        "step.token == end", ENDS),
    # a reply goes on after its end
    Bug(97, ROLLOUTS, "            ended.add(i)", "            pass", ENDS),
    # the larger gain: a policy that moved too far goes on
    Bug(97, LOSS, "tensor.minimum(ratio", "tensor.maximum(ratio", FORMULAS),
    # the clip is one-sided
    Bug(97, LOSS, "tensor.clip(ratio, 1 - self.clip_range,", "tensor.clip(ratio, 0,", FORMULAS),
    # returns without the values
    Bug(97, STEPS, "returns = found + rollout.values", "returns = found", FORMULAS),
    # returns of whitened advantages
    Bug(97, STEPS, "returns = found + rollout.values",
        "returns = whitened(found, targets) + rollout.values", FORMULAS),
    # the advantage of the next token is weighted by gamma alone
    Bug(97, LOSS, "errors + gamma * lambda_ * next_advantage", "errors + gamma * next_advantage",
        FORMULAS),
    # the old log-probabilities are those of the policy now
    Bug(97, LOSS, "ratio = tensor.exp(log_p - old)", "ratio = tensor.exp(log_p - log_p.detach())",
        FORMULAS),
    # each update writes new replies
    Bug(97, STEPS, "        for x, key in minibatches(replies, config, step):\n",
        "        for number, part in enumerate(parts_of(len(rows), config, step)):\n"
        "            key = Key(config.seed, step * config.updates + number)\n"
        "            rollout = rolled_out(model, prompts, config, step)[1]\n"
        "            x = learned_from(rollout, config, price)[part]\n", STEP),
    # an epoch leaves replies out
    Bug(97, STEPS, "draws.permutation(count)", "draws.integers(0, count, (count,))",
        TESTS + "test_each_epoch_learns_from_each_reply_once"),
    # all steps have the same replies
    Bug(97, STEPS, "drawn = [prompts.prompts[i] for i in rows], step * config.batch",
        "drawn = [prompts.prompts[i] for i in rows], 0", STEP),
    # a resumed run begins its prompts anew
    Bug(97, STEPS, "rows_of(step, config, len(prompts))",
        "rows_of(step - first, config, len(prompts))", RESUMED),
    # the price falls where KL is too large
    Bug(97, STEPS, "GAIN * float(np.clip(kl / target - 1", "GAIN * float(np.clip(1 - kl / target",
        TESTS + "test_the_price_of_kl_is_steered_to_the_target"),
    # the price is not saved
    Bug(97, STEPS, 'return {"price": self.price}', "return {}", RESUMED),
    # the price is saved, and not gone on with
    Bug(97, "tinygpt/training/aligning.py", "job.optimizer, first, price)",
        "job.optimizer, first)", RESUMED),
    # the reference learns
    Bug(97, MODELS, "GPT(policy.config, draw=False, **options).requires_grad_(False)",
        "GPT(policy.config, draw=False, **options)", STAYING),
    # the reference is the policy
    Bug(97, ROLLOUTS, "log_q = -model.reference.loss(", "log_q = -model.policy.loss(", ROLLOUT),
    # the reward model learns
    Bug(97, MODELS, "GPTClassifier(reward, draw=False, **options).requires_grad_(False)",
        "GPTClassifier(reward, draw=False, **options)", STAYING),
    # the policy's blocks learn nothing from the value head
    Bug(97, LOSS, "widened(model.value(h))", "widened(model.value(h.detach()))", GRADIENTS),
    # activations are computed again for nobody
    Bug(97, MODELS, "self.policy.recompute = chosen", "self.policy.recompute = False",
        TESTS + "test_recomputing_gives_the_same_bits"),
    # a policy with dropout is not the one that wrote the replies
    Bug(97, "tinygpt/training/starting.py", "replace(before.model, dropout=0.0)", "before.model",
        COMMAND + "test_dropout_of_the_base_is_off"),
    # DPO without the reference
    Bug(97, COMPARED, "(reply_log_p(model.policy, ids, targets) - log_q)",
        "reply_log_p(model.policy, ids, targets)", DPO),
    # DPO's beta is forgotten
    Bug(97, COMPARED, "scores = beta * (", "scores = (", DPO),
    # a mean over the tokens of a reply
    Bug(97, COMPARED, 'model.loss(ids, targets, reduction="none").sum(-1)',
        'model.loss(ids, targets, reduction="none").mean(-1)', DPO),
    # the worse reply is preferred
    Bug(97, PAIRS, "([*tokenizer.encode(pair.better), self.end], "
        "[*tokenizer.encode(pair.worse), self.end])",
        "([*tokenizer.encode(pair.worse), self.end], "
        "[*tokenizer.encode(pair.better), self.end])", PLACES),
    # of two replies the one with the lower score is the better one
    Bug(97, "tinygpt/data/replies.py", "two if scores[0] < scores[1] else reversed(two)",
        "two if scores[0] > scores[1] else reversed(two)",
        "tests/tinygpt/data/test_replies.py::"
        "test_the_better_reply_has_the_higher_score_and_prompts_are_kept_back"),
    # what is measured on is learned from
    Bug(97, "tinygpt/data/instructions.py",
        "learned = [item for item in items if item.question not in kept]",
        "learned = list(items)",
        "tests/tinygpt/data/test_preferences.py::test_the_last_questions_are_kept_back"),
    # a choice that does nothing is taken
    Bug(97, "tinygpt/training/starting.py", "_refuse_of_other_method(request, config)\n    before",
        "pass\n    before", REFUSED),
]  # fmt: skip
