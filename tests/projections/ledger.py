"""A projection that writes down each change of a table, in the order in which it was applied."""

import asyncio
from collections.abc import Sequence

from psycopg import AsyncConnection, sql

from butterbase.ingest.changes import Commit, Insert, QualifiedName

MAKE = """
create table public.{name} (
  place bigint generated always as identity primary key,
  lsn bigint not null,
  id bigint not null
);
alter table public.{name} disable row level security;
grant all on public.{name} to butterbase_stream;
"""


class Ledger:
    """Of the inserts into `source`, whose first column is an integer. It applies while open."""

    def __init__(self, name: str, source: QualifiedName) -> None:
        self.name = name
        self.source = source
        self.tables = (("public", name),)
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.failure: Exception | None = None

    @property
    def make(self) -> str:
        """The statements that make its table."""
        return MAKE.format(name=self.name)

    def wants(self, commit: Commit) -> bool:
        return self.source in commit.tables

    async def apply(self, conn: AsyncConnection, commits: Sequence[Commit]) -> None:
        await self.is_open.wait()
        if self.failure is not None:
            raise self.failure
        async with conn.cursor() as cursor:
            copy = f"copy public.{self.name} (lsn, id) from stdin"
            async with cursor.copy(copy.encode()) as rows:
                for commit in commits:
                    for change in commit.changes_of(self.source):
                        if isinstance(change, Insert):
                            await rows.write_row((commit.lsn, int(str(change.new[0]))))

    async def resync(self, conn: AsyncConnection) -> None:
        await self.rebuild(conn)

    async def rebuild(self, conn: AsyncConnection) -> None:
        names = {
            "name": sql.Identifier("public", self.name),
            "source": sql.Identifier(*self.source),
        }
        await conn.execute(sql.SQL("delete from {name}").format(**names))
        await conn.execute(
            sql.SQL("insert into {name} (lsn, id) select 0, id from {source} order by id").format(
                **names
            )
        )


async def written(conn: AsyncConnection, ledger: Ledger) -> list[int]:
    """The ids, in the order in which they were applied."""
    name = sql.Identifier("public", ledger.name)
    cursor = await conn.execute(sql.SQL("select id from {} order by place").format(name))
    return [id_ for (id_,) in await cursor.fetchall()]
