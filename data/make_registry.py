"""Write registry.txt: the name and SHA-256 of every data file here, in pooch's registry format.

    python data/make_registry.py

Run it after any change of a data file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent
SUFFIXES = {".npz", ".safetensors", ".json"}


def registry() -> str:
    """The text of the registry for the files as they are now."""
    files = sorted(path for path in FOLDER.rglob("*") if path.suffix in SUFFIXES)
    digests = {path.relative_to(FOLDER).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return "".join(f"{name} {digest}\n" for name, digest in digests.items())


if __name__ == "__main__":
    (FOLDER / "registry.txt").write_text(registry(), newline="\n")
    print(registry(), end="")
