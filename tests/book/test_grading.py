"""Who handed in what, what crosses between processes, and the tables of marks."""

from __future__ import annotations

import csv
import io
import json
import sys
import zipfile
from fractions import Fraction

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import BOOK

from ebmm.book.course import read_points
from ebmm.book.exercises import EXERCISES, Verdict
from ebmm.book.grading import command, crossing, fence, limits, marks, submissions
from ebmm.book.grading.judge import Student, verdicts
from ebmm.book.grading.limits import Limits
from ebmm.book.grading.marks import Mark
from ebmm.memory import Memory
from ebmm.tasks import RandomBits, RedrawBits, Task

NOTEBOOK = json.dumps({"cells": [{"cell_type": "markdown", "source": ["### Exercise 3.1\n"]}], "nbformat": 4})


def crossed(value):
    """The value as it arrives; of what stays behind, what was told."""
    return crossing.unpack(crossing.pack(value, lambda kept: {"type": type(kept).__name__}), lambda told: told["type"])


# What crosses


@pytest.mark.parametrize(
    "value",
    [
        None, True, 7, 0.5, float("inf"), "ω", [1, "a"], (1, 2), {1, 2}, frozenset({"a"}), {0.002: [1.0], "a": None},
        {(1, 2): {"b": ()}}, Task(RandomBits(8), RedrawBits(2), 3),
    ],
)  # fmt: skip
def test_plain_data_arrive_as_they_are(value):
    assert crossed(value) == value
    assert type(crossed(value)) is type(value)


def test_tensors_arrays_and_memories_arrive_as_they_are():
    given = {"a": torch.arange(6).view(2, 3).mT, "b": np.eye(2), "c": torch.tensor(True), "d": np.float32(2)}
    found = crossed(given)
    assert torch.equal(found["a"], given["a"]) and found["a"].dtype == torch.int64
    assert np.array_equal(found["b"], given["b"]) and found["c"].item() is True and found["d"] == 2
    shared = torch.rand(2, 3)
    memory = crossed(Memory({"x": shared, "y": shared}))
    assert isinstance(memory, Memory) and torch.equal(memory["y"], shared)


def test_what_answers_add_to_plain_data_does_not_arrive():
    class Liar(float):
        def __eq__(self, other):
            return True

        __hash__ = float.__hash__

    class LyingTensor(torch.Tensor):
        def all(self, *_):
            return True

    assert type(crossed(Liar(3))) is float and crossed(Liar(3)) != 4
    assert type(crossed(torch.zeros(2).as_subclass(LyingTensor))) is torch.Tensor
    assert crossed(Fraction(1, 4)) == 0.25


def test_what_is_no_data_stays_behind():
    assert crossed({"f": len, "o": object()}) == {"f": "builtin_function_or_method", "o": "object"}


def test_what_is_too_large_or_too_deep_is_refused():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        crossed(deep)
    with pytest.raises(ValueError, match="larger than 32 megabytes"):
        crossed(torch.zeros(2**24))


@pytest.mark.parametrize(
    "tree",
    [
        '{"tensor": "7"}',
        '{"task": "Batch", "fields": {}}',
        "[1]",
        '{"pickle": "x"}',
        "{",
        '{"set": [{"list": []}]}',
        "{}",
    ],
)
def test_what_nobody_packs_is_refused(tree):
    content = len(tree).to_bytes(8, "big") + tree.encode() + safetensors.torch.save({})
    with pytest.raises(ValueError, match="no plain data"):
        crossing.unpack(content, lambda told: told)


# Who handed in what


@pytest.mark.parametrize(
    ("path", "student"),
    [
        ("lovelaceada_17_4711_03_writing.ipynb", ("lovelaceada", "17")),
        ("lovelaceada_LATE_17_4711_03_writing.ipynb", ("lovelaceada", "17")),
        ("Ada Lovelace_305_assignsubmission_file_/03_writing.ipynb", ("Ada Lovelace", "305")),
        ("Ada Lovelace_305_assignsubmission_file_03_writing.ipynb", ("Ada Lovelace", "305")),
        ("ada/week 1/03_writing.ipynb", ("ada", "")),
        ("ada/a_1_2_b.ipynb", ("ada", "")),
        ("03_writing.ipynb", ("03_writing", "")),
        # what Ada called her file says nothing of Alan, 306
        ("Ada_305_assignsubmission_file_x_306_assignsubmission_.ipynb", ("Ada", "305")),
    ],
)
def test_a_path_tells_the_student(path, student):
    assert submissions.student_of(path) == student


