"""What a run is, and the checkpoint that it goes on from."""

import enum
import functools
import importlib
import json
import os
import re
import resource
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.data import TensorDataset

from ebmm import EBMM, History, Task, fit
from ebmm.baselines import KanervaMachine
from ebmm.datasets import digits
from ebmm.energies import GatedRNNEnergy, PredictiveEnergy, QuadraticEnergy
from ebmm.identity import differences, identity_of
from ebmm.tasks import FlipBits, ImagePatterns, LazyImages, RandomBits

TASK = Task(RandomBits(8), FlipBits(0.1), number=2)
QUIET = {"progress": False, "device": "cpu"}
SHIFT = 0.25  # what a function below refers to


def predictive(seed=0, hidden=6, **options):
    torch.manual_seed(seed)
    return EBMM(PredictiveEnergy(8, hidden), write_steps=2, read_steps=3, **options)


class Own(nn.Module):
    """An energy of a user's own, with settings of all kinds."""

    def __init__(self, beta=1.0, activation=torch.tanh, shift=None, mask=None):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(8, 5), nn.Linear(5, 1)
        self.beta, self.activation, self.shift = beta, activation, shift
        self.register_buffer("mask", torch.ones(5) if mask is None else mask, persistent=False)

    def forward(self, x):
        return self.b(self.mask * self.activation(self.beta * self.a(x))).squeeze(-1)


class Images:
    """A source without a __repr__."""

    def __init__(self, images):
        self.images = images

    def __call__(self, number, generator):
        return torch.as_tensor(self.images)[torch.randperm(len(self.images), generator=generator)[:number]]


class Slotted:
    __slots__ = ("images",)

    def __init__(self, images):
        self.images = images


def own(change=None, **options):
    model = EBMM(Own(**options), "a")
    if change is not None:
        change(model)
    return model


def scaled(factor):
    def source(number, generator):
        return factor * torch.rand(number, 8, generator=generator)

    return source


def shifted(number, generator, by=0.0):
    return torch.rand(number, 8, generator=generator) * SHIFT + by


def another_shifted(number, generator, by=0.0):
    return torch.rand(number, 8, generator=generator) / SHIFT + by


def with_hook(hook):
    model = own()
    model.energy_network.a.register_forward_hook(hook)
    return model


def with_gradient_hook(kind):
    def model_with(factor):
        model = own()
        for parameter in model.energy_network.b.parameters():
            getattr(parameter, kind)(lambda gradient: gradient * factor)
        return model

    return model_with


def with_backward_hook(hook):
    model = own()
    model.energy_network.a.register_full_backward_hook(hook)
    return model


class Twice(nn.Module):
    def forward(self, x):
        return 2 * x


class Thrice(nn.Module):
    def forward(self, x):
        return 3 * x


def frozen(model):
    model.energy_network.b.requires_grad_(False)


