"""The hub's promises under trouble: no gap that a subscriber cannot see."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from butterbase.ingest.changes import (
    DDL_PREFIX,
    Change,
    Column,
    Commit,
    Delete,
    Insert,
    LoggedChanges,
    LogicalMessage,
    QualifiedName,
    Relation,
    ReplicaIdentity,
)
from butterbase.ingest.lsn import LSN, ZERO
from butterbase.realtime.changes.access import Access, AccessColumn, Policy
from butterbase.realtime.changes.compiled.policies import INSTALLED
from butterbase.realtime.changes.filters import Term
from butterbase.realtime.changes.hub import Hub, Subscriber
from butterbase.realtime.changes.matching import Binding, Image
from butterbase.realtime.changes.policies import Verdict
from butterbase.realtime.session.protocol import Closing, Version
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.window.position import ChangePosition, Position
from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline import Executor
from tests.realtime.streaming import ALICE, BOB, DEADLINE_S, eventually, user_claims

NOTES = Relation(
    7, "public", "notes", ReplicaIdentity.DEFAULT, (Column("id", 20, -1, is_key=True),)
)
ID = AccessColumn("id", "int8", "bigint", is_readable=True, is_primary=True)
# Not compiled: each row is asked about.
ACCESS = Access("7", "public", "notes", True, (ID,), (Policy(True, "scripted", ()),))
UID = tuple(function for function in INSTALLED if function.name == "uid")
CAROL = "cccccccc-0000-4000-8000-000000000003"
ANY = Binding(5, "*", "public", "notes")
BEGINNING = ChangePosition(ZERO)


def commit(lsn: int, *changes: Change | int) -> Commit:
    """An integer is an inserted row's id."""
    made = tuple(Insert(NOTES, (str(c),)) if isinstance(c, int) else c for c in changes)
    return Commit(LSN(lsn), datetime.now(UTC), 1, made)


NOWHERE = Executor("host=/nowhere")  # never connected to: the policies are scripted


async def never() -> None:
    await asyncio.Event().wait()


class ScriptedPolicies:
    """Judges as it is told: everything is visible, after what stands in the way."""

    def __init__(self) -> None:
        self.known = ACCESS
        self.failures: list[Exception] = []
        self.asked: list[tuple[Claims, list[str | None]]] = []
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.was_asked = asyncio.Event()

    async def access(self, oid: int, role: str) -> Access:
        return self.known

    async def judge(self, oid: int, claims: Claims, images: Sequence[Image]) -> Verdict:
        self.asked.append((claims, [image["id"] for image in images]))
        self.was_asked.set()
        await self.is_open.wait()
        if self.failures:
            raise self.failures.pop()
        return Verdict(ACCESS, frozenset(range(len(images))))


class Client:
    """A subscriber that keeps what it is sent."""

    def __init__(
        self, claims: Claims, binding: Binding = ANY, *, since: Position = BEGINNING
    ) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed: list[Closing] = []
        self.subscriber = Subscriber(
            topic="realtime:room",
            version=Version.V2,
            claims=claims,
            bindings=[binding],
            since=since,
            send=self.frames.put_nowait,
            close=self.closed.append,
        )

    async def frame(self) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.frames.get()

    async def ids(self, count: int) -> list[int]:
        """The next rows' ids."""
        messages: list[Any] = []
        for _ in range(count):
            frame = await self.frame()
            messages.append(msgspec.json.decode(frame[frame.index(b"[") :]))
        return [message[4]["data"]["record"]["id"] for message in messages]


class Bench:
    def __init__(self, settings: RealtimeSettings) -> None:
        self.hub = Hub(NOWHERE, wait_log=never, settings=settings)
        self.policies = ScriptedPolicies()
        self.hub._judges.policies = self.policies  # type: ignore[assignment]  # a script

    def join(
        self, user: str = ALICE, binding: Binding = ANY, *, since: Position | None = None
    ) -> Client:
        """From where it says, or from now on."""
        since = since or ChangePosition(self.hub.tail)
        client = Client(user_claims(user), binding, since=since)
        self.hub.register(client.subscriber)
        return client


