"""`fetch` in a function: whom it reaches, and what arrives there."""

import asyncio
import gzip
import socket
from contextlib import suppress

import aiohttp
import pytest
from aiohttp import web
from msgspec.structs import replace

from butterbase.api.functions.runtime import egress
from butterbase.api.functions.runtime.model import Limits, Permissions
from tests.functions.answering import answering
from tests.functions.calling import (
    SETTINGS,
    Notes,
    call,
    json_of,
    request,
    running,
    thrown_by,
    version_of,
)
from tests.serving import tcp_server
from tests.waiting import until


async def echo(asked: web.Request) -> web.StreamResponse:
    body = await asked.read()
    headers = [[name.lower(), value] for name, value in asked.headers.items()]
    return web.json_response([asked.method, asked.path_qs, headers, body.decode()])


@pytest.fixture
def _no_private_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's servers, which are on this machine, count as public ones."""

    def open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        return socket.socket(address[0], address[1], address[2])

    monkeypatch.setattr(egress, "public_socket", open_socket)


open_world = pytest.mark.usefixtures("_no_private_addresses")


def allowed(*hosts: str) -> Permissions:
    return Permissions(net=hosts)


@open_world
async def test_a_listed_host_is_reached_with_what_was_asked() -> None:
    async with answering(echo) as host, running() as runtime:
        code = f"""
        const response = await fetch("http://{host}/a?b=%20", {{
          method: "PUT", headers: {{ "X-Own": "1", Host: "evil", "X-Butterbase-Depth": "0" }},
          body: "text",
        }});
        return Response.json([response.status, response.url, response.ok, await response.json()]);
        """
        version = version_of(code, permissions=allowed("127.0.0.1"))
        status, url, is_ok, (method, path, pairs, body) = json_of(await call(runtime, version))
    assert (status, url, is_ok) == (200, f"http://{host}/a?b=%20", True)
    assert (method, path, body) == ("PUT", "/a?b=%20", "text")
    headers = dict(pairs)
    assert headers["x-own"] == "1"
    assert headers["host"] == host
    assert headers["content-length"] == "4"
    assert headers["content-type"] == "text/plain;charset=UTF-8"
    assert "x-butterbase-depth" not in headers


@open_world
@pytest.mark.parametrize("hosts", [(), ("example.com",), ("127.0.0.1:1",)])
async def test_a_host_that_is_not_listed_is_refused(hosts: tuple[str, ...]) -> None:
    async with answering(echo) as host, running() as runtime:
        version = version_of(f"await fetch('http://{host}/')", permissions=allowed(*hosts))
        told = thrown_by(await call(runtime, version))
    assert told.startswith(f'PermissionDenied: Requires net access to "{host}"')


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::]", "[::ffff:127.0.0.1]"])
async def test_a_private_address_is_refused_though_it_is_listed(name: str) -> None:
    reached = []

    async def handler(asked: web.Request) -> web.Response:
        reached.append(asked)
        return web.Response()

    async with answering(handler) as host, running() as runtime:
        port = host.rpartition(":")[2]
        version = version_of(f"await fetch('http://{name}:{port}/')", permissions=allowed("*"))
        told = thrown_by(await call(runtime, version))
    assert told.startswith("PermissionDenied")
    assert not reached


@open_world
async def test_our_own_postgres_is_refused_though_its_address_is_public() -> None:
    async with answering(echo) as host:
        port = int(host.rpartition(":")[2])
        async with running(refused=(("127.0.0.1", port),)) as runtime:
            version = version_of(f"await fetch('http://{host}/')", permissions=allowed("*"))
            assert thrown_by(await call(runtime, version)).startswith("PermissionDenied")


async def test_the_platforms_api_is_reached_always() -> None:
    """Through its public name, at the address that the host knows; with nothing forged."""
    async with answering(echo) as host, running(api=f"http://{host}") as runtime:
        code = f"""
        const response = await fetch("http://{host}/rest/v1/todos", {{ headers: {{
          "x-forwarded-for": "1.2.3.4", "x-real-ip": "1.2.3.4", forwarded: "for=1.2.3.4",
          "x-butterbase-depth": "0" }} }});
        return Response.json(await response.json());
        """
        given = request(headers=(("x-butterbase-depth", "2"),))
        _, path, pairs, _ = json_of(await call(runtime, version_of(code), given))
    headers = dict(pairs)
    assert path == "/rest/v1/todos"
    assert headers["x-butterbase-depth"] == "3"
    assert not {"x-forwarded-for", "x-real-ip", "forwarded"} & headers.keys()


