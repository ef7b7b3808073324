"""The files around the package and the chapters agree with each other and do what they say."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sync_address import in_step, pages_of, public_address
from try_colab import PUBLISHED, versions

from ebmm.__main__ import parser

CONTENT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
PROJECT = CONTENT["project"]
LOCKED = ("requirements.lock", "requirements-torch.txt")

# A lower bound above these would make Colab replace its own.
COLAB = versions(PUBLISHED.read_text())


def requirements(name: str) -> list[str]:
    """The lines of a lock without comments and hashes, such as "appnope==1.0.0 ; sys_platform == 'darwin'"."""
    text = (ROOT / name).read_text(encoding="utf8").replace("\\\n", "")
    lines = [line.partition(" --hash")[0].strip() for line in text.splitlines()]
    return [re.sub(r" +", " ", line) for line in lines if line and not line.startswith("#")]


def pins(*names: str) -> dict[str, str]:
    """Name to version of what these locks give this machine."""
    found = {}
    for requirement in (Requirement(line) for name in names for line in requirements(name)):
        (exact,) = requirement.specifier
        assert exact.operator == "==" and "*" not in exact.version, requirement
        if requirement.marker is None or requirement.marker.evaluate():
            found[canonicalize_name(requirement.name)] = exact.version
    return found


def asked_for() -> list[Requirement]:
    """What the package, its extras and those who test it ask for."""
    extras = PROJECT["optional-dependencies"].values()
    lists = [PROJECT["dependencies"], *extras, CONTENT["dependency-groups"]["dev"]]
    return [Requirement(text) for each in lists for text in each]


def files_of_the_repository() -> list[Path]:
    """What git keeps or would keep."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def run(code: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)


def make(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """Runs make as a user would, without what the `make test` around us was told."""
    told = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=cwd, env=told, capture_output=True, text=True)


# Versions


def test_lock_and_environment_hold_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [item for item in environment["dependencies"] if isinstance(item, str)]
    (pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert pip == [line for name in LOCKED for line in requirements(name)]
    (python,) = [item.removeprefix("python=") for item in conda if item.startswith("python=")]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python)
    assert "pip" in conda


def test_lock_holds_all_that_the_project_asks_for():
    locked = pins(*LOCKED)
    for asked in asked_for():
        assert asked.specifier.contains(locked[canonicalize_name(asked.name)]), f"{asked} is locked otherwise"


def test_lock_is_complete_and_installed_as_it_stands():
    """Nothing that an installed distribution needs is left to chance."""
    from importlib.metadata import distribution, version

    locked = pins(*LOCKED)
    local = re.compile(r"\+.*")
    assert {name: local.sub("", version(name)) for name in locked} == locked
    for name in locked:
        for text in distribution(name).requires or []:
            needed = Requirement(text)
            if name == "torch" and needed.name in CONTENT["tool"]["uv"]["exclude-dependencies"]:
                continue  # of CUDA; torch pins them
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in locked.keys() | {"pip"}, f"{name} needs {text}"


