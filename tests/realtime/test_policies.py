"""Policies put over the log's rows, with SELECT as the oracle."""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from butterbase.realtime.changes.access import Catalog
from butterbase.realtime.changes.matching import Image
from butterbase.realtime.changes.policies import Policies
from butterbase.sql.claims import Claims, claims_for_role
from butterbase.sql.cluster import app_authenticator
from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline import Executor, Result, Statement
from tests.installation import Installation
from tests.realtime.streaming import ALICE, BOB, user_claims

SERVICE = claims_for_role("service_role")
CALLERS = [
    user_claims(ALICE, team="red"),
    user_claims(BOB, team="blue"),
    claims_for_role("anon"),
    SERVICE,
]

TABLE = f"""
    create domain json_text as jsonb;
    create table members (note int, member uuid);
    create policy everybody on members using (true);
    create table notes (
      id int primary key, owner uuid, readers uuid[], data jsonb, domained json_text,
      "the Value" char(5), at timestamptz, amount numeric(6, 2));
    insert into members values (1, '{ALICE}'), (3, '{BOB}');
    insert into notes values
      (1, '{ALICE}', '{{{BOB}}}', '{{"team": "red", "n": 1.50}}', '{{"a": 1}}', 'x', now(), 1.5),
      (2, '{BOB}', '{{}}', '{{"team": "blue"}}', 'null', 'long', '-infinity', 2),
      (3, null, null, null, null, null, null, null),
      (4, '{ALICE}', '{{{ALICE},{BOB}}}', '["red"]', '"text"', 'it''"', 'epoch', 0);
    create function reads(notes) returns boolean language sql stable as
      $$ select auth.uid() = any($1.readers) $$;
"""  # noqa: S608  constants

POLICIES = {
    "none": "",
    "for all": "create policy p on notes using (owner = auth.uid());",
    "for select": "create policy p on notes for select using (owner = (select auth.uid()));",
    "for insert": "create policy p on notes for insert with check (true);",
    "two permissive": """
        create policy p on notes using (owner = auth.uid());
        create policy q on notes using (id = 3);""",
    "restrictive": """
        create policy p on notes using (true);
        create policy q on notes as restrictive using (amount >= 1.5);""",
    "only restrictive": "create policy q on notes as restrictive using (true);",
    "for a role": "create policy p on notes to anon using (id < 3);",
    "claims and json": "create policy p on notes using (data ->> 'team' = auth.jwt() ->> 'team');",
    "json numbers": "create policy p on notes using ((data -> 'n')::numeric = 1.5);",
    "domain over json": "create policy p on notes using (domained ->> 'a' = '1');",
    "array": "create policy p on notes using (auth.uid() = any(readers));",
    "null": "create policy p on notes using (owner is null);",
    "odd names": """create policy p on notes using ("the Value" in ('x', 'it''"'));""",
    "time": "create policy p on notes using (at < now());",
    "subquery": """
        create policy p on notes using (
          exists (select from members where note = notes.id and member = auth.uid()));""",
    "subquery on the table": """
        create policy p on notes for select to anon using (true);
        create policy q on notes using (id in (select note from members where member is not null));
        """,
    "whole row": "create policy p on notes using (reads(notes));",
    "constant": "create policy p on notes using (true);",
}

COLUMNS = ("id", "owner", "readers", "data", "domained", "the Value", "at", "amount")


@dataclass
class Judged:
    app: Installation
    executor: Executor
    catalog: Catalog
    policies: Policies

    def create(self, more: str) -> None:
        self.app.as_owner(
            "drop table if exists notes, members cascade; drop domain if exists json_text;"
            + TABLE
            + more
        )

    async def oid(self) -> int:
        oid = await self.catalog.find("public", "notes")
        assert oid is not None
        return oid

    async def images(self) -> list[Image]:
        """The rows as the log writes them."""
        rows = Statement(b"select * from notes order by id")
        (result,) = await self.executor.run_as(SERVICE, rows)
        return [
            {name: None if v is None else v.decode() for name, v in zip(COLUMNS, row, strict=True)}
            for row in result.rows()
        ]

    async def selected(self, claims: Claims) -> list[int]:
        """What SELECT answers the caller."""
        (result,) = await self.executor.run_as(
            claims, Statement(b"select id from notes order by id")
        )
        return [int(id_ or b"") for (id_,) in result.rows()]

    async def visible(self, claims: Claims, images: list[Image]) -> list[int]:
        verdict = await self.policies.judge(await self.oid(), claims, images)
        return [int(images[index]["id"] or "") for index in sorted(verdict.visible)]


