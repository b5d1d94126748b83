"""Indexes over columns of tables: over HTTP what ai.index() and the like are in SQL.

For the service role: an index is a part of the schema, and so the developer's.
"""

from typing import Annotated

import msgspec
from falcon.asgi import Request, Response
from msgspec import UNSET, Meta, Struct, UnsetType

from butterbase.ai.rag.errors import IndexExistsError, IndexNotFoundError, RagRequestError
from butterbase.ai.rag.requests import CheckModel, Name, answer, read
from butterbase.sql.catalog import load_queries
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor, Result, Statement

QUERIES = load_queries("rag_indexes")

DEAD_ROWS_SHOWN = 100
UNDEFINED_OBJECT, DUPLICATE_OBJECT = "42704", "42710"
CHECK_VIOLATION = "23514"
"""Of the sizes: all else is checked before."""

_Column = Annotated[str, Meta(min_length=1, max_length=63)]
_Tokens = Annotated[int, Meta(ge=16, le=4000)]
_Overlap = Annotated[int, Meta(ge=0, le=2000)]
_Text = Annotated[str, Meta(min_length=1, max_length=200)]


class NewIndex(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    table: Annotated[str, Meta(min_length=1, max_length=200)]
    """As SQL has it: `public.posts`."""
    columns: Annotated[tuple[_Column, ...], Meta(min_length=1, max_length=100)]
    name: Name | None = None
    filter: Annotated[tuple[_Column, ...], Meta(max_length=100)] = ()
    chunk_tokens: _Tokens = 200
    overlap_tokens: _Overlap = 30
    model: _Text | None = None
    language: _Text | None = None


class IndexChange(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    chunk_tokens: _Tokens | UnsetType = UNSET
    overlap_tokens: _Overlap | UnsetType = UNSET
    model: _Text | UnsetType = UNSET
    language: _Text | UnsetType = UNSET


_NEW_INDEX = msgspec.json.Decoder(NewIndex)
_INDEX_CHANGE = msgspec.json.Decoder(IndexChange)


class IndexesResource:
    def __init__(self, check_model: CheckModel) -> None:
        self._check_model = check_model

    async def on_get(self, req: Request, resp: Response) -> None:
        listed = await _run(req, "list_indexes", None)
        answer(resp, b'{"indexes":' + (listed.value() or b"[]") + b"}")

    async def on_post(self, req: Request, resp: Response) -> None:
        new = await read(req, _NEW_INDEX)
        await self._check_model(req.context.app_id, new.model)
        made = await _run(req, "create_index", new.table.encode(), msgspec.json.encode(new))
        answer(resp, made.value(), 201)


class IndexResource:
    def __init__(self, check_model: CheckModel) -> None:
        self._check_model = check_model

    async def on_get(self, req: Request, resp: Response, index: str) -> None:
        listed = await _run(req, "list_indexes", index.encode())
        versions = listed.value() or b"[]"
        if versions == b"[]":
            raise IndexNotFoundError
        dead = await _run(req, "dead_rows", index.encode(), str(DEAD_ROWS_SHOWN).encode())
        answer(resp, b'{"versions":' + versions + b',"dead":' + (dead.value() or b"[]") + b"}")

    async def on_patch(self, req: Request, resp: Response, index: str) -> None:
        """A version beside the one in use, which it replaces when it is complete."""
        change = await read(req, _INDEX_CHANGE)
        await self._check_model(req.context.app_id, change.model)
        await _run(req, "alter_index", index.encode(), msgspec.json.encode(change))
        resp.status = 202

    async def on_delete(self, req: Request, resp: Response, index: str) -> None:
        await _run(req, "drop_index", index.encode())
        resp.status = 204


class IndexRetryResource:
    async def on_post(self, req: Request, resp: Response, index: str) -> None:
        """Rows that were given up are tried again."""
        answer(resp, (await _run(req, "retry_index", index.encode())).value(), 202)


async def _run(req: Request, name: str, *values: bytes | None) -> Result:
    """Raises IndexNotFoundError, IndexExistsError, RagRequestError."""
    executor: Executor = req.context.app.data
    try:
        (result,) = await executor.run_as(req.context.claims, Statement(QUERIES[name], values))
    except DatabaseError as error:
        if error.sqlstate == UNDEFINED_OBJECT and error.message.startswith("there is no index"):
            raise IndexNotFoundError from None
        if error.sqlstate == CHECK_VIOLATION:
            raise RagRequestError("overlapTokens must be less than half of chunkTokens") from error
        if error.sqlstate == DUPLICATE_OBJECT:
            raise IndexExistsError(error.message, hint="choose another name") from None
        raise
    return result
