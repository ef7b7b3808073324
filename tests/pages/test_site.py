"""What the pages offer besides their text: links to formulas, names of folds, what is shared."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import BOOK, CHAPTERS, ROOT, opened, sources
from sync_address import pages_of, public_address


class Tags(HTMLParser):
    """All start tags of a page, with their attributes."""

    def __init__(self, path: Path):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(path.read_text(encoding="utf8"))

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def meta(self, name: str) -> str | None:
        tags = [a for tag, a in self.found if tag == "meta" and name in (a.get("name"), a.get("property"))]
        assert len(tags) <= 1, f"{name} is told {len(tags)} times"
        return tags[0]["content"] if tags else None


def texts(chapter: str, kind: str) -> str:
    return "\n\n".join(sources(BOOK / f"{chapter}.ipynb", kind))


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_numbers_of_formulas_in_the_text_are_links_to_them(chapter, built_book):
    pages = {page.name: page.read_text(encoding="utf8") for page in built_book.glob("0*.html")}
    links = re.findall(
        r'<a class="reference internal" href="([^"#]*)#(equation-[\d-]+)">\(([\d.]+)\)</a>', pages[f"{chapter}.html"]
    )
    for page, anchor, number in links:
        assert anchor == f"equation-{number.replace('.', '-')}"
        assert pages[page or f"{chapter}.html"].count(f'id="{anchor}"') == 1
    text = re.sub(r"\$\$.*?\$\$|\$.*?\$|`[^`]*`|(?m:^#.*$)", "", texts(chapter, "markdown"), flags=re.S)
    tags = [tag for name in CHAPTERS for tag in re.findall(r"\\tag\{([\d.]+)\}", texts(name, "markdown"))]
    assert len(tags) == len(set(tags)), "a number is given to two formulas"
    mentioned = {number for number in re.findall(r"\((\d+\.\d+)\)", text) if number in tags}
    assert mentioned <= {number for _, _, number in links}


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_folds_are_called_by_their_title(chapter, built_book):
    page = (built_book / f"{chapter}.html").read_text(encoding="utf8")
    folds = re.findall(r'<summary[^>]*>\s*<p class="collapsed admonition-title">(.*?)</p>', page)
    titles = re.findall(r"(?m)^# @title (.+)", texts(chapter, "code"))
    assert len(titles) >= 5
    assert set(titles) <= set(folds)
    assert set(folds) <= {*titles, "Show the code"}


@pytest.mark.slow
def test_a_shared_link_shows_title_description_and_picture(built_book):
    home = pages_of(public_address(ROOT)[0])
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
    names = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    told = []
    for name in names:
        page = Tags(built_book / f"{name}.html")
        assert page.meta("og:url") == f"{home}{name}.html"
        assert page.meta("og:title") and page.meta("og:type") and page.meta("og:image:alt")
        assert 60 < len(page.meta("description")) <= 200
        assert page.meta("description") == page.meta("og:description")
        picture = built_book / page.meta("og:image").removeprefix(home)
        assert opened(picture).size == (1200, 630)
        told.append((page.meta("og:title"), page.meta("description")))
    assert len({title for title, _ in told}) == len({about for _, about in told}) == len(names)


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_tells_how_to_cite_it(chapter, built_book):
    text = texts(chapter, "markdown")
    canonical = re.search(r'<link rel="canonical" href="([^"]+)"', (built_book / f"{chapter}.html").read_text())
    title = text.splitlines()[0].removeprefix("# ")
    cite = text.split("## How to cite this chapter")[1]
    assert canonical is not None and f"url       = {{{canonical[1]}}}" in cite
    assert f"title     = {{{title}}}" in cite
    assert f"version   = {{{public_address(ROOT)[1][1:]}}}" in cite


@pytest.mark.slow
def test_figures_lose_nothing_but_weight(built_book):
    shown = {file.stem: file for file in (built_book / "_images").glob("*.webp")}
    drawn = {file.stem: file for file in (built_book.parent / "jupyter_execute").rglob("*.png")}
    assert len(shown) > 50
    assert not list((built_book / "_images").glob("*.png"))
    for name, file in shown.items():
        assert np.array_equal(np.asarray(opened(file)), np.asarray(opened(drawn[name]).convert("RGB")))
    weights = [(file.stat().st_size, drawn[name].stat().st_size) for name, file in shown.items()]
    assert sum(light for light, _ in weights) < 0.55 * sum(heavy for _, heavy in weights)
