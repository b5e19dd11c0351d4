"""The form of a report: sections of text, tables, pictures and figures, written as Markdown and as one HTML file.

Writes to a folder:

- ``report.md``: pictures are links relative to the folder;
- ``report.html``: self-contained, pictures are within, no script and nothing from the network.

Whatever is put in is text, never markup: names and paths are escaped in both forms.
"""

import base64
import functools
import mimetypes
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import written_whole

TEMPLATES = Path(__file__).parent / "templates"
MISSING = "–"


@dataclass(frozen=True)
class Text:
    """Paragraphs, parted by empty lines."""

    kind: ClassVar[str] = "text"
    text: str

    @property
    def paragraphs(self) -> list[str]:
        return [" ".join(part.split()) for part in re.split(r"\n\s*\n", self.text) if part.strip()]


@dataclass(frozen=True)
class Code:
    """Lines to be shown as they are: a command, a setting."""

    kind: ClassVar[str] = "code"
    text: str

    @property
    def fence(self) -> str:
        """Backticks that the text does not hold so many of in a row."""
        longest = max((len(run) for run in re.findall("`+", self.text)), default=0)
        return "`" * max(3, longest + 1)


@dataclass(frozen=True)
class Facts:
    """Names with a value each: counts, versions, checksums."""

    kind: ClassVar[str] = "facts"
    facts: Mapping[str, object]


@dataclass(frozen=True)
class BigFigure:
    """A figure to be seen first: "EER", "5.94 %", its 95 % interval "4.18 to 8.36 %", and what to know about it."""

    label: str
    value: str
    interval: str = ""
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """A few big figures side by side."""

    kind: ClassVar[str] = "headline"
    figures: Sequence[BigFigure]


@dataclass(frozen=True)
class Table:
    """Rows under named columns; the first column names the row.

    rows : each as long as ``columns``. Whole numbers are printed with thousands parted, None as a dash, all else as
        ``str`` gives it.
    figures : columns whose cells are figures, so right-aligned; by default all but the first.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str
    figures: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError when a row is not as long as the columns, or ``figures`` names no column."""
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"{self.caption}: row {number} has {len(row)} cells for {len(self.columns)} columns")
        unknown = set(self.figures or ()) - set(self.columns)
        if unknown:
            raise ValueError(f"{self.caption}: no column is named {sorted(unknown)}")

    @property
    def is_figure(self) -> list[bool]:
        """Which columns are right-aligned, (columns,)."""
        if self.figures is None:
            return [number > 0 for number in range(len(self.columns))]
        return [column in self.figures for column in self.columns]


@dataclass(frozen=True)
class Picture:
    """An image file, what it shows for those who do not see it, and a caption."""

    kind: ClassVar[str] = "picture"
    path: Path
    alt: str
    caption: str


Block = Text | Code | Facts | Headline | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


def write_report(title: str, sections: Sequence[Section], folder: Path) -> tuple[Path, Path]:
    """Write ``report.md`` and ``report.html`` to ``folder``, each whole or not at all, and return their paths.

    Raises InputError when a picture cannot be read or is no image, or the folder cannot be written to.
    """
    content = {"title": title, "sections": sections, "folder": folder}
    contents = {folder / name: _templates().get_template(name).render(content) for name in ("report.md", "report.html")}
    for path, content in contents.items():
        with written_whole(path) as temporary:
            # A file name that is no UTF-8 reaches us as lone surrogates, which cannot be written as they are.
            temporary.write_text(content, encoding="utf-8", errors="backslashreplace", newline="\n")
    return folder / "report.md", folder / "report.html"


@functools.cache
def _templates() -> jinja2.Environment:
    """Return what fills the templates of both forms; only HTML is escaped without asking."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (_breakable, _cell, _embedded, _link, _markdown)
    environment.filters |= {function.__name__.removeprefix("_"): function for function in filters}
    return environment


def _cell(value: object) -> str:
    """Return a value of a table as text."""
    if value is None:
        return MISSING
    return f"{value:,}" if isinstance(value, int) else str(value)


def _breakable(text: str) -> Markup:
    """Return HTML that may be broken after each slash, so that long paths do not widen a table."""
    return Markup("/<wbr>").join(text.split("/"))  # joining escapes the parts


def _markdown(value: object) -> str:
    """Return one line of Markdown, or a cell of a table, that reads as just this text."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)
    return re.sub(r"^(?:(\d{1,9})(?=[.)](?:\s|$))|(?=[-+](?:[\s-]|$)|[#=]))", r"\1\\", text)  # no list, no heading


def _embedded(path: Path) -> str:
    """Return an image as a data address."""
    media_type, _ = mimetypes.guess_type(path.name)
    if media_type is None or not media_type.startswith("image/"):
        raise InputError(f"{path}: a report's picture must be an image file, such as PNG")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: the report's picture cannot be read ({error.strerror})") from error
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _link(path: Path, folder: Path) -> str:
    """Return the address of a file as seen from the folder of the report."""
    return quote(os.fsencode(Path(os.path.relpath(path, folder)).as_posix()))
