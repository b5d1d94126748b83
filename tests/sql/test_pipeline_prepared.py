"""What is prepared, what runs again because it was, and what is closed."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor, Statement
from butterbase.sql.pipeline.sending import PREPARED_BYTES_MAX, PREPARED_TEXT_MAX
from tests.postgres import Database

CALL = b"select (call::text || $1)::int from nextval('calls') call"
"""With text that is no number it fails as it would after DDL, but only when it has run."""

FUNCTIONS = (
    b"create function bump(n text) returns int language plpgsql"
    b" as 'begin perform nextval(''calls''); return n::int; end'",
    b"create function mistyped(n text) returns int language plpgsql"
    b" as 'begin perform nextval(''calls''); return (select 1 where n = 1); end'",
    b"create function dynamic(n text) returns int language plpgsql as"
    b" $$begin perform nextval('calls'); execute 'select $1::int' into n using n; return n; end$$",
    b"create function plain(n text) returns int language sql volatile"
    b" as 'select nextval(''calls''); select n::int'",
    b"create function of_json(n text) returns json language sql volatile"
    b" as 'select (nextval(''calls'')::text || n)::json'",
    b"create function retyped(n text) returns int language plpgsql as $$begin"
    b" perform nextval('calls'); raise 'no' using errcode = n; end$$",
)

NOBODY = Claims(role="none", json="{}")


@pytest.fixture
async def executor(database: Database) -> AsyncIterator[Executor]:
    executor = Executor(database.dsn, connection_count_max=1, prepared_count_max=4)
    await executor.run(Statement(b"create sequence calls"))
    yield executor
    await executor.close()


async def call_count(executor: Executor) -> int:
    """How often a statement called `nextval`, whatever became of its transaction."""
    asked = Statement(b"select case when is_called then last_value else 0 end from calls")
    (result,) = await executor.run(asked)
    return int(result.value() or b"")


async def prepared_count(executor: Executor) -> int:
    (result,) = await executor.run(Statement(b"select count(*) from pg_prepared_statements"))
    return int(result.value() or b"")


async def test_what_was_not_prepared_before_runs_once_though_it_fails(executor: Executor) -> None:
    await executor.run_as(NOBODY, Statement(b"select 1"))
    with pytest.raises(DatabaseError) as refused:
        await executor.run_as(NOBODY, Statement(CALL, (b"x",)))
    assert refused.value.sqlstate == "22P02"
    assert await call_count(executor) == 1


async def test_a_text_that_stands_twice_in_its_first_transaction_runs_once(
    executor: Executor,
) -> None:
    with pytest.raises(DatabaseError):
        await executor.run(Statement(CALL, (b"",)), Statement(CALL, (b"x",)))
    assert await call_count(executor) == 2


@pytest.mark.parametrize(
    ("call", "fails"),
    [
        (b"bump($1)", b"x"),
        (b"mistyped($1)", b"1"),
        (b"dynamic($1)", b"x"),
        (b"plain($1)", b"x"),
        (b"of_json($1)", b"{ $1"),
        *[(b"retyped($1)", state) for state in (b"0A000", b"26000", b"42804", b"42883", b"22007")],
    ],
)
@pytest.mark.parametrize("logged_length", [b"0", b"-1"])
async def test_what_fails_when_it_runs_is_run_once_though_it_was_prepared_before(
    executor: Executor, call: bytes, fails: bytes, logged_length: bytes
) -> None:
    await executor.run(*map(Statement, FUNCTIONS))
    # With the parameters in the errors.
    setting = b"set log_parameter_max_length_on_error = " + logged_length
    await executor.run(Statement(setting))
    text = b"select " + call
    with pytest.raises(DatabaseError):
        await executor.run(Statement(text, (b"22000",)), Statement(b"select 1 / 0"))
    before = await call_count(executor)
    if call != b"retyped($1)":
        with contextlib.suppress(DatabaseError):
            await executor.run(Statement(text, (b"1",)))
        before += 1
    with pytest.raises(DatabaseError):
        await executor.run(Statement(text, (fails,)))
    assert await call_count(executor) == before + 1


RETYPED = [
    ("int", "text", b"1", b"x"),
    ("text", "int", b"1", b"2"),
    ("int", "bigint", b"1", b"3000000000"),
    ("date", "text", b"2020-01-01", b"x"),
    ("uuid", "text", b"6ecd8c99-4036-403d-bf84-cf8400f67836", b"x"),
    ("jsonb", "text", b"{}", b"x"),
    ("int[]", "text", b"{1}", b"x"),
    ("boolean", "text", b"t", b"x"),
    ("interval", "text", b"1 s", b"x"),
]


@pytest.mark.parametrize(("before", "after", "old", "new"), RETYPED)
@pytest.mark.parametrize("logged_length", [b"0", b"-1"])
async def test_what_ddl_has_overtaken_is_run_again(
    executor: Executor, before: str, after: str, old: bytes, new: bytes, logged_length: bytes
) -> None:
    for text in (
        b"set log_parameter_max_length_on_error = " + logged_length,
        f"create table t (a {before})".encode(),
    ):
        await executor.run(Statement(text))
    change = Statement(b"update t set a = null where a = $1 returning *", (old,))
    await executor.run(change)
    retype = f"alter table t alter a type {after} using a::text::{after}"
    await executor.run(Statement(retype.encode()))
    await executor.run(Statement(change.text, (new,)))


async def test_a_commit_that_is_refused_is_not_run_again(executor: Executor) -> None:
    for text in (
        b"create table t (i int)",
        b"create function refuse() returns trigger language plpgsql as"
        b" $$begin perform nextval('calls'); perform 'x'::text::int; end$$",
        b"create constraint trigger r after insert on t deferrable initially deferred"
        b" for each row execute function refuse()",
    ):
        await executor.run(Statement(text), isolation="serializable")
    with pytest.raises(DatabaseError) as refused:
        await executor.run(Statement(b"insert into t values (1)"), isolation="serializable")
    assert refused.value.sqlstate == "22P02"
    assert await call_count(executor) == 1


async def test_what_an_aborted_transaction_did_not_close_is_closed_by_the_next(
    executor: Executor,
) -> None:
    for i in range(20):
        evicting = [Statement(b"select %d, %d" % (i, j)) for j in range(4)]
        await executor.run(*evicting)
        with pytest.raises(DatabaseError, match="division by zero"):
            await executor.run(Statement(b"select 1 / 0"), *evicting[::-1])
    assert await prepared_count(executor) <= 4


FRAMES: list[dict[str, Any]] = [{"check": lambda _results: None}, {"is_rolled_back": True}]


@pytest.mark.parametrize("frame", FRAMES)
async def test_control_statements_outlive_what_drops_all_that_is_prepared(
    executor: Executor, frame: dict[str, Any]
) -> None:
    drop, one = Statement(b"deallocate all"), Statement(b"select 1")
    await executor.run(one, **frame)
    await executor.run(drop)
    (result,) = await executor.run(one, **frame)
    assert result.value() == b"1"


async def test_a_transaction_that_drops_its_own_end_has_one(executor: Executor) -> None:
    def accept(_results: object) -> None:
        pass

    drop, one = Statement(b"deallocate all"), Statement(b"select 1")
    for frame in [{"check": accept}, *FRAMES]:
        before = await call_count(executor)
        await executor.run(Statement(b"select nextval('calls')"), drop, **frame)
        assert await call_count(executor) == before + 1
    for _ in range(2):
        await executor.run(one, check=accept)
        with pytest.raises(DatabaseError, match="division by zero"):
            await executor.run(Statement(b"select 1 / 0"), check=accept)
        await executor.run(drop, check=accept)
        await executor.run(drop, is_rolled_back=True)
    (result,) = await executor.run(one, check=accept)
    assert result.value() == b"1"


async def test_a_long_text_works_and_is_not_kept(executor: Executor) -> None:
    filler = b" -- " + b"x" * PREPARED_TEXT_MAX
    text = b"select 10 / $1::int" + filler
    for _ in range(2):
        for frame in [{}, *FRAMES]:
            (result,) = await executor.run(Statement(text, (b"5",)), **frame)
            assert result.value() == b"2"
            with pytest.raises(DatabaseError, match="division by zero"):
                await executor.run(Statement(text, (b"0",)), **frame)
        body = Statement(b"select 'body'::bytea" + filler, is_chunked=True)
        assert (await executor.run(body))[0].body == b"body"
    assert await prepared_length_max(executor) < PREPARED_TEXT_MAX


async def prepared_length_max(executor: Executor) -> int:
    lengths = Statement(b"select max(length(statement)) from pg_prepared_statements")
    (result,) = await executor.run(lengths)
    return int(result.value() or b"")


async def test_what_is_kept_prepared_has_a_total_length(database: Database) -> None:
    executor = Executor(database.dsn, connection_count_max=1)
    total = Statement(b"select sum(length(statement)), count(*) from pg_prepared_statements")
    text_count = 3 * PREPARED_BYTES_MAX // PREPARED_TEXT_MAX
    for i in [*range(text_count), *range(text_count)]:
        text = (b"select %d -- " % i).ljust(PREPARED_TEXT_MAX, b"x")
        (result,) = await executor.run(Statement(text))
        assert result.value() == b"%d" % i
        with pytest.raises(DatabaseError, match="division by zero"):
            await executor.run(Statement(b"select 1 / 0"), Statement(text), Statement(text[:-1]))
    (result,) = await executor.run(total)
    ((length, count),) = result.rows()
    assert PREPARED_BYTES_MAX / 2 < int(length or b"") <= PREPARED_BYTES_MAX
    assert int(count or b"") <= PREPARED_BYTES_MAX // PREPARED_TEXT_MAX + 2
    await executor.close()


async def test_without_prepared_statements_everything_works_and_none_is_there(
    database: Database,
) -> None:
    executor = Executor(database.dsn, connection_count_max=1, prepared_count_max=0)
    text = b"select $1::int + 1"
    for _ in range(2):
        (result,) = await executor.run(Statement(text, (b"1",)))
        assert result.value() == b"2"
        for i, frame in enumerate(FRAMES):
            (result,) = await executor.run(Statement(text, (b"%d" % i,)), **frame)
            assert result.value() == b"%d" % (i + 1)
        (result,) = await executor.run(Statement(b"select 'body'::bytea", is_chunked=True))
        assert result.body == b"body"
        with pytest.raises(DatabaseError, match="division by zero"):
            await executor.run(Statement(b"select 1 / $1::int", (b"0",)))
    assert await prepared_count(executor) == 0
    await executor.close()
