"""Reports: both forms hold everything, as text and never as markup, and the HTML needs nothing from outside."""

import base64
import struct
import tempfile
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from voice_biometrics.common.errors import InputError
from voice_biometrics.report.writer import (
    BigFigure,
    Code,
    Facts,
    Headline,
    Picture,
    Section,
    Table,
    Text,
    write_report,
)

VOID = {"meta", "img", "wbr", "hr", "br"}
NASTY = [
    "a|b",
    "<script>alert(1)</script>",
    "<img src=http://evil.example/x.png onerror=alert(1)>",
    "<div class=x",
    "<!-- x",
    '"><b>',
    "&lt;",
    "*a* _b_ `c` [d](http://evil.example) ![e](f.png) ~~g~~",
    "\\|",
    "# heading",
    "1. list",
    "- list",
    "---",
    "===",
    "+",
    "{{ 7 * 7 }} {% raw %}",
    "C:\\speech\\a.wav",
    "$data_root/a$b",
    "-0.35",
]


class Page(HTMLParser):
    """The elements of a page in order, its text by element, and whether all are closed."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes)
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append((tag, len(self.texts)))
            self.texts.append([tag, ""])

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        assert tag in VOID

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, number in self.open:
            self.texts[number][1] += data

    def of(self, tag):
        return [attributes for found, attributes in self.elements if found == tag]

    def text_of(self, tag):
        return [text for found, text in self.texts if found == tag]


def png(path):
    """Write a PNG of one white pixel."""
    chunks = [(b"IHDR", struct.pack(">2I5B", 1, 1, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0\xff")), (b"IEND", b"")]
    parts = [struct.pack(">I", len(body)) + kind + body for kind, body in chunks]
    sums = [struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(part + end for part, end in zip(parts, sums, strict=True)))
    return path


def written(folder, *blocks, title="Report"):
    """Return the Markdown, and the page, of a report of one section."""
    markdown, html = write_report(title, [Section("Section", blocks)], folder)
    return markdown.read_text("utf-8"), Page(html.read_text("utf-8"))


def rendered(markdown):
    """Return the page that an independent reader makes of Markdown, raw HTML allowed."""
    return Page(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))


def everything(tmp_path):
    return [
        Section(
            "First", [Headline([BigFigure("EER", "5.94 %", "4.18 to 8.36 %", "25 speakers")]), Text("One.\n\nTwo.")]
        ),
        Section("Second", [Table(["use", "FAR (%)"], [["door", 0.01], ["speaker", None]], "What it does")]),
        Section("Third", [Picture(png(tmp_path / "det.png"), "a DET curve", "All trials"), Facts({"seed": 1986})]),
        Section("Fourth", [Code("python eval_eer.py")]),
    ]


def test_both_files_are_written_whole_and_returned(tmp_path):
    out = tmp_path / "new" / "folder"
    paths = write_report("Title", everything(tmp_path), out)
    assert paths == (out / "report.md", out / "report.html")
    assert sorted(out.iterdir()) == sorted(paths)


def test_page_is_accessible_and_has_a_contents_list_that_leads_to_each_section(tmp_path):
    _, html = write_report("A title", everything(tmp_path), tmp_path)
    page = Page(html.read_text("utf-8"))
    assert page.of("html")[0]["lang"] == "en-GB" and page.text_of("title") == page.text_of("h1") == ["A title"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.of("meta")
    assert page.text_of("h2") == page.text_of("a") == ["First", "Second", "Third", "Fourth"]
    assert [link["href"] for link in page.of("a")] == [f"#{heading['id']}" for heading in page.of("h2")]
    assert page.of("img")[0]["alt"] == "a DET curve" and page.text_of("figcaption") == ["All trials"]
    assert page.text_of("caption") == ["What it does"]
    (region,) = [attributes for attributes in page.of("div") if attributes["class"] == "scroll"]
    assert region["tabindex"] == "0" and region["aria-labelledby"] == page.of("caption")[0]["id"]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_page_holds_its_pictures_and_refers_to_nothing_outside(tmp_path):
    _, html = write_report("Title", everything(tmp_path), tmp_path)
    page = Page(html.read_text("utf-8"))
    (image,) = page.of("img")
    head, content = image["src"].split(",")
    assert head == "data:image/png;base64" and base64.b64decode(content) == (tmp_path / "det.png").read_bytes()
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "base", "form"}
    addresses = [value for _, found in page.elements for name, value in found.items() if name in ("src", "href")]
    assert all(address.startswith(("#section-", "data:image/")) for address in addresses) and len(addresses) == 5
    assert all(not name.startswith("on") for _, found in page.elements for name in found)
    assert "url(" not in page.text_of("style")[0] and "@import" not in page.text_of("style")[0]
    (policy,) = [meta for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy["content"].startswith("default-src 'none'")


def test_table_has_its_rows_and_columns_in_both_forms_with_figures_at_the_right(tmp_path):
    table = Table(["use", "FAR", "trials"], [["door", "0.01", 120_000], ["speaker", None, 7]], "Uses", None)
    markdown, page = written(tmp_path, table)
    for form in (page, rendered(markdown)):
        assert len(form.of("tr")) == 3
        header = form.text_of("th")[:3]
        cells = (form.text_of("th") + form.text_of("td"))[3:]
        assert header == ["use", "FAR", "trials"]
        assert sorted(cells) == sorted(["door", "0.01", "120,000", "speaker", "–", "7"])
    assert [cell.get("class") for cell in page.of("th")] == [None, "figure", "figure", None, None]
    assert [cell.get("scope") for cell in page.of("th")] == ["col", "col", "col", "row", "row"]
    assert [cell.get("class") for cell in page.of("td")] == ["figure"] * 4
    assert [cell.get("style") for cell in rendered(markdown).of("th")] == [None, *["text-align:right"] * 2]


def test_figures_can_be_named(tmp_path):
    table = Table(["enrolment", "test", "score"], [["0540", "0541", "0.675"]], "Trials", figures=["score"])
    markdown, page = written(tmp_path, table)
    assert [cell.get("class") for cell in page.of("td")] == [None, "figure"]
    assert [cell.get("style") for cell in rendered(markdown).of("td")] == [None, None, "text-align:right"]


def test_tables_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match="Uses: row 1 has 1 cells for 2 columns"):
        Table(["a", "b"], [["1", "2"], ["3"]], "Uses")
    with pytest.raises(ValueError, match=r"Uses: no column is named \['c'\]"):
        Table(["a", "b"], [], "Uses", figures=["c"])


def test_headline_facts_paragraphs_and_code_are_in_both_forms(tmp_path):
    blocks = (
        Headline([BigFigure("EER", "5.94 %", "4.18 to 8.36 %", "25 speakers"), BigFigure("C_llr", "0.21 bits")]),
        Text("One\nline.\n\n\nAnother."),
        Facts({"seed": 1986, "speakers": 25}),
        Code("python x.py \\\n```\n  --a"),
    )
    markdown, page = written(tmp_path, *blocks)
    assert page.text_of("p") == ["One line.", "Another."]
    assert page.text_of("dt") == ["seed", "speakers"] and page.text_of("dd") == ["1986", "25"]
    assert page.text_of("code") == ["python x.py \\\n```\n  --a"]
    spans = ["EER", "5.94 %", "95 % interval 4.18 to 8.36 %", "25 speakers", "C_llr", "0.21 bits"]
    assert page.text_of("span") == spans
    shown = rendered(markdown)
    assert [text for text in shown.text_of("p") if text in page.text_of("p")] == ["One line.", "Another."]
    assert shown.text_of("li") == [
        "EER: 5.94 % (95 % interval 4.18 to 8.36 %); 25 speakers",
        "C_llr: 0.21 bits",
        "seed: 1986",
        "speakers: 25",
    ]
    assert shown.text_of("code") == ["python x.py \\\n```\n  --a\n"]


@pytest.mark.parametrize("nasty", NASTY)
def test_text_from_data_stays_text_wherever_it_stands(nasty, tmp_path):
    picture = Picture(png(tmp_path / "a.png"), nasty, nasty)
    table = Table(["name", nasty], [[nasty, nasty]], nasty)
    blocks = (Text(nasty), Headline([BigFigure(nasty, nasty, nasty, nasty)]), Facts({nasty: nasty}), Code(nasty))
    markdown, html = write_report(nasty, [Section(nasty, [*blocks, table, picture])], tmp_path)
    page, shown = Page(html.read_text("utf-8")), rendered(markdown.read_text("utf-8"))
    plain_markdown, plain_page = written(tmp_path, *_with(blocks, table, picture, "plain"), title="plain")
    assert [tag for tag, _ in page.elements if tag != "wbr"] == [tag for tag, _ in plain_page.elements]
    assert [tag for tag, _ in shown.elements] == [tag for tag, _ in rendered(plain_markdown).elements]
    for tag in ("h1", "h2", "title", "p", "td", "dd", "dt", "code", "figcaption", "caption"):
        assert set(page.text_of(tag)) == {nasty}
    for tag in ("h1", "h2", "td"):
        assert set(shown.text_of(tag)) == {nasty}
    assert page.of("img")[0]["alt"] == shown.of("img")[0]["alt"] == nasty
    assert shown.text_of("li")[0] == f"{nasty}: {nasty} (95 % interval {nasty}); {nasty}"


def _with(blocks, table, picture, word):
    """Return the same blocks with a harmless word."""
    replaced = (Text(word), Headline([BigFigure(word, word, word, word)]), Facts({word: word}), Code(word))
    assert [type(block) for block in blocks] == [type(block) for block in replaced]
    return *replaced, Table(["name", word], [[word, word]], word), Picture(picture.path, word, word)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Zs", "Zl", "Zp")), min_size=1))
def test_any_text_is_read_back_from_both_forms(text):
    with tempfile.TemporaryDirectory() as folder:
        markdown, page = written(Path(folder), Text(text), Table(["name", "value"], [["row", text]], "Rows"))
    assert rendered(markdown).text_of("td") == ["row", text] and rendered(markdown).text_of("p")[0] == text
    assert page.text_of("td") == page.text_of("p") == [text]


@pytest.mark.parametrize("name", ["a b.png", "a|b.png", "a)b(.png", "<script>.png", "100%.png", "é.png"])
def test_pictures_are_linked_relative_to_the_report_whatever_their_name(name, tmp_path):
    (tmp_path / "pictures").mkdir()
    path = png(tmp_path / "pictures" / name)
    markdown, page = written(tmp_path / "report", Picture(path, "alt", "caption"))
    (image,) = rendered(markdown).of("img")
    assert unquote(image["src"]) == f"../pictures/{name}" and "<script" not in markdown
    assert page.of("img")[0]["src"].startswith("data:image/png;base64,")


def test_file_names_that_are_no_utf8_do_not_stop_the_report(tmp_path):
    markdown, page = written(tmp_path, Facts({"worst file": "a\udcff.wav"}))
    assert "a\\udcff.wav" in page.text_of("dd")[0] and "udcff" in markdown


@pytest.mark.parametrize("name, told", [("absent.png", "cannot be read"), ("notes.txt", "must be an image")])
def test_a_picture_that_cannot_be_shown_is_told_and_nothing_is_written(name, told, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InputError, match=f"{name}.*{told}"):
        write_report("Title", [Section("S", [Picture(tmp_path / name, "alt", "caption")])], tmp_path / "out")
    assert not (tmp_path / "out").exists()