@asynccontextmanager
async def bench(**settings: Any) -> AsyncIterator[Bench]:
    bench = Bench(RealtimeSettings(database_retry_s=0.01, **settings))
    task = asyncio.create_task(bench.hub.run())
    try:
        yield bench
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_messages_keep_the_order_of_the_log() -> None:
    async with bench(batch_change_count_max=2) as b:
        client = b.join()
        await b.hub.deliver(commit(1, 1, 2, 3, 4, 5))
        await b.hub.deliver(commit(2, 6))
        assert await client.ids(6) == [1, 2, 3, 4, 5, 6]
        assert [ids for _, ids in b.policies.asked] == [["1", "2"], ["3", "4"], ["5", "6"]]


async def test_a_batch_takes_no_more_values_than_are_bounded() -> None:
    async with bench(batch_bytes_max=4) as b:
        client = b.join()
        await b.hub.deliver(commit(1, 10, 20, 30, 4000, 50))
        assert await client.ids(5) == [10, 20, 30, 4000, 50]
        assert [ids for _, ids in b.policies.asked] == [["10", "20"], ["30", "4000"], ["50"]]


async def test_a_statement_serves_all_with_the_same_claims_and_one_frame_all_who_read_alike() -> (
    None
):
    async with bench() as b:
        alices, bob = [b.join(ALICE) for _ in range(3)], b.join(BOB)
        await b.hub.deliver(commit(1, 1))
        frames = {id(await client.frame()) for client in [*alices, bob]}
        assert len(frames) == 1
        assert len(b.policies.asked) == 2


async def test_commits_before_the_join_are_not_sent() -> None:
    async with bench() as b:
        client = b.join(since=ChangePosition(LSN(5)))
        await b.hub.deliver(commit(5, 1))
        await b.hub.deliver(commit(6, 2))
        assert await client.ids(1) == [2]


async def test_other_schemas_reach_nobody() -> None:
    private = Insert(Relation(8, "auth", "notes", ReplicaIdentity.DEFAULT, NOTES.columns), ("1",))
    async with bench() as b:
        client = b.join(binding=Binding(5, "*", "*", "*"))
        await b.hub.deliver(commit(1, private, 2))
        assert await client.ids(1) == [2]


async def test_commits_wait_while_the_database_is_away() -> None:
    async with bench() as b:
        client = b.join()
        b.policies.failures = [DatabaseUnavailableError() for _ in range(3)]
        await b.hub.deliver(commit(1, 1))
        await b.hub.deliver(commit(2, 2))
        assert await client.ids(2) == [1, 2]
        assert client.closed == []


async def test_what_comes_again_after_a_restart_makes_nobody_wait_who_has_had_it() -> None:
    async with bench(queued_change_count_max=3) as b:
        clients = [
            b.join(since=ChangePosition(LSN(100), 1)),
            b.join(since=ChangePosition(LSN(200))),
        ]
        for lsn in range(1, 100):
            await b.hub.deliver(commit(lsn, lsn))
        # Of this one the first has had the first change, and the second has had all.
        await b.hub.deliver(commit(100, 1, 2))
        await b.hub.deliver(commit(201, 3))
        assert await clients[0].ids(2) == [2, 3]
        assert await clients[1].ids(1) == [3]
        assert [client.closed for client in clients] == [[], []]
        assert len(b.policies.asked) <= 4


