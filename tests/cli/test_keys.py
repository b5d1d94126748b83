"""`butterbase keys`, without its processes."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from butterbase.ai.config.configs import AiConfigChange, AiConfigs
from butterbase.ai.routing.config import ProviderChange
from butterbase.ai.settings import AiSettings
from butterbase.ai.wire.protocols import Kind
from butterbase.api.keys.key import Scope
from butterbase.api.keys.keyring import Keyring
from butterbase.cli import keys
from butterbase.cli.__main__ import parser
from butterbase.cli.settings import load_settings
from butterbase.sql.cluster import Cluster, LoginRole
from butterbase.sql.errors import InvalidTokenError, SettingError
from butterbase.sql.pipeline import Executor
from butterbase.sql.sealing import new_key, read_keys
from butterbase.sql.secrets import MasterKey
from tests.installation import MASTER_KEY, Installation
from tests.postgres import Database


def test_an_app_may_be_named_before_or_after_the_action() -> None:
    for words in ("keys --app x list", "keys list --app x"):
        assert parser().parse_args(words.split()).app == "x"
    assert parser().parse_args(["keys", "list"]).app == "main"
    assert parser().parse_args(["keys"]).app == "main"


def test_creating_takes_scopes_and_days() -> None:
    words = "keys create ci --scope data --scope ai --days 7"
    arguments = parser().parse_args(words.split())
    assert (arguments.name, arguments.scope, arguments.days) == ("ci", ["data", "ai"], 7)


async def test_a_key_is_made_listed_and_revoked(installation: Installation) -> None:
    cluster = installation.cluster
    made = await keys.create(cluster, "main", name="ci", scopes=["ai", "data", "ai"], days=7)
    control = Executor(cluster.dsn(LoginRole.SERVICE, cluster.control_database))
    keyring = Keyring(control, "main")
    claims = await keyring.verify(made.key, scope=Scope.AI, now_s=0)
    assert claims.key_id == made.id
    (listed,) = await keys.listed(cluster, "main")
    assert (listed.id, listed.name, listed.scopes) == (made.id, "ci", [Scope.AI, Scope.DATA])
    await keys.revoke(cluster, "main", made.id)
    keyring.forget()
    with pytest.raises(InvalidTokenError):
        await keyring.verify(made.key, scope=Scope.AI, now_s=0)
    await control.close()
    (listed,) = await keys.listed(cluster, "main")
    assert listed.revoked_at is not None


@pytest.mark.parametrize(
    ("scopes", "days"), [(["all"], 90), ([], 90), (["ai"], 0), (["ai"], 100_000)]
)
async def test_what_is_no_key_is_refused(
    installation: Installation, scopes: list[str], days: int
) -> None:
    with pytest.raises(SettingError, match="no such key can be made"):
        await keys.create(installation.cluster, "main", name="ci", scopes=scopes, days=days)
    with psycopg.connect(installation.control.dsn) as conn:
        assert conn.execute("select 1 from butterbase.app_keys").fetchall() == []


@pytest.mark.parametrize("key_id", ["x", "7c9e6679-7425-40de-944b-e07fc1f90ae7"])
async def test_revoking_what_is_not_there_is_refused(
    installation: Installation, key_id: str
) -> None:
    with pytest.raises(SettingError, match=f"there is no key {key_id}"):
        await keys.revoke(installation.cluster, "main", key_id)


async def test_an_unknown_app_is_refused(installation: Installation) -> None:
    with pytest.raises(SettingError, match="there is no app nobody"):
        await keys.listed(installation.cluster, "nobody")


# Sealing keys

SECRET = "sk-secret-0123456789"


async def configs_of(cluster: Cluster) -> AsyncIterator[AiConfigs]:
    control = Executor(cluster.dsn(LoginRole.SERVICE, cluster.control_database))
    try:
        yield AiConfigs(control, cluster.master_key, AiSettings())
    finally:
        await control.close()


async def opened(cluster: Cluster) -> set[str | None]:
    """The app's keys of providers."""
    async with asynccontextmanager(configs_of)(cluster) as configs:
        return {provider.api_key for provider in (await configs.of("main")).table.providers}


