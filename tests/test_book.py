"""The built pages, in a real browser: on a desk and on a phone, by day and by night.

They use the Chromium on the path, or the one that CHROMIUM names, and skip without one; with
EBMM_REQUIRE_BROWSER=1 they fail instead.
"""

from __future__ import annotations

import functools
import http.server
import inspect
import os
import re
import shutil
import threading

import pytest
from conftest import AXE, CHAPTERS
from sync_address import ROOT, public_address

import ebmm

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGES = ["intro", *CHAPTERS, "notation", "api", "bibliography", "genindex", "py-modindex", "search"]
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}

SERIOUS = ("serious", "critical")  # of the violations that axe-core finds

# Jupyter Book loads thebe's settings twice; harmless.
KNOWN = re.compile("THEBE_JS_URL")

LOOK = """() => ({
    theme: document.documentElement.dataset.theme,
    wide: document.scrollingElement.scrollWidth - window.innerWidth,
    text: document.body.innerText,
    blank: [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src.slice(0, 200)),
    noalt: [...document.images].filter(i => !(i.alt || '').trim()).map(i => i.src.slice(0, 200)),
    raw: [...document.querySelectorAll('.math')].filter(m => !m.querySelector('mjx-container')).length,
    wrong: document.querySelectorAll('mjx-merror').length,
    cut: [...document.querySelectorAll('div.math')].filter(m => [...m.querySelectorAll('mjx-mi, mjx-mo, mjx-mn')]
        .some(s => s.getBoundingClientRect().left < m.getBoundingClientRect().left - 1)).map(m => m.id || m.innerText),
})"""

# What a slider's box shows: captions and pictures that can be seen.
SHOWN = """box => [...box.querySelectorAll('img')].filter(i => i.checkVisibility() && i.getBoundingClientRect().width)
    .map(i => i.alt + i.src)"""


@pytest.fixture(scope="module")
def browser():
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    found = [path for name in names if name and (path := shutil.which(name))]
    if not found:
        message = "no Chromium on this machine: the built pages were not looked at"
        pytest.fail(message) if os.environ.get("EBMM_REQUIRE_BROWSER") else pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(browser, built_book):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(built_book)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def open_page(browser, address):
    """Opens a page; returns it with the errors it made and the other servers it asked."""
    contexts = []

    def open_page(name: str, size: str = "desktop", theme: str = "light"):
        context = browser.new_context(viewport=SIZES[size], color_scheme=theme, has_touch=size == "phone")
        contexts.append(context)
        page = context.new_page()
        errors, abroad = [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("response", lambda response: errors.append(response.url) if response.status >= 400 else None)
        page.on(
            "request",
            lambda request: None if request.url.startswith((address, "data:")) else abroad.append(request.url),
        )
        page.goto(f"{address}/{name}", wait_until="networkidle")
        page.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
        return page, errors, abroad

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(name, size, theme, open_page):
    page, errors, abroad = open_page(f"{name}.html", size, theme)
    look = page.evaluate(LOOK)
    assert abroad == [], "it asks other servers"
    assert [error for error in errors if not KNOWN.search(error)] == []
    assert look["theme"] == theme
    assert look["wide"] <= 0, "it scrolls sideways"
    assert look["cut"] == [], "the left end of a formula cannot be reached"
    assert "Traceback (most recent call last)" not in look["text"]
    assert look["blank"] == []
    assert look["noalt"] == []
    assert look["raw"] == look["wrong"] == 0, "a formula is not typeset"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_missing_for_readers_by_keyboard_or_by_ear(name, size, theme, open_page):
    page, _, _ = open_page(f"{name}.html", size, theme)
    if name in CHAPTERS:
        page.wait_for_selector(".ebmm-frames .noUi-handle[aria-label]")
    page.evaluate(AXE.read_text(encoding="utf8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    serious = {v["id"]: [node["html"][:200] for node in v["nodes"]] for v in found if v["impact"] in SERIOUS}
    assert serious == {}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CHAPTERS)
def test_sliders_move_by_keyboard_without_a_kernel(name, size, open_page):
    page, _, _ = open_page(f"{name}.html", size)
    page.wait_for_selector(".ebmm-frames .noUi-handle")
    for box in page.query_selector_all(".ebmm-frames"):
        handles = box.query_selector_all(".noUi-handle")
        assert handles
        for handle in handles:
            seen = []
            for key in ("Home", "ArrowRight", "End"):
                handle.press(key)
                page.wait_for_timeout(150)
                seen.append(box.evaluate(SHOWN))
            assert all(len(shown) == 1 for shown in seen), "one picture at a time"
            assert seen[0] != seen[1]
            assert seen[0] != seen[2]
            inside = handle.bounding_box()
            assert inside["x"] >= 0 and inside["x"] + inside["width"] <= SIZES[size]["width"]


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_opens_in_colab_at_its_tag(name, open_page):
    page, _, _ = open_page(f"{name}.html")
    repository, tag = public_address(ROOT)
    owner_and_name = repository.removeprefix("https://github.com/")
    wanted = f"https://colab.research.google.com/github/{owner_and_name}/blob/{tag}/book/{name}.ipynb"
    links = page.eval_on_selector_all("a[href*='colab.research']", "links => links.map(l => l.href)")
    assert len(links) >= 2 and set(links) == {wanted}


def test_solutions_are_folded_and_open(open_page):
    page, _, _ = open_page(f"{CHAPTERS[0]}.html")
    folded = page.locator("details.hide", has_text="Solution")
    assert folded.count() >= 3
    first = folded.first
    assert not first.locator("pre").first.is_visible()
    first.locator("summary").click()
    assert first.locator("pre").first.is_visible()


def test_search_finds(open_page):
    page, _, _ = open_page("search.html?q=energy")
    page.wait_for_selector("#search-results li", timeout=15_000)
    assert page.locator("#search-results li").count() >= 3


def test_every_public_name_is_in_the_reference(built_book):
    reference = (built_book / "api.html").read_text(encoding="utf8")
    public = [getattr(ebmm, name) for name in ebmm.__all__]
    modules = [thing for thing in public if inspect.ismodule(thing)]
    anchors = [f"module-{module.__name__}" for module in modules]
    anchors += [f"{thing.__module__}.{thing.__qualname__}" for thing in public if thing not in modules]
    assert [anchor for anchor in anchors if f'id="{anchor}"' not in reference] == []


def test_every_source_is_in_the_bibliography(built_book):
    keys = re.findall(r"(?m)^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text())
    page = (built_book / "bibliography.html").read_text(encoding="utf8")
    assert len(keys) == len(set(keys)) >= 25
    assert page.count('<div class="citation"') == len(keys)
