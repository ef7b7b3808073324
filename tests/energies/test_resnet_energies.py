import copy
import math
import warnings
from functools import partial

import naive
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from ebmm import EBMM, Batch, Memory, Task, fit
from ebmm.energies import ResNetConvEnergy, ResNetLinearEnergy, resnet_conv_energy_64
from ebmm.energies.gated import GatedHops
from ebmm.energies.resnet import MemoryBottleneck, ResidualBlock
from ebmm.layers import LayerNorm, MemoryLayer
from ebmm.tasks import ImagePatterns, NoiseBlock
from ebmm.training import reconstruction_loss

# Odd sizes, so that halving rounds, and a map of 2 × 1 positions for the hops.
GREY, COLOUR = (9, 7), (2, 9, 7)


def small_linear(shape=GREY, **options):
    sizes = {"memory_features": 2, "hidden": 5, "widths": (2, 3, 3), "features": 4, "head": 4}
    return ResNetLinearEnergy(shape, **{**sizes, **options})


def small_conv(shape=GREY, **options):
    sizes = {"memory_features": 2, "hidden": 3, "widths": (2, 3), "inside": 4, "outside": 5, "head": 4}
    return ResNetConvEnergy(shape, **{**sizes, **options})


ENERGIES = {
    "linear": small_linear,
    "linear, colour": lambda: small_linear(COLOUR),
    "convolution": small_conv,
    "convolution, colour": lambda: small_conv(COLOUR),
}
AT_FULL_SIZE = {
    "linear": lambda: ResNetLinearEnergy((32, 32), memory_features=12),
    "convolution": lambda: ResNetConvEnergy((3, 32, 32), memory_features=4),
    "64 by 64": resnet_conv_energy_64,
}
moved = partial(naive.moved, scale=0.3)


def make(name, **options):
    torch.manual_seed(0)
    rates = {"write_rate": 0.02, "read_rate": 0.01}
    return moved(EBMM(ENERGIES[name](), write_steps=2, read_steps=2, **{**rates, **options}), scale=0.2)


def points(*lead, shape, seed=0):
    return torch.rand(*lead, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def batch_for(model, memories=2, number=3):
    patterns = points(memories, number, shape=model.pattern_shape).round()
    queries = 0.25 + 0.5 * points(memories, number, shape=model.pattern_shape, seed=1)
    return Batch(patterns, queries, torch.ones_like(patterns, dtype=torch.bool))


def different_memories(model, memories):
    """A memory whose every float differs from memory to memory."""
    generator = torch.Generator().manual_seed(3)
    shapes = {name: model.energy_network.get_parameter(name).shape for name in model.writable}
    return Memory({n: torch.randn(memories, *s, generator=generator, dtype=torch.double) for n, s in shapes.items()})


def meta_gradient(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)


# What the paper fixes


@pytest.mark.parametrize("outputs", [1, 12, 64])
def test_a_linear_memory_holds_257_floats_for_each_output(outputs):
    assert EBMM(ResNetLinearEnergy((32, 32), memory_features=outputs)).memory_floats == 257 * outputs


@pytest.mark.parametrize("channels", [1, 2, 14])
@pytest.mark.parametrize("shape", [(32, 32), (1, 32, 32), (3, 32, 32)])
def test_a_convolutional_memory_holds_1154_floats_for_each_channel(channels, shape):
    assert EBMM(ResNetConvEnergy(shape, memory_features=channels)).memory_floats == 1154 * channels


def test_the_memory_for_images_of_64_by_64_holds_18448_floats():
    assert EBMM(resnet_conv_energy_64()).memory_floats == 18448
    assert EBMM(resnet_conv_energy_64((64, 64), memory_features=1)).memory_floats == 2306


@pytest.mark.parametrize(("layer", "gain"), [("first", 2), ("second", 1), ("shortcut", 1)])
def test_start_weights_of_a_residual_block_have_the_size_of_what_follows(layer, gain):
    torch.manual_seed(0)
    weight = ResidualBlock(32, 64).get_submodule(layer).weight
    assert weight.var().item() == pytest.approx(gain / weight[0].numel(), rel=0.1)


def test_the_sizes_are_the_papers():
    linear, conv, large = (AT_FULL_SIZE[name]() for name in ("linear", "convolution", "64 by 64"))
    assert [block.first.out_channels for block in linear.blocks] == [32, 64, 96]
    assert [block.first.out_channels for block in conv.blocks] == [32, 64]
    assert [block.first.stride for energy in (linear, conv) for block in energy.blocks] == [(2, 2)] * 5
    assert (linear.features.in_features, linear.features.out_features) == (96 * 4 * 4, 256)
    assert (linear.memory.weight.shape, linear.static.out_features) == ((12, 256), 500)
    assert linear.hops.from_state.weight.shape == (2 * 512, 512)
    assert conv.hops.from_state.weight.shape == (2 * 128, 128, 3, 3)
    for block in (conv.first, conv.second):
        assert (block.memory.weight.shape, block.static.weight.shape) == ((4, 64, 3, 3), (60, 64, 3, 3))
        assert block.expand.out_channels == 128
    # The hops of both convolutional energies work on a 4×4 map.
    assert (conv.hidden.in_features, large.hidden.in_features) == (128 * 4 * 4, 256 * 4 * 4)
    assert all(energy.hops.hops == 3 and energy.hidden.out_features == 1024 for energy in (linear, conv, large))


# Values


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 3, 2)])
def test_one_scalar_for_each_image(name, lead):
    energy = moved(ENERGIES[name]())
    x = points(*lead, shape=energy.pattern_shape)
    assert energy(x).shape == lead
    alone = torch.stack([energy(image) for image in x.reshape(-1, *energy.pattern_shape)])
    assert lead == () or alone.std() > 1e-6
    torch.testing.assert_close(energy(x).flatten(), alone.flatten())


