"""Cross-origin requests to the REST API: which headers a browser is told. Pure.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from typing import TypeAlias

from msgspec import Struct

Header: TypeAlias = tuple[bytes, bytes]

_METHODS = b"GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD"
_ACCEPTED = (b"Authorization", b"Accept", b"Accept-Language", b"Content-Language")
_EXPOSED = (
    b"Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, "
    b"Transfer-Encoding, Range-Unit"
)
_MAX_AGE = (b"access-control-max-age", b"86400")
_ANY = (b"access-control-allow-origin", b"*")


class Cors(Struct, frozen=True):
    origins: tuple[str, ...] = ()
    """Those that may read answers, with credentials; empty for all, without."""
    exposed: tuple[bytes, ...] = ()
    """Headers of answers that scripts may read, beside PostgREST's."""

    def headers(self, origin: bytes) -> list[Header]:
        """Of an answer to a request from that origin."""
        allowed = self._allowed(origin)
        names = b", ".join([_EXPOSED, *self.exposed])
        return [*allowed, (b"access-control-expose-headers", names)] if allowed else []

    def preflight(self, origin: bytes, asked_headers: bytes) -> list[Header] | None:
        """Of the answer to a preflight request; None for an origin that is not allowed."""
        allowed = self._allowed(origin)
        if not allowed:
            return None
        first, *simple = _ACCEPTED
        asked = [name.strip() for name in asked_headers.split(b",") if name.strip()]
        return [
            *allowed,
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", b", ".join([first, *asked, *simple])),
            _MAX_AGE,
        ]

    def _allowed(self, origin: bytes) -> list[Header]:
        if not self.origins:
            return [_ANY]
        if origin.decode("latin-1") not in self.origins:
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
        ]
