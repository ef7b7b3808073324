"""Courses for Gradescope, nbgrader and Otter: what is written, and what right, wrong and crashing answers get."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import types
import zipfile

import pytest
import torch
from conftest import BOOK, CHAPTERS, cells_of, source

from ebmm.__main__ import main
from ebmm._repository import VERSION
from ebmm.book import course
from ebmm.book.course import assignment
from ebmm.book.course.formats import FORMATS
from ebmm.book.exercises import EXERCISES

CHAPTER = "01_hopfield"
NUMBERS = [number for number in EXERCISES if number.startswith("1.")]
W = torch.zeros(6, 6)
W[:4, :4] = W[4:, 4:] = 2 / 6
RIGHT = W.fill_diagonal_(0)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One chapter in each format, its exercise 1.2 worth three points."""
    folder = tmp_path_factory.mktemp("formats")
    (folder / "points.json").write_text('{"1.2": 3}')
    for name in FORMATS:
        options = ["--format", name, "--chapters", "1", "--points", str(folder / "points.json")]
        solutions = ["--without-solutions"] if name == "plain" else []
        assert main(["course", str(folder / name), *options, *solutions]) == 0
    return folder


def students(out) -> dict:
    return {
        "plain": out / "plain" / f"{CHAPTER}.ipynb",
        "gradescope": out / "gradescope" / f"{CHAPTER}.ipynb",
        "nbgrader": out / "nbgrader" / "source" / CHAPTER / f"{CHAPTER}.ipynb",
        "otter": out / "otter" / CHAPTER / f"{CHAPTER}.ipynb",
    }


