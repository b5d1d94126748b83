"""The worker and its queue: nothing is lost, nothing done twice, nobody waits for others' files."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import AsyncConnection

from butterbase.ai.documents import jobs
from butterbase.ai.documents import worker as worker_module
from butterbase.ai.documents.assembly import Extracted
from butterbase.ai.documents.errors import DocumentError, FetchFailedError, ParserTimeoutError
from butterbase.ai.documents.jobs import Job, Stage
from butterbase.ai.documents.settings import DocumentSettings
from butterbase.ai.documents.worker import DocumentSlots, DocumentWorker
from butterbase.sql.cluster import LoginRole
from tests.ai.documents import making
from tests.ai.documents.children import children_of, command_of
from tests.ai.upstream import answer, running_upstream, silence
from tests.installation import Installation
from tests.waiting import until

TEXT = Extracted("text", None, "", {})


class Queue:
    """Documents as their owners have sent them, and what has become of them."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.dsn = installation.cluster.dsn(LoginRole.STREAM, installation.main.name)
        self._conn = psycopg.connect(installation.main.dsn, autocommit=True)
        self._collection = self.one("insert into ai.collections (name) values ('c') returning id")

    def close(self) -> None:
        self._conn.close()

    def one(self, statement: str, *values: Any) -> Any:
        row = self._conn.execute(statement.encode(), values).fetchone()
        return None if row is None else row[0]

    def send(self, data: bytes = b"words", name: str = "a.txt", owner: UUID | None = None) -> UUID:
        with self._conn.transaction():
            id_ = self._document()
            self._conn.execute(
                "insert into ai.ingestions (document_id, owner_id, file_name)"
                " values (%s, coalesce(%s, '00000000-0000-0000-0000-000000000000'::uuid), %s)",
                [id_, owner, name],
            )
            self._conn.execute("insert into ai.uploads values (%s, 0, %s)", [id_, data])
        return id_

    def send_url(self, url: str) -> UUID:
        with self._conn.transaction():
            id_ = self._document()
            self._conn.execute(
                "insert into ai.ingestions (document_id, stage, source_url)"
                " values (%s, 'fetch', %s)",
                [id_, url],
            )
        return id_

    def _document(self) -> UUID:
        id_: UUID = self.one(
            "insert into ai.documents (collection_id) values (%s) returning id", self._collection
        )
        return id_

    def status(self, document: UUID) -> str:
        return str(self.one("select status from ai.ingestions where document_id = %s", document))

    def is_parsed(self, document: UUID) -> bool:
        return self.status(document) == "parsed"

    def counts(self) -> dict[str, int]:
        rows = self._conn.execute(
            "select status, count(*) from ai.ingestions group by 1"
        ).fetchall()
        return dict(rows)

    def content(self, document: UUID) -> str | None:
        found: str | None = self.one("select content from ai.documents where id = %s", document)
        return found

    def worker(self, **settings: Any) -> DocumentWorker:
        return DocumentWorker(DocumentSlots(DocumentSettings(**settings)), self.dsn)


@pytest.fixture
def queue(installation: Installation) -> Iterator[Queue]:
    queue = Queue(installation)
    yield queue
    queue.close()


@pytest.fixture
async def conn(queue: Queue) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(queue.dsn, autocommit=True) as conn:
        yield conn


@asynccontextmanager
async def working(*workers: DocumentWorker) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def take(
    conn: AsyncConnection, stage: Stage = "parse", *, after: UUID | None = None, lease_s: float = 60
) -> Job | None:
    return await jobs.take(conn, stage, after=after, lease_s=lease_s)


# The queue


async def test_owners_take_turns(queue: Queue, conn: AsyncConnection) -> None:
    one, two = sorted([uuid4(), uuid4()])
    for _ in range(3):
        queue.send(owner=one)
    queue.send(owner=two)
    queue.send()
    turns: list[UUID] = []
    while job := await take(conn, after=turns[-1] if turns else None):
        turns.append(job.owner_id)
    assert turns == [UUID(int=0), one, two, one, one]


async def test_two_who_take_at_once_take_different_jobs(queue: Queue) -> None:
    sent = {queue.send() for _ in range(20)}

    async def take_all() -> list[UUID]:
        async with await AsyncConnection.connect(queue.dsn, autocommit=True) as conn:
            taken = []
            while job := await take(conn):
                taken.append(job.document_id)
            return taken

    taken = [id_ for ids in await asyncio.gather(*(take_all() for _ in range(4))) for id_ in ids]
    assert sorted(taken) == sorted(sent)


