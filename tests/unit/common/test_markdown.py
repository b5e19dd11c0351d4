"""Blocks of Markdown: an independent reader finds what was put in, as text and never as markup."""

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from voice_biometrics.common.markdown import (
    Markdown,
    bullets,
    code_block,
    document,
    escaped,
    facts,
    paragraphs,
    picture,
    section,
    table,
)

NASTY = [
    "a|b",
    "<script>alert(1)</script>",
    '"><img src=http://evil.example/x.png onerror=alert(1)>',
    "<!-- x",
    "&lt;",
    "*a* _b_ `c` [d](http://evil.example) ![e](f.png) ~~g~~",
    "\\|",
    "# heading",
    "1. list",
    "- list",
    "---",
    "===",
    "+",
    "C:\\speech\\a.wav",
    "$data_root/a$b",
]


def rendered(markdown):
    """Return the elements that a reader makes of Markdown where raw HTML is allowed, so any that leaks is found."""
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)
    return ElementTree.fromstring(f"<page>{html}</page>")


def texts(page, tag):
    return ["".join(element.itertext()) for element in page.iter(tag)]


def everything(text):
    """Return a document with a text at every place that takes one."""
    first = section(text, paragraphs(text), bullets([text]), code_block(text), picture("a.png", text, text))
    return document(text, [first, section(text, facts({text: text}), table([text, text], [[text, text]], text))])


@pytest.mark.parametrize("nasty", NASTY)
def test_text_from_data_stays_text_wherever_it_is(nasty):
    page, plain = rendered(everything(nasty)), rendered(everything("plain"))
    assert [element.tag for element in page.iter()] == [element.tag for element in plain.iter()]
    for tag in ("h1", "h2", "th", "td", "em", "strong"):
        assert set(texts(page, tag)) == {nasty}
    assert texts(page, "p")[0] == nasty and texts(page, "li") == [nasty, f"{nasty}: {nasty}"]
    assert texts(page, "code") == [f"{nasty}\n"] and page.find(".//img").get("alt") == nasty


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Cn", "Co", "Zs", "Zl", "Zp")), min_size=1))
def test_any_text_is_read_back(text):
    page = rendered(document("title", [paragraphs(text), table(["name", "value"], [["row", text]])]))
    assert texts(page, "p") == [text] and texts(page, "td") == ["row", text]


def test_markdown_is_inserted_as_it_is_and_lines_are_joined():
    assert escaped(escaped("a_b")) == r"a\_b" and paragraphs("One\nline.", Markdown("`x`")) == "One line.\n\n`x`"
    page = rendered(code_block("python x.py \\\n```\n  --a", "bash"))
    assert texts(page, "code") == ["python x.py \\\n```\n  --a\n"]
    assert section("Title", "", paragraphs("text")) == "## Title\n\ntext"


def test_a_table_has_its_rows_and_its_figures_at_the_right():
    page = rendered(table(["use", "FAR", "trials"], [["door", "0.01", 120_000], ["speaker", None, 7]], "Uses"))
    assert texts(page, "strong") == ["Uses"] and texts(page, "th") == ["use", "FAR", "trials"]
    assert texts(page, "td") == ["door", "0.01", "120,000", "speaker", "–", "7"]
    assert [cell.get("style") for cell in page.iter("th")] == [None, *["text-align:right"] * 2]
    page = rendered(table(["a", "b", "score"], [["0540", "0541", "0.675"]], left=["a", "b"]))
    assert [cell.get("style") for cell in page.iter("td")] == [None, None, "text-align:right"]
    with pytest.raises(ValueError, match="Uses.* 1 cells for 2 columns"):
        table(["a", "b"], [["1", "2"], ["3"]], "Uses")
