"""A file and the process that reads it: what comes of good files, bad ones, and a bad process."""

import asyncio
import contextlib
import os
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from butterbase.ai.documents import parsing as parsing_module
from butterbase.ai.documents.assembly import Extracted
from butterbase.ai.documents.blocks import Progress, Source
from butterbase.ai.documents.errors import (
    DocumentEmptyError,
    DocumentEncryptedError,
    DocumentError,
    DocumentMalformedError,
    DocumentTooComplexError,
    DocumentTooLargeError,
    DocumentTypeMismatchError,
    DocumentTypeUnsupportedError,
    ParserCrashedError,
    ParserTimeoutError,
    ParserUnavailableError,
)
from butterbase.ai.documents.parsing import File, Parsing
from butterbase.ai.documents.settings import DocumentSettings
from butterbase.ai.documents.types import DocumentType, type_of
from tests.ai.documents import making
from tests.ai.documents.children import children_of, command_of
from tests.ai.documents.making import DATA
from tests.waiting import until


async def parse(data: bytes, type_: DocumentType, **settings: Any) -> Extracted:
    return await Parsing(DocumentSettings(**settings)).parse(File(type_, data))


async def parse_file(name: str) -> Extracted:
    return await parse((DATA / name).read_bytes(), type_of("", name))


@pytest.mark.parametrize(
    ("name", "title", "pages", "headings", "tables"),
    [
        ("handbook.pdf", "Harbour handbook", 5, [f"Chapter {n}" for n in range(1, 6)], 0),
        ("outline.pdf", "Harbour handbook", 3, [f"Chapter {n}" for n in range(1, 4)], 0),
        ("handbook.docx", "Harbour handbook", 2, ["Arrival", "Papers", "Departure"], 1),
        ("safety.pptx", "", 2, ["Safety", "Numbers"], 1),
        ("berths.xlsx", "", None, ["Berths"], 1),
        ("rules.html", "Harbour rules", None, ["Harbour rules", "Mooring"], 1),
        ("boats.csv", "", None, [], 1),
        ("weather.txt", "", None, [], 0),
    ],
)
async def test_pages_headings_and_tables_are_found(
    name: str, title: str, pages: int | None, headings: list[str], tables: int
) -> None:
    found = await parse_file(name)
    assert found.title == title
    assert found.layout is not None
    assert found.layout.page_count == pages
    assert [text for _, _, text in found.layout.headings] == headings
    assert len(found.layout.tables) == tables
    for start, level, text in found.layout.headings:
        assert found.text[start:].startswith(f"{'#' * level} {text}")
    for start, end in found.layout.tables:
        assert found.text[start] == "|"
        assert found.text[start:end].count("\n") >= 2


async def test_a_page_begins_where_it_says() -> None:
    found = await parse_file("handbook.pdf")
    assert found.layout is not None
    assert [number for _, number in found.layout.pages] == [1, 2, 3, 4, 5]
    for start, number in found.layout.pages:
        assert found.text[start:].startswith(f"# Chapter {number}\n")


async def test_a_pdfs_running_heads_and_hyphens_are_gone() -> None:
    found = await parse_file("handbook.pdf")
    assert "Handbook, page" not in found.text
    assert "hyphenated, and read as one" in found.text


async def test_markdown_is_kept_as_it_is_written() -> None:
    found = await parse_file("rules.md")
    assert found.layout is None
    assert found.text == making.MARKDOWN.strip("\n")


async def test_a_number_sign_in_plain_text_is_no_heading() -> None:
    found = await parse_file("weather.txt")
    assert found.text.startswith("# not a heading")
    assert found.layout is not None
    assert not found.layout.headings


async def test_what_a_page_hides_is_not_read() -> None:
    text = (await parse_file("rules.html")).text
    for hidden in ("alert", "color", "secret", "Home | About", "© harbour"):
        assert hidden not in text


async def test_a_hidden_sheet_is_not_read() -> None:
    assert "nobody reads" not in (await parse_file("berths.xlsx")).text


async def test_a_mail_has_its_headers_its_text_once_and_what_is_attached() -> None:
    found = await parse_file("berth.eml")
    assert found.text.count("until Sunday") == 1
    assert "From: Ann Müller <ann@example.com>" in found.text
    assert "| Caña | 7 | C3 |" in found.text
    assert "# Attachment: boat.png" in found.text


async def test_every_row_of_a_long_sheet_names_its_columns() -> None:
    found = await parse(making.sheet(500), DocumentType.XLSX)
    lines = [line for line in found.text.splitlines() if line.startswith("Boat: ")]
    assert len(lines) == 500
    assert lines[10] == "Boat: Boat 10; Length: 13; Paid: true"


