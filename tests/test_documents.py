"""What the documents show is run: the README's code with its printed results, and every example."""

from __future__ import annotations

import ast
import codeop
import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def course_order(lesson: Path) -> list[int]:
    """The numbers of the folder and of the lesson: 10_ comes after 9_."""
    return [int(name.split("_")[0]) for name in (lesson.parent.name, lesson.name)]


EXAMPLES = sorted((ROOT / "examples").glob("*/*.py"), key=course_order)


@pytest.mark.parametrize(
    "document", [ROOT / "README.md", ROOT / "DESIGN.md", *PAGES], ids=lambda path: path.name
)
def test_code_in_documents(document: Path) -> None:
    name = document.name
    text = "\n".join(
        "" if line.strip().startswith("```") else line for line in document.read_text().splitlines()
    )
    test = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test)
    assert runner.failures == 0
    assert runner.tries > 5 or name not in ("README.md", "using.md", "looking-inside.md")


WRITTEN = [*ROOT.glob("*.md"), *PAGES, ROOT / "examples" / "README.md"]


@pytest.mark.parametrize("document", WRITTEN, ids=lambda path: path.name)
def test_lines_of_prose_have_100_characters_at_most(document: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    long = [line for line in prose.splitlines() if len(line) > 100 and line[0] not in "|!"]
    assert long == []


@pytest.mark.parametrize("document", [*ROOT.glob("*.md"), *PAGES], ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        assert target.startswith("http") or (document.parent / target).exists(), target


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}  # no window
    run = subprocess.run(
        [sys.executable, str(example)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_cells(example: Path) -> None:
    """A title first; then every cell compiles alone, in the order of a notebook, whose `from
    __future__` holds in the cells after it.
    """
    text = example.read_text()
    starts = [match.start() for match in re.finditer(r"^# %%.*$", text, re.MULTILINE)]
    cells = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    assert "".join(cells) == text, "it does not begin with a cell"
    assert re.match(r"# %% \[markdown\]\n# # \S", text), "no title"
    compiler = codeop.Compile()
    for cell in cells:
        head, _, body = cell.partition("\n")
        assert head in ("# %%", "# %% [markdown]")
        if head == "# %%":
            tree = ast.parse(body)
            compiler(body, f"{example.name}, a cell", "exec")
            assert tree.body, f"an empty cell in {example.name}"
            bare = [
                ast.unparse(node)
                for node in tree.body
                if isinstance(node, ast.Expr) and ast.unparse(node).endswith("show()")
            ]
            assert not bare, f"{bare}: where there is no screen, nothing is shown"
        else:
            assert all(line.startswith("#") for line in body.split("\n") if line), (
                f"code in a markdown cell of {example.name}: {body}"
            )


def test_list_of_lessons() -> None:
    """The course's list holds every lesson, in order, with a * where the lesson draws."""
    page = (ROOT / "examples" / "README.md").read_text()
    rows = re.findall(r"^- \[(\S+)\]\((\S+)\)( \*)?: ", page, re.MULTILINE)
    drawing = [" *" if "plt.show()" in path.read_text() else "" for path in EXAMPLES]
    names = [f"{path.parent.name}/{path.name}" for path in EXAMPLES]
    assert rows == [
        (path.stem, name, star) for path, name, star in zip(EXAMPLES, names, drawing, strict=True)
    ]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_lessons_name_lessons_that_exist(example: Path) -> None:
    text = example.read_text()
    assert "picture." in text or "plt.show()" not in text, "it does not say that it draws"
    for name in re.findall(r"\b\d+_\w+/\d+_\w+\.py\b", text):
        assert (example.parents[1] / name).exists(), f"it names {name}"
