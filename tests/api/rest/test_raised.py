import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.problems import render
from butterbase.api.rest.raised import raised_error
from butterbase.sql.errors import DatabaseError

MESSAGE = json.dumps({"code": "123", "message": "ABC", "details": "DEF", "hint": "XYZ"})
DETAIL = json.dumps({"status": 332, "status_text": "Mine", "headers": {"X-Header": "str"}})


def test_every_other_sqlstate_is_left_alone() -> None:
    assert raised_error(DatabaseError("P0001", MESSAGE, detail=DETAIL)) is None


def test_sql_may_write_the_whole_answer() -> None:
    rendered = render(DatabaseError("PGRST", MESSAGE, detail=DETAIL))
    assert (rendered.status, rendered.headers) == (332, [(b"x-header", b"str")])
    problem = rendered.problem
    assert (problem.code, problem.message, problem.details, problem.hint) == (
        "123",
        "ABC",
        "DEF",
        "XYZ",
    )


def test_details_and_hint_may_be_left_out() -> None:
    problem = render(
        DatabaseError("PGRST", '{"code":"1","message":""}', detail=DETAIL, hint="unused")
    ).problem
    assert (problem.message, problem.details, problem.hint) == ("", None, None)


@pytest.mark.parametrize(
    ("message", "detail", "told"),
    [
        ("INVALID", DETAIL, "Invalid JSON value for MESSAGE: 'INVALID'"),
        ('{"code":"1"}', DETAIL, 'Invalid JSON value for MESSAGE: \'{"code":"1"}\''),
        (MESSAGE, "INVALID", "Invalid JSON value for DETAIL: 'INVALID'"),
        (MESSAGE, '{"status":1}', "Invalid JSON value for DETAIL: '{\"status\":1}'"),
        (MESSAGE, None, "DETAIL is missing in the RAISE statement"),
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error(
    message: str, detail: str | None, told: str
) -> None:
    rendered = render(DatabaseError("PGRST", message, detail=detail))
    assert (rendered.status, rendered.problem.code) == (500, "PGRST121")
    assert rendered.problem.details == told
    assert rendered.problem.hint


@pytest.mark.parametrize("status", [0, 100, 600, 99999])
def test_a_status_that_is_none_is_500(status: int) -> None:
    detail = json.dumps({"status": status, "headers": {}})
    assert render(DatabaseError("PGRST", MESSAGE, detail=detail)).status == 500


@pytest.mark.parametrize("name", ["", "a b", "a:b", "é", "a\r\nb"])
def test_a_header_has_a_name(name: str) -> None:
    detail = json.dumps({"status": 400, "headers": {name: "x"}})
    assert render(DatabaseError("PGRST", MESSAGE, detail=detail)).problem.code == "PGRST121"


def test_a_headers_value_is_one_line() -> None:
    detail = json.dumps({"status": 400, "headers": {"x": "a\r\nset-cookie: b\0é"}})
    headers = render(DatabaseError("PGRST", MESSAGE, detail=detail)).headers
    assert headers == [(b"x", "a set-cookie: b é".encode())]


@given(st.text(), st.none() | st.text())
def test_any_texts_are_rendered(message: str, detail: str | None) -> None:
    assert render(DatabaseError("PGRST", message, detail=detail)).status in range(200, 600)


def test_what_is_the_servers_sql_does_not_say() -> None:
    given = {"Content-Length": "9", "transfer-encoding": "chunked", "X-A": "1"}
    detail = json.dumps({"status": 400, "headers": given})
    headers = render(DatabaseError("PGRST", MESSAGE, detail=detail)).headers
    assert headers == [(b"x-a", b"1")]
