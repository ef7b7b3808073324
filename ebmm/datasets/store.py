"""Where data sets are found, in a folder that the user laid out or downloaded; verified, and decoded once."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import math
import os
import warnings
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ebmm import files
from ebmm._repository import VERSION

_PATIENCE = 600  # seconds to wait for another process that decodes the same images
_DIGEST = hashlib.sha256().digest_size
_verified = set[tuple[Any, ...]]()  # decoded files that this process has compared with their digest, as they were then


def check_choice(argument: str, given: str, choices: Collection[str]) -> None:
    if given not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, choices))}, got {given!r}")


def check_size(size: object) -> None:
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be a whole number of pixels, at least 1, got {size!r}")


def laid_out(root: str | os.PathLike[str] | None, folder: str, names: list[str]) -> Path | None:
    """The first of ``names`` in the user's own folder; ``None`` where it is to be downloaded."""
    given = root or os.environ.get("EBMM_DATA")
    if not given:
        return None
    paths = [Path(given).expanduser() / folder / name for name in names]
    found = next((path for path in paths if path.exists()), None)
    if found is None and root:
        raise FileNotFoundError(f"no file {paths[0]}: leave out root={str(root)!r} to download it")
    return found


def damaged(path: Path, reason: str) -> ValueError:
    """The error to raise for a file that the user laid out."""
    return ValueError(
        f"{path} is damaged: {reason}. It was left as it is: lay it out again; what can be downloaded will be, "
        "if the file is moved away"
    )


def verified(path: Path, md5: str, at_most: int) -> bytes:
    """The content of an official file, unpacked if it ends in .gz; no more is read than the official one has."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(at_most + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise damaged(path, "it is not a whole gzip file") from error
    if len(content) > at_most:
        raise damaged(path, f"its content has more than {at_most} bytes, the official file has not")
    digest = hashlib.md5(content).hexdigest()
    if digest != md5:
        raise damaged(path, f"its content has MD5 {digest}, the official file has {md5}")
    return content


def decoded(name: str, source: str, shape: tuple[int, ...], parts: Callable[[], Iterable[np.ndarray]]) -> Tensor:
    """Images as uint8 of this shape, decoded once into a file of the cache folder that is mapped into memory.

    The file is an ordinary .npy file with the SHA-256 of all its bytes behind them. A process compares the two
    when it first takes the file, and again when the file has changed.

    Args:
        name: of what is decoded; a file of the same name from another source gives way.
        source: all that the images depend on, as text.
        shape: of all images together.
        parts: gives them in pieces, (M, ...) each; called when there is no such file, or no whole one.
    """
    folder = files.cache_folder() / "decoded"
    key = hashlib.sha256(f"ebmm {VERSION}, {source}".encode()).hexdigest()[:16]
    kept = folder / f"{name}-{key}.npy"
    of_the_source: list[OSError] = []

    def told_apart() -> Iterator[np.ndarray]:
        try:
            yield from parts()
        except OSError as error:
            of_the_source.append(error)
            raise

    try:
        if not _is_whole(kept, shape):
            with files.locked(folder / name, _PATIENCE):
                if not _is_whole(kept, shape):  # another process may have made it meanwhile
                    files.sweep(folder)
                    _keep(kept, shape, told_apart())
                    for old in set(folder.glob(f"{name}-{'?' * len(key)}.npy")) - {kept}:
                        with suppress(OSError):  # on Windows, where another process has mapped it
                            old.unlink()
        return torch.from_numpy(np.load(kept, mmap_mode="c"))  # copy on write: torch warns of what cannot be written
    except OSError as error:
        if error in of_the_source:
            raise
        warnings.warn(
            f"could not keep {name} in {folder} ({error}): it is decoded into memory, and again in the next run. "
            "Make room there, or set XDG_CACHE_HOME to a folder that has some",
            stacklevel=3,
        )
        return torch.from_numpy(np.concatenate(list(parts())).reshape(shape))


def _header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether the file holds images of this shape, and just those that were written."""
    try:
        status = path.stat()
        state = str(path), shape, status.st_ino, status.st_size, status.st_mtime_ns
        if state in _verified:
            return True
        content = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError):  # not there, or empty
        return False
    header, (written, digest) = _header(shape), np.split(content, [-_DIGEST])
    whole = (
        len(written) == len(header) + math.prod(shape)
        and written[: len(header)].tobytes() == header
        and hashlib.sha256(written).digest() == digest.tobytes()
    )
    if whole:
        _verified.add(state)
    return whole


def _keep(path: Path, shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> None:
    header, digest = _header(shape), hashlib.sha256()
    contents = itertools.chain([header], (np.ascontiguousarray(part).tobytes() for part in parts))
    with files.replacing(path) as beside, open(beside, "wb") as file:
        for content in contents:
            digest.update(content)
            file.write(content)
        if file.tell() != len(header) + math.prod(shape):
            raise ValueError(f"{file.tell() - len(header)} bytes of images, which are no uint8 of shape {shape}")
        file.write(digest.digest())
