"""The one style of the book's figures, and the few figures that every chapter needs.

Call ``use_style()`` once. Each function draws and returns an Axes or a Figure; none shows it.
The colours mean the same thing on every page: see ``COLOURS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

# Told apart by colour-blind readers within each group, and dark enough on the light background.
COLOURS = {
    "stored": "#0B63C5",
    "query": "#D9690F",
    "recalled": "#169B72",
    "unseen": "#6A3D7C",
    "energy": "#333F50",
    "hebb": "#7F8C99",
    "storkey": "#D9690F",
    "pseudo-inverse": "#0B63C5",
    "ebmm": "#A3004F",
}
BACKGROUND = "#FFFFFF"
INK = "#1F2933"
WRONG = "#D1224F"
VALLEY_TO_HILL = ("#6E6398", "#8D83AD", "#AFA8C6", "#D2CDE0", "#EAE7F0", "#FAF9FB")
MARKERS = {"hebb": "o", "storkey": "s", "pseudo-inverse": "^", "ebmm": "D"}


def use_style() -> None:
    """Set matplotlib's defaults to the style of the book.

    Figures are opaque and light, so that they read on dark pages; 6 inches wide, so that their text
    keeps the size of the page's text in the book's column and stays legible on a phone.

    Example:
        >>> use_style()
        >>> import matplotlib.pyplot as plt
        >>> plt.rcParams["axes.spines.top"]
        False
    """
    import matplotlib.pyplot as plt
    from cycler import cycler

    order = ("stored", "query", "recalled", "ebmm", "energy", "unseen")
    plt.rcParams.update({
        "figure.figsize": (6.0, 3.5),
        "figure.dpi": 110,
        "savefig.dpi": 110,
        "figure.facecolor": BACKGROUND,
        "savefig.facecolor": BACKGROUND,
        "savefig.transparent": False,
        "figure.constrained_layout.use": True,
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.labelsize": 11,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "legend.fontsize": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.facecolor": BACKGROUND,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.prop_cycle": cycler(color=[COLOURS[name] for name in order]),
        "axes.grid": False,
        "grid.color": "#DDE2E8",
        "lines.linewidth": 2.0,
        "lines.markersize": 6,
        "legend.frameon": False,
        "image.cmap": "gray_r",
        "image.interpolation": "nearest",
    })  # fmt: skip


def show_patterns(
    rows: Mapping[str, Tensor],
    *,
    shape: tuple[int, int] | Literal["barcode"] | None = None,
    reference: Tensor | None = None,
    titles: Sequence[str] = (),
    width: float = 6.0,
) -> Figure:
    """Labelled rows of small pictures: what was stored, what was asked, what came back.

    A one is ink, a zero is paper. Values of ±1 are shown as bits.

    Args:
        rows: label to patterns (N, *S): vectors (N, d), grey images (N, H, W) or (N, 1, H, W), or
            colour images (N, 3, H, W); values in [0, 1], or in [-1, 1] where any is negative.
        shape: how to lay out a vector: (height, width), or ``"barcode"``. ``None`` takes the rectangle
            nearest to a square, and a barcode where it would be more than twice as wide as high.
        reference: the true patterns, (N, *S). Where a grey picture differs by more than a half it is red:
            dark where there is ink too much, light where ink is missing.
        titles: headings of the columns.
        width: the most that the figure takes, in inches.

    Returns:
        The Figure.

    Raises:
        ValueError: no rows, patterns that cannot be laid out, or a reference of another shape.

    Example:
        >>> figure = show_patterns({"stored": torch.eye(4), "recalled": torch.ones(4, 4) / 2})
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['stored', 'recalled']

    Explained in chapter 1.
    """
    import matplotlib.pyplot as plt
    from matplotlib.textpath import TextPath

    if not rows:
        raise ValueError("show_patterns needs at least one row, got none")
    pictures = {label: _pictures(patterns, shape, label) for label, patterns in rows.items()}
    truth = None if reference is None else _pictures(reference, shape, "reference")
    height, across = next(iter(pictures.values())).shape[1:3]
    aspect = 0.4 if height == 1 else height / across
    gap, columns = 0.12, max(len(row) for row in pictures.values())

    lines = [line for label in rows for line in label.split("\n")]
    margin = 0.2 + max(TextPath((0, 0), line or " ", size=10).get_extents().width for line in lines) / 72
    cell = min((width - margin - 0.05) / (columns * (1 + gap)), 1.1 / max(aspect, 1.0))
    size = (columns * (1 + gap) * cell, len(rows) * (aspect + gap) * cell)
    top = 0.35 if titles else 0.05
    total = (margin + size[0] + 0.05, size[1] + top)
    figure = plt.figure(figsize=total, layout="none")
    ax = figure.add_axes((margin / total[0], 0, size[0] / total[0], size[1] / total[1]))
    for number, (label, row) in enumerate(pictures.items()):
        for column, picture in enumerate(row):
            expected = truth[column] if truth is not None and column < len(truth) else picture
            if expected.shape != picture.shape:
                sizes = f"{tuple(expected.shape)} but {label!r} {tuple(picture.shape)}"
                raise ValueError(f"reference pictures {sizes}")
            left, bottom = column * (1 + gap), number * (aspect + gap) + aspect
            ax.imshow(_inked(picture, expected), extent=(left, left + 1, bottom, bottom - aspect))
            frame = plt.Rectangle((left, bottom), 1, -aspect, fill=False)
            frame.set(edgecolor="#9AA5B1", linewidth=0.8)
            ax.add_patch(frame)
    ax.set_xlim(-gap / 2, columns * (1 + gap) - gap / 2)
    ax.set_ylim(len(rows) * (aspect + gap) - gap / 2, -gap / 2)
    ax.set_aspect("auto")
    ax.set_yticks([number * (aspect + gap) + aspect / 2 for number in range(len(rows))], list(rows))
    ax.set_xticks([column * (1 + gap) + 0.5 for column in range(len(titles))], list(titles))
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    return figure


def landscape(
    energy: Callable[[Tensor], Tensor] | Tensor,
    *,
    ax: Axes | None = None,
    box: tuple[float, float] = (0.0, 1.0),
    levels: int | Sequence[float] = 16,
    scale: Literal["linear", "log"] = "linear",
    resolution: int = 101,
    stored: Tensor | None = None,
    query: Tensor | None = None,
    trajectories: Tensor | None = None,
    colourbar: bool = True,
    legend: bool = True,
) -> Axes:
    """An energy of two variables as a map: dark valleys, light hills, reads as paths downhill.

    Args:
        energy: maps points (M, 2) to energies (M,); or the energies themselves on an even grid over the
            box, (R, R), whose first index is the second variable.
        ax: where to draw; a new figure otherwise.
        box: lowest and highest value of both variables.
        levels: about how many levels, or the levels themselves, to give several maps the same ones.
        scale: ``"log"`` sets levels closer toward the lowest energy, for narrow wells below high walls.
        resolution: grid points along each side, R.
        stored: stored patterns, (N, 2), drawn as stars.
        query: queries, (Q, 2), drawn as circles; the starts of the trajectories otherwise.
        trajectories: reads, (K+1, Q, 2), drawn as arrowed paths that end in a diamond.
        colourbar: whether to show which colour is which energy.
        legend: whether to name the markers.

    Returns:
        The Axes.

    Raises:
        ValueError: energies or points of another shape, or energies that are not finite.

    Example:
        >>> wells = torch.tensor([[0.2, 0.3], [0.8, 0.6]])
        >>> def energy(x):
        ...     return -torch.logsumexp(-20 * torch.cdist(x, wells) ** 2, dim=-1)
        >>> landscape(energy, stored=wells).get_xlabel()
        '$x_1$'

    Explained in chapter 2.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap

    values = _grid_of(energy, box, resolution)
    edges = _levels(float(values.min()), float(values.max()), levels, scale)
    stored, query = (_points(points, name, 2) for points, name in ((stored, "stored"), (query, "query")))
    trajectories = _points(trajectories, "trajectories", 3)
    if query is None and trajectories is not None:
        query = trajectories[0]

    if ax is None:
        _, ax = plt.subplots(figsize=(5.6, 4.8))
    across, up = (torch.linspace(*box, count).numpy() for count in (values.shape[1], values.shape[0]))
    colours = LinearSegmentedColormap.from_list("valley to hill", VALLEY_TO_HILL)
    beyond: Literal["neither", "both"] = "neither" if isinstance(levels, int) else "both"
    norm = BoundaryNorm(edges, colours.N, extend=beyond)
    filled = ax.contourf(across, up, values, edges, cmap=colours, norm=norm, extend=beyond)
    ax.contour(across, up, values, edges, colors="white", linewidths=0.6, alpha=0.7)
    if colourbar:
        ticks = edges[:: math.ceil(len(edges) / 6)]
        bar = ax.figure.colorbar(filled, ax=ax, label="energy", format="%.3g", ticks=ticks)
        bar.ax.tick_params(which="both", length=0)
        bar.outline.set_visible(False)
    if stored is not None:
        _mark(ax, stored, "stored", "*", 260, 3)
    for path in () if trajectories is None else trajectories.transpose(0, 1):
        _arrowed(ax, path)
    if query is not None:
        _mark(ax, query, "query", "o", 60, 6)
    if trajectories is not None:
        _mark(ax, trajectories[-1], "recalled", "D", 50, 7)
    if legend and ax.get_legend_handles_labels()[0]:
        place = (0.5, -0.14)
        ax.legend(loc="upper center", bbox_to_anchor=place, ncols=3, columnspacing=1.5, handletextpad=0.3)
    ax.set(xlim=box, ylim=box, xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    ax.spines[:].set_visible(False)
    return ax


def error_curve(
    ax: Axes,
    x: Sequence[float],
    mean: Sequence[float],
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    *,
    label: str,
    colour: str | None = None,
    linestyle: str = "-",
) -> Axes:
    """A line through the means, with a band from the 5th to the 95th percentile.

    Args:
        ax: where to draw.
        x: what was varied, such as the number of patterns.
        mean: mean error at each x.
        low, high: 5th and 95th percentile at each x; no band without them.
        label: the name in the legend.
        colour: a name in ``COLOURS``, which brings its marker too, or any colour of matplotlib.
        linestyle: of the line.

    Returns:
        The Axes.

    Raises:
        ValueError: only one of ``low`` and ``high``.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> _, ax = plt.subplots()
        >>> mean, low, high = [0.4, 5.0], [0, 3], [1, 8]
        >>> ax = error_curve(ax, [16, 32], mean, low, high, label="Hebb", colour="hebb")
        >>> ax.lines[0].get_marker()
        'o'

    Explained in chapter 1.
    """
    if (low is None) != (high is None):
        raise ValueError("error_curve needs both low and high, or neither")
    shade, marker = COLOURS.get(colour or "", colour), MARKERS.get(colour or "", "o")
    (line,) = ax.plot(x, mean, label=label, color=shade, marker=marker, linestyle=linestyle)
    line.set(markeredgecolor="white", markeredgewidth=0.8)
    if low is not None and high is not None:
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.16, linewidth=0)
    ax.grid(True, axis="y")
    ax.set_axisbelow(True)
    return ax


