"""What the pages say is so: code runs, commands and names exist, links lead somewhere, sources are cited."""

from __future__ import annotations

import ast
import importlib
import json
import keyword
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import papermill
import pytest
from conftest import CHAPTERS, ROOT, sources
from sync_address import public_address
from test_repository import without_make
from torch.distributed.run import parse_args as parse_torchrun

import ebmm
from ebmm import __main__ as command_line
from ebmm import experiments
from ebmm.book.exercises import EXERCISES

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
ADDRESS, TAG = public_address(ROOT)

# Commands that are not tried here, and why.
TRIED_ELSEWHERE = {
    "cd course": "the folder that the line before it writes",
    "nbgrader generate_assignment 03_writing --create": "nbgrader 0.9.6 made and graded chapter 1 by hand",
    "nbgrader autograde 03_writing": "the same",
    "cd course/03_writing": "a folder that the line before it writes",
    "otter generate -t tests -r requirements.txt -c otter_config.json": "Otter 7.0.0 made its archive by hand",
    "otter grade -n 03_writing -a autograder.zip --timeout 900 submissions": "needs Docker; `otter run` graded by hand",
    "pip install otter-grader": "Otter comes from its own project",
}


def named(paths: list[Path]) -> list:
    return [pytest.param(path, id=path.name) for path in paths]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf8")


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block."""
    return [(language, content) for language, content in re.findall(r"(?ms)^```([^\n]*)\n(.*?)^```", text)]


def without_blocks(text: str) -> str:
    return re.sub(r"(?ms)^```.*?^```", "", text)


def spans(text: str) -> list[str]:
    """Code within running text."""
    return [span.replace("\n", " ") for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", without_blocks(text))]


def prose_and_code(path: Path) -> tuple[str, list[str]]:
    """The running text of a page or notebook, and its Python."""
    if path.suffix == ".ipynb":
        return "\n\n".join(sources(path, "markdown")), sources(path, "code")
    text = text_of(path)
    return text, [content for language, content in blocks(text) if language == "python"]


# Python


def python_blocks() -> list:
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(content for language, content in blocks(text_of(page)) if language == "python")
    ]


@pytest.mark.parametrize("block", python_blocks())
def test_python_on_a_page_runs(block, tmp_path):
    outcome = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.strip(), "it shows nothing"
    logs = ["runs"] if "SummaryWriter" in block else []
    assert [path.name for path in tmp_path.iterdir()] == logs, "it leaves files behind"


def test_what_the_recipe_of_a_callback_logs_is_read_by_tensorboard(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (recipe,) = [block for _, block in blocks(text_of(ROOT / "book" / "use.md")) if "SummaryWriter" in block]
    printed = f"{recipe}\nimport json\nprint(json.dumps(history.rows))"
    outcome = subprocess.run([sys.executable, "-c", printed], cwd=tmp_path, capture_output=True, text=True, check=True)
    rows = json.loads(outcome.stdout.splitlines()[-1])
    logged = accumulator.EventAccumulator(str(tmp_path / "runs" / "predictive"))
    logged.Reload()
    for name in ("loss", "error", "gradient norm"):
        found = {event.step: event.value for event in logged.Scalars(name)}
        assert found == pytest.approx({row["step"]: row[name] for row in rows})


def test_recipes_are_short():
    for language, content in blocks(text_of(ROOT / "book" / "use.md")):
        lines = [line for line in content.splitlines() if line.strip() and not re.match("(import|from) ", line)]
        assert len(lines) <= 16, f"{len(lines)} lines of {language or 'commands'}: {lines[0]}"


# Commands


def commands(text: str) -> Iterator[str]:
    """Each command of the blocks without a language, and those that stand in the text as code."""
    for language, content in blocks(text):
        if language in ("", "sh", "bash"):
            for line in content.replace("\\\n", " ").splitlines():
                yield from (part.strip() for part in re.sub(r"(^|\s)#.*", "", line).split("&&") if part.strip())
    yield from (span for span in spans(text) if re.match(r"(make|pip|python|torchrun|git|conda) \S", span))


def fault(command: str) -> str:
    """What is wrong with a command; empty if nothing is."""
    if command in TRIED_ELSEWHERE:
        return ""
    try:
        words = shlex.split(command)
    except ValueError as error:
        return str(error)
    match words:
        case ["make", *arguments]:
            told = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
            tried = subprocess.run(
                ["make", "--dry-run", *arguments], cwd=ROOT, env=told, capture_output=True, text=True
            )
            return tried.stderr
        case ["pip", "install", *packages]:
            (package,) = packages
            known = package in ("ebmm", "ebmm[course]", "ebmm[train]") or re.fullmatch(
                rf"(ebmm\[course\] @ )?git\+{re.escape(ADDRESS)}@{re.escape(TAG)}", package
            )
            return "" if known else f"it installs {package}"
        case ["python", "-m", "venv" | "pip" | "jupyter" | "pytest", *_] | [".", _]:
            return "" if command in without_make() else "the way without make has no such command"
        case ["python", "-m", "ebmm", *arguments]:
            return fault_of_arguments(arguments)
        case ["python", "-m", module] if module.startswith("benchmarks."):
            return "" if (ROOT / f"{module.replace('.', '/')}.py").is_file() else "no such benchmark"
        case ["torchrun", *arguments]:
            try:
                given = parse_torchrun(arguments)
            except SystemExit:
                return "torchrun does not understand it"
            if not (given.module and given.training_script == "ebmm"):
                return "it does not run ebmm as a module"
            return fault_of_arguments(given.training_script_args)
        case ["papermill", notebook, _, *parameters]:
            known = papermill.inspect_notebook(str(ROOT / notebook))
            return ", ".join(f"no parameter {name}" for name in parameters[1::3] if name not in known)
        case ["git", "clone", url]:
            return "" if url == ADDRESS else f"the repository is not at {url}"
        case ["cd", folder]:
            return "" if folder == ADDRESS.rpartition("/")[2] else f"cloning makes no folder {folder}"
        case ["conda", "env", "create", "--file", file] | ["python", file, *_]:
            return "" if (ROOT / file).is_file() else f"no file {file}"
    return "nobody tries it: teach fault() how, or enter it in TRIED_ELSEWHERE with the reason"


def fault_of_arguments(arguments: list[str]) -> str:
    """What is wrong with arguments of ``python -m ebmm``, of which the name of a subcommand alone may be mentioned."""

    def look_up(given) -> None:
        experiments.find(given.name, given.model)

    with pytest.MonkeyPatch.context() as patch:
        for name, instead in {
            "_list": bool,
            "_train": look_up,
            "_evaluate": look_up,
            "_course": bool,
            "_grade": bool,
        }.items():
            patch.setattr(command_line, name, instead)
        try:
            if arguments in (["train"], ["evaluate"], ["course"], ["grade"]):
                return ""
            return "" if command_line.main(arguments) == 0 else "no such experiment or model"
        except SystemExit:
            return "its arguments are not understood"


@pytest.mark.parametrize("path", named([*PAGES, *NOTEBOOKS]))
def test_commands_on_a_page_are_understood(path):
    found = {command: fault(command) for command in commands(prose_and_code(path)[0])}
    assert {command: wrong for command, wrong in found.items() if wrong} == {}


def test_no_command_is_excused_that_no_page_names():
    assert set(TRIED_ELSEWHERE) <= {command for page in PAGES for command in commands(text_of(page))}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("make coffee", "No rule"),
        (f"pip install git+{ADDRESS}@v0.0.0", "it installs git"),
        ("pip install embm", "it installs embm"),
        ("pip install 'ebmm[cource]'", "it installs ebmm[cource]"),
        ("python -m pip install ebmm", "no such command"),
        ("python -m ebmm play", "not understood"),
        ("python -m ebmm train binary-17", "no such experiment"),
        ("python -m ebmm train binary-16 --model hop", "no such experiment or model"),
        ("torchrun --nproc-per-node=2 -m ebmm train binary-16 --steps many", "not understood"),
        ("torchrun --nproc-per-node=2 ebmm train binary-16", "as a module"),
        ("torchrun --processes=2 -m ebmm train binary-16", "does not understand"),
        (f"git clone {ADDRESS}s", "not at"),
        ("cd abmm", "no folder"),
        ("conda env create --file conda.yml", "no file"),
        ("python tools/absent.py", "no file"),
        ("papermill book/01_hopfield.ipynb out.ipynb -p FAST true -p SLOW true", "no parameter SLOW"),
        ("rm -rf /", "nobody tries it"),
        ("python -m ebmm 'course", "No closing quotation"),
    ],
)
def test_a_wrong_command_is_found(command, words):
    assert words in fault(command)


def test_commands_are_taken_from_blocks_and_from_the_text():
    block = "```\npip install a \\\n  b  # why\ngit clone c && cd d\n```\n"
    page = f"Do `make book X=1`.\n\n{block}\n```python\nprint(1)\n```\n"
    assert list(commands(page)) == ["pip install a    b", "git clone c", "cd d", "make book X=1"]


# Names


@cache
def modules() -> dict[str, object]:
    names = ["ebmm", *(module.name for module in pkgutil.walk_packages(ebmm.__path__, "ebmm."))]
    return {name: importlib.import_module(name) for name in names if not name.endswith("__main__")}


@cache
def public() -> dict[str, object]:
    """Every class, function and constant of the package by its own name."""
    return {name: thing for module in modules().values() for name, thing in vars(module).items()}


def has(thing: object, name: str) -> bool:
    fields = getattr(thing, "__dataclass_fields__", {}) if isinstance(thing, type) else {}
    return hasattr(thing, name) or name in fields or f"{getattr(thing, '__name__', '')}.{name}" in modules()


def exists(name: str) -> bool:
    """Whether a dotted name such as "ebmm.EBMM.write" can be imported or reached."""
    parts = name.split(".")
    end = max(end for end in range(1, len(parts) + 1) if ".".join(parts[:end]) in modules() or end == 1)
    thing, rest = modules()[".".join(parts[:end])], parts[end:]
    for part in rest:
        if not has(thing, part):
            return False
        thing = getattr(thing, part, None)
    return True


def missing_in_prose(prose: str, defined: str = "") -> list[str]:
    """Names of the package that a text mentions and that do not exist."""
    missing = [name for name in re.findall(r"(?<![\w/.@-])ebmm(?:\.[A-Za-z_]\w*)+", prose) if not exists(name)]
    for span in spans(prose):
        method = re.match(r"model\.(\w+)", span)
        if method and not has(ebmm.EBMM, method[1]):
            missing.append(span)
        # A class, perhaps with an attribute: of the package, or of the code on the same page.
        match = re.match(r"([A-Z]\w*[a-z]\w*)(?:\.([a-z_]\w*))?(?![\w-])", span)
        head, attribute = match.groups() if match else ("", "")
        if (
            not head
            or keyword.iskeyword(head)
            or re.search(rf"\b(class {head}\b|{head} =|import .*\b{head}\b)", defined)
        ):
            continue
        if head not in public() or (attribute and not has(public()[head], attribute)):
            missing.append(span)
    return missing


def missing_in_code(code: str) -> list[str]:
    """Names that code takes from the package and that do not exist there."""
    tree = ast.parse(code)
    known: dict[str, str] = {"ebmm": "ebmm"}  # what each name in the code stands for
    missing = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ebmm":
            for alias in node.names:
                known[alias.asname or alias.name] = full = f"{node.module}.{alias.name}"
                if node.module not in modules() or not exists(full):
                    missing.append(full)
        if isinstance(node, ast.Import):
            missing += [a.name for a in node.names if a.name.startswith("ebmm.") and a.name not in modules()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            head, *rest = ast.unparse(node).split(".")
            name = ".".join([known.get(head, ""), *rest])
            if head in known and re.fullmatch(r"[\w.]+", name) and known[head] in modules() and not exists(name):
                missing.append(name)
    return missing


@pytest.mark.parametrize("path", named([*PAGES, *NOTEBOOKS]))
def test_names_of_the_package_exist(path):
    prose, code = prose_and_code(path)
    whole = "\n\n".join(code)
    assert missing_in_prose(prose, whole) + missing_in_code(whole) == []


@pytest.mark.parametrize(
    ("prose", "found"),
    [
        ("`ebmm.EBMM` and ebmm.tasks, `ebmm.Hopfield.read`, `ebmm.tasks.Task.metric`, `Task.metric`.", []),
        ("See `ebmm.EBMN`.", ["ebmm.EBMN"]),
        ("See {py:func}`ebmm.tasks.flip`.", ["ebmm.tasks.flip"]),
        ("| `ebmm.EBMM.wrote` |", ["ebmm.EBMM.wrote"]),
        ("`FlipBitz(0.1)` and `Hopfield.reads`", ["FlipBitz(0.1)", "Hopfield.reads"]),
        ("`model.write(patterns)`, `model.forget(patterns)`", ["model.forget(patterns)"]),
        (f"[ebmm]({ADDRESS}.git)", []),
    ],
)
def test_a_name_that_does_not_exist_is_found_in_a_text(prose, found):
    assert missing_in_prose(prose) == found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import ebmm\nfrom ebmm.book import plotting\nplotting.use_style()\nebmm.fit", []),
        ("from ebmm.tasks import FlipBits, Flip", ["ebmm.tasks.Flip"]),
        ("from ebmm.task import FlipBits", ["ebmm.task.FlipBits"]),
        ("import ebmm.task", ["ebmm.task"]),
        ("import ebmm\nebmm.fits(1)", ["ebmm.fits"]),
        ("from ebmm.book import plotting as p\np.use_stile()", ["ebmm.book.plotting.use_stile"]),
    ],
)
def test_a_name_that_does_not_exist_is_found_in_code(code, found):
    assert missing_in_code(code) == found


# Links


class Links(HTMLParser):
    """What a page links to or loads, and the anchors that it has."""

    def __init__(self, path: Path):
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text_of(path))

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self.targets += [given[name] for name in ("href", "src") if given.get(name)]


def broken_links(folder: Path) -> list[str]:
    """Links between the pages of a folder that lead nowhere."""
    pages = {path: Links(path) for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts}
    broken = []
    for page, links in pages.items():
        for target in links.targets:
            url = urlsplit(target)
            if url.scheme or url.netloc or target == "#":
                continue
            file = (page.parent / unquote(url.path)).resolve() if url.path else page
            anchor = unquote(url.fragment)
            if not file.is_file() or (anchor and file in pages and anchor not in pages[file].anchors):
                broken.append(f"{page.name}: {target}")
    return broken


@pytest.mark.slow
def test_every_link_within_the_book_leads_somewhere(built_book):
    assert broken_links(built_book) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = '<h1 id="top">A</h1><a href="b.html#end">1</a><a href="#tip">2</a><a href="c.html">3</a><img src="d.png">'
    (tmp_path / "a.html").write_text(f'{page}<a href="#top">4</a><a href="https://e.org/f.html">5</a><a href="#">6</a>')
    (tmp_path / "b.html").write_text('<a href="a.html#top">1</a>')
    assert broken_links(tmp_path) == ["a.html: b.html#end", "a.html: #tip", "a.html: c.html", "a.html: d.png"]


def links_in_markdown(prose: str) -> list[str]:
    """Targets of links to files; MyST's links to labels begin with #."""
    targets = re.findall(r"\]\(([^()\s#]+)(?:#[^()\s]*)?\)", without_blocks(prose))
    return [target for target in targets if not re.match(r"\w+:", target)]


