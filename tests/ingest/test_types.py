"""Types of the user's own as JSON: random ones, nested, with Postgres's to_jsonb as the oracle."""

import itertools
import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from psycopg import sql

from butterbase.ingest.changes import Column, Insert, Toast
from butterbase.ingest.errors import MalformedMessageError
from butterbase.ingest.session import TEXT_SETTINGS
from butterbase.ingest.values import RowEncoder, Type, Types, encode_value, types_query
from tests.ingest.conftest import Capture, Recorder
from tests.ingest.test_values import LITERALS
from tests.postgres import Databases

OPTIONS = " ".join(f"-c {name}={value}" for name, value in TEXT_SETTINGS.items())

# to_json and to_jsonb write these the same; json's own text is kept by the one only.
PLAIN = {
    name: literals
    for name, literals in LITERALS.items()
    if "[" not in name and name not in ("json", "name", '"char"')
}
TEXTS = ["", "a", 'say "hi"', "back\\slash", "(1,2)", "{x}", "a, b", " ", "NULL", "null", "ü\n"]


class Made(Struct, frozen=True):
    """A type, the statements that make it, and a value of it as an expression."""

    name: str
    ddl: tuple[str, ...]
    value: str


def quoted(literal: str) -> str:
    return "'" + literal.replace("'", "''") + "'"


_numbers = itertools.count()


@st.composite
def plain(draw: st.DrawFn) -> Made:
    name = draw(st.sampled_from(sorted(PLAIN)))
    literal = draw(st.sampled_from(TEXTS if name == "text" else PLAIN[name]))
    return Made(name, (), f"{quoted(literal)}::{name}")


@st.composite
def enum(draw: st.DrawFn) -> Made:
    name = f"e{next(_numbers)}"
    labels = draw(st.lists(st.sampled_from([t for t in TEXTS if t]), min_size=1, unique=True))
    ddl = f"create type {name} as enum ({', '.join(map(quoted, labels))})"
    return Made(name, (ddl,), f"{quoted(draw(st.sampled_from(labels)))}::{name}")


@st.composite
def domain(draw: st.DrawFn, of: st.SearchStrategy[Made]) -> Made:
    base, name = draw(of), f"d{next(_numbers)}"
    return Made(
        name, (*base.ddl, f"create domain {name} as {base.name}"), f"({base.value})::{name}"
    )


@st.composite
def array(draw: st.DrawFn, of: st.SearchStrategy[Made]) -> Made:
    element = draw(of)
    if element.name.endswith("[]"):
        return element
    nulls = draw(st.sampled_from([[], [False], [True], [False, True, False]]))
    items = ["null" if is_null else element.value for is_null in nulls]
    value = f"array[{', '.join(items)}]::{element.name}[]"
    if draw(st.booleans()) and items:
        value = f"array[{value}, {value}]"
    return Made(f"{element.name}[]", element.ddl, value)


@st.composite
def composite(draw: st.DrawFn, of: st.SearchStrategy[Made]) -> Made:
    parts, name = draw(st.lists(of, min_size=1, max_size=3)), f"c{next(_numbers)}"
    attributes = ", ".join(f'"a {i}" {part.name}' for i, part in enumerate(parts))
    values = ["null" if draw(st.booleans()) else part.value for part in parts]
    return Made(
        name,
        (*(s for part in parts for s in part.ddl), f"create type {name} as ({attributes})"),
        f"row({', '.join(values)})::{name}",
    )


made = st.recursive(
    plain() | enum(), lambda of: domain(of) | array(of) | composite(of), max_leaves=5
)


def read_types(conn: psycopg.Connection[Any], oids: Sequence[int]) -> Types:
    row = conn.execute(types_query("%s::oid[]").encode(), [list(oids)]).fetchone()
    assert row is not None
    return Types(msgspec.convert(row[0], list[Type]))


def parsed(text: str | bytes) -> object:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


@pytest.fixture(scope="module")
def oracle(postgres: Databases) -> Iterator[psycopg.Connection]:
    database = postgres.create()
    with psycopg.connect(database.dsn, options=OPTIONS) as conn:
        yield conn
    postgres.drop(database.name)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(made)
def test_a_value_of_any_type_is_encoded_as_to_jsonb_does(
    oracle: psycopg.Connection, value: Made
) -> None:
    try:
        for statement in dict.fromkeys(value.ddl):
            oracle.execute(statement.encode())
        oracle.execute(f"create temp table t as select {value.value} as v".encode())
        row = oracle.execute(
            "select (select atttypid::int8 from pg_attribute"
            " where attrelid = 't'::regclass and attnum = 1), format('%s', v),"
            " to_json(v)::text, to_jsonb(v)::text from t"
        ).fetchone()
        assert row is not None
        oid, text, as_json, as_jsonb = row
        encoded = read_types(oracle, [oid]).encode_value(oid, text)
        assert encoded.decode() == as_json
        assert parsed(encoded) == parsed(as_jsonb)
    finally:
        oracle.rollback()


ALL_TYPES = """
create type mood as enum ('sad', 'very happy');
create domain positive as numeric check (value > 0);
create domain tags as text[];
create type point3 as (x int, y float8, label text);
create type shape as (name text, corners point3[], mood mood);
create table everything (
  id int primary key, b bool, i bigint, n numeric, f float8, t text, v varchar(9), c char(4),
  bin bytea, j json, jb jsonb, d date, ts timestamp, tz timestamptz, iv interval, u uuid,
  r int4range, mr int4multirange, m mood, ms mood[], p positive, ps positive[], g tags, pt point3,
  pts point3[], s shape, ss shape[], bx box[], grid int[],
  gen int generated always as (id * 2) stored
);
alter table everything replica identity full
"""

