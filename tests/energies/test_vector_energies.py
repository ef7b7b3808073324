import math

import pytest
import torch
from naive import moved
from torch import nn

from ebmm import EBMM, Hopfield, Memory
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

DIM = 6
ENERGIES = {
    "quadratic": lambda: QuadraticEnergy(DIM, curvature=0.5),
    "dense": lambda: DenseEnergy(DIM, slots=3, beta=2.0),
    "mlp": lambda: MLPEnergy(DIM, memory_features=3, hidden=5),
    "predictive": lambda: PredictiveEnergy(DIM, hidden=5),
    "gated rnn": lambda: GatedRNNEnergy(DIM, memory_features=3, hidden=5, hops=3),
    "margins": lambda: MarginEnergy(DIM),
    "hops": lambda: HopEnergy(DIM, hops=2),
    "places": lambda: SlotEnergy(DIM, slots=3, beta=2.0),
    "places of codes": lambda: CodedSlotEnergy(DIM, slots=3, width=4, beta=2.0),
}


def signs(number, dim, seed=0):
    return torch.randint(0, 2, (1, number, dim), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1


def bits(signs):
    return (signs + 1) / 2


def full_matrix(triangle, dim):
    """The symmetric matrix that a stored triangle stands for: off-diagonal entries are stored times √2."""
    matrix = torch.zeros(dim, dim, dtype=triangle.dtype)
    rows, columns = torch.triu_indices(dim, dim)
    matrix[rows, columns] = matrix[columns, rows] = triangle * torch.where(rows == columns, 1.0, math.sqrt(0.5))
    return matrix


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 3, 4)])
def test_one_scalar_for_each_point(name, lead):
    torch.manual_seed(0)
    energy = moved(ENERGIES[name]())
    x = torch.rand(*lead, DIM, dtype=torch.double)
    assert energy(x).shape == lead
    alone = torch.stack([energy(point) for point in x.reshape(-1, DIM)])
    torch.testing.assert_close(energy(x).flatten(), alone.flatten())


@pytest.mark.parametrize("name", ENERGIES)
def test_an_energy_names_its_memory_and_its_pattern_shape(name):
    energy = ENERGIES[name]()
    assert energy.pattern_shape == (DIM,) and energy.writable == ("memory",)
    model = EBMM(energy)
    assert model.writable and all(name.startswith("memory.") for name in model.writable)
    assert model.memory_floats == sum(p.numel() for p in energy.memory.parameters())
    assert model._batched


@pytest.mark.parametrize("name", ENERGIES)
def test_the_gradient_depends_on_x_and_on_the_memory(name):
    """Else the gradient term of the writing loss would say nothing."""
    energy = moved(ENERGIES[name]())
    x = torch.rand(DIM, dtype=torch.double, requires_grad=True)
    (slope,) = torch.autograd.grad(energy(x), x, create_graph=True)
    by_x, by_memory = torch.autograd.grad(slope.square().sum(), [x, energy.memory.weight])
    assert by_x.abs().sum() > 1e-9 and by_memory.abs().sum() > 1e-9


def test_quadratic_is_its_formula():
    energy = moved(QuadraticEnergy(DIM, curvature=0.7))
    x = torch.rand(5, DIM, dtype=torch.double)
    matrix = energy.memory.matrix().tolist()
    for point, value in zip(x.tolist(), energy(x).tolist(), strict=True):
        s = [2 * v - 1 for v in point]
        interaction = sum(s[i] * matrix[i][j] * s[j] for i in range(DIM) for j in range(DIM))
        assert value == pytest.approx(-0.5 * interaction + 0.35 * sum(v * v for v in s))


def test_quadratic_equals_the_hopfield_energy_of_the_same_couplings():
    patterns = bits(signs(4, 8))
    hopfield = Hopfield(8)
    written = hopfield.write(patterns)
    matrix = hopfield.weights(written)[0]
    triangle = torch.triu_indices(8, 8)
    stored = matrix[triangle[0], triangle[1]] * torch.where(triangle[0] == triangle[1], 1.0, math.sqrt(2))
    model = EBMM(QuadraticEnergy(8)).double()
    x = torch.rand(1, 5, 8, dtype=torch.double)
    ours = model.energy(x, Memory({"memory.weight": stored[None]}))
    torch.testing.assert_close(ours, hopfield.energy(x, written))


