"""The composition root of the web edge: every route of the origin, and what stands behind it.

A request: dispatch.py → middleware (id, app, verified caller) → resource (reads, plans, runs one
transaction as the caller) → response, or an error class that problems.py turns into one. REST has
an endpoint of its own in the place of middleware and resource.
"""

import asyncio
from pathlib import Path
from typing import Any, TypeAlias

import falcon
import falcon.asgi
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from butterbase.ai import rag
from butterbase.ai import resource as ai
from butterbase.ai.config import AiConfigs
from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.ai.gateway import Gateway
from butterbase.ai.settings import AiSettings
from butterbase.api import problems
from butterbase.api.apps import Apps
from butterbase.api.auth import resource as auth
from butterbase.api.auth.errors import AuthError
from butterbase.api.auth.passwords import Passwords
from butterbase.api.auth.problems import on_auth_error
from butterbase.api.callers import RequestIds
from butterbase.api.dashboard import resource as dashboard
from butterbase.api.dispatch import Dispatch
from butterbase.api.health import LiveResource, ReadyResource
from butterbase.api.middleware import CallerMiddleware
from butterbase.api.rest.admission import AppAdmission
from butterbase.api.rest.endpoint import EndpointSettings, RestEndpoint
from butterbase.api.settings import ApiSettings
from butterbase.sql.cluster import Cluster, LoginRole

ControlPool: TypeAlias = "AsyncConnectionPool[AsyncConnection]"

APP_PREFIX = "/v1/{app_id}"


class Lifespan:
    """What a worker opens at its start and closes at its end; Falcon calls it as a middleware."""

    def __init__(
        self,
        apps: Apps,
        passwords: Passwords,
        control: ControlPool,
        gateway: Gateway,
        embedder: LazyEmbedder,
    ) -> None:
        self._apps = apps
        self._passwords = passwords
        self._control = control
        self._gateway = gateway
        self._embedder = embedder
        self._following: asyncio.Task[None] | None = None

    async def process_startup(self, _scope: object, _event: object) -> None:
        await self._control.open()
        self._following = asyncio.create_task(self._apps.follow_schemas())

    async def process_shutdown(self, _scope: object, _event: object) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        await self._gateway.close()
        await self._embedder.close()
        self._passwords.close()
        await self._control.close()
        await self._apps.close()


def create_app(
    cluster: Cluster,
    settings: ApiSettings,
    ai_settings: AiSettings,
    embedder_settings: EmbedderSettings,
    *,
    models_dir: Path,
) -> Dispatch:
    """`models_dir` keeps what local models need between starts. Raises SettingError."""
    apps, passwords, request_ids = Apps(cluster, settings), Passwords(), RequestIds()
    control = _control_pool(cluster)
    configs = AiConfigs(control, cluster.master_key, ai_settings)
    gateway = Gateway(ai_settings, configs, control)
    embedder = LazyEmbedder(embedder_settings, models_dir)
    middleware: list[Any] = [
        falcon.CORSMiddleware(allow_origins="*", expose_headers="*"),
        CallerMiddleware(apps, request_ids),
        Lifespan(apps, passwords, control, gateway, embedder),
    ]
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(middleware=middleware)
    problems.add_handlers(app)
    app.add_error_handler(AuthError, on_auth_error)

    app.add_route("/healthz", LiveResource())
    app.add_route("/readyz", ReadyResource(apps))
    # The first app is served at the root and, like every app, below its own prefix.
    for prefix in ("", APP_PREFIX):
        auth.add_routes(app, prefix, settings, passwords)
    ai.add_routes(app, gateway, configs, control, prefix=APP_PREFIX)
    rag.add_routes(app, embedder, prefix=APP_PREFIX)
    dashboard.add_routes(app)
    rest = RestEndpoint(AppAdmission(apps), EndpointSettings(settings.body_bytes_max), request_ids)
    return Dispatch(rest, app)


def _control_pool(cluster: Cluster) -> ControlPool:
    return AsyncConnectionPool(
        cluster.dsn(LoginRole.SERVICE, cluster.control_database),
        min_size=0,
        max_size=4,
        kwargs={"autocommit": True},
        open=False,
    )
