"""The one style of the book's figures."""

from __future__ import annotations

# Told apart by colour-blind readers within each group, and dark enough on the light background.
COLOURS = {
    "stored": "#0B63C5",
    "query": "#D9690F",
    "recalled": "#169B72",
    "unseen": "#6A3D7C",
    "energy": "#333F50",
    "hebb": "#7F8C99",
    "storkey": "#D9690F",
    "pseudo-inverse": "#0B63C5",
    "ebmm": "#A3004F",
    "slot-memory": "#7D2A00",
}


BACKGROUND = "#FFFFFF"


INK = "#1F2933"


WRONG = "#D1224F"


VALLEY_TO_HILL = ("#6E6398", "#8D83AD", "#AFA8C6", "#D2CDE0", "#EAE7F0", "#FAF9FB")


MARKERS = {"hebb": "o", "storkey": "s", "pseudo-inverse": "^", "ebmm": "D", "slot-memory": "v"}


def use_style() -> None:
    """Set matplotlib's defaults to the style of the book.

    Figures are opaque and light, so that they read on dark pages; 6 inches wide, so that their text
    keeps the size of the page's text in the book's column and stays legible on a phone.

    Example:
        >>> use_style()
        >>> import matplotlib.pyplot as plt
        >>> plt.rcParams["axes.spines.top"]
        False
    """
    import matplotlib.pyplot as plt
    from cycler import cycler

    order = ("stored", "query", "recalled", "ebmm", "energy", "unseen")
    plt.rcParams.update({
        "figure.figsize": (6.0, 3.5),
        "figure.dpi": 110,
        "savefig.dpi": 110,
        "figure.facecolor": BACKGROUND,
        "savefig.facecolor": BACKGROUND,
        "savefig.transparent": False,
        "figure.constrained_layout.use": True,
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.labelsize": 11,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "legend.fontsize": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.facecolor": BACKGROUND,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.prop_cycle": cycler(color=[COLOURS[name] for name in order]),
        "axes.grid": False,
        "grid.color": "#DDE2E8",
        "lines.linewidth": 2.0,
        "lines.markersize": 6,
        "legend.frameon": False,
        "image.cmap": "gray_r",
        "image.interpolation": "nearest",
    })  # fmt: skip
