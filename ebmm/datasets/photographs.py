"""Photographs in colour: CIFAR-10, Tiny-ImageNet and any folder of images (chapter 7).

Looked for in the folder given as ``root``, then in the one that the environment variable ``EBMM_DATA``
names, laid out as their archives unpack::

    cifar-10-batches-bin/data_batch_{1…5}.bin, test_batch.bin      (or cifar-10-batches-py/ without .bin)
    tiny-imagenet-200/train/CLASS/images/*.JPEG, tiny-imagenet-200/val/images/*.JPEG

CIFAR-10 is downloaded where it is not there; a sample of it, :func:`photos`, comes with the package. Images are
decoded once, into a file in the user's cache folder that is mapped into memory, so that a set larger than the
memory serves too.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable
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
_TINY_IMAGENET = {"train": 100_000, "val": 10_000}
_SUFFIXES = {".jpeg", ".jpg", ".png", ".ppm", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, eq=False, repr=False)
class PhotoSet:
    """Photographs in colour, kept as bytes.

    Args:
        images: (M, 3, H, W) uint8, red, green and blue; it may be a file mapped into memory.
        name: what to call the set in a figure or a results file.
        source: where the images were found.

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


def cifar10(split: str = "train", root: str | os.PathLike | None = None) -> PhotoSet:
    """Photographs of ten kinds of things, 32 x 32 (Krizhevsky 2009), officially split.

    Args:
        split: ``"train"`` (50000 images) or ``"test"`` (10000).
        root: a laid-out folder that holds ``cifar-10-batches-bin/`` or ``cifar-10-batches-py/``; by default
            ``EBMM_DATA``, else a download.

    Returns:
        The images in the official order.

    Raises:
        ValueError: another split, or a damaged file in a laid-out folder.
        FileNotFoundError: ``root`` is given and does not hold the files.
        ConnectionError: the archive must be downloaded and cannot be.

    Example:
        >>> cifar10("test").images.shape  # doctest: +SKIP
        torch.Size([10000, 3, 32, 32])
    """
    store.check_choice("split", split, _CIFAR10)
    first = next(iter(_CIFAR10[split]))
    places = [f"cifar-10-batches-bin/{first}.bin", f"cifar-10-batches-py/{first}"]
    found = store.laid_out(root, ".", places)
    source = _ADDRESSES[0] + _ARCHIVE if found is None else str(found.parent)

    def batches() -> Iterable[np.ndarray]:
        folder = _unpacked() if found is None else found.parent
        for name, checksums in _CIFAR10[split].items():
            yield _cifar10_batch(folder, name, checksums)

    shape = (_BATCH * len(_CIFAR10[split]), 3, 32, 32)
    return PhotoSet(_mapped(f"cifar10-{split}", shape, batches), f"CIFAR-10 {split}", source)


def tiny_imagenet(split: str = "train", root: str | os.PathLike | None = None) -> PhotoSet:
    """Photographs of 200 kinds of things, 64 x 64 (Stanford's CS231n, from ImageNet).

    The archive, 237 MB from http://cs231n.stanford.edu/tiny-imagenet-200.zip, is to be unpacked by the user.
    A part of it serves too: all images that are there are taken.

    Args:
        split: ``"train"`` (at most 100000 images) or ``"val"`` (10000).
        root: a laid-out folder that holds ``tiny-imagenet-200/``; by default ``EBMM_DATA``.

    Returns:
        The images, sorted by file name. The name says how many of the official ones there are.

    Raises:
        ValueError: another split, or an image that is damaged or not 64 x 64.
        FileNotFoundError: the split is not there.

    Example:
        >>> tiny_imagenet("val").images.shape  # doctest: +SKIP
        torch.Size([10000, 3, 64, 64])
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
    """A sample of CIFAR-10's test images that comes with the package: no download, no network.

    Returns:
        256 images, (256, 3, 32, 32), evenly spaced in the official order.

    Raises:
        ValueError: a damaged file.

    Example:
        >>> photos()  # doctest: +ELLIPSIS
        PhotoSet(CIFAR-10 test, 256 of 10000 images: 256 images of 32 x 32, source: ...)
    """
    path = files.data_path("photos.npz")
    with np.load(path) as arrays:
        images = torch.from_numpy(arrays["test_images"])
    return PhotoSet(images, f"CIFAR-10 test, {len(images)} of {_BATCH} images", str(path))


def folder_of_images(path: str | os.PathLike, size: int = 64, exact: bool = False) -> PhotoSet:
    """All images in a folder and the folders below it, as squares.

    Args:
        path: the folder. Files count whose names end in .jpeg, .jpg, .png or the like.
        size: height and width of the images. Others are cut to the square in their middle and resized to it.
        exact: refuse images of another size instead.

    Returns:
        The images, sorted by file name.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
        ValueError: a size below 1; a file that cannot be decoded, or with ``exact`` has another size.

    Example:
        >>> folder_of_images("my photographs", size=64)  # doctest: +SKIP
        PhotoSet(my photographs: 812 images of 64 x 64, source: my photographs)
    """
    store.check_size(size)
    folder = Path(path).expanduser()
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
    if not found:
        raise FileNotFoundError(f"no images in {folder}" if folder.is_dir() else f"no folder {folder}")
    digest = hashlib.sha256(f"{folder.resolve()} {size} {exact}".encode())
    for file in found:
        status = file.stat()
        digest.update(f"{file.relative_to(folder)} {status.st_size} {status.st_mtime_ns}\n".encode())

    def photographs() -> Iterable[np.ndarray]:
        for file in found:
            yield _photograph(file, size, exact)[None]

    images = _mapped(f"folder-{digest.hexdigest()[:24]}", (len(found), 3, size, size), photographs)
    return PhotoSet(images, folder.name, str(folder))


def _unpacked() -> Path:
    """The folder of CIFAR-10's batches, downloaded and unpacked if need be."""
    folder = files.downloads_folder() / "cifar10"
    archive = files.download(_ADDRESSES, _ARCHIVE, f"md5:{_ARCHIVE_MD5}", folder, _INSTEAD)
    unpacked = folder / "cifar-10-batches-bin"
    names = [f"{name}.bin" for split in _CIFAR10.values() for name in split]
    if not all((unpacked / name).exists() for name in names):
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    return unpacked