@pytest.mark.parametrize("name", FORMATS)
def test_a_students_copy(name, out):
    notebook = json.loads(students(out)[name].read_text(encoding="utf8"))
    text = "\n".join(source(cell) for cell in notebook["cells"])
    assert notebook["metadata"]["colab"]["generative_ai_disabled"] is True
    assert "### Exercise 1.2 (all stable states)\n\n**3 points.**" in text
    assert "### Exercise 1.1 (warm-up)\n\n**1 point.**" in text
    assert "Your words on 1.5" in text and "Your words on 1.1" not in text
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(names) == len(set(names)) and all(re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", one) for one in names)
    assert ("Solution 1.1" in text) is False
    assert ("def by_hebb(strings)" in text) is (name == "nbgrader"), "nbgrader takes solutions out itself"


def test_gradescopes_archive(out, tmp_path):
    with zipfile.ZipFile(out / "gradescope" / "autograder.zip") as archive:
        assert archive.namelist() == ["setup.sh", "run_autograder", "points.json"]
        modes = {entry.filename: entry.external_attr >> 16 & 0o777 for entry in archive.infolist()}
        assert modes == {"setup.sh": 0o755, "run_autograder": 0o755, "points.json": 0o644}
        archive.extractall(tmp_path)
    assert json.loads((tmp_path / "points.json").read_text()) == dict.fromkeys(NUMBERS, 1) | {"1.2": 3}
    for script in ("setup.sh", "run_autograder"):
        subprocess.run(["bash", "-n", tmp_path / script], check=True)


def test_gradescopes_run_asks_the_grader_for_the_submission(out, tmp_path):
    """What is asked of ``python -m ebmm grade``; test_grading_runs.py holds what that does."""
    with zipfile.ZipFile(out / "gradescope" / "autograder.zip") as archive:
        archive.extractall(tmp_path / "source")
    grader = tmp_path / "python"
    grader.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    grader.chmod(0o755)
    run = subprocess.run(
        ["bash", tmp_path / "source" / "run_autograder"], capture_output=True, text=True, check=True,
        env=os.environ | {"AUTOGRADER_ROOT": str(tmp_path), "AUTOGRADER_PYTHON": str(grader)},
    )  # fmt: skip
    assert run.stdout.splitlines() == [
        *("-m", "ebmm", "grade", f"{tmp_path}/submission"),
        *("--gradescope", f"{tmp_path}/results/results.json", "--points", f"{tmp_path}/source/points.json"),
        *("--chapters", "1", "--seed", "0"),
    ]


CHEATING = """
import ebmm.book.exercises as exercises
check = exercises.check = lambda number, answer, seed=None: exercises.Verdict(number, True, "Right.")
answer_1_1 = torch.ones(6, 6)"""
HANDED_IN = {
    "right": ("W = torch.zeros(6, 6)\nW[:4, :4] = W[4:, 4:] = 2 / 6\nanswer_1_1 = W.fill_diagonal_(0)", 1, ""),
    "wrong": ("answer_1_1 = torch.ones(6, 6)", 0, "diagonal"),
    "crashing": ("import os\nos._exit(1)", 0, ""),
    "hanging": ("while True:\n    pass", 0, ""),
    "cheating": (CHEATING, 0, "diagonal"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HANDED_IN)
def test_gradescope_from_the_archive_to_the_results(kind, out, tmp_path):
    answer, score, words = HANDED_IN[kind]
    notebook = json.loads(students(out)["gradescope"].read_text(encoding="utf8"))
    start = [cell for cell in notebook["cells"] if source(cell).startswith(("FAST", "# @title Imports"))]
    notebook["cells"] = [*start, assignment.code(answer, "mine")]
    for folder in ("submission", "results"):
        (tmp_path / folder).mkdir()
    (tmp_path / "submission" / f"{CHAPTER}.ipynb").write_text(json.dumps(notebook), encoding="utf8")
    with zipfile.ZipFile(out / "gradescope" / "autograder.zip") as archive:
        archive.extractall(tmp_path / "source")
    seconds = "15" if kind == "hanging" else "60"
    run = subprocess.run(
        ["bash", tmp_path / "source" / "run_autograder", "--seconds", seconds], capture_output=True, text=True,
        env=os.environ | {"AUTOGRADER_ROOT": str(tmp_path), "AUTOGRADER_PYTHON": sys.executable},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    results = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf8"))
    tests = {re.search(r"\d+\.\d+", test["name"])[0]: test for test in results["tests"]}
    assert tests.keys() == set(NUMBERS)
    assert {number: test["max_score"] for number, test in tests.items()} == dict.fromkeys(NUMBERS, 1) | {"1.2": 3}
    assert sum(test["score"] for test in tests.values()) == tests["1.1"]["score"] == score
    assert words in tests["1.1"]["output"] and tests["1.1"]["visibility"] == "visible"


def graded_cells(path) -> dict[str, dict]:
    cells = [cell for cell in cells_of(path) if "nbgrader" in cell["metadata"]]
    return {cell["metadata"]["nbgrader"]["grade_id"]: cell for cell in cells}


def test_nbgraders_cells_keep_to_its_schema(out):
    """The rules of nbgrader's schema, version 3, in short; nbgrader itself says so too where it is installed."""
    path = students(out)["nbgrader"]
    cells = graded_cells(path)
    assert len(cells) == len([cell for cell in cells_of(path) if "nbgrader" in cell["metadata"]])
    for name, cell in cells.items():
        kind = dict(cell["metadata"]["nbgrader"])
        points = kind.pop("points", None)
        assert kind.pop("schema_version") == 3 and kind.pop("grade_id") == name and kind.pop("task") is False
        flags = tuple(kind[flag] for flag in ("grade", "solution", "locked"))
        assert len(kind) == 3
        if name.startswith("answer"):
            assert flags == (False, True, False) and cell["cell_type"] == "code" and points is None
            assert source(cell).count("### BEGIN SOLUTION") == source(cell).count("### END SOLUTION") == 1
        elif name.startswith("test"):
            assert flags == (True, False, True) and cell["cell_type"] == "code"
            assert points == (3 if name == "test-1-2" else 1)
        else:
            assert name == "words-1-5" and flags == (True, True, False) and cell["cell_type"] == "markdown"
    assert [name for name in cells if name.startswith("test")] == [f"test-{n.replace('.', '-')}" for n in NUMBERS]
    settings = (out / "nbgrader" / "nbgrader_config.py").read_text()
    assert "c.ExecutePreprocessor.timeout = 300" in settings


@pytest.mark.skipif(not importlib.util.find_spec("nbgrader"), reason="nbgrader is not installed")
def test_nbgrader_takes_the_notebook(out):
    from nbgrader.nbgraderformat import read

    with students(out)["nbgrader"].open(encoding="utf8") as file:
        read(file, as_version=4)


@pytest.mark.parametrize(("answer", "reason"), [(RIGHT, ""), (torch.ones(6, 6), "diagonal"), (None, "Nothing")])
def test_nbgraders_test_cell(answer, reason, out):
    cell = source(graded_cells(students(out)["nbgrader"])["test-1-1"])
    known = {"answer_1_1": answer, "check": lambda *_: True}  # which a student has bound to something kinder
    if reason:
        with pytest.raises(AssertionError, match=reason):
            exec(cell, known)
    else:
        exec(cell, known)


def test_nbgraders_sources_without_solutions(tmp_path):
    assert main(["course", str(tmp_path), "--format", "nbgrader", "--without-solutions", "--chapters", "1"]) == 0
    text = (tmp_path / "source" / CHAPTER / f"{CHAPTER}.ipynb").read_text(encoding="utf8")
    assert "BEGIN SOLUTION" not in text and "answer_1_1 = None" in text


@pytest.fixture
def otter(monkeypatch):
    """Otter's ``test_case``, or where Otter is not installed what stands in for it here: the test's function."""
    if importlib.util.find_spec("otter") is None:
        files = types.ModuleType("otter.test_files")
        files.test_case = lambda points, hidden: (
            lambda function: types.SimpleNamespace(
                points=points, hidden=hidden, call_func=lambda env: function(env.get(function.__code__.co_varnames[0]))
            )
        )
        monkeypatch.setitem(sys.modules, "otter", types.ModuleType("otter"))
        monkeypatch.setitem(sys.modules, "otter.test_files", files)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"answer_1_1": RIGHT}, ""),
        ({"answer_1_1": torch.ones(6, 6)}, "diagonal"),
        ({}, "Nothing was handed in"),
    ],
)
def test_otters_tests(answers, reason, out, otter):
    folder = out / "otter" / CHAPTER
    assert sorted(path.stem for path in (folder / "tests").iterdir()) == [f"q{n.replace('.', '_')}" for n in NUMBERS]
    known: dict = {}
    exec((folder / "tests" / "q1_1.py").read_text(), known)
    assert known["OK_FORMAT"] is False and known["name"] == "q1_1" and known["points"] == 1
    if reason:
        with pytest.raises(AssertionError, match=reason):
            known["test_q1_1"].call_func(answers)
    else:
        known["test_q1_1"].call_func(answers)


