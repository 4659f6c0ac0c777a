"""`tinygpt verify`: each check passes on every kind of model, and fails, naming the place, when
what it checks is broken.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import tensor
from tensor import Tensor
from tests.helpers.program import TINY, contents, created, put_weights, refused, reseal
from tinygpt import GPT, CharacterTokenizer, GPTConfig, TrainConfig
from tinygpt.__main__ import main
from tinygpt.config import EncoderDecoderConfig
from tinygpt.errors import InputError
from tinygpt.generation import generate
from tinygpt.inside import verification
from tinygpt.inside.verification import CHECKS, DifferenceError
from tinygpt.model.attention import CrossAttention
from tinygpt.model.cache import Cache
from tinygpt.model.encoder_decoder import EncoderDecoder, Given
from tinygpt.runs import checkpoint
from tinygpt.runs import run as runs
from tinygpt.runs.checkpoint import Progress
from tinygpt.runs.run import Run
from tinygpt.training.step import optimizer_of

SMALL: dict[str, Any] = {"vocabulary": 11, "context": 10, "width": 12, "heads": 3, "layers": 2}
WITHOUT_RUN = [name for name in CHECKS if name != "resume"]


def weighted(
    device: str = "cpu", dtype: str = "float32", of: Any = (GPT, GPTConfig), **choices: Any
) -> Any:
    """A model none of whose weights is 0 or 1."""
    kind, config = of
    model = kind(config(**{**SMALL, **choices}), dtype=dtype, device=device, draw=False)
    rng = np.random.default_rng(7)
    model.load_state_dict(
        {
            name: Tensor(rng.normal(0.1, 0.4, w.shape), dtype=dtype, device=device)
            for name, w in model.state_dict().items()
        }
    )
    return model.eval()


def check(name: str, model: Any) -> str:
    run = Run(model.config, TrainConfig(), "", folder=Path("nowhere"))
    return CHECKS[name](run, model)


def failed(name: str, says: str, model: Any = None) -> None:
    with pytest.raises(DifferenceError, match=re.escape(says)):
        check(name, model or weighted())


# -- what holds


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"norm": "post", "activation": "relu"},
        {"positions": "sinusoidal", "tied": False},
        {"bias": False, "dropout": 0.3},
        {"context": 1},
        {"context": 2, "layers": 1, "heads": 1},
        {"vocabulary": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", WITHOUT_RUN)
def test_holds_for_every_kind_of_model(name: str, choices: dict[str, Any], device: str) -> None:
    assert check(name, weighted(device, **choices))


PAIR = EncoderDecoder, EncoderDecoderConfig


@pytest.mark.parametrize("choices", [{}, {"norm": "pre", "tied": False}, {"context": 1}], ids=str)
def test_holds_for_an_encoder_decoder(choices: dict[str, Any], device: str) -> None:
    model = weighted(device, of=PAIR, **choices)
    length = min(9, model.context)
    assert f"; {length} tokens drawn, to the end of the context, are" in check("cache", model)
    assert check("causal", model).endswith("a source sees all of them, and so does the target")


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_holds_in_every_dtype(dtype: str, device: str) -> None:
    for name in WITHOUT_RUN:
        assert check(name, weighted(device, dtype))


def test_the_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them on a run that stopped on the way, with dropout and a validation loss; it stays as
    it is.
    """
    (here / "a.txt").write_text("the cat and the dog " * 20)
    choices = [
        "--dropout",
        "0.2",
        "--accumulation",
        "2",
        "--steps",
        "50",
        "--until",
        "4",
        "--evaluate",
        "1",
        "--patience",
        "9",
    ]
    assert main(["train", "--text", "a.txt", *TINY, *choices, "--out", "a"]) == 0
    capsys.readouterr()
    before = contents()
    assert main(["verify", "a"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("PASS")] == [
        ["PASS", name] for name in CHECKS
    ]
    assert (
        "steps 5 to 10 at once = in two processes: 20 arrays and 6 losses bit for bit"
        in " ".join(out.split())
    )
    assert max(map(len, out.splitlines())) <= 80
    assert contents() == before


def test_some_of_them_in_any_order(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "causal", "story-1", "cache", "causal"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("PASS")] == [
        ["PASS", "causal"],
        ["PASS", "cache"],
    ]
    assert lines[-1] == "runs/story-1: causal, cache verified"


# -- what is broken


def test_finds_a_cache_whose_positions_are_one_off(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = tensor.embedding  # the cached model's look into the position table
    monkeypatch.setattr(
        tensor, "embedding", lambda places, table: embedding(np.maximum(places - 1, 0), table)
    )
    failed("cache", "the logits of position 1 differ by")
    assert main(["verify", "cache"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("FAIL  cache         the logits of position 1 differ by")
    assert out[-1] == "runs/story-1: nothing verified; not cache"


def test_finds_a_cache_that_forgets_between_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One token at a time all is well."""
    attend = Cache.attend

    def forgetful(cache: Cache, layer: int, qkv: Tensor) -> Tensor:
        wrong = 1.001 if qkv.shape[1] > 1 and cache.seen.any() else 1
        return attend(cache, layer, qkv) * wrong

    monkeypatch.setattr(Cache, "attend", forgetful)
    failed("cache", "tokens given in chunks")


def test_finds_a_cache_that_is_kept_past_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generation that goes on with old keys at new positions, instead of anew."""
    clear = generate.next_logits

    def stale(model: GPT, cache: Cache, texts: list[list[int]], rows: list[int]) -> Any:
        if len(texts[0]) > model.context:
            texts = [text[-2:] for text in texts]
            cache.seen[:] = 1
        return clear(model, cache, texts, rows)

    monkeypatch.setattr(generate, "next_logits", stale)
    failed("cache", "of a generated text is")


def leaky(*, values: bool) -> Callable[..., Any]:
    """Attention in which each token also sees the one after it; or does so with a weight of 0, so
    that only its gradient does.
    """

    def attention(qkv: Tensor, *kv_and_mask: None, heads: int, **options: Any) -> Any:
        B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        q, k, v = (
            part.view(B, T, heads, C // heads).transpose(1, 2) for part in qkv.split(C, axis=-1)
        )
        mask = np.tril(np.ones((T, T), bool), 1)
        y = tensor.attention(q, k, v, mask=mask).transpose(1, 2).contiguous().view(B, T, C)
        return y if values else honest(qkv, *kv_and_mask, heads=heads, **options) + (y - y.detach())

    honest = tensor.multi_head_attention
    return attention


def test_finds_a_causal_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor, "multi_head_attention", leaky(values=True))
    failed("causal", "a change of token 1 changes the logits of position 0, in float32")


def test_finds_a_leak_of_gradients_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor, "multi_head_attention", leaky(values=False))
    failed(
        "causal", "the gradient of the logits of position 0 with respect to embedding 1 is not 0"
    )


def test_finds_an_encoder_decoder_that_sees_too_little_or_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A decoder that looks ahead, an encoder that does not, a target that looks at <pad>, and the
    memory of another source in the cache.
    """
    model = weighted(of=PAIR)
    model.decoder[0].attention.causal = False
    failed("causal", "a change of token 1 changes the logits of position 0", model)
    model = weighted(of=PAIR)
    for block in model.encoder:
        block.attention.causal = True
    failed("causal", "position 0 of the memory does not see token 1 of source 0", model)
    answer, new_cache = CrossAttention.__call__, Given.new_cache

    def without_mask(
        self: CrossAttention, x: Tensor, memory: Tensor, mask: Any = None, *cache: Any
    ) -> Tensor:
        return answer(self, x, memory, None, *cache)

    def swapped(self: Given, rows: int) -> Cache:
        cache = new_cache(self, rows)
        cache.sources = cache.sources[::-1]
        return cache

    with monkeypatch.context() as patch:
        patch.setattr(CrossAttention, "__call__", without_mask)
        says = "position 0 of the target sees the <pad> that is token 5 of source 1"
        failed("causal", says, weighted(of=PAIR))
    monkeypatch.setattr(Given, "new_cache", swapped)
    failed("cache", "the logits of position 0 differ by", weighted(of=PAIR))


FORGETFUL = """
import sys
from tensor.optim import Optimizer
from tinygpt.__main__ import main
load = Optimizer.load_state_dict
def forget(self, state):
    load(self, {**state, 'arrays': self.state_dict()['arrays']})
Optimizer.load_state_dict = forget
sys.exit(main(sys.argv[1:]))
"""


def test_finds_moments_that_are_not_restored(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "PROGRAM", [sys.executable, "-c", FORGETFUL])
    assert main(["verify", "resume"]) == 1
    assert (
        "FAIL resume blocks.0.attention.projection.bias in model.safetensors differs by up to "
        in " ".join(capsys.readouterr().out.split())
    )


def test_finds_a_loss_that_differs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrays of both copies are the same; a metric is not."""

    def go_on(folder: Path, until: int) -> None:
        loss = 1.0 + (folder.name == "halves" and until == 9)
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(
                json.dumps({"step": until, "loss": loss, "lr": 0.1, "gradient_norm": 1.0}) + "\n"
            )

    monkeypatch.setattr(verification, "_go_on", go_on)
    monkeypatch.setattr(
        verification,
        "_losses",
        lambda folder, after, losses=verification._losses: losses(folder, after)[-1:],
    )
    loaded, model, _ = runs.load(run)
    with pytest.raises(DifferenceError, match=r"^step 9: loss 2\.0 after a break, 1\.0 without"):
        CHECKS["resume"](loaded, model)


# -- refusals


def test_refuses(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        (
            ["cahce"],
            "'cahce' is neither a check nor a run; did you mean cache?\nsee: tinygpt verify --help",
        ),
        (["nowhere"], "no run is named 'nowhere'"),
        (["story-1", "more"], "'more' is one word too many: 'story-1' is the run"),
        (["--chek"], "no flag is named --chek"),
        (["--device", "gpu"], "no device is named 'gpu'"),
    ):
        refused(capsys, "verify", *arguments, says=says)


def test_a_run_that_cannot_go_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused when asked for, passed over among all."""
    tokenizer = CharacterTokenizer("The cat")
    model = weighted(vocabulary=tokenizer.size)
    made = created(Run(model.config, TrainConfig(), "The", folder=Path("made")), tokenizer)
    checkpoint.save(
        made.folder,
        {runs.MODEL: {name: w.array for name, w in model.state_dict().items()}},
        checkpoint.State(),
    )
    refused(
        capsys,
        "verify",
        "resume",
        "made",
        says="made was not trained here: it has no optimizer.safetensors to go on with\n"
        "leave resume out",
    )
    assert main(["verify", "made"]) == 0
    out = capsys.readouterr().out
    assert "SKIP  resume        made was not trained here" in out
    assert out.count("PASS") == 2
    assert out.splitlines()[-1] == "made: cache, causal verified; left out: resume"


@pytest.mark.parametrize("wrong", [np.nan, 1e30])
def test_weights_that_give_no_number(
    run: Path, capsys: pytest.CaptureFixture[str], wrong: float
) -> None:
    """NaN is not even equal to itself: not a word of a leak or of a cache that differs."""
    weights = load_file(run / "model.safetensors")
    put_weights(run, {name: (array * wrong).astype(array.dtype) for name, array in weights.items()})
    refused(
        capsys,
        "verify",
        says="the model's logits are not finite numbers: its weights are broken; "
        "take an earlier checkpoint",
    )


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ('{"step": "x"}', "state.json is damaged (Expected `int`, got `str` - at `$.step`)"),
        ('{"step": -5}', "state.json is damaged (Expected `int` >= 0 - at `$.step`)"),
        ('{"step": true}', "state.json is damaged (Expected `int`, got `bool` - at `$.step`)"),
        ("{}", "state.json in it does not fit this run (it has no numbers of an optimiser)"),
        ("[]", "state.json is damaged (Expected `object`, got `array`)"),
        (None, "state.json in runs/story-1 is missing"),
    ],
)
def test_a_state_that_says_no_step(
    run: Path, capsys: pytest.CaptureFixture[str], state: str | None, says: str
) -> None:
    (run / "state.json").unlink()
    if state is not None:
        (run / "state.json").write_text(state)
    refused(capsys, "verify", "resume", says=says)


def test_why_a_copy_cannot_go_on(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error, not what was said before it, without the name of a folder that is gone; of a
    traceback its last line.
    """
    (run / "optimizer.safetensors").write_bytes(b"half")
    refused(
        capsys,
        "verify",
        "resume",
        says="optimizer.safetensors is not the file that its state.json was written for",
    )
    reseal(run, "optimizer.safetensors")
    refused(
        capsys,
        "verify",
        "resume",
        says="the copy could not go on: optimizer.safetensors is damaged or no safetensors file",
    )
    for said, says in (
        ("step 4 skipped\ntinygpt: error: no\nway\n", "no\n"),
        ("Traceback\n  File\nOverflowError: too far\n\n", "OverflowError: too far\n"),
        ("", "no reason given\n"),
    ):
        monkeypatch.setattr(
            verification,
            "PROGRAM",
            [sys.executable, "-c", f"import sys; sys.stderr.write({said!r}); sys.exit(1)"],
        )
        refused(capsys, "verify", "resume", says=f"the copy could not go on: {says}")


def test_both_copies_are_of_one_step(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is in training saves while it is copied. A copy with files of two steps, or two
    copies of two steps, would differ.
    """
    loaded, model, _ = runs.load(run)
    read, saves = checkpoint._content, iter(range(4, 7))

    def saved_meanwhile(folder: Path, name: str, *rest: Any) -> bytes:
        if name == "optimizer.safetensors" and (step := next(saves, None)):
            optimizer = optimizer_of(model, loaded.training)
            for array in optimizer.state_dict()["arrays"].values():
                array[...] = step
            runs.save(loaded, runs.gathered(model, optimizer, Progress(step)))
        return read(folder, name, *rest)

    seen: list[int] = []

    def go_on(folder: Path, until: int) -> None:
        seen.append(json.loads((folder / "state.json").read_text())["step"])

    monkeypatch.setattr(checkpoint, "_content", saved_meanwhile)
    monkeypatch.setattr(verification, "_go_on", go_on)
    monkeypatch.setattr(verification, "_losses", lambda folder, after: [])
    assert CHECKS["resume"](loaded, model)
    assert seen == [6, 6, 6]
    saves = iter(range(7, 10**6))
    with pytest.raises(InputError, match="is written again and again: something trains it"):
        CHECKS["resume"](loaded, model)


def test_a_narrow_terminal(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in ("200", "60", "1", "x"):
        monkeypatch.setenv("COLUMNS", columns)
        assert main(["verify", "causal"]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= {"60": 60, "1": 40}.get(
            columns, 80
        )


def test_a_text_that_is_gone(here: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choices = json.loads((run / "config.json").read_text())
    choices["training"]["text"] = "gone.txt"
    (run / "config.json").write_text(json.dumps(choices))
    refused(capsys, "verify", "resume", says="no file is named 'gone.txt'")
    assert not list(here.glob("tinygpt-*"))
    shutil.rmtree(run)
