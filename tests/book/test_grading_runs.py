"""Notebooks graded from end to end: right and wrong ones, and those that cheat, hang, exit, print and allocate."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import psutil
import pytest
import test_exercises_4
import test_exercises_5
import test_exercises_7
import test_exercises_8
import test_exercises_9
from conftest import BOOK, ROOT, cells_of, source

from ebmm.__main__ import main
from ebmm.book.exercises import check
from ebmm.book.grading import fence, marks
from ebmm.book.grading.grader import _environment, _without_judges
from ebmm.book.grading.judge import Student

needs_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="signals, detached processes and limits of memory are those of Linux"
)
NUMBERS = ["3.1", "3.2", "3.3", "3.4", "3.5"]
START = "FAST: bool = False\nfrom ebmm.book.exercises import check"
RIGHT = "answer_3_3 = lambda d: 2 / d"

# What a notebook does, and what its student gets for it: points, and words of the feedback.
NOTEBOOKS: dict[str, tuple[list[str], float, str]] = {
    "right and wrong": (
        [
            "assert FAST and str(check('3.1', None)).startswith('3.1: noted')",
            "print('x' * 50_000_000)",
            "import math\nmine = {'energy': lambda d, n: 2 * n / d, 'gradient term': lambda d, n: n / (8 * d)}",
            "assert check('3.1', mine)\nassert check('3.1', None)",
            "answer_3_2 = 1 / 0",
            RIGHT,
            "def steps(chi):\n    raise OSError('no ' + 'x' * 1000)",
            "answer_3_4 = {'steps': steps, 'one step': 'a'}",
            "answer_3_5 = (1,",
        ],
        2, "3.2: not yet. Nothing was handed in",
    ),
    "cheats": (
        [
            "import json, math, sys, types, torch, ebmm.book.exercises as exercises",
            # replaces the exercises, and makes a judge of its own
            "forged = types.ModuleType('ebmm.book.exercises')",
            "forged.check = lambda *_: True\nforged.EXERCISES = {}",
            "sys.modules['ebmm.book.exercises'] = sys.modules['ebmm.book.exercises.verdict'] = forged",
            "answer_3_1 = {'energy': lambda d, n: d, 'gradient term': lambda d, n: d}",
            # rebinds check, and prints verdicts
            "check = exercises.check = lambda *_: True",
            "print(json.dumps(['3.2', True, 'forged']))\nsys.stderr.write('[\"3.2\", true, \"forged\"]\\n')",
            "answer_3_2 = {'rates': lambda d, N, decay: (1, 1, 1), 'best': 'b'}",
            # changes what judges compare with
            "torch.allclose = torch.equal = math.isclose = lambda *_, **__: True",
            "class Equal(float):\n    __eq__ = __gt__ = __lt__ = lambda *_: True\n    __hash__ = float.__hash__",
            "answer_3_3 = lambda d: Equal(-d)",
            "class NotYet(Exception):\n    pass\n\ndef right(*_):\n    raise NotYet('3.4: right.')",
            "answer_3_4 = {'steps': right, 'one step': 'a'}",
            "class Answer(dict):\n    def get(self, name):\n        return Equal(1)",
            "answer_3_5 = Answer()",
        ],
        0, "3.1: not yet.",
    ),
    "forges messages": (
        [
            "import os, signal",
            "answer_3_3 = lambda d: 7",
            "for pipe in range(3, 64):\n    try:\n        os.write(pipe, b'[\"3.3\", true, \"forged\"]\\n' * 9)\n"
            "    except OSError:\n        pass",
            "os.kill(os.getppid(), signal.SIGKILL)",
        ],
        0, "3.3: not yet.",
    ),
    "exits": ([RIGHT, "import sys\nsys.exit()", "import os\nos._exit(3)"], 0, "ended its process with exit status 3"),
    "crashes": ([RIGHT, "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"], 0, "by signal 11"),
    "holds too much": (["import torch\ntorch.zeros(2**31)", RIGHT], 1, "3.3: right."),
    "holds too much together": (
        [RIGHT, "import mmap\nheld = mmap.mmap(-1, 2**31)\nfor page in range(0, 2**31, 4096):\n    held[page] = 1"],
        0, "stopped with more than 1.5 gigabytes of memory",
    ),
    "is no notebook": ([], 0, "no notebook of version 4"),
}  # fmt: skip


def write(path: Path, cells: list[str], heading: str = "") -> Path:
    code = [{"cell_type": "code", "source": cell} for cell in [START, *cells]]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"cells": [{"cell_type": "markdown", "source": heading}, *code]})
    path.write_text(text if cells else "nothing", encoding="utf8")
    return path


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with open(path, encoding="utf8", newline="") as file:
        return {row["Student"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grading")
    for student, (cells, *_) in NOTEBOOKS.items():
        write(folder / "all" / student / "03_writing.ipynb", cells)
    out = folder / "marks.csv"
    assert main(["grade", str(folder / "all"), "--csv", str(out), "--chapters", "3", "--gigabytes", "1.5"]) == 0
    return rows_of(out)


@needs_linux
@pytest.mark.slow
@pytest.mark.parametrize("student", NOTEBOOKS)
def test_each_notebook_gets_its_mark_and_the_next_is_graded(student, rows):
    _, points, words = NOTEBOOKS[student]
    row = rows[student]
    assert float(row["ebmm"]) == sum(float(row[number]) for number in NUMBERS) == points, row["Feedback"]
    assert words in row["Feedback"] and "forged" not in row["Feedback"]
    assert [name for name in row if name[0].isdigit()] == NUMBERS and len(rows) == len(NOTEBOOKS)


@needs_linux
@pytest.mark.slow
def test_errors_are_told_in_the_feedback(rows):
    said = rows["right and wrong"]["Feedback"]
    assert "Its cell raised ZeroDivisionError: division by zero." in said
    assert "Trying it raised OSError: no xxx" in said and len(said) < 3000
    assert "Its cell raised SyntaxError" in said


@needs_linux
@pytest.mark.slow
def test_time_is_limited_and_nothing_is_left_running(tmp_path):
    """A cell that hangs is interrupted, and what stands is judged; who holds on is killed, with all it started."""
    detached = (
        "import subprocess\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        os.execv('/bin/sleep', ['sleep', '98765.4321'])\n    os._exit(0)"
    )
    stubborn = "while True:\n    try:\n        time.sleep(1)\n    except KeyboardInterrupt:\n        pass"
    write(tmp_path / "all" / "hangs.ipynb", [RIGHT, "while True:\n    pass", "answer_3_3 = None"], "## Exercise 3.1")
    write(tmp_path / "all" / "stubborn.ipynb", [RIGHT, "import os, time", detached, stubborn])
    assert main(["grade", str(tmp_path / "all"), "--csv", str(tmp_path / "marks.csv"), "--seconds", "12"]) == 0
    rows = rows_of(tmp_path / "marks.csv")
    assert float(rows["hangs"]["ebmm"]) == 1
    assert float(rows["stubborn"]["ebmm"]) == 0
    assert rows["stubborn"]["Feedback"].startswith("It was stopped after 12 seconds.")
    assert "98765.4321" not in [word for process in psutil.process_iter(["cmdline"]) for word in _words(process)]


def _words(process) -> list[str]:
    return process.info["cmdline"] or []


SPY = """\
import importlib, json, os, pathlib, resource, socket, sys
import ebmm

