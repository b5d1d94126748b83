"""Column text as JSON, with Postgres's own to_json as the oracle."""

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from butterbase.ingest.changes import Column, Toast
from butterbase.ingest.errors import MalformedMessageError
from butterbase.ingest.session import TEXT_SETTINGS
from butterbase.ingest.values import encode_row, encode_value
from tests.postgres import Databases

LITERALS: dict[str, list[str]] = {
    "bool": ["true", "false"],
    "int2": ["-32768", "0", "32767"],
    "int4": ["-2147483648", "7"],
    "int8": ["9223372036854775807", "-1"],
    "oid": ["0", "4294967295"],
    "float4": ["1.1", "-0", "3.4028235e38", "NaN", "Infinity", "-Infinity"],
    "float8": ["0.1", "1e-300", "1e20", "123456789.123456789", "NaN", "Infinity", "-Infinity"],
    "numeric": ["1.10", "-0.000", "12345678901234567890.123456789", "NaN", "Infinity", "1e30"],
    "numeric(10,2)": ["1.5", "-99999999.99"],
    "json": ['{"b": 1,  "a" : [null]}', "null", '"x"', "1.0", '[\n"\\u00e9"]'],
    "jsonb": ['{"b": 1,  "a" : [null, 1.50]}', '"gr\\u00fc\\"ße"', "true"],
    "timestamp": [
        *["2026-07-01 12:00:00", "2026-07-01 12:00:00.000001", "0044-03-15 12:00:00 BC"],
        *["infinity", "-infinity", "10000-01-01 00:00:00"],
    ],
    "timestamptz": [
        *["2026-07-01 12:00:00+02", "2026-07-01 12:00:00.123456Z", "0044-03-15 12:00:00+00 BC"],
        *["infinity", "-infinity", "294276-12-31 23:59:59.999999+00"],
    ],
    "date": ["2026-07-01", "0044-03-15 BC", "infinity", "10000-01-01"],
    "time": ["12:00:00.5", "24:00:00"],
    "timetz": ["12:00:00+02"],
    "interval": ["1 year 2 mons -3 days 04:05:06.7", "0"],
    "uuid": ["7F0C1E9A-1D2F-4F52-9B8D-9E6C2A6D7F11"],
    "text": ["", "grüße\n\t\"'\\ /", "\x01\x1f\x7f", "😀", "</script>", "NULL", "\u2028"],
    "varchar(5)": ["abc"],
    "char(5)": ["abc"],
    '"char"': ["x"],
    "name": ["a name"],
    "bytea": ["\\x00ff10", ""],
    "inet": ["10.0.0.0/8"],
    "money": ["1.5"],
    "bit(3)": ["101"],
    "int4range": ["[1,5)", "empty"],
    "tsvector": ["'a':1 'b':2"],
    "point": ["(1,2)"],
    "bool[]": ["{t,f,NULL}"],
    "int4[]": ["{}", "{1,-2,NULL}", "{{1,2},{3,4}}", "[0:1]={1,2}", "[-1:0][2:3]={{1,2},{3,4}}"],
    "int8[]": ["{9223372036854775807}"],
    "float8[]": ["{1.5,NaN,-Infinity,1e20}"],
    "numeric[]": ["{1.10,NaN}"],
    "text[]": [
        *["{}", '{a,NULL,"NULL",""}', '{"a b","c,d","{e}","f\\"g","h\\\\i"}', '{{a,b},{c,"ü "}}'],
        *["{{{a},{b}},{{c},{d}}}", '{"line\nbreak"}'],
    ],
    "varchar[]": ["{a}"],
    "uuid[]": ["{7f0c1e9a-1d2f-4f52-9b8d-9e6c2a6d7f11}"],
    "date[]": ["{2026-07-01,infinity}"],
    "timestamp[]": ['{"2026-07-01 12:00:00",infinity}'],
    "timestamptz[]": ['{"2026-07-01 12:00:00+02",NULL}'],
    "jsonb[]": ['{"{\\"a\\": [1, 2]}",NULL,"\\"x\\""}'],
    "json[]": ['{"{\\"a\\":  1}"}'],
    "bytea[]": ['{"\\\\x00ff"}'],
    "interval[]": ['{"1 day"}'],
    "oid[]": ["{1}"],
    "inet[]": ["{10.0.0.1}"],
}


@pytest.fixture(scope="module")
def oracle(postgres: Databases) -> Iterator[psycopg.Connection]:
    options = " ".join(f"-c {name}={value}" for name, value in TEXT_SETTINGS.items())
    with psycopg.connect(postgres.dsn, autocommit=True, options=options) as conn:
        yield conn


@pytest.mark.parametrize(
    ("type_name", "literal"),
    [(type_name, literal) for type_name, literals in LITERALS.items() for literal in literals],
)
def test_a_value_is_encoded_as_to_json_does(
    oracle: psycopg.Connection, type_name: str, literal: str
) -> None:
    # The log writes what the type's output function writes, as format() does; a cast to text is
    # another thing for bool and char(n).
    query = sql.SQL(
        "select pg_typeof(v)::oid::int8, format('%%s', v), to_json(v)::text"
        " from (select cast(%s::text as {}) as v) given"
    ).format(sql.SQL(type_name))
    row = oracle.execute(query, [literal]).fetchone()
    assert row is not None
    type_oid, text, expected = row
    assert encode_value(type_oid, text).decode() == expected


@settings(max_examples=60)
@given(
    st.lists(
        st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        max_size=6,
    )
)
def test_an_array_of_any_text_is_encoded_as_to_json_does(
    oracle: psycopg.Connection, elements: list[str | None]
) -> None:
    row = oracle.execute(
        "select v::text, to_json(v)::text from (select %s::text[] as v) given", [elements]
    ).fetchone()
    assert row is not None
    text, expected = row
    assert encode_value(1009, text).decode() == expected


def test_a_row_is_encoded_as_row_to_json_does(oracle: psycopg.Connection) -> None:
    row = oracle.execute(
        'select row_to_json(t)::text from (select 1.50::numeric as "a ""b""", null::text as n,'
        " true as ok, array['x', null] as tags, timestamptz 'epoch' as \"at\") t"
    ).fetchone()
    assert row is not None
    columns = [
        Column(name, type_oid, -1, is_key=False)
        for name, type_oid in [('a "b"', 1700), ("n", 25), ("ok", 16), ("tags", 1009), ("at", 1184)]
    ]
    values = ("1.50", None, "t", "{x,NULL}", "1970-01-01 00:00:00+00")
    assert encode_row(columns, values).decode() == row[0]


def test_an_unchanged_large_value_is_left_out_of_a_row() -> None:
    columns = [Column("id", 23, -1, is_key=True), Column("body", 25, -1, is_key=False)]
    assert encode_row(columns, ("1", Toast.UNCHANGED)) == b'{"id":1}'
    assert encode_row(columns[1:], (Toast.UNCHANGED,)) == b"{}"


@pytest.mark.parametrize(
    "text", ["", "1", "{1", "1}", "{}{}", "}{", "{1}}", "{1},", "{1}x", '{"a', "[0:1]{1}", "NULL"]
)
def test_what_is_no_array_is_malformed(text: str) -> None:
    with pytest.raises(MalformedMessageError, match="not an array"):
        encode_value(1007, text)
