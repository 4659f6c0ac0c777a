"""What `tinygpt look` gathers, writes and refuses; the page itself is looked at in
test_look_page.py.
"""

from __future__ import annotations

import base64
import errno
import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tensor
from tests.helpers.program import TINY, put_weights, refused, sampled
from tinygpt import files
from tinygpt.__main__ import main
from tinygpt.config import GPTConfig, TrainConfig
from tinygpt.errors import InputError
from tinygpt.inside.look import gather, learning, page, pictures
from tinygpt.inside.look.steps import arrays_of, steps
from tinygpt.model.gpt import GPT
from tinygpt.runs import run as runs
from tinygpt.runs.run import Run
from tinygpt.tokenizers import ByteTokenizer, CharacterTokenizer

PNG = b"\x89PNG\r\n\x1a\n"
VARIANTS = [
    {},
    {"norm": "post"},
    {"activation": "relu"},
    {"tied": False},
    {"positions": "sinusoidal"},
    {"bias": False},
    {"norm": "post", "activation": "relu"},
]


def blocks_of(text: str) -> dict[str, Any]:
    """The arrays in a page, by name."""
    found = re.findall(
        r'<script type="text/plain" id="array ([^"]+)" data-kind="(\w+)">([^<]*)</script>', text
    )
    return {
        name: np.frombuffer(base64.b64decode(content), np.dtype(kind).newbyteorder("<"))
        for name, kind, content in found
    }


def facts_of(text: str) -> Any:
    """The facts in a page."""
    (content,) = re.findall(
        r'<script type="application/json" id="facts">(.*?)</script>', text, re.S
    )
    return json.loads(content)


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gelu_as_written() -> Callable[[Any], Any]:
    """The formula that the page shows, as a function."""
    shown = next(
        step.formula
        for step in steps(GPTConfig(11, context=9, width=12, heads=3, layers=1))
        if step.title == "GELU"
    )
    assert shown == "g = h/2 (1 + tanh(√(2/π) (h + 0.044715 h³)))"
    return lambda h: h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))


