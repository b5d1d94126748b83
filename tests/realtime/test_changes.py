"""What a `postgres_changes` entry gets: through a real log, each behaviour that clients know."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from butterbase.realtime.settings import RealtimeSettings
from butterbase.sql.claims import claims_for_role
from tests.installation import Installation
from tests.realtime.listening import SERVICE, Log, listening
from tests.realtime.streaming import ALICE, BOB, user_claims

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANON, USER = claims_for_role("anon"), user_claims(ALICE)
OPEN = "alter table notes disable row level security;"
NOTES = (
    "drop table if exists notes; create table notes (id int primary key, body text, extra text);"
)
FULL = "alter table notes replica identity full;"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def log(app: Installation) -> AsyncIterator[Log]:
    settings = RealtimeSettings(schemas=("public", "dev"), change_bytes_max=16_384)
    app.as_owner("create schema dev")
    async with listening(app, settings) as log:
        yield log


@pytest.mark.parametrize(
    ("event", "kinds"),
    [
        ("*", ["INSERT", "UPDATE", "DELETE"]),
        ("INSERT", ["INSERT"]),
        ("update", ["UPDATE"]),
        ("DELETE", ["DELETE"]),
    ],
)
async def test_an_event_is_all_that_is_told(log: Log, event: str, kinds: list[str]) -> None:
    await log.execute(NOTES + OPEN)
    listener = await log.listen(USER, {"table": "notes", "event": event})
    await log.execute(
        "insert into notes values (1, 'a', 'b')", "update notes set id = 2", "delete from notes"
    )
    data = listener.data()
    assert [d["type"] for d in data] == kinds
    expected: dict[str, Any] = {
        "INSERT": {"record": {"id": 1, "body": "a", "extra": "b"}},
        "UPDATE": {"record": {"id": 2, "body": "a", "extra": "b"}, "old_record": {"id": 1}},
        "DELETE": {"old_record": {"id": 2}},
    }
    for told in data:
        row = {name: told[name] for name in ("record", "old_record") if name in told}
        assert row == expected[told["type"]]
        assert (told["schema"], told["table"], told["errors"]) == ("public", "notes", None)
        assert told["columns"] == [
            {"name": "id", "type": "int4"},
            {"name": "body", "type": "text"},
            {"name": "extra", "type": "text"},
        ]


async def test_all_events_of_one_table_and_all_tables_can_be_asked_for(log: Log) -> None:
    await log.execute(
        NOTES + OPEN,
        "create table dev.notes (id int primary key);"
        "grant usage on schema dev to anon, authenticated, service_role;"
        "grant select on dev.notes to anon, authenticated, service_role",
    )
    one = await log.listen(USER, {"schema": "dev", "table": "notes"})
    schema = await log.listen(USER, {"schema": "dev"})
    every = await log.listen(USER, {"schema": "*", "table": "notes"})
    await log.execute("insert into notes values (1); insert into dev.notes values (2)")
    told = [[(d["schema"], d["record"]["id"]) for d in who.data()] for who in (one, schema, every)]
    assert told == [[("dev", 2)], [("dev", 2)], [("public", 1), ("dev", 2)]]


async def test_several_entries_of_a_channel_each_get_their_own(log: Log) -> None:
    await log.execute(NOTES + OPEN, "insert into notes values (2, 'b'), (3, 'c')")
    listener = await log.listen(
        USER,
        {"table": "notes", "event": "INSERT", "filter": "body=eq.a"},
        {"table": "notes", "event": "UPDATE", "filter": "id=eq.2"},
        {"table": "notes", "event": "DELETE", "filter": "id=eq.3"},
    )
    await log.execute(
        "insert into notes values (1, 'a'), (4, 'd')",
        "update notes set extra = 'x' where id in (1, 2)",
        "delete from notes where id in (3, 4)",
    )
    assert [(p.ids, p.data["type"]) for p in listener.take()] == [
        ([1], "INSERT"),
        ([2], "UPDATE"),
        ([3], "DELETE"),
    ]


# Filters

ITEMS = """
    drop table if exists items; drop type if exists "Color";
    create type "Color" as enum ('RED', 'GREEN');
    create table items (
      id int primary key, label text, amount numeric, page int, is_new bool, owner uuid,
      color "Color", tags text[], made timestamptz);
    alter table items disable row level security
