"""The dynamic Kanerva machine: its equations by a naive loop, and what it learns."""

import math

import pytest
import torch
from torch import nn

from ebmm import Task, evaluate, fit, tasks
from ebmm.baselines.kanerva import KanervaMachine
from ebmm.coders import Decoder, Encoder


def random_points(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def machine(rows=4, width=6, features=5, **settings):
    torch.manual_seed(0)
    model = KanervaMachine(features, rows, width, **settings).double()
    with torch.no_grad():  # a prior whose rows differ
        model.prior_log_variance.copy_(torch.linspace(-1, 1, rows))
    return model


def naive_write(model, patterns, mean, covariance):
    """One memory's patterns, one at a time, straight from the update in the class's docstring."""
    noise = model.noise_variance()
    for z in model.encoder(patterns):
        w = torch.linalg.inv(mean @ mean.T + noise * torch.eye(model.rows, dtype=torch.float64)) @ mean @ z
        difference = z - mean.T @ w
        spread = covariance @ w
        scale = w @ spread + noise
        mean = mean + torch.outer(spread, difference) / scale
        covariance = covariance - torch.outer(spread, spread) / scale
    return mean, covariance


def naive_read(model, x, mean):
    """One query to one memory; what each round gives."""
    rounds = []
    for _ in range(model.read_steps):
        z = model.encoder(x[None])[0]
        w = torch.linalg.inv(mean @ mean.T + model.noise_variance() * torch.eye(model.rows)) @ mean @ z
        x = model.decoder((mean.T @ w)[None])[0]
        rounds.append(x)
    return rounds


def unpacked(triangle, rows):
    """A symmetric matrix from its upper triangle, row by row."""
    matrix, entries = torch.zeros(rows, rows, dtype=triangle.dtype), iter(triangle)
    for i in range(rows):
        for j in range(i, rows):
            matrix[i, j] = matrix[j, i] = next(entries)
    return matrix


# Equations


@pytest.mark.parametrize("rows, width, number", [(4, 6, 3), (4, 6, 9), (5, 2, 4), (1, 3, 2), (3, 1, 4)])
def test_writing_and_reading_follow_the_equations(rows, width, number):
    model = machine(rows, width, noise=0.3)
    patterns, query = random_points(2, number, 5), random_points(2, 3, 5, seed=1)
    memory = model.write(patterns)
    x, trajectory = model.read(query, memory, trajectory=True)
    assert torch.equal(trajectory[0], query) and torch.equal(trajectory[-1], x)
    assert torch.equal(model.read(query, memory), x)
    for b in range(2):
        prior = torch.diag(model.prior_log_variance.exp())
        mean, covariance = naive_write(model, patterns[b], model.prior_mean, prior)
        torch.testing.assert_close(memory["mean"][b], mean)
        torch.testing.assert_close(unpacked(memory["covariance"][b], rows), covariance)
        for q in range(3):
            expected = torch.stack(naive_read(model, query[b, q], mean))
            torch.testing.assert_close(trajectory[1:, b, q], expected)


def test_one_row_by_hand():
    model = machine(1, 1, 1, read_steps=1, encoder=nn.Identity(), decoder=nn.Identity(), noise=1.0)
    with torch.no_grad():
        model.prior_mean.fill_(2.0)
        model.prior_log_variance.fill_(math.log(3.0))
    memory = model.write(torch.tensor([[[1.0]]], dtype=torch.float64))
    # w = 2 / (4 + 1), Δ = 1 − 2 w = 0.2, c = 3 w = 1.2, s = w c + 1 = 1.48
    assert memory["mean"].item() == pytest.approx(2 + 1.2 * 0.2 / 1.48)
    assert memory["covariance"].item() == pytest.approx(3 - 1.2**2 / 1.48)
    mean = memory["mean"].item()
    x = model.read(torch.tensor([[[0.5]]], dtype=torch.float64), memory)
    assert x.item() == pytest.approx(0.5 * mean**2 / (mean**2 + 1))


def test_the_noise_starts_where_it_is_told_and_keeps_its_floor():
    model = KanervaMachine(5, 2, 3, noise=0.3)
    assert model.noise_variance().item() == pytest.approx(0.09)
    with torch.no_grad():
        model.log_noise_variance.fill_(-100.0)
    assert model.noise_variance().item() == pytest.approx(1e-4)


def test_writing_one_by_one_is_bayes_rule_on_all_at_once():
    # Given the addresses, the posterior of a linear Gaussian model does not depend on how it is reached.
    model = machine(rows=3, width=4, noise=0.5)
    patterns = random_points(1, 6, 5)
    noise, prior = model.noise_variance(), torch.diag(model.prior_log_variance.exp())
    mean, covariance, addresses = model.prior_mean, prior, []
    for pattern in patterns[0]:
        z = model.encoder(pattern[None])[0]
        addresses.append(torch.linalg.solve(mean @ mean.T + noise * torch.eye(3), mean @ z))
        mean, covariance = naive_write(model, pattern[None], mean, covariance)
    w, codes = torch.stack(addresses), model.encoder(patterns[0])
    posterior = torch.linalg.inv(torch.linalg.inv(prior) + w.T @ w / noise)
    memory = model.write(patterns)
    torch.testing.assert_close(unpacked(memory["covariance"][0], 3), posterior)
    expected = posterior @ (torch.linalg.inv(prior) @ model.prior_mean + w.T @ codes / noise)
    torch.testing.assert_close(memory["mean"][0], expected)


def test_with_little_noise_as_many_codes_as_rows_are_kept():
    model = machine(rows=4, width=8, noise=0.02)
    patterns = random_points(2, 4, 5)
    mean = model.write(patterns)["mean"]
    codes = model.encoder(patterns.flatten(0, 1)).unflatten(0, (2, 4))
    within = codes @ torch.linalg.pinv(mean) @ mean  # projected onto the rows' span
    assert (within - codes).norm() < 0.05 * codes.norm()
    more = random_points(2, 8, 5)
    mean = model.write(more)["mean"]
    codes = model.encoder(more.flatten(0, 1)).unflatten(0, (2, 8))
    assert (codes @ torch.linalg.pinv(mean) @ mean - codes).norm() > 0.1 * codes.norm()


def test_the_solution_and_its_derivative_are_those_of_the_inverse():
    model = machine(rows=5, width=3, noise=0.2)
    mean, right = random_points(2, 5, 3).requires_grad_(), random_points(2, 5, 4, seed=1).requires_grad_()
    ridge = model.noise_variance().detach() * torch.eye(5)
    expected = torch.linalg.inv(mean.detach() @ mean.detach().mT + ridge) @ right.detach()
    torch.testing.assert_close(model._regress(mean, right), expected)
    assert torch.autograd.gradcheck(model._regress, (mean, right))


def test_gradients_are_right_and_reach_every_parameter():
    model = machine(rows=3, width=4, features=2, read_steps=2)
    names = [name for name, _ in model.named_parameters()]
    patterns, query = random_points(2, 3, 2), random_points(2, 2, 2, seed=1)
    model.read(query, model.write(patterns)).square().sum().backward()
    assert {"prior_mean", "prior_log_variance", "log_noise_variance"} < set(names)
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())

    def read(mean, log_variance, log_noise, patterns, query):
        parameters = {"prior_mean": mean, "prior_log_variance": log_variance, "log_noise_variance": log_noise}
        return torch.func.functional_call(
            _WriteAndRead(model), {f"model.{n}": p for n, p in parameters.items()}, (patterns, query)
        )

    inputs = (model.prior_mean, model.prior_log_variance, model.log_noise_variance, patterns, query)
    inputs = tuple((0.1 + 0.8 * i if i.dim() == 3 else i).detach().requires_grad_() for i in inputs)
    assert torch.autograd.gradcheck(read, inputs)


