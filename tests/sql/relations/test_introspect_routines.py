"""Functions, what they stand for, and roles' settings, read from a real Postgres."""

import psycopg
from msgspec import structs
from psycopg import sql
from psycopg.conninfo import make_conninfo

from butterbase.sql.pipeline import Executor
from butterbase.sql.relations.introspect import load_schema_cache
from butterbase.sql.relations.model import (
    ComputedRelationship,
    MediaHandler,
    Name,
    Parameter,
    Routine,
    Volatility,
)
from tests.postgres import Database
from tests.sql.relations.conftest import Load


async def test_functions_tell_parameters_and_results(load: Load) -> None:
    cache = await load("""
        create table films (id int);
        create domain film as films;
        create domain label as text;
        create function plain(a int, b char(3), c bit default b'1') returns label
          language sql immutable as $$ select 'x' $$;
        create function listed() returns setof films language sql stable
          as $$ select * from films $$;
        create function aliased() returns film language sql as $$ select row(1)::film $$;
        create function outs(out a int, b text, inout c int) language sql as $$ select 1, 2 $$;
        create function tabled() returns table (x int) language sql as $$ select 1 $$;
        create function many(variadic v int[]) returns void language sql as $$ select $$;
        create function body(json) returns json language sql as $$ select $1 $$;
        create function unnamed(int) returns int language sql as $$ select 1 $$;
        create function half(int, b int) returns int language sql as $$ select 1 $$;
        create function fired() returns trigger language plpgsql as 'begin return new; end';
        create procedure done() language sql as $$ select $$;
        comment on function plain is 'as it is';
    """)
    assert {name for _, name in cache.routines} == {
        "plain", "listed", "aliased", "outs", "tabled", "many", "body",
    }  # fmt: skip

    def routine(name: str) -> Routine:
        (only,) = cache.routines["api", name]
        return only

    assert routine("plain").oid > 0
    assert structs.replace(routine("plain"), oid=0) == Routine(
        "api",
        "plain",
        (
            Parameter("a", "integer", "integer"),
            Parameter("b", "character", "character varying"),
            Parameter("c", "bit", "bit varying", is_required=False),
        ),
        ("pg_catalog", "text"),
        volatility=Volatility.IMMUTABLE,
        description="as it is",
    )
    listed = routine("listed")
    assert (listed.returns, listed.returns_set, listed.returns_composite) == (
        ("api", "films"), True, True,
    )  # fmt: skip
    assert listed.volatility is Volatility.STABLE
    aliased = routine("aliased")
    assert (aliased.returns, aliased.returns_composite_alias) == (("api", "films"), True)
    outs = routine("outs")
    assert outs.parameters == (Parameter("b", "text", "text"), Parameter("c", "integer", "integer"))
    assert outs.returns_composite
    assert not outs.returns_set
    assert routine("tabled").returns_composite
    assert routine("many").is_variadic
    assert routine("many").parameters == (
        Parameter("v", "integer[]", "integer[]", is_variadic=True),
    )
    assert routine("many").returns_void
    assert routine("body").parameters == (Parameter("", "json", "json"),)


async def test_overloads_stand_with_the_fewest_parameters_first(load: Load) -> None:
    cache = await load("""
        create function f(b int, a int) returns int language sql as $$ select 1 $$;
        create function f(a text) returns int language sql as $$ select 1 $$;
        create function f() returns int language sql as $$ select 1 $$;
        create function f(a int) returns int language sql as $$ select 1 $$;
    """)
    assert [
        [(p.name, p.type) for p in routine.parameters] for routine in cache.routines["api", "f"]
    ] == [[], [("a", "integer")], [("a", "text")], [("b", "integer"), ("a", "integer")]]


async def test_settings_of_functions_are_hoisted_by_name(load: Load) -> None:
    ddl = """
        create function f() returns int language sql set statement_timeout = '4s'
          set work_mem = '1MB' set default_transaction_isolation = 'REPEATABLE READ'
          as $$ select 1 $$;
    """
    ((routine,),) = (await load(ddl)).routines.values()
    assert routine.isolation_level == "repeatable read"
    assert routine.settings == (
        ("statement_timeout", "4s"),
        ("default_transaction_isolation", "REPEATABLE READ"),
    )
    ((routine,),) = (await load("select 1", hoisted_settings=("work_mem",))).routines.values()
    assert routine.settings == (("work_mem", "1MB"),)


