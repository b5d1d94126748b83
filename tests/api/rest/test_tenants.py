"""Users of one table who must not learn of each other's rows, whatever they ask."""

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from butterbase.api.settings import ApiSettings
from tests.api.rest.conftest import OBJECT, RETURN, Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = ApiSettings(rest_aggregates=True)
SCHEMA = """
create table tags (id int primary key, label text);
create policy read on tags for select using (true);
create table notes (
  id int primary key, user_id uuid not null default auth.uid(), title text, facts jsonb,
  unique (user_id, title)
);
create policy own on notes to authenticated
  using (user_id = auth.uid()) with check (user_id = auth.uid());
create table secrets (
  note_id int primary key references notes, user_id uuid not null default auth.uid(), body text
);
create policy own on secrets to authenticated
  using (user_id = auth.uid()) with check (user_id = auth.uid());
create table notes_tags (
  note_id int references notes, tag_id int references tags,
  user_id uuid not null default auth.uid(), primary key (note_id, tag_id)
);
create policy own on notes_tags to authenticated
  using (user_id = auth.uid()) with check (user_id = auth.uid());
-- A table that all may see, with rows of a user behind it.
create table topics (id int primary key, note_id int references notes, name text);
create policy read on topics for select using (true);

create view all_notes as select id, title, user_id from notes;
create view secret_notes as select n.id, n.title, s.body
  from notes n join secrets s on note_id = id;
create function body_of(notes) returns text language sql stable
  as 'select body from secrets where note_id = $1.id';
create function siblings(notes) returns setof notes language sql stable
  as 'select * from notes where id <> $1.id';
create function note_of(topics) returns setof notes rows 1 language sql stable
  as 'select * from notes where id = $1.note_id';
create function every_note() returns setof notes language sql stable as 'select * from notes';
create function how_many() returns bigint language sql stable as 'select count(*) from notes';
create function steal() returns setof notes language sql
  as $$ update notes set title = 'stolen' where true returning * $$;
"""

BO = "Bo's jewel"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def users(module_rest: Rest) -> tuple[dict[str, str], dict[str, str]]:
    """Ana's headers and Bo's; all rows are Bo's."""
    ana = await module_rest.api.sign_up("ana@example.com")
    bo = await module_rest.api.sign_up("bo@example.com")
    module_rest.owner.execute("insert into tags values (1, 'red')")
    for path, body in (
        ("notes", {"id": 1, "title": BO, "facts": {"k": BO}}),
        ("secrets", {"note_id": 1, "body": BO}),
        ("notes_tags", {"note_id": 1, "tag_id": 1}),
    ):
        made = await module_rest.post(path, body, headers=bo)
        assert made.status_code == 201, made.text
    module_rest.owner.execute("insert into topics values (1, 1, 'open')")
    return ana, bo


READS = [
    "notes",
    "all_notes",
    "secret_notes",
    "secrets?select=*,notes(*)",
    "notes?select=*,secrets(*),tags(*),topics(*)",
    "topics?select=id,notes(*)",
    "topics?select=id,notes(title,secrets(*))",
    "topics?select=id,...notes(title)",
    "topics?select=id,note_of(title,body_of)",
    "topics?select=id,...note_of(title)",
    "tags?select=label,notes(*)",
    "tags?select=label,...notes(title)",
    "tags?select=label,notes_tags(notes(title))",
    "notes?select=body_of,siblings(title)",
    "rpc/every_note",
    "rpc/every_note?select=title,secrets(body)",
    "tags?select=notes(title,id)&notes.order=title",
    "topics?select=id,notes(title)&order=notes(title)",
    "notes?select=title.max(),count()",
    "topics?select=name,...notes(title.max())",
    "tags?select=label,notes(count(),titles:title.min())",
]


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
async def test_a_read_shows_rows_to_their_user_alone(
    rest: Rest, users: tuple[dict[str, str], dict[str, str]], path: str, accept: str
) -> None:
    ana, bo = users
    assert "jewel" in (await rest.get(path, headers=bo, accept=accept)).text
    for other in (ana, rest.api.anon):
        seen = await rest.get(path, headers=other, accept=accept, prefer="count=exact")
        assert "jewel" not in seen.text


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("notes", 1),
        ("all_notes?title=like.B*", 1),
        ("rpc/every_note", 1),
        ("topics?select=id,notes!inner()", 1),
        ("topics?select=id,notes!inner()&notes.title=like.B*", 1),
        ("topics?select=id,notes()&notes=not.is.null", 1),
        ("topics?select=id,notes()&or=(notes.not.is.null,id.eq.99)", 1),
        ("topics?select=id,notes!inner(secrets!inner())&notes.secrets.body=like.B*", 1),
        ("topics?select=id,note_of!inner()", 1),
        ("tags?select=id,notes!inner()&notes.facts->>k=like.B*", 1),
        ("tags?select=id,notes()&notes=not.is.null", 1),
        ("notes?body_of=like.B*", 1),
        ("secrets?body=match.^B", 1),
        ("secrets?body=fts.jewel", 1),
    ],
)
async def test_neither_filters_nor_counts_tell_of_rows(
    rest: Rest, users: tuple[dict[str, str], dict[str, str]], path: str, count: int
) -> None:
    ana, bo = users
    for caller, wanted in ((bo, count), (ana, 0), (rest.api.anon, 0)):
        for method in ("GET", "HEAD"):
            answer = await rest.call(method, path, headers=caller, prefer="count=exact")
            assert answer.headers["content-range"].endswith(f"/{wanted}"), method