class Large(LoggedChanges):
    """Changes as the log tells them, of so many bytes."""

    tables = frozenset({NOTES.qualified_name})
    may_have_ddl = False

    def __init__(self, held_bytes: int, changes: Sequence[Change]) -> None:
        self._held_bytes = held_bytes
        self._changes = changes

    def __len__(self) -> int:
        return len(self._changes)

    def __iter__(self) -> Iterator[Change]:
        return iter(self._changes)

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def of(self, tables: Collection[QualifiedName]) -> Iterator[Change]:
        return iter(self._changes if NOTES.qualified_name in tables else ())


async def test_waiting_changes_that_are_too_large_close_the_subscribers() -> None:
    def large(lsn: int) -> Commit:
        made = commit(lsn, lsn)
        return msgspec.structs.replace(made, changes=Large(1000, tuple(made.changes)))

    async with bench(queued_bytes_max=2500) as b:
        client = b.join()
        b.policies.is_open.clear()
        await b.hub.deliver(large(1))
        await asyncio.wait_for(b.policies.was_asked.wait(), DEADLINE_S)
        for lsn in (2, 3):
            await b.hub.deliver(large(lsn))
        assert client.closed == []
        await b.hub.deliver(large(4))
        assert client.closed == [Closing.OVERLOADED]
        b.policies.is_open.set()
        again = b.join()
        await b.hub.deliver(large(5))  # what was dropped does not count any more
        assert await again.ids(1) == [5]


async def test_too_many_waiting_changes_close_the_subscribers() -> None:
    async with bench(queued_change_count_max=3) as b:
        client = b.join()
        b.policies.is_open.clear()
        await b.hub.deliver(commit(1, 1))
        await asyncio.wait_for(b.policies.was_asked.wait(), DEADLINE_S)
        await b.hub.deliver(commit(2, 2, 3))
        assert client.closed == []
        await b.hub.deliver(commit(3, 4, 5))
        assert client.closed == [Closing.OVERLOADED]
        again = b.join()
        b.policies.is_open.set()
        await b.hub.deliver(commit(4, 6))
        assert await again.ids(1) == [6]
        assert client.frames.empty()


async def test_a_fault_closes_the_subscribers_and_the_hub_goes_on() -> None:
    async with bench() as b:
        client = b.join()
        b.policies.failures = [RuntimeError("a bug")]
        await b.hub.deliver(commit(1, 1))
        await eventually(lambda: bool(client.closed))
        assert client.closed == [Closing.FAILED]
        again = b.join()
        await b.hub.deliver(commit(2, 2))
        assert await again.ids(1) == [2]


async def test_claims_that_change_while_they_are_judged_are_judged_again() -> None:
    async with bench() as b:
        client, other = b.join(ALICE), b.join(BOB)
        b.policies.is_open.clear()
        await b.hub.deliver(commit(1, 1))
        await asyncio.wait_for(b.policies.was_asked.wait(), DEADLINE_S)
        client.subscriber.claims = user_claims(CAROL)
        b.policies.is_open.set()
        assert await client.ids(1) == [1]
        assert await other.ids(1) == [1]
        asked = [claims.subject for claims, _ in b.policies.asked]
        assert sorted(asked[:2], key=str) == [ALICE, BOB]
        assert asked[2:] == [CAROL]


async def test_an_expired_or_gone_subscriber_is_sent_nothing() -> None:
    async with bench() as b:
        expired, gone, last = b.join(), b.join(), b.join()
        expired.subscriber.claims = user_claims(ALICE, expires_at=1)
        b.policies.is_open.clear()
        await b.hub.deliver(commit(1, 1))
        await asyncio.wait_for(b.policies.was_asked.wait(), DEADLINE_S)
        b.hub.unregister(gone.subscriber)
        b.policies.is_open.set()
        assert await last.ids(1) == [1]
        assert expired.frames.empty()
        assert gone.frames.empty()


