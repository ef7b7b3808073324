import copy

import pytest
import torch
from torch import nn

import ebmm
from ebmm.energies import DenseEnergy, MarginEnergy
from ebmm.experiments.networks import Convolution, Perceptron
from ebmm.muon import Muon, orthogonalised
from ebmm.tasks import RandomBits, RedrawBits, Task

TASK = Task(RandomBits(8), RedrawBits(2), 2)
OPTIONS = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.99)}


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6), (1, 4)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    found = u.mT @ orthogonalised(matrix) @ v.mT
    large = values > 0.05 * values.max()
    assert found.diagonal()[large].min() > 0.6 and found.diagonal().max() < 1.3
    assert (found - torch.diag(found.diagonal())).abs().max() < 1e-4


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_matrices_move_as_with_the_optimiser_of_pytorch():
    """Which orthogonalises in 16 bits, so that single entries differ by a little."""
    torch.manual_seed(0)
    model = nn.Linear(12, 8, bias=False)
    twin = copy.deepcopy(model)
    ours = Muon(model, **OPTIONS)
    theirs = torch.optim.Muon(twin.parameters(), lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    start = model.weight.detach().clone()
    for _ in range(3):
        gradient = torch.randn(8, 12)
        model.weight.grad, twin.weight.grad = gradient.clone(), gradient.clone()
        ours.step()
        theirs.step()
    assert torch.dist(model.weight, twin.weight) < 0.03 * torch.dist(twin.weight, start)


def test_what_is_no_matrix_moves_as_with_adamw():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    twin = copy.deepcopy(model)
    ours, theirs = Muon(model, **OPTIONS), torch.optim.AdamW(twin.parameters(), **OPTIONS)
    for _ in range(3):
        for one in (model, twin):
            one.zero_grad()
            one(torch.ones(2, 4)).square().sum().backward()
        model.weight.grad = twin.weight.grad = None
        ours.step()
        theirs.step()
    assert torch.equal(model.bias, twin.bias)


def test_a_kernel_is_a_matrix_with_a_row_for_each_output():
    torch.manual_seed(0)
    kernel, matrix = nn.Conv1d(2, 3, 4, bias=False), nn.Linear(8, 3, bias=False)
    matrix.weight.data = kernel.weight.data.flatten(1).clone()
    gradient = torch.randn(3, 2, 4)
    kernel.weight.grad, matrix.weight.grad = gradient, gradient.flatten(1)
    for model in (kernel, matrix):
        Muon(model, **OPTIONS).step()
    assert torch.equal(kernel.weight.flatten(1), matrix.weight)


def test_of_an_ebmm_neither_the_start_of_the_memory_nor_rates_are_matrices():
    model = ebmm.EBMM(MarginEnergy(8, Perceptron(8, 4), 4), write_steps=3)
    others, matrices = (group["params"] for group in Muon(model, **OPTIONS).param_groups)
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert {names[p] for p in matrices} == {f"energy_network.network.{name}.weight" for name in ("first", "second")}
    assert len(others) + len(matrices) == len(names)
    assert Muon(ebmm.EBMM(DenseEnergy(8, slots=3)), **OPTIONS).param_groups[1]["params"] == []


def test_fit_trains_with_it():
    trained = []
    for optimiser in ("adamw", "muon"):
        torch.manual_seed(0)
        model = ebmm.EBMM(MarginEnergy(8, Convolution(8, 4, kernel=3), 4), gradient_term=False)
        before = model.energy_network.network.first.weight.detach().clone()
        ebmm.fit(model, TASK, 2, memories=2, optimiser=optimiser, warmup=0, progress=False, device="cpu")
        trained.append((model.energy_network.network.first.weight - before).detach())
    assert not torch.allclose(*trained, rtol=0.1)


def test_another_optimiser_is_refused():
    with pytest.raises(ValueError, match="optimiser must be one of"):
        ebmm.fit(ebmm.EBMM(MarginEnergy(8)), TASK, 1, optimiser="sgd")
