"""PDF, with PDFium: text by page, headings from the outline or else by the size of their letters.

https://pypdfium2.readthedocs.io, https://pdfium.googlesource.com/pdfium/+/refs/heads/main/public/
"""

import ctypes
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import pypdfium2 as pdfium
from msgspec import Struct
from pypdfium2 import raw

from butterbase.ai.documents.blocks import (
    PROPERTY_CHARS_MAX,
    Block,
    Found,
    Info,
    Kind,
    Progress,
    Source,
    heading,
)
from butterbase.ai.documents.errors import (
    DocumentEncryptedError,
    DocumentMalformedError,
    DocumentTooLargeError,
)

PAGE_COUNT_MAX = 5_000
BOOKMARK_COUNT_MAX = 5_000
HEADING_CHARS_MAX = 160
HEADING_SIZE_RATIO = 1.15
"""Letters so much larger than those of most of the text are a heading's."""
HEADING_LEVEL_MAX = 3

_PROPERTIES = {"Author": "author", "Subject": "subject", "Keywords": "keywords"}
_DIGITS = re.compile(r"\d+")
_SOFT_HYPHEN = re.compile("[\x02\ufffe][ \t]*(?:\r?\n)?")


class _Line(Struct, frozen=True):
    text: str
    size: float
    """In points, by its first letter."""


def parse(data: bytes, _source: Source) -> Iterator[Found]:
    document = _open(data)
    try:
        yield from _read(document)
    finally:
        document.close()


def _open(data: bytes) -> pdfium.PdfDocument:
    try:
        return pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if error.err_code in {raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY}:
            raise DocumentEncryptedError(hint="save it without a password") from None
        raise DocumentMalformedError("the file is not a PDF that can be opened") from None


def _read(document: pdfium.PdfDocument) -> Iterator[Found]:
    count = len(document)
    if count > PAGE_COUNT_MAX:
        raise DocumentTooLargeError(f"it has {count} pages, and may have {PAGE_COUNT_MAX}")
    metadata = document.get_metadata_dict(skip_empty=True)
    yield Info(
        title=metadata.get("Title", "")[:PROPERTY_CHARS_MAX],
        properties={
            name: metadata[key][:PROPERTY_CHARS_MAX]
            for key, name in _PROPERTIES.items()
            if key in metadata
        },
        page_count=count,
    )
    pages: list[list[_Line]] = []
    for number in range(count):
        pages.append(_lines(document, number))
        yield Progress(number + 1, count)
    marks = _bookmarks(document)
    pages = _without_running_heads(pages)
    levels = {} if marks else _levels_by_size(pages)
    for number, lines in enumerate(pages, 1):
        yield from _blocks(lines, number, marks.get(number, []), levels)


def _lines(document: pdfium.PdfDocument, number: int) -> list[_Line]:
    """A page that cannot be read is empty, as it is in a reader."""
    try:
        page = document[number]
    except pdfium.PdfiumError:
        return []
    try:
        text_page = page.get_textpage()
    except pdfium.PdfiumError:
        page.close()
        return []
    try:
        return list(_lines_of(text_page))
    finally:
        text_page.close()
        page.close()


def _lines_of(page: pdfium.PdfTextPage) -> Iterator[_Line]:
    text = page.get_text_range()
    start = 0
    for piece in _SOFT_HYPHEN.sub(_keep_length, text).splitlines(keepends=True):
        stripped = piece.strip("\x00 \t\r\n")
        if stripped:
            first = start + len(piece) - len(piece.lstrip("\x00 \t"))
            yield _Line(stripped.replace("\x00", ""), _size_at(page, first))
        start += len(piece)


def _keep_length(found: "re.Match[str]") -> str:
    """A word that was parted at a line's end is put together, and places stay where they were."""
    return "\x00" * len(found[0])


