"""Versions of indexes: which rows have passages, how they are cut, and in which table they lie."""

from collections.abc import Collection
from typing import Final, Literal, LiteralString
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection, sql
from psycopg.rows import class_row

from butterbase.ingest.changes import QualifiedName
from butterbase.projections.embedder import Wanted

# A table that is gone has no name. Zero rows: the versions were cleared away.
_VERSIONS: Final = """
select v.id, v.index_id, i.kind, v.passages, v.model, v.dimensions, v.wanted_model,
  v.chunk_tokens, v.overlap_tokens, v.language, i.collection_id,
  n.nspname as source_schema, c.relname as source_table,
  i.key_columns, keys.types as key_types, i.text_columns, i.filter_columns,
  i.active_version is not distinct from v.id and i.building_version is null as is_latest,
  i.name as index_name, i.owner_id, v.error is not null as is_blamed
from ai.index_versions v
join ai.indexes i on i.id = v.index_id
left join pg_class c on c.oid = i.source
left join pg_namespace n on n.oid = c.relnamespace
cross join lateral (
  select coalesce(array_agg(format_type(a.atttypid, null) order by k.place), '{}') as types
  from unnest(i.key_columns) with ordinality k (name, place)
  join pg_attribute a on a.attrelid = i.source and a.attname = k.name
) keys
where v.id = any(%s) and v.state <> 'retired' and i.dropped_at is null
"""


class Version(Struct, frozen=True):
    id: int
    index_id: int
    kind: Literal["collection", "columns"]
    passages: str
    model: str | None
    """None until something was embedded."""
    dimensions: int | None
    wanted_model: str | None
    """As the index named it then; None: the installation's, whichever that is."""
    chunk_tokens: int
    overlap_tokens: int
    language: str
    collection_id: UUID | None
    source_schema: str | None
    source_table: str | None
    key_columns: list[str]
    key_types: list[LiteralString]
    """Quoted where they must be."""
    text_columns: list[str]
    filter_columns: list[str]
    is_latest: bool
    """Whether it is in use, and no other is made beside it."""
    index_name: str | None = None
    """None: of a collection."""
    owner_id: UUID | None = None
    is_blamed: bool = False
    """Whether an error is written down for it."""

    @property
    def wanted(self) -> Wanted:
        label = self.index_name or f"collection:{self.collection_id}"
        return Wanted(self.wanted_model, self.model, label, self.owner_id)

    @property
    def table(self) -> sql.Identifier:
        """Of its passages."""
        return sql.Identifier("ai", self.passages)

    @property
    def key_names(self) -> list[str]:
        """Of the columns of its passages that have the row's key."""
        if self.kind == "collection":
            return ["document_id"]
        return [f"key_{number}" for number in range(1, len(self.key_columns) + 1)]

    @property
    def source(self) -> QualifiedName | None:
        """None: the table is gone."""
        if self.kind == "collection":
            return "ai", "documents"
        if self.source_schema is None or self.source_table is None:
            return None
        return self.source_schema, self.source_table

    def of_key(self) -> sql.Composed:
        """A condition on passages: those of one row, by `key_1`, `key_2` …"""
        conditions = [
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(f"key_{number}"))
            for number, name in enumerate(self.key_names, 1)
        ]
        own = sql.SQL("version_id = {}").format(sql.Literal(self.id))
        return sql.SQL(" and ").join([own, *conditions])

    @staticmethod
    def key_values(key: Collection[str]) -> dict[str, str]:
        return {f"key_{number}": value for number, value in enumerate(key, 1)}


async def read_versions(conn: AsyncConnection, ids: Collection[int]) -> dict[int, Version]:
    """By id; those that are cleared away are missing."""
    async with conn.cursor(row_factory=class_row(Version)) as cursor:
        await cursor.execute(_VERSIONS, [list(ids)])
        return {version.id: version for version in await cursor.fetchall()}
