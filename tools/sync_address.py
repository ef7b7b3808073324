"""Bring every install cell, badge, link and tag in step with the one public address.

    make address     (or: python tools/sync_address.py [--check])

The address is ``repository.url`` in _config.yml, the version is in pyproject.toml, and the tag of a
release is "v" and the version. With --check nothing is written; files out of step are named.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent

# Files that name the address in running text.
TEXTS = ["*.md", "CITATION.cff", "pyproject.toml", "book/*.md", "data/README.md", ".github/ISSUE_TEMPLATE/*.yml"]

REPOSITORY_MODULE = '''\
"""The public address of the repository and this version's number and tag; written by ``make address``."""

REPOSITORY = "{address}"
VERSION = "{version}"
TAG = "{tag}"
'''

INSTALL_CELL = """\
# @title Install the package where it is missing, as on Colab
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("ebmm") is None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    released, repository = "ebmm=={version}", "git+{address}@{tag}"
    if subprocess.run([*pip, released], capture_output=True).returncode:
        subprocess.run([*pip, repository], check=True)
"""

BADGES = """\
[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]\
(https://colab.research.google.com/github/{name}/blob/{tag}/book/{notebook})
\N{MIDDLE DOT} [This notebook on GitHub]({address}/blob/{tag}/book/{notebook})
"""

CITE = """\
## How to cite this chapter

The ebmm book authors ({year}), {title}. Chapter {number} of *Energy-based memory models*, {tag}. \
[{page}]({page})

```bibtex
@incollection{{ebmm_{key},
  author    = {{{{The ebmm book authors}}}},
  title     = {{{title}}},
  booktitle = {{Energy-based memory models: a book to read, run and import}},
  chapter   = {{{number}}},
  year      = {{{year}}},
  version   = {{{version}}},
  url       = {{{page}}}
}}
```
"""


def public_address(root: Path) -> tuple[str, str]:
    """The address and the tag, such as ("https://github.com/ebmm-book/ebmm", "v0.1.0")."""
    address = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))["repository"]["url"]
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]*[\w-]", address):
        raise SystemExit(f"repository.url in _config.yml is not of the form https://github.com/OWNER/NAME: {address}")
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))["project"]["version"]
    return address, f"v{version}"


def pages_of(address: str) -> str:
    """Where GitHub publishes the pages of a repository."""
    owner, name = address.removeprefix("https://github.com/").split("/")
    return f"https://{owner}.github.io/{name}/"


def install_cell(address: str, tag: str) -> str:
    """The source of the cell that installs the release, or what carries its tag where there is none."""
    return INSTALL_CELL.format(address=address, tag=tag, version=tag[1:])


def cell(kind: str, identity: str, source: str, tags: list[str]) -> dict[str, Any]:
    """A notebook cell as git keeps it: without outputs; Colab folds it to its ``# @title``."""
    lines = source.rstrip("\n").splitlines(keepends=True)
    new: dict[str, Any] = {
        "cell_type": kind,
        "id": identity,
        "metadata": {"cellView": "form", "tags": tags} if kind == "code" else {},
        "source": lines,
    }
    whole = new if kind == "markdown" else new | {"execution_count": None, "outputs": []}
    return dict(sorted(whole.items()))  # the order in which nbformat writes them


def with_cell(cells: list[dict[str, Any]], new: dict[str, Any], position: int) -> list[dict[str, Any]]:
    """The cells with ``new`` in the place of the one with its id, or else at ``position``."""
    places = [place for place, old in enumerate(cells) if old.get("id") == new["id"]]
    if places:
        return [new if place == places[0] else old for place, old in enumerate(cells)]
    return [*cells[:position], new, *cells[position:]]


def sync_notebook(text: str, notebook: str, address: str, tag: str, year: str) -> str:
    """A notebook with its badge row (after the title) and its install cell (before all code); a chapter also tells
    before its last cell how to cite it."""
    content = json.loads(text)
    name = address.removeprefix("https://github.com/")
    badges = BADGES.format(name=name, tag=tag, notebook=notebook, address=address)
    install = install_cell(address, tag)
    cells = with_cell(content["cells"], cell("markdown", "badges", badges, []), 1)
    codes = [place for place, old in enumerate(cells) if old["cell_type"] == "code"]
    position = codes[0] if codes else len(cells)
    content["cells"] = with_cell(cells, cell("code", "install", install, ["hide-cell"]), position)
    if chapter := re.fullmatch(r"0*(\d+)_(.+)\.ipynb", notebook):
        cite = CITE.format(
            title="".join(cells[0]["source"]).splitlines()[0].removeprefix("# "),
            number=chapter[1], key=chapter[2], year=year, tag=tag, version=tag[1:],
            page=f"{pages_of(address)}{Path(notebook).stem}.html",
        )  # fmt: skip
        content["cells"] = with_cell(content["cells"], cell("markdown", "cite", cite, []), len(content["cells"]) - 1)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def in_step(root: Path) -> dict[Path, str]:
    """What each file that follows from the address should hold."""
    address, tag = public_address(root)
    name = address.removeprefix("https://github.com/")
    module = root / "ebmm" / "_repository.py"
    known = re.search(r'REPOSITORY = "https://github\.com/(.+)"', module.read_text(encoding="utf8"))
    if known is None:
        raise SystemExit(f"{module} names no REPOSITORY")
    wanted = {}
    for path in sorted(path for pattern in TEXTS for path in root.glob(pattern)):
        # OWNER/NAME stands in links to GitHub and to Colab alike; the pages live at OWNER.github.io/NAME.
        text = path.read_text(encoding="utf8").replace(pages_of(f"https://github.com/{known[1]}"), pages_of(address))
        text = re.sub(rf"(?<=/){re.escape(known[1])}(?![\w-])", name, text)
        wanted[path] = re.sub(rf"(?<={re.escape(name)})(/blob/|@)v\d[\w.]*\w", rf"\g<1>{tag}", text)
    citation = root / "CITATION.cff"
    wanted[citation] = re.sub(r"(?m)^version: .*$", f"version: {tag[1:]}", wanted[citation])
    config = root / "_config.yml"
    settings = re.sub(r"(?m)^  branch: \S+", f"  branch: {tag}", config.read_text(encoding="utf8"))
    wanted[config] = re.sub(r"(?m)^  baseurl: \S+", f"  baseurl: {pages_of(address)}", settings)
    year = yaml.safe_load(wanted[config])["copyright"]
    for path in sorted(root.glob("book/*.ipynb")):
        wanted[path] = sync_notebook(path.read_text(encoding="utf8"), path.name, address, tag, year)
    wanted[module] = REPOSITORY_MODULE.format(address=address, version=tag[1:], tag=tag)
    return wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of step")
    parser.add_argument("--tag", help="with --check: fail if this is not the tag of the version")
    told = parser.parse_args()
    check, tag = told.check, public_address(ROOT)[1]
    if told.tag not in (None, tag):
        sys.exit(f"the tag is {told.tag}, but the version of pyproject.toml asks for {tag}")
    changed = {path: text for path, text in in_step(ROOT).items() if path.read_text(encoding="utf8") != text}
    for path, text in changed.items():
        print(("out of step: " if check else "written: ") + str(path.relative_to(ROOT)))
        if not check:
            path.write_text(text, encoding="utf8")
    if check and changed:
        sys.exit("run: make address")
    if not changed:
        print("every file is in step with _config.yml")


if __name__ == "__main__":
    main()
