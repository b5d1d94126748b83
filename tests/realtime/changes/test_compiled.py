"""Expressions as `pg_get_expr` writes them, evaluated without Postgres."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.realtime.changes.compiled.errors import UnanswerableError, UncompilableError
from butterbase.realtime.changes.compiled.json_text import Document, Number, field_text, parse_json
from butterbase.realtime.changes.compiled.kinds import NAN, Kind, read
from butterbase.realtime.changes.compiled.parsing import FUNCTIONS, Names, parse
from butterbase.realtime.changes.compiled.predicate import Predicate, predicate

ALICE = "aaaaaaaa-0000-4000-8000-000000000001"
BOB = "bbbbbbbb-0000-4000-8000-000000000002"

KINDS = {
    "id": Kind.INT4,
    "owner": Kind.UUID,
    "body": Kind.TEXT,
    "code": Kind.BPCHAR,
    "flag": Kind.BOOL,
    "price": Kind.NUMERIC,
    "day": Kind.DATE,
    "data": Kind.JSONB,
    "real": Kind.OTHER,
    "odd Name": Kind.TEXT,
}
NAMES = Names("notes", KINDS, frozenset(FUNCTIONS))
ROW: dict[str, str | None] = {
    "id": "7",
    "owner": ALICE,
    "body": "it's \\ here",
    "code": "ab  ",
    "flag": None,
    "price": "1.50",
    "day": "2025-01-01",
    "data": '{"k": "red", "n": 1.50, "list": ["a"]}',
    "real": "0.1",
    "odd Name": "x",
}
CLAIMS = {
    "sub": ALICE,
    "role": "authenticated",
    "team": "red",
    "n": 7,
    "admin": True,
    "app_metadata": {"team": "red"},
    "roles": ["red"],
}


def compiled(*expressions: str) -> Predicate:
    return predicate([parse(text, NAMES) for text in expressions], [])


def value(expression: str, **claims: Any) -> bool | None:
    whole = compiled(expression)
    text = msgspec.json.encode(CLAIMS | claims).decode()
    answer = whole.evaluate(ROW, whole.read_claims(text))
    assert answer in (True, False, None)
    return answer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("true", True),
        ("NULL::boolean", None),
        ("(owner = auth.uid())", True),
        ("(( SELECT auth.uid() AS uid) = owner)", True),
        ("(( SELECT (auth.jwt() ->> 'team'::text)) = 'red'::text)", True),
        ("((auth.uid())::text = (owner)::text)", True),
        ("(notes.id = 7)", True),
        ("(id <> 7)", False),
        ("(id > '-3'::integer)", True),
        ("((id)::numeric < 7.5)", True),
        ("(id = '5000000000'::bigint)", False),
        ("(id = ANY (ARRAY[1, 7]))", True),
        ("(id <> ALL (ARRAY[1, 7]))", False),
        ("((body)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[]))",
         False),
        ("(body = 'it''s \\ here'::text)", True),
        ("(code = 'ab'::bpchar)", True),
        ('("odd Name" = \'x\'::text)', True),
        ("(price = 1.5)", True),
        ("(day < '2025-01-02'::date)", True),
        ("flag", None),
        ("(flag IS UNKNOWN)", True),
        ("(flag IS NOT TRUE)", True),
        ("(NOT flag)", None),
        ("(flag AND (id = 8))", False),
        ("(flag AND (id = 7))", None),
        ("(flag OR (id = 7))", True),
        ("(flag = (id = 7))", None),
        ("(real IS NOT NULL)", True),
        ("(owner IS DISTINCT FROM NULL::uuid)", True),
        ("(NOT (owner IS DISTINCT FROM auth.uid()))", True),
        ("(owner < auth.uid())", False),
        ("(owner <= auth.uid())", True),
        ("(COALESCE(flag, false) = false)", True),
        ("((auth.jwt() ->> 'admin'::text))::boolean", True),
        ("(((auth.jwt() ->> 'n'::text))::integer = id)", True),
        ("((((current_setting('request.jwt.claims'::text, true))::json ->> 'sub'::text))::uuid"
         " = owner)", True),
        ("(((auth.jwt() -> 'app_metadata'::text) ->> 'team'::text) = (data ->> 'k'::text))", True),
        ("((data ->> 'n'::text) = '1.50'::text)", True),
        ("((auth.jwt() -> 'roles'::text) ? (data ->> 'k'::text))", True),
        ("(data ? 'none'::text)", False),
    ],
)  # fmt: skip
def test_an_expression_is_evaluated(expression: str, answer: bool | None) -> None:
    assert value(expression) is answer


@pytest.mark.parametrize(
    "expression",
    [
        "id",
        "(body < 'b'::text)",
        "(body ~~ 'a%'::text)",
        "(lower(body) = 'a'::text)",
        "((id + 1) = 2)",
        "(real = 1)",
        "(body = owner)",
        "(code = 'ab'::character(2))",
        "(price = '1.5'::numeric(6,2))",
        "(other = 1)",
        "(others.id = 1)",
        "(public.notes.id = 1)",
        "(notes.* IS NOT NULL)",
        "(EXISTS ( SELECT 1))",
        "(id = ( SELECT max(1) AS max))",
        "(id IN ( SELECT 7))",
        "(owner = ( SELECT auth.uid() AS uid\n  WHERE true))",
        "(owner = ( SELECT auth.uid() AS uid\n   FROM members))",
        "(owner = uid())",
        "(owner = public.uid())",
        "(owner = auth.user())",
        "(owner = auth.uid(1))",
        "(owner = other.auth.uid())",
        "(id OPERATOR(public.=) 7)",
        "(body = current_setting('app.user'::text, true))",
        "(body = current_setting('request.jwt.claims'::text))",
        "((body COLLATE \"C\") = 'x'::text)",
        "(day <= now())",
        "(CURRENT_USER = 'anon'::name)",
        "(data = '{}'::jsonb)",
        "((data -> 0) IS NULL)",
        "((data ->> body) = 'x'::text)",
        "(owner = 'not a uuid'::uuid)",
        "\nCASE\n    WHEN flag THEN true\n    ELSE false\nEND",
        "(id = 7); (id = 8)",
        "((",
        "",
    ],
)
def test_what_is_not_known_to_the_last_detail_is_not_compiled(expression: str) -> None:
    with pytest.raises(UncompilableError):
        compiled(expression)


@pytest.mark.parametrize(
    ("expression", "claims"),
    [
        ("(owner = auth.uid())", {"sub": "nobody"}),
        ("(owner = auth.uid())", {"sub": f"{{{ALICE}}}"}),
        ("(((auth.jwt() ->> 'n'::text))::integer = id)", {"n": 2**31}),
        ("((auth.jwt() ->> 'team'::text) = body)", {"team": {"k": 1}}),
        ("((auth.jwt() ->> 'team'::text) = body)", {"n": 1e22}),
        ("((auth.jwt() -> 'admin'::text))::boolean", {"admin": "yes"}),
    ],
)
def test_of_what_cannot_be_read_postgres_is_asked(expression: str, claims: Any) -> None:
    with pytest.raises(UnanswerableError):
        value(expression, **claims)


def test_a_claim_that_is_missing_is_null() -> None:
    whole = compiled("(owner = auth.uid())")
    assert whole.evaluate(ROW, whole.read_claims("{}")) is None
    assert value("(owner = auth.uid())", sub=BOB) is False


def test_what_is_read_of_the_claims_is_read_once() -> None:
    whole = compiled("(owner = auth.uid())", "(NOT (auth.uid() = owner))", "(auth.uid() IS NULL)")
    assert len(whole.claims) == 2  # the last is one condition of the claims alone


# Whom a row concerns


@pytest.mark.parametrize(
    ("expressions", "key_count", "of_rows", "of_claims"),
    [
        (["(owner = auth.uid())"], 1, 0, 0),
        (["((id = 7) AND (auth.role() = 'a'::text) AND (owner = auth.uid()))"], 1, 0, 0),
        (["((owner = auth.uid()) OR flag)"], 1, 1, 0),
        (["(owner = auth.uid())", "(body = (auth.jwt() ->> 'team'::text))"], 2, 0, 0),
        (["(owner = auth.uid())", "(auth.role() = 'a'::text)"], 1, 0, 1),
        (["flag"], 0, 1, 0),
        (["false"], 0, 0, 0),
    ],
)
def test_a_plan_names_those_whom_a_row_may_concern(
    expressions: list[str], key_count: int, of_rows: int, of_claims: int
) -> None:
    plan = compiled(*expressions).plan
    assert plan is not None
    assert (len(plan.keys), len(plan.of_rows), len(plan.of_claims)) == (
        key_count,
        of_rows,
        of_claims,
    )


@pytest.mark.parametrize(
    "expression", ["true", "(owner <> auth.uid())", "(NOT (owner = auth.uid()))"]
)
def test_without_a_plan_a_row_may_concern_everybody(expression: str) -> None:
    assert compiled(expression).plan is None


# Values


@given(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001
def test_a_moment_is_read_as_its_microseconds(moment: datetime) -> None:
    text = moment.isoformat(sep=" ")
    since_epoch = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)  # noqa: DTZ001
    assert read(Kind.TIMESTAMP, text) == since_epoch
    assert read(Kind.TIMESTAMPTZ, f"{text}+02") == since_epoch - 7_200_000_000
    assert read(Kind.TIMESTAMPTZ, f"{text}-03:30") == since_epoch + 12_600_000_000
    assert read(Kind.DATE, text[:10]) == since_epoch // 86_400_000_000 * 86_400_000_000


@pytest.mark.parametrize(
    ("kind", "ascending"),
    [
        (Kind.DATE, ["-infinity", "4713-01-01 BC", "0001-12-31 BC", "0001-01-01", "12025-01-01",
                     "infinity"]),
        (Kind.NUMERIC, ["-Infinity", "-1.5", "0", "0.00001", "1e3", "Infinity", "NaN"]),
        (Kind.FLOAT8, ["-Infinity", "-1e-300", "0", "1e300", "Infinity", "NaN"]),
        (Kind.TIME, ["00:00:00", "10:00:00", "10:00:00.5", "24:00:00"]),
        (Kind.BOOL, ["f", "t"]),
    ],
)  # fmt: skip
def test_values_order_as_in_postgres(kind: Kind, ascending: list[str]) -> None:
    values = [read(kind, text) for text in ascending]
    for index, value_ in enumerate(values):
        assert [value_ > other for other in values] == [i < index for i in range(len(values))]
        assert [value_ >= other for other in values] == [i <= index for i in range(len(values))]
        assert [value_ == other for other in values] == [i == index for i in range(len(values))]


def test_equal_values_hash_alike() -> None:
    for kind, texts in ((Kind.NUMERIC, ("1.5", "1.50")), (Kind.FLOAT8, ("0", "-0"))):
        assert len({read(kind, text) for text in texts}) == 1
    assert read(Kind.NUMERIC, "NaN") is read(Kind.FLOAT8, "NaN") is NAN
    assert read(Kind.NUMERIC, "1.50") == Decimal("1.5")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.INT4, "2147483648"),
        (Kind.INT4, "0x10"),
        (Kind.INT4, "1_000"),
        (Kind.INT4, "\u0661"),
        (Kind.BOOL, "yes"),
        (Kind.DATE, "01/02/2025"),
        (Kind.TIMESTAMPTZ, "2025-01-01 00:00:00"),
        (Kind.TIMESTAMP, "2025-01-01 00:00:00+00"),
        (Kind.NUMERIC, "x"),
        (Kind.JSONB, "{"),
        (Kind.JSONB, "NaN"),
        (Kind.JSONB, r'"\u0000"'),
        (Kind.JSONB, r'"\ud800"'),
        (Kind.JSONB, "[" * 100_000),
    ],
)
def test_text_of_another_form_is_not_read(kind: Kind, text: str) -> None:
    with pytest.raises(UnanswerableError):
        read(kind, text)


def test_a_time_of_day_is_microseconds() -> None:
    at = time(10, 11, 12, 131415)
    expected = timedelta(hours=10, minutes=11, seconds=12, microseconds=131415)
    assert read(Kind.TIME, at.isoformat()) == expected // timedelta(microseconds=1)
    assert read(Kind.DATE, date(1970, 1, 2).isoformat()) == 86_400_000_000
    assert datetime.fromtimestamp(0, UTC).year == 1970


@pytest.mark.parametrize(
    ("text", "binary", "verbatim"),
    [
        ("1.50", "1.50", "1.50"),
        ("-0", "0", "-0"),
        ("-0.0", "0.0", "-0.0"),
        ("true", "true", "true"),
        ("null", None, None),
        ('"a\\nb"', "a\nb", "a\nb"),
    ],
)
def test_a_field_as_text(text: str, binary: str | None, verbatim: str | None) -> None:
    document = parse_json(f'{{"k": 0, "k": {text}}}')
    assert field_text(document, "k", is_binary=True) == binary
    assert field_text(document, "k", is_binary=False) == verbatim
    assert field_text(document, "other", is_binary=True) is None
    assert field_text(Document([Number("1")]), "k", is_binary=True) is None


@pytest.mark.parametrize("text", ["[" * 500 + "]" * 500, '{"k":' * 500 + "1" + "}" * 500])
def test_deep_json_is_left_to_postgres(text: str) -> None:
    with pytest.raises(UnanswerableError):
        parse_json(text)
    hash(parse_json(f"[{', '.join(['[{}]'] * 500)}]"))
