"""A provider that is no OIDC issuer, on a real socket: it answers by path, and keeps requests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl

import falcon.asgi
from falcon.asgi import Request, Response

from tests.serving import serving


@dataclass
class Vendor:
    answers: dict[str, Any]
    """By path, JSON, or bytes that are none; a status beside it where it is not 200."""
    url: str = ""
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of the last request, by path."""
    queries: dict[str, dict[str, str]] = field(default_factory=dict)
    forms: dict[str, dict[str, str]] = field(default_factory=dict)

    async def sink(self, req: Request, resp: Response) -> None:
        self.headers[req.path] = dict(req.headers)
        self.queries[req.path] = dict(parse_qsl(req.query_string))
        self.forms[req.path] = dict(parse_qsl((await req.stream.read()).decode()))
        answer = self.answers[req.path]
        status, answer = answer if isinstance(answer, tuple) else (200, answer)
        resp.status = status
        if isinstance(answer, bytes):
            resp.data = answer
        else:
            resp.media = answer


@asynccontextmanager
async def selling(answers: dict[str, Any]) -> AsyncIterator[Vendor]:
    vendor = Vendor(answers)
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    app.add_sink(cast("Any", vendor.sink), "/")
    async with serving(app) as vendor.url:
        yield vendor
