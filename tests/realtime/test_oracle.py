"""What subscribers are sent, with SELECT as the oracle: random policies, callers, filters, rows.

A decision is one change and one subscriber. Set BUTTERBASE_FUZZ_ROUNDS for more than CI's, and
BUTTERBASE_FUZZ_SEED to begin elsewhere.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg.sql import SQL, Composable, Identifier

from butterbase.ingest.changes import (
    DDL_PREFIX,
    Change,
    Column,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Relation,
    ReplicaIdentity,
    Row,
)
from butterbase.ingest.lsn import LSN
from butterbase.ingest.session import TEXT_SETTINGS
from butterbase.realtime.changes.access import Access, Catalog
from butterbase.realtime.changes.bindings import bind
from butterbase.realtime.changes.compiled.errors import UnanswerableError
from butterbase.realtime.changes.compiled.policies import Visibility, gate_of
from butterbase.realtime.changes.conditions import columns_of
from butterbase.realtime.changes.filters import Term
from butterbase.realtime.changes.hub import Hub, Subscriber
from butterbase.realtime.changes.matching import Binding
from butterbase.realtime.changes.policies import Policies, required_columns
from butterbase.realtime.changes.subscriptions import ChangeRequest
from butterbase.realtime.session.protocol import Version
from butterbase.realtime.window.position import ChangePosition
from butterbase.sql.claims import Claims, claims_for_role
from butterbase.sql.cluster import app_authenticator
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor, Statement
from tests.installation import Installation
from tests.realtime.grammar import SCHEMA, Grammar, World
from tests.realtime.streaming import eventually

ROUNDS = int(os.environ.get("BUTTERBASE_FUZZ_ROUNDS", "60"))
SEED = int(os.environ.get("BUTTERBASE_FUZZ_SEED", "1"))
ROW_COUNT = 16
SUBSCRIBER_COUNT = 14


async def _wait_log() -> None: ...


@dataclass(eq=False)
class Listener:
    claims: Claims
    condition: tuple[Term, ...]
    frames: list[bytes] = field(default_factory=list)
    closed: list[object] = field(default_factory=list)

    def received(self) -> list[tuple[str, int]]:
        """Kinds and ids of the rows, in their order."""
        found = []
        for frame in self.frames:
            data = msgspec.json.decode(frame[frame.index(b"[null") :])[4]["data"]
            row = data.get("record") or data["old_record"]
            found.append((data["type"], row["id"]))
        return found


class Asking(Policies):
    """Asks Postgres about everything, and knows whether a policy failed on a row."""

    has_failed = False

    def _warn(self, access: Access, error: DatabaseError) -> None:
        self.has_failed = True


@dataclass
class Oracle:
    app: Installation
    executor: Executor
    hub: Hub
    asking: Asking
    catalog: Catalog
    counts: Counter[str] = field(default_factory=Counter)
    lsn: int = 0

    async def round(self, seed: int) -> None:
        random = Random(seed)  # noqa: S311  for repetition, not for secrets
        grammar = Grammar(random)
        world = grammar.world(ROW_COUNT)
        self.app.as_owner(world.statements)
        self.catalog.forget()
        relation, rows = await self._table()
        listeners = [await self._listener(grammar, world) for _ in range(SUBSCRIBER_COUNT)]
        changes: list[Change] = [LogicalMessage(DDL_PREFIX, b"ALTER TABLE")]
        changes += [Insert(relation, row) for row in rows]
        changes += [Delete(relation, _key(relation, row)) for row in rows]
        witness = Listener(claims_for_role("service_role"), ())  # of the end: it sees all
        await self._send([*listeners, witness], changes, witness)
        for listener in listeners:
            try:
                await self._check(listener, relation, rows)
            except AssertionError as error:
                error.add_note(f"seed {seed}: {listener.claims} {listener.condition}")
                raise

    async def _listener(self, grammar: Grammar, world: World) -> Listener:
        caller = grammar.caller()
        condition = grammar.filter()
        if caller.role == "authenticated" and not columns_of(condition) <= world.readable:
            condition = ()
        return Listener(Claims(caller.role, caller.json), condition)

    async def _table(self) -> tuple[Relation, list[Row]]:
        """The table and its rows as the log tells them."""
        options = " ".join(
            f"-c {name}={value.replace(' ', chr(92) + ' ')}"
            for name, value in TEXT_SETTINGS.items()
        )
        async with await psycopg.AsyncConnection.connect(
            self.app.main.dsn, options=options, autocommit=True
        ) as conn:
            cursor = await conn.execute(
                "select attname, atttypid::int8, attrelid::int8 from pg_attribute"
                " where attrelid = 'things'::regclass and attnum > 0 order by attnum"
            )
            names = await cursor.fetchall()
            cursor = await conn.execute("select * from things order by id")
            result = cursor.pgresult
            assert result is not None
            values = [
                [result.get_value(row, column) for column in range(result.nfields)]
                for row in range(result.ntuples)
            ]
        columns = tuple(Column(name, oid, -1, is_key=name == "id") for name, oid, _ in names)
        relation = Relation(names[0][2], "public", "things", ReplicaIdentity.DEFAULT, columns)
        return relation, [tuple(v if v is None else v.decode() for v in row) for row in values]

    async def _send(
        self, listeners: Sequence[Listener], changes: Sequence[Change], witness: Listener
    ) -> None:
        subscribers = []
        for listener in listeners:
            subscriber = Subscriber(
                topic="realtime:things",
                version=Version.V2,
                claims=listener.claims,
                bindings=await self._bindings(listener),
                since=ChangePosition(self.hub.tail),
                send=listener.frames.append,
                close=listener.closed.append,
            )
            self.hub.register(subscriber)
            subscribers.append(subscriber)
        self.lsn += 1
        await self.hub.deliver(Commit(LSN(self.lsn), datetime.now(UTC), 1, tuple(changes)))
        await eventually(lambda: len(witness.frames) == len(changes) - 1)
        for subscriber in subscribers:
            self.hub.unregister(subscriber)

    async def _bindings(self, listener: Listener) -> Sequence[Binding]:
        request = ChangeRequest(1, "*", "public", "things", listener.condition)
        bindings = await bind(self.executor, self.catalog, listener.claims, [request])
        assert not bindings.problems, bindings.problems
        return bindings.made

    async def _check(self, listener: Listener, relation: Relation, rows: Sequence[Row]) -> None:
        access = await self.catalog.access(relation.oid, listener.claims.role)
        assert access is not None
        self.counts["decisions"] += 2 * len(rows)
        self.counts[gate_of(access).visibility.name] += 1
        failing_before = self.counts["failing"]
        visible = await self._selected(listener, len(rows))
        expected, received = _told(visible, listener, access), listener.received()
        self.counts["visible"] += len(expected)
        assert listener.closed == []
        if received == expected:
            return
        # A failing policy hides the rows it fails on, and fails SELECT on all; whether Postgres
        # comes to the part that fails is a matter of its plan, and of how often it has planned.
        matching = await self._select(claims_for_role("service_role"), listener.condition)
        self.asking.has_failed = False
        answers = [{*expected}]
        for seen in await self._asked(listener.claims, relation, rows):
            answers.append({*_told([id_ for id_ in matching if id_ in seen], listener, access)})
        assert self.asking.has_failed or self.counts["failing"] > failing_before
        if _is_failing_on(listener.claims, access):
            self.counts["claims that a policy fails on"] += 1
            return
        assert {*received} <= set.union(*answers)
        assert {*received} >= set.intersection(*answers)
        assert received == sorted({*received}, key=_told(matching, listener, access).index)
        self.counts["told by several plans"] += 1

    async def _asked(
        self, claims: Claims, relation: Relation, rows: Sequence[Row]
    ) -> list[set[int]]:
        """What Postgres says of the rows together, and of each by itself."""
        names = [column.name for column in relation.columns]
        images: list[Any] = [dict(zip(names, row, strict=True)) for row in rows]
        together = await self.asking.judge(relation.oid, claims, images)
        alone = [await self.asking.judge(relation.oid, claims, [image]) for image in images]
        return [
            {int(images[index]["id"]) for index in together.visible},
            {int(image["id"]) for image, one in zip(images, alone, strict=True) if one.visible},
        ]

    async def _selected(self, listener: Listener, row_count: int) -> list[int]:
        try:
            return await self._select(listener.claims, listener.condition)
        except DatabaseError:
            self.counts["failing"] += 1
        # A policy fails on some row, and so SELECT on all of them: each for itself.
        found = []
        for number in range(1, row_count + 1):
            with suppress(DatabaseError):
                found += await self._select(listener.claims, listener.condition, number)
        return found

    async def _select(
        self, claims: Claims, condition: Sequence[Term], number: int | None = None
    ) -> list[int]:
        text: Composable = SQL("select id from things where true")
        parameters: list[bytes] = []
        for term in condition:
            text += SQL(" and ") + _condition(term, parameters)
        if number is not None:
            text += SQL(" and id = {}").format(number)
        statement = Statement((text + SQL(" order by id")).as_bytes(None), tuple(parameters))
        (result,) = await self.executor.run_as(claims, statement, read_only=True)
        return [int(id_ or b"") for (id_,) in result.rows()]


SIGNS = {
    "eq": "=",
    "neq": "<>",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "like": "like",
    "ilike": "ilike",
    "match": "~",
    "imatch": "~*",
    "isdistinct": "is distinct from",
}


def _condition(term: Term, parameters: list[bytes]) -> Composable:
    places = []
    for value in term.values if term.operator != "is" else ():
        parameters.append(value.encode())
        places.append(SQL(f"${len(parameters)}"))
    column = Identifier(term.column)
    test: Composable
    match term.operator:
        case "is":
            test = SQL("{} is {}").format(column, SQL(term.values[0]))
        case "in":
            test = SQL("{} in ({})").format(column, SQL(", ").join(places))
            test = test if places else SQL("false")
        case operator:
            test = SQL("{} {} {}").format(column, SQL(SIGNS[operator]), places[0])
    return SQL("not ({})" if term.is_negated else "({})").format(test)


def _is_failing_on(claims: Claims, access: Access) -> bool:
    """Whether Postgres is asked because of what the claims say."""
    predicate = gate_of(access).predicate
    try:
        return predicate is None or predicate.read_claims(claims.json) is None
    except UnanswerableError:
        return True


def _told(visible: Sequence[int], listener: Listener, access: Access) -> list[tuple[str, int]]:
    """Of the rows that may be seen: their inserts, then their deletes."""
    inserted = [("INSERT", id_) for id_ in visible]
    # Of a deleted row the log keeps the key alone.
    needed = {*required_columns(access)} if access.is_row_security_active else set()
    needed |= columns_of(listener.condition)
    return inserted + [("DELETE", id_) for id_ in visible if needed <= {"id"}]


def _key(relation: Relation, row: Row) -> Row:
    return tuple(value if column.is_key else None for column, value in relation.pairs(row))


@pytest.fixture
async def oracle(app: Installation) -> AsyncIterator[Oracle]:
    executor = Executor(app.cluster.dsn(app_authenticator("main"), app.main.name))
    catalog = Catalog(executor, age_s_max=60)
    asking = Asking(executor, catalog, pause_s=30, is_compiling=False)
    hub = Hub(executor, wait_log=_wait_log)
    task = asyncio.create_task(hub.run())
    app.as_owner(SCHEMA)
    yield Oracle(app, executor, hub, asking, catalog)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await executor.close()


async def test_a_subscriber_is_sent_what_it_may_select(oracle: Oracle) -> None:
    for seed in range(SEED, SEED + ROUNDS):
        await oracle.round(seed)
    print(dict(oracle.counts))  # noqa: T201
    assert oracle.counts["decisions"] >= 20_000 * ROUNDS / 60
    assert oracle.counts[Visibility.COMPILED.name] > oracle.counts[Visibility.ASKED.name]
