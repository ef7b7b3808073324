"""Our slot memory for images: its energy, and reading by descent on it."""

import math

import naive
import pytest
import torch

from ebmm import EBMM, Task, tasks
from ebmm.baselines import InpaintingMemory
from ebmm.coders import image_coders
from ebmm.layers import MemorySlots
from ebmm.memory import Memory
from ebmm.misfit import window_mean
from ebmm.training import reconstruction_loss

SHAPES = [(16, 16), (3, 16, 16)]


def smooth_images(number, shape, seed=0):
    """Images with the low frequencies that untrained coders keep."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, 1 if len(shape) == 2 else 3, 3, 3, generator=generator)
    return torch.nn.functional.interpolate(coarse, shape[-2:], mode="bicubic").clamp(0, 1).reshape(number, *shape)


def memory_of(shape, slots=6, width=60, dtype=torch.float32, **options):
    torch.manual_seed(0)
    coders = image_coders(shape, width, channels=(8, 8))
    return InpaintingMemory(shape, slots, width, *coders, hidden=8, forgiven=0.03, **options).to(dtype)


def with_learned_networks(model):
    """Networks that do something: they start as zero."""
    for parameter in (*model.misfit.detail[-1].parameters(), *model.misfit.tolerance[-1].parameters()):
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def damaged(patterns, size=8, seed=1):
    queries, intact = tasks.NoiseBlock(size)(patterns.flatten(0, 1), torch.Generator().manual_seed(seed))
    return queries.view_as(patterns), intact.view_as(patterns)


@pytest.mark.parametrize("shape", SHAPES)
def test_writing_copies_the_codes_into_slots(shape):
    model, patterns = memory_of(shape), smooth_images(8, shape).unflatten(0, (2, 4))
    with torch.no_grad():
        memory = model.write(patterns)
        codes = model.encoder(patterns.flatten(0, 1)).unflatten(0, (2, 4))
    assert set(memory) == {"slots"} and torch.equal(memory["slots"], codes)


@pytest.mark.parametrize("shape", SHAPES)
def test_untrained_it_fills_in_the_noise_and_keeps_the_rest(shape):
    patterns = smooth_images(12, shape).unflatten(0, (2, 6))
    queries, intact = damaged(patterns)
    model = memory_of(shape, width=60 if shape == (16, 16) else 180)
    with torch.no_grad():
        x = model.read(queries, model.write(patterns))
    before, after = (queries - patterns).square(), (x - patterns).square()
    assert after[~intact].sum() < 0.25 * before[~intact].sum()
    assert after[intact].mean() < 0.008


# Reading is descent on the energy


class Fit(torch.nn.Module):
    """The same energy as a network whose memory is its slots."""

    writable, pattern_shape = ("memory",), (16, 16)

    def __init__(self, model):
        super().__init__()
        self.model, self.memory = model, MemorySlots(model.slots, model.width)

    def forward(self, x):
        slots = self.memory()
        slots, x = (slots, x) if slots.dim() == 3 else (slots[None], x[None])
        return self.model._energy(x, self.model._decoded(slots).flatten(2))


@pytest.mark.parametrize("read_steps", [1, 2, 5])
def test_it_reads_as_an_ebmm_does_that_holds_the_same_slots(read_steps):
    model = with_learned_networks(memory_of((16, 16), read_steps=read_steps, dtype=torch.float64))
    around = EBMM(Fit(model), read_steps=read_steps, read_rate=0.9).double()
    with torch.no_grad():
        assert model.read_rates().equal(around.read_rates()) and model.momentum_rates().equal(around.momentum_rates())
        for name, start in (("raw_read_rates", 1.0), ("raw_momentum", 0.5)):
            for one in (model, around):
                one.get_parameter(name).copy_(torch.linspace(start, -start, read_steps - 1))
    rates, momenta = model.read_rates().tolist(), model.momentum_rates().tolist()
    assert len(rates) == len(momenta) == read_steps and rates[0] == pytest.approx(0.9, abs=1e-6) and momenta[0] == 0
    assert rates == sorted(rates, reverse=True) and momenta[1:] == sorted(momenta[1:], reverse=True)
    patterns = smooth_images(12, (16, 16)).double().unflatten(0, (2, 6))
    queries, _ = damaged(patterns)
    with torch.no_grad():
        memory = model.write(patterns)
        x, trajectory = model.read(queries, memory, trajectory=True)
        _, theirs = around.read(queries, Memory({"memory.weight": memory["slots"]}), trajectory=True)
        assert len(trajectory) == read_steps + 1
        torch.testing.assert_close(trajectory, theirs, rtol=1e-9, atol=1e-9)
        assert (model.energy(x, memory) < model.energy(queries, memory)).all()


def test_the_meta_gradient_equals_central_differences():
    model = with_learned_networks(memory_of((16, 16), slots=3, width=12, dtype=torch.float64))
    # No pixel is clipped in reading or by the decoder: clipping has no gradient.
    source = tasks.ImagePatterns(0.3 + 0.4 * smooth_images(9, (16, 16)))
    task = Task(source, tasks.NoiseBlock(8), 3, "squared error")
    batch = task.sample(2, torch.Generator().manual_seed(0))
    batch = type(batch)(batch.patterns.double(), 0.3 + 0.4 * batch.queries.double(), batch.intact)
    with torch.no_grad():
        _, trajectory = model.read(batch.queries, model.write(batch.patterns), trajectory=True)
    assert trajectory.min() > 0 and trajectory.max() < 1
    model.zero_grad()
    reconstruction_loss(model, batch)[0].backward()
    names = (
        "misfit.detail.0.weight",
        "misfit.tolerance.0.weight",
        "misfit.slope",
        "log_tolerated",
        "raw_read_rates",
        "raw_momentum",
    )
    for name in (*names, "decoder.linear.weight", "encoder.linear.weight"):
        parameter = model.get_parameter(name)
        direction = torch.randn_like(parameter)
        direction /= direction.norm()
        measured = naive.central_difference(
            lambda: reconstruction_loss(model, batch)[0], parameter, direction, step=1e-5
        )
        slope = (parameter.grad * direction).sum().item()
        assert slope != 0
        assert measured == pytest.approx(slope, rel=2e-4, abs=1e-7), name


def test_one_read_can_start_from_another_and_the_gradient_passes_through_both():
    model, patterns = memory_of((16, 16)), smooth_images(6, (16, 16))[None]
    memory = model.write(patterns)
    queries = damaged(patterns)[0].requires_grad_()
    model.read(model.read(queries, memory), memory).square().sum().backward()
    assert queries.grad is not None and queries.grad.isfinite().all() and queries.grad.any()


# The energy


def test_what_fits_has_no_slope_and_what_does_not_has_the_misfits_own():
    model = memory_of((16, 16))
    y = torch.full((1, 1, 16, 16), 0.5)
    x = y.clone()
    x[..., :4, :4] += 0.1  # u is 0.005: forgiven
    x[..., 8:, 8:] += 0.5  # u is 0.125: not
    x.requires_grad_()
    (slope,) = torch.autograd.grad(model.misfit(x, y).sum(), x)
    assert slope[..., :4, :4].abs().max() < 0.01 * 0.1 * 5
    torch.testing.assert_close(slope[..., 11:13, 11:13], torch.full((1, 1, 2, 2), 0.5), atol=1e-3, rtol=0)


def test_a_single_pixel_that_does_not_fit_is_detail_and_forgiven():
    model = memory_of((16, 16))
    y = torch.full((1, 1, 16, 16), 0.5)
    x = y.clone()
    x[..., 7, 7] = 1.0  # half its square is 0.125, four times what is forgiven; the mean over 25 pixels is not
    x.requires_grad_()
    (slope,) = torch.autograd.grad(model.misfit(x, y).sum(), x)
    assert slope.abs().max() < 0.02


def test_the_energy_is_never_negative_and_highest_for_noise():
    model = memory_of((3, 16, 16))
    patterns = smooth_images(6, (3, 16, 16))[None]
    with torch.no_grad():
        memory = model.write(patterns)
        stored, noise = model.energy(patterns, memory), model.energy(torch.rand_like(patterns), memory)
    assert (stored >= 0).all() and (noise > 4 * stored.max()).all()


def test_a_memory_is_found_by_what_is_intact_even_if_the_noise_is_nearer_to_another():
    """A blank query with one dark quarter: in plain distance nearest to grey, in all but that quarter like white."""
    model = memory_of((16, 16))
    asked, white, grey = torch.ones(1, 16, 16), torch.ones(16, 16), torch.full((16, 16), 0.65)
    asked[:, 8:, 8:] = 0.0
    assert (asked - white).square().sum() > (asked - grey).square().sum()
    cells = torch.nn.functional.pixel_unshuffle(torch.stack([asked[0], white, grey])[:, None], 4).flatten(2).mT
    weights = model.weights(cells[None, :1], cells[None, 1:])
    assert weights.shape == (1, 1, 2) and weights[0, 0, 0] > 0.99


@pytest.mark.parametrize("learned", [False, True])
def test_the_weights_follow_the_formula(learned):
    model, beta, tau = memory_of((16, 16), dtype=torch.float64), 1.0, 0.5
    if learned:
        beta, tau = 1.2, 0.7
        torch.nn.init.constant_(model.log_inverse_temperature, math.log(beta))
        torch.nn.init.constant_(model.log_tolerated, math.log(tau))
    asked, kept = torch.rand(2, 3, 16, 16).double(), torch.rand(2, 5, 16, 16).double()
    distance = torch.zeros(2, 3, 5).double()
    for row in range(0, 16, 4):
        for column in range(0, 16, 4):
            x, y = (images[..., row : row + 4, column : column + 4] for images in (asked, kept))
            distance += tau * torch.log(1 + (x[:, :, None] - y[:, None]).square().sum((-2, -1)) / tau)
    cells = (
        torch.nn.functional.pixel_unshuffle(images[:, :, None], 4).flatten(3).transpose(2, 3)
        for images in (asked, kept)
    )
    expected = torch.softmax(-beta * distance, -1)
    torch.testing.assert_close(model.weights(*cells), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("size", "reach"), [(8, 2), (5, 1), (7, 3)])
def test_means_over_neighbours_lose_nothing_at_the_edges(size, reach):
    matrix = window_mean(size, reach)
    assert torch.equal(matrix, matrix.T)
    torch.testing.assert_close(matrix.sum(0), torch.ones(size))
    line = torch.arange(float(size))
    mirrored = torch.cat([line[:reach].flip(0), line, line[-reach:].flip(0)])
    torch.testing.assert_close(matrix @ line, mirrored.unfold(0, 2 * reach + 1, 1).mean(1))


def test_the_same_image_twice_is_recalled_from_either_slot():
    model, patterns = memory_of((16, 16)), smooth_images(6, (16, 16))[None].clone()
    patterns[:, 5] = patterns[:, 2]
    queries, intact = damaged(patterns)
    with torch.no_grad():
        x = model.read(queries, model.write(patterns))
    assert ((x - patterns).square() * ~intact).sum() < 0.25 * (queries - patterns).square().sum()


def test_detail_is_added_to_what_is_remembered():
    model = memory_of((16, 16))
    torch.nn.init.constant_(model.misfit.detail[-1].bias, 0.3)
    remembered = torch.full((1, *model.planes), 0.5)
    with_detail, without = (model.misfit(remembered + change, remembered).sum() for change in (0.3, -0.3))
    assert with_detail < without


def test_rounding_makes_no_distance_negative():
    model = memory_of((16, 16))
    torch.nn.init.constant_(model.log_tolerated, -25.0)
    cells = 100 + torch.rand(1, 40, 4, 16)
    assert model.weights(cells, cells).isfinite().all()


@pytest.mark.parametrize("wrong", [{"read_steps": 0}, {"read_rate": 0.0}, {"forgiven": -1.0}, {"hidden": 0}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    coders = image_coders((16, 16), 12, channels=(8, 8))
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.* must be "):
        InpaintingMemory((16, 16), 3, 12, *coders, **wrong)
