"""Whatever a client sends is answered: no bug of ours, and no SQL that Postgres cannot read."""

from collections.abc import AsyncIterator
from typing import TypeVar
from urllib.parse import quote

import msgspec
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from butterbase.api.problems import render
from butterbase.api.rest.request.incoming import HttpRequest
from butterbase.api.rest.service import RestService
from butterbase.api.rest.settings import RestSettings
from butterbase.sql.claims import SERVICE_ROLE, claims_for_role
from butterbase.sql.cluster import app_authenticator
from butterbase.sql.errors import ButterbaseError
from butterbase.sql.pipeline import Executor
from butterbase.sql.relations.introspect import load_schema_cache
from butterbase.sql.relations.model import SchemaCache
from butterbase.sql.spool import Spool
from tests.installation import Installation

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = """
create domain "text/html" as text;
create table clients (id int primary key, name text, doc jsonb);
create table projects (
  id int primary key, name text, client_id int references clients, tags text[], doc jsonb,
  price numeric, at timestamptz, words tsvector, span int4range, is_open boolean
);
create table people (id int primary key, name text, boss_id int references people);
create table members (
  project_id int references projects, person_id int references people,
  primary key (project_id, person_id)
);
create view open_projects as select id, name, client_id from projects where is_open;
insert into clients values (1, 'Acme', '{"a": {"b": [1, 2]}}'), (2, null, null);
insert into projects values
  (1, 'ant', 1, '{a,b}', '{"a": 1}', 1.5, now(), 'cat', '[1,5)', true),
  (2, 'bee', 1, null, null, null, null, null, null, null),
  (3, 'cat', null, '{}', '[]', 2, null, null, null, false);
insert into people values (1, 'Ana', null), (2, 'Bo', 1);
insert into members values (1, 1), (1, 2), (2, 2);
create function size(projects) returns int language sql stable as 'select length($1.name)';
create function first_project(clients) returns setof projects rows 1 language sql stable
  as 'select * from projects where client_id = $1.id limit 1';
create function add(a int, b int default 1) returns int language sql immutable as 'select a + b';
create function all_projects() returns setof projects language sql stable
  as 'select * from projects';
create function total(variadic numbers int[]) returns int language sql immutable
  as 'select sum(n)::int from unnest(numbers) n';
create function whole(json) returns json language sql immutable as 'select $1';
create function page() returns "text/html" language sql stable as $$ select '<p>' $$;
create function pair(out a int, out b text) language sql immutable as $$ select 1, 'x' $$;
create function nothing() returns void language sql as 'select 1';
"""

# What may be known of a request's parts, and what nobody could


