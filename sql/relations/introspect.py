"""The catalogs → SchemaCache: queries/relations.sql in one transaction, then views.py and links.py.

All statements have one snapshot. What Postgres's own functions tell of a relation is newer than
that, so DDL that commits in between may fail a statement; the load is then tried again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct, structs

from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Executor, Statement
from butterbase.sql.relations.links import (
    ForeignKey,
    PrimaryKey,
    Shows,
    link,
    view_primary_key,
)
from butterbase.sql.relations.model import (
    ComputedRelationship,
    MediaHandler,
    Name,
    Routine,
    SchemaCache,
    Table,
)
from butterbase.sql.relations.views import read_origins, resolve

T = TypeVar("T")

QUERIES = load_queries("relations")

HOISTED_SETTINGS = (
    "statement_timeout",
    "plan_filter.statement_cost_limit",
    "default_transaction_isolation",
)

_ISOLATION = "default_transaction_isolation"
_PARAMETER_PRIVILEGES_SINCE = 150000


class _TableRow(Struct, frozen=True):
    oid: int
    numbers: tuple[int, ...]
    """Of the columns, in their order."""
    table: Table


class _ForeignKeyRow(Struct, frozen=True):
    table_oid: int
    other_oid: int
    numbers: tuple[tuple[int, int], ...]
    key: ForeignKey


class _PrimaryKeyRow(Struct, frozen=True):
    table_oid: int
    numbers: tuple[int, ...]
    key: PrimaryKey


class _Catalogs(Struct, frozen=True):
    """The answers, undecoded."""

    views: Mapping[int, bytes]
    """Oid → node tree."""
    tables: bytes
    foreign_keys: bytes
    primary_keys: bytes
    routines: bytes
    computed_relationships: bytes
    representations: bytes
    handlers: bytes
    role_settings: bytes


async def load_schema_cache(
    executor: Executor,
    *,
    schemas: tuple[str, ...],
    extra_search_path: tuple[str, ...] = (),
    hoisted_settings: tuple[str, ...] = HOISTED_SETTINGS,
) -> SchemaCache:
    """Read what the schemas expose, as the executor's role sees it.

    Raises DatabaseError and DatabaseUnavailableError.
    """
    (version,) = await executor.run(Statement(QUERIES["server_version"]))
    server_version = int(version.value() or b"")
    catalogs = await _read(executor, server_version, schemas, extra_search_path, hoisted_settings)
    # Hundreds of views are megabytes of node trees; requests are served meanwhile.
    return await asyncio.to_thread(_build, catalogs, schemas, server_version)


async def _read(
    executor: Executor,
    server_version: int,
    schemas: tuple[str, ...],
    extra_search_path: tuple[str, ...],
    hoisted_settings: tuple[str, ...],
) -> _Catalogs:
    exposed = msgspec.json.encode(schemas)
    has_privileges = server_version >= _PARAMETER_PRIVILEGES_SINCE
    role_settings = "role_settings" if has_privileges else "role_settings_before_15"
    _, *results, views = await executor.run(
        Statement(QUERIES["hide_search_path"]),
        Statement(QUERIES["tables"], (exposed,)),
        Statement(QUERIES["foreign_keys"]),
        Statement(QUERIES["primary_keys"]),
        Statement(QUERIES["routines"], (exposed, msgspec.json.encode(hoisted_settings))),
        Statement(QUERIES["computed_relationships"], (exposed,)),
        Statement(QUERIES["representations"]),
        Statement(QUERIES["media_handlers"], (exposed,)),
        Statement(QUERIES[role_settings]),
        Statement(QUERIES["views"], (exposed, msgspec.json.encode(extra_search_path))),
        isolation="repeatable read",
    )
    trees = {int(oid or b""): tree or b"" for oid, tree in views.rows()}
    return _Catalogs(trees, *(result.value() or b"" for result in results))


def _build(catalogs: _Catalogs, schemas: tuple[str, ...], server_version: int) -> SchemaCache:
    rows = _decode(catalogs.tables, _TableRow)
    foreign_keys = _decode(catalogs.foreign_keys, _ForeignKeyRow)
    primary_keys = _decode(catalogs.primary_keys, _PrimaryKeyRow)
    views = _name_views(catalogs.views, rows, foreign_keys, primary_keys)
    keys = {row.key.table: row.key for row in primary_keys}
    view_keys = {view: _view_key(shows, keys) for view, shows in views.items()}
    handlers = _decode(catalogs.handlers, MediaHandler)
    role_settings, role_isolation = _role_settings(catalogs.role_settings)
    return SchemaCache(
        tables=_with_view_keys((row.table for row in rows), view_keys),
        relationships=link(
            (row.key for row in foreign_keys),
            _decode(catalogs.computed_relationships, ComputedRelationship),
            views,
            {table: key.columns for table, key in keys.items()} | view_keys,
            frozenset(schemas),
        ),
        routines=_overloads(_decode(catalogs.routines, Routine)),
        representations={
            (source, target): function
            for source, target, function in _decode(catalogs.representations, tuple[str, str, str])
        },
        handlers={(handler.target, handler.media_type): handler for handler in handlers},
        role_settings=role_settings,
        role_isolation=role_isolation,
        server_version=server_version,
    )


def _decode(answer: bytes, of: type[T]) -> list[T]:
    return msgspec.json.decode(answer, type=list[of])  # type: ignore[valid-type]


def _name_views(
    trees: Mapping[int, bytes],
    tables: Iterable[_TableRow],
    foreign_keys: Iterable[_ForeignKeyRow],
    primary_keys: Iterable[_PrimaryKeyRow],
) -> dict[Name, Shows]:
    """What each exposed view shows of any key's columns."""
    key_columns: dict[tuple[int, int], tuple[Name, str]] = {}
    for foreign in foreign_keys:
        pairs = zip(foreign.numbers, foreign.key.columns, strict=True)
        for (own_number, other_number), (own, other) in pairs:
            key_columns[foreign.table_oid, own_number] = (foreign.key.table, own)
            key_columns[foreign.other_oid, other_number] = (foreign.key.other, other)
    for primary in primary_keys:
        for number, column in zip(primary.numbers, primary.key.columns, strict=True):
            key_columns[primary.table_oid, number] = (primary.key.table, column)

    exposed = {row.oid: row for row in tables if row.oid in trees}
    origins = {oid: read_origins(tree) for oid, tree in trees.items()}
    named: dict[Name, Shows] = {}
    for oid, shown in resolve(origins, exposed).items():
        row = exposed[oid]
        names = dict(zip(row.numbers, row.table.columns, strict=True))
        shows: dict[Name, dict[str, tuple[str, ...]]] = defaultdict(dict)
        for end, numbers in shown.items():
            if end in key_columns:
                table, column = key_columns[end]
                shows[table][column] = tuple(names[number] for number in numbers)
        named[row.table.schema, row.table.name] = shows
    return named