found = []


def attempt(name, function):
    try:
        if function() is not False:
            found.append(name)
    except (OSError, ImportError, AttributeError, KeyError):
        pass


def is_written(path):
    path.parent.mkdir(exist_ok=True)
    path.write_text("100 points")


package, book, other, marks, checkout = map(pathlib.Path, {paths})
attempt("judge, imported", lambda: importlib.import_module("ebmm.book.exercises._chapter_3"))
sys.path.insert(0, str(checkout))
for name in [name for name in sys.modules if name.startswith("ebmm")]:
    del sys.modules[name]
attempt("judge, imported from where it is", lambda: importlib.import_module("ebmm.book.exercises._chapter_3"))
attempt("judge, read", lambda: (package / "book" / "exercises" / "_chapter_3.py").read_text())
attempt("chapter, read", lambda: (book / "03_writing.ipynb").read_text())
attempt("checkout, read", lambda: (checkout / "pyproject.toml").read_text())
attempt("chapter, beside the package", lambda: list(pathlib.Path(ebmm.__file__).parent.rglob("*.ipynb")) or False)
attempt("other, read", lambda: other.read_text())
attempt("other, written", lambda: is_written(other))
attempt("other, removed", lambda: other.unlink())
attempt("marks, written", lambda: is_written(marks))
attempt("home, written", lambda: is_written(pathlib.Path({home}) / "spied.txt"))
attempt("a place for all, written", lambda: is_written(pathlib.Path({everyone}) / "spied.txt"))
attempt("secret", lambda: os.environ["A_TOKEN"])
attempt("secret of the judge", lambda: b"A_TOKEN" in pathlib.Path(f"/proc/{{os.getppid()}}/environ").read_bytes())
attempt("limits of the judge", lambda: resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (0, 0)))
attempt("network", lambda: socket.create_connection(("127.0.0.1", {port}), 2))


