"""From verdicts to marks: points, a table that Canvas and Moodle read, and the results that Gradescope shows."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebmm import files
from ebmm.book.course.points import read_points
from ebmm.book.exercises import EXERCISES, Verdict
from ebmm.book.grading.submissions import Submission, visible

# How a student is told in the files that Canvas and Moodle give; the first of each row is what ours is called.
COLUMNS = {
    "Student": ("Student", "Full name"),
    "ID": ("ID", "Identifier"),
    "SIS User ID": ("SIS User ID",),
    "SIS Login ID": ("SIS Login ID", "Username"),
    "Section": ("Section", "Groups"),
    "ID number": ("ID number",),
    "Email address": ("Email address",),
}
TOTAL, FEEDBACK = "ebmm", "Feedback"


@dataclass(frozen=True)
class Mark:
    """What one student gets.

    Attributes:
        student: the name.
        id: the number that Canvas or Moodle knows the student by, or nothing.
        verdicts: on each exercise, by number.
        points: for each exercise, by number.
        trouble: why the notebook was stopped, or could not be read; else nothing.

    Example:
        >>> mark = Mark("ada", "", {"3.2": Verdict("3.2", True, "Well.")}, {"3.2": 2.0})
        >>> mark.total, mark.feedback
        (2.0, '3.2: right. Well.')
    """

    student: str
    id: str
    verdicts: Mapping[str, Verdict]
    points: Mapping[str, float]
    trouble: str = ""

    def score(self, number: str) -> float:
        """The points for one exercise: all or none."""
        return self.points[number] if self.verdicts[number] else 0.0

    @property
    def total(self) -> float:
        """The points for all of them."""
        return sum(self.score(number) for number in self.verdicts)

    @property
    def feedback(self) -> str:
        """All reasons, a line each; before them, what kept the notebook from being judged whole."""
        return "\n".join([*([self.trouble] if self.trouble else []), *map(str, self.verdicts.values())])


def load_points(path: str | Path | None, chapters: Iterable[str]) -> dict[str, float]:
    """The points for each exercise of some chapters: what a JSON file such as {"3.2": 2} says, one for all others.

    Args:
        path: the file; an exercise to which it gives 0 points is not asked.
        chapters: their numbers, such as "3".

    Raises:
        ValueError: no such chapter or exercise, or points that are no number from 0 on.

    Example:
        >>> load_points(None, ["4"])["4.1"]
        1.0
    """
    known = {number.split(".")[0] for number in EXERCISES}
    wanted = set(chapters)
    if unknown := wanted - known:
        raise ValueError(f"no chapter {', '.join(sorted(unknown))}: choose from {', '.join(sorted(known))}")
    given = read_points(path) if path else {}
    asked = [number for number in EXERCISES if number.split(".")[0] in wanted]
    return {number: float(given.get(number, 1)) for number in asked if given.get(number, 1) > 0}


def best(submission: Submission, graded: list[Mark]) -> Mark:
    """One mark from those of several notebooks of a student: an exercise is right if it is in one of them."""
    first = graded[0]
    verdicts = {
        number: next((mark.verdicts[number] for mark in graded if mark.verdicts[number]), _told(number, graded))
        for number in first.verdicts
    }
    troubles = "\n".join(mark.trouble for mark in graded if mark.trouble)
    return Mark(submission.student, submission.id, verdicts, first.points, troubles)


def _told(number: str, graded: list[Mark]) -> Verdict:
    """Of wrong verdicts, the first one on an answer that was handed in."""
    reasons = [mark.verdicts[number] for mark in graded]
    return next((one for one in reasons if not one.reason.startswith("Nothing was handed in")), reasons[0])


def table(marks: list[Mark], roster: str | Path | None = None) -> list[dict[str, Any]]:
    """A row for each student, as Canvas and Moodle take them.

    Args:
        marks: of all students; one without verdicts is of a student who is not graded yet, and gets no row.
        roster: a CSV file from Canvas (its gradebook) or Moodle (its grading worksheet, its list of participants). Then
            there is a row for each student of it, in its order and with what it says of them; whoever handed in
            nothing gets no points, and whoever it does not list comes last, and is told so in the feedback.

    Raises:
        ValueError: the roster names no students, or two of its students fit the same submission.
    """
    if roster is None:
        return [_row({"Student": mark.student, "ID": mark.id}, mark) for mark in marks if mark.verdicts]
    left, rows = list(marks), []
    for student in _students(Path(roster)):
        fitting = [mark for mark in marks if _fits(mark, student)]
        if len(fitting) > 1:
            names = ", ".join(mark.student for mark in fitting)
            raise ValueError(f"{student['Student']} of {roster} could be any of {names}: rename their folders")
        mark = fitting[0] if fitting else None
        if mark is not None and mark not in left:
            name = mark.student
            raise ValueError(f"{name} could be several students of {roster}: name folders by their e-mail addresses")
        if mark is not None:
            left.remove(mark)
        if mark is None or mark.verdicts:
            rows.append(_row(student, mark, marks[0].points))
    for mark in (mark for mark in left if mark.verdicts):
        row = _row({"Student": mark.student, "ID": mark.id}, mark)
        rows.append(row | {FEEDBACK: f"Not in the roster.\n{row[FEEDBACK]}"})
    return rows


def _row(student: Mapping[str, str], mark: Mark | None, points: Mapping[str, float] | None = None) -> dict[str, Any]:
    told = {column: _harmless(student.get(column, "")) for column in COLUMNS}
    if mark is None:
        return told | {TOTAL: 0.0} | dict.fromkeys(points or {}, 0.0) | {FEEDBACK: "Nothing was handed in."}
    scores = {number: mark.score(number) for number in mark.verdicts}
    return told | {TOTAL: mark.total} | scores | {FEEDBACK: _harmless(mark.feedback)}


def _harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula, and every one can read."""
    return f"'{visible(text)}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else visible(text)


