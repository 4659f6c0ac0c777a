"""`tinygpt plot`: whose losses are drawn, where, in which colours; also of a run that goes on or
was killed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.helpers.program import PROGRAM, contents, environment, refused
from tinygpt import files
from tinygpt.__main__ import main
from tinygpt.commands.plot import read
from tinygpt.runs import metrics
from tinygpt.runs.curves import draw, smooth

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The axes of the pictures that are saved."""
    axes: list[Axes] = []
    save = Figure.savefig

    def savefig(figure: Figure, *arguments: Any, **options: Any) -> None:
        axes.extend(figure.axes)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return axes


def noted(run: Path, records: list[dict[str, Any]]) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def second(run: Path, name: str = "other") -> Path:
    """Another run, of 300 steps, measured twice."""
    folder = Path(shutil.copytree(run, Path(name)))
    records: list[dict[str, Any]] = [
        {"step": i, "loss": 3 - i / 200, "lr": 0.1} for i in range(1, 301)
    ]
    noted(
        folder,
        [
            *records[:150],
            {"step": 150, "validation_loss": 2.5},
            *records[150:],
            {"step": 300, "validation_loss": 2.75},
            {"step": 300, "loss": 1.0},
        ],
    )
    return folder


def test_one_run_is_the_last(
    run: Path, drawn: list[Axes], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents()
    assert main(["plot"]) == 0
    assert Path("runs/story-1/losses.png").read_bytes().startswith(PNG)
    assert set(contents()) - set(before) == {"runs/story-1/losses.png"}
    out = capsys.readouterr().out
    assert out.startswith("runs/story-1  step 3  training 3.0")
    assert out.endswith("\nsaved as runs/story-1/losses.png\n")
    (axes,) = drawn
    assert axes.get_title() == "Lines: training loss, smoothed"
    steps, losses = axes.lines[0].get_data()
    assert list(steps) == [1, 2, 3]
    assert list(losses) == read(run).found.losses


def test_two_runs_share_a_picture(
    run: Path, drawn: list[Axes], capsys: pytest.CaptureFixture[str]
) -> None:
    """A line each in a colour of its own, dots where a validation loss was measured; each once."""
    second(run)
    assert main(["plot", "story-1", "other", "story-1", "--out", "both.svg"]) == 0
    assert Path("both.svg").read_text().startswith("<?xml")
    out = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in out[:2]] == ["runs/story-1", "other"]
    assert "validation 2.7500, at best 2.5000" in out[1]
    (axes,) = drawn
    assert "dots: validation" in axes.get_title()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        f"runs/story-1: {smooth(read(run).found.losses, [2])[0]:.3f} in training",
        "other: 2.750",
    ]
    raw, line, raw_other, line_other, dots = axes.lines
    assert (
        raw.get_color()
        == line.get_color()
        != line_other.get_color()
        == raw_other.get_color()
        == dots.get_color()
    )
    assert list(line_other.get_ydata()) == smooth([3 - i / 200 for i in range(1, 301)], range(300))
    assert [list(part) for part in dots.get_data()] == [[150, 300], [2.5, 2.75]]


def test_more_runs_than_colours(run: Path, drawn: list[Axes]) -> None:
    names = [str(shutil.copytree(run, f"run-{i}")) for i in range(21)]
    assert main(["plot", *names]) == 0
    assert len({str(line.get_color()) for line in drawn[0].lines}) == 20


def test_names_that_matplotlib_would_read(run: Path, drawn: list[Axes]) -> None:
    """A formula between dollars, a label that is hidden."""
    for name in ("_a$x^2$", "b"):
        shutil.copytree(run, name)
    assert main(["plot", "_a$x^2$", "b"]) == 0
    labels = [text.get_text() for text in drawn[0].get_legend().get_texts()]
    assert len(labels) == 2
    assert labels[0].startswith(r" _a\$x^2\$: ")


def test_other_tokens_are_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = second(run)
    assert main(["plot", "story-1", "other"]) == 0
    assert "different tokens" not in capsys.readouterr().out
    (other / "tokenizer.json").write_text('{"kind": "byte"}')
    assert main(["plot", "story-1", "other"]) == 0
    assert "these runs have different tokens" in capsys.readouterr().out


