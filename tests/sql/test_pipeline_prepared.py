"""What is prepared, what runs again because it was, and what is closed."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor, Statement
from tests.postgres import Database

CALL = b"select (call::text || $1)::int from nextval('calls') call"
"""With text that is no number it fails as it would after DDL, but only when it has run."""

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
async def test_control_statements_that_were_dropped_are_prepared_anew(
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
    for _ in range(2):
        await executor.run(one, check=accept)
        with pytest.raises(DatabaseError, match="division by zero"):
            await executor.run(Statement(b"select 1 / 0"), check=accept)
        await executor.run(drop, check=accept)
        await executor.run(drop, is_rolled_back=True)
    (result,) = await executor.run(one, check=accept)
    assert result.value() == b"1"


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
