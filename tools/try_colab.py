"""Run chapters as Colab does: its versions, nothing but the notebook, the package installed by the first cell.

    make colab       (or: python tools/try_colab.py [CHAPTER ...] [--list current])

The install cell asks PyPI for the release of this version, and where there is none, GitHub for its tag. Here pip
is told to look into a folder that holds the wheel, and git to find that address in a repository; both are made from the
working tree, so that the trial covers what is not yet committed, let alone published. Weights, which do not travel with
the package, are offered as if they had been downloaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version
from sync_address import public_address

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "tools" / "colab.txt"
CURRENT = "https://raw.githubusercontent.com/googlecolab/backend-info/main/pip-freeze.txt"
KERNEL = "colab"
SECONDS_TO_INSTALL = 10
BUILDS_WHEELS = "setuptools>=77"  # what pyproject.toml asks for
THE_RELEASE = "the release"

# What pooch and urllib3 say while they fetch a file or cannot, and warnings of what they are built on.
FETCHING = re.compile(
    r"^(Downloading (file|data)|Updating (file|data)|Failed to download|SHA256 hash of downloaded|Use this value as the"
    r" 'known_hash'|Retrying \(Retry|Connection pool is full).*\n?"
    r"|^.*/(pooch|requests|urllib3)/.*Warning: .*\n?(^  .*\n?)?",
    re.MULTILINE,
)

# The last cell of a trial. Without ipywidgets' Stack it is Python that turns the pages under a slider: each of its
# values must show another page. With Stack the browser does that, and nothing moves here.
LOOK = """\
import json
from importlib.metadata import distribution

import ebmm
import ipywidgets


def shown(widget):
    return widget.value if isinstance(widget, ipywidgets.HTML) else shown(widget.children[-1])


sliders = []
in_python = not hasattr(ipywidgets, "Stack")
for box in [*ipywidgets.Widget.widgets.values()] if in_python else []:
    if "ebmm-frames" in getattr(box, "_dom_classes", ()):
        for slider in box.children:
            if isinstance(slider, ipywidgets.IntSlider):
                values, pages = range(slider.min, slider.max + 1), set()
                for slider.value in values:
                    pages.add(shown(box))
                sliders.append([slider.description, len(values), len(pages)])
told = json.loads(distribution("ebmm").read_text("direct_url.json") or "null")
installed = {
    "file": ebmm.__file__,
    "version": ebmm.__version__,
    "source": "the release",
}
if told:
    installed["source"] = f"{told['url']}@{told['vcs_info']['requested_revision']}, {told['vcs_info']['commit_id']}"
