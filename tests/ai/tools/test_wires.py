"""Tools in each client's wire, streamed and not, with the clients that people have."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.ai.conftest import sse_data
from tests.ai.tools.conftest import NOTES, Call, Says, Talking, calls, function, own
from tests.ai.upstream import DONE as END
from tests.ai.upstream import Received, answer, chunk, hang_up, stream
from tests.waiting import until

DONE = Says("You have two.")
LOOK = Says("Let me see. ", (Call("notes", {"operation": "select"}),))

TOOLS: Any = [own("notes")]
"""For clients whose types know no tools but their provider's."""

WIRES: dict[str, dict[str, Any]] = {
    "chat/completions": {},
    "responses": {"messages": None, "input": "Hi"},
    "messages": {"max_tokens": 100},
}


def said(path: str, body: dict[str, Any]) -> str:
    if path == "chat/completions":
        return str(body["choices"][0]["message"]["content"])
    if path == "messages":
        return "".join(block["text"] for block in body["content"])
    items = [item for item in body["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in items for part in item["content"])


@pytest.mark.parametrize("path", WIRES)
async def test_each_wire(talk: Talking, path: str) -> None:
    await talk.offer(notes=NOTES)
    talk.model.says(LOOK, DONE)
    response = await talk.ask("notes", path=path, **WIRES[path])
    assert response.status_code == 200, response.text
    assert said(path, response.json()) == "You have two."
    usage = response.json()["usage"]
    assert 58 in {usage.get("total_tokens"), sum(v for v in usage.values() if type(v) is int)}
    (told,) = talk.model.results()
    assert len(told["rows"]) == 2
    turn = talk.model.requests[1]["messages"][-2]
    assert (turn["role"], turn["content"]) == ("assistant", "Let me see. ")


def client_of(talk: Talking) -> AsyncOpenAI:
    token = talk.user()["authorization"].removeprefix("Bearer ")
    base = f"{talk.client.base_url}/v1/main"
    return AsyncOpenAI(base_url=base, api_key=token, max_retries=0)


async def test_openais_client_hears_one_stream(talk: Talking) -> None:
    await talk.offer(notes=NOTES)
    talk.model.says(LOOK, DONE)
    async with client_of(talk) as client:
        chunks = await client.chat.completions.create(
            model="gpt-test",
            messages=[{"role": "user", "content": "Hi"}],
            tools=TOOLS,
            stream=True,
            stream_options={"include_usage": True},
        )
        heard = [chunk async for chunk in chunks]
    deltas = [c.choices[0].delta for c in heard if c.choices]
    assert "".join(d.content or "" for d in deltas) == "Let me see. You have two."
    assert not any(d.tool_calls for d in deltas)
    assert [c.choices[0].finish_reason for c in heard if c.choices][-1] == "stop"
    assert [c.choices[0].finish_reason for c in heard if c.choices].count(None) == len(deltas) - 1
    assert len({c.id for c in heard}) == 1
    usage = heard[-1].usage
    assert usage is not None
    assert usage.total_tokens == 58
    assert usage.model_extra == {"cost": 0.00069}


async def test_a_stream_of_openais_responses(talk: Talking) -> None:
    await talk.offer(notes=NOTES)
    talk.model.says(LOOK, DONE)
    async with client_of(talk) as client:
        events = await client.responses.create(
            model="gpt-test",
            input="Hi",
            tools=TOOLS,
            stream=True,
        )
        heard: list[Any] = [event async for event in events]
    assert [event.sequence_number for event in heard] == list(range(len(heard)))
    (created,) = [event for event in heard if event.type == "response.created"]
    (completed,) = [event for event in heard if event.type == "response.completed"]
    assert completed.response.output_text == "Let me see. You have two."
    assert completed.response.id == created.response.id
    assert completed.response.usage is not None
    assert completed.response.usage.total_tokens == 58
    assert completed.response.usage.model_extra == {"cost": 0.00069}


async def test_anthropics_client_hears_one_stream(talk: Talking) -> None:
    await talk.offer(notes=NOTES)
    talk.model.says(LOOK, DONE)
    token = talk.user()["authorization"].removeprefix("Bearer ")
    base = f"{talk.client.base_url}/v1/main"
    async with (
        AsyncAnthropic(base_url=base, api_key=token, max_retries=0) as client,
        client.messages.stream(
            model="gpt-test",
            max_tokens=100,
            messages=[{"role": "user", "content": "Hi"}],
            tools=TOOLS,
        ) as events,
    ):
        message = await events.get_final_message()
    assert [block.type for block in message.content] == ["text"]
    assert message.content[0].text == "Let me see. You have two."  # type: ignore[union-attr]
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 20


async def test_a_stream_tells_that_tools_ran_and_what_all_did_cost(talk: Talking) -> None:
    await talk.offer(notes=NOTES)
    both = Says("", (Call("notes", {"operation": "select"}), Call("nothing", {})))
    talk.model.says(both, DONE)
    response = await talk.ask("notes", stream=True)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "x-butterbase-cost-usd" not in response.headers
    *_, cost, end = response.text.strip().split("\n\n")
    assert ": x-butterbase-tool-calls: 2, failed: 1\n\n" in response.text
    assert (cost, end) == (": x-butterbase-cost-usd: 0.00069", "data: [DONE]")
    assert all(c == "[DONE]" or c["choices"] for c in sse_data(response.text))  # no usage asked for
    assert [event["step"] for event in await talk.events("ai.call", 2)] == [1, 2]


async def test_calls_of_the_clients_tools_are_streamed(talk: Talking) -> None:
    await talk.offer(notes=NOTES)
    mixed = Says("", (Call("notes", {"operation": "select"}), Call("own", {"a": "b"})))
    talk.model.says(calls("notes", {"operation": "select"}), mixed)
    response = await talk.ask("notes", function("own"), stream=True)
    chunks = [c for c in sse_data(response.text) if c != "[DONE]"]
    told = [call for c in chunks for call in c["choices"][0]["delta"].get("tool_calls", ())]
    assert told[0]["function"]["name"] == "own"
    assert {call["index"] for call in told} == {0}
    assert "".join(call["function"]["arguments"] for call in told) == '{"a": "b"}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert len(talk.model.requests) == 2


@pytest.mark.parametrize("path", WIRES)
async def test_a_later_step_that_fails_ends_the_stream_with_an_error(
    talk: Talking, path: str
) -> None:
    await talk.offer(notes=NOTES)
    talk.model.says(LOOK)
    first = talk.model.upstream.script

    async def once(request: Received, writer: asyncio.StreamWriter) -> None:
        is_first = len(talk.model.upstream.received) == 1
        await (first if is_first else hang_up)(request, writer)

    talk.model.upstream.script = once
    response = await talk.ask("notes", stream=True, path=path, **WIRES[path])
    assert response.status_code == 200
    last = response.text.strip().split("\n\n")[-1]
    assert "upstream_unreachable" in last
    for ending in ("[DONE]", "message_stop", "response.completed"):
        assert ending not in response.text
    assert [e["status"] for e in await talk.events("ai.call", 2)] == ["ok", "failed"]


async def test_a_stream_whose_model_does_not_stop_ends_with_an_error(talk: Talking) -> None:
    await talk.offer(notes=NOTES)
    talk.model.says(calls("notes", {"operation": "select"}))
    response = await talk.ask("notes", stream=True)
    assert "ai_tool_steps_exceeded" in response.text
    assert "[DONE]" not in response.text
    assert len(await talk.events("ai.call", 8)) == 8


async def test_a_refused_step_ends_a_stream_with_the_refusal(talk: Talking) -> None:
    await talk.offer(notes={"table": "notes"})
    await talk.configure(budgets=[{"scope": "app", "period": "day", "limitUsd": "0.035"}])
    talk.installation.as_owner("update notes set title = repeat('long ', 1000) where id = 1")
    talk.model.says(calls("notes", {}), DONE)
    response = await talk.ask("notes", stream=True, max_tokens=100)
    error = sse_data(response.text)[-1]["error"]
    assert error["code"] == "ai_budget_exceeded"
    assert [e["status"] for e in await talk.events("ai.call", 2)] == ["ok", "failed"]


async def test_text_of_a_step_is_heard_before_the_next_begins(talk: Talking) -> None:
    await talk.offer(notes=NOTES)
    talk.model.says(LOOK, DONE)
    more = asyncio.Event()
    first = talk.model.upstream.script

    async def slowly(request: Received, writer: asyncio.StreamWriter) -> None:
        if len(talk.model.upstream.received) == 2:
            await more.wait()
        await first(request, writer)

    talk.model.upstream.script = slowly
    body = {
        "model": "gpt-test",
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [own("notes")],
        "stream": True,
    }
    async with talk.client.stream(
        "POST", "/v1/main/chat/completions", json=body, headers=talk.user()
    ) as response:
        text = ""
        async for part in response.aiter_text():
            text += part
            if "x-butterbase-tool-calls" in text:
                more.set()
    assert more.is_set()
    assert text.index("x-butterbase-tool-calls") < text.index("[DONE]")


async def test_a_client_that_leaves_a_later_step_of_a_stream_ends_its_call(talk: Talking) -> None:
    await talk.offer(notes=NOTES)
    talk.model.says(LOOK)
    first = talk.model.upstream.script

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        if len(talk.model.upstream.received) == 1:
            await first(request, writer)
        else:
            await stream(chunk("a"), None)(request, writer)

    talk.model.upstream.script = script
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with (
        httpx.AsyncClient(base_url=talk.client.base_url) as client,
        client.stream(
            "POST",
            "/v1/main/chat/completions",
            json={**body, "tools": [own("notes")]},
            headers=talk.user(),
        ) as response,
    ):
        async for _ in response.aiter_bytes():
            if len(talk.model.upstream.received) == 2:
                break
    async with asyncio.timeout(20):
        await talk.model.upstream.last.left.wait()
    assert [e["status"] for e in await talk.events("ai.call", 2)] == ["ok", "cancelled"]


async def test_a_provider_that_does_not_stream_is_told_as_a_stream(talk: Talking) -> None:
    await talk.offer(notes=NOTES)
    talk.model.says(LOOK, DONE)
    model = talk.model.upstream.script

    async def whole(request: Received, writer: asyncio.StreamWriter) -> None:
        body = {k: v for k, v in request.json().items() if k != "stream"}
        await model(
            Received(request.method, request.path, {}, json.dumps(body).encode(), 1), writer
        )

    talk.model.upstream.script = whole
    response = await talk.ask("notes", stream=True)
    chunks = [c for c in sse_data(response.text) if c != "[DONE]"]
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)
    assert text == "Let me see. You have two."


# Thoughts, and what else a provider wants to see again


def anthropic_turn(*content: dict[str, Any], stop: str) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": list(content),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 7},
    }


