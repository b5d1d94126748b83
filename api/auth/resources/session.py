"""`POST /logout`: ends the calling session, all others of its user, or all of them."""

from typing import Any

from falcon.asgi import App, Request, Response

from butterbase.api.auth import audit, sessions, users
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.errors import InvalidAuthBodyError, SessionNotFoundError
from butterbase.api.auth.parts import AuthParts
from butterbase.api.auth.resources.requests import app_of, ids_of, require_row
from butterbase.sql.pipeline import Statement

_SCOPES: dict[str, sessions.Scope] = {"global": "global", "local": "local", "others": "others"}


def add_routes(app: "App[Any, Any]", prefix: str, _parts: AuthParts) -> None:
    app.add_route(f"{prefix}/logout", LogoutResource())


class LogoutResource:
    async def on_post(self, req: Request, resp: Response) -> None:
        user_id, session_id = ids_of(req)
        asked = req.get_param("scope") or "global"
        scope = _SCOPES.get(asked)
        if scope is None:
            raise InvalidAuthBodyError(f"Unsupported logout scope {asked[:50]!a}")
        traits = {"scope": scope, "session_id": session_id}
        await app_of(req).service.run(
            Statement.of(users.QUERIES["find_session"], session_id, user_id),
            sessions.end_statement(user_id, session_id, scope),
            audit.entry("logout", user_id=user_id, caller=Caller.of(req), traits=traits),
            # A token may outlive its session, which then ends no other.
            check=require_row(SessionNotFoundError),
        )
        resp.status = 204
