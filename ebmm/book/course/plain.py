"""Plain notebooks: as they are in the book, or with an empty answer in the place of each solution."""

from __future__ import annotations

import json

from ebmm.book.course.assignment import Asked, Course, assignment, empty_answer
from ebmm.book.course.chapter import Cell


def files(course: Course) -> dict[str, str | bytes]:
    """The chapters, with their solutions or an empty answer in the place of each."""

    def in_place(asked: Asked) -> list[Cell]:
        return [asked.solution] if course.solutions else empty_answer(asked)

    students = not course.solutions
    return {path.name: as_text(assignment(path, course, in_place, students)) for path in course.chapters}


def as_text(notebook: Cell) -> str:
    """A notebook as it is stored.

    Example:
        >>> as_text({"cells": []})
        '{\\n "cells": []\\n}\\n'
    """
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