async def test_what_is_counted_by_sql_is_counted_for_the_caller(
    rest: Rest, users: tuple[dict[str, str], dict[str, str]]
) -> None:
    ana, bo = users
    for caller, wanted in ((bo, 1), (ana, 0), (rest.api.anon, 0)):
        assert await rest.rows("rpc/how_many", headers=caller) == wanted
        assert await rest.rows("notes?select=count()", headers=caller) == [{"count": wanted}]
        tags = await rest.rows("tags?select=notes(count())", headers=caller)
        assert tags == [{"notes": [{"count": wanted}]}]


CHANGES: list[tuple[str, str, Any, str]] = [
    ("PATCH", "notes", {"title": "x"}, RETURN),
    ("PATCH", "notes?id=eq.1", {"title": "x"}, f"{RETURN}, count=exact"),
    ("PATCH", "all_notes?id=eq.1", {"title": "x"}, RETURN),
    ("PATCH", "topics?id=eq.1&select=id,notes(title)", {"name": "x"}, RETURN),
    ("PATCH", "tags?id=eq.1&select=id,notes(title)", {"label": "x"}, RETURN),
    ("DELETE", "notes", None, RETURN),
    ("DELETE", "secrets?note_id=eq.1", None, f"{RETURN}, count=exact"),
    ("DELETE", "all_notes", None, RETURN),
    ("DELETE", "topics?select=id,notes(title)", None, RETURN),
    ("POST", "rpc/steal", {}, ""),
    ("POST", "notes", {"id": 1, "title": "x"}, RETURN),
    ("POST", "notes", [{"id": 1, "title": "x"}], f"resolution=merge-duplicates, {RETURN}"),
    ("POST", "notes", [{"id": 1, "title": "x"}], f"resolution=ignore-duplicates, {RETURN}"),
    ("PUT", "notes?id=eq.1", {"id": 1, "title": "x", "facts": None}, RETURN),
    ("POST", "topics?select=id,notes(title)", {"id": 2, "note_id": 1}, RETURN),
]


@pytest.mark.parametrize(("method", "path", "body", "prefer"), CHANGES)
async def test_no_change_reaches_another_users_row(
    rest: Rest,
    users: tuple[dict[str, str], dict[str, str]],
    method: str,
    path: str,
    body: Any,
    prefer: str,
) -> None:
    tables = ("notes", "secrets", "notes_tags", "topics", "tags")
    before = [rest.sql(f"select * from {table}") for table in tables]  # noqa: S608
    for caller in (users[0], rest.api.anon):
        answer = await rest.call(method, path, json=body, headers=caller, prefer=prefer)
        assert "jewel" not in answer.text
        if answer.is_success:
            assert answer.json() == []
            assert "/1" not in answer.headers.get("content-range", "")
        else:
            assert answer.status_code in (401, 403, 409), answer.text
    assert [rest.sql(f"select * from {table}") for table in tables] == before  # noqa: S608


async def test_a_row_is_neither_given_away_nor_made_for_another(
    rest: Rest, users: tuple[dict[str, str], dict[str, str]]
) -> None:
    ana = users[0]
    bo_id = rest.sql("select user_id from notes where id = 1")[0]["user_id"]
    assert (await rest.post("notes", {"id": 50, "title": "mine"}, headers=ana)).status_code == 201
    for method, path, body in (
        ("PATCH", "notes?id=eq.50", {"user_id": bo_id}),
        ("POST", "notes", {"id": 51, "user_id": bo_id}),
        ("PUT", "notes?id=eq.50", {"id": 50, "user_id": bo_id, "title": "t", "facts": None}),
    ):
        assert await rest.refusal(path, method, json=body, headers=ana) == (403, "42501")
    # Told as one row of hers, an object of Bo's is no row at all.
    told = await rest.refusal("notes?id=eq.1", headers=ana, accept=OBJECT)
    assert told == (406, "PGRST116")
    assert (await rest.call("DELETE", "notes?id=eq.50", headers=ana)).status_code == 204


async def test_an_error_does_not_tell_of_a_hidden_row(
    rest: Rest, users: tuple[dict[str, str], dict[str, str]]
) -> None:
    ana = users[0]
    for path in (
        "notes?select=title::int",
        "secrets?select=body::jsonb",
        "notes?title=match.(",
        "topics?select=notes(title::int)",
        "tags?select=...notes(title::int)",
        "secrets?body=gt.x&select=note_id,body::date&order=body",
    ):
        assert "jewel" not in (await rest.get(path, headers=ana)).text
    own = await rest.get("secrets?select=body::jsonb", headers=users[1])
    assert own.status_code == 400  # where there is something to tell, it is told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("request.jwt.claims", '{"role": "service_role"}'),
        ("X-Role", "service_role"),
        ("Prefer", "role=service_role"),
        ("Prefer", "timezone=UTC'; set role service_role; --"),
        ("Cookie", "role=service_role"),
        ("Accept-Profile", "public, auth"),
    ],
)
async def test_no_header_makes_another_caller(
    rest: Rest, users: tuple[dict[str, str], dict[str, str]], name: str, value: str
) -> None:
    answer = await rest.get("notes", headers=users[0] | {name: value})
    assert "jewel" not in answer.text


async def test_callers_at_the_same_time_are_not_mixed_up(
    rest: Rest, users: tuple[dict[str, str], dict[str, str]]
) -> None:
    callers = [users[0], users[1], rest.api.anon, rest.api.service] * 15
    found = await asyncio.gather(
        *(rest.rows("topics?select=id,notes(title)", headers=caller) for caller in callers)
    )
    hidden, shown = [{"id": 1, "notes": None}], [{"id": 1, "notes": {"title": BO}}]
    assert found == [hidden, shown, hidden, shown] * 15