async def set_secrets(cluster: Cluster, app: Database) -> None:
    async with asynccontextmanager(configs_of)(cluster) as configs:
        provider = ProviderChange(Kind.OPENAI, api_key=f"{SECRET}-1")
        await configs.change(
            "main",
            AiConfigChange(
                base_url="https://a.test/v1", byok_key=f"{SECRET}-2", providers={"a": provider}
            ),
        )
    sealed = cluster.master_key.seal(b"of auth", purpose="auth-settings:main")
    document = {"mail": {"smtp": {"password": base64.b64encode(sealed).decode(), "host": "h"}}}
    with psycopg.connect(app.dsn, autocommit=True) as conn:
        conn.execute("insert into auth.settings (config) values (%s)", [Jsonb(document)])


def secret_of_auth(cluster: Cluster, app: Database) -> bytes:
    with psycopg.connect(app.dsn) as conn:
        row = conn.execute("select config #>> '{mail,smtp,password}' from auth.settings").fetchone()
    assert row is not None
    return cluster.master_key.open(base64.b64decode(row[0]), purpose="auth-settings:main")


def with_keys(cluster: Cluster, master_key: MasterKey) -> Cluster:
    return Cluster(cluster.admin_dsn(), master_key, control_database=cluster.control_database)


async def test_all_secrets_are_sealed_with_a_new_key(
    installation: Installation, tmp_path: Path
) -> None:
    root = MASTER_KEY._key
    settings = load_settings({"data_dir": str(tmp_path)}, {}, tmp_path / "none")
    file = tmp_path / "sealing.keys"
    running = with_keys(installation.cluster, MasterKey(root, sealing_file=file))
    await set_secrets(running, installation.main)
    keys_of_file = []
    for _ in range(3):
        cluster = with_keys(running, MasterKey(root, sealing_file=file))
        assert (await keys.rotate(cluster, settings)).startswith("3 secrets are sealed anew")
        keys_of_file.append([key.id for key in read_keys(file)])
        assert await opened(running) == {f"{SECRET}-1", f"{SECRET}-2"}
        assert secret_of_auth(running, installation.main) == b"of auth"
    first, second, third = keys_of_file
    assert second[1:] == first
    assert third[1:] == second[:1]
    # The master key alone opens none of them any more.
    with pytest.raises(SettingError):
        await opened(with_keys(running, MasterKey(root)))


async def test_keys_of_the_settings_are_the_operators_to_change(
    installation: Installation, tmp_path: Path
) -> None:
    root = MASTER_KEY._key
    await set_secrets(installation.cluster, installation.main)
    master = {"data_dir": str(tmp_path), "master_key": MASTER_KEY.text()}
    settings = load_settings(master, {}, tmp_path / "none")
    with pytest.raises(SettingError) as error:
        await keys.rotate(installation.cluster, settings)
    assert error.value.hint is not None
    assert "sealing_keys" in error.value.hint
    new = new_key()
    settings = load_settings(master | {"sealing_keys": new.text()}, {}, tmp_path / "none")
    cluster = with_keys(installation.cluster, MasterKey(root, sealing=[new]))
    assert f"with the key {new.id.hex()}" in await keys.rotate(cluster, settings)
    assert await opened(cluster) == {f"{SECRET}-1", f"{SECRET}-2"}
    assert not (tmp_path / "sealing.keys").exists()


async def test_what_no_key_opens_is_left_as_it_is(
    installation: Installation, tmp_path: Path
) -> None:
    root = MASTER_KEY._key
    lost = with_keys(installation.cluster, MasterKey(root, sealing=[new_key()]))
    await set_secrets(lost, installation.main)
    settings = load_settings({"data_dir": str(tmp_path)}, {}, tmp_path / "none")
    cluster = with_keys(lost, MasterKey(root, sealing_file=tmp_path / "sealing.keys"))
    assert "3 could not be opened" in await keys.rotate(cluster, settings)
    assert await opened(lost) == {f"{SECRET}-1", f"{SECRET}-2"}
