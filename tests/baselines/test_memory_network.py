"""The memory network: its formula, what it costs, and how well it recalls."""

import pytest
import torch
from torch import nn

from ebmm import evaluate, fit, tasks
from ebmm.baselines.memory_network import MemoryNetwork
from ebmm.tasks import Task


def random_bits(*shape, seed=0):
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).float()


def small_network(**changes):
    torch.manual_seed(0)
    return MemoryNetwork(**({"features": 6, "slots": 5, "width": 4, "inverse_temperature": 0.7} | changes))


def naive_write(model, patterns):
    return [[model.encoder(x[None])[0] for x in patterns[b]] for b in range(len(patterns))]


def naive_read(model, query, slots):
    """The formula of the class, query by query and slot by slot."""
    x = torch.empty_like(query)
    for b in range(query.shape[0]):
        decoded = [model.decoder(slot[None])[0] for slot in slots[b]]
        for n in range(query.shape[1]):
            distances = torch.stack([(2 * query[b, n] - 2 * y).square().sum() for y in decoded])
            likelihood = torch.exp(-model.log_inverse_temperature.exp() * distances)
            x[b, n] = sum(p / likelihood.sum() * y for p, y in zip(likelihood, decoded, strict=True))
    return x


# The formula


def test_writing_and_reading_follow_the_formula():
    model = small_network().double()
    patterns, query = torch.rand(2, 5, 6).double(), torch.rand(2, 3, 6).double()
    memory = model.write(patterns)
    slots = naive_write(model, patterns)
    assert torch.allclose(memory["slots"], torch.stack([torch.stack(row) for row in slots]), rtol=0, atol=1e-12)
    expected = naive_read(model, query, slots)
    assert torch.allclose(model.read(query, memory), expected, rtol=0, atol=1e-12)


def test_gradients_follow_the_formula():
    model = small_network().double()
    patterns, query = torch.rand(2, 5, 6).double(), torch.rand(2, 3, 6).double()
    target, parameters = torch.rand(2, 3, 6).double(), list(model.parameters())
    fast = torch.autograd.grad((model.read(query, model.write(patterns)) - target).square().sum(), parameters)
    naive = naive_read(model, query, naive_write(model, patterns))
    slow = torch.autograd.grad((naive - target).square().sum(), parameters)
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_two_slots_by_hand():
    # Nothing to code: slots are the patterns (0, 0) and (1, 0). The query (¼, 0) is as signs ½ from the first and
    # 1½ from the second: squared ¼ and 2¼, so the weights are as 1 to e^(−2β).
    identity = nn.Identity()
    model = MemoryNetwork(2, slots=2, width=2, encoder=identity, decoder=identity, inverse_temperature=0.5).double()
    memory = model.write(torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]).double())
    query = torch.tensor([[[0.25, 0.0]]]).double()
    second = torch.exp(torch.tensor(-1.0).double())
    weights = torch.stack([1 / (1 + second), second / (1 + second)])
    assert torch.allclose(model.address(query, memory)[0, 0], weights)
    assert torch.allclose(model.read(query, memory)[0, 0], torch.stack([weights[1], torch.zeros(()).double()]))


def test_the_nearest_pattern_wins_not_the_longest():
    # As signs, (½, ½, ½, ½) is the zero vector and (1, 1, 1, 1) long: a product would choose the long one.
    identity = nn.Identity()
    model = MemoryNetwork(4, slots=2, width=4, encoder=identity, decoder=identity)
    memory = model.write(torch.tensor([[[0.5] * 4, [1.0] * 4]]))
    query = torch.tensor([[[0.6] * 4, [0.9] * 4]])
    assert model.address(query, memory).argmax(-1).tolist() == [[0, 1]]


def test_weights_are_a_distribution_and_sharpen_with_beta():
    patterns, query = random_bits(2, 5, 6), torch.rand(2, 3, 6)
    blunt, sharp = small_network(inverse_temperature=1e-4), small_network(inverse_temperature=50.0)
    for model in (blunt, sharp):
        weights = model.address(query, model.write(patterns))
        assert weights.shape == (2, 3, 5) and (weights >= 0).all()
        assert torch.allclose(weights.sum(-1), torch.ones(2, 3))
    assert torch.allclose(blunt.address(query, blunt.write(patterns)), torch.tensor(0.2), atol=1e-3)
    assert sharp.address(query, sharp.write(patterns)).amax(-1).min() > 0.6


def test_what_is_read_can_be_asked_again():
    # Where all patterns are 1, the weights' rounding can sum to more than 1, which the next read would refuse.
    model = MemoryNetwork(8, slots=7, width=8, encoder=nn.Identity(), decoder=nn.Identity())
    patterns = random_bits(4, 7, 8)
    patterns[..., :4] = 1
    memory = model.write(patterns)
    query = torch.rand(4, 200, 8, generator=torch.Generator().manual_seed(0))
    assert (model.address(query, memory) @ patterns).max() > 1  # the case is real
    x = model.read(query, memory)
    assert x.max() <= 1
    model.read(x, memory)


# What it costs


@pytest.mark.parametrize(("slots", "width"), [(16, 129), (48, 43), (1, 1)])
def test_a_full_memory_holds_the_floats_that_are_counted(slots, width):
    model = MemoryNetwork(32, slots, width)
    memory = model.write(random_bits(1, slots, 32))
    assert sum(tensor.numel() for tensor in memory.values()) == model.memory_floats == slots * width


def test_a_memory_that_is_not_full_knows_it_by_its_shape_alone():
    model = small_network()
    memory = model.write(random_bits(1, 2, 6))
    assert {name: tuple(tensor.shape) for name, tensor in memory.items()} == {"slots": (1, 2, 4)}
    assert model.address(random_bits(1, 3, 6), memory).shape == (1, 3, 2)


# Learning


def test_slots_as_wide_as_a_pattern_recall_untrained():
    torch.manual_seed(0)
    task = Task(tasks.RandomBits(128), tasks.RedrawBits(64), 16)
    assert evaluate(MemoryNetwork(128, 16, 128), task, 50)["mean"] < 0.1  # the best possible is 0.004


def test_it_learns_to_recall_from_slots_narrower_than_a_pattern():
    torch.manual_seed(0)
    model, task = MemoryNetwork(32, slots=4, width=20), Task(tasks.RandomBits(32), tasks.FlipBits(0.1), 4)
    before = evaluate(model, task, 50)["mean"]
    fit(model, task, 300, memories=32, learning_rate=1e-2, progress=False)
    wrong = evaluate(model, task, 50)["mean"]
    assert before > 2 and wrong < 0.32, f"{before:.2f} wrong bits of 32 before training, {wrong:.2f} after"


# Errors


def test_a_temperature_below_zero_is_refused():
    with pytest.raises(ValueError, match="inverse_temperature must be above 0, got -1"):
        small_network(inverse_temperature=-1)
