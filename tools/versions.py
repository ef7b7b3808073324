"""Lay out what a release adds to the published pages: its own pages under its tag, and the list of all versions.

    make pages TAG=v1.2.3        (or: python tools/versions.py PAGES PUBLISHED TAG INTO)

PAGES are the pages as built, PUBLISHED is what is published today, and INTO is a new folder. The list, versions.json,
is what book/_static/versions.js offers readers to choose from.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from packaging.version import InvalidVersion, Version


def versions_in(published: Path) -> list[str]:
    """The tags under which pages lie, the newest first; other folders are none."""
    tags = []
    for path in published.glob("v*"):
        try:
            tags.append((Version(path.name.removeprefix("v")), path.name))
        except InvalidVersion:
            continue
    return [name for _, name in sorted(tags, reverse=True)]


def lay_out(pages: Path, published: Path, tag: str, into: Path) -> list[str]:
    """Writes the folder ``into``; returns the tags in its list."""
    Version(tag.removeprefix("v"))  # else later releases would not find it
    if not (pages / "index.html").exists():
        raise SystemExit(f"no pages in {pages}: make book")
    shutil.copytree(pages, into / tag)
    Path(into / ".nojekyll").touch()  # without it GitHub Pages leaves out what begins with an underscore
    (published / tag).mkdir(exist_ok=True, parents=True)
    tags = versions_in(published)
    (into / "versions.json").write_text(json.dumps(tags) + "\n", encoding="utf8")
    return tags


if __name__ == "__main__":
    *folders, new, target = sys.argv[1:]
    print("versions:", *lay_out(Path(folders[0]), Path(folders[1]), new, Path(target)))
