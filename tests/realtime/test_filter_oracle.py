"""Filters on columns of every kind of type, with `select … where` as the oracle.

A decision is one row and one filter.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from psycopg.sql import SQL, Composable, Identifier, Literal

from butterbase.ingest.session import TEXT_SETTINGS
from butterbase.realtime.changes.access import Access, Catalog
from butterbase.realtime.changes.bindings import bind
from butterbase.realtime.changes.comparing import Comparer
from butterbase.realtime.changes.conditions import Comparisons, Filter, Filters
from butterbase.realtime.changes.filters import OPERATORS, Term
from butterbase.realtime.changes.matching import Image
from butterbase.realtime.changes.subscriptions import ChangeRequest
from butterbase.sql.claims import claims_for_role
from butterbase.sql.pipeline import Executor
from tests.postgres import Databases

ROLE = "pg_read_all_data"
CLAIMS = claims_for_role(ROLE)


class ColumnType(Struct, frozen=True):
    sql: str
    values: tuple[str, ...]
    """Texts that Postgres reads; NULL is added."""
    cast: str = ""
    """What a parameter needs for Postgres to take it for a value of the type."""


NUMBERS = ("0", "1", "-1", "2", "7")
FLOATS = (*NUMBERS, "-0", "0.1", "1e300", "NaN", "Infinity", "-Infinity", "1e-7", "0.30000001")
NUMERICS = (*NUMBERS, "1.0", "1.50", "1.5", "-0.0", "NaN", "100000000000000000000000000000.1")
TEXTS = (
    "", "a", "A", "a ", " a", "b", "ab", "abc", "aXc", "a%c", "a_c", r"a\c", "ä", "Ä", "ß", "é",
    "e\u0301", "i", "I", "\u0131", "İ", "x\ny", "it's", '"', "(a,b)", "null", "NULL", "10", "9",
    "😀",
)  # fmt: skip
UUIDS = tuple(f"{digit * 8}-0000-4000-8000-00000000000{digit}" for digit in "0179af")
TIMES = ("00:00", "10:00", "10:00:00.5", "24:00", "23:59:59.999999")
DATES = ("2025-01-01", "0044-03-15 BC", "infinity", "-infinity", "1999-12-31", "12345-01-01")
MOMENTS = tuple(f"{date} {time}" for date, time in zip(DATES[:1] * 3, TIMES, strict=False))
STAMPS = (*MOMENTS, "2024-12-31 23:59:59.999999", "infinity", "-infinity", "epoch")
COLUMNS = {
    "flag": ColumnType("boolean", ("true", "false")),
    "small": ColumnType("smallint", NUMBERS),
    "whole": ColumnType("int", NUMBERS),
    "big": ColumnType("bigint", (*NUMBERS, "5000000000")),
    "exact": ColumnType("numeric", (*NUMERICS, "Infinity", "-Infinity")),
    "scaled": ColumnType("numeric(6,2)", (*NUMBERS, "1.5", "1.50", "NaN")),
    "float4": ColumnType("real", tuple(f for f in FLOATS if f != "1e300")),
    "float8": ColumnType("float8", FLOATS),
    "body": ColumnType("text", TEXTS),
    "short": ColumnType("varchar(8)", TEXTS),
    "padded": ColumnType("char(4)", tuple(t for t in TEXTS if len(t) <= 4)),
    "c_text": ColumnType('text collate "C"', TEXTS),
    "no_case": ColumnType("text collate no_case", TEXTS),
    "folded": ColumnType("citext", TEXTS),
    "named": ColumnType("name", TEXTS),
    "letter": ColumnType('"char"', ("", "a", "b", "A")),
    "id_": ColumnType("uuid", UUIDS),
    "day": ColumnType("date", DATES),
    "hour": ColumnType("time", TIMES),
    "hour_tz": ColumnType("timetz", ("10:00+00", "12:00+02", "10:00+02")),
    "made": ColumnType("timestamp", STAMPS),
    "at": ColumnType("timestamptz", ("2025-01-01 00:00+00", "2025-01-01 02:00+02", *STAMPS)),
    "span": ColumnType(
        "interval", ("1 day", "24:00", "-1 day 02:00", "1 mon", "30 days", "1 year")
    ),
    "bytes": ColumnType("bytea", (r"\x", r"\x00", r"\x61", r"\x6162")),
    "host": ColumnType("inet", ("10.0.0.1", "10.0.0.1/8", "::1", "10.0.0.2")),
    "bits": ColumnType("bit(4)", ("0000", "1010"), cast='"bit"'),
    "cash": ColumnType("money", ("1", "-1", "1234.50")),
    "doc": ColumnType("jsonb", ('{"a": 1}', '{"a": 1.0}', "null", "[1, 2]", '"x"', "1")),
    "json_": ColumnType("json", ('{"a": 1}', "null")),
    "color": ColumnType("color", ("red", "green", "blue")),
    "label": ColumnType("label", TEXTS[1:]),
    "count": ColumnType("amount", NUMBERS),
    "sign": ColumnType("sign", ("true", "false")),
    "pair": ColumnType("pair", ("(1,a)", "(1,)", "(,)", "(2,b)"), cast="pair"),
    "ints": ColumnType("int[]", ("{}", "{1}", "{1,2}", "{NULL}", "{{1},{2}}", "[0:1]={1,2}")),
    "texts": ColumnType("text[]", ("{}", "{a}", '{"a,b"}', "{NULL}")),
    "range": ColumnType("int4range", ("[1,5)", "[1,4]", "empty", "(,)")),
    "spot": ColumnType("point", ("(1,2)",)),
    "map": ColumnType("hstore", ('"a"=>"1"', '"a"=>NULL', "")),
}
SCHEMA = """
    create type color as enum ('red', 'green', 'blue');
    create domain label as text check (value <> '');
    create domain amount as int;
    create domain sign as boolean;
    create type pair as (a int, b text);