def answer_3_3(d):
    raise RuntimeError(json.dumps(found))
"""


@pytest.mark.slow
def test_a_spy_finds_nothing(tmp_path, monkeypatch):
    if fence.landlock_version() < 4:
        pytest.skip("this kernel has no Landlock with TCP (Linux 6.7): here the fence hides less")
    import socket

    server = socket.create_server(("127.0.0.1", 0))
    other = write(tmp_path / "all" / "ada.ipynb", [RIGHT])
    table = tmp_path / "out" / "marks.csv"
    told = [ROOT / "ebmm", BOOK, other, table, ROOT]
    monkeypatch.setenv("A_TOKEN", "secret")
    before = other.read_bytes()
    with server, tempfile.TemporaryDirectory() as everyone:
        port, home = server.getsockname()[1], repr(str(Path.home()))
        spy = SPY.format(paths=list(map(str, told)), home=home, everyone=repr(everyone), port=port)
        write(tmp_path / "all" / "spy.ipynb", [spy])
        assert main(["grade", str(tmp_path / "all"), "--csv", str(table), "--chapters", "3"]) == 0
        assert os.listdir(everyone) == []
    rows = rows_of(table)
    assert "3.3: not yet. Trying it raised RuntimeError: []." in rows["spy"]["Feedback"], rows["spy"]["Feedback"]
    assert float(rows["ada"]["ebmm"]) == 1
    assert other.read_bytes() == before and not Path.home().joinpath("spied.txt").exists()


@pytest.mark.slow
def test_gradescope_gets_its_results(tmp_path):
    write(tmp_path / "submission" / "03_writing.ipynb", [RIGHT])
    points, out = tmp_path / "points.json", tmp_path / "results" / "results.json"
    points.write_text('{"3.3": 2, "3.1": 0}')
    asked = ["--gradescope", str(out), "--points", str(points), "--chapters", "03_writing"]
    assert main(["grade", str(tmp_path / "submission"), *asked]) == 0
    results = json.loads(out.read_text(encoding="utf8"))
    assert [(test["name"], test["score"], test["max_score"]) for test in results["tests"]] == [
        ("3.2", 0, 1), ("3.3", 2, 2), ("3.4", 0, 1), ("3.5", 0, 1),
    ]  # fmt: skip
    assert results["tests"][1]["output"].startswith("3.3: right.")


def test_an_empty_submission_gets_results_too(tmp_path):
    out = tmp_path / "results.json"
    (tmp_path / "submission").mkdir()
    assert main(["grade", str(tmp_path / "submission"), "--gradescope", str(out), "--chapters", "3"]) == 0
    results = json.loads(out.read_text(encoding="utf8"))
    assert [test["score"] for test in results["tests"]] == [0] * 5 and "no notebook" in results["output"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "say where the marks go"),
        (["--csv", "a.csv", "--gradescope", "b.json"], "say where the marks go"),
        (["--gradescope", "b.json", "--roster", "c.csv"], "--roster goes with --csv"),
        (["--csv", "{folder}/a.csv"], "name the chapters"),
        (["--csv", "{folder}/a.csv", "--chapters", "3", "--seconds", "0"], "limits must be"),
        (["--csv", "{folder}/a.csv", "--chapters", "3", "--seed", "-1"], "from 0 on; this is -1"),
        (["--csv", "{folder}/a.csv", "--chapters", "3", "--roster", "{folder}/none.csv"], "none.csv"),
    ],
)
def test_what_cannot_be_graded_is_said_before_anything_runs(options, words, tmp_path, capsys):
    write(tmp_path / "ada.ipynb", [RIGHT])
    assert main(["grade", str(tmp_path / "ada.ipynb"), *(one.format(folder=tmp_path) for one in options)]) == 1
    assert words in capsys.readouterr().err


def test_marks_are_kept_where_grading_is_stopped(tmp_path, capsys, monkeypatch):
    for name in ("ada", "ben", "carl"):
        (tmp_path / "all").mkdir(exist_ok=True)
        (tmp_path / "all" / f"{name}.ipynb").write_text("no notebook")
    roster, out = tmp_path / "roster.csv", tmp_path / "marks.csv"
    roster.write_text("Full name\nada\nben\ncarl\ndora\n")
    graded = marks.best

    def stopped(submission, found):
        if submission.student == "ben":
            raise KeyboardInterrupt
        return graded(submission, found)

    monkeypatch.setattr(marks, "best", stopped)
    asked = ["grade", str(tmp_path / "all"), "--csv", str(out), "--chapters", "3"]
    assert main(asked) == 130 and list(rows_of(out)) == ["ada"]
    assert main([*asked, "--roster", str(roster)]) == 130
    assert {name: row["Feedback"] for name, row in rows_of(out).items() if name != "ada"} == {
        "dora": "Nothing was handed in."
    }
    assert "kept in the file of marks" in capsys.readouterr().err


def test_a_name_that_the_terminal_cannot_show_does_not_stop_grading(tmp_path):
    (tmp_path / "Zoë.ipynb").write_text("no notebook")
    command = [sys.executable, "-m", "ebmm", "grade", ".", "--csv", "marks.csv", "--chapters", "3"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "Zo\\xeb" in done.stdout, done.stderr
    assert list(rows_of(tmp_path / "marks.csv")) == ["Zoë"]


def test_two_notebooks_that_fit_one_student_are_told_before_anything_runs(tmp_path, capsys):
    for name in ("Ada Lovelace", "ada-lovelace"):
        write(tmp_path / "all" / f"{name}.ipynb", [RIGHT])
    roster = tmp_path / "roster.csv"
    roster.write_text("Full name\nAda Lovelace\n")
    asked = ["--csv", str(tmp_path / "marks.csv"), "--chapters", "3", "--roster", str(roster)]
    assert main(["grade", str(tmp_path / "all"), *asked]) == 1
    said = capsys.readouterr()
    assert "could be any of" in said.err and "Lovelace" not in said.out


def test_a_module_beside_the_notebooks_does_not_get_into_the_judge(tmp_path, monkeypatch):
    write(tmp_path / "03_writing.ipynb", [RIGHT])
    forged = """import os\nprint('["3.1", true, "forged"]', flush=True)\nos._exit(0)\n"""
    (tmp_path / "safetensors.py").write_text(forged)
    monkeypatch.chdir(tmp_path)
    assert main(["grade", ".", "--csv", "marks.csv", "--chapters", "3"]) == 0
    (row,) = rows_of(tmp_path / "marks.csv").values()
    assert (float(row["3.1"]), float(row["3.3"])) == (0, 1)


# Judged from another process as in the same one

TABLES = {4: test_exercises_4, 5: test_exercises_5, 7: test_exercises_7, 8: test_exercises_8, 9: test_exercises_9}
FAR = ("4.2", "4.4", "5.5", "7.2", "7.5", "8.5", "9.5")  # models, memories, tasks, classes: what cannot cross as data
IN_PLACE = "changes the numbers of the memory"  # of the judge's own, which only a copy reaches here
HAND_IN = """\
import sys
sys.path[:0] = {folders}
from ebmm.book.exercises import check
import test_exercises_{chapter} as table
for place, (number, answer) in enumerate(table.RIGHT):
    check(f"right {{place}}", answer)
