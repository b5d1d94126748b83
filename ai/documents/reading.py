"""Bytes of a type → what is found in them. Runs in the jailed process alone (child.py)."""

import functools
import importlib
from collections.abc import Callable, Iterator

from butterbase.ai.documents.blocks import Found, Source
from butterbase.ai.documents.errors import DocumentTooComplexError
from butterbase.ai.documents.types import DocumentType, check_bytes

Parse = Callable[[bytes, Source], Iterator[Found]]

_PACKAGE = "butterbase.ai.documents.parsers"
_PARSERS = {
    DocumentType.PDF: ("pdf", "parse"),
    DocumentType.DOCX: ("docx", "parse"),
    DocumentType.PPTX: ("pptx", "parse"),
    DocumentType.XLSX: ("xlsx", "parse"),
    DocumentType.HTML: ("html", "parse"),
    DocumentType.MARKDOWN: ("plain", "parse_markdown"),
    DocumentType.CSV: ("separated", "parse"),
    DocumentType.JSON: ("json", "parse"),
    DocumentType.TEXT: ("plain", "parse"),
    DocumentType.MAIL: ("mail", "parse"),
}


def read(type_: DocumentType, data: bytes, source: Source) -> Iterator[Found]:
    """Raises DocumentError."""
    check_bytes(type_, data)
    try:
        yield from parser_of(type_)(data, source)
    except (MemoryError, RecursionError) as error:
        raise DocumentTooComplexError(hint="send it in several parts") from error


@functools.cache
def parser_of(type_: DocumentType) -> Parse:
    """Imported when it is needed: all of them take a second. Raises ImportError."""
    module, name = _PARSERS[type_]
    found: Parse = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), name)
    return found
