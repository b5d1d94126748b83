"""What SQL knows of a request, and how it says what is answered."""

import json
from typing import Any

import pytest

from tests.api.rest.conftest import RETURN, Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = """
create table log (id int primary key, note text);
create function setting(name text) returns text language sql stable
  as 'select current_setting(name, true)';
create function answer_with(status text, headers text) returns text language plpgsql as $$
begin
  perform set_config('response.status', status, true);
  perform set_config('response.headers', headers, true);
  return 'body';
end $$;
create function raise_it(code text, message text, detail text default null, hint text default null)
  returns void language plpgsql as $$
begin
  insert into log values (1, 'never');
  raise exception using errcode = code, message = raise_it.message,
    detail = coalesce(raise_it.detail, ''), hint = coalesce(raise_it.hint, '');
end $$;
create function bare() returns void language plpgsql as $$
begin raise sqlstate 'PGRST' using message = '{"code":"1","message":"m"}'; end $$;
create function set_status() returns trigger language plpgsql as $$
begin
  perform set_config('response.status', '202', true);
  perform set_config('response.headers', '[{"x-made": "' || new.id || '"}]', true);
  return new;
end $$;
create trigger set_status before insert on log for each row execute function set_status();
create function check_late() returns trigger language plpgsql as $$
begin
  if new.note = 'late' then raise exception 'too late' using errcode = '23514'; end if;
  return null;
end $$;
create constraint trigger check_late after insert on log
  deferrable initially deferred for each row execute function check_late();
create function set_for_session(name text, value text) returns text language sql
  as 'select set_config(name, value, false)';
create sequence bumps;
grant usage on bumps to service_role;
create function bump(n text) returns int language plpgsql as $$
begin perform nextval('bumps'); return n::int; end $$;
create function user_name() returns text language sql stable as 'select current_user::text';
create function search_path_now() returns text language sql stable
  as $$ select current_setting('search_path') $$;
"""
ROWS = "truncate log"


async def setting(rest: Rest, name: str, **options: Any) -> Any:
    return await rest.rows(f"rpc/setting?name={name}", **options)


async def test_sql_knows_the_request(rest: Rest) -> None:
    assert await setting(rest, "request.method") == "GET"
    assert await setting(rest, "request.path") == "/rpc/setting"
    assert (await rest.post("rpc/setting", {"name": "request.method"})).json() == "POST"
    claims = await setting(rest, "request.jwt.claims")
    assert '"role":"service_role"' in claims.replace(" ", "")
    posted = (await rest.post("rpc/setting", {"name": "request.headers"})).json()
    assert json.loads(posted)["content-type"] == "application/json"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
async def test_sql_knows_headers_and_cookies(rest: Rest, encoding: str) -> None:
    text = "quo\"te, 'é'"
    given = {"apikey": rest.api.keys.service_role, "X-Custom": text, "Cookie": "a=1; b=two"}
    headers: Any = {name: value.encode(encoding) for name, value in given.items()}
    told = json.loads(await setting(rest, "request.headers", headers=headers))
    assert told["x-custom"] == text
    assert "cookie" not in told
    cookies = json.loads(await setting(rest, "request.cookies", headers=headers))
    assert cookies == {"a": "1", "b": "two"}


async def test_sql_runs_as_the_caller(rest: Rest) -> None:
    ana = await rest.api.sign_up("ana@example.com")
    for headers, role in (
        (rest.api.anon, "anon"),
        (ana, "authenticated"),
        (rest.api.service, "service_role"),
    ):
        assert await rest.rows("rpc/user_name", headers=headers) == role
        assert await setting(rest, "role", headers=headers) == role
    assert '"public"' in await rest.rows("rpc/search_path_now")


async def test_nothing_of_a_request_is_left_for_the_next(rest: Rest) -> None:
    headers = rest.api.service | {"X-Secret": "hush"}
    for _ in range(20):
        assert "hush" in await setting(rest, "request.headers", headers=headers)
        assert "hush" not in await setting(rest, "request.headers")
    answer = await rest.post("rpc/answer_with", {"status": "201", "headers": '[{"x-a": "1"}]'})
    assert answer.headers["x-a"] == "1"
    for _ in range(20):
        plain = await rest.get("rpc/user_name")
        assert (plain.status_code, "x-a" in plain.headers) == (200, False)


async def test_an_answer_that_a_session_kept_is_no_others(rest: Rest) -> None:
    for _ in range(20):
        kept = {"name": "response.status", "value": "418"}
        assert (await rest.post("rpc/set_for_session", kept)).status_code == 418
        kept = {"name": "response.headers", "value": '[{"x-a": "1"}]'}
        assert (await rest.post("rpc/set_for_session", kept)).headers["x-a"] == "1"
    for _ in range(20):
        plain = await rest.get("rpc/user_name")
        assert (plain.status_code, "x-a" in plain.headers) == (200, False)


async def test_a_function_that_fails_ran_once(rest: Rest) -> None:
    assert (await rest.post("rpc/bump", {"n": "1"})).json() == 1
    before = rest.sql("select last_value from bumps")[0]["last_value"]
    for count in range(1, 6):
        assert await rest.refusal("rpc/bump", "POST", json={"n": "abc"}) == (400, "22P02")
        after = rest.sql("select last_value from bumps")[0]["last_value"]
        assert after == before + count


