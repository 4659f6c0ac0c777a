"""Flags that do not exist, flags of other programs, texts in flags, and commands to paste."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path

import pytest

from tests.helpers.program import TINY, losses, refused, sampled
from tinygpt.__main__ import main
from tinygpt.commands import COMMANDS, cli
from tinygpt.commands.choices import read_choices
from tinygpt.commands.names import ABSENT, OTHERS
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.config.presets import PRESETS
from tinygpt.model.sizes import parameter_count
from tinygpt.terminal import command, nearest

pytestmark = pytest.mark.usefixtures("here")


def meant(name: str, *arguments: str) -> str:
    """What a command says of a flag that it does not know."""
    with pytest.raises(ValueError, match="no flag is named") as error:
        cli.parser_of(name).parse_args(list(arguments))
    return str(error.value).partition("; did you mean ")[2].partition("?")[0]


def test_a_prefix_wins_over_likeness() -> None:
    for name, flag, ours in (
        ("train", "--val", "--validation"),
        ("train", "--tok", "--tokenizer or --tokens"),
        ("train", "--lyers", "--layers"),
        ("train", "--de", "--device or --decay-embeddings or --deterministic"),
        ("sample", "--temp", "--temperature"),
        ("sample", "--topk", "--top-k"),
        ("plan", "--vocab", "--vocabulary"),
    ):
        assert set(meant(name, flag).split(" or ")) == set(ours.split(" or ")), flag
    assert nearest("story", ["story-1", "tory"]) == "; did you mean story-1?"


def test_flags_of_other_programs_are_answered() -> None:
    """Each answer is a flag of some command, and none of the names is one of ours, but `--data` of
    finetune and `--epochs` of align.
    """
    parsers = {name: cli.parser_of(name) for name in COMMANDS}
    known = {flag for parser in parsers.values() for flag in parser._option_string_actions}
    assert set(OTHERS.values()) <= known
    assert set(OTHERS) & known == {"--data", "--epochs"}
    assert not set(ABSENT) & {*OTHERS, *parsers["train"].flags, *parsers["sample"].flags}
    for theirs, ours in OTHERS.items():
        for name, parser in parsers.items():
            flags = parser._option_string_actions
            if ours in flags and not any(flag.startswith(theirs) for flag in flags):
                assert meant(name, f"{theirs}=3") == ours
                assert meant(name, theirs.replace("-", "_").replace("__", "--", 1), "3") == ours
    assert meant("train", "--weight_decay", "3") == "--weight-decay"


def test_what_is_like_no_flag_gets_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong answer is worse than none: no --recompute for --compile."""
    for arguments, answer in (
        ("train --compile", ": the kernels are compiled at the first use; TENSOR_KERNELS=off"),
        ("train --num_workers=4", ": nothing is loaded in the background"),
        ("train --save_steps 9", ": a checkpoint is saved each minute"),
        ("train --amp", "; did you mean --dtype?"),
        ("train --out_dir x", "; did you mean --out?"),
        ("sample --out_dir x", ": a run is named without a flag, tinygpt sample RUN"),
        ("sample --best", ": the weights with the lowest validation loss are the default"),
        ("sample --stop_token x", "; did you mean --stop?"),
        ("sample --batch_size 4", "; tinygpt train has --batch"),
        ("train --samples 4", "; tinygpt sample has --samples"),
        ("train --quiet", ""),
        ("train --rope", ""),
        ("sample --flash", ""),
    ):
        command, flag = arguments.split()[:2]
        name = flag.partition("=")[0]
        refused(capsys, *arguments.split(), says=f"no flag is named {name}{answer}")
        if not answer:
            refused(capsys, *arguments.split(), says=f"{name}\nsee: tinygpt {command} --help")


