import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from ebmm import EBMM, Memory
from ebmm.energies import MLPEnergy
from ebmm.layers import LayerNorm, MemoryConv2d, MemoryLayer, MemoryLinear, MemorySlots, MemorySymmetric

LAYERS = {
    "linear": (lambda: MemoryLinear(5, 3), (5,)),
    "linear without bias": (lambda: MemoryLinear(3, 7, bias=False), (3,)),
    "linear to one": (lambda: MemoryLinear(4, 1), (4,)),
    "symmetric": (lambda: MemorySymmetric(5), (5,)),
    "symmetric of one": (lambda: MemorySymmetric(1), (1,)),
    "convolution": (lambda: MemoryConv2d(2, 3, 3), (2, 5, 4)),
    "convolution padded": (lambda: MemoryConv2d(1, 3, 3, padding=1), (1, 3, 5)),
    "convolution strided": (lambda: MemoryConv2d(3, 2, 3, stride=2, padding=1), (3, 7, 5)),
    "convolution without bias": (lambda: MemoryConv2d(2, 3, 2, stride=3, bias=False), (2, 5, 7)),
    "convolution 1 by 1": (lambda: MemoryConv2d(2, 3, 1), (2, 3, 3)),
}


def double(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.double).requires_grad_()


def setting(name, memories, patterns):
    """A layer in float64, weights that differ by memory, and inputs."""
    build, shape = LAYERS[name]
    layer = build().double()
    weights = {key: double(memories, *p.shape, seed=i) for i, (key, p) in enumerate(layer.named_parameters())}
    return layer, weights, double(memories, patterns, *shape, seed=9)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("memories", "patterns"), [(1, 1), (3, 1), (1, 4), (3, 5), (4, 4)])
def test_weights_of_many_memories_equal_a_loop_over_them(name, memories, patterns):
    layer, weights, x = setting(name, memories, patterns)
    fast = functional_call(layer, weights, x)
    slow = torch.stack([functional_call(layer, {k: w[b] for k, w in weights.items()}, x[b]) for b in range(memories)])
    assert fast.shape == slow.shape
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    probe, leaves = double(*fast.shape, seed=5).detach(), [x, *weights.values()]
    for f, s in zip(
        torch.autograd.grad((fast.sin() * probe).sum(), leaves),
        torch.autograd.grad((slow.sin() * probe).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(f, s, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_first_and_second_gradients(name):
    layer, weights, x = setting(name, 2, 2)

    def forward(x, *values):
        return functional_call(layer, dict(zip(weights, values, strict=True)), x)

    arguments = (x, *weights.values())
    assert gradcheck(forward, arguments, fast_mode=True)
    assert gradgradcheck(forward, arguments, fast_mode=True)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 3, 4)])
def test_ordinary_weights_take_any_leading_shape(lead):
    x = double(*lead, 4).detach()
    linear, symmetric, norm = MemoryLinear(4, 3).double(), MemorySymmetric(4).double(), LayerNorm(4).double()
    assert linear(x).shape == (*lead, 3) and symmetric(x).shape == norm(x).shape == (*lead, 4)
    if lead:
        assert MemoryConv2d(2, 3, 2)(torch.zeros(*lead, 2, 5, 4)).shape == (*lead, 3, 4, 3)


@pytest.mark.parametrize("bias", [True, False])
def test_ordinary_weights_do_what_the_ordinary_layers_do(bias):
    x = torch.randn(2, 3, 5)
    ours, theirs = MemoryLinear(5, 4, bias=bias), nn.Linear(5, 4, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))

    images = torch.randn(2, 3, 4, 7, 6)
    ours = MemoryConv2d(4, 5, 3, stride=2, padding=1, bias=bias)
    theirs = nn.Conv2d(4, 5, 3, stride=2, padding=1, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(images), torch.stack([theirs(image) for image in images]))


def test_a_bias_moves_every_output_by_itself():
    with_bias = {"weight": torch.zeros(2, 3, 4), "bias": torch.tensor([[1.0, 2, 3], [4, 5, 6]])}
    y = functional_call(MemoryLinear(4, 3), with_bias, torch.ones(2, 3, 4))
    assert torch.equal(y, with_bias["bias"][:, None].expand(2, 3, 3))


