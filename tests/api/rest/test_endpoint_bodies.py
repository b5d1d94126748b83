"""Bodies that come and go: read whole, bounded, sent as the client waits, and ended with it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from butterbase.api.callers import RequestIds
from butterbase.api.rest.endpoint import (
    RestEndpoint,
)
from butterbase.api.rest.request.incoming import HttpRequest
from butterbase.api.rest.response import Answer
from butterbase.sql.claims import Claims
from butterbase.sql.spool import Spool
from tests.api.rest.serving_fakes import ANSWER, SETTINGS, FakeService, answering, served


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
