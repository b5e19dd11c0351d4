"""Blocks of Markdown from text and figures, for reports, model cards and tables of results.

Text given to these functions is escaped, so names and paths from data stay text; only what is a ``Markdown`` already is
inserted as it is.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

MISSING = "–"


class Markdown(str):
    """Text that is Markdown already."""


def escaped(value: object) -> Markdown:
    """Return one line of Markdown that reads as just this text; ``Markdown`` is returned as it is."""
    if isinstance(value, Markdown):
        return value
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)
    return Markdown(re.sub(r"^(?:(\d{1,9})(?=[.)](?:\s|$))|(?=[-+](?:[\s-]|$)|[#=]))", r"\1\\", text))  # no list


def paragraphs(*texts: str) -> Markdown:
    """Return a paragraph for each text."""
    return Markdown("\n\n".join(escaped(text) for text in texts))


def bullets(items: Iterable[str]) -> Markdown:
    """Return a list. ``name: **value**`` becomes a large figure on the page."""
    return Markdown("\n".join(f"- {escaped(item)}" for item in items))


def facts(values: Mapping[str, object]) -> Markdown:
    """Return a list of ``name: value``."""
    return bullets(Markdown(f"{escaped(name)}: {escaped(value)}") for name, value in values.items())


def code_block(text: str, language: str = "") -> Markdown:
    """Return lines that are shown as they are, such as commands."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return Markdown(f"{fence}{language}\n{text}\n{fence}")


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "", left: Collection[str] | None = None
) -> Markdown:
    """Return a table; whole numbers get thousands separators, None is a dash.

    Arguments
    ---------
    columns : titles. rows : a cell for each column.
    caption : printed above.
    left : left-aligned columns, those of text; the first one if not given.

    Raises ValueError when a row has too many or too few cells.
    """
    left = columns[:1] if left is None else left
    lines = [[escaped(column) for column in columns], ["---" if column in left else "---:" for column in columns]]
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"{caption}: a row has {len(row)} cells for {len(columns)} columns")
        lines.append([_cell(value) for value in row])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return Markdown(f"**{escaped(caption)}**\n\n{text}" if caption else text)


def picture(name: str, alt: str, caption: str) -> Markdown:
    """Return an image with its caption. ``name`` : a PNG in the folder of the report."""
    return Markdown(f"![{escaped(alt)}]({name})\\\n*{escaped(caption)}*")


def section(title: str, *blocks: str) -> Markdown:
    """Return a heading with the blocks under it; empty blocks are left out."""
    return Markdown("\n\n".join([f"## {escaped(title)}", *filter(None, blocks)]))


def document(title: str, sections: Iterable[Markdown]) -> str:
    """Return the whole Markdown file."""
    return "\n\n".join([f"# {escaped(title)}", *sections]) + "\n"


def _cell(value: object) -> str:
    """Return a cell of a table."""
    if value is None:
        return MISSING
    return f"{value:,}" if isinstance(value, int) else escaped(value)
