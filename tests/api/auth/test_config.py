import json
from typing import Any

import msgspec
import pytest

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import audit
from butterbase.api.auth.config import AuthConfig, Secret, decode
from butterbase.api.auth.config_changes import HIDDEN, patched, shown
from butterbase.api.auth.errors import ConflictError, InvalidAuthBodyError
from butterbase.sql.errors import SettingError
from butterbase.sql.pipeline import Statement
from tests.api.auth.conftest import NOW_S, at, configure

SMTP = {"host": "mail.example.com", "password": "hunter2"}


def seal(text: str) -> str:
    return f"sealed:{text[::-1]}"


def unseal(text: str) -> str:
    assert text.startswith("sealed:")
    return text.removeprefix("sealed:")[::-1]


def change(stored: dict[str, Any], patch: dict[str, Any]) -> tuple[dict[str, Any], AuthConfig]:
    return patched(stored, patch, seal=seal, unseal=unseal)


def test_what_is_not_said_is_the_default() -> None:
    assert decode(b"{}") == AuthConfig()


def test_a_patch_changes_what_it_names() -> None:
    stored, _ = change({}, {"password": {"length_min": 10}, "is_signup_enabled": False})
    stored, config = change(stored, {"password": {"required_characters": ["abc"]}})
    assert (config.password.length_min, config.is_signup_enabled) == (10, False)
    stored, config = change(stored, {"password": None, "is_signup_enabled": None})
    assert (stored, config) == ({}, AuthConfig())


def test_a_secret_is_stored_sealed_and_shown_to_nobody() -> None:
    stored, config = change({}, {"mail": {"smtp": SMTP}})
    assert "hunter2" not in json.dumps(stored)
    assert config.mail.smtp is not None
    assert config.mail.smtp.password is not None
    assert config.mail.smtp.password.text == "hunter2"
    assert "hunter2" not in repr(config)
    assert b"hunter2" not in shown(config)
    assert json.loads(shown(config))["mail"]["smtp"]["password"] == HIDDEN


def test_what_is_shown_can_be_sent_back() -> None:
    stored, config = change(
        {},
        {"providers": {"google": {"client_id": "x", "client_secret": "y"}}, "mail": {"smtp": SMTP}},
    )
    again, same = change(stored, json.loads(shown(config)))
    assert shown(same) == shown(config)
    assert same.providers["google"].client_secret is not None
    assert same.providers["google"].client_secret.text == "y"
    again, cleared = change(again, {"providers": {"google": {"client_secret": None}}})
    assert cleared.providers["google"].client_secret is None


@pytest.mark.parametrize(
    "patch",
    [
        {"mail": {"smtp": {"host": "evil.example"}}},
        {"mail": {"smtp": {"port": 25}}},
        {"mail": {"smtp": {"tls": "none"}}},
        {"mail": {"smtp": {"host": "evil.example", "password": HIDDEN}}},
        {"providers": {"google": {"issuer": "https://evil.example"}}},
        {"providers": {"google": {"options": {"url": "https://evil.example"}}}},
    ],
)
def test_a_stored_secret_is_not_sent_to_another_server(patch: dict[str, Any]) -> None:
    """Who may change settings, and was never told the secret, would read it there."""
    google = {"client_id": "x", "client_secret": "y"}
    stored, _ = change({}, {"providers": {"google": google}, "mail": {"smtp": SMTP}})
    with pytest.raises(InvalidAuthBodyError, match="sent again"):
        change(stored, patch)
    again = {
        "mail": {"smtp": {"password": "hunter2"}},
        "providers": {"google": {"client_secret": "y"}},
    }
    for part, servers in patch.items():
        for name, server in servers.items():
            _, config = change(stored, {part: {name: server | again[part][name]}})
            assert b"evil.example" in shown(config) or part == "mail"
            change(stored, {part: {name: server | dict.fromkeys(again[part][name])}})


@pytest.mark.parametrize("name", ["email", "phone"])
def test_a_provider_does_not_take_our_own_names(name: str) -> None:
    """An issuer's token whose subject is a user's id would be that user's."""
    with pytest.raises(InvalidAuthBodyError):
        change({}, {"providers": {name: {"client_id": "x", "issuer": "https://evil.example"}}})


