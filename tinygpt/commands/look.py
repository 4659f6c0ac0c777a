"""See what a trained model makes of a text: one page that needs no network, look.html, or pictures.

The page shows every array on the way from the text to the next token, what each token looks at, and
how this was learned. An encoder-decoder reads the prompt, its source, and writes the target; the
page shows the attention in each of the two texts, and from the target to the source. A fine-tuned
run answers the prompt, up to <|end|>. The page of a classifier shows how it comes to the label.
"""

from __future__ import annotations

import argparse

from tensor.recording import in_bytes
from tinygpt.commands.cli import Parser, add_described, add_flags, add_run, output_path, read_config
from tinygpt.config import LookConfig
from tinygpt.errors import InputError
from tinygpt.inside.look import learning, page, pictures
from tinygpt.inside.look.gather import gather
from tinygpt.runs import run as runs
from tinygpt.terminal import command, say, shown

PAGE = "look.html"
FLAGS = {
    "--out FILE": f"the page (default: {PAGE} in the run's folder, if no picture is asked for)",
    "--attention FILE": "a picture of what each head looks at, of type "
    f"{', '.join(pictures.FORMATS)}",
    "--embeddings FILE": "a picture of the token embeddings in a plane, of the same types",
}
TYPES = {"out": ("html", "htm"), "attention": pictures.FORMATS, "embeddings": pictures.FORMATS}


def arguments(parser: Parser) -> None:
    """The run, the files, and the fields of LookConfig."""
    add_run(parser)
    add_described(parser, FLAGS)
    add_flags(parser, LookConfig)


def run(options: argparse.Namespace) -> int:
    """Load the run, look, write what was asked for."""
    config = read_config(LookConfig, options)
    given = {flag: getattr(options, flag) for flag in TYPES if getattr(options, flag) is not None}
    files = {flag: output_path("look", flag, text, TYPES[flag]) for flag, text in given.items()}
    run, model, tokenizer = runs.load(runs.find(options.run), best=not options.last)
    runs.check_kind(run, "look", "gpt", "encoder-decoder", "gpt-classifier")
    if run.stage == "reward":
        words = "--prompt", "Say hello.", "--target", "Hello.", "--plain"
        raise InputError(
            f"{run.name} gives a score to a reply, and predicts nothing that a page could show\n"
            f"see the score at each token: {command('step', run.folder, *words)}"
        )
    files = files or {"out": run.folder / PAGE}
    look = gather(run, model, tokenizer, config, best=not options.last)
    said = [look.text.given + (look.sight.written if look.text.labelled else look.text.written)]
    if "attention" in files:
        pictures.attention(look, files["attention"])
        said.append(f"what each head looks at: {shown(files['attention'])}")
    if "embeddings" in files:
        pictures.embeddings(look, tokenizer, files["embeddings"])
        said.append(f"the embeddings in a plane: {shown(files['embeddings'])}")
    if "out" in files:
        written = page.write(look, tokenizer, files["out"])
        said.append(f"page: {shown(files['out'])}, {in_bytes(written)}; open it in a browser")
    if count := learning.left_out(run):
        said.append(
            f"snapshots: {learning.SNAPSHOTS} of {learning.SNAPSHOTS + count:,} are shown, "
            f"evenly spread; {count:,} are left out"
        )
    say("\n".join(said))
    return 0