async def test_thoughts_go_back_with_their_turn(talk: Talking) -> None:
    await talk.configure(
        tools={"notes": {"table": "notes"}},
        providers={
            "claude": {
                "kind": "anthropic",
                "baseUrl": talk.model.upstream.base_url,
                "apiKey": "sk-ant-123456789012",
            }
        },
        routes=[{"match": "*", "targets": [{"provider": "claude"}]}],
    )
    thought = {"type": "thinking", "thinking": "I should look.", "signature": "c2lnbmVk"}
    call = {"type": "tool_use", "id": "toolu_1", "name": "notes", "input": {"limit": 1}}
    turns = [
        anthropic_turn(thought, call, stop="tool_use"),
        anthropic_turn({"type": "text", "text": "One."}, stop="end_turn"),
    ]
    for path in WIRES:
        count = len(talk.model.upstream.received)

        async def script(
            request: Received, writer: asyncio.StreamWriter, before: int = count
        ) -> None:
            number = len(talk.model.upstream.received) - before - 1
            await answer(200, turns[number])(request, writer)

        talk.model.upstream.script = script
        response = await talk.ask("notes", path=path, **WIRES[path])
        assert said(path, response.json()) == "One.", path
        again = talk.model.requests[-1]["messages"]
        assert again[-2] == {"role": "assistant", "content": [thought, call]}, path
        (result,) = again[-1]["content"]
        assert (result["type"], result["tool_use_id"]) == ("tool_result", "toolu_1")
        assert "Ada one" in json.dumps(result["content"])


