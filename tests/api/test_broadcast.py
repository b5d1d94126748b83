"""Broadcasts over HTTP: through the log to the sockets of another process."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from httpx import Response
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.broadcast.errors import BroadcastRateError, InvalidBroadcastError
from butterbase.api.broadcast.messages import Limits, parse_batch, parse_single
from butterbase.api.broadcast.resource import BroadcastGate
from butterbase.api.settings import ApiSettings
from butterbase.realtime.rooms.logged_broadcasts import EmittedMessage
from butterbase.realtime.settings import RealtimeSettings
from tests.api.conftest import Api, running
from tests.installation import Installation
from tests.realtime.channels import enter, heard, written
from tests.realtime.streaming import Phoenix, Stream, streaming

ROUTE = "/realtime/v1/api/broadcast"
LIMITS = Limits(payload_bytes=100, topic_bytes=50)
JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}


@dataclass
class Both:
    api: Api
    stream: Stream

    async def post(self, *messages: Any, headers: dict[str, str] | None = None) -> Response:
        return await self.api.client.post(
            ROUTE, json={"messages": list(messages)}, headers=headers or self.api.anon
        )

    async def post_one(
        self,
        content: bytes,
        topic: str = "room",
        event: str = "e",
        *,
        private: str = "",
        **headers: str,
    ) -> Response:
        path = f"{ROUTE}/{quote(topic, safe='')}/events/{quote(event, safe='')}"
        return await self.api.client.post(
            path,
            params={"private": private} if private else {},
            content=content,
            headers=self.api.anon | JSON | {k.replace("_", "-"): v for k, v in headers.items()},
        )


@pytest.fixture
async def both(api: Api) -> AsyncIterator[Both]:
    """The web edge and the stream process."""
    async with streaming(api.installation) as stream:
        yield Both(api, stream)


def to_room(payload: Any, **more: Any) -> dict[str, Any]:
    return {"topic": "room", "event": "e", "payload": payload, **more}


async def test_a_batch_reaches_its_channels_in_order(both: Both) -> None:
    async with both.stream.client() as client:
        await enter(client)
        answer = await both.post(*(to_room({"n": n}) for n in range(3)), to_room({}, topic="other"))
        assert (answer.status_code, answer.content) == (202, b"")
        assert [await heard(client) for _ in range(3)] == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize("topic", ["room", "a/b c?d#e", "räume", "%2F", "x/events/y"])
async def test_a_single_message_reaches_its_channel_whatever_its_topic(
    both: Both, topic: str
) -> None:
    async with both.stream.client() as client:
        await enter(client, f"realtime:{topic}")
        answer = await both.post_one(b"[1, 2]", topic, "e/v")
        assert (answer.status_code, answer.content) == (202, b"")
        assert (await client.receive())["payload"] == {
            "type": "broadcast",
            "event": "e/v",
            "payload": [1, 2],
        }


async def test_bytes_stay_bytes(both: Both) -> None:
    async with both.stream.client(version="2.0.0") as client:
        await enter(client)
        answer = await both.post_one(b"\x00\xff", **BYTES)
        assert answer.status_code == 202
        assert await heard(client) == b"\x00\xff"


async def test_an_app_is_reached_by_its_prefix(both: Both) -> None:
    async with both.stream.client() as client:
        await enter(client)
        answer = await both.api.client.post(
            f"/v1/main{ROUTE}/room/events/e", json=1, headers=both.api.anon
        )
        assert answer.status_code == 202
        assert await heard(client) == 1


POLICIES = """
    create policy r on realtime.messages for select to anon, authenticated using (true);
    create policy w on realtime.messages for insert to authenticated
      with check (realtime.topic() = 'room' and extension = 'broadcast');
