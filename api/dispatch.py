"""The front of the web edge: the REST API's own application, and Falcon for everything else."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from butterbase.api.rest.departures import Receive
from butterbase.api.rest.endpoint import RestEndpoint, Scope, Send
from butterbase.sql.apps import FIRST_APP

Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_REST = re.compile(rb"(?:/v1/([^/]+))?/rest/v1(/.*)?")


class Dispatch:
    """The first app is served at the root and, like every app, below its own prefix."""

    def __init__(self, rest: RestEndpoint, falcon: "Callable[..., Any]") -> None:
        self._rest = rest
        self._falcon = falcon

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (found := _REST.fullmatch(scope["raw_path"])):
            app_id, path = found.groups()
            await self._rest(
                scope,
                receive,
                send,
                app_id=FIRST_APP if app_id is None else unquote_to_bytes(app_id).decode("latin-1"),
                path="/" if path is None else path.decode("latin-1"),
            )
            return
        await self._falcon(scope, receive, send)
