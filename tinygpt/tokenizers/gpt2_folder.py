"""The tokenizer of a GPT-2 in a folder of Hugging Face.

    tokenizer.json              the whole tokenizer, as transformers 5 saves it. Without this file:
    vocab.json, merges.txt      tokens and merges; OpenAI's names are encoder.json and vocab.bpe
    added_tokens.json           {"token": id}, tokens beyond vocab.json
    tokenizer_config.json,      settings, and names of special tokens
    special_tokens_map.json

Any of these files may hold settings that change ids. Each such setting means here what it means in
transformers, or is refused by its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tinygpt.errors import InputError
from tinygpt.files import brief, parse_json, read_json
from tinygpt.terminal import shown
from tinygpt.tokenizers.byte_pair import END, BytePairs, BytePairTokenizer
from tinygpt.tokenizers.gpt2_files import RESTORE, Id, in_order, read_merges, read_vocabulary
from tinygpt.tokenizers.tokenizer import TokenizerError, quoted, read_tokens

WHOLE, SETTINGS, MAP = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
ADDED = "added_tokens.json"
PAIRS = ("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")

# What their tokenizers could do otherwise and ours does one way: the values that mean it; the
# first is what a missing key means.
SETTING: dict[str, tuple[Any, ...]] = {
    "add_prefix_space": (False, None),
    "add_bos_token": (False, None),
    "add_eos_token": (False, None),
    "split_special_tokens": (False, None),
    "tokenizer_class": (
        None,
        "GPT2Tokenizer",
        "GPT2TokenizerFast",
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
    ),
}
MODEL: dict[str, tuple[Any, ...]] = {
    "type": ("BPE",),
    "dropout": (None, 0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (False,),
    "ignore_merges": (False,),
}
CUT: dict[str, tuple[Any, ...]] = {
    "type": ("ByteLevel",),
    "add_prefix_space": (False,),
    "use_regex": (True,),
}
FLAG: dict[str, tuple[Any, ...]] = dict.fromkeys(("single_word", "lstrip", "rstrip"), (False,))


def check_settings(
    keys: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]], where: str
) -> None:
    """Raise InputError for the first key with a value that is not allowed. A key that is missing
    means the first of its allowed values.
    """
    for key, meanings in allowed.items():
        value = keys.get(key, meanings[0])
        if value not in meanings:
            supported = " or ".join(map(json.dumps, meanings))
            raise InputError(
                f"{where}: {key} {brief(json.dumps(value))} is not supported, only {supported}"
            )


class Parts(NamedTuple):
    """What a folder says of its tokens."""

    files: str  # for people
    ids: dict[str, int]
    merges: list[str]
    specials: set[str]


def load(folder: Path) -> BytePairTokenizer:
    """The tokenizer in the folder. Raises InputError for files that are missing or damaged, and for
    a setting that is not supported.
    """
    parts = _whole(folder / WHOLE) if (folder / WHOLE).exists() else _apart(folder)
    files, ids, merges, specials = parts
    for file in (folder / SETTINGS, folder / MAP):
        if file.exists():
            added, named = _settings(file)
            ids, specials = ids | added, specials | {*added, *named}
    unknown = sorted(specials - ids.keys())
    if unknown:
        raise InputError(
            f"{shown(folder)}: the special token {quoted(unknown[0])} has no id in any "
            f"file\n{RESTORE}"
        )
    specials |= {END} & ids.keys()
    tokens = in_order(ids, files)
    content = BytePairs({text: ids[text] for text in specials}, tuple(merges), tuple(tokens))
    try:
        return BytePairTokenizer.from_content(content)
    except TokenizerError as error:
        raise TokenizerError(f"the tokens of {files} do not fit together: {error}") from None


# -- the files


def _apart(folder: Path) -> Parts:
    """Tokens, merges and added tokens in files of their own."""
    names = next((pair for pair in PAIRS if (folder / pair[0]).exists()), PAIRS[0])
    vocabulary, merges = (folder / name for name in names)
    ids, added = read_vocabulary(vocabulary), dict[str, int]()
    if (folder / ADDED).exists():
        added = read_vocabulary(folder / ADDED)
    files = f"{shown(vocabulary)} and {shown(merges)}"
    return Parts(files, ids | added, read_merges(merges), set(added))


class Added(msgspec.Struct):
    """A token that is found in the text before anything is merged."""

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False


class Numbered(Added, kw_only=True):
    """Such a token with its id."""

    id: Id


class Model(msgspec.Struct):
    """The part of tokenizer.json with tokens and merges."""

    vocab: dict[str, Id]
    merges: list[str | tuple[str, str]] = []
    type: Any = "BPE"
    dropout: Any = None
    continuing_subword_prefix: Any = None
    end_of_word_suffix: Any = None
    byte_fallback: Any = False
    ignore_merges: Any = False


class Whole(msgspec.Struct):
    """A tokenizer.json."""

    model: Model
    added_tokens: list[Numbered] = []
    normalizer: Any = None
    pre_tokenizer: Any = None
    post_processor: Any = None


def _whole(path: Path) -> Parts:
    whole, where = parse_json(read_tokens(path, RESTORE), Whole, path, RESTORE), shown(path)
    model, cut = whole.model, whole.pre_tokenizer
    check_settings(msgspec.structs.asdict(model), MODEL, where)
    check_settings({"normalizer": whole.normalizer}, {"normalizer": (None,)}, where)
    check_settings(cut if isinstance(cut, dict) else {"type": cut}, CUT, f"{where}, pre_tokenizer")
    after = json.dumps(whole.post_processor)
    if '"SpecialToken"' in after.partition('"pair"')[0]:
        raise InputError(
            f"{where}: post_processor adds special tokens to every text, which is not supported"
        )
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model.merges]
    added = {_plain(token, where): token.id for token in whole.added_tokens}
    return Parts(where, model.vocab | added, merges, set(added))


# -- settings

ROLES = [f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]
Named = str | Added | None


class Settings(msgspec.Struct):
    """The keys of tokenizer_config.json and special_tokens_map.json that change ids."""

    bos_token: Named = None
    eos_token: Named = None
    unk_token: Named = None
    sep_token: Named = None
    pad_token: Named = None
    cls_token: Named = None
    mask_token: Named = None
    additional_special_tokens: list[str | Added] | None = None
    extra_special_tokens: list[str | Added] | dict[str, str | Added] | None = None
    added_tokens_decoder: dict[Id, Added] | None = None
    add_prefix_space: Any = False
    add_bos_token: Any = False
    add_eos_token: Any = False
    split_special_tokens: Any = False
    tokenizer_class: Any = None


def _settings(path: Path) -> tuple[dict[str, int], set[str]]:
    """The tokens that have ids there, and all names of special tokens."""
    settings, where = read_json(path, Settings, advice=RESTORE), shown(path)
    check_settings(msgspec.structs.asdict(settings), SETTING, where)
    added = settings.added_tokens_decoder or {}
    ids = {_plain(token, where): number for number, token in added.items()}
    return ids, {_plain(token, where) for token in _named(settings)}


def _named(settings: Settings) -> Iterator[str | Added]:
    for name in ROLES:
        token = getattr(settings, name)
        if token is not None:
            yield token
    yield from settings.additional_special_tokens or ()
    more = settings.extra_special_tokens or ()
    yield from more.values() if isinstance(more, dict) else more


def _plain(token: str | Added, where: str) -> str:
    """The text of a token. Raises InputError for one that takes white space with it, or that is
    found only as a word of its own.
    """
    if isinstance(token, str):
        return token
    check_settings(msgspec.structs.asdict(token), FLAG, f"{where}, token {quoted(token.content)}")
    return token.content