async def test_a_lease_that_ran_out_is_taken_anew_and_the_first_outcome_is_not(
    queue: Queue, conn: AsyncConnection
) -> None:
    document = queue.send()
    first = await take(conn, lease_s=0)
    second = await take(conn)
    assert first is not None
    assert second is not None
    await jobs.finish_parse(conn, first, TEXT, is_kept=True)
    await jobs.fail(conn, first, FetchFailedError())
    await jobs.give_back(conn, first)
    assert (queue.status(document), queue.content(document)) == ("parsing", None)
    await jobs.finish_parse(conn, second, TEXT, is_kept=True)
    assert (queue.status(document), queue.content(document)) == ("parsed", "text")


async def test_what_was_sent_anew_or_deleted_meanwhile_is_not_overwritten(
    queue: Queue, conn: AsyncConnection
) -> None:
    document, gone = queue.send(), queue.send()
    taken = [job for _ in range(2) if (job := await take(conn))]
    queue.one(
        "update ai.ingestions set lease_token = null where document_id = %s returning 1", document
    )
    queue.one("delete from ai.documents where id = %s returning 1", gone)
    for job in taken:
        await jobs.finish_parse(conn, job, TEXT, is_kept=False)
    assert queue.content(document) is None
    assert queue.one("select count(*) from ai.uploads") == 1


@pytest.mark.parametrize(("failure", "count"), [(FetchFailedError, 5), (ParserTimeoutError, 2)])
async def test_a_failure_is_tried_again_later_and_at_last_no_more(
    queue: Queue, conn: AsyncConnection, failure: type[DocumentError], count: int
) -> None:
    document = queue.send()
    for attempt in range(count):
        assert queue.status(document) == ("failed" if attempt else "received")
        job = await take(conn)
        assert job is not None
        await jobs.fail(conn, job, failure("the server answered 503"))
        assert await take(conn) is None, "not at once"
        due_s = await jobs.next_due_s(conn)
        assert due_s is None or due_s > 0
        queue.one("update ai.ingestions set retry_at = now() returning 1")
    assert queue.status(document) == "dead"
    assert queue.one("select error from ai.ingestions") == "the server answered 503"


@pytest.mark.parametrize(("attempts", "expected"), [(1, 5), (2, 10), (5, 80), (1000, 600)])
def test_delays_grow_to_a_limit(attempts: int, expected: int) -> None:
    assert jobs.retry_s(attempts) == expected


# The worker


async def test_a_queue_is_worked_off_by_two_workers_each_document_once(queue: Queue) -> None:
    sent = [queue.send(f"words {n}".encode()) for n in range(12)]
    first, second = queue.worker(), queue.worker()
    async with working(first):
        await until(lambda: queue.counts().get("parsed", 0) > 0)
        async with working(second):
            await until(lambda: queue.counts() == {"parsed": 12})
    assert [queue.content(document) for document in sent] == [f"words {n}" for n in range(12)]


async def test_what_comes_while_it_waits_is_heard_of(queue: Queue) -> None:
    async with working(queue.worker()):
        for _ in range(3):
            document = queue.send()
            await until(partial(queue.is_parsed, document))


async def test_poison_is_put_aside_with_the_reason_and_holds_up_nobody(queue: Queue) -> None:
    bad = queue.send(making.pdf(1)[:300], "a.pdf")
    locked = queue.send(making.pdf(1, password="x"), "b.pdf")
    good = queue.send()
    async with working(queue.worker()):
        await until(lambda: queue.counts() == {"dead": 2, "parsed": 1})
    assert queue.status(good) == "parsed"
    found = "select error_code from ai.ingestions where document_id = %s"
    assert queue.one(found, bad) == "document_malformed"
    assert queue.one(found, locked) == "document_encrypted"


async def test_one_that_ends_its_worker_each_time_is_put_aside(queue: Queue) -> None:
    document = queue.send()
    queue.one("update ai.ingestions set attempts = %s returning 1", jobs.ATTEMPT_COUNT_MAX)
    async with working(queue.worker()):
        await until(lambda: queue.status(document) == "dead")
    assert queue.one("select error_code from ai.ingestions") == "document_parser_crashed"


