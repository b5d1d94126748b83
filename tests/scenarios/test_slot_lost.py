"""The slot is lost while the stream runs: the gap is told to clients, and projections close it."""

from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection

from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.cli import streams
from butterbase.cli.setup import slot_name
from butterbase.ingest.slot import read_resyncs
from butterbase.realtime.errors import ResyncRequiredError
from butterbase.realtime.session.protocol import Closing
from tests.following import following
from tests.installation import Installation
from tests.realtime.resuming import EVENTS, Listener
from tests.waiting import until

COLLECTION = "00000000-0000-4000-8000-000000000001"
DOCUMENT = """
insert into ai.documents (collection_id, title, content) values (%s, %s, 'A text.')
"""
TITLES = """
select d.title from ai.documents d where exists (
  select from ai.chunks c where c.document_id = d.id) order by 1
"""


async def test_clients_are_told_and_projections_miss_nothing(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "APP_RETRY_S", 0.1)
    installation.as_owner(EVENTS)
    slot = slot_name(installation.main.name)
    embedder = LazyEmbedder(EmbedderSettings(), tmp_path)
    async with (
        await AsyncConnection.connect(installation.main.dsn, autocommit=True) as conn,
        following(installation, embedder) as stream,
    ):

        async def put(title: str) -> None:
            await conn.execute(DOCUMENT, [COLLECTION, title])

        async def are_indexed(*titles: str) -> bool:
            rows = await (await conn.execute(TITLES)).fetchall()
            return [title for (title,) in rows] == list(titles)

        await conn.execute("insert into ai.collections (id, name) values (%s, 'all')", [COLLECTION])
        await put("1 before")
        await until(lambda: stream.realtime("main") is not None)
        before = stream.realtime("main")
        assert before is not None
        listener = Listener()
        await listener.open(before.hub)
        installation.as_owner("insert into events (body) values ('a')")
        await until(lambda: listener.ids == [1])
        await until(lambda: are_indexed("1 before"))

        async with await AsyncConnection.connect(installation.main.dsn) as lock:
            # What is written now, the projection cannot apply before the slot is lost.
            await lock.execute("lock table ai.chunks in access exclusive mode")
            await put("2 in the gap")
            installation.as_owner("insert into events (body) values ('b')")
            await until(lambda: listener.ids == [1, 2])
            await drop(conn, slot)
            await until(lambda: listener.closed == [Closing.RESTART])
            await lock.rollback()
        await put("3 after")
        await until(lambda: stream.realtime("main") not in (None, before))
        after = stream.realtime("main")
        assert after is not None
        with pytest.raises(ResyncRequiredError):
            await listener.open(after.hub)
        fresh = Listener()
        await fresh.open(after.hub)
        installation.as_owner("insert into events (body) values ('c')")
        await until(lambda: fresh.ids == [3])
        await until(lambda: are_indexed("1 before", "2 in the gap", "3 after"))
        (resync,) = await read_resyncs(conn, slot)
        assert resync.resync == "missing"


async def drop(conn: AsyncConnection, slot: str) -> None:
    """Drop the slot in the moment in which nobody reads it."""
    while True:
        await conn.execute(
            "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots"
            " where slot_name = %s and active_pid is not null",
            [slot],
        )
        with suppress(psycopg.errors.ObjectInUse):
            await conn.execute("select pg_drop_replication_slot(%s)", [slot])
            return