@pytest.mark.parametrize("build", [small_linear, small_conv])
def test_a_grey_image_may_come_with_or_without_its_channel(build):
    without, within = moved(build((9, 7))), moved(build((1, 9, 7)))
    within.load_state_dict(without.state_dict())
    assert without.pattern_shape == (9, 7) and within.pattern_shape == (1, 9, 7)
    x = points(2, 3, shape=(9, 7))
    torch.testing.assert_close(without(x), within(x.unsqueeze(-3)))


def residual_block(block, x):
    first = F.conv2d(x, block.first.weight, block.first.bias, stride=2, padding=1)
    second = F.conv2d(F.silu(first), block.second.weight, block.second.bias, padding=1)
    return F.silu(second + F.conv2d(x[..., ::2, ::2], block.shortcut.weight))


def bottleneck(block, x, stride):
    """The 3×3 convolution as one: the memory's channels first, then the static ones."""
    inner = F.silu(F.conv2d(x, block.reduce.weight, block.reduce.bias))
    weight, bias = (
        torch.cat([getattr(layer, n) for layer in (block.memory, block.static)]) for n in ("weight", "bias")
    )
    inner = torch.tanh(F.conv2d(inner, weight, bias, padding=1))[..., ::stride, ::stride]
    short = x if stride == 1 and x.shape[1] == block.expand.out_channels else None
    short = F.conv2d(x, block.shortcut.weight)[..., ::stride, ::stride] if short is None else short
    return F.silu(F.conv2d(inner, block.expand.weight, block.expand.bias) + short)


def gated_hops(hops, x, product, norm):
    """Hop by hop, with ``z = [x, n(state)]`` put through whole maps C and U; 0 in the place of n(state) at first."""
    both = torch.cat([hops.from_input.weight, hops.from_state.weight], 1)
    width = len(both) // 2
    read = state = torch.zeros_like(x[:, :1]).expand(-1, width, *x.shape[2:])
    for _ in range(hops.hops):
        z = torch.cat([x, read], 1)
        candidate = torch.tanh(product(z, both[:width], hops.from_input.bias[:width]))
        update = torch.sigmoid(product(z, both[width:], hops.from_input.bias[width:]))
        state = update * candidate + (1 - update) * state
        read = norm(state)
    return read


