"""Excel: sheet by sheet, each row in a line that names its columns.

Values are those that were last computed; hidden sheets are left out.
https://openpyxl.readthedocs.io/en/stable/optimized.html
"""

import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from io import BytesIO
from typing import Any
from xml.etree.ElementTree import ParseError

import openpyxl
from defusedxml.common import DefusedXmlException
from lxml import etree
from openpyxl.utils.exceptions import InvalidFileException

from butterbase.ai.documents.blocks import Block, Found, Info, Progress, Source, heading
from butterbase.ai.documents.errors import DocumentMalformedError, DocumentTooLargeError
from butterbase.ai.documents.parsers.archives import check_archive
from butterbase.ai.documents.parsers.office import properties_of
from butterbase.ai.documents.tables import table_blocks

ROW_COUNT_MAX = 200_000
"""Of all sheets, the empty ones between others included."""
COLUMN_COUNT_MAX = 1_000

_BROKEN = (
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    InvalidFileException,
    DefusedXmlException,
    ParseError,
    zipfile.BadZipFile,
    etree.XMLSyntaxError,
)


def parse(data: bytes, _source: Source) -> Iterator[Found]:
    check_archive(data, "xl/workbook.xml")
    try:
        book = openpyxl.load_workbook(BytesIO(data), read_only=True, data_only=True)
    except _BROKEN as error:
        raise DocumentMalformedError("the file is not a workbook") from error
    sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
    yield Info(**properties_of(book.properties))
    row_count = 0
    for number, sheet in enumerate(sheets, 1):
        rows: list[list[str]] = []
        try:
            sheet.reset_dimensions()  # what the file says of them need not be so
            for row in sheet.iter_rows(values_only=True, max_col=COLUMN_COUNT_MAX):
                row_count += 1
                if row_count > ROW_COUNT_MAX:
                    raise DocumentTooLargeError(f"it has more than {ROW_COUNT_MAX} rows")
                if cells := _cells(row):
                    rows.append(cells)
        except _BROKEN as error:
            raise DocumentMalformedError(f"sheet {number} cannot be read") from error
        yield from _sheet(sheet.title, rows)
        yield Progress(number, len(sheets))


def _sheet(title: str, rows: list[list[str]]) -> Iterator[Block]:
    if not rows:
        return
    yield heading(1, title)
    yield from table_blocks(rows)


def _cells(row: tuple[Any, ...]) -> list[str]:
    """Without the empty ones at the end."""
    last = next((at for at in range(len(row), 0, -1) if row[at - 1] is not None), 0)
    return [_text(value) for value in row[:last]]


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
        case datetime() if value.time() == time():
            return value.date().isoformat()
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return str(value)
        case _:
            return str(value)
