"""Lay out what a release adds to the published pages: its own pages under its tag, and the list of all versions.

    make pages TAG=v1.2.3        (or: python tools/versions.py PAGES PUBLISHED TAG INTO)

PAGES are the pages as built, PUBLISHED is what is published today, and INTO is a new folder. The list, versions.json,
is what book/_static/versions.js offers readers to choose from.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from packaging.version import InvalidVersion, Version


def newest_first(names: Iterable[str]) -> list[str]:
    """The names that are tags of versions; names of other folders are left out."""
    tags = []
    for name in names:
        with suppress(InvalidVersion):
            tags.append((Version(name.removeprefix("v")), name))
    return [name for _, name in sorted(tags, reverse=True)]


def lay_out(pages: Path, published: Path, tag: str, into: Path) -> list[str]:
    """Writes the folder ``into``; returns the tags in its list."""
    Version(tag.removeprefix("v"))  # else later releases would not find it
    if not (pages / "index.html").exists():
        raise SystemExit(f"no pages in {pages}: make book")
    shutil.copytree(pages, into / tag)
    Path(into / ".nojekyll").touch()  # without it GitHub Pages leaves out what begins with an underscore
    tags = newest_first({tag, *(path.name for path in published.glob("v*"))})
    (into / "versions.json").write_text(json.dumps(tags) + "\n", encoding="utf8")
    return tags


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    pages, published, tag, into = sys.argv[1:]
    print("versions:", *lay_out(Path(pages), Path(published), tag, Path(into)))