for place, (number, answer, _) in enumerate(table.WRONG):
    check(f"wrong {{place}}", answer)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", FAR)
def test_answers_are_judged_alike_in_another_process(number, tmp_path):
    chapter = int(number[0])
    folders = [str(ROOT / "tests"), str(ROOT / "tests" / "book"), str(ROOT)]
    with _without_judges() as package, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        command = [sys.executable, "-m", "ebmm.book.grading.student"]
        cell = HAND_IN.format(folders=folders, chapter=chapter)
        student = Student(command, tmp_path, _environment(tmp_path, package), [cell], time.time() + 600)
        for kind, table in (("right", TABLES[chapter].RIGHT), ("wrong", TABLES[chapter].WRONG)):
            places = [place for place, row in enumerate(table) if row[0] == number]
            for place in places[:6]:
                answer = student.ask("handed_in", f"{kind} {place}")["value"]
                here = check(number, table[place][1])
                assert str(check(number, answer)) == str(here) or IN_PLACE in here.reason
        student.end()


@pytest.mark.slow
def test_the_solutions_of_a_chapter_get_full_marks(tmp_path):
    out = tmp_path / "marks.csv"
    assert main(["grade", str(BOOK / "03_writing.ipynb"), "--csv", str(out)]) == 0
    assert sum("# @title Solution" in source(cell) for cell in cells_of(BOOK / "03_writing.ipynb")) >= 4
    (row,) = rows_of(out).values()
    assert float(row["ebmm"]) == len(NUMBERS), row["Feedback"]
