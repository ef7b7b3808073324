"""Where data sets are found: in a folder that the user laid out, or downloaded."""

from __future__ import annotations

import os
from pathlib import Path


def check_choice(argument: str, given: str, choices) -> None:
    """Raises ValueError for what is none of the choices."""
    if given not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, choices))}, got {given!r}")


def check_size(size: int) -> None:
    """Raises ValueError for what is no number of pixels."""
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be a whole number of pixels, at least 1, got {size!r}")


def laid_out(root: str | os.PathLike | None, folder: str, names: list[str]) -> Path | None:
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
