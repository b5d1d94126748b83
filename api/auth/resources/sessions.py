"""`/user/sessions`: where a user is signed in, and signing out there.

It is ours; Supabase's clients know nothing of it.
"""

from typing import Any

from falcon.asgi import App, Request, Response

from butterbase.api.auth import audit, sessions
from butterbase.api.auth.admin.users import QUERIES
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.errors import NoSuchSessionError
from butterbase.api.auth.parts import AuthParts
from butterbase.api.auth.resources.paths import id_in_path
from butterbase.api.auth.resources.requests import answer, app_of, require_row, signed_in
from butterbase.sql.pipeline import Statement


def add_routes(app: "App[Any, Any]", prefix: str, _parts: AuthParts) -> None:
    app.add_route(f"{prefix}/user/sessions", SessionsResource())
    app.add_route(f"{prefix}/user/sessions/{{session_id}}", SessionResource())


class SessionsResource:
    async def on_get(self, req: Request, resp: Response) -> None:
        who = await signed_in(req, Caller.of(req))
        listed = await sessions.listed(app_of(req), who.user.id)
        answer(resp, b'{"current":"%b","sessions":%b}' % (who.session_id.encode(), listed))


class SessionResource:
    async def on_delete(self, req: Request, resp: Response, session_id: str) -> None:
        caller = Caller.of(req)
        who, session_id = await signed_in(req, caller), id_in_path(session_id, "session_id")
        traits = {"session_id": session_id, "by": who.session_id}
        await app_of(req).service.run(
            Statement.of(QUERIES["end_session"], who.user.id, session_id),
            audit.entry("logout", user_id=who.user.id, caller=caller, traits=traits),
            check=require_row(NoSuchSessionError),
        )
        resp.status = 204