def contest_table(rows: Sequence[Mapping], names: Mapping[str, str] | None = None) -> DataFrame:
    """Memories against loads: mean error of each, and what each was allowed.

    Args:
        rows: what :func:`ebmm.evaluate` returned, each with the memory's name as ``"model"``; also the rows of
            a results file.
        names: model to label, in the order of the table. Models without rows stay in it, empty; rows of
            models that it lacks follow, under their own names. ``None``: all models as they come.

    Returns:
        A DataFrame: one row a memory; columns ``floats`` (the most it held), ``told`` (whether it knew the
        intact elements), and the mean error at each number of patterns, NaN where there is none.

    Raises:
        ValueError: no rows, two rows for one model at one load, or rows of different metrics.

    Example:
        >>> from ebmm import Hopfield, evaluate, tasks
        >>> task = tasks.Task(tasks.RandomBits(16), tasks.FlipBits(0.1), number=2)
        >>> mine = {"model": "mine", **evaluate(Hopfield(16), task, memories=4)}
        >>> names = {"mine": "My memory", "other": "Not yet trained"}
        >>> contest_table([mine], names).columns.to_list()
        ['floats', 'told', 2]

    Explained in chapter 5.
    """
    from pandas import DataFrame, Index

    labels, by_model = _entries(rows, names)
    loads = sorted({row["patterns"] for row in rows})
    table = {"floats": [max((row["memory_floats"] for row in by_model[m].values()), default=None) for m in labels]}
    table["told"] = [any(row["clamped"] for row in by_model[m].values()) for m in labels]
    columns = {load: [by_model[m].get(load, {"mean": math.nan})["mean"] for m in labels] for load in loads}
    index = Index(list(labels.values()), name="memory")
    return DataFrame({**table, **columns}, index=index).astype({"floats": "Int64"})