async def test_a_worker_that_stops_gives_back_what_it_had(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "GIVE_BACK_S", 60.0)  # a busy machine takes its time
    async with running_upstream() as site:
        site.script = silence
        document = queue.send_url(site.base_url)
        async with working(queue.worker(documents_private_urls=True)):
            await until(lambda: queue.status(document) == "fetching")
            await site.arrived.wait()
    assert queue.status(document) == "received"
    assert queue.one("select attempts from ai.ingestions") == 0


async def test_a_url_is_fetched_and_read_and_its_bytes_are_dropped(queue: Queue) -> None:
    async with running_upstream() as site:
        site.script = answer(200, making.HTML.encode(), {"content-type": "text/html"})
        document = queue.send_url(f"{site.base_url}/rules.html")
        async with working(queue.worker(documents_private_urls=True)):
            await until(lambda: queue.status(document) == "parsed")
    assert "Ropes are doubled" in str(queue.content(document))
    assert queue.one("select count(*) from ai.uploads") == 0


async def test_a_private_url_is_dead_at_once(queue: Queue) -> None:
    async with running_upstream() as site:
        document = queue.send_url(site.base_url)
        async with working(queue.worker()):
            await until(lambda: queue.status(document) == "dead")
        assert not site.received
    assert queue.one("select error_code from ai.ingestions") == "document_fetch_refused"


async def test_slow_servers_do_not_hold_up_files(queue: Queue) -> None:
    async with running_upstream() as site:
        site.script = silence
        for _ in range(20):
            queue.send_url(site.base_url)
        async with working(queue.worker(documents_private_urls=True, documents_parsers=1)):
            await until(lambda: queue.counts().get("fetching", 0) > 1)
            document = queue.send()
            await until(lambda: queue.status(document) == "parsed")


async def test_a_file_that_is_not_to_be_kept_is_dropped(queue: Queue) -> None:
    document = queue.send()
    async with working(queue.worker(documents_keep_files=False)):
        await until(lambda: queue.status(document) == "parsed")
    assert queue.one("select count(*) from ai.uploads") == 0


PROGRAM = """
import asyncio, sys
sys.path[:0] = {path!r}
from butterbase.ai.documents.settings import DocumentSettings
from butterbase.ai.documents.worker import DocumentSlots, DocumentWorker
asyncio.run(DocumentWorker(DocumentSlots(DocumentSettings()), sys.argv[1]).run())
"""


def _is_gone(pid: int) -> bool:
    return not command_of(pid)


async def test_a_worker_that_is_killed_loses_nothing_and_leaves_nothing(queue: Queue) -> None:
    long = making.pdf(300)
    sent = [queue.send(long, "a.pdf") for _ in range(3)]
    program = PROGRAM.format(path=[path for path in sys.path if path])
    for _ in range(2):
        worker = await asyncio.create_subprocess_exec(sys.executable, "-c", program, queue.dsn)
        try:
            await until(lambda: queue.counts().get("parsing", 0) > 0)
            readers = children_of(worker.pid)
        finally:
            worker.kill()
            await worker.wait()
        for reader in readers:
            await until(partial(_is_gone, reader))
    async with working(queue.worker()):
        await until(lambda: queue.counts() == {"parsed": 3})
    texts = {queue.content(document) for document in sent}
    assert len(texts) == 1
    assert "berth 30029," in str(texts.pop())


async def test_a_database_that_comes_back_finds_its_worker(queue: Queue) -> None:
    async with working(queue.worker()):
        before = queue.send()
        await until(lambda: queue.status(before) == "parsed")
        queue.one(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        document = queue.send()
        await until(lambda: queue.status(document) == "parsed")


async def test_a_job_that_is_cancelled_before_it_begins_leaves_its_slot(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slots are those of all apps."""
    worker = queue.worker(documents_parsers=1)
    take, taken = jobs.take, asyncio.Event()

    async def take_and_be_ended(conn: AsyncConnection, stage: Stage, **given: Any) -> Job | None:
        job = await take(conn, stage, **given)
        if job is not None:
            running.cancel()
            taken.set()
        return job

    monkeypatch.setattr(jobs, "take", take_and_be_ended)
    queue.send()
    running = asyncio.create_task(worker.run())
    await taken.wait()
    await asyncio.gather(running, return_exceptions=True)
    assert not worker._slots.free["parse"].locked()
