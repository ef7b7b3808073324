#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""The commands of the Makefile for machines without make, such as those with Windows.

    pipx run nox -s book        build the book into _build/html
    pipx run nox -s test        run all tests
    pipx run nox -s package     run the tests of the package, without chapters and pages
    pipx run nox -s lint        check style and types

The versions are those of `make install`. TORCH_INDEX in the environment says where to take PyTorch from.
"""

import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"


def install(session: nox.Session) -> None:
    """The exact versions, and the package from this checkout."""
    session.install("--require-hashes", "--requirement", "requirements.lock")
    index = os.environ.get("TORCH_INDEX")
    session.install(*(["--index-url", index] if index else []), "--requirement", "requirements-torch.txt")
    session.install("--no-deps", "--no-build-isolation", "--editable", ".")
    session.env["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    session.env.setdefault("OMP_NUM_THREADS", "1")


@nox.session(default=False)
def book(session: nox.Session) -> None:
    """Build the book into _build/html."""
    install(session)
    session.run("python", "tools/fetch_widgets.py")
    strict = ["--warningiserror", "--nitpick", "--keep-going"]
    session.run("jupyter-book", "build", "book", "--config", "_config.yml", "--path-output", ".", "--all", *strict)


@nox.session(default=False)
def test(session: nox.Session) -> None:
    """Run all tests, or those named after `--`."""
    install(session)
    session.run("python", "tools/fetch_widgets.py")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Run the tests of the package."""
    install(session)
    session.run("python", "-m", "pytest", "-m", "not slow", "@tests/package.txt", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types, and that notebooks carry no outputs."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("mypy", "--platform", "win32", "--cache-dir", ".mypy_cache/windows", "ebmm")
    session.run("codespell")
    session.run("zizmor", "--offline", "--quiet", ".github")
    session.run("repo-review", ".")
    session.run("nbstripout", "--keep-id", "--verify", *map(str, Path("book").glob("*.ipynb")))


if __name__ == "__main__":
    nox.main()
