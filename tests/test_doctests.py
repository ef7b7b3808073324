"""The examples in the docstrings run, and whatever the package offers has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import ebmm

MODULES = sorted(
    m.name.removeprefix("ebmm.") for m in pkgutil.walk_packages(ebmm.__path__, "ebmm.") if "._" not in m.name
)
# What needs files or time to be shown, and what only holds things.
WITHOUT = {
    "datasets.store",
    "experiments.catalogue",
    "experiments.contest",
    "history",
    "results",
    "book.course.running",
    "book.course.slides",
    "book.course.wheels",
    "book.grading.command",
    "book.grading.grader",
    "book.grading.judge",
    "book.grading.student",
    "book.plotting.recalled",
}
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.fixture(autouse=True)
def without_a_display():
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    yield
    plt.close("all")


def test_all_modules_are_found():
    some = {"memory", "layers", "energies.vectors", "model", "tasks", "training", "evaluation", "baselines.mann"}
    assert some <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_run(name):
    module = importlib.import_module(f"ebmm.{name}")
    report = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module):
        runner.run(example, out=report.append)
    failed, tried = runner.summarize(verbose=False)
    assert failed == 0, "".join(report)
    assert tried > 0 or name in WITHOUT or hasattr(module, "__path__"), f"ebmm.{name} has no example"


@pytest.mark.parametrize("name", ebmm.__all__)
def test_what_the_package_offers_is_documented(name):
    thing = getattr(ebmm, name)
    text = inspect.getdoc(thing)
    assert text and text[0].isupper() and "\n" not in text.split(".")[0][:110]
    if inspect.isfunction(thing):
        for argument in inspect.signature(thing).parameters:
            assert argument in text.split("Args:")[1].split("Returns:")[0], f"{name} does not describe {argument}"


def classes_of(module):
    """Names of the network modules that a module of the package defines."""
    found = vars(importlib.import_module(f"ebmm.{module}")).items()
    return [
        (name, module)
        for name, thing in found
        if inspect.isclass(thing) and thing.__module__ == f"ebmm.{module}" and issubclass(thing, torch.nn.Module)
        if name[0] != "_" and name != "MemoryLayer"
    ]


NETWORKS = ("layers", "energies.vectors", "energies.slots", "energies.resnet", "coders.images")


@pytest.mark.parametrize(("name", "module"), [pair for module in NETWORKS for pair in classes_of(module)])
def test_every_layer_and_energy_shows_an_example_and_its_shapes(name, module):
    text = inspect.getdoc(getattr(importlib.import_module(f"ebmm.{module}"), name))
    assert ">>> " in text and "Shape:" in text and "Args:" in text
