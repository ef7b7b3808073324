"""Write requirements.lock and environment.yml: the exact versions that the book is built and tested with.

    make lock        (or: python tools/lock.py, with any Python 3.11)

Installs the package with its `book` and `dev` extras into a fresh environment, so that pip chooses the
newest versions that pyproject.toml allows, and records what it chose.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What pip chooses by itself for one platform only: torch's CUDA libraries on Linux, for example.
# Their versions are pinned by the package that asks for them.
PLATFORM = re.compile(r"^(nvidia-|cuda-|triton|appnope|colorama|pywin)", re.IGNORECASE)

# Held back, with the reason.
HELD = [
    "torch==2.13.0",  # every number in the book was computed with it
    "soupsieve<3",  # from 3.0.2 on it asks for Python 3.11.5, and Debian 12 has 3.11.2
]

LOCK_HEAD = """\
# Exact versions for `make`, written by `make lock`: do not edit. The package itself asks lower bounds
# only (pyproject.toml).
"""

ENVIRONMENT_HEAD = """\
# The same versions for conda users, written by `make lock`: do not edit.
#     conda env create --file environment.yml && conda activate ebmm && pip install --no-deps --editable .
name: ebmm
channels:
  - conda-forge
dependencies:
  - python=3.11
  - make
  - nodejs=22
  - pip
  - pip:
"""


def freeze() -> list[str]:
    """The versions that pip chooses in a fresh environment, one `name==version` each."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        # The requirements alone: the package need not be importable to be locked.
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"].values()
        wanted = [*project["dependencies"], *(name for extra in extras for name in extra), *HELD]
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", *wanted], check=True)
        frozen = subprocess.run(
            [python, "-m", "pip", "freeze", "--all"], check=True, capture_output=True, text=True
        ).stdout.split("\n")
    # A local version such as torch 2.13.0+cpu names one build of the release.
    lines = [line.split("+")[0] for line in frozen if "==" in line]
    return [line for line in lines if not line.startswith("pip==") and not PLATFORM.match(line)]


def write(lines: list[str], folder: Path = ROOT) -> None:
    """Both files from the same list."""
    (folder / "requirements.lock").write_text(LOCK_HEAD + "".join(f"{line}\n" for line in lines))
    (folder / "environment.yml").write_text(ENVIRONMENT_HEAD + "".join(f"      - {line}\n" for line in lines))


if __name__ == "__main__":
    write(freeze())
    print("written: requirements.lock and environment.yml")
