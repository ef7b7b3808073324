import io
import re
import sys

import ipywidgets
import matplotlib
import numpy as np
import pytest
import torch
from ipywidgets.embed import embed_data
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from ebmm.book.plotting import COLOURS, landscape, use_style
from ebmm.book.widgets import _picture, frames, grid
from ebmm.datasets import photos

LOADS = [0.05, 0.14, 0.25]
ALTS = ["few patterns, no error", "errors <begin>", 'most bits "wrong"']


@pytest.fixture(params=["browser", "python"])
def linked_by(request, monkeypatch):
    """Both ways of linking: ipywidgets 8 has ``Stack``, the ipywidgets 7 of Colab has not."""
    if request.param == "python":
        monkeypatch.delattr(ipywidgets, "Stack")
    return request.param


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        use_style()
        yield
    plt.close("all")


def draw(slope):
    figure, ax = plt.subplots()
    ax.plot([0, 1], [0, slope], color=COLOURS["recalled"])
    return figure


def sliders(widget):
    return [child for child in widget.children if isinstance(child, ipywidgets.IntSlider)]


def visible(widget):
    """The HTML shown now, following what the browser would do with a Stack."""
    if isinstance(widget, ipywidgets.HTML):
        return widget.value
    stack = getattr(ipywidgets, "Stack", ())
    place = widget.selected_index if stack and isinstance(widget, stack) else -1
    return visible(widget.children[place])


def linked(slider, stack):
    """Whether the page's state, all that lives without a kernel, links the slider to the stack."""
    state = embed_data(views=None)["manager_state"]["state"]
    links = [model["state"] for model in state.values() if model["model_name"] == "LinkModel"]
    ends = [[f"IPY_MODEL_{slider.model_id}", "value"], [f"IPY_MODEL_{stack.model_id}", "selected_index"]]
    return ends in [[list(link["source"]), list(link["target"])] for link in links]


def test_every_frame_is_a_picture_with_its_alt_text_and_value(linked_by):
    widget = frames([draw(load) for load in LOADS], LOADS, label="load", alts=ALTS, start=1)
    html = visible(widget)
    assert "load 0.14" in html
    assert 'alt="errors &lt;begin&gt;"' in html
    assert "max-width: 100%" in html
    width, height = map(int, re.search(r'width="(\d+)" height="(\d+)"', html).groups())
    assert (width, height) == (660, 385)
    (slider,) = sliders(widget)
    assert (slider.description, slider.min, slider.max, slider.value) == ("load", 0, 2, 1)


def test_browser_links_the_slider_without_a_kernel():
    widget = frames([draw(load) for load in LOADS], LOADS, label="load", alts=ALTS)
    (slider,), stack = sliders(widget), widget.children[-1]
    assert linked(slider, stack)
    assert len(stack.children) == 3


def test_python_moves_the_frame_where_there_is_no_stack(monkeypatch):
    monkeypatch.delattr(ipywidgets, "Stack")
    widget = frames([draw(load) for load in LOADS], LOADS, label="load", alts=ALTS)
    assert "few patterns" in visible(widget)
    sliders(widget)[0].value = 2
    assert "most bits &quot;wrong&quot;" in visible(widget)
    sliders(widget)[0].value = 0
    assert "few patterns" in visible(widget)


def make_grid(**options):
    table = ((draw(rate * step) for step in (0, 1, 2)) for rate in (0.1, 0.2))
    alts = [[f"{rate} at {step}" for step in (0, 1, 2)] for rate in (0.1, 0.2)]
    return grid(table, ((0.1, 0.2), (0, 1, 2)), labels=("rate", "step"), alts=alts, **options)


def test_grid_links_the_first_slider_to_rows_and_the_second_to_every_row():
    widget = make_grid(start=(1, 2))
    (rate, step), rows = sliders(widget), widget.children[-1]
    assert linked(rate, rows) and not linked(step, rows)
    assert all(linked(step, row) for row in rows.children) and len(rows.children) == 2
    assert "rate 0.2, step 2" in visible(widget)