def test_half_a_line_and_what_is_not_finite_are_left_out(run: Path) -> None:
    """A run that was killed, or is writing just now."""
    noted(
        run,
        [
            {"step": 1, "loss": 2.0, "lr": 0.1},
            {"step": 2, "loss": None, "lr": 0.1},
            {"step": 3, "loss": 1.5, "lr": 0.1},
        ],
    )
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "validation_loss": null}\n3\n{"step": 4, "lo')
        file.write(
            '\n{"step": 5, "loss": NaN, "lr": 0.1}\n{"step": 6, "loss": -Infinity, "lr": 0.1}\n'
            '{"step": 7, "loss": 1e999, "lr": 0.1}\n'
        )
        file.write(
            '{"step": 7, "validation_loss": NaN}\n{"step": true, "loss": 1.0, "lr": 0.1}\n'
            '{"step": 1e9, "loss": 1.0, "lr": 0.1}\n'
        )
    curve = read(run).found
    assert (curve.steps, curve.losses, curve.validation) == ([1, 3], [2.0, 1.5], [])


ODD = [
    b'{"step": 2, "lr": 0.1}',
    b'{"step": 2, "loss": "1.5", "lr": 0.1}',
    b'{"step": 2, "loss": [1.5], "lr": 0.1}',
    b'{"step": 2, "loss": 1e308, "lr": 0.1}',
    b'{"step": 2, "loss": -1e308, "lr": 0.1}',
    b'{"step": 2, "loss": 1' + b"0" * 400 + b', "lr": 0.1}',
    b'{"step": 1' + b"0" * 400 + b', "loss": 1.5, "lr": 0.1}',
    b'{"step": -2, "loss": 1.5, "lr": 0.1}',
    b'{"step": 2, "validation_loss": "a"}',
    b'{"step": 2, "validation_loss": 1e308}',
    b'{"step": 2, "loss": "a", "windows": 5}',
    b'{"step": 2, "loss": 1e308, "windows": 5}',
    b'{"step": 2, "loss": 1.5, "lr": "a"}',
    b"[" * 10_000,
    b'{"a":' * 10_000,
    b'{"step": 2, "loss": 1.5, "lr": 0.1, "more": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    b'{"step": 2, "loss": 1.5, "lr": 0.1}' + b"\xff",
    b"\x00" * 4096,
]


@pytest.mark.parametrize("line", ODD, ids=lambda line: repr(line[:40]))
def test_bug_86_a_line_that_does_not_fit_is_left_out(
    line: bytes, run: Path, drawn: list[Axes]
) -> None:
    """By all that read it: the picture of several runs, that of one, the page."""
    lines = [
        b'{"step": 1, "loss": 2.0, "lr": 0.1}',
        line,
        b'{"step": 3, "loss": 1.0, "lr": 0.1}',
        b'{"step": 3, "loss": 0.5, "windows": 9, "new": [{}]}',
    ]
    (run / "metrics.jsonl").write_bytes(b"\n".join(lines))
    found = metrics.read(run / "metrics.jsonl")
    assert found == ([1, 3], [2.0, 1.0], [], (3, 0.5))
    assert main(["plot"]) == 0
    draw(run / "metrics.jsonl", run / "loss.png", unknowing=3.0)
    assert main(["look", "--length", "0"]) == 0
    for axes in drawn:
        assert [list(part) for part in axes.lines[0].get_data()] == [[1, 3], [2.0, 1.0]]


def test_the_largest_losses_are_drawn(run: Path, drawn: list[Axes]) -> None:
    noted(
        run,
        [
            {"step": 2**53 // 3 * i, "loss": sign * metrics.LARGEST, "lr": 0.1}
            for i, sign in enumerate((1, -1, 1, 1))
        ],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["plot"]) == 0
        draw(run / "metrics.jsonl", run / "loss.png", unknowing=3.0)
    assert len(drawn) == 2


def test_bug_86_a_line_that_does_not_end_ends_the_file(run: Path) -> None:
    noted(run, [{"step": 1, "loss": 2.0, "lr": 0.1}])
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b" " * metrics.LINE + b'\n{"step": 2, "loss": 2.0, "lr": 0.1}\n')
    assert read(run).found.steps == [1]


def test_bug_86_no_step_with_a_finite_loss(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noted(run, [{"step": 1, "loss": None, "lr": 0.1}])
    draw(run / "metrics.jsonl", run / "loss.png", unknowing=3.0)
    assert (run / "loss.png").read_bytes().startswith(PNG)
    refused(capsys, "plot", says="runs/story-1 has taken no step yet, or none with a finite loss")


@pytest.mark.parametrize(("last", "scale"), [(0.0, "linear"), (1.5, "linear"), (0.05, "log")])
def test_the_axis(run: Path, drawn: list[Axes], last: float, scale: str) -> None:
    """0 has no logarithm; what falls a long way needs one."""
    noted(run, [{"step": 1, "loss": 3.0, "lr": 0.1}, {"step": 2, "loss": last, "lr": 0.1}])
    assert main(["plot"]) == 0
    assert drawn[0].get_yscale() == scale


def test_refuses(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare, fresh = (Path(shutil.copytree(run, name)) for name in ("bare", "fresh"))
    (bare / "metrics.jsonl").unlink()
    (fresh / "metrics.jsonl").write_text("")
    (here / "folder.png").mkdir()
    odd = Path(shutil.copytree(bare, "odd"))
    (odd / "metrics.jsonl").mkdir()
    for arguments, says in (
        (["nowhere"], "no run is named 'nowhere'"),
        (["story-1", "story-2"], "no run is named 'story-2'; did you mean story-1?"),
        (
            ["bare"],
            "bare/metrics.jsonl is missing\n"
            "restore it from a copy, or name another run that `tinygpt train` made",
        ),
        (["odd"], "odd/metrics.jsonl cannot be read (it is a folder)"),
        (["fresh"], "fresh has taken no step yet"),
        (["folder.png"], "folder.png is no run: it holds no config.json"),
        (["--out", "a.gif"], "--out a.gif: a picture's name ends in .png, .svg or .pdf"),
        (["--out", "png"], "--out png: a picture's name ends in"),
        (["--out", "nowhere/a.png"], "cannot write to nowhere/a.png (there is no such folder)"),
        (["--out", "folder.png"], "cannot write to folder.png (it is a folder)"),
        (["--ouut", "a.png"], "no flag is named --ouut; did you mean --out?"),
    ):
        refused(capsys, "plot", *arguments, says=says)


def test_what_cannot_be_written_leaves_nothing(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "replace", full)
    refused(
        capsys,
        "plot",
        says="cannot write to runs/story-1/losses.png (No space left on device)\n"
        "name another file: --out FILE",
    )


@pytest.mark.parametrize("settings", [None, b"path.effects: 3", b"\xff\xfe"])
def test_bug_86_settings_with_which_matplotlib_does_not_draw(
    settings: bytes | None, run: Path
) -> None:
    """Of a variable, or of a file in this folder, which matplotlib reads when it is imported."""
    more = {"MPLBACKEND": "agg"}
    if settings is None:
        more["MPLBACKEND"] = "nonsense"
    else:
        Path("matplotlibrc").write_bytes(settings)
    command, options = [*PROGRAM, "plot"], {"capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(command, env=environment(**more), check=False, **options)
    assert done.returncode == 2
    assert done.stderr.startswith("tinygpt: error: the picture cannot be drawn (")
    assert done.stderr.count("\n") == 2
    assert not Path("runs/story-1/losses.png").exists()


def test_matplotlib_is_silent_without_a_home(run: Path) -> None:
    """Where it can keep no settings, matplotlib logs three lines that help nobody."""
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60, "check": True}
    homeless = environment(HOME="/dev/null/x", XDG_CONFIG_HOME="", XDG_CACHE_HOME="")
    homeless.pop("MPLCONFIGDIR", None)
    draw = "import tensor; tensor.draw(tensor.ones(2, requires_grad=True) * 2, 'graph.png')"
    for command in ([*PROGRAM, "plot"], [sys.executable, "-c", draw]):
        assert subprocess.run(command, env=homeless, **options).stderr == ""
    assert Path("graph.png").exists()


def test_runs_that_learned_from_replies(
    preferring: Path,
    answering: Path,
    here: Path,
    drawn: list[Axes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Pairs have a unit of their own; of PPO the numbers of the replies are drawn."""
    reward, ppo, dpo = (str(preferring / name) for name in ("reward", "ppo", "dpo"))
    out = ["--out", "picture.png"]
    assert main(["plot", reward, dpo, *out]) == 0
    assert "does not" not in capsys.readouterr().out
    assert drawn.pop().get_ylabel() == "loss (nats a pair)"
    assert main(["plot", reward, str(answering), *out]) == 0
    assert "is that of pairs of replies: it does not compare" in capsys.readouterr().out
    assert drawn.pop().get_ylabel() == "loss (nats a token)"
    assert main(["plot", ppo, *out]) == 0
    assert "training" not in capsys.readouterr().out
    assert "reward, of the reward model" in [axes.get_title() for axes in drawn]
    refused(capsys, "plot", reward, ppo, *out, says="learned by PPO, whose loss does not compare")