"""
EXTRAS = {
    "no_case": "create collation no_case"
    " (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    "folded": "create extension citext schema extensions",
    "map": "create extension hstore schema extensions",
}
"""Of columns, what not every server has."""
ROW_COUNT = max(len(type_.values) for type_ in COLUMNS.values()) + 1

PATTERNS = (
    "", "%", "_", "a%", "%a", "%a%", "a_c", r"a\_c", r"a\%c", r"a\\c", "%%", "_%_", "A%", "Ä",
    "%b%c", "a%b%c", "__", "%_c", r"%\\%", "%'%", "%\n%", "%\u0131%", "I", "😀", "ß", "SS", "a",
    "a ",
)  # fmt: skip
REGEXES = ("", "a", "^a", "c$", "^a.c$", "[[:alpha:]]+", r"\d", "(a|b)", "^Ä$", "^$", "x.y", r"\m")
SIGNS = {
    "eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "like": "like",
    "ilike": "ilike", "match": "~", "imatch": "~*", "isdistinct": "is distinct from",
}  # fmt: skip


@st.composite
def terms(draw: st.DrawFn) -> Term:
    column = draw(st.sampled_from(sorted(COLUMNS)))
    operator = draw(st.sampled_from([*OPERATORS.values()]))
    pool = st.sampled_from(COLUMNS[column].values)
    count = 1
    if operator in ("like", "ilike"):
        pool = st.sampled_from(PATTERNS) | st.text("ab%_\\Aä", max_size=6).filter(
            lambda text: (len(text) - len(text.rstrip("\\"))) % 2 == 0
        )
    elif operator in ("match", "imatch"):
        pool = st.sampled_from(REGEXES)
    elif operator == "is":
        pool = st.sampled_from(["null", "true", "false", "unknown"])
    elif operator == "in":
        count = draw(st.integers(0, 3))
    values = tuple(draw(pool) for _ in range(count))
    return Term(column, operator, values, draw(st.booleans()))


class Oracle(Struct):
    runner: asyncio.Runner
    executor: Executor
    catalog: Catalog
    comparer: Comparer
    conn: psycopg.Connection[Any]
    access: Access
    images: list[Image]
    counts: Counter[str]

    def __repr__(self) -> str:
        return "Oracle"

    def bound(self, wanted: Sequence[Term]) -> tuple[Term, ...] | None:
        request = ChangeRequest(1, "*", "public", "things", tuple(wanted))
        bindings = self.runner.run(bind(self.executor, self.catalog, CLAIMS, [request]))
        return bindings.made[0].filter if bindings.made else None

    def passing(self, wanted: tuple[Term, ...]) -> list[int]:
        """The rows' numbers."""
        condition = Filters(self.access, ROLE).get(wanted)
        return self.runner.run(self._passing(condition))

    async def _passing(self, condition: Filter) -> list[int]:
        comparisons = Comparisons()
        while True:
            answers = [condition.passes(image, comparisons) for image in self.images]
            if not comparisons.missing:
                is_compiled = all(one.is_compiled for one in condition.conditions)
                self.counts["compiled" if is_compiled else "asked"] += len(answers)
                return [number for number, answer in enumerate(answers) if answer]
            jobs = self.comparer.jobs(comparisons.missing)
            comparisons.missing = {}
            for job in jobs:
                comparisons.learn(await self.comparer.perform(job))

    def selected(self, wanted: Sequence[Term]) -> list[int] | None:
        """None where Postgres knows no such condition."""
        found = [self._selected([term]) for term in wanted]
        return None if None in found else self._selected(wanted)

    def _selected(self, wanted: Sequence[Term]) -> list[int] | None:
        conditions = SQL(" and ").join(map(_sql, wanted))
        query = SQL("select number from things where {} order by number").format(conditions)
        try:
            return [number for (number,) in self.conn.execute(query).fetchall()]
        except psycopg.Error:
            return None