@pytest.mark.parametrize(
    "patch",
    [
        {"no_such_setting": 1},
        {"password": {"length_min": 1}},
        {"password": 3},
        {"jwt_algorithm": "none"},
        {"jwt_algorithm": "RS256"},
        {"jwt_expiry_s": 1},
        {"hooks": {"custom_access_token": 'public.f(); drop table "x'}},
        {"hooks": {"custom_access_token": "f"}},
        {"mail": {"smtp": {"host": "x", "password": {"text": "x"}}}},
        {"mail": {"smtp": {"password": "without a host"}}},
        {"providers": {"Not A Name": {"client_id": "x"}}},
        {"providers": {"google": {"client_id": 3}}},
        {"rate_limits": {"token": {"count": 0, "per_s": 1, "burst": 1}}},
    ],
)
def test_a_setting_that_means_nothing_is_refused(patch: dict[str, Any]) -> None:
    with pytest.raises(InvalidAuthBodyError):
        change({}, patch)


async def test_settings_are_kept_in_the_database_and_secrets_sealed(runtime: AppRuntime) -> None:
    await configure(runtime, mail={"smtp": SMTP})
    (result,) = await runtime.service.run(Statement(b"select config from auth.settings"))
    assert b"hunter2" not in (result.value() or b"")
    smtp = (await runtime.auth.configs.get()).mail.smtp
    assert smtp is not None
    assert smtp.password is not None
    assert smtp.password.text == "hunter2"


async def test_a_secret_of_another_app_does_not_open(runtime: AppRuntime) -> None:
    sealed = runtime.auth.master_key.seal(b"x", purpose="auth-settings:other")
    with pytest.raises(SettingError):
        runtime.auth.configs._unseal(msgspec.json.encode(sealed).decode().strip('"'))


async def test_of_two_changes_at_once_one_is_told_to_try_again(runtime: AppRuntime) -> None:
    await configure(runtime, is_signup_enabled=False)
    configs = runtime.auth.configs
    stale = await configs._stored()

    async def stored() -> dict[str, Any]:
        return stale

    await configure(runtime, is_email_enabled=False)
    configs._stored = stored  # type: ignore[method-assign]
    with pytest.raises(ConflictError):
        await configure(runtime, is_otp_signup_enabled=False)
    del configs._stored
    assert not (await configs.get()).is_email_enabled


async def test_the_trail_and_the_change_go_together(runtime: AppRuntime) -> None:
    await configure(runtime, is_signup_enabled=False)
    (result,) = await runtime.service.run(
        Statement(b"select payload->>'action' from auth.audit_log_entries")
    )
    assert result.value() == b"settings_changed"


async def test_the_epoch_of_the_signing_key_does_not_go_back(runtime: AppRuntime) -> None:
    await configure(runtime, key_epoch=2)
    assert runtime.tokens.key_epoch == 2
    for epoch in (1, None):
        with pytest.raises(InvalidAuthBodyError):
            await configure(runtime, key_epoch=epoch)


async def test_settings_are_read_again_after_some_seconds(runtime: AppRuntime) -> None:
    configs = runtime.auth.configs
    now = 0.0
    configs._clock = lambda: now
    configs._config = None
    assert (await configs.get()).is_signup_enabled
    # As another worker would.
    await runtime.service.run(
        Statement(
            b"""insert into auth.settings (config) values ('{"is_signup_enabled": false}')"""
        ),
        audit.entry("settings_changed", user_id=None, caller=at(NOW_S)),
    )
    assert (await configs.get()).is_signup_enabled
    now = 5.0
    assert not (await configs.get()).is_signup_enabled


def test_a_secret_does_not_print() -> None:
    assert "x" not in repr(Secret("x")).replace("…", "")


def test_a_patch_that_is_nested_too_deeply_is_refused() -> None:
    patch: dict[str, Any] = {}
    for _ in range(900):
        patch = {"a": patch}
    with pytest.raises(InvalidAuthBodyError):
        change({}, patch)
