"""Two things that Sphinx must be told about this book.

Docstrings are plain text that reads well in ``help()``: shapes such as (B, N, *S) and norms such as |x|
are no markup. And the "Open in Colab" badge, which a notebook on GitHub takes from Colab's server, is
served from the book's own files, so that no page asks another server for anything.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.transforms import SphinxTransform

MARKED = re.compile(r"(:\w+:`[^`]*`|``.*?``|`[^`]*`)")
SPECIAL = re.compile(r"([*|]|(?<=\w)_(?!\w))")


def escape_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Escape stars, bars and trailing underscores outside of backquotes and doctests."""
    in_doctest = False
    for number, line in enumerate(lines):
        in_doctest = line.lstrip().startswith(">>>") or (in_doctest and bool(line.strip()))
        if not in_doctest:
            pieces = MARKED.split(line)
            pieces[::2] = [SPECIAL.sub(r"\\\1", piece) for piece in pieces[::2]]
            lines[number] = "".join(pieces)


class LocalBadge(SphinxTransform):
    """Take Colab's badge from _static."""

    default_priority = 10

    def apply(self, **kwargs) -> None:
        for image in self.document.findall(nodes.image):
            if image["uri"].endswith("/assets/colab-badge.svg"):
                image["uri"] = "/_static/colab-badge.svg"


def setup(app):
    # Before napoleon, which turns Args into field lists.
    app.connect("autodoc-process-docstring", escape_docstring, priority=100)
    app.add_transform(LocalBadge)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
