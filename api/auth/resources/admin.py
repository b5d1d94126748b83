"""`/admin/…` and `/invite`: users, their sessions and factors, links, the trail.

What is about sessions is ours; the rest is on the wire of Supabase's clients.
"""

from typing import Annotated, Any

import msgspec
from falcon.asgi import App, Request, Response
from msgspec import Meta, Struct

from butterbase.ai.http.body import decode_json
from butterbase.api.auth import audit, sessions
from butterbase.api.auth.admin import links, users
from butterbase.api.auth.admin.paging import Page, link_header, read_page
from butterbase.api.auth.admin.users import QUERIES
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.errors import (
    InvalidAuthBodyError,
    NoSuchSessionError,
    NotAdminError,
    UserNotFoundError,
)
from butterbase.api.auth.mail.send import link_of
from butterbase.api.auth.mfa import factors
from butterbase.api.auth.mfa.errors import FactorNameConflictError, FactorNotFoundError
from butterbase.api.auth.parts import AuthParts
from butterbase.api.auth.passwords import Passwords
from butterbase.api.auth.resources.app_keys import is_app_key, spare_service_roles
from butterbase.api.auth.resources.paths import id_in_path
from butterbase.api.auth.resources.requests import (
    answer,
    app_of,
    body_of,
    read,
    require_admin,
    require_row,
)
from butterbase.sql.claims import AUTHENTICATED, SERVICE_ROLE
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Statement

_UNIQUE_VIOLATION = "23505"

_AUDIT_SCOPES = {"author": "actor_username", "action": "action", "type": "log_type"}


class Deletion(Struct, frozen=True):
    should_soft_delete: bool = False


class FactorChange(Struct, frozen=True):
    friendly_name: Annotated[str, Meta(max_length=200)] | None = None


class Invitation(Struct, frozen=True):
    email: str
    data: dict[str, Any] | None = None
    redirect_to: str | None = None


_CHANGE = msgspec.json.Decoder(users.UserChange)
_DELETION = msgspec.json.Decoder(Deletion)
_FACTOR_CHANGE = msgspec.json.Decoder(FactorChange)
_LINK = msgspec.json.Decoder(links.LinkRequest)
_INVITATION = msgspec.json.Decoder(Invitation)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def add_routes(app: "App[Any, Any]", prefix: str, parts: AuthParts) -> None:
    user = f"{prefix}/admin/users/{{user_id}}"
    app.add_route(f"{prefix}/admin/users", UsersResource(parts.passwords))
    app.add_route(user, UserResource(parts.passwords))
    app.add_route(f"{user}/factors", FactorsResource())
    app.add_route(f"{user}/factors/{{factor_id}}", FactorResource())
    app.add_route(f"{user}/sessions", SessionsResource())
    app.add_route(f"{user}/sessions/{{session_id}}", SessionResource())
    app.add_route(f"{user}/logout", LogoutResource())
    app.add_route(f"{prefix}/admin/audit", AuditResource())
    app.add_route(f"{prefix}/admin/generate_link", GenerateLinkResource(parts.passwords))
    app.add_route(f"{prefix}/invite", InviteResource(parts.passwords))


class UsersResource:
    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords

    async def on_get(self, req: Request, resp: Response) -> None:
        require_admin(req)
        page, holding = _page(req), _parameter(req, "filter")
        total, found = await users.listed(app_of(req), page, holding=holding)
        _paginate(req, resp, page, total, filters={"filter": holding} if holding else {})
        answer(resp, b'{"users":%b,"aud":"%b"}' % (found, AUTHENTICATED.encode()))

    async def on_post(self, req: Request, resp: Response) -> None:
        require_admin(req)
        asked = await _read_change(req)
        answer(resp, await users.create(app_of(req), self._passwords, asked, caller=Caller.of(req)))


