"""Collections and documents over HTTP: text in, passages out, under the caller's policies.

A document is a row; its chunks and their vectors follow from the log (projections/embeddings.py),
so `202 Accepted` means that the text is committed and its index will be.
"""

from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

import falcon
import msgspec
from falcon.asgi import App, Request, Response
from msgspec import Meta, Struct

from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.http.body import BodyTooLargeError, decode_json, read_body
from butterbase.ai.rag_errors import (
    CollectionNotFoundError,
    DocumentNotFoundError,
    RagRequestError,
)
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Executor, Result, Statement

QUERIES = load_queries("rag")

BODY_BYTES_MAX = 4 * 1024**2
"""Documents are text: a long book has one million characters."""

QUERY_LENGTH_MAX = 8_000

_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class NewCollection(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    name: _Name
    access_mode: Literal["private", "shared"] = "private"


class NewDocument(Struct, frozen=True, forbid_unknown_fields=True):
    text: Annotated[str, Meta(min_length=1)]
    title: Annotated[str, Meta(max_length=1000)] = ""
    source: Annotated[str, Meta(max_length=4000)] | None = None
    metadata: dict[str, Any] = {}


class Question(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    query: Annotated[str, Meta(min_length=1, max_length=QUERY_LENGTH_MAX)]
    top_k: Annotated[int, Meta(ge=1, le=100)] = 5
    threshold: Annotated[float, Meta(ge=-1, le=1)] = -1.0
    """Cosine similarity below which a passage is left out."""


_Body = TypeVar("_Body")
_NEW_COLLECTION = msgspec.json.Decoder(NewCollection)
_NEW_DOCUMENT = msgspec.json.Decoder(NewDocument)
_QUESTION = msgspec.json.Decoder(Question)


def add_routes(app: "App[Any, Any]", embedder: LazyEmbedder, *, prefix: str) -> None:
    """The middleware has set `req.context.claims` and `.app`, whose `data` is an Executor."""
    app.add_route(f"{prefix}/rag/collections", CollectionsResource())
    app.add_route(f"{prefix}/rag/collections/{{collection}}", CollectionResource())
    app.add_route(f"{prefix}/rag/{{collection}}/documents", DocumentsResource())
    app.add_route(f"{prefix}/rag/{{collection}}/documents/{{document}}", DocumentResource())
    app.add_route(f"{prefix}/rag/{{collection}}/query", QueryResource(embedder))


class CollectionsResource:
    async def on_get(self, req: Request, resp: Response) -> None:
        _answer(resp, await _run(req, "list_collections", read_only=True))

    async def on_post(self, req: Request, resp: Response) -> None:
        new = await _read(req, _NEW_COLLECTION)
        result = await _run(req, "create_collection", new.name.encode(), new.access_mode.encode())
        _answer(resp, result, 201)


class CollectionResource:
    async def on_delete(self, req: Request, resp: Response, collection: str) -> None:
        if not (await _run(req, "delete_collection", collection.encode())).row_count:
            raise CollectionNotFoundError
        resp.status = 204


class DocumentsResource:
    async def on_get(self, req: Request, resp: Response, collection: str) -> None:
        _answer(resp, await _run(req, "list_documents", collection.encode(), read_only=True))

    async def on_post(self, req: Request, resp: Response, collection: str) -> None:
        new = await _read(req, _NEW_DOCUMENT)
        result = await _run(
            req,
            "add_document",
            collection.encode(),
            new.title.encode(),
            None if new.source is None else new.source.encode(),
            new.text.encode(),
            msgspec.json.encode(new.metadata),
        )
        if not result.row_count:
            raise CollectionNotFoundError
        _answer(resp, result, 202)


class DocumentResource:
    async def on_get(self, req: Request, resp: Response, collection: str, document: str) -> None:
        key = (collection.encode(), _document_id(document))
        result = await _run(req, "get_document", *key, read_only=True)
        if not result.row_count:
            raise DocumentNotFoundError
        _answer(resp, result)

    async def on_delete(self, req: Request, resp: Response, collection: str, document: str) -> None:
        key = (collection.encode(), _document_id(document))
        if not (await _run(req, "delete_document", *key)).row_count:
            raise DocumentNotFoundError
        resp.status = 204


class QueryResource:
    """`POST query`: the passages nearest to a question."""

    def __init__(self, embedder: LazyEmbedder) -> None:
        self._embedder = embedder

    async def on_post(self, req: Request, resp: Response, collection: str) -> None:
        question = await _read(req, _QUESTION)
        name = collection.encode()
        counted = await _run(req, "count_collection", name, read_only=True)
        if counted.value() == b"0":
            raise CollectionNotFoundError
        embedder = await self._embedder.get()
        (vector,) = await embedder.embed([question.query])
        result = await _run(
            req,
            "find_passages",
            name,
            embedder.model.name.encode(),
            ("[" + ",".join(map(repr, vector.tolist())) + "]").encode(),
            str(question.top_k).encode(),
            str(question.threshold).encode(),
            read_only=True,
        )
        resp.content_type = falcon.MEDIA_JSON
        resp.data = b'{"passages":' + (result.value() or b"[]") + b"}"


async def _run(req: Request, name: str, *values: bytes | None, read_only: bool = False) -> Result:
    executor: Executor = req.context.app.data
    statement = Statement(QUERIES[name], values)
    (result,) = await executor.run_as(req.context.claims, statement, read_only=read_only)
    return result


async def _read(req: Request, decoder: "msgspec.json.Decoder[_Body]") -> _Body:
    try:
        body = await read_body(req, bytes_max=BODY_BYTES_MAX)
    except BodyTooLargeError as error:
        raise BodyTooLargeError(
            error.message, hint="documents are text: send the text alone, or in several documents"
        ) from None
    return decode_json(decoder, body, _refusal)


def _refusal(reason: str) -> RagRequestError:
    return RagRequestError(f"the body cannot be read: {reason}")


def _document_id(text: str) -> bytes:
    try:
        return str(UUID(text)).encode()
    except ValueError:
        raise DocumentNotFoundError from None


def _answer(resp: Response, result: Result, status: int = 200) -> None:
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = result.value()