def words(*texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from(texts)


T = TypeVar("T")


def mostly(usual: st.SearchStrategy[T], rare: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    return st.integers(0, 9).flatmap(lambda n: rare if n == 9 else usual)


NOISE = st.text(max_size=6) | st.text("abc(){}[]\"'\\,.:;*-> $%_01é\0\n", max_size=8)
COLUMNS = {
    "clients": "id name doc doc->a doc->>a doc->a->b->-1",
    "projects": "id name client_id tags tags->0 doc doc->a price at words span is_open size",
    "people": "id name boss_id",
    "members": "project_id person_id",
    "open_projects": "id name client_id",
}
RELATIONS = {
    "clients": "projects first_project open_projects c:projects",
    "projects": "clients people members client_id p:people!members x:clients!client_id",
    "people": "people!boss_id boss_id projects members boss:boss_id",
    "members": "projects people person_id",
    "open_projects": "clients",
}
TARGETS = {
    "first_project": "projects", "client_id": "clients", "boss_id": "people", "person_id": "people",
}  # fmt: skip
FUNCTIONS = {
    "all_projects": "", "add": "a=1&b=2", "total": "numbers=1&numbers=2", "page": "", "pair": "",
    "nothing": "", "whole": "",
}  # fmt: skip
CASTS = mostly(words("", "", "::text"), words("::int", "::jsonb", "::nothing", "::text[]"))
AGGREGATES = mostly(words("", "", "", ".count()", ".max()"), words(".sum()::text", ".avg()"))
ALIASES = mostly(words("", "", "x:"), words("count:", "projects_1:", '"a b":', "é:"))
VALUES = {
    "eq": "1 x a,b", "neq": "1 x", "gt": "0 a", "gte": "0", "lt": "3 z", "lte": "2",
    "like": "*a* %", "ilike": "A*", "match": "^a", "imatch": "^A", "in": '(1,2) (a,"b,c") ()',
    "is": "null not_null true", "cs": '{a} {"a":1} [1,2)', "cd": "{a,b} [0,9)", "ov": "{a} [1,9)",
    "sl": "[1,9)", "sr": "[1,9)", "nxl": "[1,9)", "nxr": "[1,9)", "adj": "[5,9)",
    "fts": "cat", "plfts(english)": "cats",
    "phfts": "a", "wfts": "a", "isdistinct": "1 x", "eq(any)": "{1,2}", "like(all)": "{a*,*t}",
}  # fmt: skip
FILTERS = st.sampled_from(sorted(VALUES)).flatmap(
    lambda operator: st.builds(
        "{}{}.{}".format,
        words("", "", "not."),
        st.just(operator),
        mostly(words(*VALUES[operator].split()), NOISE),
    )
)


class Level:
    """A relation in a select, and how the other parameters call it."""

    def __init__(self, table: str, path: str, relations: list[str]) -> None:
        self.columns = COLUMNS.get(table, "id").split()
        self.path = path
        self.relations = relations


@st.composite
def selects(draw: st.DrawFn, table: str, path: str, levels: list[Level]) -> str:
    """A select list; what it embeds is added to the levels."""
    level = Level(table, path, [])
    levels.append(level)
    columns = words("*", *level.columns)
    fields = st.builds("".join, st.tuples(ALIASES, columns, CASTS, AGGREGATES))
    items = draw(st.lists(mostly(columns, fields | words("count()")), max_size=3))
    for _ in range(draw(st.integers(0, 2)) if path.count(".") < 2 else 0):
        relation = draw(words(*RELATIONS.get(table, "nothing").split()))
        name = relation.split(":")[0].split("!")[0]
        target = relation.split(":")[-1].split("!")[0]
        level.relations.append(name)
        inner = draw(selects(TARGETS.get(target, target), f"{path}{name}.", levels))
        spread = draw(words("", "", "...")) if ":" not in relation else ""
        items.append(f"{spread}{relation}{draw(words('', '', '!inner'))}({inner})")
    return ",".join(items)


@st.composite
def parameters(draw: st.DrawFn, levels: list[Level]) -> tuple[str, str]:
    level = draw(st.sampled_from(levels))
    column = words(*level.columns)
    kind = draw(st.integers(0, 8))
    if kind < 3:
        return level.path + draw(column), draw(FILTERS)
    if kind == 3 and level.relations:
        return level.path + draw(words(*level.relations)), draw(words("is.null", "not.is.null"))
    if kind < 6:
        terms = st.builds("{}.{}".format, column, FILTERS)
        groups = st.builds("{}({},{})".format, words("and", "not.or"), terms, terms)
        tree = draw(st.lists(terms | groups, min_size=1, max_size=3))
        return level.path + draw(words("and", "or", "not.or")), f"({','.join(tree)})"
    if kind < 8:
        key = draw(column)
        if level.relations:
            key = draw(mostly(st.just(key), words(*level.relations).map("{}(id)".format)))
        return f"{level.path}order", key + draw(words("", ".desc", ".asc.nullslast", ".nullsfirst"))
    return level.path + draw(words("limit", "offset")), draw(words("0", "1", "9" * 30, "-1"))


@st.composite
def sensible(draw: st.DrawFn) -> tuple[str, str, str]:
    """A method, a path, and a query string of what there is."""
    table = draw(words(*COLUMNS))
    function = draw(mostly(words(""), words(*FUNCTIONS)))
    levels: list[Level] = []
    pairs = [("select", draw(selects("projects" if function else table, "", levels)))]
    pairs = draw(st.sampled_from([pairs, pairs, []]))
    shown = levels if pairs else levels[:1]
    pairs += draw(st.lists(parameters(shown), max_size=4))
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)
    if function:
        arguments = filter(None, (FUNCTIONS[function], query))
        return draw(words("GET", "POST")), f"/rpc/{function}", "&".join(arguments)
    method = draw(words("GET", "GET", "GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"))
    return method, f"/{table}", query


PREFERENCES = st.lists(
    words(
        *("return=representation", "return=minimal", "return=headers-only", "count=exact"),
        *("count=planned", "count=estimated", "handling=strict", "max-affected=1", "tx=commit"),
        *("missing=default", "resolution=merge-duplicates", "resolution=ignore-duplicates"),
        *("timezone=UTC", "nothing", "max-affected=x"),
    ),
    max_size=3,
).map(", ".join)
MEDIA = mostly(
    words("application/json", "*/*", "text/csv", "application/vnd.pgrst.array+json;nulls=stripped"),
    words(
        *("text/html", "image/png", "text/plain", "application/x-www-form-urlencoded", ";q=1", ""),
        *("application/octet-stream", "application/vnd.pgrst.object+json"),
        *("application/vnd.pgrst.plan+text", 'application/vnd.pgrst.plan+json; for="text/csv"'),
    ),
)
HEADERS = st.fixed_dictionaries(
    {}, optional={"prefer": PREFERENCES, "accept": MEDIA, "range": words("0-1", "1-0", "5-")}
)
ODD_HEADERS = st.dictionaries(
    words(
        *("prefer", "accept", "content-type", "range", "cookie", "x-anything"),
        *("accept-profile", "content-profile"),
    ),
    NOISE | MEDIA | words("public", "auth", "0-" + "9" * 30, 'a="1', "timezone=Mars/Base"),
    max_size=3,
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | NOISE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NOISE, inner, max_size=3),
    max_leaves=4,
)


