"""The book in a course: chapters as assignments, answers graded, figures for slides.

    python -m ebmm course OUT                        the chapters, and a grader of their exercises
    python -m ebmm course --without-solutions OUT    the same with an empty cell in the place of each solution
    python -m ebmm course --figures OUT              every figure of the book, at the size of a slide

Notebooks are run by nbclient, which comes with Jupyter; it is asked for only where a notebook is run.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ebmm.book.exercises import EXERCISES, Verdict
from ebmm.files import folder_with

SOLUTION = re.compile(r"# ?@title (?:Solution|A start for) (\d+\.\d+)\n")
FOLDED_BELOW = "The solutions are folded below each exercise."
SECONDS_A_CELL = 900
DOTS_PER_INCH = 300
VERDICTS = "the verdicts: "

ANSWER_CELL = """\
# @title Your answer to {number}
# Give {name} your answer: it is what is graded. Wanted:
# {wanted}.
{name} = None
check("{number}", {name})"""

# Runs first in a submission: who gave an answer to check, and to no name, has handed it in as well.
NOTING_CELL = """\
import ebmm.book.exercises as _exercises
_check, _checked = _exercises.check, {}
def _noting_check(number, answer):
    if answer is not None:
        _checked[str(number)] = answer
    return _check(number, answer)
_exercises.check = _noting_check"""

# Runs last in a submission, in its own kernel, since answers may be functions and networks.
GRADING_CELL = """\
import json as _json
def _answer(number, name):
    return globals()[name] if globals().get(name) is not None else _checked.get(number)
_verdicts = {{number: _check(number, _answer(number, name)) for number, name in {names!r}.items()}}
print({start!r} + _json.dumps({{number: [v.right, v.reason] for number, v in _verdicts.items()}}))"""

# Colours and sizes stay those of the book; only the dots become more.
SLIDES_CELL = """\
import matplotlib.pyplot
from matplotlib_inline.backend_inline import set_matplotlib_formats
set_matplotlib_formats("png", dpi={dots})"""

GRADER = '''\
"""Grades the exercises of one chapter.

    SUBMISSION=01_hopfield.ipynb python -m pytest test_answers.py

