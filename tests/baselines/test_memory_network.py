"""The memory network: its formula, what it costs, how well it recalls, and errors at the door."""

import pytest
import torch
from torch import nn

from ebmm import Memory, evaluate, fit, tasks
from ebmm.baselines.memory_network import MemoryNetwork
from ebmm.coders import Decoder, Encoder
from ebmm.tasks import Task


def random_bits(*shape, seed=0):
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).float()


def small_network(**changes):
    torch.manual_seed(0)
    return MemoryNetwork(**({"features": 6, "slots": 5, "width": 4, "inverse_temperature": 0.7} | changes))


def naive_write(model, patterns):
    return [[model.encoder(x[None])[0] for x in patterns[b]] for b in range(len(patterns))]


def naive_read(model, query, slots, phi):
    """The formula of the class, query by query and slot by slot."""
    x = torch.empty_like(query)
    for b in range(query.shape[0]):
        decoded = [model.decoder(slot[None])[0] for slot in slots[b]]
        for n in range(query.shape[1]):
            distances = torch.stack([(phi(query[b, n]) - phi(y)).square().sum() for y in decoded])
            likelihood = torch.exp(-model.log_inverse_temperature.exp() * distances)
            x[b, n] = sum(p / likelihood.sum() * y for p, y in zip(likelihood, decoded, strict=True))
    return x


# The formula


@pytest.mark.parametrize("learned", [False, True], ids=["signs", "query encoder"])
def test_writing_and_reading_follow_the_formula(learned):
    torch.manual_seed(0)
    query_encoder = nn.Sequential(nn.Linear(6, 3), nn.Tanh()) if learned else None
    model = small_network(query_encoder=query_encoder).double()
    patterns, query = torch.rand(2, 5, 6).double(), torch.rand(2, 3, 6).double()
    memory = model.write(patterns)
    slots = naive_write(model, patterns)
    assert torch.allclose(memory["slots"], torch.stack([torch.stack(row) for row in slots]), rtol=0, atol=1e-12)
    phi = (lambda x: query_encoder(x[None])[0]) if learned else (lambda x: 2 * x - 1)
    expected = naive_read(model, query, slots, phi)
    assert torch.allclose(model.read(query, memory), expected, rtol=0, atol=1e-12)


def test_gradients_follow_the_formula():
    model = small_network().double()
    patterns, query = torch.rand(2, 5, 6).double(), torch.rand(2, 3, 6).double()
    target, parameters = torch.rand(2, 3, 6).double(), list(model.parameters())
    fast = torch.autograd.grad((model.read(query, model.write(patterns)) - target).square().sum(), parameters)
    naive = naive_read(model, query, naive_write(model, patterns), lambda x: 2 * x - 1)
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


def test_trajectory_is_the_query_and_what_is_read():
    model = small_network()
    memory, query = model.write(random_bits(2, 5, 6)), torch.rand(2, 3, 6)
    x, trajectory = model.read(query, memory, trajectory=True)
    assert trajectory.shape == (2, 2, 3, 6)
    assert torch.equal(trajectory[0], query) and torch.equal(trajectory[1], x)
    assert torch.equal(model.read(query, memory), x)


def test_patterns_of_any_shape_with_coders_of_ones_own():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    decoder = nn.Sequential(nn.Linear(5, 12), nn.Sigmoid(), nn.Unflatten(1, (1, 3, 4)))
    query_encoder = nn.Conv2d(1, 2, 3)
    model = MemoryNetwork((1, 3, 4), 6, 5, encoder, decoder, query_encoder)
    patterns = torch.rand(2, 6, 1, 3, 4)
    memory = model.write(patterns)
    assert memory["slots"].shape == (2, 6, 5)
    assert model.read(patterns[:, :4], memory).shape == (2, 4, 1, 3, 4)


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


# Writing on; memories and queries apart


def test_writing_in_two_calls_is_writing_in_one():
    model = small_network()
    patterns, query = random_bits(2, 5, 6), torch.rand(2, 3, 6)
    half = model.write(patterns[:, :2])
    before = half["slots"].clone()
    memory = model.write(patterns[:, 2:], half)
    assert torch.equal(half["slots"], before)
    assert torch.allclose(memory["slots"], model.write(patterns)["slots"], atol=1e-6)
    assert torch.allclose(model.read(query, memory), model.read(query, model.write(patterns)), atol=1e-6)


def test_memories_do_not_know_of_each_other():
    model = small_network()
    patterns, query = random_bits(3, 5, 6), torch.rand(3, 2, 6)
    x = model.read(query, model.write(patterns))
    for b in range(3):
        alone = model.read(query[b : b + 1], model.write(patterns[b : b + 1]))
        assert torch.allclose(alone[0], x[b], atol=1e-6)


