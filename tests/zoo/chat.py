"""Bugs of a conversation: the cache holds other tokens than the text."""

from __future__ import annotations

from tests.zoo.bug import Bug

FILE = "tinygpt/generation/chat.py"
TESTS = "tests/tinygpt/generation/test_chat.py::"
CACHED = TESTS + "test_the_cache_changes_no_token"

ZOO = [
    # the cache keeps a turn that is forgotten
    Bug(97, FILE, "self.cache.clear()", "self.cache", CACHED),
    # an answer is not ended before the next question
    Bug(97, FILE, "[*turn, self.end] for turn in before", "turn for turn in before", CACHED),
    # each question begins the draws again
    Bug(97, FILE, "[self.generator])", "[draws(self.config.seed, 0)])", CACHED),
    # the newest turn is forgotten
    Bug(97, FILE, "del self.turns[0]", "del self.turns[-2]", CACHED),
    # all is read anew for each token
    Bug(97, FILE, "            self._make_room()", "            self.cache.clear()",
        TESTS + "test_a_token_is_read_once"),
]  # fmt: skip
