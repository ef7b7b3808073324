"""The book as one file, unpacked and opened in a browser without a server: pages, formulas, sliders, search."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
import zip_book
from conftest import CHAPTERS, KNOWN, opening
from test_book import LOOK, PAGES, SHOWN

MISSING_FONTS = "() => [...document.fonts].filter(font => font.status === 'error').map(font => font.family)"


@pytest.fixture(scope="module")
def archive(built_book, tmp_path_factory) -> Path:
    archive = tmp_path_factory.mktemp("offline") / "ebmm-book.zip"
    zip_book.pack(built_book, archive)
    return archive


@pytest.fixture(scope="module")
def unpacked(archive) -> str:
    """The address of the unpacked pages."""
    shutil.unpack_archive(archive, archive.parent)
    return (archive.parent / "ebmm-book").as_uri()


@pytest.fixture
def open_file(browser, unpacked):
    """Opens a page as the fixture ``open_page`` does, from a file."""
    with opening(browser, unpacked) as open_page:
        yield open_page


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("name", ["index", *PAGES])
def test_a_page_is_whole_without_a_server(name, open_file):
    page, errors, abroad = open_file(f"{name}.html")
    if name == "index":
        page.wait_for_url("**/intro.html")
    look = page.evaluate(LOOK)
    assert page.url.startswith("file://") and len(look["text"]) > 200
    assert abroad == [], "it asks other servers"
    assert [error for error in errors if not KNOWN.search(error)] == []
    assert look["blank"] == []
    assert look["raw"] == look["wrong"] == 0, "a formula is not typeset"
    assert page.evaluate("document.querySelectorAll('mjx-container').length") >= 5 * (name in CHAPTERS)
    assert page.evaluate(MISSING_FONTS) == []


@pytest.mark.browser
@pytest.mark.slow
def test_a_slider_turns_its_pages_without_a_server(open_file):
    page, _, _ = open_file(f"{CHAPTERS[0]}.html")
    page.wait_for_selector(".ebmm-frames .noUi-handle")
    box = page.query_selector(".ebmm-frames")
    seen = []
    for key in ("Home", "End"):
        box.query_selector(".noUi-handle").press(key)
        page.wait_for_timeout(150)
        seen.append(box.evaluate(SHOWN))
    (first,), (last,) = seen
    assert all(one != other for one, other in zip(first, last, strict=True))


@pytest.mark.browser
@pytest.mark.slow
def test_search_names_the_page_without_a_server(open_file):
    """It shows no lines of the pages: a browser lets no script read one file from another."""
    page, _, _ = open_file("search.html?q=pseudo-inverse")
    page.wait_for_selector("#search-results li a", timeout=15_000)
    links = page.eval_on_selector_all("#search-results li a", "links => links.map(link => link.href)")
    assert any("01_hopfield.html" in link for link in links)


def test_the_same_pages_give_the_same_file(tmp_path):
    made = []
    for turn in (1, -1):
        pages, archive = tmp_path / f"pages{turn}", tmp_path / f"zip{turn}" / "book.zip"
        (pages / "_static").mkdir(parents=True)
        archive.parent.mkdir()
        for name in ["index.html", "_static/a.js"][::turn]:
            (pages / name).write_text(name)
            (pages / name).chmod(0o600 if turn > 0 else 0o644)
        zip_book.pack(pages, archive)
        made.append(archive.read_bytes())
    assert made[0] == made[1]
    assert zipfile.ZipFile(archive).namelist() == ["book/_static/a.js", "book/index.html"]
