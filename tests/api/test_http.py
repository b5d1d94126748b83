"""An answer's head and body leave in one write, and nothing is kept longer than a round."""

import asyncio
from typing import cast

import httpx
import pytest

from butterbase.api.http import CorkedTransport, HttpProtocol
from butterbase.api.rest.departures import Receive
from butterbase.api.rest.endpoint import Scope, Send
from tests.serving import serving

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Written:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, name: str) -> str:
        return name

    def pause_reading(self) -> str:
        return "paused"


@pytest.fixture
async def written() -> Written:
    return Written()


@pytest.fixture
async def corked(written: Written) -> CorkedTransport:
    return CorkedTransport(cast("asyncio.Transport", written), asyncio.get_running_loop())


async def test_head_and_body_are_one_write(written: Written, corked: CorkedTransport) -> None:
    corked.write(HEAD)
    assert written.writes == []
    corked.write(b"body")
    corked.write(b"more")
    await asyncio.sleep(0)
    assert written.writes == [HEAD + b"body", b"more"]


async def test_a_head_alone_leaves_in_the_next_round(
    written: Written, corked: CorkedTransport
) -> None:
    corked.write(HEAD)
    await asyncio.sleep(0)
    assert written.writes == [HEAD]


async def test_two_heads_keep_their_order(written: Written, corked: CorkedTransport) -> None:
    corked.write(HEAD)
    corked.write(HEAD)
    await asyncio.sleep(0)
    assert b"".join(written.writes) == HEAD + HEAD


async def test_a_head_is_written_before_the_end(written: Written, corked: CorkedTransport) -> None:
    corked.write(HEAD)
    corked.close()
    assert (written.writes, written.is_closed, corked.is_closing()) == ([HEAD], True, True)
    await asyncio.sleep(0)
    assert written.writes == [HEAD]


async def test_all_else_is_the_transports(corked: CorkedTransport) -> None:
    assert corked.get_extra_info("socket") == "socket"
    assert corked.pause_reading() == "paused"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_answers_arrive_whole_over_kept_connections(method: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": f"{(await receive())['type']}.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        length = (b"content-length", b"6")
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await asyncio.sleep(0.001)
        await send({"type": "http.response.body", "body": b"def"})

    async with (
        serving(app, http=HttpProtocol) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        for _ in range(3):
            answer = await client.request(
                method, "/", content=b"x" * 100_000, headers={"Expect": "100-continue"}
            )
            assert answer.content == (b"" if method == "HEAD" else b"abcdef")
