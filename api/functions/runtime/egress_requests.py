"""Requests as a function's process asks for them, and what of them is put on a connection.

That process may say anything, and connections are kept: a header or a path that is two things to
two readers would be read as a request of somebody else. So what is no clean HTTP is refused here.
https://www.rfc-editor.org/rfc/rfc9112.html#section-11.2

Pure.
"""

import re
from collections.abc import AsyncIterator
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

from msgspec import Struct
from multidict import CIMultiDict
from yarl import URL

from butterbase.api.functions.runtime.model import DEPTH_HEADER, FUNCTION_HEADER

Body: TypeAlias = bytes | AsyncIterator[bytes]

_METHOD: Final = re.compile(r"[A-Za-z-]{1,32}")
# https://fetch.spec.whatwg.org/#forbidden-method
_FORBIDDEN: Final = frozenset({"CONNECT", "TRACE", "TRACK"})
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_VALUE: Final = re.compile(
    r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
)
_HEADER_COUNT_MAX: Final = 200
_URL: Final = re.compile(r"[\x21-\x7e]{1,65536}")
_UNQUOTED: Final = "".join(map(chr, range(0x21, 0x7F)))

# Of one connection, or what is ours to say. RFC 9110, 7.6.1.
_DROPPED: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"),
        *("upgrade", "host", "content-length", "expect", "accept-encoding", "proxy-authorization"),
        *(DEPTH_HEADER, FUNCTION_HEADER),
    }
)
# What the api believes of a proxy, as which the host would come to it.
_FORWARDED: Final = ("x-forwarded-", "forwarded", "x-real-ip", "x-original-")


class EgressError(Exception):
    """Told to the function, as what `fetch` throws."""

    def __init__(self, message: str, *, is_permission: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.is_permission = is_permission


class EgressRequest(Struct, frozen=True):
    """As the function's process sends it."""

    call: int
    method: str
    url: str
    headers: list[tuple[str, str]]
    redirect: Literal["follow", "manual", "error"] = "follow"
    length: int | None = 0
    """Of the body, when it is known."""


class Origin(Struct, frozen=True):
    """Whose request it is. The platform's api is told the last two."""

    app_id: str
    depth: int = 0
    """How many functions it has come through before this one."""
    token: str | None = None
    """The function's own."""

    def __repr__(self) -> str:
        return f"Origin({self.app_id!r}, {self.depth})"


def method_of(asked: EgressRequest) -> str:
    """Raises EgressError."""
    if not _METHOD.fullmatch(asked.method) or asked.method.upper() in _FORBIDDEN:
        raise EgressError(f"{asked.method[:32]!r} is no method that can be asked")
    return asked.method


def headers_of(asked: EgressRequest) -> "CIMultiDict[str]":
    """Those that are the function's to say. Raises EgressError."""
    if len(asked.headers) > _HEADER_COUNT_MAX:
        raise EgressError(f"a request has {_HEADER_COUNT_MAX} headers at most")
    for name, value in asked.headers:
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise EgressError(f"{name[:64]!r} is no header that can be sent")
    return CIMultiDict(
        (name, value) for name, value in asked.headers if name.lower() not in _DROPPED
    )


def for_api(headers: "CIMultiDict[str]", origin: Origin) -> "CIMultiDict[str]":
    """The same, to the platform's own api."""
    own = CIMultiDict(
        (name, value) for name, value in headers.items() if not name.lower().startswith(_FORWARDED)
    )
    own[DEPTH_HEADER] = str(origin.depth + 1)
    if origin.token is not None:
        own[FUNCTION_HEADER] = origin.token
    return own


def parse_url(text: str) -> URL:
    """Raises EgressError."""
    try:
        url = URL(text, encoded=True) if _URL.fullmatch(text) else URL()
        if url.scheme in ("http", "https") and url.raw_host and url.port:
            return url.with_user(None).with_fragment(None)
    except ValueError:
        pass
    raise EgressError("only http and https URLs can be fetched")


def redirected(url: URL, location: str) -> URL:
    """Where an answer of the URL sends. Raises EgressError."""
    try:
        clean = quote(location, safe=_UNQUOTED, errors="surrogateescape")
        return parse_url(str(url.join(URL(clean, encoded=True))))
    except ValueError:
        raise EgressError(f"{url.host} redirects to what is no URL") from None


def becomes_get(method: str, status: int) -> bool:
    """https://fetch.spec.whatwg.org/#http-redirect-fetch"""
    if status == 303:
        return method not in ("GET", "HEAD")
    return status in (301, 302) and method == "POST"


async def exactly(body: AsyncIterator[bytes], length: int | None) -> AsyncIterator[bytes]:
    """The body, if it is as long as its request says: what is missing of it would be taken from
    whatever is sent next on its connection. Raises EgressError."""
    size = 0
    async for part in body:
        size += len(part)
        if length is not None and size > length:
            break
        yield part
    if length is not None and size != length:
        raise EgressError(f"the body is not of the {length} bytes that were announced")