def by_formula(energy, x):
    """The energy of images (M, *S), from the layers' weights by plain functions."""
    s = 2 * x.reshape(len(x), -1, *x.shape[-2:]) - 1
    for block in energy.blocks:
        s = residual_block(block, s)
    if isinstance(energy, ResNetLinearEnergy):
        f = F.linear(s.flatten(1), energy.features.weight, energy.features.bias)
        f = F.layer_norm(f, f.shape[1:], energy.norm.weight, energy.norm.bias)
        both = [F.linear(f, layer.weight, layer.bias) for layer in (energy.memory, energy.static)]
        h, norm = torch.tanh(torch.cat(both, 1)), energy.hops.norm
        h = gated_hops(energy.hops, h, F.linear, lambda v: F.layer_norm(v, v.shape[1:], norm.weight, norm.bias))
    else:
        h = bottleneck(energy.second, bottleneck(energy.first, s, 2), 1)
        h = gated_hops(energy.hops, h, lambda z, w, b: F.conv2d(z, w, b, padding=1), lambda state: state).flatten(1)
    h = torch.tanh(F.linear(h, energy.hidden.weight, energy.hidden.bias))
    return F.linear(h, energy.head.weight, energy.head.bias)[:, 0]


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize("hops", [1, 2, 4])
def test_an_energy_is_its_formula(name, hops):
    energy = moved(ENERGIES[name](), seed=hops, scale=0.5)
    energy.hops.hops = hops
    x = points(4, shape=energy.pattern_shape)
    torch.testing.assert_close(energy(x), by_formula(energy, x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ENERGIES)
def test_however_large_the_memory_the_energy_keeps_its_bounds(name):
    model = make(name)
    energy, x = model.energy_network, points(2, 4, shape=model.pattern_shape)
    reach = energy.head.weight.abs().sum() + 1e-12
    kept = []
    with torch.no_grad():
        for scale in (1.0, 1e3, 1e6):
            memory = Memory({n: scale * w for n, w in different_memories(model, 2).items()})
            kept.append(model.energy(x, memory))
            assert ((kept[-1] - energy.head.bias).abs() <= reach).all()
    # What the memory gives is saturated, in the paths to the gates too: nothing changes any more.
    assert not torch.allclose(kept[0], kept[1])
    torch.testing.assert_close(kept[1], kept[2], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", ENERGIES)
def test_the_gradient_depends_on_x_and_on_each_memory_layer(name):
    model = make(name)
    energy = model.energy_network
    x = points(shape=model.pattern_shape).requires_grad_()
    (slope,) = torch.autograd.grad(energy(x), x, create_graph=True)
    leaves = [x, *(energy.get_parameter(name) for name in model.writable)]
    assert all(g.abs().sum() > 1e-9 for g in torch.autograd.grad(slope.square().sum(), leaves))


# Many memories at once


def test_an_energy_names_its_memory():
    linear, conv = make("linear"), make("convolution")
    assert linear.writable == ("memory.weight", "memory.bias")
    assert conv.writable == tuple(f"{b}.memory.{p}" for b in ("first", "second") for p in ("weight", "bias"))
    for model in (linear, conv):
        owners = {name.rpartition(".")[0] for name in model.writable}
        assert all(isinstance(model.energy_network.get_submodule(owner), MemoryLayer) for owner in owners)
        assert model._batched and model.write_rates().shape[2] == len(owners)


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize(("memories", "number"), [(1, 3), (3, 1), (3, 2), (3, 3)])
def test_energies_under_many_memories_equal_a_loop_over_them(name, memories, number):
    model = make(name)
    x, memory = points(memories, number, shape=model.pattern_shape), different_memories(model, memories)
    fast = model.energy(x, memory)
    slow = [functional_call(model.energy_network, {n: w[b] for n, w in memory.items()}, x[b]) for b in range(memories)]
    assert fast.shape == (memories, number)
    torch.testing.assert_close(fast, torch.stack(slow), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize("gradient_term", [True, False])
def test_values_and_meta_gradients_equal_the_naive_loop(name, gradient_term):
    model = make(name, gradient_term=gradient_term)
    batch = batch_for(model)
    fast, _ = reconstruction_loss(model, batch)
    slow = naive.loss(model, batch.patterns, batch.queries)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
    for (key, _), f, s in zip(
        model.named_parameters(), meta_gradient(model, fast), meta_gradient(model, slow), strict=True
    ):
        torch.testing.assert_close(f, s, rtol=1e-8, atol=1e-10, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("name", ENERGIES)
def test_the_vmap_path_gives_the_same(name):
    """It serves a memory that is only a part of these layers, such as their weights without their biases."""
    model = make(name)
    by_vmap = copy.deepcopy(model)
    by_vmap._batched = False
    memory, x = different_memories(model, 2), points(2, 3, shape=model.pattern_shape)
    torch.testing.assert_close(model.energy(x, memory), by_vmap.energy(x, memory), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ENERGIES)
def test_static_layers_see_the_images_of_all_memories_as_one_batch(name):
    model = make(name)
    energy, memories, number = model.energy_network, 2, 3
    x, memory = points(memories, number, shape=model.pattern_shape), different_memories(model, memories)
    model.energy(x, memory)  # which tries the energy first
    seen = {}

    def hook(module, arguments):
        seen.setdefault(module, []).append(tuple(arguments[0].shape))

    for module in energy.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | MemoryLayer):
            module.register_forward_pre_hook(hook)
    model.energy(x, memory)
    channels = model.pattern_shape[0] if len(model.pattern_shape) == 3 else 1
    assert seen[energy.blocks[0].first] == [(memories * number, channels, 9, 7)]
    for module, shapes in seen.items():
        lead = (memories, number) if isinstance(module, MemoryLayer) else (memories * number,)
        assert all(shape[: len(lead)] == lead for shape in shapes), module
        assert len(shapes) == (energy.hops.hops - 1 if module is energy.hops.from_state else 1), module
    assert len(seen) == sum(isinstance(m, nn.Conv2d | nn.Linear | MemoryLayer) for m in energy.modules())


# Gradients


@pytest.mark.parametrize("name", ENERGIES)
def test_meta_gradient_of_third_order_equals_finite_differences(name):
    model = make(name, gradient_term=True, write_rate=(0.02, 0.1, 0.02), read_rate=0.05)
    batch = batch_for(model)
    loss, _ = reconstruction_loss(model, batch)
    gradients = meta_gradient(model, loss)
    generator = torch.Generator().manual_seed(2)
    for (key, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        if key != "energy_network.head.bias":  # a constant added to the energy changes nothing
            assert gradient.abs().max() > 1e-9, key
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
        measured = naive.central_difference(
            lambda: reconstruction_loss(model, batch)[0], parameter, direction, step=2e-6
        )
        assert measured == pytest.approx((gradient * direction).sum().item(), rel=1e-5, abs=1e-8), key


@pytest.mark.parametrize("name", AT_FULL_SIZE)
def test_at_the_papers_size_and_default_rates_every_parameter_has_a_finite_meta_gradient(name):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = EBMM(AT_FULL_SIZE[name](), write_steps=2, read_steps=2)
    batch = batch_for(model, memories=1, number=2)
    loss, _ = reconstruction_loss(model, Batch(batch.patterns.float(), batch.queries.float(), batch.intact))
    assert torch.isfinite(loss)
    for (key, _), gradient in zip(model.named_parameters(), meta_gradient(model, loss), strict=True):
        assert torch.isfinite(gradient).all(), key
        assert gradient.abs().max() > 0 or key == "energy_network.head.bias", key


@pytest.mark.parametrize("name", AT_FULL_SIZE)
def test_at_the_start_no_layer_is_saturated_or_mute(name):
    torch.manual_seed(0)
    energy = AT_FULL_SIZE[name]()
    sizes = {}

    def hook(module, _, output):
        sizes.setdefault(module, []).append(output.square().mean().sqrt().item())

    for module in energy.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | MemoryLayer) and module is not energy.head:
            module.register_forward_hook(hook)
    with torch.no_grad():
        values = energy(points(1, 16, shape=energy.pattern_shape).float().round())
    for module, each in sizes.items():
        assert all(0.15 < size < 2 for size in each), (module, each)
    assert 0.02 < values.std() < 2


@pytest.mark.parametrize("name", ENERGIES)
def test_training_runs(name):
    torch.manual_seed(0)
    model = EBMM(ENERGIES[name](), write_steps=2, read_steps=2)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    images = points(20, shape=model.pattern_shape).float()
    task = Task(ImagePatterns(images), NoiseBlock(4), number=3, metric="squared error")
    history = fit(model, task, steps=3, memories=2, device="cpu", progress=False)
    assert len(history.rows) == 3 and history.skipped == 0
    assert all(math.isfinite(loss) for loss in history.column("loss"))
    assert all(not torch.equal(p, before[key]) for key, p in model.named_parameters() if "head.bias" not in key)


# Parts


def test_a_residual_block_halves_rounding_up():
    block = ResidualBlock(2, 3)
    for size, half in ((1, 1), (2, 1), (5, 3), (8, 4)):
        assert block(torch.zeros(4, 2, size, 3)).shape == (4, 3, half, 2)


@pytest.mark.parametrize(("channels", "stride", "has_identity"), [(5, 1, True), (5, 2, False), (3, 1, False)])
def test_a_bottleneck_keeps_its_input_where_nothing_changes_size(channels, stride, has_identity):
    block = MemoryBottleneck(channels, 5, inside=4, memory_features=1, stride=stride)
    assert isinstance(block.shortcut, nn.Identity) == has_identity
    assert block(torch.zeros(6, channels, 5, 4), (6,)).shape == ((6, 5, 5, 4) if stride == 1 else (6, 5, 3, 2))


def test_only_norms_that_are_right_at_third_order():
    for build in AT_FULL_SIZE.values():
        assert all(isinstance(m, LayerNorm) for m in build().modules() if "Norm" in type(m).__name__)
    assert isinstance(small_linear().hops.norm, LayerNorm) and isinstance(small_linear().norm, LayerNorm)


# What is refused


@pytest.mark.parametrize("build", [small_linear, small_conv])
@pytest.mark.parametrize(
    ("shape", "given"), [(GREY, (2, 3, 7, 9)), (GREY, (9,)), (COLOUR, (2, 1, 9, 7)), (COLOUR, (9, 7)), (GREY, (63,))]
)
def test_images_of_another_shape_are_refused(build, shape, given):
    want = ", ".join(map(str, shape))
    with pytest.raises(ValueError, match=rf"x must have shape \(\.\.\., {want}\), got \({', '.join(map(str, given))}"):
        build(shape)(torch.zeros(given))
    with pytest.raises(ValueError, match=rf"\(B, N, {want}\)"):
        EBMM(build(shape)).write(torch.zeros(2, 3, *given))


@pytest.mark.parametrize("build", [small_linear, small_conv])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shape": (9,)}, r"\(height, width\) or \(channels, height, width\), got \(9,\)"),
        ({"shape": (1, 3, 9, 7)}, r"got \(1, 3, 9, 7\)"),
        ({"shape": (0, 7)}, r"got \(0, 7\)"),
        ({"memory_features": 0}, r"memory_features must be at least 1 and fewer than \w+, got 0"),
        ({"memory_features": 5}, r"memory_features must be at least 1 and fewer than \w+, got 5"),
        ({"hops": 0}, "hops must be at least 1, got 0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(build, arguments, words):
    with pytest.raises(ValueError, match=words):
        build(**arguments)


def test_hops_alone_refuse_to_be_none():
    with pytest.raises(ValueError, match="hops must be at least 1, got -1"):
        GatedHops(nn.Identity(), nn.Identity(), nn.Identity(), -1)
