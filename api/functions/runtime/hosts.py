"""The hosts that a function may reach, as its permission says it. Pure."""

import ipaddress
import re
from collections.abc import Collection, Iterable
from typing import Final

from msgspec import Struct

from butterbase.api.functions.runtime.errors import InvalidNetPermissionError

_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_ENTRY: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:/\[\]]+)(?::(\d{1,5}))?")
_HOST_CHARS_MAX: Final = 253


class HostRule(Struct, frozen=True):
    host: str
    """In lower case; an address without brackets; `*` for any."""
    port: int | None
    """None for any."""
    is_suffix: bool = False
    """Whether the host is what follows `*`, with its dot."""

    def covers(self, host: str, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.is_suffix:
            return host.endswith(self.host) and len(host) > len(self.host)
        return self.host in ("*", host)


def parse_net(text: str) -> HostRule:
    """`host`, `host:port`, `*.host`, `[::1]:port` or `*`. Raises InvalidNetPermissionError."""
    found = _ENTRY.fullmatch(text.strip())
    if found is None:
        raise _invalid(text)
    port = int(found[2]) if found[2] else None
    if port is not None and not 1 <= port <= 65535:
        raise _invalid(text)
    host = found[1].lower()
    if host == "*":
        return HostRule(host, port)
    if host.startswith("["):
        return HostRule(_address(host[1:-1], text), port)
    is_suffix = host.startswith("*.")
    try:
        name = host.removeprefix("*.").encode("idna").decode().removesuffix(".")
    except UnicodeError:
        raise _invalid(text) from None
    labels = name.split(".")
    if len(name) > _HOST_CHARS_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise _invalid(text)
    # A suffix of an address is none of a name.
    if is_suffix and (len(labels) < 2 or labels[-1].isdigit()):
        raise _invalid(text)
    return HostRule(f".{name}" if is_suffix else name, port, is_suffix)


def normalize_host(host: str) -> str:
    """As rules have it."""
    return host.lower().removesuffix(".").removeprefix("[").removesuffix("]")


class AllowList:
    def __init__(self, rules: Iterable[HostRule]) -> None:
        self._rules: Collection[HostRule] = tuple(rules)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "AllowList":
        """Raises InvalidNetPermissionError."""
        return cls(parse_net(text) for text in texts)

    def covers(self, host: str, port: int) -> bool:
        name = normalize_host(host)
        return any(rule.covers(name, port) for rule in self._rules)


def _address(text: str, whole: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise _invalid(whole) from None


def _invalid(text: str) -> InvalidNetPermissionError:
    return InvalidNetPermissionError(
        f"{text!r} is no host that a function could reach",
        hint="write a host, and a port where only that one is meant: api.example.com,"
        " *.example.com:8443, [2001:db8::1]",
    )
