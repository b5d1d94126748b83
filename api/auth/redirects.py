"""Where a browser may be sent with what opens a session: the site, and the app's list. Pure.

An entry of the list is an address, or a glob, as globs.py has them. Scheme, host and path are
matched apart, so that no glob of a host reaches into the path. An entry has to name something of a
scheme, and of a web address's host, which no star at its end continues: one that lets in all hosts
would hand sessions to anybody who asks.
https://supabase.com/docs/guides/auth/redirect-urls
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, urlencode

from msgspec import Struct

from butterbase.api.auth.globs import glob

LENGTH_MAX: Final = 2000

# What runs in the page that is open, or shows what the address itself holds.
_FORBIDDEN_SCHEMES = frozenset(
    {"javascript", "data", "vbscript", "blob", "file", "filesystem", "about", "view-source"}
)
_WEB_SCHEMES = frozenset({"http", "https"})
_DEFAULT_PORTS = {"http": "80", "https": "443"}

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?://([^/?#]*))?([^#]*)(?:#.*)?")
# Browsers drop tabs and line breaks, and read a backslash as a slash.
_UNCLEAN = re.compile(r"[^!-~]|[\\<>\"^`{|}]")
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@]*)(?::([0-9]{1,5}))?")
# However often it is encoded, and as servers read it that take `;` for the end of a segment.
_DOT_SEGMENT = re.compile(
    r"(?:^|/|%(?:25)*(?:2f|5c))(?:\.|%(?:25)*2e){1,2}(?:;|/|%(?:25)*(?:3b|2f|5c)|$)", re.IGNORECASE
)
# The last label of a name is never a number, and browsers read one as an IPv4 address.
_NUMERIC = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)\.?")


class Url(Struct, frozen=True):
    """An address without its fragment."""

    scheme: str
    host: str | None
    """In lower case, an IPv6 address in brackets; None where there is no authority."""
    port: str
    """Empty where it is the scheme's own."""
    rest: str
    """Path and query."""

    @property
    def authority(self) -> str | None:
        return f"{self.host}:{self.port}" if self.port else self.host


def choose(*candidates: str | None, site_url: str, allow_list: Sequence[str] = ()) -> str:
    """The first candidate that is allowed, else the site's address."""
    for candidate in candidates:
        if candidate and is_allowed(candidate, site_url=site_url, allow_list=allow_list):
            return candidate
    return site_url


def is_allowed(url: str, *, site_url: str, allow_list: Sequence[str] = ()) -> bool:
    """Whether it is of the site's own origin or matches an entry of the list.

    On this machine any port is the site's, since what listens there has no port of its own (RFC
    8252, 7.3).
    """
    target, site = parse(url), parse(site_url)
    if target is None:
        return False
    if site is not None and site.host is not None and _is_same_site(target, site):
        return True
    if _DOT_SEGMENT.search(target.rest.partition("?")[0]):
        return False
    return any(_matches(target, entry) for entry in allow_list)


def parse(url: str) -> Url | None:
    """None for what a browser may read otherwise than we do, or would not load as a page."""
    if len(url) > LENGTH_MAX or _UNCLEAN.search(url):
        return None
    found = _URL.fullmatch(url)
    if found is None:
        return None
    scheme, authority, rest = found[1].lower(), found[2], found[3]
    if scheme in _FORBIDDEN_SCHEMES:
        return None
    if authority is None:
        # To a browser `https:example.com` and `https:/example.com` name a host as well.
        return None if scheme in _WEB_SCHEMES else Url(scheme, None, "", rest)
    parts = _AUTHORITY.fullmatch(authority.lower())
    if parts is None:
        return None
    host, port = parts[1], parts[2] or ""
    if scheme in _WEB_SCHEMES and not _is_host(host):
        return None
    if port and int(port) > 65535:
        return None
    port = str(int(port)) if port else ""
    return Url(scheme, host, "" if port == _DEFAULT_PORTS.get(scheme) else port, rest or "/")


def with_query(url: str, parameters: Mapping[str, str]) -> str:
    """The address with these parameters in the place of equal ones, and without its fragment."""
    head, _, query = url.partition("#")[0].partition("?")
    kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True)]
    kept = [(name, value) for name, value in kept if name not in parameters]
    return f"{head}?{urlencode([*kept, *parameters.items()])}"


def with_fragment(url: str, parameters: Mapping[str, str]) -> str:
    """The address with these parameters as its fragment, which no server is sent."""
    return f"{url.partition('#')[0]}#{urlencode(parameters)}"


def with_error(url: str, *, error: str, code: str, description: str) -> str:
    """In the query, for servers, and in the fragment, for pages."""
    parameters = {"error": error, "error_code": code, "error_description": description}
    return with_fragment(with_query(url, parameters), {**parameters, "sb": ""})


def _is_same_site(target: Url, site: Url) -> bool:
    if target.scheme != site.scheme or target.host != site.host:
        return False
    return target.port == site.port or (target.scheme == "http" and _is_loopback(target.host))


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address((host or "").strip("[]")).is_loopback
    except ValueError:
        return False


def _is_host(host: str) -> bool:
    """A name, or an address in its one plain form."""
    if host.startswith("[") or _NUMERIC.fullmatch(host):
        try:
            return str(ipaddress.ip_address(host.strip("[]"))) == host.strip("[]")
        except ValueError:
            return False
    return _HOST.fullmatch(host) is not None


def _matches(target: Url, entry: str) -> bool:
    entry = entry.partition("#")[0]
    scheme, separator, after = entry.partition("://")
    if not separator:
        # Not of the form scheme://host, as com.example.app:/callback.
        scheme, colon, after = entry.partition(":")
        return (
            bool(colon and _NAMED.search(scheme))
            and target.host is None
            and glob(scheme.lower()).matches(target.scheme)
            and glob(after).matches(target.rest)
        )
    if target.host is None or not glob(scheme.lower()).matches(target.scheme):
        return False
    is_web = target.scheme in _WEB_SCHEMES
    authority, slash, rest = after.partition("/")
    if not slash and authority.endswith("**"):
        # Of an app's own scheme, a host is where the path begins; of the web's it ends there.
        rest = "**"
    host = _PORT.sub("", authority)
    if not _NAMED.search(scheme) or (is_web and not _NAMED.search(host)):
        return False
    authority = authority.lower().removesuffix(f":{_DEFAULT_PORTS.get(target.scheme)}")
    return glob(authority, is_host=is_web).matches(target.authority or "") and glob(
        "/" + rest
    ).matches(target.rest)


_PORT = re.compile(r":[^:\]]*$")
_NAMED = re.compile(r"[A-Za-z0-9]")