async def test_sql_sets_the_status_and_headers(rest: Rest) -> None:
    headers = '[{"X-Two": "b"}, {"Set-Cookie": "a=1"}, {"Set-Cookie": "b=2; Path=/"}]'
    answer = await rest.post("rpc/answer_with", {"status": "418", "headers": headers})
    assert (answer.status_code, answer.json()) == (418, "body")
    assert answer.headers["x-two"] == "b"
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2; Path=/"]
    over = '[{"Content-Type": "text/plain"}, {"Vary": "Cookie"}]'
    answer = await rest.post("rpc/answer_with", {"status": "200", "headers": over})
    assert answer.headers.get_list("content-type") == ["text/plain"]
    assert answer.headers.get_list("vary") == ["Cookie"]


async def test_a_trigger_sets_them_too(rest: Rest) -> None:
    made = await rest.post("log", {"id": 7}, prefer=RETURN)
    assert (made.status_code, made.headers["x-made"]) == (202, "7")


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        ("many", "[]", "PGRST112"),
        ("99", "[]", "PGRST112"),
        ("1000", "[]", "PGRST112"),
        ("-20", "[]", "PGRST112"),
        ("999", "[]", "PGRST112"),
        ("100", "[]", "PGRST112"),
        ("200", "no json", "PGRST111"),
        ("200", '{"a": "b"}', "PGRST111"),
        ("200", '[{"a": 1}]', "PGRST111"),
        ("200", '[{"a": "1", "b": "2"}]', "PGRST111"),
        ("200", '[{"a": "x\\r\\nInjected: yes"}]', "PGRST111"),
        ("200", '[{"a\\nb": "x"}]', "PGRST111"),
        ("200", '[{"": "x"}]', "PGRST111"),
    ],
)
async def test_a_status_or_header_that_is_none_is_500(
    rest: Rest, status: str, headers: str, code: str
) -> None:
    body = {"status": status, "headers": headers}
    assert await rest.refusal("rpc/answer_with", "POST", json=body) == (500, code)


@pytest.mark.parametrize(
    ("code", "status"),
    [("PT402", 402), ("PT409", 409), ("PT200", 200), ("PT503", 503), ("PTABC", 500)],
)
async def test_an_error_may_be_raised_with_a_status(rest: Rest, code: str, status: int) -> None:
    body = {"code": code, "message": "pay", "detail": "d", "hint": "h"}
    answer = await rest.post("rpc/raise_it", body)
    assert answer.status_code == status
    assert answer.json() == {"code": code, "message": "pay", "details": "d", "hint": "h"}
    assert rest.sql("select 1 from log") == []


async def test_an_error_may_be_raised_with_headers(rest: Rest) -> None:
    message = '{"code": "mine", "message": "m", "details": "d", "hint": "h"}'
    detail = '{"status": 332, "status_text": "Mine", "headers": {"X-Mine": "1"}}'
    answer = await rest.post(
        "rpc/raise_it", {"code": "PGRST", "message": message, "detail": detail}
    )
    assert (answer.status_code, answer.headers["x-mine"]) == (332, "1")
    assert answer.json() == {"code": "mine", "message": "m", "details": "d", "hint": "h"}


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        ("no json", '{"status": 400, "headers": {}}'),
        ('{"code": "1"}', '{"status": 400, "headers": {}}'),
        ('{"code": "1", "message": "m"}', "no json"),
        ('{"code": "1", "message": "m"}', '{"status": "x", "headers": {}}'),
        ('{"code": "1", "message": "m"}', '{"status": 400}'),
    ],
)
async def test_an_error_that_is_not_well_raised_is_500(
    rest: Rest, message: str, detail: str
) -> None:
    body = {"code": "PGRST", "message": message, "detail": detail}
    assert await rest.refusal("rpc/raise_it", "POST", json=body) == (500, "PGRST121")
    assert await rest.refusal("rpc/bare", "POST", json={}) == (500, "PGRST121")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("P0001", 400),
        ("23505", 409),
        ("42501", 403),
        ("22P02", 400),
        ("40001", 500),
        ("53400", 500),
        ("57014", 504),
        ("XX000", 500),
        ("12345", 400),
    ],
)
async def test_every_other_error_has_the_status_of_its_class(
    rest: Rest, code: str, status: int
) -> None:
    answer = await rest.post("rpc/raise_it", {"code": code, "message": "it"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["message"] == "it"


async def test_who_may_not_is_401_without_a_user(rest: Rest) -> None:
    for headers, status in ((rest.api.anon, 401), (rest.api.service, 403)):
        body = {"code": "42501", "message": "no"}
        answer = await rest.post("rpc/raise_it", body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, "42501")


async def test_a_constraint_that_is_checked_last_undoes_all(rest: Rest) -> None:
    for prefer in (None, RETURN):
        body = [{"id": 1, "note": "ok"}, {"id": 2, "note": "late"}]
        assert await rest.refusal("log", "POST", json=body, prefer=prefer) == (400, "23514")
        assert rest.sql("select 1 from log") == []
