"""`/keys`: an app's keys, for its service role and for keys with the scope `admin`."""

import re
from typing import Any

import falcon
import msgspec
from falcon.asgi import App, Request, Response

from butterbase.ai.http.body import decode_json, read_body
from butterbase.api.apps import AppRuntime
from butterbase.api.keys.errors import (
    InvalidKeyRequestError,
    KeyAdminRequiredError,
    KeyNotFoundError,
)
from butterbase.api.keys.store import NewKey, create_key, list_keys, revoke_key
from butterbase.sql.claims import SERVICE_ROLE, Claims
from butterbase.sql.pipeline import Executor

BODY_BYTES_MAX = 8 * 1024

_NEW_KEY = msgspec.json.Decoder(NewKey)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def add_routes(app: "App[Any, Any]", prefix: str, control: Executor) -> None:
    app.add_route(f"{prefix}/keys", KeysResource(control))
    app.add_route(f"{prefix}/keys/{{key_id}}", KeyResource(control))


class KeysResource:
    def __init__(self, control: Executor) -> None:
        self._control = control

    async def on_get(self, req: Request, resp: Response) -> None:
        _check_may_manage(req.context.claims)
        keys = await list_keys(self._control, req.context.app_id)
        resp.content_type = falcon.MEDIA_JSON
        resp.data = msgspec.json.encode({"keys": keys})

    async def on_post(self, req: Request, resp: Response) -> None:
        claims: Claims = req.context.claims
        _check_may_manage(claims)
        body = await read_body(req, bytes_max=BODY_BYTES_MAX)
        made = await create_key(
            self._control,
            req.context.app_id,
            decode_json(_NEW_KEY, body, InvalidKeyRequestError),
            made_by=claims.key_id,
            request_id=req.context.request_id,
        )
        resp.status = falcon.HTTP_201
        resp.content_type = falcon.MEDIA_JSON
        resp.set_header("Cache-Control", "no-store")
        resp.data = msgspec.json.encode(made)


class KeyResource:
    def __init__(self, control: Executor) -> None:
        self._control = control

    async def on_delete(self, req: Request, resp: Response, key_id: str) -> None:
        _check_may_manage(req.context.claims)
        if not _UUID.fullmatch(key_id):
            raise KeyNotFoundError
        await revoke_key(
            self._control, req.context.app_id, key_id, request_id=req.context.request_id
        )
        app: AppRuntime = req.context.app
        app.keyring.forget()
        resp.status = falcon.HTTP_204


def _check_may_manage(claims: Claims) -> None:
    # An app key came this far only with the scope that the route needs.
    if claims.role != SERVICE_ROLE:
        raise KeyAdminRequiredError