def _students(roster: Path) -> list[dict[str, str]]:
    try:
        text = roster.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{roster} is not in UTF-8: save it as CSV UTF-8 ({error})") from error
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    students = []
    for row in rows:
        student = {ours: next((row[one] for one in theirs if row.get(one)), "") for ours, theirs in COLUMNS.items()}
        names = [row.get(column) or "" for column in ("First name", "Last name")]
        student["Student"] = student["Student"] or " ".join(name for name in names if name)
        if student["Student"] and student["Student"].strip() not in ("Points Possible", "Student, Test"):
            students.append(student)
    if not students:
        raise ValueError(
            f"{roster} names no students: it needs a column Student, Full name, or First name and Last name"
        )
    return students


def _fits(mark: Mark, student: Mapping[str, str]) -> bool:
    """By the number, where the path had one; else by login, e-mail address, number or name."""
    if mark.id:
        return mark.id == student["ID"].removeprefix("Participant ").strip()
    called = {student[column].lower() for column in COLUMNS if column not in ("Student", "Section")}
    names = {_letters(student["Student"]), _letters(" ".join(reversed(student["Student"].split(", "))))}
    return mark.student.lower() in called - {""} or _letters(mark.student) in names


def _letters(name: str) -> str:
    composed = unicodedata.normalize("NFC", name)  # macOS takes an ä apart
    return "".join(letter for letter in composed.lower() if letter.isalnum())


def save_table(rows: list[dict[str, Any]], path: str | Path) -> None:
    """Write rows as a CSV file, whole or not at all."""
    with files.replacing(path) as beside, open(beside, "w", encoding="utf8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def results_for_gradescope(mark: Mark) -> dict[str, Any]:
    """The content of Gradescope's results.json: a test for each exercise, which its student sees.

    Example:
        >>> mark = Mark("ada", "", {"3.2": Verdict("3.2", False, "Why?")}, {"3.2": 2.0})
        >>> results_for_gradescope(mark)["tests"]
        [{'name': '3.2', 'score': 0.0, 'max_score': 2.0, 'output': '3.2: not yet. Why?', 'visibility': 'visible'}]
    """
    tests = [
        {
            "name": number,
            "score": mark.score(number),
            "max_score": mark.points[number],
            "output": str(verdict),
            "visibility": "visible",
        }
        for number, verdict in mark.verdicts.items()
    ]
    return {"output": mark.trouble, "visibility": "visible", "tests": tests}


def save_results(mark: Mark, path: str | Path) -> None:
    """Write results.json, whole or not at all."""
    with files.replacing(path) as beside:
        beside.write_text(json.dumps(results_for_gradescope(mark), indent=1) + "\n", encoding="utf8")
