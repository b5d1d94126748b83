"""Apps that a worker meets for the first time, whose schema may not be there, or change."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from butterbase.api import apps as module
from butterbase.api.apps import Apps
from butterbase.api.errors import UnknownAppError
from butterbase.api.rest.errors import SchemaCacheMissingError
from butterbase.api.rest.request.incoming import HttpRequest
from butterbase.api.settings import ApiSettings
from butterbase.projections.schema_announcer import CHANNEL
from butterbase.sql.apps import FIRST_APP
from butterbase.sql.claims import SERVICE_ROLE, claims_for_role
from butterbase.sql.errors import SpoolFullError
from butterbase.sql.pipeline import Statement
from butterbase.sql.relations.model import SchemaCache
from butterbase.sql.spool import Spool, SpoolRoom
from tests.installation import Installation
from tests.waiting import until

Load = Callable[..., Awaitable[SchemaCache]]

_ROWS = b"select repeat('x', 1048576) from generate_series(1, %d)"
"""So many MiB, each in a piece."""


@pytest.fixture
async def apps(installation: Installation) -> AsyncIterator[Apps]:
    apps = Apps(installation.cluster, ApiSettings())
    yield apps
    await apps.close()


class HeldLoads:
    """Loads that end when the test says so."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[asyncio.Future[SchemaCache]] = asyncio.Queue()

    async def __call__(self, *_executor: Any, **_options: Any) -> SchemaCache:
        ends: asyncio.Future[SchemaCache] = asyncio.get_running_loop().create_future()
        self.begun.put_nowait(ends)
        return await ends


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> HeldLoads:
    held = HeldLoads()
    monkeypatch.setattr(module, "load_schema_cache", held)
    return held


def add_broken_app(installation: Installation) -> None:
    """Its database does not exist."""
    with psycopg.connect(installation.control.dsn, autocommit=True) as conn:
        conn.execute("insert into butterbase.apps (id, database) values ('broken', 'nowhere')")


async def test_an_app_that_cannot_load_hangs_no_other(
    installation: Installation, apps: Apps, loads: HeldLoads
) -> None:
    add_broken_app(installation)
    waiting = asyncio.create_task(apps.find("main"))
    ends = await loads.begun.get()
    broken = await apps.find("broken")
    assert broken.schema.current is None
    with pytest.raises(SchemaCacheMissingError):
        await broken.rest.answer(HttpRequest("GET", "/t", "", []), claims_for_role(SERVICE_ROLE))
    with pytest.raises(UnknownAppError):
        await apps.find("none")
    assert not waiting.done()
    ends.set_result(SchemaCache(server_version=1))
    assert (await waiting).schema.current == SchemaCache(server_version=1)


async def test_an_app_is_loaded_once_for_all_who_ask_and_after_those_who_leave(
    apps: Apps, loads: HeldLoads
) -> None:
    leaving, staying = (asyncio.create_task(apps.find("main")) for _ in range(2))
    ends = await loads.begun.get()
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    ends.set_result(SchemaCache())
    assert await staying is await apps.find("main")
    assert loads.begun.empty()


async def test_a_change_that_is_heard_during_the_first_load_is_loaded(
    installation: Installation, apps: Apps, loads: HeldLoads
) -> None:
    following = asyncio.create_task(apps.follow_schemas())
    try:
        finding = asyncio.create_task(apps.find("main"))
        first = await loads.begun.get()
        with psycopg.connect(installation.control.dsn, autocommit=True) as conn:

            async def is_listening() -> bool:
                query = "select count(*) from pg_stat_activity where query like 'listen%'"
                return conn.execute(query).fetchone() != (0,)

            await until(is_listening)
            conn.execute("select pg_notify(%s, 'main')", [CHANNEL])
        first.set_result(SchemaCache(server_version=1))
        (await loads.begun.get()).set_result(SchemaCache(server_version=2))
        app = await finding
        await until(lambda: app.schema.current == SchemaCache(server_version=2))
    finally:
        following.cancel()
        await asyncio.wait([following])


async def test_ddl_is_seen_once_it_is_committed(installation: Installation, apps: Apps) -> None:
    app = await apps.find("main")
    with (
        psycopg.connect(installation.owner_dsn) as one,
        psycopg.connect(installation.owner_dsn) as other,
    ):
        one.execute("create table first (id int)")
        other.execute("create table second (id int)")  # waits for nobody
        assert not await app.schema.catch_up()
        for conn, name in ((other, "second"), (one, "first")):
            conn.commit()
            assert await app.schema.catch_up()
            assert not await app.schema.catch_up()
            assert app.schema.current is not None
            assert ("public", name) in app.schema.current.tables


async def test_the_newest_thousand_changes_are_kept(installation: Installation, apps: Apps) -> None:
    app = await apps.find("main")
    with psycopg.connect(installation.main.dsn, autocommit=True) as conn:
        conn.execute(
            "insert into butterbase.schema_changes (id) overriding system value"
            " select generate_series(10000, 12999)"
        )
        assert await app.schema.catch_up()
        assert not await app.schema.catch_up()
        query = "select min(id), max(id), count(*) from butterbase.schema_changes"
        assert conn.execute(query).fetchone() == (12000, 12999, 1000)


async def test_an_app_cannot_use_up_the_room_for_large_answers(
    apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = SpoolRoom(16 * 1024**2)
    monkeypatch.setattr(module, "ROOM", room)
    app = await apps.find(FIRST_APP)
    with pytest.raises(SpoolFullError):
        await app.data.run(Statement(_ROWS % 12, is_chunked=True))
    (result,) = await app.data.run(Statement(_ROWS % 4, is_chunked=True))
    assert isinstance(result.body, Spool)
    assert room.used_bytes >= 4 * 1024**2
    result.body.close()
    assert room.used_bytes == 0
