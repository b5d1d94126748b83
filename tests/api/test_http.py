"""An answer's head and body leave in one write, and nothing is kept longer than a round."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import cast

import httpx
import pytest

from butterbase.ai.http.departures import Receive
from butterbase.api import http
from butterbase.api.http import CorkedTransport, HttpProtocol, unsent_bytes
from butterbase.api.rest.endpoint import Scope, Send
from tests.serving import serving

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Written:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_closed = False
        self.is_aborted = False
        self.untaken_bytes = 0
        self.socket: socket.socket | None = None

    def get_write_buffer_size(self) -> int:
        return self.untaken_bytes

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, name: str) -> object:
        return self.socket if name == "socket" else name

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
    assert corked.get_extra_info("peername") == "peername"
    assert corked.pause_reading() == "paused"


class Clock:
    """The part of a loop that is used: its one timer runs when the test says so."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.strike_count = 0
        self.timer: asyncio.TimerHandle | None = None
        self.run: Callable[[], None] | None = None

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        self.delay_s = delay_s
        self.run = callback
        self.timer = asyncio.TimerHandle(0, callback, (), asyncio.get_running_loop())
        return self.timer

    def is_running(self) -> bool:
        return self.timer is not None and not self.timer.cancelled()

    def strike(self) -> None:
        assert self.run is not None
        assert self.is_running()
        run, self.timer = self.run, None
        self.strike_count += 1
        run()


async def test_a_client_that_takes_nothing_is_let_go(written: Written) -> None:
    clock = Clock()
    corked = CorkedTransport(
        cast("asyncio.Transport", written), cast("asyncio.AbstractEventLoop", clock)
    )
    written.untaken_bytes = 100
    corked.watch()
    written.untaken_bytes = 99
    clock.strike()
    assert not written.is_aborted
    clock.strike()
    assert written.is_aborted


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
async def test_a_client_that_takes_of_what_the_kernel_holds_is_waited_for(
    written: Written, family: socket.AddressFamily
) -> None:
    clock = Clock()
    corked = CorkedTransport(
        cast("asyncio.Transport", written), cast("asyncio.AbstractEventLoop", clock)
    )
    with connected(family) as (server, client):
        server.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                server.send(b"x" * 65536)
        written.socket, written.untaken_bytes = server, 100
        corked.watch()
        assert clock.delay_s == http.STALLED_S
        taken = unsent_bytes(cast("asyncio.Transport", written))
        while unsent_bytes(cast("asyncio.Transport", written)) == taken:
            client.recv(65536)
        clock.strike()
        while clock.is_running():
            assert not written.is_aborted
            clock.strike()
        assert clock.strike_count > 1
        assert written.is_aborted


async def test_where_the_kernel_does_not_tell_the_wait_is_longer(written: Written) -> None:
    clock = Clock()
    corked = CorkedTransport(
        cast("asyncio.Transport", written), cast("asyncio.AbstractEventLoop", clock)
    )
    written.untaken_bytes = 100
    corked.watch()
    assert clock.delay_s == http.STALLED_UNSEEN_S
    with socket.socket() as closed:
        pass
    written.socket = closed
    assert unsent_bytes(cast("asyncio.Transport", written)) is None


async def test_nobody_waits_for_a_client_that_took_all(written: Written) -> None:
    clock = Clock()
    corked = CorkedTransport(
        cast("asyncio.Transport", written), cast("asyncio.AbstractEventLoop", clock)
    )
    corked.close()
    assert not clock.is_running()
    written.untaken_bytes = 100
    corked.close()
    assert clock.is_running()
    written.untaken_bytes = 0
    clock.strike()
    assert not clock.is_running()
    assert not written.is_aborted


@contextmanager
def connected(family: socket.AddressFamily) -> Iterator[tuple[socket.socket, socket.socket]]:
    if family == socket.AF_UNIX:
        server, client = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
    with server, client:
        yield server, client


class Small(HttpProtocol):
    """With little room between server and client; tells when its connection is gone."""

    lost: asyncio.Event

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.set()


@pytest.mark.parametrize(("size", "is_kept"), [(30_000, False), (100_000, True), (9_000_000, True)])
async def test_the_connection_of_a_client_that_stalls_is_gone(
    size: int, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": f"{(await receive())['type']}.complete"})
            return
        headers = [(b"content-length", b"%d" % size)]
        headers += [] if is_kept else [(b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * size})

    monkeypatch.setattr(http, "STALLED_S", 0.05)

    class Told(Small):
        lost = asyncio.Event()

    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with serving(app, http=Told) as url, asyncio.timeout(30):
            client.setblocking(False)
            address = ("127.0.0.1", int(url.rpartition(":")[2]))
            await asyncio.get_running_loop().sock_connect(client, address)
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await Told.lost.wait()


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
