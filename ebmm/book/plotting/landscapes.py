"""Energies of two numbers as landscapes, and energies along a path."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ebmm.book.plotting.style import COLOURS, INK, VALLEY_TO_HILL

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

RESOLUTION = 101  # points along each side of the grid on which an energy is drawn


def landscape(
    energy: Callable[[Tensor], Tensor] | Tensor,
    *,
    ax: Axes | None = None,
    box: tuple[float, float] = (0.0, 1.0),
    levels: int | Sequence[float] = 16,
    scale: Literal["linear", "log"] = "linear",
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

    values = _grid_of(energy, box)
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
        ax.plot(energies.numpy(), color=colour, linewidth=0.8, alpha=0.35)
        energies = energies.mean(dim=1)
    ax.plot(energies.numpy(), color=colour, linewidth=2.4, label=label)
    ax.set(xlabel="step", ylabel="energy")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def _grid_of(energy: Callable[[Tensor], Tensor] | Tensor, box: tuple[float, float]) -> np.ndarray:
    if callable(energy):
        axis = torch.linspace(*box, RESOLUTION)
        points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(-1, 2)
        with torch.no_grad():
            values = energy(points)
        if values.shape != points.shape[:1]:
            want, got = tuple(points.shape[:1]), tuple(values.shape)
            raise ValueError(f"energy must map points {tuple(points.shape)} to shape {want}, got {got}")
        values = values.reshape(RESOLUTION, RESOLUTION)
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
