"""From an api worker to the functions process and back, over real sockets."""

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from butterbase.api.functions.client import FunctionsClient, Target
from butterbase.api.functions.runtime.model import CallContext, CallRequest, FunctionVersion, Limits
from butterbase.api.functions.runtime.runtime import Runtime
from butterbase.api.functions.runtime.server import CallServer
from butterbase.api.functions.runtime.wire import Poke
from butterbase.api.problems import render
from butterbase.sql.errors import ButterbaseError, SettingError
from tests.functions.calling import Notes, running, version_of
from tests.serving import serving
from tests.waiting import until


class Source:
    def __init__(self) -> None:
        self.functions: dict[str, FunctionVersion] = {}

    async def version(self, _app_id: str, name: str, _revision: str | None) -> FunctionVersion:
        return self.functions[name]


class Worker:
    """What stands before functions in an api worker, without keys."""

    def __init__(self, client: FunctionsClient) -> None:
        self.client = client

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = tuple((name.decode(), value.decode()) for name, value in scope["headers"])
        name = scope["path"].split("/")[1]
        request = CallRequest(
            scope["method"], f"http://test{scope['path']}", headers, CallContext("i", "r")
        )
        is_chunked = any(key == "transfer-encoding" for key, _ in headers)
        try:
            await self.client.relay(
                Target("main", name),
                request,
                receive,
                send,
                added=[(b"x-added", b"1")],
                is_chunked=is_chunked,
            )
        except ButterbaseError as error:
            rendered = render(error)
            start = {"type": "http.response.start", "status": rendered.status, "headers": []}
            await send(start)
            await send({"type": "http.response.body", "body": rendered.problem.code.encode()})


class Parts:
    def __init__(
        self, runtime: Runtime, source: Source, notes: Notes, http: httpx.AsyncClient, path: Path
    ) -> None:
        self.runtime, self.source, self.notes, self.http = runtime, source, notes, http
        self.path = path
        self.pokes: list[Poke] = []
        self.server: CallServer
        self.client: FunctionsClient

    def deploy(self, code: str, **fields: Any) -> None:
        self.source.functions["f"] = version_of(code, **fields)


@asynccontextmanager
async def parts_at(path: Path) -> AsyncIterator[Parts]:
    source, notes = Source(), Notes()
    async with running(notes=notes) as runtime:
        client = FunctionsClient(path)
        pokes: list[Poke] = []
        server = CallServer(runtime, source, pokes.append)
        await server.listen(path)
        async with (
            serving(Worker(client)) as url,
            httpx.AsyncClient(base_url=url, timeout=30) as http,
        ):
            made = Parts(runtime, source, notes, http, path)
            made.server, made.client, made.pokes = server, client, pokes
            yield made
            await client.close()
            await made.server.close()


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with parts_at(tmp_path / "functions.sock") as made:
        yield made


async def test_a_call_goes_there_and_back(parts: Parts) -> None:
    parts.deploy("return new Response(await req.text() + '!', {status: 201, headers: {a: 'b'}})")
    for _ in range(3):
        answer = await parts.http.post("/f", content="hello")
        assert (answer.status_code, answer.text) == (201, "hello!")
        assert (answer.headers["a"], answer.headers["x-added"]) == ("b", "1")
        assert answer.headers["content-length"] == "6"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PATCH"])
async def test_each_method(parts: Parts, method: str) -> None:
    parts.deploy("return new Response(req.method)")
    answer = await parts.http.request(method, "/f")
    assert answer.text == ("" if method == "HEAD" else method)


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body(parts: Parts, status: int) -> None:
    parts.deploy(f"return new Response(null, {{status: {status}}})")
    assert (await parts.http.get("/f")).status_code == status


@pytest.mark.parametrize("pause", ["", "await new Promise((resolve) => setTimeout(resolve, 100));"])
async def test_what_is_sent_as_the_body_of_an_answer_without_one_is_left_out(
    parts: Parts, pause: str
) -> None:
    code = f"""
    const fs = require("node:fs"), text = new TextEncoder();
    const send = (type, payload) => {{
      const bytes = new Uint8Array(9 + payload.length);
      new DataView(bytes.buffer).setUint32(0, payload.length);
      bytes[4] = type; bytes[8] = 1; bytes.set(text.encode(payload), 9);
      fs.writeSync(1, bytes);
    }};
    send(2, '{{"status": 204, "headers": []}}');
    {pause}
    send(3, "HTTP/1.1 200 OK\\r\\n\\r\\n"); send(4, ""); send(11, "");
    await new Promise(() => {{}});
    """
    for _ in range(2):
        parts.deploy(code)
        answer = await parts.http.post("/f")
        assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 5_000_000])
