"""Marked rows that are not there any more, of a version that waits for its model.

A mark does not tell a deletion from a change. So the sources are asked which rows there are.
"""

from collections.abc import AsyncIterator
from typing import Final

from psycopg import AsyncConnection

from butterbase.projections.indexes.queue import Waiting, published_rows
from butterbase.projections.indexes.sources import Sources
from butterbase.projections.indexes.versions import Version

PAGE_COUNT: Final = 500


async def gone_rows(
    conn: AsyncConnection, sources: Sources, version: Version
) -> AsyncIterator[list[Waiting]]:
    """In pages, of rows that have passages. Raises SourceError."""
    after = 0
    while rows := await published_rows(conn, version.id, after=after, limit=PAGE_COUNT):
        after = rows[-1].generation
        there = await sources.rows(version, [row.key for row in rows], bytes_max=0)
        if gone := [row for row in rows if row.key not in there]:
            yield gone