@pytest.fixture
async def judged(app: Installation) -> AsyncIterator[Judged]:
    executor = Executor(app.cluster.dsn(app_authenticator("main"), app.main.name))
    catalog = Catalog(executor, age_s_max=60)
    yield Judged(app, executor, catalog, Policies(executor, catalog, pause_s=30))
    await executor.close()


@pytest.mark.parametrize("name", POLICIES)
async def test_a_row_is_visible_in_the_log_as_in_the_table(judged: Judged, name: str) -> None:
    judged.create(POLICIES[name])
    images = await judged.images()
    for claims in CALLERS:
        assert await judged.visible(claims, images) == await judged.selected(claims), claims


async def test_without_row_level_security_every_row_is_visible(judged: Judged) -> None:
    judged.create("alter table notes disable row level security")
    assert await judged.visible(CALLERS[2], await judged.images()) == [1, 2, 3, 4]


async def test_a_role_without_the_privilege_sees_nothing(judged: Judged) -> None:
    judged.create("create policy p on notes using (true); revoke all on notes from anon")
    images = await judged.images()
    assert await judged.visible(CALLERS[2], images) == []
    assert await judged.visible(CALLERS[0], images) == [1, 2, 3, 4]


async def test_a_row_without_what_the_policy_needs_is_hidden(judged: Judged) -> None:
    judged.create(POLICIES["for all"])
    images: list[Image] = [{"id": "1"}, {"id": "1", "owner": ALICE}]
    verdict = await judged.policies.judge(await judged.oid(), CALLERS[0], images)
    assert verdict.visible == {1}


async def test_a_policy_on_the_whole_row_needs_every_column(judged: Judged) -> None:
    judged.create("create policy p on notes using (notes is not null or true)")
    images = await judged.images()
    del images[0]["amount"]
    assert await judged.visible(CALLERS[0], images) == [2, 3, 4]


async def test_a_key_is_enough_where_the_policies_need_no_more(judged: Judged) -> None:
    judged.create("create policy p on notes using (id <> 2)")
    assert await judged.visible(CALLERS[0], [{"id": "1"}, {"id": "2"}]) == [1]


async def test_a_failing_policy_hides_the_row_it_fails_on(
    judged: Judged, caplog: pytest.LogCaptureFixture
) -> None:
    judged.create("create policy p on notes using (1 / amount > 0)")
    images = await judged.images()
    with caplog.at_level(logging.WARNING):
        assert await judged.visible(CALLERS[0], images) == [1, 2]
        assert await judged.visible(CALLERS[0], images) == [1, 2]
    assert [r.getMessage().count("division by zero") for r in caplog.records] == [1]


async def test_a_policy_cannot_write(judged: Judged) -> None:
    judged.create(
        "create or replace function spy() returns boolean language sql volatile as"
        " $$ insert into members values (9, null) returning true $$;"
        "grant insert on members to anon; create policy w on members for insert with check (true);"
        "create policy p on notes using (spy())"
    )
    assert await judged.visible(CALLERS[0], await judged.images()) == []


async def test_what_was_read_is_kept_until_it_is_forgotten(judged: Judged) -> None:
    judged.create(POLICIES["constant"])
    images = await judged.images()
    assert await judged.visible(CALLERS[0], images) == [1, 2, 3, 4]
    judged.app.as_owner("drop policy p on notes")
    assert await judged.visible(CALLERS[0], images) == [1, 2, 3, 4]
    judged.catalog.forget()
    assert await judged.visible(CALLERS[0], images) == []


async def test_a_table_that_changed_under_its_policies_is_read_again(judged: Judged) -> None:
    judged.create(POLICIES["for all"])
    images = await judged.images()
    assert await judged.visible(CALLERS[0], images) == [1, 4]
    judged.app.as_owner("alter table notes drop column amount, add column extra text")
    assert await judged.visible(CALLERS[0], images) == [1, 4]


