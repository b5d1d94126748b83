"""Changes as server-sent events, from the stream's own port and through an api worker."""

import re

import httpx
import pytest
import pytest_asyncio

from tests.realtime.events import NOTES, PATH, UPDATE, insert, listening
from tests.realtime.streaming import ALICE, BOB, DEADLINE_S, Stream, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(stream: Stream) -> str:
    return f"http://127.0.0.1:{stream.port}"


async def refusal(url: str, token: str, **query: str) -> tuple[int, dict[str, str]]:
    async with listening(url, token, **query) as events:
        return events.response.status_code, events.response.json()


async def test_changes_are_events_with_their_position(stream: Stream, url: str) -> None:
    stream.execute(NOTES)
    async with listening(url, stream.keys.user(ALICE)) as events:
        assert events.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        opening = await events.block()
        assert "@" in opening["id"]
        stream.execute(insert(BOB) + insert(ALICE))
        kind, data = await events.next()
        assert (kind, data["type"], data["record"]["owner"]) == ("INSERT", "INSERT", ALICE)
        assert data["position"] == events.last_id


async def test_line_breaks_in_a_value_do_not_end_its_event(stream: Stream, url: str) -> None:
    stream.execute(NOTES + "alter table notes add doc json")
    doc = r"""E'{"a":\n\n1,\r\n\r"b": "\\n"}'"""
    async with listening(url, stream.keys.role("service_role")) as events:
        for _ in range(2):
            stream.execute(f"insert into notes (doc) values ({doc})")  # noqa: S608
            _, data = await events.next()
            assert data["record"]["doc"] == {"a": 1, "b": "\n"}


async def test_event_and_filter_and_select_are_as_in_a_join(stream: Stream, url: str) -> None:
    stream.execute(NOTES)
    asked = {"event": "UPDATE", "filter": "id=eq.2", "select": "body"}
    async with listening(url, stream.keys.user(ALICE), **asked) as events:
        stream.execute(insert(ALICE) * 2 + UPDATE)
        kind, data = await events.next()
        assert (kind, data["record"]) == ("UPDATE", {"id": 2, "body": "b"})


async def test_a_stream_that_is_cut_goes_on_where_it_was(stream: Stream, url: str) -> None:
    stream.execute(NOTES)
    token = stream.keys.user(ALICE)
    seen, last_id = [], None
    for number in range(5):
        async with listening(url, token, last_id=last_id) as events:
            await events.block()
            stream.execute(insert(ALICE) * 3)
            seen += [await events.id() for _ in range(2 if number == 0 else 3)]
            last_id = events.last_id
    assert seen == list(range(1, 15))


async def test_who_saw_no_event_goes_on_from_the_beginning(stream: Stream, url: str) -> None:
    stream.execute(NOTES)
    token = stream.keys.user(ALICE)
    async with listening(url, token) as events:
        await events.block()
    stream.execute(insert(ALICE))
    async with listening(url, token, last_id=events.last_id) as again:
        assert await again.id() == 1
    async with listening(url, token, **{"from": events.last_id}) as once_more:
        assert await once_more.id() == 1


async def test_what_is_too_old_is_gone_for_who_asks_and_told_to_who_goes_on_by_itself(
    stream: Stream, url: str
) -> None:
    stream.execute(NOTES)
    token = stream.keys.user(ALICE)
    status, problem = await refusal(url, token, **{"from": "0/1/1"})
    assert (status, problem["code"]) == (410, "resync_required")
    async with listening(url, token, last_id="0/1/1") as events:
        kind, told = await events.next()
        assert (kind, told["code"]) == ("resync_required", "resync_required")
        assert events.last_id == told["position"]
        stream.execute(insert(ALICE))
        assert await events.id() == 1
    stream.execute(insert(ALICE))
    async with listening(url, token, **{"from": problem["position"]}) as events:
        assert [await events.id(), await events.id()] == [1, 2]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"from": "here"}, 400, "realtime_position_invalid"),
        ({"table": "nothing"}, 400, "realtime_invalid_subscription"),
        ({"table": ""}, 400, "realtime_invalid_subscription"),
        ({"filter": "id=huh.1"}, 400, "realtime_invalid_subscription"),
        ({"event": "MERGE"}, 400, "realtime_invalid_subscription"),
    ],
)
async def test_what_cannot_be_had_is_refused(
    stream: Stream, url: str, query: dict[str, str], status: int, code: str
) -> None:
    stream.execute(NOTES)
    answer = await refusal(url, stream.keys.user(ALICE), **query)
    assert (answer[0], answer[1]["code"]) == (status, code)


async def test_who_calls_is_told_by_token_or_key_in_header_or_query(
    stream: Stream, url: str
) -> None:
    stream.execute(NOTES)
    user, anon = stream.keys.user(ALICE), stream.keys.role("anon")
    async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as client:

        async def status_of(query: str, **headers: str) -> int:
            address = f"{PATH}?table=notes{query}"
            async with client.stream("GET", address, headers=headers) as response:
                return response.status_code

        assert await status_of("", authorization=f"Bearer {user}") == 200
        assert await status_of("", authorization=f"bearer {user}", apikey=anon) == 200
        assert await status_of(f"&apikey={anon}&access_token={user}") == 200
        assert await status_of(f"&apikey={user}") == 200
        assert await status_of("", apikey=user) == 200
        assert await status_of("") == 401
        assert await status_of("&apikey=nonsense") == 401
        expired = stream.keys.user(ALICE, life_s=-10)
        assert await status_of("", authorization=f"Bearer {expired}") == 401
        other = await client.get(f"/v1/other{PATH}", params={"table": "notes", "apikey": user})
        assert other.status_code == 404


async def test_a_token_that_expires_ends_the_stream(stream: Stream, url: str) -> None:
    stream.execute(NOTES)
    async with listening(url, stream.keys.user(ALICE, life_s=4)) as events:
        event, told = await events.next()
        assert (event, told["code"]) == ("closed", "expired")
        assert re.fullmatch(r"Token has expired \d+ seconds ago", told["message"])
        with pytest.raises(EOFError):
            await events.block()


async def test_browsers_of_any_origin_may_listen(stream: Stream, url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        preflight = await client.request(
            "OPTIONS",
            PATH,
            headers={"origin": "https://a.test", "access-control-request-headers": "apikey"},
        )
        refused = await client.post(PATH)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert preflight.headers["access-control-allow-headers"] == "apikey"
    assert refused.status_code == 405


async def test_who_leaves_is_forgotten(stream: Stream, url: str) -> None:
    stream.execute(NOTES)
    before = stream.hub.subscriber_count
    async with listening(url, stream.keys.user(ALICE)) as events:
        await events.block()
        assert stream.hub.subscriber_count == before + 1
    await eventually(lambda: stream.hub.subscriber_count == before)
    await eventually(lambda: stream.server.connection_count == 0)
