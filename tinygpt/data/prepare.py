"""The data of a training: a text, its tokenizer, and two sets of windows that share no token, one
to learn from and one to measure on.

story      149 characters, learned by heart and measured on itself        floor: counted
grammar    stories from a grammar, and other stories to measure on        floor: computed
pairs      of a task, or of a file, with other pairs to measure on        floor: unknown
examples   of a file, or made by rule, with others to measure on          floor: unknown
labelled   texts and labels, likewise                                     floor: unknown
replies    pairs of which one is better, likewise                         floor: unknown
in context texts whose rule is in the text, of rules that were kept back   floor: 0
a file     its first tokens to learn from, its last to measure on         floor: unknown
masked     tokens of one of these texts that are hidden                   floor: unknown
tokens     the same of a token folder, which may be larger than memory    floor: unknown
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt.config import FinetuneConfig, PreferencesConfig, TrainConfig
from tinygpt.data import documents, grammar, masked, token_files
from tinygpt.data.data import Data
from tinygpt.data.finetuning import instructions, labels, pairs_of_replies
from tinygpt.data.in_context import InContext, task_tokenizer
from tinygpt.data.pairs import Pairs, read_pairs
from tinygpt.data.reading import STANDARD_INPUT, opening, read_parts, story
from tinygpt.data.tasks import MEASURED, task_pairs
from tinygpt.data.windows import (
    CorpusError,
    MappedIds,
    SideBySide,
    Windows,
    check_length,
    floor,
    kept_back,
)
from tinygpt.errors import InputError
from tinygpt.files import brief
from tinygpt.ids import MASK_TOKENS, PAIR_TOKENS, Ids
from tinygpt.terminal import Bar, number_of, say, shown
from tinygpt.tokenizers import (
    BytePairTokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    SpecialTokenizer,
    Tokenizer,
    TokenizerError,
    WordTokenizer,
    with_end,
)
from tinygpt.tokenizers.byte_pair import END

TEXTS = ".txt", ".md"  # how the files of text in a folder end
BUILT_IN = (None, "story", "grammar")  # texts that are no files; None: the story
# characters of stories to learn from: more than such a model sees in an hour on a CPU
GRAMMAR_CHARACTERS = 2_000_000
GRAMMAR_MEASURED = 100_000  # characters of other stories to measure on
# tokens up to which the floor of a text measured on itself is counted: more take seconds
LARGEST_FLOOR = 100_000
# between two documents, for a tokenizer that learns from a text: neither a token nor a pair
JOINT = {"character": "", "byte": "", "word": " ", "bpe": END}


def prepare(config: TrainConfig, context: int, tokenizer: Tokenizer | None = None) -> Data:
    """The data of a training. `tokenizer`: the one of the run that goes on or is fine-tuned; by
    default one is made from the text.
    """
    if isinstance(config, FinetuneConfig):
        make = labels if config.task == "classify" else instructions
        return make(config, context, tokenizer)
    if isinstance(config, PreferencesConfig):
        return pairs_of_replies(config, context, tokenizer)
    if config.kind == "encoder-decoder":
        return _pairs(config, context, tokenizer)
    if config.kind == "bert":
        return _masked(config, context, tokenizer)
    if config.in_context:
        return _in_context(config, context, tokenizer)
    return _text(config, context, tokenizer)


def _text(config: TrainConfig, context: int, tokenizer: Tokenizer | None) -> Data:
    """The data of a text: what comes next is learned."""
    if config.text == "grammar":
        return _stories(config, context, tokenizer)
    if token_files.is_token_folder(config.text):
        return _mapped(config, context, tokenizer)
    is_story = config.text in (None, "story")
    paths = [] if is_story else files(str(config.text))
    between = documents.between_files(config.documents, tokenizer)
    text = story() if is_story else "".join(parts(paths, between=between))
    several = between == END and END in text
    if tokenizer is not None and not several:
        text = without_end(text, tokenizer)
    tokenizer = tokenizer or make_tokenizer(config, text)
    ids = np.array(documents.encode_text(tokenizer, text, several), dtype=np.int64)
    kept = kept_back(len(ids), 0.0 if is_story else config.validation, context)
    cut = _cut(ids, len(ids) - kept, context, config.stride)
    name = "standard input" if config.text == STANDARD_INPUT else str(config.text)
    name = "the story that comes with tinygpt" if is_story else name
    size, first, digest = _facts(text)
    if several:
        pieces = Counter(documents.marked([text]))
        characters = sum(len(piece) * count for piece, count in pieces.items() if piece != END)
        size = f"{number_of(pieces[END], 'document')}, {characters:,} characters"
    elif paths and paths != [config.text]:  # of a folder
        size = f"{number_of(len(paths), 'file')}, {size}"
    return Data(name, size, first, digest, tokenizer, *cut)


def without_end(text: str, tokenizer: Tokenizer) -> str:
    """The text without the line end that every editor puts at its end, if the tokenizer does not
    know line ends.
    """
    try:
        tokenizer.encode("\n")
    except TokenizerError:
        return text.removesuffix("\n")
    return text


def _mapped(config: TrainConfig, context: int, tokenizer: Tokenizer | None) -> Data:
    """The data of a token folder. Its tokenizer must be the given one."""
    found = token_files.read(str(config.text), tokenizer)
    header = found.header
    check_length(header.tokens, header.learned, context)
    size = f"{header.tokens:,} tokens as {header.dtype}, of {header.characters:,} characters"
    cut = _cut(found.ids, header.learned, context, config.stride)
    return Data(str(config.text), size, header.opening, found.hash, found.tokenizer, *cut)


def _facts(text: str) -> tuple[str, str, str]:
    """The size for people, the first words, the hash."""
    digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{len(text):,} characters", opening(text), digest


def _cut(
    ids: Ids | MappedIds, learned: int, context: int, stride: int
) -> tuple[Windows, Windows | None, float | None]:
    """Windows of the first `learned` ids, windows of the others, and the floor where there are no
    others. Too few others for a window are one shorter window.
    """
    windows = Windows(ids[:learned], context, stride)
    validation = SideBySide(ids[learned:], context) if learned < len(ids) else None
    lowest = floor(ids, context) if validation is None and len(ids) <= LARGEST_FLOOR else None
    return windows, validation, lowest


def _masked(config: TrainConfig, context: int, tokenizer: Tokenizer | None) -> Data:
    """The data of a text: what was there is learned. All its tokens can be targets."""
    inner = None
    if isinstance(tokenizer, SpecialTokenizer):
        inner = tokenizer.without(len(MASK_TOKENS))
    least = grammar.greatest_length(grammar.STORY) + 2
    if config.text == "grammar" and config.tokenizer == "character" and context < least:
        raise CorpusError(
            f"the longest stories of the grammar do not fit a context of {context}, beside [CLS]\n"
            f"use --context {least}"
        )
    found: Any = _text(config, masked.inner_context(context), inner)
    tokenizer = tokenizer or SpecialTokenizer(found.tokenizer, MASK_TOKENS)
    options = tokenizer.size, config.seed
    measured = found.validation and masked.Masked(found.validation, *options)
    learned = masked.Masked(found.windows, *options, masks=masked.MASKS)
    return replace(found, tokenizer=tokenizer, windows=learned, validation=measured, floor=None)


def _pairs(config: TrainConfig, context: int, tokenizer: Tokenizer | None) -> Data:
    """The pairs of a task, or of a file."""
    if config.pairs is not None:
        learned, others = read_pairs(config.pairs, config.validation)
    else:
        learned, others = task_pairs(str(config.task), config.seed)
    if tokenizer is None:
        seen = [*learned, *others] if config.tokenizer == "character" else learned
        text = " ".join(f"{pair.source} {pair.target}" for pair in seen)
        tokenizer = SpecialTokenizer(learn_tokenizer(config, text), PAIR_TOKENS)
    assert isinstance(tokenizer, SpecialTokenizer)
    lines = "\n".join(f"{pair.source}\t{pair.target}" for pair in [*learned, *others])
    return Data(
        config.learned_from,
        number_of(len(learned), "pair"),
        (others or learned)[0].source,
        sha256(lines.encode()).hexdigest(),
        tokenizer,
        Pairs(learned, tokenizer, context),
        Pairs(others, tokenizer, context) if others else None,
        None,
    )


def _in_context(config: TrainConfig, context: int, tokenizer: Tokenizer | None) -> Data:
    """Texts of a task that have a rule of their own. What is known is certain: the floor is 0."""
    task = str(config.task)
    tokenizer = tokenizer or task_tokenizer(task)
    learned = InContext(task, context, config.seed, tokenizer)
    others = InContext(task, context, config.seed, tokenizer, measured=MEASURED)
    texts = [each.drawn(np.arange(100)).ids.tobytes() for each in (learned, others)]
    return Data(
        config.learned_from,
        "new texts each time",
        tokenizer.decode(others.question()),
        sha256(b"".join(texts)).hexdigest(),
        tokenizer,
        learned,
        others,
        0.0,
    )


def _stories(config: TrainConfig, context: int, tokenizer: Tokenizer | None) -> Data:
    text = grammar.grammar_text(GRAMMAR_CHARACTERS, config.seed)
    # of another seed: drawn anew, so equal stories are chance
    others = grammar.grammar_text(GRAMMAR_MEASURED, config.seed + (1 << 32))
    if tokenizer is None:
        of_characters = config.tokenizer == "character"
        tokenizer = grammar.grammar_tokenizer() if of_characters else learn_tokenizer(config, text)
    measured = grammar.StoryWindows(others, context, tokenizer)
    return Data(
        "stories from a grammar",
        *_facts(text),
        tokenizer,
        grammar.StoryWindows(text, context, tokenizer),
        measured,
        measured.floor(),
    )


# -- texts


def read(text: str | None, between: str = documents.EMPTY_LINE) -> str:
    """The text of a file, or of all files of text in a folder and below, by name. None and "story":
    the story.
    """
    if text in (None, "story"):
        return story()
    return "".join(parts(files(str(text)), between=between))


def files(path: str) -> list[str]:
    """The file, or those of the folder that end in .txt or .md. What cannot be a text is skipped,
    and a line says so.
    """
    if not os.path.isdir(path):
        return [path]
    named = [file for file in sorted(Path(path).rglob("*")) if file.suffix.lower() in TEXTS]
    skipped = {file: why for file in named if (why := _no_text(file, Path(path)))}
    found = [str(file) for file in named if file not in skipped]
    if not found:
        raise InputError(
            f"the folder '{brief(path)}' holds no .txt file and no .md file with some text\n"
            "give a folder of text files, or one file"
        )
    if skipped:
        first = ", ".join(f"{shown(file)} ({why})" for file, why in [*skipped.items()][:5])
        say(f"skipped   {first}{f' and {len(skipped) - 5} more' * (len(skipped) > 5)}")
    return found


def _no_text(file: Path, folder: Path) -> str | None:
    """Why a file in the folder is no text; None where it may be one."""
    if any(part.startswith(".") for part in file.relative_to(folder).parts):
        return "hidden"
    if file.is_dir():
        return "a folder"
    # at most a byte order mark
    if file.is_file() and file.stat().st_size <= 3 and not file.read_bytes().strip(BOM_UTF8):
        return "empty"
    return None


def parts(
    paths: list[str],
    progress: Callable[[int], None] | None = None,
    between: str = documents.EMPTY_LINE,
) -> Iterator[str]:
    """The text of these files, part by part. progress is called with the bytes of each part, and
    `between` stands between two files.
    """
    for i, path in enumerate(paths):
        if i:
            yield between
        yield from read_parts(path, progress=progress)


# -- tokenizers


def make_tokenizer(config: TrainConfig, text: str) -> Tokenizer:
    """The tokenizer that was chosen, with END if the text has several documents. Words and byte
    pairs are learned from the part of the text that the model learns from, characters from all of
    it.
    """
    whole = config.tokenizer == "character" or config.text in (None, "story")
    kept = 0 if whole else int(len(text) * config.validation)
    several = config.documents and END in text
    return learn_tokenizer(config, text[: len(text) - kept], several)


def learn_tokenizer(config: TrainConfig, seen: str, several: bool = False) -> Tokenizer:
    """The chosen tokenizer of a text, with END if it is one of several documents. A bar shows how
    far byte pairs are.
    """
    if several:
        pieces = [document.strip() for document in documents.without_cut(seen).split(END)]
        return with_end(learn_tokenizer(config, JOINT[config.tokenizer].join(pieces)))
    if config.tokenizer == "character":
        return CharacterTokenizer(seen)
    if config.tokenizer == "byte":
        return ByteTokenizer()
    if config.tokenizer == "word":
        return WordTokenizer(seen, config.tokens)
    with Bar() as bar:
        bar.draw(0, config.tokens, "counting words", count="")
        return BytePairTokenizer.train(
            seen,
            config.tokens,
            progress=lambda done, wanted: bar.draw(done, wanted, "byte pairs merged"),
        )
