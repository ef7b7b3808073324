"""Coders for images, and the autoencoder that is made of them."""

import math

import pytest
import torch

from ebmm import Task, fit, tasks
from ebmm.baselines import Autoencoder
from ebmm.coders import ImageDecoder, ImageEncoder, cosine_basis, image_coders
from ebmm.coders.images import as_planes
from ebmm.datasets import digits

SHAPES = [(16, 8), (3, 16, 16)]


@pytest.mark.parametrize("shape", SHAPES)
def test_all_cosines_are_a_rotation_that_starts_with_the_mean(shape):
    basis = cosine_basis(shape, math.prod(shape))
    torch.testing.assert_close(basis @ basis.mT, torch.eye(len(basis)), atol=1e-5, rtol=0)
    torch.testing.assert_close(basis[0], torch.full_like(basis[0], len(basis) ** -0.5))


def test_low_frequencies_and_brightness_come_first():
    rows = cosine_basis((3, 32, 32), 24).unflatten(1, (3, 32, 32))
    torch.testing.assert_close(rows[:3], rows[:3, :1].expand(-1, 3, -1, -1), atol=1e-6, rtol=0)  # grey
    assert (rows[:, 0] - rows[:, 2]).abs().max() > 0.01  # and red against blue within the first 24
    smooth = torch.linspace(0, 1, 32).expand(3, 32, 32).reshape(1, -1)
    kept = (smooth @ rows.flatten(1).mT).square().sum() / smooth.square().sum()
    assert kept > 0.99


@pytest.mark.parametrize("number", [0, 65])
def test_a_basis_of_impossible_size_is_refused(number):
    with pytest.raises(ValueError, match="number must lie in"):
        cosine_basis((8, 8), number)


@pytest.mark.parametrize("shape", [(8,), (2, 8, 8), (30, 32), (3, 32, 31), (1, 3, 8, 8)])
def test_images_of_impossible_shape_are_refused(shape):
    with pytest.raises(ValueError, match="multiples of 8"):
        as_planes(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_codes_have_one_length_also_of_a_blank_image(shape):
    x = torch.cat([torch.rand(5, *shape), torch.full((1, *shape), 0.5), torch.ones(1, *shape)])
    encoder = ImageEncoder(shape, width=20)
    torch.nn.init.normal_(encoder.network[-1].weight)
    torch.testing.assert_close(encoder(x).norm(dim=1), torch.full((7,), math.sqrt(20)))


@pytest.mark.parametrize("shape", SHAPES)
def test_before_training_the_coders_keep_what_the_first_cosines_keep(shape):
    torch.manual_seed(0)
    x = 0.5 + 0.1 * torch.randn(4, *shape).clamp(-3, 3)
    encoder, decoder = image_coders(shape, width=17)
    basis = cosine_basis(shape, 16)
    kept = 0.5 + ((x - 0.5).flatten(1) @ basis.mT @ basis).unflatten(1, shape)
    torch.testing.assert_close(decoder(encoder(x)), kept, atol=0.02, rtol=0)


def test_the_level_is_what_an_empty_slot_decodes_to():
    for level in (0.5, 0.1):
        _, decoder = image_coders((8, 8), width=10, level=level)
        torch.testing.assert_close(decoder(torch.zeros(1, 10)), torch.full((1, 8, 8), level))


def test_a_decoder_stays_in_the_box_and_still_learns_there():
    decoder = ImageDecoder(10, (8, 8))
    code = torch.tensor([[30.0] + [0.0] * 8 + [1.0]], requires_grad=True)
    y = decoder(code)
    assert y.min() >= 0 and y.max() == 1
    y.sum().backward()
    assert code.grad.abs().max() > 0.01


def test_the_autoencoder_is_told_which_slot_to_read():
    model = Autoencoder((8, 8), 3, 30, *image_coders((8, 8), 30))
    patterns = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        memory = model.write(patterns)
        x, trajectory = model.read(torch.rand(2, 3, 8, 8), memory, trajectory=True)
    torch.testing.assert_close(x, model.decoder(model.encoder(patterns.flatten(0, 1))).unflatten(0, (2, 3)))
    assert torch.equal(trajectory[1], x)
    with pytest.raises(ValueError, match="expected 3 queries, got 2"):
        model.read(patterns[:, :2], memory)


def test_training_the_autoencoder_lowers_its_error():
    torch.manual_seed(0)
    images = torch.nn.functional.pad(digits().images, (2, 2, 2, 2))
    task = Task(tasks.ImagePatterns(images), tasks.NoiseBlock(16), 32, "squared error")
    model = Autoencoder((32, 32), 32, 30, *image_coders((32, 32), 30, level=0.1, channels=(8, 8)))
    history = fit(model, task, 60, memories=1, learning_rate=3e-3, warmup=5, progress=False).column("error")
    assert sum(history[-10:]) < 0.85 * sum(history[:10])