"""
ROWS = """
    insert into items values
      (1, 'alpha', 1.50, 5, true, 'ALICE', 'RED', '{a}', '2026-01-01 00:00+00'),
      (2, 'Alpha beta', 2, null, false, 'BOB', 'GREEN', '{}', '2026-02-01 00:00+00'),
      (3, 'gamma, delta', 'NaN', 1, null, null, null, null, null),
      (4, null, null, 7, true, 'ALICE', 'RED', '{a,b}', '2026-03-01 00:00+00'),
      (5, 'ALPHA(1)', 10, 5, false, 'BOB', 'GREEN', '{a}', 'infinity')
""".replace("ALICE", ALICE).replace("BOB", BOB)


FILTERS: dict[str, list[int]] = {
    "label=eq.alpha": [1],
    "label=neq.alpha": [2, 3, 5],
    "amount=eq.1.5": [1],
    "amount=gt.2": [3, 5],
    "amount=lt.10": [1, 2],
    "amount=gte.2,amount=lte.10": [2, 5],
    "id=not.lte.3": [4, 5],
    "page=eq.5": [1, 5],
    "page=not.eq.5": [3, 4],
    "page=in.(5,7)": [1, 4, 5],
    "page=not.in.(5,7)": [3],
    "page=in.()": [],
    "page=is.null": [2],
    "page=not.is.null": [1, 3, 4, 5],
    "page=isdistinct.5": [2, 3, 4],
    "page=not.isdistinct.5": [1, 5],
    "is_new=is.true": [1, 4],
    "is_new=not.is.true": [2, 3, 5],
    "is_new=is.unknown": [3],
    "is_new=eq.false": [2, 5],
    f"owner=in.({ALICE.upper()})": [1, 4],
    f"owner=gt.{ALICE}": [2, 5],
    "color=eq.RED": [1, 4],
    "color=gt.RED": [2, 5],
    "tags=eq.{a}": [1, 5],
    'tags=in.("{a,b}","{}")': [2, 4],
    "made=lt.2026-02-01 01:00+01": [1],
    "made=gte.2026-02-01 01:00+01": [2, 4, 5],
    "label=like.%lpha%": [1, 2],
    "label=ilike.alpha%": [1, 2, 5],
    "label=match.^[aA]l": [1, 2],
    "label=imatch.^al": [1, 2, 5],
    "label=not.imatch.^al": [3],
    "label=gt.b": [3],
    'label=eq."gamma, delta"': [3],
    'label=in.("gamma, delta","ALPHA(1)")': [3, 5],
    "label=ilike.alpha%,page=eq.5": [1, 5],
    "label=ilike.alpha%,page=eq.5,is_new=not.is.true": [5],
    "page=not.is.null,label=ilike.a%": [1, 5],
    "id=in.(1,2,3),label=like.%a%": [1, 2, 3],
    "label=neq.alpha,label=not.like.%a": [5],
    "id=gte.1,id=lte.4,page=not.is.null,label=like.%a": [1, 3],
}


async def test_a_filter_lets_through_what_it_says(log: Log) -> None:
    await log.execute(ITEMS)
    listeners = {
        condition: await log.listen(USER, {"table": "items", "filter": condition})
        for condition in FILTERS
    }
    assert [who.problems for who in listeners.values() if who.problems] == []
    await log.execute(ROWS)
    told = {text: [d["record"]["id"] for d in who.data()] for text, who in listeners.items()}
    assert told == FILTERS


async def test_a_quoted_type_can_be_filtered_under_a_policy_on_it(log: Log) -> None:
    await log.execute(
        ITEMS,
        "alter table items enable row level security;"
        "create policy red on items using (color = 'RED')",
    )
    listener = await log.listen(USER, {"table": "items", "filter": "color=eq.RED"})
    other = await log.listen(USER, {"table": "items", "filter": "color=eq.GREEN"})
    await log.execute(ROWS)
    assert (listener.rows(), other.rows()) == ([("INSERT", 1), ("INSERT", 4)], [])


async def test_a_deleted_row_is_filtered_by_what_the_log_keeps_of_it(log: Log) -> None:
    await log.execute(NOTES + OPEN)
    body = await log.listen(USER, {"table": "notes", "event": "DELETE", "filter": "body=eq.b"})
    null = await log.listen(USER, {"table": "notes", "event": "DELETE", "filter": "extra=is.null"})
    key = await log.listen(USER, {"table": "notes", "event": "DELETE", "filter": "id=gt.1"})
    await log.execute("insert into notes values (1, 'b'), (2, 'c')", "delete from notes")
    assert [who.rows() for who in (body, null, key)] == [[], [], [("DELETE", 2)]]
    await log.execute(FULL, "insert into notes values (1, 'b'), (2, 'c')", "delete from notes")
    assert [who.rows() for who in (body, null, key)] == [
        [("DELETE", 1)],
        [("DELETE", 1), ("DELETE", 2)],
        [("DELETE", 2)],
    ]


async def test_an_update_is_filtered_by_the_new_row(log: Log) -> None:
    await log.execute(NOTES + OPEN + FULL, "insert into notes values (1, 'a')")
    before = await log.listen(USER, {"table": "notes", "filter": "body=eq.a"})
    after = await log.listen(USER, {"table": "notes", "filter": "body=like.b%"})
    await log.execute("update notes set body = 'b'")
    assert (before.rows(), after.rows()) == ([], [("UPDATE", 1)])


async def test_an_unchanged_large_value_is_filtered_by_what_the_old_row_tells(log: Log) -> None:
    await log.execute(
        NOTES + OPEN + "alter table notes alter body set storage external",
        "insert into notes values (1, repeat('x', 10000), 'a')",
    )
    listener = await log.listen(USER, {"table": "notes", "filter": "body=like.x%"})
    await log.execute("update notes set extra = 'b'")
    assert listener.rows() == []
    await log.execute(FULL, "update notes set extra = 'c'")
    assert listener.rows() == [("UPDATE", 1)]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"filter": "gone=eq.1"}, "invalid column for filter gone"),
        ({"filter": "secret=eq.1"}, "invalid column for filter secret"),
        ({"filter": "id=eq.one"}, 'invalid input syntax for type integer: "one"'),
        ({"filter": "id=in.(1,one)"}, 'invalid input syntax for type integer: "one"'),
        ({"filter": "id=like.1%"}, "operator does not exist: integer ~~ text"),
        ({"filter": "id=match.1"}, "operator does not exist: integer ~ text"),
        ({"filter": "id=is.true"}, "argument of IS TRUE must be type boolean, not type integer"),
        ({"filter": "doc=eq.{}"}, "operator does not exist: json = json"),
        ({"filter": r"bytes=like.a\\"}, "LIKE pattern must not end with escape character"),
        ({"filter": "body=match.("}, "invalid regular expression"),
        ({"filter": "body=imatch.[z-a]"}, "invalid regular expression"),
        ({"select": ["id", "gone"]}, "invalid column for select gone"),
        ({"select": ["secret"]}, "invalid column for select secret"),
    ],
)
async def test_what_cannot_be_asked_of_a_table_is_told_at_once(
    log: Log, entry: dict[str, Any], problem: str
) -> None:
    await log.execute(
        NOTES + OPEN,
        "alter table notes add doc json, add secret int, add bytes bytea;"
        "revoke select on notes from authenticated;"
        "grant select (id, body, doc, bytes) on notes to authenticated",
    )
    listener = await log.listen(USER, {"table": "notes", **entry})
    (told,) = listener.problems
    assert told.startswith(
        "Unable to subscribe to changes with given parameters. An exception happened so please"
        " check your connect parameters: [event: *, schema: public, table: notes, filters: ["
    )
    assert problem in told.partition("Exception: ")[2]


async def test_a_table_that_may_not_be_read_cannot_be_subscribed_to(log: Log) -> None:
    await log.execute(NOTES + "revoke all on notes from authenticated")
    listener = await log.listen(USER, {"table": "notes"}, {"table": "no such table"})
    assert [problem.partition("[")[0] for problem in listener.problems] == [
        "Unable to subscribe to changes with given parameters. Please check Realtime is enabled"
        " for the given connect parameters: "
    ] * 2


async def test_a_filter_on_a_column_of_another_type_goes_on_with_that_type(log: Log) -> None:
    await log.execute(NOTES + OPEN)
    listener = await log.listen(USER, {"table": "notes", "filter": "id=gt.5"})
    await log.execute("insert into notes values (7), (10)")
    assert listener.rows() == [("INSERT", 7), ("INSERT", 10)]
    await log.execute("alter table notes alter id type text", "insert into notes values (60), (0)")
    assert listener.rows() == [("INSERT", "60")]


async def test_a_column_that_may_no_longer_be_read_filters_nothing_through(log: Log) -> None:
    await log.execute(NOTES + OPEN)
    listener = await log.listen(USER, {"table": "notes", "filter": "body=like.a%"})
    await log.execute(
        "revoke select on notes from authenticated; grant select (id) on notes to authenticated",
        "insert into notes values (1, 'a')",
    )
    assert listener.rows() == []


async def test_names_that_need_quotes_can_be_asked_for(log: Log) -> None:
    await log.execute(
        'create table "Odd ""Table" ("Id" int primary key, "odd name" varchar, "select" int);'
        'alter table "Odd ""Table" disable row level security'
    )
    entry = {"table": 'Odd "Table', "select": ["odd name"]}
    listener = await log.listen(
        USER,
        {**entry, "filter": "odd name=eq.x"},
        {**entry, "filter": "odd name=imatch.X"},
        {**entry, "filter": "select=gt.1"},
    )
    assert listener.problems == ()
    await log.execute("""insert into "Odd ""Table" values (1, 'x', 1)""")
    (payload,) = listener.take()
    assert (payload.ids, payload.data["record"]) == ([1, 2], {"Id": 1, "odd name": "x"})


# Columns


async def test_a_choice_of_columns_is_told_with_the_key(log: Log) -> None:
    await log.execute(NOTES + OPEN + FULL)
    chosen = await log.listen(USER, {"table": "notes", "select": ["body"]})
    again = await log.listen(ANON, {"table": "notes", "select": ["body"]})
    whole = await log.listen(USER, {"table": "notes"})
    hidden = await log.listen(USER, {"table": "notes", "select": ["body"], "filter": "extra=eq.x"})
    await log.execute(
        "insert into notes values (1, 'a', 'x')",
        "update notes set body = 'b', extra = 'y'",
        "delete from notes",
    )
    told = chosen.data()
    assert [(d.get("record"), d.get("old_record")) for d in told] == [
        ({"id": 1, "body": "a"}, None),
        ({"id": 1, "body": "b"}, {"id": 1, "body": "a"}),
        (None, {"id": 1, "body": "b"}),
    ]
    names = [[column["name"] for column in d["columns"]] for d in told]
    assert names == [["id", "body"]] * 3
    assert [d.get("record") for d in again.data()] == [d.get("record") for d in told]
    assert whole.data()[0]["record"] == {"id": 1, "body": "a", "extra": "x"}
    assert [d["record"] for d in hidden.data()] == [{"id": 1, "body": "a"}]


async def test_of_the_old_row_no_more_is_told_than_the_log_has(log: Log) -> None:
    await log.execute(NOTES + OPEN, "insert into notes values (1, 'a', 'x')")
    chosen = await log.listen(USER, {"table": "notes", "select": ["body"]})
    await log.execute("update notes set body = 'b'", "delete from notes")
    update, delete = chosen.data()
    assert (update["record"], update["old_record"]) == ({"id": 1, "body": "b"}, {"id": 1})
    assert delete["old_record"] == {"id": 1}


async def test_a_choice_of_columns_opens_no_row(log: Log) -> None:
    await log.execute(
        "drop table if exists notes;"
        "create table notes (id int primary key, owner uuid, body text, extra text);"
        "create policy own on notes using (owner = auth.uid())"
    )
    alice, bob = [
        await log.listen(user_claims(user), {"table": "notes", "select": ["body"]})
        for user in (ALICE, BOB)
    ]
    await log.execute("insert into notes values (1, 'ALICE', 'a', 'x')".replace("ALICE", ALICE))
    assert [d["record"] for d in alice.data()] == [{"id": 1, "body": "a"}]
    assert bob.data() == []


async def test_roles_are_told_the_columns_they_may_read(log: Log) -> None:
    await log.execute(
        NOTES + OPEN,
        "revoke select on notes from authenticated;grant select (id) on notes to authenticated",
    )
    narrow = await log.listen(USER, {"table": "notes"})
    wide = await log.listen(SERVICE, {"table": "notes"})
    await log.execute("insert into notes values (1, 'a', 'x')")
    assert [d["record"] for d in narrow.data()] == [{"id": 1}]
    assert [d["record"] for d in wide.data()] == [{"id": 1, "body": "a", "extra": "x"}]


async def test_a_row_whose_key_may_not_be_read_is_told_without_it(log: Log) -> None:
    await log.execute(
        NOTES + OPEN,
        "revoke select on notes from authenticated;grant select (body) on notes to authenticated",
    )
    listener = await log.listen(USER, {"table": "notes"})
    await log.execute("insert into notes values (1, 'a', 'x')")
    (told,) = listener.data()
    assert (told["record"], told["errors"]) == ({"body": "a"}, None)


async def test_a_table_without_a_key_is_told_as_others_are(log: Log) -> None:
    await log.execute("drop table if exists notes; create table notes (id int);" + OPEN)
    listener = await log.listen(USER, {"table": "notes"})
    await log.execute(
        "insert into notes values (1)", "update notes set id = 2", "delete from notes"
    )
    assert [(d["type"], d["errors"]) for d in listener.data()] == [
        ("INSERT", None),
        ("UPDATE", None),
        ("DELETE", None),
    ]


@pytest.mark.parametrize(
    ("is_full", "is_secured", "told"),
    [
        (False, False, {"id": 1}),
        (False, True, {"id": 1}),
        (True, False, {"id": 1, "body": "a", "extra": None}),
        (True, True, {"id": 1}),
    ],
)
async def test_what_is_told_of_a_deleted_row(
    log: Log, is_full: bool, is_secured: bool, told: dict[str, Any]
) -> None:
    await log.execute(
        NOTES + (FULL if is_full else "") + ("" if is_secured else OPEN),
        "create policy everybody on notes using (true)",
    )
    listener = await log.listen(USER, {"table": "notes"})
    await log.execute("insert into notes values (1, 'a')", "delete from notes")
    assert [d["old_record"] for d in listener.data()[1:]] == [told]


@pytest.mark.parametrize("is_full", [False, True])
async def test_an_update_tells_the_old_key_of_several_columns(log: Log, is_full: bool) -> None:
    await log.execute(
        "drop table if exists notes;"
        "create table notes (a int, b char, body text, primary key (a, b));"
        + OPEN
        + (FULL if is_full else ""),
        "insert into notes values (1, 'x', 'text')",
    )
    listener = await log.listen(USER, {"table": "notes"})
    await log.execute("update notes set a = 1")
    (told,) = listener.data()
    whole = {"a": 1, "b": "x", "body": "text"}
    assert told["record"] == whole
    assert told["old_record"] == (whole if is_full else {"a": 1, "b": "x"})


async def test_an_unchanged_large_value_is_taken_from_the_old_row_where_that_is_told(
    log: Log,
) -> None:
    await log.execute(
        NOTES + OPEN + "alter table notes alter body set storage external",
        "insert into notes values (1, repeat('x', 3000), 'a')",
    )
    listener = await log.listen(USER, {"table": "notes", "select": ["body", "extra"]})
    await log.execute("update notes set extra = 'b'", FULL, "update notes set extra = 'c'")
    without, filled = listener.data()
    large = "x" * 3000
    assert without["record"] == {"id": 1, "extra": "b"}
    assert filled["record"] == {"id": 1, "body": large, "extra": "c"}
    assert filled["old_record"] == {"id": 1, "body": large, "extra": "b"}


async def test_a_change_that_is_too_large_is_told_in_short(log: Log) -> None:
    await log.execute(NOTES + OPEN, "insert into notes values (1)")
    whole = await log.listen(USER, {"table": "notes"})
    short = await log.listen(USER, {"table": "notes", "select": ["extra"]})
    await log.execute("update notes set body = repeat('a', 20000), extra = 'b'")
    (cut,), (chosen,) = whole.data(), short.data()
    assert (cut["record"], cut["old_record"]) == ({"id": 1, "extra": "b"}, {"id": 1})
    assert cut["errors"] == ["Error 413: Payload Too Large"]
    assert len(cut["columns"]) == 3
    assert (chosen["record"], chosen["errors"]) == ({"id": 1, "extra": "b"}, None)
