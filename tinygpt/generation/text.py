"""The text of tokens that are drawn one after the other."""

from __future__ import annotations

import codecs

from tinygpt.tokenizers import Tokenizer


class Continuation:
    """The text of tokens that come one by one, up to the beginning of `stop`, if there is any.

    All parts together are `decode` of all tokens. Bytes that may begin a character wait for the
    next token, and characters that may begin `stop` wait too.
    """

    def __init__(self, tokenizer: Tokenizer, stop: str = ""):
        self.tokenizer, self.stop, self.ended = tokenizer, stop, False
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
        text, stop, self.waiting = self.waiting + new, self.stop, ""
        if not stop:
            return text
        end = text.find(stop)
        self.ended = end >= 0
        if not self.ended:
            # the longest end of the text that begins `stop`; the empty one does
            first = max(0, len(text) - len(stop) + 1)
            end = next(i for i in range(first, len(text) + 1) if stop.startswith(text[i:]))
            self.waiting = text[end:]
        return text[:end]