@pytest.mark.parametrize("path", named([*PAGES, ROOT / "data" / "README.md", *NOTEBOOKS]))
def test_links_to_files_of_the_repository_lead_somewhere(path):
    targets = links_in_markdown(prose_and_code(path)[0])
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_links_are_taken_from_the_text():
    prose = "[a](b.md) [c](d.ipynb#e), [f](https://g.h) ![i](j.png) [k](#l)\n```\n[m](n)\n```\n"
    assert links_in_markdown(prose) == ["b.md", "d.ipynb", "j.png"]


# Sources


def entries() -> dict[str, dict[str, str]]:
    """The fields of each entry of the bibliography."""
    found = re.findall(r"(?ms)^@\w+\{([^,]+),\n(.*?)^\}", text_of(ROOT / "book" / "references.bib"))
    return {key: dict(re.findall(r"(?m)^  (\w+) = \{(.*)\},$", fields)) for key, fields in found}


def addresses_of(fields: dict[str, str]) -> list[str]:
    return [fields[name] for name in ("doi", "url") if name in fields]


def all_prose() -> str:
    pages = [page for page in PAGES if page.parent.name == "book"]
    return "\n\n".join(prose_and_code(path)[0] for path in [*pages, *NOTEBOOKS])


@pytest.mark.parametrize("key", entries())
def test_every_source_can_be_found_and_is_cited(key):
    """A chapter cites a source by a link to its DOI or address, a page may also name its key."""
    prose = all_prose()
    addresses = addresses_of(entries()[key])
    assert addresses, f"{key} has neither DOI nor address"
    cited = any(re.search(rf"{re.escape(address)}(?![\w/])", prose) for address in addresses)
    assert cited or re.search(rf"\{{cite:?\w*\}}`[^`]*\b{key}\b", prose), f"{key} is not cited"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_what_a_chapter_recommends_is_in_the_bibliography(chapter):
    reading = prose_and_code(ROOT / "book" / f"{chapter}.ipynb")[0].split("## Further reading")[1].split("\n## ")[0]
    linked = re.findall(r"\]\((?:https://doi\.org/)?(\S+?)\)(?=[\s:,.;]|$)", reading)
    known = {address for fields in entries().values() for address in addresses_of(fields)}
    outside = [address for address in linked if address not in known and not address.endswith(".ipynb")]
    assert linked and outside == []


