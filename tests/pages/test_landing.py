"""The landing page: the figure that one plays with, the map of chapters, and the pictures drawn for it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from conftest import BOOK, CHAPTERS, KNOWN, ROOT, SIZES, cells_of, opened
from make_figures import hero_data, stored_digits

import ebmm
from ebmm.book import plotting
from ebmm.experiments import EXPERIMENTS

HERO = BOOK / "_extra" / "_static" / "hero"

COUNTS = {"half a": 0.5, "a": 1, "one": 1, "two": 2, "two and a half": 2.5, "½": 0.5, "2½": 2.5}
SEVERAL = "|".join(sorted(COUNTS, key=len, reverse=True))

# The units of the large digit, as bits: ink is darker than paper in the light theme.
BITS = """canvas => {
    const context = canvas.getContext("2d"), cell = canvas.width / 28;
    return Array.from({length: 784}, (_, unit) => {
        const [x, y] = [unit % 28, Math.floor(unit / 28)].map(i => (i + 0.5) * cell);
        return context.getImageData(x, y, 1, 1).data[1] < 128 ? 1 : 0;
    });
}"""

# WCAG's contrast of two colours.
CONTRAST = """([first, second]) => {
    const context = document.createElement("canvas").getContext("2d");
    const light = colour => {
        context.fillStyle = colour;
        context.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const [dark, bright] = [light(first), light(second)].sort((a, b) => a - b);
    return bright / dark;
}"""


def in_browser(test):
    return pytest.mark.browser(pytest.mark.slow(test))


@pytest.fixture(scope="module")
def network():
    """The package's network with the ten digits, in the browser's precision."""
    model = ebmm.Hopfield((28, 28), rule="pseudo-inverse")
    return model, model.write(stored_digits().double()[None])


class Hero:
    """The figure on an open page, as a reader sees it."""

    def __init__(self, page):
        self.page = page
        self.button = page.get_by_role("button", name="Let it fall")
        self.slider = page.get_by_role("slider", name="Pixels flipped")

    def words(self) -> str:
        return self.page.locator(".hero-result").inner_text()

    def bits(self) -> torch.Tensor:
        bits = self.page.locator(".hero-digit").evaluate(BITS)
        return torch.tensor(bits, dtype=torch.float64).reshape(1, 1, 28, 28)

    def points(self) -> list[float]:
        """The heights of the drawn curve, from above."""
        return [float(point.split(",")[1]) for point in self.page.locator(".hero-line").get_attribute("points").split()]

    def energies(self) -> list[float]:
        """The energies in the words."""
        return [float(number.replace("\N{MINUS SIGN}", "-")) for number in re.findall(r"\S?\d+\.\d", self.words())]

    def wait_for_rest(self) -> None:
        self.page.wait_for_function("document.querySelector('.hero-result').textContent.includes('rest')")
        self.page.wait_for_timeout(600)  # the last flash fades


@pytest.fixture
def open_hero(open_page):
    """Opens the landing page, without motion if not told otherwise; no script may fail on it."""
    opened = []

    def open_hero(size: str = "desktop", theme: str = "light", motion: str = "reduce") -> Hero:
        page, errors, abroad = open_page("intro.html", size, theme, reduced_motion=motion)
        opened.append((errors, abroad))
        return Hero(page)

    yield open_hero
    for errors, abroad in opened:
        assert [error for error in errors if not KNOWN.search(error)] == []
        assert abroad == []


# What is drawn and kept


def test_the_kept_digits_are_those_of_the_package():
    assert (HERO / "hero-data.js").read_text(encoding="utf8") == hero_data(stored_digits())


def test_pictures_are_drawn_by_their_command(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "make_figures.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    for name in ("hero.png", "preview.png"):
        drawn, kept = (opened(folder / "_static" / name) for folder in (tmp_path, BOOK))
        assert drawn.size == kept.size
        dark = [sum(pixel < 128 for pixel in image.convert("L").tobytes()) for image in (drawn, kept)]
        assert 0.95 < dark[0] / dark[1] < 1.05


def test_the_picture_of_shared_links_has_their_size():
    path = BOOK / "_static" / "preview.png"
    assert opened(path).size == (1200, 630)
    assert path.stat().st_size < 200_000


def test_the_colours_are_those_of_the_book():
    style = (HERO / "hero.css").read_text(encoding="utf8")
    light = dict(re.findall(r"--hero-(\w+): (#\w+);", style.split('html[data-theme="dark"]')[0]))
    roles = ("stored", "query", "recalled", "energy")
    assert light == {
        **{role: plotting.COLOURS[role] for role in roles},
        "wrong": plotting.WRONG,
        "paper": plotting.BACKGROUND,
        "ink": plotting.INK,
    }


# The map


def minutes(text: str) -> float:
    count, unit = re.search(rf"\b({SEVERAL}|\d+) (min|hour)", text).groups()
    return float(COUNTS.get(count, 0) or count) * (60 if unit == "hour" else 1)


def head(chapter: str) -> str:
    """The box at the head of a chapter, on one line."""
    cells = cells_of(BOOK / f"{chapter}.ipynb")
    text = "\n".join("".join(cell["source"]) for cell in cells[:4] if cell["cell_type"] == "markdown")
    return " ".join(line.removeprefix(">").strip() for line in text.splitlines() if line.startswith(">"))


def stations() -> dict[str, tuple[str, str]]:
    """For each chapter in the map: its title there, and the line with its needs and times."""
    text = (BOOK / "intro.md").read_text(encoding="utf8").split(":::{container} path")[1].split(":::")[0]
    found = re.findall(r"^\d\. \[(.+)\]\((.+)\.ipynb\)\n\n.+\n\n +(.+)$", text, re.M)
    return {chapter: (title, line) for title, chapter, line in found}


def test_the_map_shows_all_chapters_in_order():
    assert list(stations()) == CHAPTERS


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_map_says_what_the_heads_of_chapters_say(chapter):
    title, line = stations()[chapter]
    first_cell = cells_of(BOOK / f"{chapter}.ipynb")[0]
    assert "".join(first_cell["source"]).strip() == f"# {title}"
    needs, times = re.search(r"\*\*You need\*\*(.+)\*\*Time\*\*(.+)", head(chapter)).groups()
    to_read, to_run = times.split("The notebook runs")
    needs_here, to_read_here, to_run_here = line.split("\N{MIDDLE DOT}")
    wanted = re.findall(r"\[chapter (\d)\]\((\w+)\.ipynb\)", needs)
    assert sorted(re.findall(r"\[(\d)\]\((\w+)\.ipynb\)", needs_here)) == sorted(wanted)
    assert minutes(to_read_here) == minutes(to_read)
    assert minutes(to_run_here) == minutes(to_run)


def test_as_many_memories_are_compared_as_it_says():
    models = {model.removesuffix("-clamped") for model in EXPERIMENTS["redrawn-64-32"].contestants}
    assert len(models) == 15 and "[Up to fifteen memories" in (BOOK / "intro.md").read_text(encoding="utf8")


# The figure in the browser


@in_browser
def test_the_network_of_the_page_is_the_network_of_the_package(open_hero, network):
    model, memory = network
    page = open_hero().page
    digits = stored_digits().double()
    draw = torch.Generator().manual_seed(0)
    noisy = [
        torch.where(torch.rand(digits[n].shape, generator=draw) < share, 1 - digits[n], digits[n])
        for n, share in ((0, 0.1), (1, 0.3), (2, 0.45), (3, 0.5), (4, 0.5))
    ]
    halves = [torch.cat([digits[6][:14], digits[9][14:]]), torch.zeros(28, 28, dtype=torch.float64), digits[7]]
    for seed, query in enumerate([*noisy, *halves]):
        states = list(model.updates(query[None, None], memory, generator=torch.Generator().manual_seed(seed)))
        again = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(784, generator=again).tolist() for _ in range(20)]
        signs = (2 * torch.cat([digits, query[None]]).flatten(1) - 1).tolist()
        ours = page.evaluate(
            """([patterns, query, orders]) => {
                const network = new Hopfield(784);
                patterns.forEach(pattern => network.write(pattern));
                const { energies, state } = network.fall(query, () => orders.shift());
                return { energies, state: [...state], start: network.energy(query), end: network.energy(state) };
            }""",
            [signs[:-1], signs[-1], orders],
        )
        energies = model.energy(torch.cat(states, dim=1), memory)[0].tolist()
        assert ours["energies"] == pytest.approx(energies, abs=1e-9)
        assert [ours["start"], ours["end"]] == pytest.approx([energies[0], energies[-1]], abs=1e-9)
        assert ours["state"] == (2 * states[-1].flatten() - 1).tolist()


@in_browser
def test_the_network_of_the_page_keeps_units_without_a_field(open_hero):
    patterns = torch.tensor([[1.0, 1, 1, 1, -1, -1], [1, -1, 1, -1, 1, -1], [1, 1, 1, 1, -1, -1]]).double()
    queries = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 6)
    model = ebmm.Hopfield(6, rule="pseudo-inverse", values="signs")
    memory = model.write(patterns[None])
    fields = queries @ model.weights(memory)[0]
    assert (fields.abs() < 1e-12).any()
    ours = open_hero().page.evaluate(
        """([patterns, queries]) => {
            const network = new Hopfield(6);
            patterns.forEach(pattern => network.write(pattern));
            return queries.map(query => [...network.fall(query, () => [0, 1, 2, 3, 4, 5]).state]);
        }""",
        [patterns.tolist(), queries.tolist()],
    )
    assert ours == model.read(queries[None], memory)[0].tolist()


@in_browser
@pytest.mark.parametrize("size", SIZES)
def test_a_damaged_digit_falls_back(size, open_hero, network):
    model, memory = network
    hero = open_hero(size, motion="no-preference")
    hero.page.get_by_role("radio", name="5", exact=True).check()
    hero.slider.fill("30")
    digit, query = stored_digits()[5].double(), hero.bits()
    assert int((query != digit).sum()) == round(0.3 * 784)
    assert "the 5 with 235 of its 784 pixels wrong" in hero.words().lower()
    hero.button.click()
    hero.wait_for_rest()
    assert torch.equal(hero.bits()[0, 0], digit)
    assert "came to rest in the stored 5." in hero.words()
    ends = model.energy(torch.cat([query, digit[None, None]], dim=1), memory)[0].tolist()
    assert hero.energies() == pytest.approx(ends, abs=0.051)
    points = hero.points()
    assert f"in {len(points) - 1} changes" in hero.words()
    assert all(lower > higher for higher, lower in zip(points, points[1:], strict=False)), "the drawn energy rises"


@in_browser
def test_a_fall_takes_the_same_time_however_many_units_change(open_hero):
    hero = open_hero(motion="no-preference")
    for damage in ("2", "45"):
        hero.slider.fill(damage)
        hero.button.click()
        hero.page.wait_for_timeout(1500)
        assert "rest" not in hero.words()
        hero.page.wait_for_timeout(1500)
        assert "rest" in hero.words()


@in_browser
def test_where_it_rests_is_told_truly_right_or_wrong(open_hero, network):
    model, memory = network
    digits = stored_digits().double()
    hero = open_hero()
    told = []
    for digit in ("1", "3", "8"):
        hero.page.get_by_role("radio", name=digit, exact=True).check()
        hero.slider.fill("50")
        for _ in range(6):
            hero.button.click()
            state, words = hero.bits(), hero.words()
            assert torch.equal(model.read(state, memory), state), "it is not at rest"
            assert hero.energies()[-1] == pytest.approx(model.energy(state, memory).item(), abs=0.051)
            distances = (state[0, 0] != digits).flatten(1).sum(1)
            if stored := re.search(r"in the stored (\d)", words):
                assert distances[int(stored[1])] == 0
                told.append("stored" if stored[1] == digit else "another")
                assert ("though it began as" in words) == (stored[1] != digit)
            elif inverse := re.search(r"in the inverse of the (\d)", words):
                assert distances[int(inverse[1])] == 784
                told.append("inverse")
            else:
                nearest = re.search(r"valley that nobody wrote. The nearest digit, the (\d), is (\d+) pixels", words)
                assert distances[int(nearest[1])] == distances.min() == int(nearest[2])
                told.append("spurious")
    assert {"another", "inverse", "spurious"} <= set(told)


@in_browser
def test_buttons_erase_and_mix(open_hero):
    digits = stored_digits().double()
    hero = open_hero()
    hero.page.get_by_role("button", name="Erase lower half").click()
    erased = hero.bits()[0, 0]
    assert torch.equal(erased[:14], digits[3][:14]) and not erased[14:].any()
    assert "The 3 without its lower half" in hero.words()
    hero.button.click()
    assert "came to rest in the stored 3." in hero.words()
    hero.page.get_by_role("button", name="Mix with another").click()
    other = int(re.search(r"A mixture of the 3 and the (\d)", hero.words())[1])
    mixed, same = hero.bits()[0, 0], digits[3] == digits[other]
    assert other != 3
    assert torch.equal(mixed[same], digits[3][same])
    assert 0 < (mixed != digits[3]).sum() < (~same).sum()


@in_browser
def test_the_mouse_paints_and_the_painting_falls(open_hero):
    hero = open_hero()
    hero.slider.fill("0")
    box = hero.page.locator(".hero-digit").bounding_box()
    before = hero.bits()
    hero.page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.1 * box["height"])
    hero.page.mouse.down()
    hero.page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.1 * box["height"], steps=3)
    hero.page.mouse.up()
    painted = hero.bits()
    hero.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, button="right")
    assert torch.equal(hero.bits(), painted), "the right button paints"
    changed = int((painted != before).sum())
    assert changed >= 44 and (painted - before).min() == 0  # two rows of ink, no gaps
    assert f"The 3 with {changed} of its 784 pixels wrong" in hero.words()
    hero.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    assert torch.equal(hero.bits(), painted), "it paints without a button pressed"
    hero.button.click()
    assert torch.equal(hero.bits(), before)


@in_browser
def test_a_finger_paints_and_does_not_scroll(open_hero):
    hero = open_hero("phone")
    page = hero.page
    page.locator(".hero-digit").scroll_into_view_if_needed()
    before, place = hero.bits(), page.evaluate("scrollY")
    box = page.locator(".hero-digit").bounding_box()
    x, y = box["x"] + box["width"] / 8, box["y"] + 0.9 * box["height"]
    finger = page.context.new_cdp_session(page)
    finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 11):
        point = {"x": x, "y": y - 0.08 * step * box["height"]}
        finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_timeout(300)
    assert int((hero.bits() != before).sum()) > 20
    assert page.evaluate("scrollY") == place


@in_browser
@pytest.mark.parametrize("size", SIZES)
def test_everything_is_done_by_keyboard_alone(size, open_hero):
    hero = open_hero(size)
    page, press = hero.page, hero.page.keyboard.press
    focused = "() => document.activeElement.closest('.hero') && (document.activeElement.value || 'button')"
    for _ in range(80):
        press("Tab")
        if page.evaluate(focused):
            break
    assert page.evaluate(focused) == "3", "the digits are not the first to be reached"
    said = [hero.words()]
    for keys in (["ArrowRight"], ["Tab", "ArrowLeft"], ["Home"], ["Tab", "Enter"], ["Tab", "Space"], ["Tab", "Enter"]):
        for key in keys:
            press(key)
        said.append(hero.words())
    assert len(set(said)) == len(said), "a key did nothing"
    assert [re.match("It came to rest|A mixture|The 4 (with|as)(out)?", words)[0] for words in said[1:]] == [
        "The 4 with",
        "The 4 with",
        "The 4 as",
        "The 4 without",
        "A mixture",
        "It came to rest",
    ]


@in_browser
def test_pictures_and_words_tell_what_is_seen(open_hero):
    hero = open_hero()
    page = hero.page
    assert page.locator(".hero-result").get_attribute("aria-live") == "polite"
    seen = [[page.locator(part).get_attribute("aria-label") for part in (".hero-digit", ".hero-curve")]]
    hero.button.click()
    seen.append([page.locator(part).get_attribute("aria-label") for part in (".hero-digit", ".hero-curve")])
    assert seen[0][0] == "The 3 with 235 of its 784 pixels wrong."
    assert seen[1][0] == "At rest in the stored 3."
    for (_, plotted), number in zip(seen, (hero.energies()[0], hero.energies()[-1]), strict=True):
        assert f"{number:.1f}".replace("-", "\N{MINUS SIGN}") in plotted


@in_browser
def test_it_falls_once_by_itself_but_not_for_readers_who_want_no_motion(open_hero):
    moving, still = open_hero(motion="no-preference"), open_hero(motion="reduce")
    moving.wait_for_rest()
    moving.page.wait_for_timeout(4000)
    assert moving.page.locator(".hero-earlier polyline").count() == 0, "it fell twice"
    assert "rest" not in still.words()
    still.button.click()
    assert "came to rest in the stored 3." in still.words()


@in_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_of_what_is_drawn(theme, open_hero):
    page = open_hero(theme=theme).page
    for end in ("", "right", "wrong"):
        page.locator(".hero").evaluate("(hero, end) => { hero.dataset.end = end }", end)
        ground = page.locator(".hero").evaluate("hero => getComputedStyle(hero).backgroundColor")
        for part, kind, least in (
            (".hero-ticks text", "fill", 4.5),
            (".hero-floor-name", "fill", 4.5),
            (".hero-now", "fill", 4.5),
            (".hero-line", "stroke", 3),
            (".hero-ball", "fill", 3),
            (".hero-digit", "borderTopColor", 3),
        ):
            colour = page.locator(part).first.evaluate("(part, kind) => getComputedStyle(part)[kind]", kind)
            assert page.evaluate(CONTRAST, [colour, ground]) >= least, (part, end)


@in_browser
def test_a_change_of_theme_redraws_the_digit(open_hero):
    hero = open_hero()
    by_day = hero.bits()
    hero.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    hero.page.wait_for_timeout(100)
    assert torch.equal(hero.bits(), 1 - by_day)  # now the ink is the lighter one


@in_browser
@pytest.mark.parametrize("size", SIZES)
def test_without_javascript_a_picture_is_shown(size, open_page):
    page, _, _ = open_page("intro.html", size, java_script_enabled=False)
    picture = page.locator("noscript img, img[src*='hero.png']").first
    assert picture.is_visible()
    assert len(picture.get_attribute("alt")) > 100
    box = picture.bounding_box()
    assert 0.36 < box["height"] / box["width"] < 0.39
    assert not page.locator(".hero").is_visible()


@in_browser
def test_it_works_from_a_file(browser, built_book):
    page = browser.new_page(reduced_motion="reduce")
    page.goto((built_book / "intro.html").as_uri())
    page.get_by_role("button", name="Let it fall").click()
    assert "came to rest in the stored 3." in page.locator(".hero-result").inner_text()
    page.close()


@in_browser
def test_the_landing_page_is_light(open_page, address):
    loaded: dict[str, dict[str, int]] = {"notation.html": {}, "intro.html": {}}
    for name, sizes in loaded.items():
        page, _, _ = open_page("search.html")

        def weigh(response, sizes=sizes) -> None:
            sizes[response.url] = int(response.headers["content-length"])

        page.on("response", weigh)
        page.goto(f"{address}/{name}", wait_until="networkidle")
    own = {url: size for url, size in loaded["intro.html"].items() if url not in loaded["notation.html"]}
    assert {f"{address}/intro.html", f"{address}/_static/hero/hero.js"} <= own.keys()
    assert sum(own.values()) < 400_000, own
