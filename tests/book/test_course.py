"""Chapters as assignments, and their figures for slides."""

from __future__ import annotations

import ast
import re

import pytest
from conftest import CHAPTERS, cells_of, opened, source

from ebmm.__main__ import main
from ebmm.book import course
from ebmm.book.course.assignment import FOLDED_BELOW
from ebmm.book.exercises import EXERCISES


def is_solution(cell: dict) -> bool:
    return re.match(r"# @title (Solution|A start for) ", source(cell)) is not None


@pytest.fixture(scope="module")
def assignments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assignments")
    assert main(["course", "--without-solutions", str(folder)]) == 0
    return folder


def test_assignments_hold_no_solution(assignments):
    assert sorted(path.name for path in assignments.iterdir()) == [f"{chapter}.ipynb" for chapter in CHAPTERS]
    for path in course.chapters():
        text = "\n".join(source(cell) for cell in cells_of(assignments / path.name))
        kept = "\n".join(source(cell) for cell in cells_of(path) if not is_solution(cell))
        solved = [source(cell).splitlines() for cell in cells_of(path) if is_solution(cell)]
        lines = {line.strip() for solution in solved for line in solution if len(line.strip()) > 20}
        assert len(lines) > 50
        assert [line for line in lines if line in text and line not in kept] == []
        assert FOLDED_BELOW in kept and FOLDED_BELOW not in text
        for number in (number for number in EXERCISES if number.startswith(f"{int(path.name[:2])}.")):
            assert f"answer_{number.replace('.', '_')} = None\n" in text


def test_a_course_with_solutions_holds_the_chapters_as_they_are(tmp_path):
    assert main(["course", str(tmp_path)]) == 0
    for path in course.chapters():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_cell_needs_a_solution_that_an_assignment_lacks(chapter, assignments):
    """Every name that a cell of the assignment reads was given by a cell of the assignment, or is Python's own."""
    known = set(dir(__builtins__) if not isinstance(__builtins__, dict) else __builtins__) | {"display", "get_ipython"}
    for cell in cells_of(assignments / f"{chapter}.ipynb"):
        if cell["cell_type"] == "code":
            tree = ast.parse(source(cell))
            names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
            given = {node.id for node in names if isinstance(node.ctx, ast.Store)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    given |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    given.add(node.name)
                if isinstance(node, ast.arg):
                    given.add(node.arg)
            known |= given
            missing = {node.id for node in names if isinstance(node.ctx, ast.Load)} - known
            assert missing == set(), f"{missing} in: {source(cell)[:200]}"


def test_answers_are_never_overwritten(tmp_path, capsys):
    assert main(["course", "--without-solutions", str(tmp_path)]) == 0
    assert main(["course", "--without-solutions", str(tmp_path)]) == 0, "nothing was changed in between"
    work = tmp_path / "02_reading.ipynb"
    work.write_text("my answers")
    (tmp_path / "01_hopfield.ipynb").unlink()
    capsys.readouterr()
    assert main(["course", "--without-solutions", str(tmp_path)]) == 1
    assert f"{work} holds something else" in capsys.readouterr().err
    assert work.read_text() == "my answers" and not (tmp_path / "01_hopfield.ipynb").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--fast"],
        ["--figures", "--without-solutions"],
        ["--figures", "--format", "otter"],
        ["--figures", "--points", "points.json"],
        ["--figures", "--seed", "1"],
        ["--figures", "--wheelhouse"],
    ],
)
def test_options_that_do_not_go_together_are_refused(options, tmp_path, capsys):
    assert main(["course", *options, str(tmp_path)]) == 1
    assert "--figures" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_figures_are_as_large_as_slides_and_come_with_their_text(tmp_path):
    pictures = course.figures(tmp_path, ["02_reading"], fast=True)
    (chapter,) = [path for path in course.chapters() if path.stem == "02_reading"]
    listing = (tmp_path / "figures.md").read_text(encoding="utf8")
    told = [cell["metadata"]["mystnb"]["image"]["alt"] for cell in cells_of(chapter) if "mystnb" in cell["metadata"]]
    assert len(pictures) >= 8
    for picture in pictures:
        assert opened(picture).width >= 1600
        (alt,) = re.findall(rf"!\[(.+)\]\({picture.name}\)", listing)
        assert alt in told


def test_an_unknown_chapter_is_named(tmp_path):
    with pytest.raises(ValueError, match="no chapter 10_nothing: choose from 01_hopfield"):
        course.figures(tmp_path, ["10_nothing"])