@pytest.mark.parametrize("number", [1, 5, 9])
def test_one_write_step_on_the_quadratic_energy_is_hebbs_rule(number):
    """∂E/∂M is −½ s sᵀ, and Hebb's rule sums s sᵀ / d: so the rate 2 N / d makes them equal, up to the diagonal."""
    d, patterns = 7, bits(signs(number, 7))
    model = EBMM(
        QuadraticEnergy(d, curvature=1.0),
        write_steps=1,
        gradient_term=False,
        decay_term=False,
        write_rate=2 * number / d,
    ).double()
    with torch.no_grad():
        weight = model.write(patterns)["memory.weight"]
    matrix = full_matrix(weight[0], d)
    hebb = Hopfield(d).write(patterns)["weight"][0]
    off_diagonal = ~torch.eye(d, dtype=torch.bool)
    assert torch.allclose(matrix[off_diagonal], hebb[off_diagonal], rtol=1e-6, atol=1e-8)
    assert torch.allclose(matrix.diagonal(), torch.full((d,), number / d, dtype=torch.double))


def test_dense_is_its_formula():
    energy = moved(DenseEnergy(DIM, slots=3, beta=2.0))
    x = torch.rand(4, DIM, dtype=torch.double)
    slots = energy.memory.weight.tolist()
    for point, value in zip(x.tolist(), energy(x).tolist(), strict=True):
        s = [2 * v - 1 for v in point]
        total = sum(math.exp(2.0 * sum(m * v for m, v in zip(slot, s, strict=True))) for slot in slots)
        assert value == pytest.approx(-math.log(total) / 2 + sum(v * v for v in s) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_dense_is_bounded_below(seed):
    """−1/β log Σ exp(β mᵀs) ≥ −max‖m‖‖s‖ − log(slots)/β, and ½‖s‖² wins over the first."""
    energy = moved(DenseEnergy(DIM, slots=4, beta=0.5), seed, scale=3.0)
    x = 50 * torch.randn(500, DIM, dtype=torch.double)
    bound = -0.5 * energy.memory.weight.square().sum(-1).max() - math.log(4) / 0.5
    assert (energy(x) >= bound).all()


@pytest.mark.parametrize("name", ["mlp", "gated rnn"])
@pytest.mark.parametrize("seed", range(5))
def test_bounded_energies_stay_in_their_bounds_far_outside_the_box(name, seed):
    energy = moved(ENERGIES[name](), seed, scale=2.0)
    reach = energy.head.weight.abs().sum() + 1e-9
    values = energy(100 * torch.randn(500, DIM, dtype=torch.double)) - energy.head.bias
    assert (values.abs() <= reach).all()
    assert values.std() > 0


def test_mlp_is_its_formula():
    energy = moved(MLPEnergy(DIM, memory_features=3, hidden=5))
    x = torch.rand(2, 4, DIM, dtype=torch.double)
    s = 2 * x - 1
    both = [s @ layer.weight.T + layer.bias for layer in (energy.memory, energy.static)]
    deep = torch.tanh(torch.tanh(torch.cat(both, -1)) @ energy.hidden.weight.T + energy.hidden.bias)
    torch.testing.assert_close(energy(x), (deep @ energy.head.weight[0]) + energy.head.bias)


@pytest.mark.parametrize("seed", range(5))
def test_predictive_is_never_negative_and_zero_where_the_matrix_predicts(seed):
    energy = moved(PredictiveEnergy(DIM, hidden=5), seed)
    assert (energy(10 * torch.randn(200, DIM, dtype=torch.double)) >= 0).all()
    fresh = PredictiveEnergy(DIM).double()
    with torch.no_grad():
        rows, columns = torch.triu_indices(DIM, DIM)
        fresh.memory.weight[rows == columns] = 1.0
    assert fresh(torch.rand(20, DIM, dtype=torch.double)).abs().max() < 1e-12


def test_predictive_is_its_formula():
    energy = moved(PredictiveEnergy(DIM, hidden=5))
    x = torch.rand(2, 4, DIM, dtype=torch.double)
    s = 2 * x - 1
    prediction = s @ full_matrix(energy.memory.weight, DIM)
    both = torch.cat([energy.from_pattern.weight, energy.from_prediction.weight], 1)
    hidden = torch.tanh(torch.cat([s, prediction], -1) @ both.T + energy.from_pattern.bias)
    correction = hidden @ energy.head.weight.T + energy.head.bias
    torch.testing.assert_close(energy(x), (prediction - s - correction).square().sum(-1) / 2)


def test_the_static_network_of_predictive_starts_without_the_prediction():
    energy = PredictiveEnergy(DIM, hidden=5).double()
    nn.init.normal_(energy.head.weight)
    nn.init.normal_(energy.memory.weight)
    x = torch.rand(4, DIM).double()
    s = 2 * x - 1
    correction = energy.head(torch.tanh(energy.from_pattern(s)))
    torch.testing.assert_close(energy(x), 0.5 * (energy.memory(s) - s - correction).square().sum(-1))


def test_predictive_starts_without_its_static_network():
    energy = PredictiveEnergy(DIM)
    s = signs(9, DIM)[0].float()
    torch.testing.assert_close(energy(bits(s)), torch.full((9,), DIM / 2))
    with torch.no_grad():
        energy.head.bias.fill_(1.0)
    torch.testing.assert_close(energy(bits(s)), 0.5 * (s + 1).square().sum(-1))


def long_written(dim, number, steps):
    model = EBMM(
        PredictiveEnergy(dim),
        write_steps=steps,
        read_steps=60,
        box=None,
        momentum=False,
        non_increasing=False,
        gradient_term=False,
        decay_term=False,
        write_rate=0.15,
        read_rate=0.1,
    ).double()
    patterns = bits(signs(number, dim))
    with torch.no_grad():
        return model, patterns, model.write(patterns)


def test_writing_the_predictive_energy_for_long_gives_the_pseudo_inverse_memory():
    _, patterns, memory = long_written(10, 3, 150)
    projection = Hopfield(10, rule="pseudo-inverse").write(patterns)["projection"][0]
    written = full_matrix(memory["memory.weight"][0], 10)
    torch.testing.assert_close(written, projection, rtol=0, atol=1e-4)
    few = full_matrix(long_written(10, 3, 3)[2]["memory.weight"][0], 10)
    assert (few - projection).norm() > 0.1


def test_reading_it_projects_onto_the_span_of_what_is_stored():
    model, patterns, memory = long_written(10, 3, 150)
    stored = 2 * patterns[0] - 1
    query = torch.rand(1, 6, 10, dtype=torch.double)
    with torch.no_grad():
        recalled = 2 * model.read(query, memory)[0] - 1
        torch.testing.assert_close(model.energy(patterns, memory), torch.zeros(1, 3).double(), rtol=0, atol=1e-8)
    onto_span = torch.linalg.pinv(stored) @ stored
    torch.testing.assert_close(recalled, (2 * query[0] - 1) @ onto_span, rtol=1e-4, atol=1e-4)


# The gated RNN as the paper writes it


def as_written(energy, x, memory_features, hidden):
    """Hop by hop, with z = [s, state] put through whole linear maps: static and gate side by side."""
    static, gate = nn.Linear(DIM + hidden, hidden - memory_features), nn.Linear(DIM + hidden, hidden)
    split = hidden - memory_features
    both = torch.cat([energy.from_pattern.weight, energy.from_state.weight], 1)
    s, state = 2 * x - 1, x.new_zeros(*x.shape[:-1], hidden)
    for _ in range(energy.hops):
        z = torch.cat([s, state], -1)
        of_static = {"weight": both[:split], "bias": energy.from_pattern.bias[:split]}
        of_gate = {"weight": both[split:], "bias": energy.from_pattern.bias[split:]}
        candidate = torch.tanh(torch.cat([energy.memory(s), torch.func.functional_call(static, of_static, (z,))], -1))
        update = torch.sigmoid(torch.func.functional_call(gate, of_gate, (z,)))
        state = update * candidate + (1 - update) * state
    return nn.functional.linear(state, energy.head.weight, energy.head.bias).squeeze(-1)


@pytest.mark.parametrize("hops", [1, 2, 5])
@pytest.mark.parametrize(("memory_features", "hidden"), [(3, 7), (1, 2), (4, 5)])
def test_hoisted_gated_rnn_equals_the_equations_as_written(hops, memory_features, hidden):
    energy = moved(GatedRNNEnergy(DIM, memory_features, hidden, hops=hops))
    x = torch.rand(2, 3, DIM, dtype=torch.double, requires_grad=True)
    ours, written = energy(x), as_written(energy, x, memory_features, hidden)
    torch.testing.assert_close(ours, written, rtol=1e-12, atol=1e-12)
    leaves = [x, *energy.parameters()]
    for f, s in zip(
        torch.autograd.grad(ours.sin().sum(), leaves, materialize_grads=True),
        torch.autograd.grad(written.sin().sum(), leaves, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(f, s, rtol=1e-9, atol=1e-10)


def test_gated_rnn_of_the_paper_costs_what_a_hopfield_network_costs():
    assert EBMM(GatedRNNEnergy(128, memory_features=64, hidden=1024, hops=5)).memory_floats == 8256
    assert Hopfield(128).memory_floats == 8256


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"memory_features": 5, "hidden": 5}, "at least 1 and fewer than hidden, got 5 and 5"),
        ({"memory_features": 0, "hidden": 5}, "at least 1 and fewer than hidden, got 0 and 5"),
        ({"memory_features": 3, "hidden": 5, "hops": 0}, "hops must be at least 1, got 0"),
    ],
)
def test_gated_rnn_refuses_sizes_that_cannot_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        GatedRNNEnergy(DIM, **arguments)