def test_queries_do_not_know_of_each_other():
    model = small_network()
    memory, query = model.write(random_bits(2, 5, 6)), torch.rand(2, 4, 6)
    x = model.read(query, memory)
    for q in range(4):
        assert torch.allclose(model.read(query[:, q : q + 1], memory)[:, 0], x[:, q], atol=1e-6)


# Learning


def test_gradients_reach_every_parameter():
    model = small_network(query_encoder=Encoder(6, 3))
    patterns = random_bits(2, 5, 6)
    x = model.read(torch.rand(2, 5, 6), model.write(patterns))
    (x - patterns).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


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


@pytest.mark.parametrize("changes", [{"features": 0}, {"features": (2, 0)}, {"slots": 0}, {"width": 0}])
def test_sizes_below_one_are_refused(changes):
    with pytest.raises(ValueError, match="features, slots and width must be at least 1"):
        small_network(**changes)


def test_a_temperature_below_zero_is_refused():
    with pytest.raises(ValueError, match="inverse_temperature must be above 0, got -1"):
        small_network(inverse_temperature=-1)


@pytest.mark.parametrize("coders", [{}, {"encoder": nn.Flatten()}, {"decoder": nn.Unflatten(1, (2, 3))}])
def test_patterns_that_are_not_vectors_need_coders(coders):
    with pytest.raises(ValueError, match=r"patterns of shape \(2, 3\) need an encoder and a decoder of your own"):
        small_network(features=(2, 3), **coders)


def test_one_coder_of_ones_own_leaves_the_other_to_the_default():
    decoder = Decoder(4, features=6)
    model = small_network(decoder=decoder)
    assert model.decoder is decoder and isinstance(model.encoder, Encoder)
    empty = nn.Sequential()  # false as a condition, and yet a module
    assert small_network(width=6, encoder=empty).encoder is empty


@pytest.mark.parametrize(
    ("patterns", "error", "message"),
    [
        (torch.rand(2, 5, 7), ValueError, r"patterns must have shape \(B, N, 6\), got \(2, 5, 7\)"),
        (torch.rand(2, 5, 6).double(), TypeError, "patterns must be torch.float32 like the model"),
        (torch.ones(2, 5, 6).long(), TypeError, "patterns must be floating point"),
        (2 * torch.ones(2, 5, 6), ValueError, r"patterns must lie in \[0, 1\]"),
    ],
)
def test_what_are_no_patterns_is_refused(patterns, error, message):
    model = small_network()
    with pytest.raises(error, match=message):
        model.write(patterns)
    with pytest.raises(error, match=message.replace("patterns", "query")):
        model.read(patterns, model.write(torch.rand(2, 5, 6)))
    with pytest.raises(error, match=message.replace("patterns", "query")):
        model.address(patterns, model.write(torch.rand(2, 5, 6)))


def test_more_patterns_than_slots_are_refused():
    model = small_network()
    with pytest.raises(ValueError, match="the memory has 5 slots, one a pattern: 0 are filled, 6 more patterns do not"):
        model.write(random_bits(2, 6, 6))
    with pytest.raises(ValueError, match="5 slots, one a pattern: 3 are filled, 3 more patterns do not"):
        model.write(random_bits(2, 3, 6), model.write(random_bits(2, 3, 6)))


def test_another_number_of_memories_is_refused():
    model = small_network()
    memory = model.write(random_bits(2, 2, 6))
    with pytest.raises(ValueError, match="query addresses 3 memories"):
        model.read(random_bits(3, 2, 6), memory)
    with pytest.raises(ValueError, match="patterns addresses 3 memories"):
        model.write(random_bits(3, 2, 6), memory)


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight": torch.zeros(2, 3, 4)},
        {"slots": torch.zeros(2, 3, 5)},
        {"slots": torch.zeros(2, 4)},
        {"slots": torch.zeros(2, 6, 4)},
        {"slots": torch.zeros(2, 3, 4), "usage": torch.zeros(2, 3)},
    ],
)
def test_foreign_memories_are_refused(tensors):
    model, message = small_network(), r"expects a Memory with slots: \(B, up to 5, 4\)"
    for use in (model.read, model.write, model.address):
        with pytest.raises(ValueError, match=message):
            use(random_bits(2, 1, 6), Memory(tensors))


def test_a_tensor_is_no_memory():
    with pytest.raises(TypeError, match="memory must be a Memory with slots"):
        small_network().read(random_bits(2, 1, 6), torch.zeros(2, 3, 4))


def test_coders_of_wrong_sizes_are_named():
    with pytest.raises(ValueError, match=r"Encoder must map \(4, 6\) to \(4, 4\), it gave \(4, 3\)"):
        small_network(encoder=Encoder(6, 3)).write(random_bits(2, 2, 6))
    model = small_network(decoder=Decoder(4, 7))
    with pytest.raises(ValueError, match=r"Decoder must map \(4, 4\) to \(4, 6\), it gave \(4, 7\)"):
        model.read(random_bits(2, 2, 6), model.write(random_bits(2, 2, 6)))
