"""What `Prefer` does to a request, and `Preference-Applied` says that it did."""

import pytest

from tests.api.rest.conftest import RETURN, Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = """
create table jobs (id int primary key, done boolean default false, at timestamptz);
create function zone() returns text language sql stable as $$ select current_setting('timezone') $$;
create function finish(most int) returns setof int language sql
  as 'update jobs set done = true where id <= most returning id';
create function finish_all() returns int language sql
  as 'with u as (update jobs set done = true returning 1) select count(*)::int from u';
"""
ROWS = """
truncate jobs; insert into jobs select n, false, '2024-01-01T12:00:00Z' from generate_series(1, 5) n
"""
STRICT = "handling=strict"


def done(rest: Rest) -> int:
    return len(rest.sql("select id from jobs where done"))


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_more_rows_than_may_be_affected_are_not(rest: Rest, method: str) -> None:
    body = {"done": True} if method == "PATCH" else None
    prefer = f"{STRICT}, max-affected=2, {RETURN}"
    answer = await rest.call(method, "jobs?id=lt.4", json=body, prefer=prefer)
    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST124")
    assert answer.json()["details"] == "The query affects 3 rows"
    assert done(rest) == 0
    assert len(rest.sql("select 1 from jobs")) == 5
    for allowed in (prefer, f"{STRICT}, max-affected=2"):
        answer = await rest.call(method, "jobs?id=lt.3", json=body, prefer=allowed)
        assert answer.status_code in (200, 204)
        assert "max-affected=2" in answer.headers["preference-applied"]


async def test_a_function_that_affects_too_many_rows_affects_none(rest: Rest) -> None:
    prefer = f"{STRICT}, max-affected=2"
    told = await rest.refusal("rpc/finish", "POST", json={"most": 3}, prefer=prefer)
    assert (told, done(rest)) == ((400, "PGRST124"), 0)
    allowed = await rest.post("rpc/finish", {"most": 2}, prefer=prefer)
    assert (allowed.json(), done(rest)) == ([1, 2], 2)
    # Of a function that answers one value nobody can say how many rows it changed.
    told = await rest.refusal("rpc/finish_all", "POST", json={}, prefer=prefer)
    assert (told, done(rest)) == ((400, "PGRST128"), 2)


async def test_a_limit_without_strict_handling_is_no_limit(rest: Rest) -> None:
    for prefer in ("max-affected=1", "handling=lenient, max-affected=1"):
        answer = await rest.call("PATCH", "jobs", json={"done": True}, prefer=prefer)
        assert answer.status_code == 204
        assert "max-affected" not in answer.headers.get("preference-applied", "")
    assert done(rest) == 5


async def test_unknown_preferences_are_refused_when_strict(rest: Rest) -> None:
    for method, path, body in (("GET", "jobs", None), ("POST", "rpc/finish", {"most": 5})):
        answer = await rest.call(
            method, path, json=body, prefer=f"{STRICT}, much=wanted, count=all"
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "PGRST122")
        assert answer.json()["details"] == "Invalid preferences: much=wanted, count=all"
    assert done(rest) == 0
    answer = await rest.get("jobs", prefer="handling=lenient, much=wanted")
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "handling=lenient")


async def test_times_are_told_in_the_zone_that_is_preferred(rest: Rest) -> None:
    prefer = "timezone=America/Los_Angeles"
    answer = await rest.get("jobs?select=at&limit=1", prefer=prefer)
    assert answer.json() == [{"at": "2024-01-01T04:00:00-08:00"}]
    assert answer.headers["preference-applied"] == prefer
    assert await rest.rows("rpc/zone", prefer="timezone=Asia/Tokyo") == "Asia/Tokyo"
    assert await rest.rows("rpc/zone") == rest.sql("select current_setting('timezone') z")[0]["z"]
    row = {"id": 9, "at": "2024-01-01T00:00:00"}
    made = await rest.post("jobs?select=at", row, prefer=f"{RETURN}, timezone=Asia/Tokyo")
    assert made.json() == [{"at": "2024-01-01T00:00:00+09:00"}]


@pytest.mark.parametrize("zone", ["Mars/Base", "'; drop table jobs; --", ""])
async def test_a_zone_that_is_none_is_refused(rest: Rest, zone: str) -> None:
    answer = await rest.get("jobs", prefer=f"timezone={zone}")
    assert (answer.status_code, answer.json()["code"]) == (400, "22023")


async def test_several_headers_are_one(rest: Rest) -> None:
    headers = [*rest.api.service.items(), ("Prefer", "count=exact"), ("Prefer", RETURN)]
    answer = await rest.api.client.request(
        "PATCH", "/rest/v1/jobs?id=eq.1&select=id", json={"done": True}, headers=headers
    )
    assert (answer.json(), answer.headers["content-range"]) == ([{"id": 1}], "0-0/1")
    assert answer.headers["preference-applied"] == f"{RETURN}, count=exact"


async def test_a_client_does_not_choose_how_the_transaction_ends(rest: Rest) -> None:
    answer = await rest.call("PATCH", "jobs", json={"done": True}, prefer="tx=rollback")
    assert "preference-applied" not in answer.headers
    assert done(rest) == 5
