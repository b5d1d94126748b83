"""What `ctx` asks of the platform: queues, and keys of effects that are to happen once."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from butterbase.api.functions.errors import InvalidOperationError, QueueNotFoundError
from butterbase.api.functions.operations import PlatformOperations
from butterbase.api.functions.runtime.model import CallContext, FunctionVersion
from butterbase.api.functions.work.cron import Cron
from butterbase.sql.pipeline import Executor
from tests.functions.working import App, app_of
from tests.installation import Installation


class Asking:
    def __init__(self, app: App) -> None:
        self.app = app
        self.told: list[str] = []
        self._executor = app.executor()
        self._operations = PlatformOperations(self._executor_of, on_queued=self.told.append)

    async def _executor_of(self, _app_id: str) -> Executor:
        return self._executor

    async def ask(self, name: str, invocation: str | None = None, **arguments: Any) -> Any:
        version = FunctionVersion("main", "f", "r", "v", b"")
        context = CallContext(invocation or str(uuid4()), "r")
        return await self._operations.perform(version, context, name, arguments)

    async def claim(self, key: str, invocation: str | None = None) -> bool:
        found = await self.ask("idempotency.claim", invocation, key=key)
        return bool(found["claimed"])


@pytest.fixture
async def asking(installation: Installation) -> AsyncIterator[Asking]:
    async with app_of(installation) as app:
        await app.function("f")
        yield Asking(app)


async def test_a_message_waits_for_whoever_consumes_its_queue(asking: Asking) -> None:
    await asking.app.trigger("f", "queue", queue="mails")
    sent = await asking.ask("queue.send", queue="mails", body={"to": "a"}, delay_s=60, key="a")
    assert asking.told == ["main"]
    rows = await asking.app.all(
        "select id::text, status, key, payload, run_after > now() + interval '50 seconds'"
        " from functions.invocations"
    )
    payload = {"type": "queue", "queue": "mails", "body": {"to": "a"}}
    assert rows == [(sent["id"], "queued", "a", payload, True)]


async def test_a_queue_that_nobody_consumes_is_told(asking: Asking) -> None:
    with pytest.raises(QueueNotFoundError):
        await asking.ask("queue.send", queue="nope", body=1)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("queue.send", {}),
        ("queue.send", {"queue": "a b"}),
        ("queue.send", {"queue": "q", "delay_s": -1}),
        ("queue.send", {"queue": "q", "more": 1}),
        ("queue.send", {"queue": "q", "key": "\0"}),
        ("queue.send", {"queue": "q", "body": "x" * 300_000}),
        ("idempotency.claim", {"key": ""}),
        ("idempotency.claim", {"key": "\0"}),
        ("idempotency.claim", {"key": 5}),
        ("idempotency.claim", {"key": "k", "ttl_s": 0}),
        ("files.read", {"path": "/etc/passwd"}),
    ],
)
async def test_what_cannot_be_asked_is_refused(
    asking: Asking, name: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidOperationError):
        await asking.ask(name, **arguments)


async def test_a_key_is_claimed_once(asking: Asking) -> None:
    assert await asking.claim("k")
    assert not await asking.claim("k")
    assert await asking.claim("other")


async def test_an_invocation_that_did_not_end_well_claims_again(asking: Asking) -> None:
    invocation = str(uuid4())
    assert await asking.claim("k", invocation)
    assert await asking.claim("k", invocation)
    await asking.app.conn.execute("update functions.claims set is_kept = true")
    assert not await asking.claim("k", invocation)


async def test_a_claim_that_has_expired_is_free(asking: Asking) -> None:
    assert await asking.claim("k")
    await asking.app.conn.execute("update functions.claims set expires_at = now()")
    assert await asking.claim("k")


NOW = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
TICKS = "select tick, status from functions.invocations order by seq"


async def cron(asking: Asking, last: datetime, **config: Any) -> Cron:
    trigger = await asking.app.trigger("f", "cron", attempts=1, schedule="@every 60s", **config)
    await asking.app.conn.execute(
        "update functions.triggers set last_tick = %s where id = %s", [last, trigger]
    )
    return Cron("main", asking.app.executor())


async def test_a_time_that_is_due_invokes_once_whoever_looks(asking: Asking) -> None:
    made = await cron(asking, NOW - timedelta(seconds=30))
    assert await made.advance(NOW) == (NOW + timedelta(seconds=55), 1)
    assert await made.advance(NOW) == (NOW + timedelta(seconds=55), 0)
    other = Cron("main", asking.app.executor())
    assert (await other.advance(NOW + timedelta(seconds=1)))[1] == 0
    assert await asking.app.all(TICKS) == [(NOW.replace(second=0), "queued")]


async def test_a_time_is_skipped_while_the_one_before_is_worked_on(asking: Asking) -> None:
    made = await cron(asking, NOW - timedelta(seconds=30))
    await made.advance(NOW)
    await made.advance(NOW + timedelta(seconds=60))
    assert [status for _, status in await asking.app.all(TICKS)] == ["queued", "skipped"]


@pytest.mark.parametrize(("overlap", "key"), [("allow", None), ("queue", "cron")])
async def test_or_it_is_run_beside_it_or_after_it(
    asking: Asking, overlap: str, key: str | None
) -> None:
    made = await cron(asking, NOW - timedelta(seconds=30), overlap=overlap)
    await made.advance(NOW)
    await made.advance(NOW + timedelta(seconds=60))
    rows = await asking.app.all("select status, key from functions.invocations")
    assert rows == [("queued", key)] * 2


async def test_times_that_were_missed_are_recorded_and_counted(asking: Asking) -> None:
    made = await cron(asking, NOW - timedelta(hours=3))
    await made.advance(NOW)
    rows = await asking.app.all("select status, count(*) from functions.invocations group by 1")
    assert dict(rows) == {"missed": 99, "queued": 1}
    assert await asking.app.all("select missed_count from functions.triggers") == [(179,)]