async def test_three_hundred_pages_are_read_with_their_numbers() -> None:
    told: list[Progress] = []
    file = File(DocumentType.PDF, making.pdf(300))
    found = await Parsing(DocumentSettings()).parse(file, on_progress=told.append)
    assert found.layout is not None
    assert [number for _, number in found.layout.pages] == list(range(1, 301))
    place = found.text.index("berth 20017,")
    assert max(n for start, n in found.layout.pages if start <= place) == 200
    assert told[-1] == Progress(300, 300)


async def test_a_page_of_the_web_is_its_main_content() -> None:
    story = "".join(
        f"<p>Sentence {n} of the story tells how the boat went on.</p>" for n in range(20)
    )
    links = "".join(f"<li><a href='/{n}'>Other story {n}</a></li>" for n in range(30))
    html = (
        f"<body><div class='sidebar'><ul>{links}</ul></div><article><h1>Story</h1>{story}</article>"
    )
    file = File(DocumentType.HTML, html.encode(), Source(is_page=True))
    found = await Parsing(DocumentSettings()).parse(file)
    assert "Sentence 19 of the story" in found.text
    assert "Other story" not in found.text


def with_document(xml: Callable[[], bytes]) -> bytes:
    return making.replaced(making.word(), "word/document.xml", xml())


def many_members() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(10_001):
            archive.writestr(f"m{number}", b"")
        archive.writestr("xl/workbook.xml", b"")
    return file.getvalue()


HOSTILE: list[tuple[str, DocumentType, Callable[[], bytes], type[DocumentError]]] = [
    ("zip bomb", DocumentType.DOCX, making.zip_bomb, DocumentTooComplexError),
    ("many members", DocumentType.XLSX, many_members, DocumentTooComplexError),
    ("nested", DocumentType.JSON, lambda: b"[" * 10**6 + b"]" * 10**6, DocumentTooComplexError),
    ("encrypted", DocumentType.PDF, lambda: making.pdf(1, password="x"), DocumentEncryptedError),
    ("cut", DocumentType.PDF, lambda: making.pdf(3)[:400], DocumentMalformedError),
    ("cut", DocumentType.DOCX, lambda: making.word()[:5000], DocumentMalformedError),
    ("broken", DocumentType.JSON, lambda: b'{"a": ', DocumentMalformedError),
    ("no archive", DocumentType.XLSX, lambda: b"PK\3\4" + b"x" * 99, DocumentMalformedError),
    ("other archive", DocumentType.PPTX, making.word, DocumentTypeMismatchError),
    ("a picture", DocumentType.PDF, lambda: b"\x89PNG\r\n", DocumentTypeMismatchError),
    ("a PDF", DocumentType.TEXT, lambda: making.pdf(1), DocumentTypeMismatchError),
    ("no text", DocumentType.TEXT, lambda: bytes(range(32)) * 9, DocumentTypeMismatchError),
    ("blank", DocumentType.TEXT, lambda: b" \n\t ", DocumentEmptyError),
    ("blank", DocumentType.CSV, lambda: b",,,\n,,,\n", DocumentEmptyError),
    ("scan", DocumentType.PDF, making.scanned_pdf, DocumentEmptyError),
    ("endless", DocumentType.TEXT, lambda: b"word " * 10**6, DocumentTooLargeError),
    ("wide", DocumentType.CSV, lambda: b"a" * 1_100_000, DocumentMalformedError),
    ("old Office", DocumentType.DOCX, lambda: bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600),
     DocumentTypeUnsupportedError),
]  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "make", "expected"),
    [row[1:] for row in HOSTILE],
    ids=[f"{name} {type_}" for name, type_, *_ in HOSTILE],
)
async def test_a_bad_file_is_told_what_is_wrong(
    type_: DocumentType, make: Callable[[], bytes], expected: type[DocumentError]
) -> None:
    with pytest.raises(expected):
        await parse(make(), type_)


async def test_entities_are_not_expanded() -> None:
    with pytest.raises(DocumentError):
        await parse(with_document(making.xml_bomb), DocumentType.DOCX)


async def test_entities_read_no_file() -> None:
    with contextlib.suppress(DocumentError):
        text = (await parse(with_document(making.reading_xml), DocumentType.DOCX)).text
        assert "root:" not in text