def test_otters_test_calls_an_answer_that_raises_wrong(out, otter):
    known: dict = {}
    exec((out / "otter" / CHAPTER / "tests" / "q1_5.py").read_text(), known)
    with pytest.raises(AssertionError, match="Trying it raised ZeroDivisionError"):
        known["test_q1_5"].call_func({"answer_1_5": lambda W: 1 / 0})


def test_otters_notebook(out):
    notebook = json.loads(students(out)["otter"].read_text(encoding="utf8"))
    assert notebook["metadata"]["otter"] == {"assignment_name": CHAPTER}
    text = [source(cell) for cell in notebook["cells"]]
    assert 'otter.Notebook("01_hopfield.ipynb")' in text[1]
    for number in NUMBERS:
        assert f'grader.check("q{number.replace(".", "_")}")' in text
    assert any(re.search(r"(?m)^FAST: bool = True$", cell) for cell in text)


def test_a_variant_stands_in_the_notebook_and_in_the_tests(tmp_path):
    for name in ("plain", "nbgrader", "otter", "gradescope"):
        course.export(tmp_path / name, name in ("plain", "nbgrader"), name, chapters=[1], seed=2027)
    for path in students(tmp_path).values():
        text = [source(cell) for cell in cells_of(path)]
        (place,) = [place for place, cell in enumerate(text) if "use_variant(VARIANT)" in cell]
        assert re.search(r"(?m)^VARIANT = 2027$", text[place]) and "FAST: bool" in text[place - 1]
        assert not any("(+,+,+,+,-,-)" in cell for cell in text)
    assert "seed=2027" in (tmp_path / "otter" / CHAPTER / "tests" / "q1_1.py").read_text()
    test = graded_cells(students(tmp_path)["nbgrader"])["test-1-1"]
    assert "seed=2027" in source(test)
    with zipfile.ZipFile(tmp_path / "gradescope" / "autograder.zip") as archive:
        assert "--seed 2027" in archive.read("run_autograder").decode()


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ('{"12.1": 2}', "no exercise '12.1'"),
        ('{"1.1": -1}', "points are numbers from 0 on; exercise 1.1 has -1"),
        ('{"1.1": "2"}', "exercise 1.1 has '2'"),
        ("[1, 2]", "points are given as"),
        ("{", "points.json: "),
    ],
)
def test_points_that_are_none_are_refused(points, words, tmp_path, capsys):
    (tmp_path / "points.json").write_text(points)
    assert main(["course", str(tmp_path / "out"), "--points", str(tmp_path / "points.json")]) == 1
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--chapters", "1", "12"], f"no chapter 12: there are 1 to {len(CHAPTERS)}"),
        (["--seed", "-1"], "a variant is a whole number from 0 on; this is -1"),
        (["--without-torch"], "--without-torch goes with --wheelhouse"),
        (["--wheelhouse", "--chapters", "12"], "no chapter 12"),
        (["--wheelhouse", "--seed", "-1"], "this is -1"),
    ],
)
def test_what_cannot_be_exported_is_said_before_anything_is_downloaded(options, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(course, "wheelhouse", lambda *_: pytest.fail("it downloads"))
    assert main(["course", str(tmp_path / "out"), *options]) == 1
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_format_that_is_none_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["course", str(tmp_path / "out"), "--format", "moodle"])
    assert f"choose from {', '.join(map(repr, FORMATS))}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no format 'moodle'"):
        course.export(tmp_path / "out", format="moodle")
    assert not (tmp_path / "out").exists()


