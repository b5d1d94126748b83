"""A model calls a deployed function, and a function a model: real processes, real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.ai.settings import AiSettings
from butterbase.api.app import create_app
from butterbase.api.apps import keys_of
from butterbase.api.functions.control import Control
from butterbase.api.functions.runtime.egress import ApiUrls
from butterbase.api.functions.runtime.runtime import Runtime
from butterbase.api.functions.runtime.server import CallServer
from butterbase.api.settings import ApiSettings
from tests.ai.tools.conftest import ADA, BOB, SCHEMA, Model, Says, Talking, calls
from tests.ai.upstream import Upstream, running_upstream
from tests.api.conftest import MODELS_DIR
from tests.cli.processes import free_port
from tests.functions.calling import SETTINGS
from tests.installation import Installation
from tests.serving import client_of

DONE = Says("done")
MAIL = """
export default async function handler(req: Request, ctx: any) {
  const given = await req.json();
  const notes = await ctx.db.from("notes").select("title").order("id");
  return Response.json({
    given, user: ctx.user?.sub ?? null, notes: notes.data.map((n: any) => n.title),
    function: ctx.function.name,
  });
}
"""
ASKING = """
export default async function handler(req: Request, ctx: any) {
  const body = { model: "gpt-test", messages: [{ role: "user", content: "Hi" }] };
  const { how } = await req.json();
  const ai = how === "service" ? ctx.ai.asService() : ctx.ai;
  if (how === "stream") {
    const seen = [];
    for await (const event of await ai.chat({ ...body, stream: true })) seen.push(event);
    return Response.json({ seen: seen.length });
  }
  return Response.json(await ai.chat(body));
}
"""
GOING_ROUND = """
export default async function handler(req: Request, ctx: any) {
  const answer = await ctx.ai.chat({
    model: "gpt-test", messages: [{ role: "user", content: "Again" }],
    tools: [{ type: "butterbase", name: "round" }],
  });
  return Response.json({ answer: answer.choices[0].message.content });
}
"""


@dataclass
class Whole:
    talk: Talking
    upstream: Upstream

    async def deploy(self, name: str, code: str, **more: Any) -> None:
        answer = await self.talk.client.post(
            "/v1/main/functions", json={"name": name, "code": code, **more}, headers=self.service
        )
        assert answer.status_code == 201, answer.text

    async def call(self, name: str, body: object, headers: dict[str, str]) -> Any:
        answer = await self.talk.client.post(f"/functions/v1/{name}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @property
    def service(self) -> dict[str, str]:
        return self.talk.service


@asynccontextmanager
async def running_whole(
    installation: Installation, upstream: Upstream, directory: Path
) -> AsyncIterator[Whole]:
    api, path = ApiSettings(port=free_port()), directory / "functions.sock"
    ai = AiSettings(ai_base_url=upstream.base_url, ai_private_base_urls=True)
    control = Control(installation.cluster, SETTINGS, api)
    urls = ApiUrls(api.url, api.local_url)
    async with Runtime(SETTINGS, recorder=control, operations=control, api_urls=urls) as runtime:
        server = CallServer(runtime, control, lambda _: None)
        await server.listen(path)
        app = create_app(
            installation.cluster,
            api,
            ai,
            EmbedderSettings(),
            models_dir=MODELS_DIR,
            functions_path=path,
        )
        keys = keys_of(installation.cluster, "main", installation.app.created_at, api)
        installation.as_owner(SCHEMA)
        working = asyncio.create_task(control.run(runtime))
        async with client_of(app, port=api.port) as client:
            talk = Talking(client, keys, installation, Model(upstream), app)
            yield Whole(talk, upstream)
        working.cancel()
        await asyncio.wait([working])
        await server.close()
    await control.close()


@pytest.fixture
async def whole(installation: Installation, tmp_path: Path) -> AsyncIterator[Whole]:
    async with (
        running_upstream() as upstream,
        running_whole(installation, upstream, tmp_path) as whole,
    ):
        yield whole


async def test_a_model_calls_a_deployed_function_as_the_user_who_asks(whole: Whole) -> None:
    talk = whole.talk
    await whole.deploy("send-mail", MAIL)
    await talk.offer(mail={"function": "send-mail", "description": "Sends."})
    for user, notes in ((ADA, ["Ada one", "Ada two"]), (BOB, ["Bob one"])):
        talk.model.says(calls("mail", {"to": "eve"}), DONE)
        answer = await talk.ask("mail", headers=talk.user(user))
        assert answer.json()["choices"][0]["message"]["content"] == "done", answer.text
        assert talk.model.results() == [
            {"given": {"to": "eve"}, "user": user, "notes": notes, "function": "send-mail"}
        ]
    first, _ = await talk.events("ai.tool", 2)
    assert (first["kind"], first["target"], first["operation"]) == (
        "function",
        "send-mail",
        "invoke",
    )
    assert (first["status"], first["http_status"], first["error_code"]) == ("ok", 200, None)
    # The calls are the user's own, and no function's.
    assert [call["function"] for call in await talk.events("ai.call", 4)] == [None] * 4


@pytest.mark.parametrize(
    ("how", "user"), [("user", ADA), ("stream", ADA), ("service", None), ("anon", None)]
)
async def test_what_a_function_asks_of_models_is_recorded_with_its_name(
    whole: Whole, how: str, user: str | None
) -> None:
    talk = whole.talk
    await whole.deploy("asking", ASKING)
    await talk.configure(allowAnonymous=True)
    talk.model.says(DONE)
    anon = {"apikey": talk.keys.anon}
    await whole.call("asking", {"how": how}, anon if how == "anon" else talk.user())
    (event,) = await talk.events("ai.call", 1)
    assert (event["function"], event["status"]) == ("asking", "ok")
    told = "select user_id::text from butterbase.events where type = 'ai.call'"
    assert talk.rows(told, talk.installation.control.dsn) == [(user,)]


async def test_nobody_but_the_function_can_name_it(whole: Whole) -> None:
    talk = whole.talk
    talk.model.says(DONE)
    # Not what was signed for something else, nor what was not signed at all.
    user = talk.user()["authorization"].removeprefix("Bearer ")
    for token in ("send-mail", user, talk.keys.anon, "", "a.b.c"):
        headers = talk.user() | {"x-butterbase-function-token": token}
        assert (await talk.ask(headers=headers, tools=None)).status_code == 200
    events = await talk.events("ai.call", 5)
    assert {event["function"] for event in events} == {None}


async def test_functions_and_models_do_not_call_each_other_for_ever(whole: Whole) -> None:
    talk = whole.talk
    await whole.deploy("round", GOING_ROUND)
    await talk.offer(round={"function": "round", "description": "Asks.", "timeoutS": 60})

    async def script(request: Any, writer: Any) -> None:
        # A model that calls the tool whenever it has no result of it yet.
        has_result = any(m["role"] == "tool" for m in request.json()["messages"])
        talk.model.turns = [DONE if has_result else calls("round", {})]
        await talk.model._script(request, writer)

    whole.upstream.script = script
    answer = await talk.ask("round")
    assert answer.status_code == 200, answer.text
    results = [m for r in talk.model.requests for m in r["messages"] if m["role"] == "tool"]
    assert any("function_loop" in m["content"] for m in results)
