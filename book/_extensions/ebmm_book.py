"""What Sphinx must be told about this book.

Docstrings are plain text that reads well in ``help()``: shapes such as (B, N, *S) and norms such as |x|
are no markup, and `ebmm.EBMM` is a name, wherever the class is defined. And the "Open in Colab" badge,
which a notebook on GitHub takes from Colab's server, is served from the book's own files, so that no page
asks another server for anything.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.transforms import SphinxTransform

import ebmm

MARKED = re.compile(r"(:\w+:`[^`]*`|``.*?``|`[^`]*`)")
SPECIAL = re.compile(r"([*|]|(?<=\w)_(?!\w))")


def escape_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Escape stars, bars and trailing underscores outside of backquotes and doctests."""
    in_doctest = False
    for number, line in enumerate(lines):
        in_doctest = line.lstrip().startswith(">>>") or (
            in_doctest and bool(line.strip())
        )
        if not in_doctest:
            pieces = MARKED.split(line)
            pieces[::2] = [SPECIAL.sub(r"\\\1", piece) for piece in pieces[::2]]
            lines[number] = "".join(pieces)


def skip_tuple_fields(app, what, name, obj, skip, options) -> bool | None:
    """The fields of a named tuple are told in its docstring."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def resolve_public_name(app, env, node, content):
    """A link to `ebmm.EBMM` leads to where the class is documented, `ebmm.model.EBMM`."""
    package, _, name = node.get("reftarget", "").rpartition(".")
    public = (
        getattr(ebmm, name, None)
        if package == "ebmm" and node.get("refdomain") == "py"
        else None
    )
    if not hasattr(public, "__module__"):
        return None
    target = f"{public.__module__}.{public.__qualname__}"
    python = env.get_domain("py")
    return python.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], target, node, content
    )


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
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.connect("missing-reference", resolve_public_name)
    app.add_transform(LocalBadge)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