@open_world
@pytest.mark.parametrize(
    ("status", "method", "becomes"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "PUT", "GET"),
        (307, "POST", "POST"),
        (308, "PUT", "PUT"),
        (301, "GET", "GET"),
    ],
)
async def test_a_redirect_is_followed_as_the_standard_has_it(
    status: int, method: str, becomes: str
) -> None:
    async def handler(asked: web.Request) -> web.StreamResponse:
        if asked.path == "/to":
            return await echo(asked)
        return web.Response(status=status, headers={"location": "/to"})

    async with answering(handler) as host, running() as runtime:
        body = "" if method == "GET" else ", body: 'x'"
        code = f"""
        const response = await fetch("http://{host}/from", {{ method: "{method}"{body} }});
        const [method, , , body] = await response.json();
        return Response.json([response.redirected, response.url, method, body]);
        """
        version = version_of(code, permissions=allowed("127.0.0.1"))
        found = json_of(await call(runtime, version))
    expected = "x" if becomes == method and method != "GET" else ""
    assert found == [True, f"http://{host}/to", becomes, expected]


@open_world
async def test_a_redirect_does_not_lead_where_the_function_may_not_go() -> None:
    async with answering(echo) as other:

        async def handler(_: web.Request) -> web.Response:
            return web.Response(status=302, headers={"location": f"http://{other}/"})

        async with answering(handler) as host, running() as runtime:
            version = version_of(f"await fetch('http://{host}/')", permissions=allowed(host))
            told = thrown_by(await call(runtime, version))
    assert f'"{other}"' in told


@open_world
async def test_a_redirect_to_another_origin_loses_the_credentials() -> None:
    async with answering(echo) as other:

        async def handler(_: web.Request) -> web.Response:
            return web.Response(status=302, headers={"location": f"http://{other}/"})

        async with answering(handler) as host, running() as runtime:
            code = f"""
            const headers = {{ authorization: "Bearer x", cookie: "a=b", "x-kept": "1" }};
            const [, , sent] = await (await fetch("http://{host}/", {{ headers }})).json();
            return Response.json(Object.keys(Object.fromEntries(sent)));
            """
            version = version_of(code, permissions=allowed("127.0.0.1"))
            names = json_of(await call(runtime, version))
    assert "x-kept" in names
    assert not {"authorization", "cookie"} & set(names)


@open_world
@pytest.mark.parametrize(("mode", "told"), [("manual", "302"), ("error", "TypeError")])
async def test_a_redirect_can_be_left(mode: str, told: str) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": "/"})

    async with answering(handler) as host, running() as runtime:
        code = f"""
        try {{
          const response = await fetch("http://{host}/", {{ redirect: "{mode}" }});
          return Response.json(String(response.status));
        }} catch (error) {{ return Response.json(error.name); }}
        """
        version = version_of(code, permissions=allowed("127.0.0.1"))
        assert json_of(await call(runtime, version)) == told


@open_world
async def test_redirects_in_a_circle_end() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": "/"})

    async with answering(handler) as host, running() as runtime:
        version = version_of(f"await fetch('http://{host}/')", permissions=allowed("127.0.0.1"))
        assert "redirects" in thrown_by(await call(runtime, version))


