"""Make a run of a GPT-2 that Hugging Face stores: a folder with config.json, model.safetensors, and
tokenizer.json or vocab.json and merges.txt.

Neither torch nor transformers is needed. `tinygpt sample` and all that takes a run then work on it;
`tinygpt export-gpt2` writes it back.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from tinygpt.commands.cli import Parser
from tinygpt.config import GPTConfig, TrainConfig
from tinygpt.errors import InputError
from tinygpt.files import write_json, writing
from tinygpt.runs import checkpoint, gpt2
from tinygpt.runs import run as runs
from tinygpt.runs.tensors import CONFIG
from tinygpt.terminal import command, say, shown
from tinygpt.tokenizers import BytePairTokenizer, gpt2_folder

# rows of a table beyond its tokens, at most: tables are padded to a multiple of up to 1,024
PADDING = 1024
OPENING = "The"  # what a sample continues when no prompt is given


def arguments(parser: Parser) -> None:
    """The folder, where the run goes, the dtype."""
    parser.add_argument("folder", metavar="DIR", help="folder of a GPT-2")
    parser.add_argument(
        "--out", metavar="FOLDER", help="folder of the run (runs/ and a new name, if not given)"
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "float64", "bfloat16", "float16"],
        help="of weights and activations (as in the file, if not given)",
    )


def run(options: argparse.Namespace) -> int:
    """Read and compare everything, then make the run."""
    source = Path(options.folder)
    keys = gpt2.read_keys(source)
    config = gpt2.as_config(keys)
    tokenizer = _tokenizer(source, config)
    rows, config = config.vocabulary, replace(config, vocabulary=tokenizer.size)
    model = gpt2.load(source, vocabulary=tokenizer.size, dtype=options.dtype)
    dtype = model.token_embedding.weight.dtype.name
    training = TrainConfig(dtype=dtype, out=options.out)
    made = runs.Run(config, training, OPENING, folder=Path(options.out or runs.RUNS))
    name = runs.name_of(source.resolve().name, "gpt2")
    with (
        runs.create(made, tokenizer, name) as (run, _),
        writing(run.folder, "free some space there, or name another folder: --out FOLDER", "save"),
    ):
        write_json(run.folder / gpt2.KEPT, keys)  # for the way back
        # without an optimiser: nothing has been trained
        weights = {name: parameter.array for name, parameter in model.state_dict().items()}
        checkpoint.save(run.folder, {runs.MODEL: weights}, checkpoint.State())
    say(f"model     {runs.described(config)}")
    say(f"tokens    {config.vocabulary:,} different, {config.context:,} seen at once")
    if rows > config.vocabulary:
        say(f"          {rows - config.vocabulary:,} rows of the table have no token: left out")
    differing = {key: keys.get(key, 0.1) for key in gpt2.DROPOUTS}
    if len({*differing.values()}) > 1:
        theirs = ", ".join(f"{key} {value:g}" for key, value in differing.items())
        say(f"dropout   {config.dropout:g} in all places, if you train it; theirs: {theirs}")
    say(f"dtype     {dtype}: {'as asked' if options.dtype else 'as in the file'}")
    where = "as asked" if options.out else "the first free name; --out FOLDER for another"
    say(f"run       {run.name}: {where}")
    say(f"\ntry it: {command('sample', run.folder, '--prompt', 'The cat')}")
    return 0


def _tokenizer(source: Path, config: GPTConfig) -> BytePairTokenizer:
    """The tokenizer, whose tokens all have a row in the table of the model."""
    tokenizer = gpt2_folder.load(source)
    if not 0 <= config.vocabulary - tokenizer.size < PADDING:
        raise InputError(
            f"the tokenizer of {shown(source)} knows {tokenizer.size:,} tokens, vocab_size in "
            f"{CONFIG} is {config.vocabulary:,}\nput the files of one model together"
        )
    return tokenizer
