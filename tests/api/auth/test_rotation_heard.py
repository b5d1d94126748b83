"""A rotation on demand is heard of by workers whose requests need no settings of auth."""

import asyncio
from contextlib import suppress

import pytest

from butterbase.api import apps as apps_module
from butterbase.api.apps import Apps, keys_of
from butterbase.api.settings import ApiSettings
from butterbase.sql.errors import InvalidTokenError
from tests.api.auth.conftest import NOW_S, configure, runtime_of
from tests.installation import Installation
from tests.waiting import until


async def test_a_worker_that_only_verifies_hears_of_a_rotation(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps_module, "CACHED_S", 0.02)
    settings = ApiSettings()
    keys = keys_of(installation.cluster, "main", installation.app.created_at, settings)
    apps = Apps(installation.cluster, settings)
    tokens = (await apps.find("main")).tokens
    following = asyncio.create_task(apps.follow_settings())
    try:
        async with runtime_of(installation) as other:
            await configure(other, key_epoch=3)
        with suppress(InvalidTokenError):
            tokens.verify(keys.anon, now_s=NOW_S)
        await until(lambda: tokens.key_epoch == 3)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await apps.close()


async def test_what_was_read_a_moment_ago_is_not_waited_for(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps_module, "CACHED_S", 0.02)
    settings = ApiSettings()
    keys = keys_of(installation.cluster, "main", installation.app.created_at, settings)
    apps = Apps(installation.cluster, settings)
    app = await apps.find("main")
    monkeypatch.setattr(app.auth.configs, "_clock", lambda: 0.0)
    assert (await app.auth.configs.get()).key_epoch == 0
    following = asyncio.create_task(apps.follow_settings())
    try:
        async with runtime_of(installation) as other:
            await configure(other, key_epoch=3)
        app.tokens.verify(keys.anon, now_s=NOW_S)
        await until(lambda: app.tokens.key_epoch == 3)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await apps.close()
