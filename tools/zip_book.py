"""Pack the built book into one file: unpacked anywhere, its index.html is read without a network and without a server.

    make zip         (or: python tools/zip_book.py)

The same pages give the same file, whenever and wherever they are packed.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from sync_address import public_address

ROOT = Path(__file__).resolve().parent.parent
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip file can tell


def pack(pages: Path, archive: Path) -> None:
    """Write a folder of pages into an archive, in which they lie in a folder of the archive's name."""
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(path for path in pages.rglob("*") if path.is_file()):
            told = zipfile.ZipInfo(f"{archive.stem}/{path.relative_to(pages).as_posix()}", LONG_AGO)
            told.compress_type, told.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            told.create_system = 3  # Unix, whose permissions these are, on Windows too
            packed.writestr(told, path.read_bytes())


def main() -> None:
    pages = ROOT / "_build" / "html"
    if not (pages / "index.html").exists():
        raise SystemExit(f"no pages in {pages}: make book")
    archive = ROOT / "_build" / f"ebmm-book-{public_address(ROOT)[1]}.zip"
    pack(pages, archive)
    print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