@st.composite
def rows(draw: st.DrawFn) -> bytes:
    """A row or rows of one table, or the arguments of a function."""
    keys = draw(
        st.lists(words("id", "name", "doc", "client_id", "a", "b"), max_size=3, unique=True)
        | st.sampled_from([["id", "name"], ["project_id", "person_id"], ["a"], ["numbers"]])
    )
    values = st.fixed_dictionaries(dict.fromkeys(keys, st.integers(3, 9) | JSON_VALUES))
    return msgspec.json.encode(draw(values | st.lists(values, max_size=3)))


ODD_BODIES = (
    st.binary(max_size=20)
    | JSON_VALUES.map(msgspec.json.encode)
    | words("id,name\n5,x\n", "a=1&b=2", "numbers=1&numbers=2", '{"id":1}{').map(str.encode)
)


class Held:
    def __init__(self, cache: SchemaCache) -> None:
        self.current = cache

    async def catch_up(self) -> bool:
        return False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_installation: Installation) -> AsyncIterator[RestService]:
    dsn = module_installation.cluster.dsn(
        app_authenticator("main"), module_installation.main.name, statement_timeout_ms=20_000
    )
    executor = Executor(dsn, connection_count_max=1)
    cache = await load_schema_cache(executor, schemas=("public",))
    # Rolled back, so that every request finds the same rows.
    yield RestService(
        executor,
        Held(cache),
        RestSettings(aggregates_enabled=True, plan_enabled=True, rolls_back=True),
    )
    await executor.close()


CLAIMS = claims_for_role(SERVICE_ROLE)
REFUSED_BY_POSTGRES = {"21000", "55000"}
"""For these PostgREST's table says 500: a row merged twice, a view that takes no rows."""


Given = dict[str, str]


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(sensible(), HEADERS, rows())
async def test_a_request_for_what_there_is_is_answered(
    service: RestService, request_line: tuple[str, str, str], headers: Given, body: bytes
) -> None:
    await ask(service, *request_line, headers, body)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    words("GET", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", "TRACE"),
    words("/projects", "/rpc/add", "/rpc/whole", "/", "/%ff", "/%00") | NOISE.map(quote),
    st.text(st.characters(max_codepoint=255), max_size=30)
    | st.lists(
        st.tuples(words("select", "id", "or", "order", "limit", "columns", "on_conflict"), NOISE)
    ).map(lambda pairs: "&".join(f"{name}={quote(text)}" for name, text in pairs)),
    ODD_HEADERS,
    rows() | ODD_BODIES,
)
async def test_any_other_request_is_answered_too(
    service: RestService, method: str, path: str, query: str, headers: Given, body: bytes
) -> None:
    await ask(service, method, path, query, headers, body)


async def ask(
    service: RestService, method: str, path: str, query: str, headers: Given, body: bytes
) -> None:
    """Fails for what is a fault of ours."""
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    try:
        answer = await service.answer(HttpRequest(method, path, query, sent), CLAIMS, body)
    except ButterbaseError as error:
        code, message = getattr(error, "sqlstate", error.code), str(error)
        assert code != "42601" or "in tsquery" in message, message
        rendered = render(error)
        assert rendered.status < 500 or code in REFUSED_BY_POSTGRES, f"{code}: {message}"
        return
    assert 200 <= answer.status < 500
    if isinstance(answer.body, Spool):
        answer.body.close()
