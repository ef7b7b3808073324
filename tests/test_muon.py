import copy

import pytest
import torch
from torch import nn

import ebmm
from ebmm.energies import DenseEnergy, MarginEnergy
from ebmm.experiments.networks import Convolution, Perceptron
from ebmm.gradients import reconstruction_loss
from ebmm.muon import Muon, matrices_of, orthogonalised
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
    class Wrapped(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.inner = model

    model = ebmm.EBMM(MarginEnergy(8, Perceptron(8, 4), 4), write_steps=3)
    names = {parameter: name for name, parameter in model.named_parameters()}
    for one in (model, Wrapped(model)):
        others, matrices = (group["params"] for group in Muon(one, **OPTIONS).param_groups)
        assert {names[p] for p in matrices} == {f"energy_network.network.{name}.weight" for name in ("first", "second")}
        assert len(others) + len(matrices) == len(names)
    assert matrices_of(ebmm.EBMM(DenseEnergy(8, slots=3))) == []


def test_the_first_step_of_fit_is_the_orthogonalised_gradient():
    def fresh():
        torch.manual_seed(0)
        return ebmm.EBMM(MarginEnergy(8, Convolution(8, 4, kernel=3), 4), gradient_term=False)

    model, twin = fresh(), fresh()
    with torch.no_grad():
        for one in (model, twin):
            one.energy_network.head.fill_(0.3)
    ebmm.fit(
        model, TASK, 1, memories=2, learning_rate=0.01, weight_decay=0, optimiser="muon", warmup=0, averaging=0,
        progress=False, device="cpu",
    )  # fmt: skip
    loss, _ = reconstruction_loss(twin, TASK.sample(2, torch.Generator().manual_seed(0)))
    loss.backward()
    kernel = twin.energy_network.network.first.weight
    step = 0.2 * 6**0.5 * orthogonalised(kernel.grad.flatten(1)).view_as(kernel)
    torch.testing.assert_close(model.energy_network.network.first.weight, kernel - 0.01 * step, rtol=0, atol=1e-5)


def test_its_state_can_be_saved_and_loaded():
    torch.manual_seed(0)
    models = [nn.Linear(4, 3), nn.Linear(4, 3)]
    models[1].load_state_dict(models[0].state_dict())
    first, second = (Muon(model, **OPTIONS) for model in models)
    for step in range(4):
        for model, optimiser in zip(models, (first, second), strict=True):
            model(torch.full((2, 4), step + 1.0)).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()
        state, second = second.state_dict(), Muon(models[1], **OPTIONS)
        second.load_state_dict(copy.deepcopy(state))
    assert torch.equal(models[0].weight, models[1].weight) and torch.equal(models[0].bias, models[1].bias)


@pytest.mark.parametrize("size", [1e-30, 1e4])
def test_the_size_of_a_gradient_does_not_matter(size):
    torch.manual_seed(0)
    matrix = torch.randn(6, 9)
    torch.testing.assert_close(orthogonalised(size * matrix), orthogonalised(matrix), rtol=1e-3, atol=1e-4)
    assert torch.equal(orthogonalised(0 * matrix), 0 * matrix)


def test_a_closure_and_a_momentum_out_of_range_are_refused():
    model = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="no closure"):
        Muon(model, **OPTIONS).step(lambda: 0)
    for momentum in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="momentum"):
            Muon(model, momentum=momentum, **OPTIONS)


@pytest.mark.parametrize("optimiser", ["sgd", "Muon", None, ["muon"]])
def test_another_optimiser_is_refused(optimiser):
    with pytest.raises(ValueError, match="optimiser must be one of"):
        ebmm.fit(ebmm.EBMM(MarginEnergy(8)), TASK, 1, optimiser=optimiser)
