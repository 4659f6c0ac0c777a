"""Give each text a vector: `tinygpt embed RUN --prompt TEXT` takes a BERT, trained with
`tinygpt train --task masked`.

The vector is the mean of the hidden states of the text's tokens. A line of the output is JSON: the
text and its vector. With `--out FILE` the vectors are the rows of an array in a file of NumPy.
"""

from __future__ import annotations

import argparse
import json
from io import BytesIO
from typing import Any

import numpy as np

from tensor import no_grad
from tensor.nn import evaluating
from tinygpt.commands.cli import Parser, add_described, add_run, output_path
from tinygpt.data.reading import name_of, read_text
from tinygpt.errors import InputError
from tinygpt.files import brief, write_atomically, writing
from tinygpt.generation.sampling import REPAIR
from tinygpt.ids import CLS, padded
from tinygpt.runs import run as runs
from tinygpt.terminal import number_of, say, shown
from tinygpt.tokenizers import Tokenizer
from tinygpt.training.measure import batch_of

FLAGS = {
    "--prompt TEXT": "the text",
    "--prompts FILE": "a file with a text in each line; - is standard input",
    "--out FILE": "a file of NumPy, .npy, for an array with a row for each text",
}


def arguments(parser: Parser) -> None:
    """The run and the texts."""
    add_run(parser)
    add_described(parser, FLAGS)


def run(options: argparse.Namespace) -> int:
    """Load the run, compute the vectors, write them."""
    out = None if options.out is None else output_path("embed", "out", options.out, ["npy"])
    run, model, tokenizer = runs.load(runs.find(options.run), best=not options.last)
    runs.check_kind(run, "embed", "bert")
    texts = _texts(options)
    found = vectors(model, [_ids(run, tokenizer, text) for text in texts])
    if out is None:
        for text, vector in zip(texts, found.tolist(), strict=True):
            say(json.dumps({"text": text, "vector": vector}))
        return 0
    content = BytesIO()
    np.save(content, found)
    with writing(out, "name another file: --out FILE", "save"):
        write_atomically(out, content.getvalue())
    say(f"wrote {shown(out)}: {number_of(len(texts), 'text')}, {found.shape[1]} numbers each")
    return 0


def vectors(model: Any, texts: list[list[int]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A vector for each text, (N, C).   texts: ids of any length, at least one. Raises InputError
    where a vector is not finite.
    """
    together = batch_of(model.config, model.context)
    found = []
    with no_grad(), evaluating():
        for start in range(0, len(texts), together):
            ids, _ = padded([[CLS, *text] for text in texts[start : start + together]])
            found.append(model.vectors(ids).to("cpu", dtype="float32").numpy())
    every = np.concatenate(found)
    if not np.isfinite(every).all():
        raise InputError(
            f"the vectors are not finite numbers: the model's weights are broken\n{REPAIR}"
        )
    return every


def _texts(options: argparse.Namespace) -> list[str]:
    """The texts. Raises InputError unless they are given in one way, and where there is none."""
    if (options.prompt is None) == (options.prompts is None):
        how = "give one of the two" if options.prompt is None else "leave one of the two out"
        raise InputError(f"a text is given by --prompt, texts by --prompts\n{how}")
    if options.prompt is not None:
        return [options.prompt]
    texts = [line for line in read_text(options.prompts).split("\n") if line]
    if not texts:
        raise InputError(
            f"{name_of(options.prompts)} holds no text\n"
            "give a file with a text in each line, or --prompt TEXT"
        )
    return texts


def _ids(run: runs.Run, tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text. Raises InputError where the model cannot read it."""
    ids, most = tokenizer.encode(text), run.model.context - 1
    if not 0 < len(ids) <= most:
        raise InputError(
            f"'{brief(text)}' has {number_of(len(ids), tokenizer.unit)}, and {run.name} reads 1 to "
            f"{most} at once"
        )
    return ids