@pytest.mark.parametrize("packed", [False, True])
def test_notebooks_are_found_in_folders_and_archives(packed, tmp_path):
    files = [
        "ada/1.ipynb",
        "ada/2.ipynb",
        "alan.ipynb",
        "ada/.ipynb_checkpoints/1.ipynb",
        "__MACOSX/._x.ipynb",
        "a.txt",
    ]
    given = tmp_path / ("all.zip" if packed else "all")
    if packed:
        with zipfile.ZipFile(given, "w") as archive:
            for name in files:
                archive.writestr(name, NOTEBOOK)
    else:
        for name in files:
            (given / name).parent.mkdir(parents=True, exist_ok=True)
            (given / name).write_text(NOTEBOOK)
        (given / "alan-too.ipynb").symlink_to(given / "ada" / "1.ipynb")
    found = submissions.submissions_in(given)
    assert [(one.student, sorted(one.notebooks)) for one in found] == [
        ("ada", ["ada/1.ipynb", "ada/2.ipynb"]),
        ("alan", ["alan.ipynb"]),
    ]
    assert submissions.chapters_in(found) == {"3"}


def damage(content: bytearray) -> None:
    content[60] ^= 255


def encrypt(content: bytearray) -> None:
    content[6] |= 1
    content[content.find(b"PK\x01\x02") + 8] |= 1


@pytest.mark.parametrize("harm", [damage, encrypt])
def test_an_archive_that_cannot_be_unpacked_is_reported(harm, tmp_path):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ada/1.ipynb", NOTEBOOK * 9)
    content = bytearray(path.read_bytes())
    harm(content)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be unpacked, get it again: ada/1\.ipynb"):
        submissions.submissions_in(path)


def test_a_mark_of_order_before_a_notebook_and_an_empty_cell_do_no_harm(tmp_path):
    path = tmp_path / "ada.ipynb"
    path.write_text('{"cells": [{"cell_type": "code"}, {"cell_type": "code", "source": "1"}]}', encoding="utf-8-sig")
    (ada,) = submissions.submissions_in(path)
    assert submissions.cells_of(ada.notebooks["ada.ipynb"], "code") == ["", "1"]


def test_a_heading_of_no_chapter_keeps_nobody_from_being_graded():
    ada = submissions.Submission("ada", notebooks={"a": NOTEBOOK.replace("3.1", "3.1 and\\n# Exercise 99.1")})
    assert submissions.chapters_in([ada]) == {"3", "99"}
    assert list(command._asked([ada], [], None)) == ["3.1", "3.2", "3.3", "3.4", "3.5"]


def test_a_folder_without_notebooks_is_reported(tmp_path):
    with pytest.raises(ValueError, match="holds no notebook"):
        submissions.submissions_in(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", '{"cells": 3}', "[" * 100_000, '{"worksheets": []}'])
def test_what_is_no_notebook_is_reported(text):
    with pytest.raises(ValueError, match="no notebook of version 4"):
        submissions.cells_of(text, "code")


# Marks


def mark(student: str, right: str = "", id: str = "", reason: str = "Why?") -> Mark:
    points = {"3.1": 2.0, "3.2": 1.0}
    return Mark(student, id, {number: Verdict(number, number in right.split(), reason) for number in points}, points)


def test_points_are_one_unless_a_file_says_otherwise(tmp_path):
    path = tmp_path / "points.json"
    path.write_text('{"3.2": 2.5, "3.5": 0, "1.1": 7}', encoding="utf-8-sig")
    assert read_points(path) == {"3.2": 2.5, "3.5": 0, "1.1": 7}
    assert marks.load_points(path, ["3"]) == {"3.1": 1.0, "3.2": 2.5, "3.3": 1.0, "3.4": 1.0}
    assert marks.load_points(None, ["3", "4"]) == {number: 1.0 for number in EXERCISES if number[0] in "34"}


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"9.9": 1}', "must hold points"), ("[]", "must hold points"), ('{"3.1": -1}', "from 0 on"),
     ('{"3.1": true}', "from 0 on"), ('{"3.1": Infinity}', "from 0 on")],
)  # fmt: skip
def test_points_that_are_none_are_refused(text, words, tmp_path):
    path = tmp_path / "points.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        marks.load_points(path, ["3"])


