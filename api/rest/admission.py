"""Who reaches which app's REST API: the first thing that is decided about a request."""

import time

from butterbase.api.apps import Apps
from butterbase.api.callers import verify_caller
from butterbase.api.rest.endpoint import Given, Service
from butterbase.sql.claims import ANON, Claims, claims_for_role

_ANON = claims_for_role(ANON)


class AppAdmission:
    """The endpoint's `admit` for the apps of an installation."""

    def __init__(self, apps: Apps) -> None:
        self._apps = apps

    async def __call__(self, app_id: str, method: str, given: Given) -> tuple[Service, Claims]:
        """Raises UnknownAppError, MissingKeyError, InvalidTokenError, DatabaseUnavailableError."""
        app = await self._apps.find(app_id)
        if method == "OPTIONS":  # a browser asks without keys
            return app.rest, _ANON
        claims = verify_caller(
            app.tokens,
            authorization=_text(given, b"authorization"),
            key=_text(given, b"apikey"),
            now_s=time.time(),
        )
        return app.rest, claims


def _text(given: Given, name: bytes) -> str | None:
    value = given.get(name)
    return None if value is None else value.decode("latin-1")
