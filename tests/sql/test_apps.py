"""What a developer, who owns an app's database, can and cannot do beyond it."""

import psycopg
import pytest
from psycopg import sql

from butterbase.cli.setup import publish
from butterbase.sql.apps import create_app, set_up_cluster
from butterbase.sql.cluster import LoginRole, app_authenticator, app_owner, app_service
from tests.installation import Installation

APP_ROLES = [app_owner("main"), app_authenticator("main"), app_service("main")]


@pytest.mark.parametrize("role", APP_ROLES)
def test_a_role_of_an_app_reaches_no_other_database(installation: Installation, role: str) -> None:
    cluster = installation.cluster
    with psycopg.connect(cluster.dsn(role, installation.main.name)) as conn:
        assert conn.execute("select 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(cluster.dsn(role, installation.control.name))


@pytest.mark.parametrize("role", [*APP_ROLES, *LoginRole])
def test_no_login_role_has_more_rights_than_it_needs(installation: Installation, role: str) -> None:
    with psycopg.connect(installation.main.dsn) as conn:
        rights = conn.execute(
            "select rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication"
            " from pg_roles where rolname = %s",
            [str(role)],
        ).fetchone()
    assert rights == (False, False, False, False, role == LoginRole.STREAM)


PLANTED = """
create table public.planted (as_role text);
grant insert on public.planted to public;
create policy anyone on public.planted to public with check (true);
create function public.{name} returns {result} language plpgsql as $$
begin
  insert into public.planted values (current_user);
  return {value};
end
$$;
"""


@pytest.mark.parametrize(
    ("name", "result", "value"),
    [
        ("pg_advisory_lock(integer)", "bigint", "1"),
        ("hashtextextended(text, integer)", "bigint", "1"),
        ("now()", "timestamptz", "'epoch'::timestamptz"),
        ("format(text, name)", "text", "''"),
    ],
)
async def test_what_a_developer_plants_is_not_run_by_us(
    installation: Installation, name: str, result: str, value: str
) -> None:
    installation.as_owner(PLANTED.format(name=name, result=result, value=value))
    with psycopg.connect(installation.owner_dsn, autocommit=True) as conn:
        conn.execute(
            f"alter database {installation.main.name} set search_path = public, pg_catalog"
        )
    cluster = installation.cluster
    await set_up_cluster(cluster)
    app = await create_app(cluster, "main", database=installation.main.name)
    await publish(cluster, app)
    with psycopg.connect(cluster.dsn(LoginRole.STREAM, app.database)) as conn:
        conn.execute("select now(), format('%s', current_user)")
    with psycopg.connect(installation.main.dsn) as conn:
        assert conn.execute("select as_role from public.planted").fetchall() == []


def test_password_hashes_are_for_nobody_but_us(installation: Installation) -> None:
    with psycopg.connect(installation.owner_dsn, autocommit=True) as conn:
        conn.execute("select id, email from auth.users")
        for table in ("mfa_factors", "one_time_tokens", "sessions", "users"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(sql.SQL("select * from {}").format(sql.Identifier("auth", table)))


def test_callers_may_execute_of_auth_what_tells_who_they_are(installation: Installation) -> None:
    with psycopg.connect(installation.main.dsn) as conn:
        open_to_all = conn.execute(
            "select array_agg(distinct proname::text order by proname::text) from pg_proc"
            " where pronamespace = 'auth'::regnamespace"
            " and has_function_privilege('anon', oid, 'execute')"
        ).fetchone()
    assert open_to_all == (["email", "jwt", "role", "uid"],)


async def test_checkpoints_of_another_servers_log_are_forgotten(
    installation: Installation,
) -> None:
    with psycopg.connect(installation.main.dsn, autocommit=True) as conn:
        conn.execute(
            "insert into butterbase.checkpoints values ('ours', '0/1'), ('theirs', 'FFFFFFFF/0')"
        )
        await create_app(installation.cluster, "main", database=installation.main.name)
        left = conn.execute("select projection from butterbase.checkpoints").fetchall()
    assert left == [("ours",)]
