"""The command ``python -m ebmm grade``: from what was handed in to a file of marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ebmm.book.exercises import EXERCISES
from ebmm.book.grading import marks
from ebmm.book.grading.grader import Grader
from ebmm.book.grading.limits import LIMITS, Limits
from ebmm.book.grading.marks import Mark
from ebmm.book.grading.submissions import Submission, chapters_in, submissions_in
from ebmm.files import check_writable


def grade(
    given: str | Path,
    out: str | Path,
    *,
    chapters: Sequence[str] = (),
    points: str | Path | None = None,
    roster: str | Path | None = None,
    seed: int = 0,
    limits: Limits = LIMITS,
) -> Iterator[Mark]:
    """Grade all that was handed in, give each mark as it is found, and write the table of them.

    Args:
        given: a notebook, a folder, or a ZIP file, as for :func:`ebmm.book.grading.submissions.submissions_in`.
        out: the CSV file.
        chapters: those whose exercises are asked, such as "3"; none for those that anybody's notebook holds.
        points: a JSON file such as {"3.2": 2}; all others are worth 1.
        roster: a CSV file from Canvas or Moodle, as for :func:`ebmm.book.grading.marks.table`.
        seed: of the variant that the course was exported with.
        limits: of each notebook.

    Where it is stopped, the table has the marks that were found, and no row for anybody else who handed in something.

    Raises:
        ValueError: nothing to grade, or a file that is none of its kind.
        OSError: a file that cannot be read or written.
        ImportError: psutil or IPython is not installed.
    """
    path = check_writable(out)
    submissions = submissions_in(given)
    asked = _asked(submissions, chapters, points)
    pending = [Mark(one.student, one.id, {}, asked) for one in submissions]
    marks.table(pending, roster)
    hidden = [Path(one).resolve() for one in (given, path, points, roster) if one is not None]
    graded: list[Mark] = []
    try:
        for mark in Grader(asked, limits, seed, tuple(hidden)).grade(submissions):
            graded.append(mark)
            yield mark
    finally:
        if graded:
            marks.save_table(marks.table(graded + pending[len(graded) :], roster), path)


def grade_for_gradescope(
    given: str | Path,
    out: str | Path,
    *,
    chapters: Sequence[str] = (),
    points: str | Path | None = None,
    seed: int = 0,
    limits: Limits = LIMITS,
) -> Mark:
    """Grade a folder that holds what one student handed in, and write Gradescope's results.json.

    Args:
        given: ``/autograder/submission``. If nothing in it can be graded, the results say so, with no points.
        out: ``/autograder/results/results.json``.
        chapters, points, seed, limits: as for :func:`grade`.

    Raises:
        ValueError: no chapters are given, and the notebook does not tell its own.
        OSError: a file that cannot be read or written.
        ImportError: psutil or IPython is not installed.
    """
    path = check_writable(out)
    try:
        found = submissions_in(given)
    except ValueError:
        found = [Submission("nobody", notebooks={"nothing": ""})]
    all_of_it = Submission("", notebooks={name: text for one in found for name, text in one.notebooks.items()})
    asked = _asked([all_of_it], chapters, points)
    hidden = [Path(one).resolve() for one in (given, path, points) if one is not None]
    (mark,) = Grader(asked, limits, seed, tuple(hidden)).grade([all_of_it])
    marks.save_results(mark, path)
    return mark


def _asked(submissions: list[Submission], chapters: Sequence[str], points: str | Path | None) -> dict[str, float]:
    """The exercises that are asked of everybody, and their points."""
    known = {number.split(".")[0] for number in EXERCISES}
    numbers = {chapter.split("_")[0].lstrip("0") for chapter in chapters} or chapters_in(submissions) & known
    asked = marks.load_points(points, numbers)
    if not asked:
        raise ValueError("no notebook asks an exercise: name the chapters, such as --chapters 3")
    return asked
