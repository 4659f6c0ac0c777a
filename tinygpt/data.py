"""What a training learns from and is measured on: a text, its tokenizer, and two sets of windows that share no token.

story      149 characters, learned by heart and measured on itself        floor: counted
grammar    stories drawn from a grammar, and others to measure on         floor: computed
a file     its first tokens to learn from, its last to measure on         floor: unknown
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tinygpt import corpus, grammar
from tinygpt.config import TrainConfig
from tinygpt.corpus import SideBySide, Windows
from tinygpt.errors import InputError
from tinygpt.tokenizers import BytePairTokenizer, ByteTokenizer, CharacterTokenizer, Tokenizer, WordTokenizer

GRAMMAR_CHARACTERS = 2_000_000  # of stories to learn from: more than a model of this kind sees in an hour on a CPU
GRAMMAR_MEASURED = 100_000  # of other stories to measure on
LARGEST_FLOOR = 100_000  # tokens up to which the floor of a text measured on itself is counted: it takes seconds beyond


@dataclass(frozen=True)
class Data:
    """Windows to learn from, and to measure on (None: the same ones)."""

    name: str  # for people
    text: str
    tokenizer: Tokenizer
    windows: Windows
    validation: Windows | None
    floor: float | None  # nats a token that no model can go below; None where nobody knows

    @property
    def hash(self) -> str:
        """SHA-256 of the text."""
        return sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def unit(self) -> str:
        """What a token is, for people."""
        return {CharacterTokenizer: "character", ByteTokenizer: "byte"}.get(type(self.tokenizer), "token")


def prepare(config: TrainConfig, context: int, tokenizer: Tokenizer | None = None) -> Data:
    """The data of a training. `tokenizer`: that of a run that goes on or is fine-tuned; else one is made from the text."""
    if config.text == "grammar":
        return _stories(config, context, tokenizer)
    is_story = config.text in (None, "story")
    text = corpus.story() if is_story else read(str(config.text))
    tokenizer = tokenizer or make_tokenizer(config, text)
    ids = tokenizer.encode(text)
    kept_back = 0 if is_story else int(len(ids) * config.validation)
    if kept_back <= context:  # not one window: measured on what is learned from, and the program says so
        kept_back = 0
    windows = Windows(ids[: len(ids) - kept_back], context, config.stride)
    validation = SideBySide(ids[len(ids) - kept_back :], context) if kept_back else None
    floor = corpus.floor(ids, context) if validation is None and len(ids) <= LARGEST_FLOOR else None
    return Data("the story that comes with tinygpt" if is_story else str(config.text), text, tokenizer, windows, validation, floor)


def _stories(config: TrainConfig, context: int, tokenizer: Tokenizer | None) -> Data:
    if tokenizer is not None and not isinstance(tokenizer, CharacterTokenizer):
        raise InputError(
            "the stories of the grammar are told in characters, which this run's tokenizer does not use\nstart from a run whose tokenizer is `character`"
        )
    known = tokenizer or grammar.grammar_tokenizer()
    text = grammar.grammar_text(GRAMMAR_CHARACTERS, config.seed)
    others = grammar.grammar_text(GRAMMAR_MEASURED, config.seed + (1 << 32))  # of another seed: stories may repeat, but were not copied
    windows, validation = (grammar.story_windows(part, context, known) for part in (text, others))
    return Data("stories from a grammar", text, known, windows, validation, grammar.story_grammar().floor())


def read(path: str) -> str:
    """The text of a file, or of all `.txt` files in a folder and below, by name, an empty line between two."""
    if not Path(path).is_dir():
        return corpus.read_text(path)
    files = sorted(Path(path).rglob("*.txt"))
    if not files:
        raise InputError(f"the folder {path!r} holds no .txt file\ngive a folder of text files, or one file")
    return "\n\n".join(corpus.read_text(str(file)) for file in files)


def make_tokenizer(config: TrainConfig, text: str) -> Tokenizer:
    """The tokenizer that was chosen; byte pairs are learned from the part of the text that is learned from."""
    if config.tokenizer == "character":
        return CharacterTokenizer(text)
    if config.tokenizer == "byte":
        return ByteTokenizer()
    seen = text[: len(text) - int(len(text) * config.validation)] if config.text not in (None, "story") else text
    return WordTokenizer(seen, config.tokens) if config.tokenizer == "word" else BytePairTokenizer.train(seen, config.tokens)
