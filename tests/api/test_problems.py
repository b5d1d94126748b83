import pytest

from butterbase.api.problems import BUG, render
from butterbase.api.rest.errors import InvalidRangeError, RestError
from butterbase.sql.errors import DatabaseError, DatabaseUnavailableError, InvalidTokenError


@pytest.mark.parametrize(
    ("sqlstate", "message", "status"),
    [
        ("23505", "", 409),
        ("23503", "", 409),
        ("23502", "", 400),
        ("21000", "more than one row returned by a subquery used as an expression", 500),
        ("21000", "DELETE requires a WHERE clause", 400),
        ("22023", 'role "nobody" does not exist', 401),
        ("22023", "time zone is not known", 400),
        ("25006", "", 405),
        ("28000", "", 403),
        ("40001", "", 500),
        ("42883", "function nothing() does not exist", 404),
        ("42883", "function xmlagg(record) does not exist", 406),
        ("42P01", "", 404),
        ("42P17", "", 500),
        ("53400", "", 500),
        ("53100", "", 503),
        ("54000", "", 500),
        ("57014", "", 504),
        ("P0001", "", 400),
        ("P0002", "", 500),
        ("XX000", "", 500),
        ("ZZ999", "", 400),
        ("PT402", "", 402),
        ("PTxyz", "", 500),
        ("PT999", "", 500),
    ],
)
def test_a_sqlstate_has_its_status(sqlstate: str, message: str, status: int) -> None:
    rendered = render(DatabaseError(sqlstate, message, detail="d", hint="h"))
    assert rendered.status == status
    assert rendered.problem.code == sqlstate
    assert (rendered.problem.details, rendered.problem.hint) == ("d", "h")


@pytest.mark.parametrize(("is_anonymous", "status"), [(True, 401), (False, 403)])
def test_a_privilege_may_be_had_by_signing_in(is_anonymous: bool, status: int) -> None:
    rendered = render(DatabaseError("42501", "denied"), is_anonymous=is_anonymous)
    assert rendered.status == status
    assert ((b"www-authenticate", b"Bearer") in rendered.headers) is is_anonymous


def test_an_errors_own_challenge_stands_alone() -> None:
    class ChallengedError(RestError):
        """No."""

        status = 401

    challenge = (b"www-authenticate", b'Bearer error="invalid_token"')
    assert render(ChallengedError(headers=[challenge])).headers == [challenge]


def test_a_token_that_is_not_valid_is_challenged() -> None:
    rendered = render(InvalidTokenError())
    assert (rendered.status, rendered.headers) == (401, [(b"www-authenticate", b"Bearer")])


def test_what_is_unavailable_says_when_to_try_again() -> None:
    rendered = render(DatabaseUnavailableError("no connection to db-7.internal"))
    assert (rendered.status, rendered.headers) == (503, [(b"retry-after", b"1")])
    assert rendered.problem.message == "The database cannot be reached right now."


def test_an_error_of_rest_brings_its_details_and_headers() -> None:
    headers = [(b"content-range", b"*/3")]
    rendered = render(InvalidRangeError(details="An offset", headers=headers))
    assert (rendered.status, rendered.headers) == (416, headers)
    assert (rendered.problem.code, rendered.problem.details) == ("PGRST103", "An offset")


def test_a_bug_tells_nothing() -> None:
    rendered = render(ZeroDivisionError("secret"))
    assert (rendered.status, rendered.problem) == (500, BUG)
