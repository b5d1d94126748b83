"""What a file is: by its content type, else by its name, and then by its first bytes.

What a client says decides how the bytes are read; the bytes are only asked whether that can be.
"""

from enum import StrEnum
from pathlib import PurePosixPath

from butterbase.ai.documents.errors import (
    DocumentEncryptedError,
    DocumentTypeMismatchError,
    DocumentTypeUnsupportedError,
)


class DocumentType(StrEnum):
    PDF = "pdf"
    DOCX = "docx"
    PPTX = "pptx"
    XLSX = "xlsx"
    HTML = "html"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"
    TEXT = "text"
    MAIL = "mail"


_OFFICE = "application/vnd.openxmlformats-officedocument."
_OF_MEDIA = {
    "application/pdf": DocumentType.PDF,
    "application/x-pdf": DocumentType.PDF,
    f"{_OFFICE}wordprocessingml.document": DocumentType.DOCX,
    f"{_OFFICE}presentationml.presentation": DocumentType.PPTX,
    f"{_OFFICE}spreadsheetml.sheet": DocumentType.XLSX,
    "text/html": DocumentType.HTML,
    "application/xhtml+xml": DocumentType.HTML,
    "text/markdown": DocumentType.MARKDOWN,
    "text/x-markdown": DocumentType.MARKDOWN,
    "text/csv": DocumentType.CSV,
    "application/csv": DocumentType.CSV,
    "text/tab-separated-values": DocumentType.CSV,
    "application/json": DocumentType.JSON,
    "application/ld+json": DocumentType.JSON,
    "application/x-ndjson": DocumentType.JSON,
    "application/ndjson": DocumentType.JSON,
    "application/jsonl": DocumentType.JSON,
    "text/plain": DocumentType.TEXT,
    "message/rfc822": DocumentType.MAIL,
}
_OF_SUFFIX = {
    ".pdf": DocumentType.PDF,
    ".docx": DocumentType.DOCX,
    ".pptx": DocumentType.PPTX,
    ".xlsx": DocumentType.XLSX,
    ".html": DocumentType.HTML,
    ".htm": DocumentType.HTML,
    ".xhtml": DocumentType.HTML,
    ".md": DocumentType.MARKDOWN,
    ".markdown": DocumentType.MARKDOWN,
    ".csv": DocumentType.CSV,
    ".tsv": DocumentType.CSV,
    ".json": DocumentType.JSON,
    ".jsonl": DocumentType.JSON,
    ".ndjson": DocumentType.JSON,
    ".txt": DocumentType.TEXT,
    ".text": DocumentType.TEXT,
    ".log": DocumentType.TEXT,
    ".rst": DocumentType.TEXT,
    ".eml": DocumentType.MAIL,
}
# Said of anything by who does not know.
_UNKNOWN = frozenset({"", "application/octet-stream", "binary/octet-stream", "text/plain"})
_HINT = (
    "PDF, DOCX, PPTX, XLSX, HTML, Markdown, CSV, JSON, plain text and e-mail are read;"
    " say which it is in Content-Type or by the file's name"
)

_ZIP = b"PK\x03\x04"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_PDF_WITHIN_BYTES = 1024
_ZIPPED = frozenset({DocumentType.DOCX, DocumentType.PPTX, DocumentType.XLSX})
_BINARY = _ZIPPED | {DocumentType.PDF}
_MARKS = [(mark.encode(), met) for mark, met in (_OF_MEDIA | _OF_SUFFIX).items()]


def type_of(content_type: str, file_name: str = "", *, head: bytes = b"") -> DocumentType:
    """`head` are the first bytes, where they are known. Raises DocumentTypeUnsupportedError."""
    media = media_type(content_type)
    suffix = PurePosixPath(file_name.replace("\\", "/")).suffix.lower()
    if media in _UNKNOWN and suffix in _OF_SUFFIX:
        return _OF_SUFFIX[suffix]
    if found := _OF_MEDIA.get(media):
        return found
    if media.startswith("text/"):
        return DocumentType.TEXT
    if media in _UNKNOWN and head.startswith(b"%PDF-"):
        return DocumentType.PDF
    what = media if media not in _UNKNOWN else f"files named *{suffix}" if suffix else "this"
    raise DocumentTypeUnsupportedError(f"{what} cannot be read", hint=_HINT)


def types_within(type_: DocumentType, data: bytes) -> list[DocumentType]:
    """The types that may be met in a file, its own among them: a mail has attachments."""
    found = {type_}
    if type_ not in _BINARY:
        found.add(DocumentType.TEXT)
    if type_ is DocumentType.MAIL:
        folded = data.lower()
        found.add(DocumentType.HTML)
        found |= {met for mark, met in _MARKS if mark in folded}
    return [met for met in DocumentType if met in found]


def media_type(content_type: str) -> str:
    """Without parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def charset_of(content_type: str) -> str | None:
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and (charset := value.strip().strip("\"'")):
            return charset[:40]
    return None


def check_bytes(type_: DocumentType, data: bytes) -> None:
    """Raises DocumentTypeMismatchError, DocumentEncryptedError, DocumentTypeUnsupportedError."""
    if type_ in _ZIPPED and data.startswith(_OLE):
        if _OLE_ENCRYPTED in data:
            raise DocumentEncryptedError(hint="save it without a password")
        raise DocumentTypeUnsupportedError(
            "it is a file of an older Office", hint="save it as DOCX, PPTX or XLSX"
        )
    if type_ is DocumentType.PDF:
        is_right = b"%PDF-" in data[:_PDF_WITHIN_BYTES]
    elif type_ in _ZIPPED:
        is_right = data.startswith(_ZIP)
    else:
        is_right = not data.startswith((b"%PDF-", _ZIP, _OLE))
    if not is_right:
        raise DocumentTypeMismatchError(
            f"the content is not {type_.value}", hint="send it with the content type that it is of"
        )
