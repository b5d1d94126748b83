"""What a failing provider, database or client does to a call that is not streamed."""

import asyncio
import socket

import psycopg
import pytest

from butterbase.ai.money import ledger
from butterbase.ai.providers.upstream import public_socket
from butterbase.ai.settings import AiSettings
from tests.ai.conftest import Harness, running_gateway, until
from tests.ai.upstream import (
    COMPLETION,
    RATE_LIMITED,
    Script,
    Upstream,
    answer,
    chunk,
    hang_up,
    silence,
    stream,
)
from tests.postgres import Database, Databases


async def test_a_rate_limit_passes_with_its_retry_after(
    harness: Harness, upstream: Upstream
) -> None:
    headers = {"retry-after": "20", "retry-after-ms": "20000"}
    others = {"set-cookie": "a=b", "x-internal": "1"}
    upstream.script = answer(429, RATE_LIMITED, headers | others)
    response = await harness.chat()
    assert response.status_code == 429
    assert response.headers["retry-after"] == "20"
    assert response.headers["retry-after-ms"] == "20000"
    assert not set(others) & set(response.headers)
    assert response.json() == RATE_LIMITED
    event = await harness.the_event()
    assert (event["status"], event["http_status"]) == ("failed", 429)
    assert event["error_code"] == "upstream_refused"


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (500, b"<html>oops</html>", "the AI provider answered 500"),
        (503, b"", "the AI provider answered 503"),
        (404, {"error": "model 'x' not found"}, "model 'x' not found"),
        (400, {"object": "error", "message": "too long"}, "too long"),
        (422, {"detail": "bad field"}, "bad field"),
        (422, {"detail": [{"loc": ["body"]}]}, "the AI provider answered 422"),
    ],
)
async def test_other_errors_get_openais_shape_and_keep_their_status(
    harness: Harness, upstream: Upstream, status: int, body: object, message: str
) -> None:
    upstream.script = answer(status, body)
    response = await harness.chat()
    assert response.status_code == status
    error = response.json()["error"]
    assert (error["message"], error["code"]) == (message, "upstream_refused")
    assert (await harness.the_event())["http_status"] == status


async def test_a_refused_key_is_told_without_the_providers_words(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = answer(401, {"error": {"message": "Incorrect API key: sk-operator"}})
    response = await harness.chat()
    assert response.status_code == 401
    assert "sk-operator" not in response.text
    assert "byokKey" in response.json()["error"]["hint"]


async def test_redirects_are_not_followed(harness: Harness, upstream: Upstream) -> None:
    upstream.script = answer(307, b"", {"location": "http://127.0.0.1:1/"})
    assert (await harness.chat()).status_code == 502
    assert {request.path for request in upstream.received} == {"/v1/chat/completions"}


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (hang_up, "upstream_unreachable"),
        (answer(200, b"<html>"), "upstream_invalid_response"),
        (answer(200, b"[1]"), "upstream_invalid_response"),
        (answer(200, b"{}"), "upstream_invalid_response"),
        (answer(200, {"choices": "none"}), "upstream_invalid_response"),
        (answer(999, b"{}"), "upstream_refused"),
        (answer(200, b"{}", {"content-length": "100"}), "upstream_stream_cut"),
        (answer(200, b"?", {"content-encoding": "gzip"}), "upstream_invalid_response"),
        (stream(chunk("a")), "upstream_invalid_response"),
    ],
)
async def test_an_answer_that_is_none_is_a_502(
    harness: Harness, upstream: Upstream, script: Script, code: str
) -> None:
    async def once(request: object, writer: asyncio.StreamWriter) -> None:
        await script(request, writer)  # type: ignore[arg-type]
        writer.close()

    upstream.script = once
    response = await harness.chat()
    assert (response.status_code, response.json()["error"]["code"]) == (502, code)
    event = await harness.the_event()
    assert (event["status"], event["error_code"]) == ("failed", code)


async def test_an_answer_above_the_limit_is_a_502(control: Database, upstream: Upstream) -> None:
    upstream.script = answer(200, {**COMPLETION, "x": "x" * 2000})
    settings = AiSettings(ai_base_url=upstream.base_url, ai_response_bytes_max=1024)
    async with running_gateway(control, settings) as harness:
        assert (await harness.chat()).status_code == 502


