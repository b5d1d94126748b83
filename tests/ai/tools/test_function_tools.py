"""Tools over the app's functions: a request of the user's to /functions/v1, wherever that leads."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from butterbase.api.settings import ApiSettings
from tests.ai.tools.conftest import Says, Talking, calls, talking
from tests.ai.upstream import Received, Upstream, answer, hang_up, running_upstream, silence
from tests.installation import Installation

DONE = Says("done")
PARAMETERS = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}


@dataclass
class Both:
    talk: Talking
    functions: Upstream
    """What stands at the api's own address."""


@pytest.fixture
async def both(installation: Installation, upstream: Upstream) -> AsyncIterator[Both]:
    async with running_upstream() as functions:
        port = urlsplit(functions.base_url).port
        assert port is not None
        async with talking(installation, upstream, api=ApiSettings(port=port)) as talk:
            await talk.offer(
                send={"function": "send-mail", "description": "Sends.", "parameters": PARAMETERS},
                hasty={"function": "hasty", "description": "Waits.", "timeoutS": 0.3},
            )
            yield Both(talk, functions)


async def test_a_function_is_called_as_the_user_and_told_no_more_than_that(both: Both) -> None:
    both.functions.script = answer(200, {"sent": True})
    both.talk.model.says(calls("send", {"to": "bob"}), DONE)
    headers = both.talk.user() | {"x-request-id": "asked-1", "cookie": "a=b", "x-secret": "s"}
    response = await both.talk.ask("send", headers=headers)
    assert response.json()["choices"][0]["message"]["content"] == "done"
    request = both.functions.last
    assert (request.method, request.path) == ("POST", "/functions/v1/send-mail")
    assert request.json() == {"to": "bob"}
    assert request.headers["authorization"] == headers["authorization"]
    assert request.headers["apikey"] == headers["apikey"]
    assert request.headers["x-request-id"] == "asked-1"
    assert not {"cookie", "x-secret"} & request.headers.keys()
    assert both.talk.model.results() == [{"sent": True}]
    tool = both.talk.model.requests[0]["tools"][0]["function"]
    assert tool == {"name": "send", "description": "Sends.", "parameters": PARAMETERS}
    (event,) = await both.talk.events("ai.tool", 1)
    assert (event["kind"], event["target"]) == ("function", "send-mail")
    assert (event["operation"], event["http_status"]) == ("invoke", 200)


async def test_what_a_function_may_answer(both: Both) -> None:
    cases: list[tuple[object, object]] = [
        (b"plain words", {"text": "plain words", "isCut": False, "byteCount": 11}),
        (b"", {"done": True}),
        (b"\xff", {"text": "\ufffd", "isCut": False, "byteCount": 1}),
        ([1, 2.5], [1, 2.5]),
    ]
    for body, told in cases:
        both.functions.script = answer(200, body)
        both.talk.model.says(calls("send", {}), DONE)
        await both.talk.ask("send")
        (result,) = both.talk.model.results()
        assert result == told
    both.functions.script = answer(200, b"x" * 3_000_000)
    both.talk.model.says(calls("send", {}), DONE)
    await both.talk.ask("send")
    (result,) = both.talk.model.results()
    assert (len(result["text"]), result["isCut"]) == (16 * 1024, True)


async def test_functions_that_fail_are_told_to_the_model(both: Both) -> None:
    async def never(request: Received, writer: asyncio.StreamWriter) -> None:
        await hang_up(request, writer)

    for script, name, code in (
        (answer(404, {"title": "Not found"}), "send", "ai_tool_refused"),
        (answer(500, b"<html>"), "send", "ai_tool_refused"),
        (answer(307, b"", {"location": "http://127.0.0.1:1/"}), "send", "ai_tool_refused"),
        (never, "send", "ai_tool_refused"),
        (silence, "hasty", "ai_tool_timeout"),
    ):
        both.functions.script = script
        both.talk.model.says(calls(name, {}), DONE)
        response = await both.talk.ask(name)
        assert response.status_code == 200, response.text
        (result,) = both.talk.model.results()
        assert result["error"]["code"] == code, result
    for arguments in ("[]", "{", '"text"', "null"):
        both.talk.model.says(calls("send", arguments), DONE)
        await both.talk.ask("send")
        (result,) = both.talk.model.results()
        assert result["error"]["code"] == "ai_tool_arguments_invalid"
