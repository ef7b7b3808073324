"""Compute the picture of the landing page and the README.

    make figures     (or: python tools/make_figures.py [--out FOLDER])

Real handwritten digits are written into a Hopfield network; then damaged ones are read, unit by unit,
and the energy falls until the network rests in a stored digit. Everything drawn is computed here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import torch

import ebmm
from ebmm.datasets import digits
from ebmm.plotting import COLOURS, use_style
from ebmm.tasks import FlipBits

ROOT = Path(__file__).resolve().parent.parent
SHOWN = (0, 1, 2)
MOMENTS = 5


def falls(seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each shown digit: the states after each single change, (steps, 28, 28), and their energies."""
    data = digits("train")
    first = [int((data.labels == digit).nonzero()[0]) for digit in range(10)]
    patterns = (data.images[first] > 0.5).float()[None]
    model = ebmm.Hopfield((28, 28), rule="pseudo-inverse")
    memory = model.write(patterns)
    generator = torch.Generator().manual_seed(seed)
    queries, _ = FlipBits(0.3)(patterns, generator)
    runs = []
    for digit in SHOWN:
        states = torch.cat(list(model.updates(queries[:, [digit]], memory, generator=generator)), dim=1)[0]
        runs.append((states, model.energy(states[None], memory)[0]))
    return runs


def draw(runs: list[tuple[torch.Tensor, torch.Tensor]]):
    """Above: moments of each fall. Below: the energies."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(9.0, 3.5))
    table = figure.add_gridspec(len(runs), MOMENTS + 5)
    curve = figure.add_subplot(table[:, MOMENTS:])
    colours = [COLOURS["stored"], COLOURS["query"], COLOURS["recalled"]]
    for row, ((states, energies), colour) in enumerate(zip(runs, colours, strict=True)):
        moments = torch.linspace(0, len(states) - 1, MOMENTS).round().int().tolist()
        for column, moment in enumerate(moments):
            axes = figure.add_subplot(table[row, column])
            axes.imshow(states[moment], cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=colour)
        curve.plot(range(len(energies)), energies, color=colour)
        curve.plot(moments, energies[moments], "o", color=colour)
    curve.set(xlabel="units changed so far", ylabel="energy")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "book" / "_static", help="the folder to write into")
    out = parser.parse_args().out
    matplotlib.use("Agg")
    use_style()
    draw(falls()).savefig(out / "hero.png", dpi=160, metadata={"Software": None})
    print(f"written: {out / 'hero.png'}")


if __name__ == "__main__":
    main()
