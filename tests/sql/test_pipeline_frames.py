"""Transactions that are checked, rolled back or isolated."""

from collections.abc import AsyncIterator

import pytest

from butterbase.sql.errors import ButterbaseError, DatabaseError
from butterbase.sql.pipeline import Executor, Result, Statement
from tests.postgres import Database

TABLE = Statement(b"create table t (i int primary key deferrable initially deferred)")
INSERT = Statement(b"insert into t values ($1) returning i", (b"1",))
COUNT = Statement(b"select count(*) from t")


class RefusedError(ButterbaseError):
    """The check says no."""


@pytest.fixture
async def executor(database: Database) -> AsyncIterator[Executor]:
    """One connection, so that whatever a transaction leaves behind meets the next."""
    executor = Executor(database.dsn, connection_count_max=1)
    await executor.run(TABLE)
    yield executor
    await executor.close()


async def count(executor: Executor) -> bytes | None:
    (result,) = await executor.run(COUNT)
    return result.value()


def refuse(_results: list[Result]) -> None:
    raise RefusedError


def accept(_results: list[Result]) -> None:
    pass


async def test_what_the_check_accepts_stays(executor: Executor) -> None:
    seen: list[list[tuple[bytes | None, ...]]] = []
    for i in (b"1", b"2"):
        (result, counted) = await executor.run(
            Statement(INSERT.text, (i,)),
            COUNT,
            check=lambda results: seen.extend(result.rows() for result in results),
        )
        assert result.value() == i
        assert counted.value() == i
    assert seen == [[(b"1",)], [(b"1",)], [(b"2",)], [(b"2",)]]
    assert await count(executor) == b"2"


async def test_what_the_check_refuses_is_undone(executor: Executor) -> None:
    for _ in range(3):
        with pytest.raises(RefusedError):
            await executor.run(INSERT, check=refuse)
        assert await count(executor) == b"0"


async def test_a_statement_that_fails_is_not_checked(executor: Executor) -> None:
    for _ in range(3):
        with pytest.raises(DatabaseError, match="division by zero"):
            await executor.run(INSERT, Statement(b"select 1 / 0"), COUNT, check=refuse)
        assert await count(executor) == b"0"


async def test_a_constraint_deferred_to_the_commit_is_an_error(executor: Executor) -> None:
    for options in ({}, {"check": accept}, {"isolation": "serializable"}):
        with pytest.raises(DatabaseError) as refused:
            await executor.run(INSERT, INSERT, **options)
        assert refused.value.sqlstate == "23505", options
        assert await count(executor) == b"0"


@pytest.mark.parametrize("check", [None, accept])
async def test_a_transaction_rolled_back_answers_and_leaves_nothing(
    executor: Executor, check: None
) -> None:
    (result, counted) = await executor.run(INSERT, COUNT, check=check, is_rolled_back=True)
    assert (result.value(), counted.value()) == (b"1", b"1")
    assert await count(executor) == b"0"


@pytest.mark.parametrize("check", [None, accept])
async def test_a_transaction_rolled_back_still_meets_its_deferred_constraints(
    executor: Executor, check: None
) -> None:
    for _ in range(2):
        with pytest.raises(DatabaseError) as refused:
            await executor.run(INSERT, INSERT, check=check, is_rolled_back=True)
        assert refused.value.sqlstate == "23505"
        assert await count(executor) == b"0"


async def test_a_failing_statement_ends_a_transaction_rolled_back(executor: Executor) -> None:
    with pytest.raises(DatabaseError, match="division by zero"):
        await executor.run(INSERT, Statement(b"select 1 / 0"), is_rolled_back=True)
    assert await count(executor) == b"0"


@pytest.mark.parametrize("check", [None, accept])
async def test_isolation_is_that_of_the_one_transaction(executor: Executor, check: None) -> None:
    asked = Statement(b"select current_setting('transaction_isolation')")
    (isolated,) = await executor.run(asked, isolation="repeatable read", check=check)
    (usual,) = await executor.run(asked)
    assert (isolated.value(), usual.value()) == (b"repeatable read", b"read committed")


async def test_a_checked_statement_prepared_before_ddl_is_prepared_anew(
    executor: Executor,
) -> None:
    every = Statement(b"select * from t")
    await executor.run(INSERT)
    await executor.run(every, check=accept)
    await executor.run(Statement(b"alter table t add j int default 2"))
    (result,) = await executor.run(every, check=accept)
    assert result.rows() == [(b"1", b"2")]
    assert await count(executor) == b"1"


async def test_no_statements_are_no_results(executor: Executor) -> None:
    assert await executor.run() == []
    assert await executor.run(check=accept) == []
    assert await executor.run(is_rolled_back=True) == []
