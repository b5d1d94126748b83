"""A transaction that changes who may see its table, and rows of it: all of it is seen at once."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.installation import Installation
from tests.realtime.listening import SERVICE, Log, listening
from tests.realtime.streaming import ALICE, user_claims

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOTES = """
    drop table if exists notes;
    create table notes (id int primary key, body text);
    grant select on notes to authenticated;
    create policy p on notes using (true);
"""
ANY_NOTE = {"table": "notes"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def log(app: Installation) -> AsyncIterator[Log]:
    async with listening(app) as log:
        yield log


@pytest.mark.parametrize(
    "tightened",
    [
        "alter policy p on notes using (false)",
        "drop policy p on notes",
        "create policy q on notes as restrictive using (false)",
        "revoke select on notes from authenticated, anon",
        "drop policy p on notes; create policy p on notes using (id in (select 0 from pg_class))",
    ],
)
async def test_rows_before_a_tightened_policy_in_its_transaction_are_hidden(
    log: Log, tightened: str
) -> None:
    await log.execute(NOTES)
    alice = await log.listen(user_claims(ALICE), ANY_NOTE)
    service = await log.listen(SERVICE, ANY_NOTE)
    await log.execute("insert into notes values (1)")
    first, second = ("insert into notes values (2)", "insert into notes values (3)")
    await log.execute(f"begin; {first}; {tightened}; {second}; commit")
    assert alice.rows() == [("INSERT", 1)]
    assert service.rows() == [("INSERT", id_) for id_ in (1, 2, 3)]


async def test_a_column_that_a_transaction_hides_is_hidden_in_all_of_it(log: Log) -> None:
    await log.execute(NOTES)
    alice = await log.listen(user_claims(ALICE), ANY_NOTE)
    await log.execute("insert into notes values (1, 'open')")
    await log.execute(
        "begin; insert into notes values (2, 'secret');"
        "revoke select on notes from authenticated, anon;"
        "grant select (id) on notes to authenticated; commit"
    )
    assert [data["record"] for data in alice.data()] == [{"id": 1, "body": "open"}, {"id": 2}]


async def test_rows_before_a_loosened_policy_in_its_transaction_are_told(log: Log) -> None:
    await log.execute(NOTES + "alter policy p on notes using (false)")
    alice = await log.listen(user_claims(ALICE), ANY_NOTE)
    await log.execute("insert into notes values (1)")
    await log.execute(
        "begin; insert into notes values (2); alter policy p on notes using (true); commit"
    )
    assert alice.rows() == [("INSERT", 2)]


async def test_what_a_policy_needs_and_a_transaction_renames_hides_what_it_wrote_before(
    log: Log,
) -> None:
    await log.execute(NOTES + "alter policy p on notes using (body = 'x')")
    alice = await log.listen(user_claims(ALICE), ANY_NOTE)
    await log.execute("insert into notes values (1, 'x')")
    await log.execute(
        "begin; insert into notes values (2, 'x'); alter table notes rename body to text;"
        "insert into notes values (3, 'x'); commit"
    )
    assert alice.rows() == [("INSERT", 1), ("INSERT", 3)]
