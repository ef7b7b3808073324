import math

import pytest
import torch
import torch.nn.functional as F
from naive import moved
from test_vector_energies import DIM, bits, full_matrix, signs

from ebmm import EBMM, Hopfield, Task, evaluate
from ebmm.energies import HopEnergy, MarginEnergy, SharedNetwork
from ebmm.experiments import networks
from ebmm.tasks import RandomBits, RedrawBits

BATCH = {"reduction": "sum", "gradient_term": False, "decay_term": False, "projection": "straight-through"}
NETWORKS = [
    networks.Perceptron, networks.ResidualPerceptron, networks.GatedRecurrent, networks.BitAttention,
    networks.Convolution, networks.Mixture,
]  # fmt: skip


def some_memory(dim, seed=0):
    return torch.randn(dim * (dim + 1) // 2, generator=torch.Generator().manual_seed(seed)).double()


def margins_by_hand(s, matrix, sharpness):
    """Σᵢ softplus(b (1 − sᵢ Σ_{j≠i} Mᵢⱼ sⱼ))/b, one sum after the other."""
    total = 0.0
    for i in range(len(s)):
        field = sum(matrix[i, j] * s[j] for j in range(len(s)) if j != i)
        total += F.softplus(sharpness * (1 - s[i] * field)) / sharpness
    return total


def test_the_margin_energy_is_its_formula():
    network = moved(networks.Perceptron(DIM, 5))
    energy = MarginEnergy(DIM, network, 5).double()
    energy.memory.weight.data = some_memory(DIM)
    energy.head.data = torch.randn(5).double()
    matrix = 2 / math.sqrt(DIM) * full_matrix(energy.memory.weight.data, DIM)
    x = torch.rand(4, DIM).double()
    for point, found in zip(x, energy(x), strict=True):
        s = 2 * point - 1
        expected = margins_by_hand(s, matrix, 2.0) + energy.head @ network(s, matrix @ s)
        torch.testing.assert_close(found, expected)


def test_the_hop_energy_is_its_formula():
    energy = moved(HopEnergy(DIM, hops=2)).double()
    energy.memory.weight.data = some_memory(DIM)
    matrix = 2 / math.sqrt(DIM) * full_matrix(energy.memory.weight.data, DIM)
    weight, weights, sharpness = map(F.softplus, (energy.raw_weight, energy.raw_weights, energy.raw_sharpness))
    s = 2 * torch.rand(DIM).double() - 1
    expected, v = weight * margins_by_hand(s, matrix, sharpness), s
    for number in range(2):
        u = (s, v, matrix @ v, matrix.diagonal() * v)
        skipped = sum(share * part for share, part in zip(energy.skips[number], u, strict=True))
        v = energy.bounds[number] * torch.tanh(1.2 * skipped) + energy.networks[number](*u)
        expected = expected + weights[number] / 2 * (s - v).square().sum()
    torch.testing.assert_close(energy((s + 1) / 2), expected)


def test_a_hop_starts_as_one_of_a_hopfield_network():
    class Nothing(torch.nn.Module):
        def forward(self, s, *others):
            return 0 * s

    energy = HopEnergy(DIM, 1, Nothing).double()
    energy.memory.weight.data = some_memory(DIM)
    matrix = 2 / math.sqrt(DIM) * full_matrix(energy.memory.weight.data, DIM)
    s = 2 * torch.rand(DIM).double() - 1
    hop = 1.2 * torch.tanh(1.2 * matrix @ s)
    expected = margins_by_hand(s, matrix, 2.0) + 0.1 / 2 * (s - hop).square().sum()
    torch.testing.assert_close(energy((s + 1) / 2), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("given", [(None, 5), (networks.Perceptron(DIM, 5),)], ids=["no network", "no width"])
def test_a_network_without_its_width_is_refused(given):
    with pytest.raises(ValueError, match="a network and the width of its features go together"):
        MarginEnergy(DIM, *given)


def test_hops_want_a_network_each():
    with pytest.raises(TypeError, match="one for each hop"):
        HopEnergy(DIM, 2, SharedNetwork())


def test_the_shared_network_is_odd_and_the_same_for_every_bit():
    network = moved(SharedNetwork(3)).double()
    u = torch.randn(4, 2, 5).double()
    torch.testing.assert_close(network(*-u), -network(*u))
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(network(*u[..., order]), network(*u)[..., order])
    means = torch.stack([(u[a, 0] * u[b, 0]).mean() for a, b in PAIRS])
    gain = 1 + torch.tanh(network.gains[0] @ means)
    first = network.last[0, 0] * gain * torch.tanh(network.first[0] @ u[:, 0, 2])
    rest = network(*u)[0, 2] - first
    with torch.no_grad():
        network.last[0] = 0
    torch.testing.assert_close(network(*u)[0, 2], rest)


PAIRS = ((1, 2), (2, 2), (0, 1), (0, 2))  # of s, v, M v and diag(M) v


def test_a_step_of_writing_on_margins_is_a_perceptron_step_for_each_bit():
    """From M = 0 every bit is short of its margin alike, and the step is Hebb's, without the diagonal."""
    model = EBMM(MarginEnergy(DIM).double(), write_steps=1, write_rate=0.1, **BATCH)
    patterns = bits(signs(3, DIM))
    written = full_matrix(model.write(patterns)["memory.weight"][0], DIM)
    s = 2 * patterns[0] - 1
    hebb = s.mT @ s
    off = ~torch.eye(DIM, dtype=torch.bool)
    torch.testing.assert_close((written / hebb)[off], (written / hebb)[off].mean().expand(off.sum()))
    assert written.diagonal().abs().max() == 0 and (written / hebb)[off].mean() > 0


@pytest.mark.parametrize("kind", NETWORKS, ids=lambda kind: kind.__name__)
def test_any_network_starts_as_the_memory_alone_and_then_takes_part(kind):
    torch.manual_seed(0)
    patterns = bits(signs(3, 12)).float()
    alone, model = (
        EBMM(MarginEnergy(12, *network), write_steps=2, read_steps=2, write_rate=0.15, read_rate=0.075, **BATCH)
        for network in ((), (kind(12, 8), 8))
    )
    torch.testing.assert_close(model.read(patterns, model.write(patterns)), alone.read(patterns, alone.write(patterns)))
    torch.nn.init.normal_(model.energy_network.head)
    memory = model.write(patterns)
    assert not torch.allclose(memory["memory.weight"], alone.write(patterns)["memory.weight"])
    model.read(1 - 0.5 * patterns, memory).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.energy_network.network.parameters())


@pytest.mark.parametrize("energy", [HopEnergy, MarginEnergy])
def test_it_remembers_before_it_is_trained(energy):
    torch.manual_seed(0)
    task = Task(RandomBits(64), RedrawBits(32), 8)
    model = EBMM(energy(64), write_steps=6, write_rate=0.15, read_rate=0.075, **BATCH)
    assert evaluate(model, task, memories=20)["mean"] < min(2.5, 0.6 * evaluate(Hopfield(64), task, 20)["mean"])


def test_static_weights_serve_patterns_of_another_size():
    torch.manual_seed(0)
    small, large = HopEnergy(8), HopEnergy(20)
    weights = {name: weight for name, weight in small.state_dict().items() if not name.startswith("memory.")}
    missing = large.load_state_dict(weights, strict=False)
    assert missing.missing_keys == ["memory.weight"] and missing.unexpected_keys == []


def test_one_write_rate_serves_all_sizes():
    """With gradients summed, the field that a pattern's bit receives after the first step does not depend on d."""
    fields = []
    for dim in (16, 256):
        model = EBMM(MarginEnergy(dim).double(), write_steps=1, write_rate=0.1, **BATCH)
        s = signs(1, dim)[0, 0]
        matrix = 2 / math.sqrt(dim) * full_matrix(model.write(bits(s)[None, None])["memory.weight"][0], dim)
        fields.append((s * (matrix @ s)).mean().item() * dim / (dim - 1))
    assert fields[0] == pytest.approx(fields[1], rel=1e-6)
