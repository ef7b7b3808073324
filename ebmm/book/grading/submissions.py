"""Who handed in what: notebooks in a folder, or in the archive that Canvas or Moodle gives."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from unicodedata import category

MOST_BYTES = 2**26  # of one notebook with its figures
CANVAS = re.compile(r"(?P<name>[^_]+)_(?:LATE_)?(?P<id>\d+)_\d+_.+")
MOODLE = re.compile(r"(?P<name>.+?)_(?P<id>\d+)_assignsubmission_.*")


@dataclass
class Submission:
    """What one student handed in.

    Attributes:
        student: the name that the path tells, by the rules of :func:`student_of`.
        id: the number that Canvas or Moodle put into the path; empty where there is none.
        notebooks: the content of each notebook, by its path below what was given.
    """

    student: str
    id: str = ""
    notebooks: dict[str, str] = field(default_factory=dict)


def student_of(path: str) -> tuple[str, str]:
    """Name and number of the student whose notebook lies at a path, relative to what was given.

    1. Canvas: the file is called ``name_12345_67890_file.ipynb``, perhaps with ``LATE``; 12345 is the student's ID.
    2. Moodle: the folder, or the file, is called ``Name_12345_assignsubmission_...``; 12345 is the number in the column
       *Identifier* of the grading worksheet.
    3. Anything else in a folder: the topmost folder is the student's name.
    4. A notebook in no folder: its name without ``.ipynb`` is.

    Example:
        >>> student_of("lovelaceada_LATE_17_4711_03_writing.ipynb")
        ('lovelaceada', '17')
        >>> student_of("Ada Lovelace_305_assignsubmission_file/03_writing.ipynb")
        ('Ada Lovelace', '305')
        >>> student_of("ada/week 2/03_writing.ipynb"), student_of("ada.ipynb")
        (('ada', ''), ('ada', ''))
    """
    first, *deeper = PurePosixPath(path).parts
    if found := (None if deeper else CANVAS.fullmatch(first)) or MOODLE.fullmatch(first):
        return found["name"], found["id"]
    return (first if deeper else PurePosixPath(first).stem), ""


def submissions_in(given: str | Path) -> list[Submission]:
    """All that was handed in, in the order of the students' names.

    Args:
        given: a notebook, a folder with notebooks or with folders of students, or a ZIP file of either. Links and
            hidden files are left out, and so are archives within archives.

    Raises:
        ValueError: it holds no notebook, or an archive is damaged or encrypted.
        OSError: it cannot be read.
    """
    given = Path(given)
    if zipfile.is_zipfile(given):
        found = _in_archive(given)
    elif given.is_dir():
        paths = sorted(path for path in given.rglob("*.ipynb") if path.is_file() and not path.is_symlink())
        found = {path.relative_to(given).as_posix(): _text(path.read_bytes()) for path in paths}
    else:
        found = {given.name: _text(given.read_bytes())}
    students: dict[tuple[str, str], Submission] = {}
    for path, text in found.items():
        if not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(path).parts):
            who = student_of(visible(path))
            students.setdefault(who, Submission(*who)).notebooks[path] = text
    if not students:
        raise ValueError(f"{given} holds no notebook")
    return [students[who] for who in sorted(students)]


def _in_archive(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        members = [one for one in archive.infolist() if one.filename.endswith(".ipynb")]
        contents = {}
        for one in sorted(members, key=lambda member: member.filename):
            try:
                with archive.open(one) as file:
                    contents[one.filename.lstrip("/")] = _text(file.read(MOST_BYTES + 1))
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # damaged, or encrypted
                raise ValueError(f"{path} cannot be unpacked, get it again: {one.filename}: {error}") from error
        return contents


def _text(content: bytes) -> str:
    """Of a notebook; nothing for one that is too large, which no cell is found in then."""
    return content.decode("utf-8-sig", errors="replace") if len(content) <= MOST_BYTES else ""


def visible(text: str) -> str:
    """A text without what no file and no terminal should get: controls, and halves of letters.

    Example:
        >>> visible("Ada\\x1b[2J"), visible("Zoë\\nLee")
        ('Ada�[2J', 'Zoë\\nLee')
    """
    return "".join("\ufffd" if category(one) in ("Cc", "Cs") and one != "\n" else one for one in text)


def cells_of(notebook: str, kind: str) -> list[str]:
    """The sources of its cells of one kind, "code" or "markdown".

    Raises:
        ValueError: it is no notebook of version 4.

    Example:
        >>> cell = '{"cell_type": "code", "source": ["a = 1\\\\n", "a"]}'
        >>> cells_of(f'{{"cells": [{cell}]}}', "code")
        ['a = 1\\na']
    """
    if not notebook:
        raise ValueError(f"It is no notebook of version 4 (empty, or above {MOST_BYTES // 2**20} megabytes).")
    try:
        return ["".join(cell.get("source", "")) for cell in json.loads(notebook)["cells"] if cell["cell_type"] == kind]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ValueError(f"It is no notebook of version 4 ({type(error).__name__}).") from error


def chapters_in(submissions: list[Submission]) -> set[str]:
    """The numbers of the chapters whose exercises somebody's notebook asks, by their headings."""
    found = set()
    for one in submissions:
        for notebook in one.notebooks.values():
            try:
                texts = cells_of(notebook, "markdown")
            except ValueError:
                continue
            found |= set(re.findall(r"(?m)^#+ Exercise (\d+)\.\d+", "\n\n".join(texts)))
    return found
