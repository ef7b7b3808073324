"""Writing a course into a folder, in one of the formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ebmm.book.course import gradescope, nbgrader, otter, plain
from ebmm.book.course.assignment import Course
from ebmm.book.course.chapter import chapters as chapters_of_the_book
from ebmm.book.course.points import check_points
from ebmm.book.exercises.variant import whole_seed

FORMATS: dict[str, Callable[[Course], dict[str, str | bytes]]] = {
    "plain": plain.files,
    "gradescope": gradescope.files,
    "nbgrader": nbgrader.files,
    "otter": otter.files,
}
"""What each format takes to write: the contents of its files by their names."""


def export(
    out: str | Path,
    solutions: bool = True,
    format: str = "plain",
    chapters: Sequence[int] = (),
    points: Mapping[str, float] | None = None,
    seed: int = 0,
    wheels: Sequence[Path] = (),
) -> list[Path]:
    """Write chapters as assignments into a folder.

    Args:
        out: the folder; it is made where it is missing.
        solutions: ``False`` puts an empty answer in the place of each solution. Only "plain" and "nbgrader" can
            hold solutions: what Gradescope and Otter hand out are students' copies always.
        format: "plain", "gradescope", "nbgrader" or "otter".
        chapters: their numbers; empty: all of them.
        points: by exercise, such as ``{"3.2": 2}``; those that are not named are worth 1.
        seed: of the variant of the exercises, from 0 on; 0 is the book's own.
        wheels: for a grader without a network, from ``wheelhouse``; Gradescope's archive takes them in.

    Returns:
        The paths written.

    Raises:
        FileExistsError: a file there holds something else, perhaps a student's answers. Nothing is written then.
        ValueError: no such format, chapter, exercise or variant, or the installed chapters hold no solutions.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = export(folder, solutions=False, chapters=[1])
        ...     text = written[0].read_text(encoding="utf8")
        >>> written[0].name, "Solution 1.1" in text, "answer_1_1 = None" in text
        ('01_hopfield.ipynb', False, True)
    """
    if format not in FORMATS:
        raise ValueError(f"no format {format!r}: choose from {', '.join(FORMATS)}")
    check_points(points or {})
    course = Course(chapters_of_the_book(chapters), solutions, points or {}, whole_seed(seed), wheels)
    contents = {
        Path(out, name): content.encode() if isinstance(content, str) else content
        for name, content in FORMATS[format](course).items()
    }
    for path, content in contents.items():
        if path.exists() and path.read_bytes() != content:
            raise FileExistsError(f"{path} holds something else: move it away, or choose another folder")
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return list(contents)
