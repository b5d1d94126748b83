"""What keeps a file, or what a URL leads to, from becoming a document.

RagError
└── DocumentError
    ├── DocumentTypeUnsupportedError   no parser reads it
    ├── DocumentTypeMismatchError      the bytes are not what they are said to be
    ├── DocumentMalformedError         its format is broken
    ├── DocumentEncryptedError         it has a password
    ├── DocumentEmptyError             there is no text in it
    ├── DocumentTooLargeError          bytes, pages, cells or characters
    ├── DocumentTooComplexError        it takes more memory or time than a document may
    ├── ParserError                    not the document's fault for certain: it is tried again
    │   ├── ParserCrashedError
    │   ├── ParserTimeoutError
    │   └── ParserUnavailableError
    ├── FetchRefusedError              the URL, or what answers there, is not to be had
    └── FetchFailedError               it may be another time
"""

from typing import ClassVar

from butterbase.ai.rag.errors import RagError


class DocumentError(RagError):
    """The document could not be read."""

    code = "document_error"
    is_permanent: ClassVar[bool] = True
    """Whether the same document will fail in the same way again."""
    attempt_count_max: ClassVar[int] = 5
    """How often it is tried where it may go well another time."""


class DocumentTypeUnsupportedError(DocumentError):
    """Documents of this type are not read."""

    code = "document_type_unsupported"


class DocumentTypeMismatchError(DocumentError):
    """The content is not of the type that it is said to be."""

    code = "document_type_mismatch"


class DocumentMalformedError(DocumentError):
    """The file is damaged."""

    code = "document_malformed"


class DocumentEncryptedError(DocumentError):
    """The file is protected by a password."""

    code = "document_encrypted"


class DocumentEmptyError(DocumentError):
    """There is no text in the document."""

    code = "document_empty"


class DocumentTooLargeError(DocumentError):
    """The document is larger than is allowed."""

    code = "document_too_large"


class DocumentTooComplexError(DocumentError):
    """The document takes more memory or time than is allowed."""

    code = "document_too_complex"


class ParserError(DocumentError):
    """The document could not be read this time."""

    code = "document_parser_failed"
    is_permanent = False


class ParserCrashedError(ParserError):
    """The process that read the document ended early."""

    code = "document_parser_crashed"


class ParserTimeoutError(ParserError):
    """Reading the document took too long."""

    code = "document_parser_timeout"
    # Most often it is the file, not what else the machine has to do; and others wait for its turn.
    attempt_count_max = 2


class ParserUnavailableError(ParserError):
    """Files cannot be read on this server."""

    code = "document_parser_unavailable"


class FetchRefusedError(DocumentError):
    """The URL cannot be fetched."""

    code = "document_fetch_refused"


class FetchFailedError(DocumentError):
    """The URL could not be fetched this time."""

    code = "document_fetch_failed"
    is_permanent = False


OF_PARSERS: dict[str, type[DocumentError]] = {
    cls.code: cls
    for cls in (
        DocumentTypeUnsupportedError,
        DocumentTypeMismatchError,
        DocumentMalformedError,
        DocumentEncryptedError,
        DocumentEmptyError,
        DocumentTooLargeError,
        DocumentTooComplexError,
        ParserUnavailableError,
    )
}
"""What a parsing process may say of its document."""
