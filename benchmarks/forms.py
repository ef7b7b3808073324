"""The forms by name, and which of them this environment can run."""

from __future__ import annotations

import importlib
import shutil

from benchmarks.problem import Form, Size, draw

FORMS = {
    "ours": "ours",
    "ours compiled": "ours_compiled",
    "ours whole": "ours_whole",
    "plain": "plain",
    "plain compiled": "plain_compiled",
    "jax": "jax_vmap",
    "torchopt": "torchopt_loop",
    "torchopt vmap": "torchopt_vmap",
    "higher": "higher_loop",
    "loop": "loop",
}
# What is compiled, and what would run instead.
COMPILED = {"ours compiled": "ours", "ours whole": "ours", "plain compiled": "plain", "jax": "plain"}
LIBRARIES = {"jax", "torchopt", "higher"}


def missing(name: str) -> str | None:
    """What a form needs and is not here; ``None`` if it runs."""
    try:
        importlib.import_module(f"benchmarks.{FORMS[name]}")
    except ModuleNotFoundError as error:
        if error.name not in LIBRARIES:
            raise
        return error.name
    needs_compiler = name in COMPILED and name != "jax"
    return "a compiler of C++" if needs_compiler and not (shutil.which("g++") or shutil.which("clang++")) else None


def build(name: str, size: Size, dtype: str) -> Form:
    """A form with the problem of this size in it."""
    return importlib.import_module(f"benchmarks.{FORMS[name]}").build(size, *draw(size), dtype)
