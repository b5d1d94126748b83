"""Apps that come and go while they are looked for."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from butterbase.api.errors import UnknownAppError
from butterbase.api.functions.control import Control
from butterbase.api.functions.settings import FunctionsSettings
from butterbase.api.settings import ApiSettings
from butterbase.sql.pipeline import Result, Statement
from tests.installation import Installation


@pytest.fixture
async def control(installation: Installation) -> AsyncIterator[Control]:
    control = Control(installation.cluster, FunctionsSettings(), ApiSettings())
    yield control
    await control.close()


def execute(installation: Installation, statement: str) -> None:
    with psycopg.connect(installation.control.dsn, autocommit=True) as conn:
        conn.execute(statement.encode())


async def test_an_older_look_does_not_forget_an_app_that_a_newer_one_has_found(
    installation: Installation, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, answered, run = asyncio.Event(), asyncio.Event(), control._control.run

    async def run_late(*statements: Statement, **options: Any) -> list[Result]:
        monkeypatch.setattr(control._control, "run", run)
        results = await run(*statements, **options)
        answered.set()
        await go_on.wait()
        return results

    monkeypatch.setattr(control._control, "run", run_late)
    older = asyncio.create_task(control._look())
    await answered.wait()
    execute(installation, "insert into butterbase.apps values ('new', 'new')")
    newer = asyncio.create_task(control._find("new"))
    await asyncio.wait([newer], timeout=0.2)  # it may wait for the other
    go_on.set()
    await asyncio.gather(older, newer)
    assert control._apps.get("new") is newer.result()


async def test_two_looks_forget_each_app_once(installation: Installation, control: Control) -> None:
    execute(
        installation,
        "insert into butterbase.apps select 'a' || n, 'a' || n from generate_series(1, 50) n",
    )
    await control._look()
    # As they are while their triggers are worked on: it takes a while to forget them.
    control._tasks = {id_: asyncio.create_task(_work(control)) for id_ in control._apps}
    await asyncio.sleep(0)  # they have begun
    execute(installation, "delete from butterbase.apps where id <> 'main'")
    # Both connections are open: neither look waits for one.
    await asyncio.gather(*(control._control.run(Statement(b"select 1")) for _ in range(2)))
    await asyncio.gather(control._look(), control._look())
    assert list(control._apps) == ["main"]
    with pytest.raises(UnknownAppError):
        await control._find("a1")
    (task,) = control._tasks.values()
    task.cancel()
    await asyncio.wait({task})


async def _work(control: Control) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await control._control.run(Statement(b"select 'what was not done is given back'"))
