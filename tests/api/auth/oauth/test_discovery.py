"""What is asked of providers, how often, and where we are not to be led."""

import asyncio
import logging
import socket
from typing import Any

import pytest

from butterbase.api.auth.config import Provider as Settings
from butterbase.api.auth.oauth import http as http_module
from butterbase.api.auth.oauth.discovery import FRESH_S, REFETCH_S, STALE_S, Discovery
from butterbase.api.auth.oauth.errors import BadIdTokenError, ProviderUnreachableError
from butterbase.api.auth.oauth.http import ProviderHttp
from butterbase.api.auth.oauth.id_tokens import Header
from butterbase.api.auth.oauth.providers import Provider, find_provider
from butterbase.api.settings import ApiSettings
from tests.api.auth.oauth.conftest import World
from tests.api.auth.oauth.issuer import RSA, Issuer
from tests.api.auth.oauth.vendor import selling
from tests.api.conftest import running
from tests.installation import Installation

ISSUER = "https://issuer.example"
DOCUMENT = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}


def acme(issuer: str = ISSUER) -> Provider:
    return find_provider("acme", {"acme": Settings("client", issuer=issuer)})


class Said(ProviderHttp):
    """What providers say, by address; an error is raised."""

    def __init__(self, **said: Any) -> None:
        self.said: dict[str, Any] = {
            f"{ISSUER}/.well-known/openid-configuration": DOCUMENT,
            f"{ISSUER}/keys": {"keys": [RSA.as_dict(private=False)]},
        }
        self.asked: list[str] = []

    async def get(self, url: str, *, headers: Any = None) -> Any:
        self.asked.append(url)
        await asyncio.sleep(0)
        said = self.said[url]
        if isinstance(said, Exception):
            raise said
        return said


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def discovery(said: Said, clock: Clock) -> Discovery:
    return Discovery(said, clock=clock)


async def test_many_at_once_ask_once(said: Said, discovery: Discovery) -> None:
    found = await asyncio.gather(*(discovery.metadata(acme()) for _ in range(10)))
    assert {one.issuer for one in found} == {ISSUER}
    assert len(said.asked) == 1


async def test_what_was_said_is_good_for_a_while(
    said: Said, clock: Clock, discovery: Discovery
) -> None:
    await discovery.metadata(acme())
    clock.now_s += FRESH_S - 1
    await discovery.metadata(acme())
    assert len(said.asked) == 1
    clock.now_s += 1
    await discovery.metadata(acme())
    assert len(said.asked) == 2


async def test_and_for_longer_while_the_provider_is_silent(
    said: Said, clock: Clock, discovery: Discovery
) -> None:
    await discovery.metadata(acme())
    said.said = dict.fromkeys(said.said, ProviderUnreachableError())
    clock.now_s += STALE_S - 1
    assert (await discovery.metadata(acme())).issuer == ISSUER
    clock.now_s += 1
    with pytest.raises(ProviderUnreachableError):
        await discovery.metadata(acme())


async def test_a_new_key_is_found_when_it_is_used(
    said: Said, clock: Clock, discovery: Discovery
) -> None:
    header = Header("RS256", "rsa-2")
    for _ in range(3):
        with pytest.raises(BadIdTokenError):
            await discovery.key(f"{ISSUER}/keys", header)
    assert len(said.asked) == 1
    said.said[f"{ISSUER}/keys"] = {"keys": [{**RSA.as_dict(private=False), "kid": "rsa-2"}]}
    clock.now_s += REFETCH_S
    assert (await discovery.key(f"{ISSUER}/keys", header))["kid"] == "rsa-2"
    assert len(said.asked) == 2


async def test_a_key_that_was_withdrawn_is_believed_no_longer(
    said: Said, clock: Clock, discovery: Discovery
) -> None:
    header = Header("RS256", RSA.kid)
    await discovery.key(f"{ISSUER}/keys", header)
    said.said[f"{ISSUER}/keys"] = {"keys": []}
    clock.now_s += FRESH_S
    with pytest.raises(BadIdTokenError):
        await discovery.key(f"{ISSUER}/keys", header)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {**DOCUMENT, "issuer": "https://accounts.google.com"},
        {**DOCUMENT, "issuer": f"{ISSUER}/"},
        {**DOCUMENT, "issuer": 7},
        {"issuer": ISSUER},
        {**DOCUMENT, "token_endpoint_auth_methods_supported": "client_secret_post"},
    ],
)
async def test_another_document_is_none(said: Said, discovery: Discovery, document: object) -> None:
    said.said[f"{ISSUER}/.well-known/openid-configuration"] = document
    with pytest.raises(ProviderUnreachableError):
        await discovery.metadata(acme())


