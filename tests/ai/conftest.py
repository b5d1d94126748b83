"""The gateway as clients meet it: Falcon under uvicorn, a real Postgres, a provider for tests."""

import asyncio
import itertools
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

import httpx
import psycopg
import pytest
import uvicorn
from falcon.asgi import App, Request, Response
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool

from butterbase.ai.calls.gateway import Gateway
from butterbase.ai.config.configs import AiConfigs
from butterbase.ai.http.admin import add_routes
from butterbase.ai.http.connection import Headers
from butterbase.ai.http.endpoint import AiEndpoint
from butterbase.ai.money.ledger import Ledger
from butterbase.ai.seams import NO_SEAMS, Seams
from butterbase.ai.settings import AiSettings
from butterbase.api.dispatch import CALLS
from butterbase.sql.claims import Claims
from butterbase.sql.migrate import migrate, read_migrations
from butterbase.sql.pipeline import Executor
from butterbase.sql.secrets import MasterKey
from tests.ai.upstream import Upstream, running_upstream
from tests.postgres import Database, Databases
from tests.waiting import until as soon

USER = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
OTHER_USER = "11111111-2222-4333-8444-555555555555"


@pytest.fixture(scope="session")
def control_template(postgres: Databases) -> Iterator[str]:
    """A database with the control schema."""
    database = postgres.create()

    async def prepare() -> None:
        folder = files("butterbase.sql").joinpath("migrations") / "control"
        async with await AsyncConnection.connect(database.dsn, autocommit=True) as conn:
            await migrate(conn, read_migrations(folder))

    asyncio.run(prepare())
    yield database.name
    postgres.drop(database.name)


@pytest.fixture(scope="session")
def control(postgres: Databases, control_template: str) -> Iterator[Database]:
    """The control database of all tests here; each has an app of its own."""
    database = postgres.create(template=control_template)
    yield database
    postgres.drop(database.name)


@pytest.fixture
def own_control(postgres: Databases, control_template: str) -> Iterator[Database]:
    """One to spoil."""
    database = postgres.create(template=control_template)
    yield database
    postgres.drop(database.name)


async def until(is_so: Callable[[], object]) -> None:
    """Wait for what nothing signals."""
    await soon(lambda: asyncio.to_thread(lambda: bool(is_so())))


_TLS = httpx.create_ssl_context()  # the slowest part of a client, so there is one
_app_numbers = itertools.count()


class TestCallers:
    """In place of the api's middleware: the `role` and `user` of a request are its headers."""

    __test__ = False

    async def process_resource(
        self, req: Request, _resp: Response, _resource: object, params: dict[str, Any]
    ) -> None:
        role = req.get_header("x-test-role") or "service_role"
        req.context.app_id = params["app_id"]
        req.context.request_id = req.get_header("x-request-id") or "request-1"
        req.context.claims = Claims(role=role, json="{}", subject=req.get_header("x-test-user"))


async def fake_caller(_app_id: str, headers: Headers) -> Claims:
    """In place of the api's admission, the same."""
    role = headers.get(b"x-test-role", b"service_role").decode()
    subject, key = headers.get(b"x-test-user"), headers.get(b"x-test-key")
    return Claims(
        role=role,
        json="{}",
        subject=None if subject is None else subject.decode(),
        key_id=None if key is None else key.decode(),
    )


