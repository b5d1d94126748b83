import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from butterbase.sql.claims import ANON, SERVICE_ROLE, Claims, claims_for_role
from butterbase.sql.cluster import app_authenticator
from butterbase.sql.errors import DatabaseError, DatabaseUnavailableError
from butterbase.sql.pipeline import Executor, Statement
from butterbase.sql.pipeline.connection import Connection
from tests.installation import Installation
from tests.postgres import Database
from tests.waiting import until

SERVICE = claims_for_role(SERVICE_ROLE)


@pytest.fixture
async def executor(database: Database) -> AsyncIterator[Executor]:
    executor = Executor(database.dsn, connection_count_max=2, prepared_count_max=3)
    yield executor
    await executor.close()


async def test_statements_answer_in_order(executor: Executor) -> None:
    one, many = await executor.run(
        Statement(b"select $1::int + 1", (b"41",)),
        Statement(b"select i, null from generate_series(1, 3) i"),
    )
    assert one.value() == b"42"
    assert many.rows() == [(b"1", None), (b"2", None), (b"3", None)]


async def test_statements_are_one_transaction(executor: Executor) -> None:
    await executor.run(Statement(b"create table t (i int primary key)"))
    insert = Statement(b"insert into t values ($1)", (b"1",))
    with pytest.raises(DatabaseError) as failed:
        await executor.run(insert, insert)
    assert failed.value.sqlstate == "23505"
    (count,) = await executor.run(Statement(b"select count(*) from t"))
    assert count.value() == b"0"


async def test_an_error_leaves_the_connection_usable(executor: Executor) -> None:
    for _ in range(5):
        with pytest.raises(DatabaseError, match="syntax error"):
            await executor.run(Statement(b"selekt"), Statement(b"select 1"))
        with pytest.raises(DatabaseError, match="division by zero"):
            await executor.run(Statement(b"select 1 / $1::int", (b"0",)))
        (result,) = await executor.run(Statement(b"select 1 / $1::int", (b"1",)))
        assert result.value() == b"1"


async def test_role_and_claims_hold_for_one_transaction(installation: Installation) -> None:
    executor = Executor(
        installation.cluster.dsn(app_authenticator("main"), installation.main.name),
        connection_count_max=1,
    )
    who = Statement(b"select current_user, current_setting('request.jwt.claims', true)")
    claims = Claims(role=ANON, json='{"sub":"x"}')
    try:
        (result,) = await executor.run_as(claims, who)
        assert result.rows() == [(b"anon", b'{"sub":"x"}')]
        (result,) = await executor.run(who)
        assert result.rows() == [(b"app_main_authenticator", b"")]
    finally:
        await executor.close()


@pytest.mark.parametrize(
    "role", ["postgres", "butterbase_service", "butterbase_stream", "app_main_owner", "nobody"]
)
async def test_the_login_role_becomes_no_other(installation: Installation, role: str) -> None:
    executor = Executor(installation.cluster.dsn(app_authenticator("main"), installation.main.name))
    try:
        with pytest.raises(DatabaseError):
            await executor.run_as(Claims(role=role, json="{}"), Statement(b"select 1"))
    finally:
        await executor.close()


async def test_a_reading_transaction_cannot_write(executor: Executor) -> None:
    await executor.run(Statement(b"create table t (i int)"))
    superuser = Claims(role="none", json="{}")
    with pytest.raises(DatabaseError) as refused:
        await executor.run_as(superuser, Statement(b"insert into t values (1)"), read_only=True)
    assert refused.value.sqlstate == "25006"


async def test_more_texts_than_are_kept_prepared(executor: Executor) -> None:
    for round_ in range(2):
        for i in range(10):
            (result,) = await executor.run(Statement(b"select %d" % i))
            assert result.value() == b"%d" % i, round_
    (kept,) = await executor.run(Statement(b"select count(*) from pg_prepared_statements"))
    assert int(kept.value() or b"") <= 3


async def test_forgotten_statements_are_prepared_anew(database: Database) -> None:
    executor = Executor(database.dsn, connection_count_max=1)
    await executor.run(Statement(b"select 7"))
    await executor.run(Statement(b"deallocate all"))
    (result,) = await executor.run(Statement(b"select 7"))
    assert result.value() == b"7"
    await executor.close()


async def test_a_column_that_changed_its_type_is_found(
    executor: Executor, database: Database
) -> None:
    await executor.run(Statement(b"create table t (a int)"))
    find = b"select count(*) from t where a = $1"
    (before,) = await executor.run(Statement(find, (b"1",)))
    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as conn:
        await conn.execute("alter table t alter a type text; insert into t values ('x')")
    (after,) = await executor.run(Statement(find, (b"x",)))
    assert (before.value(), after.value()) == (b"0", b"1")


@pytest.mark.parametrize(
    "statement", [Statement(b"select 1\0, 2"), Statement(b"select $1", (b"a\0b",))]
)
async def test_a_zero_byte_is_refused(executor: Executor, statement: Statement) -> None:
    with pytest.raises(DatabaseError) as refused:
        await executor.run(statement)
    assert refused.value.sqlstate == "22021"


async def test_large_values_go_both_ways(executor: Executor) -> None:
    text = b"x" * 20_000_000
    (result,) = await executor.run(Statement(b"select $1::text", (text,)))
    assert result.value() == text


