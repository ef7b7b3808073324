"""Rows of patterns as small pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ebmm.book.plotting.style import BACKGROUND, INK, WRONG

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_patterns(
    rows: Mapping[str, Tensor],
    *,
    shape: tuple[int, int] | Literal["barcode"] | None = None,
    reference: Tensor | None = None,
    titles: Sequence[str] = (),
    width: float = 6.0,
) -> Figure:
    """Labelled rows of small pictures: what was stored, what was asked, what came back.

    A one is ink, a zero is paper. Values of ±1 are shown as bits.

    Args:
        rows: label to patterns (N, *S): vectors (N, d), grey images (N, H, W) or (N, 1, H, W), or
            colour images (N, 3, H, W); values in [0, 1], or in [-1, 1] where any is negative.
        shape: how to lay out a vector: (height, width), or ``"barcode"``. ``None`` takes the rectangle
            nearest to a square, and a barcode where it would be more than twice as wide as high.
        reference: the true patterns, (N, *S). Where a grey picture differs by more than a half it is red:
            dark where there is ink too much, light where ink is missing.
        titles: headings of the columns.
        width: the most that the figure takes, in inches.

    Returns:
        The Figure.

    Raises:
        ValueError: no rows, patterns that cannot be laid out, or a reference of another shape.

    Example:
        >>> figure = show_patterns({"stored": torch.eye(4), "recalled": torch.ones(4, 4) / 2})
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['stored', 'recalled']

    Explained in chapter 1.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle
    from matplotlib.textpath import TextPath

    if not rows:
        raise ValueError("show_patterns needs at least one row, got none")
    pictures = {label: _pictures(patterns, shape, label) for label, patterns in rows.items()}
    truth = None if reference is None else _pictures(reference, shape, "reference")
    height, across = next(iter(pictures.values())).shape[1:3]
    aspect = 0.4 if height == 1 else height / across
    gap, columns = 0.12, max(len(row) for row in pictures.values())

    lines = [line for label in rows for line in label.split("\n")]
    margin = 0.2 + max(TextPath((0, 0), line or " ", size=10).get_extents().width for line in lines) / 72
    cell = min((width - margin - 0.05) / (columns * (1 + gap)), 1.1 / max(aspect, 1.0))
    size = (columns * (1 + gap) * cell, len(rows) * (aspect + gap) * cell)
    top = 0.35 if titles else 0.05
    total = (margin + size[0] + 0.05, size[1] + top)
    figure = plt.figure(figsize=total, layout="none")
    ax = figure.add_axes((margin / total[0], 0, size[0] / total[0], size[1] / total[1]))
    for number, (label, row) in enumerate(pictures.items()):
        for column, picture in enumerate(row):
            expected = truth[column] if truth is not None and column < len(truth) else picture
            if expected.shape != picture.shape:
                sizes = f"{tuple(expected.shape)} but {label!r} {tuple(picture.shape)}"
                raise ValueError(f"reference pictures {sizes}")
            left, bottom = column * (1 + gap), number * (aspect + gap) + aspect
            ax.imshow(inked(picture, expected), extent=(left, left + 1, bottom, bottom - aspect))
            frame = Rectangle((left, bottom), 1, -aspect, fill=False)
            frame.set(edgecolor="#9AA5B1", linewidth=0.8)
            ax.add_patch(frame)
    ax.set_xlim(-gap / 2, columns * (1 + gap) - gap / 2)
    ax.set_ylim(len(rows) * (aspect + gap) - gap / 2, -gap / 2)
    ax.set_aspect("auto")
    ax.set_yticks([number * (aspect + gap) + aspect / 2 for number in range(len(rows))], list(rows))
    ax.set_xticks([column * (1 + gap) + 0.5 for column in range(len(titles))], list(titles))
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    return figure


def _pictures(patterns: Tensor, shape: tuple[int, int] | Literal["barcode"] | None, label: str) -> Tensor:
    """(N, *S) to pictures in [0, 1], (N, H, W) or (N, H, W, 3)."""
    patterns = torch.as_tensor(patterns).detach().cpu().float()
    if patterns.dim() < 2 or patterns.numel() == 0:
        raise ValueError(f"row {label!r} must hold patterns (N, *S), got shape {tuple(patterns.shape)}")
    if patterns.min() < 0:
        patterns = (patterns + 1) / 2
    if patterns.dim() == 2:
        size = patterns.shape[1]
        tall, wide = _rectangle(size) if shape is None else (1, size) if shape == "barcode" else shape
        if tall * wide != size:
            want = f"the shape {(tall, wide)}"
            raise ValueError(f"row {label!r} has patterns of {size} values: they do not fill {want}")
        return patterns.reshape(-1, tall, wide)
    if patterns.dim() == 4 and patterns.shape[1] in (1, 3):
        return patterns[:, 0] if patterns.shape[1] == 1 else patterns.movedim(1, -1)
    if patterns.dim() == 3:
        return patterns
    raise ValueError(
        f"row {label!r} must hold vectors (N, d), images (N, H, W), (N, 1, H, W) or (N, 3, H, W), "
        f"got shape {tuple(patterns.shape)}"
    )


def _rectangle(size: int) -> tuple[int, int]:
    """Height and width of the picture nearest to a square, or of a barcode."""
    height = max(side for side in range(1, math.isqrt(size) + 1) if size % side == 0)
    return (height, size // height) if size <= 2 * height**2 else (1, size)


def inked(picture: Tensor, expected: Tensor) -> Any:
    """A grey picture (H, W) in ink on paper (H, W, 3), red where it is not as expected; a colour picture as it is."""
    from matplotlib.colors import to_rgb

    picture = picture.clamp(0, 1)
    if picture.dim() == 3:
        return picture.numpy()
    paper, ink, wrong = (torch.tensor(to_rgb(colour)) for colour in (BACKGROUND, INK, WRONG))
    painted = paper + picture[..., None] * (ink - paper)
    painted[picture - expected > 0.5] = wrong
    painted[expected - picture > 0.5] = 0.6 * paper + 0.4 * wrong
    return painted.numpy()
