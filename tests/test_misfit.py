"""How badly a picture fits another one; that slopes vanish where it fits is tested with the memories that use it."""

import pytest
import torch

from ebmm.misfit import PictureMisfit, cells, largest_distance, robust_distances, softly_clipped

PLANES = [(1, 16, 16), (3, 16, 16)]


def misfit_of(planes, **options):
    """With networks that do something: they start as zero."""
    torch.manual_seed(0)
    misfit = PictureMisfit(planes, hidden=6, **options)
    for parameter in (*misfit.detail[-1].parameters(), *misfit.tolerance[-1].parameters()):
        torch.nn.init.normal_(parameter, std=0.3)
    return misfit


@pytest.mark.parametrize("planes", PLANES)
def test_what_does_not_fit_is_repaired_and_the_rest_is_left(planes):
    misfit, y = PictureMisfit(planes), torch.full((1, *planes), 0.5)
    x = y.clone()
    x[..., :4, :4] += 0.05
    x[..., 8:, 8:] += 0.5
    repaired = misfit.repaired(x, y)
    torch.testing.assert_close(repaired[..., :6, :6], x[..., :6, :6], atol=4e-3, rtol=0)
    torch.testing.assert_close(repaired[..., 12:, 12:], y[..., 12:, 12:], atol=4e-3, rtol=0)


def test_repairing_is_a_step_down_the_misfit_where_nothing_is_learned():
    misfit = PictureMisfit((1, 16, 16))
    x, y = torch.rand(2, 3, 1, 16, 16)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(misfit(x, y).sum(), x)
    torch.testing.assert_close(x - slope, misfit.repaired(x, y), atol=1e-5, rtol=0)


@pytest.mark.parametrize("planes", PLANES)
@pytest.mark.parametrize("bounded", [True, False])
def test_bounded_networks_add_at_most_one_half_and_forgive_at_most_e_times_as_much(planes, bounded):
    x, y = torch.rand(2, 4, *planes)
    far, misfit = 50 * (y - 0.5), misfit_of(planes, bounded=bounded)
    z, excess = misfit._excess(x, far)
    around = misfit.over_rows @ (0.5 * (x - z).square().sum(1, keepdim=True)) @ misfit.over_columns
    forgiven = (around - excess / misfit.slope.exp()) / misfit.forgiven
    assert ((z - far).abs().max() <= 0.5 + 1e-5) == bounded
    assert (forgiven.log().abs().max() <= 1.01) == bounded


@pytest.mark.parametrize("options", [{"hidden": 0}, {"forgiven": 0.0}])
def test_impossible_sizes_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        PictureMisfit((1, 16, 16), **options)


def test_the_sum_is_that_over_pixels():
    misfit = misfit_of((1, 16, 16))
    x, y = torch.rand(2, 4, 1, 16, 16)
    torch.testing.assert_close(misfit(x, y), misfit.at_pixels(x, y).flatten(1).sum(1))


def test_what_is_repaired_has_its_detail_added():
    misfit = PictureMisfit((1, 16, 16))
    torch.nn.init.constant_(misfit.detail[-1].bias, 0.3)
    y = torch.full((1, 1, 16, 16), 0.2)
    torch.testing.assert_close(
        misfit.repaired(y + 0.8, y)[..., 4:12, 4:12], y[..., 4:12, 4:12] + 0.3, atol=0.01, rtol=0
    )


@pytest.mark.parametrize("planes", PLANES)
def test_nothing_is_farther_from_a_picture_than_the_largest_distance(planes):
    black, brightest = torch.zeros(1, *planes), softly_clipped(torch.full((1, *planes), 50.0))
    found = robust_distances(cells(black), cells(brightest), torch.tensor(0.5))
    assert found.item() == pytest.approx(largest_distance(planes, 0.5))
