"""All that a parser will need from the file system, loaded before the jail closes.

Python imports late: codecs when a charset is first named, parts of libraries at their first use. So
each parser first reads a small file of ours.
"""

import encodings
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import BytesIO

from butterbase.ai.documents.blocks import Source
from butterbase.ai.documents.reading import parser_of
from butterbase.ai.documents.types import DocumentType

_PDF = b"""%PDF-1.4
1 0 obj <</Type/Catalog/Pages 2 0 R/Outlines 6 0 R>> endobj
2 0 obj <</Type/Pages/Kids[3 0 R]/Count 1>> endobj
3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R
/Resources<</Font<</F 5 0 R>>>>>> endobj
4 0 obj <</Length 82>> stream
BT /F 20 Tf 9 90 Td (Title) Tj /F 9 Tf 0 -30 Td (some words of a longer text) Tj ET
endstream endobj
5 0 obj <</Type/Font/Subtype/Type1/BaseFont/Helvetica>> endobj
6 0 obj <</First 7 0 R/Last 7 0 R/Count 1>> endobj
7 0 obj <</Title(Title)/Parent 6 0 R/Dest[3 0 R/Fit]>> endobj
trailer <</Root 1 0 R>>
"""
_HTML = b"""<html><head><title>t</title></head><body><article><h1>Title</h1>
<p>Some text &amp; more.</p><table><tr><td>a</td><td>b</td></tr></table></article></body></html>"""
_MAIL = b"""From: =?utf-8?q?a?= <a@example.com>
Subject: s
Date: Fri, 21 Nov 1997 09:55:06 -0600
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: base64

dGV4dA==
--b
Content-Type: text/html
Content-Disposition: attachment; filename*=utf-8''a.html
Content-Transfer-Encoding: quoted-printable

<p>=3D</p>
--b--
"""


def _docx() -> bytes:
    import docx

    document = docx.Document()
    document.add_heading("Title")
    document.add_table(1, 1).cell(0, 0).text = "a"
    return _saved(document.save)


def _pptx() -> bytes:
    from pptx import Presentation
    from pptx.util import Inches

    presentation = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = "Title"
    slide.shapes.add_table(1, 1, *[Inches(1)] * 4)
    slide.notes_slide.notes_text_frame.text = "notes"
    return _saved(presentation.save)


def _xlsx() -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["a", 1.5, True, None])
    return _saved(book.save)


def _saved(save: Callable[[BytesIO], object]) -> bytes:
    file = BytesIO()
    save(file)
    return file.getvalue()


_SAMPLES: dict[DocumentType, Callable[[], bytes]] = {
    DocumentType.PDF: lambda: _PDF,
    DocumentType.DOCX: _docx,
    DocumentType.PPTX: _pptx,
    DocumentType.XLSX: _xlsx,
    DocumentType.HTML: lambda: _HTML,
    DocumentType.MARKDOWN: lambda: b"# Title\n\ntext\n",
    DocumentType.CSV: lambda: b"a,b\n1,2\n",
    DocumentType.JSON: lambda: b'{"a": 1}',
    # In a charset that has to be guessed.
    DocumentType.TEXT: lambda: "Äpfel über Öl für süße Nächte ".encode("cp1252") * 20,
    DocumentType.MAIL: lambda: _MAIL,
}


def warm_up(types: Iterable[DocumentType], source: Source) -> None:
    """Raises ImportError where a library is missing."""
    for type_ in types:
        if type_ is DocumentType.TEXT:
            _load_codecs()
        sample = Source(is_page=source.is_page and type_ is DocumentType.HTML)
        list(parser_of(type_)(_SAMPLES[type_](), sample))


def _load_codecs() -> None:
    for module in pkgutil.iter_modules(encodings.__path__):
        with suppress(ImportError):  # those of other systems
            importlib.import_module(f"encodings.{module.name}")
