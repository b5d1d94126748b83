"""Parsers of text, in this process: any bytes are read, or refused with an error of ours."""

import codecs
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from butterbase.ai.documents.blocks import Block, Source
from butterbase.ai.documents.errors import DocumentError, DocumentMalformedError
from butterbase.ai.documents.parsers.characters import decode
from butterbase.ai.documents.reading import read
from butterbase.ai.documents.tables import is_header, record_lines, render_table
from butterbase.ai.documents.types import DocumentType
from tests.ai.documents import making

NOTHING = Source()
CELLS = st.lists(st.lists(st.text(max_size=8), max_size=4), max_size=6)


def blocks(type_: DocumentType, data: bytes, source: Source = NOTHING) -> list[Block]:
    return [found for found in read(type_, data, source) if isinstance(found, Block)]


def text(type_: DocumentType, data: bytes, source: Source = NOTHING) -> str:
    return "\n".join(block.text for block in blocks(type_, data, source))


MARKUP = st.lists(
    st.sampled_from(
        ["<p>", "</p>", "<table>", "<tr>", "<td>", "</td>", "</table>", "<li>", "<pre>", "</pre>",
         "<h1>", "</h2>", "<br>", "<script>", "</script>", "<!--", "-->", "a", " ", "\n", "&amp;"]
    ),
    max_size=40,
).map("".join)  # fmt: skip


@settings(max_examples=200)
@given(st.sampled_from([DocumentType.TEXT, DocumentType.CSV, DocumentType.JSON, DocumentType.HTML,
                        DocumentType.MARKDOWN, DocumentType.MAIL]),
       st.binary(max_size=200) | MARKUP.map(str.encode))  # fmt: skip
@example(DocumentType.MAIL, b"Content-Type: multipart/mixed; boundary=\n\n--\n")
@example(DocumentType.MAIL, b"From: =?x?q?=FF?= <\nSubject: =?utf-8?b?!?=\nDate: no\n\nx")
@example(DocumentType.JSON, b"1e999")
def test_any_bytes_are_read_or_refused(type_: DocumentType, data: bytes) -> None:
    try:
        found = blocks(type_, data)
    except DocumentError:
        return
    assert all(isinstance(block.text, str) for block in found)


@given(CELLS)
def test_a_table_keeps_every_cell(rows: list[list[str]]) -> None:
    rendered = render_table(rows)
    for row in rows:
        for cell in row:
            assert " ".join(cell.split()).replace("|", "\\|") in rendered


@given(CELLS.filter(lambda rows: len(rows) > 1 and is_header(rows[0])))
def test_a_record_keeps_every_cell_below_the_header(rows: list[list[str]]) -> None:
    rendered = "\n".join(record_lines(rows))
    for row in rows[1:]:
        for cell in row:
            assert " ".join(cell.split()) in rendered


@pytest.mark.parametrize(
    ("data", "charset", "expected"),
    [
        ("Köln".encode(), None, "Köln"),
        ("Köln".encode("cp1252"), None, "Köln"),
        ("Köln".encode("utf-16"), None, "Köln"),
        (codecs.BOM_UTF8 + "Köln".encode(), None, "Köln"),
        ("Привет, мир. Это обычный текст на русском языке.".encode("cp1251"), None,
         "Привет, мир. Это обычный текст на русском языке."),
        ("これは日本語の文章です。文字コードを推定します。".encode("shift_jis"), None,
         "これは日本語の文章です。文字コードを推定します。"),
        ("Köln".encode("cp1252"), "iso-8859-1", "Köln"),
        ("Köln".encode("cp1252"), "no-such-charset", "Köln"),
        ("Köln".encode("cp1252"), "utf-8", "Köln"),
        (b"plain", "zlib", "plain"),  # a codec that unpacks
        (b"plain", "unicode_escape\x00", "plain"),
    ],
)  # fmt: skip
def test_characters(data: bytes, charset: str | None, expected: str) -> None:
    assert decode(data, charset) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a;b\n1;2\n", "| a | b |\n| --- | --- |\n| 1 | 2 |"),
        (b"a\tb\n1\t2\n", "| a | b |\n| --- | --- |\n| 1 | 2 |"),
        (b'a,b\n"x, y",2\n', "| a | b |\n| --- | --- |\n| x, y | 2 |"),
        (b"1,2\n3,4\n", "| 1 | 2 |\n| --- | --- |\n| 3 | 4 |"),
        (b"one column\nof words\n", "| one column |\n| --- |\n| of words |"),
    ],
)
def test_separated_values(data: bytes, expected: str) -> None:
    assert text(DocumentType.CSV, data) == expected


def test_a_long_table_without_a_header_names_no_columns() -> None:
    data = "".join(f"{n},{n * 2}\n" for n in range(300)).encode()
    assert text(DocumentType.CSV, data).splitlines()[7] == "7; 14"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": {"b": [1, 2]}, "c": null, "d": true}', "a.b: 1, 2\nd: true"),
        (b'{"a": 1}\n{"a": 2}\n', "a: 1\na: 2"),
        (b'[{"a": [{"b": 1}]}]', "a[0].b: 1"),
        (b'"text"', "text"),
    ],
)
def test_json(data: bytes, expected: str) -> None:
    assert text(DocumentType.JSON, data) == expected


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>a<br>b</p>c", ["a\nb", "c"]),
        ("<pre>a\n  b</pre>", ["a\n  b"]),
        ("<ul><li>a<li>b</ul>", ["- a", "- b"]),
        ("a <i>b</i>c", ["a bc"]),
        ("<table><tr><td><h2>layout</h2><p>text</td></tr></table>", ["layout", "text"]),
        ("<table><tr><td>a<table><tr><td>b</table></table>", ["a", "| b |\n| --- |"]),
        ("<p style='display: none'>a</p><p hidden>b</p><script>c</script>d", ["d"]),
    ],
)
def test_html(html: str, expected: list[str]) -> None:
    assert [block.text for block in blocks(DocumentType.HTML, html.encode())] == expected


def test_a_pages_own_charset_counts() -> None:
    page = '<meta charset="koi8-r"><p>Привет</p>'.encode("koi8-r")
    assert text(DocumentType.HTML, page) == "Привет"
    page = "<p>Привет</p>".encode("koi8-r")
    assert text(DocumentType.HTML, page, Source(charset="koi8-r")) == "Привет"


def nested(depth: int) -> bytes:
    mail = b"Subject: innermost\n\nthe ground\n"
    for _ in range(depth):
        mail = b"Content-Type: message/rfc822\n\n" + mail
    return (
        b"Subject: outer\nContent-Type: multipart/mixed; boundary=b\n\n--b\n" + mail + b"\n--b--\n"
    )


def test_mails_in_mails_are_read_to_a_depth() -> None:
    assert "the ground" in text(DocumentType.MAIL, nested(1))
    assert "the ground" not in text(DocumentType.MAIL, nested(100))


@pytest.mark.parametrize(
    ("type_", "make"),
    [
        (DocumentType.DOCX, making.word),
        (DocumentType.PPTX, making.slides),
        (DocumentType.XLSX, making.sheet),
    ],
)
def test_office_files_with_broken_xml_are_malformed(
    type_: DocumentType, make: Callable[[], bytes]
) -> None:
    data = making.replaced(make(), "docProps/core.xml", b"<broken")
    with pytest.raises(DocumentMalformedError):
        blocks(type_, data)
