"""What the functions process keeps of functions, and what it writes down of their calls."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from butterbase.api.auth.keys import app_keys
from butterbase.api.auth.tokens import Tokens
from butterbase.api.callers import verify_caller
from butterbase.api.errors import UnknownAppError
from butterbase.api.functions.errors import FunctionNotFoundError
from butterbase.api.functions.recorder import CallRecorder
from butterbase.api.functions.runtime.model import (
    CallContext,
    Failure,
    FunctionVersion,
    LogLine,
    Outcome,
)
from butterbase.api.functions.settings import FunctionsSettings
from butterbase.api.functions.store import variables_purpose
from butterbase.api.functions.tokens import LIFE_S, FunctionTokens
from butterbase.api.functions.versions import LoadedVersion, Versions
from butterbase.api.keys.errors import InsufficientScopeError
from butterbase.api.keys.key import Scope
from butterbase.api.keys.keyring import Keyring
from butterbase.sql.errors import DatabaseUnavailableError, InvalidTokenError
from butterbase.sql.pipeline import Executor
from tests.functions.working import App, app_of
from tests.installation import MASTER_KEY, Installation
from tests.waiting import until


@pytest.fixture
async def app(installation: Installation) -> AsyncIterator[App]:
    async with app_of(installation) as app:
        await app.function("f")
        yield app


class Kept:
    def __init__(self, app: App) -> None:
        self.changes: list[tuple[str, str | None]] = []
        self.versions = Versions(
            "main",
            app.executor(),
            MASTER_KEY,
            FunctionsSettings(),
            environment={"BUTTERBASE_APP_ID": "main"},
            on_change=lambda name, revision: self.changes.append((name, revision)),
        )


async def test_a_version_is_read_once_until_it_changes(app: App) -> None:
    kept = Kept(app)
    first = await kept.versions.get("f")
    await app.conn.execute("update functions.functions set revision = gen_random_uuid()")
    assert await kept.versions.get("f") is first
    await kept.versions.refresh()
    await until(lambda: bool(kept.changes))
    second = await kept.versions.get("f")
    assert second.revision != first.revision
    assert kept.changes == [("f", second.revision)]
    await app.conn.execute("delete from functions.functions")
    kept.versions.changed("f")
    await until(lambda: len(kept.changes) == 2)
    assert kept.changes[1] == ("f", None)
    with pytest.raises(FunctionNotFoundError):
        await kept.versions.get("f")


async def test_variables_are_opened_and_those_not_granted_left_out(app: App) -> None:
    for name in ("A", "B"):
        sealed = MASTER_KEY.seal(name.lower().encode(), purpose=variables_purpose("main"))
        await app.conn.execute(
            "insert into functions.variables select id, %s, %s from functions.functions",
            [name, sealed],
        )
    version = await Kept(app).versions.get("f")
    assert version.env == {"A": "a", "B": "b", "BUTTERBASE_APP_ID": "main"}
    assert "'a'" not in repr(version)
    await app.conn.execute("update functions.functions set env = '{B}'")
    version = await Kept(app).versions.get("f")
    assert version.env == {"B": "b", "BUTTERBASE_APP_ID": "main"}


def outcome(**fields: object) -> Outcome:
    given = {
        "app_id": "main", "name": "f", "version_id": str(uuid4()), "revision": "r",
        "invocation_id": str(uuid4()), "request_id": "q", "trigger": "http", "attempt": 1,
        "status": 200, "started_at": time.time(), "duration_ms": 1.5, "cpu_ms": 0.5,
        "memory_bytes": 1, "is_cold": True,
    }  # fmt: skip
    return Outcome(**{**given, **fields})  # type: ignore[arg-type]


VERSION = FunctionVersion("main", "f", "r", "v", b"")


async def test_calls_and_lines_are_written_in_order(app: App) -> None:
    executor = app.executor()

    async def executor_of(_app_id: str) -> Executor:
        return executor

    recorder = CallRecorder(executor_of)
    context = CallContext(str(uuid4()), "q")
    for number in range(1200):
        recorder.log(VERSION, context, LogLine(1.0, "info", f"line {number}\0\ud800"))
    recorder.ended(outcome(status=503, failure=Failure("function_failed", "x", "stack")))
    recorder.ended(outcome(trigger="queue"))  # whose row its worker writes
    recorder.ended(outcome(name="gone"))
    task = asyncio.create_task(recorder.run())

    async def is_written() -> bool:
        # The calls after the lines.
        lines = await app.all("select count(*) from functions.logs")
        return lines == [(1200,)] and bool(await app.all("select id from functions.invocations"))

    await until(is_written)
    lines = await app.all("select message from functions.logs order by id")
    assert [line for (line,) in lines] == [f"line {number}�?" for number in range(1200)]
    rows = await app.all("select kind, status, error_code, error_stack from functions.invocations")
    assert rows == [("http", "failed", "function_failed", "stack")]
    recorder.ended(outcome())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await app.count("succeeded") == 1, "what waits is written at the end"


async def test_records_wait_for_a_database_that_is_away(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("butterbase.api.functions.recorder.RETRY_S", 0.01)
    executor, failures = app.executor(), 3

    async def executor_of(_app_id: str) -> Executor:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise DatabaseUnavailableError
        return executor

    recorder = CallRecorder(executor_of)
    recorder.ended(outcome())
    task = asyncio.create_task(recorder.run())

    async def is_written() -> bool:
        return await app.count("succeeded") == 1

    await until(is_written)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("service", "opened"), [(False, {Scope.AI, Scope.FUNCTIONS}), (True, {*Scope} - {Scope.ADMIN})]
)
async def test_a_functions_token_is_for_some_things(
    installation: Installation, service: bool, opened: set[Scope]
) -> None:
    tokens = Tokens(app_keys(MASTER_KEY, "main", installation.app.created_at))
    made = FunctionTokens(tokens)
    token = made.get("f", service=service, now_s=1_800_000_000.0)
    assert made.get("f", service=service, now_s=1_800_000_030.0) == token
    assert made.get("f", service=not service, now_s=1_800_000_030.0) != token

    async def admitted(scope: Scope | None, now_s: float) -> bool:
        keyring = Keyring(None, "main")  # type: ignore[arg-type]  # nothing is looked up
        try:
            claims = await verify_caller(
                tokens, keyring, scope=scope, authorization=f"Bearer {token}", key=None, now_s=now_s
            )
        except InsufficientScopeError:
            return False
        return claims.function == "f" and claims.role == "service_role"

    for scope in (*Scope, None):
        assert await admitted(scope, 1_800_000_000.0) == (scope in opened), scope
    with pytest.raises(InvalidTokenError):
        await admitted(Scope.AI, 1_800_000_000.0 + LIFE_S + 60)
    with pytest.raises(InvalidTokenError, match="not for this"):
        tokens.verify(token, now_s=1_800_000_000.0)


async def test_an_older_reading_does_not_tell_of_the_version_before(app: App) -> None:
    kept = Kept(app)
    go_on, begun = asyncio.Event(), asyncio.Event()
    load = kept.versions._load

    async def load_late(name: str) -> LoadedVersion:
        version = await load(name)
        begun.set()
        await go_on.wait()
        return version

    kept.versions._load = load_late  # type: ignore[method-assign]
    kept.versions.changed("f")
    await begun.wait()
    await app.conn.execute("update functions.functions set revision = gen_random_uuid()")
    kept.versions._load = load  # type: ignore[method-assign]
    kept.versions.changed("f")
    await until(lambda: bool(kept.changes))
    go_on.set()
    version = await kept.versions.get("f")
    await until(lambda: len(asyncio.all_tasks()) == 1)
    assert kept.changes == [("f", version.revision)]


async def test_records_of_an_app_that_is_gone_wait_for_nothing(app: App) -> None:
    async def executor_of(app_id: str) -> Executor:
        if app_id == "gone":
            raise UnknownAppError
        return app.executor()

    recorder = CallRecorder(executor_of)
    recorder.ended(outcome(app_id="gone"))
    recorder.ended(outcome())
    assert await recorder._write_all()
    assert await app.count("succeeded") == 1
    assert not recorder._waiting


async def test_records_whose_writing_is_cancelled_are_written_last(app: App) -> None:
    executor, is_running = app.executor(), asyncio.Event()
    run = executor.run

    async def never(*_: object, **__: object) -> Any:
        executor.run = run  # type: ignore[method-assign]
        is_running.set()
        await asyncio.Event().wait()

    executor.run = never  # type: ignore[method-assign]

    async def executor_of(_app_id: str) -> Executor:
        return executor

    recorder = CallRecorder(executor_of)
    recorder.ended(outcome())
    task = asyncio.create_task(recorder.run())
    await is_running.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await app.count("succeeded") == 1
