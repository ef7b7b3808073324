import math

import naive
import pytest
import torch
from torch import nn

from ebmm import Task, evaluate, fit, tasks
from ebmm.baselines.plasticity import DifferentiablePlasticity

DIM = 6


class Signs(nn.Module):
    """Codes that overwhelm every other input of a unit."""

    def forward(self, x):
        return 1000 * (2 * x - 1)


def make(units=5, seed=0, **options):
    """A float64 model with every parameter moved off its start value."""
    torch.manual_seed(seed)
    model = DifferentiablePlasticity(DIM, units, rate=0.2, gain=3.0, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def patterns_for(memories=2, number=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(memories, number, DIM, generator=generator, dtype=torch.double)


def naive_step(model, y, code, trace):
    n = model.units
    w, a = model.fixed.tolist(), model.plastic.tolist()
    return [math.tanh(sum(y[i] * (w[i][j] + a[i][j] * trace[i][j]) for i in range(n)) + code[j]) for j in range(n)]


def naive_write(model, patterns):
    """One memory's trace, connection by connection."""
    n, rate = model.units, model.rate().item()
    trace = [[0.0] * n for _ in range(n)]
    for x in patterns:
        y = [math.tanh(c) for c in model.encoder(x[None])[0].tolist()]
        trace = [[(1 - rate) * trace[i][j] + rate * y[i] * y[j] for j in range(n)] for i in range(n)]
    return trace


def naive_read(model, query, trace):
    code = model.encoder(query[None])[0].tolist()
    y, iterates = [math.tanh(c) for c in code], []
    for _ in range(model.read_steps):
        y = naive_step(model, y, code, trace)
        iterates.append(model.decoder(torch.tensor([y], dtype=torch.double))[0])
    return torch.stack(iterates)


@torch.no_grad()
def test_write_and_read_equal_the_naive_loop():
    model, patterns = make(), patterns_for()
    memory = model.write(patterns)
    trace = memory["trace"][:, model.position]
    _, trajectory = model.read(1 - patterns, memory, trajectory=True)
    for b in range(2):
        slow = naive_write(model, patterns[b])
        torch.testing.assert_close(trace[b], torch.tensor(slow, dtype=torch.double))
        for q, query in enumerate(1 - patterns[b]):
            torch.testing.assert_close(trajectory[1:, b, q], naive_read(model, query, slow))


@torch.no_grad()
def test_a_trace_worked_by_hand():
    model = DifferentiablePlasticity(2, 2, encoder=Signs(), decoder=nn.Sigmoid(), rate=0.25)
    trace = model.write(torch.tensor([[[1.0, 1.0], [1.0, 0.0]]]))["trace"]
    # 0.25·0.75 of the older (+1, +1) and 0.25 of the newer (+1, −1); the diagonal is 1 in both.
    torch.testing.assert_close(trace, torch.tensor([[0.4375, 0.1875 - 0.25, 0.4375]]))


@torch.no_grad()
def test_an_untrained_network_recalls_a_few_patterns_as_a_hopfield_network_does():
    torch.manual_seed(0)
    task = Task(tasks.RandomBits(64), tasks.FlipBits(0.1), number=3)
    assert evaluate(DifferentiablePlasticity(64, 64), task, memories=50)["mean"] < 0.64
    assert evaluate(DifferentiablePlasticity(64, 64, gain=0.0), task, memories=50)["mean"] > 5


def test_learns_an_easy_task():
    torch.manual_seed(0)
    task = Task(tasks.RandomBits(32), tasks.FlipBits(0.05), number=4)
    model = DifferentiablePlasticity(32, 32, gain=4.0)
    before = evaluate(model, task, memories=200, seed=1)["mean"]
    fit(model, task, steps=200, memories=16, learning_rate=3e-3, progress=False)
    after = evaluate(model, task, memories=200, seed=1)["mean"]
    assert after < 0.32 and after < 0.7 * before


@pytest.mark.parametrize(("units", "floats"), [(64, 2080), (128, 8256)])
def test_memory_floats_count_the_trace(units, floats):
    model = DifferentiablePlasticity(64, units)
    memory = model.write(torch.rand(1, 3, 64))
    assert model.memory_floats == floats == sum(tensor.numel() for tensor in memory.values())


def test_gradients_equal_finite_differences():
    model, patterns = make(), patterns_for()

    def loss():
        memory = model.write(patterns[:, 2:], model.write(patterns[:, :2]))
        return (model.read(1 - patterns, memory) - patterns).square().sum()

    gradients = torch.autograd.grad(loss(), list(model.parameters()))
    generator = torch.Generator().manual_seed(2)
    for (key, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
        measured = naive.central_difference(loss, parameter, direction, 1e-6)
        assert measured == pytest.approx((gradient * direction).sum().item(), rel=1e-4, abs=1e-7), key


def test_start_values_are_those_asked_for():
    model = DifferentiablePlasticity(64, 50, rate=0.02, gain=7.0)
    assert model.rate().item() == pytest.approx(0.02)
    assert (50 * model.rate() * model.plastic).mean().item() == pytest.approx(7.0, rel=1e-3)
    assert model.fixed.std().item() == pytest.approx(0.01, rel=0.1) and abs(model.fixed.mean().item()) < 1e-3
    assert model.plastic.std().item() == pytest.approx(0.01, rel=0.1)


def test_the_rate_stays_between_0_and_1():
    model = DifferentiablePlasticity(6, 4)
    for logit in (-10.0, 10.0):
        with torch.no_grad():
            model.rate_logit.fill_(logit)
        assert 0 < model.rate() < 1


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match=rf"rate must lie in \(0, 1\), got {rate}"):
        DifferentiablePlasticity(6, 4, rate=rate)