def test_an_unknown_chapter_is_named():
    with pytest.raises(ValueError, match="no chapter 10"):
        marks.load_points(None, ["10"])


def test_an_exercise_counts_that_is_right_in_one_of_several_notebooks():
    nothing = "Nothing was handed in. Wanted: a number."
    both = [mark("", "3.1"), mark("", "3.2", reason=nothing)]
    assert marks.best(submissions.Submission("ada", "17"), both).total == 3
    one = marks.best(submissions.Submission("ada"), [mark("", reason=nothing), mark("")])
    assert one.total == 0 and one.verdicts["3.1"].reason == "Why?"


def saved(rows, tmp_path) -> list[dict[str, str]]:
    marks.save_table(rows, tmp_path / "marks.csv")
    with open(tmp_path / "marks.csv", encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_has_a_row_for_each_student(tmp_path):
    (row, other) = saved(marks.table([mark("ada", "3.1", id="17"), mark("=1+1")]), tmp_path)
    assert (row["Student"], row["ID"], row["ebmm"], row["3.1"], row["3.2"]) == ("ada", "17", "2.0", "2.0", "0.0")
    assert row["Feedback"] == "3.1: right. Why?\n3.2: not yet. Why?"
    assert other["Student"] == "'=1+1", "a spreadsheet would take it for a formula"


def test_a_table_holds_no_controls_and_no_halves_of_letters(tmp_path):
    (row,) = saved(marks.table([mark("a\x1b[2Jda", reason="Trying it raised \ud800\x00.")]), tmp_path)
    assert row["Student"] == "a\ufffd[2Jda"
    assert row["Feedback"].startswith("3.1: not yet. Trying it raised \ufffd\ufffd.\n")


CANVAS = """\
Student,ID,SIS Login ID,Section,Essay (7)
    Points Possible,,,,10
"Lovelace, Ada",17,ada1,A,3
"Turing, Alan",18,alan2,B,
"Noether, Emmy",19,emmy3,B,
"""
MOODLE = """\
Identifier,Full name,Email address,Status,Grade
Participant 305,Ada Lovelace,ada@example.org,Submitted,-
Participant 306,Alan Turing,alan@example.org,Submitted,-
"""


def test_a_roster_of_canvas_gives_each_row_what_canvas_wants(tmp_path):
    roster = tmp_path / "canvas.csv"
    roster.write_text(CANVAS, encoding="utf-8-sig")
    given = [mark("lovelaceada", "3.1", id="17"), mark("Alan Turing", "3.2"), mark("stranger")]
    rows = saved(marks.table(given, roster), tmp_path)
    assert [(row["Student"], row["ID"], row["SIS Login ID"], row["Section"], row["ebmm"]) for row in rows] == [
        ("Lovelace, Ada", "17", "ada1", "A", "2.0"),
        ("Turing, Alan", "18", "alan2", "B", "1.0"),
        ("Noether, Emmy", "19", "emmy3", "B", "0.0"),
        ("stranger", "", "", "", "0.0"),
    ]
    assert rows[2]["Feedback"] == "Nothing was handed in." and rows[3]["Feedback"].startswith("Not in the roster.")


def test_a_roster_of_moodle_gives_each_row_what_moodle_wants(tmp_path):
    roster = tmp_path / "moodle.csv"
    roster.write_text(MOODLE)
    given = [mark("Ada Lovelace", "3.1", id="305"), mark("alan@example.org", "3.2")]
    rows = saved(marks.table(given, roster), tmp_path)
    assert [(row["ID"], row["Email address"], row["ebmm"]) for row in rows] == [
        ("Participant 305", "ada@example.org", "2.0"),
        ("Participant 306", "alan@example.org", "1.0"),
    ]


def test_a_roster_from_a_spreadsheet_and_a_name_from_macos_fit(tmp_path):
    roster = tmp_path / "moodle.csv"
    roster.write_text(MOODLE.replace(",", ";").replace("Ada Lovelace", '"Lovelace, Zo\u00eb"'), encoding="utf-8-sig")
    rows = saved(marks.table([mark("Zoe\u0308 Lovelace", "3.1")], roster), tmp_path)
    assert [(row["Email address"], row["ebmm"]) for row in rows] == [
        ("ada@example.org", "2.0"),
        ("alan@example.org", "0.0"),
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_roster_in_another_encoding_is_told(encoding, tmp_path):
    roster = tmp_path / "roster.csv"
    roster.write_text("Full name\nZo\u00eb Lee\n", encoding=encoding)
    with pytest.raises(ValueError, match="roster.csv is not in UTF-8: save it as CSV UTF-8"):
        marks.table([mark("Zo\u00eb Lee")], roster)


def test_a_roster_that_fits_twice_or_names_nobody_is_refused(tmp_path):
    roster = tmp_path / "roster.csv"
    roster.write_text(MOODLE)
    with pytest.raises(ValueError, match="could be any of"):
        marks.table([mark("Ada Lovelace"), mark("ada lovelace")], roster)
    roster.write_text("Full name,Email address\nMax Lee,m@b.c\nMax Lee,n@b.c\n")
    with pytest.raises(ValueError, match="Max Lee could be several students"):
        marks.table([mark("Max Lee")], roster)
    rows = marks.table([mark("n@b.c", "3.1"), mark("m@b.c")], roster)
    assert [(row["Email address"], row["ebmm"]) for row in rows] == [("m@b.c", 0), ("n@b.c", 2)]
    roster.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="names no students"):
        marks.table([], roster)


# What a student's process may say


def student_that_says(content: bytes) -> Student:
    student = object.__new__(Student)
    student._questions, student._replies = io.BytesIO(), io.BytesIO(len(content).to_bytes(8, "big") + content)
    return student


@pytest.mark.parametrize("reply", [7, None, {}, {"error": 7}, {"error": ("a",)}, {"error": (1, 2)}, {"values": 1}])
def test_what_is_no_reply_is_told_of(reply):
    student = student_that_says(crossing.pack(reply, lambda kept: {}))
    (verdict,) = verdicts(student, ["3.3"])
    assert verdict.reason == "The answer could not be handed over: what was handed over is no reply."


def test_what_stays_behind_can_do_only_what_judges_ask_for():
    told = {"place": 0, "type": "Equal", "callable": False, "module": False, "ebmm": False, "memory_floats": None}
    kept = object.__new__(Student)._standing_for(told | {"methods": ["__eq__", "__bool__", "__float__", "write"]})
    assert kept != 4 and kept and not hasattr(kept, "__float__") and callable(kept.write)


# The fence


def test_nothing_hidden_is_within_what_may_be_read(tmp_path):
    for name in ("home/ada/venv/lib", "home/ada/marks", "home/alan", "usr"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home" / "link").symlink_to(tmp_path / "home" / "ada" / "marks")
    hidden = [tmp_path / "home" / "ada" / "marks", tmp_path / "home" / "alan"]
    found = fence.around(tmp_path, hidden)
    assert found == [tmp_path / "home" / "ada" / "venv", tmp_path / "usr"]
    assert fence.around(tmp_path / "home" / "alan", hidden) == []
    assert fence.around(tmp_path / "usr", hidden) == [tmp_path / "usr"]


DEEP = "import os\nfor _ in range({folders}):\n    os.mkdir('a')\n    os.chdir('a')\nopen('b', 'w')\n"


@pytest.mark.parametrize("folders", [3, 300])
def test_nothing_is_left_of_folders_however_deep(folders, tmp_path):
    (tmp_path / "link").symlink_to(BOOK)
    started = f"import time, os\nos.chdir({str(tmp_path)!r})\n{DEEP.format(folders=folders)}time.sleep(0.5)"
    why = limits.run([sys.executable, "-c", started], "", print, tmp_path, Limits(seconds=60))
    assert ("50 folders within each other" in why) == (folders > 50)
    assert list(tmp_path.iterdir()) == [] and (BOOK / "03_writing.ipynb").exists()


@pytest.mark.parametrize("given", [{"seconds": 0}, {"memory": 2**20}])
def test_limits_that_stop_everything_are_refused(given):
    with pytest.raises(ValueError, match="limits must be"):
        Limits(**given)