The notebook runs from its first cell to its last, as FAST as it goes, in a kernel of this environment, which must hold
ebmm, pytest, nbclient and ipykernel. It is the student's code that runs: grade where it can do no harm.
"""

import os
from pathlib import Path

import pytest

from ebmm.book.course import exercises_in, grade

SUBMISSION = Path(os.environ.get("SUBMISSION", "nothing"))
if not SUBMISSION.is_file():
    pytest.exit(f"SUBMISSION must name a notebook; {SUBMISSION} is no file", returncode=2)
NUMBERS = exercises_in(SUBMISSION)
if not NUMBERS:
    pytest.exit(f"{SUBMISSION} asks no exercise", returncode=2)


@pytest.fixture(scope="session")
def verdicts():
    return grade(SUBMISSION)


@pytest.mark.parametrize("number", NUMBERS)
def test_exercise(number, verdicts):
    if not verdicts[number]:
        pytest.fail(verdicts[number].reason, pytrace=False)
'''


def chapters() -> list[Path]:
    """The chapters' notebooks, in the order of the book.

    Example:
        >>> [path.stem for path in chapters()][:2]
        ['01_hopfield', '02_reading']
    """
    return sorted(folder_with("01_hopfield.ipynb", "chapters", "book").glob("[0-9][0-9]_*.ipynb"))


def export(out: str | Path, solutions: bool = True) -> list[Path]:
    """Write the chapters and ``test_answers.py``, which grades them, into a folder.

    Args:
        out: the folder; it is made where it is missing.
        solutions: ``False`` puts an empty answer in the place of each solution.

    Returns:
        The paths written.

    Raises:
        FileExistsError: a file there holds something else, perhaps a student's answers. Nothing is written then.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = export(folder, solutions=False)
        ...     text = written[0].read_text(encoding="utf8")
        >>> written[-1].name, "Solution 1.1" in text, "answer_1_1 = None" in text
        ('test_answers.py', False, True)
    """
    texts = {}
    for path in chapters():
        notebook = _load(path)
        if not solutions:
            notebook["cells"] = [_without_solution(cell) for cell in notebook["cells"]]
        texts[Path(out, path.name)] = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    texts[Path(out, "test_answers.py")] = GRADER
    for path, text in texts.items():
        if path.exists() and path.read_text(encoding="utf8") != text:
            raise FileExistsError(f"{path} holds something else: move it away, or choose another folder")
    Path(out).mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_text(text, encoding="utf8")
    return list(texts)


def _without_solution(cell: dict[str, Any]) -> dict[str, Any]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return cell | {"source": source.replace(FOLDED_BELOW, "").splitlines(keepends=True)}
    solution = SOLUTION.match(source)
    if solution is None:
        return cell
    number = solution[1]
    answer = ANSWER_CELL.format(number=number, wanted=EXERCISES[number].wanted, name=_name_of(number))
    return cell | {"source": answer.splitlines(keepends=True), "metadata": {"tags": ["answer"]}}


def exercises_in(path: str | Path) -> list[str]:
    """All exercises of the chapter that a notebook holds, solved or not, and if their headings are gone.

    Example:
        >>> exercises_in(chapters()[0])[0]
        '1.1'
    """
    texts = ["".join(cell["source"]) for cell in _load(path)["cells"] if cell["cell_type"] == "markdown"]
    chapters_here = set(re.findall(r"(?m)^#+ Exercise (\d+)\.\d+", "\n\n".join(texts)))
    return [number for number in EXERCISES if number.split(".")[0] in chapters_here]


def grade(path: str | Path) -> dict[str, Verdict]:
    """Run a chapter as FAST as it goes, and check the answer to each of its exercises.

    Args:
        path: the notebook; the answer to exercise 3.2 is what it calls ``answer_3_2`` when it has run, and if that
            is nothing, what it gave last to ``check("3.2", ...)``. A cell that raises does not keep the following
            ones from running.

    Returns:
        The verdict on each exercise, by number.

    Raises:
        RuntimeError: the notebook stops before its end, for example because it exits, or no cell of it sets FAST.
        ImportError: nbclient is not installed.
    """
    import nbformat

    numbers = exercises_in(path)
    notebook = nbformat.read(path, as_version=4)
    _insert_after_parameters(notebook, f"FAST = True\n{NOTING_CELL}")
    names = {number: _name_of(number) for number in numbers}
    notebook.cells.append(nbformat.v4.new_code_cell(GRADING_CELL.format(names=names, start=VERDICTS)))
    _run(notebook, Path(path).parent)
    said = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    if VERDICTS not in said:
        raise RuntimeError(f"{path} did not run to its end: {_error_in(notebook.cells[-1]) or said!r}")
    verdicts = json.loads(said.split(VERDICTS)[-1].splitlines()[0])  # warnings may follow
    raised = {number: _error_at(notebook, name) for number, name in names.items()}
    return {
        number: Verdict(number, right, f"{reason} Its cell raised {raised[number]}." if raised[number] else reason)
        for number, (right, reason) in verdicts.items()
    }


def _error_at(notebook: Any, name: str) -> str:
    """What the cell that gives the answer raised."""
    return next((_error_in(cell) for cell in notebook.cells if re.search(rf"(?m)^{name} *=", cell.source)), "")


def _error_in(cell: Any) -> str:
    return next((f"{o.ename}: {o.evalue}" for o in cell.get("outputs", []) if o.output_type == "error"), "")


def figures(out: str | Path, only: Sequence[str] = (), fast: bool = False) -> list[Path]:
    """Run the chapters and save each of their figures, large enough for a slide.

    Args:
        out: the folder; a file ``figures.md`` there shows all figures with their alternative text and section.
        only: names of chapters such as "01_hopfield"; empty: all of them.
        fast: run the chapters with FAST: less is computed, so that some curves are rougher.

    Returns:
        The paths of the pictures.

    Raises:
        ValueError: no such chapter.
        nbclient.exceptions.CellExecutionError: a chapter raised an error.
        ImportError: nbclient is not installed.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths = {path.stem: path for path in chapters()}
    if unknown := set(only) - set(paths):
        raise ValueError(f"no chapter {', '.join(sorted(unknown))}: choose from {', '.join(paths)}")
    written, listing = [], ["# Figures of the book", "", "Text and figures are under CC BY 4.0."]
    for name in only or paths:
        for number, (section, alt, picture) in enumerate(_figures_of(paths[name], fast), start=1):
            written.append(out / f"{name}-{number:02d}.png")
            written[-1].write_bytes(picture)
            listing += ["", f"## {name}, {section}", "", f"![{alt}]({written[-1].name})"]
    (out / "figures.md").write_text("\n".join(listing) + "\n", encoding="utf8")
    return written


def _figures_of(path: Path, fast: bool) -> list[tuple[str, str, bytes]]:
    """Section, alternative text and PNG of each figure of a chapter."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    _insert_after_parameters(notebook, SLIDES_CELL.format(dots=DOTS_PER_INCH) + f"\nFAST = {fast}")
    _run(notebook, path.parent, allow_errors=False)
    section, found = "", []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            section = (re.findall(r"(?m)^#+ (.+)", cell.source) or [section])[-1]
            continue
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        pictures = [output.get("data", {}).get("image/png") for output in cell.outputs]
        found += [(section, alt, base64.b64decode(picture)) for picture in pictures if picture]
    return found


def _load(path: str | Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf8"))
    return notebook


def _name_of(number: str) -> str:
    return f"answer_{number.replace('.', '_')}"


def _insert_after_parameters(notebook: Any, source: str) -> None:
    import nbformat

    places = [place for place, cell in enumerate(notebook.cells) if re.search(r"(?m)^FAST\b", cell.source)]
    if not places:
        raise RuntimeError("no cell sets FAST: the cell of parameters is missing")
    notebook.cells.insert(places[0] + 1, nbformat.v4.new_code_cell(source))


def _run(notebook: Any, folder: Path, allow_errors: bool = True) -> None:
    try:
        from nbclient import NotebookClient
    except ImportError:
        raise ImportError("running notebooks needs nbclient and ipykernel: pip install nbclient ipykernel") from None
    NotebookClient(
        notebook, timeout=SECONDS_A_CELL, interrupt_on_timeout=True, kernel_name="python3", allow_errors=allow_errors,
        resources={"metadata": {"path": str(folder)}},
    ).execute()  # fmt: skip
