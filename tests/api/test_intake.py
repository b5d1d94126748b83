"""What clients send: no more than is allowed, in time, and no more than can be held."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from msgspec import Struct

from butterbase.ai.http.departures import Receive
from butterbase.api import intake
from butterbase.api.http import HttpProtocol
from butterbase.api.intake import BodyRoom, holding_at_most
from butterbase.api.rest.endpoint import Scope, Send
from tests.serving import serving
from tests.waiting import until

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


class Received(Struct, frozen=True):
    status: int
    code: str | None
    body: bytes


class App:
    """Answers what it has read, and "early" without reading; its requests' headers are kept."""

    def __init__(self) -> None:
        self.headers: list[list[tuple[bytes, bytes]]] = []
        self.left_count = 0
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": f"{(await receive())['type']}.complete"})
            return
        if scope["path"] == "/wait":
            await self.go_on.wait()
        body = b"early"
        if scope["path"] != "/early":
            body, more = b"", True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.left_count += 1
                    return
                body += message["body"]
                more = message["more_body"]
        self.headers.append(scope["headers"])
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> Received:
        """One answer."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        (length,) = (int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        body = await self._reader.readexactly(length)
        status = int(lines[0].split()[1])
        code = json.loads(body)["code"] if status >= 400 else None
        assert status < 400 or b"connection: close" in lines
        return Received(status, code, body)

    async def is_over(self) -> bool:
        """Once the server has closed: whether it sent no more."""
        return await self._reader.read() == b""

    def close(self) -> None:
        self._writer.close()


class Server:
    def __init__(self, app: App, url: str, room: BodyRoom) -> None:
        self.app = app
        self.room = room
        self._port = int(url.rpartition(":")[2])

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        client = Client(*await asyncio.open_connection("127.0.0.1", self._port))
        try:
            yield client
        finally:
            client.close()


Scenario = Callable[[Server, Client], Awaitable[None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a scenario on either loop."""

    def run(
        scenario: Scenario,
        *,
        bytes_max: int = 10**9,
        head_s: float = intake.HEAD_S,
        body_s: float = intake.BODY_S,
        body_bytes_min: int = intake.BODY_BYTES_MIN,
        **options: float,
    ) -> None:
        """`options` are uvicorn's."""
        monkeypatch.setattr(intake, "HEAD_S", head_s)
        monkeypatch.setattr(intake, "BODY_S", body_s)
        monkeypatch.setattr(intake, "BODY_BYTES_MIN", body_bytes_min)

        async def main() -> None:
            app = App()
            protocol = holding_at_most(bytes_max, HttpProtocol)
            async with asyncio.timeout(30), serving(app, http=protocol, **options) as url:
                server = Server(app, url, protocol.room)
                async with server.client() as client:
                    await scenario(server, client)

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return run


Run = Callable[..., None]


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"X-A: " + b"x" * 3_000_000,
        b"GET /" + b"x" * 3_000_000,
        HEAD + b"\r\n".join(b"X-%d: x" % n for n in range(100_000)),
        HEAD + b"".join(b"X-%d: x\r\n" % n for n in range(200)) + b"\r\n",
        HEAD + b"X-A: " + b"x" * 100_000 + b"\r\n\r\n",
        b"\r\n" * 100_000,
    ],
    ids=["header", "url", "headers", "count", "complete", "nothing"],
)
def test_a_head_that_is_too_large_is_refused(run: Run, sent: bytes) -> None:
    async def scenario(server: Server, client: Client) -> None:
        await client.send(sent)
        answer = await client.receive()
        assert (answer.status, answer.code) == (431, "headers_too_large")
        assert await client.is_over()
        assert server.app.headers == []

    run(scenario)


def test_a_large_head_may_come_in_pieces(run: Run) -> None:
    async def scenario(server: Server, client: Client) -> None:
        for _ in range(3):
            await client.send(HEAD + b"X-A: ")
            for _ in range(30):
                await client.send(b"x" * 2000)
                await asyncio.sleep(0)
            await client.send(b"\r\n\r\n")
            assert (await client.receive()).status == 200

    run(scenario)


@pytest.mark.parametrize("piece", [b"X-A: x\r\n", b"x"])
def test_trailers_are_bounded_and_no_headers(run: Run, piece: bytes) -> None:
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: t\r\n"

    async def scenario(server: Server, client: Client) -> None:
        await client.send(chunked + b"\r\n")
        assert (await client.receive()).body == b"abc"
        assert b"x-t" not in dict(server.app.headers[0])
        await client.send(chunked + piece)
        # The first of these may come in one read with the above, which counts for nothing.
        for _ in range(100):
            await client.send(piece * 2000)
        assert (await client.receive()).status == 431
        assert await client.is_over()

    run(scenario)


def test_pipelined_requests_are_answered_in_order(run: Run) -> None:
    async def scenario(server: Server, client: Client) -> None:
        bodies = [b"%d" % n * 30_000 for n in range(9)]
        await client.send(
            b"".join(POST + b"Content-Length: %d\r\n\r\n" % len(b) + b for b in bodies)
        )
        assert [(await client.receive()).body for _ in bodies] == bodies

    run(scenario)


@pytest.mark.parametrize("rest", [HEAD + b"X-A: " + b"x" * 200_000, b"no request\r\n\r\n", HEAD])
def test_a_refusal_does_not_fall_into_the_answer_before_it(run: Run, rest: bytes) -> None:
    async def scenario(server: Server, client: Client) -> None:
        await client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" + rest)
        await asyncio.sleep(0.2)
        server.app.go_on.set()
        assert (await client.receive()).status == 200
        assert await client.is_over()

    run(scenario, head_s=0.05)