async def test_a_refused_connection_is_a_502(control: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with running_gateway(
        control, AiSettings(ai_base_url=f"http://127.0.0.1:{port}")
    ) as harness:
        response = await harness.chat()
        assert response.status_code == 502
        assert response.json()["error"]["code"] == "upstream_unreachable"
        assert (await harness.the_event())["status"] == "failed"


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("script", [silence, stream(b": keep-alive\n\n", None)])
async def test_a_provider_that_takes_too_long_is_a_timeout(
    control: Database, upstream: Upstream, script: Script, is_streamed: bool
) -> None:
    upstream.script = script
    settings = AiSettings(
        ai_base_url=upstream.base_url,
        ai_total_timeout_s=5 if is_streamed else 0.2,
        ai_first_token_timeout_s=0.2,
    )
    async with running_gateway(control, settings) as harness:
        response = await harness.chat(stream=is_streamed)
        assert "upstream_timeout" in response.text
        has_begun = response.text.startswith(":")
        assert response.status_code == (200 if has_begun else 504)
        event = await harness.the_event()
        assert (event["status"], event["error_code"]) == ("timeout", "upstream_timeout")
        assert event["http_status"] == response.status_code
        async with asyncio.timeout(20):
            await upstream.last.left.wait()


async def test_a_stream_that_does_not_end_is_a_timeout(
    control: Database, upstream: Upstream
) -> None:
    upstream.script = stream(chunk("a"), None)
    settings = AiSettings(
        ai_base_url=upstream.base_url, ai_total_timeout_s=1.5, ai_first_token_timeout_s=1.5
    )
    async with running_gateway(control, settings) as harness:
        response = await harness.chat(stream=True)
        assert response.content.startswith(chunk("a"))
        assert b"upstream_timeout" in response.content
        event = await harness.the_event()
        assert event["status"] == "timeout"
        assert event["latency_ms"] >= 1500


async def test_a_client_that_leaves_cancels_the_provider(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = silence
    call = asyncio.create_task(harness.chat())
    await upstream.arrived.wait()
    call.cancel()
    async with asyncio.timeout(20):
        await upstream.last.left.wait()
    event = await harness.the_event()
    assert (event["status"], event["http_status"]) == ("cancelled", None)


async def test_a_client_that_leaves_in_mid_request_is_recorded(harness: Harness) -> None:
    host, port = harness.origin.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST "
        + harness.path.encode()
        + b"/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{"
    )
    await writer.drain()
    await until(lambda: harness.gateway.call_count == 1)
    writer.transport.abort()
    assert (await harness.the_event())["status"] == "cancelled"


async def test_an_event_that_cannot_be_written_waits_for_the_database(
    own_control: Database, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.script = answer(200, COMPLETION)
    settings = AiSettings(ai_base_url=upstream.base_url)
    async with running_gateway(own_control, settings) as harness:
        harness.execute("revoke insert on butterbase.events from butterbase_service")
        assert (await harness.chat()).json() == COMPLETION
        await until(lambda: "waits" in caplog.text)
        assert harness.events() == []
        harness.execute("grant insert on butterbase.events to butterbase_service")
        await harness.ledger.write_waiting()
        assert (await harness.the_event())["status"] == "ok"


async def test_without_the_database_nothing_is_asked_of_the_provider(
    own_control: Database,
    upstream: Upstream,
    postgres: Databases,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "WRITE_TIMEOUT_S", 0.2)
    settings = AiSettings(ai_base_url=upstream.base_url)
    async with running_gateway(own_control, settings) as harness:
        with psycopg.connect(postgres.dsn, autocommit=True) as conn:
            name = own_control.name
            conn.execute(f"alter database {name} allow_connections false".encode())
            conn.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s",
                [name],
            )
        response = await harness.chat()
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "ai_accounting_unavailable"
    assert upstream.received == []


async def test_an_apps_provider_may_not_be_a_private_address(
    control: Database, upstream: Upstream
) -> None:
    async with running_gateway(control, AiSettings()) as harness:
        for host in ("127.0.0.1", "localhost"):
            url = upstream.base_url.replace("127.0.0.1", host)
            await harness.http.put(f"{harness.path}/ai/config", json={"baseUrl": url})
            response = await harness.chat()
            assert response.status_code == 502
            assert "BUTTERBASE_AI_PRIVATE_BASE_URLS" in response.json()["error"]["hint"]
        assert upstream.received == []


@pytest.mark.parametrize(
    ("host", "is_public"),
    [
        ("1.1.1.1", True),
        ("2606:4700:4700::1111", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),  # noqa: S104  (an address to refuse, not one to listen on)
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::7f00:1", False),
        ("2002:7f00:1::", False),
        ("::ffff:0:127.0.0.1", False),
        ("fec0::1", False),
        ("ff0e::1", False),
        ("224.0.1.1", False),
    ],
)
def test_private_addresses(host: str, is_public: bool) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = (family, socket.SOCK_STREAM, 6, "", (host, 443))
    if is_public:
        public_socket(address).close()
    else:
        with pytest.raises(PermissionError):
            public_socket(address)


async def test_a_client_that_leaves_an_answer_under_way_is_charged_for_its_prompt(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = silence
    call = asyncio.create_task(harness.chat())
    await upstream.arrived.wait()
    call.cancel()
    event = await harness.the_event()
    assert (event["usage_source"], event["prompt_tokens"]) == ("estimated", 5)
    assert (event["completion_tokens"], event["cost_nanos"]) == (0, 25_000)


async def test_a_server_that_stops_tells_who_waits_for_a_whole_answer(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = silence
    call = asyncio.create_task(harness.chat())
    await upstream.arrived.wait()
    await harness.gateway.close()
    response = await call
    assert (response.status_code, response.json()["error"]["code"]) == (503, "ai_stopping")
    assert (await harness.the_event())["error_code"] == "ai_stopping"


async def test_a_fault_that_nobody_foresaw_is_recorded_and_told_without_details(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("secret detail")

    monkeypatch.setattr("butterbase.ai.calls.attempts.exchange_with", fail)
    response = await harness.chat()
    assert (response.status_code, response.json()["error"]["code"]) == (500, "ai_internal_error")
    assert "secret detail" not in response.text
    assert (await harness.the_event())["error_code"] == "ai_internal_error"
