"""Chapters as assignments, graded from end to end, and their figures for slides."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import BOOK, CHAPTERS, cells_of, opened, source

from ebmm.__main__ import main
from ebmm.book import course
from ebmm.book.exercises import EXERCISES

CHAPTER = "01_hopfield"
NUMBERS = [number for number in EXERCISES if number.startswith("1.")]


def is_solution(cell: dict) -> bool:
    return re.match(r"# @title (Solution|A start for) ", source(cell)) is not None


@pytest.fixture(scope="module")
def assignments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assignments")
    assert main(["course", "--without-solutions", str(folder)]) == 0
    return folder


def submit(assignments, folder, answers: dict[str, str]):
    """A student's notebook: the assignment with some answers filled in. Returns pytest's words on it."""
    notebook = json.loads((assignments / f"{CHAPTER}.ipynb").read_text(encoding="utf8"))
    for cell in notebook["cells"]:
        for number, answer in answers.items():
            if source(cell).startswith(f"# @title Your answer to {number}\n"):
                cell["source"] = answer
    path = folder / f"{CHAPTER}.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf8")
    return graded(assignments, folder, {"SUBMISSION": path.name})


def graded(assignments, folder, environment: dict[str, str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-q", assignments / "test_answers.py"]
    run = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    return run.returncode, run.stdout


def test_assignments_hold_no_solution(assignments):
    assert sorted(path.name for path in assignments.iterdir()) == sorted(
        [*(f"{chapter}.ipynb" for chapter in CHAPTERS), "test_answers.py"]
    )
    for path in course.chapters():
        text = "\n".join(source(cell) for cell in cells_of(assignments / path.name))
        kept = "\n".join(source(cell) for cell in cells_of(path) if not is_solution(cell))
        solved = [source(cell).splitlines() for cell in cells_of(path) if is_solution(cell)]
        lines = {line.strip() for solution in solved for line in solution if len(line.strip()) > 20}
        assert len(lines) > 50
        assert [line for line in lines if line in text and line not in kept] == []
        assert course.FOLDED_BELOW in kept and course.FOLDED_BELOW not in text
        for number in course.exercises_in(path):
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


@pytest.mark.slow
def test_a_right_submission_passes(assignments, tmp_path):
    (chapter,) = [path for path in course.chapters() if path.stem == CHAPTER]
    solutions = {
        re.search(r"\d+\.\d+", source(cell))[0]: source(cell) for cell in cells_of(chapter) if is_solution(cell)
    }
    assert solutions.keys() == set(NUMBERS)
    assert 'check("1.1", answer_1_1)' in solutions["1.1"]
    solutions["1.1"] = solutions["1.1"].replace("answer_1_1", "mine")  # given to check, and to no name
    solutions["1.1"] += '\ncheck("1.1", None)'
    status, said = submit(assignments, tmp_path, solutions)
    assert status == 0, said
    assert re.search(rf"{len(NUMBERS)} passed", said)


@pytest.mark.slow
def test_a_wrong_submission_fails_and_is_told_why(assignments, tmp_path):
    noisy = "def answer_1_5(W):\n    print('out')\n    print('err', file=__import__('sys').stderr)\n    return W"
    answers = {
        "1.1": "answer_1_1 = torch.ones(6, 6)",
        "1.2": "answer_1_2 = 1 / 0",
        "1.4": "answer_1_4 = (1,",
        "1.5": noisy,
    }
    status, said = submit(assignments, tmp_path, answers)
    assert status == 1
    assert f"{len(NUMBERS)} failed" in said
    assert "the diagonal must be zero" in said
    assert "Nothing was handed in" in said
    assert "Its cell raised ZeroDivisionError: division by zero." in said
    assert "Its cell raised SyntaxError" in said


@pytest.mark.parametrize(
    ("submission", "words"),
    [({}, "SUBMISSION must name a notebook"), ({"SUBMISSION": "starter.ipynb"}, "starter.ipynb asks no exercise")],
)
def test_what_cannot_be_graded_is_said(submission, words, assignments, tmp_path):
    shutil.copy(BOOK / "starter.ipynb", tmp_path)
    status, said = graded(assignments, tmp_path, submission)
    assert status == 2 and words in said


def test_answers_are_never_overwritten(tmp_path, capsys):
    assert main(["course", "--without-solutions", str(tmp_path)]) == 0
    assert main(["course", "--without-solutions", str(tmp_path)]) == 0, "nothing was changed in between"
    work = tmp_path / "02_reading.ipynb"
    work.write_text("my answers")
    (tmp_path / "test_answers.py").unlink()
    capsys.readouterr()
    assert main(["course", "--without-solutions", str(tmp_path)]) == 1
    assert f"{work} holds something else" in capsys.readouterr().err
    assert work.read_text() == "my answers" and not (tmp_path / "test_answers.py").exists()


def test_a_notebook_that_exits_is_reported(tmp_path, assignments):
    notebook = json.loads((assignments / f"{CHAPTER}.ipynb").read_text(encoding="utf8"))
    code = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    notebook["cells"] = [notebook["cells"][0], *code, code[0] | {"source": "import os\nos._exit(1)", "id": "exit"}]
    path = tmp_path / f"{CHAPTER}.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf8")
    with pytest.raises(RuntimeError, match="Kernel died"):
        course.grade(path)


def test_a_notebook_without_parameters_is_reported(tmp_path, assignments):
    notebook = json.loads((assignments / f"{CHAPTER}.ipynb").read_text(encoding="utf8"))
    notebook["cells"] = [cell for cell in notebook["cells"] if "parameters" not in cell["metadata"].get("tags", [])]
    path = tmp_path / f"{CHAPTER}.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf8")
    with pytest.raises(RuntimeError, match="no cell sets FAST"):
        course.grade(path)


def test_an_exercise_counts_whatever_its_heading_has_become(tmp_path, assignments):
    path = tmp_path / f"{CHAPTER}.ipynb"
    text = (assignments / f"{CHAPTER}.ipynb").read_text(encoding="utf8")
    path.write_text(text.replace("### Exercise 1.2", "### 1.2"), encoding="utf8")
    assert course.exercises_in(path) == NUMBERS


@pytest.mark.parametrize("options", [["--fast"], ["--figures", "--without-solutions"]])
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
