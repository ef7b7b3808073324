"""Where files are, in a folder the user laid out, downloaded or beside the package; and how they are written whole."""

from __future__ import annotations

import difflib
import errno
import glob
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ebmm._repository import REPOSITORY, TAG

if sys.platform != "win32":
    import fcntl


def data_path(name: str) -> Path:
    """The path of a file of the repository's ``data/`` folder, whole: its SHA-256 is that in ``data/registry.txt``.

    It is taken from the first of three places: the checkout, or what came with the package; the cache, a folder in
    ``EBMM_DATA`` where that is set; the repository at the package's own tag, from which this one file is fetched
    into the cache. Nearly all weights come only that way into an installed package.

    Args:
        name: relative to ``data/``, such as "results/seeds.json"; :func:`data_files` lists them.

    Raises:
        ValueError: a name that is not in the registry, or a file of the first place that was changed or damaged.
        ConnectionError: a file that cannot be fetched, or arrives otherwise than the registry says.
        OSError: a cache that cannot be written to.

    Example:
        >>> data_path("digits.npz").name
        'digits.npz'
    """
    folder, registry = folder_with("registry.txt", "data", "data"), data_files()
    if name not in registry:
        similar = ", ".join(difflib.get_close_matches(name, registry, n=5)) or "none"
        raise ValueError(f"no file {name!r} in {folder / 'registry.txt'}; similar ones there: {similar}")
    path = folder / name
    if not path.exists():
        cached = downloads_folder() / "data" / TAG
        instead = f"put the file there as {cached / name}; a checkout of {REPOSITORY} holds it as data/{name}"
        # Not the release's assets: those have no folders, and would have to be kept in step with the registry.
        return download([f"{REPOSITORY}/raw/{TAG}/data/"], name, f"sha256:{registry[name]}", cached, instead)
    digest = digest_of(path, "sha256")
    if digest != registry[name]:
        raise ValueError(
            f"{path} is damaged or was made anew: its SHA-256 is {digest}, {folder / 'registry.txt'} "
            f"says {registry[name]}. Restore it, or run data/make_registry.py if the change is meant"
        )
    return path


def digest_of(path: str | os.PathLike[str], method: str) -> str:
    """Of a file's content, by a method of :mod:`hashlib`; in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, method).hexdigest()


def as_json(content: Any, **options: Any) -> str:
    """JSON, with NumPy's and PyTorch's numbers as plain ones; TypeError for what it cannot hold."""

    def plain(value: Any) -> Any:
        if not hasattr(value, "tolist"):
            raise TypeError(f"{value!r} is not JSON serializable: give numbers, texts, and lists and dicts of them")
        return value.tolist()

    return json.dumps(content, default=plain, **options)


def data_files() -> dict[str, str]:
    """All files of the repository's ``data/`` folder, and the SHA-256 of each."""
    registry = folder_with("registry.txt", "data", "data") / "registry.txt"
    lines = registry.read_text(encoding="utf8").splitlines()
    for number, line in enumerate(lines, 1):
        if len(line.split()) != 2:
            raise ValueError(f"line {number} of {registry} is no name and SHA-256: {line!r}; restore the file")
    return dict(line.split() for line in lines)


def folder_with(file: str, installed: str, checkout: str) -> Path:
    """The folder that holds this file: of the first name in the package, of the second beside it."""
    package = Path(__file__).parent
    for folder in (package / installed, package.parent / checkout):
        if (folder / file).exists():
            return folder
    raise FileNotFoundError(f"no {file} in {package / installed} (installed) or {package.parent / checkout} (checkout)")


def cache_folder() -> Path:
    """The user's own, for what can be made again."""
    import pooch

    return Path(pooch.os_cache("ebmm"))


def downloads_folder() -> Path:
    """In ``EBMM_DATA`` where that is set, else in the cache folder."""
    given = os.environ.get("EBMM_DATA")
    return (Path(given).expanduser() if given else cache_folder()) / "downloads"