async def test_functions_from_row_to_rows_are_relationships(load: Load) -> None:
    cache = await load("""
        create table films (id int primary key, sequel_id int references films);
        create table awards (id int primary key, film_id int references films);
        create function awards(films) returns setof awards rows 1 language sql stable
          as $$ select null::api.awards $$;
        create function sequels(films) returns setof films language sql stable
          as $$ select null::api.films $$;
        create function label(films) returns text language sql stable as $$ select '' $$;
    """)
    films: Name = ("api", "films")
    computed = [
        each for each in cache.relationships[films, "api"] if isinstance(each, ComputedRelationship)
    ]
    assert computed == [
        ComputedRelationship(("api", "awards"), films, ("api", "awards"), is_to_one=True),
        ComputedRelationship(("api", "sequels"), films, films, is_to_one=False, is_self=True),
    ]
    assert [each.other for each in cache.relationships[("api", "awards"), "api"]] == [films]


async def test_casts_of_domains_are_representations(load: Load) -> None:
    cache = await load("""
        create domain color as int;
        create function color(json) returns color language sql as $$ select 1::api.color $$;
        create function as_json(color) returns json language sql as $$ select '1'::json $$;
        create function as_bytes(color) returns bytea language sql as $$ select '1'::bytea $$;
        create function "To Text"(color) returns text language sql as $$ select '1' $$;
    """)
    assert cache.representations == {}
    cache = await load("""
        set client_min_messages = error;  -- casts of domains warn that they are ignored in SQL
        create cast (json as color) with function color(json) as implicit;
        create cast (color as json) with function as_json(color) as implicit;
        create cast (color as bytea) with function as_bytes(color) as implicit;
        create cast (color as text) with function "To Text"(color) as assignment;
    """)
    assert cache.representations == {
        ("json", "api.color"): "api.color",
        ("api.color", "json"): "api.as_json",
    }


async def test_domains_named_as_media_types_have_handlers(load: Load) -> None:
    cache = await load("""
        create table films (id int);
        create domain "text/HTML" as text;
        create domain "*/*" as bytea;
        create domain "no media type" as text;
        create function page() returns "text/HTML" language sql as $$ select '' $$;
        create function pages() returns setof "text/HTML" language sql as $$ select '' $$;
        create function other() returns "no media type" language sql as $$ select '' $$;
        create function step(state bytea, films) returns bytea language sql as $$ select state $$;
        create function step_any(state "text/HTML", anyelement) returns "text/HTML"
          language sql as $$ select state $$;
        create function "end"(bytea) returns "*/*" language sql as $$ select $1::api."*/*" $$;
        create aggregate raw(films) (sfunc = step, stype = bytea, finalfunc = "end");
        create aggregate html(anyelement) (sfunc = step_any, stype = "text/HTML");
    """)
    films: Name = ("api", "films")
    handlers = cache.handlers
    assert handlers[films, "*/*"] == MediaHandler(
        ("api", "raw"), films, "*/*", "application/octet-stream"
    )
    assert handlers[None, "text/html"] == MediaHandler(
        ("api", "html"), None, "text/html", "text/HTML"
    )
    assert handlers[("api", "page"), "text/html"].function == ("api", "text/HTML")
    assert {name for name, _ in handlers if name} == {
        films, ("api", "page"), ("api", "end"), ("api", "step_any"),
    }  # fmt: skip


async def test_roles_that_can_be_taken_have_settings(database: Database) -> None:
    login, member, stranger = (f"{database.name} {role}" for role in ("Login", "A b", "stranger"))
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        conn.execute(
            sql.SQL("""
                create role {login} login password 'x';
                create role {member};
                create role {stranger};
                grant {member} to {login};
                alter role {member} set statement_timeout = '5s';
                alter role {member} set default_transaction_isolation = 'Serializable';
                alter role {member} set log_statement = 'all';
                alter role {member} set app.name = 'x';
                alter role {stranger} set statement_timeout = '6s';
            """).format(
                login=sql.Identifier(login),
                member=sql.Identifier(member),
                stranger=sql.Identifier(stranger),
            )
        )
    executor = Executor(make_conninfo(database.dsn, user=login, password="x"))
    try:
        cache = await load_schema_cache(executor, schemas=("public",))
    finally:
        await executor.close()
        with psycopg.connect(database.dsn, autocommit=True) as conn:
            for role in (member, stranger, login):
                conn.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))
    assert cache.role_settings == {member: (("statement_timeout", "5s"),)}
    assert cache.role_isolation == {member: "serializable"}