class UserResource:
    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords

    async def on_get(self, req: Request, resp: Response, user_id: str) -> None:
        require_admin(req)
        answer(resp, await users.find(app_of(req), _user_id(user_id)))

    async def on_put(self, req: Request, resp: Response, user_id: str) -> None:
        require_admin(req)
        user_id, asked = _user_id(user_id), await _read_change(req)
        await spare_service_roles(req, user_id=user_id)
        caller = Caller.of(req)
        answer(
            resp, await users.modify(app_of(req), self._passwords, user_id, asked, caller=caller)
        )

    async def on_delete(self, req: Request, resp: Response, user_id: str) -> None:
        require_admin(req)
        user_id, body = _user_id(user_id), await body_of(req)
        await spare_service_roles(req, user_id=user_id)
        asked = decode_json(_DELETION, body, InvalidAuthBodyError) if body else Deletion()
        await users.delete(
            app_of(req), user_id, is_soft=asked.should_soft_delete, caller=Caller.of(req)
        )
        answer(resp, b"{}")


class FactorsResource:
    async def on_get(self, req: Request, resp: Response, user_id: str) -> None:
        require_admin(req)
        (result,) = await app_of(req).service.run(
            Statement.of(QUERIES["list_factors"], _user_id(user_id))
        )
        if result.row_count == 0:
            raise UserNotFoundError
        answer(resp, result.value() or b"[]")


class FactorResource:
    async def on_put(self, req: Request, resp: Response, user_id: str, factor_id: str) -> None:
        require_admin(req)
        user_id, factor_id = _user_id(user_id), id_in_path(factor_id, "factor_id")
        await spare_service_roles(req, user_id=user_id)
        asked, caller = await read(req, _FACTOR_CHANGE), Caller.of(req)
        name = asked.friendly_name or None
        traits = {"user_id": user_id, "factor_id": factor_id}
        try:
            result, _ = await app_of(req).service.run(
                Statement.of(
                    QUERIES["rename_factor"],
                    user_id,
                    factor_id,
                    name,
                    caller.now_s,
                ),
                audit.entry("factor_updated", user_id=user_id, caller=caller, traits=traits),
                check=require_row(FactorNotFoundError),
            )
        except DatabaseError as error:
            if error.sqlstate == _UNIQUE_VIOLATION:
                raise FactorNameConflictError from error
            raise
        answer(resp, result.value() or b"{}")

    async def on_delete(self, req: Request, resp: Response, user_id: str, factor_id: str) -> None:
        require_admin(req)
        user_id, factor_id = _user_id(user_id), id_in_path(factor_id, "factor_id")
        await spare_service_roles(req, user_id=user_id)
        answer(
            resp,
            await factors.unenrol(app_of(req), user_id, None, factor_id, caller=Caller.of(req)),
        )


class SessionsResource:
    """A user's sessions: listed, or ended all at once."""

    async def on_get(self, req: Request, resp: Response, user_id: str) -> None:
        require_admin(req)
        user_id = _user_id(user_id)
        await users.find(app_of(req), user_id)
        answer(resp, b'{"sessions":%b}' % await sessions.listed(app_of(req), user_id))

    async def on_delete(self, req: Request, resp: Response, user_id: str) -> None:
        require_admin(req)
        await _end_all(req, _user_id(user_id))
        resp.status = 204


class SessionResource:
    async def on_delete(self, req: Request, resp: Response, user_id: str, session_id: str) -> None:
        require_admin(req)
        user_id, session_id = _user_id(user_id), id_in_path(session_id, "session_id")
        traits = {"user_id": user_id, "session_id": session_id, "reason": "admin"}
        await app_of(req).service.run(
            Statement.of(QUERIES["end_session"], user_id, session_id),
            audit.entry("token_revoked", user_id=user_id, caller=Caller.of(req), traits=traits),
            check=require_row(NoSuchSessionError),
        )
        resp.status = 204