class _WriteAndRead(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, patterns, query):
        memory = self.model.write(patterns)
        return self.model.read(query, memory), memory["covariance"]


@pytest.mark.parametrize("gain, noise", [(1, 0.1), (20, 0.0101)])
def test_long_writing_stays_stable_in_single_precision(gain, noise):
    torch.manual_seed(0)
    model = KanervaMachine(16, rows=16, width=20, noise=noise)
    patterns = random_points(2, 600, 16, dtype=torch.float32).round()
    with torch.no_grad():
        model.encoder.linear.weight.mul_(gain)  # long codes need long addresses, which cancel in U w
        memory, exact = model.write(patterns), model.double().write(patterns.double())
    assert all(tensor.isfinite().all() for tensor in memory.values())
    covariance = torch.stack([unpacked(triangle, 16) for triangle in memory["covariance"]])
    assert torch.linalg.eigvalsh(covariance.double()).min() > 0
    torch.testing.assert_close(memory["mean"].double(), exact["mean"], rtol=0, atol=1e-3 * exact["mean"].abs().max())


def test_singular_matrices_are_solved_too():
    model = KanervaMachine(4, rows=12, width=2, noise=0.0101)
    mean = 1e3 * random_points(2, 12, 2, dtype=torch.float32)
    assert model._regress(mean, mean).isfinite().all()


# What a memory is


@pytest.mark.parametrize("rows, width, floats", [(32, 48, 2064), (16, 121, 2072), (64, 96, 8224), (1, 1, 2)])
def test_a_memory_costs_its_mean_and_half_its_covariance(rows, width, floats):
    model = KanervaMachine(8, rows, width)
    memory = model.write(random_points(1, 2, 8, dtype=torch.float32))
    assert sum(tensor.numel() for tensor in memory.values()) == model.memory_floats == floats


def test_nothing_written_is_the_prior():
    model = machine(rows=3)
    memory = model.initial_memory(2)
    assert torch.equal(memory["mean"], model.prior_mean.expand(2, 3, 6))
    assert torch.equal(unpacked(memory["covariance"][1], 3), torch.diag(model.prior_log_variance.exp()))
    patterns = random_points(2, 2, 5)
    assert torch.equal(model.write(patterns, memory)["mean"], model.write(patterns)["mean"])


# What it learns


def test_the_start_already_recalls_a_few_patterns():
    torch.manual_seed(0)
    task = Task(tasks.RandomBits(64), tasks.FlipBits(0.1), number=4)
    assert evaluate(KanervaMachine(64, rows=8, width=80, read_steps=4), task, memories=50)["mean"] < 1.0


def test_it_learns_to_recall_four_patterns_from_a_random_start():
    torch.manual_seed(0)
    task = Task(tasks.RandomBits(32), tasks.FlipBits(0.1), number=4)
    coders = {"encoder": Encoder(32, 64, hidden=64), "decoder": Decoder(64, 32, hidden=64)}
    model = KanervaMachine(32, rows=4, width=64, read_steps=3, **coders)
    before = evaluate(model, task, memories=100)["mean"]
    fit(model, task, steps=150, learning_rate=5e-3, progress=False)
    assert before > 12 and evaluate(model, task, memories=100)["mean"] < 0.16


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_as_little_noise_is_refused(noise):
    with pytest.raises(ValueError, match=f"noise must be above 0.01, got {noise}"):
        KanervaMachine(4, 3, 5, noise=noise)
