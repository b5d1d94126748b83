"""Which logs are read, by whom, and what becomes of their slots."""

import asyncio
import time
import uuid
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.api.apps import keys_of
from butterbase.api.auth import config_store
from butterbase.api.auth.tokens import Tokens, TokenSubject
from butterbase.api.settings import ApiSettings
from butterbase.cli import app_stream, streams
from butterbase.cli.errors import SteppedDownError
from butterbase.cli.setup import Needs, publish_app, set_up, slot_name
from butterbase.cli.streams import Streams
from butterbase.sql.apps import create_app
from butterbase.sql.errors import InvalidTokenError
from tests.following import following, settings_of
from tests.installation import Installation
from tests.waiting import until

SLOTS = "select slot_name, active from pg_replication_slots where slot_name = any(%s)"
SUBJECT = TokenSubject(str(uuid.uuid4()), "ana@example.com", str(uuid.uuid4()), {}, {})
PUBLISHED = """
select coalesce(array_agg(distinct schemaname), '{}'), coalesce(array_agg(tablename::text), '{}')
from pg_publication_tables
"""


@pytest.fixture
def embedder(tmp_path: Path) -> LazyEmbedder:
    return LazyEmbedder(EmbedderSettings(), tmp_path)


class Slots:
    """Of an installation, with whether each is read."""

    def __init__(self, conn: AsyncConnection, installation: Installation) -> None:
        self._conn = conn
        self._names = {
            "control": slot_name(installation.control.name),
            "main": slot_name(installation.main.name),
        }

    async def read(self) -> dict[str, bool]:
        cursor = await self._conn.execute(SLOTS, [list(self._names.values())])
        active: dict[str, bool] = dict(await cursor.fetchall())
        return {what: active[name] for what, name in self._names.items() if name in active}

    async def are(self, **wanted: bool) -> None:
        async def is_so() -> bool:
            return await self.read() == wanted

        await until(is_so)


@pytest.fixture
def slots(control: AsyncConnection, installation: Installation) -> Slots:
    return Slots(control, installation)


async def test_an_app_whose_log_nobody_needs_has_no_slot(
    installation: Installation, control: AsyncConnection, slots: Slots, embedder: LazyEmbedder
) -> None:
    async with following(installation, embedder):
        await slots.are(control=True, main=True)
        await control.execute("update butterbase.apps set realtime = false, functions = false")
        await control.execute("update butterbase.apps set collections = false")
        await slots.are(control=True)
        await control.execute("update butterbase.apps set realtime = true")
        await slots.are(control=True, main=True)
    await control.execute("update butterbase.apps set realtime = false")
    async with following(installation, embedder):
        await slots.are(control=True)
    await set_up(installation.cluster, database=installation.main.name)
    await slots.are(control=False)


async def test_the_slot_of_an_app_that_is_removed_is_dropped(
    installation: Installation, control: AsyncConnection, slots: Slots, embedder: LazyEmbedder
) -> None:
    async with following(installation, embedder):
        await slots.are(control=True, main=True)
        await control.execute("delete from butterbase.apps")
        await slots.are(control=True)

        async def is_forgotten() -> bool:
            cursor = await control.execute("select count(*) from butterbase.app_slots")
            return await cursor.fetchone() == (0,)

        await until(is_forgotten)


async def test_so_it_is_when_nobody_read_the_log_at_the_time(
    installation: Installation, control: AsyncConnection, slots: Slots, embedder: LazyEmbedder
) -> None:
    await set_up(installation.cluster, database=installation.main.name)
    await slots.are(control=False, main=False)
    await control.execute("delete from butterbase.apps")
    async with following(installation, embedder):
        await slots.are(control=True)


async def test_an_app_that_is_made_is_followed(
    installation: Installation, control: AsyncConnection, slots: Slots, embedder: LazyEmbedder
) -> None:
    await control.execute("delete from butterbase.apps")
    async with following(installation, embedder):
        await slots.are(control=True)
        await create_app(installation.cluster, "main", database=installation.main.name)
        await slots.are(control=True, main=True)


