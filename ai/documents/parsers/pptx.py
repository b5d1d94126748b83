"""PowerPoint: slide by slide, its title as a heading, then what stands on it, then the notes.

https://python-pptx.readthedocs.io
"""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from lxml import etree
from pptx import Presentation
from pptx.exc import PythonPptxError

from butterbase.ai.documents.blocks import Block, Found, Info, Kind, Progress, Source, heading
from butterbase.ai.documents.errors import DocumentMalformedError
from butterbase.ai.documents.parsers.archives import check_archive
from butterbase.ai.documents.parsers.office import properties_of
from butterbase.ai.documents.tables import render_table


def parse(data: bytes, _source: Source) -> Iterator[Found]:
    check_archive(data, "ppt/presentation.xml")
    try:
        presentation = Presentation(BytesIO(data))
    except (KeyError, ValueError, AttributeError, PythonPptxError, etree.XMLSyntaxError) as error:
        raise DocumentMalformedError("the file is not a presentation") from error
    count = len(presentation.slides)
    yield Info(**properties_of(presentation.core_properties), page_count=count)
    for number, slide in enumerate(presentation.slides, 1):
        yield from _slide(slide, number)
        yield Progress(number, count)


def _slide(slide: Any, number: int) -> Iterator[Block]:
    title = slide.shapes.title
    if title is not None and title.text_frame.text.strip():
        yield heading(1, title.text_frame.text, number)
    for shape in _leaves(slide.shapes):
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if getattr(shape, "has_table", False) and shape.has_table:
            rows = [[cell.text for cell in row.cells] for row in shape.table.rows]
            yield Block(Kind.TABLE, render_table(rows), page=number)
        elif shape.has_text_frame:
            yield Block(Kind.TEXT, _text(shape.text_frame), page=number)
    if slide.has_notes_slide:
        notes = slide.notes_slide.notes_text_frame
        if notes is not None and notes.text.strip():
            yield Block(Kind.TEXT, f"Notes: {_text(notes)}", page=number)


def _leaves(shapes: Any) -> Iterator[Any]:
    """Those of groups as well. lxml opens no element that lies deeper than 256 others."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _leaves(shape.shapes)
        else:
            yield shape


def _text(frame: Any) -> str:
    lines = []
    for paragraph in frame.paragraphs:
        if text := paragraph.text.replace("\v", "\n").strip():
            lines.append("  " * paragraph.level + text)
    return "\n".join(lines)