def test_chapters_without_solutions_are_said(tmp_path, monkeypatch):
    """As they come in the wheel: of each solution its title is left."""
    notebook = json.loads((BOOK / f"{CHAPTER}.ipynb").read_text(encoding="utf8"))
    for cell in notebook["cells"]:
        if re.match("# @title (Solution|A start for) ", source(cell)):
            cell["source"] = [source(cell).split("\n")[0] + "\n", "# They are in the repository."]
    monkeypatch.setattr(assignment, "load", lambda path: notebook)
    with pytest.raises(ValueError, match="the chapters of the installed package hold no solutions"):
        course.export(tmp_path, chapters=[1])
    assert course.export(tmp_path, solutions=False, chapters=[1])


def wheel(folder, name: str, version: str, needs: str = "") -> None:
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")


def only_from(folder, monkeypatch) -> None:
    """Lets pip take packages from this folder alone."""
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": folder.as_uri(), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.skipif(not importlib.util.find_spec("pip"), reason="pip is not installed")
@pytest.mark.parametrize("torch_too", [True, False])
def test_a_wheelhouse_holds_what_a_grader_needs(torch_too, tmp_path, monkeypatch):
    index = tmp_path / "index"
    index.mkdir()
    needs = 'Provides-Extra: course\nRequires-Dist: torch\nRequires-Dist: nbclient; extra == "course"\n'
    wheel(index, "ebmm", VERSION, needs)
    wheel(index, "torch", "9.9")
    wheel(index, "nbclient", "9.9")
    only_from(index, monkeypatch)
    options = [] if torch_too else ["--without-torch"]
    assert main(["course", str(tmp_path / "out"), "--format", "gradescope", "--wheelhouse", *options]) == 0
    expected = {f"ebmm-{VERSION}", "nbclient-9.9"} | ({"torch-9.9"} if torch_too else set())
    with zipfile.ZipFile(tmp_path / "out" / "autograder.zip") as archive:
        held = [name for name in archive.namelist() if name.startswith("wheelhouse/")]
    assert {name.split("/")[1].removesuffix("-py3-none-any.whl") for name in held} == expected


@pytest.mark.skipif(not importlib.util.find_spec("pip"), reason="pip is not installed")
def test_a_wheelhouse_that_cannot_be_filled_says_why(tmp_path, monkeypatch, capsys):
    only_from(tmp_path, monkeypatch)
    assert main(["course", str(tmp_path / "out"), "--wheelhouse"]) == 1
    assert "pip install failed" in capsys.readouterr().err