def dispatch(ai: AiEndpoint, falcon: Any) -> Any:
    """Calls to the one, everything else to the other, as api/dispatch.py does."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if found := CALLS.fullmatch(scope["raw_path"]):
            app_id, path = (unquote(part.decode()) for part in found.groups())
            await ai(scope, receive, send, app_id=app_id, path=path)
        else:
            await falcon(scope, receive, send)

    return application


@dataclass
class Harness:
    """A running gateway."""

    origin: str
    http: httpx.AsyncClient
    gateway: Gateway
    ledger: Ledger
    database: Database
    app_id: str

    @property
    def path(self) -> str:
        return f"/v1/{self.app_id}"

    @property
    def chat_path(self) -> str:
        return f"{self.path}/chat/completions"

    async def chat(self, **fields: object) -> httpx.Response:
        body = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hi"}], **fields}
        return await self.http.post(self.chat_path, json=body)

    def execute(self, statement: str, *parameters: object) -> list[Any]:
        with psycopg.connect(self.database.dsn, autocommit=True) as conn:
            cursor = conn.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def events(self) -> list[dict[str, Any]]:
        rows = self.execute(
            "select data from butterbase.events where app_id = %s order by id", self.app_id
        )
        return [data for (data,) in rows]

    async def the_events(self) -> list[dict[str, Any]]:
        """Of all calls: an answer does not wait until its event is written."""
        await until(lambda: self.gateway.call_count == 0)
        return self.events()

    async def the_event(self) -> dict[str, Any]:
        """The only one. The gateway may not yet have heard of the call, or that its client left."""
        await until(self.events)
        (event,) = self.events()
        return event


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """The app under uvicorn; answers its origin."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none")
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    # Its parts and not `serve` and `shutdown`, which pause for a tenth of a second each.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await server.startup(sockets=[listener])
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for listening in server.servers:
                listening.close()
            state = server.server_state
            for connection in list(state.connections):
                connection.shutdown()
            with suppress(TimeoutError):  # of calls to a provider that says nothing more
                await soon(lambda: not (state.connections or state.tasks), within_s=0.1)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_upstream() as upstream:
        yield upstream


@asynccontextmanager
async def running_gateway(
    database: Database,
    settings: AiSettings,
    *,
    seams: Seams = NO_SEAMS,
    app_id: str | None = None,
) -> AsyncIterator[Harness]:
    """Of a new app, or as another worker of the one that is named."""
    # As the role that serves requests, so that its grants are tested too.
    dsn = make_conninfo(database.dsn, options="-c role=butterbase_service")
    control = Executor(dsn, connection_count_max=4)
    async with AsyncConnectionPool(
        dsn, min_size=1, max_size=4, open=False, kwargs={"autocommit": True}
    ) as pool:
        configs = AiConfigs(control, MasterKey(b"k" * 32), settings, seams=seams)
        # Most tests look for their events.
        ledger = Ledger(control, default_plan="enterprise", pause_s=0.005)
        gateway = Gateway(settings, configs, ledger, seams=seams)
        falcon: App[Request, Response] = App(middleware=[TestCallers()])
        add_routes(falcon, configs, pool)
        ai = AiEndpoint(gateway, fake_caller, request_id_of=lambda given: given or "request-1")
        async with (
            serving(dispatch(ai, falcon)) as origin,
            httpx.AsyncClient(base_url=origin, timeout=10, verify=_TLS) as http,
        ):
            try:
                name = app_id or f"app_{next(_app_numbers)}"
                harness = Harness(origin, http, gateway, ledger, database, name)
                if app_id is None:
                    harness.execute("insert into butterbase.apps values (%s, %s)", name, name)
                yield harness
            finally:
                await gateway.close()
                await control.close()


@pytest.fixture
async def harness(control: Database, upstream: Upstream) -> AsyncIterator[Harness]:
    """The operator's provider is the upstream."""
    settings = AiSettings(
        ai_base_url=upstream.base_url,
        ai_api_key="sk-operator",
        ai_default_model="default-model",
        ai_private_base_urls=True,
    )
    async with running_gateway(control, settings) as harness:
        yield harness


def without_cost(content: bytes) -> bytes:
    """A stream without the comment that tells what it did cost, of which there is one."""
    found = re.findall(rb": x-butterbase-cost-usd: [0-9.]+\n\n", content)
    assert len(found) == 1
    return content.replace(found[0], b"")


def sse_data(text: str) -> list[Any]:
    """The data of each event; `[DONE]` as it is."""
    data = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    return [item if item == "[DONE]" else json.loads(item) for item in data]
