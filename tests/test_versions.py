"""Old versions of the book stay where they are, and readers of the published pages can choose one."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading

import pytest
from conftest import BOOK, ROOT
from versions import lay_out, newest_first

PAGE = """\
<!doctype html><html data-content_root="{root}"><head><meta charset="utf-8"><title>page</title>
<link rel="canonical" href="{canonical}"><script src="{root}_static/versions.js"></script></head>
<body><div class="sidebar-primary-items__start"><p>logo</p><p>search</p></div></body></html>
"""


def test_versions_are_listed_the_newest_first():
    names = {"v0.9.0", "v0.10.0", "v1.0.0rc1", "v1.0.0", "pr-preview", "vendor", "versions.json", "_static"}
    assert newest_first(names) == ["v1.0.0", "v1.0.0rc1", "v0.10.0", "v0.9.0"]


def test_a_release_adds_its_pages_and_its_tag_and_nothing_else(tmp_path):
    pages, published, into = (tmp_path / name for name in ("html", "published", "into"))
    (pages / "_static").mkdir(parents=True)
    (pages / "index.html").write_text("new")
    (pages / "_static" / "a.js").touch()
    (published / "v0.1.0").mkdir(parents=True)
    assert lay_out(pages, published, "v0.2.0", into) == ["v0.2.0", "v0.1.0"]
    files = {path.relative_to(into).as_posix() for path in into.rglob("*") if path.is_file()}
    assert files == {".nojekyll", "versions.json", "v0.2.0/index.html", "v0.2.0/_static/a.js"}
    assert json.loads((into / "versions.json").read_text()) == ["v0.2.0", "v0.1.0"]
    assert [path.name for path in published.iterdir()] == ["v0.1.0"], "what is published is only read"


def test_what_has_no_pages_or_no_number_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no pages"):
        lay_out(tmp_path, tmp_path / "published", "v1.0", tmp_path / "into")
    (tmp_path / "index.html").touch()
    with pytest.raises(ValueError, match="latest"):
        lay_out(tmp_path, tmp_path / "published", "latest", tmp_path / "into")


def test_without_a_tag_the_command_says_what_it_wants(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "versions.py"), "html", "published", "pages"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "make pages TAG=v1.2.3" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def site(tmp_path, browser):
    """Pages as published under /ebmm/, the newest and one old version; the server's address, and what it was asked."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/ebmm/"
    for folder, pages in ((".", ("index", "a/both", "a/new")), ("v0.1.0", ("index", "a/both"))):
        root = tmp_path / "ebmm" / folder
        (root / "_static").mkdir(parents=True)
        shutil.copy(BOOK / "_static" / "versions.js", root / "_static")
        for page in pages:
            (root / f"{page}.html").parent.mkdir(exist_ok=True)
            text = PAGE.format(root="../" * page.count("/") or "./", canonical=f"{address}{page}.html")
            (root / f"{page}.html").write_text(text)
    (tmp_path / "ebmm" / "versions.json").write_text('["v0.1.0"]')
    yield address, asked
    server.shutdown()


@pytest.mark.parametrize(
    ("start", "chosen", "end"),
    [
        ("a/both.html", "v0.1.0", "v0.1.0/a/both.html"),
        ("a/new.html", "v0.1.0", "v0.1.0/"),
        ("v0.1.0/a/both.html", "newest", "a/both.html"),
    ],
)
def test_a_reader_stays_on_the_page_where_the_other_version_has_it(site, browser, start, chosen, end):
    page = browser.new_page()
    page.goto(site[0] + start)
    choice = page.get_by_label("Version of the book")
    choice.wait_for()
    assert page.locator(".sidebar-primary-items__start > :nth-child(2)").get_attribute("aria-label"), (
        "not below the logo"
    )
    assert choice.locator("option").all_text_contents() == ["newest", "v0.1.0"]
    assert choice.locator("option:checked").text_content() == ("v0.1.0" if start.startswith("v") else "newest")
    choice.select_option(chosen)
    page.wait_for_url(site[0] + end)
    page.close()


@pytest.mark.parametrize(
    ("place", "canonical"),
    [("", "https://books.example/ebmm/copy.html"), ("pr-preview/pr-3/", "{address}copy.html")],
    ids=["elsewhere", "preview"],
)
def test_a_copy_elsewhere_asks_for_nothing(site, browser, tmp_path, place, canonical):
    address, asked = site
    if place:
        shutil.copytree(tmp_path / "ebmm" / "_static", tmp_path / "ebmm" / place / "_static")
    copy = PAGE.format(root="./", canonical=canonical.format(address=address))
    (tmp_path / "ebmm" / place / "copy.html").write_text(copy)
    page = browser.new_page()
    page.goto(f"{address}{place}copy.html", wait_until="networkidle")
    assert page.locator("select").count() == 0
    assert [path for path in asked if "versions.json" in path] == []
    assert [path for path in asked if path.endswith("_static/versions.js")], "the script was not there"
    page.close()


def test_a_file_on_a_disk_makes_no_error(site, browser, tmp_path):
    page = browser.new_page()
    told = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto((tmp_path / "ebmm" / "a" / "both.html").as_uri(), wait_until="networkidle")
    assert page.locator("select").count() == 0
    assert told == []
    page.close()