ROWS = [
    """insert into everything values (1, true, 9223372036854775807, 1.500, 'Infinity',
    'a "b"', 'v', 'c', '\\xdeadbeef',
    '{"a":  1}', '{"b": [1.50, null]}', 'infinity', '-infinity', '2026-07-01 12:00:00.5+02',
    '1 day 02:03', '7f0c1e9a-1d2f-4f52-9b8d-9e6c2a6d7f11', '[1,5)', '{[1,2),[4,6)}',
    'very happy', '{sad,"very happy",null}', 'NaN', '{1.10,2}', '{a,"b c"}', '(1,2.5,"q (r")',
    array[row(1, 'NaN', null)::point3, null], row('s', array[row(1, 2, '(x,y)')::point3], 'sad'),
    array[row('{}', null, null)::shape], '{(1,2),(0,0);(3,4),(2,2)}', '{{1,2},{3,null}}')""",
    "insert into everything (id) values (2)",
]


async def test_rows_of_all_types_come_out_of_the_log_as_to_jsonb_writes_them(
    capture: Capture,
) -> None:
    for statement in ALL_TYPES.split(";\n"):
        await capture.conn.execute(statement.encode())
    reader = Recorder()
    async with capture.consuming(reader):
        for row in ROWS:
            await capture.conn.execute(row.encode())
        await reader.wait_for_mark(capture.conn)
    changes = [change for change in reader.changes if isinstance(change, Insert)]
    relation = changes[0].relation
    with psycopg.connect(capture.dsn, options=OPTIONS) as conn:
        types = read_types(conn, [column.type_oid for column in relation.columns])
        query = sql.SQL("select to_jsonb(e)::text from everything e order by id")
        expected = [parsed(text) for (text,) in conn.execute(query)]
    told = [parsed(types.encode_row(relation.columns, change.new)) for change in changes]
    if "gen" not in {column.name for column in relation.columns}:  # before Postgres 18
        for row_expected in expected:
            assert isinstance(row_expected, dict)
            del row_expected["gen"]
    assert told == expected


def test_a_type_that_nobody_told_of_is_text() -> None:
    assert encode_value(999_999, '(1,"x")') == b'"(1,\\"x\\")"'


def test_a_composite_of_another_width_than_was_told_is_text() -> None:
    types = Types([Type(100_000, attributes=(("a", 23), ("b", 25)))])
    assert types.encode_value(100_000, "(1,x)") == b'{"a":1,"b":"x"}'
    assert types.encode_value(100_000, "(1,x,2)") == b'"(1,x,2)"'


@pytest.mark.parametrize("text", ["", "(", "1,2)", "(1,2", "(1,2)x", '(1,"2)', "(1)2)", "((1,2)"])
def test_what_is_no_composite_is_malformed(text: str) -> None:
    types = Types([Type(100_000, attributes=(("a", 25), ("b", 25)))])
    with pytest.raises(MalformedMessageError, match="not a composite"):
        types.encode_value(100_000, text)


def test_a_row_leaves_out_what_is_not_known() -> None:
    columns = [Column("a", 100_001, -1, is_key=False)]
    assert Types([Type(100_001, base=23)]).encode_row(columns, ("5",)) == b'{"a":5}'


@pytest.mark.parametrize("text", ["x", '"a"=>', '"a"=>"1', '"a"=>"1" "b"=>"2"', '"a"=>null'])
def test_what_is_no_hstore_is_malformed(text: str) -> None:
    types = Types([Type(100_000, is_hstore=True)])
    with pytest.raises(MalformedMessageError, match="not an hstore"):
        types.encode_value(100_000, text)


def test_an_hstore_is_an_object_of_texts() -> None:
    types = Types([Type(100_000, is_hstore=True), Type(100_001, element=100_000)])
    text = r'"a"=>"1", "q\"\\"=>NULL'
    assert types.encode_value(100_000, text) == rb'{"a": "1", "q\"\\": null}'
    assert types.encode_value(100_001, r'{"\"a\"=>\"1\"",NULL}') == b'[{"a": "1"},null]'


def test_a_row_of_some_columns_leaves_out_what_is_long() -> None:
    columns = [Column(name, 25, -1, is_key=False) for name in "abcd"]
    encoder = RowEncoder(Types(), [(3, columns[3]), (0, columns[0]), (1, columns[1])])
    row = ("xx", "yyyy", "z", None)
    assert encoder.encode(row) == b'{"d":null,"a":"xx","b":"yyyy"}'
    short = encoder.encode_short(row, value_bytes_max=4, always=())
    assert short == b'{"d":null,"a":"xx"}'
    kept = encoder.encode_short(row, value_bytes_max=3, always=(1,))
    assert kept == b'{"b":"yyyy"}'
    unknown = ("xx", Toast.UNCHANGED, "z", "w")
    assert encoder.encode(unknown) == b'{"d":"w","a":"xx"}'
    assert encoder.encode_short(unknown, value_bytes_max=9, always=(1,)) == b'{"d":"w","a":"xx"}'