async def test_a_sheet_that_says_it_has_all_columns_is_read_by_its_cells() -> None:
    with zipfile.ZipFile(BytesIO(making.sheet())) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml")
    lying = sheet.replace(b'ref="A1:C4"', b'ref="A1:XFD1048576"')
    assert lying != sheet
    data = making.replaced(making.sheet(), "xl/worksheets/sheet1.xml", lying)
    assert "Boat 2" in (await parse(data, DocumentType.XLSX)).text


async def test_html_nested_deeper_than_python_calls_is_read() -> None:
    data = b"<div>" * 5_000 + b"the ground" + b"</div>" * 5_000
    assert "the ground" in (await parse(data, DocumentType.HTML)).text


async def test_an_attachment_that_cannot_be_read_is_named() -> None:
    mail = making.mail().replace(b'filename="boat.png"', b'filename="boat.pdf"')
    assert "# Attachment: boat.pdf" in (await parse(mail, DocumentType.MAIL)).text


# The process

PROGRAM = "import sys, os, time, signal, ctypes; sys.stdin.buffer.readline()\n"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Has another program run in the place of the one that reads files."""

    def replace(does: str) -> None:
        (tmp_path / "taken_over.py").write_text(PROGRAM + does)
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        monkeypatch.setattr(parsing_module, "_MODULE", "taken_over")

    return replace


def said(line: str) -> str:
    return f"sys.stdout.write({line + chr(10)!r}); sys.stdout.flush()\n"


PROGRESS = '{"type":"progress","pages_done":1,"page_count":1}'
DONE = '{"type":"done"}'
TEXT = '{"type":"block","kind":"text","text":"twenty words or more"}'


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", ParserCrashedError),
        ("os._exit(0)", ParserCrashedError),
        (said(TEXT), ParserCrashedError),
        (said("no JSON"), ParserCrashedError),
        (said('{"type":"block","kind":"text","text":"a","more":1}'), ParserCrashedError),
        (said('{"type":"failure","code":"invented","message":"m"}'), ParserCrashedError),
        (said('{"type":"failure","code":"document_empty","message":"m"}'), DocumentEmptyError),
        (said(DONE), DocumentEmptyError),
        ("sys.stdout.write('x' * 20_000_000)", ParserCrashedError),
        (f"while True: {said(TEXT)!s}".replace("; sys.stdout.flush()", ""), DocumentTooLargeError),
        (f"while True: sys.stdout.write({PROGRESS + chr(10)!r})", ParserCrashedError),
        ("os.kill(os.getpid(), signal.SIGXCPU)", DocumentTooComplexError),
    ],
)  # fmt: skip
async def test_a_process_that_was_taken_over_tells_nothing_but_text(
    program: Callable[[str], None], does: str, expected: type[DocumentError]
) -> None:
    program(does)
    with pytest.raises(expected):
        await parse(b"text", DocumentType.TEXT)


async def test_a_process_that_hangs_is_ended(program: Callable[[str], None]) -> None:
    program("time.sleep(1000)")
    with pytest.raises(ParserTimeoutError):
        await parse(b"text", DocumentType.TEXT, documents_parse_s=1)
    await until(lambda: not _readers())


async def test_a_caller_that_leaves_ends_the_process(program: Callable[[str], None]) -> None:
    program("time.sleep(1000)")
    task = asyncio.create_task(parse(b"text", DocumentType.TEXT))
    await until(lambda: len(_readers()) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not _readers())


def _readers() -> list[int]:
    return [pid for pid in children_of(os.getpid()) if "taken_over" in command_of(pid)]


async def test_the_process_has_nothing_of_our_environment(
    monkeypatch: pytest.MonkeyPatch, program: Callable[[str], None]
) -> None:
    monkeypatch.setenv("BUTTERBASE_MASTER_KEY", "secret")
    tell = "dict(type='block', kind='text', text=str(dict(os.environ)))"
    program(f"import json; print(json.dumps({tell}))\n" + said(DONE))
    text = (await parse(b"text", DocumentType.TEXT)).text
    assert "PYTHONPATH" in text
    assert "secret" not in text


async def test_without_a_jail_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # The process's own view of the machine: a kernel without seccomp.
    program = (
        "import runpy; from butterbase.ai.documents import jail; jail._ARCHITECTURES.clear();"
        " runpy.run_module('butterbase.ai.documents.child', run_name='__main__')"
    )
    start = asyncio.create_subprocess_exec

    async def without(*arguments: str, **options: object) -> asyncio.subprocess.Process:
        return await start(arguments[0], "-c", program, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", without)
    with pytest.raises(ParserUnavailableError, match="shut in"):
        await parse(b"text", DocumentType.TEXT)
    found = await parse(b"text", DocumentType.TEXT, documents_jail=False)
    assert found.text == "text"
