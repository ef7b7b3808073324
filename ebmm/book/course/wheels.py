"""A folder of wheels, for a machine that grades without a network."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from ebmm._repository import VERSION

LARGE = ("torch", "triton", "nvidia-", "cuda-")  # what PyTorch brings: 200 MB for CPUs, gigabytes with CUDA


def wheelhouse(out: str | Path, torch: bool = True) -> list[Path]:
    """Download the wheels that grading needs, by pip, for the Python and the platform that run this.

    Args:
        out: the folder; it is made where it is missing.
        torch: ``False`` leaves PyTorch out, which is by far the largest.

    Returns:
        The paths of the wheels.

    Raises:
        ImportError: pip is not installed here.
        OSError: pip failed; its words are shown.
    """
    if importlib.util.find_spec("pip") is None:
        raise ImportError("a wheelhouse is filled by pip: python -m ensurepip")
    found = _pip("install", "--dry-run", "--ignore-installed", "--report", "-", f"ebmm[course]=={VERSION}")
    wanted = [
        f"{part['metadata']['name']}=={part['metadata']['version']}"
        for part in json.loads(found)["install"]
        if torch or not part["metadata"]["name"].lower().startswith(LARGE)
    ]
    _pip("download", "--no-deps", "--only-binary", ":all:", "--dest", str(out), *wanted)
    return sorted(Path(out).glob("*.whl"))


def _pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"pip {arguments[0]} failed:\n{done.stderr}")
    return done.stdout