def _cifar10_batch(folder: Path, name: str, checksums: tuple[str, str]) -> np.ndarray:
    """One file's images, (10000, 3, 32, 32) uint8, checked."""
    binary = folder.name.endswith("-bin")
    path = folder / (f"{name}.bin" if binary else name)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path}: the split is not whole") from None
    digest = hashlib.md5(content).hexdigest()
    if digest != checksums[0 if binary else 1]:
        raise store.damaged(path, f"its MD5 is {digest}, not that of the official file")
    if binary:  # a label and three planes an image
        rows = np.frombuffer(content, np.uint8).reshape(_BATCH, 3073)[:, 1:]
    else:  # safe to unpickle: its checksum is the official one
        rows = np.asarray(pickle.loads(content, encoding="bytes")[b"data"], np.uint8)
    return rows.reshape(_BATCH, 3, 32, 32)


def _photograph(path: Path, size: int, exact: bool) -> np.ndarray:
    """(3, size, size) uint8."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, SyntaxError, zlib.error) as error:
        raise store.damaged(path, f"it cannot be decoded ({error})") from error
    if image.size != (size, size):
        if exact:
            raise ValueError(f"{path} is {image.width} x {image.height}, the images of this set are {size} x {size}")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BOX if side > size else Image.Resampling.BICUBIC, box)
    return np.asarray(image).transpose(2, 0, 1)


def _mapped(name: str, shape: tuple[int, ...], parts: Callable[[], Iterable[np.ndarray]]) -> Tensor:
    """Images, uint8 of this shape, decoded once into a file of the cache folder that is mapped into memory."""
    kept = files.cache_folder() / "decoded" / f"{name}.npy"
    try:
        if not _whole(kept, shape):
            _keep(kept, shape, parts())
    except _CacheError as error:
        warnings.warn(
            f"could not keep {name} in {kept.parent} ({error.__cause__}): it is decoded into memory, and again in the "
            "next run. Make room there, or set XDG_CACHE_HOME to a folder that has some",
            stacklevel=3,
        )
        return torch.from_numpy(np.concatenate(list(parts())))
    return torch.from_numpy(np.load(kept, mmap_mode="c"))  # copy on write: torch warns of what cannot be written


class _CacheError(Exception):
    """The cache folder took no more."""


def _whole(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return array.shape == shape and array.dtype == np.uint8


def _keep(path: Path, shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> None:
    """Write the parts into one file, which appears under its name only when it is whole."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False)  # noqa: SIM115
    except OSError as error:
        raise _CacheError from error
    try:
        with file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                _append(file, part)
        os.replace(file.name, path)
    except BaseException:
        os.unlink(file.name)
        raise


def _append(file, part: np.ndarray) -> None:
    try:
        file.write(np.ascontiguousarray(part).tobytes())
        file.flush()
    except OSError as error:
        raise _CacheError from error
