"""The text of tokens that are drawn one after the other."""

from __future__ import annotations

import codecs

import regex

from tinygpt.tokenizers import Tokenizer


class Continuation:
    """The text of tokens that come one by one, up to the beginning of `stop`, if there is any.

    All parts together are `decode` of all tokens. Bytes that may begin a character wait for the
    next token, and characters that may begin `stop` wait too.
    """

    def __init__(self, tokenizer: Tokenizer, stop: str = ""):
        self.tokenizer, self.ended = tokenizer, False
        self.stop = regex.compile(regex.escape(stop, literal_spaces=True)) if stop else None
        self.characters = codecs.getincrementaldecoder("utf-8")("replace")
        self.waiting = ""  # may begin `stop`

    def add(self, token: int) -> str:
        """The text that is certain after this token. `ended` says whether `stop` has come."""
        return self._certain(self.characters.decode(self.tokenizer.decode_bytes([token])))

    def rest(self) -> str:
        """The text that waited, when no more tokens come: nothing after `stop`."""
        if self.ended:
            return ""
        return self._certain(self.characters.decode(b"", final=True)) + self.waiting

    def _certain(self, new: str) -> str:
        text, self.waiting = self.waiting + new, ""
        # found in part: the end of the text is the beginning of `stop`
        found = self.stop and self.stop.search(text, partial=True)
        if not found:
            return text
        self.ended = not found.partial
        if found.partial:
            self.waiting = found[0]
        return text[: found.start()]