async def test_more_callers_than_connections_wait_their_turn(executor: Executor) -> None:
    statement = Statement(b"select $1::int, pg_sleep(0.001)")

    async def ask(i: int) -> bytes | None:
        (result,) = await executor.run(Statement(statement.text, (b"%d" % i,)))
        return result.value()

    assert await asyncio.gather(*map(ask, range(100))) == [b"%d" % i for i in range(100)]


async def test_too_many_waiting_callers_are_turned_away(database: Database) -> None:
    executor = Executor(database.dsn, connection_count_max=1, waiter_count_max=2)
    calls = [executor.run(Statement(b"select pg_sleep(0.1)")) for _ in range(5)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(a, DatabaseUnavailableError) for a in answers) == 2
    await executor.close()


async def test_a_cancelled_caller_disturbs_nobody(executor: Executor, database: Database) -> None:
    waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as gate:
        await gate.execute("select pg_advisory_lock(1)")
        held = Statement(b"select pg_advisory_xact_lock_shared(1), 1")
        calls = [asyncio.create_task(executor.run(held)) for _ in range(20)]

        async def are_under_way() -> bool:
            return await (await gate.execute(waiting)).fetchone() == (2,)

        await until(are_under_way)
        for call in calls[::2]:
            call.cancel()
        await gate.execute("select pg_advisory_unlock(1)")
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(r, list) for r in results[1::2])
    assert all(isinstance(r, asyncio.CancelledError) for r in results[::2])
    (result,) = await executor.run(Statement(b"select 5"))
    assert result.value() == b"5"


async def test_a_lost_connection_is_an_error_once(executor: Executor, database: Database) -> None:
    async def end_all() -> None:
        async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as conn:
            while True:
                cursor = await conn.execute(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                    " where datname = current_database() and query like '%pg_sleep%'"
                    " and pid <> pg_backend_pid()"
                )
                if await cursor.fetchone() == (1,):
                    return

    sleeping = asyncio.create_task(executor.run(Statement(b"select pg_sleep(60)")))
    await end_all()
    with pytest.raises(DatabaseUnavailableError):
        await sleeping
    (result,) = await executor.run(Statement(b"select 1"))
    assert result.value() == b"1"


async def test_an_idle_connection_that_was_lost_is_replaced(
    executor: Executor, database: Database
) -> None:
    (before,) = await executor.run(Statement(b"select pg_backend_pid()"))
    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as conn:
        await conn.execute("select pg_terminate_backend(%s, 5000)", [int(before.value() or b"")])
    while True:
        try:
            (after,) = await executor.run(Statement(b"select pg_backend_pid()"))
            break
        except DatabaseUnavailableError:
            continue
    assert after.value() != before.value()


async def test_an_unreachable_server_is_unavailable() -> None:
    executor = Executor("host=127.0.0.1 port=1 dbname=x user=x")
    with pytest.raises(DatabaseUnavailableError):
        await executor.run(Statement(b"select 1"))


async def test_a_session_that_became_read_only_is_given_up(database: Database) -> None:
    executor = Executor(database.dsn, connection_count_max=1)
    (name,) = await executor.run(Statement(b"select current_user"))
    me = Claims(role=(name.value() or b"").decode(), json="{}")
    write = Statement(b"create table if not exists t (i int)")
    default = Statement(b"select set_config('default_transaction_read_only', 'on', false)")
    await executor.run_as(me, default)
    with pytest.raises(DatabaseError) as refused:
        await executor.run_as(me, write)
    assert refused.value.sqlstate == "25001"
    await executor.run_as(me, write)
    await executor.close()


async def test_a_session_with_a_statement_of_our_name_is_given_up(database: Database) -> None:
    executor = Executor(database.dsn, connection_count_max=1)
    await executor.run(Statement(b"select 1"))
    names = Statement(b"select name from pg_prepared_statements order by 1")
    last = (await executor.run(names))[0].rows()[-1][0] or b""
    prefix, ordinal = last.rsplit(b"_", 1)
    # The next but one: this statement has the next.
    taken = b"prepare %b_%d as select 2" % (prefix, int(ordinal) + 2)
    await executor.run(Statement(taken))
    with pytest.raises(DatabaseError) as refused:
        await executor.run(Statement(b"select 3"))
    assert refused.value.sqlstate == "42P05"
    (result,) = await executor.run(Statement(b"select 3"))
    assert result.value() == b"3"
    await executor.close()


async def test_notifications_are_dropped(executor: Executor) -> None:
    connections: list[Connection] = []
    release = executor._release

    def seen(connection: Connection) -> None:
        connections.append(connection)
        release(connection)

    executor._release = seen  # type: ignore[method-assign]
    await executor.run(Statement(b"listen foo"))
    for i in range(100):
        notify = Statement(b"select pg_notify('foo', $1)", (b"%d" % i,))
        (result,) = await executor.run(notify)
        assert result.row_count == 1
    # Those of the last answer are dropped with the next.
    await executor.run(Statement(b"select 1"))
    await executor.run(Statement(b"select 1"))
    pgconn = connections[-1]._pgconn
    assert pgconn.notifies() is None