@pytest.mark.parametrize("keys", [None, [], {}, {"keys": {}}, {"keys": None}])
async def test_other_keys_are_none(said: Said, discovery: Discovery, keys: object) -> None:
    said.said[f"{ISSUER}/keys"] = keys
    with pytest.raises(ProviderUnreachableError):
        await discovery.key(f"{ISSUER}/keys", Header("RS256", None))


async def test_keys_that_are_no_objects_are_passed_over(said: Said, discovery: Discovery) -> None:
    key = RSA.as_dict(private=False)
    said.said[f"{ISSUER}/keys"] = {"keys": [None, 7, {}, {"kty": []}, {"kty": "RSA"}, key]}
    assert await discovery.key(f"{ISSUER}/keys", Header("RS256", RSA.kid)) == key


PRIVATE = [
    "http://issuer.example/",
    "https://127.0.0.1:1/",
    "https://[::1]:1/",
    "https://[::ffff:127.0.0.1]:1/",
    "https://localhost:1/",
    "https://10.0.0.1:1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://0.0.0.0:1/",
    "https://2130706433:1/",
    "https://0x7f.1:1/",
    "file:///etc/passwd",
    "ftp://issuer.example/",
    "",
    "https://",
    "https://[bad/",
    "https://issuer.example:99999/",
    "https://\x00/",
]


@pytest.mark.parametrize("url", PRIVATE)
async def test_no_address_leads_into_our_network(url: str) -> None:
    http = ProviderHttp(is_private_allowed=False)
    try:
        for ask in (http.get(url), http.post(url, {"code": "x"})):
            with pytest.raises(ProviderUnreachableError):
                await ask
    finally:
        await http.close()


@pytest.mark.parametrize("is_allowed", [False, True])
async def test_what_a_name_resolves_to_is_what_counts(
    monkeypatch: pytest.MonkeyPatch, is_allowed: bool
) -> None:
    """It is the address that is connected to: no look-up before it can be answered otherwise."""
    resolved, connected = [], []

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        resolved.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def connect(_socket: socket.socket, address: Any) -> None:
        connected.append(address)
        raise ConnectionRefusedError

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    monkeypatch.setattr(loop, "sock_connect", connect)
    http = ProviderHttp(is_private_allowed=is_allowed)
    try:
        with pytest.raises(ProviderUnreachableError):
            await http.get("https://issuer.example/")
    finally:
        await http.close()
    assert resolved == ["issuer.example"]
    assert connected == ([("127.0.0.1", 443)] if is_allowed else [])


async def test_no_redirect_is_followed_and_no_cookie_kept() -> None:
    http = ProviderHttp(is_private_allowed=True)
    async with selling({"/": (302, {}), "/ok": {}}) as vendor:
        try:
            with pytest.raises(ProviderUnreachableError, match="302"):
                await http.get(f"{vendor.url}/")
            await http.get(f"{vendor.url}/ok")
            assert "cookie" not in vendor.headers["/ok"]
        finally:
            await http.close()


async def test_an_answer_byte_by_byte_does_not_hold_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "TIMEOUT_S", 0.3)
    gone = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        try:
            while not reader.at_eof():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        writer.close()
        gone.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    http = ProviderHttp(is_private_allowed=True)
    try:
        with pytest.raises(ProviderUnreachableError):
            await http.get(f"http://127.0.0.1:{port}/")
        await asyncio.wait_for(gone.wait(), 10)
    finally:
        await http.close()
        server.close()
        await server.wait_closed()


async def test_the_log_names_the_host_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="butterbase")
    http = ProviderHttp(is_private_allowed=False)
    try:
        with pytest.raises(ProviderUnreachableError):
            await http.get("https://127.0.0.1:1/path?secret=x")
    finally:
        await http.close()
    assert "127.0.0.1:1" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("is_allowed", [None, False])
async def test_an_issuer_in_our_network_is_refused(
    installation: Installation, issuer: Issuer, is_allowed: bool | None
) -> None:
    """Unless the operator allows it: an app's administrator is not one."""
    async with running(installation, ApiSettings(auth_private_urls=is_allowed)) as api:
        world = World(api, issuer)
        await world.provide()
        answer = await api.client.get("/auth/v1/authorize", params={"provider": "acme"})
        assert (answer.status_code, answer.json()["error_code"]) == (502, "unexpected_failure")
        status, _ = await world.id_token(issuer.id_token())
        assert status == 502
    assert issuer.discovery_count == 0
