"""The ASGI edge of the REST API, over a service that does what a test tells it."""

import json

import pytest

from butterbase.api.rest.cors import Cors
from butterbase.api.rest.endpoint import (
    EndpointSettings,
)
from butterbase.api.rest.errors import InvalidRangeError, NoTableError
from butterbase.api.rest.postgrest.errors import ConnectionLostError
from butterbase.api.rest.request.incoming import HttpRequest
from butterbase.api.rest.response import Answer
from butterbase.sql.claims import ANON, Claims
from butterbase.sql.errors import DatabaseError, DatabaseUnavailableError
from tests.api.rest.serving_fakes import ANSWER, Answering, answering, served

EXPOSED = (
    "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, "
    "Transfer-Encoding, Range-Unit"
)


def raising(error: Exception) -> Answering:
    async def raise_it(_http: HttpRequest, _claims: Claims, _body: bytes) -> Answer:
        raise error

    return raise_it


async def test_the_service_sees_the_request_as_it_came() -> None:
    async with served(answering(ANSWER)) as (service, client):
        answer = await client.get("/rest/v1/a%20b%2Fc?select=x%2Cy&x=eq.%C3%A9")
    assert (answer.status_code, answer.content) == (200, b"[]")
    assert answer.headers["content-length"] == "2"
    ((http, claims, body),) = service.asked
    assert (http.method, http.path, body) == ("GET", "/a%20b%2Fc", b"")
    assert http.query_string == "select=x%2Cy&x=eq.%C3%A9"
    assert (b"apikey", b"k") in http.headers
    assert claims.role == ANON


@pytest.mark.parametrize(
    ("path", "app_id", "below"),
    [
        ("/rest/v1", "main", "/"),
        ("/rest/v1/", "main", "/"),
        ("/rest/v1/rpc/f", "main", "/rpc/f"),
        ("/v1/shop/rest/v1/t", "shop", "/t"),
        ("/v1/a%20b/rest/v1", "a b", "/"),
    ],
)
async def test_the_api_is_reached_at_the_root_and_below_the_app(
    path: str, app_id: str, below: str
) -> None:
    async with served(answering(ANSWER)) as (service, client):
        assert (await client.get(path)).status_code == 200
    assert service.apps == [app_id]
    assert service.asked[0][0].path == below


@pytest.mark.parametrize("path", ["/", "/rest", "/rest/v1x", "/v1//rest/v1", "/v1/a/b/rest/v1"])
async def test_every_other_path_is_elsewhere(path: str) -> None:
    async with served(answering(ANSWER)) as (service, client):
        assert (await client.get(path)).status_code == 418
    assert service.asked == []


async def test_an_error_says_what_postgrest_says() -> None:
    error = NoTableError("Could not find the table", details=[{"a": 1}], hint="Perhaps")
    async with served(raising(error)) as (_, client):
        answer = await client.get("/rest/v1/t")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["proxy-status"] == "PostgREST; error=PGRST205"
    assert answer.json() == {
        "code": "PGRST205",
        "message": "Could not find the table",
        "details": [{"a": 1}],
        "hint": "Perhaps",
    }


async def test_a_terse_error_has_code_and_message_alone() -> None:
    settings = EndpointSettings(body_bytes_max=1000, is_verbose=False)
    async with served(raising(DatabaseError("23505", "m", detail="d")), settings) as (_, client):
        answer = await client.get("/rest/v1/t")
    assert (answer.status_code, answer.json()) == (409, {"code": "23505", "message": "m"})


async def test_an_error_brings_its_headers() -> None:
    error = InvalidRangeError(headers=[(b"content-range", b"*/3")])
    async with served(raising(error)) as (_, client):
        answer = await client.get("/rest/v1/t")
    assert (answer.status_code, answer.headers["content-range"]) == (416, "*/3")


async def test_what_the_anonymous_may_not_do_signing_in_may_help() -> None:
    async with served(raising(DatabaseError("42501", "denied"))) as (_, client):
        anonymous = await client.get("/rest/v1/t")
        user = await client.get("/rest/v1/t", headers={"Authorization": "Bearer x"})
    assert (anonymous.status_code, anonymous.headers["www-authenticate"]) == (401, "Bearer")
    assert user.status_code == 403


async def test_a_caller_without_a_key_is_refused() -> None:
    async with served(answering(ANSWER)) as (_, client):
        del client.headers["apikey"]
        answer = await client.get("/rest/v1/t")
    assert (answer.status_code, answer.json()["code"]) == (401, "no_api_key")


