"""BERT as Hugging Face stores it, read and written: config.json and model.safetensors.
Devlin et al. 2018

    load(folder) -> BERT        what stands in the folder, in the dtype of the file
    save(model, folder)         the same files, which `transformers` loads as BertForMaskedLM

The tokenizers of such folders (WordPiece) are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tensor.dtypes import DTypeLike, promote
from tensor.memory.devices import Array
from tinygpt.config import BERTConfig
from tinygpt.files import FilePath, write_json
from tinygpt.ids import PAD
from tinygpt.model.bert import BERT
from tinygpt.runs import checkpoint, families
from tinygpt.runs.checkpoint import Arrays
from tinygpt.runs.families import Family, new_folder
from tinygpt.runs.tensors import (
    CONFIG,
    WEIGHTS,
    WRAPPERS,
    read_tensors,
    refuse_twins,
    refuse_unknown,
    taken,
)

# -- the tables

FAMILY = Family(
    name="BERT",
    files=f"a BERT of Hugging Face is a folder with {CONFIG} and {WEIGHTS}",
    config=BERTConfig,
    choices={
        "vocab_size": ("vocabulary", 30522),
        "max_position_embeddings": ("context", 512),
        "hidden_size": ("width", 768),
        "num_attention_heads": ("heads", 12),
        "num_hidden_layers": ("layers", 12),
        "hidden_dropout_prob": ("dropout", 0.1),
        "tie_word_embeddings": ("tied", True),
        "layer_norm_eps": ("epsilon", 1e-12),
        "type_vocab_size": ("segments", 2),
    },
    dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob"),
    activation="hidden_act",
    activations={
        "gelu": "gelu_erf",
        "gelu_new": "gelu",
        "gelu_pytorch_tanh": "gelu",
        "gelu_fast": "gelu",
        "relu": "relu",
    },
    inner=("intermediate_size", 3072),
    fixed={
        "model_type": ("bert",),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
        "pad_token_id": (PAD, None),
    },
    ours={"positions": "learned", "norm": "post", "bias": True, "scaled": False},
    written={"architectures": ["BertForMaskedLM"], "torch_dtype": None},
)
PREFIX, HEAD = "bert.", "cls.predictions."
PREFIXES = re.compile(rf"{WRAPPERS}(bert\.)?")
# Numbers 0, 1, 2, ...; what reads the vector of [CLS]; the head that says whether two texts follow
# one another: no part of our model.
OTHERS = re.compile(r"embeddings\.position_ids|pooler\..*|cls\.seq_relationship\..*")
# the first files called the gain and the bias of a LayerNorm so
OLD = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
# what a tied head shares
TWINS = {
    f"{HEAD}decoder.bias": f"{HEAD}bias",
    f"{HEAD}decoder.weight": "embeddings.word_embeddings.weight",
}


class Row(NamedTuple):
    """A parameter: our name; their names, whose arrays are side by side in ours; the shape of each
    of theirs; whether theirs is transposed: torch's Linear keeps (outputs, inputs).
    """

    ours: str
    theirs: tuple[str, ...]
    shape: tuple[int, ...]
    turned: bool = False


def rows(config: BERTConfig) -> Iterator[Row]:
    """Every parameter of the model, those of the head last."""
    V, C = config.vocabulary, config.width
    for ours, theirs, count in (
        ("token_embedding.weight", "word", V),
        ("position_embedding", "position", config.context),
        ("segment_embedding.weight", "token_type", config.segments),
    ):
        yield Row(ours, (f"embeddings.{theirs}_embeddings.weight",), (count, C))
    yield from _norm("embedding_norm", "embeddings.LayerNorm", C)
    for i in range(config.layers):
        ours, theirs = f"blocks.{i}.", f"encoder.layer.{i}."
        answers = [f"{theirs}attention.self.{name}" for name in ("query", "key", "value")]
        yield from _linear(f"{ours}attention.qkv", answers, C, C)
        yield from _linear(f"{ours}attention.projection", [f"{theirs}attention.output.dense"], C, C)
        yield from _norm(f"{ours}attention_norm", f"{theirs}attention.output.LayerNorm", C)
        yield from _linear(f"{ours}feed_forward.expand", [f"{theirs}intermediate.dense"], C, 4 * C)
        yield from _linear(f"{ours}feed_forward.projection", [f"{theirs}output.dense"], 4 * C, C)
        yield from _norm(f"{ours}feed_forward_norm", f"{theirs}output.LayerNorm", C)
    yield from _linear("transform", [f"{HEAD}transform.dense"], C, C)
    yield from _norm("transform_norm", f"{HEAD}transform.LayerNorm", C)
    yield Row("output_bias", (f"{HEAD}bias" if config.tied else f"{HEAD}decoder.bias",), (V,))
    if not config.tied:
        yield Row("head.weight", (f"{HEAD}decoder.weight",), (V, C), turned=True)


def _norm(ours: str, theirs: str, width: int) -> Iterator[Row]:
    yield Row(f"{ours}.gain", (f"{theirs}.weight",), (width,))
    yield Row(f"{ours}.bias", (f"{theirs}.bias",), (width,))


def _linear(ours: str, theirs: list[str], inputs: int, outputs: int) -> Iterator[Row]:
    weights = tuple(f"{name}.weight" for name in theirs)
    yield Row(f"{ours}.weight", weights, (outputs, inputs), turned=True)
    yield Row(f"{ours}.bias", tuple(f"{name}.bias" for name in theirs), (outputs,))


def plain(name: str) -> str | None:
    """Their name without prefixes, as it is called today; None for no part of our model."""
    name = PREFIXES.sub("", name, count=1)
    for old, new in OLD.items():
        name = name.replace(old, new)
    return None if OTHERS.fullmatch(name) else name


# -- reading


def load(folder: FilePath, *, dtype: DTypeLike | None = None, device: str = "cpu") -> BERT:
    """The model in a folder of Hugging Face's, ready to fill (dropout off), in the dtype of its
    file unless another is given.

    A file of the bare BertModel has no head: then the head is that of a fresh model, and only
    `hidden` and `vectors` mean something. Nothing is executed. Names and shapes are compared with
    what config.json means before memory is asked for. Raises InputError for a file that is missing
    or damaged, for a key that means another model, and for a tensor that is missing, unknown or of
    another shape, with both.
    """
    config: BERTConfig = families.as_config(read_keys(folder), FAMILY)
    found = read_tensors(Path(folder), plain, FAMILY.files)
    arrays = matched(found, config)
    dtype = dtype or promote(*{array.dtype for array in arrays.values()})
    headless = "transform.weight" not in arrays
    model = BERT(config, draw=headless, dtype=dtype, device=device)
    model.load_state_dict(model.state_dict() | arrays if headless else arrays)
    return model.eval()


def read_keys(folder: FilePath) -> dict[str, Any]:
    """What config.json says, as it stands. Raises InputError."""
    return families.read_keys(folder, FAMILY.files)


def matched(found: Arrays, config: BERTConfig) -> Arrays:
    """Their tensors under our names. Raises InputError for the first that is missing, has another
    shape or is not known.
    """
    state: Arrays = {}
    left = dict(found)
    headless = not any(name.startswith(HEAD) for name in found)
    for row in rows(config):
        if headless and row.theirs[0].startswith(HEAD):
            continue
        arrays = [taken(left, name, row.shape) for name in row.theirs]
        state[row.ours] = np.concatenate([turned(row, array) for array in arrays], axis=-1)
    if not config.tied:
        left.pop(f"{HEAD}bias", None)  # the decoder's own bias is added in its place
    elif not headless:  # some files store what is shared twice
        for twin, name in TWINS.items():
            refuse_twins(left, twin, name, found[name])
    refuse_unknown(left)
    return state


def turned(row: Row, array: Array) -> Array:
    """Their array as ours, and ours as theirs."""
    return array.T if row.turned else array


# a constructor that knows files stands above the model
BERT.from_bert = staticmethod(load)  # type: ignore[attr-defined]


# -- writing


def save(model: BERT, folder: FilePath, *, keys: Mapping[str, Any] | None = None) -> None:
    """Make a folder that `transformers` loads: config.json and model.safetensors.

    keys: the config.json that the model came with; what it says beyond our choices is kept. The
    whole folder appears in one move. Raises InputError where BERT cannot be what the model is, and
    for a folder that holds something or cannot be written.
    """
    content = families.as_keys(model, FAMILY, keys, CONFIG)
    state, arrays = model.state_dict(), dict[str, Array]()
    for row in rows(model.config):
        parts = np.split(state[row.ours].array, len(row.theirs), axis=-1)
        for name, array in zip(row.theirs, parts, strict=True):
            arrays[PREFIX * (not name.startswith(HEAD)) + name] = turned(row, array)
    if not model.config.tied:
        arrays[f"{HEAD}bias"] = arrays[f"{HEAD}decoder.bias"]
    with new_folder(Path(folder)) as temporary:
        write_json(temporary / CONFIG, content)
        checkpoint.write_arrays(temporary / WEIGHTS, arrays, form="pt")