def _sql(wanted: Term) -> Composable:
    cast = COLUMNS[wanted.column].cast
    column = Identifier(wanted.column)
    values = [
        SQL("{}{}").format(Literal(v), SQL(f"::{cast}" if cast else "")) for v in wanted.values
    ]
    match wanted.operator:
        case "is":
            test = SQL("{} is {}").format(column, SQL(wanted.values[0]))
        case "in" if not values:
            test = SQL("{} = {} and false").format(column, column)
        case "in":
            test = SQL("{} in ({})").format(column, SQL(", ").join(values))
        case operator:
            value = (
                values[0]
                if operator not in ("like", "ilike", "match", "imatch")
                else Literal(wanted.values[0])
            )
            test = SQL("{} {} {}").format(column, SQL(SIGNS[operator]), value)
    return SQL("not ({})" if wanted.is_negated else "({})").format(test)


@pytest.fixture(scope="module")
def oracle(postgres: Databases) -> Iterator[Oracle]:
    database = postgres.create()
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        conn.execute("create schema extensions")
        conn.execute("set search_path = public, extensions")
        for name, value in TEXT_SETTINGS.items():
            conn.execute("select set_config(%s, %s, false)", [name, value])
        conn.execute(SCHEMA.encode())
        there = {name: type_ for name, type_ in COLUMNS.items() if _is_there(conn, name)}
        columns = ", ".join(f'"{name}" {type_.sql}' for name, type_ in there.items())
        conn.execute(f"create table things (number int primary key, {columns})".encode())
        for number in range(ROW_COUNT):  # the last one is all NULL
            row = [
                None if number == ROW_COUNT - 1 else type_.values[number % len(type_.values)]
                for type_ in there.values()
            ]
            places = ", ".join(["%s"] * (1 + len(row)))
            conn.execute(f"insert into things values ({places})".encode(), [number, *row])  # noqa: S608
        with asyncio.Runner() as runner:
            executor = runner.run(_made(database.dsn))
            catalog = Catalog(executor, age_s_max=60)
            comparer = Comparer(executor, pause_s=30)
            oid = runner.run(catalog.find("public", "things"))
            assert oid is not None
            access = runner.run(catalog.access(oid, ROLE))
            assert access is not None
            found = Oracle(
                runner, executor, catalog, comparer, conn, access, _images(conn), Counter()
            )
            yield found
            runner.run(executor.close())
        print(dict(found.counts))  # noqa: T201
    postgres.drop(database.name)


def _is_there(conn: psycopg.Connection[Any], name: str) -> bool:
    try:
        conn.execute(EXTRAS.get(name, "select").encode())
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile):
        return False
    return True


async def _made(dsn: str) -> Executor:
    return Executor(dsn)


def _images(conn: psycopg.Connection[Any]) -> list[Image]:
    """The rows as the log tells them."""
    result = conn.execute("select * from things order by number").pgresult
    assert result is not None
    names = [result.fname(column) for column in range(result.nfields)]
    return [
        {
            name.decode(): None if value is None else value.decode()
            for column, name in enumerate(names)
            if name is not None
            for value in [result.get_value(row, column)]
        }
        for row in range(result.ntuples)
    ]


@settings(
    max_examples=1200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(terms(), min_size=1, max_size=2))
def test_a_filter_lets_through_what_postgres_selects(oracle: Oracle, wanted: list[Term]) -> None:
    assume(all(term.column in oracle.access.readable for term in wanted))
    expected, bound = oracle.selected(wanted), oracle.bound(wanted)
    if expected is None:
        assert bound is None, "what Postgres refuses is refused"
        oracle.counts["refused"] += 1
        return
    assert bound is not None
    assert oracle.passing(bound) == expected
