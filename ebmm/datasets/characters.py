"""Where the images come from: Omniglot, MNIST, and a sample of digits that needs no network.

A data set is looked for in the folder given as ``root``, then in the folder that the environment
variable ``EBMM_DATA`` names, both laid out like this and never changed::

    omniglot/images_background.zip, images_evaluation.zip
    mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte      (or the same with .gz)

What is not there is downloaded once, into ``EBMM_DATA/downloads`` or else the user's cache folder.
Every file is compared with the checksum of the official one before it is used; a damaged one in a laid-out
folder is a ``ValueError``, a ``root`` without it a ``FileNotFoundError``, a download that fails a ``ConnectionError``.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ebmm import files
from ebmm.datasets import store

_ADDRESSES = {
    "omniglot": ["https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"],
    "mnist": [
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ],
}
_INSTEAD = (
    "set EBMM_DATA to a folder that holds the data set (help(ebmm.datasets.characters) says how it is laid out), "
    "or use ebmm.datasets.digits(), which comes with the package"
)


@dataclass(frozen=True)
class _OmniglotArchive:
    md5: str  # of the official zip file
    members_sha256: str  # of the list of its PNG files, for the same files zipped again
    characters: int


_OMNIGLOT = {
    "background": _OmniglotArchive(
        md5="68d2efa1b9178cc56df9314c21c6e718",
        members_sha256="deaa02f758afda524b3a045c7af40311f2d9ded3e2a39f715ece8470d474bc6a",
        characters=964,
    ),
    "evaluation": _OmniglotArchive(
        md5="6b91aef0f799c5bb55b94e3f2daec811",
        members_sha256="3d5e035f27423c362bf9a181af649b43cda64c1008f842177ddc5203269c901e",
        characters=659,
    ),
}
_DRAWINGS = 20  # of each Omniglot character
_DRAWING_BYTES = 1000  # more than any of them has as a PNG file

_MNIST = {"train": ("train", 60_000), "test": ("t10k", 10_000)}  # how its files begin, and how many images it has
_IDX = {"images-idx3-ubyte": (16, 784), "labels-idx1-ubyte": (8, 1)}  # bytes of a file's head, and of each image
_MNIST_MD5 = {  # of the file, and of the same file as it is downloaded (.gz)
    "train-images-idx3-ubyte": ("6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    "train-labels-idx1-ubyte": ("a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
    "t10k-images-idx3-ubyte": ("2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
    "t10k-labels-idx1-ubyte": ("27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
}


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images of characters, with ink = 1 and paper = 0.

    Args:
        images: (M, H, W) float32 in [0, 1].
        labels: (M,) int64; ``characters[labels[i]]`` is the name of what image i shows.
        characters, alphabets: the characters' names, and the alphabet of each.
        name, source: what to call the set in a figure or a results file, and where the images were found.

    Example:
        >>> train = digits("train")
        >>> train.images[train.labels == 3].shape
        torch.Size([100, 28, 28])
    """

    images: Tensor
    labels: Tensor
    characters: tuple[str, ...]
    alphabets: tuple[str, ...]
    name: str
    source: str

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        height, width = self.images.shape[1:]
        return (
            f"ImageSet({self.name}: {len(self)} images of {height} x {width}, characters: "
            f"{len(self.characters)}, alphabets: {len(set(self.alphabets))}, source: {self.source})"
        )


def omniglot(split: str = "background", size: int = 28, root: str | os.PathLike[str] | None = None) -> ImageSet:
    """Handwritten characters of 50 alphabets, 20 drawings of each (Lake et al. 2015), alphabet by alphabet.

    Args:
        split: ``"background"`` (30 alphabets, 964 characters) or ``"evaluation"`` (20 alphabets, 659), as officially.
        size: height and width of the images; each pixel is the mean of its share of the original 105 x 105.
        root: a laid-out folder that holds ``omniglot/``; by default ``EBMM_DATA``, else a download.
    """
    store.check_choice("split", split, _OMNIGLOT)
    store.check_size(size)
    archive = _OMNIGLOT[split]
    path = _found(root, "omniglot", [f"images_{split}.zip"], archive.md5)
    members = _verified_members(path, archive)

    shown = [member.split("/", 1)[1].rsplit("/", 1)[0] for member in members]  # "Greek/character01"
    characters = {character: label for label, character in enumerate(sorted(set(shown)))}
    images = store.decoded(
        f"omniglot-{split}-{size}",
        archive.members_sha256,
        (len(members), size, size),
        lambda: _drawings(path, members, size),
    )
    return ImageSet(
        images=_ink(images.numpy()),
        labels=torch.tensor([characters[character] for character in shown]),
        characters=tuple(characters),
        alphabets=tuple(character.split("/")[0] for character in characters),
        name=f"Omniglot {split}",
        source=str(path),
    )