async def test_an_unavailable_database_may_be_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    lost = ConnectionLostError()
    lost.__cause__ = DatabaseUnavailableError("no connection to db-7.internal")
    for error in (lost, lost.__cause__):
        caplog.clear()
        async with served(raising(error)) as (_, client):
            answer = await client.get("/rest/v1/t")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "db-7" not in answer.text
        assert "db-7" in caplog.text


async def test_a_bug_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with served(raising(ZeroDivisionError("secret"))) as (_, client):
        answer = await client.get("/rest/v1/t")
        assert answer.status_code == 500
        assert "secret" not in answer.text
    assert "secret" in caplog.text


@pytest.mark.parametrize("status", [0, 99, 101, 600, 999])
async def test_a_status_that_is_none_is_an_error_of_the_database(status: int) -> None:
    async with served(answering(Answer(status, [], b""))) as (_, client):
        answer = await client.get("/rest/v1/t")
    assert (answer.status_code, answer.json()["code"]) == (500, "PGRST112")


async def test_the_request_id_comes_back() -> None:
    async with served(answering(ANSWER)) as (_, client):
        given = await client.get("/rest/v1/t", headers={"X-Request-Id": "abc-1"})
        strange = await client.get("/rest/v1/t", headers={"X-Request-Id": "a b"})
        made = await client.get("/rest/v1/t")
    assert given.headers["x-request-id"] == "abc-1"
    assert len({a.headers["x-request-id"] for a in (given, strange, made)} - {"a b"}) == 3


async def test_the_trace_header_comes_back() -> None:
    settings = EndpointSettings(body_bytes_max=1000, trace_header=b"x-trace")
    async with served(answering(ANSWER), settings) as (_, client):
        answer = await client.get("/rest/v1/t", headers={"X-Trace": "7"})
    assert answer.headers["x-trace"] == "7"


async def test_a_preflight_is_answered_without_a_key() -> None:
    asked = {
        "Origin": "http://example.com",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "Foo,Bar",
    }
    async with served(answering(ANSWER)) as (service, client):
        del client.headers["apikey"]
        answer = await client.options("/rest/v1/t", headers=asked)
    assert (answer.status_code, answer.content, service.asked) == (200, b"", [])
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == (
        "GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD"
    )
    assert answer.headers["access-control-allow-headers"] == (
        "Authorization, Foo, Bar, Accept, Accept-Language, Content-Language"
    )
    assert answer.headers["access-control-max-age"] == "86400"


@pytest.mark.parametrize("answer", [answering(ANSWER), raising(NoTableError())])
async def test_answers_and_errors_may_be_read_from_any_origin(answer: Answering) -> None:
    async with served(answer) as (_, client):
        read = await client.get("/rest/v1/t", headers={"Origin": "http://example.com"})
        same_origin = await client.get("/rest/v1/t")
    assert read.headers["access-control-allow-origin"] == "*"
    assert read.headers["access-control-expose-headers"] == EXPOSED
    assert "access-control-allow-origin" not in same_origin.headers


@pytest.mark.parametrize(
    ("origin", "allowed"), [("http://a.com", "http://a.com"), ("http://b.com", None)]
)
async def test_some_origins_may_be_the_only_ones(origin: str, allowed: str | None) -> None:
    settings = EndpointSettings(body_bytes_max=1000, cors=Cors(("http://a.com",)))
    async with served(answering(ANSWER), settings) as (service, client):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answers = [
            await client.get("/rest/v1/t", headers={"Origin": origin}),
            await client.options("/rest/v1/t", headers=asked),
        ]
    credentials = "true" if allowed else None
    for answer in answers:
        assert answer.headers.get("access-control-allow-origin") == allowed
        assert answer.headers.get("access-control-allow-credentials") == credentials
    # Of an origin that is not allowed it is a request like any other.
    assert [http.method for http, _, _ in service.asked] == (
        ["GET"] if allowed else ["GET", "OPTIONS"]
    )


async def test_the_service_is_told_how_long_admission_took() -> None:
    async with served(answering(ANSWER)) as (service, client):
        await client.get("/rest/v1/t")
    assert service.asked[0][0].admission_s > 0


async def test_a_code_that_sql_raised_is_one_line() -> None:
    message = json.dumps({"code": "a\r\nb: c\x00é", "message": ""})
    error = DatabaseError("PGRST", message, detail='{"status": 400, "headers": {}}')
    async with served(raising(error)) as (_, client):
        answer = await client.get("/rest/v1/t")
    assert (answer.status_code, answer.json()["code"]) == (400, "a\r\nb: c\x00é")
    assert answer.headers["proxy-status"] == "PostgREST; error=a b: c ?"
