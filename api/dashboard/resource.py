"""The dashboard: one page and its files, without any data.

The page asks the API for everything, as an operator who signs in to it, or with the service_role
key pasted into it. So the files are open to all, and what may run in the page is told by the policy
below.

https://www.w3.org/TR/CSP3/
https://www.w3.org/TR/trusted-types/
"""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import falcon
import msgspec
from falcon import ETag
from falcon.asgi import App, Request, Response
from msgspec import Struct

from butterbase.api.errors import NotFoundError

PAGE = "index.html"

# By suffix; a file with another one is not served.
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

HEADERS = {
    # Trusted types with no policy: text that a server sent cannot become markup or code, not even
    # where the page's own script makes that mistake.
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Asked for again each time, and answered 304 while it is the same.
    "Cache-Control": "no-cache",
}


class File(Struct, frozen=True):
    media_type: str
    body: bytes
    etag: str


def load_files(directory: Path) -> dict[str, File]:
    """The directory's files of MEDIA_TYPES by name."""
    files = {}
    for path in directory.iterdir():
        if path.suffix in MEDIA_TYPES:
            body = path.read_bytes()
            etag = hashlib.sha256(body).hexdigest()[:32]
            files[path.name] = File(MEDIA_TYPES[path.suffix], body, etag)
    return files


class DashboardResource:
    """`GET /dashboard`: the page; `GET /dashboard/{name}`: its script, style and icon."""

    is_open = True

    def __init__(self, files: dict[str, File]) -> None:
        self._files = files

    async def on_get(self, req: Request, resp: Response, name: str = PAGE) -> None:
        file = self._files.get(name)
        if file is None:
            raise NotFoundError(f"the dashboard has no file {name}")
        resp.set_headers(HEADERS)
        resp.etag = ETag(file.etag)
        if any(known in ("*", file.etag) for known in req.if_none_match or []):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = file.media_type
        resp.data = file.body

    on_head = on_get


class RootResource:
    """`GET /`: the dashboard for a browser; for programs, what this is and where things are."""

    is_open = True

    def __init__(self) -> None:
        self._about = msgspec.json.encode(
            {
                "name": "butterbase",
                "version": version("butterbase"),
                "links": {
                    "dashboard": "/dashboard",
                    "health": "/healthz",
                    "readiness": "/readyz",
                },
            }
        )

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.append_header("Vary", "Accept")
        # The first of equals is chosen: what accepts anything is no browser.
        if req.client_prefers([falcon.MEDIA_JSON, falcon.MEDIA_HTML]) == falcon.MEDIA_HTML:
            resp.status = falcon.HTTP_302
            resp.location = "/dashboard"
            return
        resp.content_type = falcon.MEDIA_JSON
        resp.data = self._about

    on_head = on_get


def add_routes(app: App[Any, Any]) -> None:
    dashboard = DashboardResource(load_files(Path(__file__).parent))
    app.add_route("/", RootResource())
    app.add_route("/dashboard", dashboard)
    app.add_route("/dashboard/", dashboard)
    app.add_route("/dashboard/{name}", dashboard)
