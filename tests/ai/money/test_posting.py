"""Events for which nobody waits: each is written once, whatever the database does meanwhile."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest

from butterbase.ai.money.journal import Settlement
from butterbase.ai.money.ledger import Ledger
from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline import Executor, Result, Statement
from tests.ai.money.conftest import CALL, SERVICE, USER, Books, as_role
from tests.postgres import Database
from tests.waiting import until

STATUSES = "select data->>'status', data->'is_late' from butterbase.events order by id"


class Failing(Executor):
    """Fails as often as it is told, without having run anything."""

    fail_count = 0
    run_count = 0

    async def run(self, *statements: Statement, **options: Any) -> list[Result]:
        self.run_count += 1
        if self.fail_count:
            self.fail_count -= 1
            raise DatabaseUnavailableError
        return await super().run(*statements, **options)


@pytest.fixture
async def executor(money: Database) -> AsyncIterator[Failing]:
    executor = Failing(as_role(money, SERVICE))
    yield executor
    await executor.close()


@pytest.fixture
def ledger(executor: Failing) -> Ledger:
    return Ledger(executor, default_plan="enterprise", pause_s=0)


def settlement(call_id: UUID, request_id: str = "r") -> Settlement:
    return Settlement(call_id, "main", "authenticated", USER, request_id, CALL)


async def test_what_is_posted_is_written_by_the_time_that_it_is_drained(
    books: Books, ledger: Ledger
) -> None:
    ids = [uuid4() for _ in range(100)]
    for id_ in ids:
        ledger.post(settlement(id_))
    assert ledger.posted_count == 100
    await ledger.drain()
    assert ledger.posted_count == 0
    assert {id_ for (id_,) in books.execute("select call_id from butterbase.events")} == set(ids)


async def test_a_call_that_was_given_up_is_recorded_beside_that(
    books: Books, ledger: Ledger
) -> None:
    lost = uuid4()
    books.execute(
        "insert into butterbase.events (app_id, type, call_id, data)"
        """ values ('main', 'ai.call', %s, '{"status": "lost"}')""",
        lost,
    )
    for _ in range(2):
        ledger.post(settlement(lost))
        await ledger.drain()
    assert books.execute(STATUSES) == [("lost", None), ("ok", True)]


async def test_a_database_that_is_away_for_a_moment_delays_what_is_posted(
    books: Books, ledger: Ledger, executor: Failing
) -> None:
    executor.fail_count = 3
    ledger.post(settlement(uuid4()))
    await ledger.drain()
    assert books.execute("select count(*) from butterbase.events") == [(1,)]


async def test_what_cannot_be_encoded_is_told_and_keeps_nobody_from_going_on(
    books: Books, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.post(settlement(uuid4(), "\udc00"))
    ledger.post(settlement(uuid4()))
    await ledger.drain()
    assert books.execute("select request_id from butterbase.events") == [("r",)]
    assert "UnicodeEncodeError" in caplog.text


@pytest.mark.parametrize("is_drained", [True, False])
async def test_an_event_that_the_database_does_not_answer_waits_for_it(
    books: Books,
    ledger: Ledger,
    money: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_drained: bool,
) -> None:
    monkeypatch.setattr("butterbase.ai.money.ledger.WRITE_TIMEOUT_S", 0.1)
    call_id = uuid4()
    with psycopg.connect(money.dsn) as conn:
        conn.execute("lock table butterbase.events")
        ledger.post(settlement(call_id))
        if is_drained:
            await ledger.drain()
        await until(lambda: ledger.posted_count == 0)
        assert str(call_id) in caplog.text
    await ledger.write_waiting()
    # The first statement may have been written as well, in its time.
    assert books.execute("select call_id from butterbase.events") == [(call_id,)]


async def test_the_events_of_a_call_are_written_once_for_each_id(
    books: Books, ledger: Ledger
) -> None:
    call_id = uuid4()
    for tokens in (1, 2):
        call = msgspec.structs.replace(CALL, prompt_tokens=tokens)
        ledger.post(msgspec.structs.replace(settlement(call_id), call=call))
        await ledger.drain()
    assert books.execute("select data->>'prompt_tokens' from butterbase.events") == [("1",)]


async def test_what_waits_after_an_outage_is_written_many_at_a_time(
    books: Books, ledger: Ledger, executor: Failing
) -> None:
    """One by one it would take so long that the sweeper took this worker for dead."""
    for _ in range(1200):
        ledger._keep(settlement(uuid4()))
    before = executor.run_count
    await ledger.write_waiting()
    assert executor.run_count - before <= 6
    assert books.execute("select count(*) from butterbase.events") == [(1200,)]
    assert not ledger._unwritten


async def test_what_waits_goes_on_waiting_while_the_database_is_away(
    books: Books, ledger: Ledger, executor: Failing
) -> None:
    for _ in range(700):
        ledger._keep(settlement(uuid4()))
    executor.fail_count = 1
    with pytest.raises(DatabaseUnavailableError):
        await ledger.write_waiting()
    assert len(ledger._unwritten) == 700
    await ledger.write_waiting()
    assert books.execute("select count(*) from butterbase.events") == [(700,)]