def test_grid_moves_in_python(monkeypatch):
    monkeypatch.delattr(ipywidgets, "Stack")
    widget = make_grid()
    rate, step = sliders(widget)
    seen = []
    for rate.value, step.value in ((0, 0), (1, 0), (1, 2), (0, 2)):
        seen.append(re.search(r'alt="([^"]*)"', visible(widget)).group(1))
    assert seen == ["0.1 at 0", "0.2 at 0", "0.2 at 2", "0.1 at 2"]


def test_figures_are_closed_and_a_generator_keeps_one_open():
    open_at_once = []

    def drawn():
        for load in LOADS:
            figure = draw(load)
            open_at_once.append(len(plt.get_fignums()))
            yield figure

    frames(drawn(), LOADS, label="load", alts=ALTS)
    assert open_at_once == [1, 1, 1]
    assert plt.get_fignums() == []


def drawing():
    return draw(1.0)


def energies():
    points = torch.tensor([[0.2, 0.2], [0.7, 0.6]])
    return landscape(lambda x: x.norm(dim=-1), stored=points).figure


def photographs():
    images = photos().images[:9].numpy().transpose(0, 2, 3, 1)[:, :30, :30].reshape(3, 3, 30, 30, 3)
    figure = plt.figure(figsize=(1, 1), dpi=110, layout="none")
    figure.figimage(np.pad(images.transpose(0, 2, 1, 3, 4).reshape(90, 90, 3), ((10, 10), (10, 10), (0, 0))))
    return figure


@pytest.mark.parametrize(("drawn", "share"), [(drawing, 0.5), (energies, 0.5), (photographs, 0.7)])
def test_a_frame_keeps_every_pixel_and_is_lighter(drawn, share):
    buffer = io.BytesIO()
    drawn().savefig(buffer, format="png")
    picture = _picture(buffer.getvalue())
    shown = Image.open(io.BytesIO(picture.webp))
    assert np.array_equal(np.asarray(shown), np.asarray(Image.open(buffer).convert("RGB")))
    assert len(picture.webp) < min(30_000, share * len(buffer.getvalue()))


def test_png_bytes_are_taken_as_they_are():
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(buffer, format="png")
    widget = frames([buffer.getvalue()], ["only"], label="choice", alts=["a red box"])
    assert 'width="40" height="20"' in visible(widget)
    assert "choice only" in visible(widget)


@pytest.mark.parametrize(
    ("count", "values", "alts", "start", "message"),
    [
        (2, LOADS, ALTS, 0, "2 figures, 3 values and 3 alternative texts"),
        (3, LOADS, ALTS[:2], 0, "3 figures, 3 values and 2 alternative texts"),
        (3, LOADS[:2], ALTS, 0, "3 figures, 2 values and 3 alternative texts"),
        (0, [], [], 0, "0 figures"),
        (3, LOADS, ["a", " ", "c"], 0, "'load 0.14' has an empty alternative text"),
        (3, LOADS, "abc", 0, "one string: 'abc'"),
        (3, LOADS, ALTS, 3, "from 0 to 2, got 3"),
    ],
)
def test_frames_says_what_does_not_fit(count, values, alts, start, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        frames([draw(1.0) for _ in range(count)], values, label="load", alts=alts, start=start)


def test_grid_says_what_does_not_fit():
    with pytest.raises(ValueError, match="1 rows of figures, 2 values and 1 rows of alts"):
        grid([[draw(1.0)]], ([1, 2], [1]), labels=("a", "b"), alts=[["x"]])
    with pytest.raises(ValueError, match="2 figures, 1 values and 1 alternative texts"):
        grid([[draw(1.0), draw(2.0)]], ([1], [1]), labels=("a", "b"), alts=[["x"]])
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        make_grid(start=(2, 0))


def test_missing_ipywidgets_is_said_plainly(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match="pip install ipywidgets"):
        frames([draw(1.0)], [1], label="load", alts=["a line"])
