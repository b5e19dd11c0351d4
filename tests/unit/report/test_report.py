"""The page: rendered from the Markdown, data stays text, and nothing from outside is needed."""

import base64
import re
from html.parser import HTMLParser

from voice_biometrics.common.markdown import (
    Markdown,
    bullets,
    code_block,
    facts,
    paragraphs,
    picture,
    section,
    table,
)
from voice_biometrics.report.writer import write_report

NASTY = [
    "<script>alert(1)</script>",
    '"><img src=http://evil.example/x.png onerror=alert(1)>',
    "[d](http://evil.example) ![e](f.png) `<b>`",
    "&lt;script> $body ${title}",
    "a/b|c",
]


class Page(HTMLParser):
    """The elements of a page in order, and its text by element."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts = [], [], {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in {"meta", "img", "wbr", "br"}:
            self.open.append([tag, ""])

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag):
        opened, text = self.open.pop()
        assert opened == tag
        self.texts.setdefault(tag, []).append(text.strip())

    def handle_data(self, data):
        for element in self.open:
            element[1] += data

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def written(folder, text):
    """Write a report with a text at every place that takes one, and return the page."""
    (folder / "det.png").write_bytes(b"\x89PNG content")
    sections = [
        section(text, bullets([Markdown("EER: **5.94 %**")]), paragraphs(text), picture("det.png", text, text)),
        section("Second", table(["use", text], [[text, 1]], text), facts({text: text}), code_block(text)),
    ]
    write_report(text, sections, folder)
    return Page((folder / "report.html").read_text("utf-8"))


def test_text_from_data_stays_text_on_the_page(tmp_path):
    for nasty in NASTY:
        page, plain = written(tmp_path, nasty), written(tmp_path, "plain")
        assert [tag for tag, _ in page.elements if tag != "wbr"] == [tag for tag, _ in plain.elements if tag != "wbr"]
        for tag in ("title", "h1", "em", "code"):
            assert set(page.texts[tag]) == {nasty}
        assert page.texts["h2"] == page.texts["a"] == [nasty, "Second"] and page.texts["td"] == [nasty, "1"]
        assert page.of("img")[0]["alt"] == nasty


def test_the_page_has_contents_and_pictures_and_refers_to_nothing_outside(tmp_path):
    page = written(tmp_path, "A title")
    assert page.of("html")[0]["lang"] == "en-GB" and page.texts["h1"] == ["A title"]
    assert [link["href"] for link in page.of("a")] == [f"#{heading['id']}" for heading in page.of("h2")]
    head, content = page.of("img")[0]["src"].split(",")
    assert head == "data:image/png;base64" and base64.b64decode(content) == (tmp_path / "det.png").read_bytes()
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "base", "form"}
    addresses = [value for _, found in page.elements for name, value in found.items() if name in ("src", "href")]
    assert all(address.startswith(("#section-", "data:image/")) for address in addresses) and len(addresses) == 3
    assert not re.search(r"url\(|@import", page.texts["style"][0])
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["det.png", "report.html", "report.md"]


def test_a_file_name_that_is_not_utf8_does_not_stop_the_report(tmp_path):
    write_report("Title", [section("S", facts({"worst file": "a\udcff.wav"}))], tmp_path)
    assert all("udcff.wav" in (tmp_path / name).read_text("utf-8") for name in ("report.md", "report.html"))