@pytest.mark.parametrize(
    "name", ["requirements.lock", "benchmarks/requirements.txt", "tools/node.lock", "tools/release.lock"]
)
def test_all_but_torch_is_locked_by_hash(name):
    text = (ROOT / name).read_text(encoding="utf8").replace("\\\n", "")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.search(r" --hash=sha256:[0-9a-f]{64}", line)] == []
    named = {canonicalize_name(Requirement(line).name) for line in requirements(name)}
    platform = {name for name in named if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert not named & {"torch"} and not platform, "another build of torch would bring what it does not need"


def test_locks_agree_with_each_other_and_with_what_is_held():
    locked = pins(*LOCKED)
    for other in ("benchmarks/requirements.txt", "tools/release.lock"):
        assert {name: version for name, version in pins(other).items() if locked.get(name, version) != version} == {}
    for held in map(Requirement, CONTENT["tool"]["uv"]["constraint-dependencies"]):
        assert held.specifier.contains(locked[held.name])


def test_benchmarks_lock_what_they_ask_for():
    locked = pins("benchmarks/requirements.txt", "requirements-torch.txt")
    for line in requirements("benchmarks/requirements.in"):
        asked = Requirement(line)
        assert asked.specifier.contains(locked[asked.name])


def test_a_wrong_hash_fails_the_installation(tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "small-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        wheel.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("small-1.0.dist-info/RECORD", "")
    right = hashlib.sha256((wheels / "small-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    (line,) = [
        line
        for line in make("--dry-run", "install", "VENV=new", cwd=ROOT).stdout.splitlines()
        if "require-hashes" in line
    ]
    options = line.partition("install ")[2].replace("requirements.lock", str(tmp_path / "lock")).split()
    assert "--require-hashes" in options
    for digest, outcome in ((right, 0), ("0" * 64, 1)):
        (tmp_path / "lock").write_text(f"small==1.0 --hash=sha256:{digest}\n")
        pip = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(wheels)]
        done = subprocess.run([*pip, *options, "--target", str(tmp_path / digest)], capture_output=True, text=True)
        assert done.returncode == outcome, done.stderr


def test_the_package_asks_lower_bounds_only_that_colab_meets():
    for text in PROJECT["dependencies"]:
        asked = Requirement(text)
        assert [specifier.operator for specifier in asked.specifier] == [">="]
        assert asked.specifier.contains(COLAB[asked.name]), f"Colab's {COLAB[asked.name]} is too old for {text}"


def test_jupyter_book_is_the_last_of_its_line():
    assert "jupyter-book==1.0.4.post1" in PROJECT["optional-dependencies"]["book"]


# The public address


def test_every_file_is_in_step_with_the_public_address():
    assert [str(path) for path, text in in_step(ROOT).items() if path.read_text(encoding="utf8") != text] == []


@pytest.mark.parametrize("new_tag", ["v7.8.9", "v0.2.0rc1"])
def test_changing_the_address_and_the_version_changes_every_file(new_tag, tmp_path):
    for path in files_of_the_repository():
        if path.suffix not in {".png", ".npz", ".safetensors"}:
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    old, old_tag = public_address(ROOT)
    new = "https://github.com/somebody/else.where"
    config, project = tmp_path / "_config.yml", tmp_path / "pyproject.toml"
    config.write_text(config.read_text().replace(f"url: {old}\n", f"url: {new}\n"))
    project.write_text(project.read_text().replace(f'version = "{old_tag[1:]}"', f'version = "{new_tag[1:]}"'))

    command = [sys.executable, str(tmp_path / "tools" / "sync_address.py")]
    assert subprocess.run([*command, "--check"], capture_output=True).returncode == 1
    subprocess.run(command, check=True, capture_output=True)
    assert subprocess.run([*command, "--check"], capture_output=True).returncode == 0

    assert public_address(tmp_path) == (new, new_tag)
    project.write_text(project.read_text().replace(f'version = "{new_tag[1:]}"', 'version = "10.0"'))
    subprocess.run(command, check=True, capture_output=True)
    assert new_tag not in (tmp_path / "book" / "use.md").read_text(), "a second release leaves the first one's tag"
    project.write_text(project.read_text().replace('version = "10.0"', f'version = "{new_tag[1:]}"'))
    subprocess.run(command, check=True, capture_output=True)
    named = old.removeprefix("https://github.com/")
    kept = {path: path.read_text(encoding="utf8") for path in tmp_path.rglob("*") if path.is_file()}
    assert [path for path, text in kept.items() if named in text and "sync_address" not in path.name] == []
    published = [path for path, text in kept.items() if pages_of(old) in text]
    assert published == []
    for path in [*tmp_path.glob("book/*.ipynb"), tmp_path / "ebmm" / "_repository.py", config]:
        assert new in kept[path] and new_tag in kept[path] and old_tag not in kept[path]
    assert f"version: {new_tag[1:]}\n" in kept[tmp_path / "CITATION.cff"]
    assert f'VERSION = "{new_tag[1:]}"' in kept[tmp_path / "ebmm" / "_repository.py"]


# What the pages say


def test_readme_has_the_two_commands_a_picture_the_chapters_and_fits_two_screens():
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    assert "\nmake book " in readme and "\nmake test " in readme
    assert "CITATION.cff" in readme
    assert len(readme.splitlines()) <= 80
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", readme):
        assert (ROOT / target).exists(), f"README.md links to {target}"
    assert {f"book/{path.name}" for path in (ROOT / "book").glob("[0-9]*.ipynb")} <= set(
        re.findall(r"\]\(([^)]+)\)", readme)
    )


@pytest.mark.parametrize("name", ["book", "package", "entry", "question"])
def test_a_form_for_issues_asks_what_github_can_show(name):
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf8"))
    assert form["name"] and form["description"] and form["labels"]
    assert {part["type"] for part in form["body"]} <= {"input", "textarea", "dropdown"}
    assert len({part["id"] for part in form["body"]}) == len(form["body"])
    assert all(part["attributes"]["label"] for part in form["body"])
    assert any(part.get("validations", {}).get("required") for part in form["body"])


def test_changes_name_this_version_and_what_is_to_come():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf8"), re.MULTILINE)
    assert headings[:2] == ["Unreleased", PROJECT["version"]]


def test_make_knows_the_documented_targets():
    targets = [
        "book",
        "test",
        "bench",
        "colab",
        "serve",
        "zip",
        "lint",
        "format",
        "address",
        "figures",
        "lock",
        "dist",
        "hooks",
        "clean",
        "distclean",
    ]
    listed = make("help", cwd=ROOT).stdout
    for target in targets:
        assert f"make {target}" in listed
        assert make("--dry-run", target, cwd=ROOT).returncode == 0


def test_a_failed_install_fails_make(tmp_path):
    for name in ("Makefile", "pyproject.toml", "requirements-torch.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "requirements.lock").write_text("this-is-not-a-requirement=1\n")
    for _ in range(2):
        outcome = make("install", f"PYTHON={sys.executable}", cwd=tmp_path)
        assert outcome.returncode != 0
        assert not (tmp_path / ".venv" / "locked").exists()


def test_make_says_which_python_it_needs(tmp_path):
    for name in ("Makefile", *LOCKED):
        shutil.copy(ROOT / name, tmp_path)
    outcome = make("install", "PYTHON=", cwd=tmp_path)
    assert outcome.returncode != 0
    assert "Python 3.11, 3.12, 3.13 or 3.14 is needed" in outcome.stdout + outcome.stderr


def without_make() -> list[str]:
    """What CONTRIBUTING.md says to do where there is no make."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
    return text.split("Without `make`")[1].split("```\n")[1].splitlines()


def test_the_way_without_make_is_that_of_make(tmp_path):
    for path in [ROOT / "Makefile", ROOT / "pyproject.toml", *ROOT.glob("requirements*"), *ROOT.glob("package*.json")]:
        shutil.copy(path, tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "fetch_widgets.py", tmp_path / "tools")
    done = make("--dry-run", "book", "test", "PYTHON=python", cwd=tmp_path)
    text = done.stdout.replace(".venv/bin/jupyter-book", "python -m jupyter book").replace(".venv/bin/python", "python")
    text = re.sub(r" (--clear|--disable-pip-version-check|--quiet|--numprocesses \d+)(?= |$)", "", text)
    made = [" ".join(line.split()) for line in text.splitlines() if re.match(r"python (-m|tools/)", line)]
    assert made == [line for line in without_make() if line != ". .venv/bin/activate"], done.stderr


# The package as it is installed


IMPORT = """
import sys, time
import torch

LATE = ["matplotlib", "IPython", "ipywidgets", "pooch", "seaborn", "pandas", "PIL", "safetensors"]
before, done = set(sys.modules), []

def watch(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.mkdir", "os.remove", "os.rename", "shutil.")):
        done.append((event, arguments))
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        done.append((event, arguments))

sys.addaudithook(watch)
start = time.process_time()  # whatever else the machine does
import ebmm
seconds = time.process_time() - start
assert not done, done
early = [name for name in LATE if name in set(sys.modules) - before]
assert not early, early
print(seconds)
"""


def test_importing_is_quick_and_does_nothing_else(tmp_path):
    outcomes = [
        subprocess.run([sys.executable, "-B", "-c", IMPORT], cwd=tmp_path, capture_output=True, text=True)
        for _ in range(3)
    ]
    assert all(outcome.returncode == 0 for outcome in outcomes), outcomes[0].stderr
    assert min(float(outcome.stdout) for outcome in outcomes) <= 0.5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "called"), [("/usr/bin/ebmm", "ebmm"), ("ebmm.exe", "ebmm"), ("ebmm/__main__.py", "python -m ebmm")]
)
def test_the_command_calls_itself_as_it_was_called(program, called, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program, "list"])
    assert parser().prog == called


ASKED_OF_US = [
    "PP006",
    "PP302",
    "PP304",
    "PP305",
    "PP306",
    "GH200",
    "MY101",
    "MY104",
    "MY105",
    "MY106",
    "RF002",
    "SEC001",
    "PC100",
    "PC160",
    "PY007",
]


def test_what_other_projects_hold_is_held_or_said_not_to_apply():
    program = Path(sys.executable).with_name("repo-review")
    told = subprocess.run([program, "--format", "json", "."], cwd=ROOT, capture_output=True, text=True)
    checks = json.loads(told.stdout)["checks"]
    assert {name: checks[name]["result"] for name in ASKED_OF_US} == dict.fromkeys(ASKED_OF_US, True)
    told_off = (
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8").split("| why it does not apply |")[1].split("\n\n")[0]
    )
    assert set(re.findall(r"[A-Z]{2}\d{3}", told_off)) == set(CONTENT["tool"]["repo-review"]["ignore"])


LINT = [
    "ruff check .",
    "ruff format --check .",
    "mypy",
    "mypy --platform win32 --cache-dir .mypy_cache/windows ebmm",
    "codespell",
    "zizmor --offline --quiet .github",
    "repo-review .",
    "nbstripout --keep-id --verify NOTEBOOKS",
]


@pytest.mark.parametrize("command", LINT)
def test_what_make_lint_checks_holds(command):
    words = [word for word in command.split() if word != "NOTEBOOKS"]
    notebooks = [str(path) for path in sorted((ROOT / "book").glob("*.ipynb"))] if "NOTEBOOKS" in command else []
    program = Path(sys.executable).with_name(words[0])
    told = os.environ | {"RUFF_NO_CACHE": "true"}  # its cache in book/ would look as if a chapter had left it
    checked = subprocess.run([program, *words[1:], *notebooks], cwd=ROOT, env=told, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_lint_is_the_same_by_make_and_by_nox():
    dry = make("--dry-run", "lint", "VENV=new", "NOTEBOOKS=NOTEBOOKS", cwd=ROOT).stdout.splitlines()
    made = [line.removeprefix("new/bin/") for line in dry if line.startswith("new/bin/")]
    assert [command for command in made if not command.startswith("python ")] == LINT
    session = (ROOT / "noxfile.py").read_text(encoding="utf8").partition("def lint(")[2]
    calls = [ast.literal_eval(f"[{call}]") for call in re.findall(r'session\.run\(((?:"[^"]+"(?:, )?)+)', session)]
    assert [" ".join(call) for call in calls] == [command.removesuffix(" NOTEBOOKS") for command in LINT]
