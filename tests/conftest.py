"""What several test files share: chapters that run once, and the book built from them."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from filelock import FileLock

from ebmm import files

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("[0-9][0-9]_*.ipynb"))
EBMM_DATA = os.environ.get("EBMM_DATA")  # as it is before any test changes it; set to nothing, there are no data
OFFICIAL = {
    "omniglot": "omniglot/images_evaluation.zip",
    "mnist": "mnist/t10k-images-idx3-ubyte",
    "cifar10": "cifar-10-batches-bin/test_batch.bin",
    "tiny-imagenet": "tiny-imagenet-200/val",
}
IMAGE_CHAPTERS = ("06_characters", "07_photographs")  # which show official data where there are any
# What shares the chapters as they ran and the book built from them stays in one of several processes. It and the
# chapters on Colab take longest, and begin first.
OF_THE_BOOK = tuple(f"tests/pages/test_{name}.py" for name in ("notebooks", "book", "site", "landing", "offline"))
LONGEST = (*OF_THE_BOOK, "tests/pages/test_colab.py")
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
KNOWN = re.compile("THEBE_JS_URL")  # Jupyter Book loads thebe's settings twice; harmless
BOOK = ROOT / "book"
AXE = ROOT / "tests" / "_vendor" / "axe" / "axe.min.js"
THREADS = 1  # the tensors are small; on a busy machine more threads only wait for each other

sys.path.insert(0, str(ROOT / "tools"))


def pytest_configure(config) -> None:
    # Subprocesses and kernels use as many threads as this process.
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    torch.set_num_threads(THREADS)


def pytest_collection_modifyitems(config, items) -> None:
    for item in items:
        if "official" in item.fixturenames:
            item.add_marker("official")
    if hasattr(config, "workerinput"):  # one of several processes
        order = {file: place for place, file in enumerate(LONGEST)}
        items.sort(key=lambda item: order.get(item.nodeid.split("::")[0], len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each process takes whole files, in the order above."""
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "the book" if file in OF_THE_BOOK else file

    config.option.loadscopereorder = False
    return Files(config, log)


@pytest.fixture(name="cache")
def empty_cache(tmp_path, monkeypatch):
    """An empty user cache folder, and no EBMM_DATA."""
    monkeypatch.delenv("EBMM_DATA", raising=False)
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def laid_out(request, tmp_path_factory) -> Callable[[], Path | None]:
    """Gives a folder with official data sets, not always all of them: EBMM_DATA, or where that is not set one that
    ../shared/tools/get_datasets.py lays out; ``None`` where there is neither."""
    tool = ROOT.parent / "shared" / "tools" / "get_datasets.py"

    @cache
    def folder() -> Path | None:
        if EBMM_DATA is not None:
            given = Path(EBMM_DATA).expanduser().resolve()
            return given if EBMM_DATA and given.is_dir() else None
        if not tool.exists():
            return None
        kept = getattr(request.config, "cache", None)
        place = kept.mkdir("ebmm-data") if kept else tmp_path_factory.mktemp("data")
        with FileLock(place / "lock"):  # one process lays them out, the others wait
            for name in OFFICIAL:  # one by one: some may be out of reach
                subprocess.run([sys.executable, str(tool), str(place), name], capture_output=True, check=False)
        return place

    return folder


@pytest.fixture(scope="session")
def official(laid_out) -> Callable[..., Path]:
    """``official("omniglot")`` is a folder that holds the official Omniglot; without one the test skips."""

    def folder(*names: str) -> Path:
        place = laid_out()
        missing = [name for name in names if place is None or not (place / OFFICIAL[name]).exists()]
        if missing or place is None:
            pytest.skip(f"no official {', '.join(missing)} on this machine: set EBMM_DATA to a folder that holds them")
        return place

    return folder


def cells_of(path: Path) -> list[dict]:
    """The cells of a notebook."""
    return json.loads(path.read_text(encoding="utf8"))["cells"]


def opened(path):
    """A picture of a file, which is closed again."""
    from PIL import Image

    with Image.open(path) as picture:
        return picture.copy()


def source(cell: dict) -> str:
    """The text of a cell."""
    return "".join(cell["source"])


def sources(path: Path, kind: str) -> list[str]:
    """The texts of a notebook's cells of one kind, "markdown" or "code"."""
    return [source(cell) for cell in cells_of(path) if cell["cell_type"] == kind]