print(json.dumps({"installed": installed, "in_python": in_python, "sliders": sliders}))
"""


class Release(NamedTuple):
    """What stands in for GitHub, a repository, and for PyPI, a folder with the wheel."""

    repository: Path
    wheels: Path


class Trial(NamedTuple):
    """What came of a chapter on Colab's stand-in.

    ``stderr`` holds what its cells wrote there, ``changed`` the packages that came or went besides ebmm,
    ``looked`` what the cell ``LOOK`` found.
    """

    error: str
    seconds: float
    seconds_to_install: float
    stderr: list[str]
    changed: list[str]
    looked: dict[str, Any]
    results: dict[str, Any]


def versions(text: str) -> dict[str, str]:
    """Package to version, from a list as `pip freeze` writes it.

    A package that was installed from an address tells its version in the name of its wheel. A build, such as
    ``+cu126``, is left out, and so is every line that tells no version.
    """
    found = {}
    for line in text.splitlines():
        try:
            asked = Requirement(line.partition(" #")[0].strip())
            if asked.url:
                version = parse_wheel_filename(unquote(Path(urlsplit(asked.url).path).name))[1]
            else:
                (exact,) = [clause.version for clause in asked.specifier if clause.operator == "=="]
                version = Version(exact)
        except (InvalidRequirement, InvalidWheelFilename, ValueError):
            continue
        found[str(canonicalize_name(asked.name))] = version.public
    return found


def wanted_versions(place: str, index: str) -> dict[str, str]:
    """The packages of ``PUBLISHED`` with the versions of the list at ``place``, an address or a file.

    PyTorch is Colab's only where there is an index of CPU builds to take it from. Elsewhere it is the one that the
    book is locked to: any other would bring CUDA along, 3 GB of it.
    """
    place = CURRENT if place == "current" else place
    try:
        if place.startswith("https://"):
            with urlopen(place, timeout=60) as answer:
                text = answer.read().decode()
        else:
            text = Path(place).read_text(encoding="utf8")
    except OSError as error:
        raise SystemExit(f"no list of packages at {place}: {error}") from None
    theirs, ours = versions(text), versions(PUBLISHED.read_text(encoding="utf8"))
    if missing := sorted(ours.keys() - theirs.keys()):
        print(f"no longer in Colab's list, and left out: {', '.join(missing)}")
    wanted = {name: theirs[name] for name in ours if name in theirs}
    if not index or "torch" not in wanted:
        wanted["torch"] = versions((ROOT / "requirements-torch.txt").read_text(encoding="utf8"))["torch"]
    return wanted


def torch_index() -> str:
    """Where CPU builds of PyTorch are, as it was told to make; empty where nothing was told."""
    return os.environ.get("TORCH_INDEX", "")


def environment(folder: Path, wanted: dict[str, str], index: str) -> Path:
    """An environment with these versions and a kernel; made once and kept in ``folder``."""
    recipe = json.dumps([str(folder), sys.version, wanted, index, BUILDS_WHEELS], sort_keys=True)
    place = folder / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    if not (place / "frozen.txt").exists() or (place / "spoilt").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        lines = [f"{name}=={version}" for name, version in wanted.items()]
        if index:
            pip(place, "install", "--index-url", index, f"torch=={wanted['torch']}")
        pip(place, "install", *lines)
        command = [str(place / "bin" / "python"), "-m", "ipykernel", "install", "--sys-prefix", "--name", KERNEL]
        subprocess.run(command, check=True, capture_output=True)
        pip(place, "download", "--dest", str(place / "wheels"), BUILDS_WHEELS)
        (place / "frozen.txt").write_text(pip(place, "freeze"))
    return place


def pip(environment: Path, *arguments: str) -> str:
    """Runs pip there; what it printed."""
    command = [str(environment / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    outcome = subprocess.run(command, capture_output=True, text=True)
    if outcome.returncode:
        raise SystemExit(f"pip {' '.join(arguments)}:\n{outcome.stderr}")
    return outcome.stdout


def release(folder: Path) -> Release:
    """A repository with one commit, what git keeps or would keep of the working tree, under this version's tag, and the
    wheel that is built from it."""
    repository = folder / "repository.git"
    neutral = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(["git", "init", "--quiet", "--bare", str(repository)], env=neutral, check=True)
    command = ["git", "--git-dir", str(repository), "--work-tree", str(ROOT)]
    for option in ("core.compression=0", "user.name=trial", "user.email=trial@localhost", "commit.gpgSign=false"):
        command += ["-c", option]
    for arguments in (
        ["config", "uploadpack.allowFilter", "true"],  # as on GitHub: pip asks for less than everything
        ["add", "--all"],
        ["commit", "--quiet", "--no-verify", "--message", "The working tree"],
        ["tag", public_address(ROOT)[1]],
        ["repack", "--quiet", "-a", "-d", "--window=0"],  # once: else each trial packs all anew
    ):
        subprocess.run([*command, *arguments], cwd=ROOT, env=neutral, check=True)
    build = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    tagged = f"git+{repository.as_uri()}@{public_address(ROOT)[1]}"
    subprocess.run([*build, str(folder / "wheels"), tagged], env=neutral, check=True)
    return Release(repository, folder / "wheels")


def offered_data(folder: Path, official: Path | None) -> Path:
    """A folder for EBMM_DATA: weights as if downloaded, and links to official data sets where there are any."""
    place = folder / "data"
    downloads = place / "downloads" / "data" / public_address(ROOT)[1]
    shutil.copytree(ROOT / "data" / "checkpoints", downloads / "checkpoints")
    for found in official.iterdir() if official and official.is_dir() else ():
        if found.name != "downloads":
            (place / found.name).symlink_to(found.resolve())
    return place


def try_chapter(notebook: Path, environment: Path, release: Release, data: Path, released: bool = True) -> Trial:
    """Runs a notebook as FAST as it goes, alone in an empty folder, by the kernel of the environment.

    ``released=False`` hides the wheel, as before a release.
    """
    content = json.loads(notebook.read_text(encoding="utf8"))
    look: dict[str, Any] = {
        "cell_type": "code",
        "id": "look",
        "metadata": {},
        "source": LOOK,
        "execution_count": None,
        "outputs": [],
    }
    content["cells"].append(look)
    pip(environment, "uninstall", "--yes", "ebmm")
    told = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("EBMM_", "GIT_", "IPYTHON", "JUPYTER_", "MPL", "PIP_", "PYTHON", "VIRTUAL_ENV"))
    }
    shelves = [environment / "wheels", release.wheels] if released else [environment / "wheels"]
    told |= {
        "EBMM_DATA": str(data),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{release.repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": public_address(ROOT)[0],
        "JUPYTER_PATH": str(environment / "share" / "jupyter"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",  # Colab's pip is not ours to judge
        "PIP_FIND_LINKS": " ".join(folder.as_uri() for folder in shelves),
        "PIP_NO_INDEX": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--kernel", KERNEL, "--execution-timeout", "300"]
    command += ["--parameters", "FAST", "True", "--parameters", "RESULTS", "results.json"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / notebook.name).write_text(json.dumps(content), encoding="utf8")
        command += [notebook.name, "ran.ipynb"]
        outcome = subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True)
        ran, results = folder / "ran.ipynb", folder / "results.json"
        if not ran.exists():
            raise SystemExit(outcome.stderr)
        return as_trial(
            json.loads(ran.read_text(encoding="utf8")),
            outcome.stderr[-3000:] if outcome.returncode else "",
            changes(environment),
            json.loads(results.read_text()) if results.exists() else {},
        )


def as_trial(ran: dict[str, Any], error: str, changed: list[str], results: dict[str, Any]) -> Trial:
    """What an executed notebook tells."""
    *cells, look = [cell for cell in ran["cells"] if cell["cell_type"] == "code"]
    (install,) = [cell for cell in cells if cell["id"] == "install"]
    printed = [
        "".join("".join(output["text"]) for output in cell["outputs"] if output.get("name") == "stderr")
        for cell in cells
    ]
    looked = "".join("".join(output.get("text", "")) for output in look["outputs"] if output.get("name") == "stdout")
    return Trial(
        error=error,
        seconds=ran["metadata"]["papermill"]["duration"],
        seconds_to_install=install["metadata"]["papermill"]["duration"] or 0.0,
        stderr=[text for text in printed if text],
        changed=changed,
        looked=json.loads(looked) if looked else {},
        results=results,
    )


def changes(environment: Path) -> list[str]:
    """Packages that came or went since the environment was made, besides ebmm; if any, the next trial makes it anew."""
    before = set((environment / "frozen.txt").read_text().splitlines())
    after = set(pip(environment, "freeze").splitlines())
    lines = [f"went: {line}" for line in before - after] + [f"came: {line}" for line in after - before]
    changed = sorted(line for line in lines if not re.match(r"came: ebmm\W", line))
    if changed:
        (environment / "spoilt").touch()
    return changed


def faults(trial: Trial, environment: Path, source: str = THE_RELEASE, slowness: float = 1.0) -> list[str]:
    """What would trouble a reader on Colab."""
    found = [trial.error] if trial.error else []
    found += [f"written to stderr: {text}" for text in (FETCHING.sub("", text) for text in trial.stderr) if text]
    found += trial.changed
    if trial.seconds_to_install > SECONDS_TO_INSTALL * slowness:
        found.append(f"{trial.seconds_to_install:.0f} seconds to install")
    if trial.looked:
        installed = trial.looked["installed"]
        asked = {"version": public_address(ROOT)[1].removeprefix("v"), "source": source}
        different = [name for name in asked if installed[name] != asked[name]]
        found += [f"installed {name} {installed[name]}, not {asked[name]}" for name in different]
        if not Path(installed["file"]).resolve().is_relative_to(environment.resolve()):
            found.append(f"ebmm is {installed['file']}, not what the notebook installed")
        if trial.looked["in_python"] and not trial.looked["sliders"]:
            found.append("no slider")
        for label, values, pages in trial.looked["sliders"]:
            if pages != values:
                found.append(f"the slider {label!r} shows {pages} pages at {values} values")
    elif not trial.error:
        found.append("the notebook did not come to its end")
    return found


def tagged(release: Release) -> str:
    """What an installation from the repository says that it came from."""
    command = ["git", "--git-dir", str(release.repository), "rev-parse", "HEAD"]
    commit = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return f"{'@'.join(public_address(ROOT))}, {commit}"


def main() -> None:
    chapters = sorted(path.stem for path in (ROOT / "book").glob("[0-9][0-9]_*.ipynb"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("chapter", nargs="*", default=chapters, help="such as 06_characters; all if left out")
    parser.add_argument(
        "--list",
        default=str(PUBLISHED),
        help="address or file of Colab's packages, as pip freeze writes them; `current` asks Colab. "
        "Left out: tools/colab.txt",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.chapter) - set(chapters):
        parser.error(f"no chapter {', '.join(sorted(unknown))}; there are {', '.join(chapters)}")
    official = os.environ.get("EBMM_DATA")
    wanted = wanted_versions(arguments.list, torch_index())
    print(" ".join(f"{name}=={version}" for name, version in wanted.items()), flush=True)
    place = environment(ROOT / "build" / "colab", wanted, torch_index())
    failed = []
    with tempfile.TemporaryDirectory() as name:
        stand_in = release(Path(name))
        data = offered_data(Path(name), Path(official).expanduser() if official else None)
        for chapter in arguments.chapter:
            tried = try_chapter(ROOT / "book" / f"{chapter}.ipynb", place, stand_in, data)
            found = faults(tried, place)
            print(f"{chapter}: {tried.seconds:.0f} s, {tried.seconds_to_install:.1f} of them to install", flush=True)
            print("".join(f"    {fault}\n" for fault in found), end="", flush=True)
            failed += [chapter] if found else []
    if failed:
        sys.exit(f"not well on Colab: {', '.join(failed)}")


if __name__ == "__main__":
    main()