# The page for instructors


def test_times_told_to_instructors_are_those_at_the_head_of_the_chapters():
    rows = re.findall(r"(?m)^\| \[.*\]\((\d\d_\w+)\.ipynb\) \| (.*) \| (.*) \|$", text_of(ROOT / "book" / "teach.md"))
    assert [chapter for chapter, _, _ in rows] == CHAPTERS
    for chapter, reading, running in rows:
        head = re.sub(r"\s+>?\s*", " ", prose_and_code(ROOT / "book" / f"{chapter}.ipynb")[0].split("**Time**")[1])
        assert head.startswith(f" {reading}."), chapter
        assert f" runs in {running} " in head.replace(".", " ")[:200], chapter


def test_the_exercises_set_by_the_plan_are_those_of_the_chapters_read():
    plan = text_of(ROOT / "book" / "teach.md").split("## Four weeks")[1].split("\n## ")[0]
    exercises = set(EXERCISES)
    for week in plan.split("### ")[1:]:
        read = {int(chapter) for chapter in re.findall(r"\((\d\d)_\w+\.ipynb\)", week)}
        asked = re.findall(r"\b(\d)\.(\d)\b", week.split("**Set**")[1].split("- **")[0])
        assert {int(chapter) for chapter, _ in asked} == read
        assert {f"{chapter}.{number}" for chapter, number in asked} <= exercises
