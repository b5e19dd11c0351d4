"""Write a report as ``report.md`` and as ``report.html``, a self-contained page that is rendered from the Markdown.

The page has its pictures embedded, no script, and loads nothing from the network.
"""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.token import Token

from voice_biometrics.common.files import written_whole
from voice_biometrics.common.markdown import Markdown, document

PAGE = Path(__file__).parent / "templates" / "report.html"


def write_report(title: str, sections: Iterable[Markdown], folder: Path) -> None:
    """Write ``report.md`` and ``report.html`` to ``folder``, where the pictures are, each whole or not at all."""
    markdown = document(title, sections)
    for name, content in (("report.md", markdown), ("report.html", _page(title, markdown, folder))):
        with written_whole(folder / name) as temporary:
            # A file name that is not UTF-8 arrives as lone surrogates, which cannot be encoded.
            temporary.write_text(content, encoding="utf-8", errors="backslashreplace", newline="\n")


def _page(title: str, markdown: str, folder: Path) -> str:
    """Render Markdown as a page with a table of contents."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.add_render_rule("text", _breakable)
    tokens, titles = reader.parse(markdown), []
    for token, content in zip(tokens, tokens[1:], strict=False):
        if token.type == "heading_open" and token.tag == "h2":
            titles.append(content.content)
            token.attrSet("id", f"section-{len(titles)}")
        elif token.type == "table_open":
            token.attrSet("tabindex", "0")  # a wide table scrolls by keyboard as well
        for child in token.children or ():
            if child.type == "image":
                content = base64.b64encode((folder / child.attrs["src"]).read_bytes()).decode("ascii")
                child.attrSet("src", f"data:image/png;base64,{content}")
    contents = "\n".join(f"1. [{title}](#section-{number})" for number, title in enumerate(titles, 1))
    body = reader.renderer.render(tokens[3:], reader.options, {})  # the first three are the title
    page = Template(PAGE.read_text(encoding="utf-8"))
    return page.substitute(title=html.escape(title), contents=reader.render(contents), body=body)


def _breakable(self: object, tokens: Sequence[Token], index: int, *_: object) -> str:
    """Render text so that long paths may break after each slash and do not widen a table."""
    return escapeHtml(tokens[index].content).replace("/", "/<wbr>")
