"""`GET` and `PUT ai/config`, and what the configuration does to calls."""

import asyncio

import httpx
import pytest

from butterbase.ai.config.configs import AiConfigChange, key_hint
from butterbase.ai.config.rows import ConfigRow
from butterbase.ai.settings import AiSettings
from butterbase.sql.errors import SettingError
from tests.ai.conftest import USER, Harness, running_gateway
from tests.ai.upstream import COMPLETION, Upstream, answer, chunk, stream
from tests.postgres import Database

KEY = "sk-live-0123456789abcd"
EMPTY: dict[str, object] = {
    "defaultModel": None,
    "baseUrl": None,
    "byokKey": None,
    "maxTokensPerRequest": None,
    "allowedModels": None,
    "allowAnonymous": False,
    "providers": {},
    "routes": [],
    "cache": None,
    "guards": None,
    "tools": {},
    "logContent": None,
    "plan": {
        "plan": "enterprise",
        "period": None,
        "limitUsd": None,
        "spentUsd": None,
        "reservedUsd": None,
        "overageCredits": 0,
        "overageCreditsMax": 0,
    },
    "budgets": [],
    "limits": [],
    "prices": {"overrides": [], "fallback": None},
    "alerts": {"email": None, "hook": None},
}


async def put(harness: Harness, **fields: object) -> httpx.Response:
    return await harness.http.put(f"{harness.path}/ai/config", json=fields)


async def get(harness: Harness) -> object:
    return (await harness.http.get(f"{harness.path}/ai/config")).json()


async def test_an_app_starts_with_nothing_set(harness: Harness) -> None:
    assert await get(harness) == EMPTY


async def test_fields_left_out_stay_and_null_unsets(harness: Harness) -> None:
    first = {"defaultModel": "a", "allowedModels": ["a", "b"], "maxTokensPerRequest": 100_000}
    assert (await put(harness, **first)).json() == EMPTY | first
    assert (await put(harness, defaultModel=None)).status_code == 200
    assert await get(harness) == EMPTY | first | {"defaultModel": None}


async def test_the_key_is_sealed_and_only_its_hint_comes_back(harness: Harness) -> None:
    response = await put(harness, byokKey=KEY)
    assert response.json()["byokKey"] == "sk-…abcd"
    assert "0123456789" not in response.text
    assert await get(harness) == EMPTY | {"byokKey": "sk-…abcd"}
    [(sealed,)] = harness.execute(
        "select api_key_encrypted from butterbase.ai_config where app_id = %s", harness.app_id
    )
    assert KEY.encode() not in sealed


def test_the_hint_of_a_short_key_gives_nothing_away() -> None:
    assert key_hint("sk-1234567890") == "…"


