"""Bugs in what is measured of reward models and aligned runs."""

from __future__ import annotations

from tests.zoo.bug import Bug

ROLLOUT = "tinygpt/inside/step/rollout.py"
FILE = "tinygpt/training/calibration.py"
TESTS = "tests/tinygpt/training/test_calibration.py::"
COMMANDS = "tests/tinygpt/commands/test_eval_replies.py::"
STEP = "tests/tinygpt/inside/test_step_replies.py::"
STAGES, PLANS = "tinygpt/training/stages.py", "tests/tinygpt/commands/test_plan_stages.py::"
LOOK = "tests/tinygpt/inside/test_look_labels.py::"
HAND = STEP + "test_one_reply_by_hand"

ZOO = [
    # a model that is sure of the worse reply counts as unsure
    Bug(97, FILE, "sure = np.maximum(p, 1 - p)", "sure = np.maximum(p, GUESS)",
        TESTS + "test_bins_by_hand"),
    # bins count alike, however few pairs they have
    Bug(97, FILE, "abs(part.right - part.sure) * part.pairs for", "abs(part.right - part.sure) for",
        TESTS + "test_bins_by_hand"),
    # a tie counts as right
    Bug(97, FILE, "int((p > GUESS).sum())", "int((p >= GUESS).sum())",
        TESTS + "test_the_kinds_of_pairs_are_those_of_their_true_scores"),
    # the kinds of all pairs are those of the first
    Bug(97, FILE, "{accuracy(p[some])}: {kind}", "{accuracy(p)}: {kind}",
        TESTS + "test_the_kinds_of_pairs_are_those_of_their_true_scores"),
    # the policy is compared with itself
    Bug(97, "tinygpt/training/aligning.py", "    before.policy = model.reference\n", "",
        COMMANDS + "test_an_aligned_run_is_compared_with_its_reference[ppo]"),
    # a true score of 0 is given where no rule knows the truth
    Bug(97, "tinygpt/commands/replies.py", "replace(config, true_score=known)",
        "replace(config, true_score=True)",
        COMMANDS + "test_an_aligned_run_is_compared_with_its_reference[ppo]"),
    # -- a step, by hand
    # the value after a token is that of the token itself
    Bug(97, ROLLOUT, "d = r + gamma * next_v - v", "d = r + gamma * v - v", HAND),
    # the score is told at each token
    Bug(97, ROLLOUT, "if last else", "if True else", HAND),
    # the numbers of another reply are told
    Bug(97, ROLLOUT, "return int(order[0])", "return int(order[-1])",
        STEP + "test_ratio_and_clip_of_one_token"),
    # the updates after the first one are left out
    Bug(97, ROLLOUT, "1, 1 + LATER)", "1, 2)",
        STEP + "test_the_updates_are_those_of_the_training[reference]"),
    # the first pair is explained by the numbers of another
    Bug(97, "tinygpt/inside/step/preferred.py", "inputs[0].value.array)[0]",
        "inputs[0].value.array)[1]", STEP + "test_a_pair_by_hand[dpo]"),
    # the score of a reply without its end
    Bug(97, "tinygpt/inside/step/tasks.py", "[*reply, end_of(tokenizer)]", "reply",
        STEP + "test_the_score_of_a_reply_is_that_of_its_end"),
    # the label of a BERT's text is read at its last token
    Bug(97, "tinygpt/inside/step/tasks.py", "y[0, place] = number", "y[0, -1] = number",
        "tests/tinygpt/commands/test_classify.py::test_a_step_walks_to_the_loss_of_the_label[bert]"),
    # an op named clip stands for the clipping of the gradients
    Bug(97, "tinygpt/commands/step.py", "if stop.phase in phases]", "if stop.name in phases]",
        STEP + "test_a_weight_of_the_policy_and_its_update"),
    # the labels on a page have the names of tokens
    Bug(97, "tinygpt/inside/look/gather.py", "return config.vocabulary if config.labels else 0",
        "return 0", LOOK + "test_labels_stand_in_the_place_of_tokens"),
    # the page begins at the first token, which has not seen the text
    Bug(97, "tinygpt/inside/look/gather.py", "return len(self.text.ids) - 1", "return 0",
        LOOK + "test_labels_stand_in_the_place_of_tokens"),
    # the label of a page is that of the first token
    Bug(97, "tinygpt/inside/look/gather.py", 'arrays["probabilities"].array[0, -1]',
        'arrays["probabilities"].array[0, 0]',
        LOOK + "test_labels_stand_in_the_place_of_tokens"),
    # -- plans
    # a pair is one row
    Bug(97, STAGES, "replace(config, batch=2 * config.batch)", "config",
        PLANS + "test_rows_and_work"),
    # the reference and the reward model are in memory, and nobody counts them
    Bug(97, "tinygpt/training/planning.py", "            + self.reference\n", "",
        PLANS + "test_the_weights_are_those_of_all_models"),
    Bug(97, STAGES, "judge = 0 if reward is None else parameter_count(reward)", "judge = 0",
        PLANS + "test_the_weights_are_those_of_all_models"),
    # a rollout takes no time
    Bug(97, "tinygpt/training/planning.py", "seconds += _rollout_seconds(model, config)", "pass",
        PLANS + "test_a_step_of_ppo_is_timed_with_its_rollout"),
]  # fmt: skip
