"""Bugs around encoder-decoders: messages for the other kind of run, memory, warnings."""

from __future__ import annotations

from tests.zoo.bug import Bug

BRANCH = "tests/tensor/ops/test_edge.py::test_bug_76_a_branch_not_taken_gets_no_gradient"
MOVED = "tests/tinygpt/training/test_moved_text.py::test_pairs_move_as_a_text_does"
WIDE = "tests/tinygpt/commands/test_eval_pairs.py"
WIDE += "::test_a_wide_beam_answers_fewer_sources_at_once"
BROKEN = "tests/tinygpt/generation/test_fill.py::test_broken_weights_fill_in_nothing"
ASKED = "tests/tinygpt/commands/test_masked_commands.py::test_what_a_bert_cannot_do"
SEARCHED = "tests/tinygpt/generation/test_beam.py::test_what_cannot_be_searched"
ELEMENTWISE = "tensor/ops/elementwise.py"
JOBS = "tinygpt/training/jobs.py"

ZOO = [
    # backward of sin(inf), a branch not taken, sets a warning off
    Bug(
        97,
        ELEMENTWISE,
        "slope(dy, lambda: np.cos(x))",
        "slope(dy, np.cos(x))",
        BRANCH + "[sin-True]",
    ),
    Bug(
        97,
        ELEMENTWISE,
        "slope(dy, lambda: -np.sin(x))",
        "slope(dy, -np.sin(x))",
        BRANCH + "[cos-True]",
    ),
    Bug(  # a run on pairs is told to say where its text is
        97,
        "tinygpt/config/training.py",
        '"text" if self.pairs is None else "pairs"',
        '"text"',
        MOVED,
    ),
    Bug(97, JOBS, "if other != kind and getattr", "if other == kind and getattr", MOVED),
    Bug(
        97,
        "tinygpt/training/starting.py",
        'refuse(request, ["stride", "documents"], "pairs:',
        'refuse(request, [], "pairs:',
        MOVED,
    ),
    Bug(  # a beam of 1,000 takes 1,000 times the memory
        97,
        "tinygpt/commands/eval.py",
        "max(1, batch_of(model.config, model.context) // (config.beam or 1))",
        "batch_of(model.config, model.context)",
        WIDE,
    ),
    Bug(
        97,
        "tinygpt/commands/sample.py",
        "max(1, most // (config.beam or 1))",
        "TOGETHER",
        WIDE,
    ),
    Bug(  # no text is searched for, and an index is out of range
        97, "tinygpt/generation/beam.py", "if min(width, best) < 1:", "if width < 1:", SEARCHED
    ),
    Bug(  # NaN fills in [PAD]
        97, "tinygpt/generation/fill.py", "if not np.isfinite(logits).all():", "if False:", BROKEN
    ),
    Bug(97, "tinygpt/commands/embed.py", "if not np.isfinite(every).all():", "if False:", BROKEN),
    Bug(  # what is asked for is left out without a word
        97, "tinygpt/commands/sample.py", "if options.fill is not None:", "if 0:", ASKED
    ),
    Bug(
        97,
        "tinygpt/model/bert.py",
        "if not mask.any(axis=1).all():",
        "if False:",
        "tests/tinygpt/model/test_bert.py::test_padding_alone_has_no_vector",
    ),
    Bug(  # with --length 0 a prompt is not printed
        97,
        "tinygpt/generation/beam.py",
        "[texts or [Hypothesis([], 0.0, 0.0)] for texts in found]",
        "found",
        "tests/tinygpt/generation/test_beam.py::test_without_an_end_every_text_has_the_length",
    ),
    Bug(  # a mask is written, and recomputation looks elsewhere without a word
        97,
        "tensor/ops/inputs.py",
        "mode.reads(value)",
        "pass",
        "tests/tensor/autograd/test_recompute_refused.py"
        "::test_a_mask_that_it_reads_may_not_be_written[None]",
    ),
]