def test_a_word_too_many_is_told_its_flag(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("my text.txt").write_text("The cat")
    for arguments, fix in (
        (["train", "my text.txt"], "a text is named by a flag: tinygpt train --text 'my text.txt'"),
        (["eval", "story-1", "my text.txt"], "tinygpt eval --text 'my text.txt'"),
        (["sample", "story-1", "dog"], "a prompt is given by a flag: tinygpt sample --prompt dog"),
        (["train", "nothing.txt"], "see: tinygpt train --help"),
    ):
        refused(capsys, *arguments, says=f"{arguments[-1]!r} is one word too many\n")
        refused(capsys, *arguments, says=fix)


def test_a_value_that_begins_with_a_dash(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says = (
        "--prompt: '-x;y' looks like a flag, since it begins with -\njoin the two: '--prompt=-x;y'"
    )
    refused(capsys, "sample", "--prompt", "-x;y", says=says)
    for arguments in (["--prompt", "--length", "3"], ["--prompt"]):
        refused(capsys, "sample", *arguments, says="--prompt: expected one argument\nsee: ")
    refused(capsys, "step", "--plain", "--prompt", "-x", says="join the two: --prompt=-x")


def test_a_line_end_is_written_alike_in_every_text_of_a_flag() -> None:
    for name, flag in (("sample", "prompt"), ("sample", "stop"), ("look", "prompt")):
        options = cli.parser_of(name).parse_args([f"--{flag}", r"a\nb"])
        assert vars(options)[flag] == "a\nb", name
    assert cli.parser_of("step").parse_args(["--prompt", r"a\nb"]).prompt == "a\nb"
    assert cli.parser_of("train").parse_args(["--text", r"a\nb"]).text == r"a\nb"


def test_the_same_flag_has_the_same_value_in_every_command() -> None:
    """--out is where the result goes, and nothing else says so."""
    for name in COMMANDS:
        flags = cli.parser_of(name)._option_string_actions
        assert "--output" not in flags
        if "--out" in flags:
            assert flags["--out"].metavar in ("FILE", "FOLDER")
        if "--prompt" in flags:
            assert flags["--prompt"].metavar == "TEXT"


# -- commands to paste


def test_a_command_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("sample", Path("my run"), "--length", 3) == "tinygpt sample 'my run' --length 3"
    out = "runs/it's my run"
    assert main(["train", *TINY, "--steps", "3", "--until", "2", "--out", out]) == 0
    said = capsys.readouterr().out.partition("go on: ")[2].partition("\n")[0]
    assert shlex.split(said) == ["tinygpt", "train", "--resume", out]
    assert main(shlex.split(said)[1:]) == 0
    said = capsys.readouterr().out.partition("more of it: ")[2].partition("\n")[0]
    assert main(shlex.split(said)[1:]) == 0
    assert losses(Path(out))[-1]["step"] == 3
    capsys.readouterr()
    assert main(["train", "--resume", out]) == 2
    said = capsys.readouterr().err.partition("train further: ")[2].strip()
    assert shlex.split(said) == ["tinygpt", "train", "--resume", out, "--steps", "6"]
    Path("text.txt").write_text("The cat sat. " * 9)
    assert main(["tokenize", "text.txt", "--out", "the tokens"]) == 0
    said = capsys.readouterr().out.partition("train on it: ")[2].strip()
    assert shlex.split(said) == ["tinygpt", "train", "--text", "the tokens"]


def test_init_does_not_advise_what_it_refuses(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("short.txt").write_text("The cat")
    Path("other.txt").write_text("Zebra " * 9)
    for text, problem in (
        ("short.txt", "7 tokens are too few for a context of 8"),
        ("other.txt", "character 'Z' at position 0 is not one of the 22"),
        ("grammar", "character '\\n' at position 0"),
    ):
        assert main(["train", "--init", "story-1", "--text", text]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"tinygpt: error: {problem}")
        assert err.endswith("\nuse another text, or train without --init\n")
    monkeypatch.setattr("tinygpt.training.memory.free", lambda _: 1)
    assert main(["train", "--init", "story-1"]) == 2
    advice = capsys.readouterr().err.splitlines()[1]
    assert advice == "take a smaller --batch, or try it: --ignore-memory"
    assert main(["train", "--resume", "story-1", "--steps", "9"]) == 2
    advice = capsys.readouterr().err.splitlines()[1]
    assert advice == "end other programs, or try it: --ignore-memory"


# -- sampling


def test_several_samples_of_one_prompt(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first is the one that is written without the flag."""
    options = ["--prompt", "The cat", "--length", "15"]
    lines = sampled(capsys, *options, "--samples", "20").splitlines()
    assert lines[1::2] == ["---"] * 19
    lines = lines[::2]
    assert len(set(lines)) == 20
    assert lines[0] == sampled(capsys, *options).rstrip("\n")
    explained = sampled(capsys, *options, "--samples", "2", "--explain", "1")
    assert explained.count("likeliest") == 2
    assert explained.count("\n---\n") == 1
    refused(capsys, "sample", "--samples", "0", says="--samples 0: from 1 to 1,000")


def test_a_prompt_from_a_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("prompt.txt").write_text("The cat\n")
    alone = sampled(capsys, "--prompt", "The cat", "--length", "9")
    assert sampled(capsys, "--prompt-file", "prompt.txt", "--length", "9") == alone
    two = ["--prompt-file", "prompt.txt", "--prompts", "prompt.txt"]
    refused(capsys, "sample", *two, says="--prompts and --prompt-file are two ways to say it")


def test_prompts_from_the_standard_input(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for flag, prompts in (("--prompts", "The\ndog\n"), ("--prompt-file", "The cat\n")):
        Path("prompts.txt").write_text(prompts)
        named = sampled(capsys, flag, "prompts.txt", "--length", "9")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(prompts.encode())))
        assert sampled(capsys, flag, "-", "--length", "9") == named
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"The \xff")))
    refused(capsys, "sample", "--prompts", "-", says="standard input is not UTF-8: byte 0xff")


def test_raw_text_for_a_pipe(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a terminal gets is escaped in any case."""
    Path("bell.txt").write_text("a\x07" * 40)
    assert main(["train", "--text", "bell.txt", *TINY, "--steps", "1"]) == 0
    capsys.readouterr()
    options = ["--prompt", "a\x07", "--length", "5"]
    escaped, raw = sampled(capsys, *options), sampled(capsys, *options, "--raw")
    assert "\x07" not in escaped
    assert raw.startswith("a\x07")
    assert raw.replace("\x07", r"\x07") == escaped
    refused(capsys, "sample", "--raw", "--explain", "2", says="--raw is for a pipe or a file: ")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    assert main(["sample", "--raw"]) == 2


def test_the_candidates_and_the_drawn_token_are_in_one_unit(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = sampled(capsys, "--length", "30", "--explain", "22", "--temperature", "2")
    heading, *lines = out.splitlines()[2:]
    assert heading == "drawn          p   likeliest"
    for line in lines:
        parts = [part.rpartition(" ") for part in line[19:].split("  ")]
        likeliest = {token: share for token, _, share in parts}
        assert likeliest[line[:9].rstrip()] == line[9:16].strip()
        assert abs(sum(map(float, likeliest.values())) - 1) < 0.02


# -- presets


def chosen(*flags: str) -> tuple[TrainConfig, ModelConfig]:
    """What `tinygpt train` makes of these flags."""
    training, model = read_choices(cli.parser_of("train").parse_args(flags))
    return training, model(50257)


def test_a_preset_is_gpt2_and_flags_count_more() -> None:
    training, model = chosen("--preset", "gpt2-medium", "--device", "cuda")
    assert (model.width, model.heads, model.layers, model.context) == (1024, 16, 24, 1024)
    assert (training.dtype, training.lr, training.warmup) == ("bfloat16", 3e-4, 700)
    assert (training.weight_decay, training.beta1, training.beta2) == (0.1, 0.9, 0.95)
    assert chosen("--preset", "gpt2", "--steps", "20000")[0].warmup_steps == 700
    assert chosen("--preset", "gpt2", "--steps", "6000")[0].warmup_steps == 600
    training, model = chosen("--preset", "gpt2", "--layers", "3", "--steps", "50", "--lr", "0.1")
    assert (model.layers, training.lr, training.warmup_steps, training.dtype) == (
        3,
        0.1,
        5,
        "float32",
    )


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_of_presets(name: str) -> None:
    """As published, in millions of parameters; 2^19 tokens a step, of GPT-3 3.2 million, and of
    nanoGPT's Shakespeare run 2^14.
    """
    training, model = chosen("--preset", name)
    published = {"gpt2": 124, "gpt2-medium": 355, "gpt2-large": 774, "gpt2-xl": 1558}
    published |= {"gpt3": 174_604, "shakespeare": 30}  # the last for 65 tokens: 11
    assert round(parameter_count(model) / 1e6) == published[name]
    tokens = training.batch * training.accumulation * model.context
    if name == "gpt3":
        assert (model.layers, model.width, model.heads) == (96, 12288, 96)
        assert round(tokens * training.steps / 1e9) == 300
        assert round(tokens / 1e5) == 32
    else:
        assert tokens == (2**14 if name == "shakespeare" else 2**19)


def test_the_preset_shakespeare_is_nanogpts() -> None:
    """config/train_shakespeare_char.py there, and what train.py adds to it."""
    training, model = chosen("--preset", "shakespeare", "--device", "cuda")
    assert (model.layers, model.heads, model.width, model.context) == (6, 6, 384, 256)
    assert (model.dropout, model.bias, model.tied) == (0.2, False, True)
    assert (training.batch, training.batches, training.steps) == (64, "random", 5000)
    assert (training.lr, training.lr * training.final_lr, training.warmup) == (1e-3, 1e-4, 100)
    assert (training.beta1, training.beta2, training.weight_decay) == (0.9, 0.99, 0.1)
    assert (training.clip, training.validation, training.dtype) == (1.0, 0.1, "bfloat16")
    assert (training.evaluate, training.evaluate_share) == (250, 1.0)


def test_gpt3_is_not_trained(capsys: pytest.CaptureFixture[str]) -> None:
    says = "--preset gpt3 is for tinygpt plan alone: the weights, gradients and moments of its 175"
    for more in ([], ["--ignore-memory"], ["--layers", "1"]):
        refused(capsys, "train", "--preset", "gpt3", *more, says=says)


@pytest.mark.usefixtures("run")
def test_presets_are_for_fresh_models(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--resume", "--init"):
        says = f"--preset cannot be chosen with {flag}"
        refused(capsys, "train", flag, "story-1", "--preset", "gpt2", says=says)
    says = "--tf32 cannot be chosen with --resume"
    refused(capsys, "train", "--resume", "story-1", "--tf32", says=says)