def _size_at(page: pdfium.PdfTextPage, text_index: int) -> float:
    index = raw.FPDFText_GetCharIndexFromTextIndex(page, text_index)
    if index < 0:
        return 0.0
    size: float = raw.FPDFText_GetFontSize(page, index)
    matrix = raw.FS_MATRIX()
    if raw.FPDFText_GetMatrix(page, index, ctypes.byref(matrix)):
        # Many programs write a size of 1 and scale it.
        size *= math.hypot(matrix.c, matrix.d)
    return round(size, 1) if math.isfinite(size) else 0.0


def _bookmarks(document: pdfium.PdfDocument) -> dict[int, list[tuple[int, str]]]:
    """Page → level and title of each entry of the outline that leads to it."""
    found: dict[int, list[tuple[int, str]]] = {}
    for count, mark in enumerate(document.get_toc(max_depth=6)):
        if count >= BOOKMARK_COUNT_MAX:
            break
        destination = mark.get_dest()
        index = None if destination is None else destination.get_index()
        title = " ".join(mark.get_title().split())[:HEADING_CHARS_MAX]
        if title and index is not None and index >= 0:
            found.setdefault(index + 1, []).append((mark.level + 1, title))
    return found


def _without_running_heads(pages: list[list[_Line]]) -> list[list[_Line]]:
    """Without first and last lines that most pages have, but for their numbers."""
    filled = [lines for lines in pages if len(lines) > 1]
    if len(filled) < 4:
        return pages
    for at in (0, -1):
        seen = Counter(_pattern(lines[at]) for lines in filled)
        repeated = {pattern for pattern, count in seen.items() if count * 2 > len(filled)}
        pages = [_without(lines, at, repeated) for lines in pages]
    return pages


def _without(lines: list[_Line], at: int, repeated: set[str]) -> list[_Line]:
    if len(lines) < 2 or _pattern(lines[at]) not in repeated:
        return lines
    return lines[1:] if at == 0 else lines[:-1]


def _pattern(line: _Line) -> str:
    return _DIGITS.sub("0", line.text)


def _levels_by_size(pages: Sequence[Sequence[_Line]]) -> dict[float, int]:
    """Size of letters → level of heading, the largest having 1."""
    weights: Counter[float] = Counter()
    for lines in pages:
        for line in lines:
            weights[line.size] += len(line.text)
    if not weights:
        return {}
    body = max(weights, key=lambda size: weights[size])
    total = weights.total()
    large = sorted(
        (
            size
            for size, weight in weights.items()
            # What much of the text is set in is not its headings.
            if size >= body * HEADING_SIZE_RATIO and weight < total / 4
        ),
        reverse=True,
    )
    return {size: min(rank, HEADING_LEVEL_MAX) for rank, size in enumerate(large, 1)}


def _blocks(
    lines: Sequence[_Line], page: int, marks: list[tuple[int, str]], levels: dict[float, int]
) -> Iterator[Block]:
    placed = {}
    texts = [_normal(line.text) for line in lines]
    for level, title in marks:
        # One that is not among the lines begins the page.
        if (text := _normal(title)) in texts:
            placed[texts.index(text)] = level, title
        else:
            yield heading(level, title, page)
    for (level, size, at), group in groupby(
        enumerate(lines), key=lambda found: _part(found[0], found[1], placed, levels)
    ):
        text = "\n".join(line.text for _, line in group)
        if at is not None:
            yield heading(*placed[at], page)
        elif level and size and len(text) <= HEADING_CHARS_MAX:
            yield heading(level, text, page)
        else:
            yield Block(Kind.TEXT, text, page=page)


def _part(
    at: int, line: _Line, placed: dict[int, tuple[int, str]], levels: dict[float, int]
) -> tuple[int, float, int | None]:
    """Equal for neighbours that belong together: lines of a heading, or those between headings."""
    if at in placed:
        return 0, 0.0, at
    level = levels.get(line.size, 0)
    return level, line.size if level else 0.0, None


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()
