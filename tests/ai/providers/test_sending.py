"""Requests as they go to providers, on real sockets, and what a request may not become."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.errors import UpstreamCutError, UpstreamUnreachableError
from butterbase.ai.providers.sending import place_of, render_head
from butterbase.ai.providers.upstream import Upstream as Connections
from butterbase.ai.providers.upstream import UpstreamAnswer
from butterbase.ai.settings import AiSettings
from tests.ai.upstream import Received, Upstream, answer, hang_up, silence, stream
from tests.serving import tcp_server
from tests.waiting import DEADLINE_S, until

BODY = b'{"model":"m"}'


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    connections = Connections(AiSettings(ai_private_base_urls=True))
    yield connections
    await connections.close()


async def ask(
    connections: Connections, upstream: Upstream, body: bytes | None = BODY, **headers: str
) -> UpstreamAnswer:
    return await connections.ask(
        f"{upstream.base_url}/chat/completions?a=b%20c",
        body,
        headers=headers,
        provider="p",
        is_private_allowed=True,
    )


async def whole(answer: UpstreamAnswer) -> bytes:
    return await answer.read_whole(bytes_max=100)


# The head


@given(st.dictionaries(st.text(min_size=1), st.text()))
async def test_a_head_is_as_many_lines_as_it_has_fields_or_refused(given: dict[str, str]) -> None:
    try:
        head = render_head(place_of("http://a.example:81/v1/x"), given, byte_count=3)
    except (ValueError, UnicodeEncodeError):
        return
    first, *fields, last, end = head.decode().split("\r\n")
    assert first == "POST /v1/x HTTP/1.1"
    assert (last, end) == ("", "")
    names = [field.partition(": ")[0] for field in fields]
    assert names.count("host") == names.count("content-length") == 1
    assert "\n" not in "".join(fields)
    assert "\0" not in "".join(fields)


async def test_nobody_else_says_where_a_request_ends() -> None:
    given = {"Content-Length": "0", "Transfer-Encoding": "chunked", "Host": "elsewhere.example"}
    head = render_head(place_of("https://[::1]/v1"), given, byte_count=3)
    assert head == b"POST /v1 HTTP/1.1\r\nhost: [::1]\r\ncontent-length: 3\r\n\r\n"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/",
        "/v1",
        "http:///v1",
        "http://user:key@a.example/v1",
        "http://a.example/v1 HTTP/1.1",
        "http://a.example/v1\r\nx: y",
        "http://a.example/é",
    ],
)
async def test_an_url_that_is_no_servers_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|url"):
        place_of(url)


async def test_a_header_with_a_line_break_is_sent_to_nobody(
    connections: Connections, upstream: Upstream
) -> None:
    with pytest.raises(UpstreamUnreachableError):
        await ask(connections, upstream, authorization="Bearer a\r\nx-other: b")
    assert upstream.received == []


# Connections


async def test_a_connection_is_used_again_once_its_answer_was_read(
    connections: Connections, upstream: Upstream
) -> None:
    upstream.script = answer(200, b"one")
    for _ in range(3):
        assert await whole(await ask(connections, upstream, Authorization="Bearer k")) == b"one"
    assert {request.connection for request in upstream.received} == {1}
    assert upstream.last.path == "/v1/chat/completions?a=b%20c"
    assert upstream.last.body == BODY
    assert upstream.last.headers == {
        "host": upstream.base_url.removeprefix("http://").removesuffix("/v1"),
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": "butterbase",
        "content-type": "application/json",
        "authorization": "Bearer k",
        "content-length": str(len(BODY)),
    }


async def test_a_connection_whose_answer_was_not_read_is_closed(
    connections: Connections, upstream: Upstream
) -> None:
    upstream.script = stream(b"part", None)
    begun = await ask(connections, upstream)
    assert await begun.read() == b"part"
    begun.close()
    await asyncio.wait_for(upstream.last.left.wait(), 10)
    upstream.script = answer(200, b"one")
    assert await whole(await ask(connections, upstream)) == b"one"
    assert [request.connection for request in upstream.received] == [1, 2]


async def test_who_reads_an_answer_that_is_closed_is_told(
    connections: Connections, upstream: Upstream
) -> None:
    upstream.script = stream(b"part", None)
    begun = await ask(connections, upstream)
    assert await begun.read() == b"part"
    reading = asyncio.create_task(begun.read())
    await asyncio.sleep(0)
    begun.close()
    with pytest.raises(UpstreamCutError):
        await reading


async def test_who_leaves_before_an_answer_closes_the_connection(
    connections: Connections, upstream: Upstream
) -> None:
    upstream.script = silence
    asking = asyncio.create_task(ask(connections, upstream))
    await until(lambda: bool(upstream.received))
    asking.cancel()
    await asyncio.wait_for(upstream.last.left.wait(), 10)


async def test_interim_answers_are_passed_over(
    connections: Connections, upstream: Upstream
) -> None:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        await writer.drain()
        await answer(200, b"one")(request, writer)

    upstream.script = script
    begun = await ask(connections, upstream)
    assert (begun.status, await whole(begun)) == (200, b"one")


async def test_a_request_that_changes_something_is_not_sent_twice(
    connections: Connections, upstream: Upstream
) -> None:
    upstream.script = hang_up
    with pytest.raises(UpstreamUnreachableError):
        await ask(connections, upstream)
    assert len(upstream.received) == 1


async def test_a_kept_connection_that_was_closed_costs_no_question(
    connections: Connections, upstream: Upstream
) -> None:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        await (hang_up if len(upstream.received) == 2 else answer(200, b"one"))(request, writer)

    upstream.script = script
    for _ in range(2):
        assert await whole(await ask(connections, upstream, None)) == b"one"
    assert [request.connection for request in upstream.received] == [1, 1, 2]
    assert upstream.last.method == "GET"
    assert "content-length" not in upstream.last.headers


async def test_a_refusal_before_all_was_sent_ends_the_connection(connections: Connections) -> None:
    """Else what is left of the body would be read as the next request."""
    opened, closed = 0, asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await writer.drain()
        await closed.wait()  # reading nothing more
        writer.close()

    async with tcp_server(refuse, limit=1024) as port:
        try:
            for _ in range(2):
                async with asyncio.timeout(DEADLINE_S):
                    refused = await connections.ask(
                        f"http://127.0.0.1:{port}/v1",
                        bytes(32_000_000),
                        headers={},
                        provider="p",
                        is_private_allowed=True,
                    )
                assert (refused.status, await refused.read_error()) == (413, b"no")
            assert opened == 2
        finally:
            closed.set()


# TLS


def certificate(folder: Path) -> Path:
    """Key and certificate of `localhost`, which its own holder has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, file = serialization.Encoding.PEM, folder / "localhost.pem"
    private = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(encoding))
    return file


@pytest.mark.parametrize(
    ("host", "is_trusted"), [("localhost", True), ("127.0.0.1", True), ("localhost", False)]
)
async def test_a_provider_must_be_who_its_name_says(
    connections: Connections,
    upstream: Upstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    is_trusted: bool,
) -> None:
    file = certificate(tmp_path)
    if is_trusted:
        trusting = ssl.create_default_context(cafile=file)
        monkeypatch.setattr("butterbase.ai.providers.upstream._tls", lambda: trusting)
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(file)
    upstream.script = answer(200, b"one")
    async with tcp_server(upstream.serve, ssl=theirs) as port:
        upstream.base_url = f"https://{host}:{port}/v1"
        try:
            if is_trusted and host == "localhost":
                for _ in range(2):
                    assert await whole(await ask(connections, upstream)) == b"one"
                assert {request.connection for request in upstream.received} == {1}
            else:
                with pytest.raises(UpstreamUnreachableError):
                    await ask(connections, upstream)
                assert upstream.received == []
        finally:
            await connections.close()
