"""App keys over HTTP: what is asked of them, and what they are kept from."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest

from butterbase.api.auth.tokens import ExpiredTokenError
from butterbase.api.keys.key import Scope
from butterbase.api.keys.keyring import Keyring
from butterbase.sql.cluster import LoginRole
from butterbase.sql.errors import InvalidTokenError
from butterbase.sql.pipeline import Executor, Result, Statement
from tests.api.conftest import Api

MODELS = "/v1/main/models"


async def make(api: Api, *scopes: str, headers: dict[str, str] | None = None, **more: Any) -> Any:
    answer = await api.client.post(
        "/keys", json={"name": "ci", "scopes": scopes, **more}, headers=headers or api.service
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


async def get(api: Api, path: str, key: str) -> httpx.Response:
    return await api.client.get(path, headers={"apikey": key})


def code(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    return answer.status_code, body.get("error_code", body["code"])


def execute(api: Api, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(api.installation.control.dsn, autocommit=True) as conn:
        cursor = conn.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
async def control(api: Api) -> AsyncIterator[Executor]:
    cluster = api.installation.cluster
    control = Executor(cluster.dsn(LoginRole.SERVICE, cluster.control_database))
    yield control
    await control.close()


@pytest.fixture
def _rows(api: Api) -> None:
    api.installation.as_owner("create table secrets (id int); insert into secrets values (1)")


@pytest.mark.usefixtures("_rows")
async def test_the_scope_data_reads_as_the_service_role(api: Api) -> None:
    key = (await make(api, "data"))["key"]
    assert (await get(api, "/rest/v1/secrets", api.keys.anon)).json() == []
    assert (await get(api, "/rest/v1/secrets", key)).json() == [{"id": 1}]
    bearer = {"Authorization": f"Bearer {key}"}
    assert (await api.client.get("/rest/v1/secrets", headers=bearer)).json() == [{"id": 1}]
    both = {"apikey": key, **bearer}
    assert (await api.client.get("/rest/v1/secrets", headers=both)).json() == [{"id": 1}]


@pytest.mark.usefixtures("_rows")
@pytest.mark.parametrize("scopes", [("ai",), ("admin",), ("functions", "ai", "admin")])
async def test_no_other_scope_reads_data(api: Api, scopes: tuple[str, ...]) -> None:
    key = (await make(api, *scopes))["key"]
    assert code(await get(api, "/rest/v1/secrets", key)) == (403, "insufficient_scope")


async def test_a_key_reaches_only_what_its_scopes_open(api: Api) -> None:
    key = (await make(api, "data"))["key"]
    for path in ("/keys", "/v1/main/ai/config", "/v1/main/ai/usage"):
        assert code(await get(api, path, key)) == (403, "insufficient_scope"), path
    refused = await get(api, MODELS, key)  # in the form that OpenAI's clients read
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")
    for path in ("/auth/v1/signup", "/auth/v1/token?grant_type=password"):
        answer = await api.client.post(path, json={}, headers={"apikey": key})
        assert code(answer) == (403, "insufficient_scope"), path


async def test_the_scope_ai_opens_ai_but_not_its_configuration(api: Api) -> None:
    key = (await make(api, "ai"))["key"]
    assert (await get(api, "/v1/main/ai/usage", key)).status_code == 200
    assert (await get(api, "/v1/main/rag/collections", key)).status_code == 200
    assert code(await get(api, "/v1/main/ai/config", key)) == (403, "insufficient_scope")
    admin = (await make(api, "admin"))["key"]
    assert (await get(api, "/v1/main/ai/config", admin)).status_code == 200


@pytest.mark.usefixtures("_rows")
async def test_a_key_beside_a_users_token_still_bounds_what_it_reaches(api: Api) -> None:
    key = (await make(api, "ai"))["key"]
    headers = {"apikey": key, "Authorization": f"Bearer {api.keys.service_role}"}
    answer = await api.client.get("/rest/v1/secrets", headers=headers)
    assert code(answer) == (403, "insufficient_scope")
    headers = {"apikey": api.keys.service_role, "Authorization": f"Bearer {key}"}
    answer = await api.client.get("/rest/v1/secrets", headers=headers)
    assert code(answer) == (403, "insufficient_scope")


async def test_policies_see_which_key_it_is(api: Api) -> None:
    api.installation.as_owner(
        "create table seen (id text); insert into seen select 'x';"
        "create view whoami with (security_invoker) as select auth.jwt()->>'key_id' as id from seen"
    )
    made = await make(api, "data")
    assert (await get(api, "/rest/v1/whoami", made["key"])).json() == [{"id": made["id"]}]


async def test_a_key_is_shown_once_and_kept_as_its_hash(api: Api) -> None:
    made = await make(api, "data", "ai")
    assert (made["name"], sorted(made["scopes"])) == ("ci", ["ai", "data"])
    (listed,) = (await api.client.get("/keys", headers=api.service)).json()["keys"]
    assert listed == {name: value for name, value in made.items() if name != "key"}
    stored = json.dumps(execute(api, "select * from butterbase.app_keys"), default=str)
    events = json.dumps(execute(api, "select * from butterbase.events"), default=str)
    assert made["key"] not in stored + events
    assert made["id"] in stored


async def test_an_answer_with_a_key_is_not_to_be_kept(api: Api) -> None:
    answer = await api.client.post(
        "/keys", json={"name": "x", "scopes": ["ai"]}, headers=api.service
    )
    assert answer.headers["Cache-Control"] == "no-store"


async def test_an_expired_key_is_refused(api: Api) -> None:
    made = await make(api, "ai", expires_in_days=1)
    execute(api, "update butterbase.app_keys set expires_at = now() - interval '1 second'")
    assert code(await get(api, "/v1/main/ai/usage", made["key"])) == (401, "token_expired")


async def test_a_key_that_expires_while_it_is_remembered_is_refused(
    api: Api, control: Executor
) -> None:
    made = await make(api, "ai")
    ((expires_at,),) = execute(
        api, "select extract(epoch from expires_at)::float8 from butterbase.app_keys"
    )
    keyring = Keyring(control, "main")
    claims = await keyring.verify(made["key"], scope=Scope.AI, now_s=expires_at - 1)
    assert claims.key_id == made["id"]
    with pytest.raises(ExpiredTokenError):
        await keyring.verify(made["key"], scope=Scope.AI, now_s=expires_at)


async def test_a_revoked_key_is_refused_and_so_are_those_it_made(api: Api) -> None:
    parent = await make(api, "admin", "ai")
    child = await make(api, "ai", headers={"apikey": parent["key"]})
    gone = await api.client.delete(f"/keys/{parent['id']}", headers=api.service)
    assert gone.status_code == 204
    for made in (parent, child):
        assert code(await get(api, "/v1/main/ai/usage", made["key"])) == (401, "invalid_token")
    types = [row[0] for row in execute(api, "select type from butterbase.events order by id")]
    assert types == ["key.created"] * 2 + ["key.revoked"] * 2


async def test_revoking_reaches_a_worker_that_remembers_the_key(
    api: Api, control: Executor
) -> None:
    made = await make(api, "ai")
    keyring = Keyring(control, "main")
    await keyring.verify(made["key"], scope=Scope.AI, now_s=0)
    execute(api, "update butterbase.app_keys set revoked_at = now()")
    await keyring.verify(made["key"], scope=Scope.AI, now_s=4.9)
    with pytest.raises(InvalidTokenError):
        await keyring.verify(made["key"], scope=Scope.AI, now_s=5)


async def test_a_key_makes_no_key_with_more_than_its_own(api: Api) -> None:
    parent = await make(api, "admin", expires_in_days=1)
    headers = {"apikey": parent["key"]}
    refused = await api.client.post(
        "/keys", json={"name": "more", "scopes": ["admin", "data"]}, headers=headers
    )
    assert code(refused) == (403, "insufficient_scope")
    child = await make(api, "admin", headers=headers, expires_in_days=365)
    assert child["expires_at"] == parent["expires_at"]


async def test_an_unknown_key_is_refused(api: Api) -> None:
    for key in ("bb_", "bb_wrong", "bb_" + "x" * 43, "bb_" + "x" * 10_000):
        assert code(await get(api, "/v1/main/ai/usage", key)) == (401, "invalid_token")


async def test_a_key_of_another_app_is_refused(api: Api) -> None:
    made = await make(api, "ai")
    execute(api, "insert into butterbase.apps (id, database) values ('other', 'other')")
    execute(api, "update butterbase.app_keys set app_id = 'other'")
    assert code(await get(api, "/v1/main/ai/usage", made["key"])) == (401, "invalid_token")


async def test_only_the_service_role_and_admin_keys_manage_keys(api: Api) -> None:
    made = await make(api, "admin")
    body = {"name": "x", "scopes": ["ai"]}
    answers = [
        await api.client.get("/keys", headers=api.anon),
        await api.client.post("/keys", json=body, headers=api.anon),
        await api.client.delete(f"/keys/{made['id']}", headers=api.anon),
    ]
    assert [code(answer) for answer in answers] == [(403, "key_admin_required")] * 3


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["all"]},
        {"name": "", "scopes": ["ai"]},
        {"name": "a\0b", "scopes": ["ai"]},
        {"name": "x", "scopes": ["ai"], "expires_in_days": 0},
        {"name": "x", "scopes": ["ai"], "expires_in_days": 4000},
        {"name": "x", "scopes": ["ai"], "expires": "never"},
    ],
)
async def test_what_is_no_key_is_not_made(api: Api, body: Any) -> None:
    answer = await api.client.post("/keys", json=body, headers=api.service)
    assert code(answer) == (400, "key_request_invalid")
    assert execute(api, "select 1 from butterbase.app_keys") == []


@pytest.mark.parametrize("key_id", ["x", "7c9e6679-7425-40de-944b-e07fc1f90ae7"])
async def test_revoking_what_is_not_there_is_404(api: Api, key_id: str) -> None:
    answer = await api.client.delete(f"/keys/{key_id}", headers=api.service)
    assert code(answer) == (404, "key_not_found")


async def test_its_last_use_is_noted(api: Api) -> None:
    made = await make(api, "ai")
    assert made["last_used_at"] is None
    await get(api, "/v1/main/ai/usage", made["key"])
    (listed,) = (await api.client.get("/keys", headers=api.service)).json()["keys"]
    assert listed["last_used_at"] is not None


async def test_a_key_that_is_revoked_while_it_is_read_is_not_remembered(
    api: Api, control: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await make(api, "ai")
    keyring, run = Keyring(control, "main"), control.run

    async def run_and_revoke(*statements: Statement, **options: Any) -> list[Result]:
        results = await run(*statements, **options)
        execute(api, "update butterbase.app_keys set revoked_at = now()")
        keyring.forget()
        return results

    monkeypatch.setattr(control, "run", run_and_revoke)
    await keyring.verify(made["key"], scope=Scope.AI, now_s=0)
    with pytest.raises(InvalidTokenError):
        await keyring.verify(made["key"], scope=Scope.AI, now_s=0)
