"""Whom a request comes from, where proxies stand between. Pure.

https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/X-Forwarded-For
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from butterbase.sql.errors import SettingError

_NETWORK_BITS = 64
"""Of an IPv6 address: one subscriber has all that begin so."""


class Proxies:
    """The addresses whose word is taken for where a request comes from."""

    def __init__(self, trusted: str) -> None:
        """Addresses and networks, comma-separated. Raises SettingError."""
        try:
            self._networks = [
                ip_network(part.strip(), strict=False)
                for part in trusted.split(",")
                if part.strip()
            ]
        except ValueError as error:
            raise SettingError(f"trusted_proxies: {error}") from error

    def client_of(self, peer: str, forwarded_for: str | None) -> str:
        """The address nearest to us that is no trusted proxy's; what is behind it is hearsay."""
        client = peer
        for hop in reversed(forwarded_for.split(",")) if forwarded_for else ():
            address = _parsed(hop)
            if address is None or not self._trusts(client):
                break
            client = str(address)
        return client

    def _trusts(self, client: str) -> bool:
        address = _parsed(client)
        return address is not None and any(address in network for network in self._networks)


def subscriber_of(client: str) -> str:
    """What is limited as one: an IPv4 address, or the network of an IPv6 one."""
    address = _parsed(client)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, _NETWORK_BITS), strict=False))
    return client


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