@pytest.mark.parametrize("sent", [b"G", HEAD + b"X-", b"\r\n", POST + b"\r\n" + HEAD])
def test_a_head_that_does_not_come_is_not_waited_for(run: Run, sent: bytes) -> None:
    async def scenario(server: Server, client: Client) -> None:
        await client.send(sent)
        if sent.startswith(POST):
            assert (await client.receive()).status == 200
        answer = await client.receive()
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert await client.is_over()

    run(scenario, head_s=0.05)


def test_a_head_that_comes_in_drops_has_no_more_time(run: Run) -> None:
    async def scenario(server: Server, client: Client) -> None:
        answer = asyncio.create_task(client.receive())
        await client.send(HEAD + b"X-A: ")
        while not answer.done():
            await client.send(b"x")
            await asyncio.sleep(0.01)
        assert (await answer).status == 408

    run(scenario, head_s=0.1)


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
def test_a_body_that_stalls_is_not_waited_for(run: Run, framing: bytes) -> None:
    async def scenario(server: Server, client: Client) -> None:
        await client.send(POST + framing + b"\r\n\r\n")
        await client.send(b"%x\r\n" % 200_000 + b"x" * 100_000)
        answer = await client.receive()
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert await client.is_over()
        await until(lambda: server.app.left_count == 1)
        assert server.room.used_bytes == 0

    run(scenario, body_s=0.05)


def test_a_body_that_comes_fast_enough_has_all_the_time(run: Run) -> None:
    async def scenario(server: Server, client: Client) -> None:
        await client.send(POST + b"Content-Length: 30\r\n\r\n")
        for _ in range(30):
            await client.send(b"x")
            await asyncio.sleep(0.02)
        assert (await client.receive()).body == b"x" * 30

    # A machine that is busy with others may let half a second go by.
    run(scenario, body_s=0.5, body_bytes_min=1)


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_a_client_whose_body_the_server_does_not_read_yet_is_waited_for(
    run: Run, expect: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(server: Server, client: Client) -> None:
        body = b"x" * (100 if expect else 5_000_000)
        head = b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(body)
        await client.send(head + expect + b"\r\n")
        sent = asyncio.create_task(client.send(b"" if expect else body))
        await asyncio.sleep(0.2)
        monkeypatch.setattr(intake, "BODY_S", 10)
        await asyncio.sleep(0.05)  # until the look that was due before, on the same loop
        server.app.go_on.set()
        if expect:
            assert (await client._reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
            await client.send(body)
        assert (await client.receive()).body == body
        await sent

    run(scenario, body_s=0.02)


def test_what_follows_an_early_answer_is_not_read_without_end(run: Run) -> None:
    async def scenario(server: Server, client: Client) -> None:
        await client.send(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n")
        assert (await client.receive()).body == b"early"
        is_over = asyncio.create_task(client.is_over())
        while not is_over.done():
            await client.send(b"x")
            await asyncio.sleep(0.01)
        assert await is_over

    run(scenario, body_s=0.1, body_bytes_min=1)


def test_bodies_together_are_bounded_and_small_ones_pass(run: Run) -> None:
    body = b"x" * 300_000
    upload = POST + b"Content-Length: %d\r\n\r\n" % len(body)

    async def scenario(server: Server, client: Client) -> None:
        async with server.client() as second, server.client() as third:
            await client.send(upload + body[:-1])
            await until(lambda: server.room.used_bytes == len(body) - 1)
            await second.send(upload + body)
            answer = await second.receive()
            assert (answer.status, answer.code) == (503, "bodies_full")
            assert await second.is_over()
            await third.send(POST + b"Content-Length: 60000\r\n\r\n" + b"y" * 60_000)
            assert (await third.receive()).body == b"y" * 60_000
            await client.send(body[-1:])
            assert (await client.receive()).body == body
            assert server.room.used_bytes == 0
            await third.send(upload + body)
            assert (await third.receive()).body == body

    run(scenario, bytes_max=400_000)


def test_one_body_alone_may_be_larger_than_the_room(run: Run) -> None:
    async def scenario(server: Server, client: Client) -> None:
        for _ in range(2):
            await client.send(POST + b"Content-Length: 500000\r\n\r\n" + b"x" * 500_000)
            assert len((await client.receive()).body) == 500_000
        assert server.room.used_bytes == 0

    run(scenario, bytes_max=100_000)


def test_a_client_that_leaves_gives_back_its_room(run: Run) -> None:
    async def scenario(server: Server, client: Client) -> None:
        await client.send(POST + b"Content-Length: 500000\r\n\r\n" + b"x" * 400_000)
        await until(lambda: server.room.used_bytes == 400_000)
        client.close()
        await until(lambda: server.room.used_bytes == 0)

    run(scenario)


def test_an_upgrade_that_is_not_known_is_answered(run: Run) -> None:
    async def scenario(server: Server, client: Client) -> None:
        await client.send(HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert (await client.receive()).status == 200

    run(scenario, body_s=0.05)


def test_a_connection_without_any_request_ends(run: Run) -> None:
    async def scenario(server: Server, client: Client) -> None:
        assert await client.is_over()

    run(scenario, timeout_keep_alive=0.05)
