"""Events of calls on their way into the database: together, each once, none for another."""

import asyncio
from uuid import UUID, uuid4

import msgspec
import pytest

from butterbase.ai.money.journal import Journal, Settlement
from butterbase.sql.errors import DatabaseError, DatabaseUnavailableError
from butterbase.sql.pipeline import Executor
from tests.ai.money.conftest import CALL, SERVICE, USER, Books, as_role


def settlement(call_id: UUID, *, app_id: str = "main") -> Settlement:
    return Settlement(call_id, app_id, "authenticated", USER, "r", CALL)


async def test_events_that_come_at_once_are_one_commit(books: Books) -> None:
    journal = Journal(books.executor)
    ids = [uuid4() for _ in range(700)]
    written = await asyncio.gather(*(journal.write(settlement(id_)) for id_ in ids))
    assert written == [None] * len(ids)
    rows = books.execute("select call_id, xmin::text from butterbase.events")
    assert {call_id for call_id, _ in rows} == set(ids)
    assert len({xmin for _, xmin in rows}) == 2  # 500 at a time


async def test_an_event_that_was_there_before_is_told_by_its_status(books: Books) -> None:
    journal = Journal(books.executor, pause_s=0)
    lost, new = uuid4(), uuid4()
    books.execute(
        "insert into butterbase.events (app_id, type, call_id, data)"
        """ values ('main', 'ai.call', %s, '{"status": "lost"}')""",
        lost,
    )
    found = await asyncio.gather(journal.write(settlement(lost)), journal.write(settlement(new)))
    assert list(found) == ["lost", None]
    assert await journal.write(settlement(new)) == "ok"


async def test_an_event_that_is_refused_keeps_no_other_out(books: Books) -> None:
    books.execute("alter table butterbase.events add check (app_id <> 'refused')")
    journal = Journal(books.executor, pause_s=0)
    found = await asyncio.gather(
        *(journal.write(settlement(uuid4(), app_id=app)) for app in ("main", "refused", "b")),
        return_exceptions=True,
    )
    assert [type(one) for one in found] == [type(None), DatabaseError, type(None)]
    assert books.execute("select app_id from butterbase.events order by 1") == [("b",), ("main",)]


async def test_an_event_that_cannot_be_encoded_fails_alone(books: Books) -> None:
    journal = Journal(books.executor, pause_s=0)
    broken = msgspec.structs.replace(settlement(uuid4()), request_id="\udc00")
    found = await asyncio.gather(
        journal.write(broken), journal.write(settlement(uuid4())), return_exceptions=True
    )
    assert [type(one) for one in found] == [UnicodeEncodeError, type(None)]


async def test_who_stops_waiting_keeps_no_other_from_being_written(books: Books) -> None:
    journal = Journal(books.executor)
    first, second = (asyncio.create_task(journal.write(settlement(uuid4()))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is None


async def test_all_who_wait_hear_that_the_database_is_away(books: Books) -> None:
    executor = Executor(as_role(books.database, SERVICE))
    await executor.close()
    journal = Journal(executor, pause_s=0)
    for _ in range(2):  # and it goes on after that
        found = await asyncio.gather(
            *(journal.write(settlement(uuid4())) for _ in range(3)), return_exceptions=True
        )
        assert [type(one) for one in found] == [DatabaseUnavailableError] * 3


async def test_workers_that_write_the_same_events_do_not_wait_in_a_circle(books: Books) -> None:
    ids = [uuid4() for _ in range(200)]
    journals = [Journal(books.executor, pause_s=0) for _ in range(3)]
    orders = (ids, ids[::-1], sorted(ids))
    written = await asyncio.gather(
        *(
            j.write(settlement(id_))
            for j, order in zip(journals, orders, strict=True)
            for id_ in order
        )
    )
    assert written.count(None) == len(ids)
    assert set(written) <= {None, "ok", ""}
    assert books.execute("select count(*) from butterbase.events") == [(len(ids),)]


@pytest.mark.parametrize("text", ["a\0b", 'a"b\\', "ä€😀"])
async def test_a_request_id_is_what_it_was_but_for_nuls(books: Books, text: str) -> None:
    one = msgspec.structs.replace(settlement(uuid4()), request_id=text)
    assert await Journal(books.executor, pause_s=0).write(one) is None
    rows = books.execute("select request_id, data ->> 'model' from butterbase.events")
    assert rows == [(text.replace("\0", ""), "m")]
