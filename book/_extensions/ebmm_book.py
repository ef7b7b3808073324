"""What Sphinx must be told about this book.

- Docstrings are plain text that reads well in ``help()``: shapes such as (B, N, *S) and
  norms such as |x| are no markup, and `ebmm.EBMM` is a name, wherever it is defined.
- The "Open in Colab" badge, which a notebook on GitHub takes from Colab's server, is
  served from the book's own files: no page asks another server for anything.
- Figures are shown as WebP: pixel by pixel the same, at less than half the weight of
  the PNG that a notebook holds.
- A folded cell is called by its title, such as "Solution 1.1".
- Notebooks hold plain Markdown. Where one says (1.4), the book links to the formula
  that carries this number, in whichever chapter it stands.
- A link to a page, shared elsewhere, shows its title, what it is about, and a picture.
"""

from __future__ import annotations

import html
import re
import sys
import textwrap
from pathlib import Path

from docutils import nodes
from PIL import Image
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform

import ebmm  # noqa: F401, whose names are looked up in sys.modules

MARKED = re.compile(r"(:\w+:`[^`]*`|``.*?``|`[^`]*`)")
SPECIAL = re.compile(r"([*|]|(?<=\w)_(?!\w))")

NOT_RUNNING = (
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.reference,
    nodes.title,
)

SUBTITLED = "Energy-based memory models: a book to read, run and import"
PICTURED = "A damaged handwritten digit becomes clean while an energy falls"


def escape_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Escape stars, bars, trailing underscores outside of backquotes and doctests."""
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
    """A link to `ebmm.EBMM` leads to where the class is documented, `ebmm.model`."""
    package, _, name = node.get("reftarget", "").rpartition(".")
    if node.get("refdomain") != "py" or package.split(".")[0] != "ebmm":
        return None
    public = getattr(sys.modules.get(package), name, None)
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


class LightFigures(SphinxPostTransform):
    """Show figures as WebP, without loss."""

    default_priority = 100  # after MyST-NB has chosen among the forms of an output
    formats = ("html",)

    def run(self, **kwargs) -> None:
        for image in self.document.findall(nodes.image):
            drawn = Path(self.app.srcdir, image["uri"])
            if drawn.suffix == ".png":
                shown = Path(self.app.doctreedir, "figures", f"{drawn.stem}.webp")
                shown.parent.mkdir(exist_ok=True)
                Image.open(drawn).save(shown, lossless=True, quality=100)
                image["uri"] = str(shown)
                image["candidates"] = {"*": image["uri"]}
                self.env.images.add_file(self.env.docname, image["uri"])


class NamedFolds(SphinxTransform):
    """A folded cell is called what its first line calls it, as in Colab."""

    default_priority = 900

    def apply(self, **kwargs) -> None:
        for cell in self.document.findall(nodes.container):
            if cell.get("hide_mode") and cell.children:
                source = cell.children[0].astext()
                if title := re.match(r"# ?@title (.+)", source):
                    cell["prompt_show"] = cell["prompt_hide"] = title[1]


class NumberedEquations(SphinxTransform):
    """Give each numbered formula an anchor, and keep which page it is on."""

    default_priority = 900

    def apply(self, **kwargs) -> None:
        for block in self.document.findall(nodes.math_block):
            if tag := re.search(r"\\tag\{([\d.]+)\}", block.astext()):
                block["ids"].append(anchor_of(tag[1]))
                equations_of(self.env)[tag[1]] = self.env.docname


def equations_of(env) -> dict[str, str]:
    """The page of each numbered formula."""
    if not hasattr(env, "ebmm_equations"):
        env.ebmm_equations = {}
    return env.ebmm_equations


def anchor_of(number: str) -> str:
    return f"equation-{number.replace('.', '-')}"


def forget_equations(app, env, docname) -> None:
    known = equations_of(env).items()
    env.ebmm_equations = {number: page for number, page in known if page != docname}


def merge_equations(app, env, docnames, other) -> None:
    equations_of(env).update(equations_of(other))


def link_equations(app, doctree, docname) -> None:
    """Make each (1.4) in running text a link to the formula of that number."""
    known = equations_of(app.env)

    def link(number: str) -> nodes.Node:
        if number not in known:
            return nodes.Text(f"({number})")
        page = known[number]
        uri = "" if page == docname else app.builder.get_relative_uri(docname, page)
        uri = f"{uri}#{anchor_of(number)}"
        return nodes.reference("", f"({number})", refuri=uri, internal=True)

    for text in list(doctree.findall(nodes.Text)):
        first, *rest = re.split(r"\((\d+\.\d+)\)", text.astext())
        if is_running(text) and known.keys() & rest[::2]:
            pairs = zip(rest[::2], rest[1::2], strict=True)
            new = [[link(number), nodes.Text(after)] for number, after in pairs]
            text.parent.replace(text, [nodes.Text(first), *sum(new, [])])


def is_running(text: nodes.Text) -> bool:
    """Whether a text is no part of code, of a formula, of a link or of a heading."""
    node = text.parent
    while node is not None and not isinstance(node, NOT_RUNNING):
        node = node.parent
    return node is None


def describe_page(app, pagename, templatename, context, doctree) -> None:
    """What search engines and messengers show of a page."""
    if doctree is None:  # the index, the search
        return
    site = app.config.html_baseurl
    if pagename == app.config.root_doc:
        context["title"], context["docstitle"] = SUBTITLED, ""
    title = re.sub("<[^>]*>", "", context.get("title", ""))  # escaped as it is
    about = html.escape(first_words(doctree))
    tags = {
        "og:title": title,
        "og:description": about,
        "og:type": "article",
        "og:site_name": html.escape(app.config.html_title),
        "og:url": f"{site}{pagename}.html",
        "og:image": f"{site}_static/preview.png",
        "og:image:alt": PICTURED,
    }
    lines = [
        f'<meta property="{name}" content="{value}">' for name, value in tags.items()
    ]
    lines.append('<meta name="twitter:card" content="summary_large_image">')
    lines.append(f'<meta name="description" content="{about}">')
    context["metatags"] = context.get("metatags", "") + "\n".join(lines)


def first_words(doctree) -> str:
    """The page's first paragraph of text, without badges, cut at a word."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if len(text) > 60 and not any(paragraph.findall(nodes.image)):
            return textwrap.shorten(text, 200, placeholder=" …")
    return "Part of a book on associative memory, to read, run and import."


def setup(app):
    app.connect("env-purge-doc", forget_equations)
    app.connect("env-merge-info", merge_equations)
    app.connect("doctree-resolved", link_equations)
    app.connect("html-page-context", describe_page)
    app.add_transform(NamedFolds)
    app.add_transform(NumberedEquations)
    # Before napoleon, which turns Args into field lists.
    app.connect("autodoc-process-docstring", escape_docstring, priority=100)
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.connect("missing-reference", resolve_public_name)
    app.add_transform(LocalBadge)
    app.add_post_transform(LightFigures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
