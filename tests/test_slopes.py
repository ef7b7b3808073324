import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch
from naive import moved
from torch._dynamo.backends.debugging import aot_eager

from ebmm import EBMM, Task, fit
from ebmm.baselines import MemoryNetwork
from ebmm.energies import GatedRNNEnergy, HopEnergy, PredictiveEnergy
from ebmm.gradients import reconstruction_loss
from ebmm.slopes import Recorded, compiled
from ebmm.tasks import FlipBits, RandomBits

TASK = Task(RandomBits(8), FlipBits(0.2), 3)
QUIET = {"memories": 2, "progress": False, "device": "cpu"}
ENERGIES = {
    "predictive": partial(PredictiveEnergy, 8),
    "hops": partial(HopEnergy, 8, hops=2),
    "gated": partial(GatedRNNEnergy, 8, memory_features=4, hidden=8),
    "under vmap": lambda: Plain(8),
}


class Plain(torch.nn.Sequential):
    """A perceptron of PyTorch's own layers, of which the first is the memory."""

    writable = ("0",)

    def __init__(self, dim):
        super().__init__(torch.nn.Linear(dim, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1), torch.nn.Flatten(-2))


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss, recalled = reconstruction_loss(model, batch)
    loss.backward()
    return [loss.detach(), recalled.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("energy", "sequential", "terms"),
    [
        ("gated", True, True),
        ("predictive", False, False),
        ("hops", False, False),
        ("under vmap", True, True),
    ],
)
def test_compiled_gradients_are_those_recorded(energy, sequential, terms, whole, monkeypatch):
    graphs = []

    def counted(graph, inputs):
        graphs.append(graph)
        return aot_eager(graph, inputs)

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counted))
    torch.compiler.reset()
    torch.manual_seed(0)
    model = EBMM(
        moved(ENERGIES[energy]()), write_steps=2, read_steps=2, sequential=sequential, gradient_term=terms,
        decay_term=terms, write_rate=0.02,
    ).double()  # fmt: skip
    batch = TASK.sample(2, torch.Generator().manual_seed(1)).to("cpu", torch.float64)
    expected = loss_and_gradients(model, batch)
    with compiled(model, whole):
        found = loss_and_gradients(model, batch)
    assert isinstance(model.slopes, Recorded)
    assert len(graphs) == 2 if whole else graphs, "one of writing, one of reading"
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no compiler of C++")
@pytest.mark.skipif(torch.__version__ < "2.7", reason="the compiler of PyTorch 2.6 fails on this energy")
def test_training_with_compiled_gradients_ends_at_the_same_weights():
    """In a process of its own: the compiler imports setuptools, which fails where a test has imported pip."""
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path[:0] = {sys.path!r}; import test_slopes as t; t.train_all_ways()",
    ]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr


def train_all_ways():
    weights = []
    for compile in (False, True, "whole"):
        torch.manual_seed(0)
        model = EBMM(PredictiveEnergy(8), write_steps=2, read_steps=2, gradient_term=False)
        fit(model, TASK, 3, compile=compile, **QUIET)
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        for other in weights[1:]:
            torch.testing.assert_close(other[name], value, atol=1e-5, rtol=1e-4)


def test_what_takes_no_gradients_to_write_and_read_is_not_compiled():
    with pytest.raises(ValueError, match="only a memory that is written and read by gradients is compiled"):
        fit(MemoryNetwork(8, 3, 4), TASK, 2, compile=True, **QUIET)


@pytest.mark.parametrize(("compile", "recompute"), [("whole", True), ("half", False)])
def test_what_is_not_compiled_is_said(compile, recompute):
    model = EBMM(PredictiveEnergy(8), recompute=recompute)
    with pytest.raises(ValueError, match=f"False, True, or 'whole' without recompute, got '{compile}'"):
        fit(model, TASK, 2, compile=compile, **QUIET)


def test_without_gradients_no_loop_is_compiled():
    model = EBMM(PredictiveEnergy(8))
    with compiled(model, whole=True), torch.no_grad():
        assert model.slopes.loop(model._read_steps, keep=False) == model._read_steps
