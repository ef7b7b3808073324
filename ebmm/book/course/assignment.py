"""A chapter as an assignment: what takes the place of each solution, and what else a student's copy says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ebmm._repository import REPOSITORY, TAG
from ebmm.book.course.chapter import HEADING, SOLUTION, Cell, load, name_of, source_of
from ebmm.book.course.points import in_words
from ebmm.book.exercises import EXERCISES

FOLDED_BELOW = "The solutions are folded below each exercise."
PARAMETER = re.compile(r"(?m)^FAST\b.*$")

ANSWER_CELL = """\
# @title Your answer to {number}
# Give {name} your answer: it is what is graded. Wanted:
# {wanted}.
{name} = None
"""

WORDS_CELL = """\
**Your words on {number}**: what you asked, what you measured, what you conclude. A person reads this.
"""

VARIANT_CELL = """\
# @title The numbers of this course
# Answers are graded by this variant of the exercises, whatever is set here.
from ebmm.book.exercises import use_variant

VARIANT = {seed}
use_variant(VARIANT)"""


@dataclass(frozen=True)
class Course:
    """What an instructor has chosen.

    Attributes:
        chapters: the notebooks of the book.
        solutions: whether the solutions are left in.
        points: by exercise; those that are missing are worth 1. Empty: none are shown.
        seed: of the variant of the exercises; 0 is the book's own.
        wheels: for a grader without a network.
    """

    chapters: list[Path]
    solutions: bool = True
    points: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    wheels: Sequence[Path] = ()

    def worth(self, number: str) -> float:
        """The points of an exercise.

        Example:
            >>> Course([], points={"3.2": 2}).worth("3.2"), Course([]).worth("3.2")
            (2, 1)
        """
        return self.points.get(number, 1)

    def for_students(self) -> Course:
        """The same without solutions."""
        return replace(self, solutions=False)


@dataclass(frozen=True)
class Asked:
    """An exercise where it stands in a chapter.

    Attributes:
        number: such as "3.2".
        open: whether nobody knows the answer, so that a person must grade what is said about it.
        solution: the cell with the solution, as this variant needs it.
    """

    number: str
    open: bool
    solution: Cell

    @property
    def answer(self) -> str:
        """The empty answer, to be filled in."""
        return ANSWER_CELL.format(number=self.number, name=name_of(self.number), wanted=EXERCISES[self.number].wanted)

    @property
    def check(self) -> str:
        """The line that tells whether the answer is right."""
        return f'check("{self.number}", {name_of(self.number)})'

    def name(self, of: str) -> str:
        """A cell's identity, such as "answer-3-2"."""
        return f"{of}-{self.number.replace('.', '-')}"


def code(source: str, name: str, **metadata: Any) -> Cell:
    """A cell of code."""
    lines = source.splitlines(keepends=True)
    return {
        "cell_type": "code", "execution_count": None, "id": name, "metadata": metadata, "outputs": [], "source": lines,
    }  # fmt: skip


def markdown(source: str, name: str, **metadata: Any) -> Cell:
    """A cell of text."""
    return {"cell_type": "markdown", "id": name, "metadata": metadata, "source": source.splitlines(keepends=True)}


def empty_answer(asked: Asked) -> list[Cell]:
    """What stands in the place of a solution: a cell for the answer, and one for words where the question is open."""
    cells = [code(asked.answer + asked.check, asked.name("answer"), tags=["answer"])]
    return [*cells, words(asked)] if asked.open else cells


def words(asked: Asked, **metadata: Any) -> Cell:
    """A cell for what no check can judge."""
    return markdown(WORDS_CELL.format(number=asked.number), asked.name("words"), tags=["answer", "words"], **metadata)


def assignment(
    path: Path, course: Course, in_place: Callable[[Asked], list[Cell]], handed_out: bool = True, fast: bool = False
) -> Cell:
    """A chapter's notebook with other cells in the place of its solutions.

    Args:
        path: the chapter.
        course: points, variant, and whether solutions are needed.
        in_place: takes an exercise and returns the cells for its answer.
        handed_out: whether students get it, or what is made of it.
        fast: let the notebook compute less unless it is told otherwise.

    Raises:
        ValueError: solutions are needed, and the installed chapters hold none.
    """
    notebook = load(path)
    headings = [heading for cell in notebook["cells"] for heading in HEADING.finditer(source_of(cell))]
    still_open = {heading[1] for heading in headings if "research" in heading[2]}
    cells: list[Cell] = []
    for cell in notebook["cells"]:
        source = source_of(cell)
        if solution := SOLUTION.match(source):
            solved = with_source(cell, _solution(solution[1], source, course))
            cells += in_place(Asked(solution[1], solution[1] in still_open, solved))
        elif cell["cell_type"] == "markdown":
            text = _text(source, course)
            cells.append(with_source(cell, text.replace(FOLDED_BELOW, "") if handed_out else text))
        elif PARAMETER.search(source):
            cells.append(with_source(cell, PARAMETER.sub("FAST: bool = True", source) if fast else source))
            if course.seed:
                cells.append(code(VARIANT_CELL.format(seed=course.seed), "variant", tags=["variant"]))
        else:
            cells.append(cell)
    no_help = {"colab": {"generative_ai_disabled": True}} if handed_out else {}  # Colab would write the answers
    return notebook | {"cells": cells, "metadata": notebook["metadata"] | no_help}


def with_source(cell: Cell, source: str) -> Cell:
    """The same cell with another text."""
    return cell | {"source": source.splitlines(keepends=True)}


def _solution(number: str, source: str, course: Course) -> str:
    if not course.solutions:
        return ""
    if "assert check(" not in source:
        raise ValueError(
            "the chapters of the installed package hold no solutions: they are in the repository only, so run "
            f"this in a checkout, git clone --branch {TAG} {REPOSITORY}, or add --without-solutions"
        )
    return EXERCISES[number].solution_in(source, course.seed)


def _text(source: str, course: Course) -> str:
    heading = HEADING.search(source)
    if heading is None or heading[1] not in EXERCISES:
        return source
    text = EXERCISES[heading[1]].text_in(source, course.seed)
    worth = f"{heading[0]}\n\n**{in_words(course.worth(heading[1]))}.**"
    return text.replace(heading[0], worth, 1) if course.points else text