async def test_the_apps_own_key_and_url_go_before_the_operators(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = answer(200, COMPLETION)
    await put(harness, byokKey=KEY)
    await harness.chat()
    assert upstream.last.headers["authorization"] == f"Bearer {KEY}"
    await put(harness, baseUrl=f"{upstream.base_url}/own/", byokKey=KEY, defaultModel="own")
    await harness.chat(model=None)
    assert upstream.last.path == "/v1/own/chat/completions"
    assert upstream.last.headers["authorization"] == f"Bearer {KEY}"
    assert upstream.last.json()["model"] == "own"


async def test_the_operators_key_and_model_do_not_go_to_an_apps_own_url(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = answer(200, COMPLETION)
    await put(harness, baseUrl=f"{upstream.base_url}/own")
    await harness.chat()
    assert "authorization" not in upstream.last.headers
    assert (await harness.chat(model=None)).json()["error"]["code"] == "ai_model_missing"


async def test_a_new_base_url_needs_its_key(harness: Harness) -> None:
    await put(harness, baseUrl="https://one.test/v1", byokKey=KEY)
    response = await put(harness, baseUrl="https://two.test/v1")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "byokKey"
    assert (await put(harness, baseUrl="https://one.test/v1/")).status_code == 200
    assert (await put(harness, baseUrl="https://two.test/v1", byokKey=None)).status_code == 200
    assert await get(harness) == EMPTY | {"baseUrl": "https://two.test/v1"}


async def test_a_key_of_another_master_key_is_a_clear_error(
    harness: Harness, upstream: Upstream
) -> None:
    await put(harness, byokKey=KEY)
    harness.execute(
        "update butterbase.ai_config set api_key_encrypted = %s where app_id = %s",
        bytes(60), harness.app_id,
    )  # fmt: skip
    response = await harness.chat()
    assert response.status_code == 500
    assert "another master key" in response.json()["error"]["message"]
    assert upstream.received == []


@pytest.mark.parametrize(
    "fields",
    [
        {"maxTokensPerRequest": 0},
        {"maxTokensPerRequest": 100_001},
        {"maxTokensPerRequest": "10"},
        {"allowedModels": "a"},
        {"allowedModels": [""]},
        {"allowedModels": ["a"], "defaultModel": "b"},
        {"defaultModel": "a\u0000"},
        {"defaultModel": "m" * 201},
        {"byokKey": "short"},
        {"byokKey": "sk-0123456789\r\nx-injected: 1"},
        {"byokKey": "sk-0123456789\n"},
        {"baseUrl": "localhost"},
        {"apiKey": KEY},
    ],
)
async def test_a_wrong_value_changes_nothing(harness: Harness, fields: dict[str, object]) -> None:
    response = await put(harness, **fields)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "ai_config_invalid"
    assert await get(harness) == EMPTY


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"maxTokensPerRequest": 0}, "maxTokensPerRequest"),
        ({"budgets": [{"scope": "app", "period": "week", "limitUsd": 1}]}, "budgets[0].period"),
        ({"routes": [{"match": "a"}]}, "routes[0]"),
        ({"apiKey": KEY}, "apiKey"),
        ([], None),
    ],
)
async def test_the_field_at_fault_is_named(
    harness: Harness, fields: object, param: str | None
) -> None:
    response = await harness.http.put(f"{harness.path}/ai/config", json=fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_only_the_service_role_sees_and_changes_it(harness: Harness, role: str) -> None:
    harness.http.headers.update({"x-test-role": role, "x-test-user": USER})
    for response in (
        await harness.http.get(f"{harness.path}/ai/config"),
        await put(harness, defaultModel="a"),
    ):
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "ai_role_denied"


async def test_an_unknown_app_has_no_configuration(harness: Harness) -> None:
    response = await harness.http.put("/v1/nobody/ai/config", json={"defaultModel": "a"})
    assert response.status_code == 400


async def test_a_model_that_is_not_allowed_is_refused_and_recorded(
    harness: Harness, upstream: Upstream
) -> None:
    await put(harness, allowedModels=["a", "embed"])
    response = await harness.chat(model="b")
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "ai_model_denied"
    event = await harness.the_event()
    assert (event["model"], event["error_code"]) == ("b", "ai_model_denied")
    embeddings = await harness.http.post(
        f"{harness.path}/embeddings", json={"model": "b", "input": "x"}
    )
    assert embeddings.status_code == 403
    assert upstream.received == []


async def test_the_token_limit_holds_streamed_or_not(harness: Harness, upstream: Upstream) -> None:
    await put(harness, maxTokensPerRequest=100)
    upstream.script = stream(chunk("a", finish="stop"))
    for is_streamed in (True, False):
        response = await harness.chat(stream=is_streamed, max_tokens=101)
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("ai_token_limit_exceeded", "max_tokens")
    assert upstream.received == []
    await harness.chat(stream=True)
    assert upstream.last.json()["max_tokens"] == 100


async def test_the_operators_base_url_is_checked_at_start(control: Database) -> None:
    with pytest.raises(SettingError, match="ai_base_url"):
        async with running_gateway(control, AiSettings(ai_base_url="localhost:11434")):
            pass


@pytest.mark.parametrize(
    "config",
    [
        {"budgets": [{"scope": "model", "subject": "x\0", "period": "day", "limitUsd": 1}]},
        {"limits": [{"scope": "model", "subject": "\0", "requestsPerMinute": 1}]},
        {"prices": {"overrides": [{"model": "x\0", "input": 1, "output": 1}]}},
        {"guards": {"tools": ["x\0"]}},
        {"cache": {"tools": ["x\0"]}},
        {"allowedModels": ["x\0"]},
        {"tools": {"t": {"function": "f", "description": "x\0"}}},
        {"tools": {"t": {"function": "f", "description": "x", "parameters": {"title": "\0"}}}},
        {"providers": {"p": {"kind": "openai_compatible", "baseUrl": "http://a.test/\0"}}},
        {"alerts": {"email": "a@example.com\n"}},
        {"alerts": {"hook": "https://example.com/\n"}},
    ],
)
async def test_a_text_that_cannot_be_stored_or_sent_is_refused(
    harness: Harness, config: dict[str, object]
) -> None:
    response = await harness.http.put(f"{harness.path}/ai/config", json=config)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "ai_config_invalid")


async def test_a_reading_of_before_a_change_does_not_undo_it(harness: Harness) -> None:
    configs, go_on, is_read = harness.gateway.configs, asyncio.Event(), asyncio.Event()
    find = configs._find

    async def find_late(app_id: str) -> ConfigRow:
        row = await find(app_id)
        is_read.set()
        await go_on.wait()
        return row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configs, "_find", find_late)
        reading = asyncio.create_task(configs.of(harness.app_id))
        await is_read.wait()
    await configs.change(harness.app_id, AiConfigChange(default_model="new"))
    async with asyncio.timeout(30):  # it does not wait for the other
        assert (await configs.of(harness.app_id)).default_model == "new"
    go_on.set()
    assert (await reading).default_model == "default-model"
    assert (await configs.of(harness.app_id)).default_model == "new"