async def test_bodies_of_every_size(parts: Parts, size: int) -> None:
    parts.deploy("return new Response(req.body)")
    body = bytes(range(256)) * (size // 256 + 1)
    answer = await parts.http.post("/f", content=body[:size])
    assert answer.content == body[:size]


async def test_a_body_without_a_length(parts: Parts) -> None:
    parts.deploy("return new Response(await req.text())")

    async def content() -> AsyncIterator[bytes]:
        for part in (b"a", b"b" * 100_000, b"c"):
            yield part

    answer = await parts.http.post("/f", content=content())
    assert answer.text == "a" + "b" * 100_000 + "c"


async def test_a_stream_is_passed_on_as_it_comes(parts: Parts) -> None:
    parts.deploy("""
    if (req.url.endsWith("/go-on")) { globalThis.goOn(); return new Response(); }
    let count = 0;
    const isRead = new Promise((resolve) => { globalThis.goOn = resolve; });
    return new Response(new ReadableStream({ async pull(c) {
      if (count++ === 3) return c.close();
      if (count === 3) await isRead;
      c.enqueue(new TextEncoder().encode(`data: ${count}\\n\\n`));
    } }), { headers: { "content-type": "text/event-stream" } });
    """)
    async with parts.http.stream("GET", "/f") as answer:
        assert answer.headers["x-accel-buffering"] == "no"
        lines = (line async for line in answer.aiter_lines() if line)
        assert [await anext(lines), await anext(lines)] == ["data: 1", "data: 2"]
        await parts.http.get("/f/go-on")
        assert [line async for line in lines] == ["data: 3"]


async def test_a_client_that_leaves_is_told_to_the_function(parts: Parts) -> None:
    parts.deploy("""
    console.log("began");
    await new Promise((resolve) => req.signal.addEventListener("abort", resolve));
    console.log("left");
    """)
    asking = asyncio.create_task(parts.http.get("/f"))
    await until(lambda: bool(parts.notes.lines))
    asking.cancel()
    await until(lambda: len(parts.notes.lines) == 2)
    assert parts.notes.lines[1].message == "left"


async def test_a_client_that_leaves_in_the_middle_of_its_body(parts: Parts) -> None:
    parts.deploy("""
    console.log("began");
    try { await req.text(); } catch { console.log("broken"); }
    """)

    async def content() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    asking = asyncio.create_task(parts.http.post("/f", content=content()))
    await until(lambda: bool(parts.notes.lines))
    asking.cancel()
    await until(lambda: len(parts.notes.lines) == 2)


async def test_a_client_that_leaves_a_stream(parts: Parts) -> None:
    parts.deploy("""
    const end = new Promise((resolve) => req.signal.addEventListener("abort", resolve));
    ctx.waitUntil(end.then(() => console.log("left")));
    return new Response(new ReadableStream({ async pull(c) {
      await new Promise((r) => setTimeout(r, 5)); c.enqueue(new Uint8Array(10)); } }));
    """)
    async with parts.http.stream("GET", "/f") as answer:
        await anext(answer.aiter_bytes())
    await until(lambda: bool(parts.notes.lines))


async def test_errors_have_their_status(parts: Parts) -> None:
    parts.deploy("throw new Error('secret')")
    answer = await parts.http.get("/f")
    assert (answer.status_code, answer.text) == (500, "function_failed")
    parts.deploy("for (;;);", limits=Limits(wall_ms=100))
    answer = await parts.http.get("/f")
    assert (answer.status_code, answer.text) == (504, "function_timeout")


async def test_a_stream_that_breaks_is_cut(parts: Parts) -> None:
    parts.deploy(
        "return new Response(new ReadableStream({ async pull(c) {"
        " await new Promise((r) => setTimeout(r, 5)); c.enqueue(new Uint8Array(10)); } }))",
        limits=Limits(wall_ms=200),
    )
    with pytest.raises(httpx.RemoteProtocolError):
        await parts.http.get("/f")


async def test_without_the_process_a_call_is_a_502(tmp_path: Path) -> None:
    client = FunctionsClient(tmp_path / "nobody.sock")
    async with (
        serving(Worker(client)) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        answer = await http.get("/f")
    assert (answer.status_code, answer.text) == (502, "functions_unavailable")


async def test_a_process_that_goes_away_fails_its_calls_and_its_successor_serves(
    parts: Parts,
) -> None:
    parts.deploy("console.log('began'); await new Promise(() => {})")
    asking = asyncio.create_task(parts.http.get("/f"))
    await until(lambda: bool(parts.notes.lines))
    await parts.server.close()
    answer = await asking
    assert (answer.status_code, answer.text) == (502, "functions_unavailable")
    parts.server = CallServer(parts.runtime, parts.source, parts.pokes.append)
    await parts.server.listen(parts.path)
    parts.deploy("return new Response('again')")
    assert (await parts.http.get("/f")).text == "again"


async def test_pokes_arrive(parts: Parts) -> None:
    await parts.client.poke("main", "deployed", "f")
    await until(lambda: bool(parts.pokes))
    assert parts.pokes == [Poke("main", "deployed", "f")]


async def test_a_poke_of_nobody_is_no_error(tmp_path: Path) -> None:
    await FunctionsClient(tmp_path / "nobody.sock").poke("main", "queued")


async def test_the_socket_is_its_users_own_and_no_other_takes_it(parts: Parts) -> None:
    assert stat.S_IMODE(parts.path.stat().st_mode) == 0o600
    with pytest.raises(SettingError, match="another process"):
        await CallServer(parts.runtime, parts.source, parts.pokes.append).listen(parts.path)


async def test_many_calls_at_once(parts: Parts) -> None:
    parts.deploy("return new Response(await req.text())")
    answers = await asyncio.gather(
        *(parts.http.post("/f", content=str(number)) for number in range(100))
    )
    assert [answer.text for answer in answers] == [str(number) for number in range(100)]
