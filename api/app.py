"""The composition root of the web edge: every route of the origin, and what stands behind it.

A request: dispatch.py → middleware (id, app, verified caller) → resource (reads, plans, runs one
transaction as the caller) → response, or an error class that problems.py turns into one. REST has
an endpoint of its own in the place of middleware and resource.
"""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import falcon
import falcon.asgi
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from butterbase.ai.cache import resource as cached_answers
from butterbase.ai.cache.cache import AnswerCache
from butterbase.ai.calls.gateway import Gateway
from butterbase.ai.config.configs import AiConfigs
from butterbase.ai.contents import resource as contents
from butterbase.ai.contents.log import ContentLog
from butterbase.ai.contents.store import ContentStore
from butterbase.ai.documents.settings import DocumentSettings
from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.ai.guards.guards import GuardRail
from butterbase.ai.http import admin as ai
from butterbase.ai.http.endpoint import AiEndpoint
from butterbase.ai.money.ledger import Ledger
from butterbase.ai.prompts import resource as prompts
from butterbase.ai.prompts.store import PromptStore
from butterbase.ai.rag import resource as rag
from butterbase.ai.rag.endpoint import QueryEndpoint
from butterbase.ai.rag.vectors import QuestionVectors
from butterbase.ai.seams import Seams
from butterbase.ai.settings import AiSettings
from butterbase.ai.telemetry.call_log import CallLog
from butterbase.ai.telemetry.protocols import Telemetry
from butterbase.ai.tools.agent import Agent
from butterbase.api import problems
from butterbase.api.alerts import AlertDelivery
from butterbase.api.apps import Apps
from butterbase.api.auth import problems as auth_problems
from butterbase.api.auth import resources as auth
from butterbase.api.auth.mail.mails import OutgoingMails
from butterbase.api.auth.mail.sweep import sweep
from butterbase.api.auth.oauth.discovery import Discovery
from butterbase.api.auth.oauth.exchange import Exchange
from butterbase.api.auth.oauth.http import ProviderHttp
from butterbase.api.auth.parts import AuthParts
from butterbase.api.auth.passwords import Passwords
from butterbase.api.auth.proxies import Proxies
from butterbase.api.broadcast import resource as broadcast
from butterbase.api.broadcast.errors import BroadcastError
from butterbase.api.callers import RequestIds
from butterbase.api.dashboard import resource as dashboard
from butterbase.api.dispatch import Dispatch
from butterbase.api.functions import resource as functions_admin
from butterbase.api.functions.client import FunctionsClient
from butterbase.api.functions.endpoint import FunctionsEndpoint
from butterbase.api.functions.gates import Gates
from butterbase.api.functions.settings import FunctionsSettings
from butterbase.api.health import LiveResource, ReadyResource
from butterbase.api.keys import resource as keys
from butterbase.api.metrics.resource import MetricsResource
from butterbase.api.middleware import CallerMiddleware
from butterbase.api.models_admission import ModelsAdmission, status_of
from butterbase.api.operators.operators import Operators
from butterbase.api.operators.runtime import PREFIX as OPERATORS_PREFIX
from butterbase.api.operators.runtime import operators_runtime
from butterbase.api.questions import QuestionsAdmission, render
from butterbase.api.rest.admission import AppAdmission
from butterbase.api.rest.cors import Cors
from butterbase.api.rest.endpoint import EndpointSettings, RestEndpoint
from butterbase.api.settings import ApiSettings
from butterbase.api.tools import AppBackend
from butterbase.realtime.settings import RealtimeSettings
from butterbase.sql.cluster import Cluster, LoginRole
from butterbase.sql.errors import ButterbaseError

ControlPool: TypeAlias = "AsyncConnectionPool[AsyncConnection]"

logger = logging.getLogger(__name__)

APP_PREFIX = "/v1/{app_id}"
DEFAULT_DOCUMENTS = DocumentSettings()


