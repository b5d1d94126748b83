"""E-mail, RFC 5322 and MIME: who wrote to whom, the text, and what is attached and can be read."""

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from itertools import islice

from butterbase.ai.documents.blocks import (
    PROPERTY_CHARS_MAX,
    Block,
    Found,
    Info,
    Kind,
    Source,
    heading,
)
from butterbase.ai.documents.errors import DocumentError
from butterbase.ai.documents.parsers import html
from butterbase.ai.documents.parsers.characters import decode
from butterbase.ai.documents.reading import read
from butterbase.ai.documents.types import DocumentType, type_of

DEPTH_MAX = 3
"""A mail in a mail in a mail."""
PART_COUNT_MAX = 200

_SHOWN = ("From", "To", "Cc", "Date", "Subject")


def parse(data: bytes, _source: Source) -> Iterator[Found]:
    # With the policy of old headers come back as they are written, however broken.
    mail = message_from_bytes(data, _class=EmailMessage, policy=policy.default)
    yield Info(title=_header(mail, "Subject"), properties=_properties(mail))
    yield from _mail(mail, 1)


def _properties(mail: EmailMessage) -> dict[str, str]:
    found = {"author": _header(mail, "From"), "date": _header(mail, "Date")}
    return {name: value for name, value in found.items() if value}


def _mail(mail: EmailMessage, depth: int) -> Iterator[Block]:
    headers = [f"{name}: {value}" for name in _SHOWN if (value := _header(mail, name))]
    if headers:
        yield Block(Kind.TEXT, "\n".join(headers))
    body = mail.get_body(("plain", "html"))
    if isinstance(body, EmailMessage):
        yield from _body(body)
    for part in islice(_attachments(mail, body), PART_COUNT_MAX):
        yield from _attachment(part, depth)


def _body(part: EmailMessage) -> Iterator[Block]:
    text = decode(_content(part), part.get_content_charset())
    if part.get_content_subtype() == "html":
        yield from (found for found in html.parse_text(text) if isinstance(found, Block))
    else:
        yield Block(Kind.TEXT, text)


def _attachments(mail: EmailMessage, body: object) -> Iterator[EmailMessage]:
    """Not the pictures and the other form of the text that belong to it."""
    stack = [mail]
    while stack:
        part = stack.pop()
        kind = part.get_content_type()
        if kind == "multipart/alternative" or part is body:
            continue
        if part.get_content_maintype() == "multipart":
            stack += reversed(_parts(part))
        elif part is not mail:
            yield part


def _parts(part: EmailMessage) -> list[EmailMessage]:
    payload = part.get_payload()
    if not isinstance(payload, list):
        return []
    return [inner for inner in payload if isinstance(inner, EmailMessage)]


def _attachment(part: EmailMessage, depth: int) -> Iterator[Block]:
    name = " ".join((part.get_filename() or "").split())[:PROPERTY_CHARS_MAX]
    if part.get_content_type() == "message/rfc822":
        inner = _parts(part)
        if inner and depth < DEPTH_MAX:
            yield heading(1, f"Attachment: {name or _header(inner[0], 'Subject') or 'mail'}")
            yield from _mail(inner[0], depth + 1)
        return
    try:
        type_ = type_of(part.get_content_type(), name)
        source = Source(file_name=name, charset=part.get_content_charset())
        # Whole before any of it is told: what cannot be read to its end is named alone.
        found = [] if type_ is DocumentType.MAIL else _blocks(type_, _content(part), source)
    except (DocumentError, ImportError):
        found = []
    if found or name:
        yield heading(1, f"Attachment: {name or 'without a name'}")
    yield from found


def _blocks(type_: DocumentType, data: bytes, source: Source) -> list[Block]:
    # Pages are the attachment's own, and not the mail's.
    return [
        Block(found.kind, found.text, found.level)
        for found in read(type_, data, source)
        if isinstance(found, Block)
    ]


def _content(part: EmailMessage) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _header(mail: EmailMessage, name: str) -> str:
    try:
        value = mail.get(name)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):
        return ""  # the library's parser of headers stumbles over some broken ones
    return "" if value is None else " ".join(str(value).split())[:PROPERTY_CHARS_MAX]