@open_world
async def test_bodies_stream_through() -> None:
    async def handler(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(asked)
        async for part in asked.content.iter_any():
            await response.write(part)
        return response

    async with answering(handler) as host, running() as runtime:
        code = f"""
        const body = new ReadableStream({{
          start(c) {{ for (let i = 0; i < 40; i++) c.enqueue(new Uint8Array(50000)); c.close(); }},
        }});
        const response = await fetch("http://{host}/", {{ method: "POST", body, duplex: "half" }});
        return Response.json((await response.arrayBuffer()).byteLength);
        """
        version = version_of(code, permissions=allowed("127.0.0.1"))
        assert json_of(await call(runtime, version)) == 2_000_000


@open_world
async def test_what_is_compressed_arrives_plain() -> None:
    async def handler(_: web.Request) -> web.Response:
        packed = gzip.compress(b"plain text")
        return web.Response(body=packed, headers={"content-encoding": "gzip"})

    async with answering(handler) as host, running() as runtime:
        code = f"""
        const response = await fetch("http://{host}/");
        return Response.json([await response.text(), response.headers.get("content-encoding")]);
        """
        version = version_of(code, permissions=allowed("127.0.0.1"))
        assert json_of(await call(runtime, version)) == ["plain text", None]


@open_world
async def test_what_one_app_leaves_unsent_is_not_made_up_by_another() -> None:
    """A host that answers before it has read: the rest would be the next request's bytes."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        place = len(asked)
        asked.append(head)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        with suppress(OSError):
            while part := await reader.read(65536):
                asked[place] += part
        writer.close()

    async with tcp_server(serve) as port, running() as runtime:
        short = f"""
        const fs = require("node:fs"), text = new TextEncoder();
        const send = (type, payload) => {{
          const bytes = new Uint8Array(9 + payload.length), view = new DataView(bytes.buffer);
          view.setUint32(0, payload.length); bytes[4] = type; view.setUint32(5, 2);
          bytes.set(text.encode(payload), 9);
          fs.writeSync(1, bytes);
        }};
        send(1, JSON.stringify({{call: 1, method: "POST", url: "http://127.0.0.1:{port}/short",
          headers: [], length: 2000000}}));
        send(3, "begun");
        send(4, "");
        await new Promise((resolve) => setTimeout(resolve, 200));
        return new Response();
        """
        whole = f"""
        const got = await fetch("http://127.0.0.1:{port}/whole", {{headers: {{cookie: "secret"}}}});
        return Response.json(await got.text());
        """
        for code, app_id in ((short, "a"), (whole, "a"), (whole, "b")):
            version = version_of(code, permissions=allowed("127.0.0.1"), app_id=app_id)
            done = await call(runtime, version)
            assert done.status == 200, done.outcome.failure
    assert b"secret" not in asked[0]
    assert len(asked) == 3


@open_world
async def test_a_header_beyond_ascii_is_told_byte_by_byte() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nx-odd: \xff\xc3\xa9\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with tcp_server(serve) as port, running() as runtime:
        code = (
            f"return Response.json((await fetch('http://127.0.0.1:{port}/')).headers.get('x-odd'))"
        )
        version = version_of(code, permissions=allowed("127.0.0.1"))
        assert json_of(await call(runtime, version)) == "\xff\xc3\xa9"


@open_world
async def test_an_aborted_request_is_given_up() -> None:
    left: list[bool] = []

    async def handler(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(asked)
        try:
            while asked.transport is not None and not asked.transport.is_closing():
                await response.write(b"x")
                await asyncio.sleep(0.01)  # or all of this loop's time would go into it
        finally:
            left.append(True)
        return response

    async with answering(handler) as host, running() as runtime:
        code = f"""
        const controller = new AbortController();
        const response = await fetch("http://{host}/", {{ signal: controller.signal }});
        await response.body.getReader().read();
        controller.abort();
        try {{ await response.text(); }} catch (error) {{ return Response.json("aborted"); }}
        """
        version = version_of(code, permissions=allowed("127.0.0.1"))
        done = await call(runtime, version)
        assert done.status in (200, 500)
        await until(lambda: bool(left))


@open_world
async def test_a_request_ends_with_its_call() -> None:
    notes = Notes()
    left: list[bool] = []

    async def handler(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(asked)
        try:
            await until(lambda: asked.transport is None or asked.transport.is_closing())
        finally:
            left.append(True)
        return response

    async with answering(handler) as host, running(notes=notes) as runtime:
        code = f"globalThis.kept = fetch('http://{host}/').catch(() => {{}});"
        code += " await globalThis.kept; return new Response('x')"
        version = version_of(code, permissions=allowed("127.0.0.1"), limits=Limits(wall_ms=5000))
        assert (await call(runtime, version)).body == b"x"
        await until(lambda: bool(left))


@pytest.mark.parametrize(
    ("url", "told"),
    [("file:///etc/passwd", "http"), ("ftp://example.com/", "http"), ("gopher://x/", "http")],
)
async def test_only_http_is_fetched(url: str, told: str) -> None:
    async with running() as runtime:
        version = version_of(f"await fetch('{url}')", permissions=allowed("*"))
        assert told in thrown_by(await call(runtime, version))


async def test_data_urls_need_nobody() -> None:
    async with running() as runtime:
        code = "return Response.json(await (await fetch('data:text/plain,hello')).text())"
        assert json_of(await call(runtime, code)) == "hello"


@open_world
async def test_an_answer_that_is_too_large_is_cut() -> None:
    async def handler(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(asked)
        for _ in range(40):
            await response.write(bytes(65_536))
        return response

    settings = replace(SETTINGS, functions_egress_bytes=100_000)
    async with answering(handler) as host, running(settings) as runtime:
        code = f"await (await fetch('http://{host}/')).arrayBuffer()"
        version = version_of(code, permissions=allowed("127.0.0.1"))
        assert "larger than 100000" in thrown_by(await call(runtime, version))


async def test_a_name_without_an_address_is_told() -> None:
    async with running() as runtime:
        version = version_of("await fetch('http://nowhere.invalid/')", permissions=allowed("*"))
        told = thrown_by(await call(runtime, version))
    assert told == "TypeError: nowhere.invalid has no address"


@open_world
async def test_more_requests_at_a_time_than_allowed_are_refused() -> None:
    gate: list[bool] = []

    async def handler(_: web.Request) -> web.Response:
        await until(lambda: bool(gate))
        return web.Response(text="x")

    async with answering(handler) as host, running() as runtime:
        code = f"""
        const asked = Array.from({{length: 70}}, () => fetch("http://{host}/").then(() => 1,
          (error) => error.message));
        const refused = await Promise.race(asked);
        return Response.json(refused);
        """
        version = version_of(code, permissions=allowed("127.0.0.1"))
        assert "more than 64" in json_of(await call(runtime, version))
        gate.append(True)
