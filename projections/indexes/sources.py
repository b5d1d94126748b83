"""Reads source rows: documents as ourselves, an app's tables as the developer.

Reading a developer's table may run what the developer has put on it. So no session of ours does
it that has more rights than the developer has.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from butterbase.projections.indexes.marks import Key
from butterbase.projections.indexes.passages import SourceRow
from butterbase.projections.indexes.versions import Version
from butterbase.sql.errors import ButterbaseError

# As the log writes keys. An owner who is subject to the table's own policies would be shown a part
# of it, and is told so instead. A lock of the developer's holds up this index and no other.
_SESSION: Final = {
    "search_path": "pg_catalog",
    "row_security": "off",
    "default_transaction_read_only": "on",
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "extra_float_digits": "1",
    "lock_timeout": "2s",
    "statement_timeout": "15s",
}

_DOCUMENTS: Final = """
select array[d.id::text], s.size, d.metadata::text, d.layout::text, d.title,
  d.updated_at::text, case when s.size <= %(bytes_max)s then d.content end
from ai.documents d
cross join lateral (select coalesce(octet_length(d.content), 0) as size) s
where d.id = any(%(ids)s::uuid[])
"""
_DOCUMENT_KEYS: Final = """
select array[id::text] from ai.documents
where collection_id = %(collection)s
  and (%(after)s::text[] is null or id > (%(after)s::text[])[1]::uuid)
