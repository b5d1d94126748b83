"""Who may ask models: the first thing that is decided about a call."""

import time
from typing import Final

from msgspec.structs import replace

from butterbase.ai.errors import AiError
from butterbase.ai.http import problems as ai_problems
from butterbase.ai.http.connection import Headers
from butterbase.api import problems
from butterbase.api.apps import Apps
from butterbase.api.auth.tokens import Tokens
from butterbase.api.callers import verify_caller
from butterbase.api.functions.runtime.model import FUNCTION_HEADER
from butterbase.api.keys.key import Scope
from butterbase.api.operators.operators import Operators
from butterbase.sql.claims import Claims
from butterbase.sql.errors import ButterbaseError, InvalidTokenError

_FUNCTION: Final = FUNCTION_HEADER.encode()


class ModelsAdmission:
    """The endpoint's `authenticate` for the apps of an installation."""

    def __init__(self, apps: Apps, operators: Operators | None = None) -> None:
        self._apps = apps
        self._operators = operators

    async def __call__(self, app_id: str, headers: Headers) -> Claims:
        """Anthropic's clients send their key as `x-api-key`.

        Raises UnknownAppError, and what `verify_caller` does.
        """
        app = await self._apps.find(app_id)
        claims = await verify_caller(
            app.tokens,
            app.keyring,
            scope=Scope.AI,
            authorization=_text(headers, b"authorization"),
            key=_text(headers, b"apikey") or _text(headers, b"x-api-key"),
            now_s=time.time(),
            operators=self._operators,
        )
        if claims.function is None and (token := headers.get(_FUNCTION)) is not None:
            return replace(claims, function=_function_of(app.tokens, token))
        return claims


def _function_of(tokens: Tokens, token: bytes) -> str | None:
    """Through which of the app's functions somebody calls. It gives no rights; what does not hold
    says nothing."""
    try:
        told = tokens.verify(token.decode("latin-1"), now_s=time.time(), is_scoped_allowed=True)
    except InvalidTokenError:
        return None
    return told.function


def status_of(error: ButterbaseError) -> int:
    """Of every error that a call to a model may meet."""
    if isinstance(error, AiError):
        return ai_problems.status_of(error)
    return problems.status_of(error, is_anonymous=False)


def _text(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")
