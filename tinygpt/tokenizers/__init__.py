"""Text to token ids and back.

    CharacterTokenizer    one token a character of the text it was made from
    ByteTokenizer         one token a byte
    WordTokenizer         one token a word of the text it was made from, and <unk> for all others
    BytePairTokenizer     one token a run of bytes that its text often holds, else a byte: GPT-2's
                          kind
    SpecialTokenizer      special tokens such as <pad>, before those of one of the others

They differ in how they cut a text, and are used alike: see `Tokenizer`.
"""

from __future__ import annotations

from tinygpt.tokenizers.byte import ByteTokenizer
from tinygpt.tokenizers.byte_pair import BytePairTokenizer
from tinygpt.tokenizers.character import CharacterTokenizer
from tinygpt.tokenizers.special import SpecialTokenizer, end_tokens, with_end, with_special
from tinygpt.tokenizers.tokenizer import Tokenizer, TokenizerError, word_of
from tinygpt.tokenizers.word import WordTokenizer

__all__ = [
    "BytePairTokenizer",
    "ByteTokenizer",
    "CharacterTokenizer",
    "SpecialTokenizer",
    "Tokenizer",
    "TokenizerError",
    "WordTokenizer",
    "end_tokens",
    "load",
    "with_end",
    "with_special",
    "word_of",
]

load = Tokenizer.load