order by id limit %(count)s
"""
_DOCUMENT_COUNT: Final = "select count(*) from ai.documents where collection_id = %(collection)s"

COUNTED_ROWS_MAX: Final = 1_000_000
"""A larger table is estimated: progress is shown by it and nothing else."""
_ESTIMATE: Final = "select reltuples::bigint from pg_class where oid = %(source)s::regclass"


class SourceError(ButterbaseError):
    """The rows to index cannot be read."""

    code = "index_source_unreadable"


class Sources:
    """Of one app. Not for two at once."""

    def __init__(self, conn: AsyncConnection, owner_dsn: str) -> None:
        """`conn` is ours; the developer's is opened when there is something to read with it."""
        self._conn = conn
        self._owner_dsn = owner_dsn
        self._owner: AsyncConnection | None = None

    async def close(self) -> None:
        if self._owner is not None:
            await self._owner.close()

    async def rows(
        self, version: Version, keys: Sequence[Key], *, bytes_max: int
    ) -> dict[Key, SourceRow]:
        """Those that are there, as they are now; the texts of those that have more are left out.

        Raises SourceError.
        """
        if version.kind == "collection":
            values = {"ids": [id_ for (id_,) in keys], "bytes_max": bytes_max}
            found = await self._fetch(self._conn, _DOCUMENTS, values)
        else:
            found = await self._fetch_columns(version, keys, bytes_max)
        return {
            tuple(key): SourceRow(
                key=tuple(key),
                byte_count=size,
                texts=_texts(version.text_columns, texts),
                metadata=metadata,
                layout=layout,
                title=title,
                updated_at=updated_at,
            )
            for key, size, metadata, layout, title, updated_at, *texts in found
        }

    async def keys(self, version: Version, after: Key | None, count: int) -> list[Key]:
        """The next ones in the order of the key. Raises SourceError."""
        if version.kind == "collection":
            values = {
                "collection": version.collection_id,
                "after": None if after is None else list(after),
                "count": count,
            }
            rows = await self._fetch(self._conn, _DOCUMENT_KEYS, values)
        else:
            names = [sql.SQL("s.{}").format(sql.Identifier(name)) for name in version.key_columns]
            behind: sql.Composable = sql.SQL("true")
            if after is not None:
                places = [
                    sql.SQL("{}::{}").format(sql.Placeholder(f"after_{n}"), sql.SQL(type_))
                    for n, type_ in enumerate(version.key_types)
                ]
                behind = sql.SQL("({}) > ({})").format(
                    sql.SQL(", ").join(names), sql.SQL(", ").join(places)
                )
            statement = sql.SQL(
                "select array[{texts}] from {source} s where {behind}"
                " order by {names} limit %(count)s"
            ).format(
                texts=_key_texts(version),
                source=_source(version),
                behind=behind,
                names=sql.SQL(", ").join(names),
            )
            afters = {f"after_{n}": value for n, value in enumerate(after or ())}
            rows = await self._fetch(await self._developer(), statement, {"count": count, **afters})
        return [tuple(row[0]) for row in rows]

    async def count(self, version: Version) -> int:
        """About how many rows there are. Raises SourceError."""
        if version.kind == "collection":
            values = {"collection": version.collection_id}
            return int((await self._fetch(self._conn, _DOCUMENT_COUNT, values))[0][0])
        source, owner = _source(version), await self._developer()
        ((estimate,),) = await self._fetch(owner, _ESTIMATE, {"source": source.as_string(owner)})
        if estimate > COUNTED_ROWS_MAX:
            return int(estimate)
        counting = sql.SQL("select count(*) from {}").format(source)
        ((count,),) = await self._fetch(owner, counting, {})
        return int(count)

    async def _fetch_columns(
        self, version: Version, keys: Sequence[Key], bytes_max: int
    ) -> list[tuple[Any, ...]]:
        names = [sql.Identifier(f"k{n}") for n in range(len(version.key_columns))]
        arrays = [
            sql.SQL("{}::text[]::{}[]").format(sql.Placeholder(f"k{n}"), sql.SQL(type_))
            for n, type_ in enumerate(version.key_types)
        ]
        matches = [
            sql.SQL("s.{} = wanted.{}").format(sql.Identifier(column), name)
            for column, name in zip(version.key_columns, names, strict=True)
        ]
        texts = [
            sql.SQL("s.{}::text").format(sql.Identifier(column)) for column in version.text_columns
        ]
        filters = [
            sql.SQL("{}, s.{}").format(sql.Literal(column), sql.Identifier(column))
            for column in version.filter_columns
        ]
        statement = sql.SQL(
            "select array[{keys}], size.bytes, jsonb_build_object({filters})::text, null, '',"
            " null, {texts} from unnest({arrays}) as wanted ({names}) join {source} s on {matches}"
            " cross join lateral (select {size} as bytes) size"
        ).format(
            keys=_key_texts(version),
            filters=sql.SQL(", ").join(filters),
            texts=sql.SQL(", ").join(
                sql.SQL("case when size.bytes <= %(bytes_max)s then {} end").format(text)
                for text in texts
            ),
            arrays=sql.SQL(", ").join(arrays),
            names=sql.SQL(", ").join(names),
            source=_source(version),
            matches=sql.SQL(" and ").join(matches),
            size=sql.SQL(" + ").join(
                sql.SQL("coalesce(octet_length({}), 0)").format(text) for text in texts
            ),
        )
        columns = zip(*keys, strict=True)
        values = {f"k{n}": list(column) for n, column in enumerate(columns)}
        return await self._fetch(
            await self._developer(), statement, {"bytes_max": bytes_max, **values}
        )

    async def _fetch(
        self,
        conn: AsyncConnection,
        statement: LiteralString | sql.Composed,
        values: Mapping[str, object],
    ) -> list[tuple[Any, ...]]:
        try:
            return await (await conn.execute(statement, values)).fetchall()
        except psycopg.Error as error:
            if conn.broken or conn is self._conn:
                raise
            reason = error.diag.message_primary or type(error).__name__
            raise SourceError(reason, hint=error.diag.message_hint) from error

    async def _developer(self) -> AsyncConnection:
        if self._owner is None or self._owner.closed:
            given = conninfo_to_dict(self._owner_dsn)
            session = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
            dsn = make_conninfo(
                self._owner_dsn,
                options=f"{given.get('options') or ''} {session}".strip(),
                application_name="butterbase indexes",
            )
            self._owner = await AsyncConnection.connect(dsn, autocommit=True)
        return self._owner


def _source(version: Version) -> sql.Identifier:
    source = version.source
    if source is None:
        raise SourceError("the table is gone", hint="drop the index: select ai.drop_index(…)")
    if len(version.key_types) != len(version.key_columns):
        raise SourceError(
            "a column of the primary key is gone", hint="drop the index, and make it anew"
        )
    return sql.Identifier(*source)


def _key_texts(version: Version) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("s.{}::text").format(sql.Identifier(name)) for name in version.key_columns
    )


def _texts(columns: Sequence[str], contents: Sequence[object]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (column, content)
        for column, content in zip(columns, contents, strict=True)
        if isinstance(content, str) and re.search(r"\S", content)
    )
