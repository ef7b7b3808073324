"""Sliders over ready-drawn figures, which work on a page without a kernel.

Every figure is drawn in advance and shown as a picture with alternative text. The browser
itself links the slider to the picture, so the same cell works in the built book, in Jupyter
and in Colab. Colab's ipywidgets 7 lacks the ``Stack`` that this needs; there, Python makes the link.

ipywidgets is asked for only when a slider is made.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ipywidgets import Widget
    from matplotlib.figure import Figure

# Labels take the colour of the page, light or dark; the handle is large enough for a finger.
STYLE = """<style>
.ebmm-frames { --jp-widgets-label-color: currentColor; --jp-widgets-color: currentColor;
  --jp-widgets-slider-handle-size: 22px; --jp-widgets-font-size: 15px; max-width: 100%; overflow: visible; }
.ebmm-frames .slider-container { margin-left: 18px; }
.ebmm-frames .noUi-handle { background: #fff; border: 2px solid #0072b2; }
.ebmm-frames .noUi-handle:focus-visible { outline: 3px solid #e69f00; outline-offset: 2px; }
.ebmm-frames .noUi-connects { background: #8c959f; }
.ebmm-frames .noUi-connect { background: #0072b2; }
</style>"""


class Picture(NamedTuple):
    """A drawn figure, width and height in pixels."""

    webp: bytes
    width: int
    height: int


def frames(
    figures: Iterable[Figure | bytes],
    values: Sequence[float | str],
    *,
    label: str,
    alts: Sequence[str],
    start: int = 0,
) -> Widget:
    """One slider that turns the pages of a stack of figures.

    Args:
        figures: one figure a value, or PNG bytes. A generator keeps only one figure open at a time;
            each figure is closed once it is drawn.
        values: what the slider stands for at each figure; numbers are shown with ``:g``.
        label: the name of what the slider changes.
        alts: alternative text, one a figure, telling what is to be seen there.
        start: the figure shown first, counted from 0.

    Returns:
        A widget; make it the last expression of a cell.

    Raises:
        ValueError: no figures, counts that differ, an empty alternative text, or ``start`` out of range.
        ImportError: ipywidgets is not installed.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> def draw(load):
        ...     figure, ax = plt.subplots()
        ...     _ = ax.axvline(load)
        ...     return figure
        >>> loads = [0.05, 0.14, 0.25]
        >>> alts = [f"A line at {load}" for load in loads]
        >>> slider = frames(map(draw, loads), loads, label="load", alts=alts)
        >>> type(slider).__name__
        'VBox'

    Explained in chapter 1.
    """
    names = [f"{label} {_text(value)}" for value in values]
    pages = _pages([_picture(figure) for figure in figures], names, alts)
    _check_start(start, len(pages))
    slider = _slider(label, len(pages), start)
    return _framed([slider], _stack(slider, pages))


def grid(
    figures: Iterable[Iterable[Figure | bytes]],
    values: tuple[Sequence[float | str], Sequence[float | str]],
    *,
    labels: tuple[str, str],
    alts: Sequence[Sequence[str]],
    start: tuple[int, int] = (0, 0),
) -> Widget:
    """Two sliders over a table of figures: the first picks the row, the second the column.

    Args:
        figures: rows of figures or PNG bytes; the one in row i and column j belongs to ``values[0][i]``
            and ``values[1][j]``.
        values: what the first slider stands for at each row, and the second at each column.
        labels: the names of what the two sliders change.
        alts: alternative text for each figure, in the same rows.
        start: row and column shown first, counted from 0.

    Returns:
        A widget; make it the last expression of a cell.

    Raises:
        ValueError: a table without rows, counts that differ, an empty alternative text,
            or ``start`` out of range.
        ImportError: ipywidgets is not installed.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> def draw(rate, step):
        ...     figure, ax = plt.subplots()
        ...     _ = ax.plot([0, step], [0, rate])
        ...     return figure
        >>> rates, steps = [0.1, 0.2], [0, 1, 2]
        >>> table = ((draw(rate, step) for step in steps) for rate in rates)
        >>> alts = [[f"Rate {rate} at step {step}" for step in steps] for rate in rates]
        >>> type(grid(table, (rates, steps), labels=("rate", "step"), alts=alts)).__name__
        'VBox'

    Explained in chapter 2.
    """
    down, across = values
    pictures = [[_picture(figure) for figure in row] for row in figures]
    if not len(pictures) == len(down) == len(alts) > 0:
        counts = f"{len(pictures)} rows of figures, {len(down)} values and {len(alts)} rows of alts"
        raise ValueError(f"got {counts}")
    table = [
        _pages(row, [f"{labels[0]} {_text(value)}, {labels[1]} {_text(other)}" for other in across], row_alts)
        for row, value, row_alts in zip(pictures, down, alts, strict=True)
    ]
    _check_start(start[0], len(table))
    _check_start(start[1], len(across))
    first, second = _slider(labels[0], len(table), start[0]), _slider(labels[1], len(across), start[1])
    return _framed([first, second], _stack(first, [_stack(second, pages) for pages in table]))


def _pages(pictures: list[Picture], names: list[str], alts: Sequence[str]) -> list[Widget]:
    if isinstance(alts, str):
        raise ValueError(f"alts must hold one text a figure, got one string: {alts!r}")
    if not len(pictures) == len(names) == len(alts) > 0:
        counts = f"{len(pictures)} figures, {len(names)} values and {len(alts)} alternative texts"
        raise ValueError(f"got {counts}")
    for name, alt in zip(names, alts, strict=True):
        if not alt.strip():
            raise ValueError(f"the figure for {name!r} has an empty alternative text")
    return [_page(*page) for page in zip(pictures, names, alts, strict=True)]


def _page(picture: Picture, name: str, alt: str) -> Widget:
    source = f"data:image/webp;base64,{base64.b64encode(picture.webp).decode()}"
    return _ipywidgets().HTML(
        f'<div style="font-size: 1rem; font-weight: 600; line-height: 1.5; margin: 0 0 .25rem">'
        f'{html.escape(name)}</div><img alt="{html.escape(alt)}" src="{source}" '
        f'width="{picture.width}" height="{picture.height}" '
        f'style="max-width: 100%; height: auto; display: block; margin: 0; padding: 0">'
    )


def _picture(figure: Figure | bytes) -> Picture:
    """Draws and closes the figure. WebP keeps every pixel as it is, at less than half the weight of PNG."""
    from PIL import Image

    drawn = io.BytesIO()
    if isinstance(figure, bytes):
        drawn.write(figure)
    else:
        import matplotlib.pyplot as plt

        figure.savefig(drawn, format="png")
        plt.close(figure)
    image = Image.open(drawn).convert("RGB")
    small = io.BytesIO()
    image.save(small, format="webp", lossless=True, quality=100)
    return Picture(small.getvalue(), *image.size)


def _slider(label: str, count: int, start: int) -> Widget:
    return _ipywidgets().IntSlider(
        start, 0, count - 1, description=label, readout=False, style={"description_width": "initial"},
        layout={"width": "100%", "max_width": "30rem", "height": "36px"},
    )  # fmt: skip


def _stack(slider: Widget, pages: list[Widget]) -> Widget:
    """Shows the page that the slider points at, by the browser alone where ipywidgets can do that."""
    widgets = _ipywidgets()
    if hasattr(widgets, "Stack"):
        stack = widgets.Stack(pages, selected_index=slider.value)
        widgets.jslink((slider, "value"), (stack, "selected_index"))
        return stack
    shown = widgets.VBox([pages[slider.value]])
    slider.observe(lambda change: setattr(shown, "children", [pages[change["new"]]]), names="value")
    return shown


def _framed(sliders: list[Widget], stack: Widget) -> Widget:
    widgets = _ipywidgets()
    style = widgets.HTML(STYLE, layout={"display": "none"})
    box = widgets.VBox([style, *sliders, stack], layout={"width": "100%"})
    box.add_class("ebmm-frames")
    return box


def _check_start(start: int, count: int) -> None:
    if not 0 <= start < count:
        raise ValueError(f"start must be a figure from 0 to {count - 1}, got {start}")


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _ipywidgets() -> Any:
    try:
        import ipywidgets
    except ImportError:
        raise ImportError("sliders need ipywidgets: pip install ipywidgets") from None
    return ipywidgets
