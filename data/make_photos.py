"""Make photos.npz, the sample of CIFAR-10 that comes with the package.

    python data/make_photos.py [--root FOLDER] [--out data/photos.npz]
    python data/make_registry.py

It takes 256 images of the official test split, evenly spaced in the official order.
CIFAR-10 is read from FOLDER (or EBMM_DATA), else downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ebmm.datasets import cifar10

NUMBER = 256


def main(arguments: list[str] | None = None) -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--root", help="a folder that holds cifar-10-batches-bin/, as ebmm.datasets describes")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("photos.npz"))
    options = parser.parse_args(arguments)
    whole = cifar10("test", root=options.root)
    chosen = np.linspace(0, len(whole) - 1, NUMBER).round().astype(int)
    np.savez_compressed(options.out, test_images=whole.images.numpy()[chosen])
    print(f"{options.out}: {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
