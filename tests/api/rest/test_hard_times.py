"""Clients that leave, statements without end, connections that are lost, and crowds."""

import asyncio

import httpx
import psycopg
import pytest

from butterbase.api.settings import ApiSettings
from tests.api.rest.conftest import RETURN, Rest
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = ApiSettings(statement_timeout_s=1, db_connections=3)
SCHEMA = """
create table log (id int primary key, note text);
create table counters (id int primary key, n int not null);
create function wait(seconds float) returns text language sql
  as $$ select 'waited' from pg_sleep(seconds) $$;
create function log_and_wait(seconds float) returns text language sql
  set statement_timeout = '2min' as $$
  insert into log values (1, 'kept?');
  select 'waited' from pg_sleep(seconds)
$$;
create function patient(seconds float) returns text language sql
  set statement_timeout = '2min' as $$ select 'waited' from pg_sleep(seconds) $$;
create function hasty(seconds float) returns text language sql
  set statement_timeout = '50ms' as $$ select 'waited' from pg_sleep(seconds) $$;
create function increment(key int) returns int language sql
  as 'update counters set n = n + 1 where id = key returning n';
create function backend() returns int language sql as 'select pg_backend_pid()';
create function change_both(a int, b int) returns void language sql
  set statement_timeout = '2min' as $$
  update counters set n = n + 1 where id = a;
  select pg_sleep(0.3);
  update counters set n = n + 1 where id = b
$$;
create function big(size int) returns text language sql set statement_timeout = '2min'
  as $$ select repeat('x', size) $$;
"""
ROWS = "truncate log, counters; insert into counters values (1, 0), (2, 0)"


def waiting(rest: Rest) -> int:
    """Backends that are in a call of ours."""
    with psycopg.connect(rest.api.installation.main.dsn) as superuser:
        row = superuser.execute(
            "select count(*) from pg_stat_activity where state = 'active'"
            " and wait_event = 'PgSleep' and datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


async def test_a_client_that_leaves_takes_its_query_with_it(rest: Rest) -> None:
    call = asyncio.create_task(rest.post("rpc/log_and_wait", {"seconds": 60}))
    await until(lambda: waiting(rest) == 1)
    call.cancel()
    await until(lambda: waiting(rest) == 0)
    assert rest.sql("select 1 from log") == []
    assert await rest.rows("counters?id=eq.1&select=n") == [{"n": 0}]


async def test_a_statement_ends_at_its_time(rest: Rest) -> None:
    answer = await rest.post("rpc/wait", {"seconds": 60})
    assert (answer.status_code, answer.json()["code"]) == (504, "57014")
    answer = await rest.post("rpc/hasty", {"seconds": 60})
    assert (answer.status_code, answer.json()["code"]) == (504, "57014")
    assert (await rest.post("rpc/wait", {"seconds": 0})).json() == "waited"
    assert (await rest.post("rpc/patient", {"seconds": 1.5})).json() == "waited"
    # The function's own time was for its own transaction.
    answer = await rest.post("rpc/wait", {"seconds": 60})
    assert answer.status_code == 504


async def test_a_lost_connection_is_replaced(rest: Rest) -> None:
    pids = {(await rest.post("rpc/backend", {})).json() for _ in range(5)}
    with psycopg.connect(rest.api.installation.main.dsn, autocommit=True) as superuser:
        for pid in pids:
            superuser.execute("select pg_terminate_backend(%s, 5000)", [pid])
    answers = [await rest.post("rpc/backend", {}) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {200}
    assert pids.isdisjoint(answer.json() for answer in answers)


async def test_a_connection_lost_in_the_middle_is_told(rest: Rest) -> None:
    call = asyncio.create_task(rest.post("rpc/patient", {"seconds": 60}))
    await until(lambda: waiting(rest) == 1)
    with psycopg.connect(rest.api.installation.main.dsn, autocommit=True) as superuser:
        superuser.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where wait_event = 'PgSleep' and datname = current_database()"
        )
    answer = await call
    assert answer.status_code == 503
    assert (await rest.post("rpc/wait", {"seconds": 0})).status_code == 200


async def test_a_crowd_is_served_by_few_connections(rest: Rest) -> None:
    calls = [rest.post("rpc/increment", {"key": 1 + n % 2}) for n in range(100)]
    answers = await asyncio.gather(*calls)
    assert {answer.status_code for answer in answers} == {200}
    for first in (0, 1):
        assert sorted(a.json() for a in answers[first::2]) == list(range(1, 51))


async def test_clients_that_leave_do_not_cost_the_others(rest: Rest) -> None:
    leaving = [asyncio.create_task(rest.post("rpc/patient", {"seconds": 60})) for _ in range(9)]
    await until(lambda: waiting(rest) > 0)
    for task in leaving:
        task.cancel()
    answers = await asyncio.gather(*(rest.post("rpc/increment", {"key": 1}) for _ in range(20)))
    assert sorted(answer.json() for answer in answers) == list(range(1, 21))
    await until(lambda: waiting(rest) == 0)


async def test_two_who_change_one_row_are_both_heard(rest: Rest) -> None:
    answers = await asyncio.gather(
        *(
            rest.call("PATCH", "counters?id=eq.1", json={"n": n}, prefer=RETURN)
            for n in range(1, 21)
        )
    )
    assert sorted(answer.json()[0]["n"] for answer in answers) == list(range(1, 21))


async def test_of_two_who_lock_each_other_one_is_told(rest: Rest) -> None:
    both = await asyncio.gather(
        *(rest.post("rpc/change_both", {"a": a, "b": 3 - a}) for a in (1, 2))
    )
    assert sorted(answer.status_code for answer in both) in ([204, 500], [204, 204])
    assert [a.json()["code"] for a in both if a.status_code == 500] in ([], ["40P01"])


async def test_a_client_may_leave_in_the_middle_of_a_big_answer(rest: Rest) -> None:
    for _ in range(5):
        url = f"{rest.api.client.base_url}/rest/v1/rpc/big?size=10000000"
        async with (
            httpx.AsyncClient() as client,
            client.stream("GET", url, headers=rest.api.service) as answer,
        ):
            async for piece in answer.aiter_raw():
                assert piece.startswith(b'"x')
                break
    assert len(await rest.rows("rpc/big?size=1000")) == 1000
