"""Bugs of fine-tuning on instructions: what counts as a target, and where new tokens go."""

from __future__ import annotations

from tests.zoo.bug import Bug

FILE, GROWING = "tinygpt/data/instructions.py", "tinygpt/model/growing.py"
TESTS = "tests/tinygpt/data/test_instructions.py::"
LEARNED = TESTS + "test_the_answer_and_its_end_alone_are_learned"
GROWN = "tests/tinygpt/commands/test_finetune.py::test_rows_of_new_tokens_stand_in_between"

ZOO = [
    # the prompt is learned too
    Bug(97, FILE, "np.where(counts[1:], whole[1:], IGNORED)", "whole[1:]", LEARNED),
    # the first token of the answer is no target
    Bug(97, FILE, "np.where(counts[1:],", "np.where(counts[:-1],", LEARNED),
    # the target of a place is the token there
    Bug(97, FILE, "counts[1:], whole[1:]", "counts[1:], whole[:-1]", LEARNED),
    # padding counts
    Bug(97, FILE, "np.full(shape, PAD), np.full(shape, IGNORED)",
        "np.full(shape, PAD), np.full(shape, PAD)", LEARNED),
    # the end of an answer predicts the next question
    Bug(97, FILE, "(last_y, [IGNORED], y)", "(last_y, x[:1], y)",
        TESTS + "test_packed_rows_hold_the_same_targets"),
    # what is measured on is learned from
    Bug(97, "tinygpt/data/questions.py",
        "[one for one in options if withheld(f\"{one} {cell}\", seed) is kept]", "options",
        TESTS + "test_questions_kept_back_have_keys_that_are_not_learned"),
    # the rows of old tokens stay, and their ids move
    Bug(97, GROWING, "np.concatenate([before, rows, after], axis)",
        "np.concatenate([before, after, rows], axis)", GROWN),
    # the new token is one that was there
    Bug(97, "tinygpt/tokenizers/special.py", "(*tokenizer.special, *new))",
        "(*new, *tokenizer.special))",
        TESTS + "test_special_tokens_keep_their_ids"),
    # the floor of characters for other tokens
    Bug(97, "tinygpt/data/grammar.py", "floor() if self.of_characters else", "floor() or",
        "tests/tinygpt/data/test_grammar.py::test_stories_in_other_tokens"),
]  # fmt: skip