class Lifespan:
    """What a worker opens at its start and closes at its end; Falcon calls it as a middleware."""

    def __init__(
        self,
        cluster: Cluster,
        apps: Apps,
        operators: Operators,
        passwords: Passwords,
        providers: ProviderHttp,
        control: ControlPool,
        gateway: Gateway,
        agent: Agent,
        backend: AppBackend,
        ledger: Ledger,
        cache: AnswerCache,
        content_log: ContentLog,
        embedder: LazyEmbedder,
        functions: FunctionsClient,
        telemetry: Telemetry | None,
    ) -> None:
        self._functions = functions
        self._cluster = cluster
        self._apps = apps
        self._operators = operators
        self._passwords = passwords
        self._providers = providers
        self._control = control
        self._gateway = gateway
        self._agent = agent
        self._backend = backend
        self._ledger = ledger
        self._cache = cache
        self._content_log = content_log
        self._embedder = embedder
        self._telemetry = telemetry
        self._tasks: list[asyncio.Task[None]] = []

    async def process_startup(self, _scope: object, _event: object) -> None:
        await self._control.open()
        self._tasks = [
            asyncio.create_task(self._apps.follow_schemas()),
            asyncio.create_task(self._apps.follow_settings()),
            asyncio.create_task(AlertDelivery(self._apps).run()),
            asyncio.create_task(sweep(self._apps, self._cluster, self._operators.runtime)),
            asyncio.create_task(self._ledger.run()),
            asyncio.create_task(self._cache.run()),
            asyncio.create_task(self._content_log.run()),
        ]
        for task in self._tasks:
            task.add_done_callback(_tell_of_end)

    async def process_shutdown(self, _scope: object, _event: object) -> None:
        await self._functions.close()
        await self._agent.close()
        await self._gateway.close()
        await self._backend.close()
        with suppress(ButterbaseError):  # they are in the log
            await self._ledger.write_waiting()
        await self._cache.close()
        await self._content_log.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()  # one that was connecting has a socket in its traceback
        await self._embedder.close()
        if self._telemetry is not None:
            await self._telemetry.close()
        await self._providers.close()
        self._passwords.close()
        await self._control.close()
        await self._operators.runtime.close()
        await self._apps.close()


def _tell_of_end(task: "asyncio.Task[None]") -> None:
    """Of what a worker is to do for as long as it lives: else nobody would hear that it does not
    any more."""
    if not task.cancelled() and (error := task.exception()) is not None:
        name = getattr(task.get_coro(), "__qualname__", task.get_name())
        logger.critical("%s has ended, which this worker needs", name, exc_info=error)


