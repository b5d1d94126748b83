"""The ASGI edge of the REST API, over a service that does what a test tells it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from butterbase.api.callers import RequestIds
from butterbase.api.dispatch import Dispatch
from butterbase.api.errors import MissingKeyError
from butterbase.api.rest.cors import Cors
from butterbase.api.rest.departures import Receive
from butterbase.api.rest.endpoint import (
    EndpointSettings,
    Given,
    RestEndpoint,
    Scope,
    Send,
    Service,
)
from butterbase.api.rest.errors import InvalidRangeError, NoTableError
from butterbase.api.rest.postgrest.errors import ConnectionLostError
from butterbase.api.rest.request.incoming import HttpRequest
from butterbase.api.rest.response import Answer
from butterbase.sql.claims import ANON, AUTHENTICATED, Claims, claims_for_role
from butterbase.sql.errors import DatabaseError, DatabaseUnavailableError
from butterbase.sql.spool import Spool
from tests.serving import serving

Answering = Callable[[HttpRequest, Claims, bytes], Awaitable[Answer]]

ANSWER = Answer(200, [(b"content-type", b"application/json; charset=utf-8")], b"[]")
EXPOSED = (
    "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, "
    "Transfer-Encoding, Range-Unit"
)


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


def raising(error: Exception) -> Answering:
    async def raise_it(_http: HttpRequest, _claims: Claims, _body: bytes) -> Answer:
        raise error

    return raise_it


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


async def test_the_service_sees_the_request_as_it_came() -> None:
    async with served(answering(ANSWER)) as (service, client):
        answer = await client.get("/rest/v1/a%20b%2Fc?select=x%2Cy&x=eq.%C3%A9")
    assert (answer.status_code, answer.content) == (200, b"[]")
    assert answer.headers["content-length"] == "2"
    ((http, claims, body),) = service.asked
    assert (http.method, http.path, body) == ("GET", "/a%20b%2Fc", b"")
    assert http.query_string == "select=x%2Cy&x=eq.%C3%A9"
    assert (b"apikey", b"k") in http.headers
    assert claims.role == ANON


@pytest.mark.parametrize(
    ("path", "app_id", "below"),
    [
        ("/rest/v1", "main", "/"),
        ("/rest/v1/", "main", "/"),
        ("/rest/v1/rpc/f", "main", "/rpc/f"),
        ("/v1/shop/rest/v1/t", "shop", "/t"),
        ("/v1/a%20b/rest/v1", "a b", "/"),
    ],
)
async def test_the_api_is_reached_at_the_root_and_below_the_app(
    path: str, app_id: str, below: str
) -> None:
    async with served(answering(ANSWER)) as (service, client):
        assert (await client.get(path)).status_code == 200
    assert service.apps == [app_id]
    assert service.asked[0][0].path == below


@pytest.mark.parametrize("path", ["/", "/rest", "/rest/v1x", "/v1//rest/v1", "/v1/a/b/rest/v1"])
async def test_every_other_path_is_elsewhere(path: str) -> None:
    async with served(answering(ANSWER)) as (service, client):
        assert (await client.get(path)).status_code == 418
    assert service.asked == []


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
@pytest.mark.parametrize("size", [0, 1, 1000])
async def test_a_body_is_read_whole(method: str, size: int) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"x"

    async with served(answering(ANSWER)) as (service, client):
        await client.request(method, "/rest/v1/t", content=b"x" * size)
        await client.request(method, "/rest/v1/t", content=parts())
    assert [body for _, _, body in service.asked] == [b"x" * size] * 2


@pytest.mark.parametrize("is_told", [True, False])
async def test_a_body_beyond_the_limit_is_413(is_told: bool) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    async with served(answering(ANSWER)) as (service, client):
        content = b"x" * 1001 if is_told else parts()
        answer = await client.post("/rest/v1/t", content=content)
        again = await client.post("/rest/v1/t", content=b"y")
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert again.status_code == 200
    assert [body for _, _, body in service.asked] == [b"y"]


async def test_a_head_has_no_body() -> None:
    async with served(answering(ANSWER)) as (_, client):
        answer = await client.head("/rest/v1/t")
    assert (answer.status_code, answer.content) == (200, b"")
    assert "content-length" not in answer.headers


async def test_a_204_has_neither_body_nor_length() -> None:
    async with served(answering(Answer(204, [], b"x"))) as (_, client):
        answer = await client.patch("/rest/v1/t")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("size", [0, 1, 200_000, 3_000_000])
async def test_a_spool_is_sent_whole(size: int) -> None:
    spool = Spool(memory_bytes_max=100_000)
    for start in range(0, size, 50_000):
        spool.write(b"y" * min(50_000, size - start))
    async with served(answering(Answer(200, [], spool))) as (_, client):
        answer = await client.get("/rest/v1/t")
        assert answer.headers["content-length"] == str(size)
        assert answer.content == b"y" * size
        assert (await client.head("/rest/v1/t")).content == b""


async def test_an_error_says_what_postgrest_says() -> None:
    error = NoTableError("Could not find the table", details=[{"a": 1}], hint="Perhaps")
    async with served(raising(error)) as (_, client):
        answer = await client.get("/rest/v1/t")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["proxy-status"] == "PostgREST; error=PGRST205"
    assert answer.json() == {
        "code": "PGRST205",
        "message": "Could not find the table",
        "details": [{"a": 1}],
        "hint": "Perhaps",
    }


async def test_a_terse_error_has_code_and_message_alone() -> None:
    settings = EndpointSettings(body_bytes_max=1000, is_verbose=False)
    async with served(raising(DatabaseError("23505", "m", detail="d")), settings) as (_, client):
        answer = await client.get("/rest/v1/t")
    assert (answer.status_code, answer.json()) == (409, {"code": "23505", "message": "m"})


async def test_an_error_brings_its_headers() -> None:
    error = InvalidRangeError(headers=[(b"content-range", b"*/3")])
    async with served(raising(error)) as (_, client):
        answer = await client.get("/rest/v1/t")
    assert (answer.status_code, answer.headers["content-range"]) == (416, "*/3")


async def test_what_the_anonymous_may_not_do_signing_in_may_help() -> None:
    async with served(raising(DatabaseError("42501", "denied"))) as (_, client):
        anonymous = await client.get("/rest/v1/t")
        user = await client.get("/rest/v1/t", headers={"Authorization": "Bearer x"})
    assert (anonymous.status_code, anonymous.headers["www-authenticate"]) == (401, "Bearer")
    assert user.status_code == 403


async def test_a_caller_without_a_key_is_refused() -> None:
    async with served(answering(ANSWER)) as (_, client):
        del client.headers["apikey"]
        answer = await client.get("/rest/v1/t")
    assert (answer.status_code, answer.json()["code"]) == (401, "no_api_key")


async def test_an_unavailable_database_may_be_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    lost = ConnectionLostError()
    lost.__cause__ = DatabaseUnavailableError("no connection to db-7.internal")
    for error in (lost, lost.__cause__):
        caplog.clear()
        async with served(raising(error)) as (_, client):
            answer = await client.get("/rest/v1/t")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "db-7" not in answer.text
        assert "db-7" in caplog.text


async def test_a_bug_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with served(raising(ZeroDivisionError("secret"))) as (_, client):
        answer = await client.get("/rest/v1/t")
        assert answer.status_code == 500
        assert "secret" not in answer.text
    assert "secret" in caplog.text


@pytest.mark.parametrize("status", [0, 99, 101, 600, 999])
async def test_a_status_that_is_none_is_an_error_of_the_database(status: int) -> None:
    async with served(answering(Answer(status, [], b""))) as (_, client):
        answer = await client.get("/rest/v1/t")
    assert (answer.status_code, answer.json()["code"]) == (500, "PGRST112")


async def test_the_request_id_comes_back() -> None:
    async with served(answering(ANSWER)) as (_, client):
        given = await client.get("/rest/v1/t", headers={"X-Request-Id": "abc-1"})
        strange = await client.get("/rest/v1/t", headers={"X-Request-Id": "a b"})
        made = await client.get("/rest/v1/t")
    assert given.headers["x-request-id"] == "abc-1"
    assert len({a.headers["x-request-id"] for a in (given, strange, made)} - {"a b"}) == 3


async def test_the_trace_header_comes_back() -> None:
    settings = EndpointSettings(body_bytes_max=1000, trace_header=b"x-trace")
    async with served(answering(ANSWER), settings) as (_, client):
        answer = await client.get("/rest/v1/t", headers={"X-Trace": "7"})
    assert answer.headers["x-trace"] == "7"


async def test_a_preflight_is_answered_without_a_key() -> None:
    asked = {
        "Origin": "http://example.com",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "Foo,Bar",
    }
    async with served(answering(ANSWER)) as (service, client):
        del client.headers["apikey"]
        answer = await client.options("/rest/v1/t", headers=asked)
    assert (answer.status_code, answer.content, service.asked) == (200, b"", [])
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == (
        "GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD"
    )
    assert answer.headers["access-control-allow-headers"] == (
        "Authorization, Foo, Bar, Accept, Accept-Language, Content-Language"
    )
    assert answer.headers["access-control-max-age"] == "86400"


@pytest.mark.parametrize("answer", [answering(ANSWER), raising(NoTableError())])
async def test_answers_and_errors_may_be_read_from_any_origin(answer: Answering) -> None:
    async with served(answer) as (_, client):
        read = await client.get("/rest/v1/t", headers={"Origin": "http://example.com"})
        same_origin = await client.get("/rest/v1/t")
    assert read.headers["access-control-allow-origin"] == "*"
    assert read.headers["access-control-expose-headers"] == EXPOSED
    assert "access-control-allow-origin" not in same_origin.headers


@pytest.mark.parametrize(
    ("origin", "allowed"), [("http://a.com", "http://a.com"), ("http://b.com", None)]
)
async def test_some_origins_may_be_the_only_ones(origin: str, allowed: str | None) -> None:
    settings = EndpointSettings(body_bytes_max=1000, cors=Cors(("http://a.com",)))
    async with served(answering(ANSWER), settings) as (service, client):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answers = [
            await client.get("/rest/v1/t", headers={"Origin": origin}),
            await client.options("/rest/v1/t", headers=asked),
        ]
    credentials = "true" if allowed else None
    for answer in answers:
        assert answer.headers.get("access-control-allow-origin") == allowed
        assert answer.headers.get("access-control-allow-credentials") == credentials
    # Of an origin that is not allowed it is a request like any other.
    assert [http.method for http, _, _ in service.asked] == (
        ["GET"] if allowed else ["GET", "OPTIONS"]
    )


async def test_a_client_that_leaves_has_its_request_cancelled() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(_http: HttpRequest, _claims: Claims, _body: bytes) -> Answer:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    for method in ("GET", "POST"):
        started.clear()
        cancelled.clear()
        async with served(wait) as (_, client):
            call = asyncio.create_task(client.request(method, "/rest/v1/t", content=b"{}"))
            await started.wait()
            call.cancel()
            async with asyncio.timeout(30):
                await cancelled.wait()


async def test_a_slow_answer_reaches_the_client_that_waits() -> None:
    async def wait(_http: HttpRequest, _claims: Claims, _body: bytes) -> Answer:
        await asyncio.sleep(0.1)
        return ANSWER

    async with served(wait) as (_, client):
        answers = await asyncio.gather(*(client.get("/rest/v1/t") for _ in range(3)))
        assert [answer.content for answer in answers] == [b"[]"] * 3
        assert (await client.get("/rest/v1/t")).content == b"[]"


class WatchedSpool(Spool):
    """200 MB as far as it tells, which is read piece by piece and never in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.byte_count = 200_000_000
        self.read_bytes = 0
        self.closed = asyncio.Event()

    def pieces(self) -> Iterator[bytes]:
        while self.read_bytes < self.byte_count:
            self.read_bytes += 100_000
            yield b"z" * 100_000

    def close(self) -> None:
        super().close()
        self.closed.set()


