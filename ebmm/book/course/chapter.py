"""The chapters' notebooks, and which of their cells are exercises and solutions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ebmm.book.exercises import EXERCISES
from ebmm.files import folder_with

Cell = dict[str, Any]  # of a notebook, or a whole notebook, as JSON has it

HEADING = re.compile(r"(?m)^#+ Exercise (\d+\.\d+)(.*)$")
SOLUTION = re.compile(r"# ?@title (?:Solution|A start for) (\d+\.\d+)\n")


def chapters(numbers: Sequence[int] = ()) -> list[Path]:
    """The chapters' notebooks, in the order of the book.

    Args:
        numbers: of the chapters wanted; empty: all of them.

    Raises:
        ValueError: no such chapter.

    Example:
        >>> [path.stem for path in chapters()][:2]
        ['01_hopfield', '02_reading']
        >>> [path.stem for path in chapters([3])]
        ['03_writing']
    """
    all_of_them = sorted(folder_with("01_hopfield.ipynb", "chapters", "book").glob("[0-9][0-9]_*.ipynb"))
    by_number = {chapter_of(path): path for path in all_of_them}
    if unknown := set(numbers) - set(by_number):
        raise ValueError(f"no chapter {min(unknown)}: there are 1 to {len(by_number)}")
    return [path for number, path in by_number.items() if not numbers or number in numbers]


def chapter_of(path: Path) -> int:
    """The number of a chapter, from the name of its file."""
    return int(path.stem[:2])


def exercises_of(path: Path) -> list[str]:
    """The numbers of a chapter's exercises."""
    return [number for number in EXERCISES if int(number.split(".")[0]) == chapter_of(path)]


def load(path: str | Path) -> Cell:
    """A notebook as it is stored."""
    notebook: Cell = json.loads(Path(path).read_text(encoding="utf8"))
    return notebook


def source_of(cell: Cell) -> str:
    """The text of a cell."""
    return "".join(cell["source"])


def name_of(number: str) -> str:
    """What a notebook calls the answer to an exercise."""
    return f"answer_{number.replace('.', '_')}"