# -- what it gathers


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_each_step_is_what_its_formula_says(options: dict[str, Any]) -> None:
    """Worked out once more from the arrays before it, and the end is what the model gives when it
    is called.
    """
    tensor.manual_seed(3)
    model = GPT(GPTConfig(11, context=9, width=12, heads=3, layers=2, **options)).eval()
    with tensor.no_grad():
        for parameter in model.parameters():  # gains and biases too are then no ones and zeros
            parameter[...] = parameter + tensor.randn(*parameter.shape) * 0.3
    ids = [3, 1, 4, 1, 5, 9, 2]
    found = {name: value.array for name, value in arrays_of(model, ids).items()}
    assert {step.name for step in steps(model.config)} == found.keys()
    np.testing.assert_allclose(found["logits"], model(np.array(ids)).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], softmax(found["logits"]), rtol=1e-5)
    np.testing.assert_array_equal(found["embed"], found["tokens"] + found["positions"])
    x = found["embed"]
    formula = {"gelu": gelu_as_written(), "relu": lambda h: np.maximum(h, 0)}
    for i, block in enumerate(model.blocks):
        at = f"blocks.{i}."
        q, k, v = found[at + "q"], found[at + "k"], found[at + "v"]
        joined = np.concatenate([part.swapaxes(1, 2).reshape(1, 7, 12) for part in (q, k, v)], -1)
        np.testing.assert_array_equal(joined, found[at + "qkv"])
        scores = q @ k.swapaxes(-1, -2) / 2
        np.testing.assert_allclose(found[at + "scores"], scores, rtol=1e-5, atol=1e-6)
        weights = softmax(np.where(np.tri(7, dtype=bool), scores, -np.inf))
        np.testing.assert_allclose(found[at + "weights"], weights, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found[at + "heads"], weights @ v, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(
            found[at + "merged"], found[at + "heads"].swapaxes(1, 2).reshape(1, 7, 12)
        )
        attended = x if model.config.norm == "pre" else found[at + "attention_norm"]
        np.testing.assert_array_equal(found[at + "middle"], x + found[at + "projection"])
        expanded = block.feed_forward.expand(
            tensor.Tensor(
                found[at + "feed_forward_norm"] if model.config.norm == "pre" else attended
            )
        )
        np.testing.assert_allclose(
            found[at + "expanded"], expanded.detach().numpy(), rtol=1e-4, atol=1e-5
        )
        before = (
            found[at + "middle"] if model.config.norm == "pre" else found[at + "attention_norm"]
        )
        np.testing.assert_allclose(
            found[at + "activation"],
            formula[model.config.activation](found[at + "expanded"]),
            rtol=1e-5,
            atol=1e-6,
        )
        np.testing.assert_array_equal(found[at + "out"], before + found[at + "feed_forward"])
        x = found[at + "out"] if model.config.norm == "pre" else found[at + "feed_forward_norm"]


def test_strides_are_those_of_the_engine() -> None:
    """q, k and v are views of one product: its strides, and an offset of their own."""
    model = GPT(GPTConfig(11, context=9, width=12, heads=3, layers=1)).eval()
    found = arrays_of(model, [1, 2, 3, 4, 5])
    for number, name in enumerate("qkv"):
        value = found[f"blocks.0.{name}"]
        assert (value.shape, value.strides, value.offset, value.contiguous) == (
            (1, 3, 5, 4),
            (180, 4, 36, 1),
            12 * number,
            False,
        )
    assert found["blocks.0.merged"].contiguous
    assert found["blocks.0.merged"].strides == (60, 12, 1)


def test_the_kernels_give_what_is_shown(run: Path) -> None:
    """The page runs the references; what the model itself computes, with kernels where they are, is
    the same to rounding.
    """
    run_, model, tokenizer = runs.load(run)
    look = gather.gather(run_, model, tokenizer, gather.LookConfig("The ca", length=2))
    logits = model(np.array(look.text.ids)).numpy()
    np.testing.assert_allclose(look.arrays["logits"].array, logits, rtol=1e-4, atol=1e-5)
    assert look.text.ids == model.generate(tokenizer.encode("The ca"), 2, temperature=0)


def test_it_writes_what_sample_writes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same seed and choices, the same text."""
    options = [
        "--prompt",
        "The",
        "--length",
        "5",
        "--temperature",
        "1.5",
        "--top-k",
        "9",
        "--seed",
        "4",
    ]
    text = sampled(capsys, *options)
    assert main(["look", *options]) == 0
    assert capsys.readouterr().out.startswith(text)
    facts = facts_of(Path("runs/story-1/look.html").read_text())
    assert facts["given"] + facts["written"] + "\n" == text


def test_weights_and_their_steps(run: Path) -> None:
    """The snapshots in order, the run's own weights among them once, each with what it writes."""
    run_, model, tokenizer = runs.load(run)
    look = gather.gather(run_, model, tokenizer, gather.LookConfig("The ", length=3))
    assert [sight.step for sight in look.sights] == [0, 1, 2, 3]
    assert [sight.shown for sight in look.sights] == [False, False, False, True]
    assert look.why_few == ""
    fresh = GPT(run_.model, draw=False)
    fresh.load_state_dict(load_file(run / "snapshots" / "0.safetensors"))
    first = look.sights[0]
    assert first.written == tokenizer.decode(
        fresh.eval().generate(look.text.ids[:4], 3, temperature=0)[4:]
    )
    loss = fresh.loss(np.array(look.text.ids[:3]), np.array(look.text.ids[1:4])).item()
    assert first.loss == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(
        first.probabilities.sum(-1),
        np.sort(softmax(fresh(np.array(look.text.ids)).numpy()[0]), -1)[:, -8:].sum(-1),
        rtol=1e-5,
    )


def test_the_best_weights_stand_where_they_were_saved(here: Path) -> None:
    """A run with a validation loss is shown with its best weights, between the snapshots before and
    after.
    """
    Path("text.txt").write_text("The cat sat on the mat. The dog ran. " * 9)
    assert (
        main(
            ["train", "--text", "text.txt", *TINY, "--steps", "12", "--lr", "1", "--evaluate", "1"]
        )
        == 0
    )
    folder = Path("runs/text-1")
    best = json.loads((folder / "state.json").read_text())["best_step"]
    run_, model, tokenizer = runs.load(folder, best=True)
    look = gather.gather(run_, model, tokenizer, gather.LookConfig("The"), best=True)
    assert [sight.step for sight in look.sights if sight.shown] == [best]
    assert [sight.step for sight in look.sights] == sorted(
        {best, *(sight.step or 0 for sight in look.sights)}
    )
    last = gather.gather(
        run_, runs.load(folder, best=False)[1], tokenizer, gather.LookConfig("The"), best=False
    )
    assert [sight.step for sight in last.sights if sight.shown] == [12]


def test_a_run_without_snapshots(run: Path) -> None:
    shutil.rmtree(run / "snapshots")
    run_, model, tokenizer = runs.load(run)
    look = gather.gather(run_, model, tokenizer, gather.LookConfig("The"))
    assert len(look.sights) == 1
    assert "no snapshots" in look.why_few
    assert "no snapshots" in facts_of(page.page(look, tokenizer))["whyFew"]


def test_the_plane_holds_most_of_what_differs() -> None:
    """The first two principal components, as the eigenvectors of the covariance give them."""
    table = np.random.default_rng(0).normal(size=(30, 6)) * [5, 1, 3, 0.1, 1, 1]
    centre, axes, share = learning.plane(table)
    values, vectors = np.linalg.eigh(np.cov(table.T))
    np.testing.assert_allclose(np.abs(axes.T @ vectors[:, [-1, -2]]), np.eye(2), atol=1e-9)
    assert share == pytest.approx(values[-2:].sum() / values.sum())
    assert (axes[np.abs(axes).argmax(0), [0, 1]] > 0).all()
    np.testing.assert_allclose(centre, table.mean(0))
    # a width of one, and rows that do not differ
    assert learning.plane(np.ones((3, 1)))[1].shape == (1, 2)


def test_tokens_that_are_parts_of_a_character() -> None:
    assert gather.words_of(ByteTokenizer(), list("é".encode()) + [65]) == [r"\xc3", r"\xa9", "A"]
    assert gather.words_of(CharacterTokenizer("a\n\u202e"), [0, 1, 2]) == ["a", r"\n", r"\u202e"]


# -- what it writes


def test_the_page_holds_the_numbers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", "--prompt", "The ca", "--length", "2", "--out", "page.html"]) == 0
    assert "page.html" in capsys.readouterr().out
    text = Path("page.html").read_text()
    blocks, facts = blocks_of(text), facts_of(text)
    run_, model, tokenizer = runs.load(run)
    look = gather.gather(run_, model, tokenizer, gather.LookConfig("The ca", length=2))
    shown = next(i for i, sight in enumerate(facts["sights"]) if sight["shown"])
    lower = np.tril_indices(8)
    for head in range(2):
        expected = look.arrays["blocks.0.weights"].array[0, head][lower]
        np.testing.assert_array_equal(blocks[f"attention {shown} 0 {head}"], expected)
        earlier = look.sights[0].attention[0][head][lower]
        np.testing.assert_allclose(
            blocks[f"attention 0 0 {head}"] / 255, earlier, atol=0.5 / 255 + 1e-6
        )
    np.testing.assert_array_equal(
        blocks["step blocks.0.middle"], look.arrays["blocks.0.middle"].array.ravel()
    )
    assert facts["ids"] == look.text.ids
    assert "http:" not in text
    assert "https:" not in text


def test_the_same_page_each_time(run: Path) -> None:
    assert main(["look", "--out", "a.html"]) == main(["look", "--out", "b.html"]) == 0
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_long_texts_are_cropped_and_it_is_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the last tokens stay; of snapshots, as many as there is room for."""
    run_, model, tokenizer = runs.load(run)
    look = gather.gather(run_, model, tokenizer, gather.LookConfig("The cat ", length=0))
    monkeypatch.setattr(page, "STEPS", 3 * 1600)
    monkeypatch.setattr(page, "SNAPSHOTS", 2 * 3 * 15)
    text = page.page(look, tokenizer)
    facts, blocks = facts_of(text), blocks_of(text)
    step = next(step for step in facts["steps"] if step["name"] == "embed")
    assert 1 <= step["rows"] < 8
    np.testing.assert_array_equal(
        blocks["step embed"], look.arrays["embed"].array[0, -step["rows"] :].ravel()
    )
    # rows of 7 and 8 weights fill the 15 that a head has; with 6 more they would not fit
    assert facts["sights"][0]["first"] == 6
    assert len(blocks["attention 0 0 0"]) == 15
    assert len(blocks["attention 3 0 0"]) == 36


def test_of_a_large_vocabulary_the_likeliest(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_, model, tokenizer = runs.load(run)
    look = gather.gather(run_, model, tokenizer, gather.LookConfig("The cat ", length=0))
    monkeypatch.setattr(page, "VOCABULARY", 5)
    text = page.page(look, tokenizer)
    columns = facts_of(text)["columns"]
    assert len(columns) == 5
    assert int(look.arrays["probabilities"].array[0].max(0).argmax()) in columns
    np.testing.assert_array_equal(
        blocks_of(text)["step logits"].reshape(8, 5), look.arrays["logits"].array[0][:, columns]
    )


def test_pictures_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", "--attention", "a.png", "--embeddings", "e.svg"]) == 0
    assert Path("a.png").read_bytes().startswith(PNG)
    assert "<svg" in Path("e.svg").read_text()
    assert not Path("runs/story-1/look.html").exists()
    assert {path.name for path in Path().iterdir()} == {"runs", "a.png", "e.svg"}
    out = capsys.readouterr().out
    assert "a.png" in out
    assert "e.svg" in out


def test_pictures_have_the_colours_of_the_page() -> None:
    assert json.dumps(pictures.SHARES) in (Path(page.__file__).parent / "colours.js").read_text()


def test_pictures_name_blocks_and_heads_from_0(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(
        pictures,
        "write_picture",
        lambda figure, *_: drawn.extend(axes.get_title() for axes in figure.axes),
    )
    assert main(["look", "--attention", "a.png"]) == 0
    assert drawn[:2] == ["block 0, head 0", "block 0, head 1"]


def test_a_disk_that_cannot_be_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It refuses to remove a file too, even one that is not there."""

    reading = Path.open

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system", "a.tmp")

    monkeypatch.setattr(
        Path,
        "open",
        lambda path, mode="r", *more, **options: (refuse if "w" in mode else reading)(
            path, mode, *more, **options
        ),
    )
    monkeypatch.setattr(Path, "unlink", refuse)
    for flag, name in (("out", "a.html"), ("attention", "a.png"), ("embeddings", "e.png")):
        says = f"cannot write to {name} (Read-only file system)\nname another file: --{flag} FILE"
        assert main(["look", f"--{flag}", name]) == 2
        assert capsys.readouterr().err == f"tinygpt: error: {says}\n"


def test_pictures_of_tokens_that_matplotlib_reads_as_formulas(here: Path) -> None:
    """And of letters that no font here has."""
    Path("text.txt").write_text("$x_1$ 字 costs $2^3$ and \\frac. " * 20)
    assert main(["train", "--text", "text.txt", *TINY, "--steps", "1"]) == 0
    assert (
        main(["look", "--prompt", "$x_1$ 字", "--attention", "a.png", "--embeddings", "e.png"]) == 0
    )


def test_a_page_is_never_half_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that fills up while it is written leaves the page of before, and nothing beside it."""
    assert main(["look", "--out", "page.html"]) == 0
    before = Path("page.html").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "replace", full)
    capsys.readouterr()
    refused(capsys, "look", "--prompt", "cat", "--out", "page.html", says="No space left")
    refused(capsys, "look", "--prompt", "cat", "--attention", "a.png", says="No space left")
    assert Path("page.html").read_bytes() == before


def test_no_text_can_end_its_block() -> None:
    texts = [
        "</script><script>alert(1)</script>",
        "<!--",
        "]]>",
        "&lt;",
        "\u2028\u2029",
        "\ud800",
        'quote " and \\',
    ]
    written = page.safe_json(texts)
    assert json.loads(written) == texts
    assert written.isascii()
    assert not set(written) & set("<>&")


def test_the_package_ships_every_file() -> None:
    folder = Path(page.__file__).parent
    shipped = {path.name for path in folder.iterdir() if path.suffix != ".py"} - {"__pycache__"}
    assert shipped == {"look.html", "look.css", "steps.toml", "cross.toml", *page.SCRIPTS}
    project = tomllib.loads((folder.parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["tinygpt"]
    assert {f"inside/look/*{Path(name).suffix}" for name in shipped} <= set(patterns)
    for name in shipped:
        assert len((folder / name).read_text().splitlines()) <= 400


def test_the_script_puts_text_in_as_text() -> None:
    """Nothing in it turns a text into HTML or into a program, or asks the network."""
    for name in page.SCRIPTS:
        script = (Path(page.__file__).parent / name).read_text()
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\("
            r"|new Function|fetch\(|XMLHttpRequest|import\(",
            script,
        )
        assert not found


# -- what it refuses


def test_what_cannot_be_looked_at(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "look", "none", says="no run is named 'none'")
    refused(capsys, "look", "--prompt", "The 7", says="character '7' at position 4")
    refused(capsys, "look", "--prompt", "", says="the prompt is empty")
    refused(
        capsys,
        "look",
        "--prompt",
        "The cat sat",
        says="the prompt has 11 tokens, and the model sees 8 at once",
    )
    refused(capsys, "look", "--prompt", "The", "--length", "6", says="there is room for 5 more")
    refused(capsys, "look", "--temperature", "-1", says="--temperature -1")
    refused(capsys, "look", "--out", "none/look.html", says="there is no such folder")
    refused(capsys, "look", "--out", "runs", says="--out runs")
    refused(
        capsys, "look", "--out", "look.pdf", says="look.pdf: a page's name ends in .html or .htm"
    )
    for command, flag in (("look", "--attention"), ("look", "--embeddings"), ("plot", "--out")):
        refused(
            capsys,
            command,
            flag,
            "a.gif",
            says=f"{flag} a.gif: a picture's name ends in .png, .svg or .pdf",
        )
    refused(capsys, "look", "--ouut", "look.html", says="did you mean --out?")


def test_no_run_at_all(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "look", says="there is no run here yet")


def test_a_prompt_as_long_as_the_context(run: Path) -> None:
    """There is no room for more, and none is needed."""
    assert main(["look", "--prompt", "The cat "]) == 0
    assert facts_of(Path("runs/story-1/look.html").read_text())["written"] == ""


def test_an_opening_longer_than_the_context(run: Path) -> None:
    """Half a context of it, so that there is room to go on."""
    assert main(["look"]) == 0
    facts = facts_of(Path("runs/story-1/look.html").read_text())
    assert (facts["given"], facts["prompt"], len(facts["ids"])) == ("The ", 4, 8)


def test_broken_weights(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = load_file(run / "model.safetensors")
    weights["final_norm.gain"][0] = np.nan
    put_weights(run, weights)
    for options in ([], ["--length", "0"], ["--attention", "a.png"]):
        refused(capsys, "look", *options, says="its weights are broken; take an earlier checkpoint")
        refused(
            capsys,
            "look",
            *options,
            says="\nwho made it: tinygpt step runs/story-1 --plain --break nan\n",
        )
    refused(capsys, "look", "--last", says="--break nan --last\n")
    assert main(["step", "runs/story-1", "--plain", "--break", "nan"]) == 0
    assert "final_norm.gain" in capsys.readouterr().out


def test_a_broken_snapshot(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the last of a run whose best weights are whole."""
    path = run / "snapshots" / "1.safetensors"
    save_file(load_file(path) | {"final_norm.bias": np.full(8, np.nan, np.float16)}, path)
    refused(capsys, "look", says="--break nan --last\n")


def test_a_damaged_snapshot(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "snapshots" / "1.safetensors").write_bytes(b"half")
    refused(capsys, "look", says="1.safetensors is damaged")


def test_more_attention_than_a_page_can_hold() -> None:
    run = Run(GPTConfig(10, context=2048, width=48, heads=12, layers=12), TrainConfig(), "")
    with pytest.raises(InputError, match="give at most 482"):
        gather.check_size(run, gather.Text([0] * 1000, 0, 1000, [], "", ""))
    gather.check_size(run, gather.Text([0] * 482, 0, 482, [], "", ""))


def test_lone_surrogates_reach_no_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "look", "--prompt", "The \udc80", says="position 4")
