"""Otter-Grader: a folder for each chapter, with the notebook, a test of each exercise, and what the grader installs.

Otter runs students' code and the tests in one process. It does not keep that code from changing ebmm, nor does a
notebook's cell have a limit of time: ``otter grade --timeout`` sets one for a whole submission.
"""

from __future__ import annotations

import json

from ebmm._repository import REPOSITORY, TAG
from ebmm.book.course.assignment import Asked, Course, assignment, code, empty_answer
from ebmm.book.course.chapter import Cell, exercises_of, name_of
from ebmm.book.course.plain import as_text

NEEDED = f"""\
--extra-index-url https://download.pytorch.org/whl/cpu
ebmm[course] @ git+{REPOSITORY}@{TAG}
"""

START = """\
# Otter checks your answers: pip install otter-grader
import otter

grader = otter.Notebook("{notebook}")"""

TEST = """\
from otter.test_files import test_case

OK_FORMAT = False

name = "{question}"
points = {points}


@test_case(points={points}, hidden=False)
def test_{question}({name}):
    from ebmm.book.exercises import check

    verdict = check("{number}", {name}, seed={seed})
    assert verdict, verdict
"""


def files(course: Course) -> dict[str, str | bytes]:
    """Notebooks with Otter's checks in them, their tests, and what the grader's machine needs.

    Example:
        >>> from ebmm.book.course.chapter import chapters
        >>> sorted(files(Course(chapters([1]), solutions=False)))[-1]
        '01_hopfield/tests/q1_5.py'
    """
    written: dict[str, str | bytes] = {}
    for path in course.chapters:
        notebook = assignment(path, course.for_students(), _cells, fast=True)
        notebook["cells"].insert(1, code(START.format(notebook=path.name), "otter", tags=["otter"]))
        notebook["metadata"]["otter"] = {"assignment_name": path.stem}
        written[f"{path.stem}/{path.name}"] = as_text(notebook)
        for number in exercises_of(path):
            written[f"{path.stem}/tests/{_question(number)}.py"] = TEST.format(
                question=_question(number), number=number, name=name_of(number), points=course.worth(number),
                seed=course.seed,
            )  # fmt: skip
        written[f"{path.stem}/requirements.txt"] = NEEDED
        written[f"{path.stem}/otter_config.json"] = json.dumps({"assignment_name": path.stem}, indent=1) + "\n"
    return written


def _question(number: str) -> str:
    return f"q{number.replace('.', '_')}"


def _cells(asked: Asked) -> list[Cell]:
    check = code(f'grader.check("{_question(asked.number)}")', asked.name("check"), tags=["otter"])
    answer, *rest = empty_answer(asked)
    return [answer, check, *rest]
