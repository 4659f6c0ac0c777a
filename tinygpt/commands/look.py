"""See what a trained GPT makes of a text: one page that needs no network, look.html, or pictures.

The page shows every array on the way from the text to the next token, what each token looks at, and how that was learned.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tensor.tape import in_bytes
from tinygpt import runs
from tinygpt.cli import Parser, add_flags, read_config
from tinygpt.console import say, shown
from tinygpt.errors import InputError
from tinygpt.look import learning, page, pictures
from tinygpt.look.gather import LookConfig, gather

PAGE = "look.html"
TYPES = {"output": ("html", "htm"), "attention": pictures.FORMATS, "embeddings": pictures.FORMATS}  # of each file


def arguments(parser: Parser) -> None:
    """The run, the files, and the fields of LookConfig."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="a name in runs/ or the path of a run folder (default: the run saved last)")
    parser.add_argument("--output", metavar="FILE", help=f"the page (default: {PAGE}, if no picture is asked for)")
    parser.add_argument("--attention", metavar="FILE", help=f"a picture of what each head looks at, of type {', '.join(pictures.FORMATS)}")
    parser.add_argument("--embeddings", metavar="FILE", help="a picture of the token embeddings in a plane, of the same types")
    parser.add_argument("--last", action="store_true", help="the last weights, not those with the lowest validation loss")
    add_flags(parser, LookConfig)


def run(options: argparse.Namespace) -> int:
    """Load the run, look, write what was asked for."""
    config = read_config(LookConfig, options)
    files = {name: _file(name, getattr(options, name)) for name in TYPES if getattr(options, name) is not None} or {"output": Path(PAGE)}
    run, model, tokenizer = runs.load(runs.find(options.run), best=not options.last)
    look = gather(run, model, tokenizer, config, best=not options.last)
    said = [look.text.given + look.text.written]
    if "attention" in files:
        pictures.attention(look, files["attention"])
        said.append(f"what each head looks at: {shown(files['attention'])}")
    if "embeddings" in files:
        pictures.embeddings(look, tokenizer, files["embeddings"])
        said.append(f"the embeddings in a plane: {shown(files['embeddings'])}")
    if "output" in files:
        written = page.write(look, tokenizer, files["output"])
        said.append(f"page: {shown(files['output'])}, {in_bytes(written)}; open it in a browser")
    if count := learning.left_out(run):
        said.append(f"snapshots: {learning.SNAPSHOTS} of {learning.SNAPSHOTS + count:,} are shown, evenly spread; {count:,} are left out")
    say("\n".join(said))
    return 0


def _file(name: str, text: str) -> Path:
    """A file that can be written, as far as its name tells."""
    path = Path(text)
    types = TYPES[name]
    if path.suffix[1:].lower() not in types:
        what = "a page" if name == "output" else "a picture"
        raise InputError(f"--{name} {shown(path)}: {what}'s name ends in .{', .'.join(types[:-1])} or .{types[-1]}\nsee: tinygpt look --help")
    if path.is_dir() or not path.parent.is_dir():
        why = "it is a folder" if path.is_dir() else "there is no such folder"
        raise InputError(f"cannot write to {shown(path)} ({why})\nname another file: --{name} FILE")
    return path
