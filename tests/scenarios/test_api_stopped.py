"""The api is stopped while calls to models run: as a deployment does it."""

import asyncio
from pathlib import Path

import httpx
import psycopg

from butterbase.api.apps import keys_of
from butterbase.api.settings import ApiSettings
from tests.ai.upstream import chunk, running_upstream, silence, stream
from tests.cli.processes import free_port
from tests.installation import Installation
from tests.processes import running
from tests.waiting import until

BODY = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hi"}]}
EVENTS = """
select data ->> 'status', data ->> 'error_code', data ->> 'usage_source',
  (data ->> 'cost_nanos')::bigint > 0
from butterbase.events where type = 'ai.call'
"""


async def ready(http: httpx.AsyncClient) -> None:
    async def answers() -> bool:
        try:
            return (await http.get("/healthz")).is_success
        except httpx.HTTPError:
            return False

    async with asyncio.timeout(60):
        while not await answers():  # noqa: ASYNC110  nothing signals it
            await asyncio.sleep(0.1)


async def test_calls_that_outlast_the_api_are_told_and_recorded(
    installation: Installation, tmp_path: Path
) -> None:
    port = free_port()
    key = keys_of(
        installation.cluster, "main", installation.app.created_at, ApiSettings()
    ).service_role
    async with running_upstream() as upstream:
        settings = {
            "port": port,
            "ai_base_url": upstream.base_url,
            "ai_private_base_urls": True,
        }
        with running("api", installation, tmp_path, **settings) as process:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", headers={"apikey": key}, timeout=60
            ) as http:
                await ready(http)
                path = "/v1/main/chat/completions"
                upstream.script = stream(chunk("Hel"), None)
                streamed = asyncio.create_task(http.post(path, json=BODY | {"stream": True}))
                await until(lambda: len(upstream.received) == 1)
                upstream.script = silence
                whole = asyncio.create_task(http.post(path, json=BODY))
                await until(lambda: len(upstream.received) == 2)
                process.terminate()
                cut, refused = await asyncio.gather(streamed, whole)
    assert "Hel" in cut.text
    assert "ai_stopping" in cut.text
    assert "[DONE]" not in cut.text
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ai_stopping")
    with psycopg.connect(installation.control.dsn) as conn:
        events = conn.execute(EVENTS).fetchall()
    assert events == [("cancelled", "ai_stopping", "estimated", True)] * 2
