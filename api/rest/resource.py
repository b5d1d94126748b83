"""`/rest/v1/{table}`: one statement, one round trip, rows passed on as the JSON Postgres made."""

from typing import Any

import msgspec
from falcon import MEDIA_JSON
from falcon.asgi import App, Request, Response

from butterbase.ai.body import decode_json, read_body
from butterbase.api.apps import AppRuntime
from butterbase.api.errors import InvalidBodyError
from butterbase.api.rest.parser import (
    SCHEMA,
    RestRequest,
    check_headers,
    check_is_plain,
    parse_request,
    wants_representation,
)
from butterbase.api.settings import ApiSettings
from butterbase.sql import render
from butterbase.sql.claims import Claims
from butterbase.sql.pipeline import Result, Statement

COLUMN_COUNT_MAX = 1600
NAME_BYTES_MAX = 63
"""Of a table and of a name: https://www.postgresql.org/docs/current/limits.html"""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def add_routes(app: "App[Any, Any]", prefix: str, settings: ApiSettings) -> None:
    table = TableResource(body_bytes_max=settings.body_bytes_max)
    app.add_route(f"{prefix}/rest/v1/{{table}}", table)


class TableResource:
    """Rows of a table of the app, under the caller's role and policies."""

    def __init__(self, *, body_bytes_max: int) -> None:
        self._body_bytes_max = body_bytes_max

    async def on_get(self, req: Request, resp: Response, table: str) -> None:
        asked = _asked(req)
        query = render.Select((SCHEMA, table), asked.columns, _names(asked), asked.order)
        values = (*_values(asked), _bytes(asked.limit), _bytes(asked.offset))
        _answer(resp, await _run(req, query, *values, read_only=True), 200)

    on_head = on_get  # Falcon leaves the body out

    async def on_post(self, req: Request, resp: Response, table: str) -> None:
        asked = _asked(req)
        if asked.filters:
            raise InvalidBodyError("an insert takes no filters")
        body = await read_body(req, bytes_max=self._body_bytes_max)
        names, rows = read_rows(body, asked.written)
        query = render.Insert((SCHEMA, table), names, _returning(req, asked))
        values = (rows,) if names else ()
        _answer(resp, await _run(req, query, *values), 201)

    async def on_patch(self, req: Request, resp: Response, table: str) -> None:
        asked = _asked(req)
        body = await read_body(req, bytes_max=self._body_bytes_max)
        names = read_object(body)
        check_is_plain(asked)
        query = render.Update((SCHEMA, table), names, _names(asked), _returning(req, asked))
        _answer(resp, await _run(req, query, body, *_values(asked)), 204)

    async def on_delete(self, req: Request, resp: Response, table: str) -> None:
        asked = _asked(req)
        check_is_plain(asked)
        query = render.Delete((SCHEMA, table), _names(asked), _returning(req, asked))
        _answer(resp, await _run(req, query, *_values(asked)), 204)


def read_rows(body: bytes, written: tuple[str, ...] = ()) -> tuple[tuple[str, ...], bytes]:
    """Column names, given or from the rows, and the rows as a JSON array.

    Raises InvalidBodyError.
    """
    if body.lstrip()[:1] != b"[":
        names = read_object(body, may_be_empty=True)
        return written or names, b"[" + body + b"]"
    objects = decode_json(_OBJECTS, body, _refusal)
    if not objects or not objects[0]:
        raise InvalidBodyError("the body holds no values")
    if written:
        return written, body
    names = _checked(objects[0])
    if any(row.keys() != objects[0].keys() for row in objects):
        raise InvalidBodyError("all objects of the body must have the same keys")
    return names, body


def read_object(body: bytes, *, may_be_empty: bool = False) -> tuple[str, ...]:
    """The names in a JSON object. Raises InvalidBodyError."""
    names = _checked(decode_json(_OBJECT, body, _refusal))
    if not names and not may_be_empty:
        raise InvalidBodyError("the body holds no values")
    return names


def _asked(req: Request) -> RestRequest:
    profile = req.get_header("Accept-Profile") or req.get_header("Content-Profile")
    check_headers(req.get_header("Accept"), profile, req.get_header("Prefer"))
    return parse_request(req.query_string)


def _refusal(reason: str) -> InvalidBodyError:
    return InvalidBodyError(f"the body is not JSON objects: {reason}")


def _checked(row: dict[str, msgspec.Raw]) -> tuple[str, ...]:
    """The row's names. Raises InvalidBodyError for what cannot be columns of one table."""
    if len(row) > COLUMN_COUNT_MAX:
        raise InvalidBodyError(f"an object of the body has more than {COLUMN_COUNT_MAX} keys")
    for name in row:
        if len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX:
            raise InvalidBodyError(f"the key {name[:NAME_BYTES_MAX]}… is too long for a column")
    return tuple(row)


async def _run(
    req: Request, query: render.Query, *values: bytes | None, read_only: bool = False
) -> Result:
    app: AppRuntime = req.context.app
    claims: Claims = req.context.claims
    statement = Statement(render.render(query), values)
    (result,) = await app.data.run_as(claims, statement, read_only=read_only)
    return result


def _answer(resp: Response, result: Result, status_without_rows: int) -> None:
    if result.row_count == 0:
        resp.status = status_without_rows
        return
    resp.status = 201 if status_without_rows == 201 else 200
    resp.content_type = MEDIA_JSON
    resp.data = result.value()


def _names(asked: RestRequest) -> tuple[str, ...]:
    return tuple(f.column for f in asked.filters)


def _values(asked: RestRequest) -> tuple[bytes, ...]:
    return tuple(f.value.encode() for f in asked.filters)


def _returning(req: Request, asked: RestRequest) -> tuple[str, ...] | None:
    return asked.columns if wants_representation(req.get_header("Prefer")) else None


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