"""


async def listening_privately(client: Phoenix) -> None:
    await enter(client, private=True)


async def test_private_messages_need_the_callers_policy(both: Both) -> None:
    both.stream.execute(POLICIES)
    user = await both.api.sign_up("ada@example.com")
    async with both.stream.client() as private, both.stream.client() as public:
        await enter(private, private=True)
        await enter(public)
        lost = await both.post(to_room({"n": 1}, private=True))
        assert lost.status_code == 202
        refused = await both.post_one(b"2", private="true")
        assert (refused.status_code, refused.json()) == (403, {"message": "Unauthorized"})
        sent = await both.post(
            to_room({"n": 3}, private=True),
            to_room({"n": 3}, topic="other", private="true"),
            to_room({"n": 4}),
            headers=user,
        )
        assert sent.status_code == 202
        sent = await both.post_one(b"5", private="true", **user)
        assert sent.status_code == 202
        assert [await heard(private), await heard(private)] == [{"n": 3}, 5]
        assert await heard(public) == {"n": 4}


async def test_a_policy_that_fails_lets_nothing_pass(both: Both) -> None:
    both.stream.execute(
        "create policy w on realtime.messages for insert with check (1 / 0 = length(topic))"
    )
    assert (await both.post(to_room({}, private=True))).status_code == 202
    assert (await both.post_one(b"1", private="true")).status_code == 403
    assert (await both.post_one(b"1", "a\0b", private="true")).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"apikey": "nonsense"},
        {"Authorization": "Bearer nonsense"},
        {"apikey": "bb_" + "x" * 43},
    ],
)
async def test_nobody_broadcasts_without_a_key(api: Api, headers: dict[str, str]) -> None:
    for path in (ROUTE, f"{ROUTE}/room/events/e"):
        answer = await api.client.post(path, json={"messages": [to_room({})]}, headers=headers)
        assert (answer.status_code, answer.json()) == (401, {"message": "Unauthorized"})


async def test_either_header_is_a_key(api: Api) -> None:
    for headers in (api.anon, {"Authorization": f"Bearer {api.keys.anon}"}, api.service):
        answer = await api.client.post(ROUTE, json={"messages": [to_room({})]}, headers=headers)
        assert answer.status_code == 202, answer.text


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        (b"{", None),
        (b"[]", None),
        (b"\xff", None),
        (b"{}", {"messages": ["can't be blank"]}),
        (b'{"messages":[]}', {"messages": ["can't be blank"]}),
        (b'{"messages":{}}', {"messages": ["is invalid"]}),
        (
            b'{"messages":[{"topic":"t","event":"e","payload":{}},{"topic":1,"private":"perhaps"}]}',
            {
                "messages": [
                    {},
                    {
                        "topic": ["is invalid"],
                        "event": ["can't be blank"],
                        "payload": ["can't be blank"],
                        "private": ["is invalid"],
                    },
                ]
            },
        ),
    ],
)
async def test_a_batch_that_cannot_be_read_is_refused_as_a_whole(
    api: Api, body: bytes, errors: Any
) -> None:
    answer = await api.client.post(ROUTE, content=body, headers=api.anon)
    assert answer.status_code == 422
    assert set(answer.json()) == {"errors"}
    assert errors is None or answer.json() == {"errors": errors}


async def test_payloads_have_a_limit(api: Api) -> None:
    large = "x" * 3_000_000
    answer = await api.client.post(
        ROUTE, json={"messages": [to_room({"x": large})]}, headers=api.anon
    )
    wrong = {"payload": ["Payload size exceeds tenant limit"]}
    assert (answer.status_code, answer.json()) == (422, {"errors": {"messages": [wrong]}})
    answer = await api.client.post(f"{ROUTE}/t/events/e", json=large, headers=api.anon)
    assert (answer.status_code, answer.json()) == (422, {"errors": wrong})


async def test_other_types_and_paths_and_methods_are_refused(api: Api) -> None:
    path = f"{ROUTE}/room/events/e"
    post = api.client.post
    text = await post(path, content=b"x", headers=api.anon | {"Content-Type": "text/plain"})
    assert text.status_code == 415
    assert (await post(path, content=b"x", headers=api.anon)).status_code == 415
    for other in (f"{ROUTE}/room", f"{ROUTE}/room/events/", f"{ROUTE}//events/e", f"{path}/more"):
        assert (await post(other, json=1, headers=api.anon)).status_code == 404, other
    assert (await api.client.get(path, headers=api.anon)).status_code == 405


async def test_browsers_of_any_origin_may_broadcast(api: Api) -> None:
    origin = {"Origin": "https://elsewhere.example"}
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "apikey,content-type",
    }
    for path in (ROUTE, f"{ROUTE}/room/events/e"):
        preflight = await api.client.options(path, headers=origin | asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert preflight.headers["access-control-allow-headers"] in ("apikey,content-type", "*")
        answer = await api.client.post(path, json=1, headers=origin)
        assert answer.headers["access-control-allow-origin"] == "*"


async def test_too_many_messages_are_refused(installation: Installation) -> None:
    async with running(installation, ApiSettings(broadcasts_per_s=3)) as api:
        body = {"messages": [to_room({})] * 4}
        answer = await api.client.post(ROUTE, json=body, headers=api.anon)
    assert answer.status_code == 429
    assert answer.json() == {
        "message": "Too many messages to broadcast, please reduce the batch size"
    }


def test_messages_have_a_rate_for_each_app() -> None:
    gate = BroadcastGate(None, rate_max=3, realtime=RealtimeSettings())
    gate.count("a", 2, now_s=0.0)
    with pytest.raises(BroadcastRateError, match="reduce the batch size"):
        gate.count("a", 2, now_s=0.0)
    gate.count("a", 1, now_s=0.0)
    with pytest.raises(BroadcastRateError, match="exceeded your rate limit"):
        gate.count("a", 2, now_s=0.0)
    gate.count("b", 3, now_s=0.0)
    gate.count("a", 3, now_s=1.0)


async def test_the_commands_of_the_page_broadcast(both: Both) -> None:
    async with both.stream.client(version="2.0.0") as client:
        await enter(client, "realtime:lobby")
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-euo",
            "pipefail",
            "-c",
            written("Broadcast", "sh"),
            env={
                "PATH": os.environ["PATH"],
                "URL": str(both.api.client.base_url),
                "ANON_KEY": both.api.keys.anon,
            },
        )
        assert await process.wait() == 0
        assert [await heard(client), await heard(client)] == [{"x": 1}, {"x": 2}]
        assert len(await heard(client)) == 16


# Bodies


@given(st.binary(max_size=60) | st.recursive(st.none() | st.text(max_size=3), st.lists).map(str))
def test_any_body_is_messages_or_refused(body: bytes | str) -> None:
    data = body if isinstance(body, bytes) else json.dumps({"messages": body}).encode()
    with pytest.raises(InvalidBroadcastError):
        parse_batch(data, LIMITS)


def test_topics_have_a_limit_and_those_of_bytes_a_shorter_one() -> None:
    def parse(topic: str, content_type: str, limits: Limits) -> EmittedMessage | None:
        return parse_single(f"{topic}/events/e".encode(), False, content_type, b"1", limits)

    assert parse("t" * 41, "application/json", LIMITS)
    with pytest.raises(InvalidBroadcastError):
        parse("t" * 42, "application/json", LIMITS)
    wide = Limits(payload_bytes=100, topic_bytes=1000)
    assert parse("t" * 247, "application/json; charset=utf-8", wide)
    with pytest.raises(InvalidBroadcastError):
        parse("t" * 247, "application/octet-stream", wide)
    with pytest.raises(InvalidBroadcastError):
        parse("%ff", "application/json", wide)
