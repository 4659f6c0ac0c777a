"""Write a run as a GPT-2 of Hugging Face: a folder with config.json, model.safetensors, vocab.json
and merges.txt.

transformers loads it (`GPT2LMHeadModel.from_pretrained(DIR)`) and gives the same logits. A model
that GPT-2 cannot be is refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tinygpt.commands.cli import LAST, Parser
from tinygpt.files import KEYS, read_json
from tinygpt.runs import gpt2
from tinygpt.runs import run as runs
from tinygpt.runs.tensors import CONFIG
from tinygpt.terminal import say, shown
from tinygpt.tokenizers import BytePairTokenizer, SpecialTokenizer

WITHOUT = f"restore it from a copy, or delete it: without it the usual {CONFIG} is written"


def arguments(parser: Parser) -> None:
    """The run and the folder."""
    parser.add_argument("run", metavar="RUN", help="a name in runs/ or the path of a run folder")
    parser.add_argument(
        "folder", metavar="DIR", help="folder to make; one that is there must be empty"
    )
    parser.add_argument("--last", action="store_true", help=LAST)


def run(options: argparse.Namespace) -> int:
    """Load the run, write the folder."""
    run, model, tokenizer = runs.load(runs.find(options.run), best=not options.last)
    runs.check_kind(run, "export-gpt2", "gpt")
    kept = run.folder / gpt2.KEPT
    pairs = tokenizer if isinstance(tokenizer, BytePairTokenizer) else None
    keys = read_json(kept, KEYS, advice=WITHOUT) if kept.exists() else None
    gpt2.save(model, options.folder, tokenizer=pairs, keys=keys)
    which = "best" if not options.last and run.has_best else "last"
    files = ", ".join(sorted(path.name for path in Path(options.folder).iterdir()))
    say(f"wrote {files} to {shown(options.folder)}: {run.name}, its {which} weights")
    if pairs is None:
        what = "are no byte pairs"
        if isinstance(tokenizer, SpecialTokenizer):
            what = f"begin with {', '.join(tokenizer.special)}"
        say(
            f"no {gpt2.VOCABULARY} and {gpt2.MERGES}: the tokens of this run {what}; "
            f"its ids mean what its {runs.TOKENIZER} says"
        )
    return 0
