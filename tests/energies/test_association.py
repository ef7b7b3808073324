"""Memories that lead from keys of pictures to codes: the formula, writing as the delta rule, a start that remembers."""

import math

import pytest
import torch
import torch.nn.functional as F
from pictures import share_of_the_next_best, smooth_pictures

from ebmm import EBMM, Memory
from ebmm.coders import ComponentDecoder, KeyEncoder, PatchDecoder, cosine_basis
from ebmm.energies import AssociationEnergy, convolutional_association, linear_association
from ebmm.layers import MemoryLinear

SHAPES = [(16, 16), (3, 16, 16)]
KINDS = {"linear": linear_association, "convolutional": convolutional_association}


def memory_of(kind, shape, hops=1):
    """Started, not trained."""
    torch.manual_seed(0)
    codes, keys = {"linear": (24, 32), "convolutional": (8, 16)}[kind]
    energy = KINDS[kind](shape, codes=codes, keys=keys, hops=hops)
    energy.start_with(smooth_pictures(400, shape, seed=9))
    return EBMM(energy, **energy.settings | {"read_rate": 0.5 / energy.planes[0], "write_rate": 0.6})


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_energy_is_its_formula(shape, hops):
    energy = memory_of("linear", shape, hops).energy_network.double()
    for parameter in energy.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    x = torch.rand(4, *shape).double()
    weights = F.softplus(energy.raw_weights)
    for picture, found in zip(x.reshape(-1, *energy.planes), energy(x), strict=True):
        expected, seen = 0.0, picture
        for hop in range(hops):
            code = energy.memory.weight @ energy.encoder(seen[None])[0]
            y = 0.5 + 0.75 * torch.tanh((energy.decoder(code[None])[0] - 0.5) / 0.75)
            expected = expected + weights[hop] * energy.misfit(picture[None], y[None])[0]
            seen = energy.misfit.repaired(picture[None], y[None])[0]
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_of_writing_is_one_of_the_delta_rule(shape):
    torch.manual_seed(0)
    energy = linear_association(shape, codes=6, keys=5).double()
    energy.misfit.forgiven = 1e-9  # nothing is, so that the slope of the sum is x − y
    energy.misfit.slope.data.fill_(20.0)
    energy.raw_weights.data.fill_(torch.tensor(1.0).expm1().log())
    model = EBMM(energy, **energy.settings | {"write_steps": 1, "write_rate": 0.3})
    patterns = 0.5 + 0.02 * torch.randn(1, 4, *shape).double()  # where the soft clip has slope 1
    with torch.no_grad():
        after = model.write(patterns)["memory.weight"][0]
        keys = energy.encoder(patterns.reshape(-1, *energy.planes))
        lacking = (patterns[0] - energy.decoder(torch.zeros(4, 6).double()).view(4, *shape)).flatten(1)
        codes = lacking @ energy.decoder.basis.mT @ energy.decoder.components.mT
    torch.testing.assert_close(after, 0.3 * codes.mT @ keys, rtol=0.01, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_before_it_is_trained_it_reads_its_own_patterns_better_than_an_empty_or_anothers_memory_does(kind, shape):
    assert share_of_the_next_best(memory_of(kind, shape), shape) < 0.87


@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_starts_empty_and_all_patterns_share_it(kind):
    model = memory_of(kind, (16, 16))
    assert not any(tensor.any() for tensor in model.initial_memory().values())
    assert model.memory_floats == {"linear": 24 * 32, "convolutional": 8 * 9 * 16}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_hops_start_with_equal_shares(kind):
    x = torch.rand(3, 16, 16)
    once, *more = (KINDS[kind]((16, 16), codes=6, keys=5, hops=hops)(x) for hops in (1, 2, 3))
    for found in more:
        torch.testing.assert_close(found, once)


@pytest.mark.parametrize("kind", KINDS)
def test_the_level_is_that_of_keys_and_codes(kind):
    keys = []
    for level in (0.2, 0.7):
        torch.manual_seed(0)
        energy = KINDS[kind]((16, 16), codes=6, keys=5, level=level)
        grey = torch.full((1, 1, 16, 16), level)
        keys.append(energy.encoder(grey))
        torch.testing.assert_close(energy.decoder(energy.memory(keys[-1][None])[0]), grey)
    torch.testing.assert_close(*keys)


def test_keys_of_different_pictures_start_independent():
    encoder, pictures = KeyEncoder((16, 16), keys=20), smooth_pictures(300, (16, 16))[:, None]
    encoder.start_with(pictures)
    numbers = encoder.network(2 * (pictures - encoder.level))
    torch.testing.assert_close(torch.cov(numbers.mT, correction=0), torch.eye(20), atol=1e-3, rtol=0)
    assert numbers.mean(0).abs().max() < 1e-3 and encoder(pictures).square().sum(1).max() < 1


@pytest.mark.parametrize(("shape", "width"), [((16, 16), 10), ((3, 16, 16), 10), ((16, 16), 64)])
def test_components_lose_least_of_all_codes_of_their_size(shape, width):
    pictures = smooth_pictures(300, shape)
    decoder = ComponentDecoder(width, shape)
    assert (decoder.basis is None) == (4 * width >= math.prod(shape))
    decoder.start_with(pictures)
    mean = decoder(torch.zeros(1, width)).view(1, *shape)
    rows = (decoder(torch.eye(width)).view(width, *shape) - mean).flatten(1)
    centred = (pictures - mean).flatten(1)
    lost = (centred - centred @ rows.mT @ rows).square().sum()
    others = cosine_basis(shape, width)
    assert lost < 0.99 * (centred - centred @ others.mT @ others).square().sum()
    torch.testing.assert_close(rows @ rows.mT, torch.eye(width), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_patches_are_coded_each_by_itself(shape):
    decoder = PatchDecoder(5, shape)
    decoder.start_with(smooth_pictures(50, shape))
    code = torch.zeros(1, 5, 2, 2)
    code[0, 3, 1, 0] = 1.0
    changed = (decoder(code) - decoder(0 * code))[0]
    assert changed[:, 8:, :8].square().sum().item() == pytest.approx(1.0, abs=1e-4)
    assert not changed[:, :8].any() and not changed[:, :, 8:].any()


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (torch.rand(30, 16, 8), r"patterns must have shape \(B, N, 16, 16\)"),
        (torch.rand(4, 16, 16), "4 directions need more different pictures: these 4 vary along 3"),
        (torch.rand(1, 16, 16).expand(30, -1, -1), "these 30 vary along"),
        (torch.rand(3, 16, 16).repeat(10, 1, 1), "these 30 vary along 2"),
    ],
    ids=["another shape", "as many as codes", "all the same", "three, repeated"],
)
def test_pictures_that_say_too_little_are_refused_at_the_start(pictures, words):
    energy = linear_association((16, 16), codes=4, keys=4)
    with pytest.raises(ValueError, match=words):
        energy.start_with(pictures)


def test_a_memory_of_ones_own_serves():
    class Keys(torch.nn.Module):
        def forward(self, x):
            return torch.tanh(x.flatten(1)[:, :7])

    energy = AssociationEnergy((8, 8), Keys(), MemoryLinear(7, 3), ComponentDecoder(3, (8, 8)))
    model = EBMM(energy, **energy.settings)
    memory = model.write(torch.rand(2, 3, 8, 8))
    assert isinstance(memory, Memory) and model.memory_floats == 24
    assert model.read(torch.rand(2, 5, 8, 8), memory).shape == (2, 5, 8, 8)
