"""Families of models that Hugging Face stores, such as GPT-2 and BERT: what their config.json says,
and how a folder of theirs is read and written.

    as_config(keys, family)         our choices for their config.json
    as_keys(model, family, keys)    their config.json for our choices
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tinygpt.config import ModelConfig
from tinygpt.errors import InputError
from tinygpt.files import KEYS, FilePath, brief, read_json, replace, writing
from tinygpt.model.transformer import Transformer
from tinygpt.runs.tensors import CONFIG, refuse_pickle
from tinygpt.terminal import shown
from tinygpt.tokenizers.gpt2_files import RESTORE
from tinygpt.tokenizers.gpt2_folder import check_settings

DTYPES = "dtype", "torch_dtype"  # the key in transformers 5 and before


class Family(NamedTuple):
    """What the files of one family of models call our choices."""

    name: str  # for people
    files: str  # for people: what a folder holds
    config: type[ModelConfig]
    # theirs -> ours, and what a config.json that does not say means
    choices: dict[str, tuple[str, Any]]
    # one dropout of ours; it changes nothing but a training. The first is one of the choices
    dropouts: tuple[str, ...]
    # of the nonlinearity: the key, and their names -> ours; of several the first is written
    activation: str
    activations: dict[str, str]
    # of the width inside the feed-forward: the key, and what a missing key means
    inner: tuple[str, int | None]
    # What their models could do otherwise and ours does one way: the values that mean it; the first
    # is the one that a missing key means, and that is written.
    fixed: dict[str, tuple[Any, ...]]
    ours: dict[str, Any]  # what ours could do otherwise, and theirs does one way
    written: dict[str, Any]  # what else stands in the config.json of a model that came with none


def read_keys(folder: FilePath, files: str) -> dict[str, Any]:
    """What config.json says, as it stands. files: for people, what the folder should hold. Raises
    InputError.
    """
    refuse_pickle(Path(folder))
    keys: dict[str, Any] = read_json(Path(folder) / CONFIG, KEYS, advice=f"{RESTORE}: {files}")
    return keys


def as_config(keys: Mapping[str, Any], family: Family, **ours: Any) -> Any:
    """Our choices for their keys. ours: choices that differ from those of the family. Raises
    InputError for a model that is not as the family is built here, with the key and what it may be.
    """
    allowed = family.fixed | {family.activation: tuple(family.activations)}
    check_settings(keys, allowed, CONFIG)
    choices: dict[str, Any] = {}
    for key, (name, usual) in family.choices.items():
        value = keys.get(key, usual)
        if not (type(value) is type(usual) or (type(usual) is float and type(value) is int)):
            raise _unsupported(key, value, f": a value like {json.dumps(usual)} is needed")
        choices[name] = value
    for key in family.dropouts:
        value = keys.get(key, 0.1)
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise _unsupported(key, value, ": a number, at least 0 and below 1, is needed")
    first = next(iter(family.activations))
    choices["activation"] = family.activations[keys.get(family.activation, first)]
    _check_inner(keys, family, choices["width"])
    try:
        return family.config(**choices, **family.ours | ours)
    except InputError as error:
        name, _, rest = str(error).partition(" ")
        theirs = next(key for key, (ours, _) in family.choices.items() if ours == name)
        raise InputError(f"{CONFIG}: {theirs} {rest}") from None


def _check_inner(keys: Mapping[str, Any], family: Family, width: int) -> None:
    """Raise InputError where the feed-forward is not 4 times as wide as a token."""
    key, otherwise = family.inner
    inner, usual = keys.get(key, otherwise), 4 * width
    if inner not in (None, usual):
        theirs = next(key for key, (ours, _) in family.choices.items() if ours == "width")
        null = "null or " if otherwise is None else ""
        raise _unsupported(key, inner, f" is not supported, only {null}4 {theirs}, here {usual}")


def _unsupported(key: str, value: Any, why: str) -> InputError:
    return InputError(f"{CONFIG}: {key} {brief(json.dumps(value))}{why}")


def as_keys(
    model: Transformer, family: Family, keys: Mapping[str, Any] | None, kept: str
) -> dict[str, Any]:
    """The config.json of a model: `keys`, if given, with our choices in their places. Raises
    InputError for what the family has not. kept: for people, where `keys` stood.
    """
    config, dtype = model.config, model.token_embedding.weight.dtype.name
    for name, only in family.ours.items():
        if getattr(config, name) != only:
            raise InputError(
                f"{family.name} cannot hold this model: its {name} is {getattr(config, name)}, "
                f"{family.name}'s {only}\ntrain one as {family.name} is, with the defaults"
            )
    first = next(iter(family.activations))
    usual_keys = {key: meanings[0] for key, meanings in family.fixed.items()}
    usual_keys |= {family.activation: first} | family.written
    content = dict(usual_keys if keys is None else keys)
    for key, (name, usual) in family.choices.items():
        if keys is None or content.get(key, usual) != getattr(config, name):
            content |= (
                dict.fromkeys(family.dropouts, config.dropout)
                if name == "dropout"
                else {key: getattr(config, name)}
            )
    if family.activations.get(content.get(family.activation, first)) != config.activation:
        names = {ours: theirs for theirs, ours in reversed(family.activations.items())}
        content[family.activation] = names[config.activation]
    content |= {key: dtype for key in DTYPES if key in content}
    inner, otherwise = family.inner
    if otherwise is not None:
        content[inner] = 4 * config.width
    if as_config(content, family) != config:
        raise InputError(
            f"the {CONFIG} that this model came with ({kept} in its run) is of another model\n"
            "without it the usual one is written"
        )
    return content


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """`with new_folder(folder) as temporary:` the whole folder appears in one move, at the end.
    Raises InputError for a folder that holds something or cannot be written.
    """
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{shown(folder)} exists and is not an empty folder\nname a new one")
    temporary = folder.absolute().with_name(f".{folder.absolute().name}.{os.getpid()}.tmp")
    try:
        with writing(folder, "name a folder you may write to"):
            temporary.mkdir(parents=True)
            yield temporary
            if folder.exists():
                folder.rmdir()  # Windows moves no folder over another, not even over an empty one
            replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
