"""Bugs of learning from the examples in a text: an answer that is known, or not asked for."""

from __future__ import annotations

from tests.zoo.bug import Bug

TEXTS = "tests/tinygpt/data/test_in_context.py::"
COMMANDS = "tests/tinygpt/commands/test_in_context_commands.py::"
INDUCTION = "tests/tinygpt/inside/test_induction.py::"
FILE = "tinygpt/data/in_context.py"
SHOWN = TEXTS + "test_what_counts_is_shown_by_the_text_before"
COUNTED = TEXTS + "test_examples_are_counted"
READER = COMMANDS + "test_right_answers_of_a_model_that_reads_its_text"

ZOO = [
    Bug(  # rules that are measured on are learned too
        row=97,
        file=FILE,
        old="return np.flatnonzero(np.array(kept) != (self.measured > 0))",
        new="return np.flatnonzero(np.array(kept) & False)",
        test=TEXTS + "test_no_rule_is_learned_and_measured_on",
    ),
    Bug(  # a rule that was drawn again is not looked at again
        row=97,
        file=FILE,
        old="wrong = wrong[self._wrong(again.rule)]",
        new="wrong = wrong[:0]",
        test=TEXTS + "test_no_rule_is_learned_and_measured_on",
    ),
    Bug(  # the input is the answer
        row=97,
        file=FILE,
        old="return texts.ids[:, :-1].copy(), np.where",
        new="return texts.ids[:, 1:].copy(), np.where",
        test=SHOWN,
    ),
    Bug(  # a text follows from its place in the batch, so the same texts come again and again
        row=97,
        file=FILE,
        old="self.rows[:, None].astype(np.uint64)), self.seed)",
        new="np.arange(len(self.rows), dtype=np.uint64)[:, None]), self.seed)",
        test=TEXTS + "test_a_text_follows_from_the_seed_and_its_number",
    ),
    Bug(  # letters that a tokenizer does not know are all the same token
        row=97,
        file=FILE,
        old="if len({i for (i, *others) in ids if not others}) < len(ids):",
        new="if False:",
        test=TEXTS + "test_another_tokenizer",
    ),
    Bug(  # the first answers count, which nobody can know
        row=97,
        file=FILE,
        old="inside & (copies > 0))",
        new="inside)",
        test=SHOWN,
    ),
    Bug(  # a word is an example of itself
        row=97,
        file=FILE,
        old="shown = np.cumsum(shows, axis=1) > shows",
        new="shown = np.cumsum(shows, axis=1) > 0",
        test=SHOWN,
    ),
    Bug(  # the last pair that is given is a question
        row=97,
        file=FILE,
        old="known = np.where(first, places, IGNORED), places >= given",
        new="known = np.where(first, places, IGNORED), places >= given - 1",
        test=SHOWN,
    ),
    Bug(  # a second question has as many examples, and the answer to the first
        row=97,
        file=FILE,
        old="first = (places == 0) | (places == given)",
        new="first = (places == 0) | (places >= given)",
        test=COUNTED,
    ),
    Bug(  # an answer is counted under the examples of the token before
        row=97,
        file="tinygpt/training/measure.py",
        old="examples.append(drawn.examples[:, 1:])",
        new="examples.append(drawn.examples[:, :-1])",
        test=READER,
    ),
    Bug(  # the score of a head that looks at the same token, not at the one after
        row=97,
        file="tinygpt/inside/induction.py",
        old="after[:, :, 1:] = same[:, :, :-1]",
        new="after[:] = same",
        test=INDUCTION + "test_places_after_the_same_token",
    ),
    Bug(  # the hash is of the names, so no change of a weight is seen
        row=97,
        file="tinygpt/commands/eval.py",
        old='        digest.update(weight.to("cpu").numpy().tobytes())\n',
        new="",
        test=COMMANDS + "test_the_hash_sees_every_weight",
    ),
]
