"""Invented alphabets: reproducible, in the box, different where they should differ."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from ebmm.datasets import digits, glyphs
from ebmm.datasets import invented as module


def test_shapes_values_and_names():
    made = glyphs(alphabets=2, characters=3, drawings=4, size=20)
    assert made.images.shape == (24, 20, 20) and made.images.dtype == torch.float32
    assert made.images.min() == 0 and 0.9 < made.images.max() <= 1
    assert made.labels.tolist() == [label for label in range(6) for _ in range(4)]
    assert len(set(made.characters)) == 6
    assert made.alphabets == ("alphabet 0",) * 3 + ("alphabet 1",) * 3
    assert made.name == "glyphs" and "seed 0" in made.source


@pytest.mark.parametrize("seed", range(4))
def test_a_drawing_is_the_same_however_many_are_asked(seed):
    many = glyphs(alphabets=3, characters=11, drawings=7, seed=seed).images.view(3, 11, 7, 28, 28)
    for alphabets, characters, drawings in ((2, 4, 3), (1, 1, 1), (3, 2, 7)):
        few = glyphs(alphabets, characters, drawings, seed=seed).images
        expected = many[:alphabets, :characters, :drawings].flatten(0, 2)
        assert torch.allclose(few, expected, atol=1e-5)


def test_the_global_seeds_have_no_say_and_are_left_alone():
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = glyphs(1, 3, 2)
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after)
    torch.manual_seed(2)
    assert torch.equal(glyphs(1, 3, 2).images, first.images)


def test_another_seed_gives_other_alphabets():
    one, other = (glyphs(2, 10, 1, seed=seed).images for seed in (0, 1))
    assert (one - other).abs().mean((1, 2)).min() > 0.01
    styles = [module._Alphabet(seed, number).bends for seed in (0, 1) for number in (0, 1)]
    assert len({style.tobytes() for style in styles}) == 4


def test_no_two_drawings_are_alike():
    images = glyphs(alphabets=3, characters=10, drawings=10).images
    assert len({image.numpy().tobytes() for image in images}) == len(images)


def test_characters_are_told_apart_by_their_other_drawings():
    made = glyphs(alphabets=4, characters=20, drawings=20, seed=3)
    drawings = torch.nn.functional.avg_pool2d(made.images[:, None], 3, 1, 1).flatten(1).view(80, 20, -1)
    means, unseen = drawings[:, :15].mean(1), drawings[:, 15:].flatten(0, 1)
    nearest = torch.cdist(unseen, means).argmin(1)
    right = (nearest == torch.arange(80).repeat_interleave(5)).float().mean()
    assert right > 0.4, f"only {right:.0%} of the drawings are nearest to their own character (Omniglot: about 46%)"


def test_alphabets_differ_in_style():
    made = glyphs(alphabets=12, characters=20, drawings=2, seed=5)
    ink = made.images.mean((1, 2)).view(12, 40).mean(1)
    assert ink.max() > 1.2 * ink.min()


def test_every_drawing_has_ink_about_as_much_as_handwriting():
    ink = glyphs(alphabets=20, characters=20, drawings=2).images.mean((1, 2))
    assert ink.min() > 0.01 and ink.max() < 0.25
    assert 0.05 < ink.mean() < 0.1
    assert (digits().images.mean() / ink.mean()) < 3


def test_strokes_stay_in_the_box():
    for number in range(30):
        paths, width = module._draw(module._Alphabet(0, number), characters=20, drawings=3)
        there = paths[~np.isnan(paths)]
        assert there.min() > 0.039 and there.max() < 0.961
        assert np.isfinite(width).all() and (width > 0).all()
        strokes = (~np.isnan(paths[:, :, 0, 0])).sum(1)
        assert strokes.min() >= 1 and strokes.max() <= 4
        assert (strokes.reshape(20, 3) == strokes.reshape(20, 3)[:, :1]).all(), "one programme a character"


def test_characters_have_from_one_to_four_strokes():
    counts = set()
    for number in range(10):
        paths, _ = module._draw(module._Alphabet(0, number), characters=20, drawings=1)
        counts |= set((~np.isnan(paths[:, :, 0, 0])).sum(1).tolist())
    assert counts == {1, 2, 3, 4}


def test_ink_is_that_of_a_plain_loop():
    paths, width = module._draw(module._Alphabet(0, 1), characters=6, drawings=1)
    images = module._ink(paths, width, size=15)
    for path, reach, image in zip(paths, width / 2, images, strict=True):
        for row in range(15):
            for column in range(15):
                pixel, nearest = np.array([column + 0.5, row + 0.5]) / 15, np.inf
                for stroke in path[~np.isnan(path[:, 0, 0])]:
                    for start, end in pairwise(stroke):
                        step = end - start
                        on = np.clip((pixel - start) @ step / (step @ step), 0, 1)
                        nearest = min(nearest, np.linalg.norm(pixel - start - on * step))
                assert image[row, column].item() == pytest.approx(np.clip((reach - nearest) * 15 + 0.5, 0, 1), abs=0.01)


def test_a_large_drawing_shrinks_to_the_small_one():
    small = glyphs(alphabets=2, characters=5, drawings=2, size=28).images
    large = glyphs(alphabets=2, characters=5, drawings=2, size=112).images
    shrunk = torch.nn.functional.avg_pool2d(large[:, None], 4)[:, 0]
    assert (small - shrunk).abs().mean() < 0.01
    assert (small - shrunk).abs().max() < 0.4


@pytest.mark.parametrize("name", ["alphabets", "characters", "drawings", "size"])
@pytest.mark.parametrize("number", [0, -1, 2.0])
def test_numbers_that_are_none_are_refused(name, number):
    arguments = {"alphabets": 1, "characters": 1, "drawings": 1, name: number}
    with pytest.raises(ValueError, match=f"{name} must be a whole number, at least 1, got {number}"):
        glyphs(**arguments)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed must be a whole number, at least 0, got -1"):
        glyphs(1, 1, 1, seed=-1)


def test_all_drawings_of_a_character_join_their_strokes_at_the_same_places():
    furthest = []
    for number in range(10):
        paths, _ = module._draw(module._Alphabet(0, number), characters=20, drawings=20)
        middle = paths.reshape(20, 20, module.STROKES, module.PIECES + 1, 2).mean(3)
        away = middle[:, :, 1:] - middle[:, :, :1]
        tremor = np.linalg.norm(away - np.median(away, axis=1, keepdims=True), axis=-1)
        furthest.append(np.nanmax(tremor))
    assert np.median(furthest) < 0.36, "a stroke joined elsewhere lies further off than a tremor moves it"
