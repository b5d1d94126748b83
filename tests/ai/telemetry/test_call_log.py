"""The line that each call has in the log."""

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from butterbase.ai.seams import Seams
from butterbase.ai.settings import AiSettings
from butterbase.ai.telemetry.call_log import LOGGER, CallLog
from butterbase.cli.log import JsonFormatter
from tests.ai.conftest import USER, Harness, running_gateway, until
from tests.ai.upstream import COMPLETION, RATE_LIMITED, Upstream, answer
from tests.postgres import Database

SECRET = "the question nobody else may read"


@pytest.fixture
async def harness(control: Database, upstream: Upstream) -> AsyncIterator[Harness]:
    settings = AiSettings(
        ai_base_url=upstream.base_url, ai_api_key="sk-operators-key", ai_private_base_urls=True
    )
    seams = Seams(observers=(CallLog(),))
    async with running_gateway(control, settings, seams=seams) as harness:
        yield harness


async def records(caplog: pytest.LogCaptureFixture, count: int = 1) -> list[logging.LogRecord]:
    """Once there are so many."""

    def found() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == LOGGER]

    await until(lambda: len(found()) >= count)
    return found()


async def lines(caplog: pytest.LogCaptureFixture, count: int = 1) -> list[str]:
    return [record.getMessage() for record in await records(caplog, count)]


async def test_a_call_is_a_line_without_its_texts(
    harness: Harness, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    upstream.script = answer(200, COMPLETION)
    await harness.http.post(
        harness.chat_path,
        json={"model": "gpt-test", "messages": [{"role": "user", "content": SECRET}]},
        headers={"x-request-id": "r-1", "x-test-role": "authenticated", "x-test-user": USER},
    )
    (text,) = await lines(caplog)
    line = json.loads(text)
    assert line.pop("latency_ms") >= 0
    assert len(line.pop("call_id")) == 36
    assert float(line.pop("cost_usd")) > 0
    assert line == {
        "request_id": "r-1",
        "app": harness.app_id,
        "user": USER,
        "endpoint": "chat/completions",
        "requested_model": "gpt-test",
        "provider": "127.0.0.1",
        "model": "gpt-test",
        "status": "ok",
        "http_status": 200,
        "attempts": 1,
        "prompt_tokens": 19,
        "completion_tokens": 10,
        "cached_tokens": 16,
        "reasoning_tokens": 4,
        "usage_source": "reported",
        "price_source": "fallback",
    }
    for text in (SECRET, "Hello!", "sk-operators-key"):
        assert text not in caplog.text


async def test_a_call_that_fails_is_a_line_with_its_code(
    harness: Harness, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    upstream.script = answer(400, RATE_LIMITED)
    await harness.chat()
    (line,) = map(json.loads, await lines(caplog))
    assert (line["status"], line["http_status"], line["error"]) == (
        "failed",
        400,
        "upstream_refused",
    )
    assert "prompt_tokens" not in line


async def test_what_a_client_writes_begins_no_line(
    harness: Harness, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    upstream.script = answer(200, COMPLETION)
    for model in ("a\nb", "a\u2028b", '","status":"ok'):
        await harness.chat(model=model)
    for text in await lines(caplog, 3):
        assert len(text.splitlines()) == 1
        assert json.loads(text)["app"] == harness.app_id


async def test_a_log_of_json_has_the_fields_beside_its_own(
    harness: Harness, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    upstream.script = answer(200, COMPLETION)
    await harness.chat()
    (record,) = await records(caplog)
    line: dict[str, Any] = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["logger"], line["model"]) == ("INFO", LOGGER, "gpt-test")
    assert "message" not in line


async def test_whoever_looks_on_cannot_fail_a_call(control: Database, upstream: Upstream) -> None:
    class Broken:
        def ended(self, settlement: object, trace_id: object) -> None:
            raise ValueError(settlement, trace_id)

        def flush(self) -> None:
            pass

    upstream.script = answer(200, COMPLETION)
    settings = AiSettings(ai_base_url=upstream.base_url, ai_private_base_urls=True)
    seams = Seams(observers=(Broken(),))
    async with running_gateway(control, settings, seams=seams) as harness:
        assert (await harness.chat()).status_code == 200
        assert (await harness.the_event())["status"] == "ok"


async def test_a_server_that_stops_leaves_no_line_out(
    control: Database, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    upstream.script = answer(200, COMPLETION)
    settings = AiSettings(ai_base_url=upstream.base_url, ai_private_base_urls=True)
    async with running_gateway(control, settings, seams=Seams(observers=(CallLog(),))) as harness:
        await harness.chat()
        await harness.gateway.close()
        assert LOGGER in {record.name for record in caplog.records}
