"""All code that the book shows fits its column: 88 characters on a screen 1280 pixels wide."""

from __future__ import annotations

import json
import re

import pytest
from conftest import ROOT

WIDTH = 88
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]
MODULES = sorted((ROOT / "ebmm").rglob("*.py"))


def too_long(lines) -> list[str]:
    return [line for line in lines if len(line) > WIDTH]


def code_of_page(text: str) -> list[str]:
    """The lines within fences; a directive such as ```{raw} html is not shown as code."""
    blocks = re.findall(r"(?ms)^(```+)(.*?)\n(.*?)^\1$", text)
    return [line for _, language, block in blocks if not language.startswith("{") for line in block.splitlines()]


def code_of_module(text: str) -> list[str]:
    """The lines of the examples in docstrings, which the page of the package shows without indentation."""
    return re.findall(r"(?m)^ *((?:>>>|\.\.\.) .*)$", text)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_code_of_a_notebook_fits(notebook):
    cells = json.loads(notebook.read_text(encoding="utf8"))["cells"]
    code = [line for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).splitlines()]
    assert code
    assert too_long(code) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_on_a_page_fits(page):
    assert too_long(code_of_page(page.read_text(encoding="utf8"))) == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_examples_of_a_module_fit(module):
    assert too_long(code_of_module(module.read_text(encoding="utf8"))) == []


def test_code_is_found_where_it_stands():
    assert code_of_page("a\n```python\nb\nc\n```\nd\n```{raw} html\ne\n```\n") == ["b", "c"]
    assert code_of_module('    """Does it.\n\n    >>> a\n    ... b\n    c\n    """') == [">>> a", "... b"]
    assert any(map(code_of_page, (page.read_text(encoding="utf8") for page in PAGES)))
    assert any(map(code_of_module, (module.read_text(encoding="utf8") for module in MODULES)))
