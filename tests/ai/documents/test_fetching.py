"""URLs: what is fetched, what is refused, and that nothing leads into a private network."""

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from butterbase.ai.documents.errors import (
    DocumentError,
    DocumentTooLargeError,
    FetchFailedError,
    FetchRefusedError,
)
from butterbase.ai.documents.fetching import Fetched, Fetcher, check_address, check_url
from tests.ai.upstream import Received, Upstream, answer, hang_up, running_upstream, silence

BYTES_MAX = 100_000


@pytest.fixture
async def site() -> AsyncIterator[Upstream]:
    async with running_upstream() as site:
        yield site


async def fetch(url: str, timeout_s: float = 30.0, *, is_private_allowed: bool = True) -> Fetched:
    return await Fetcher(
        bytes_max=BYTES_MAX, timeout_s=timeout_s, is_private_allowed=is_private_allowed
    ).fetch(url)


def page(site: Upstream, path: str = "/page.html") -> str:
    return site.base_url.removesuffix("/v1") + path


async def test_a_page_is_fetched_with_its_type_and_name(site: Upstream) -> None:
    site.script = answer(200, b"<p>words", {"content-type": "text/html; charset=utf-8"})
    found = await fetch(page(site, "/a/story%20one.html?x=1#part"))
    assert found == Fetched(b"<p>words", "text/html; charset=utf-8", "story one.html")
    assert site.last.path == "/a/story%20one.html?x=1"
    assert "cookie" not in site.last.headers


async def test_the_servers_name_for_it_counts(site: Upstream) -> None:
    disposition = 'attachment; filename="../../report.pdf"'
    site.script = answer(200, b"%PDF-", {"content-disposition": disposition})
    assert (await fetch(page(site))).file_name == "report.pdf"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::1]:{port}/",
        "http://0.0.0.0:{port}/", "http://2130706433:{port}/", "http://0x7f.1:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/", "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/", "http://[fd00::1]/", "http://[64:ff9b::7f00:1]/", "http://127.1:{port}/",
    ],
)  # fmt: skip
async def test_private_addresses_are_refused(site: Upstream, url: str) -> None:
    target = url.format(port=site.base_url.rpartition(":")[2].removesuffix("/v1"))
    with pytest.raises((FetchRefusedError, FetchFailedError)):
        await fetch(target, is_private_allowed=False)
    assert not site.received


async def test_a_name_that_leads_to_a_private_address_is_refused(
    site: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(site.base_url.rpartition(":")[2].removesuffix("/v1"))

    async def resolve(*_: object, **__: object) -> list[dict[str, Any]]:
        return [
            {"hostname": "public.example", "host": "127.0.0.1", "port": port,
             "family": socket.AF_INET, "proto": 0, "flags": 0}
        ]  # fmt: skip

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    with pytest.raises(FetchRefusedError, match="not public"):
        await fetch(f"http://public.example:{port}/", is_private_allowed=False)
    assert not site.received


async def test_a_refusal_does_not_tell_the_address() -> None:
    with pytest.raises(FetchRefusedError) as refused:
        await fetch("http://localhost:1/", is_private_allowed=False)
    assert "127.0.0.1" not in str(refused.value)


async def test_redirects_are_followed_and_each_is_checked(site: Upstream) -> None:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.path == "/first":
            await answer(302, b"", {"location": "/second"})(request, writer)
        else:
            await answer(200, b"there", {"content-type": "text/plain"})(request, writer)

    site.script = script
    assert (await fetch(page(site, "/first"))).data == b"there"


@pytest.mark.parametrize(
    "location",
    [
        "",
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://x/",
        "http://a:b@example.com/",
        "//",
    ],
)
async def test_redirects_to_what_is_no_url_of_a_page_are_refused(
    site: Upstream, location: str
) -> None:
    site.script = answer(302, b"", {"location": location})
    with pytest.raises(FetchRefusedError):
        await fetch(page(site))


async def test_redirects_without_end_are_refused(site: Upstream) -> None:
    site.script = answer(302, b"", {"location": "/again"})
    with pytest.raises(FetchRefusedError, match="redirects"):
        await fetch(page(site))
    assert len(site.received) == 6


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, FetchRefusedError),
        (401, FetchRefusedError),
        (429, FetchFailedError),
        (503, FetchFailedError),
    ],
)
async def test_an_error_is_final_or_for_now(
    site: Upstream, status: int, expected: type[DocumentError]
) -> None:
    site.script = answer(status, b"no")
    with pytest.raises(expected):
        await fetch(page(site))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_what_is_compressed_is_unpacked(site: Upstream, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    site.script = answer(200, pack(b"words " * 100), {"content-encoding": encoding})
    assert (await fetch(page(site))).data == b"words " * 100


async def test_more_than_is_allowed_is_refused_however_it_comes(site: Upstream) -> None:
    for script in (
        answer(200, bytes(BYTES_MAX + 1)),
        answer(200, gzip.compress(bytes(10**8)), {"content-encoding": "gzip"}),
        answer(200, b"", {"content-length": str(10**12)}),
    ):
        site.script = script
        with pytest.raises(DocumentTooLargeError):
            await fetch(page(site))


async def test_broken_compression_is_refused(site: Upstream) -> None:
    site.script = answer(200, b"no gzip", {"content-encoding": "gzip"})
    with pytest.raises(FetchRefusedError):
        await fetch(page(site))
    site.script = answer(200, b"", {"content-encoding": "br"})
    with pytest.raises(FetchRefusedError):
        await fetch(page(site))


async def test_a_server_that_breaks_off_or_says_nothing_is_tried_again(site: Upstream) -> None:
    site.script = hang_up
    with pytest.raises(FetchFailedError):
        await fetch(page(site))
    site.script = silence
    with pytest.raises(FetchFailedError, match="longer"):
        await fetch(page(site), timeout_s=0.2)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "2130706433", "0x7f.1", "0177.0.0.1", "127.1",
     "0", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[fe80::1%25eth0]", "[fd00::1]",
     "localhost", "LOCALHOST.", "app.localhost"],
)  # fmt: skip
async def test_a_private_address_is_refused_at_once_however_it_is_written(host: str) -> None:
    url = f"http://{host}:8000/"
    with pytest.raises(FetchRefusedError, match="not public"):
        check_address(check_url(url))
    # Nor is it reached by who connects.
    with pytest.raises((FetchRefusedError, FetchFailedError)):
        await Fetcher(bytes_max=BYTES_MAX, timeout_s=5).fetch(url)


@pytest.mark.parametrize("host", ["a.example", "93.184.216.34", "[2606:4700::1]", "localhost.com"])
def test_other_addresses_are_judged_when_they_are_connected_to(host: str) -> None:
    check_address(check_url(f"http://{host}/"))


@pytest.mark.parametrize(
    "url",
    ["", "words", "/path", "ftp://example.com/", "http://", "http:///x", "http://a:b@example.com/",
     "http://exa\nmple.com/", "javascript:alert(1)", "http://[::1", "http://example.com:99999/",
     "file:///etc/passwd", "data:text/plain,a", "http://example.com:port/"],
)  # fmt: skip
def test_what_is_no_url_of_a_page_is_refused(url: str) -> None:
    with pytest.raises(FetchRefusedError):
        check_url(url)
