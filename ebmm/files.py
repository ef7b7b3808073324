"""Where files are: in a folder the user laid out, downloaded and verified, or beside the package."""

from __future__ import annotations

import difflib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebmm._repository import REPOSITORY, TAG


def data_path(name: str) -> Path:
    """Where a file of the repository's ``data/`` folder is, in a checkout or beside the installed package.

    What is too large to travel with the package, such as trained weights, is downloaded from the
    repository at the package's own tag. All files are compared with ``data/registry.txt``.

    Args:
        name: of the file, as the registry has it, such as ``"digits.npz"``.

    Returns:
        The path of a verified file.

    Raises:
        ValueError: a name that is not in the registry, or a file that differs from it.
        FileNotFoundError: a package without ``data/registry.txt``.
        ConnectionError: the file must be downloaded and cannot be.

    Example:
        >>> data_path("digits.npz").name
        'digits.npz'
    """
    folder, registry = _data_folder(), data_files()
    if name not in registry:
        similar = ", ".join(difflib.get_close_matches(name, registry, n=5)) or "none"
        raise ValueError(f"no file {name!r} in {folder / 'registry.txt'}; similar ones there: {similar}")
    path = folder / name
    if not path.exists():
        folder = downloads_folder() / "data" / TAG
        instead = f"work in a checkout of {REPOSITORY}, whose data folder holds it"
        return download([f"{REPOSITORY}/raw/{TAG}/data/"], name, f"sha256:{registry[name]}", folder, instead)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != registry[name]:
        raise ValueError(
            f"{path} is damaged or was made anew: its SHA-256 is {digest}, {folder / 'registry.txt'} "
            f"says {registry[name]}. Restore it, or run data/make_registry.py if the change is meant"
        )
    return path


def data_files() -> dict[str, str]:
    """All files of the repository's ``data/`` folder, and the SHA-256 of each.

    Example:
        >>> "digits.npz" in data_files()
        True
    """
    registry, digests = _data_folder() / "registry.txt", {}
    for number, line in enumerate(registry.read_text().splitlines(), 1):
        if len(line.split()) != 2:
            raise ValueError(f"line {number} of {registry} is no name and SHA-256: {line!r}; restore the file")
        name, digest = line.split()
        digests[name] = digest
    return digests


def _data_folder() -> Path:
    return folder_with("registry.txt", "data", "data")


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
    """Fetch one file, or take it from ``folder`` if an earlier download there is whole.

    Args:
        addresses: to try one after the other.
        name, checksum: of the file, as pooch has them.
        folder: where it is kept.
        instead: what to do without a network, for the message.

    Raises:
        ConnectionError: no address gave the whole file.
    """
    import pooch
    import requests

    failures = []
    for address in addresses:
        fetcher = pooch.create(folder, base_url=address, registry={name: checksum}, retry_if_failed=1)
        try:
            return Path(fetcher.fetch(name))
        except (requests.RequestException, ValueError) as error:
            failures.append(f"  {address}{name}: {error}")
    lines = [f"could not download {name}:", *failures, f"Without a network, {instead}."]
    raise ConnectionError("\n".join(lines))


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a new file beside ``path`` to write to, which then takes its place: whole and on the disk, or not at all.

    Whatever stops it leaves what was at ``path`` before. Folders that are missing are made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(f"{folder}/a.txt") as beside:
        ...         _ = beside.write_text("whole")
        ...     Path(folder, "a.txt").read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def locked(path: str | os.PathLike):
    """A lock that one process at a time holds on ``path``, in a file beside it; freed when the process ends, however.

    A context manager; ``filelock.Timeout`` where another one holds it.
    """
    from filelock import FileLock

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"), timeout=10)
