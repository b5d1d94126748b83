"""The developer's hooks that auth asks: SQL functions of one jsonb argument and answer, or URLs.

Those in SQL run as the app's service role, which a function has to be granted to where it was
revoked from public. https://supabase.com/docs/guides/auth/auth-hooks has the shapes.
"""

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import webhooks
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import HookError, HookRefusedError
from butterbase.sql.claims import ANON, AUTHENTICATED
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Statement

_log = logging.getLogger(__name__)

_ANSWER = msgspec.json.Decoder(dict[str, Any])


async def call(app: AppRuntime, config: AuthConfig, hook: str, payload: object) -> dict[str, Any]:
    """What the hook answers. Raises HookError, and HookRefusedError when it says error."""
    if webhooks.is_url(hook):
        body = await webhooks.post(app.auth.web, hook, config.hooks.secret, payload)
    else:
        body = await _call_function(app, hook, payload)
    try:
        answer = _ANSWER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HookError("the hook did not answer a JSON object") from error
    if isinstance(refusal := answer.get("error"), dict):
        raise HookRefusedError(str(refusal.get("message") or ""), status=refusal.get("http_code"))
    return answer


def check_role(claims: Mapping[str, object], changed: Mapping[str, object]) -> None:
    """A hook's claims give no more than the user has. Raises HookError."""
    role = changed.get("role")
    if not isinstance(role, str) or role not in (ANON, AUTHENTICATED, claims["role"]):
        raise HookError("the hook answered a role that the user does not have")


async def _call_function(app: AppRuntime, function: str, payload: object) -> bytes:
    schema, name = function.split(".", 1)
    text = f'select "{schema}"."{name}"($1::jsonb)'.encode()
    try:
        (result,) = await app.service.run(Statement.of(text, msgspec.json.encode(payload)))
    except DatabaseError as error:
        # What Postgres says is nobody's business who is not the developer.
        _log.warning("the hook %s failed: %s (%s)", function, error.message, error.sqlstate)
        raise HookError("the hook failed") from error
    return result.value() or b"{}"
