"""The sdist and the wheel: what they hold, how much they weigh, and that they serve a stranger without a network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import BOOK, ROOT, cells_of, source, sources
from sync_address import public_address
from test_notebooks import BOUNDS
from test_pages import blocks, text_of
from test_repository import files_of_the_repository

from ebmm.book import course
from ebmm.book.course.chapter import SOLUTION
from ebmm.files import data_files

ADDRESS, TAG = public_address(ROOT)
VERSION = TAG.removeprefix("v")
AT_MOST = 3e6  # bytes
CHAPTER = "02_reading"
EXERCISES = ROOT / "ebmm" / "book" / "exercises"
BIN = "Scripts" if os.name == "nt" else "bin"
INSTEAD = "# Solutions are not in the installed package: they are in the repository, in the folder book/."
JUDGES = re.compile(r"ebmm/book/exercises/_chapter_\d+\.py")


class Built(NamedTuple):
    """The tree that both were built from, and a folder that holds them."""

    tree: Path
    shelf: Path

    @property
    def sdist(self) -> Path:
        return self.shelf / f"ebmm-{VERSION}.tar.gz"

    @property
    def wheel(self) -> Path:
        return self.shelf / f"ebmm-{VERSION}-py3-none-any.whl"


def build(hook: str, tree: Path, shelf: Path) -> None:
    """What pip and the package `build` do, in this environment: call the hook of pyproject.toml's build-backend."""
    code = f"from setuptools import build_meta; build_meta.{hook}({str(shelf)!r})"
    told = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, env=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    """The sdist of what git keeps, and the wheel of what the sdist holds."""
    tree, shelf, unpacked = (tmp_path_factory.mktemp(name) for name in ("tree", "shelf", "unpacked"))
    for path in files_of_the_repository():
        copy = tree / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    found = Built(tree, shelf)
    build("build_sdist", tree, shelf)
    shutil.unpack_archive(found.sdist, unpacked, filter="data")
    build("build_wheel", unpacked / f"ebmm-{VERSION}", shelf)
    return found


def of_the_package(tree: Path) -> set[str]:
    """The files that the package is made of."""
    paths = [*tree.glob("ebmm/**/*"), *tree.glob("book/*.ipynb"), *tree.glob("data/**/*")]
    names = {path.relative_to(tree).as_posix() for path in paths if path.is_file()}
    return {name for name in names if not name.startswith(("data/checkpoints/", "data/."))} | of_the_judges()


def of_the_judges() -> set[str]:
    """The weights that judges of exercises ask for: in a course they may have no network."""
    code = "".join(text_of(path) for path in EXERCISES.glob("_chapter_*.py"))
    named = [f"checkpoints/{name}-{model}.safetensors" for name, model in re.findall('"([^" ]+)", "([^" ]+)"', code)]
    return {f"data/{name}" for name in named if name in data_files()}


