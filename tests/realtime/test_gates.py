"""Which policies are compiled: decided by what the catalog says they depend on."""

from collections.abc import AsyncIterator

import psycopg
import pytest

from butterbase.realtime.changes.access import Catalog
from butterbase.realtime.changes.compiled.policies import INSTALLED, Visibility, gate_of
from butterbase.sql.cluster import app_authenticator
from butterbase.sql.pipeline import Executor
from tests.installation import Installation

TABLE = """
    drop table if exists docs cascade; drop type if exists mood; drop domain if exists person;
    create type mood as enum ('glad'); create domain person as uuid;
    create table docs (
      id int primary key, owner uuid, team text, mood mood, boss person, tags text[],
      strict text collate "C", at timestamptz);
"""
OWN = "create policy p on docs using (owner = auth.uid());"


@pytest.fixture
async def catalog(app: Installation) -> AsyncIterator[Catalog]:
    executor = Executor(app.cluster.dsn(app_authenticator("main"), app.main.name))
    yield Catalog(executor, age_s_max=60)
    await executor.close()


async def visibility(catalog: Catalog, role: str = "authenticated") -> Visibility:
    catalog.forget()
    oid = await catalog.find("public", "docs")
    assert oid is not None
    access = await catalog.access(oid, role)
    assert access is not None
    return gate_of(access).visibility


def as_superuser(app: Installation, statements: str) -> None:
    with psycopg.connect(app.main.dsn, autocommit=True) as conn:
        conn.execute(statements.encode())


@pytest.mark.parametrize(
    ("condition", "is_compiled"),
    [
        ("owner = auth.uid()", True),
        ("(select auth.uid()) = owner", True),
        ("owner in (auth.uid())", True),
        ("auth.role() = 'authenticated' and team in ('a', 'b')", True),
        ("team = auth.email() or auth.jwt() -> 'app_metadata' ->> 'team' = team", True),
        ("(current_setting('request.jwt.claims', true)::json ->> 'sub')::uuid = owner", True),
        ("at >= '2025-01-01 00:00+00' and mood is not null and tags is null", True),
        ("strict = 'a'", True),
        ("true", True),
        ("mood = 'glad'", False),
        ("boss = auth.uid()", False),
        ("boss is null", False),
        ("strict < 'a'", False),
        ("team = any(tags)", False),
        ("at < now()", False),
        ("exists (select from docs d where d.owner = auth.uid())", False),
        ("docs is not null", False),
    ],
)
async def test_a_policy_is_compiled_or_not(
    app: Installation, catalog: Catalog, condition: str, is_compiled: bool
) -> None:
    app.as_owner(f"{TABLE} create policy p on docs using ({condition})")
    expected = Visibility.COMPILED if is_compiled else Visibility.ASKED
    assert await visibility(catalog) is expected


async def test_one_policy_that_is_not_compiled_has_postgres_asked(
    app: Installation, catalog: Catalog
) -> None:
    more = "create policy q on docs as restrictive for select to anon using (team like 'a');"
    app.as_owner(TABLE + OWN + more)
    assert await visibility(catalog) is Visibility.COMPILED
    assert await visibility(catalog, "anon") is Visibility.ASKED
    assert await visibility(catalog, "service_role") is Visibility.ALL


async def test_what_decides_without_a_policy(app: Installation, catalog: Catalog) -> None:
    app.as_owner(TABLE)
    assert await visibility(catalog) is Visibility.NONE
    app.as_owner("create policy p on docs as restrictive using (true)")
    assert await visibility(catalog) is Visibility.NONE
    app.as_owner("alter table docs disable row level security")
    assert await visibility(catalog) is Visibility.ALL
    app.as_owner("revoke all on docs from authenticated")
    assert await visibility(catalog) is Visibility.NONE


async def test_the_functions_are_those_that_the_migrations_install(
    app: Installation, catalog: Catalog
) -> None:
    for function in INSTALLED:
        app.as_owner(
            f"{TABLE} create policy p on docs using (auth.{function.name}()::text is null)"
        )
        oid = await catalog.find("public", "docs")
        assert oid is not None
        access = await catalog.read(oid, "anon")
        assert access is not None
        (found,) = access.policies[0].functions
        assert found.source.strip() == function.source


UID = "create or replace function auth.uid() returns uuid language sql stable parallel safe as "
ORIGINAL = (
    "$$\n  select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid"
    "\n$$;"
)


@pytest.mark.parametrize(
    "change",
    [
        UID + "$$ select null::uuid $$",
        "alter function auth.uid() security definer",
        "alter function auth.uid() set search_path = ''",
        "alter function auth.uid() volatile",
        "revoke execute on function auth.uid() from public, anon, authenticated, service_role",
    ],
)
async def test_a_function_that_was_changed_is_not_compiled(
    app: Installation, catalog: Catalog, change: str
) -> None:
    app.as_owner(TABLE + OWN)
    assert await visibility(catalog) is Visibility.COMPILED
    as_superuser(app, change)
    try:
        assert await visibility(catalog) is Visibility.ASKED
    finally:
        as_superuser(
            app,
            UID + ORIGINAL + "alter function auth.uid() security invoker;"
            "alter function auth.uid() reset all; grant execute on function auth.uid() to public",
        )
    assert await visibility(catalog) is Visibility.COMPILED


async def test_names_that_only_look_like_ours_are_not_compiled(
    app: Installation, catalog: Catalog
) -> None:
    app.as_owner(
        TABLE
        + """
        create or replace function public.uid() returns uuid language sql stable as
          'select null::uuid';
        create policy p on docs using (owner = uid());"""
    )
    assert await visibility(catalog) is Visibility.ASKED


async def test_an_operator_of_the_users_own_is_not_compiled(
    app: Installation, catalog: Catalog
) -> None:
    app.as_owner(
        TABLE
        + """
        create or replace function always(uuid, int) returns boolean language sql immutable as
          'select true';
        drop operator if exists = (uuid, int);
        create operator = (leftarg = uuid, rightarg = int, function = always);
        create policy p on docs using (owner = id);"""
    )
    assert await visibility(catalog) is Visibility.ASKED
