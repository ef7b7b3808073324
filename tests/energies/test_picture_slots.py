"""Slots of pictures that are written by their energy's gradient: the formula, which slot is written, what is read."""

import pytest
import torch
from pictures import share_of_the_next_best, smooth_pictures

from ebmm import EBMM, fit
from ebmm.energies import PictureSlotEnergy
from ebmm.tasks import ImagePatterns, NoiseBlock, Task

SHAPES = [(16, 16), (3, 16, 16)]


def started(shape, slots=6, width=40, **options):
    """Started, not trained."""
    torch.manual_seed(0)
    energy = PictureSlotEnergy(shape, slots, width, **options)
    energy.start_with(smooth_pictures(200, shape, seed=9))
    return EBMM(energy, **energy.settings | {"read_rate": 0.6 / energy.planes[0]})


@pytest.mark.parametrize("shape", SHAPES)
def test_the_energy_is_its_formula(shape):
    energy = started(shape, price=3.0, order=2.0).energy_network.double()
    for parameter in energy.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    energy.memory.weight.data.normal_()
    energy.flags.weight.data[:, 0] = torch.tensor([1.0, 0.9, 0.2, 0.0, 1.1, 0.5])
    beta, tau = energy.log_inverse_temperature.exp(), energy.log_tolerated.exp()
    price, order = energy.log_price.exp(), energy.log_order.exp()
    pictures = smooth_pictures(4, shape).double()
    stored = 0.5 + 0.75 * torch.tanh((energy.decoder(energy.memory.weight) - 0.5) / 0.75)
    for x, found in zip(pictures.reshape(-1, *energy.planes), energy(pictures), strict=True):
        scores, empty_before = [], 0.0
        for y, flag in zip(stored, energy.flags.weight[:, 0], strict=True):
            squares = (x - y).square().sum(0).reshape(4, 4, 4, 4).sum((1, 3))
            apart = (tau * torch.log(1 + squares / tau)).sum()
            step = ((flag - 0.2) / 0.6).clamp(0, 1)
            full = 3 * step**2 - 2 * step**3
            scores.append(-beta * apart - price * full - order * (1 - full) * empty_before)
            empty_before = empty_before + 1 - full
        weights = torch.softmax(torch.stack(scores), 0)
        y = torch.einsum("s,schw->chw", weights, stored)
        known = 0.5 * (weights * (1 - energy.flags.weight[:, 0]) ** 2).sum()
        torch.testing.assert_close(found, energy.misfit(x[None], y[None])[0] + known)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_picture_is_written_into_the_next_empty_slot(shape):
    model, patterns = started(shape), smooth_pictures(6, shape).unflatten(0, (1, 6))
    patterns[0, 2] = (patterns[0, 1] + 0.01).clamp(max=1)  # very much alike
    patterns[0, 4] = model.energy_network.decoder(torch.zeros(1, 40)).detach().reshape(shape)  # nothing to write
    with torch.no_grad():
        memory, path = model.write(patterns, trajectory=True)
    for number, (before, after) in enumerate(zip(path, path[1:], strict=False)):
        moved = (after["memory.weight"] - before["memory.weight"])[0].square().sum(1)
        assert moved.sum() - moved[number] < 1e-3
        flags = after["flags.weight"][0, :, 0]
        assert flags[number] > 0.99 and (flags[number + 1 :].abs() < 0.01).all()
    torch.testing.assert_close(memory["flags.weight"], torch.ones(1, 6, 1), atol=0.01, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_puts_the_code_where_nothing_is_forgiven(shape):
    model = started(shape)
    energy = model.energy_network.double()
    energy.misfit.forgiven = 1e-9
    energy.misfit.slope.data.fill_(20.0)
    mean = energy.decoder(torch.zeros(1, 40).double()).detach()
    pattern = (0.5 + 0.02 * torch.randn(1, 1, *shape)).double()  # where the soft clip has slope 1
    with torch.no_grad():
        energy.decoder.mean += (0.5 - mean).reshape(1, -1)[0] @ basis_of(energy.decoder).mT
        code = model.write(pattern)["memory.weight"][0, 0]
        lacking = pattern.reshape(1, -1) - energy.decoder(torch.zeros(1, 40).double()).reshape(1, -1)
        expected = lacking @ basis_of(energy.decoder).mT @ energy.decoder.components.mT
    torch.testing.assert_close(code, expected[0], rtol=0.02, atol=1e-4)


def basis_of(decoder):
    return torch.eye(decoder.components.shape[1]).double() if decoder.basis is None else decoder.basis


@pytest.mark.parametrize("shape", SHAPES)
def test_before_it_is_trained_it_reads_what_was_written_and_not_what_others_wrote(shape):
    assert share_of_the_next_best(started(shape), shape) < 0.87


def test_training_leaves_flags_at_zero_and_teaches_the_rest():
    model = started((16, 16))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    source = ImagePatterns(smooth_pictures(100, (16, 16), seed=3))
    fit(model, Task(source, NoiseBlock(8), 4, "squared error"), steps=2, memories=2, warmup=0, progress=False)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "energy_network.flags.weight" not in moved
    assert moved >= {"energy_network.memory.weight", "energy_network.decoder.components", "raw_write_rates"}


@pytest.mark.parametrize("shape", SHAPES)
def test_slopes_are_those_of_the_energy(shape):
    energy = started(shape, slots=3, width=12, price=3.0, order=2.0, hidden=3).energy_network.double()
    energy.flags.weight.requires_grad_(True).data.copy_(torch.tensor([[0.9], [0.4], [0.1]]))
    energy.memory.weight.data.normal_()
    x = smooth_pictures(2, shape).double().requires_grad_()
    of = x, energy.memory.weight, energy.flags.weight
    assert torch.autograd.gradcheck(lambda x, *_: energy(x), of, fast_mode=True)
    assert energy.misfit.detail[0].out_channels == 3


def test_pictures_as_far_apart_as_can_be_each_have_their_slot():
    energy = PictureSlotEnergy((3, 64, 64), 4, 10)
    assert energy.log_price.exp() > 300
    model = EBMM(energy, **energy.settings)
    patterns = torch.tensor([0.0, 1.0, 0.0, 1.0])[None, :, None, None, None].expand(-1, -1, 3, 64, 64)
    with torch.no_grad():
        assert model.write(patterns)["flags.weight"].min() > 0.9


def test_only_a_full_memory_answers_and_the_same_again_fill_it():
    model, patterns = started((16, 16)), smooth_pictures(3, (16, 16))[None]
    with torch.no_grad():
        few = model.write(patterns)
        unread = (model.read(patterns, few) - patterns).square().sum()
        read = (model.read(patterns, model.write(patterns, few)) - patterns).square().sum()
    assert read < 0.1 * unread


def test_the_level_is_what_an_empty_slot_decodes_to():
    energy = PictureSlotEnergy((16, 16), 2, 8, level=0.2)
    torch.testing.assert_close(energy.decoder(torch.zeros(1, 8)), torch.full((1, 1, 16, 16), 0.2))


def test_patterns_of_another_shape_are_refused_at_the_start():
    with pytest.raises(ValueError, match="patterns must have shape"):
        PictureSlotEnergy((16, 16), 2, 8).start_with(torch.rand(300, 16, 8))


def test_a_code_may_have_as_many_numbers_as_a_picture():
    assert PictureSlotEnergy((8, 8), 2, 64)(torch.rand(3, 8, 8)).isfinite().all()


@pytest.mark.parametrize(
    "options",
    [
        {"slots": 0}, {"width": 0}, {"width": 300}, {"hidden": 0},
        {"price": 0.0}, {"price": float("inf")}, {"order": -1.0},
    ],
)  # fmt: skip
def test_impossible_sizes_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        PictureSlotEnergy((16, 16), **{"slots": 4, "width": 8} | options)