class LogoutResource:
    """Ends all sessions of a user, as `POST /logout` with that user's token does."""

    async def on_post(self, req: Request, resp: Response, user_id: str) -> None:
        require_admin(req)
        await _end_all(req, _user_id(user_id))
        resp.status = 204


class AuditResource:
    async def on_get(self, req: Request, resp: Response) -> None:
        require_admin(req)
        page, query = _page(req), _parameter(req, "query")
        scope, separator, holding = query.partition(":")
        if query and (not separator or scope not in _AUDIT_SCOPES):
            raise InvalidAuthBodyError(f"Invalid query scope: {query[:100]}")
        (result,) = await app_of(req).service.run(
            Statement.of(
                QUERIES["list_audit"],
                page.size,
                page.offset,
                _AUDIT_SCOPES.get(scope, "action"),
                holding,
            )
        )
        total, entries = result.rows()[0]
        _paginate(req, resp, page, int(total or 0), filters={"query": query} if query else {})
        answer(resp, entries or b"[]")


class GenerateLinkResource:
    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords

    async def on_post(self, req: Request, resp: Response) -> None:
        require_admin(req)
        app, asked = app_of(req), await read(req, _LINK)
        await spare_service_roles(req, email=asked.email)
        asked = _redirected(req, asked)
        link = await links.make_link(app, self._passwords, asked, caller=Caller.of(req))
        answer(
            resp,
            msgspec.json.encode(
                {
                    **_OBJECT.decode(link.user),
                    "action_link": link_of(app, link.token, link.redirect_to),
                    "email_otp": link.token.code,
                    "hashed_token": link.token.link,
                    "verification_type": link.type,
                    "redirect_to": link.redirect_to,
                }
            ),
        )


class InviteResource:
    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords

    async def on_post(self, req: Request, resp: Response) -> None:
        require_admin(req)
        asked = await read(req, _INVITATION)
        await spare_service_roles(req, email=asked.email)
        invitation = links.LinkRequest(
            "invite", asked.email, data=asked.data, redirect_to=asked.redirect_to
        )
        link = await links.make_link(
            app_of(req),
            self._passwords,
            _redirected(req, invitation),
            caller=Caller.of(req),
            is_mailed=True,
        )
        answer(resp, link.user)


async def _read_change(req: Request) -> users.UserChange:
    """Raises InvalidAuthBodyError, NotAdminError."""
    asked = await read(req, _CHANGE)
    # By signing in as one, a key with the scope admin would get what the scope data opens.
    if asked.role == SERVICE_ROLE and is_app_key(req):
        raise NotAdminError("an app key gives nobody the role service_role")
    return asked


async def _end_all(req: Request, user_id: str) -> None:
    app, caller = app_of(req), Caller.of(req)
    await users.find(app, user_id)
    await app.service.run(
        sessions.end_statement(user_id, None, "global"),
        audit.entry("logout", user_id=user_id, caller=caller, traits={"reason": "admin"}),
    )


def _redirected(req: Request, asked: links.LinkRequest) -> links.LinkRequest:
    """Clients name the address in the query or in the body."""
    given = asked.redirect_to or _parameter(req, "redirect_to") or None
    return msgspec.structs.replace(asked, redirect_to=given)


def _user_id(text: str) -> str:
    return id_in_path(text, "user_id")


def _page(req: Request) -> Page:
    return read_page(_parameter(req, "page"), _parameter(req, "per_page"))


def _parameter(req: Request, name: str) -> str:
    """The last of that name; empty when there is none. Raises InvalidAuthBodyError."""
    text = req.get_param(name) or ""
    if "\0" in text:
        raise InvalidAuthBodyError(f"{name} holds a NUL character")
    return text


def _paginate(
    req: Request, resp: Response, page: Page, total: int, *, filters: dict[str, str]
) -> None:
    resp.set_header("X-Total-Count", str(total))
    resp.set_header("Link", link_header(req.path, page, total, filters=filters))
