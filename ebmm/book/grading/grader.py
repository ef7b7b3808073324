"""Grades one submission after the other, each notebook by a judge of its own."""

from __future__ import annotations

import json
import os
import shutil
import site
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebmm import files
from ebmm.book.exercises import Verdict
from ebmm.book.grading import limits, marks
from ebmm.book.grading.limits import Limits
from ebmm.book.grading.marks import Mark
from ebmm.book.grading.submissions import Submission, cells_of

SHARE_OF_CELLS = 0.8  # of the time: the rest is for judging what they left
PACKAGE = Path(files.__file__).resolve().parent
# Not python -m, which would take modules from where it is started: that may be among what was handed in.
JUDGE = f"""\
import sys
sys.path[:0] = [{str(PACKAGE.parent)!r}] * ({str(PACKAGE.parent)!r} not in sys.path)
from ebmm.book.grading.judge import main
main()
"""
# What a student's process sees of our environment. Whatever else there is may be a secret.
PASSED_ON = (
    "PATH", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX",
    "SYSTEMROOT", "PATHEXT", "COMSPEC", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
)  # fmt: skip


@dataclass(frozen=True)
class Grader:
    """Grades submissions.

    Args:
        points: for each exercise that is asked, by number.
        limits: of each notebook.
        seed: of the variant of the exercises; 0 for the book's own.
        hidden: files and folders that no notebook may read, besides the package, its checkout, and the home folder.
    """

    points: Mapping[str, float]
    limits: Limits = Limits()
    seed: int = 0
    hidden: tuple[Path, ...] = ()

    def grade(self, submissions: list[Submission]) -> Iterator[Mark]:
        """The mark of each student, one after the other.

        Raises:
            ImportError: IPython or psutil is not installed.
        """
        with _without_judges() as package:
            for one in submissions:
                graded = [self._notebook(notebook, package) for notebook in one.notebooks.values()]
                yield marks.best(one, graded)

    def _notebook(self, notebook: str, package: Path) -> Mark:
        verdicts: dict[str, Verdict] = {}

        def tell(line: str) -> None:
            verdict = Verdict(*json.loads(line))
            verdicts[verdict.number] = verdict

        try:
            job = self._job(cells_of(notebook, "code"), package)
        except ValueError as error:
            trouble = str(error)
        else:
            with tempfile.TemporaryDirectory(prefix="ebmm-", ignore_cleanup_errors=True) as folder:
                given = json.dumps(job | {"folder": folder, "environment": _environment(Path(folder), package)})
                trouble = limits.run([sys.executable, "-P", "-c", JUDGE], given, tell, Path(folder), self.limits)
        missing = trouble or "The judge ended early: grade this notebook again."
        found = {number: verdicts.get(number, Verdict(number, False, missing)) for number in self.points}
        return Mark("", "", found, self.points, trouble)

    def _job(self, cells: list[str], package: Path) -> dict[str, Any]:
        hidden = [PACKAGE.parent if _in_checkout() else PACKAGE, Path.home(), *self.hidden]
        needed = [package, *map(Path, {sys.prefix, sys.base_prefix, *site.getsitepackages()}), *_data()]
        return {
            "cells": cells,
            "numbers": list(self.points),
            "seed": self.seed,
            "until": time.time() + SHARE_OF_CELLS * self.limits.seconds,
            "memory": self.limits.memory,
            "hidden": [str(path.resolve()) for path in hidden if path.resolve() != Path("/")],
            "readable": [str(path.resolve()) for path in needed],
        }


def _in_checkout() -> bool:
    return (PACKAGE.parent / "book" / "01_hopfield.ipynb").exists()


def _data() -> list[Path]:
    """Where data sets and weights lie that the package has downloaded."""
    return [files.downloads_folder().parent]


@contextmanager
def _without_judges() -> Iterator[Path]:
    """A folder with a copy of the package, in which check only notes, and which holds no chapters."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(PACKAGE).as_posix()
        return {"__pycache__"} | {".": {"chapters"}, "book": {"exercises"}}.get(inside, set())

    with tempfile.TemporaryDirectory(prefix="ebmm-package-") as given:
        folder = Path(given).resolve()
        shutil.copytree(PACKAGE, folder / "ebmm", ignore=left_out)
        if not (PACKAGE / "data").exists():
            shutil.copytree(files.folder_with("registry.txt", "data", "data"), folder / "data")
        instead = folder / "ebmm" / "book" / "exercises" / "__init__.py"
        instead.parent.mkdir()
        instead.write_text("from ebmm.book.grading.noting import check, use_variant\n", encoding="utf8")
        yield folder


def _environment(folder: Path, package: Path) -> dict[str, str]:
    """All that a student's process is told: nothing that could be a secret, and a home of its own."""
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    others = [path for path in others if not Path(path, "ebmm").exists()]
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    passed_on |= {name: value for name, value in os.environ.items() if name.startswith("LC_")}
    own = dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "IPYTHONDIR", "MPLCONFIGDIR"), str(folder))
    return passed_on | own | {
        "PYTHONPATH": os.pathsep.join([str(package), *others]),
        "EBMM_DATA": os.environ.get("EBMM_DATA") or str(files.cache_folder()),
        "MPLBACKEND": "agg",
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