async def test_a_client_that_leaves_in_mid_answer_ends_it() -> None:
    spool = WatchedSpool()
    async with served(answering(Answer(200, [], spool))) as (_, client), asyncio.timeout(30):
        async with client.stream("GET", "/rest/v1/t") as answer:
            async for _ in answer.aiter_raw():
                assert not spool.closed.is_set()
                break
        await spool.closed.wait()
        assert spool.read_bytes < spool.byte_count / 2
        assert (await client.head("/rest/v1/t")).status_code == 200


async def test_a_body_in_many_parts_is_read_in_one_pass() -> None:
    measured_bytes = 0

    class Part(bytes):
        def __len__(self) -> int:
            nonlocal measured_bytes
            measured_bytes += 1
            return super().__len__()

    parts = [Part(b"x") for _ in range(1000)]

    async def receive() -> dict[str, Any]:
        body = parts.pop()
        return {"type": "http.request", "body": body, "more_body": bool(parts)}

    async def send(_message: dict[str, Any]) -> None:
        pass

    service = FakeService(answering(ANSWER))
    scope = {"type": "http", "method": "POST", "query_string": b"", "headers": [(b"apikey", b"k")]}
    app = RestEndpoint(service.admit, SETTINGS, RequestIds())
    await app({**scope, "path": "/t"}, receive, send, app_id="main", path="/t")
    assert service.asked[0][2] == b"x" * 1000
    assert measured_bytes < 3000


async def test_the_service_is_told_how_long_admission_took() -> None:
    async with served(answering(ANSWER)) as (service, client):
        await client.get("/rest/v1/t")
    assert service.asked[0][0].admission_s > 0


async def test_a_code_that_sql_raised_is_one_line() -> None:
    message = json.dumps({"code": "a\r\nb: c\x00é", "message": ""})
    error = DatabaseError("PGRST", message, detail='{"status": 400, "headers": {}}')
    async with served(raising(error)) as (_, client):
        answer = await client.get("/rest/v1/t")
    assert (answer.status_code, answer.json()["code"]) == (400, "a\r\nb: c\x00é")
    assert answer.headers["proxy-status"] == "PostgREST; error=a b: c ?"
