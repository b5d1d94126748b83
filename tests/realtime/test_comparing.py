"""Comparisons that Postgres is asked about, and what becomes of those that fail."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from butterbase.realtime.changes import comparing
from butterbase.realtime.changes.access import AccessColumn
from butterbase.realtime.changes.comparing import Comparer, Job
from butterbase.realtime.changes.conditions import Comparison, Comparisons, Shape
from butterbase.sql.pipeline import Executor
from tests.postgres import Databases

# Equal but for blanks; some values fail, and one takes forever.
PROBE = """
    create domain probe as text;
    create function probe_eq(a probe, b probe) returns bool language plpgsql as $$
    begin
      if b::text = 'slow' then perform pg_sleep(60); end if;
      if b::text = 'bad' and a::text = 'x' then raise 'bad'; end if;
      if b::text = 'null' then return null; end if;
      return trim(a) = trim(b);
    end $$;
    create operator = (leftarg = probe, rightarg = probe, function = probe_eq)
"""
# An operator on a domain is found only where both sides are of the domain itself.
COLUMN = AccessColumn("p", "probe", "probe", is_readable=True, is_primary=False)
SHAPE = Shape("pg_read_all_data", "1", COLUMN, "eq", "")


@asynccontextmanager
async def comparer(postgres: Databases) -> AsyncIterator[Comparer]:
    database = postgres.create()
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        conn.execute(PROBE.encode())
    executor = Executor(make_conninfo(database.dsn, options="-c statement_timeout=200ms"))
    try:
        yield Comparer(executor, pause_s=30)
    finally:
        await executor.close()
        postgres.drop(database.name)


async def answers(
    comparer: Comparer, values: Sequence[str], texts: Sequence[str]
) -> tuple[dict[str, list[bool | None]], list[list[int]]]:
    """What each value comes to, and how many comparisons each round's statements made."""
    made = {value: Comparison(SHAPE, value) for value in values}
    comparisons = Comparisons()
    rounds: list[list[int]] = []
    while True:
        comparisons.missing = {}
        found = {v: [comparisons.look(c, text) for text in texts] for v, c in made.items()}
        if not comparisons.missing:
            return {value: [answer for _, answer in one] for value, one in found.items()}, rounds
        jobs = comparer.jobs(comparisons.missing)
        rounds.append([len(job.comparisons) for job in jobs])
        for job in jobs:
            comparisons.learn(await comparer.perform(job))


async def test_values_are_compared_by_the_columns_own_operator(postgres: Databases) -> None:
    async with comparer(postgres) as asked:
        told, rounds = await answers(asked, ["a", " b", "null"], ["a ", "b", "x"])
    assert told == {
        "a": [True, False, False],
        " b": [False, True, False],
        "null": [None, None, None],
    }
    assert rounds == [[3]]


async def test_a_value_that_fails_costs_no_other(
    postgres: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    async with comparer(postgres) as asked:
        with caplog.at_level(logging.WARNING):
            told, rounds = await answers(asked, ["a", "bad"], ["a", "x", "bad"])
            again, later = await answers(asked, ["a", "bad"], ["a"])
    assert told == {"a": [True, False, False], "bad": [False, None, True]}
    assert again == {"a": [True], "bad": [False]}
    assert (rounds, later) == ([[2], [1, 1]], [[1, 1]]), "they stay apart for a while"
    assert ["a filter on p fails" in r.getMessage() for r in caplog.records] == [True]


async def test_a_value_that_takes_too_long_is_not_asked_about_for_a_while(
    postgres: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    async with comparer(postgres) as asked:
        with caplog.at_level(logging.WARNING):
            told, rounds = await answers(asked, ["a", "slow"], ["a"])
            again, _ = await answers(asked, ["slow"], ["slow"])
    assert told == {"a": [True], "slow": [None]}
    assert again == {"slow": [None]}
    assert rounds == [[2], [1, 1]]
    assert ["statement timeout" in r.getMessage() for r in caplog.records] == [True]


def test_many_values_take_several_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "PAIR_COUNT_MAX", 6)
    asked, comparisons = Comparer(Executor("host=/nowhere"), pause_s=1), Comparisons()
    for comparison in [Comparison(SHAPE, str(number)) for number in range(7)]:
        for text in "abc":
            comparisons.look(comparison, text)
    jobs = asked.jobs(comparisons.missing)
    assert [len(job.comparisons) for job in jobs] == [2, 2, 2, 1]
    assert {job.texts for job in jobs} == {("a", "b", "c")}


def test_a_database_that_never_comes_back_makes_every_answer_null() -> None:
    comparison = Comparison(SHAPE, "a")
    comparisons = Comparisons()
    comparisons.learn(Job(SHAPE, (comparison,), ("x", "y")).nothing)
    assert comparisons.look(comparison, "x") == (True, None)
    assert comparisons.look(comparison, "z") == (False, None)