async def test_a_table_and_a_type_that_were_made_anew_are_not_mistaken(judged: Judged) -> None:
    color = """
        drop table if exists paints; drop type if exists color;
        create type color as enum ('red', 'blue'); create table paints (id int, color color);
        create policy p on paints using (color <> 'blue');
        insert into paints values (1, 'red'), (2, 'blue');"""
    images: list[Image] = [{"id": "1", "color": "red"}, {"id": "2", "color": "blue"}]
    for _ in range(2):
        judged.app.as_owner(color)
        oid = await judged.catalog.find("public", "paints")
        assert oid is not None
        verdict = await judged.policies.judge(oid, CALLERS[0], images)
        assert verdict.visible == {0}


@pytest.mark.parametrize("condition", ["id = 1", "(notes).id = 1"])
async def test_a_column_that_no_policy_needs_cannot_hide_the_row(
    judged: Judged, condition: str
) -> None:
    judged.create("")
    images = [{**image, "more": "x"} for image in await judged.images()]
    judged.app.as_owner(
        "drop domain if exists filled cascade; create domain filled as text not null;"
        "alter table notes add more filled default 'x';"
        f"create policy p on notes using ({condition})"
    )
    assert await judged.visible(CALLERS[0], images) == [1]
    if condition == "id = 1":
        assert await judged.visible(CALLERS[0], [{"id": "1"}]) == [1]


async def test_a_column_keeps_its_collation(judged: Judged) -> None:
    judged.create("")
    images = [{**image, "ascii": "\u00c4", "whole": "\u00c4"} for image in await judged.images()]
    # They differ in what is a letter, so that a database's own collation cannot stand for both.
    judged.app.as_owner(
        """alter table notes add ascii text collate "C" default U&'\\00c4',
             add whole text collate pg_c_utf8 default U&'\\00c4';
           create policy p on notes
             using (lower(ascii) = U&'\\00c4' and lower(whole) = U&'\\00e4');"""
    )
    assert await judged.selected(CALLERS[0]) == [1, 2, 3, 4]
    assert await judged.visible(CALLERS[0], images) == [1, 2, 3, 4]


async def test_policies_that_take_too_long_hide_their_rows_and_are_not_waited_for_again(
    judged: Judged, caplog: pytest.LogCaptureFixture
) -> None:
    judged.create(
        "create policy p on notes using (pg_sleep(case auth.uid() when"
        f" '{ALICE}' then 60 else 0 end) is not null)"
    )
    images = await judged.images()
    dsn = judged.app.cluster.dsn(app_authenticator("main"), judged.app.main.name)
    executor = Executor(make_conninfo(dsn, options="-c statement_timeout=200ms"))
    now_s, asked = 0.0, Counting(executor)
    policies = Policies(
        asked,  # type: ignore[arg-type]  # an executor that counts
        judged.catalog,
        pause_s=30,
        now_s=lambda: now_s,
    )
    oid = await judged.oid()

    async def counts(claims: Claims) -> tuple[int, int]:
        """Visible rows, and statements so far."""
        verdict = await policies.judge(oid, claims, images)
        return len(verdict.visible), asked.count

    with caplog.at_level(logging.WARNING):
        assert await counts(CALLERS[0]) == (0, 1)
        assert await counts(CALLERS[0]) == (0, 1)
        assert await counts(CALLERS[1]) == (4, 2)
        now_s = 30.0
        assert await counts(CALLERS[0]) == (0, 3)
    assert [r.getMessage().count("statement timeout") for r in caplog.records] == [1]
    await executor.close()


class Counting:
    """An executor that counts what it is asked."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.count = 0

    async def run_as(self, claims: Claims, *statements: Statement, read_only: bool) -> list[Result]:
        self.count += 1
        return await self.executor.run_as(claims, *statements, read_only=read_only)


async def test_a_catalog_that_is_locked_makes_commits_wait(judged: Judged) -> None:
    dsn = judged.app.cluster.dsn(app_authenticator("main"), judged.app.main.name)
    executor = Executor(make_conninfo(dsn, options="-c statement_timeout=100ms"))
    judged.create(POLICIES["constant"])
    catalog = Catalog(executor, age_s_max=60)
    with psycopg.connect(judged.app.owner_dsn) as conn:
        conn.execute("lock table notes in access exclusive mode")
        with pytest.raises(DatabaseUnavailableError):
            await catalog.access(await judged.oid(), "anon")
    await executor.close()