def test_start_weights_keep_the_size_of_what_passes():
    torch.manual_seed(0)
    assert MemoryLinear(400, 300)(torch.randn(50, 400)).std().item() == pytest.approx(1, rel=0.05)
    assert MemoryConv2d(16, 64, 3)(torch.randn(20, 16, 12, 12)).std().item() == pytest.approx(1, rel=0.1)


def test_slots_start_small_and_different():
    torch.manual_seed(0)
    assert MemorySlots(100, 50)().std().item() == pytest.approx(0.05, rel=0.05)
    assert len(MemorySlots(100, 50, scale=3.0)().unique(dim=0)) == 100


@pytest.mark.parametrize("writable", [["memory.weight"], ["memory.bias"], ["memory"]])
def test_a_layer_of_which_only_a_part_is_writable(writable):
    """B = N = outputs, where a weight with and a bias without a memories dimension would broadcast silently."""
    size = 3
    torch.manual_seed(0)
    energy = MLPEnergy(6, memory_features=size, hidden=5).double()
    nn.init.normal_(energy.memory.bias)
    model = EBMM(energy, writable).double()
    x = torch.rand(size, size, 6, dtype=torch.double)
    memory = Memory({name: double(size, *energy.get_parameter(name).shape) for name in model.writable})
    one_by_one = [functional_call(energy, {name: w[b] for name, w in memory.items()}, x[b]) for b in range(size)]
    torch.testing.assert_close(model.energy(x, memory), torch.stack(one_by_one))


def test_inputs_with_too_many_dimensions_are_not_broadcast_against_the_memories():
    for layer in (MemoryLinear(4, 4), MemorySymmetric(4)):
        weights = {name: torch.zeros(3, *p.shape) for name, p in layer.named_parameters()}
        with pytest.raises(RuntimeError):
            functional_call(layer, weights, torch.zeros(3, 3, 3, 4))


def test_layers_that_take_a_batch_of_weights_say_so():
    assert all(isinstance(build(), MemoryLayer) for build, _ in LAYERS.values())
    assert not isinstance(LayerNorm(3), MemoryLayer) and not isinstance(nn.Linear(3, 3), MemoryLayer)


# Symmetric