def create_app(
    cluster: Cluster,
    settings: ApiSettings,
    ai_settings: AiSettings,
    embedder_settings: EmbedderSettings,
    document_settings: DocumentSettings = DEFAULT_DOCUMENTS,
    *,
    models_dir: Path,
    realtime: RealtimeSettings | None = None,
    functions: FunctionsSettings | None = None,
    functions_path: Path | None = None,
    telemetry: Telemetry | None = None,
) -> Dispatch:
    """`models_dir` keeps what local models need between starts, `functions_path` is the socket of
    the process that runs functions. Raises SettingError.
    """
    realtime, functions = realtime or RealtimeSettings(), functions or FunctionsSettings()
    apps, passwords, request_ids = Apps(cluster, settings), Passwords(), RequestIds()
    operators = Operators(operators_runtime(cluster, settings, apps))
    control = _control_pool(cluster)
    embedder = LazyEmbedder(embedder_settings, models_dir)
    cache = AnswerCache(
        apps.control,
        cluster.dsn(LoginRole.SERVICE, cluster.control_database),
        cluster.master_key,
        embedder.get,
        ai_settings,
    )
    templates = PromptStore(apps.control)
    kept_contents = ContentStore(apps.control, cluster.master_key)
    content_log = ContentLog(kept_contents, ai_settings)
    seams = Seams(
        cache,
        GuardRail(),
        templates,
        content_log,
        tracer=telemetry,
        observers=(CallLog(),) if ai_settings.ai_log_calls else (),
    )
    configs = AiConfigs(apps.control, cluster.master_key, ai_settings, seams=seams)
    ledger = Ledger(apps.control, default_plan=ai_settings.ai_default_plan)
    gateway = Gateway(ai_settings, configs, ledger, seams=seams)
    backend = AppBackend(apps, operators, functions_url=settings.local_url)
    agent = Agent(gateway, backend, apps.control)
    providers = ProviderHttp(is_private_allowed=bool(settings.auth_private_urls))
    functions_client = FunctionsClient(functions_path or Path("functions.sock"))
    gates = Gates()
    proxies = Proxies(settings.trusted_proxies)
    middleware: list[Any] = [
        falcon.CORSMiddleware(allow_origins="*", expose_headers="*"),
        CallerMiddleware(apps, request_ids, operators, proxies),
        Lifespan(
            cluster,
            apps,
            operators,
            passwords,
            providers,
            control,
            gateway,
            agent,
            backend,
            ledger,
            cache,
            content_log,
            embedder,
            functions_client,
            telemetry,
        ),
    ]
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(middleware=middleware)
    problems.add_handlers(app)
    auth_problems.add_handlers(app)
    app.add_error_handler(BroadcastError, broadcast.on_error)

    app.add_route("/healthz", LiveResource())
    app.add_route("/readyz", ReadyResource(apps, operators, settings))
    app.add_route("/metrics", MetricsResource(apps.control, settings))
    parts = AuthParts(passwords, OutgoingMails(), Exchange(providers, Discovery(providers)))
    gate = broadcast.BroadcastGate(operators, rate_max=settings.broadcasts_per_s, realtime=realtime)
    # The first app is served at the root and, like every app, below its own prefix.
    for prefix in ("", APP_PREFIX):
        auth.add_routes(app, prefix, parts)
        keys.add_routes(app, prefix, apps.control)
        broadcast.add_routes(app, prefix, gate, body_bytes_max=settings.body_bytes_max)
    auth.add_routes(app, OPERATORS_PREFIX, parts)
    ai.add_routes(app, configs, control, prefix=APP_PREFIX)
    cached_answers.add_routes(app, cache.admin, prefix=APP_PREFIX)
    contents.add_routes(app, kept_contents, prefix=APP_PREFIX)
    prompts.add_routes(app, templates, prefix=APP_PREFIX)
    vectors = QuestionVectors(embedder, gateway)
    rag.add_routes(app, document_settings, vectors.check_model, prefix=APP_PREFIX)
    workshop = functions_admin.Workshop(
        cluster.master_key, functions_client, gates, functions, schemas=realtime.schemas
    )
    functions_admin.add_routes(app, APP_PREFIX, workshop)
    dashboard.add_routes(app)
    cors = Cors(exposed=(b"Butterbase-Position",))
    rest = RestEndpoint(
        AppAdmission(apps, operators), EndpointSettings(settings.body_bytes_max, cors), request_ids
    )
    admission = ModelsAdmission(apps, operators)
    models = AiEndpoint(
        gateway, admission, request_id_of=request_ids.of, status_of=status_of, agent=agent
    )
    questions = QueryEndpoint(
        gateway,
        vectors,
        QuestionsAdmission(apps, admission),
        render=render,
        request_id_of=request_ids.of,
    )
    calls = FunctionsEndpoint(
        apps,
        functions_client,
        gates,
        request_ids,
        url=settings.url,
        operators=operators,
        proxies=proxies,
        trusts_pages=functions.functions_trusted_pages,
    )
    return Dispatch(rest, app, models, questions, calls)


def _control_pool(cluster: Cluster) -> ControlPool:
    return AsyncConnectionPool(
        cluster.dsn(LoginRole.SERVICE, cluster.control_database),
        min_size=0,
        max_size=4,
        kwargs={"autocommit": True},
        open=False,
    )
