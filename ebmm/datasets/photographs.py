"""Photographs in colour: CIFAR-10, Tiny-ImageNet and any folder of images (chapter 7).

Looked for in the folder given as ``root``, then in the one that the environment variable ``EBMM_DATA``
names, laid out as their archives unpack::

    cifar-10-batches-bin/data_batch_{1…5}.bin, test_batch.bin      (or cifar-10-batches-py/ without .bin)
    tiny-imagenet-200/train/CLASS/images/*.JPEG, tiny-imagenet-200/val/images/*.JPEG

CIFAR-10 is downloaded where it is not there. Images are decoded once, into a file in the user's cache folder that is
mapped into memory, so that larger sets than the memory serve too. Errors are those of :mod:`ebmm.datasets.characters`.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ebmm import files
from ebmm.datasets import store

_CIFAR10 = {  # MD5 of each batch in the binary and in the Python archive
    "train": {
        "data_batch_1": ("5dd7e06a14cb22eb9f671a540d1b7c25", "c99cafc152244af753f735de768cd75f"),
        "data_batch_2": ("5ea93a67294ea407fff1d09f752e9692", "d4bba439e000b95fd0a9bffe97cbabec"),
        "data_batch_3": ("942cd6a4bcdd0dd3c604fbe906cb4421", "54ebc095f3ab1f0389bbae665268c751"),
        "data_batch_4": ("ae636b3ba5c66a11e91e8cb52e771fcb", "634d18415352ddfa80567beed471001a"),
        "data_batch_5": ("53f37980c15c3d472c316c40844f3f0d", "482c414d41f54cd18b22e5b47cb7c3cb"),
    },
    "test": {"test_batch": ("803d5f7f4d78ea53de84dbe85f74fb6d", "40351d587109b95175f43aff81a1287e")},
}
_ARCHIVE, _ARCHIVE_MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
_ADDRESSES = ["https://www.cs.toronto.edu/~kriz/"]
_INSTEAD = (
    "set EBMM_DATA to a folder that holds the data set (help(ebmm.datasets.photographs) says how it is laid out), "
    "or use ebmm.datasets.photos(), which comes with the package"
)
_BATCH = 10_000  # images in a CIFAR-10 file
_ROW = 1 + 3 * 32 * 32  # bytes of one: its label, and its pixels
_PICKLED = 1_000_000  # bytes that the Python files hold besides, at most
_TINY_IMAGENET = {"train": 100_000, "val": 10_000}
_SUFFIXES = {".jpeg", ".jpg", ".png", ".ppm", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, eq=False, repr=False)
class PhotoSet:
    """Photographs in colour, kept as bytes.

    Args:
        images: (M, 3, H, W) uint8, red, green and blue; it may be a file mapped into memory.
        name, source: what to call the set in a figure or a results file, and where the images were found.

    Example:
        >>> PhotoSet(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), "black", "nowhere")
        PhotoSet(black: 5 images of 8 x 8, source: nowhere)
    """

    images: Tensor
    name: str
    source: str

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        height, width = self.images.shape[-2:]
        return f"PhotoSet({self.name}: {len(self)} images of {height} x {width}, source: {self.source})"


def cifar10(split: str = "train", root: str | os.PathLike[str] | None = None) -> PhotoSet:
    """Photographs of ten kinds of things, 32 x 32 (Krizhevsky 2009), in the official order.

    Args:
        split: ``"train"`` (50000 images) or ``"test"`` (10000), as officially.
        root: a laid-out folder that holds ``cifar-10-batches-bin/`` or ``cifar-10-batches-py/``; by default
            ``EBMM_DATA``, else a download.
    """
    store.check_choice("split", split, _CIFAR10)
    first = next(iter(_CIFAR10[split]))
    found = store.laid_out(root, ".", [f"cifar-10-batches-bin/{first}.bin", f"cifar-10-batches-py/{first}"])
    images = store.decoded(
        f"cifar10-{split}",
        repr(_CIFAR10[split]),
        (_BATCH * len(_CIFAR10[split]), 3, 32, 32),
        lambda: _downloaded(split) if found is None else _laid_out(split, found.parent),
    )
    source = _ADDRESSES[0] + _ARCHIVE if found is None else str(found.parent)
    return PhotoSet(images, f"CIFAR-10 {split}", source)


def tiny_imagenet(split: str = "train", root: str | os.PathLike[str] | None = None) -> PhotoSet:
    """Photographs of 200 kinds of things, 64 x 64 (Stanford's CS231n, from ImageNet).

    The archive, 237 MB, is to be unpacked by the user. A part of it serves too: all images that are there are taken,
    and the name says how many.

    Args:
        split: ``"train"`` (at most 100000 images) or ``"val"`` (10000).
        root: a laid-out folder that holds ``tiny-imagenet-200/``; by default ``EBMM_DATA``.
    """
    store.check_choice("split", split, _TINY_IMAGENET)
    folder = store.laid_out(root, "tiny-imagenet-200", [split])
    if folder is None:
        raise FileNotFoundError(
            f"no folder tiny-imagenet-200/{split}: unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip and set "
            "EBMM_DATA to the folder that holds tiny-imagenet-200"
        )
    found = folder_of_images(folder, size=64, exact=True)
    official = _TINY_IMAGENET[split]
    part = "" if len(found) == official else f", {len(found)} of {official} images"
    return PhotoSet(found.images, f"Tiny-ImageNet {split}{part}", found.source)


def photos() -> PhotoSet:
    """A sample that comes with the package: 256 of CIFAR-10's test images, evenly spaced in the official order.

    Example:
        >>> photos()  # doctest: +ELLIPSIS
        PhotoSet(CIFAR-10 test, 256 of 10000 images: 256 images of 32 x 32, source: ...)
    """
    path = files.data_path("photos.npz")
    with np.load(path) as arrays:
        images = torch.from_numpy(arrays["test_images"])
    return PhotoSet(images, f"CIFAR-10 test, {len(images)} of {_BATCH} images", str(path))


def folder_of_images(path: str | os.PathLike[str], size: int = 64, exact: bool = False) -> PhotoSet:
    """All images in a folder and the folders below it, sorted by file name, as squares.

    Args:
        path: the folder. Files count whose names end in .jpeg, .jpg, .png or the like.
        size, exact: height and width. Others are cut to the square in their middle and resized, or ``exact`` refused.
    """
    store.check_size(size)
    folder = Path(path).expanduser()
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
    if not found:
        raise FileNotFoundError(f"no images in {folder}" if folder.is_dir() else f"no folder {folder}")
    place = hashlib.sha256(f"{folder.resolve()} {size} {exact}".encode()).hexdigest()[:16]
    content = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in found]
    images = store.decoded(
        f"folder-{place}",
        repr(content),
        (len(found), 3, size, size),
        lambda: (_photograph(file, size, exact) for file in found),
    )
    return PhotoSet(images, folder.name, str(folder))


def _laid_out(split: str, folder: Path) -> Iterator[np.ndarray]:
    """The images of each batch, (10000, 3, 32, 32) uint8, from the files of either archive."""
    for name, (md5_binary, md5_python) in _CIFAR10[split].items():
        binary = folder.name.endswith("-bin")
        path = folder / (f"{name}.bin" if binary else name)
        if not path.exists():
            raise FileNotFoundError(f"no file {path}: the split is not whole")
        content = store.verified(path, md5_binary if binary else md5_python, _BATCH * _ROW + _PICKLED)
        if binary:
            yield _pixels(content)
        else:  # safe to unpickle: its checksum is the official one
            yield np.asarray(pickle.loads(content, encoding="bytes")[b"data"], np.uint8).reshape(_BATCH, 3, 32, 32)


def _downloaded(split: str) -> Iterator[np.ndarray]:
    """The same from the archive, which is not unpacked."""
    folder = files.downloads_folder() / "cifar10"
    with tarfile.open(files.download(_ADDRESSES, _ARCHIVE, f"md5:{_ARCHIVE_MD5}", folder, _INSTEAD)) as archive:
        for name in _CIFAR10[split]:
            batch = archive.extractfile(f"cifar-10-batches-bin/{name}.bin")
            assert batch is not None, "the archive is the official one"
            yield _pixels(batch.read())


def _pixels(content: bytes) -> np.ndarray:
    """A binary batch has a label and three planes an image."""
    return np.frombuffer(content, np.uint8).reshape(_BATCH, _ROW)[:, 1:].reshape(_BATCH, 3, 32, 32)


def _photograph(path: Path, size: int, exact: bool) -> np.ndarray:
    """(1, 3, size, size) uint8."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            if exact and opened.size != (size, size):
                given = f"{opened.width} x {opened.height}"
                raise ValueError(f"{path} is {given}, the images of this set are {size} x {size}")
            image = opened.convert("RGB")
    except (OSError, SyntaxError, zlib.error, Image.DecompressionBombError) as error:
        raise store.damaged(path, f"it cannot be decoded ({error})") from error
    if image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BOX if side > size else Image.Resampling.BICUBIC, box)
    return np.asarray(image).transpose(2, 0, 1)[None]
