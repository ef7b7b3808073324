import copy
import math
import re
import weakref
from fractions import Fraction

import naive
import numpy as np
import pytest
import torch
from torch import nn

from ebmm import EBMM, Batch, Memory
from ebmm.coders import sign_coders
from ebmm.energies import (
    CodedSlotEnergy,
    DenseEnergy,
    GatedRNNEnergy,
    HopEnergy,
    MarginEnergy,
    MLPEnergy,
    PredictiveEnergy,
    QuadraticEnergy,
    SlotEnergy,
)
from ebmm.experiments.networks import Perceptron
from ebmm.layers import LayerNorm, MemoryConv2d
from ebmm.recompute import recomputed
from ebmm.training import reconstruction_loss

DIM = 6


class ConvolutionalEnergy(nn.Module):
    """A small energy over images whose memory is a convolution."""

    writable = ("memory",)

    def __init__(self):
        super().__init__()
        self.memory = MemoryConv2d(1, 3, 3, padding=1)
        self.head = nn.Linear(3 * 2 * 3, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.memory(x.unsqueeze(-3))).flatten(-3)).squeeze(-1)


class PlainEnergy(nn.Module):
    """A user's module of ordinary layers only: served by vmap."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(DIM, 5)
        self.norm = LayerNorm(5)
        self.last = nn.Linear(5, 1)

    def forward(self, x):
        return self.last(torch.tanh(self.norm(self.first(x)))).squeeze(-1)


ENERGIES = {
    "quadratic": (lambda: QuadraticEnergy(DIM, curvature=0.5), None),
    "dense": (lambda: DenseEnergy(DIM, slots=4), None),
    "mlp": (lambda: MLPEnergy(DIM, memory_features=3, hidden=5), None),
    "predictive": (lambda: PredictiveEnergy(DIM, hidden=5), None),
    "gated rnn": (lambda: GatedRNNEnergy(DIM, memory_features=3, hidden=5, hops=3), None),
    "margin": (lambda: MarginEnergy(DIM, Perceptron(DIM, 4), 4), None),
    "hops": (lambda: HopEnergy(DIM, hops=2), None),
    "slots": (lambda: SlotEnergy(DIM, slots=4, beta=2.0), None),
    "coded slots": (lambda: CodedSlotEnergy(DIM, 4, 5, *sign_coders(DIM, 5, steps=2), beta=2.0), None),
    "convolution": (ConvolutionalEnergy, None),
    "any module": (PlainEnergy, ["first", "norm.bias", "last"]),
}


def make(name, seed=0, **options):
    """A float64 model with every parameter moved off its start value, so that nothing is zero by chance."""
    torch.manual_seed(seed)
    build, writable = ENERGIES[name]
    model = EBMM(build(), writable, write_steps=2, read_steps=3, write_rate=0.02, read_rate=0.01, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def batch_for(name, memories=2, number=3, seed=1):
    shape = (2, 3) if name == "convolution" else (DIM,)
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(0, 2, (memories, number, *shape), generator=generator).double()
    queries = 0.25 + 0.5 * torch.rand(patterns.shape, generator=generator, dtype=torch.double)
    return Batch(patterns, queries, torch.ones_like(patterns, dtype=torch.bool))


def meta_gradient(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize("gradient_term", [True, False])
@pytest.mark.parametrize("sequential", [True, False])
def test_values_and_meta_gradients_equal_the_naive_loop(name, gradient_term, sequential):
    compare_with_naive(name, gradient_term=gradient_term, sequential=sequential)


@pytest.mark.parametrize("name", ["mlp", "hops"])
def test_gradients_are_summed_over_patterns_on_demand(name):
    compare_with_naive(name, reduction="sum")
    patterns = batch_for(name).patterns
    sums, means = (make(name, reduction=reduction).write(patterns) for reduction in ("sum", "mean"))
    assert not torch.allclose(sums["memory.weight"], means["memory.weight"])


def test_another_reduction_is_refused():
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum', got 'max'"):
        EBMM(PlainEnergy(), "first", reduction="max")


def compare_with_naive(name, **options):
    model, batch = make(name, **options), batch_for(name)
    fast, _ = reconstruction_loss(model, batch)
    slow = naive.loss(model, batch.patterns, batch.queries)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
    for (key, _), f, s in zip(
        model.named_parameters(), meta_gradient(model, fast), meta_gradient(model, slow), strict=True
    ):
        torch.testing.assert_close(f, s, rtol=1e-8, atol=1e-8, msg=lambda m, key=key: f"{key}: {m}")


def test_writing_in_sequence_is_writing_pattern_after_pattern():
    batch = batch_for("slots")
    model, together = make("slots", sequential=True), make("slots")
    written, along = model.write(batch.patterns, trajectory=True)
    assert len(along) == 3 * model.write_steps + 1 and along[-1] is written
    one_by_one = None
    for pattern in batch.patterns.split(1, 1):
        one_by_one = together.write(pattern, one_by_one)
    torch.testing.assert_close(written["memory.weight"], one_by_one["memory.weight"])
    assert not torch.allclose(written["memory.weight"], together.write(batch.patterns)["memory.weight"])


@pytest.mark.parametrize("name", ENERGIES)
def test_batched_path_equals_vmap_path(name):
    model, batch = make(name), batch_for(name)
    by_vmap = copy.deepcopy(model)
    by_vmap._batched = False
    assert model._batched == (name != "any module")
    first, _ = reconstruction_loss(model, batch)
    second, _ = reconstruction_loss(by_vmap, batch)
    for f, s in zip(meta_gradient(model, first), meta_gradient(by_vmap, second), strict=True):
        torch.testing.assert_close(f, s, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ENERGIES)
def test_meta_gradient_equals_finite_differences(name):
    model, batch = make(name), batch_for(name)
    loss, _ = reconstruction_loss(model, batch)
    gradients = meta_gradient(model, loss)
    assert sum(g.square().sum() for g in gradients) > 0
    generator = torch.Generator().manual_seed(2)
    for (key, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
        measured = naive.central_difference(
            lambda: reconstruction_loss(model, batch)[0], parameter, direction, step=1e-5
        )
        assert measured == pytest.approx((gradient * direction).sum().item(), rel=1e-5, abs=1e-7), key


# Recomputed steps


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize("options", [{}, {"sequential": True, "gradient_term": False}], ids=["together", "sequential"])
def test_recomputed_steps_give_the_same_loss_and_meta_gradient(name, options):
    batch, results = batch_for(name), []
    for recompute in (False, True):
        model = make(name, recompute=recompute, **options)
        loss, recalled = reconstruction_loss(model, batch)
        results.append((loss, recalled, *meta_gradient(model, loss)))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    for kept, again in zip(*results, strict=True):
        torch.testing.assert_close(again, kept, rtol=1e-12, atol=1e-12)


def most_kept(model, batch):
    """The most bytes kept for a backward pass at any time while loss and meta-gradient are computed."""

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor.detach()  # else what an operation saves of its own result never dies

    alive, most = weakref.WeakSet(), 0

    def keep(tensor):
        nonlocal most
        kept = Kept(tensor)
        alive.add(kept)
        storages = [one.tensor.untyped_storage() for one in alive]
        most = max(most, sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values()))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
        meta_gradient(model, reconstruction_loss(model, batch)[0])
    return most


@pytest.mark.parametrize("gradient_term", [True, False])
def test_recomputed_steps_keep_the_activations_of_one_step(gradient_term):
    most = {}
    for recompute in (False, True):
        for steps in (1, 8):
            torch.manual_seed(0)
            energy = GatedRNNEnergy(DIM, memory_features=2, hidden=32, hops=3)
            model = EBMM(energy, None, steps, steps, gradient_term=gradient_term, recompute=recompute).double()
            most[recompute, steps] = most_kept(model, batch_for("gated rnn", memories=4, number=16))
    assert most[False, 8] > 6 * most[False, 1]
    assert most[True, 8] < 1.2 * most[True, 1] and most[True, 8] < 0.15 * most[False, 8]


def test_recomputed_steps_round_as_the_first_time():
    gradients, batch = [], batch_for("mlp")
    batch = Batch(batch.patterns.float(), batch.queries.float(), batch.intact)
    for recompute in (False, True):
        model = make("mlp", recompute=recompute).float()
        # With the cache, kept steps would share one rounded copy of each weight and sum its gradient in bfloat16.
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            loss, _ = reconstruction_loss(model, batch)
        gradients.append(torch.cat([gradient.flatten() for gradient in meta_gradient(model, loss)]))
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[0].norm()


def test_a_recomputed_step_is_not_differentiated_twice():
    weight = torch.ones(2, requires_grad=True)
    (cubed,) = recomputed(lambda keep, weight: (weight**3,), weight)
    (slope,) = torch.autograd.grad(cubed.square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        (slope * weight).sum().backward()


def test_write_and_read_do_not_depend_on_grad_mode():
    model, batch = make("gated rnn"), batch_for("gated rnn")
    recorded, trajectory = model.read(batch.queries, model.write(batch.patterns), trajectory=True)
    with torch.no_grad():
        memory = model.write(batch.patterns)
        plain, _ = model.read(batch.queries, memory, trajectory=True)
        energy = model.energy(plain, memory)
    torch.testing.assert_close(recorded, plain)
    torch.testing.assert_close(model.energy(plain, memory), energy)
    assert recorded.requires_grad and not plain.requires_grad and not energy.requires_grad
    assert not any(tensor.requires_grad for tensor in memory.values())
    assert trajectory.shape == (4, *batch.queries.shape)
    assert (trajectory[0] == batch.queries).all() and (trajectory[-1] == recorded).all()


def test_writing_lowers_the_energy_of_what_is_written():
    model = EBMM(PredictiveEnergy(16), write_rate=0.05, gradient_term=False)
    patterns = torch.randint(0, 2, (4, 5, 16), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        before = model.energy(patterns, model.initial_memory(4))
        first = model.write(patterns[:, :3])
        both = model.write(patterns[:, 3:], first)
    assert (model.energy(patterns[:, :3], first) < before[:, :3]).all()
    assert (model.energy(patterns[:, 3:], both) < model.energy(patterns[:, 3:], first)).all()
    assert not torch.equal(first["memory.weight"], both["memory.weight"])


@pytest.mark.parametrize("recorded", [True, False])
def test_write_tells_the_memory_after_each_step(recorded):
    model, batch = make("mlp"), batch_for("mlp")
    with torch.set_grad_enabled(recorded):
        memory, memories = model.write(batch.patterns, trajectory=True)
    assert len(memories) == model.write_steps + 1 and memories[-1] is memory
    for name, weight in memory.items():
        torch.testing.assert_close(memories[0][name], model.initial_memory(2)[name])
        torch.testing.assert_close(weight, model.write(batch.patterns)[name])
        assert weight.requires_grad is recorded
        assert len({one[name].sum().item() for one in memories}) == len(memories)


def test_decay_term_pulls_back_to_the_initial_weights():
    rates = {"gradient_term": False, "write_steps": 1}
    with_decay = EBMM(QuadraticEnergy(4), write_rate=(1e-9, 1e-9, 0.25), **rates)
    start = Memory({"memory.weight": torch.ones(1, 10)})
    with torch.no_grad():
        memory = with_decay.write(torch.zeros(1, 1, 4), start)
    torch.testing.assert_close(memory["memory.weight"], torch.full((1, 10), 0.5), atol=1e-6, rtol=0)


def test_rates_follow_their_constraints():
    model = make("mlp")
    read, momentum = model.read_rates(), model.momentum_rates()
    assert read.shape == momentum.shape == (3,)
    assert (read > 0).all() and (read.diff() < 0).all()
    assert momentum[0] == 0 and (momentum < 1).all() and (momentum[1:].diff() < 0).all()
    assert model.write_rates().shape == (2, 3, 1) and (model.write_rates() > 0).all()
    free = EBMM(PlainEnergy(), ["first", "last"], momentum=False, non_increasing=False)
    assert free.write_rates().shape == (5, 3, 2)
    assert (free.momentum_rates() == 0).all() and free.read_rates().shape == (5,)
    torch.testing.assert_close(free.read_rates(), torch.full((5,), 0.1))


def test_reading_stays_in_the_box_unless_there_is_none():
    query = torch.rand(1, 4, DIM)
    for options, inside in [({}, True), ({"projection": "straight-through"}, True), ({"box": None}, False)]:
        torch.manual_seed(0)
        model = EBMM(QuadraticEnergy(DIM), read_rate=5.0, **options)
        memory = Memory({"memory.weight": torch.ones(1, 21)})
        x = model.read(query, memory)
        assert bool((x >= 0).all() and (x <= 1).all()) is inside


def test_straight_through_lands_exactly_where_clamp_does():
    x = 20 * torch.rand(10000, generator=torch.Generator().manual_seed(0)) - 10
    model = EBMM(QuadraticEnergy(DIM), projection="straight-through", box=(0.1, 0.7))
    assert torch.equal(model._project(x), x.clamp(0.1, 0.7))


def test_straight_through_passes_gradients_that_clamp_stops():
    query = torch.full((1, 1, DIM), 0.9)
    slopes = {}
    for projection in ("clamp", "straight-through"):
        model = EBMM(QuadraticEnergy(DIM), read_rate=5.0, projection=projection)
        loss = model.read(query, Memory({"memory.weight": torch.ones(1, 21)})).sum()
        slopes[projection] = torch.autograd.grad(loss, model.raw_read_rate)[0]
    assert slopes["clamp"] == 0 and slopes["straight-through"] != 0


def test_memory_floats_count_biases():
    assert EBMM(MLPEnergy(64, 32)).memory_floats == 65 * 32
    assert EBMM(PredictiveEnergy(64)).memory_floats == 64 * 65 // 2
    assert EBMM(GatedRNNEnergy(128, 64, hidden=80)).memory_floats == 8256
    assert EBMM(PlainEnergy(), ["first"]).memory_floats == DIM * 5 + 5


def test_a_user_module_in_ten_lines():
    class Energy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x):
            return (self.layer(x) - x).square().sum(-1)

    model = EBMM(Energy(), writable=["layer"], write_steps=3, read_steps=4)
    x = torch.rand(2, 5, 8)
    assert model.read(x, model.write(x)).shape == x.shape


# What is refused


@pytest.mark.parametrize(
    ("energy", "shape"), [(nn.Linear(6, 1), r"\(2, 3\), got \(2, 3, 1\)"), (nn.Linear(6, 6), r"got \(2, 3, 6\)")]
)
def test_an_energy_that_is_not_scalar_is_refused(energy, shape):
    with pytest.raises(ValueError, match="one scalar each.*" + shape):
        EBMM(energy, ["weight"]).write(torch.zeros(2, 3, 6))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"writable": ["missing"]}, ValueError, r"no parameter or submodule 'missing': choose from \['first.weight'"),
        ({"writable": []}, ValueError, r"name the writable parameters .* out of \['first.weight'"),
        ({"writable": None}, ValueError, "name the writable parameters"),
        ({"write_steps": 0}, ValueError, "write_steps must be at least 1, got 0"),
        ({"read_steps": 0}, ValueError, "read_steps must be at least 1, got 0"),
        ({"write_steps": 2.5}, TypeError, "write_steps must be a whole number, got 2.5"),
        ({"read_steps": "3"}, TypeError, "read_steps must be a whole number, got '3'"),
        ({"read_steps": math.inf}, TypeError, "read_steps must be a whole number, got inf"),
        ({"box": (1.0, 0.0)}, ValueError, r"low < high, got \(1.0, 0.0\)"),
        ({"box": (0.5, 0.5)}, ValueError, r"low < high, got \(0.5, 0.5\)"),
        ({"box": (0.0, 0.5, 1.0)}, ValueError, r"low < high, got \(0.0, 0.5, 1.0\)"),
        ({"box": (0.0, math.nan)}, ValueError, r"low < high, got \(0.0, nan\)"),
        ({"box": 1.0}, ValueError, "low < high, got 1.0"),
        ({"projection": "wrap"}, ValueError, "'clamp' or 'straight-through', got 'wrap'"),
        ({"write_rate": 0.0}, ValueError, "write_rate must be a positive number .* got 0.0"),
        ({"write_rate": math.nan}, ValueError, "write_rate must be a positive number .* got nan"),
        ({"write_rate": (0.1, 0.1, -1)}, ValueError, r"write_rate must be a positive .* got \(0.1, 0.1, -1\)"),
        ({"read_rate": math.inf}, ValueError, "read_rate must be a positive number, got inf"),
        ({"read_rate": "fast"}, TypeError, "read_rate must be a number, got 'fast'"),
        ({"write_rate": (0.1, None, 1)}, TypeError, "write_rate must be a number, got None"),
        ({"read_rate": (0.1, 0.2)}, ValueError, r"read_rate must be a positive number, got \(0.1, 0.2\)"),
        ({"write_rate": (0.1, 0.1)}, ValueError, r"one for each of .* got \(0.1, 0.1\)"),
        ({"energy": torch.sum}, TypeError, "torch.nn.Module, got builtin_function_or_method"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        EBMM(**{"energy": PlainEnergy(), "writable": ["first"]} | arguments)


@pytest.mark.parametrize(
    "rate", [np.float32(0.25), np.float64(0.25), torch.tensor(0.25), Fraction(1, 4), np.array(0.25)], ids=repr
)
def test_any_number_is_a_rate(rate):
    expected = EBMM(PlainEnergy(), "first", write_rate=0.25, read_rate=0.25).state_dict()
    for given in (rate, [rate] * 3, np.array([0.25, 0.25, 0.25])):
        found = EBMM(PlainEnergy(), "first", write_rate=given, read_rate=rate).state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected if name.startswith("raw"))


@pytest.mark.parametrize("rate", [1e-6, 0.1, 29.9, 30.1, 1000.0, 1e30])
def test_rates_start_where_they_are_told(rate):
    model = EBMM(PlainEnergy(), "first", write_rate=rate, read_rate=rate, momentum=False)
    torch.testing.assert_close(model.write_rates(), torch.full((5, 3, 1), rate))
    torch.testing.assert_close(model.read_rates()[0], torch.tensor(rate))


@pytest.mark.parametrize("free", [True, False])
def test_momentum_starts_at_about_a_quarter(free):
    start = torch.sigmoid(torch.tensor(-1.0))
    rates = EBMM(PlainEnergy(), "first", read_steps=4, non_increasing=not free).momentum_rates()
    later = start if free else start * torch.sigmoid(torch.tensor(3.0))
    torch.testing.assert_close(rates[:3], torch.stack([0 * start, start, later]))


@pytest.mark.parametrize("box", [np.array([0, 1]), [0, 1], torch.tensor([0.0, 1.0]), (0, np.float32(1))], ids=repr)
@pytest.mark.parametrize("steps", [2, 2.0, np.int64(2), np.float32(2)], ids=repr)
def test_boxes_and_steps_of_other_types(box, steps):
    model = EBMM(PlainEnergy(), "first", write_steps=steps, read_steps=steps, box=box)
    assert model.box == (0.0, 1.0) and type(model.box[1]) is float and type(model.read_steps) is int
    model.read(torch.rand(1, 2, DIM), model.write(torch.rand(1, 2, DIM)))
    assert model.write_rates().shape == (2, 3, 1) and model.read_rates().shape == (2,)


def test_a_representation_says_each_setting_once():
    names = [part.partition("=")[0] for part in re.split(r", (?=\w+=)", EBMM(PlainEnergy(), "first").extra_repr())]
    assert len(names) == len(set(names)) == 11


def test_a_name_stands_for_its_own_parameters_only():
    energy = nn.ModuleDict({"memory": nn.Linear(2, 2), "memory2": nn.Linear(2, 2), "memory_": nn.Linear(2, 2)})
    assert EBMM(energy, "memory").writable == ("memory.weight", "memory.bias")


def test_a_parameter_that_is_named_twice_is_written_once():
    model = EBMM(PlainEnergy(), ["first", "first.bias", "first"])
    assert model.writable == ("first.weight", "first.bias") and model.memory_floats == DIM * 5 + 5


def test_a_memory_layer_of_which_a_part_is_writable_is_not_batched():
    for writable, batched in [("memory", True), ("memory.weight", False), ("memory.bias", False)]:
        assert EBMM(MLPEnergy(DIM, 3, 5), writable)._batched is batched


def test_wrong_normalisation_is_pointed_out():
    with pytest.warns(UserWarning, match="third-order"):
        EBMM(nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)), ["0"])
    with pytest.warns(UserWarning, match="third-order"):
        EBMM(nn.Sequential(nn.Linear(6, 6), nn.InstanceNorm1d(3)), ["0"])
    with pytest.raises(ValueError, match="batch normalisation"):
        EBMM(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), ["0"])


def test_without_gradients_no_step_keeps_the_one_before():
    """Whole memories that live at once, as autograd would hold them, do not grow with the number of steps."""
    held = {}
    for steps in (2, 12):
        model = EBMM(PredictiveEnergy(DIM), write_steps=steps, gradient_term=False, write_rate=0.01)
        born, alive = [], []
        step = model._write_step

        def watched(*inputs, step=step, born=born, alive=alive):
            alive.append(sum(reference() is not None for reference in born))
            updated = step(*inputs)
            born.extend(map(weakref.ref, updated))
            return updated

        model._write_step = watched
        with torch.no_grad():
            model.write(torch.rand(2, 3, DIM))
        held[steps] = max(alive)
    assert held[2] == held[12] <= 1
