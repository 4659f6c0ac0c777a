"""tinygpt: a GPT on the `tensor` engine, from characters to text.

    >>> import tinygpt
    >>> text = tinygpt.story()
    >>> tokenizer = tinygpt.CharacterTokenizer(text)
    >>> x, y = tinygpt.windows(tokenizer.encode(text), context=32)
    >>> model = tinygpt.GPT(tinygpt.GPTConfig(tokenizer.size, context=32, width=64, heads=4, layers=2))
    >>> model.loss(x, y).backward()

From here read model.py, top to bottom.
"""

from tinygpt.config import ConfigError, GPTConfig, SampleConfig, TrainConfig
from tinygpt.corpus import CorpusError, floor, story, windows
from tinygpt.errors import InputError
from tinygpt.model import GPT
from tinygpt.tokenizers import BytePairTokenizer, ByteTokenizer, CharacterTokenizer, TokenizerError, WordTokenizer

__version__ = "0.1.0"
__all__ = [
    "GPT",
    "BytePairTokenizer",
    "ByteTokenizer",
    "CharacterTokenizer",
    "ConfigError",
    "CorpusError",
    "GPTConfig",
    "InputError",
    "SampleConfig",
    "TokenizerError",
    "TrainConfig",
    "WordTokenizer",
    "floor",
    "story",
    "windows",
]