async def test_a_filter_on_an_unreadable_column_tells_nothing() -> None:
    columns = (*NOTES.columns, Column("secret", 25, -1, is_key=False))
    relation = Relation(7, "public", "notes", ReplicaIdentity.DEFAULT, columns)
    async with bench() as b:
        spy = b.join(binding=Binding(6, "*", "public", "notes", (Term("secret", "eq", ("x",)),)))
        client = b.join()
        await b.hub.deliver(commit(1, Insert(relation, ("1", "x"))))
        assert await client.ids(1) == [1]
        assert spy.frames.empty()


@pytest.mark.parametrize("is_listening", [True, False])
async def test_ddl_makes_the_hub_forget_what_it_read(
    monkeypatch: pytest.MonkeyPatch, is_listening: bool
) -> None:
    asked_before: list[int] = []
    async with bench() as b:
        monkeypatch.setattr(
            b.hub._judges.catalog, "forget", lambda: asked_before.append(len(b.policies.asked))
        )
        client = b.join() if is_listening else None
        await b.hub.deliver(commit(1, 1))
        await b.hub.deliver(commit(2, 2, LogicalMessage(DDL_PREFIX, b"ALTER TABLE"), 3))
        if client is not None:
            assert await client.ids(3) == [1, 2, 3]
        assert asked_before == [1 if is_listening else 0]


async def test_policies_apply_from_where_the_log_says_that_they_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown, hidden = (
        msgspec.structs.replace(ACCESS, policies=(Policy(True, text, (), (), True),))
        for text in ("true", "false")
    )
    async with bench() as b:
        b.policies.known = shown

        def forget() -> None:
            b.policies.known = hidden if b.policies.known is shown else shown

        monkeypatch.setattr(b.hub._judges.catalog, "forget", forget)
        client = b.join()
        ddl = LogicalMessage(DDL_PREFIX, b"ALTER POLICY")
        await b.hub.deliver(commit(1, 1))
        await b.hub.deliver(commit(2, 2, ddl, 3))
        await b.hub.deliver(commit(3, 4))
        await b.hub.deliver(commit(4, 5, ddl, 6))
        assert await client.ids(3) == [1, 5, 6]
        assert b.policies.asked == []


async def test_new_claims_apply_from_the_next_change_on() -> None:
    own = Policy(True, "(owner = auth.uid())", ("owner",), UID, True)
    owner = AccessColumn("owner", "uuid", "uuid", True, False, None, 2950, "b", True)
    relation = Relation(
        7,
        "public",
        "notes",
        ReplicaIdentity.DEFAULT,
        (*NOTES.columns, Column("owner", 2950, -1, is_key=False)),
    )
    async with bench() as b:
        b.policies.known = msgspec.structs.replace(ACCESS, columns=(ID, owner), policies=(own,))
        client, witness = b.join(ALICE), b.join(BOB)
        changes = [Insert(relation, (str(n), ALICE if n % 2 else BOB)) for n in range(1, 5)]
        await b.hub.deliver(commit(1, *changes[:2]))
        assert await witness.ids(1) == [2]
        client.subscriber.claims = user_claims(BOB)
        await b.hub.deliver(commit(2, *changes[2:]))
        assert await witness.ids(1) == [4]
        assert await client.ids(2) == [1, 4]
        assert client.frames.empty()


SESSIONS = Relation(
    8, "auth", "sessions", ReplicaIdentity.DEFAULT, (Column("id", 2950, -1, is_key=True),)
)


async def test_the_end_of_a_session_closes_its_sockets_and_no_others() -> None:
    async with bench() as b:
        ended, other = Client(session_of("s1")), Client(session_of("s2"))
        for client in (ended, other):
            b.hub.register(client.subscriber)
        await b.hub.deliver(commit(1, Delete(SESSIONS, ("s1",))))
        assert (ended.closed, other.closed) == ([Closing.SESSION_ENDED], [])
        await b.hub.deliver(commit(2, 7))
        assert await other.ids(1) == [7]
        assert ended.frames.empty()


def session_of(session_id: str) -> Claims:
    return msgspec.structs.replace(user_claims(ALICE), session_id=session_id)