async def test_a_key_that_was_retired_is_heard_of(
    installation: Installation,
    main: AsyncConnection,
    embedder: LazyEmbedder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app_stream, "CACHED_S", 0.02)
    monkeypatch.setattr(config_store, "CACHED_S", 0.02)
    keys = keys_of(installation.cluster, "main", installation.app.created_at, ApiSettings())
    retired = Tokens(keys).sign(SUBJECT, now_s=int(time.time()), life_s=3600)
    async with following(installation, embedder) as running:
        await until(lambda: running.realtime("main") is not None)
        realtime = running.realtime("main")
        assert realtime is not None
        authenticate = realtime.authenticate
        assert authenticate(retired).subject == SUBJECT.id
        await main.execute("insert into auth.settings (config) values ('{\"key_epoch\": 3}')")

        def is_refused() -> bool:
            try:
                authenticate(retired)
            except InvalidTokenError:
                return True
            return False

        await until(is_refused)


async def test_of_two_one_leads_and_the_other_takes_over(
    installation: Installation, slots: Slots, embedder: LazyEmbedder
) -> None:
    async with following(installation, embedder) as second:
        await until(second.is_leading.is_set)
        async with following(installation, embedder) as third:
            await slots.are(control=True, main=True)
            assert not third.is_leading.is_set()
            assert third.status() == []
    async with following(installation, embedder) as fourth:
        await until(fourth.is_leading.is_set)
        await slots.are(control=True, main=True)


async def test_who_was_taken_over_from_steps_down(
    installation: Installation,
    control: AsyncConnection,
    slots: Slots,
    embedder: LazyEmbedder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "STEP_DOWN_S", 0.1)
    monkeypatch.setattr(streams, "RETRY_S", 0.05)
    first = Streams(installation.cluster, settings_of(installation), embedder)
    task = asyncio.create_task(first.run())
    await slots.are(control=True, main=True)
    # As somebody else would hold it.
    key = f"butterbase.consumer {slot_name(installation.control.name)}"
    taking = asyncio.create_task(
        control.execute("select pg_advisory_lock(hashtextextended(%s, 0))", [key])
    )
    async with await AsyncConnection.connect(installation.control.dsn, autocommit=True) as other:
        await until(lambda: _waits_for_a_lock(other))
        await other.execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots"
            " where slot_name = %s",
            [slot_name(installation.control.name)],
        )
    await taking
    with pytest.raises(SteppedDownError):
        async with asyncio.timeout(20):
            await task


async def _waits_for_a_lock(conn: AsyncConnection) -> bool:
    cursor = await conn.execute(
        "select exists (select from pg_locks where locktype = 'advisory' and not granted)"
    )
    return await cursor.fetchone() == (True,)


# Publications


async def published(conn: AsyncConnection) -> tuple[set[str], set[str]]:
    """Schemas and tables."""
    row = await (await conn.execute(PUBLISHED)).fetchone()
    assert row is not None
    return set(row[0]), set(row[1])


async def test_what_is_published_is_what_is_needed(
    installation: Installation, main: AsyncConnection
) -> None:
    await main.execute("create table public.items (id int primary key)")
    name = installation.main.name
    await publish_app(installation.cluster, name, Needs(), ["public"])
    assert await published(main) >= ({"public", "ai", "auth", "realtime"}, {"items", "documents"})
    await publish_app(
        installation.cluster, name, Needs(realtime=False, functions=False), ["public"]
    )
    assert await published(main) == ({"ai"}, {"collections", "documents"})
    await publish_app(
        installation.cluster, name, Needs(realtime=False, collections=False), ["public"]
    )
    assert await published(main) == (
        {"public", "auth", "functions"},
        {"items", "users", "triggers"},
    )
    await publish_app(
        installation.cluster, name, Needs(collections=False, functions=False), ["public"]
    )
    schemas, tables = await published(main)
    assert (schemas, "documents" in tables) == ({"public", "auth", "realtime"}, False)


async def test_a_schema_that_is_made_later_is_published_then(
    installation: Installation, main: AsyncConnection, embedder: LazyEmbedder, slots: Slots
) -> None:
    async with following(installation, embedder, realtime_schemas="public, shop"):
        await slots.are(control=True, main=True)

        async def is_published(table: str) -> bool:
            return table in (await published(main))[1]

        await main.execute("create schema shop create table carts (id int primary key)")
        await until(lambda: is_published("carts"))
        await main.execute("drop schema shop cascade")
        await main.execute("create schema shop create table orders (id int primary key)")
        await until(lambda: is_published("orders"))