DIFFERENT = {
    "curvature": (lambda c: EBMM(QuadraticEnergy(8, c)), 0.0, 0.5, "energy_network.curvature: 0.0 there, 0.5 here"),
    "hops": (lambda n: EBMM(GatedRNNEnergy(8, 2, 4, n)), 2, 3, "energy_network.hops: 2 there, 3 here"),
    "momentum": (lambda on: EBMM(Own(), "a", decay_term=on), True, False, "decay_term: True there, False here"),
    "frozen": (own, None, frozen, r"energy_network.b.weight: torch.float32 \(1, 5\) trained there, .* \(1, 5\) here"),
    "float64": (own, None, lambda m: m.double(), r"a.weight: torch.float32 .* there, torch.float64 .* here"),
    "attribute": (lambda beta: own(beta=beta), 1.0, 50.0, "energy_network.beta: 1.0 there, 50.0 here"),
    "activation": (lambda f: own(activation=f), torch.tanh, torch.sin, "energy_network.activation"),
    "module": (lambda f: own(activation=f), nn.SiLU(), nn.Tanh(), "activation: SiLU there, Tanh here"),
    "slope": (lambda f: own(activation=nn.LeakyReLU(f)), 0.1, 0.2, "negative_slope: 0.1 there, 0.2 here"),
    "lambda": (lambda f: own(activation=f), lambda x: x * 2, lambda x: x * 3, "activation.*: other content"),
    "names": (lambda f: own(activation=f), lambda x: x.sin(), lambda x: x.cos(), "activation.*: other content"),
    "buffer": (lambda m: own(mask=m), torch.ones(5), torch.arange(5.0), "energy_network.mask: other content"),
    "shift": (lambda s: own(shift=s), {"by": [1, 2]}, {"by": [1, 3]}, r"shift\['by'\]\[1\]: 2 there, 3 here"),
    "tensors": (lambda t: own(shift=t), (torch.ones(3),), (torch.zeros(3),), r"shift\[0\]: other content"),
    "long list": (lambda t: own(shift=t), list(range(99)), [*range(98), 7], "shift: other content"),
    "set": (lambda t: own(shift=t), {"a", "b"}, {"a", "c"}, "shift: other content"),
    "keys": (lambda f: own(shift={f: 1, torch.tanh: 2}), shifted, another_shifted, "shift.* #.*: list there, nothing"),
    "equal keys": (lambda by: own(shift={scaled(1): 1, scaled(1): by}), 2, 3, r"shift.* #.*\[1\]: 2 there, 3 here"),
    "gradient hook": (with_gradient_hook("register_hook"), 0.5, 0.1, "weight.hooks.*factor: 0.5 there, 0.1 here"),
    "accumulated": (with_gradient_hook("register_post_accumulate_grad_hook"), 0.5, 0.1, "bias.hooks.*factor: 0.5"),
    "backward hook": (with_backward_hook, lambda *_: None, lambda m, x, y: x, "energy_network.a.hooks"),
    "scripted": (lambda f: own(activation=torch.jit.script(f)), nn.SiLU(), nn.Tanh(), "activation"),
    "traced": (lambda f: own(activation=torch.fx.symbolic_trace(f)), Twice(), Thrice(), "activation.code"),
    "hook": (with_hook, lambda *_: None, lambda m, x, y: y * 2, "hooks"),
    "parametrised": (own, None, lambda m: weight_norm(m.energy_network.a), "energy_network.a: Linear there, Param"),
    "rows": (lambda n: KanervaMachine(8, n, 3), 2, 3, "other|there"),
}  # fmt: skip
SOURCES = {
    "images": (Images, torch.zeros(9, 8), torch.ones(9, 8), "task.source.images: other content"),
    "arrays": (Images, np.zeros((9, 8)), np.ones((9, 8)), "task.source.images: other content"),
    "slots": (Slotted, torch.zeros(9, 8), torch.ones(9, 8), "task.source.images: other content"),
    "our images": (ImagePatterns, torch.zeros(9, 8), torch.ones(9, 8), "task.source.images: other content"),
    "data sets": (lambda x: Images(TensorDataset(x)), torch.zeros(9, 8), torch.ones(9, 8), "tensors.*other content"),
    "threshold": (lambda t: ImagePatterns(torch.rand(9, 8), t), 0.4, None, "threshold: 0.4 there, None here"),
    "closure": (scaled, 0.5, 1.0, "task.source.factor: 0.5 there, 1.0 here"),
    "partial": (lambda by: functools.partial(shifted, by=by), 0.1, 0.2, "'by'.*: 0.1 there, 0.2 here"),
    "wrapped": (lambda by: functools.lru_cache(scaled(by)), 0.5, 1.0, "factor: 0.5 there, 1.0 here"),
    "code": (lambda f: f, shifted, another_shifted, "task.source: shifted there, another_shifted here"),
    "generator": (Images, torch.Generator().manual_seed(0), torch.Generator().manual_seed(1), "images: other content"),
    "numpy's": (Images, np.random.default_rng(0), np.random.default_rng(1), "images.*state.*there"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DIFFERENT)
def test_what_differs_in_a_model_is_named(kind):
    make, there, here, named = DIFFERENT[kind]
    first, second, again = (identity_of(model=make(value)) for value in (there, here, there))
    assert differences(first, again) == []
    told = differences(first, second)
    assert told and any(re.search(named, line) for line in told), told


@pytest.mark.parametrize("kind", SOURCES)
def test_what_differs_in_a_task_is_named(kind):
    make, there, here, named = SOURCES[kind]
    torch.manual_seed(0)
    first = identity_of(task=[make(there)])
    torch.manual_seed(0)
    second = identity_of(task=[make(here)])
    told = [line.replace("task[0]", "task.source") for line in differences(first, second)]
    assert len(told) >= 1 and any(re.search(named, line) for line in told), told


def test_a_global_that_a_function_refers_to_counts(monkeypatch):
    there = identity_of(source=shifted)
    monkeypatch.setitem(globals(), "SHIFT", 0.5)
    assert differences(there, identity_of(source=shifted)) == ["source.SHIFT: 0.25 there, 0.5 here"]


def folder_of_modules(folder, monkeypatch):
    """A package of a user's own, in a folder whose name is like that of installed ones."""
    place = folder / "my-packages"
    (place / "rooms").mkdir(parents=True)
    (place / "constants.py").write_text("BETA, UNUSED = 2.0, 1\n")
    (place / "rooms" / "__init__.py").write_text("")
    (place / "rooms" / "inner.py").write_text("import constants\nSHIFT = 1.0\ndef bend(x): return x.tanh() + SHIFT\n")
    (place / "rooms" / "outer.py").write_text(
        "import rooms.inner\nimport constants\n"
        "def by_attribute(x): return constants.BETA * rooms.inner.bend(x)\n"
        "def by_import(x):\n from constants import BETA as b\n from . import inner as i\n return b * i.bend(x)\n"
        "def by_name(x):\n import constants as c, rooms.inner as i\n return (lambda y: c.BETA * i.bend(y))(x)\n"
    )
    monkeypatch.syspath_prepend(place)


@pytest.mark.parametrize("way", ["by_attribute", "by_import", "by_name"])
def test_the_users_own_modules_count_however_they_are_imported(way, tmp_path, monkeypatch):
    folder_of_modules(tmp_path, monkeypatch)
    for name in ("rooms.outer", "rooms.inner", "rooms", "constants"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    outer = importlib.import_module("rooms.outer")
    for name in ("rooms.inner", "constants"):  # as where nothing has called the function yet
        monkeypatch.delitem(sys.modules, name)
    there = identity_of(source=getattr(outer, way))
    inner = sys.modules.get("rooms.inner", outer.rooms.inner)
    constants = sys.modules.get("constants", outer.constants)
    monkeypatch.setattr(constants, "UNUSED", 2)
    assert differences(there, identity_of(source=getattr(outer, way))) == []
    monkeypatch.setattr(constants, "BETA", 3.0)
    monkeypatch.setattr(inner, "SHIFT", 5.0)
    told = " ".join(differences(there, identity_of(source=getattr(outer, way))))
    assert "BETA: 2.0 there, 3.0 here" in told and "SHIFT: 1.0 there, 5.0 here" in told


def test_what_exec_makes_without_a_module_counts():
    made = [{}, {}]
    for factor, names in enumerate(made):
        exec(f"class Source:\n def __call__(self, n, g): return {factor}\ndef source(n, g): return {factor}", names)
    for name in ("source", "Source"):
        first, second = (identity_of(source=names[name]) for names in made)
        assert any("other content" in line for line in differences(first, second))


def test_what_is_nested_too_deep_is_told():
    nested = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(ValueError, match="source is nested too deep to be told in a checkpoint: flatten its lists"):
        identity_of(source=nested)


def test_the_code_of_a_users_class_counts_and_its_comments_do_not():
    text = "class Source:\n    {}\n    def __call__(self, number, generator):\n        {}\n        return {}\n"

    def identity(*parts):
        made = {"__name__": "mine"}
        exec(text.format(*parts), made)
        return identity_of(source=made["Source"]())

    there = identity("noise = 1", '"""Ones."""', "1")
    assert differences(there, identity("noise = 1", "# ones", "1")) == []
    assert differences(there, identity("noise = 1", "", "2")) == ["Source.__call__: other content"]
    assert differences(there, identity("noise = 2", "", "1")) == ["Source.noise: 1 there, 2 here"]


def test_what_refers_to_itself_ends():
    ring = [1, 2]
    ring.append(ring)
    source = Images(ring)
    source.images.append(source)
    told = identity_of(source=source)
    assert told["source.images[2]"] == "the same as source.images"
    assert told["source.images[3]"] == "the same as source"


def test_what_pickle_leaves_out_and_what_it_cannot_take_do_not_count():
    class Cached:
        def __init__(self, cache):
            self.size, self.cache = 3, cache

        def __getstate__(self):
            return {"size": self.size}

    assert differences(identity_of(a=Cached(None)), identity_of(a=Cached([1, 2]))) == []
    assert differences(identity_of(a=threading.Lock()), identity_of(a=threading.Lock())) == []
    with open(os.devnull) as file:
        told = differences(identity_of(a=Images(file)), identity_of(a=Images(threading.Lock())))
    assert told[0].startswith("a.images: TextIOWrapper there, lock here")


def test_lazy_images_are_told_by_what_they_load():
    assert "#" in identity_of(task=LazyImages(digits))["task.images"]


def test_values_and_devices_of_parameters_do_not_count():
    assert identity_of(model=predictive(0)) == identity_of(model=predictive(1))
    meta = predictive().to("meta")
    assert identity_of(model=meta.energy_network.head) == identity_of(model=predictive().energy_network.head)


class Colour(enum.Enum):
    RED, BLUE, GREEN = "r", "b", "g"

    def mixed(self):
        return self.value


@dataclass(frozen=True)
class Place:
    name: str

    def shouted(self):
        return self.name.upper()


def identity_to_compare():
    """In another process these have other addresses, and sets of texts another order."""

    @dataclass
    class Settings:
        names: frozenset

    source = Images({"texts": {"a", "bc", "def"}, "function": scaled(2.0), "settings": Settings(frozenset("xyz"))})
    model = own(activation=lambda x: x if "q" in {"q", "r", "s"} else -x)
    members = [{*Colour}, {Place("a"), Place("b"), Place("c")}]
    keys = {shifted: 1, frozenset({"u", "v", "w"}): 2, Colour.RED: 3, Place("d"): 4, (1, "e"): 5, torch.tanh: 6}
    task = [source, np.arange(3), functools.partial(shifted, by=1), nn.GELU(), TASK]
    return identity_of(model=model, task=task, members=members, keys=keys, compiled=torch.compile(scaled(3.0)))


def test_an_identity_is_the_same_in_another_process():
    command = "import json, test_history; print(json.dumps(test_history.identity_to_compare()))"
    places = os.pathsep.join([str(Path(__file__).parent), str(Path(sys.modules["ebmm"].__file__).parents[1])])
    environment = os.environ | {"PYTHONPATH": places, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    here = identity_to_compare()
    assert differences(json.loads(done.stdout), here) == []
    assert "0x" not in repr(here) and len(here) > 60


# Checkpoints


def refused(path, model, task=TASK, steps=4, **options):
    """What a resume is told, which must leave the model as it was."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="run.training is a checkpoint of another run") as caught:
        fit(model, task, steps, checkpoint=path, **options | QUIET)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "delete" not in str(caught.value) and "give another path" in str(caught.value)
    return str(caught.value)


@pytest.fixture(name="path")
def checkpoint_of_a_run(tmp_path):
    fit(predictive(), TASK, 4, checkpoint=tmp_path / "run.training", **QUIET)
    return tmp_path / "run.training"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": 7}, "steps: 4 there, 7 here"),
        ({"memories": 8}, "memories: 16 there, 8 here"),
        ({"learning_rate": 0.1}, "learning_rate: 0.002 there, 0.1 here"),
        ({"weight_decay": 0.0}, "weight_decay: 1e-06 there, 0.0 here"),
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"warmup": 1}, "warmup: 50 there, 1 here"),
        ({"clip": 0.5}, "clip: 1.0 there, 0.5 here"),
        ({"averaging": 0.5}, "averaging: 0.99 there, 0.5 here"),
        ({"late": True}, "late: False there, True here"),
        ({"joining": 0.1}, "joining: 0.0 there, 0.1 here"),
        ({"optimiser": "muon"}, "optimiser: 'adamw' there, 'muon' here"),
        ({"compile": True}, "compile: False there, True here"),
        ({"precision": "tf32"}, "precision: 'float32' there, 'tf32' here"),
        ({"task": Task(RandomBits(8), FlipBits(0.2), 2)}, "task.corruption.probability: 0.1 there, 0.2 here"),
        ({"task": Task(RandomBits(8), FlipBits(0.1), 2, "squared error")}, "task.metric: 'wrong bits' there"),
        ({"model": predictive(hidden=5)}, r"from_pattern.weight: torch.float32 (6, 8) trained there, torch.float32 (5"),
        ({"model": predictive(decay_term=False)}, "model.decay_term: True there, False here"),
        ({"model": predictive(seed=7)}, "start values of energy_network.from_pattern.weight, energy_network.from_"),
        ({"model": predictive(write_rate=0.02)}, "start values of raw_write_rates are others"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_run_is_refused(path, options, named):
    assert named in refused(path, **{"model": predictive()} | options)


def test_another_torch_is_another_run(path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "3.0.0+cpu")
    assert f"torch: '{torch.version.__version__.partition('+')[0]}' there, '3.0.0' here" in refused(path, predictive())


def test_a_build_for_another_device_is_the_same_run(path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", torch.__version__.partition("+")[0] + "+cu130")
    assert len(fit(predictive(), TASK, 4, checkpoint=path, **QUIET).rows) == 4


def test_other_images_are_another_run(tmp_path):
    task = [Task(ImagePatterns(torch.eye(8).roll(shift, 0)), FlipBits(0.1), 2) for shift in (0, 1)]
    fit(predictive(), task[0], 4, checkpoint=tmp_path / "run.training", **QUIET)
    assert "task.source.images: other content" in refused(tmp_path / "run.training", predictive(), task[1])


class Interrupts:
    """A corruption after so many calls of which somebody presses Ctrl-C."""

    def __init__(self, calls):
        self.calls = calls

    def __call__(self, patterns, generator):
        self.calls -= 1
        if self.calls == 0:
            raise KeyboardInterrupt
        return FlipBits(0.1)(patterns, generator)

    def __getstate__(self):
        return {}


def test_of_many_differences_five_are_named_and_the_others_counted(path):
    others = {"learning_rate": 0.1, "weight_decay": 0.1, "clip": 2.0, "warmup": 1, "averaging": 0.5, "late": True}
    said = refused(path, predictive(), **others, joining=0.5)
    assert said.count(" here; ") == 5 and "; and 2 more): give" in said, said


def test_the_model_that_was_interrupted_goes_on_with_its_own_run(tmp_path):
    run = {"steps": 9, "memories": 2, "save_every": 3, "checkpoint": tmp_path / "run.training"} | QUIET
    model, unbroken = predictive(), predictive()
    with pytest.raises(KeyboardInterrupt):
        fit(model, Task(RandomBits(8), Interrupts(12), 2), **run)
    assert not model.training
    assert not torch.equal(model.raw_read_rate, unbroken.raw_read_rate)
    whole = fit(unbroken, TASK, **run | {"checkpoint": None})
    resumed = fit(model, Task(RandomBits(8), Interrupts(0), 2), **run)
    assert resumed.rows == whole.rows and len(resumed.rows) == 9
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), unbroken.parameters(), strict=True))
    assert len(fit(model, Task(RandomBits(8), Interrupts(0), 2), **run).rows) == 9  # finished


def test_a_model_that_is_interrupted_before_it_is_saved_again_goes_on(tmp_path):
    run = {"steps": 9, "memories": 2, "save_every": 3, "checkpoint": tmp_path / "run.training"} | QUIET
    model = predictive()
    for one, calls in ((predictive(), 12), (model, 5)):
        with pytest.raises(KeyboardInterrupt):
            fit(one, Task(RandomBits(8), Interrupts(calls), 2), **run)
    assert len(fit(model, Task(RandomBits(8), Interrupts(0), 2), **run).rows) == 9


def test_a_trained_model_does_not_go_on_with_the_run_of_another(path):
    model = predictive()
    fit(model, TASK, 2, **QUIET)
    assert "are others, as from another seed" in refused(path, model)


def test_weights_loaded_into_the_model_of_a_run_are_not_overwritten(tmp_path):
    path, run = tmp_path / "run.training", {"steps": 6, "memories": 2, "save_every": 2} | QUIET
    model, task = predictive(), Task(RandomBits(8), Interrupts(0), 2)
    with pytest.raises(KeyboardInterrupt):
        fit(model, Task(RandomBits(8), Interrupts(7), 2), checkpoint=path, **run)
    left = {name: value.clone() for name, value in model.state_dict().items()}
    assert not torch.equal(left["raw_read_rate"], torch.load(path)["model"]["raw_read_rate"])
    for _ in range(2):  # a refusal is no sitting
        model.load_state_dict(predictive(seed=7).state_dict())
        assert "start values of" in refused(path, model, task, **run)
    for state_of in (lambda: left, lambda: torch.load(path)["model"], lambda: predictive().state_dict()):
        model.load_state_dict(state_of())
        assert len(fit(model, task, checkpoint=path, **run).rows) == 6


def test_a_run_whose_seed_is_lost_goes_on_with_its_weights_loaded_first(tmp_path):
    path, run = tmp_path / "run.training", {"steps": 6, "memories": 2, "save_every": 2} | QUIET
    unbroken = predictive()
    whole = fit(unbroken, TASK, **run)
    with pytest.raises(KeyboardInterrupt):
        fit(predictive(), Task(RandomBits(8), Interrupts(9), 2), checkpoint=path, **run)
    model, task = predictive(seed=7), Task(RandomBits(8), Interrupts(0), 2)
    with pytest.raises(ValueError, match="to go on all the same, first load its weights"):
        fit(model, task, checkpoint=path, **run)
    model.load_state_dict(torch.load(path)["model"])
    assert fit(model, task, checkpoint=path, **run).rows == whole.rows
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), unbroken.parameters(), strict=True))
    assert len(fit(predictive(), task, checkpoint=path, **run).rows) == 6  # its start values are still those


def test_a_changed_setting_of_the_same_model_is_another_run(tmp_path):
    model = own()
    fit(model, TASK, 4, checkpoint=tmp_path / "run.training", **QUIET)
    model.energy_network.beta = 2.0
    assert "model.energy_network.beta: 1.0 there, 2.0 here" in refused(tmp_path / "run.training", model)


def test_a_checkpoint_that_was_removed_starts_anew(path):
    model = predictive()
    fit(model, TASK, 4, checkpoint=path, **QUIET)
    path.unlink()
    fit(model, TASK, 4, checkpoint=path, **QUIET)
    assert "start values" in refused(path, predictive())


def test_settings_of_numpy_are_given_back(tmp_path):
    plain = {"steps": 4, "memories": 3, "learning_rate": 0.01, "clip": 1.0, "seed": 2, "warmup": 1}
    run = {"checkpoint": tmp_path / "run.training"} | QUIET
    numbers = {name: np.float64(x) if isinstance(x, float) else np.int64(x) for name, x in plain.items()}
    history = fit(predictive(), TASK, **numbers, **run)
    assert (
        fit(predictive(), TASK, **plain, **run).rows == history.rows == fit(predictive(), TASK, **plain, **QUIET).rows
    )
    assert set(torch.load(run["checkpoint"])["model"]) == set(predictive().state_dict())


def test_what_a_checkpoint_could_not_give_back_is_refused_before_training(tmp_path):
    class Extra(Own):
        def get_extra_state(self):
            return self

    with pytest.raises(TypeError, match="only tensors can be saved, but energy_network._extra_state .* type Extra"):
        fit(EBMM(Extra(), "a"), TASK, 4, checkpoint=tmp_path / "run.training", **QUIET)
    assert not (tmp_path / "run.training").exists()


@pytest.mark.parametrize("damage", ["empty", "half", "a byte", "a weight", "rubbish", "another file", "a part"])
def test_a_damaged_checkpoint_is_refused_and_named(path, damage):
    whole, state = path.read_bytes(), torch.load(path)
    path.unlink()
    if damage in ("another file", "a part"):
        del state["optimiser"]
        torch.save({"weight": torch.zeros(2)} if damage == "another file" else state, path)
    else:
        weight = state["model"]["energy_network.from_pattern.weight"].numpy().tobytes()
        place = whole.index(weight if damage == "a weight" else b"from_pattern") + 2
        changed = whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]
        half, rubbish = whole[: len(whole) // 2], b"rubbish" * 99
        path.write_bytes({"empty": b"", "half": half, "rubbish": rubbish}.get(damage, changed))
    with pytest.raises(ValueError, match="run.training is no whole checkpoint .*: put back a copy of it, or give"):
        fit(predictive(), TASK, 4, checkpoint=path, **QUIET)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="is a folder: name a file"):
        fit(predictive(), TASK, 4, checkpoint=tmp_path, **QUIET)


def test_a_full_disk_is_told_and_the_last_save_is_kept(tmp_path):
    run = {"steps": 9, "memories": 2, "save_every": 3, "checkpoint": tmp_path / "run.training"} | QUIET
    full = resource.getrlimit(resource.RLIMIT_FSIZE)

    class FillsTheDisk(Interrupts):
        def __call__(self, patterns, generator):
            self.calls -= 1
            if self.calls == 0:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, full[1]))
            return FlipBits(0.1)(patterns, generator)

    try:
        with pytest.raises(OSError, match="run.training could not be saved .File too large.; what was saved"):
            fit(predictive(), Task(RandomBits(8), FillsTheDisk(9), 2), **run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, full)
    assert len(torch.load(run["checkpoint"])["history"]["rows"]) == 3
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob(".*.partial"))
    assert len(fit(predictive(), Task(RandomBits(8), FillsTheDisk(0), 2), **run).rows) == 9


def test_two_runs_do_not_share_a_checkpoint(path, monkeypatch):
    impatient = filelock.FileLock
    monkeypatch.setattr(filelock, "FileLock", lambda path, timeout: impatient(path, timeout=0.05))

    class Second(Interrupts):
        def __call__(self, patterns, generator):
            with pytest.raises(TimeoutError):
                fit(predictive(), TASK, 4, checkpoint=path.with_name("first"), **QUIET)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(predictive(), Task(RandomBits(8), Second(0), 2), 4, checkpoint=path.with_name("first"), **QUIET)
    assert len(fit(predictive(), TASK, 4, checkpoint=path, **QUIET).rows) == 4


def test_a_history_that_cannot_be_saved_leaves_the_old_one(tmp_path):
    History(rows=[{"loss": 1.0}]).save(tmp_path / "history.json")
    with pytest.raises(TypeError):
        History(rows=[{"loss": object()}]).save(tmp_path / "history.json")
    assert json.loads((tmp_path / "history.json").read_text())["rows"] == [{"loss": 1.0}]