async def test_reasoning_of_servers_that_want_none_back_is_left_out(talk: Talking) -> None:
    await talk.offer(notes={"table": "notes"})
    call = {
        "index": 0,
        "id": "c1",
        "type": "function",
        "function": {"name": "notes", "arguments": "{}"},
    }

    def raw(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return f"data: {json.dumps({'id': 'x', 'model': 'm', 'choices': [choice]})}\n\n".encode()

    for field, goes_back in (("reasoning_content", True), ("reasoning", False)):
        turns = [
            stream(raw({field: "hm"}), raw({"tool_calls": [call]}), raw({}, "tool_calls"), END),
            stream(raw({"content": "ok"}), raw({}, "stop"), END),
        ]

        async def script(
            request: Received, writer: asyncio.StreamWriter, left: list[Any] = turns
        ) -> None:
            await left.pop(0)(request, writer)

        talk.model.upstream.script = script
        response = await talk.ask("notes", stream=True)
        assert "[DONE]" in response.text
        turn = talk.model.requests[-1]["messages"][-2]
        assert ("reasoning_content" in turn) is goes_back


async def test_cached_steps_are_those_of_the_same_rows(talk: Talking) -> None:
    await talk.configure(
        tools={"notes": {"table": "notes"}}, cache={"scope": "app", "tools": ["notes"]}
    )
    talk.model.says(calls("notes", {}), DONE, calls("notes", {}), Says("Others."))
    await talk.ask("notes")
    cached = "select 1 from butterbase.ai_cache"
    await until(lambda: len(talk.rows(cached, talk.installation.control.dsn)) == 2)
    again = await talk.ask("notes")
    assert again.headers["x-butterbase-cost-usd"] == "0.00"
    assert len(talk.model.requests) == 2
    # Another user's rows are another question.
    talk.model.turns = [Says("Others.")]
    other = await talk.ask("notes", headers=talk.user("11111111-2222-4333-8444-555555555555"))
    assert said("chat/completions", other.json()) == "Others."
