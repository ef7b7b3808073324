"""Print the oldest versions that pyproject.toml allows, as pip takes them.

make oldest     (or: python tools/oldest.py)
"""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def oldest() -> list[str]:
    """``name==version`` for each dependency; ValueError where one has no lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = []
    for requirement in map(Requirement, project["dependencies"]):
        bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        if len(bounds) != 1:
            raise ValueError(f"{requirement} must have one lower bound")
        pinned.append(f"{requirement.name}=={bounds[0]}")
    return pinned


if __name__ == "__main__":
    print("\n".join(oldest()))