def test_symmetric_stores_its_upper_triangle_row_by_row():
    layer = MemorySymmetric(3)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1.0, 7.0))
    r = math.sqrt(0.5)
    expected = torch.tensor([[1, 2 * r, 3 * r], [2 * r, 4, 5 * r], [3 * r, 5 * r, 6]])
    torch.testing.assert_close(layer.matrix(), expected)
    x = torch.randn(4, 2, 3)
    torch.testing.assert_close(layer(x), x @ expected)
    assert MemorySymmetric(64).weight.shape == (64 * 65 // 2,)
    assert not list(MemorySymmetric(3).state_dict().keys() ^ {"weight"})


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_step_on_the_stored_triangle_is_the_symmetrised_step_on_the_full_matrix(d):
    layer = MemorySymmetric(d).double()
    with torch.no_grad():
        layer.weight.copy_(double(d * (d + 1) // 2))
    x, probe, rate = double(7, d, seed=1).detach(), double(7, d, seed=2).detach(), 0.3
    full = layer.matrix().detach().requires_grad_()
    (slope,) = torch.autograd.grad((torch.tanh(x @ full) * probe).sum(), full)
    (stored_slope,) = torch.autograd.grad((torch.tanh(layer(x)) * probe).sum(), layer.weight)
    with torch.no_grad():
        layer.weight.sub_(rate * stored_slope)
    torch.testing.assert_close(layer.matrix(), full - rate * (slope + slope.mT) / 2)
    assert d == 1 or not torch.allclose(slope, slope.mT)


# Layer norm


def input_gradient(norm, x, probe):
    return torch.autograd.grad((torch.tanh(norm(x)) * probe).sum(), x, create_graph=True)[0]


def moved(norm):
    """The norm in float64 with a weight and a bias off their start values."""
    with torch.no_grad():
        norm.weight.copy_(1 + 0.3 * torch.randn(norm.weight.shape))
        norm.bias.copy_(0.3 * torch.randn(norm.bias.shape))
    return norm.double()


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_layer_norm_equals_the_library_in_value_and_two_gradients(lead):
    torch.manual_seed(0)
    ours, theirs = moved(LayerNorm(6)), nn.LayerNorm(6).double()
    theirs.load_state_dict(ours.state_dict())
    x, probe = double(*lead, 6), double(6, seed=1).detach()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)
    first = [input_gradient(norm, x, probe) for norm in (ours, theirs)]
    torch.testing.assert_close(*first, rtol=1e-10, atol=1e-10)
    parameters = [[*norm.parameters()] for norm in (ours, theirs)]
    second = [torch.autograd.grad(f.square().sum(), p) for f, p in zip(first, parameters, strict=True)]
    for ours_, theirs_ in zip(*second, strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(LayerNorm(6, eps=0.5).double()(x), F.layer_norm(x, (6,), eps=0.5))


def test_layer_norm_of_a_constant_is_its_bias_and_has_a_gradient():
    norm, x = LayerNorm(4), torch.full((2, 4), 3.0, requires_grad=True)
    y = norm(x)
    assert torch.equal(y, torch.zeros(2, 4))
    assert torch.isfinite(torch.autograd.grad(y.square().sum(), x)[0]).all()


def test_layer_norm_is_right_at_third_order():
    torch.manual_seed(0)
    norm, x, probe = moved(LayerNorm(5)), double(3, 5), double(3, 5, seed=1).detach()

    def slope(x, weight, bias):
        y = functional_call(norm, {"weight": weight, "bias": bias}, x)
        return torch.autograd.grad((torch.tanh(y) * probe).sum(), x, create_graph=True)[0]

    parameters = [p.detach().clone().requires_grad_() for p in (norm.weight, norm.bias)]
    assert gradcheck(slope, (x, *parameters))
    assert gradgradcheck(slope, (x, *parameters))


def test_third_order_gradient_of_layer_norm_equals_finite_differences():
    torch.manual_seed(0)
    norm, x, probe = moved(LayerNorm(5)), double(3, 5), double(3, 5, seed=1).detach()
    direction, step = double(3, 5, seed=2).detach(), 1e-5

    def curvature(x):
        """The gradient of the squared gradient norm: second order in x."""
        squared = input_gradient(norm, x, probe).square().sum()
        return torch.autograd.grad(squared, x, create_graph=True)[0]

    (third,) = torch.autograd.grad((curvature(x) * direction).sum(), x)
    for i in range(x.numel()):
        nudge = torch.zeros_like(x).flatten().index_fill(0, torch.tensor(i), step).view_as(x)
        above, below = (curvature((x + s * nudge).detach().requires_grad_()) for s in (1, -1))
        measured = ((above - below) * direction).sum() / (2 * step)
        torch.testing.assert_close(third.flatten()[i], measured, rtol=1e-5, atol=1e-6)


def test_each_writable_layer_is_written_at_its_own_rates():
    class TwoLayers(nn.Module):
        def __init__(self):
            super().__init__()
            self.second = MemoryLinear(4, 3)
            self.first = MemoryLinear(3, 1)

        def forward(self, x):
            return self.first(torch.tanh(self.second(x))).squeeze(-1)

    model = EBMM(TwoLayers(), ["second", "first"], write_steps=1, write_rate=0.1)
    assert model._batched
    owners = ["first", "second"]  # in alphabetical order, whatever the order of asking
    for off in owners:
        with torch.no_grad():
            model.raw_write_rates.fill_(0.0)
            model.raw_write_rates[:, :, owners.index(off)] = -1e4
            memory = model.write(torch.rand(2, 3, 4))
        for name, start in model.initial_memory(2).items():
            moved = not torch.equal(memory[name], start)
            assert moved == (not name.startswith(off)), name