def contest_panels(
    rows: Sequence[Mapping],
    names: Mapping[str, str] | None = None,
    *,
    crosses: Mapping[str, Mapping[int, float]] | None = None,
    level: float | None = None,
    columns: int = 3,
    width: float = 6.0,
) -> Figure:
    """Error against load, one panel a memory: its own line and band, those of all others in grey.

    Dashed lines belong to memories that were told which elements are intact.

    Args:
        rows, names: as for :func:`contest_table`. A model without rows gets a panel that says so.
        crosses: for some models, published errors: number of patterns to error.
        level: the error of the queries, drawn as a dotted line.
        columns: panels beside each other.
        width: of the figure, in inches.

    Returns:
        The Figure.

    Raises:
        ValueError: as for :func:`contest_table`.

    Example:
        >>> row = {"model": "mine", "metric": "wrong bits", "clamped": False}
        >>> row["memory_floats"] = 136
        >>> rows = [row | {"patterns": n, "mean": n / 2, "p5": 0, "p95": n} for n in (2, 4, 8)]
        >>> len(contest_panels(rows, {"mine": "My memory", "other": "Not yet trained"}).axes)
        2

    Explained in chapter 5.
    """
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection

    labels, by_model = _entries(rows, names)
    loads = sorted({row["patterns"] for row in rows})
    count = math.ceil(len(labels) / columns)
    size = (width, 0.95 + 1.4 * count)
    figure, axes = plt.subplots(
        count, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="none"
    )  # fmt: skip
    # Fixed margins: with so many panels, fitting them takes longer than drawing them.
    figure.subplots_adjust(0.62 / width, 0.66 / size[1], 0.99, 1 - 0.3 / size[1], wspace=0.1, hspace=0.35)
    for ax, (model, label) in zip(axes.flat, labels.items(), strict=False):
        others = [
            [(load, row["mean"]) for load, row in results.items()]
            for other, results in by_model.items()
            if other != model and results
        ]
        ax.add_collection(LineCollection(others, colors="#C3CAD2", linewidths=1, zorder=1))
        ax.autoscale_view()
        if level is not None:
            ax.axhline(level, color=INK, linestyle=":", linewidth=1)
        own = by_model[model].values()
        if own:
            mean, low, high = ([row[key] for row in own] for key in ("mean", "p5", "p95"))
            style = "--" if any(row["clamped"] for row in own) else "-"
            colour = next((name for name in COLOURS if model == name or model.startswith(name + "-")), "energy")
            error_curve(ax, list(by_model[model]), mean, low, high, label=label, colour=colour, linestyle=style)
        else:
            box = {"facecolor": ax.get_facecolor(), "edgecolor": "none"}
            ax.text(0.5, 0.5, "no results yet", transform=ax.transAxes, ha="center", va="center", fontsize=9, bbox=box)
        for number, error in (crosses or {}).get(model, {}).items():
            ax.plot(number, error, "x", color=INK, markersize=6, markeredgewidth=1.6, zorder=5)
        ax.set_title(label, fontsize=10)
    for place in range(len(labels), count * columns):
        axes.flat[place].remove()
        axes.flat[place - columns].tick_params(labelbottom=True)
    axes[0, 0].set_yscale("symlog", linthresh=1)
    axes[0, 0].set_ylim(bottom=0)
    ticks = [0, 1, 3, 10, 30, 100]
    axes[0, 0].set_yticks([tick for tick in ticks if tick <= axes[0, 0].get_ylim()[1]])
    axes[0, 0].yaxis.set_major_formatter("{x:g}")
    axes[0, 0].minorticks_off()
    axes[0, 0].set_xticks(loads)
    figure.supxlabel("patterns stored", fontsize=11, y=0.02, va="bottom")
    figure.supylabel(rows[0]["metric"], fontsize=11, x=0.01)
    return figure