def download(addresses: list[str], name: str, checksum: str, folder: Path, instead: str) -> Path:
    """Fetch a file from the first address that serves, unless an earlier download in ``folder`` is whole.

    The checksum is as for pooch; ``instead``, what to do without a network, ends the ConnectionError.
    """
    import pooch
    import requests

    path, (method, digest) = folder / name, checksum.split(":")
    if path.exists() and digest_of(path, method) == digest:
        return path
    failures = [f"  {path} is there, but damaged"] if path.exists() else []
    with locked(path.parent, seconds=600):
        for left in path.parent.glob("tmp????????"):  # of a download that was killed
            left.unlink()
        for address in addresses:
            fetcher = pooch.create(folder, base_url=address, registry={name: checksum}, retry_if_failed=1)
            try:
                return Path(fetcher.fetch(name))
            except (requests.RequestException, ValueError) as error:
                failures.append(f"  {address}{name}: {error}")
    lines = [f"could not download {name}:", *failures, f"Without a network, {instead}."]
    raise ConnectionError("\n".join(lines))


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a new file beside ``path`` to write to, which then takes its place: whole and on the disk, or not at all.

    Whatever stops it leaves what was at ``path`` before. Missing folders are made, a link is followed, and what
    killed processes left beside is swept. Where several processes read, change and write, hold :func:`locked`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(f"{folder}/a.txt") as beside:
        ...         _ = beside.write_text("whole")
        ...     Path(folder, "a.txt").read_text()
        'whole'
    """
    path = check_writable(path)
    sweep(path.parent, path.name)
    beside, held = _new_beside(path)
    try:
        if path.exists():
            os.chmod(beside, path.stat().st_mode)
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    finally:
        held.close()
    if sys.platform != "win32":  # which syncs no folders
        folder = os.open(path.parent, os.O_RDONLY)
        with suppress(OSError):  # nor do some network drives
            os.fsync(folder)
        os.close(folder)


def check_writable(path: str | os.PathLike[str]) -> Path:
    """The path with links followed, in a folder that is there; OSError if no file can be written to it."""
    given, path = path, Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"{given} is a folder: name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not all(os.access(needed, os.W_OK) for needed in (path.parent, path) if needed.exists()):
            raise PermissionError(errno.EACCES, "no permission")
    except OSError as error:
        raise OSError(error.errno, f"cannot write {given} ({error.strerror}): give another path") from error
    return path


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left in :func:`replacing` this file of the folder, or any."""
    if sys.platform != "win32":  # which renames no file that is held open to say that its process lives
        for left in folder.glob(f".{glob.escape(name) if name else '*'}.{'[0-9a-f]' * 8}.partial"):
            with suppress(OSError), open(left, "rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while its process lives
                left.unlink()


def _new_beside(path: Path) -> tuple[Path, BinaryIO]:
    """A new file with the permissions of any new file, held until its process ends, so that none sweeps it."""
    while True:
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        held = open(beside, "xb")  # noqa: SIM115
        if sys.platform == "win32":
            held.close()
            return beside, held
        else:
            with suppress(OSError):  # a drive without locks, where none is swept either
                fcntl.flock(held, fcntl.LOCK_EX)
            if os.fstat(held.fileno()).st_nlink:
                return beside, held
            held.close()  # swept before it was held


@contextmanager
def locked(path: str | os.PathLike[str], seconds: float = 10) -> Iterator[None]:
    """One process at a time is inside, for each ``path``, a file or a folder; a killed one lets the next one in.

    The lock is a hidden file beside ``path``, which stays. TimeoutError if another process does not come out.
    """
    from filelock import FileLock, Timeout

    path = Path(os.path.realpath(path))
    lock = FileLock(check_writable(path.with_name(f".{path.name}.lock")), timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        raise TimeoutError(f"{path} is in use by another process: wait until it ends, or give another path") from None
    try:
        yield
    finally:
        lock.release()
