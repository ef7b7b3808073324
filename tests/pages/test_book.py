"""The built pages, in a real browser: on a desk and on a phone, by day and by night."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from conftest import AXE, CHAPTERS, KNOWN, SIZES, opening
from playwright.sync_api import Page
from sync_address import ROOT, public_address

import ebmm

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGES = [
    "intro", *CHAPTERS, "use", "starter", "teach", "notation", "api", "bibliography", "speed", "times",
    "genindex", "py-modindex", "search",
]  # fmt: skip

VIEWS = [(name, size, theme) for name in PAGES for size in SIZES for theme in ("light", "dark")]
VIEWS_OF_CHAPTERS = [view for view in VIEWS if view[0] in CHAPTERS]
AT_THE_DESK = [view for view in VIEWS if view[1:] == ("desktop", "light")]

MEGABYTE = 1e6
LIGHT = 1.5 * MEGABYTE
LOADED = "() => performance.getEntriesByType('resource').map(resource => resource.name)"
WIDTHS = """() => [...document.querySelectorAll('div.cell_input pre')].filter(p => p.checkVisibility())
    .map(p => p.scrollWidth - p.clientWidth)"""
WIDE_EQUATIONS = """() => [...document.querySelectorAll('div.math')]
    .filter(m => m.checkVisibility() && m.scrollWidth > m.clientWidth + 2).map(m => m.innerText.slice(0, 60))"""
OPEN = "() => document.querySelectorAll('details').forEach(d => { d.open = true })"

SERIOUS = ("serious", "critical")  # of the violations that axe-core finds

# Contrast takes most of its time, and the colours of an article are the same in both sizes: there, once is enough.
AXE_RUN = """async phone => {
    const run = async (context, rules) =>
        (await axe.run(context, {resultTypes: ['violations'], ...rules})).violations;
    if (!phone) return run(document, {});
    return [...await run(document, {rules: {'color-contrast': {enabled: false}}}),
        ...await run({exclude: ['.bd-article']}, {runOnly: ['color-contrast']})];
}"""

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

# What a slider's box shows: caption, alternative text and picture of what can be seen.
SHOWN = """box => [...box.querySelectorAll('img')].filter(i => i.checkVisibility() && i.getBoundingClientRect().width)
    .map(i => [i.previousElementSibling.textContent, i.alt, i.src])"""


class View(NamedTuple):
    """An open page, the errors that it made, and the other servers that it asked."""

    name: str
    size: str
    theme: str
    page: Page
    errors: list[str]
    abroad: list[str]


@pytest.fixture(scope="module")
def view(request, browser, address) -> Iterator[View]:
    """A page in one size and theme, opened once for all tests of it."""
    name, size, theme = request.param
    with opening(browser, address) as open_page:
        yield View(name, size, theme, *open_page(f"{name}.html", size, theme))


def of_views(views: list):
    return pytest.mark.parametrize("view", views, indirect=True, ids="-".join)


@of_views(VIEWS)
def test_page_is_whole(view):
    look = view.page.evaluate(LOOK)
    assert view.abroad == [], "it asks other servers"
    assert [error for error in view.errors if not KNOWN.search(error)] == []
    assert look["theme"] == view.theme
    assert look["wide"] <= 0, "it scrolls sideways"
    assert look["cut"] == [], "the left end of a formula cannot be reached"
    assert "Traceback (most recent call last)" not in look["text"]
    assert look["blank"] == []
    assert look["noalt"] == []
    assert look["raw"] == look["wrong"] == 0, "a formula is not typeset"


@of_views(AT_THE_DESK)
def test_a_page_is_light_and_loads_widgets_only_where_there_are_sliders(view, address, built_book):
    urls = [url for url in view.page.evaluate(LOADED) if url.startswith(address)]
    files = {built_book / url.removeprefix(address).split("?")[0].lstrip("/") for url in urls}
    pictures = {file for file in files if "_images" in file.parts}
    weight = sum(file.stat().st_size for file in {built_book / f"{view.name}.html", *pictures})
    assert weight < LIGHT, f"it weighs {weight / MEGABYTE:.2f} MB"
    assert len(pictures) >= 5 * (view.name in CHAPTERS)
    widgets = [file.name for file in files if "widgets" in file.parts]
    assert bool(widgets) == (view.name in CHAPTERS), f"it loads {widgets}"


@of_views([view for view in AT_THE_DESK if view[0] in CHAPTERS])
def test_chapter_opens_in_colab_at_its_tag(view):
    repository, tag = public_address(ROOT)
    owner_and_name = repository.removeprefix("https://github.com/")
    wanted = f"https://colab.research.google.com/github/{owner_and_name}/blob/{tag}/book/{view.name}.ipynb"
    links = view.page.eval_on_selector_all("a[href*='colab.research']", "links => links.map(l => l.href)")
    assert len(links) >= 2 and set(links) == {wanted}


@of_views(VIEWS)
def test_nothing_is_missing_for_readers_by_keyboard_or_by_ear(view):
    page = view.page
    if view.name in CHAPTERS:
        page.wait_for_selector(".ebmm-frames .noUi-handle[aria-label]")
    page.evaluate(AXE.read_text(encoding="utf8"))
    found = page.evaluate(AXE_RUN, view.size == "phone")
    serious = {v["id"]: [node["html"][:200] for node in v["nodes"]] for v in found if v["impact"] in SERIOUS}
    assert serious == {}


@of_views(VIEWS_OF_CHAPTERS)
def test_sliders_move_by_keyboard_without_a_kernel(view):
    page = view.page
    page.wait_for_selector(".ebmm-frames .noUi-handle")
    for box in page.query_selector_all(".ebmm-frames"):
        handles = box.query_selector_all(".noUi-handle")
        assert handles
        for handle in handles:
            captions, alts, pictures = [], [], []
            for key in ("Home", "ArrowRight", "End"):
                handle.press(key)
                page.wait_for_timeout(150)
                shown = box.evaluate(SHOWN)
                assert len(shown) == 1, "one picture at a time"
                assert handle.get_attribute("aria-valuetext") == shown[0][0], "what is heard is not what is seen"
                for seen, now in zip((captions, alts, pictures), shown[0], strict=True):
                    seen.append(now)
            for seen in (captions, alts, pictures):
                assert seen[0] != seen[1]
                assert seen[0] != seen[2]
            inside = handle.bounding_box()
            assert inside["x"] >= 0 and inside["x"] + inside["width"] <= SIZES[view.size]["width"]


@of_views([view for view in AT_THE_DESK if view[0] in CHAPTERS])
def test_code_fits_its_column(view):
    assert SIZES["desktop"]["width"] == 1280
    view.page.evaluate(OPEN)
    widths = view.page.evaluate(WIDTHS)
    assert len(widths) > 10
    assert max(widths) <= 0, "a line of code is wider than its column"


@of_views([view for view in AT_THE_DESK if view[0] in CHAPTERS])
def test_equations_fit_their_column(view):
    view.page.evaluate(OPEN)
    for _ in range(20):  # fonts come late on a busy machine, and others are wider
        if not (wide := view.page.evaluate(WIDE_EQUATIONS)):
            break
        view.page.wait_for_timeout(250)
    assert wide == []
    assert view.page.evaluate("MathJax.config.chtml.matchFontHeight") is False  # else their size is chance


def test_all_pages_are_looked_at(built_book):
    assert {path.stem for path in built_book.glob("*.html")} - {"index"} == set(PAGES)


def test_solutions_are_folded_and_open(open_page):
    page, _, _ = open_page(f"{CHAPTERS[0]}.html")
    folded = page.locator("details.hide", has_text="Solution")
    assert folded.count() >= 3
    first = folded.first
    assert not first.locator("pre").first.is_visible()
    first.locator("summary").click()
    assert first.locator("pre").first.is_visible()


@pytest.mark.parametrize(
    ("words", "page"),
    [("pseudo-inverse", "01_hopfield"), ("Langevin", "02_reading"), ("MemoryConv2d", "api"), ("wrong_bits", "api")],
)
def test_search_finds_terms_and_functions(words, page, open_page):
    found, _, _ = open_page(f"search.html?q={words}")
    found.wait_for_selector("#search-results li a", timeout=15_000)
    links = found.eval_on_selector_all("#search-results li a", "links => links.map(link => link.href)")
    assert [link for link in links if f"/{page}.html" in link]


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