def script(name: str):
    """A script of the folder data/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "data" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Execution(NamedTuple):
    """What came of running a chapter. ``seconds`` are those that a core computed, whatever else the machine did."""

    path: Path
    seconds: float
    results: dict
    error: str


def run_chapter(chapter: str, folder: Path, environment: dict[str, str] | None = None, **parameters) -> Execution:
    """Runs a chapter as FAST as it goes, with further parameters and environment variables."""
    import papermill

    source = ROOT / "book" / f"{chapter}.ipynb"
    target, results = folder / f"{chapter}.ipynb", folder / f"{chapter}.json"
    parameters = {"FAST": True, "RESULTS": str(results), **parameters}
    # papermill only warns of a parameter that the notebook does not know, and then runs it in full.
    unknown = parameters.keys() - papermill.inspect_notebook(str(source)).keys()
    if unknown:
        return Execution(target, 0.0, {}, f"{chapter} has no parameter {', '.join(sorted(unknown))}")
    error, before = "", os.times()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        try:
            papermill.execute_notebook(
                str(source),
                str(target),
                parameters,
                cwd=str(source.parent),
                kernel_name="python3",
                progress_bar=False,
                execution_timeout=300,
            )
        except papermill.PapermillExecutionError as raised:
            error = str(raised)
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return Execution(target, seconds, json.loads(results.read_text()) if results.exists() else {}, error)


@pytest.fixture(scope="session")
def execute_chapter(tmp_path_factory, laid_out) -> Callable[..., Execution]:
    """``execute_chapter(chapter)`` runs it on the official data where there are any; with ``alone=True`` without
    data and without a network. Each chapter once a session, if data make no difference to it."""
    import matplotlib

    @cache
    def execute(chapter: str, data: Path | None) -> Execution:
        folder = tmp_path_factory.mktemp("executed")
        nowhere = {"EBMM_DATA": "", "XDG_CACHE_HOME": str(folder / "cache"), "MPLCONFIGDIR": matplotlib.get_cachedir()}
        nowhere |= {"no_proxy": "", "NO_PROXY": ""}
        nowhere |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
        return run_chapter(chapter, folder, {"EBMM_DATA": str(data)} if data else nowhere)

    return lambda chapter, alone=False: execute(chapter, None if alone or chapter not in IMAGE_CHAPTERS else laid_out())


@pytest.fixture(scope="session")
def built_book(execute_chapter, tmp_path_factory) -> Path:
    """The folder of the book's pages, built strictly from the chapters as they ran here."""
    import yaml

    if not (ROOT / "book" / "_vendor" / "_static").exists() or not AXE.exists():
        subprocess.run([sys.executable, str(ROOT / "tools" / "fetch_widgets.py")], check=True)
    root = tmp_path_factory.mktemp("book")
    shutil.copytree(ROOT / "book", root / "book", ignore=shutil.ignore_patterns("_build", ".ipynb_checkpoints"))
    for notebook in (*CHAPTERS, "starter", "speed"):
        execution = execute_chapter(notebook)
        assert not execution.error, execution.error
        shutil.copy(execution.path, root / "book" / f"{notebook}.ipynb")
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["execute"]["execute_notebooks"] = "off"
    (root / "_config.yml").write_text(yaml.safe_dump(config))
    command = [str(Path(sys.executable).parent / "jupyter-book"), "build", "book", "--config", "_config.yml"]
    command += ["--path-output", ".", "--warningiserror", "--nitpick", "--keep-going"]
    build = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert build.returncode == 0, build.stdout[-5000:] + build.stderr[-5000:]
    return root / "_build" / "html"


@pytest.fixture(scope="module")
def browser():
    """The Chromium on the path, or the one that CHROMIUM names; without one the test skips, or fails with
    EBMM_REQUIRE_BROWSER=1."""
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    found = [path for name in names if name and (path := shutil.which(name))]
    if not found:
        message = "no Chromium on this machine: the built pages were not looked at"
        pytest.fail(message) if os.environ.get("EBMM_REQUIRE_BROWSER") else pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(browser, built_book):
    """Where a server of this machine shows the built pages."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(built_book)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@contextmanager
def opening(browser, address):
    """What the fixture ``open_page`` gives."""
    contexts = []

    def open_page(name: str, size: str = "desktop", theme: str = "light", **settings):
        touch = size == "phone"
        context = browser.new_context(viewport=SIZES[size], color_scheme=theme, has_touch=touch, **settings)
        contexts.append(context)
        page = context.new_page()
        errors, abroad = [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("response", lambda response: errors.append(response.url) if response.status >= 400 else None)
        page.on(
            "request",
            lambda request: None if request.url.startswith((address, "data:")) else abroad.append(request.url),
        )
        page.goto(f"{address}/{name}", wait_until="networkidle")
        if settings.get("java_script_enabled", True):
            page.wait_for_function("document.documentElement.dataset.theme !== 'auto'")  # a script's work
        page.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
        return page, errors, abroad

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def open_page(browser, address):
    """Opens a page, with further settings of the browser's context; returns it with the errors it made and the
    other servers it asked."""
    with opening(browser, address) as open_page:
        yield open_page
