"""Invented alphabets: handwriting-like characters, as many as asked, without any data.

Meta-training wants characters without end. Here an alphabet is a vocabulary of pen strokes, a
character is a short programme of one to four of them, each starting on an earlier one, and a drawing
is that programme carried out by an unsteady hand. (Lake et al. 2015 describe Omniglot's characters in
the same three levels; this is a sketch of that idea, not their model.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ebmm.datasets import ImageSet

STROKES = 4  # at most, in one character
PIECES = 20  # straight pieces of one stroke
SHAPES = 10  # in one alphabet's vocabulary

# A stroke is a path of pieces that turns at two bends. Each kind gives for both bends the range of the
# angle in degrees, of the place along the stroke (0 to 1), and of the width (small: a corner; large: an arc).
KINDS = np.array([
    # angle        place         width        angle         place         width
    [[-10, 10], [0.3, 0.7], [0.3, 0.3], [0, 0], [0.5, 0.5], [0.3, 0.3]],  # line
    [[60, 200], [0.4, 0.6], [0.2, 0.4], [0, 0], [0.5, 0.5], [0.3, 0.3]],  # arc
    [[70, 130], [0.35, 0.65], [0.01, 0.03], [-15, 15], [0.5, 0.5], [0.3, 0.3]],  # corner
    [[90, 200], [0.7, 0.85], [0.05, 0.1], [-20, 20], [0.3, 0.3], [0.2, 0.2]],  # hook
    [[100, 190], [0.22, 0.3], [0.08, 0.15], [-190, -100], [0.7, 0.78], [0.08, 0.15]],  # S
    [[90, 140], [0.3, 0.36], [0.01, 0.03], [-140, -90], [0.64, 0.7], [0.01, 0.03]],  # zigzag
    [[290, 350], [0.45, 0.55], [0.5, 0.8], [0, 0], [0.5, 0.5], [0.3, 0.3]],  # ring
    [[250, 330], [0.45, 0.6], [0.1, 0.16], [0, 0], [0.5, 0.5], [0.3, 0.3]],  # loop
    [[80, 110], [0.15, 0.25], [0.02, 0.08], [80, 110], [0.75, 0.85], [0.02, 0.08]],  # cup
])  # fmt: skip
ANGULAR = np.array([1, 0, 1, 0, 0, 1, 0, 0, 0.7])  # how much of each kind an angular alphabet has
ROUND = np.array([0.5, 1, 0, 0.8, 0.6, 0, 0.8, 0.5, 0.4])  # and a round one


def glyphs(alphabets: int, characters: int, drawings: int, size: int = 28, seed: int = 0) -> ImageSet:
    """Draw characters of invented alphabets.

    A drawing depends only on the seed and its three numbers: drawing j of character k of alphabet a is
    the same however many others are asked for. Another seed gives other alphabets.

    Args:
        alphabets: how many.
        characters: how many in each alphabet.
        drawings: how many of each character.
        size: height and width of the images, in pixels.
        seed: of everything random.

    Returns:
        alphabets * characters * drawings images, alphabet by alphabet, character by character.

    Raises:
        ValueError: a number below 1, or a negative seed.

    Example:
        >>> glyphs(alphabets=2, characters=5, drawings=3)
        ImageSet(glyphs: 30 images of 28 x 28, characters: 10, alphabets: 2, source: ebmm.glyphs, seed 0)
    """
    for name, number in dict(alphabets=alphabets, characters=characters, drawings=drawings, size=size).items():
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a whole number, at least 1, got {number!r}")
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number, at least 0, got {seed!r}")

    each = characters * drawings
    images = torch.empty(alphabets * each, size, size)
    for alphabet in range(alphabets):
        paths, width = _draw(_Alphabet(seed, alphabet), characters, drawings)
        images[alphabet * each : (alphabet + 1) * each] = _ink(paths, width, size)
    return ImageSet(
        images=images,
        labels=torch.arange(alphabets * characters).repeat_interleave(drawings),
        characters=tuple(f"alphabet {a}/character {k}" for a in range(alphabets) for k in range(characters)),
        alphabets=tuple(f"alphabet {a}" for a in range(alphabets) for _ in range(characters)),
        name="glyphs",
        source=f"ebmm.glyphs, seed {seed}",
    )


class _Alphabet:
    """The style that the characters of one alphabet share."""

    def __init__(self, seed: int, number: int):
        self.key = (seed, number)
        random = np.random.default_rng(self.key)
        roundness = random.beta(0.8, 0.8)
        kinds = roundness * ROUND + (1 - roundness) * ANGULAR
        kinds = random.choice(len(KINDS), SHAPES, p=kinds / kinds.sum())
        low, high = KINDS[kinds, :, 0], KINDS[kinds, :, 1]
        self.bends = low + (high - low) * random.random(low.shape)  # (SHAPES, 6), as in KINDS
        self.bends[:, [0, 3]] *= random.choice([-1, 1], (SHAPES, 1))  # bends to the left or to the right
        directions = random.choice([0, 90, 90, 45, 135], SHAPES) + random.normal(0, 8, SHAPES)
        self.directions = directions + random.normal(0, 6)  # the slant
        self.lengths = random.uniform(0.4, 1, SHAPES) * (1 + np.abs(self.bends[:, [0, 3]]).sum(1) / 250)
        share = np.array([0.1, 0.35, 0.35, 0.2]) * random.uniform(0.2, 1, STROKES)
        self.strokes = share / share.sum()  # how often a character has one, two, three, four
        self.extent = random.uniform(0.6, 0.75)  # of a character, as a share of the box
        self.loose = random.uniform(0, 0.3)  # how often a stroke does not touch the earlier ones


def _draw(alphabet: _Alphabet, characters: int, drawings: int) -> tuple[np.ndarray, np.ndarray]:
    """Paths (M, STROKES, PIECES + 1, 2) as x and y in the box [0, 1], missing strokes NaN, and widths (M,)."""
    # Every choice of the programme is read off numbers of the character's own, every tremor off the drawing's own.
    choices, tremors = [], []
    for character in range(characters):
        choices.append(np.random.default_rng((*alphabet.key, character, 0)).random((STROKES, 12)))
        tremors.append(np.random.default_rng((*alphabet.key, character, 1)).standard_normal((drawings, STROKES + 1, 10)))
    choice = np.stack(choices)[:, None]  # (characters, 1, STROKES, 12): the first drawing axis is ...
    tremor = np.stack(tremors)  # (characters, drawings, STROKES + 1, 10)
    tremor = np.concatenate([np.zeros_like(tremor[:, :1]), tremor], axis=1).clip(-2.5, 2.5)  # ... the steady hand's

    number = 1 + np.searchsorted(alphabet.strokes.cumsum()[:-1], choice[:, :, 0, 0])  # (characters, 1)
    shape = (choice[..., 1] * SHAPES).astype(int)
    hand = tremor[:, :, :STROKES]
    bends = alphabet.bends[shape] * np.stack([0.8 + 0.4 * choice[..., 2], *[np.ones_like(shape)] * 5], -1)
    angle = bends[..., [0, 3]] * (1 + 0.07 * hand[..., 0:2]) + 5 * hand[..., 2:4]
    place = bends[..., [1, 4]] + 0.1 * (choice[..., 3:4] - 0.5) + 0.02 * hand[..., 4:6]
    direction = alphabet.directions[shape] + 30 * (choice[..., 4] - 0.5) + 4 * hand[..., 6]
    shorter = np.array([1, 0.85, 0.7, 0.6])
    length = alphabet.lengths[shape] * shorter * (0.7 + 0.6 * choice[..., 5]) * (1 + 0.07 * hand[..., 7])
    strokes = _strokes(direction, length, angle, place, bends[..., [2, 5]])

    for k in range(1, STROKES):  # each stroke is moved so that one of its points meets a point of an earlier one
        earlier = (choice[..., k, 6] * np.minimum(k, number)).astype(int)
        theirs = _pick(strokes, earlier, _point(choice[..., k, 7], choice[..., k, 8]))
        mine = _pick(strokes, np.full_like(earlier, k), _point(choice[..., k, 9], 0.8 * choice[..., k, 10]))
        apart = np.stack([0.5 - choice[..., k, 10], 0.5 - choice[..., k, 8]], -1)
        gap = np.where(choice[..., k, 11, None] < alphabet.loose, apart, 0) + 0.012 * hand[..., k, 8:10]
        strokes[:, :, k] += (theirs - mine + gap)[:, :, None]

    strokes[np.broadcast_to(np.arange(STROKES) >= number[..., None], strokes.shape[:3])] = np.nan
    steady = strokes[:, :1]
    low, high = (bound(steady, axis=(2, 3), keepdims=True) for bound in (np.nanmin, np.nanmax))
    extent = alphabet.extent * (0.85 + 0.25 * choice[:, :, :1, 0:1, None])
    paths = (strokes - (low + high) / 2)[:, 1:] * (extent / (high - low).max(-1, keepdims=True))

    whole = tremor[:, 1:, STROKES, :, None, None]  # what happens to a drawing as a whole
    turned = np.eye(2) + np.concatenate(
        [
            np.concatenate([0.05 * whole[:, :, 0], 0.06 * whole[:, :, 1]], -1),
            np.concatenate([0.04 * whole[:, :, 2], 0.05 * whole[:, :, 3]], -1),
        ],
        axis=-2,
    )
    paths = paths @ turned[:, :, None] + 0.5 + 0.03 * whole[:, :, 4:6].swapaxes(2, 4)[..., 0, :][:, :, None]
    paths = paths.reshape(-1, *paths.shape[2:])
    width = (0.03 * (1 + 0.08 * tremor[:, 1:, STROKES, 6])).reshape(-1)
    return _inside(paths, 0.04), width


def _strokes(direction, length, angle, place, width) -> np.ndarray:
    """Paths (..., PIECES + 1, 2) from the origin: the pen's direction is turned along each bend."""
    along = (np.arange(PIECES - 1) + 1) / PIECES
    bump = np.exp(-(((along - place[..., None]) / width[..., None]) ** 2) / 2)
    bump = bump / bump.sum(-1, keepdims=True)
    turns = (angle[..., None] * bump).sum(-2)
    start = direction - turns.sum(-1) * 0.5
    heading = np.radians(np.concatenate([start[..., None], start[..., None] + turns.cumsum(-1)], -1))
    pieces = np.stack([np.cos(heading), np.sin(heading)], -1) * (length / PIECES)[..., None, None]
    return np.concatenate([np.zeros_like(pieces[..., :1, :]), pieces.cumsum(-2)], -2)


