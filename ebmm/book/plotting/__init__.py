"""The one style of the book's figures, and the few figures that every chapter needs.

Call ``use_style()`` once. Each function draws and returns an Axes or a Figure; none shows it.
The colours mean the same thing on every page: see ``COLOURS``.
"""

from ebmm.book.plotting.contests import compared_curves, contest_panels, contest_table, distortion_rate, error_curve
from ebmm.book.plotting.landscapes import energy_curve, landscape
from ebmm.book.plotting.patterns import inked, show_patterns
from ebmm.book.plotting.recalled import show_contestant
from ebmm.book.plotting.style import BACKGROUND, COLOURS, INK, MARKERS, WRONG, use_style

__all__ = [
    "BACKGROUND",
    "COLOURS",
    "INK",
    "MARKERS",
    "WRONG",
    "compared_curves",
    "contest_panels",
    "contest_table",
    "distortion_rate",
    "energy_curve",
    "error_curve",
    "inked",
    "landscape",
    "show_contestant",
    "show_patterns",
    "use_style",
]
