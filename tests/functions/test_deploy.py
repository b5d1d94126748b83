"""Functions are deployed, changed, rolled back and taken away over the API."""

import asyncio
from typing import Any

import httpx
import psycopg
import pytest

from tests.api.conftest import Api

HANDLER = "export default async function handler(req: Request) { return new Response('one'); }"


async def deploy(api: Api, name: str = "hello", **more: Any) -> httpx.Response:
    body = {"name": name, **({} if "files" in more else {"code": HANDLER}), **more}
    return await api.client.post("/v1/main/functions", json=body, headers=api.service)


async def deployed(api: Api, name: str = "hello", **more: Any) -> dict[str, Any]:
    answer = await deploy(api, name, **more)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def get(api: Api, path: str) -> Any:
    answer = await api.client.get(f"/v1/main/functions{path}", headers=api.service)
    assert answer.status_code == 200, answer.text
    return answer.json()


def fault(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_deployed_function_is_shown_with_its_settings(api: Api) -> None:
    made = await deployed(
        api, env={"KEY": "s3cret"}, permissions={"net": ["api.openai.com"]}, timeout_ms=5000
    )
    assert made["version"] == 1
    function = await get(api, "/hello")
    assert function["active_version"] == 1
    assert function["env"] == ["KEY"]
    assert function["permissions"] == {"net": ["api.openai.com"], "env": None, "service": False}
    assert (function["verify_jwt"], function["timeout_ms"]) == (True, 5000)
    assert "s3cret" not in str(await get(api, ""))


async def test_variables_are_sealed_in_the_database(api: Api) -> None:
    await deployed(api, env={"KEY": "s3cret-value"})
    with psycopg.connect(api.installation.main.dsn) as conn:
        rows = conn.execute("select name, value_sealed from functions.variables").fetchall()
    assert [name for name, _ in rows] == ["KEY"]
    assert b"s3cret-value" not in bytes(rows[0][1])


async def test_another_deployment_is_the_next_version_and_keeps_what_it_does_not_say(
    api: Api,
) -> None:
    first = await deployed(api, env={"A": "1", "B": "2"}, verify_jwt=False)
    second = await deployed(api, code=HANDLER.replace("one", "two"), env={"B": None, "C": "3"})
    assert (first["version"], second["version"]) == (1, 2)
    function = second["function"]
    assert function["env"] == ["A", "C"]
    assert function["verify_jwt"] is False
    assert function["revision"] != first["function"]["revision"]
    versions = (await get(api, "/hello/versions"))["versions"]
    assert [(v["version"], v["is_active"]) for v in versions] == [(2, True), (1, False)]
    shown = await get(api, "/hello/versions/1")
    assert shown["files"] == {"index.ts": HANDLER}


async def test_a_rollback_is_one_call(api: Api) -> None:
    for _ in range(3):
        await deployed(api)
    post = api.client.post
    answer = await post("/v1/main/functions/hello/rollback", headers=api.service)
    assert answer.json()["version"] == 2
    assert (await get(api, "/hello"))["active_version"] == 2
    await post("/v1/main/functions/hello/rollback", headers=api.service)
    answer = await post("/v1/main/functions/hello/rollback", headers=api.service)
    assert fault(answer) == (404, "function_version_not_found")
    answer = await api.client.patch(
        "/v1/main/functions/hello", json={"active_version": 3}, headers=api.service
    )
    assert answer.json()["active_version"] == 3
    answer = await api.client.patch(
        "/v1/main/functions/hello", json={"active_version": 9}, headers=api.service
    )
    assert fault(answer) == (404, "function_version_not_found")


async def test_a_function_that_is_deleted_is_gone(api: Api) -> None:
    await deployed(api)
    answer = await api.client.delete("/v1/main/functions/hello", headers=api.service)
    assert answer.status_code == 204
    answer = await api.client.delete("/v1/main/functions/hello", headers=api.service)
    assert fault(answer) == (404, "function_not_found")
    assert (await get(api, ""))["functions"] == []


async def test_code_that_cannot_be_read_is_told_by_line_and_column(api: Api) -> None:
    answer = await deploy(api, code="const x = 1;\nexport default function (a { }")
    assert fault(answer) == (400, "function_syntax_error")
    assert answer.json()["details"] == {"file": "index.ts", "line": 2, "column": 28}
    assert answer.json()["message"].startswith("index.ts:2:28: ")


IMPORTS = [
    'import x from "npm:zod"; export default x',
    'import x from "https://esm.sh/zod"; export default x',
    'import x from "jsr:@std/assert"; export default x',
    'import x from "lodash"; export default x',
    'import x from "./other.ts"; export default x',
    'import x from "../../hugo.toml"; export default x',
    'import x from "/etc/passwd"; export default x',
    'import x from "file:///etc/hosts"; export default x',
    'export default require("/etc/passwd")',
    'import x from "/proc/self/environ" with { type: "text" }; export default x',
]


@pytest.mark.parametrize("code", IMPORTS)
async def test_a_function_imports_what_is_deployed_with_it(api: Api, code: str) -> None:
    assert fault(await deploy(api, code=code)) == (400, "function_import_refused")


async def test_files_are_bundled_into_one_script(api: Api) -> None:
    files = {
        "index.ts": 'import { b } from "./lib/b.ts"; import d from "./d.json";'
        ' import { createHash } from "node:crypto"; export default () => new Response(b(d.n))',
        "lib/b.ts": "export const b = (n: number): string => `${n}`;",
        "d.json": '{"n": 1}',
    }
    await deployed(api, files=files)
    with psycopg.connect(api.installation.main.dsn) as conn:
        row = conn.execute("select bundle, source_map from functions.versions").fetchone()
    assert row is not None
    assert "import " not in row[0].replace("imported", "")
    assert "index.ts" in row[1]
    assert "/tmp" not in row[0] + row[1]  # noqa: S108  nobody's


INVALID: dict[str, dict[str, Any]] = {
    "name": {"name": "1st"},
    "reserved": {"name": "v1"},
    "newline": {"name": "a\n"},
    "neither": {"code": None},
    "both": {"files": {"index.ts": HANDLER}, "code": HANDLER},
    "path": {"files": {"../index.ts": HANDLER}},
    "absolute": {"files": {"/index.ts": HANDLER}},
    "hidden": {"files": {".env/index.ts": HANDLER}},
    "NUL": {"files": {"index.ts": HANDLER, "a\0.ts": ""}},
    "file and folder": {"files": {"index.ts": HANDLER, "a.ts": "", "a.ts/b.ts": ""}},
    "case": {"files": {"index.ts": HANDLER, "Index.ts": HANDLER}},
    "long name": {"files": {"index.ts": HANDLER, "a" + "é" * 150 + ".ts": ""}},
    "extension": {"files": {"index.ts": HANDLER, "x.css": ""}},
    "no entrypoint": {"files": {"a.json": "{}"}},
    "two entrypoints": {"files": {"a.ts": HANDLER, "b.ts": HANDLER}},
    "unknown entrypoint": {"files": {"a.ts": HANDLER}, "entrypoint": "c.ts"},
    "variable": {"env": {"A-B": "1"}},
    "platform's": {"env": {"BUTTERBASE_X": "1"}},
    "permission": {"permissions": {"run": True}},
    "import": {"permissions": {"import": ["esm.sh"]}},
    "timeout": {"timeout_ms": 10},
    "long timeout": {"timeout_ms": 900_000},
    "memory": {"memory_mb": 4096},
    "member": {"nope": 1},
    "too much": {"files": {"index.ts": HANDLER, "a.txt": "é" * 4_200_000}},
    "another version": {"active_version": 1},
}


@pytest.mark.parametrize("name", INVALID)
async def test_what_is_no_function_is_refused(api: Api, name: str) -> None:
    more = {"code": HANDLER} | INVALID[name]
    if "files" in more and name != "both":
        del more["code"]
    answer = await api.client.post(
        "/v1/main/functions", json={"name": "hello", **more}, headers=api.service
    )
    assert fault(answer) == (400, "function_invalid"), answer.text


async def test_a_host_that_is_none_is_refused(api: Api) -> None:
    answer = await deploy(api, permissions={"net": ["https://x.com/a"]})
    assert fault(answer) == (400, "function_net_invalid")


async def test_more_variables_than_may_be_are_refused(api: Api) -> None:
    await deployed(api, env={f"A{i}": "1" for i in range(99)})
    assert fault(await deploy(api, env={"B": "1", "C": "1"})) == (400, "function_invalid")
    assert (await get(api, "/hello"))["active_version"] == 1


TRIGGERS: list[tuple[dict[str, Any], str]] = [
    ({"type": "database", "table": "nope"}, "there is no table"),
    ({"type": "database", "table": "orders", "filter": "a=eq.1"}, "has no column a"),
    ({"type": "database", "table": "orders", "filter": "id=eq.x"}, "invalid input syntax"),
    ({"type": "database", "table": "orders", "filter": "id=like.x"}, "operator does not exist"),
    ({"type": "database", "table": "orders", "filter": "id=zz.1"}, "filter"),
    ({"type": "database", "table": "orders", "columns": ["zz"]}, "has no column zz"),
    ({"type": "database", "table": "orders", "events": []}, "events"),
    ({"type": "database", "schema": "auth", "table": "sessions"}, "are not told"),
    (
        {
            "type": "database",
            "schema": "auth",
            "table": "users",
            "filter": "encrypted_password=like.$2*",
        },
        "no column encrypted_password",
    ),
    (
        {"type": "database", "schema": "auth", "table": "users", "columns": ["recovery_token"]},
        "no column recovery_token",
    ),
    ({"type": "database", "schema": "functions", "table": "variables"}, "are not told"),
    ({"type": "cron", "schedule": "* * *"}, "five fields"),
    ({"type": "cron", "schedule": "61 * * * *"}, "no schedule"),
    ({"type": "cron", "schedule": "0 0 31 2 *"}, "no schedule"),
    ({"type": "cron", "schedule": "@every 0s"}, "such as"),
    ({"type": "cron", "schedule": "@daily", "payload": "x" * 262_143}, "262144 bytes"),
    ({"type": "cron", "schedule": "@daily", "payload": ["a\0b"]}, "NUL"),
    ({"type": "cron", "schedule": "@daily", "time_zone": "Mars/Base"}, "time zone"),
    ({"type": "cron", "schedule": "@daily", "time_zone": "../../etc/passwd"}, "time zone"),
]


@pytest.mark.parametrize(("trigger", "reason"), TRIGGERS)
async def test_a_trigger_that_cannot_work_is_refused(
    api: Api, trigger: dict[str, Any], reason: str
) -> None:
    api.installation.as_owner("create table orders (id int primary key)")
    answer = await deploy(api, triggers=[trigger])
    assert fault(answer) == (400, "trigger_invalid"), answer.text
    assert reason in answer.json()["message"]


async def test_triggers_are_what_was_said_last(api: Api) -> None:
    api.installation.as_owner("create table orders (id int primary key, at timestamptz)")
    kept = {"type": "database", "table": "orders", "filter": "id=gt.5", "ordered": True}
    cron = {"type": "cron", "schedule": "*/5 * * * *", "time_zone": "Europe/Berlin"}
    queue = {"type": "queue", "queue": "mails", "name": "q"}
    first = await deployed(api, triggers=[kept, cron, queue])
    second = await deployed(api, triggers=[kept, {"type": "cron", "schedule": "@hourly"}])
    ids = [{t["name"]: t["id"] for t in made["function"]["triggers"]} for made in (first, second)]
    assert ids[0].keys() == {"orders", "cron", "q"}
    assert ids[1] == {name: ids[0][name] for name in ("orders", "cron")}
    third = await deployed(api)
    assert len(third["function"]["triggers"]) == 2


async def test_only_the_service_role_manages_functions(api: Api) -> None:
    user = await api.sign_up("a@example.com")
    for headers in (api.anon, user):
        answer = await api.client.get("/v1/main/functions", headers=headers)
        assert fault(answer) == (403, "function_admin_required")
        answer = await api.client.post("/v1/main/functions", json={}, headers=headers)
        assert fault(answer) == (403, "function_admin_required")
    answer = await api.client.get("/v1/main/functions")
    assert fault(answer) == (401, "no_api_key")


async def make_key(api: Api, *scopes: str) -> dict[str, str]:
    answer = await api.client.post(
        "/keys", json={"name": "k", "scopes": scopes}, headers=api.service
    )
    return {"apikey": answer.json()["key"]}


async def test_a_key_needs_the_scope_and_gives_away_no_more_than_it_has(api: Api) -> None:
    key = await make_key(api, "functions")
    body = {"name": "mine", "code": HANDLER}
    url = "/v1/main/functions"
    assert (await api.client.post(url, json=body, headers=key)).status_code == 201
    answer = await api.client.post(url, json=body | {"permissions": {"service": True}}, headers=key)
    assert fault(answer) == (403, "function_grant_refused")
    await deployed(api, "granted", permissions={"service": True})
    for answer in (
        await api.client.post(url, json={"name": "granted", "code": HANDLER}, headers=key),
        await api.client.patch(f"{url}/granted", json={"env": {"A": "1"}}, headers=key),
    ):
        assert fault(answer) == (403, "function_grant_refused")
    both = await make_key(api, "functions", "data")
    answer = await api.client.post(url, json={"name": "granted", "code": HANDLER}, headers=both)
    assert answer.status_code == 201
    other = await make_key(api, "data", "ai")
    assert fault(await api.client.get(url, headers=other)) == (403, "insufficient_scope")


async def test_a_key_that_opens_no_data_is_told_none_by_triggers(api: Api) -> None:
    api.installation.as_owner("create table orders (id int primary key)")
    key = await make_key(api, "functions")
    url = "/v1/main/functions"
    mine = {"name": "mine", "code": HANDLER}
    listening = {"triggers": [{"type": "database", "table": "orders"}]}
    assert (await api.client.post(url, json=mine, headers=key)).status_code == 201
    await deployed(api, "theirs", **listening)
    for answer in (
        await api.client.post(url, json=mine | listening, headers=key),
        await api.client.patch(f"{url}/mine", json=listening, headers=key),
        await api.client.post(url, json=mine | {"name": "theirs"}, headers=key),
        await api.client.patch(f"{url}/theirs", json={"env": {"A": "1"}}, headers=key),
        await api.client.post(f"{url}/theirs/rollback", headers=key),
        await api.client.delete(f"{url}/theirs", headers=key),
    ):
        assert fault(answer) == (403, "function_grant_refused")
    with psycopg.connect(api.installation.main.dsn) as conn:
        id_ = conn.execute(
            "insert into functions.invocations (function_id, trigger_id, kind, status, payload)"
            " select function_id, id, 'database', 'dead', '{\"record\": 1}' from functions.triggers"
            " returning id::text"
        ).fetchone()
        conn.commit()
    assert id_ is not None
    both = await make_key(api, "functions", "data")
    record = f"{url}/theirs/invocations/{id_[0]}"
    payloads = [
        (await api.client.get(record, headers=headers)).json()["payload"]
        for headers in (key, both, api.service)
    ]
    assert payloads == [None, {"record": 1}, {"record": 1}]
    retried = await api.client.post(f"{record}/retry", headers=key)
    assert retried.json()["payload"] is None


async def test_a_call_of_a_function_that_is_not_there(api: Api) -> None:
    answer = await api.client.get("/functions/v1/nope", headers=api.anon)
    assert fault(answer) == (404, "function_not_found")
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_without_the_process_that_runs_functions_a_call_is_told_so(api: Api) -> None:
    await deployed(api)
    answer = await api.client.get("/functions/v1/hello", headers=api.anon)
    assert fault(answer) == (502, "functions_unavailable")
    assert answer.headers["x-relay-error"] == "true"


async def test_a_call_needs_a_key_unless_the_function_takes_anybody(api: Api) -> None:
    await deployed(api)
    await deployed(api, "open", verify_jwt=False)
    assert fault(await api.client.get("/functions/v1/hello")) == (401, "no_api_key")
    bad = {"Authorization": "Bearer x"}
    assert fault(await api.client.get("/functions/v1/hello", headers=bad))[0] == 401
    for answer in (
        await api.client.get("/functions/v1/open"),
        await api.client.get("/v1/main/fn/open/below?x=1", headers=bad),
        await api.client.options("/functions/v1/hello"),
    ):
        assert fault(answer) == (502, "functions_unavailable")


async def test_two_deployments_at_once_are_two_versions(api: Api) -> None:
    answers = await asyncio.gather(*(deploy(api, env={f"A{i}": "1"}) for i in range(4)))
    assert sorted(answer.json()["version"] for answer in answers) == [1, 2, 3, 4]
    assert (await get(api, "/hello"))["env"] == ["A0", "A1", "A2", "A3"]
