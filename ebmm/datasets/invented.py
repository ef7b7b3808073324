"""Invented alphabets: handwriting-like characters, as many as asked, without any data.

Meta-training wants characters without end. Here an alphabet is a vocabulary of pen strokes, a
character is a short programme of one to four of them, each starting on an earlier one, and a drawing
is that programme carried out by an unsteady hand. (Lake et al. 2015 describe Omniglot's characters in
the same three levels; this is a sketch of that idea, not their model.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ebmm.datasets.characters import ImageSet

STROKES = 4  # at most, in one character
PIECES = 16  # straight pieces of one stroke
SHORTER = np.array([1, 0.85, 0.7, 0.6])  # the later, the shorter
WIDTH = 0.045  # of a stroke, as a share of the box
CHOICES = 12  # random numbers that make one stroke of a character's programme
TREMORS = 10 * STROKES + 7  # and that make one drawing of it: for each stroke, and as a whole
CHUNK = 5000  # pixels drawn at once
SHAPES = 10  # in one alphabet's vocabulary
SIMPLE = 6  # of them, those that turn least, for every stroke after the first

# A stroke is a path of pieces that turns at two bends. Each kind gives, for either bend, the range of its
# angle in degrees, its place along the stroke (0 to 1) and its width (small: a corner, large: an arc), and
# how much of the first angle is turned back before the start, so that an arc is bent about its direction.
KINDS = np.array([
    # angle        place         width        angle         place         width          back
    [[-10, 10], [0.3, 0.7], [0.3, 0.3], [0, 0], [0.5, 0.5], [0.3, 0.3], [0.5, 0.5]],  # line
    [[60, 220], [0.4, 0.6], [0.2, 0.4], [0, 0], [0.5, 0.5], [0.3, 0.3], [0.5, 0.5]],  # arc
    [[80, 120], [0.35, 0.65], [0.01, 0.03], [-10, 10], [0.5, 0.5], [0.3, 0.3], [0, 0]],  # corner
    [[90, 200], [0.65, 0.85], [0.05, 0.1], [-20, 20], [0.3, 0.3], [0.2, 0.2], [0, 0]],  # hook
    [[100, 200], [0.22, 0.3], [0.08, 0.15], [-200, -100], [0.7, 0.78], [0.08, 0.15], [0.5, 0.7]],  # S
    [[100, 140], [0.3, 0.36], [0.01, 0.03], [-140, -100], [0.64, 0.7], [0.01, 0.03], [0, 0]],  # zigzag
    [[300, 360], [0.45, 0.55], [0.5, 0.8], [0, 0], [0.5, 0.5], [0.3, 0.3], [0.5, 0.5]],  # ring
    [[250, 330], [0.45, 0.6], [0.1, 0.16], [0, 0], [0.5, 0.5], [0.3, 0.3], [0.5, 0.5]],  # loop
    [[80, 100], [0.2, 0.35], [0.02, 0.08], [80, 100], [0.65, 0.8], [0.02, 0.08], [0, 0]],  # cup
])  # fmt: skip
ANGULAR = np.array([2, 0, 1, 0.2, 0, 0.4, 0, 0, 0.7])  # how much of each kind an angular alphabet has
ROUND = np.array([1, 1.2, 0, 1, 0.7, 0, 0.7, 0.4, 0.6])  # and a round one


def glyphs(alphabets: int, characters: int, drawings: int, size: int = 28, seed: int = 0) -> ImageSet:
    """Draw characters of invented alphabets, so many in each, and so many drawings of each, size x size pixels.

    A drawing depends only on the seed and its three numbers: drawing j of character k of alphabet a is
    the same however many others are asked for. They come alphabet by alphabet, character by character.

    Example:
        >>> glyphs(alphabets=2, characters=5, drawings=3)
        ImageSet(glyphs: 30 images of 28 x 28, characters: 10, alphabets: 2, source: ebmm.datasets, seed 0)
    """
    sizes: dict[str, Any] = {"alphabets": alphabets, "characters": characters, "drawings": drawings, "size": size}
    for name, number in (sizes | {"seed": seed}).items():
        least = 0 if name == "seed" else 1
        if not isinstance(number, int) or number < least:
            raise ValueError(f"{name} must be a whole number, at least {least}, got {number!r}")

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
        source=f"ebmm.datasets, seed {seed}",
    )


class _Alphabet:
    """The style that the characters of one alphabet share."""

    def __init__(self, seed: int, number: int):
        self.key = (seed, number)
        random = _random(*self.key)
        roundness = random.beta(0.8, 0.8)
        share = roundness * ROUND + (1 - roundness) * ANGULAR
        kinds = random.choice(len(KINDS), SHAPES, p=share / share.sum())
        low, high = KINDS[kinds, :, 0], KINDS[kinds, :, 1]
        self.bends = low + (high - low) * random.random(low.shape)  # (SHAPES, 7), as in KINDS
        self.bends = self.bends[np.abs(self.bends[:, [0, 3]]).sum(1).argsort()]
        self.bends[:, [0, 3]] *= random.choice([-1, 1], (SHAPES, 1))  # bends to the left or to the right
        upright = 90 * ((np.arange(SHAPES) + random.integers(2)) % 2)
        directions = upright + random.choice([0, 45, -45], SHAPES, p=[0.7, 0.15, 0.15])
        self.directions = directions + random.normal(0, 4) + random.normal(0, 4, SHAPES)
        self.lengths = random.uniform(0.4, 1, SHAPES) * (1 + np.abs(self.bends[:, [0, 3]]).sum(1) / 250)
        share = np.array([0.1, 0.35, 0.35, 0.2]) * random.uniform(0.2, 1, STROKES)
        self.strokes = share / share.sum()  # how often a character has one, two, three, four
        self.extent = random.uniform(0.6, 0.75)  # of a character, as a share of the box
        self.loose = random.uniform(0, 0.3)  # how often a stroke does not touch the earlier ones


def _random(seed: int, *numbers: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=numbers))


def _draw(alphabet: _Alphabet, characters: int, drawings: int) -> tuple[np.ndarray, np.ndarray]:
    """Paths (M, STROKES, PIECES + 1, 2), x and y in the box [0, 1], missing strokes NaN; and widths (M,)."""
    choices, tremors = [], []
    for character in range(characters):
        programme, drawn = (_random(*alphabet.key, character, part) for part in (0, 1))
        choices.append(programme.random((1, STROKES, CHOICES)))
        tremors.append(drawn.standard_normal((drawings, TREMORS)))
    choice = np.stack(choices)  # (characters, 1, STROKES, CHOICES)
    tremor = np.stack(tremors).clip(-2.5, 2.5)  # (characters, drawings, TREMORS)
    # The first drawing of each character is by a steady hand: what it decides, such as where a stroke is
    # joined, holds for the others. It is left out in the end.
    tremor = np.concatenate([np.zeros_like(tremor[:, :1]), tremor], axis=1)
    hand, whole = np.split(tremor, [10 * STROKES], axis=-1)
    hand = hand.reshape(*hand.shape[:2], STROKES, 10)

    # Each of these is (characters, 1, STROKES).
    count, kind, bend, shift, lean, stretch, *joint = np.moveaxis(choice, -1, 0)
    number = 1 + np.searchsorted(alphabet.strokes.cumsum()[:-1], count[..., 0])  # of strokes, (characters, 1)
    shape = _shapes(kind, alone=number == 1)
    bends = alphabet.bends[shape]
    angle = bends[..., [0, 3]] * (0.85 + 0.3 * bend[..., None])
    angle = angle * (1 + 0.1 * hand[..., 0:2]) + 7 * hand[..., 2:4]
    place = bends[..., [1, 4]] + 0.1 * (shift[..., None] - 0.5) + 0.03 * hand[..., 4:6]
    direction = alphabet.directions[shape] + 16 * (lean - 0.5) + 6 * hand[..., 6]
    direction = direction - bends[..., 6] * angle[..., 0]
    length = alphabet.lengths[shape] * SHORTER * (0.7 + 0.6 * stretch) * (1 + 0.1 * hand[..., 7])
    strokes = _strokes(direction, length, angle, place, bends[..., [2, 5]])
    _join(strokes, joint, alphabet.loose, 0.02 * hand[..., 8:10])
    strokes[np.broadcast_to(np.arange(STROKES) >= number[..., None], strokes.shape[:3])] = np.nan

    low, high = _bounds(strokes[:, :1], axis=(2, 3))
    extent = alphabet.extent * (0.85 + 0.25 * count[..., 1, None, None, None])
    paths = (strokes - (low + high) / 2)[:, 1:] * (extent / (high - low).max(-1, keepdims=True))
    whole = whole[:, 1:]
    stretched = np.eye(2) + (whole[..., :4] * [0.08, 0.08, 0.06, 0.08]).reshape(*whole.shape[:2], 1, 2, 2)
    moved = 0.5 + 0.045 * whole[..., None, None, 4:6]
    paths = (paths @ stretched + moved).reshape(-1, *paths.shape[2:])
    return _inside(paths, margin=0.04), WIDTH * (1 + 0.08 * whole[..., 6]).reshape(-1)


def _shapes(choice: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """Which shape each stroke has: alone, a richer one; after the first, a simple one, not the last again."""
    shape = np.empty(choice.shape, int)
    least = np.where(alone, SIMPLE // 2, 0)
    shape[..., 0] = least + choice[..., 0] * (SHAPES - least)
    for k in range(1, STROKES):
        shape[..., k] = (shape[..., k - 1] + 1 + choice[..., k] * (SIMPLE - 1)) % SIMPLE
    return shape


def _strokes(
    direction: np.ndarray, length: np.ndarray, angle: np.ndarray, place: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Paths (..., PIECES + 1, 2) from the origin: the pen's direction is turned along each bend."""
    along = (np.arange(PIECES - 1) + 1) / PIECES
    bump = np.exp(-(((along - place[..., None]) / width[..., None]) ** 2) / 2)
    bump = bump / bump.sum(-1, keepdims=True)
    turns = (angle[..., None] * bump).sum(-2)
    turned = np.concatenate([np.zeros_like(turns[..., :1]), turns.cumsum(-1)], -1)
    heading = np.radians(direction[..., None] + turned)
    pieces = np.stack([np.cos(heading), np.sin(heading)], -1) * (length / PIECES)[..., None, None]
    return np.concatenate([np.zeros_like(pieces[..., :1, :]), pieces.cumsum(-2)], -2)


