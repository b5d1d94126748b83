"""Records and logs over the API."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from psycopg import AsyncConnection

from tests.api.conftest import Api
from tests.functions.test_deploy import deployed, fault

URL = "/v1/main/functions/hello"


@pytest.fixture
async def main(api: Api) -> AsyncIterator[AsyncConnection]:
    await deployed(api, triggers=[{"type": "queue", "queue": "q"}])
    async with await AsyncConnection.connect(api.installation.main.dsn, autocommit=True) as conn:
        yield conn


async def add(main: AsyncConnection, status: str, count: int = 1) -> None:
    await main.execute(
        "insert into functions.invocations"
        " (function_id, trigger_id, kind, status, payload, attempts, attempts_max)"
        " select function_id, id, 'queue', %s, '{\"n\": 1}', 1, 1"
        " from functions.triggers, generate_series(1, %s)",
        [status, count],
    )


async def add_line(main: AsyncConnection, message: str, invocation: str | None = None) -> None:
    await main.execute(
        "insert into functions.logs (function_id, invocation_id, at, level, message)"
        " select id, coalesce(%s::uuid, gen_random_uuid()), now(), 'info', %s"
        " from functions.functions",
        [invocation, message],
    )


async def listed(api: Api, **asked: Any) -> list[Any]:
    answer = await api.client.get(f"{URL}/invocations", params=asked, headers=api.service)
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["invocations"]
    return found


async def test_invocations_are_listed_in_pages_the_newest_first(
    api: Api, main: AsyncConnection
) -> None:
    await add(main, "succeeded", 5)
    await add(main, "dead", 2)
    assert len(await listed(api)) == 7
    assert [row["status"] for row in await listed(api, limit=3)] == ["dead", "dead", "succeeded"]
    page = await listed(api, status="succeeded", limit=2)
    rest = await listed(api, status="succeeded", before=page[-1]["seq"])
    assert (len(page), len(rest)) == (2, 3)
    assert await listed(api, type="cron") == []


async def test_a_dead_invocation_is_run_again_by_hand(api: Api, main: AsyncConnection) -> None:
    await add(main, "dead")
    await add(main, "running")
    running, dead = await listed(api)
    answer = await api.client.post(f"{URL}/invocations/{dead['id']}/retry", headers=api.service)
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["max_attempts"]) == ("queued", 2)
    answer = await api.client.post(f"{URL}/invocations/{running['id']}/retry", headers=api.service)
    assert fault(answer) == (409, "invocation_not_retryable")


async def test_one_invocation_has_its_payload_and_lines(api: Api, main: AsyncConnection) -> None:
    await add(main, "succeeded")
    (row,) = await listed(api)
    await add_line(main, "mine", row["id"])
    await add_line(main, "another's")
    found = (await api.client.get(f"{URL}/invocations/{row['id']}", headers=api.service)).json()
    assert found["payload"] == {"n": 1}
    assert [line["message"] for line in found["logs"]] == ["mine"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("invocations/nope", (404, "invocation_not_found")),
        ("invocations/00000000-0000-0000-0000-000000000000", (404, "invocation_not_found")),
        ("invocations?status=nope", (400, "bad_request")),
        ("invocations?limit=x", (400, "bad_request")),
        ("invocations?limit=1001", (400, "bad_request")),
        ("invocations?before=99999999999999999999", (400, "bad_request")),
        ("logs?after=-1", (400, "bad_request")),
        ("versions/0", (404, "function_version_not_found")),
        ("versions/99999999999", (404, "function_version_not_found")),
    ],
)
@pytest.mark.usefixtures("main")
async def test_what_is_asked_badly_is_refused(
    api: Api, path: str, expected: tuple[int, str]
) -> None:
    assert fault(await api.client.get(f"{URL}/{path}", headers=api.service)) == expected


async def test_logs_are_followed_as_an_event_stream(api: Api, main: AsyncConnection) -> None:
    await add_line(main, "one")
    await add_line(main, "two")
    answer = (await api.client.get(f"{URL}/logs?limit=1", headers=api.service)).json()
    assert [line["message"] for line in answer["logs"]] == ["two"]
    headers = api.service | {"Accept": "text/event-stream"}
    async with api.client.stream("GET", f"{URL}/logs", headers=headers) as stream:
        seen: list[str] = []
        ids: list[str] = []
        async for line in stream.aiter_lines():
            if line.startswith("id:"):
                ids.append(line[3:].strip())
            if line.startswith("data:"):
                seen.append(httpx.Response(200, content=line[5:]).json()["message"])
                if len(seen) == 2:
                    await add_line(main, "three")
                if len(seen) == 3:
                    break
    assert seen == ["one", "two", "three"]
    later = headers | {"Last-Event-ID": ids[1]}
    async with api.client.stream("GET", f"{URL}/logs", headers=later) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data:"):
                assert "three" in line
                break
