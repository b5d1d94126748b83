"""From arguments to requests, for any arguments; and what the pure parts make of schemas."""

import json
from urllib.parse import parse_qsl

from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.tools.errors import ToolArgumentsError
from butterbase.ai.tools.ports import BackendAnswer
from butterbase.ai.tools.queries import TableAccess, plan_call
from butterbase.ai.tools.results import read_any, read_change, read_rows
from butterbase.ai.tools.schemas import column_schema
from butterbase.api.rest.request.parser import read_query, shape_of
from butterbase.sql.relations.model import Column

COLUMNS = ("id", "order", "select", "a.b", 'q"uote', "limit", "and", "x->y", "\\", "ü")
ACCESS = TableAccess(
    "ta/ble", "public", ("select", "insert", "update", "delete"), COLUMNS, COLUMNS[:3], 20, 1
)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
values = st.one_of(
    texts, st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)
)
columns = st.sampled_from(COLUMNS)
conditions = st.one_of(
    st.builds(
        lambda column, operator, value: {"column": column, "operator": operator, "value": value},
        columns,
        st.sampled_from(["eq", "neq", "gt", "lte", "like", "ilike", "search"]),
        values,
    ),
    st.builds(
        lambda column, listed: {"column": column, "operator": "in", "values": listed},
        columns,
        st.lists(values, min_size=1, max_size=4),
    ),
    st.builds(lambda column: {"column": column, "operator": "is_null"}, columns),
)


@given(
    st.lists(conditions, max_size=5),
    st.lists(columns, min_size=1, unique=True),
    st.lists(columns, unique=True),
    st.integers(1, 100),
)
def test_the_rest_api_reads_what_was_meant_and_nothing_else(
    where: list[dict[str, object]], shown: list[str], order: list[str], limit: int
) -> None:
    arguments = {
        "operation": "select",
        "where": where,
        "columns": shown,
        "order": [{"column": column} for column in order],
        "limit": limit,
    }
    call = plan_call(ACCESS, json.dumps(arguments))
    query = read_query(call.request.query)
    shape = shape_of(query)
    assert call.request.path == "/ta%2Fble"
    assert [item.field.name for item in shape.select] == shown  # type: ignore[union-attr]
    assert [filter_.field.name for _, filter_ in shape.filters] == [c["column"] for c in where]
    assert [term.field.name for _, terms in shape.order for term in terms] == order
    assert not shape.logic
    limits = dict(parse_qsl(call.request.query))["limit"]
    assert int(limits) == min(limit, 20) + 1


@given(st.one_of(st.text(), st.recursive(values, st.lists, max_leaves=5).map(json.dumps)))
def test_any_arguments_are_a_call_or_refused(arguments: str) -> None:
    try:
        call = plan_call(ACCESS, arguments)
    except ToolArgumentsError:
        return
    assert call.operation == "select"  # nothing is changed by accident


@given(st.binary(max_size=200), st.integers(1, 300), st.integers(256, 400))
def test_any_answer_is_told_within_its_limit(body: bytes, limit: int, bytes_max: int) -> None:
    answer = BackendAnswer(200, body, len(body))
    for output in (
        read_rows(answer, limit=limit, bytes_max=bytes_max),
        read_change(answer, bytes_max=bytes_max),
        read_any(answer, bytes_max=bytes_max),
    ):
        json.loads(output.text)


def test_types_of_columns_are_types_of_json() -> None:
    expected: dict[str, dict[str, object]] = {
        "integer": {"type": "integer"},
        "numeric": {"type": "number"},
        "boolean": {"type": "boolean"},
        "jsonb": {"type": "object"},
        "text[]": {"type": "array", "items": {"type": "string"}},
        "uuid": {"type": "string"},
        "timestamp with time zone": {"type": "string"},
    }
    for type_, schema in expected.items():
        assert column_schema(Column("c", type_, type_)) == schema | {"description": type_}
    enum = Column("c", "mood", "mood", enum=("good", "bad"), description="How it is.")
    assert column_schema(enum) == {
        "type": "string",
        "enum": ["good", "bad"],
        "description": "mood: How it is.",
    }
    short = Column("c", "character varying", "character varying", max_length=5)
    assert column_schema(short)["maxLength"] == 5
