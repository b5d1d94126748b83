"""The days of `realtime.messages`."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.realtime.rooms.partitions import Partitions, expired, missing, name_of
from tests.following import following
from tests.installation import Installation
from tests.realtime.channels import enter, heard
from tests.realtime.streaming import Stream
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEND = "select realtime.send('1', 'e', 'room', false)"


def today() -> date:
    return datetime.now(UTC).date()


@pytest.fixture
def kept(app: Installation) -> Iterator[Installation]:
    app.as_owner("truncate realtime.messages")
    yield app
    app.as_owner("truncate realtime.messages")


def partitions(installation: Installation) -> set[str]:
    with psycopg.connect(installation.main.dsn) as conn:
        rows = conn.execute(
            "select inhrelid::regclass::text from pg_inherits"
            " where inhparent = 'realtime.messages'::regclass"
        ).fetchall()
    return {name.removeprefix("realtime.messages_") for (name,) in rows}


async def test_days_are_named_and_told() -> None:
    day = date(2026, 2, 28)
    assert name_of(day) == "messages_2026_02_28"
    assert [d.day for d in missing({"messages_2026_03_01"}, day)] == [28, 2, 3]
    names = {name_of(day - timedelta(days=n)) for n in range(6)} | {
        "messages_default",
        "messages_x",
    }
    assert expired(names, day) == ["messages_2026_02_23", "messages_2026_02_24"]


async def test_days_are_made_ahead_and_dropped_when_they_are_over(kept: Installation) -> None:
    keeper = Partitions(kept.owner_dsn)
    day = date(2031, 1, 1)
    await keeper.keep(day)
    await keeper.keep(day)
    assert {"2031_01_01", "2031_01_04"} <= partitions(kept)
    kept.as_owner(
        "insert into realtime.messages (topic, extension, inserted_at)"
        " values ('t', 'broadcast', '2031-01-02 10:00'), ('t', 'broadcast', '2031-01-20')"
    )
    await keeper.keep(day + timedelta(days=4))
    names = partitions(kept)
    assert "2031_01_01" not in names
    assert {"2031_01_02", "2031_01_08", "default"} <= names
    await keeper.keep(day + timedelta(days=30))
    with psycopg.connect(kept.main.dsn) as conn:
        assert conn.execute("select count(*) from realtime.messages").fetchone() == (0,)
    assert "2031_01_08" not in partitions(kept)


async def test_a_day_that_began_in_the_default_partition_stays_there(kept: Installation) -> None:
    kept.as_owner(
        "insert into realtime.messages (topic, extension, inserted_at)"
        " values ('t', 'broadcast', '2032-01-02 10:00')"
    )
    await Partitions(kept.owner_dsn).keep(date(2032, 1, 1))
    assert partitions(kept) >= {"2032_01_01", "2032_01_03", "2032_01_04"}
    assert "2032_01_02" not in partitions(kept)


async def test_messages_of_every_partition_are_sent(stream: Stream, kept: Installation) -> None:
    async with stream.client() as client:
        await enter(client)
        kept.as_owner(SEND)
        assert await heard(client) == 1
        kept.as_owner("truncate realtime.messages")
        day = today()
        await Partitions(kept.owner_dsn).keep(day)
        kept.as_owner(SEND)
        assert await heard(client) == 1
    with psycopg.connect(kept.main.dsn) as conn:
        rows = conn.execute("select tableoid::regclass::text from realtime.messages").fetchall()
    # Midnight may have come in between.
    assert rows in [[(f"realtime.{name_of(day + timedelta(days=n))}",)] for n in (0, 1)]


async def test_partitions_show_nobody_what_their_table_hides(kept: Installation) -> None:
    day = today()
    await Partitions(kept.owner_dsn).keep(day)
    for role in ("anon", "authenticated"):
        with pytest.raises(InsufficientPrivilege):
            kept.as_owner(f"set role {role}; table realtime.{name_of(day)}")


async def test_the_stream_process_keeps_the_partitions(
    installation: Installation, tmp_path: Path
) -> None:
    embedder = LazyEmbedder(EmbedderSettings(), tmp_path)
    async with following(installation, embedder):
        await until(lambda: name_of(today()).removeprefix("messages_") in partitions(installation))
    await embedder.close()