def _point(kind: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Which point of a stroke another one meets: often its start, end or middle, else anywhere."""
    return np.select(
        [kind < 0.3, kind < 0.55, kind < 0.75], [0, PIECES, PIECES // 2], (place * PIECES).round().astype(int)
    )


def _pick(strokes: np.ndarray, stroke: np.ndarray, point: np.ndarray) -> np.ndarray:
    rows = np.arange(strokes.shape[0])[:, None]
    columns = np.arange(strokes.shape[1])[None]
    return strokes[rows, columns, stroke, point]


def _inside(paths: np.ndarray, margin: float) -> np.ndarray:
    """Shrink what is larger than the box less its margin, and move in what sticks out."""
    low, high = (bound(paths, axis=(1, 2), keepdims=True) for bound in (np.nanmin, np.nanmax))
    middle = (low + high) / 2
    scale = np.minimum(1, (1 - 2 * margin) / (high - low).max(-1, keepdims=True))
    half = (high - low) / 2 * scale
    return (paths - middle) * scale + middle.clip(margin + half, 1 - margin - half)


def _ink(paths: np.ndarray, width: np.ndarray, size: int) -> Tensor:
    """Images (M, size, size): the share of each pixel that strokes of this width cover, edges smoothed."""
    centres = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    pixels = torch.stack([x.flatten(), y.flatten(), (x**2 + y**2).flatten(), torch.ones(size * size)], -1)
    paths = torch.from_numpy(np.nan_to_num(paths, nan=-9)).float()
    start, step = paths[:, :, :-1].flatten(1, 2), paths.diff(dim=2).flatten(1, 2)
    length2 = step.square().sum(-1).clamp_min(1e-12)
    images = torch.empty(len(paths), size * size)
    for some in torch.arange(len(paths)).split(max(1, 20000 // size**2)):
        a, v, v2 = start[some], step[some], length2[some]
        one, zero = torch.ones_like(v2), torch.zeros_like(v2)
        # Both are linear in the features of a pixel: its squared distance to the start of a piece, and how far
        # along the piece its nearest point lies.
        distance2 = pixels @ torch.stack([-2 * a[..., 0], -2 * a[..., 1], one, a.square().sum(-1)], 1)
        along = pixels @ torch.stack([v[..., 0] / v2, v[..., 1] / v2, zero, -(a * v).sum(-1) / v2], 1)
        on = along.clamp(0, 1)
        nearest = (distance2 - v2[:, None] * on * (2 * along - on)).amin(-1).clamp_min(0).sqrt()
        reach = torch.from_numpy(width[some.numpy()]).float()[:, None] / 2
        images[some] = ((reach - nearest) * size + 0.5).clamp(0, 1)
    return images.view(-1, size, size)
