"""nbgrader: the sources of assignments, with their solutions marked, and its settings.

Each exercise is a solution cell and a locked cell that tests it; a question that is open has a cell for words as well,
which a person grades. nbgrader runs students' code in a kernel of its own, with a limit of time for each cell, and puts
locked cells back as they were. It does not keep that code from changing ebmm.
"""

from __future__ import annotations

import re
from typing import Any

from ebmm.book.course.assignment import Asked, Course, assignment, code, words
from ebmm.book.course.chapter import Cell, name_of, source_of
from ebmm.book.course.plain import as_text

SECONDS_A_CELL = 300

SETTINGS = f"""\
# Settings of nbgrader: run its commands in this folder.
c = get_config()
c.CourseDirectory.course_id = "ebmm"
c.ExecutePreprocessor.timeout = {SECONDS_A_CELL}  # seconds for a cell
c.ExecutePreprocessor.interrupt_on_timeout = True
c.ClearSolutions.code_stub = {{"python": "# Your code here"}}
c.ClearSolutions.enforce_metadata = True
"""

TEST_CELL = """\
# This cell tests your answer to {number}; it stays as it is.
from ebmm.book.exercises import check as check_{name}

verdict = check_{name}("{number}", {name}, seed={seed})
assert verdict, verdict"""


def files(course: Course) -> dict[str, str | bytes]:
    """An assignment for each chapter, and the settings.

    Example:
        >>> from ebmm.book.course.chapter import chapters
        >>> sorted(files(Course(chapters([1]), solutions=False)))
        ['nbgrader_config.py', 'source/01_hopfield/01_hopfield.ipynb']
    """
    sources = {
        f"source/{path.stem}/{path.name}": as_text(
            assignment(path, course, lambda asked: _cells(asked, course), fast=True)
        )
        for path in course.chapters
    }
    return {**sources, "nbgrader_config.py": SETTINGS}


def _cells(asked: Asked, course: Course) -> list[Cell]:
    solution = ""
    if course.solutions:
        solved = re.sub(r"^# ?@title.*\n", "", source_of(asked.solution))
        solution = f"### BEGIN SOLUTION\n{solved}\n### END SOLUTION\n"
    answer = code(
        asked.answer + solution + asked.check,
        asked.name("answer"),
        nbgrader=_metadata(asked.name("answer"), solution=True),
    )
    test = TEST_CELL.format(number=asked.number, name=name_of(asked.number), seed=course.seed)
    points = course.worth(asked.number)
    graded = code(
        test, asked.name("test"), nbgrader=_metadata(asked.name("test"), grade=True, locked=True, points=points)
    )
    if not asked.open:
        return [answer, graded]
    by_hand = _metadata(asked.name("words"), grade=True, solution=True, points=points)
    return [answer, graded, words(asked, nbgrader=by_hand)]


def _metadata(name: str, **flags: Any) -> Cell:
    kind = {"schema_version": 3, "grade_id": name, "grade": False, "solution": False, "locked": False, "task": False}
    return kind | flags
