"""Every figure of the book, at the size of a slide."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

from ebmm.book.course.chapter import chapters
from ebmm.book.course.running import insert_after_parameters, run

DOTS_PER_INCH = 300

# Colours and sizes stay those of the book; only the dots become more.
SLIDES_CELL = """\
import matplotlib.pyplot
from matplotlib_inline.backend_inline import set_matplotlib_formats
set_matplotlib_formats("png", dpi={dots})"""


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
    insert_after_parameters(notebook, SLIDES_CELL.format(dots=DOTS_PER_INCH) + f"\nFAST = {fast}")
    run(notebook, path.parent, allow_errors=False)
    section, found = "", []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            section = (re.findall(r"(?m)^#+ (.+)", cell.source) or [section])[-1]
            continue
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        pictures = [output.get("data", {}).get("image/png") for output in cell.outputs]
        found += [(section, alt, base64.b64decode(picture)) for picture in pictures if picture]
    return found