def distortion_rate(
    rows: Sequence[Mapping],
    names: Mapping[str, str] | None = None,
    *,
    published: Sequence[tuple[str, str, Sequence[tuple[float, float]]]] = (),
    level: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Error against the size of the memory, both on logarithmic scales, with bands where there are rows.

    Args:
        rows: what :func:`ebmm.evaluate` returned, each with the memory's name as ``"model"``; also the rows of
            results files.
        names: model to label; models that it lacks are left out. ``None``: all, under their own names.
        published: curves of others, dashed: label, the model whose colour it takes, and points (floats, error).
        level: the error of the queries, drawn as a dotted line.
        ax: where to draw; a new figure otherwise.

    Returns:
        The Axes.

    Raises:
        ValueError: no rows of these models, two rows for one model at one size, or rows of different metrics.

    Example:
        >>> row = {"model": "mine", "metric": "wrong bits"}
        >>> row |= {"memory_floats": 2304, "mean": 39, "p5": 35, "p95": 43}
        >>> rows = [row, row | {"memory_floats": 4608, "mean": 20, "p5": 17, "p95": 22}]
        >>> theirs = ("theirs", "mine", [(2304, 40.0), (4608, 25.0)])
        >>> ax = distortion_rate(rows, published=[theirs])
        >>> [line.get_label() for line in ax.lines]
        ['mine', 'theirs']

    Explained in chapter 6.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if names is not None:
        rows = [row for row in rows if row["model"] in names]
    labels, by_model = _entries(rows, names, "memory_floats")
    if ax is None:
        _, ax = plt.subplots(figsize=(6.0, 4.6))
    models = list(dict.fromkeys([*labels, *(model for _, model, _ in published)]))
    spare = [role for role in ("stored", "query", "recalled", "unseen", "energy", "hebb") if role not in models]
    others = [model for model in models if model not in COLOURS]
    colours = {model: model for model in models} | {m: spare[place % len(spare)] for place, m in enumerate(others)}
    for model, label in labels.items():
        if own := by_model[model].values():
            mean, low, high = ([row[key] for row in own] for key in ("mean", "p5", "p95"))
            error_curve(ax, list(by_model[model]), mean, low, high, label=label, colour=colours[model])
    for label, model, points in published:
        colour = COLOURS[colours[model]]
        ax.plot(*zip(*points, strict=True), "--", marker="x", color=colour, linewidth=1.2, label=label)
    if level is not None:
        ax.axhline(level, color=INK, linestyle=":", linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel="floats of a memory", ylabel=rows[0]["metric"])
    ax.xaxis.set_major_locator(LogLocator(2))
    ax.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    ax.tick_params(which="minor", length=0)
    ax.grid(True, axis="both")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return ax


def _entries(
    rows: Sequence[Mapping], names: Mapping[str, str] | None, varied: str = "patterns"
) -> tuple[dict[str, str], dict[str, dict]]:
    """Labels by model, and rows by model and by what was varied, in order."""
    if not rows:
        raise ValueError("a contest needs at least one row of results, got none")
    if len(metrics := {row["metric"] for row in rows}) > 1:
        raise ValueError(f"rows of different metrics cannot be compared: {', '.join(sorted(metrics))}")
    labels = dict(names or {}) | {row["model"]: row["model"] for row in rows if row["model"] not in (names or {})}
    by_model: dict[str, dict] = {model: {} for model in labels}
    for row in sorted(rows, key=lambda row: row[varied]):
        if row[varied] in by_model[row["model"]]:
            raise ValueError(f"two rows for {row['model']!r} at {row[varied]} {varied.replace('_', ' ')}")
        by_model[row["model"]][row[varied]] = row
    return labels, by_model


def energy_curve(ax: Axes, energies: Tensor, *, label: str | None = None, colour: str = "energy") -> Axes:
    """The energy at each step of reading: a thin line for each query, a thick one for their mean.

    Args:
        ax: where to draw.
        energies: (K+1,) for one query, or (K+1, Q).
        label: the name of the mean in the legend.
        colour: a name in ``COLOURS``, or any colour of matplotlib.

    Returns:
        The Axes.

    Raises:
        ValueError: energies of another shape.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> _, ax = plt.subplots()
        >>> len(energy_curve(ax, torch.tensor([[3.0, 2.0], [1.0, 0.5]])).lines)
        3

    Explained in chapter 1.
    """
    from matplotlib.ticker import MaxNLocator

    energies = torch.as_tensor(energies).detach().cpu()
    if energies.dim() not in (1, 2):
        raise ValueError(f"energies must have shape (K+1,) or (K+1, Q), got {tuple(energies.shape)}")
    colour = COLOURS.get(colour, colour)
    if energies.dim() == 2:
        ax.plot(energies, color=colour, linewidth=0.8, alpha=0.35)
        energies = energies.mean(dim=1)
    ax.plot(energies, color=colour, linewidth=2.4, label=label)
    ax.set(xlabel="step", ylabel="energy")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def _pictures(patterns: Tensor, shape: tuple[int, int] | Literal["barcode"] | None, label: str) -> Tensor:
    """(N, *S) to pictures in [0, 1], (N, H, W) or (N, H, W, 3)."""
    patterns = torch.as_tensor(patterns).detach().cpu().float()
    if patterns.dim() < 2 or patterns.numel() == 0:
        raise ValueError(f"row {label!r} must hold patterns (N, *S), got shape {tuple(patterns.shape)}")
    if patterns.min() < 0:
        patterns = (patterns + 1) / 2
    if patterns.dim() == 2:
        size = patterns.shape[1]
        tall, wide = _rectangle(size) if shape is None else (1, size) if shape == "barcode" else shape
        if tall * wide != size:
            want = f"the shape {(tall, wide)}"
            raise ValueError(f"row {label!r} has patterns of {size} values: they do not fill {want}")
        return patterns.reshape(-1, tall, wide)
    if patterns.dim() == 4 and patterns.shape[1] in (1, 3):
        return patterns[:, 0] if patterns.shape[1] == 1 else patterns.movedim(1, -1)
    if patterns.dim() == 3:
        return patterns
    raise ValueError(
        f"row {label!r} must hold vectors (N, d), images (N, H, W), (N, 1, H, W) or (N, 3, H, W), "
        f"got shape {tuple(patterns.shape)}"
    )


def _rectangle(size: int) -> tuple[int, int]:
    """Height and width of the picture nearest to a square, or of a barcode."""
    height = max(side for side in range(1, math.isqrt(size) + 1) if size % side == 0)
    return (height, size // height) if size <= 2 * height**2 else (1, size)


def _inked(picture: Tensor, expected: Tensor):
    """A grey picture in ink on paper, red where it is not as expected; a colour picture as it is."""
    from matplotlib.colors import to_rgb

    picture = picture.clamp(0, 1)
    if picture.dim() == 3:
        return picture.numpy()
    paper, ink, wrong = (torch.tensor(to_rgb(colour)) for colour in (BACKGROUND, INK, WRONG))
    painted = paper + picture[..., None] * (ink - paper)
    painted[picture - expected > 0.5] = wrong
    painted[expected - picture > 0.5] = 0.6 * paper + 0.4 * wrong
    return painted.numpy()


def _grid_of(energy: Callable[[Tensor], Tensor] | Tensor, box: tuple[float, float], resolution: int):
    if callable(energy):
        axis = torch.linspace(*box, resolution)
        points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(-1, 2)
        with torch.no_grad():
            values = energy(points)
        if values.shape != points.shape[:1]:
            want, got = tuple(points.shape[:1]), tuple(values.shape)
            raise ValueError(f"energy must map points {tuple(points.shape)} to shape {want}, got {got}")
        values = values.reshape(resolution, resolution)
    else:
        values = energy
    if values.dim() != 2:
        raise ValueError(f"a grid of energies must have shape (R, R), got {tuple(values.shape)}")
    if not values.isfinite().all():
        raise ValueError("energies must be finite, got NaN or infinite values")
    return values.detach().cpu().double().numpy()


def _levels(low: float, high: float, levels: int | Sequence[float], scale: str) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    if not isinstance(levels, int):
        return list(levels)
    high = max(high, low + 1e-6 * (1 + abs(low)))
    if scale == "log":
        return [low, *(low + (high - low) * 10 ** (3 * step / levels - 3) for step in range(levels + 1))]
    return list(MaxNLocator(levels).tick_values(low, high))


def _points(points: Tensor | None, name: str, dimensions: int) -> Tensor | None:
    if points is None:
        return None
    if points.dim() != dimensions or points.shape[-1] != 2:
        want = "(M, 2)" if dimensions == 2 else "(K+1, Q, 2)"
        raise ValueError(f"{name} must have shape {want}, got {tuple(points.shape)}")
    return points.detach().cpu()


def _mark(ax: Axes, points: Tensor, role: str, marker: str, size: float, order: int) -> None:
    x, y = points.T
    dots = ax.scatter(x, y, s=size, color=COLOURS[role], marker=marker, zorder=order, label=role)
    dots.set(edgecolor="white", linewidth=1.2)


def _arrowed(ax: Axes, path: Tensor) -> None:
    """A path with a dot at each iterate and an arrow head half way along it."""
    from matplotlib.markers import MarkerStyle
    from matplotlib.patheffects import Normal, withStroke

    halo = [withStroke(linewidth=3.0, foreground="white"), Normal()]
    ax.plot(*path.T, ".-", color=INK, linewidth=1.4, markersize=4, path_effects=halo, zorder=4)
    moves = path.diff(dim=0)
    lengths = moves.norm(dim=1)
    if lengths.sum() > 0:
        middle = int((lengths.cumsum(0) >= lengths.sum() / 2).nonzero()[0])
        (x, y), (right, up) = (path[middle] + moves[middle] / 2).tolist(), moves[middle].tolist()
        pointing = MarkerStyle((3, 0)).rotated(deg=math.degrees(math.atan2(up, right)) - 90)
        ax.scatter(x, y, s=90, color=INK, marker=pointing, edgecolors="white", linewidths=1.0, zorder=5)
