"""`butterbase keys`, without its processes."""

import psycopg
import pytest

from butterbase.api.keys.key import Scope
from butterbase.api.keys.keyring import Keyring
from butterbase.cli import keys
from butterbase.cli.__main__ import parser
from butterbase.sql.cluster import LoginRole
from butterbase.sql.errors import InvalidTokenError, SettingError
from butterbase.sql.pipeline import Executor
from tests.installation import Installation


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
