"""The house is in order: imports run downward, files are short, `import ebmm` is light, the map names each room."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "ebmm"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

# The rooms of the package, a level a line, the lowest first: a room imports from lower levels only.
ORDER = """
_repository
descent files given metrics recompute slopes steady
memory machine muon
layers coders
misfit bank
network energies hopfield dense tasks datasets baselines results
trial
model
gradients identity evaluation rounding
history
training
experiments
__init__
book
__main__
"""
LEVELS = {room: level for level, line in enumerate(ORDER.split("\n")) for room in line.split()}

CORE = {"memory", "model", "network", "layers", "energies", "hopfield", "dense", "training", "evaluation", "tasks"}
CORE_LINES, FILE_LINES = 3270, 450
HEAVY = {"matplotlib", "seaborn", "pandas", "PIL", "pooch", "IPython", "ipywidgets"}
SECONDS = 0.5  # of `import ebmm`, over those of torch


def room_of(file: str) -> str:
    """The room of a file, told from its path within the package."""
    return file.split("/")[0].removesuffix(".py")


ROOMS = {room_of(file) for file in FILES}


def imported(code: str) -> set[str]:
    """The rooms that code imports from, wherever in it the import stands."""
    rooms = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            rooms |= {name.name for name in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: name the room, from ebmm.… import"
            rooms |= {f"{node.module}.{name.name}" for name in node.names}
    inside = [name.split(".") + ["__init__"] for name in rooms if name.split(".")[0] == "ebmm"]
    return {room if room in ROOMS else "__init__" for _, room, *_ in inside}


def running_up(room: str, code: str) -> set[str]:
    """The rooms that a file imports from and must not."""
    return {other for other in imported(code) - {room} if LEVELS[other] >= LEVELS[room]}


def without_encoding(code: str) -> list[int]:
    """Lines that read or write text in whatever encoding the machine prefers, which on Windows is not UTF-8."""
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    found = []
    for call in calls:
        name, second = ast.unparse(call.func), " ".join(map(ast.unparse, call.args[1:2]))
        of_text = name.endswith((".read_text", ".write_text")) or (name == "open" and "b" not in second)
        if of_text and "encoding" not in {keyword.arg for keyword in call.keywords}:
            found.append(call.lineno)
    return found


def lines(*paths: Path) -> int:
    return sum(len(path.read_text(encoding="utf8").splitlines()) for path in paths)


def test_each_room_has_a_place_in_the_order():
    assert LEVELS.keys() >= ROOMS, "enter it in ORDER, and in the map of CONTRIBUTING.md"


@pytest.mark.parametrize("file", FILES)
def test_no_import_runs_up(file):
    assert running_up(room_of(file), (PACKAGE / file).read_text(encoding="utf8")) == set()


@pytest.mark.parametrize(
    ("room", "code", "found"),
    [
        ("tasks", "from ebmm.memory import Memory\nimport torch", set()),
        ("energies", "from ebmm.energies.slots import DenseEnergy", set()),
        ("__main__", "from ebmm.book import course", set()),
        ("tasks", "from ebmm.model import EBMM", {"model"}),
        ("tasks", "def f():\n    from ebmm import files, training", {"training"}),
        ("hopfield", "from ebmm.dense import DenseMemory", {"dense"}),
        ("experiments", "import ebmm.book.plotting", {"book"}),
        ("experiments", "from ebmm import book", {"book"}),
        ("model", "import ebmm", {"__init__"}),
        ("model", "from ebmm import EBMM", {"__init__"}),
    ],
)
def test_an_import_that_runs_up_is_found(room, code, found):
    assert running_up(room, code) == found


@pytest.mark.parametrize("file", FILES)
def test_text_has_the_same_encoding_everywhere(file):
    assert without_encoding((PACKAGE / file).read_text(encoding="utf8")) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("open(a, 'rb')\npath.read_text('x', encoding='utf8')\nImage.open(path)\nopen(a, encoding='utf8')", []),
        ("open(a)\nwith open(a, 'w') as file: pass", [1, 2]),
        ("Path(a, b).read_text()\nbeside.write_text(text)", [1, 2]),
    ],
)
def test_text_without_an_encoding_is_found(code, found):
    assert without_encoding(code) == found


def test_importing_is_light_and_quick():
    code = f"""
import json, sys, time, torch
start = time.perf_counter()
import ebmm
print(json.dumps([time.perf_counter() - start, sorted({HEAVY} & {{*sys.modules}}), "ebmm.book" in sys.modules]))
"""
    fastest = float("inf")
    for _ in range(3):  # a busy machine is slow, but seldom three times
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        seconds, heavy, book = json.loads(done.stdout)
        assert heavy == [] and not book
        fastest = min(fastest, seconds)
        if fastest <= SECONDS:
            break
    assert fastest <= SECONDS


def test_the_core_is_short():
    assert ROOMS >= CORE
    assert lines(*(PACKAGE / file for file in FILES if room_of(file) in CORE)) <= CORE_LINES


@pytest.mark.parametrize("file", [file for file in FILES if room_of(file) != "book"])
def test_a_file_is_short(file):
    assert lines(PACKAGE / file) <= FILE_LINES


def the_map() -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
    return text.split("## The map\n")[1].split("\n## ")[0]


def test_the_map_names_the_rooms_that_there_are():
    named = set(re.findall(r"^\| `(\w+)/?` \|", the_map(), re.MULTILINE))
    assert named == ROOMS - {"__init__"}


def test_what_the_map_names_is_there():
    paths = re.findall(r"`((?:ebmm|tests|book|data|tools)/[\w/.]*)`", the_map())
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []
