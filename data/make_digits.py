"""Make digits.npz, the sample of MNIST that comes with the package.

    python data/make_digits.py [--root FOLDER] [--out data/digits.npz]
    python data/make_registry.py

Of each digit it takes 100 images of the official training split and 50 of the test split, evenly
spaced in the official order, so that all parts of the collection and many writers are in it.
MNIST is read from FOLDER (or EBMM_DATA), else downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ebmm.datasets import mnist

EACH = {"train": 100, "test": 50}


def sample(split: str, root: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images (10 * EACH[split], 28, 28) uint8 and labels uint8, digit by digit."""
    whole = mnist(split, root=root)
    chosen = []
    for digit in range(10):
        places = np.flatnonzero(whole.labels.numpy() == digit)
        chosen.append(places[np.linspace(0, len(places) - 1, EACH[split]).round().astype(int)])
    chosen = np.concatenate(chosen)
    images = (whole.images[chosen] * 255).round().numpy().astype(np.uint8)
    return images, whole.labels[chosen].numpy().astype(np.uint8)


def main(arguments: list[str] | None = None) -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--root", help="a folder that holds mnist/, as ebmm.datasets describes")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("digits.npz"))
    options = parser.parse_args(arguments)
    arrays = {}
    for split in EACH:
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = sample(split, options.root)
    np.savez_compressed(options.out, **arrays)
    print(f"{options.out}: {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
