import math

import pytest
import torch
from torch import nn

from ebmm import Memory, Task, evaluate, fit, tasks
from ebmm.baselines.plasticity import DifferentiablePlasticity

DIM = 6
SHOWINGS = [None, 1, 3]


class Signs(nn.Module):
    """Codes that overwhelm every other input of a unit."""

    def forward(self, x):
        return 1000 * (2 * x - 1)


def make(write_steps=None, units=5, seed=0, **options):
    """A float64 model with every parameter moved off its start value."""
    torch.manual_seed(seed)
    model = DifferentiablePlasticity(DIM, units, write_steps, rate=0.2, gain=3.0, **options).double()
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
        code = model.encoder(x[None])[0].tolist()
        before = [math.tanh(c) for c in code]
        for _ in range(model.write_steps or 1):
            after = before if model.write_steps is None else naive_step(model, before, code, trace)
            trace = [[(1 - rate) * trace[i][j] + rate * before[i] * after[j] for j in range(n)] for i in range(n)]
            before = after
    return trace


def naive_read(model, query, trace):
    code = model.encoder(query[None])[0].tolist()
    y, iterates = [math.tanh(c) for c in code], []
    for _ in range(model.read_steps):
        y = naive_step(model, y, code, trace)
        iterates.append(model.decoder(torch.tensor([y], dtype=torch.double))[0])
    return torch.stack(iterates)


@pytest.mark.parametrize("write_steps", SHOWINGS)
@torch.no_grad()
def test_write_and_read_equal_the_naive_loop(write_steps):
    model, patterns = make(write_steps), patterns_for()
    memory = model.write(patterns)
    trace = memory["trace"][:, model.position] if write_steps is None else memory["trace"]
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
def test_a_free_network_under_an_overwhelming_input_is_a_held_one():
    patterns = patterns_for().round()
    options = {"units": DIM, "encoder": Signs(), "decoder": nn.Sigmoid()}
    held, free = make(None, **options), make(1, **options)
    trace = free.write(patterns)["trace"]
    torch.testing.assert_close(held.write(patterns)["trace"][:, held.position], trace)
    torch.testing.assert_close(trace, trace.mT)


@torch.no_grad()
def test_an_untrained_network_recalls_a_few_patterns_as_a_hopfield_network_does():
    torch.manual_seed(0)
    task = Task(tasks.RandomBits(64), tasks.FlipBits(0.1), number=3)
    assert evaluate(DifferentiablePlasticity(64, 64), task, memories=50)["mean"] < 0.64
    assert evaluate(DifferentiablePlasticity(64, 64, gain=0.0), task, memories=50)["mean"] > 5


@pytest.mark.parametrize(("write_steps", "gain", "bound"), [(None, 4.0, 0.01), (1, None, 0.02)])
def test_learns_an_easy_task(write_steps, gain, bound):
    torch.manual_seed(0)
    task = Task(tasks.RandomBits(32), tasks.FlipBits(0.05), number=4)
    model = DifferentiablePlasticity(32, 32, write_steps, gain=gain)
    before = evaluate(model, task, memories=200, seed=1)["mean"]
    fit(model, task, steps=200, memories=16, learning_rate=3e-3, progress=False)
    after = evaluate(model, task, memories=200, seed=1)["mean"]
    assert after < 32 * bound and after < 0.7 * before


@pytest.mark.parametrize(
    ("units", "write_steps", "floats"), [(64, None, 2080), (128, None, 8256), (45, 1, 2025), (90, 2, 8100)]
)
def test_memory_floats_count_the_trace(units, write_steps, floats):
    model = DifferentiablePlasticity(64, units, write_steps)
    memory = model.write(torch.rand(1, 3, 64))
    assert model.memory_floats == floats == sum(tensor.numel() for tensor in memory.values())


@pytest.mark.parametrize("write_steps", SHOWINGS)
@torch.no_grad()
def test_writing_in_two_calls_equals_writing_in_one(write_steps):
    model, patterns = make(write_steps), patterns_for(number=7)
    first = model.write(patterns[:, :3])
    before = first["trace"].clone()
    twice = model.write(patterns[:, 3:], first)
    torch.testing.assert_close(twice["trace"], model.write(patterns)["trace"])
    assert torch.equal(first["trace"], before)
    assert not torch.allclose(before, twice["trace"])


@pytest.mark.parametrize("write_steps", SHOWINGS)
@torch.no_grad()
def test_memories_and_queries_do_not_see_each_other(write_steps):
    model, patterns = make(write_steps), patterns_for(memories=3)
    memory = model.write(patterns)
    together = model.read(patterns, memory)
    alone = model.write(patterns[1:2])
    torch.testing.assert_close(memory["trace"][1:2], alone["trace"])
    one_by_one = torch.cat([model.read(query, alone) for query in patterns[1:2].flip(1).split(1, dim=1)], dim=1)
    torch.testing.assert_close(together[1:2], one_by_one.flip(1))


