"""Text to token ids and back.

    CharacterTokenizer    one token a character of the text it was made from
    ByteTokenizer         one token a byte
    WordTokenizer         one token a word of the text it was made from, and <unk> for all others
    BytePairTokenizer     one token a run of bytes that its text often holds, and a byte where there
    is none: GPT-2's kind

They differ in how they cut a text, and are used alike: `Tokenizer` says how.
"""

from __future__ import annotations

import os

from tinygpt.files import RESTORE
from tinygpt.tokenizers import tokenizer
from tinygpt.tokenizers.byte import ByteTokenizer
from tinygpt.tokenizers.byte_pair import BytePairTokenizer
from tinygpt.tokenizers.character import CharacterTokenizer
from tinygpt.tokenizers.tokenizer import StoredTokenizer, Tokenizer, TokenizerError, word_of
from tinygpt.tokenizers.word import WordTokenizer

KINDS: list[type[StoredTokenizer]] = [
    CharacterTokenizer,
    ByteTokenizer,
    WordTokenizer,
    BytePairTokenizer,
]

__all__ = [
    "BytePairTokenizer",
    "ByteTokenizer",
    "CharacterTokenizer",
    "Tokenizer",
    "TokenizerError",
    "WordTokenizer",
    "load",
    "word_of",
]


def load(path: str | os.PathLike[str], advice: str = RESTORE) -> Tokenizer:
    """The tokenizer in a file, of any kind. Raises InputError, which ends with `advice`, for all
    else.
    """
    return tokenizer.load(path, KINDS, advice)
