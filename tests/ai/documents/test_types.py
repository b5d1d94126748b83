import pytest

from butterbase.ai.documents.errors import (
    DocumentEncryptedError,
    DocumentTypeMismatchError,
    DocumentTypeUnsupportedError,
)
from butterbase.ai.documents.types import (
    DocumentType,
    charset_of,
    check_bytes,
    type_of,
    types_within,
)
from tests.ai.documents import making

OLE = bytes.fromhex("d0cf11e0a1b11ae1")


@pytest.mark.parametrize(
    ("content_type", "name", "expected"),
    [
        ("application/pdf", "", DocumentType.PDF),
        ("APPLICATION/PDF; x=y", "", DocumentType.PDF),
        ("", "a.PDF", DocumentType.PDF),
        ("application/octet-stream", "a.docx", DocumentType.DOCX),
        ("text/plain", "a.md", DocumentType.MARKDOWN),
        ("text/plain", "a.unknown", DocumentType.TEXT),
        ("text/html; charset=utf-8", "a.pdf", DocumentType.HTML),
        ("text/x-python", "a.py", DocumentType.TEXT),
        ("message/rfc822", "", DocumentType.MAIL),
        ("", "C:\\folder.md\\a.csv", DocumentType.CSV),
    ],
)
def test_the_type_is_what_is_said_and_else_what_the_name_says(
    content_type: str, name: str, expected: DocumentType
) -> None:
    assert type_of(content_type, name) is expected


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        ("image/png", "a.pdf"),
        ("", "a.exe"),
        ("", ""),
        ("application/msword", "a.doc"),
        ("nonsense", ""),
    ],
)
def test_what_no_parser_reads_is_refused(content_type: str, name: str) -> None:
    with pytest.raises(DocumentTypeUnsupportedError) as refused:
        type_of(content_type, name)
    assert "DOCX" in str(refused.value.hint)


def test_a_pdf_is_known_without_a_name() -> None:
    assert type_of("application/octet-stream", "", head=b"%PDF-1.7") is DocumentType.PDF


def test_an_office_file_with_a_password_is_told_from_an_old_one() -> None:
    with pytest.raises(DocumentEncryptedError):
        check_bytes(DocumentType.DOCX, OLE + "EncryptedPackage".encode("utf-16-le"))
    with pytest.raises(DocumentTypeUnsupportedError):
        check_bytes(DocumentType.DOCX, OLE + bytes(100))


@pytest.mark.parametrize("type_", [DocumentType.PDF, DocumentType.XLSX, DocumentType.HTML])
def test_bytes_of_another_type_are_refused(type_: DocumentType) -> None:
    other = b"PK\3\4" if type_ is not DocumentType.XLSX else b"%PDF-1.7"
    with pytest.raises(DocumentTypeMismatchError):
        check_bytes(type_, other)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [("text/plain", None), ('text/plain; a=b; Charset="KOI8-R"', "KOI8-R"), ("x; charset=", None)],
)
def test_charset(content_type: str, expected: str | None) -> None:
    assert charset_of(content_type) == expected


def test_a_mails_attachments_are_known_beforehand() -> None:
    found = types_within(DocumentType.MAIL, making.mail())
    assert {DocumentType.MAIL, DocumentType.TEXT, DocumentType.HTML, DocumentType.CSV} <= set(found)
    assert DocumentType.PPTX not in found