def _view_key(shows: Shows, keys: Mapping[Name, PrimaryKey]) -> tuple[str, ...]:
    return view_primary_key(shows, (keys[table] for table in shows if table in keys))


def _with_view_keys(
    tables: Iterable[Table], view_keys: Mapping[Name, tuple[str, ...]]
) -> dict[Name, Table]:
    named = {(table.schema, table.name): table for table in tables}
    for view, key in view_keys.items():
        named[view] = structs.replace(named[view], primary_key=key)
    return named


def _overloads(routines: Iterable[Routine]) -> dict[Name, tuple[Routine, ...]]:
    grouped: dict[Name, list[Routine]] = defaultdict(list)
    for routine in routines:
        grouped[routine.schema, routine.name].append(routine)
    return {name: tuple(sorted(group, key=_overload_order)) for name, group in grouped.items()}


def _overload_order(routine: Routine) -> tuple[object, ...]:
    """As PostgREST lists those of an ambiguous call."""
    return (
        len(routine.parameters),
        routine.description is not None,
        routine.description or "",
        tuple(structs.astuple(parameter) for parameter in routine.parameters),
    )


def _role_settings(
    answer: bytes,
) -> tuple[dict[str, tuple[tuple[str, str], ...]], dict[str, str]]:
    settings: dict[str, tuple[tuple[str, str], ...]] = defaultdict(tuple)
    isolation = {}
    for role, name, value in sorted(_decode(answer, tuple[str, str, str])):
        if name == _ISOLATION:
            isolation[role] = value.lower()
        else:
            settings[role] = (*settings[role], (name, value))
    return dict(settings), isolation
