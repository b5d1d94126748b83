"""`rag/{collection}/documents`: text, pages and files, and how they fare.

`202 Accepted`: it is committed, and will be read (ai/documents/worker.py), cut and embedded.
"""

import re
from typing import Annotated, Any, Literal, assert_never, get_args
from uuid import uuid4

import falcon
import msgspec
from falcon.asgi import Request, Response
from msgspec import UNSET, Meta, Struct, UnsetType

from butterbase.ai.documents.settings import DocumentSettings
from butterbase.ai.rag.errors import (
    CollectionNotFoundError,
    DocumentNotFoundError,
    DocumentNotParsedError,
    NothingToIngestError,
    RagRequestError,
)
from butterbase.ai.rag.ingestion import (
    Ingestion,
    Text,
    Upload,
    Url,
    check_metadata,
    read_ingestion,
)
from butterbase.ai.rag.requests import answer, document_id, read, run_all
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Result, Statement
from butterbase.sql.pipeline.statement import Value, bytea

QUERIES = load_queries("rag_documents")

PART_BYTES = 1024**2
LISTED_COUNT = 100
LISTED_COUNT_MAX = 1000
TEXT_CHARS_MAX = 16 * 1024**2

Status = Literal[
    "received", "fetching", "parsing", "chunking", "embedding", "ready", "failed", "dead"
]

_CURSOR = re.compile(r"-?[0-9]{1,18}_[0-9a-f-]{36}")


class DocumentChange(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is left out stays as it is."""

    title: Annotated[str, Meta(max_length=1000)] | UnsetType = UNSET
    source: Annotated[str, Meta(max_length=4000)] | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET


_CHANGE = msgspec.json.Decoder(DocumentChange)


class DocumentsResource:
    def __init__(self, settings: DocumentSettings) -> None:
        self._settings = settings

    async def on_get(self, req: Request, resp: Response, collection: str) -> None:
        status, after = req.get_param("status"), req.get_param("after")
        if status is not None and status not in get_args(Status):
            raise RagRequestError(f"status must be one of {', '.join(get_args(Status))}")
        if after is not None and not _CURSOR.fullmatch(after):
            raise RagRequestError("after must be what `next` said")
        limit = _number(req, "limit", LISTED_COUNT, least=1, most=LISTED_COUNT_MAX)
        (result,) = await run_all(
            req, _statement("list_documents", collection, status, limit, after), read_only=True
        )
        if not result.row_count:
            raise CollectionNotFoundError
        answer(resp, result.value())

    async def on_post(self, req: Request, resp: Response, collection: str) -> None:
        new = await read_ingestion(req, self._settings)
        id_, said = str(uuid4()), new.said
        text = new.text if isinstance(new, Text) else None
        added = _statement(
            "add_document",
            collection,
            id_,
            said.title or "",
            said.source,
            text,
            msgspec.json.encode(said.metadata or {}),
        )
        first, *_ = await run_all(req, added, *_ingestion(id_, new))
        if not first.row_count:
            raise CollectionNotFoundError
        answer(resp, first.value(), 202)


class DocumentResource:
    async def on_get(self, req: Request, resp: Response, collection: str, document: str) -> None:
        statement = _statement("get_document", collection, document_id(document))
        (result,) = await run_all(req, statement, read_only=True)
        answer(resp, _found(result))

    async def on_patch(self, req: Request, resp: Response, collection: str, document: str) -> None:
        id_ = document_id(document)
        body = await read(req, _CHANGE)
        if body.metadata is not UNSET:
            check_metadata(body.metadata)
        change = msgspec.json.encode(body)
        changed, shown = await run_all(
            req,
            _statement("change_document", collection, id_, change),
            _statement("get_document", collection, id_),
        )
        _found(changed)
        answer(resp, shown.value())

    async def on_delete(self, req: Request, resp: Response, collection: str, document: str) -> None:
        statement = _statement("delete_document", collection, document_id(document))
        _found(*await run_all(req, statement))
        resp.status = 204


class DocumentTextResource:
    """`GET text`: what passages' places are places in."""

    async def on_get(self, req: Request, resp: Response, collection: str, document: str) -> None:
        start = _number(req, "start", 0, least=0, most=TEXT_CHARS_MAX)
        end = _number(req, "end", TEXT_CHARS_MAX, least=start, most=TEXT_CHARS_MAX)
        (result,) = await run_all(
            req,
            _statement("get_text", collection, document_id(document), start, end - start),
            read_only=True,
        )
        _found(result)
        if (text := result.value()) is None:
            raise DocumentNotParsedError(hint="its status and error say why")
        resp.content_type = falcon.MEDIA_TEXT
        # Somebody's file, on our own origin.
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Butterbase-Characters", (result.value(column=1) or b"0").decode())
        resp.data = text


class IngestResource:
    """`POST ingest`: the document anew, of what it was made of, or of what is sent.

    What is found of it stays as it is until the new text has all its passages.
    """

    def __init__(self, settings: DocumentSettings) -> None:
        self._settings = settings

    async def on_post(self, req: Request, resp: Response, collection: str, document: str) -> None:
        id_ = document_id(document)
        new = None
        if req.content_length or req.get_header("Transfer-Encoding"):
            new = await read_ingestion(req, self._settings)
        (found,) = await run_all(req, _statement("find_document", collection, id_))
        _found(found)
        statements = _again(id_, found) if new is None else _replacing(id_, new)
        (first, *_, shown) = await run_all(
            req, *statements, _statement("get_document", collection, id_)
        )
        if not first.row_count:
            raise DocumentNotFoundError
        answer(resp, shown.value(), 202)


def _again(id_: bytes, found: Result) -> list[Statement]:
    """Raises NothingToIngestError."""
    has_url, has_bytes = (found.value(column=at) == b"t" for at in (0, 1))
    if not (has_url or has_bytes):
        raise NothingToIngestError(hint="send its text, its URL or its file with the request")
    return [_statement("ingest_again", id_)]


def _replacing(id_: bytes, new: Ingestion) -> list[Statement]:
    said = new.said
    metadata = None if said.metadata is None else msgspec.json.encode(said.metadata)
    if isinstance(new, Text):
        first = _statement("replace_text", id_, new.text, said.title, said.source, metadata)
    else:
        first = _statement("describe_again", id_, said.title, said.source, metadata)
    return [first, _statement("drop_ingestion", id_), *_ingestion(id_, new)]


def _ingestion(id_: str | bytes, new: Ingestion) -> list[Statement]:
    match new:
        case Text():
            return []
        case Url():
            return [_statement("add_ingestion", id_, "fetch", "", "", new.url, None)]
        case Upload(data=data):
            parts = range(0, len(data), PART_BYTES)
            return [
                _statement(
                    "add_ingestion", id_, "parse", new.content_type, new.file_name, None, len(data)
                ),
                *(
                    _statement("add_upload", id_, at, bytea(data[start : start + PART_BYTES]))
                    for at, start in enumerate(parts)
                ),
            ]
        case _:
            assert_never(new)


def _statement(name: str, *values: Value) -> Statement:
    return Statement.of(QUERIES[name], *values)


def _found(result: Result) -> bytes | None:
    if not result.row_count:
        raise DocumentNotFoundError
    return result.value()


def _number(req: Request, name: str, default: int, *, least: int, most: int) -> int:
    text = req.get_param(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most:
        return int(text)
    raise RagRequestError(f"{name} must be a number from {least} to {most}")
