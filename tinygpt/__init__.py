"""tinygpt: a GPT on the `tensor` engine, from characters to text.

    >>> import tinygpt
    >>> text = tinygpt.story()
    >>> tokenizer = tinygpt.CharacterTokenizer(text)
    >>> x, y = tinygpt.windows(tokenizer.encode(text), context=32)
    >>> model = tinygpt.GPT(tinygpt.GPTConfig(tokenizer.size, context=32, width=64, heads=4,
    layers=2))
    >>> model.loss(x, y).backward()

From here read model.py, top to bottom.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, which takes longer to import than all that is here
if TYPE_CHECKING:
    from tinygpt.config import (
        BERTConfig,
        ConfigError,
        EncoderDecoderConfig,
        GPTConfig,
        SampleConfig,
        TrainConfig,
    )
    from tinygpt.data.reading import story
    from tinygpt.data.windows import CorpusError, floor, windows
    from tinygpt.errors import InputError
    from tinygpt.generation.answers import answers
    from tinygpt.generation.beam import beam_search
    from tinygpt.model.bert import BERT
    from tinygpt.model.encoder_decoder import EncoderDecoder
    from tinygpt.model.gpt import GPT
    from tinygpt.tokenizers import (
        BytePairTokenizer,
        ByteTokenizer,
        CharacterTokenizer,
        SpecialTokenizer,
        TokenizerError,
        WordTokenizer,
    )

__version__ = "0.1.0"
__all__ = [
    "BERT",
    "GPT",
    "BERTConfig",
    "BytePairTokenizer",
    "ByteTokenizer",
    "CharacterTokenizer",
    "ConfigError",
    "CorpusError",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "GPTConfig",
    "InputError",
    "SampleConfig",
    "SpecialTokenizer",
    "TokenizerError",
    "TrainConfig",
    "WordTokenizer",
    "answers",
    "beam_search",
    "floor",
    "story",
    "windows",
]
MODULES = (
    "config",
    "data.reading",
    "data.windows",
    "errors",
    "generation.answers",
    "generation.beam",
    "model.encoder_decoder",
    "runs.bert",
    "runs.gpt2",
    "tokenizers",
)

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A name of `__all__`, imported when it is first asked for: `tinygpt --help` needs none,
        and Ctrl-C finds little to interrupt.
        """
        if name in __all__:
            import importlib

            for module in MODULES:
                found = getattr(importlib.import_module(f"tinygpt.{module}"), name, None)
                if found is not None:
                    globals()[name] = found
                    return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
