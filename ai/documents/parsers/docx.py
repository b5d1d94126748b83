"""Word: the document's own XML, in the order of its text, opened with python-docx.

Its paragraphs leave out what stands in content controls and tracked insertions; so the elements are
walked here. https://python-docx.readthedocs.io; ECMA-376-1, 17 (WordprocessingML)
"""

import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import docx
from docx.oxml.ns import qn
from lxml import etree
from msgspec import Struct

from butterbase.ai.documents.blocks import Block, Found, Info, Kind, Source, heading
from butterbase.ai.documents.errors import DocumentMalformedError
from butterbase.ai.documents.parsers.archives import check_archive
from butterbase.ai.documents.parsers.office import properties_of
from butterbase.ai.documents.tables import render_table

LEVEL_MAX = 6
BASE_COUNT_MAX = 20
"""Styles above a style."""

_HEADING_NAME = re.compile(r"heading ([1-9])", re.IGNORECASE)
_WRAPPERS = {qn(name) for name in ("w:sdt", "w:sdtContent", "w:customXml", "w:ins", "w:moveTo")}
_SKIPPED = {qn("w:del"), qn("w:moveFrom"), qn("w:pPr"), qn("w:rPr")} | {
    # Says again, for old readers, what the choice before it says.
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
}
_CHARACTERS = {qn("w:tab"): "\t", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}


class _Paragraph(Struct, frozen=True):
    text: str
    rendered_breaks: int
    """Where Word last began a page."""
    forced_breaks: int


def parse(data: bytes, _source: Source) -> Iterator[Found]:
    check_archive(data, "word/document.xml")
    try:
        document = docx.Document(BytesIO(data))
    except (KeyError, ValueError, AttributeError, etree.XMLSyntaxError) as error:
        raise DocumentMalformedError("the file is not a Word document") from error
    body = document.element.body
    # A document that was never laid out has no pages but those that its author began.
    is_laid_out = next(body.iter(qn("w:lastRenderedPageBreak")), None) is not None
    is_paged = is_laid_out or any(
        mark.get(qn("w:type")) == "page" for mark in body.iter(qn("w:br"))
    )
    yield Info(
        **properties_of(document.core_properties),
        page_count=_page_count(body, is_laid_out=is_laid_out) if is_paged else None,
    )
    levels = _levels(document.styles.element)
    page = 1
    for element in _content(body):
        shown = page if is_paged else None
        if element.tag == qn("w:tbl"):
            if text := render_table(_rows(element)):
                yield Block(Kind.TABLE, text, page=shown)
            page += _breaks(element, is_laid_out=is_laid_out)
            continue
        paragraph = _paragraph(element)
        page += paragraph.rendered_breaks if is_laid_out else paragraph.forced_breaks
        if paragraph.text.strip():
            yield _block(element, paragraph.text, levels, page if is_paged else None)


def _block(element: Any, text: str, levels: dict[str, int], page: int | None) -> Block:
    style = element.find(f"{qn('w:pPr')}/{qn('w:pStyle')}")
    level = _outline_level(element) or levels.get("" if style is None else style.get(qn("w:val")))
    if level:
        return heading(min(level, LEVEL_MAX), text, page)
    is_item = element.find(f"{qn('w:pPr')}/{qn('w:numPr')}") is not None or (
        style is not None and style.get(qn("w:val"), "").startswith("List")
    )
    return Block(Kind.TEXT, f"- {text}" if is_item else text, page=page)


def _content(element: Any) -> Iterator[Any]:
    """Paragraphs and tables, also those in content controls."""
    for child in element:
        if child.tag in {qn("w:p"), qn("w:tbl")}:
            yield child
        elif child.tag in _WRAPPERS:
            yield from _content(child)


def _rows(table: Any) -> list[list[str]]:
    return [
        [
            " ".join(_paragraph(paragraph).text for paragraph in cell.iter(qn("w:p")))
            for cell in _children(row, "w:tc")
        ]
        for row in _children(table, "w:tr")
    ]


def _children(element: Any, name: str) -> Iterator[Any]:
    for child in element:
        if child.tag == qn(name):
            yield child
        elif child.tag in _WRAPPERS:
            yield from _children(child, name)


def _paragraph(element: Any) -> _Paragraph:
    parts: list[str] = []
    rendered = forced = 0
    walk = etree.iterwalk(element, events=("start",))
    for _, node in walk:
        tag = node.tag
        if tag in _SKIPPED:
            walk.skip_subtree()
        elif tag == qn("w:t"):
            parts.append(node.text or "")
        elif tag == qn("w:lastRenderedPageBreak"):
            rendered += 1
        elif tag == qn("w:br"):
            forced += node.get(qn("w:type")) == "page"
            parts.append("\n")
        elif tag in _CHARACTERS:
            parts.append(_CHARACTERS[tag])
        elif tag == qn("w:p") and parts:
            parts.append("\n")  # of a text box
    return _Paragraph("".join(parts), rendered, forced)


def _breaks(element: Any, *, is_laid_out: bool) -> int:
    if is_laid_out:
        return sum(1 for _ in element.iter(qn("w:lastRenderedPageBreak")))
    return sum(mark.get(qn("w:type")) == "page" for mark in element.iter(qn("w:br")))


def _page_count(body: Any, *, is_laid_out: bool) -> int:
    return 1 + _breaks(body, is_laid_out=is_laid_out)


def _levels(styles: Any) -> dict[str, int]:
    """Id of a paragraph's style → level of its heading. The names of Word's own styles are English
    in every language.
    """
    levels: dict[str, int] = {}
    bases: dict[str, str] = {}
    for style in styles.iter(qn("w:style")):
        id_, name, base = (
            style.get(qn("w:styleId")),
            _val(style, "w:name"),
            _val(style, "w:basedOn"),
        )
        if id_ is None:
            continue
        if found := _HEADING_NAME.fullmatch(name):
            levels[id_] = int(found[1])
        elif name.casefold() == "title":
            levels[id_] = 1
        elif level := _outline_level(style):
            levels[id_] = level
        elif base:
            bases[id_] = base
    for id_ in bases:
        above = id_
        for _ in range(BASE_COUNT_MAX):
            above = bases.get(above, above)
        if above in levels:
            levels[id_] = levels[above]
    return levels


def _outline_level(element: Any) -> int | None:
    """From 1; None of ordinary text."""
    mark = element.find(f"{qn('w:pPr')}/{qn('w:outlineLvl')}")
    value = "" if mark is None else mark.get(qn("w:val"), "")
    return int(value) + 1 if value in set("012345678") else None


def _val(element: Any, name: str) -> str:
    found = element.find(qn(name))
    return "" if found is None else found.get(qn("w:val"), "")