def _join(strokes: np.ndarray, joint: list[np.ndarray], loose: float, tremor: np.ndarray) -> None:
    """Move each stroke, in place, so that one of its points meets a point of an earlier one."""
    partner, their_kind, their_place, my_kind, my_place, free = joint
    centres = strokes.mean(3)
    for k in range(1, STROKES):
        earlier = (partner[..., k] * k).astype(int)
        theirs = _pick(strokes, earlier, _point(their_kind[..., k], their_place[..., k]))
        point = _point(my_kind[..., k], my_place[..., k])
        # Of two ways to join it, by this point or by the opposite one, the steady hand takes the compact one.
        moves = [theirs - _pick(strokes, np.full_like(point, k), end) for end in (point, PIECES - point)]
        middle = centres[:, :, :k].mean(2)
        spread = [np.linalg.norm(centres[:, :, k] + move - middle, axis=-1)[:, :1, None] for move in moves]
        move = np.where(spread[0] < spread[1], *moves) + tremor[:, :, k]
        apart = np.stack([0.5 - my_place[..., k], 0.5 - their_place[..., k]], -1)
        move += np.where(free[..., k, None] < loose, apart, 0)
        strokes[:, :, k] += move[:, :, None]
        centres[:, :, k] += move


def _point(kind: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Which point of a stroke meets another: often its start, end or middle, else anywhere."""
    anywhere = (place * PIECES).round().astype(int)
    return np.select([kind < 0.3, kind < 0.55, kind < 0.75], [0, PIECES, PIECES // 2], anywhere)


def _pick(strokes: np.ndarray, stroke: np.ndarray, point: np.ndarray) -> np.ndarray:
    characters, drawings = np.ogrid[: strokes.shape[0], : strokes.shape[1]]
    points: np.ndarray = strokes[characters, drawings, stroke, point]
    return points


def _bounds(paths: np.ndarray, axis: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the rectangle that holds the strokes there are."""
    return np.nanmin(paths, axis, keepdims=True), np.nanmax(paths, axis, keepdims=True)


def _inside(paths: np.ndarray, margin: float) -> np.ndarray:
    """Shrink what is larger than the box less its margin, and move in what sticks out."""
    low, high = _bounds(paths, axis=(1, 2))
    middle = (low + high) / 2
    scale = np.minimum(1, (1 - 2 * margin) / (high - low).max(-1, keepdims=True))
    half = (high - low) / 2 * scale
    moved: np.ndarray = (paths - middle) * scale + middle.clip(margin + half, 1 - margin - half)
    return moved


def _ink(paths: np.ndarray, width: np.ndarray, size: int) -> Tensor:
    """Images (M, size, size): the share of each pixel that strokes of this width cover, edges smoothed."""
    centres = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    pixels = torch.stack([x.flatten(), y.flatten(), (x**2 + y**2).flatten(), torch.ones(size * size)], -1)
    present = torch.from_numpy(~np.isnan(paths[:, :, 0, 0])).sum(1)
    points = torch.from_numpy(paths).float()
    start, step = points[:, :, :-1].flatten(1, 2), points.diff(dim=2).flatten(1, 2)
    length2 = step.square().sum(-1).clamp_min(1e-12)
    images = torch.empty(len(paths), size * size)
    for strokes, some in _batches(present, CHUNK // size**2):
        a, v, v2 = (of[some, : strokes * PIECES] for of in (start, step, length2))
        one, zero = torch.ones_like(v2), torch.zeros_like(v2)
        # Both are linear in the features of a pixel: its squared distance to the start of a piece, and how
        # far along the piece its nearest point lies.
        distance2 = pixels @ torch.stack([-2 * a[..., 0], -2 * a[..., 1], one, a.square().sum(-1)], 1)
        along = pixels @ torch.stack([v[..., 0] / v2, v[..., 1] / v2, zero, -(a * v).sum(-1) / v2], 1)
        on = along.clamp(0, 1)
        nearest = (distance2 - v2[:, None] * on * (2 * along - on)).amin(-1).clamp_min(0).sqrt()
        reach = torch.from_numpy(width[some.numpy()]).float()[:, None] / 2
        images[some] = ((reach - nearest) * size + 0.5).clamp(0, 1)
    return images.view(-1, size, size)


def _batches(strokes: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    """Which drawings to do together: as many strokes each, and few enough for the processor's cache."""
    for number in range(1, STROKES + 1):
        for some in (strokes == number).nonzero()[:, 0].split(max(1, size)):
            yield number, some
