"""Bugs of a conversation, where the cache holds other tokens than the text, and of looking at an
answer.
"""

from __future__ import annotations

from tests.zoo.bug import Bug

FILE = "tinygpt/generation/chat.py"
TESTS = "tests/tinygpt/generation/test_chat.py::"
CACHED = TESTS + "test_the_cache_changes_no_token"
ANSWERS = "tests/tinygpt/inside/test_answers.py::"

ZOO = [
    # the cache keeps a turn that is forgotten
    Bug(97, FILE, "self.cache.clear()  #", "self.cache  #", CACHED),
    # an answer is not ended before the next question
    Bug(97, FILE, "[*turn, self.end] for turn in before", "turn for turn in before", CACHED),
    # each question begins the draws again
    Bug(97, FILE, "[self.generator])", "[draws(self.config.seed, 0)])", CACHED),
    # the newest turn is forgotten
    Bug(97, FILE, "del self.turns[0]", "del self.turns[-2]", CACHED),
    # all is read anew for each token
    Bug(97, FILE, "            self._make_room()\n", "            self.cache.clear()\n",
        TESTS + "test_a_token_is_read_once"),
    # a question by itself is answered with the keys and values of another
    Bug(97, FILE, "            self.cache.clear()\n            self.turns",
        "            self.turns", TESTS + "test_a_question_alone_sees_no_other"),
    # a run of one example a row is shown the earlier turns
    Bug(97, "tinygpt/commands/chat.py", "self.alone = not remember", "self.alone = False",
        "tests/tinygpt/commands/test_chat.py::test_questions_by_themselves"),
    # the prompt of a fine-tuned run counts in the loss that look shows
    Bug(97, "tinygpt/inside/look/gather.py", "return range(self.prompt, len(self.ids))",
        "return range(1, len(self.ids))", ANSWERS + "test_a_look_ends_with_the_answer"),
    # an answer in look goes on after its end
    Bug(97, "tinygpt/inside/look/gather.py", "        if step.token in ends:\n            break\n",
        "", ANSWERS + "test_a_look_ends_with_the_answer"),
    # a walk predicts the instruction too
    Bug(97, "tinygpt/inside/step/tasks.py",
        "return _answer(run, model, tokenizer, prompt, target)",
        "return _text(run, tokenizer, prompt)",
        ANSWERS + "test_a_step_predicts_the_answer_alone"),
]  # fmt: skip
