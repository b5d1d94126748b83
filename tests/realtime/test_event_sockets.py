"""Sockets of event streams: their heads, their ends, and their way from an api worker."""

import asyncio
from pathlib import Path

import httpx

from butterbase.api.handover import hand_over_to
from butterbase.api.http import HttpProtocol
from butterbase.realtime.settings import RealtimeSettings
from tests.clients.test_realtime_py import no_app
from tests.installation import Installation
from tests.realtime.events import NOTES, PATH, Events, insert, listening
from tests.realtime.streaming import ALICE, BOB, DEADLINE_S, Stream, eventually, streaming
from tests.serving import serving


async def test_heartbeats_move_the_position_on(app: Installation) -> None:
    settings = RealtimeSettings(event_heartbeat_s=0.05)
    async with streaming(app, settings=settings) as stream:
        stream.execute(NOTES)
        token, url = stream.keys.user(ALICE), f"http://127.0.0.1:{stream.port}"
        async with listening(url, token) as events:
            await events.block()
            first = events.last_id
            stream.execute(insert(BOB))
            while events.last_id == first:
                assert "data" not in await events.block()
            position = events.last_id
            while (block := await events.block()) != {}:
                assert set(block) == {"id"}
            stream.execute(insert(ALICE))
        async with listening(url, token, last_id=position) as again:
            assert await again.id() == 2


async def test_who_does_not_read_is_cut_and_told_the_rest_when_it_comes_back(
    app: Installation,
) -> None:
    settings = RealtimeSettings(write_buffer_bytes_max=2_000_000)
    async with streaming(app, settings=settings) as stream:
        stream.execute(NOTES)
        token = stream.keys.user(ALICE)
        reader, writer = await asyncio.open_connection("127.0.0.1", stream.port, limit=1024)
        request = f"GET {PATH}?table=notes&apikey={token} HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(request.encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 200 OK")
        opening = (await reader.readuntil(b"\n\n")).decode()
        position = opening.partition("id: ")[2].strip()
        stream.execute(
            f"insert into notes (owner, body) select '{ALICE}', repeat('x', 10000)"  # noqa: S608
            " from generate_series(1, 1500)"
        )
        await eventually(lambda: stream.hub.subscriber_count == 0)
        writer.close()
        url = f"http://127.0.0.1:{stream.port}"
        async with listening(url, token, last_id=position) as events:
            assert [await events.id() for _ in range(1500)] == list(range(1, 1501))


async def test_a_server_that_stops_says_so(app: Installation) -> None:
    async with streaming(app) as stream:
        stream.execute(NOTES)
        url = f"http://127.0.0.1:{stream.port}"
        async with listening(url, stream.keys.user(ALICE)) as events:
            await events.block()
            await stream.server.close()
            assert await events.next() == (
                "closed",
                {"code": "restart", "message": "the server restarts"},
            )


async def test_a_head_may_come_in_pieces_and_must_come(app: Installation) -> None:
    settings = RealtimeSettings(request_bytes_max=1000, handshake_timeout_s=0.5)
    async with streaming(app, settings=settings) as stream:
        stream.execute(NOTES)
        request = f"GET {PATH}?table=notes&apikey={stream.keys.user(ALICE)} HTTP/1.1\r\nHost: x\r\n"
        assert await talk(stream, *request, "\r\n") == "HTTP/1.1 200 OK"
        assert await talk(stream, request + "a: " + "x" * 2000 + "\r\n\r\n") == (
            "HTTP/1.1 431 Request Header Fields Too Large"
        )
        assert await talk(stream, request + "no field\r\n\r\n") == "HTTP/1.1 400 Bad Request"
        assert await talk(stream, request) == ""
        assert await talk(stream, "GE") == ""


async def talk(stream: Stream, *pieces: str) -> str:
    """The first line that is answered; empty where there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stream.port)
    for piece in pieces:
        writer.write(piece.encode())
        await writer.drain()
        await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        line = await reader.readline()
    writer.close()
    return line.decode().strip()


async def test_an_api_worker_hands_event_streams_over(app: Installation, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    protocol = hand_over_to(path)
    worker = serving(no_app, ws=protocol, http=HttpProtocol)
    async with worker as url, streaming(app, hand_over=path) as stream:
        stream.execute(NOTES)
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as client:
            assert (await client.get("/rest/v1/")).status_code == 204, "the socket was used before"
            token = stream.keys.user(ALICE)
            for prefix in ("", "/v1/main"):
                asked = {"table": "notes", "apikey": token}
                async with client.stream("GET", prefix + PATH, params=asked) as response:
                    events = Events(response)
                    await events.block()
                    stream.execute(insert(ALICE))
                    assert (await events.next())[0] == "INSERT"
            assert (await client.options(PATH)).status_code == 204
            assert (await client.get("/realtime/v1/other")).status_code == 204, "the worker's own"
    protocol.peer.close()


async def test_without_a_stream_process_browsers_come_again(tmp_path: Path) -> None:
    worker = serving(no_app, ws=hand_over_to(tmp_path / "socket"), http=HttpProtocol)
    async with worker as url, httpx.AsyncClient(base_url=url) as client:
        refused = await client.get(PATH, headers={"accept": "*/*"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        browser = await client.get(PATH, headers={"accept": "text/event-stream"})
        assert (browser.status_code, browser.text) == (200, "retry: 2000\n\n")