def mnist(split: str = "train", size: int = 28, root: str | os.PathLike[str] | None = None) -> ImageSet:
    """Handwritten digits (LeCun et al. 1998) in the official order; the labels are the digits.

    Args:
        split: ``"train"`` (60000 images), or ``"test"`` (10000 images), as officially.
        size, root: as for :func:`omniglot`, from the original 28 x 28, in ``mnist/``.
    """
    store.check_choice("split", split, _MNIST)
    store.check_size(size)
    pixels, path = _mnist_file(split, "images-idx3-ubyte", root)
    labels, _ = _mnist_file(split, "labels-idx1-ubyte", root)
    return _digit_set(_resize(pixels.reshape(-1, 28, 28), size), labels, f"MNIST {split}", path)


def digits(split: str = "train") -> ImageSet:
    """A sample of MNIST that comes with the package, 28 x 28, digit by digit.

    ``split`` is ``"train"`` (1000 images) or ``"test"`` (500), as many of each digit, from that official split.

    Example:
        >>> digits("test")  # doctest: +ELLIPSIS
        ImageSet(MNIST sample test: 500 images of 28 x 28, characters: 10, alphabets: 1, source: ...)
    """
    store.check_choice("split", split, _MNIST)
    path = files.data_path("digits.npz")
    with np.load(path) as arrays:
        return _digit_set(arrays[f"{split}_images"], arrays[f"{split}_labels"], f"MNIST sample {split}", path)


def _found(root: str | os.PathLike[str] | None, folder: str, names: list[str], md5: str) -> Path:
    """The first of ``names`` in the user's own folder; else the last, downloaded, which has this MD5."""
    path = store.laid_out(root, folder, names)
    if path is not None:
        return path
    return files.download(_ADDRESSES[folder], names[-1], f"md5:{md5}", files.downloads_folder() / folder, _INSTEAD)


def _verified_members(path: Path, archive: _OmniglotArchive) -> list[str]:
    """The names of the PNG files in an Omniglot archive, in order, all of them checked."""
    official = files.digest_of(path, "md5") == archive.md5
    try:
        with zipfile.ZipFile(path) as zipped:
            members = sorted(member for member in zipped.namelist() if member.endswith(".png"))
            if not official and _digest_of(zipped, members) != archive.members_sha256:
                raise store.damaged(path, f"its {len(members)} PNG files are not the official ones")
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise store.damaged(path, "it is not a whole zip file") from error
    if len(members) != archive.characters * _DRAWINGS:
        raise store.damaged(path, f"{len(members)} drawings, not {archive.characters} characters x {_DRAWINGS}")
    return members


def _digest_of(zipped: zipfile.ZipFile, members: list[str]) -> str:
    """SHA-256 of the list of all members' SHA-256; "" if one is too large for a drawing, which is not unpacked."""
    digest = hashlib.sha256()
    for member in members:
        if zipped.getinfo(member).file_size > _DRAWING_BYTES:
            return ""
        digest.update(f"{hashlib.sha256(zipped.read(member)).hexdigest()}  {member}\n".encode())
    return digest.hexdigest()


def _drawings(path: Path, members: list[str], size: int) -> Iterator[np.ndarray]:
    """The drawings of one character after the other, (20, size, size) uint8 with ink = 255."""
    from PIL import Image

    with zipfile.ZipFile(path) as zipped:
        for first in range(0, len(members), _DRAWINGS):
            contents = (io.BytesIO(zipped.read(member)) for member in members[first : first + _DRAWINGS])
            yield _resize(255 - np.stack([np.asarray(Image.open(content).convert("L")) for content in contents]), size)


def _mnist_file(split: str, kind: str, root: str | os.PathLike[str] | None) -> tuple[np.ndarray, Path]:
    """What follows the head of one idx file, as uint8, and where the file was found."""
    (prefix, number), (head, each) = _MNIST[split], _IDX[kind]
    name = f"{prefix}-{kind}"
    md5, md5_zipped = _MNIST_MD5[name]
    path = _found(root, "mnist", [name, name + ".gz"], md5_zipped)
    return np.frombuffer(store.verified(path, md5, head + each * number), np.uint8, offset=head), path


def _digit_set(images: np.ndarray, labels: np.ndarray, name: str, path: Path) -> ImageSet:
    return ImageSet(
        images=_ink(images),
        labels=torch.from_numpy(labels.astype(np.int64)),
        characters=tuple("0123456789"),
        alphabets=("digits",) * 10,
        name=name,
        source=str(path),
    )


def _ink(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images.astype(np.float32)).div_(255)


def _resize(images: np.ndarray, size: int) -> np.ndarray:
    """(M, H, H) uint8 to (M, size, size) uint8; each new pixel is the mean of the area it covers."""
    height = images.shape[-1]
    if size == height:
        return images
    edges = np.linspace(0, height, size + 1)[:, None]
    pixels = np.arange(height)
    overlap = (np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)).clip(0)
    weights = (overlap * (size / height)).astype(np.float32)
    resized = np.empty((len(images), size, size), np.uint8)
    for image, small in zip(images, resized, strict=True):
        small[:] = np.rint(weights @ image.astype(np.float32) @ weights.T)
    return resized
