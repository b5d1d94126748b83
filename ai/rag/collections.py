"""`rag/collections`: named sets of documents, and how their text is cut and embedded."""

from typing import Annotated, Literal

import msgspec
from falcon.asgi import Request, Response
from msgspec import UNSET, Meta, Struct, UnsetType

from butterbase.ai.rag.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    RagRequestError,
)
from butterbase.ai.rag.requests import CheckModel, Name, answer, read, run_all
from butterbase.sql.catalog import load_queries
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Result, Statement

QUERIES = load_queries("rag_collections")

CHUNK_TOKENS = 200
OVERLAP_TOKENS = 30

RESERVED_NAMES = frozenset({"collections", "indexes"})
"""What stands in their place in paths: `rag/indexes/{name}/query`."""

_ChunkTokens = Annotated[int, Meta(ge=16, le=4000)]
_OverlapTokens = Annotated[int, Meta(ge=0, le=2000)]
_Text = Annotated[str, Meta(min_length=1, max_length=200)]
_Function = Annotated[
    str, Meta(pattern=r"\A[A-Za-z_][A-Za-z0-9_$]{0,62}\.[A-Za-z_][A-Za-z0-9_$]{0,62}\Z")
]
_AccessMode = Literal["private", "shared", "custom"]


class NewCollection(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    name: Name
    access_mode: _AccessMode = "private"
    read_policy: _Function | None = None
    """Of mode custom: a function `(ai.documents) returns boolean`, as `schema.name`."""
    chunk_tokens: _ChunkTokens = CHUNK_TOKENS
    overlap_tokens: _OverlapTokens = OVERLAP_TOKENS
    model: _Text | None = None
    language: _Text | None = None


class CollectionChange(
    Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    """What is left out stays as it is."""

    name: Name | UnsetType = UNSET
    access_mode: _AccessMode | UnsetType = UNSET
    read_policy: _Function | UnsetType | None = UNSET
    chunk_tokens: _ChunkTokens | UnsetType = UNSET
    overlap_tokens: _OverlapTokens | UnsetType = UNSET
    model: _Text | UnsetType | None = UNSET
    language: _Text | UnsetType | None = UNSET


_NEW = msgspec.json.Decoder(NewCollection)
_CHANGE = msgspec.json.Decoder(CollectionChange)


class CollectionsResource:
    def __init__(self, check_model: CheckModel) -> None:
        self._check_model = check_model

    async def on_get(self, req: Request, resp: Response) -> None:
        answer(resp, (await _run(req, "list_collections", read_only=True)).value())

    async def on_post(self, req: Request, resp: Response) -> None:
        new = await read(req, _NEW)
        _check_name(new.name)
        await self._check_model(req.context.app_id, new.model)
        if (new.read_policy is not None) != (new.access_mode == "custom"):
            raise RagRequestError(
                "readPolicy and accessMode custom belong together",
                hint="readPolicy names a function (ai.documents) returns boolean: public.may_read",
            )
        _check_overlap(new.chunk_tokens, new.overlap_tokens)
        result = await _run(req, "create_collection", new.name.encode(), msgspec.json.encode(new))
        answer(resp, result.value(), 201)


class CollectionResource:
    def __init__(self, check_model: CheckModel) -> None:
        self._check_model = check_model

    async def on_get(self, req: Request, resp: Response, collection: str) -> None:
        answer(resp, _found(await _run(req, "get_collection", collection.encode(), read_only=True)))

    async def on_patch(self, req: Request, resp: Response, collection: str) -> None:
        change = await read(req, _CHANGE)
        if change.name is not UNSET:
            _check_name(change.name)
        await self._check_model(req.context.app_id, change.model)
        if change.chunk_tokens is not UNSET and change.overlap_tokens is not UNSET:
            _check_overlap(change.chunk_tokens, change.overlap_tokens)
        result = await _run(
            req, "change_collection", collection.encode(), msgspec.json.encode(change)
        )
        answer(resp, _found(result))

    async def on_delete(self, req: Request, resp: Response, collection: str) -> None:
        _found(await _run(req, "delete_collection", collection.encode()))
        resp.status = 204


def _found(result: Result) -> bytes | None:
    if not result.row_count:
        raise CollectionNotFoundError
    return result.value()


def _check_name(name: str) -> None:
    if name in RESERVED_NAMES:
        raise RagRequestError(
            f"a collection cannot be named {name}",
            hint="paths have that word in the place of a collection's name",
        )


def _check_overlap(chunk_tokens: int, overlap_tokens: int) -> None:
    if overlap_tokens * 2 >= chunk_tokens:
        raise RagRequestError("overlapTokens must be less than half of chunkTokens")


async def _run(req: Request, name: str, *values: bytes, read_only: bool = False) -> Result:
    """Raises CollectionExistsError, RagRequestError, DatabaseError."""
    try:
        (result,) = await run_all(req, Statement(QUERIES[name], values), read_only=read_only)
    except DatabaseError as error:
        match error.sqlstate:
            case "23505":
                raise CollectionExistsError from error
            case "42704":
                raise RagRequestError(error.message, hint=error.hint) from error
            case "23514":
                raise RagRequestError(
                    "the collection cannot be so",
                    hint="overlapTokens must be less than half of chunkTokens, and a readPolicy"
                    " belongs to accessMode custom alone",
                ) from error
            case _:
                raise
    return result
