"""Errors of many memories: curves, tables, panels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ebmm.book.plotting.style import COLOURS, INK, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


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


def contest_table(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str] | None = None) -> DataFrame:
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
    rows: Sequence[Mapping[str, Any]],
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
    rows: Sequence[Mapping[str, Any]],
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
    rows: Sequence[Mapping[str, Any]], names: Mapping[str, str] | None, varied: str = "patterns"
) -> tuple[dict[str, str], dict[str, dict[float, Mapping[str, Any]]]]:
    """Labels by model, and rows by model and by what was varied, in order."""
    if not rows:
        raise ValueError("a contest needs at least one row of results, got none")
    if len(metrics := {row["metric"] for row in rows}) > 1:
        raise ValueError(f"rows of different metrics cannot be compared: {', '.join(sorted(metrics))}")
    labels = dict(names or {}) | {row["model"]: row["model"] for row in rows if row["model"] not in (names or {})}
    by_model: dict[str, dict[float, Mapping[str, Any]]] = {model: {} for model in labels}
    for row in sorted(rows, key=lambda row: row[varied]):
        if row[varied] in by_model[row["model"]]:
            raise ValueError(f"two rows for {row['model']!r} at {row[varied]} {varied.replace('_', ' ')}")
        by_model[row["model"]][row[varied]] = row
    return labels, by_model


def compared_curves(compared: Mapping[str, Sequence[Mapping[str, float]]], ylabel: str) -> Figure:
    """Errors of the own, an empty and another's memory while each of some models was trained, a panel a model.

    Args:
        compared: panel title to what ``History.compared`` holds, or ``"compared"`` of a row's training.
        ylabel: what the error is.

    Example:
        >>> seen = [{"step": 0, "own": 9.0, "empty": 10.0, "another's": 11.0}]
        >>> len(compared_curves({"linear": seen, "slots": seen}, "wrong bits").axes)
        2
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(compared), figsize=(6, 2.5), sharey=True, squeeze=False)
    for ax, (title, seen) in zip(axes[0], compared.items(), strict=True):
        steps = [row["step"] for row in seen]
        for kind, role in (("own", "recalled"), ("empty", "energy"), ("another's", "query")):
            ax.plot(steps, [row[kind] for row in seen], color=COLOURS[role], label=kind)
        ax.set_title(title, loc="left", fontsize=9)
        ax.set(xlabel="update")
    axes[0, 0].set(ylabel=ylabel, ylim=(0, 1.05 * max(ax.dataLim.y1 for ax in axes[0])))
    axes[0, 0].legend(fontsize=8, loc="upper right")
    return figure
