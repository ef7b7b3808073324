"""Our energy for images."""

import naive
import pytest
import torch
from torch.func import functional_call

from ebmm import EBMM, Task, tasks
from ebmm.coders import image_coders
from ebmm.energies import InpaintingEnergy
from ebmm.energies.inpainting import window_mean
from ebmm.training import reconstruction_loss

SHAPES = [(16, 16), (3, 16, 16)]


def smooth_images(number, shape, seed=0):
    """Images with the low frequencies that untrained coders keep."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, 1 if len(shape) == 2 else 3, 3, 3, generator=generator)
    return torch.nn.functional.interpolate(coarse, shape[-2:], mode="bicubic").clamp(0, 1).reshape(number, *shape)


def energy_of(shape, slots=6, width=60, dtype=torch.float32):
    torch.manual_seed(0)
    return InpaintingEnergy(
        shape, slots, width, *image_coders(shape, width, channels=(8, 8)), hidden=8, forgiven=0.03
    ).to(dtype)


def memory_of(energy, read_steps=2, **options):
    return EBMM(
        energy, write_steps=1, read_steps=read_steps, sequential=True, gradient_term=False, decay_term=False,
        write_rate=2.5, read_rate=0.9, **options,
    )  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_writing_puts_each_code_into_a_slot_of_its_own(shape):
    model = memory_of(energy_of(shape))
    patterns = smooth_images(12, shape).unflatten(0, (2, 6))
    with torch.no_grad():
        slots = model.write(patterns)["memory.weight"]
        codes = model.energy_network.encoder(patterns.flatten(0, 1)).unflatten(0, (2, 6))
    distance = torch.cdist(codes, slots)
    assert distance.min(2).values.max() < 0.3
    assert all(len(set(row.tolist())) == 6 for row in distance.argmin(2))


@pytest.mark.parametrize("shape", SHAPES)
def test_untrained_it_fills_in_the_noise_and_keeps_the_rest(shape):
    patterns = smooth_images(12, shape).unflatten(0, (2, 6))
    queries, intact = tasks.NoiseBlock(8)(patterns.flatten(0, 1), torch.Generator().manual_seed(1))
    queries, intact = queries.view_as(patterns), intact.view_as(patterns)
    model = memory_of(energy_of(shape, width=60 if shape == (16, 16) else 180))
    with torch.no_grad():
        x = model.read(queries, model.write(patterns))
    before, after = (queries - patterns).square(), (x - patterns).square()
    assert after[~intact].sum() < 0.25 * before[~intact].sum()
    assert after[intact].mean() < 0.008


def test_what_fits_has_no_slope_and_what_does_not_has_the_misfits_own():
    energy = energy_of((16, 16))
    y = torch.full((1, 1, 16, 16), 0.5)
    x = y.clone()
    x[..., :4, :4] += 0.1  # u is 0.005: forgiven
    x[..., 8:, 8:] += 0.5  # u is 0.125: not
    x.requires_grad_()
    (slope,) = torch.autograd.grad(energy.misfit(x, y).sum(), x)
    assert slope[..., :4, :4].abs().max() < 0.01 * 0.1 * 5
    torch.testing.assert_close(slope[..., 11:13, 11:13], torch.full((1, 1, 2, 2), 0.5), atol=1e-3, rtol=0)


def test_a_single_pixel_that_does_not_fit_is_detail_and_forgiven():
    energy = energy_of((16, 16))
    y = torch.full((1, 1, 16, 16), 0.5)
    x = y.clone()
    x[..., 7, 7] = 1.0  # half its square is 0.125, four times what is forgiven; the mean over 25 pixels is not
    x.requires_grad_()
    (slope,) = torch.autograd.grad(energy.misfit(x, y).sum(), x)
    assert slope.abs().max() < 0.02


def test_the_energy_is_never_negative_and_highest_for_noise():
    energy = energy_of((3, 16, 16))
    model = memory_of(energy)
    patterns = smooth_images(6, (3, 16, 16))[None]
    with torch.no_grad():
        memory = model.write(patterns)
        stored, noise = model.energy(patterns, memory), model.energy(torch.rand_like(patterns), memory)
    assert (stored >= 0).all() and (noise > 4 * stored.max()).all()


def test_one_memory_at_a_time_gives_the_same_energies():
    energy = energy_of((3, 16, 16), dtype=torch.float64)
    x, slots = torch.rand(2, 5, 3, 16, 16, dtype=torch.float64), torch.randn(2, 6, 60, dtype=torch.float64)
    together = functional_call(energy, {"memory.weight": slots}, (x,))
    for b in range(2):
        alone = functional_call(energy, {"memory.weight": slots[b]}, (x[b],))
        torch.testing.assert_close(together[b], alone)


def test_the_meta_gradient_equals_central_differences():
    energy = energy_of((16, 16), slots=3, width=12, dtype=torch.float64)
    for parameter in (*energy.detail[-1].parameters(), *energy.tolerance[-1].parameters()):
        torch.nn.init.normal_(parameter, std=0.1)  # else what stands before them has no effect
    # Clipping, in reading and in the decoder, would have the gradient of the identity.
    model = memory_of(energy, box=None).double()
    batch = Task(tasks.ImagePatterns(0.3 + 0.4 * smooth_images(9, (16, 16))), tasks.NoiseBlock(8), 3).sample(
        2, torch.Generator().manual_seed(0)
    )
    batch = type(batch)(batch.patterns.double(), batch.queries.double(), batch.intact)
    model.zero_grad()
    reconstruction_loss(model, batch)[0].backward()
    for name in ("detail.0.weight", "tolerance.0.weight", "slope", "decoder.linear.weight", "encoder.linear.weight"):
        parameter = energy.get_parameter(name)
        direction = torch.randn_like(parameter)
        direction /= direction.norm()
        measured = naive.central_difference(
            lambda: reconstruction_loss(model, batch)[0], parameter, direction, step=1e-5
        )
        slope = (parameter.grad * direction).sum().item()
        assert slope != 0
        assert measured == pytest.approx(slope, rel=2e-4, abs=1e-7), name


def test_a_memory_is_found_by_what_is_intact_even_if_the_noise_is_nearer_to_another():
    """A blank query with one dark quarter: in plain distance nearest to grey, in all but that quarter like white."""
    energy = energy_of((16, 16))
    asked, white, grey = torch.ones(1, 16, 16), torch.ones(16, 16), torch.full((16, 16), 0.65)
    asked[:, 8:, 8:] = 0.0
    assert (asked - white).square().sum() > (asked - grey).square().sum()
    cells = torch.nn.functional.pixel_unshuffle(torch.stack([asked[0], white, grey])[:, None], 4).flatten(2).mT
    weights = energy.address(cells[None, :1], cells[None, 1:])
    assert weights.shape == (1, 1, 2) and weights[0, 0, 0] > 0.99


def test_no_two_of_sixty_four_codes_share_a_slot():
    torch.manual_seed(0)
    energy = energy_of((3, 16, 16), slots=64, width=24)
    model = memory_of(energy)
    patterns = smooth_images(64 * 8, (3, 16, 16)).unflatten(0, (8, 64))
    with torch.no_grad():
        slots = model.write(patterns)["memory.weight"]
        codes = energy.encoder(patterns.flatten(0, 1)).unflatten(0, (8, 64))
    assert torch.cdist(codes, slots).min(2).values.max() < 0.3


@pytest.mark.parametrize(("size", "reach"), [(8, 2), (5, 1), (7, 3)])
def test_means_over_neighbours_lose_nothing_at_the_edges(size, reach):
    matrix = window_mean(size, reach)
    assert torch.equal(matrix, matrix.T)
    torch.testing.assert_close(matrix.sum(0), torch.ones(size))
    line = torch.arange(float(size))
    mirrored = torch.cat([line[:reach].flip(0), line, line[-reach:].flip(0)])
    torch.testing.assert_close(matrix @ line, mirrored.unfold(0, 2 * reach + 1, 1).mean(1))


def test_the_same_image_twice_gets_two_slots_and_is_recalled():
    model = memory_of(energy_of((16, 16)))
    patterns = smooth_images(6, (16, 16))[None].clone()
    patterns[:, 5] = patterns[:, 2]
    with torch.no_grad():
        memory = model.write(patterns)
        codes = model.energy_network.encoder(patterns[0])
    near = torch.cdist(memory["memory.weight"][0], codes) < 0.3
    assert near[:, 2].sum() == near[:, 5].sum() == 2 and near.any(0).all()


def test_detail_is_added_to_what_is_remembered():
    energy = energy_of((16, 16))
    torch.nn.init.constant_(energy.detail[-1].bias, 0.3)
    remembered = torch.full((1, *energy.planes), 0.5)
    with_detail, without = (energy.misfit(remembered + change, remembered).sum() for change in (0.3, -0.3))
    assert with_detail < without


def test_rounding_makes_no_distance_negative():
    energy = energy_of((16, 16))
    torch.nn.init.constant_(energy.log_tolerated, -25.0)
    cells = 100 + torch.rand(1, 40, 4, 16)
    assert energy.address(cells, cells).isfinite().all()
