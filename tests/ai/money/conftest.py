"""A control database with an app, a ledger on it, and its projection run by hand."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from butterbase.ai.money.journal import Settlement
from butterbase.ai.money.ledger import Admission, Admitted, Ledger
from butterbase.ingest.changes import Column, Commit, Insert, Relation, ReplicaIdentity
from butterbase.ingest.lsn import LSN
from butterbase.projections.usage import AiCall, UsageProjection
from butterbase.sql.migrate import migrate, read_migrations
from butterbase.sql.pipeline import Executor
from tests.postgres import Database, Databases

USER = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
OTHER_USER = UUID("11111111-2222-4333-8444-555555555555")
KEY = UUID("99999999-2222-4333-8444-555555555555")
NANO = 10**9
SERVICE, STREAM = "butterbase_service", "butterbase_stream"

COLUMNS = ("id", "at", "app_id", "type", "user_id", "role", "request_id", "call_id", "data")
EVENT_ROWS = """
select id::text, at::text, app_id, type, user_id::text, role, request_id, call_id::text, data::text
from butterbase.events order by id
"""
WAITING = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = %s"

EVENTS = Relation(
    1,
    "butterbase",
    "events",
    ReplicaIdentity.DEFAULT,
    tuple(Column(name, 25, -1, is_key=name == "id") for name in COLUMNS),
)

CALL = AiCall(
    endpoint="chat/completions",
    provider="provider.test",
    model="m",
    stream=False,
    status="ok",
    http_status=200,
    error_code=None,
    prompt_tokens=10,
    completion_tokens=2,
    total_tokens=12,
    cached_tokens=0,
    reasoning_tokens=0,
    usage_source="reported",
    latency_ms=5,
    first_token_ms=None,
)

ADMISSION = Admission(
    app_id="main",
    role="authenticated",
    user_id=USER,
    key_id=None,
    request_id="r",
    endpoint="chat/completions",
    model="m",
    models=("m",),
    nanos=NANO,
    tokens=100,
    life_s=600.0,
)


@pytest.fixture(scope="session")
def money_template(postgres: Databases) -> Iterator[str]:
    """A database with the control schema and the app `main`."""
    database = postgres.create()

    async def prepare() -> None:
        folder = files("butterbase.sql").joinpath("migrations") / "control"
        async with await AsyncConnection.connect(database.dsn, autocommit=True) as conn:
            await migrate(conn, read_migrations(folder))
            await conn.execute("insert into butterbase.apps values ('main', 'main'), ('b', 'b')")

    asyncio.run(prepare())
    yield database.name
    postgres.drop(database.name)


@pytest.fixture
def money(postgres: Databases, money_template: str) -> Iterator[Database]:
    database = postgres.create(template=money_template)
    yield database
    postgres.drop(database.name)


def as_role(database: Database, role: str) -> str:
    """A DSN whose statements have the grants of the role alone."""
    return make_conninfo(database.dsn, options=f"-c role={role} -c search_path=pg_catalog,pg_temp")


@dataclass
class Books:
    """A ledger and what stands in its tables."""

    database: Database
    executor: Executor
    ledger: Ledger
    projection: UsageProjection = field(default_factory=UsageProjection)
    projected: set[int] = field(default_factory=set)

    def execute(self, statement: str, *parameters: object) -> list[Any]:
        """As the superuser."""
        with psycopg.connect(self.database.dsn, autocommit=True) as conn:
            cursor = conn.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def put_budgets(self, *budgets: dict[str, object], app_id: str | None = "main") -> None:
        defaults = {"scope": "app", "period": "lifetime", "action": "block"}
        scopes = ["user", "key", "model", "app"] if app_id else ["global"]
        self.execute(
            "select butterbase.ai_put_budgets(%s, %s, %s)",
            app_id,
            scopes,
            json.dumps([defaults | budget for budget in budgets]),
        )

    async def admit(self, now: datetime | None = None, **changes: Any) -> tuple[UUID, Admitted]:
        call_id = uuid4()
        admission = msgspec.structs.replace(ADMISSION, **changes)
        verdict = await self.ledger.admit(call_id, admission, now=now)
        assert isinstance(verdict, Admitted)
        return call_id, verdict

    async def settle(
        self, call_id: UUID, nanos: int, *, user_id: UUID | None = USER, app_id: str = "main",
        **changes: Any,
    ) -> None:  # fmt: skip
        call = msgspec.structs.replace(CALL, cost_nanos=nanos, **changes)
        settlement = Settlement(call_id, app_id, ADMISSION.role, user_id, "r", call)
        assert await self.ledger.settle(settlement)

    async def project(self, count: int | None = None) -> None:
        """Apply the first of the events that were not applied before, in one transaction."""
        fresh = [row for row in self.execute(EVENT_ROWS) if int(row[0]) not in self.projected]
        fresh = fresh[:count]
        async with await AsyncConnection.connect(as_role(self.database, STREAM)) as conn:
            commits = [commit_of(row) for row in fresh]
            wanted = [commit for commit in commits if self.projection.wants(commit)]
            if wanted:
                await self.projection.apply(conn, wanted)
        self.projected |= {int(row[0]) for row in fresh}

    def periods(self) -> list[tuple[Any, ...]]:
        """Scope, subject, first day, spent, reserved."""
        return self.execute(
            "select b.scope, p.subject, p.starts_on::text, p.spent_nanos, p.reserved_nanos"
            " from butterbase.ai_budget_periods p join butterbase.ai_budgets b"
            " on b.id = p.budget_id order by b.id, 2, 3"
        )


def commit_of(row: tuple[Any, ...]) -> Commit:
    return Commit(LSN(1), datetime.now().astimezone(), 7, (Insert(EVENTS, row),))


@pytest.fixture
async def books(money: Database) -> AsyncIterator[Books]:
    executor = Executor(as_role(money, SERVICE), connection_count_max=4)
    yield Books(money, executor, Ledger(executor, default_plan="enterprise"))
    await executor.close()