def files_in(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_they_are_light(built):
    assert built.sdist.stat().st_size <= AT_MOST
    assert built.wheel.stat().st_size <= AT_MOST


def test_the_sdist_holds_what_the_wheel_is_built_from_and_nothing_else(built):
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    around = {"pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "LICENSE-text", "CITATION.cff"}
    around |= {"CHANGELOG.md"}
    written = {name for name in names if name.startswith("ebmm.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert names == of_the_package(built.tree) | around | written


def test_the_wheel_holds_the_package_the_small_data_and_the_chapters_and_nothing_else(built):
    names = {name for name in files_in(built.wheel) if ".dist-info/" not in name}
    scripts = {name for name in of_the_package(built.tree) if re.fullmatch(r"data/\w+\.py", name)}
    wanted = {name for name in of_the_package(built.tree) - scripts if not JUDGES.fullmatch(name)}
    wanted = {re.sub("^book/", "ebmm/chapters/", re.sub("^data/", "ebmm/data/", name)) for name in wanted}
    assert names == wanted | {"ebmm/book/exercises/judges.zip"}
    assert {"ebmm/data/registry.txt", "ebmm/data/digits.npz", "ebmm/data/results/seeds.json"} <= names
    assert f"ebmm/chapters/{CHAPTER}.ipynb" in names
    assert "ebmm/data/checkpoints/networks-64-16-ebmm-gated.safetensors" in names


def test_the_wheel_says_whose_terms_hold_and_where_to_read_on(built):
    told = files_in(built.wheel)[f"ebmm-{VERSION}.dist-info/METADATA"].decode()
    assert "License-Expression: MIT AND CC-BY-4.0\n" in told
    assert "License-File: LICENSE\n" in told and "License-File: LICENSE-text\n" in told
    assert {"Documentation", "Source", "Issues", "Changelog"} <= set(re.findall("Project-URL: (.+?),", told))
    assert {"book", "course", "train"} == set(re.findall("Provides-Extra: (.+)", told))
    targets = re.findall(r"\]\(([^)]+)\)", told)
    assert all(target.startswith("https://") for target in targets)
    assert f"{ADDRESS}/raw/{TAG}/book/_static/hero.png" in targets and f"{ADDRESS}/blob/{TAG}/LICENSE" in targets


def test_the_wheel_is_built_alike_where_an_earlier_build_left_something(built, tmp_path):
    left = built.tree / "build" / "lib" / "ebmm" / "data" / "checkpoints" / "left.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"")
    build("build_wheel", built.tree, tmp_path)
    here, there = files_in(tmp_path / built.wheel.name), files_in(built.wheel)
    assert [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)] == []


def test_what_an_editable_installation_shows_is_the_checkout_as_it_is(built, tmp_path):
    before = {path: path.read_bytes() for path in built.tree.glob("[be][bo]*/**/*") if path.is_file()}
    build("build_editable", built.tree, tmp_path)
    assert before == {path: path.read_bytes() for path in built.tree.glob("[be][bo]*/**/*") if path.is_file()}


# Students' copies carry no solutions


def is_solution(text: str) -> bool:
    return SOLUTION.match(text) is not None


def test_the_wheel_carries_no_solution(built):
    chapters = {name: text for name, text in files_in(built.wheel).items() if name.startswith("ebmm/chapters/0")}
    assert len(chapters) == len(course.chapters())
    for name, text in chapters.items():
        path = BOOK / Path(name).name
        cells = [source(cell) for cell in json.loads(text)["cells"]]
        kept = "\n".join(source(cell) for cell in cells_of(path) if not is_solution(source(cell)))
        solved = [cell.splitlines()[1:] for cell in sources(path, "code") if is_solution(cell)]
        lines = {line.strip() for solution in solved for line in solution if len(line.strip()) > 20}
        assert len(lines) > 50
        assert [line for line in lines if line in "\n".join(cells) and line not in kept] == []
        stubs = [cell for cell in cells if is_solution(cell)]
        assert len(stubs) == len(solved)
        assert all(stub.splitlines()[1:] == [INSTEAD] for stub in stubs)


def test_the_judges_are_packed_as_they_are(built):
    (built.shelf / "judges.zip").write_bytes(files_in(built.wheel)["ebmm/book/exercises/judges.zip"])
    judges = files_in(built.shelf / "judges.zip")
    assert judges == {path.name: path.read_bytes() for path in EXERCISES.glob("_chapter_*.py")} != {}
    (built.shelf / "judges.zip").unlink()


# A stranger's machine


class Desk(NamedTuple):
    """An environment and an empty folder to work in, without a network."""

    environment: Path
    folder: Path
    told: dict[str, str]

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess:
        command = [str(self.environment / BIN / program), *arguments]
        return subprocess.run(command, cwd=self.folder, env=self.told, capture_output=True, text=True)

    def says(self, program: str, *arguments: str) -> str:
        done = self.run(program, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def desk(built, tmp_path_factory) -> Desk:
    """The first cell of a chapter has run there, in an empty environment, with an index that holds only the wheel.

    Then it is given PyTorch and all else that a reader has, from the environment of these tests.
    """
    environment, folder = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("desk")
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    kept = {name: value for name, value in os.environ.items() if not re.match("(EBMM|PIP|PYTHON|VIRTUAL_ENV)", name)}
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    told = kept | nowhere | {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": built.shelf.as_uri()}
    told |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "EBMM_DATA": str(folder)}
    desk = Desk(environment, folder, told)
    desk.says("python", "-c", sources(BOOK / f"{CHAPTER}.ipynb", "code")[0])
    packages = Path(desk.says("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    theirs = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "lent.pth").write_text("\n".join(theirs))
    return desk


@pytest.mark.slow
def test_a_course_from_the_wheel_is_that_from_the_checkout_and_its_chapter_runs(desk, tmp_path):
    desk.says("ebmm", "course", "--without-solutions", "course")
    for written in course.export(tmp_path, solutions=False):
        copy = desk.folder / "course" / written.relative_to(tmp_path)
        assert copy.read_text(encoding="utf8") == written.read_text(encoding="utf8")
    run = ["--no-progress-bar", "--kernel", "python3", "--parameters", "FAST", "True", "--parameters", "RESULTS"]
    desk.says("python", "-m", "papermill", *run, "results.json", f"course/{CHAPTER}.ipynb", "ran.ipynb")
    results = json.loads((desk.folder / "results.json").read_text(encoding="utf8"))
    bounds = {name: between for name, between in BOUNDS[CHAPTER].items() if name in results}  # solutions add others
    assert len(bounds) > 10
    assert {n: results[n] for n, (low, high) in bounds.items() if not low <= results[n] <= high} == {}


@pytest.mark.slow
def test_recipes_that_need_judges_and_shipped_results_run(desk):
    recipes = [content for _, content in blocks(text_of(BOOK / "use.md"))]
    (checking,) = [recipe for recipe in recipes if "ebmm.book.exercises import check" in recipe]
    (baseline,) = [recipe for recipe in recipes if "class FirstBits" in recipe]
    said = desk.says("python", "-c", f"{checking}\n{baseline}\nprint(ebmm.__file__)")
    assert "1.1: not yet. Nothing was handed in." in said and "first bits" in said
    assert Path(said.splitlines()[-1]).is_relative_to(desk.environment)


WITHOUT_WEIGHTS = """
import pathlib, shutil
from ebmm.experiments import load_contestant
try:
    load_contestant("flipped-64-16", "ebmm-predictive")
except ConnectionError as error:
    place = str(error).partition("put the file there as ")[2].partition(";")[0]
shutil.copy({checkout!r} + "/checkpoints/" + pathlib.Path(place).name, place)
print(load_contestant("flipped-64-16", "ebmm-predictive")[1]["experiment"])
"""


@pytest.mark.slow
def test_weights_are_not_there_and_their_place_is_told(desk):
    assert desk.says("python", "-c", WITHOUT_WEIGHTS.format(checkout=str(ROOT / "data"))) == "flipped-64-16\n"
