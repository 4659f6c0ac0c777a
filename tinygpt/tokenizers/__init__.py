"""Text to token ids and back.

    CharacterTokenizer    one token a character of the text it was made from
    ByteTokenizer         one token a byte
    WordTokenizer         one token a word of the text it was made from, and <unk> for all others
    BytePairTokenizer     one token a run of bytes that its text often holds, and a byte where there is none: GPT-2's kind

They differ in how they cut a text, and are used alike: `Tokenizer` says how.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tinygpt.console import shown
from tinygpt.tokenizers.byte import ByteTokenizer
from tinygpt.tokenizers.byte_pair import BytePairTokenizer
from tinygpt.tokenizers.character import CharacterTokenizer
from tinygpt.tokenizers.tokenizer import StoredTokenizer, Tokenizer, TokenizerError, word_of
from tinygpt.tokenizers.word import WordTokenizer

KINDS: dict[str, type[StoredTokenizer]] = {kind.kind: kind for kind in (CharacterTokenizer, ByteTokenizer, WordTokenizer, BytePairTokenizer)}

__all__ = ["BytePairTokenizer", "ByteTokenizer", "CharacterTokenizer", "Tokenizer", "TokenizerError", "WordTokenizer", "load", "word_of"]


def load(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer in a file, of whichever kind. Raises TokenizerError, with the file's name, for anything else, OSError for no file."""
    try:
        kind = KINDS[json.loads(Path(path).read_bytes().decode("utf-8"))["kind"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise TokenizerError(f"{shown(path)} holds no tokenizer: its kind should be one of {', '.join(KINDS)}") from None
    return kind.load(path)
