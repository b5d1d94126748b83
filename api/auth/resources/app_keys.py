"""What an app's key with the scope admin may not: by becoming a service_role it would get what the
scopes it was not given open.
"""

from typing import Any

from falcon.asgi import Request

from butterbase.api.auth.errors import NotAdminError
from butterbase.api.auth.oauth.flows import QUERIES
from butterbase.api.auth.resources.requests import app_of
from butterbase.sql.pipeline import Statement

_LEADING = frozenset({"mail", "providers", "site_url", "redirect_allow_list"})
"""Settings of where sign-ins lead, and of who vouches for whom."""


async def spare_service_roles(
    req: Request, *, user_id: str | None = None, email: str | None = None
) -> None:
    """Raises NotAdminError when an app's key is about a user of the role service_role."""
    if not is_app_key(req):
        return
    found = await _service_roles(req, email=email)
    if user_id in found or (email is not None and found):
        raise NotAdminError("an app key does not change who has the role service_role")


async def check_settings(req: Request, patch: dict[str, Any]) -> None:
    """Raises NotAdminError when an app's key would decide what others' tokens say."""
    if not is_app_key(req):
        return
    if "hooks" in patch:
        raise NotAdminError("an app key sets no hooks")
    if _LEADING & patch.keys() and await _service_roles(req):
        raise NotAdminError(
            f"an app key does not change {', '.join(sorted(_LEADING & patch.keys()))} while a user"
            " has the role service_role"
        )


async def hidden_users(req: Request) -> frozenset[str]:
    """Whose mails, which open their accounts, the caller is not shown."""
    return await _service_roles(req) if is_app_key(req) else frozenset()


def is_app_key(req: Request) -> bool:
    return req.context.claims.key_id is not None


async def _service_roles(req: Request, *, email: str | None = None) -> frozenset[str]:
    given = None if email is None else email.strip()
    (result,) = await app_of(req).service.run(Statement.of(QUERIES["service_roles"], given))
    return frozenset((row[0] or b"").decode() for row in result.rows())
