from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from butterbase.api.apps import AppRuntime, Apps
from butterbase.api.auth import audit, users
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.users import NewUser
from butterbase.api.settings import ApiSettings
from tests.installation import Installation

NOW_S = 1_800_000_000.0


def at(now_s: float = NOW_S, ip: str = "203.0.113.7") -> Caller:
    return Caller(ip, "test", now_s)


@asynccontextmanager
async def runtime_of(installation: Installation) -> AsyncIterator[AppRuntime]:
    apps = Apps(installation.cluster, ApiSettings())
    try:
        yield await apps.find("main")
    finally:
        await apps.close()


@pytest.fixture
async def runtime(installation: Installation) -> AsyncIterator[AppRuntime]:
    """The app `main`, without HTTP: what is called is told the time."""
    async with runtime_of(installation) as app:
        yield app


async def configure(app: AppRuntime, **patch: Any) -> None:
    """Change settings of auth."""
    trail = audit.entry("settings_changed", user_id=None, caller=at())
    await app.auth.configs.change(patch, audited=trail, now_s=NOW_S)


async def new_user(app: AppRuntime, email: str = "ana@example.com") -> str:
    """The id of a confirmed user."""
    new = NewUser(id=users.new_id(), email=email, is_email_confirmed=True)
    await make_user(app, new, caller=at())
    return new.id


async def make_user(app: AppRuntime, new: NewUser, *, caller: Caller) -> None:
    """Raises what `users.created` does."""
    (result,) = await app.service.run(users.create_statement(new, caller=caller))
    users.created(result)
