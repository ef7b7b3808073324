import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from ebmm.book import plotting
from ebmm.book.plotting import (
    COLOURS,
    contest_panels,
    contest_table,
    distortion_rate,
    energy_curve,
    error_curve,
    landscape,
    landscapes,
    show_patterns,
    use_style,
)
from ebmm.book.plotting.style import WRONG

# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB.
COLOUR_BLIND = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


@pytest.fixture(autouse=True)
def style(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *args: pytest.fail("a figure function called plt.show()"))
    with matplotlib.rc_context():
        use_style()
        yield
    plt.close("all")


def linear(colour):
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(linear_rgb):
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear_rgb
    x, y, z = np.cbrt(xyz.clip(0) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def pixels(figure):
    """The drawn figure as grey values, (height, width), 0 black and 1 white."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].mean(axis=-1) / 255


def colours_in(figure):
    figure.canvas.draw()
    return {tuple(colour) for colour in np.asarray(figure.canvas.buffer_rgba())[..., :3].reshape(-1, 3)}


def rgb255(colour):
    return tuple(round(255 * value) for value in to_rgb(colour))


def test_colours_stand_out_from_the_background():
    paper = linear(plotting.BACKGROUND) @ [0.2126, 0.7152, 0.0722]
    for name, colour in COLOURS.items():
        ink = linear(colour) @ [0.2126, 0.7152, 0.0722]
        assert (paper + 0.05) / (ink + 0.05) >= 3, name


@pytest.mark.parametrize(
    "group",
    [("stored", "query", "recalled", "unseen"), ("hebb", "storkey", "pseudo-inverse", "ebmm", "slot-memory")],
)
@pytest.mark.parametrize("sight", ["full", *COLOUR_BLIND])
def test_colours_of_a_group_differ_for_colour_blind_readers(group, sight):
    matrix = np.array(COLOUR_BLIND.get(sight, np.eye(3)))
    for one, other in itertools.combinations(group, 2):
        distance = np.linalg.norm(lab(matrix @ linear(COLOURS[one])) - lab(matrix @ linear(COLOURS[other])))
        assert distance > 20, (one, other, distance)


def test_style_is_light_opaque_and_large_enough():
    figure, ax = plt.subplots()
    ax.set(xlabel="step", title="A title")
    assert figure.get_facecolor() == (1, 1, 1, 1)
    assert figure.get_size_inches()[0] * figure.dpi <= 700
    assert not ax.spines["top"].get_visible() and not ax.spines["right"].get_visible()
    texts = [ax.title, ax.xaxis.label, *ax.get_xticklabels()]
    assert min(text.get_fontsize() for text in texts) >= 9


def test_importing_plotting_and_widgets_loads_no_plotting_library():
    heavy = {"matplotlib", "seaborn", "ipywidgets", "PIL"}
    code = f"import ebmm.book.plotting, ebmm.book.widgets, sys; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def picture_pixels(figure, column=0, row=0):
    """The grey values inside one picture of ``show_patterns``."""
    (left, right, bottom, top) = figure.axes[0].images[column + row].get_extent()
    (x0, y0), (x1, y1) = figure.axes[0].transData.transform([(left, bottom), (right, top)])
    grey = pixels(figure)
    rows = slice(round(len(grey) - y1) + 3, round(len(grey) - y0) - 3)
    return grey[rows, round(x0) + 3 : round(x1) - 3]


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_one_is_ink_and_the_first_value_is_at_the_top_left(low):
    bits = torch.full((1, 4), low)
    bits[0, 0] = 1.0
    grey = picture_pixels(show_patterns({"stored": bits}))
    height, width = grey.shape
    corners = [
        grey[: height // 3, : width // 3],
        grey[: height // 3, -width // 3 :],
        grey[-height // 3 :, : width // 3],
    ]
    assert [round(corner.mean()) for corner in corners] == [0, 1, 1]


def test_rows_are_labelled_from_top_to_bottom():
    figure = show_patterns({"dark": torch.ones(2, 9), "light": torch.zeros(2, 9)}, titles=["first", "second"])
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dark", "light"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["first", "second"]
    heights = [ax.transData.transform((0, tick))[1] for tick in ax.get_yticks()]
    assert heights[0] > heights[1]
    assert picture_pixels(figure).mean() < 0.3
    assert picture_pixels(figure, row=2).mean() > 0.9


def test_labels_and_pictures_lie_inside_the_figure():
    rows = {"recalled, clamped dynamics": torch.rand(10, 28, 28), "stored": torch.rand(10, 28, 28)}
    figure = show_patterns(rows, titles=list("0123456789"))
    figure.canvas.draw()
    box, outer = figure.axes[0].get_tightbbox(), figure.bbox
    assert figure.get_size_inches()[0] <= 6.0
    assert box.x0 >= 0 and box.y0 >= -1 and box.x1 <= outer.x1 + 1 and box.y1 <= outer.y1 + 1


@pytest.mark.parametrize(
    ("size", "options", "shown"),
    [
        ((64,), {}, (8, 8)),
        ((128,), {}, (8, 16)),
        ((127,), {}, (1, 127)),
        ((64,), {"shape": "barcode"}, (1, 64)),
        ((64,), {"shape": (4, 16)}, (4, 16)),
        ((28, 20), {}, (28, 20)),
        ((1, 28, 20), {}, (28, 20)),
        ((3, 8, 6), {}, (8, 6)),
    ],
)
def test_layout_of_patterns(size, options, shown):
    figure = show_patterns({"row": torch.rand(3, *size)}, **options)
    images = figure.axes[0].images
    assert len(images) == 3
    assert images[0].get_array().shape == (*shown, 3)


def test_wrong_bits_are_red_and_right_ones_are_not():
    stored = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    recalled = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    missing, surplus, ink, paper = (
        show_patterns({"row": recalled}, reference=stored).axes[0].images[0].get_array().reshape(4, 3)
    )
    wrong = np.array(to_rgb(WRONG))
    assert np.allclose(surplus, wrong)
    assert np.allclose(missing, 0.6 + 0.4 * wrong)
    assert np.allclose(ink, to_rgb(plotting.INK)) and np.allclose(paper, 1)
    without = show_patterns({"row": recalled}).axes[0].images[0].get_array().reshape(4, 3)
    assert np.allclose(without[1], to_rgb(plotting.INK))


def test_show_patterns_says_what_does_not_fit():
    with pytest.raises(ValueError, match="at least one row"):
        show_patterns({})
    with pytest.raises(ValueError, match=r"'stored' has patterns of 10 values: they do not fill the shape \(3, 3\)"):
        show_patterns({"stored": torch.rand(2, 10)}, shape=(3, 3))
    with pytest.raises(ValueError, match=r"'stored' must hold patterns .* got shape \(4,\)"):
        show_patterns({"stored": torch.rand(4)})
    with pytest.raises(ValueError, match=r"'stored' must hold vectors .* got shape \(2, 5, 4, 4\)"):
        show_patterns({"stored": torch.rand(2, 5, 4, 4)})
    with pytest.raises(ValueError, match=r"reference pictures \(3, 3\) but 'stored' \(2, 2\)"):
        show_patterns({"stored": torch.rand(2, 4)}, reference=torch.rand(2, 9))


VALLEY = torch.tensor([0.2, 0.7])


def bowl(x):
    return (x - VALLEY).square().sum(-1)


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("given_as", ["function", "grid"])
def test_the_valley_is_dark_and_where_it_belongs(scale, given_as):
    energy = bowl
    if given_as == "grid":
        axis = torch.linspace(0, 1, 41)
        energy = torch.stack([bowl(torch.stack([axis, torch.full_like(axis, up)], -1)) for up in axis])
    ax = landscape(energy, scale=scale, colourbar=False)
    grey = pixels(ax.figure)
    inside = ax.get_window_extent()
    rows = slice(int(len(grey) - inside.y1) + 2, int(len(grey) - inside.y0) - 2)
    grey = grey[rows, int(inside.x0) + 2 : int(inside.x1) - 2]
    up, across = np.argwhere(grey <= grey.min() + 1e-6).mean(axis=0) / grey.shape
    assert across == pytest.approx(0.2, abs=0.06)
    assert 1 - up == pytest.approx(0.7, abs=0.06)


def test_log_levels_crowd_at_the_bottom_and_cover_every_energy():
    levels = landscapes._levels(-3.0, 5.0, 12, "log")
    assert levels[0] == -3 and levels[-1] == pytest.approx(5)
    steps = np.diff(levels)[1:]
    assert (steps[1:] > steps[:-1]).all()
    linear_levels = landscapes._levels(-3.0, 5.0, 12, "linear")
    assert linear_levels[0] <= -3 and linear_levels[-1] >= 5


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_flat_energy_can_be_drawn(scale):
    landscape(lambda x: torch.full((len(x),), 1e4), scale=scale).figure.canvas.draw()


def test_trajectories_run_from_the_query_to_what_was_recalled():
    path = [torch.tensor([[0.9, 0.1], [0.8, 0.9]])]
    for _ in range(5):
        path.append(path[-1] - 0.3 * (path[-1] - VALLEY))
    trajectories = torch.stack(path)
    ax = landscape(bowl, stored=VALLEY[None], trajectories=trajectories)
    marks = {marks.get_label(): marks.get_offsets().data for marks in ax.collections}
    assert np.allclose(marks["stored"], VALLEY)
    assert np.allclose(marks["query"], trajectories[0])
    assert np.allclose(marks["recalled"], trajectories[-1])
    assert np.allclose(ax.lines[1].get_xydata(), trajectories[:, 1])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["stored", "query", "recalled"]
    drawn = colours_in(ax.figure)
    assert all(rgb255(COLOURS[name]) in drawn for name in ("stored", "query", "recalled"))


def test_an_arrow_head_points_along_the_path():
    path = torch.tensor([[[0.1, 0.5]], [[0.3, 0.5]], [[0.9, 0.5]]])
    ax = landscape(bowl, trajectories=path)
    single = [marks for marks in ax.collections if marks.get_offsets().shape == (1, 2)]
    (head,) = (marks for marks in single if np.allclose(marks.get_offsets(), [[0.6, 0.5]]))
    corners = head.get_transforms()[0][:2, :2] @ head.get_paths()[0].vertices[:3].T
    tip = corners[:, corners[0].argmax()]
    assert tip[0] > 0 and abs(tip[1]) < 1e-3 * tip[0]


def test_a_path_that_does_not_move_has_no_arrow_head():
    ax = landscape(bowl, trajectories=torch.full((4, 1, 2), 0.5))
    drawn = [marks.get_label() for marks in ax.collections if isinstance(marks, PathCollection)]
    assert drawn == ["query", "recalled"]
    ax.figure.canvas.draw()


def test_given_levels_serve_several_maps():
    figure, axes = plt.subplots(1, 2)
    levels = [0.0, 0.2, 0.4, 0.8]
    for factor, ax in zip((1, 3), axes, strict=True):
        landscape(lambda x, factor=factor: factor * bowl(x), ax=ax, levels=levels, colourbar=False)
        filled = ax.collections[0]
        assert list(filled.levels) == levels
    first, second = (ax.collections[0] for ax in axes)
    assert np.allclose(first.to_rgba([0.1, 0.3, 0.7]), second.to_rgba([0.1, 0.3, 0.7]))
    assert figure.axes == list(axes)


def test_landscape_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"to shape \(10201,\), got \(10201, 2\)"):
        landscape(lambda x: x)
    with pytest.raises(ValueError, match=r"shape \(R, R\), got \(5,\)"):
        landscape(torch.zeros(5))
    with pytest.raises(ValueError, match="finite"):
        landscape(lambda x: x[:, 0].log())
    with pytest.raises(ValueError, match=r"trajectories must have shape \(K\+1, Q, 2\), got \(4, 2\)"):
        landscape(bowl, trajectories=torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"stored must have shape \(M, 2\), got \(2,\)"):
        landscape(bowl, stored=VALLEY)


def test_error_curve_draws_the_line_the_band_and_the_marker_of_the_rule():
    _, ax = plt.subplots()
    error_curve(ax, [16, 32], [1.0, 5.0], [0.5, 3.0], [2.0, 8.0], label="Storkey", colour="storkey")
    (line,), (band,) = ax.lines, ax.collections
    assert line.get_color() == COLOURS["storkey"] and line.get_marker() == plotting.MARKERS["storkey"]
    assert line.get_label() == "Storkey" and line.get_ydata().tolist() == [1, 5]
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert {(16, 0.5), (16, 2.0), (32, 3.0), (32, 8.0)} <= corners
    with pytest.raises(ValueError, match="both low and high"):
        error_curve(ax, [1], [1], [1], label="half a band")


def test_energy_curve_shows_each_query_and_their_mean():
    _, ax = plt.subplots()
    energies = torch.tensor([[4.0, 2.0], [1.0, 1.0], [0.5, 0.0]], requires_grad=True)
    energy_curve(ax, energies, label="mean")
    assert len(ax.lines) == 3
    assert ax.lines[-1].get_ydata().tolist() == [3.0, 1.0, 0.25]
    assert ax.lines[-1].get_linewidth() > ax.lines[0].get_linewidth()
    with pytest.raises(ValueError, match=r"got \(1, 1, 1\)"):
        energy_curve(ax, torch.zeros(1, 1, 1))


def entry(model, patterns, mean, *, floats=100, clamped=False, metric="wrong bits"):
    row = {"model": model, "patterns": patterns, "mean": mean, "p5": mean - 1, "p95": mean + 2}
    return row | {"memory_floats": floats, "clamped": clamped, "metric": metric}


ENTRIES = [
    entry("mine", 8, 2.0, floats=90),
    entry("hebb-clamped", 8, 4.0, clamped=True),
    entry("mine", 4, 1.0, floats=95),
    entry("ebmm-gated", 4, 3.0),
]


def test_contest_table_has_a_row_a_memory_and_a_column_a_load():
    table = contest_table(ENTRIES, {"hebb-clamped": "Hebb", "mann": "MANN"})
    assert table.index.to_list() == ["Hebb", "MANN", "mine", "ebmm-gated"]
    assert table.columns.to_list() == ["floats", "told", 4, 8]
    assert table["floats"].to_list()[2] == 95 and table["floats"].isna().to_list() == [False, True, False, False]
    assert table["told"].to_list() == [True, False, False, False]
    assert table.loc["mine", [4, 8]].to_list() == [1, 2]
    assert table.loc["MANN", [4, 8]].isna().all() and np.isnan(table.loc["Hebb", 4])


def test_contest_panels_draw_each_memory_before_all_others():
    figure = contest_panels(
        ENTRIES, {"hebb-clamped": "Hebb", "mann": "MANN", "mine": "Mine"}, crosses={"mine": {8: 7.5}}, level=6
    )
    hebb, mann, mine, gated = figure.axes
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Hebb", "MANN", "Mine", "ebmm-gated"]

    def own(ax):
        return next(line for line in ax.lines if line.get_marker() in (*plotting.MARKERS.values(), "o"))

    assert own(mine).get_xydata().tolist() == [[4, 1], [8, 2]] and own(mine).get_linestyle() == "-"
    assert own(hebb).get_linestyle() == "--" and own(hebb).get_color() == COLOURS["hebb"]
    assert own(gated).get_color() == COLOURS["ebmm"]
    assert {(4, 0.0), (4, 3.0), (8, 1.0), (8, 4.0)} <= {
        tuple(corner) for corner in mine.collections[-1].get_paths()[0].vertices.tolist()
    }
    assert [line.get_xydata().tolist() for line in mine.lines if line.get_marker() == "x"] == [[[8, 7.5]]]
    assert not any(line.get_marker() == "x" for line in hebb.lines)
    assert [text.get_text() for text in mann.texts] == ["no results yet"]

    def others(ax):
        (lines,) = (marks for marks in ax.collections if isinstance(marks, LineCollection))
        return [line.tolist() for line in lines.get_segments()]

    assert others(mann) == [[[8, 4]], [[4, 1], [8, 2]], [[4, 3]]]
    assert others(mine) == [[[8, 4]], [[4, 3]]]
    assert all(any(set(line.get_ydata()) == {6} for line in ax.lines) for ax in figure.axes)
    assert rgb255(COLOURS["ebmm"]) in colours_in(figure)
    assert max(tick for tick in mine.get_yticks()) <= mine.get_ylim()[1]


def test_a_contest_says_what_does_not_fit():
    with pytest.raises(ValueError, match="at least one row"):
        contest_table([])
    with pytest.raises(ValueError, match="two rows for 'mine' at 8 patterns"):
        contest_panels([*ENTRIES, entry("mine", 8, 1.0)])
    with pytest.raises(ValueError, match="squared error, wrong bits"):
        contest_table([*ENTRIES, entry("mine", 16, 1.0, metric="squared error")])


def rate(model: str, floats: int, mean: float, metric: str = "wrong bits") -> dict:
    return {
        "model": model, "metric": metric, "memory_floats": floats, "mean": mean, "p5": mean / 2, "p95": 2 * mean,
    }  # fmt: skip


def test_compared_curves_show_three_memories_of_each_model_on_one_scale():
    seen = [
        {"step": 0, "own": 9.0, "empty": 10.0, "another's": 11.0},
        {"step": 5, "own": 1.0, "empty": 8.0, "another's": 20},
    ]
    figure = plotting.compared_curves({"linear": seen, "slots": seen[:1]}, "wrong bits")
    first, second = figure.axes
    assert [ax.get_title(loc="left") for ax in (first, second)] == [
        "linear",
        "slots",
    ] and first.get_ylabel() == "wrong bits"
    lines = {line.get_label(): line for line in first.lines}
    assert lines["own"].get_xydata().tolist() == [[0, 9], [5, 1]]
    assert lines["another's"].get_ydata().tolist() == [11, 20] and lines["empty"].get_ydata().tolist() == [10, 8]
    assert first.get_ylim() == second.get_ylim() == (0, 21)


def test_distortion_rate_draws_each_memory_by_its_size_and_the_published_in_its_colour():
    rows = [rate("ebmm", 4608, 6.0), rate("ebmm", 2304, 15.0), rate("other", 3000, 20.0), rate("left out", 99, 1.0)]
    published = [("theirs", "other", [(2000, 30.0), (4000, 12.0)])]
    ax = distortion_rate(rows, {"ebmm": "Ours", "other": "Other", "absent": "Absent"}, published=published, level=90)
    ours, other, theirs, level = ax.lines
    assert [line.get_label() for line in (ours, other, theirs)] == ["Ours", "Other", "theirs"]
    assert ours.get_xydata().tolist() == [[2304, 15], [4608, 6]] and to_rgb(ours.get_color()) == to_rgb(COLOURS["ebmm"])
    assert theirs.get_xydata().tolist() == [[2000, 30], [4000, 12]] and theirs.get_linestyle() == "--"
    assert to_rgb(theirs.get_color()) == to_rgb(other.get_color()) != to_rgb(ours.get_color())
    assert set(level.get_ydata()) == {90}
    band = ax.collections[0].get_paths()[0].vertices
    assert {7.5, 30.0, 3.0, 12.0} <= set(band[:, 1].round(6))
    assert ax.get_xscale() == ax.get_yscale() == "log"
    left, right = ax.get_xlim()
    assert sum(left <= tick <= right for tick in ax.get_xticks()) >= 1
    plt.close(ax.figure)
    one_size = distortion_rate([rate("a", 4608, 6.0), rate("b", 4616, 9.0)])
    one_size.figure.canvas.draw()
    assert any(text.get_text() for text in one_size.get_yticklabels())
    colours = [line.get_color() for line in one_size.lines]
    assert len(set(colours)) == 2
    plt.close(one_size.figure)


def test_distortion_rate_says_what_does_not_fit():
    with pytest.raises(ValueError, match="different metrics cannot be compared: squared error, wrong bits"):
        distortion_rate([rate("a", 10, 1.0), rate("b", 10, 1.0, "squared error")])
    with pytest.raises(ValueError, match="at least one row"):
        distortion_rate([rate("a", 10, 1.0)], {"b": "B"})
    with pytest.raises(ValueError, match="two rows for 'a' at 10 memory floats"):
        distortion_rate([rate("a", 10, 1.0), rate("a", 10, 2.0)])
