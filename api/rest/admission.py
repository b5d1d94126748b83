"""Who reaches which app's REST API: the first thing that is decided about a request."""

import time

from butterbase.api.apps import Apps
from butterbase.api.auth.tokens import ExpiredTokenError
from butterbase.api.callers import verify_caller
from butterbase.api.keys.key import Scope
from butterbase.api.operators.operators import Operators
from butterbase.api.rest.endpoint import Given, Service
from butterbase.api.rest.errors import InvalidClaimsError, UndecodableTokenError
from butterbase.sql.claims import ANON, Claims, claims_for_role
from butterbase.sql.errors import InvalidTokenError

_ANON = claims_for_role(ANON)


class AppAdmission:
    """The endpoint's `admit` for the apps of an installation."""

    def __init__(self, apps: Apps, operators: Operators | None = None) -> None:
        self._apps = apps
        self._operators = operators

    async def __call__(self, app_id: str, method: str, given: Given) -> tuple[Service, Claims]:
        """Raises UnknownAppError, and what `verify_caller` does, with PostgREST's codes for tokens:
        UndecodableTokenError, InvalidClaimsError.
        """
        app = await self._apps.find(app_id)
        if method == "OPTIONS":  # a browser asks without keys
            return app.rest, _ANON
        try:
            claims = await verify_caller(
                app.tokens,
                app.keyring,
                scope=Scope.DATA,
                authorization=_text(given, b"authorization"),
                key=_text(given, b"apikey"),
                now_s=time.time(),
                operators=self._operators,
            )
        except ExpiredTokenError:
            raise InvalidClaimsError("JWT expired") from None
        except InvalidTokenError as error:
            raise UndecodableTokenError(error.message) from error
        return app.rest, claims


def _text(given: Given, name: bytes) -> str | None:
    value = given.get(name)
    return None if value is None else value.decode("latin-1")
