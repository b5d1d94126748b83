"""The endpoint before a service that answers what a test says."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx

from butterbase.ai.http.departures import Receive
from butterbase.api.callers import RequestIds
from butterbase.api.dispatch import Dispatch
from butterbase.api.errors import MissingKeyError
from butterbase.api.rest.endpoint import (
    EndpointSettings,
    Given,
    RestEndpoint,
    Scope,
    Send,
    Service,
)
from butterbase.api.rest.request.incoming import HttpRequest
from butterbase.api.rest.response import Answer
from butterbase.sql.claims import ANON, AUTHENTICATED, Claims, claims_for_role
from tests.serving import serving

Answering = Callable[[HttpRequest, Claims, bytes], Awaitable[Answer]]


ANSWER = Answer(200, [(b"content-type", b"application/json; charset=utf-8")], b"[]")


class FakeService:
    """Answers as the test says, and keeps what it was asked."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self.asked: list[tuple[HttpRequest, Claims, bytes]] = []
        self.apps: list[str] = []

    async def answer(self, http: HttpRequest, claims: Claims, body: bytes = b"") -> Answer:
        self.asked.append((http, claims, body))
        return await self._answering(http, claims, body)

    async def admit(self, app_id: str, _method: str, given: Given) -> tuple[Service, Claims]:
        self.apps.append(app_id)
        if b"authorization" in given:
            return self, claims_for_role(AUTHENTICATED)
        if b"apikey" in given:
            return self, claims_for_role(ANON)
        raise MissingKeyError


def answering(answer: Answer) -> Answering:
    async def answer_it(_http: HttpRequest, _claims: Claims, _body: bytes) -> Answer:
        return answer

    return answer_it


async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for Falcon."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
        return
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"elsewhere"})


SETTINGS = EndpointSettings(body_bytes_max=1000)


@asynccontextmanager
async def served(
    answer: Answering, settings: EndpointSettings = SETTINGS
) -> AsyncIterator[tuple[FakeService, httpx.AsyncClient]]:
    service = FakeService(answer)
    app = Dispatch(RestEndpoint(service.admit, settings, RequestIds()), elsewhere)
    async with (
        serving(app) as url,
        httpx.AsyncClient(base_url=url, headers={"apikey": "k"}, timeout=30) as client,
    ):
        yield service, client
