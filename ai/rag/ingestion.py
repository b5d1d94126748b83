"""What a document is made of, as requests say it: text, a URL, or a file.

JSON has text or a URL. A file comes as multipart/form-data, field `file`, or as the whole body with
its own Content-Type. https://www.rfc-editor.org/rfc/rfc7578
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, TypeAlias
from urllib.parse import unquote

import falcon
import msgspec
from falcon.asgi import Request
from falcon.asgi.multipart import BodyPart
from msgspec import Meta, Struct

from butterbase.ai.documents.errors import DocumentEmptyError
from butterbase.ai.documents.fetching import check_address, check_url
from butterbase.ai.documents.settings import DocumentSettings
from butterbase.ai.documents.types import media_type, type_of
from butterbase.ai.http.body import BodyTooLargeError, read_body
from butterbase.ai.rag.errors import RagRequestError, StorageObjectError
from butterbase.ai.rag.requests import decode, read

FIELD_BYTES_MAX = 64 * 1024
"""Of a multipart field besides the file."""
FIELD_COUNT_MAX = 16
METADATA_BYTES_MAX = 32 * 1024
"""Each passage has a copy."""

_Title = Annotated[str, Meta(max_length=1000)]
_Source = Annotated[str, Meta(max_length=4000)]
_Url = Annotated[str, Meta(min_length=1, max_length=4000)]
# `curl -d` calls all that it sends a form.
_JSON = frozenset({"", "application/json", "application/x-www-form-urlencoded"})
_FILE_NAME = re.compile(
    r"""filename\*?=(?:UTF-8'[^']*')?("(?:[^"\\]|\\.)*"|[^;]+)""", re.IGNORECASE
)


class Said(Struct, frozen=True, forbid_unknown_fields=True):
    """Of the document, whatever it is made of."""

    title: _Title | None = None
    source: _Source | None = None
    metadata: dict[str, Any] | None = None


class JsonDocument(Said, frozen=True, forbid_unknown_fields=True):
    text: Annotated[str, Meta(min_length=1)] | None = None
    url: _Url | None = None
    storage: msgspec.Raw = msgspec.Raw()


class Text(Struct, frozen=True):
    said: Said
    text: str


class Url(Struct, frozen=True):
    said: Said
    url: str


class Upload(Struct, frozen=True):
    said: Said
    data: bytes
    content_type: str
    file_name: str


Ingestion: TypeAlias = Text | Url | Upload

_DOCUMENT = msgspec.json.Decoder(JsonDocument)
_METADATA = msgspec.json.Decoder(dict[str, Any])


async def read_ingestion(req: Request, settings: DocumentSettings) -> Ingestion:
    """Raises RagRequestError, BodyTooLargeError, StorageObjectError, DocumentError."""
    bytes_max = settings.documents_bytes_max
    kind = media_type(req.content_type or "")
    if kind in _JSON:
        body = await read(req, _DOCUMENT)
        return _from_json(body, is_private_allowed=settings.documents_private_urls)
    if kind == "multipart/form-data":
        upload = await _from_form(req, bytes_max)
    else:
        name = req.get_param("filename") or _disposed(req.get_header("Content-Disposition"))
        said = _said({k: v for k in _SAID if (v := req.get_param(k)) is not None})
        data = await _file(req, bytes_max)
        upload = Upload(said, data, (req.content_type or "")[:255], _base_name(name))
    if not upload.data:
        raise DocumentEmptyError("the file is empty")
    # Refused at once, where it can be seen at once.
    type_of(upload.content_type, upload.file_name, head=upload.data[:8])
    return upload


def check_metadata(metadata: dict[str, Any]) -> None:
    """Raises RagRequestError."""
    if len(msgspec.json.encode(metadata)) > METADATA_BYTES_MAX:
        raise RagRequestError(
            f"metadata is larger than {METADATA_BYTES_MAX} bytes",
            hint="it is for what passages are filtered by; texts belong into the document",
        )


def _from_json(body: JsonDocument, *, is_private_allowed: bool) -> Ingestion:
    if bytes(body.storage):
        raise StorageObjectError(
            hint="send the file itself, as multipart/form-data or with its own Content-Type"
        )
    said = Said(body.title, body.source, body.metadata)
    check_metadata(said.metadata or {})
    if (body.text is None) == (body.url is None):
        raise RagRequestError(
            "the body must have either text or url",
            hint="a file is sent as multipart/form-data, or with its own Content-Type",
        )
    if body.url is None:
        assert body.text is not None
        if not body.text.strip():
            raise DocumentEmptyError("the text is blank")
        return Text(said, body.text)
    url = check_url(body.url)
    if not is_private_allowed:
        check_address(url)
    return Url(said, body.url)


_SAID = ("title", "source", "metadata")


async def _from_form(req: Request, bytes_max: int) -> Upload:
    fields: dict[str, str] = {}
    file: tuple[bytes, str, str] | None = None
    if (req.content_length or 0) > bytes_max + FIELD_COUNT_MAX * FIELD_BYTES_MAX:
        _too_large(bytes_max)
    try:
        async for part in await req.get_media():
            if part.name == "file":
                if file is not None:
                    raise RagRequestError("one file makes a document: send each by itself")
                data = await _bounded(part, bytes_max)
                file = data, part.content_type[:255], _base_name(part.filename)
            elif part.name in _SAID and len(fields) < FIELD_COUNT_MAX:
                fields[part.name] = (await _bounded(part, FIELD_BYTES_MAX)).decode()
            else:
                raise RagRequestError(
                    f"there is no field {part.name!r}"[:200],
                    hint="the fields are file, title, source and metadata",
                )
    except (falcon.HTTPError, UnicodeDecodeError, ValueError) as error:
        raise RagRequestError("the multipart body cannot be read") from error
    if file is None:
        raise RagRequestError("the form has no field `file`")
    return Upload(_said(fields), *file)


async def _bounded(part: BodyPart, bytes_max: int) -> bytes:
    data = bytearray()
    while piece := await part.stream.read(64 * 1024):
        data += piece
        if len(data) > bytes_max:
            _too_large(bytes_max)
    return bytes(data)


async def _file(req: Request, bytes_max: int) -> bytes:
    try:
        return await read_body(req, bytes_max=bytes_max)
    except BodyTooLargeError:
        _too_large(bytes_max)


def _too_large(bytes_max: int) -> NoReturn:
    raise BodyTooLargeError(
        f"it is larger than {bytes_max} bytes",
        hint="the operator can allow more with documents_bytes_max",
    )


def _said(fields: Mapping[str, str]) -> Said:
    """Raises RagRequestError."""
    given: dict[str, Any] = dict(fields)
    if "metadata" in given:
        given["metadata"] = decode(_METADATA, given["metadata"].encode())
    try:
        said = msgspec.convert(given, Said)
    except msgspec.ValidationError as error:
        raise RagRequestError(str(error)) from error
    check_metadata(said.metadata or {})
    return said


def _disposed(header: str | None) -> str:
    found = _FILE_NAME.search(header or "")
    return unquote(found[1].strip().strip('"')) if found else ""


def _base_name(name: str | None) -> str:
    """Without folders, which some browsers send."""
    base = re.split(r"[/\\]", name or "")[-1]
    return "".join(c for c in base if c.isprintable()).encode("utf-8", "replace").decode()[:255]
