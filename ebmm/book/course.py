"""The book in a course: chapters as assignments, figures for slides. What is handed in is graded by ebmm.book.grading.

    python -m ebmm course OUT                        the chapters
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

from ebmm.book.exercises import EXERCISES
from ebmm.files import folder_with

SOLUTION = re.compile(r"# ?@title (?:Solution|A start for) (\d+\.\d+)\n")
FOLDED_BELOW = "The solutions are folded below each exercise."
SECONDS_A_CELL = 900
DOTS_PER_INCH = 300

ANSWER_CELL = """\
# @title Your answer to {number}
# Give {name} your answer: it is what is graded. Wanted:
# {wanted}.
{name} = None
check("{number}", {name})"""

# Colours and sizes stay those of the book; only the dots become more.
SLIDES_CELL = """\
import matplotlib.pyplot
from matplotlib_inline.backend_inline import set_matplotlib_formats
set_matplotlib_formats("png", dpi={dots})"""


def chapters() -> list[Path]:
    """The chapters' notebooks, in the order of the book.

    Example:
        >>> [path.stem for path in chapters()][:2]
        ['01_hopfield', '02_reading']
    """
    return sorted(folder_with("01_hopfield.ipynb", "chapters", "book").glob("[0-9][0-9]_*.ipynb"))


def export(out: str | Path, solutions: bool = True) -> list[Path]:
    """Write the chapters into a folder. What students hand in of them is graded by ``python -m ebmm grade``.

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
        >>> written[0].name, "Solution 1.1" in text, "answer_1_1 = None" in text
        ('01_hopfield.ipynb', False, True)
    """
    texts = {}
    for path in chapters():
        notebook = _load(path)
        if not solutions:
            notebook["cells"] = [_without_solution(cell) for cell in notebook["cells"]]
        texts[Path(out, path.name)] = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
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
