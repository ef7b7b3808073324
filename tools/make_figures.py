"""Compute what the landing page, the README and shared links show.

    make figures     (or: python tools/make_figures.py [--out FOLDER])

Real handwritten digits are written into a Hopfield network; then damaged ones are read, unit by unit,
and the energy falls until the network rests in a stored digit. Everything drawn is computed here.
Into the folder, book/ if none is named, go ``_static/hero.png``, for the README and for readers without
JavaScript, ``_static/preview.png``, which a shared link shows, and ``_extra/_static/hero/hero-data.js``,
the digits that the landing page stores anew in the reader's browser.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import torch

import ebmm
from ebmm.book.plotting import COLOURS, use_style
from ebmm.datasets import digits
from ebmm.tasks import FlipBits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
SHOWN = (0, 1, 2)
MOMENTS = 5
MOMENT_COLOURS = [COLOURS["query"], "#D9A86F", "#A9B4C0", "#6FBFA3", COLOURS["recalled"]]
PREVIEWED = 3

DATA = """\
// Written by tools/make_figures.py: a handwritten digit of each kind from MNIST, 28 x 28 bits,
// a row of pixels in seven hexadecimal digits.
"use strict";

const STORED_DIGITS = [
{}
];
"""


def stored_digits() -> torch.Tensor:
    """The first digit of each kind in the sample of MNIST, as bits: (10, 28, 28)."""
    data = digits("train")
    first = [int((data.labels == digit).nonzero()[0]) for digit in range(10)]
    return (data.images[first] > 0.5).float()


def falls(shown: tuple[int, ...]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each shown digit: the states after each single change, (steps, 28, 28), and their energies."""
    patterns = stored_digits()[None]
    model = ebmm.Hopfield((28, 28), rule="pseudo-inverse")
    memory = model.write(patterns)
    generator = torch.Generator().manual_seed(0)
    queries, _ = FlipBits(0.3)(patterns, generator)
    runs = []
    for digit in shown:
        states = torch.cat(list(model.updates(queries[:, [digit]], memory, generator=generator)), dim=1)[0]
        runs.append((states, model.energy(states[None], memory)[0]))
    return runs


def draw_hero(runs: list[tuple[torch.Tensor, torch.Tensor]]) -> Figure:
    """On the left: moments of each fall. On the right: the energies."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(9.0, 3.4))
    halves = figure.subfigures(1, 2, width_ratios=(5.4, 3.6), squeeze=False)[0]
    grid, curve = halves[0].subplots(len(runs), MOMENTS), halves[1].subplots()
    for row, (states, energies) in zip(grid, runs, strict=True):
        moments = torch.linspace(0, len(states) - 1, MOMENTS).round().int().tolist()
        for axes, moment, colour in zip(row, moments, MOMENT_COLOURS, strict=True):
            show_digit(axes, states[moment], colour)
            curve.plot(moment, energies[moment], "o", color=colour, markersize=8, zorder=3)
        curve.plot(energies, color=COLOURS["energy"])
    curve.set(xlabel="units changed so far", ylabel="energy")
    return figure


def draw_preview(states: torch.Tensor, energies: torch.Tensor) -> Figure:
    """The title of the book, and one fall: digits along the curve of their energy."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(12.0, 6.3), layout="none")
    figure.text(0.05, 0.72, "Energy-based\nmemory models", fontsize=39, fontweight="bold", va="center")
    aim = "From Hopfield\N{RIGHT SINGLE QUOTATION MARK}s energy of 1982\nto a memory that learns how to write"
    figure.text(0.05, 0.44, aim, fontsize=19.5, va="center", linespacing=1.5)
    figure.text(0.05, 0.16, "A book to read, run and import", fontsize=19.5, va="center", color=COLOURS["stored"])
    curve = figure.add_axes((0.54, 0.12, 0.42, 0.8))
    last = len(states) - 1
    curve.plot(energies, color=COLOURS["energy"], linewidth=5)
    curve.set(xlim=(-0.04 * last, 1.5 * last), ylim=(1.1 * float(energies[-1]), -0.5 * float(energies[-1])))
    curve.set(xticks=[], yticks=[])
    curve.set_xlabel("units changed", fontsize=19.5)
    curve.text(0.02, 1.0, "energy", fontsize=19.5, va="top", transform=curve.transAxes)
    for moment, colour in zip((0, last // 2, last), MOMENT_COLOURS[::2], strict=True):
        point = (moment, float(energies[moment]))
        curve.plot(*point, "o", color=colour, markersize=18, zorder=3)
        x, y = curve.transAxes.inverted().transform(curve.transData.transform(point))
        show_digit(curve.inset_axes((x + 0.03, y + 0.03, 0.28, 0.295)), states[moment], colour)
    return figure


def show_digit(axes: Axes, state: torch.Tensor, colour: str) -> None:
    axes.imshow(state, vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=colour, linewidth=2)


def hero_data(patterns: torch.Tensor) -> str:
    """The digits as JavaScript."""
    rows = [[f"{int(''.join(str(int(bit)) for bit in row), 2):07x}" for row in pattern] for pattern in patterns]
    return DATA.format("\n".join(f'  "{" ".join(row)}",' for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "book", help="the folder to write into")
    out = parser.parse_args().out
    pictures, script = out / "_static", out / "_extra" / "_static" / "hero" / "hero-data.js"
    for folder in (pictures, script.parent):
        folder.mkdir(parents=True, exist_ok=True)
    matplotlib.use("Agg")
    use_style()
    draw_hero(falls(SHOWN)).savefig(pictures / "hero.png", dpi=160, metadata={"Software": None})
    draw_preview(*falls((PREVIEWED,))[0]).savefig(pictures / "preview.png", dpi=100, metadata={"Software": None})
    script.write_text(hero_data(stored_digits()), encoding="utf8")
    print(f"written: {pictures / 'hero.png'}, {pictures / 'preview.png'}, {script}")


if __name__ == "__main__":
    main()
