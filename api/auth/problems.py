"""Errors of `/auth/v1` on their way out, as auth-js and supabase_auth read them."""

import falcon
import msgspec
from falcon.asgi import Request, Response

from butterbase.api.auth.errors import STATUS, AuthError
from butterbase.sql.errors import nearest

_VERSION_HEADER = "X-Supabase-Api-Version"
_VERSION = "2024-01-01"


async def on_auth_error(
    req: Request, resp: Response, error: AuthError, _params: dict[str, object]
) -> None:
    """Newer clients send a version and read `code`; older ones read `error_code` and `msg`."""
    resp.status = status = nearest(STATUS, type(error))
    resp.content_type = falcon.MEDIA_JSON
    resp.set_header("X-Sb-Error-Code", error.code)
    if (req.get_header(_VERSION_HEADER) or "") >= _VERSION:
        resp.set_header(_VERSION_HEADER, _VERSION)
        body: dict[str, str | int] = {"code": error.code, "message": error.public_message}
    else:
        body = {"code": status, "error_code": error.code, "msg": error.public_message}
    resp.data = msgspec.json.encode(body)
