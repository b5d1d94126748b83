"""Subscribers that are cut and come back, a workload for them, and what they must have seen."""

import asyncio
import random
from dataclasses import dataclass, field

import msgspec
import psycopg

from butterbase.realtime.changes.hub import Hub, Subscriber
from butterbase.realtime.changes.subscriptions import ChangeRequest
from butterbase.realtime.session.protocol import Closing
from butterbase.realtime.sockets.event_stream import EventStream
from butterbase.realtime.window.position import Position, ReadPosition, parse_position
from butterbase.sql.claims import Claims, claims_for_role
from tests.installation import Installation
from tests.waiting import until

EVENTS = """
    drop table if exists events;
    create table events (
      id bigint generated always as identity primary key,
      xid xid8 not null default pg_current_xact_id(), body text);
    grant select on events to service_role, authenticated;
"""
EVERY_EVENT = ChangeRequest(1, "*", "public", "events")
READ = """
    select pg_current_wal_insert_lsn()::text || '@' || pg_current_snapshot()::text,
      (select coalesce(array_agg(id), '{}') from events)
"""
_TRUTH = """
    select data from pg_logical_slot_get_binary_changes(
      %s, null, null, 'proto_version', '1', 'publication_names', 'butterbase')
    where substring(data for 6) = 'I' || int4send('events'::regclass::oid::int) || 'N'
"""
SERVICE = claims_for_role("service_role")


class Event(msgspec.Struct, frozen=True):
    position: str
    id: int


class Listener:
    """One subscription over all its connections."""

    def __init__(self, claims: Claims = SERVICE) -> None:
        self.claims = claims
        self.events: list[Event] = []
        self.began_at: Position | None = None
        self.position: Position | None = None
        """Where to go on."""
        self.closed: list[Closing] = []
        self.is_slow = False
        self._subscriber: Subscriber | None = None

    @property
    def ids(self) -> list[int]:
        return [event.id for event in self.events]

    async def open(self, hub: Hub) -> None:
        """Raises ResyncRequiredError, and what else prevents it."""
        prepared = await hub.prepare(self.claims, [EVERY_EVENT], self.position)
        assert not prepared.problems
        if self.began_at is None:
            self.began_at = prepared.since
        self.position = prepared.since
        self._subscriber = Subscriber(
            topic="realtime:events",
            version=EventStream.V1,
            claims=self.claims,
            bindings=prepared.bindings,
            since=prepared.since,
            send=self._take,
            close=self.closed.append,
            is_full=lambda: self.is_slow,
        )
        hub.register(self._subscriber)

    def cut(self, hub: Hub) -> None:
        if self._subscriber is not None:
            hub.unregister(self._subscriber)
            self._subscriber = None

    def _take(self, message: bytes) -> None:
        event = read_event(message)
        self.events.append(event)
        self.position = parse_position(event.position)


def read_event(message: bytes) -> Event:
    lines = dict(line.split(": ", 1) for line in message.decode().splitlines() if line)
    data = msgspec.json.decode(lines["data"])
    assert (lines["event"], lines["id"]) == (data["type"], data["position"])
    return Event(lines["id"], data["record"]["id"])


@dataclass
class Truth:
    """What the log says, read by hand over a slot of its own."""

    installation: Installation
    slot: str = field(init=False)
    ids: list[int] = field(default_factory=list)
    """Of all rows that were committed, in the order of their commits."""

    def __post_init__(self) -> None:
        self.slot = f"truth_{self.installation.main.name}"
        with psycopg.connect(self.installation.main.dsn, autocommit=True) as conn:
            conn.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [self.slot])

    async def read(self) -> list[int]:
        """All that are in the table by now."""
        with psycopg.connect(self.installation.main.dsn, autocommit=True) as conn:
            rows = conn.execute("select id from events").fetchall()
            there = {id_ for (id_,) in rows}

            def is_read() -> bool:
                rows = conn.execute(_TRUTH, [self.slot]).fetchall()
                self.ids += [_first_column(data) for (data,) in rows]
                return there.issubset(self.ids)

            await until(is_read)  # what was committed may not be in the log's file yet
        return self.ids

    def drop(self) -> None:
        with psycopg.connect(self.installation.main.dsn, autocommit=True) as conn:
            conn.execute("select pg_drop_replication_slot(%s)", [self.slot])

    def behind(self, position: Position | None) -> list[int]:
        """The rows whose commits the read did not see."""
        assert isinstance(position, ReadPosition)
        with psycopg.connect(self.installation.main.dsn) as conn:
            rows = conn.execute("select id, xid::text::int8 from events").fetchall()
        xids: dict[int, int] = dict(rows)
        return [id_ for id_ in self.ids if not position.snapshot.sees(xids[id_])]


def _first_column(insert: bytes) -> int:
    """Of an Insert message: kind, oid, N, number of columns; t, length, text."""
    length = int.from_bytes(insert[9:13], "big")
    return int(insert[13 : 13 + length])


async def write(dsn: str, seed: int, transaction_count: int) -> None:
    """Transactions of some rows, with rollbacks of parts and wholes."""
    chance = random.Random(seed)  # noqa: S311
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        for _ in range(transaction_count):
            for _ in range(chance.randint(1, 4)):
                await conn.execute("savepoint part")
                await conn.execute("insert into events (body) values (%s)", [chance.random()])
                if chance.random() < 0.2:
                    await conn.execute("rollback to part")
                if chance.random() < 0.3:
                    await asyncio.sleep(0.002)
            await (conn.rollback() if chance.random() < 0.15 else conn.commit())


async def read(dsn: str) -> tuple[Position, list[int]]:
    """The position of a read, and what it saw."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        row = await (await conn.execute(READ)).fetchone()
    assert row is not None
    return parse_position(row[0]), row[1]
