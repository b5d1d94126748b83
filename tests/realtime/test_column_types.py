"""Values of every type on the wire, with Postgres's own `row_to_json` as the oracle."""

import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from psycopg.sql import SQL, Identifier, Literal

from butterbase.ingest.session import TEXT_SETTINGS
from tests.installation import Installation
from tests.realtime.listening import SERVICE, Log, listening

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUILT_IN = {
    "bool": ["true", "false"],
    "bytea": [r"\x", r"\x00ff22"],
    "char": ["a", ""],
    "name": ["a name", '"'],
    "int8": ["9223372036854775807", "-1"],
    "int2": ["-32768", "0"],
    "int2vector": ["", "1", "1 2 -3"],
    "int4": ["2147483647", "0"],
    "regproc": ["now", "0"],
    "text": ["", 'say "hi"', "back\\slash", "x\ny\t\u0001", "ü😀", "null", "{a,b}", "(1,2)"],
    "oid": ["4294967295", "0"],
    "tid": ["(0,1)"],
    "xid": ["7"],
    "cid": ["7"],
    "oidvector": ["", "1 2"],
    "json": ['{"a" :  1, "a": 2}', "null", '"x"', "[1, {}]"],
    "xml": ["<a b='c'>d</a>"],
    "point": ["(1,2.5)"],
    "lseg": ["[(1,2),(3,4)]"],
    "path": ["((1,2),(3,4))", "[(1,2)]"],
    "box": ["(3,4),(1,2)"],
    "polygon": ["((1,2),(3,4),(5,6))"],
    "line": ["{1,2,3}"],
    "float4": ["1.1", "NaN", "-Infinity", "-0", "1e-7", "3e38"],
    "float8": ["0.1", "NaN", "Infinity", "1e300", "123456789012345680"],
    "money": ["1234.50", "-1"],
    "circle": ["<(1,2),3>"],
    "macaddr": ["08:00:2b:01:02:03"],
    "inet": ["10.0.0.1", "10.0.0.1/8", "::1"],
    "cidr": ["10.0.0.0/8", "::/0"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "aclitem": ["pg_monitor=r/pg_monitor"],
    "bpchar": ["a  ", "a"],
    "varchar": ["a", ""],
    "date": ["2025-01-01", "0044-03-15 BC", "infinity", "-infinity", "12345-01-01"],
    "time": ["24:00", "10:00:00.5"],
    "timestamp": ["2025-01-01 10:00:00.5", "infinity", "0044-03-15 10:00 BC", "12345-01-01"],
    "timestamptz": ["2025-01-01 10:00+05:30", "-infinity", "0044-03-15 10:00+00 BC", "epoch"],
    "interval": ["1 year 2 mons -3 days 04:05:06.7", "0", "-1 day"],
    "timetz": ["10:00+02", "24:00:00-05:30"],
    "bit": ["1"],
    "varbit": ["", "1010"],
    "numeric": ["NaN", "1.500", "-0.0", "1e40", "0.000000001"],
    "refcursor": ["c"],
    "regprocedure": ["now()", "0"],
    "regoper": ["||/", "0"],
    "regoperator": ["+(integer,integer)", "0"],
    "regclass": ["pg_class", "0"],
    "regtype": ["integer", "0"],
    "regrole": ["pg_monitor", "0"],
    "regnamespace": ["pg_catalog", "0"],
    "regcollation": ['"C"', "0"],
    "regconfig": ["english", "0"],
    "regdictionary": ["simple", "0"],
    "uuid": ["AAAAAAAA-0000-4000-8000-000000000001"],
    "pg_lsn": ["0/16B3748"],
    "tsvector": ["'a':1A 'it''s':2"],
    "tsquery": ["'a' & !'b'"],
    "jsonb": ['{"b": [1.50, null], "a": "x"}', "null", "1e2", '"\\u00fc"'],
    "jsonpath": ['$."a"[*]'],
    "txid_snapshot": ["10:20:10,14"],
    "pg_snapshot": ["10:20:10,14"],
    "xid8": ["7"],
    "int4range": ["[1,5)", "empty", "(,)"],
    "int8range": ["[1,5)"],
    "numrange": ["[1.5,2.50]"],
    "tsrange": ["[2025-01-01 10:00,infinity]"],
    "tstzrange": ["[2025-01-01 10:00+02,)"],
    "daterange": ["[2025-01-01,2025-02-01]"],
    "int4multirange": ["{[1,2),[4,6)}", "{}"],
    "int8multirange": ["{[1,2)}"],
    "nummultirange": ["{[1.5,2.5]}"],
    "tsmultirange": ["{[2025-01-01 10:00,infinity]}"],
    "tstzmultirange": ["{[2025-01-01 10:00+02,)}"],
    "datemultirange": ["{[2025-01-01,2025-02-01]}"],
}
# Of the catalog's own statistics; no user has them in a table. `gtsvector` cannot be written.
INTERNAL = {"pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "gtsvector"}

OWN = """
    create type mood as enum ('sad', 'very happy');
    create domain positive as numeric check (value > 0);
    create domain tags as text[];
    create domain doc as jsonb;
    create domain deep as doc;
    create type point3 as (x int, y float8, label text, at timestamptz);
    create type shape as (name text, corners point3[], mood mood, extra json, "odd ""name" deep);
    create domain solid as shape;
    create type span as range (subtype = float8);
"""
MADE = {
    "mood": ["sad", "very happy"],
    "positive": ["1.50", "NaN"],
    "tags": ['{a,"b c",NULL}', "{}"],
    "doc": ['{"a": [1]}'],
    "deep": ['{"a": [1]}', "null"],
    "point3": ['(1,NaN,"q "" (r",2025-01-01 10:00+02)', "(,,,)", '(,,"",)'],
    "shape": [
        r'(s,"{""(1,2,\\""a,b\\"",infinity)"",NULL}",sad,"{""k"":  1}","[1, 2]")',
        "(,,,,)",
    ],
    "solid": ['(s,{},"very happy",null,"{}")'],
    "span": ["[1.5,2]"],
}
EXTENSIONS = {
    "hstore": ['"a"=>"1", "b"=>NULL, "q\\"\\\\"=>"x, y"', ""],
    "citext": ["aB", ""],
    "vector": ["[1,2.5,-3]"],
    "halfvec": ["[1,2.5,-3]"],
    "sparsevec": ["{1:1.5,3:2}/5"],
    "ltree": ["a.b"],
}
"""By type; the first two of extensions of that name, the next three of `vector`."""
OF_VECTOR = ("vector", "halfvec", "sparsevec")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def log(app: Installation) -> AsyncIterator[Log]:
    async with listening(app) as log:
        yield log


@pytest.fixture(scope="module")
def conn(app: Installation) -> Any:
    with psycopg.connect(app.main.dsn, autocommit=True) as conn:
        conn.execute("set search_path = public, extensions")
        for name, value in TEXT_SETTINGS.items():
            conn.execute("select set_config(%s, %s, false)", [name, value])
        yield conn


def extension_types(conn: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """Those that the server has."""
    found = {}
    for name, values in EXTENSIONS.items():
        extension = "vector" if name in OF_VECTOR else name
        try:
            conn.execute(
                SQL("create extension if not exists {} schema extensions").format(
                    Identifier(extension)
                )
            )
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile):
            continue
        if conn.execute("select to_regtype(%s) is not null", [name]).fetchone() == (True,):
            found[name] = values
    return found


def make_table(conn: psycopg.Connection[Any], table: str, types: dict[str, list[str]]) -> None:
    """A column of each type, and one of its arrays."""
    columns = SQL(", ").join(
        SQL("{} {}, {} {}[]").format(
            Identifier(name), Identifier(name), Identifier(name + "s"), Identifier(name)
        )
        for name in types
    )
    conn.execute(SQL("create table {} (id int primary key, {})").format(Identifier(table), columns))
    # The log's identity needs an equality, which not every type has.
    conn.execute(SQL("alter table {} disable row level security").format(Identifier(table)))


def insert_rows(conn: psycopg.Connection[Any], table: str, types: dict[str, list[str]]) -> None:
    """A row for each value there is of the type with most of them, and one of NULLs."""
    for number in range(max(map(len, types.values()))):
        values = []
        for name, texts in types.items():
            text = texts[number % len(texts)]
            element = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
            array = "{%s,NULL,%s}" if number % 2 else "{{%s},{%s}}"
            if name == "box":
                array = array.replace(",", ";")
            values += [Literal(text), Literal(array % (element, element))]
        conn.execute(
            SQL("insert into {} values ({}, {})").format(
                Identifier(table), Literal(number), SQL(", ").join(values)
            )
        )
    conn.execute(SQL("insert into {} values (-1)").format(Identifier(table)))


async def told_and_expected(
    log: Log, conn: psycopg.Connection[Any], table: str, types: dict[str, list[str]]
) -> tuple[list[str], list[str]]:
    listener = await log.listen(SERVICE, {"table": table})
    insert_rows(conn, table, types)
    await log.execute()
    told = []
    for payload in listener.take():
        record = payload.text.partition(b',"record":')[2]
        told.append(record.rpartition(b',"errors":null}')[0].decode())
    assert told
    query = SQL("select row_to_json(t)::text from {} t order by ctid").format(Identifier(table))
    return told, [text for (text,) in conn.execute(query).fetchall()]


async def test_built_in_types_and_their_arrays(log: Log, conn: psycopg.Connection[Any]) -> None:
    rows = conn.execute(
        "select typname from pg_type where typnamespace = 'pg_catalog'::regnamespace"
        " and typtype in ('b', 'r', 'm') and typcategory <> 'A' and typname !~ '^pg_brin'"
    )
    there = {name for (name,) in rows} - INTERNAL
    assert there <= BUILT_IN.keys(), "a type that is not tried"
    types = {name: values for name, values in BUILT_IN.items() if name in there}
    try:
        conn.execute("select '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        del types["xml"]
    make_table(conn, "built_in", types)
    told, expected = await told_and_expected(log, conn, "built_in", types)
    assert told == expected


async def test_types_of_the_users_own(log: Log, conn: psycopg.Connection[Any]) -> None:
    conn.execute(OWN.encode())
    make_table(conn, "own", MADE)
    told, expected = await told_and_expected(log, conn, "own", MADE)
    assert told == expected


async def test_types_of_extensions(log: Log, conn: psycopg.Connection[Any]) -> None:
    types = extension_types(conn)
    assert "vector" in types
    make_table(conn, "extended", types)
    told, expected = await told_and_expected(log, conn, "extended", types)
    assert told == expected


async def test_a_type_is_told_by_its_name_in_the_catalog(log: Log) -> None:
    await log.execute("create type color as enum ('red'); create domain age as int")
    await log.execute(
        "create table named (id int8 primary key, ids int[], name varchar(9), code char(4),"
        " color color, colors color[], age age, at timestamptz, span int4range)"
    )
    listener = await log.listen(SERVICE, {"table": "named"})
    await log.execute("insert into named (id) values (1)")
    (data,) = listener.data()
    assert {column["name"]: column["type"] for column in data["columns"]} == {
        "id": "int8",
        "ids": "_int4",
        "name": "varchar",
        "code": "bpchar",
        "color": "color",
        "colors": "_color",
        "age": "age",
        "at": "timestamptz",
        "span": "int4range",
    }


async def test_a_type_that_changes_is_told_as_it_is_from_then_on(log: Log) -> None:
    await log.execute("create type pair as (a int, b text)")
    await log.execute("create table paired (id int primary key, pair pair)")
    listener = await log.listen(SERVICE, {"table": "paired"})
    await log.execute("insert into paired values (1, '(1,x)')")
    await log.execute("alter type pair add attribute c bool")
    await log.execute("insert into paired values (2, '(1,x,t)')")
    assert [json.dumps(d["record"]["pair"]) for d in listener.data()] == [
        '{"a": 1, "b": "x"}',
        '{"a": 1, "b": "x", "c": true}',
    ]