@pytest.mark.parametrize("write_steps", SHOWINGS)
def test_gradients_reach_every_parameter(write_steps):
    torch.manual_seed(0)
    model, patterns = DifferentiablePlasticity(DIM, 5, write_steps).double(), patterns_for()
    model.read(patterns, model.write(patterns)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("write_steps", SHOWINGS)
def test_gradients_equal_finite_differences(write_steps):
    model, patterns = make(write_steps), patterns_for()

    def loss():
        memory = model.write(patterns[:, 2:], model.write(patterns[:, :2]))
        return (model.read(1 - patterns, memory) - patterns).square().sum()

    gradients = torch.autograd.grad(loss(), list(model.parameters()))
    generator = torch.Generator().manual_seed(2)
    for (key, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
        with torch.no_grad():
            parameter.add_(1e-6 * direction)
            above = loss()
            parameter.sub_(2e-6 * direction)
            below = loss()
            parameter.add_(1e-6 * direction)
        measured = ((above - below) / 2e-6).item()
        assert measured == pytest.approx((gradient * direction).sum().item(), rel=1e-4, abs=1e-7), key


@torch.no_grad()
def test_reading_gives_values_in_the_box_and_the_trajectory_starts_at_the_query():
    model, patterns = make(read_steps=4), patterns_for()
    x, trajectory = model.read(patterns[:, :2], model.write(patterns), trajectory=True)
    assert x.shape == (2, 2, DIM) and trajectory.shape == (5, 2, 2, DIM)
    assert torch.equal(trajectory[0], patterns[:, :2]) and torch.equal(trajectory[-1], x)
    assert (trajectory >= 0).all() and (trajectory <= 1).all()


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


def test_patterns_of_any_shape_with_coders_of_your_own():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    decoder = nn.Sequential(nn.Linear(5, 12), nn.Sigmoid(), nn.Unflatten(1, (3, 4)))
    model = DifferentiablePlasticity((3, 4), 5, encoder=encoder, decoder=decoder)
    patterns = torch.rand(2, 3, 3, 4)
    assert model.read(patterns, model.write(patterns)).shape == patterns.shape


# The door


@pytest.mark.parametrize(
    ("patterns", "error", "words"),
    [
        (torch.zeros(2, 3, 5), ValueError, r"\(B, N, 6\), got \(2, 3, 5\)"),
        (torch.zeros(2, 0, 6), ValueError, "must not be empty"),
        (torch.full((2, 3, 6), 1.5), ValueError, r"lie in \[0, 1\], got values from 1.5"),
        (torch.full((2, 3, 6), float("nan")), ValueError, "finite"),
        (torch.zeros(2, 3, 6, dtype=torch.long), TypeError, "floating point, got torch.int64"),
        (torch.zeros(2, 3, 6).double(), TypeError, "torch.float32 like the model"),
        ([[0.0]], TypeError, "torch tensor .* got list"),
    ],
)
def test_bad_patterns_are_refused_with_what_was_given(patterns, error, words):
    model = DifferentiablePlasticity(6, 4)
    memory = model.write(torch.zeros(2, 1, 6))
    with pytest.raises(error, match=words):
        model.write(patterns)
    with pytest.raises(error, match=words):
        model.read(patterns, memory)


def test_a_foreign_memory_is_refused():
    held, free = DifferentiablePlasticity(6, 4), DifferentiablePlasticity(6, 4, write_steps=1)
    query = torch.zeros(2, 1, 6)
    for foreign in [Memory({"other": torch.zeros(2, 10)}), free.write(query), None]:
        with pytest.raises(ValueError, match=r"expected a Memory with trace: \(B, 10\), as write returns it, got"):
            held.read(query, foreign)
    with pytest.raises(ValueError, match=r"trace: \(B, 4, 4\)"):
        free.write(query, held.write(query))
    with pytest.raises(ValueError, match=r"trace: \(B, 10\)"):
        held.write(query, {"trace": torch.zeros(2, 10)})
    with pytest.raises(ValueError, match="addresses 1 memories .* holds 2"):
        held.read(query[:1], held.write(query))
    with pytest.raises(ValueError, match="addresses 1 memories .* holds 2"):
        held.write(query[:1], held.write(query))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"units": 0}, "at least 1, got 6, 0, None and 3"),
        ({"features": 0}, "at least 1"),
        ({"write_steps": 0}, "at least 1, got 6, 4, 0 and 3"),
        ({"read_steps": 0}, "at least 1"),
        ({"rate": 0.0}, r"rate must lie in \(0, 1\), got 0.0"),
        ({"rate": 1.0}, r"rate must lie in \(0, 1\), got 1.0"),
        ({"features": (2, 3)}, r"patterns of shape \(2, 3\) need an encoder and a decoder of your own"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        DifferentiablePlasticity(**{"features": 6, "units": 4} | arguments)


def test_an_encoder_of_another_width_is_refused():
    model = DifferentiablePlasticity(6, 4, encoder=nn.Linear(6, 9))
    with pytest.raises(ValueError, match=r"encoder must give 4 numbers a pattern, got shape \(9,\)"):
        model.write(torch.zeros(1, 2, 6))
