"""The composition root of the web edge: every route of the origin, and what stands behind it.

A request: middleware (id, app, verified caller) → resource (reads, plans, runs one transaction as
the caller) → response, or an error class that problems.py turns into one.
"""

import falcon
from falcon.asgi import App, Request, Response

from butterbase.api import problems
from butterbase.api.apps import Apps
from butterbase.api.auth.errors import AuthError
from butterbase.api.auth.passwords import Passwords
from butterbase.api.auth.problems import on_auth_error
from butterbase.api.auth.resource import (
    LogoutResource,
    SignupResource,
    TokenResource,
    UserResource,
)
from butterbase.api.health import LiveResource, ReadyResource
from butterbase.api.middleware import CallerMiddleware
from butterbase.api.rest.resource import TableResource
from butterbase.api.settings import ApiSettings
from butterbase.sql.cluster import Cluster
from butterbase.sql.errors import ButterbaseError


class Lifespan:
    """Closes what the worker opened."""

    def __init__(self, apps: Apps, passwords: Passwords) -> None:
        self._apps = apps
        self._passwords = passwords

    async def process_shutdown(self, _scope: object, _event: object) -> None:
        self._passwords.close()
        await self._apps.close()


def create_app(cluster: Cluster, settings: ApiSettings) -> App[Request, Response]:
    apps = Apps(cluster, settings)
    passwords = Passwords()
    app = App(
        middleware=[
            falcon.CORSMiddleware(allow_origins="*", expose_headers="*"),
            CallerMiddleware(apps),
            Lifespan(apps, passwords),
        ]
    )
    app.add_error_handler(Exception, problems.on_bug)
    app.add_error_handler(falcon.HTTPError, problems.on_http_error)
    app.add_error_handler(ButterbaseError, problems.on_error)
    app.add_error_handler(AuthError, on_auth_error)

    app.add_route("/healthz", LiveResource())
    app.add_route("/readyz", ReadyResource(apps.control))
    # The first app is served at the root and, like every app, below its own prefix.
    for prefix in ("", "/v1/{app_id}"):
        _add_app_routes(app, prefix, settings, passwords)
    return app


def _add_app_routes(
    app: App[Request, Response], prefix: str, settings: ApiSettings, passwords: Passwords
) -> None:
    app.add_route(
        f"{prefix}/rest/v1/{{table}}", TableResource(body_bytes_max=settings.body_bytes_max)
    )
    expiry_s = settings.jwt_expiry_s
    app.add_route(f"{prefix}/auth/v1/signup", SignupResource(passwords, expiry_s=expiry_s))
    app.add_route(f"{prefix}/auth/v1/token", TokenResource(passwords, expiry_s=expiry_s))
    app.add_route(f"{prefix}/auth/v1/user", UserResource())
    app.add_route(f"{prefix}/auth/v1/logout", LogoutResource())
